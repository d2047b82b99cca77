//! What a start does with the recordings a killed process left behind: finishes each and gives it its name.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::container::Container;
use super::files;
use super::name::finished;
use super::repair::RepairError;
use crate::event::{Event, Events};

/// What hides a file that cannot be finished from the next start, and keeps it for a person.
const BROKEN: &str = "broken";

/// A directory of recordings that this process has for its own. Dropping it lets another have it.
pub struct Owned {
    _lock: Option<std::fs::File>,
}

/// Takes `dir` for this process and finishes what an earlier one left there ([`recover`]). Files that are unfinished
/// because another server writes them now are left alone: a directory that another has is not looked into. Blocks.
pub fn own(dir: &Path, events: &Events) -> Owned {
    let lock = match files::lock(dir) {
        Ok(lock) => lock,
        Err(error) => {
            tracing::warn!(dir = %dir.display(), "record_dir cannot be locked, so unfinished recordings are left as they are: {error}");
            return Owned { _lock: None };
        }
    };
    match lock {
        Some(_) => recover(dir, events),
        None => tracing::warn!(
            dir = %dir.display(),
            "another server writes to this record_dir: unfinished recordings in it are left as they are"
        ),
    }
    Owned { _lock: lock }
}

/// Finishes every unfinished recording in `dir`. Nothing is deleted but empty files; what cannot be finished is kept
/// under a name that ends in `.broken`. Blocks.
fn recover(dir: &Path, events: &Events) {
    let unfinished = match unfinished(dir) {
        Ok(files) => files,
        Err(error) => {
            tracing::warn!(dir = %dir.display(), "unfinished recordings cannot be looked for: {error}");
            return;
        }
    };
    for (file, name) in unfinished {
        match recover_one(&file, &name) {
            Ok(Some(event)) => events.tell(event),
            Ok(None) => {}
            Err(error) => tracing::warn!(file = %file.display(), "an unfinished recording is kept as it is: {error}"),
        }
    }
}

/// Temporary files and the names they are to have.
fn unfinished(dir: &Path) -> io::Result<Vec<(PathBuf, String)>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        if let Some(name) = entry.file_name().to_str().and_then(finished)
            && container_of(name).is_some()
            && entry.file_type()?.is_file()
        {
            files.push((entry.path(), name.to_owned()));
        }
    }
    files.sort();
    Ok(files)
}

fn container_of(name: &str) -> Option<Container> {
    let extension = Path::new(name).extension()?;
    Container::ALL.into_iter().find(|container| extension == container.extension())
}

fn recover_one(file: &Path, name: &str) -> io::Result<Option<Event>> {
    if std::fs::metadata(file)?.len() == 0 {
        std::fs::remove_file(file)?;
        return Ok(None);
    }
    let Some(container) = container_of(name) else { return Ok(None) };
    match container.mend(file, Duration::ZERO) {
        Ok(found) => Ok(Some(Event::RecordingFinished {
            stream: None,
            session: None,
            file: files::commit(file, name)?,
            duration: found.duration,
            bytes: found.bytes_kept,
            last: true,
            recovered: true,
        })),
        Err(RepairError::Io(error)) => Err(error),
        Err(error) => {
            let kept = files::commit(file, &format!("{name}.{BROKEN}"))?;
            tracing::warn!(file = %kept.display(), "a recording cannot be finished and is kept for you to look at: {error}");
            Ok(None)
        }
    }
}
