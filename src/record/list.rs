//! What is in the directory of recordings, for everybody who lists it: REST and the command line.

use std::io;
use std::time::SystemTime;

use schemars::JsonSchema;
use serde::Serialize;

use super::index::{Entry, Index};
use super::name::finished;
use crate::event::epoch_ms;

/// Where a file of the directory is in its life; its name says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "RecordingState")]
pub enum FileState {
    /// Complete, to be played and downloaded.
    Finished,
    /// A recorder writes it, or it waits to be repaired at the next start.
    Writing,
    /// It could not be repaired and is kept for a person to look at.
    Broken,
}

/// A file of the directory, with what is known of it.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "Recording")]
pub struct RecordedFile {
    /// Its name.
    pub name: String,
    /// Bytes.
    pub size: u64,
    /// When it was last written to, epoch milliseconds.
    pub modified: u64,
    /// Where it is in its life.
    pub state: FileState,
    /// Whose it is and what is in it; empty for a file that is none of weir's.
    #[serde(flatten)]
    pub known: Entry,
}

impl FileState {
    /// The state that a file's name tells.
    pub fn of(name: &str) -> Self {
        if finished(name).is_some() {
            Self::Writing
        } else if name.ends_with(".broken") {
            Self::Broken
        } else {
            Self::Finished
        }
    }
}

/// The files of the directory of recordings, the newest first.
///
/// # Errors
/// The system's: the directory cannot be read.
pub async fn recorded_files(index: &Index) -> io::Result<Vec<RecordedFile>> {
    let index = index.clone();
    let listed = tokio::task::spawn_blocking(move || {
        let mut files = plain_files(&index)?;
        files.sort_by(|a, b| b.modified.cmp(&a.modified).then_with(|| b.name.cmp(&a.name)));
        Ok(files)
    });
    listed.await.map_err(io::Error::other)?
}

/// The plain files of a directory that are not hidden. Blocks.
fn plain_files(index: &Index) -> io::Result<Vec<RecordedFile>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(index.dir())? {
        let entry = entry?;
        let Some(name) = entry.file_name().to_str().filter(|name| !name.starts_with('.')).map(str::to_owned) else {
            continue;
        };
        // A file that got its final name since the directory was read is seen under that name next time.
        let Ok(about) = entry.metadata() else { continue };
        if about.is_file() {
            let known = index.entry(finished(&name).unwrap_or(&name));
            files.push(RecordedFile {
                size: about.len(),
                modified: epoch_ms(about.modified().unwrap_or(SystemTime::UNIX_EPOCH)),
                state: FileState::of(&name),
                known: known.map(|entry| entry.shown()).unwrap_or_default(),
                name,
            });
        }
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn names_tell_the_state() {
        for (name, state) in [
            ("a.mp4", FileState::Finished),
            ("a.webm", FileState::Finished),
            ("a.mp4.tmp", FileState::Writing),
            ("a.mp4.broken", FileState::Broken),
        ] {
            assert_eq!(FileState::of(name), state, "{name}");
        }
    }

    #[test]
    fn only_plain_files_are_listed() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("a.mp4"), "four").unwrap();
        std::fs::write(dir.path().join(".hidden"), "").unwrap();
        std::fs::create_dir(dir.path().join("folder")).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", dir.path().join("link.mp4")).unwrap();
        let index = Index::open(dir.path(), false);
        let known = Entry { stream: Some("a".into()), ..Entry::default() };
        index.note("a.mp4", known);
        let files = plain_files(&index).unwrap();
        assert_eq!(files.iter().map(|file| (file.name.as_str(), file.size)).collect::<Vec<_>>(), [("a.mp4", 4)]);
        assert_eq!(files[0].known.stream.as_deref(), Some("a"));
    }
}
