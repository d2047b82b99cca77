//! What becomes of the recordings that a killed process left behind, or that could not be finished: each is finished and
//! gets its name, at the start or as soon as that works.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::finish::{finished, measured, place};
use super::index::{Entry, Index, Writing};
use super::name::{self, NameFacts};
use super::repair::{RepairError, Repaired};
use super::{files, recorder::millis};
use crate::config::Container;
use crate::event::{Event, Events};
use crate::name::{MediaSessionId, StreamName};

/// What hides a file that cannot be finished from the next start, and keeps it for a person.
const BROKEN: &str = "broken";

/// How often what could not be finished is tried again.
const AGAIN: Duration = Duration::from_secs(5);

/// A directory of recordings that this process has for its own. Dropping the last handle lets another have it.
#[derive(Clone)]
pub struct Owned {
    lock: Arc<Mutex<Lock>>,
}

enum Lock {
    /// Held while the file is.
    Ours { _file: File },
    /// Another server has it.
    Theirs,
    /// It could not be had as yet: the file system is read-only, or there is no permission.
    Open,
}

/// Takes `dir` for this process and finishes what an earlier one left there ([`recover`]). Files that are unfinished
/// because another server writes them now are left alone: a directory that another has is not looked into. Blocks.
pub fn own(index: &Index, events: &Events) -> Owned {
    let lock = match files::lock(index.dir()) {
        Ok(lock) => taken(lock, index, events, &mut Rounds::default()),
        Err(error) => {
            tracing::warn!(
                dir = %index.dir().display(),
                "record_dir cannot be locked: unfinished recordings in it are left as they are until it can: {error}"
            );
            Lock::Open
        }
    };
    Owned { lock: Arc::new(Mutex::new(lock)) }
}

fn taken(lock: Option<File>, index: &Index, events: &Events, rounds: &mut Rounds) -> Lock {
    let Some(file) = lock else {
        tracing::warn!(
            dir = %index.dir().display(),
            "another server writes to this record_dir: unfinished recordings in it are left as they are"
        );
        return Lock::Theirs;
    };
    recover(index, events, rounds);
    Lock::Ours { _file: file }
}

impl Owned {
    /// Takes a directory that could not be taken as soon as it can be, and finishes files that could not be finished,
    /// until `stop`.
    pub(super) async fn keep(self, index: Index, events: Events, stop: CancellationToken) {
        let mut rounds = Rounds { recorders_run: true, ..Rounds::default() };
        while stop.run_until_cancelled(sleep(AGAIN)).await.is_some() {
            let (lock, index, events) = (self.lock.clone(), index.clone(), events.clone());
            let again = move || {
                try_again(&mut lock.lock().unwrap_or_else(PoisonError::into_inner), &index, &events, &mut rounds);
                rounds
            };
            // It fails only when the runtime ends.
            let Ok(after) = tokio::task::spawn_blocking(again).await else { return };
            rounds = after;
        }
    }
}

fn try_again(lock: &mut Lock, index: &Index, events: &Events, rounds: &mut Rounds) {
    match lock {
        Lock::Ours { .. } if index.has_left_files() => recover(index, events, rounds),
        Lock::Ours { .. } | Lock::Theirs => {}
        Lock::Open => {
            if let Ok(found) = files::lock(index.dir()) {
                *lock = taken(found, index, events, rounds);
            }
        }
    }
}

/// What is known from one round of finishing to the next.
#[derive(Default)]
struct Rounds {
    /// Why a file could not be finished, said once.
    told: HashMap<PathBuf, String>,
    /// New files may appear meanwhile.
    recorders_run: bool,
}

/// Finishes every unfinished recording that nobody has in hand. Nothing is deleted but files without media; what cannot be
/// finished is kept under a name that ends in `.broken`. Blocks.
fn recover(index: &Index, events: &Events, rounds: &mut Rounds) {
    let dir = index.dir();
    let files = match std::fs::read_dir(dir).and_then(|entries| entries.collect::<io::Result<Vec<_>>>()) {
        Ok(files) => files,
        // Somebody has taken it away, and the next recording makes it again.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
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
        let Some(pending) = file.file_name().and_then(|name| name.to_str()).and_then(name::finished) else { continue };
        let Some(container) = container_of(pending) else { continue };
        match recover_one(index, file, pending, container, rounds.recorders_run) {
            Ok(Some(event)) => events.tell(event),
            Ok(None) => {}
            Err(error) => {
                let reason = error.to_string();
                if rounds.told.insert(file.clone(), reason.clone()).is_none_or(|before| before != reason) {
                    tracing::warn!(file = %file.display(), "an unfinished recording is kept as it is: {reason}");
                }
            }
        }
    }
    reconcile(index, &paths).into_iter().for_each(|event| events.tell(event));
}

fn container_of(name: &str) -> Option<Container> {
    let extension = Path::new(name).extension()?;
    Container::ALL.into_iter().find(|container| extension == container.extension())
}

fn recover_one(
    index: &Index,
    file: &Path,
    pending: &str,
    container: Container,
    recorders_run: bool,
) -> io::Result<Option<Event>> {
    let known = index.entry(pending);
    if known.as_ref().is_some_and(|entry| entry.is_in_hand()) {
        return Ok(None);
    }
    let is_empty = std::fs::metadata(file)?.len() == 0;
    // One that a recorder makes just now is known a moment later.
    if is_empty && known.is_none() && recorders_run {
        return Ok(None);
    }
    match finished(index, file, container, None) {
        // Nothing came of it.
        Ok(None) => Ok(None),
        Ok(Some(found)) => {
            let known = known.and_then(|entry| entry.writing.clone());
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
        if there.exists() && entry.writing.is_none() || entry.is_in_hand() {
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
    let found = container.finish(file, None).ok()??;
    let known = Entry {
        ended: measured(writing.facts.clone(), &found).end.map(|end| end.wall_ms),
        duration: Some(millis(found.duration)).filter(|duration| *duration > 0),
        recovered: true,
        ..entry.clone()
    };
    index.placed(pending, name, known);
    Some(told(index, file.to_owned(), &found))
}
