//! What is counted as it happens, because no snapshot keeps it: times of calls, first frames, refusals, what events told.
//!
//! Everything here is an atomic, or behind a lock that is held for the time of a look-up; nothing of it lies on a frame's
//! path. What is (streams, viewers, agents) is not counted here but read from the snapshots when somebody asks.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use tokio::sync::broadcast;
use tokio_util::task::TaskTracker;

use crate::event::{Event, Events};
use crate::name::MediaSessionId;

/// Borders of the times of calls, seconds: most take under a millisecond, a terminate waits for a pipeline's end.
const CALL_SECONDS: [f64; 10] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05, 0.1, 0.5, 2.5, 10.0];
/// Borders of the time to the first frame, seconds.
const FIRST_FRAME_SECONDS: [f64; 10] = [0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 60.0];
/// Borders of the times of a hook server's answers, seconds: a viewer waits for some of them.
const HOOK_SECONDS: [f64; 10] = [0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 15.0];
/// Borders of the times of the script that sees recordings, seconds.
const SCRIPT_SECONDS: [f64; 8] = [0.01, 0.05, 0.25, 1.0, 5.0, 30.0, 120.0, 600.0];

/// Who plays: browsers, and RTMP clients in WCS's word.
const ENGINES: [&str; 2] = ["WebRTC", "Flash"];
/// How the script that sees a recording ended; the last was ended, or did not begin.
const RESULTS: [&str; 3] = ["ok", "failed", "ended"];

/// The settings that limit something, and whose refusals are counted.
const LIMITS: [&str; 14] = [
    "max_streams",
    "max_viewers_per_stream",
    "max_pull_agents",
    "max_recordings",
    "ws_max_connections",
    "ws_max_sessions",
    "ws_max_message",
    "rest_max_connections",
    "rest_max_requests",
    "rest_max_body",
    "rest_header_timeout",
    "rest_body_timeout",
    "rtmp_max_connections",
    "reserved_descriptors",
];

/// Where somebody is not let in, and why: what REST and the command line log in with, what a stream asks for.
const DENIALS: [(&str, &str); 14] = [
    ("rest", "password"),
    ("rest", "token"),
    ("rest", "busy"),
    ("ssh", "password"),
    ("publish", "missing"),
    ("publish", "expired"),
    ("publish", "token"),
    ("publish", "password"),
    ("publish", "wait"),
    ("play", "missing"),
    ("play", "expired"),
    ("play", "token"),
    ("play", "password"),
    ("play", "wait"),
];

/// A kind of call and how it ended. The kinds are few and ours: no label's value comes from a client.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Call {
    family: &'static str,
    status: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Limit {
    limit: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Denial {
    door: &'static str,
    reason: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Engine {
    engine: &'static str,
}

/// A hook's method and what came of its calls; both are words of ours.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Hook {
    method: &'static str,
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Run {
    result: &'static str,
}

/// The counters. A cheap handle.
#[derive(Clone)]
pub struct Meter(Arc<Counters>);

struct Counters {
    calls: Family<Call, Histogram, fn() -> Histogram>,
    first_frames: Histogram,
    first_views: Family<Engine, Histogram, fn() -> Histogram>,
    hooks: Family<Hook, Histogram, fn() -> Histogram>,
    scripts: Family<Run, Histogram, fn() -> Histogram>,
    refusals: Family<Limit, Counter>,
    denials: Family<Denial, Counter>,
    streams: Counter,
    interruptions: Counter,
    retries: Counter,
    failed_pulls: Counter,
    recordings: Counter,
    failed_recordings: Counter,
    recorded_bytes: Counter,
    missed_events: Counter,
}

impl Default for Meter {
    fn default() -> Self {
        let refusals = Family::default();
        // There from the start, so that the first one is a rise and no new series.
        LIMITS.iter().for_each(|limit| drop(refusals.get_or_create(&Limit { limit })));
        let denials = Family::default();
        DENIALS.iter().for_each(|&(door, reason)| drop(denials.get_or_create(&Denial { door, reason })));
        let first_views: Family<_, _, fn() -> _> =
            Family::new_with_constructor((|| Histogram::new(FIRST_FRAME_SECONDS)) as fn() -> Histogram);
        ENGINES.iter().for_each(|engine| drop(first_views.get_or_create(&Engine { engine })));
        let scripts: Family<_, _, fn() -> _> =
            Family::new_with_constructor((|| Histogram::new(SCRIPT_SECONDS)) as fn() -> Histogram);
        RESULTS.iter().for_each(|result| drop(scripts.get_or_create(&Run { result })));
        Self(Arc::new(Counters {
            calls: Family::new_with_constructor(|| Histogram::new(CALL_SECONDS)),
            first_frames: Histogram::new(FIRST_FRAME_SECONDS),
            first_views,
            hooks: Family::new_with_constructor(|| Histogram::new(HOOK_SECONDS)),
            scripts,
            refusals,
            denials,
            streams: Counter::default(),
            interruptions: Counter::default(),
            retries: Counter::default(),
            failed_pulls: Counter::default(),
            recordings: Counter::default(),
            failed_recordings: Counter::default(),
            recorded_bytes: Counter::default(),
            missed_events: Counter::default(),
        }))
    }
}

impl Meter {
    /// Counts what events tell, in a task that ends with the feed.
    pub fn follow(&self, events: &Events, tasks: &TaskTracker) {
        let (meter, feed) = (self.clone(), events.read());
        tasks.spawn(async move { meter.read(feed).await });
    }

    /// A call over HTTP has been answered. `family` is one of few.
    pub fn call(&self, family: &'static str, status: u16, took: Duration) {
        self.0.calls.get_or_create(&Call { family, status }).observe(took.as_secs_f64());
    }

    /// A player gets its first media, so long after it asked. `engine` is one of few.
    pub fn viewed(&self, engine: &'static str, took: Duration) {
        self.0.first_views.get_or_create(&Engine { engine }).observe(took.as_secs_f64());
    }

    /// A hook server was called: once, with this outcome. Both words are of few.
    pub fn hooked(&self, method: &'static str, outcome: &'static str, took: Duration) {
        self.0.hooks.get_or_create(&Hook { method, outcome }).observe(took.as_secs_f64());
    }

    /// Something was refused; `limit` is the setting that says how much there may be.
    pub fn refused(&self, limit: &'static str) {
        self.0.refusals.get_or_create(&Limit { limit }).inc();
    }

    /// Somebody was not let in at `door`, for `reason`. Both are words of ours; those in use have a series from the start.
    pub fn denied(&self, door: &'static str, reason: &'static str) {
        self.0.denials.get_or_create(&Denial { door, reason }).inc();
    }

    /// Makes all of it part of what a registry shows.
    pub fn show(&self, registry: &mut Registry) {
        let all = &self.0;
        registry.register("weir_call_seconds", "Time from a call's headers to its answer", all.calls.clone());
        let help = "Time from a publisher's start to its first frames";
        registry.register("weir_first_frame_seconds", help, all.first_frames.clone());
        let help = "Time from a player's request to the first media for it, by its engine";
        registry.register("weir_first_view_seconds", help, all.first_views.clone());
        let help = "Time of each call of a hook server, by its method and outcome: ok, refused, garbage, unreachable";
        registry.register("weir_hook_seconds", help, all.hooks.clone());
        let help = "Time of each run of the script that sees recordings, by its result: ok, failed, ended";
        registry.register("weir_record_script_seconds", help, all.scripts.clone());
        registry.register("weir_refusals", "What was refused, by the setting that limits it", all.refusals.clone());
        let help = "Who was not let in: where (rest, ssh, publish, play) and why";
        registry.register("weir_denials", help, all.denials.clone());
        for (name, help, counter) in [
            ("weir_streams_started", "Streams that were started", &all.streams),
            ("weir_stream_interruptions", "Sources that went away while their stream stayed", &all.interruptions),
            ("weir_pull_retries", "Tries of pull agents to get their source again", &all.retries),
            ("weir_pull_failures", "Pull agents that gave up", &all.failed_pulls),
            ("weir_recordings_finished", "Recorded files that were finished", &all.recordings),
            ("weir_recording_failures", "Recorders that could not go on", &all.failed_recordings),
            ("weir_recorded_bytes", "Bytes of finished recordings", &all.recorded_bytes),
            ("weir_missed_events", "Events that were not counted, as there were too many at once", &all.missed_events),
        ] {
            registry.register(name, help, counter.clone());
        }
    }

    async fn read(&self, mut feed: broadcast::Receiver<Event>) {
        let mut waiting = HashMap::new();
        loop {
            match feed.recv().await {
                Ok(event) => self.count(&event, &mut waiting),
                Err(broadcast::error::RecvError::Lagged(missed)) => {
                    self.0.missed_events.inc_by(missed);
                    // An end may be among what was missed.
                    waiting.clear();
                }
                Err(broadcast::error::RecvError::Closed) => return,
            }
        }
    }

    /// `waiting` has the publishers that have no media yet.
    fn count(&self, event: &Event, waiting: &mut HashMap<MediaSessionId, Instant>) {
        let all = &self.0;
        match event {
            Event::StreamStarted { session, .. } => {
                all.streams.inc();
                waiting.insert(session.clone(), Instant::now());
            }
            Event::StreamLive { session, .. } => {
                if let Some(since) = waiting.remove(session) {
                    all.first_frames.observe(since.elapsed().as_secs_f64());
                }
            }
            Event::StreamEnded { session, .. } => {
                waiting.remove(session);
            }
            Event::StreamInterrupted { .. } | Event::StreamWaits { .. } => _ = all.interruptions.inc(),
            Event::PullRetry { .. } => _ = all.retries.inc(),
            Event::PullFailed { .. } => _ = all.failed_pulls.inc(),
            Event::RecordingFinished { bytes, .. } => {
                all.recordings.inc();
                all.recorded_bytes.inc_by(*bytes);
            }
            Event::RecordingFailed { .. } => _ = all.failed_recordings.inc(),
            Event::RecordingHooked { exit, took, .. } => {
                let [ok, failed, ended] = RESULTS;
                let result = match exit {
                    Some(0) => ok,
                    Some(_) => failed,
                    None => ended,
                };
                all.scripts.get_or_create(&Run { result }).observe(took.as_secs_f64());
            }
            Event::SessionStatus { .. } | Event::RecordingStarted { .. } => {}
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::name::StreamName;

    fn shown(meter: &Meter) -> String {
        let mut registry = Registry::default();
        meter.show(&mut registry);
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        text
    }

    #[test]
    fn events_become_counters() {
        let (meter, mut waiting) = (Meter::default(), HashMap::new());
        let (stream, session) = (StreamName::new("a").unwrap(), MediaSessionId::random());
        let live = || Event::StreamLive { stream: stream.clone(), session: session.clone(), tracks: String::new() };
        let started = Event::StreamStarted { stream: stream.clone(), session: session.clone(), by: "x".into() };
        let ended = Event::StreamEnded { stream: stream.clone(), session: session.clone(), info: "x".into() };
        let lost = Event::StreamInterrupted { stream: stream.clone(), session: session.clone(), reason: "x".into() };
        for event in [started.clone(), live(), lost, live(), ended.clone(), started, ended] {
            meter.count(&event, &mut waiting);
        }
        assert!(waiting.is_empty());
        let text = shown(&meter);
        for line in [
            "weir_streams_started_total 2",
            "weir_stream_interruptions_total 1",
            // The second time media flows is no first frame, and who never had any has none.
            "weir_first_frame_seconds_count 1",
        ] {
            assert!(text.lines().any(|shown| shown == line), "{line} in {text}");
        }
    }

    #[test]
    fn calls_and_refusals_have_their_labels() {
        let meter = Meter::default();
        meter.call("stream", 404, Duration::from_millis(3));
        meter.refused("rest_max_body");
        meter.viewed("WebRTC", Duration::from_millis(300));
        meter.hooked("connect", "refused", Duration::from_millis(7));
        let text = shown(&meter);
        assert!(text.contains("weir_call_seconds_bucket{le=\"0.005\",family=\"stream\",status=\"404\"} 1"), "{text}");
        assert!(text.contains("weir_refusals_total{limit=\"rest_max_body\"} 1"), "{text}");
        assert!(text.contains("weir_first_view_seconds_bucket{le=\"0.5\",engine=\"WebRTC\"} 1"), "{text}");
        let hook = "weir_hook_seconds_bucket{le=\"0.005\",method=\"connect\",outcome=\"refused\"} 0";
        assert!(text.contains(hook) && text.contains(&hook.replace("0.005", "0.01").replace("} 0", "} 1")), "{text}");
    }
}
