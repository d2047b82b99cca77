//! Settings of the browsers' side: signalling and WebRTC.

use std::net::IpAddr;
use std::time::Duration;

use super::source::Layers;
use super::value::{self, Parsed};

/// Settings of the browsers' WebSocket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signal {
    /// The TCP port; 0 takes a free one (`ws.port`).
    pub port: u16,
    /// How a dead connection is noticed.
    pub keep_alive: KeepAlive,
}

/// How a dead connection is noticed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeepAlive {
    /// What is sent (`keep_alive.algorithm`).
    pub algorithm: KeepAliveAlgorithm,
    /// The pause between two of them (`keep_alive.server_interval`).
    pub interval: Duration,
    /// How many may stay unanswered, at least 1 (`keep_alive.probes`).
    pub probes: u64,
}

/// What a server sends to hear whether a browser lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeepAliveAlgorithm {
    /// A `ping` message of the protocol.
    HighLevel,
    /// A ping frame of the WebSocket.
    Internal,
    /// Nothing.
    None,
}

/// Settings of WebRTC.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WebRtc {
    /// The address browsers are told; `None` for those of the host (`ip`).
    pub ip: Option<IpAddr>,
    /// First and last UDP port of publishers (`media_port_from`, `media_port_to`).
    pub ports: (u16, u16),
    /// The UDP port of all viewers; 0 takes a free one, `None` the first of `ports` (`webrtc.port`).
    pub port: Option<u16>,
    /// What publishers may send, by preference, in WCS's names and lower case (`codecs`).
    pub codecs: Vec<String>,
    /// A publisher silent for longer is ended; `None` never (`rtp_activity_timeout`).
    pub activity_timeout: Option<Duration>,
}

impl Signal {
    pub(super) fn read(layers: &mut Layers) -> Option<Self> {
        let port = layers.get("ws.port", value::port);
        let algorithm = layers.get("keep_alive.algorithm", algorithm);
        let interval = layers.get("keep_alive.server_interval", value::time);
        let probes = layers.get("keep_alive.probes", value::positive_size);
        let keep_alive = KeepAlive { algorithm: algorithm?, interval: interval?, probes: probes? };
        Some(Self { port: port?, keep_alive })
    }

    pub(super) fn settings(&self) -> [(&'static str, String); 4] {
        let algorithm = match self.keep_alive.algorithm {
            KeepAliveAlgorithm::HighLevel => "HIGH_LEVEL",
            KeepAliveAlgorithm::Internal => "INTERNAL",
            KeepAliveAlgorithm::None => "NONE",
        };
        [
            ("ws.port", self.port.to_string()),
            ("keep_alive.algorithm", algorithm.to_owned()),
            ("keep_alive.server_interval", value::show_time(self.keep_alive.interval)),
            ("keep_alive.probes", self.keep_alive.probes.to_string()),
        ]
    }
}

impl WebRtc {
    /// The UDP port of all viewers; 0 takes a free one.
    pub fn viewers_port(&self) -> u16 {
        self.port.unwrap_or(self.ports.0)
    }

    pub(super) fn read(layers: &mut Layers) -> Option<Self> {
        let ip = layers.get("ip", optional_ip);
        let from = layers.get("media_port_from", value::port);
        let to = layers.get("media_port_to", |text| match (value::port(text)?, from) {
            (to, Some(from)) if to < from => value::expected("no less than media_port_from"),
            (to, _) => Ok(to),
        });
        let port = layers.get("webrtc.port", |text| match text {
            "" => Ok(None),
            port => value::port(port).map(Some),
        });
        let codecs = layers.get("codecs", codecs);
        let activity_timeout = layers.get("rtp_activity_timeout", time_or_never);
        Some(Self { ip: ip?, ports: (from?, to?), port: port?, codecs: codecs?, activity_timeout: activity_timeout? })
    }

    pub(super) fn settings(&self) -> [(&'static str, String); 6] {
        [
            ("ip", self.ip.map(|ip| ip.to_string()).unwrap_or_default()),
            ("media_port_from", self.ports.0.to_string()),
            ("media_port_to", self.ports.1.to_string()),
            ("webrtc.port", self.port.map(|port| port.to_string()).unwrap_or_default()),
            ("codecs", self.codecs.join(",")),
            ("rtp_activity_timeout", show_time_or_never(self.activity_timeout)),
        ]
    }
}

/// A time, or 0 for never.
pub(super) fn time_or_never(text: &str) -> Parsed<Option<Duration>> {
    if text.trim() == "0" { Ok(None) } else { value::time(text).map(Some) }
}

pub(super) fn show_time_or_never(time: Option<Duration>) -> String {
    time.map_or("0".to_owned(), value::show_time)
}

fn optional_ip(text: &str) -> Parsed<Option<IpAddr>> {
    if text.is_empty() { Ok(None) } else { value::ip(text).map(Some) }
}

fn algorithm(text: &str) -> Parsed<KeepAliveAlgorithm> {
    match text {
        "HIGH_LEVEL" => Ok(KeepAliveAlgorithm::HighLevel),
        "INTERNAL" => Ok(KeepAliveAlgorithm::Internal),
        "NONE" => Ok(KeepAliveAlgorithm::None),
        _ => value::expected("HIGH_LEVEL, INTERNAL or NONE"),
    }
}

/// Names weir does not carry are in every WCS file; they are passed over where offers are read.
fn codecs(text: &str) -> Parsed<Vec<String>> {
    let names: Vec<String> = text.split(',').map(|name| name.trim().to_ascii_lowercase()).collect();
    if names.iter().any(String::is_empty) {
        return value::expected("codec names with commas between them, for example opus,alaw,ulaw,h264,vp8");
    }
    Ok(names)
}
