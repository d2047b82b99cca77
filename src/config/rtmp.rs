//! Settings of the RTMP server.

use std::time::Duration;

use super::browser::{show_time_or_never, time_or_never};
use super::source::Layers;
use super::value;

/// Settings of the RTMP server that encoders publish to and players play from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rtmp {
    /// The TCP port; 0 takes a free one (`rtmp.port`).
    pub port: u16,
    /// Most connections at once, at least 1 (`rtmp_max_connections`).
    pub max_connections: u64,
    /// How long a client may take until it has connected, in RTMP's sense (`rtmp_handshake_timeout`).
    pub handshake_timeout: Duration,
    /// How long a client may do nothing: neither publish nor play, publish without sending media, play without taking
    /// it (`rtmp_idle_timeout`).
    pub idle_timeout: Duration,
    /// How long a stream waits for its publisher to come back; `None` not at all (`publisher_linger`).
    pub publisher_linger: Option<Duration>,
    /// The largest audio or video message, bytes, at least 1 (`rtmp_max_message`).
    pub max_message: u64,
    /// The largest chunk size a client may set, bytes, at least 1 (`rtmp_max_chunk`).
    pub max_chunk: u64,
}

impl Rtmp {
    pub(super) fn read(layers: &mut Layers) -> Option<Self> {
        let port = layers.get("rtmp.port", value::port);
        let max_connections = layers.get("rtmp_max_connections", value::positive_size);
        let handshake_timeout = layers.get("rtmp_handshake_timeout", value::time);
        let idle_timeout = layers.get("rtmp_idle_timeout", value::time);
        let publisher_linger = layers.get("publisher_linger", time_or_never);
        let max_message = layers.get("rtmp_max_message", message);
        let max_chunk = layers.get("rtmp_max_chunk", message);
        Some(Self {
            port: port?,
            max_connections: max_connections?,
            handshake_timeout: handshake_timeout?,
            idle_timeout: idle_timeout?,
            publisher_linger: publisher_linger?,
            max_message: max_message?,
            max_chunk: max_chunk?,
        })
    }

    pub(super) fn settings(&self) -> [(&'static str, String); 7] {
        [
            ("rtmp.port", self.port.to_string()),
            ("rtmp_max_connections", self.max_connections.to_string()),
            ("rtmp_handshake_timeout", value::show_time(self.handshake_timeout)),
            ("rtmp_idle_timeout", value::show_time(self.idle_timeout)),
            ("publisher_linger", show_time_or_never(self.publisher_linger)),
            ("rtmp_max_message", value::show_size(self.max_message)),
            ("rtmp_max_chunk", value::show_size(self.max_chunk)),
        ]
    }
}

/// A size that RTMP's 24-bit length can say.
fn message(text: &str) -> value::Parsed<u64> {
    match value::positive_size(text) {
        Ok(bytes) if bytes <= 16 << 20 => Ok(bytes),
        _ => value::expected("a size over 0 and up to 16M"),
    }
}
