//! What a start does with the recordings a killed process left behind: finishes each and gives it its name.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::finish::{measured, place};
use super::index::{Entry, Index, Writing};
use super::name::{NameFacts, finished};
use super::repair::{RepairError, Repaired};
use super::{files, recorder::millis};
use crate::config::Container;
use crate::event::{Event, Events};
use crate::name::{MediaSessionId, StreamName};

/// What hides a file that cannot be finished from the next start, and keeps it for a person.
const BROKEN: &str = "broken";

/// A directory of recordings that this process has for its own. Dropping it lets another have it.
pub struct Owned {
    _lock: Option<std::fs::File>,
}

/// Takes `dir` for this process and finishes what an earlier one left there ([`recover`]). Files that are unfinished
/// because another server writes them now are left alone: a directory that another has is not looked into. Blocks.
pub fn own(index: &Index, events: &Events) -> Owned {
    let dir = index.dir();
    let lock = match files::lock(dir) {
        Ok(lock) => lock,
        Err(error) => {
            tracing::warn!(dir = %dir.display(), "record_dir cannot be locked, so unfinished recordings are left as they are: {error}");
            return Owned { _lock: None };
        }
    };
    match lock {
        Some(_) => recover(index, events),
        None => tracing::warn!(
            dir = %dir.display(),
            "another server writes to this record_dir: unfinished recordings in it are left as they are"
        ),
    }
    Owned { _lock: lock }
}

/// Finishes every unfinished recording. Nothing is deleted but empty files; what cannot be finished is kept under a name
/// that ends in `.broken`. Blocks.
fn recover(index: &Index, events: &Events) {
    let dir = index.dir();
    let files = match std::fs::read_dir(dir).and_then(|entries| entries.collect::<io::Result<Vec<_>>>()) {
        Ok(files) => files,
        Err(error) => {
            tracing::warn!(dir = %dir.display(), "unfinished recordings cannot be looked for: {error}");
            return;
        }
    };
    // A link or a folder of that name is nobody's recording.
    let plain = |file: &std::fs::DirEntry| file.file_type().is_ok_and(|kind| kind.is_file());
    let mut paths: Vec<PathBuf> = files.iter().filter(|file| plain(file)).map(std::fs::DirEntry::path).collect();
    paths.sort();
    for file in &paths {
        let Some(pending) = file.file_name().and_then(|name| name.to_str()).and_then(finished) else { continue };
        let Some(container) = container_of(pending) else { continue };
        match recover_one(index, file, pending, container) {
            Ok(Some(event)) => events.tell(event),
            Ok(None) => {}
            Err(error) => tracing::warn!(file = %file.display(), "an unfinished recording is kept as it is: {error}"),
        }
    }
    reconcile(index, &paths).into_iter().for_each(|event| events.tell(event));
}

fn container_of(name: &str) -> Option<Container> {
    let extension = Path::new(name).extension()?;
    Container::ALL.into_iter().find(|container| extension == container.extension())
}

fn recover_one(index: &Index, file: &Path, pending: &str, container: Container) -> io::Result<Option<Event>> {
    if std::fs::metadata(file)?.len() == 0 {
        std::fs::remove_file(file)?;
        index.forget(pending);
        return Ok(None);
    }
    match container.mend(file) {
        Ok(found) => {
            let known = index.entry(pending).and_then(|entry| entry.writing.clone());
            let facts = known.as_ref().map(|known| {
                let facts = NameFacts { extension: container.extension(), last: false, ..known.facts.clone() };
                measured(facts, &found)
            });
            // The name is made anew only where that makes another one: a `-2` behind a taken name is not in the facts.
            let name = match (&known, &facts) {
                (Some(Writing { rules, .. }), Some(facts)) if rules.is_pending() => rules.file_name(facts),
                _ => pending.to_owned(),
            };
            let placed = place(index, file, &name, |entry| {
                entry.ended = facts.and_then(|facts| facts.end).map(|end| end.wall_ms);
                entry.duration = Some(millis(found.duration)).filter(|duration| *duration > 0);
                entry.recovered = true;
            })?;
            Ok(Some(told(index, placed, &found)))
        }
        Err(RepairError::Io(error)) => Err(error),
        Err(error) => {
            let kept = files::commit(file, &format!("{pending}.{BROKEN}"))?;
            index.forget(pending);
            tracing::warn!(file = %kept.display(), "a recording cannot be finished and is kept for you to look at: {error}");
            Ok(None)
        }
    }
}

fn told(index: &Index, file: PathBuf, found: &Repaired) -> Event {
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    let known = index.entry(&name).map(Arc::unwrap_or_clone).unwrap_or_default();
    Event::RecordingFinished {
        stream: known.stream.and_then(|name| StreamName::new(&name).ok()),
        session: known.media_session_id.and_then(|id| MediaSessionId::new(&id).ok()),
        file,
        duration: found.duration,
        bytes: found.bytes_kept,
        last: true,
        recovered: true,
    }
}

/// Sidecars whose file is not there under their name: a process that died between naming the file and noting it left
/// one, and the file has the inode that it noted. What is left has been deleted by somebody.
fn reconcile(index: &Index, files: &[PathBuf]) -> Vec<Event> {
    let mut found = Vec::new();
    for (pending, entry) in index.entries() {
        let there = index.dir().join(&pending);
        if there.exists() && entry.writing.is_none() {
            continue;
        }
        let placed = entry.writing.as_ref().and_then(|writing| {
            let same = |file: &&PathBuf| std::fs::metadata(file).is_ok_and(|about| about.ino() == writing.inode);
            files.iter().find(same).map(|file| (file, writing))
        });
        match placed {
            Some((file, writing)) => found.extend(adopt(index, &pending, file, &entry, writing)),
            None => index.forget(&pending),
        }
    }
    found
}

/// Notes a file that is finished and has its name.
fn adopt(index: &Index, pending: &str, file: &Path, entry: &Entry, writing: &Writing) -> Option<Event> {
    let name = file.file_name()?.to_str()?;
    let container = container_of(name)?;
    let found = container.mend(file).ok()?;
    let known = Entry {
        ended: measured(writing.facts.clone(), &found).end.map(|end| end.wall_ms),
        duration: Some(millis(found.duration)).filter(|duration| *duration > 0),
        recovered: true,
        ..entry.clone()
    };
    index.placed(pending, name, known);
    Some(told(index, file.to_owned(), &found))
}
