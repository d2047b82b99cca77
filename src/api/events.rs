//! `/rest-api/events`: what happens, as Server-Sent Events. Source of the format: HTML, section 9.2.

use std::convert::Infallible;
use std::path::Path;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures_util::{Stream, stream};
use serde_json::{Value, json};
use tokio::sync::broadcast::{self, error::RecvError};
use tokio_util::sync::CancellationToken;
use warp::Reply;
use warp::http::{HeaderValue, header};

use super::Api;
use super::answer::Answer;
use crate::event::{Event, epoch_ms};
use crate::name::mask;

/// How often a line is sent when nothing happens, so that no proxy takes the connection for dead.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// How long a browser waits before it comes back, milliseconds. Sent first: headers travel with the first bytes.
const HELLO: &[u8] = b"retry: 2000\n\n";

/// A reader of the feed. What it holds for a client that does not read is the feed's own backlog, and one line.
struct Reader {
    events: broadcast::Receiver<Event>,
    ending: CancellationToken,
    greeted: bool,
}

/// `/events`: goes on until the client leaves or the server stops.
pub fn follow(api: &Api) -> Answer {
    let reader = Reader { events: api.hub.events().read(), ending: api.ending.clone(), greeted: false };
    let mut response = warp::reply::stream(lines(reader)).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    Answer::Whole(response)
}

fn lines(reader: Reader) -> impl Stream<Item = Result<Bytes, Infallible>> {
    stream::unfold(reader, |mut reader| async move {
        let line = reader.next().await?;
        Some((Ok(line), reader))
    })
}

impl Reader {
    async fn next(&mut self) -> Option<Bytes> {
        if !self.greeted {
            self.greeted = true;
            return Some(Bytes::from_static(HELLO));
        }
        let event = tokio::select! {
            biased;
            () = self.ending.cancelled() => return None,
            event = tokio::time::timeout(KEEP_ALIVE, self.events.recv()) => event,
        };
        match event {
            Err(_) => Some(Bytes::from_static(b": nothing happened\n\n")),
            Ok(Ok(event)) => Some(named(shown(&event))),
            Ok(Err(RecvError::Lagged(missed))) => Some(named(("lagged", json!({"missed": missed})))),
            Ok(Err(RecvError::Closed)) => None,
        }
    }
}

/// An event as the format has it. JSON has no line ends.
fn named((name, mut fields): (&str, Value)) -> Bytes {
    fields["event"] = name.into();
    fields["timestamp"] = epoch_ms(SystemTime::now()).into();
    format!("event: {name}\ndata: {fields}\n\n").into()
}

/// The event's name, and its fields with secrets masked.
fn shown(event: &Event) -> (&'static str, Value) {
    let (name, stream, session, mut fields) = match event {
        Event::StreamStarted { stream, session, by } => {
            ("streamStarted", Some(stream), Some(session), json!({"by": mask(by)}))
        }
        Event::StreamLive { stream, session, tracks } => {
            ("streamLive", Some(stream), Some(session), json!({"tracks": mask(tracks)}))
        }
        Event::StreamInterrupted { stream, session, reason } => {
            ("streamInterrupted", Some(stream), Some(session), json!({"reason": mask(reason)}))
        }
        Event::StreamWaits { stream, session, reason } => {
            ("streamWaits", Some(stream), Some(session), json!({"reason": mask(reason)}))
        }
        Event::StreamEnded { stream, session, info } => {
            ("streamEnded", Some(stream), Some(session), json!({"info": mask(info)}))
        }
        Event::SessionStatus { stream, session, status, info, published, app_key, .. } => {
            let info = info.as_deref().map(mask);
            let fields = json!({"status": status, "info": info, "published": published, "appKey": app_key});
            ("sessionStatus", Some(stream), Some(session), fields)
        }
        Event::PullRetry { stream, session, reason, attempts, wait } => {
            let fields = json!({"reason": mask(reason), "attempts": attempts, "wait": ms(*wait)});
            ("pullRetry", Some(stream), Some(session), fields)
        }
        Event::PullFailed { stream, session, reason } => {
            ("pullFailed", Some(stream), Some(session), json!({"reason": mask(reason)}))
        }
        Event::RecordingStarted { stream, session, file } => {
            ("recordingStarted", Some(stream), Some(session), json!({"name": file_name(file)}))
        }
        Event::RecordingFinished { stream, session, file, duration, bytes, recovered, last } => {
            let fields = json!({"name": file_name(file), "duration": ms(*duration), "size": bytes, "recovered": recovered, "last": last});
            ("recordingFinished", stream.as_ref(), session.as_ref(), fields)
        }
        Event::RecordingHooked { stream, session, file, exit, failure, took } => {
            let failure = failure.as_deref().map(mask);
            let fields = json!({"name": file_name(file), "exitCode": exit, "reason": failure, "took": ms(*took)});
            ("recordingHooked", stream.as_ref(), session.as_ref(), fields)
        }
        Event::RecordingFailed { stream, session, reason } => {
            ("recordingFailed", Some(stream), Some(session), json!({"reason": mask(reason)}))
        }
    };
    // A stream's name masks itself when it is shown.
    fields["stream"] = stream.map(ToString::to_string).into();
    fields["mediaSessionId"] = session.map(ToString::to_string).into();
    (name, fields)
}

fn ms(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// Where the file lies on the host is nothing a client needs.
fn file_name(file: &Path) -> String {
    file.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::event::Events;
    use crate::name::{MediaSessionId, StreamName};

    fn reader(events: &Events) -> Reader {
        Reader { events: events.read(), ending: CancellationToken::new(), greeted: true }
    }

    fn ended(info: &str) -> Event {
        let stream = StreamName::new("rtmp://u:secret@h/a").unwrap();
        Event::StreamEnded { stream, session: MediaSessionId::random(), info: info.to_owned() }
    }

    #[tokio::test]
    async fn an_event_is_one_line_of_json_without_secrets() {
        let events = Events::default();
        let mut reader = reader(&events);
        events.tell(ended("two\nlines of rtmp://u:secret@h/a"));
        let text = String::from_utf8(reader.next().await.unwrap().to_vec()).unwrap();
        let data = text.strip_prefix("event: streamEnded\ndata: ").unwrap().strip_suffix("\n\n").unwrap();
        assert!(!data.contains('\n') && !data.contains("secret"), "{data}");
        let data: Value = serde_json::from_str(data).unwrap();
        assert_eq!(data["stream"], "rtmp://u:***@h/a");
        assert_eq!(data["event"], "streamEnded");
        assert!(data["timestamp"].is_u64());
    }

    #[tokio::test]
    async fn a_reader_that_lags_is_told_and_goes_on() {
        let events = Events::default();
        let mut reader = reader(&events);
        for n in 0..5000 {
            events.tell(ended(&n.to_string()));
        }
        let first = reader.next().await.unwrap();
        assert!(first.starts_with(b"event: lagged\ndata: {"), "{first:?}");
        assert!(reader.next().await.unwrap().starts_with(b"event: streamEnded\n"));
    }

    #[tokio::test(start_paused = true)]
    async fn silence_is_kept_alive_and_the_end_is_the_end() {
        let events = Events::default();
        let mut reader = reader(&events);
        assert!(reader.next().await.unwrap().starts_with(b":"));
        reader.ending.cancel();
        events.tell(ended("late"));
        assert!(reader.next().await.is_none());
    }
}
