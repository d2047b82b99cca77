//! `/rest-api/recordings`: the files of `record_dir`, with what is known of each.

use std::io;
use std::time::SystemTime;

use schemars::JsonSchema;
use serde::Serialize;
use warp::http::StatusCode;

use super::Api;
use super::answer::Answer;
use super::contract::Call;
use super::error::ApiError;
use super::files::plain;
use crate::event::epoch_ms;
use crate::record::name::finished;
use crate::record::{Entry, Index};

/// Where a file of the directory is in its life; its name says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "RecordingState")]
pub enum State {
    /// Complete, to be played and downloaded.
    Finished,
    /// A recorder writes it, or it waits to be repaired at the next start.
    Writing,
    /// It could not be repaired and is kept for a person to look at.
    Broken,
}

#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct Recording {
    name: String,
    size: u64,
    modified: u64,
    state: State,
    #[serde(flatten)]
    known: Entry,
}

/// The calls of this family, for the contract.
pub fn calls() -> Vec<Call> {
    vec![
        Call::get("/rest-api/recordings", "The files of record_dir.").gives::<Vec<Recording>>(),
        Call::delete("/rest-api/recordings/{name}", "Deletes a file that nobody writes and no hook script waits for."),
    ]
}

impl State {
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

/// `/recordings`: newest first.
pub async fn list(api: &Api) -> Result<Answer, ApiError> {
    let index = api.recordings.clone();
    let listed = tokio::task::spawn_blocking(move || {
        let mut files = files(&index)?;
        files.sort_by(|a, b| b.modified.cmp(&a.modified).then_with(|| b.name.cmp(&a.name)));
        Ok::<_, io::Error>(files)
    });
    let failed = |why: String| {
        ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "RecordingsUnreadable", format!("record_dir: {why}"))
    };
    let files = listed.await.map_err(|error| failed(error.to_string()))?;
    Answer::json(&files.map_err(|error| failed(error.to_string()))?)
}

/// `DELETE /recordings/{name}`: a finished file, or one that is broken.
pub async fn delete(api: &Api, name: &str) -> Result<Answer, ApiError> {
    let none = || ApiError::not_found("RecordNotFound", "there is no recording of that name");
    let name = plain(name).ok_or_else(none)?;
    let in_use = |why: &str| ApiError::new(StatusCode::CONFLICT, "RecordInUse", format!("{name} {why}"));
    if State::of(&name) == State::Writing {
        let exists = tokio::fs::try_exists(api.recordings.dir().join(&name)).await.unwrap_or(false);
        return Err(if exists { in_use("is being written") } else { none() });
    }
    if api.recordings.entry(&name).is_some_and(|entry| entry.hook.is_open()) {
        return Err(in_use("is still to be seen by its hook script (on_record_hook_script)"));
    }
    let (index, file) = (api.recordings.clone(), name.clone());
    let deleted = tokio::task::spawn_blocking(move || index.delete(&file)).await.map_err(io::Error::other);
    match deleted.flatten() {
        Ok(()) => Ok(Answer::Void),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(none()),
        Err(error) => {
            let sentence = format!("{name} cannot be deleted: {error}");
            Err(ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "RecordUndeletable", sentence))
        }
    }
}

/// The plain files of a directory that are not hidden, with what is known of each.
fn files(index: &Index) -> std::io::Result<Vec<Recording>> {
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
            files.push(Recording {
                size: about.len(),
                modified: epoch_ms(about.modified().unwrap_or(SystemTime::UNIX_EPOCH)),
                state: State::of(&name),
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
            ("a.mp4", State::Finished),
            ("a.webm", State::Finished),
            ("a.mp4.tmp", State::Writing),
            ("a.mp4.broken", State::Broken),
        ] {
            assert_eq!(State::of(name), state, "{name}");
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
        let mut known = Entry::default();
        known.stream = Some("a".into());
        index.note("a.mp4", known);
        let files = files(&index).unwrap();
        assert_eq!(files.iter().map(|file| (file.name.as_str(), file.size)).collect::<Vec<_>>(), [("a.mp4", 4)]);
        assert_eq!(files[0].known.stream.as_deref(), Some("a"));
    }
}
