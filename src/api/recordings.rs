//! `/rest-api/recordings`: the files of `record_dir`, with what is known of each.

use std::io;

use warp::http::StatusCode;

use super::Api;
use super::answer::Answer;
use super::call::Call;
use super::error::ApiError;
use super::files::plain;
use crate::record::{FileState, RecordedFile, recorded_files};

/// The calls of this family, for the contract.
pub fn calls() -> Vec<Call> {
    vec![
        Call::get("/rest-api/recordings", "The files of record_dir.").gives::<Vec<RecordedFile>>(),
        Call::delete("/rest-api/recordings/{name}", "Deletes a file that nobody writes and no hook script waits for."),
    ]
}

/// `/recordings`: newest first.
pub async fn list(api: &Api) -> Result<Answer, ApiError> {
    let files = recorded_files(&api.recordings).await.map_err(|error| {
        ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "RecordingsUnreadable", format!("record_dir: {error}"))
    })?;
    Answer::json(&files)
}

/// `DELETE /recordings/{name}`: a finished file, or one that is broken.
pub async fn delete(api: &Api, name: &str) -> Result<Answer, ApiError> {
    let none = || ApiError::not_found("RecordNotFound", "there is no recording of that name");
    let name = plain(name).ok_or_else(none)?;
    let in_use = |why: &str| ApiError::new(StatusCode::CONFLICT, "RecordInUse", format!("{name} {why}"));
    if FileState::of(&name) == FileState::Writing {
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
