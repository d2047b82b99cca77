//! The one feed of what happened. The log, and later the hooks, the browsers and the metrics, read it.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::Value;
use tokio::sync::broadcast;

use crate::name::{MediaSessionId, StreamName};

/// How many events a reader may lag behind before it misses some.
const BACKLOG: usize = 4096;

/// Something that happened, told once.
#[derive(Debug, Clone)]
pub enum Event {
    /// A publisher took a name.
    StreamStarted {
        /// The stream.
        stream: StreamName,
        /// Its publisher's media session.
        session: MediaSessionId,
        /// Who feeds it, for people: `rtmp pull of rtmp://…`.
        by: String,
    },
    /// Media flows; the tracks are known.
    StreamLive {
        /// The stream.
        stream: StreamName,
        /// Its publisher's media session.
        session: MediaSessionId,
        /// The tracks, for people: `H264 1280x720, mpeg4-generic/44100/2`.
        tracks: String,
    },
    /// The source went away; the stream stays and waits for it.
    StreamInterrupted {
        /// The stream.
        stream: StreamName,
        /// Its publisher's media session.
        session: MediaSessionId,
        /// Why.
        reason: String,
    },
    /// The publisher has left; the stream stays and waits for it.
    StreamWaits {
        /// The stream.
        stream: StreamName,
        /// The publisher's media session.
        session: MediaSessionId,
        /// For people: for how long.
        reason: String,
    },
    /// The stream is gone.
    StreamEnded {
        /// The stream.
        stream: StreamName,
        /// Its publisher's media session.
        session: MediaSessionId,
        /// Why.
        info: String,
    },
    /// A media session, publisher or player, has another status.
    SessionStatus {
        /// The stream.
        stream: StreamName,
        /// The media session.
        session: MediaSessionId,
        /// WCS's word: `PUBLISHING`, `PLAYING`, `UNPUBLISHED`, `STOPPED`, `FAILED`.
        status: &'static str,
        /// WCS's text, for the last three.
        info: Option<String>,
        /// Publisher, not player.
        published: bool,
        /// The connection it came by.
        connection: String,
        /// The application.
        app_key: String,
        /// The session as WCS shows it, names unmasked.
        shown: Arc<Value>,
    },
    /// A pull agent failed to get its source and tries again.
    PullRetry {
        /// The stream it publishes.
        stream: StreamName,
        /// The agent's media session.
        session: MediaSessionId,
        /// Why the last try ended.
        reason: String,
        /// How many tries in a row failed.
        attempts: u32,
        /// When it tries again.
        wait: Duration,
    },
    /// A pull agent gave up.
    PullFailed {
        /// The stream it would have published.
        stream: StreamName,
        /// The agent's media session.
        session: MediaSessionId,
        /// Why.
        reason: String,
    },
    /// A recorder began a file.
    RecordingStarted {
        /// The stream.
        stream: StreamName,
        /// The publisher's media session.
        session: MediaSessionId,
        /// The file while it is written.
        file: PathBuf,
    },
    /// A file is finished and in place.
    RecordingFinished {
        /// The stream; `None` for a file repaired after a crash, which does not know it.
        stream: Option<StreamName>,
        /// The publisher's media session, where known.
        session: Option<MediaSessionId>,
        /// The finished file.
        file: PathBuf,
        /// Its duration; zero where it is not known (a WebM repaired after a crash).
        duration: Duration,
        /// Its size in bytes.
        bytes: u64,
        /// No part of this recording follows.
        last: bool,
        /// It was left behind by a process that died.
        recovered: bool,
    },
    /// The hook script has seen a file, or could not.
    RecordingHooked {
        /// The stream, where known.
        stream: Option<StreamName>,
        /// The publisher's media session, where known.
        session: Option<MediaSessionId>,
        /// The file.
        file: PathBuf,
        /// The script's exit code; `None` where it has none.
        exit: Option<i32>,
        /// Why it has none: it could not be started, or was ended.
        failure: Option<String>,
        /// How long it ran.
        took: Duration,
    },
    /// A recorder cannot go on.
    RecordingFailed {
        /// The stream.
        stream: StreamName,
        /// The publisher's media session.
        session: MediaSessionId,
        /// Why.
        reason: String,
    },
}

/// Epoch milliseconds, as WCS writes times.
pub fn epoch_ms(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Where events are told and read. Telling never waits.
#[derive(Clone)]
pub struct Events(broadcast::Sender<Event>);

impl Default for Events {
    fn default() -> Self {
        Self(broadcast::Sender::new(BACKLOG))
    }
}

impl Events {
    /// Tells an event to whoever reads.
    pub fn tell(&self, event: Event) {
        // Nobody reading is no failure.
        let _ = self.0.send(event);
    }

    /// Reads from now on.
    pub fn read(&self) -> broadcast::Receiver<Event> {
        self.0.subscribe()
    }
}

/// One line in the log for each event, with the stream's name and id.
pub async fn log(mut events: broadcast::Receiver<Event>) {
    loop {
        match events.recv().await {
            Ok(event) => event.log(),
            Err(broadcast::error::RecvError::Lagged(missed)) => {
                tracing::warn!(missed, "the log could not keep up with the events");
            }
            Err(broadcast::error::RecvError::Closed) => return,
        }
    }
}

impl Event {
    fn log(&self) {
        use tracing::{debug, info, warn};
        match self {
            Event::StreamStarted { stream, session, by } => info!(%stream, %session, "stream started by {by}"),
            Event::StreamLive { stream, session, tracks } => info!(%stream, %session, "stream is live: {tracks}"),
            Event::StreamInterrupted { stream, session, reason } => {
                warn!(%stream, %session, "stream interrupted: {reason}");
            }
            Event::StreamWaits { stream, session, reason } => info!(%stream, %session, "stream waits: {reason}"),
            Event::StreamEnded { stream, session, info } => info!(%stream, %session, "stream ended: {info}"),
            Event::SessionStatus { stream, session, status, info, .. } => {
                debug!(%stream, %session, info, "session is {status}");
            }
            Event::PullRetry { stream, session, reason, attempts, wait } => {
                warn!(%stream, %session, attempts, wait_ms = wait.as_millis() as u64, "pull has no source: {reason}");
            }
            Event::PullFailed { stream, session, reason } => warn!(%stream, %session, "pull gave up: {reason}"),
            Event::RecordingStarted { stream, session, file } => {
                info!(%stream, %session, file = %file.display(), "recording started");
            }
            Event::RecordingFinished { stream, session, file, duration, bytes, recovered, .. } => {
                let stream = stream.as_ref().map(tracing::field::display);
                let session = session.as_ref().map(tracing::field::display);
                let seconds = duration.as_secs_f64();
                info!(stream, session, file = %file.display(), seconds, bytes, recovered, "recording finished");
            }
            Event::RecordingHooked { file, exit: Some(0), took, .. } => {
                info!(file = %file.display(), ms = took.as_millis() as u64, "hook script done");
            }
            Event::RecordingHooked { file, exit, failure, .. } => {
                let code = exit.map(|code| format!("it ended with exit code {code}"));
                let reason = failure.clone().or(code).unwrap_or_default();
                warn!(file = %file.display(), "hook script failed: {reason}");
            }
            Event::RecordingFailed { stream, session, reason } => {
                warn!(%stream, %session, "recording failed: {reason}");
            }
        }
    }
}
