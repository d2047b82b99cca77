//! `/rest-api/recordings`: the files of `record_dir`, with what the events told of them.

use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use schemars::JsonSchema;
use serde::Serialize;
use tokio::sync::{broadcast, watch};
use tokio_util::task::TaskTracker;
use warp::http::StatusCode;

use super::Api;
use super::contract::Call;
use super::error::ApiError;
use super::routes::Answer;
use crate::event::{Event, epoch_ms};
use crate::record::name::finished;

/// Of how many files the events' words are kept: older ones are listed all the same, by what the disk knows.
const REMEMBERED: usize = 4096;

/// The directory of recordings, and what events told of its files. A cheap handle.
#[derive(Clone)]
pub struct Recordings {
    dir: Arc<Path>,
    told: watch::Receiver<Told>,
}

/// What events told, by file name.
#[derive(Default)]
struct Told {
    files: BTreeMap<String, About>,
    /// The names in the order they came.
    order: VecDeque<String>,
}

#[derive(Clone, Default)]
struct About {
    stream: Option<String>,
    duration: Option<Duration>,
}

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
    stream: Option<String>,
    /// Milliseconds.
    duration: Option<u64>,
}

/// The calls of this family, for the contract.
pub fn calls() -> Vec<Call> {
    vec![Call::get("/rest-api/recordings", "The files of record_dir.").gives::<Vec<Recording>>()]
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

impl Recordings {
    /// Listens to the events from now on, in a task of its own that ends with the feed.
    pub fn follow(dir: PathBuf, events: broadcast::Receiver<Event>, tasks: &TaskTracker) -> Self {
        let (view, told) = watch::channel(Told::default());
        tasks.spawn(listen(events, view));
        Self { dir: dir.into(), told }
    }

    /// The directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }
}

async fn listen(mut events: broadcast::Receiver<Event>, view: watch::Sender<Told>) {
    loop {
        match events.recv().await {
            Ok(event) => view.send_modify(|told| told.hear(event)),
            // What is missed here is missing in the list, and the file is listed all the same.
            Err(broadcast::error::RecvError::Lagged(_)) => {}
            Err(broadcast::error::RecvError::Closed) => return,
        }
    }
}

impl Told {
    fn hear(&mut self, event: Event) {
        let (file, about) = match event {
            Event::RecordingStarted { stream, file, .. } => {
                (file, About { stream: Some(stream.to_string()), duration: None })
            }
            Event::RecordingFinished { stream, file, duration, .. } => {
                (file, About { stream: stream.map(|stream| stream.to_string()), duration: Some(duration) })
            }
            _ => return,
        };
        let Some(name) = file.file_name().and_then(|name| name.to_str()) else { return };
        if self.files.insert(name.to_owned(), about).is_none() {
            self.order.push_back(name.to_owned());
        }
        if self.order.len() > REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.files.remove(&oldest);
        }
    }
}

/// `/recordings`: newest first.
pub async fn list(api: &Api) -> Result<Answer, ApiError> {
    let recordings = api.recordings.clone();
    let listed = tokio::task::spawn_blocking(move || {
        let mut files = files(recordings.dir())?;
        let told = recordings.told.borrow();
        for file in &mut files {
            let about = told.files.get(&file.name).cloned().unwrap_or_default();
            file.stream = about.stream;
            file.duration = about.duration.map(|long| u64::try_from(long.as_millis()).unwrap_or(u64::MAX));
        }
        files.sort_by(|a, b| b.modified.cmp(&a.modified).then_with(|| b.name.cmp(&a.name)));
        Ok::<_, std::io::Error>(files)
    });
    let failed = |why: String| {
        ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "RecordingsUnreadable", format!("record_dir: {why}"))
    };
    let files = listed.await.map_err(|error| failed(error.to_string()))?;
    Answer::json(&files.map_err(|error| failed(error.to_string()))?)
}

/// The plain files of a directory that are not hidden.
fn files(dir: &Path) -> std::io::Result<Vec<Recording>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        let Some(name) = entry.file_name().to_str().filter(|name| !name.starts_with('.')).map(str::to_owned) else {
            continue;
        };
        // A file that got its final name since the directory was read is seen under that name next time.
        let Ok(about) = entry.metadata() else { continue };
        if about.is_file() {
            files.push(Recording {
                size: about.len(),
                modified: epoch_ms(about.modified().unwrap_or(SystemTime::UNIX_EPOCH)),
                state: State::of(&name),
                stream: None,
                duration: None,
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
    use crate::name::{MediaSessionId, StreamName};

    fn started(file: &str) -> Event {
        let stream = StreamName::new("rtmp://u:secret@h/live").unwrap();
        Event::RecordingStarted { stream, session: MediaSessionId::random(), file: file.into() }
    }

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
    fn what_events_tell_is_bounded_and_masked() {
        let mut told = Told::default();
        for n in 0..=REMEMBERED {
            told.hear(started(&format!("/r/{n}.mp4.tmp")));
            told.hear(started(&format!("/r/{n}.mp4.tmp")));
        }
        assert_eq!((told.files.len(), told.order.len()), (REMEMBERED, REMEMBERED));
        assert!(!told.files.contains_key("0.mp4.tmp"));
        assert_eq!(told.files["1.mp4.tmp"].stream.as_deref(), Some("rtmp://u:***@h/live"));
    }

    #[test]
    fn only_plain_files_are_listed() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("a.mp4"), "four").unwrap();
        std::fs::write(dir.path().join(".hidden"), "").unwrap();
        std::fs::create_dir(dir.path().join("folder")).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", dir.path().join("link.mp4")).unwrap();
        let files = files(dir.path()).unwrap();
        assert_eq!(files.iter().map(|file| (file.name.as_str(), file.size)).collect::<Vec<_>>(), [("a.mp4", 4)]);
    }
}
