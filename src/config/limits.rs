//! How much there may be at once.

use std::time::Duration;

use super::source::Layers;
use super::value;

/// How much there may be at once. A count of 0 is no limit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Streams (`max_streams`).
    pub streams: u64,
    /// Players of one stream (`max_viewers_per_stream`).
    pub viewers: u64,
    /// Pull agents (`max_pull_agents`).
    pub agents: u64,
    /// Recordings that are written (`max_recordings`).
    pub recordings: u64,
    /// Browsers' WebSockets (`ws_max_connections`).
    pub browsers: u64,
    /// Media sessions of one of them (`ws_max_sessions`).
    pub sessions: u64,
    /// The largest message of theirs, bytes, at least 1 (`ws_max_message`).
    pub message: u64,
    /// Connections of REST and pages (`rest_max_connections`).
    pub calls: u64,
    /// Requests of one address in a second (`rest_max_requests`).
    pub requests: u64,
    /// How long a request's headers may take, and a connection be idle (`rest_header_timeout`).
    pub headers: Duration,
    /// How long a request's body may take (`rest_body_timeout`).
    pub body: Duration,
    /// Descriptors that are left to REST and the log; 0 does not look (`reserved_descriptors`).
    pub descriptors: u64,
}

impl Limits {
    pub(super) fn read(layers: &mut Layers) -> Option<Self> {
        let streams = layers.get("max_streams", value::count);
        let viewers = layers.get("max_viewers_per_stream", value::count);
        let agents = layers.get("max_pull_agents", value::count);
        let recordings = layers.get("max_recordings", value::count);
        let browsers = layers.get("ws_max_connections", value::count);
        let sessions = layers.get("ws_max_sessions", value::count);
        let message = layers.get("ws_max_message", value::positive_size);
        let calls = layers.get("rest_max_connections", value::count);
        let requests = layers.get("rest_max_requests", value::count);
        let headers = layers.get("rest_header_timeout", value::time);
        let body = layers.get("rest_body_timeout", value::time);
        let descriptors = layers.get("reserved_descriptors", value::count);
        Some(Self {
            streams: streams?,
            viewers: viewers?,
            agents: agents?,
            recordings: recordings?,
            browsers: browsers?,
            sessions: sessions?,
            message: message?,
            calls: calls?,
            requests: requests?,
            headers: headers?,
            body: body?,
            descriptors: descriptors?,
        })
    }

    pub(super) fn settings(&self) -> [(&'static str, String); 12] {
        [
            ("max_streams", self.streams.to_string()),
            ("max_viewers_per_stream", self.viewers.to_string()),
            ("max_pull_agents", self.agents.to_string()),
            ("max_recordings", self.recordings.to_string()),
            ("ws_max_connections", self.browsers.to_string()),
            ("ws_max_sessions", self.sessions.to_string()),
            ("ws_max_message", value::show_size(self.message)),
            ("rest_max_connections", self.calls.to_string()),
            ("rest_max_requests", self.requests.to_string()),
            ("rest_header_timeout", value::show_time(self.headers)),
            ("rest_body_timeout", value::show_time(self.body)),
            ("reserved_descriptors", self.descriptors.to_string()),
        ]
    }
}
