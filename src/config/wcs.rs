//! Settings of pulls from other WCS servers, and of an edge.

use std::path::PathBuf;
use std::time::Duration;

use super::browser::{show_time_or_never, time_or_never};
use super::source::Layers;
use super::value::{self, Parsed};

/// Most servers an edge may ask.
const MAX_ORIGINS: usize = 64;

/// Settings of pulls from, and pushes to, other WCS servers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wcs {
    /// wss may be called (`wcs_agent_ssl`).
    pub ssl: bool,
    /// A PEM file of certificates that are trusted beside the system's (`wcs_agent_ca_file`).
    pub ca_file: Option<PathBuf>,
    /// Certificates are not looked at (`wcs_agent_insecure`).
    pub insecure: bool,
    /// How long a server may take until its WebSocket is open, and again until it greets (`wcs_agent_connect_timeout`).
    pub connect_timeout: Duration,
    /// How long it may take to answer an offer or a question (`wcs_agent_answer_timeout`).
    pub answer_timeout: Duration,
    /// How long the first media may take after its answer (`wcs_agent_media_timeout`).
    pub media_timeout: Duration,
    /// The pause between two pings (`wcs_agent_ping_interval`).
    pub ping_interval: Duration,
    /// How long a stream that players asked for is kept without them; `None` for ever (`wcs_activity_timer_timeout`).
    pub idle_timeout: Option<Duration>,
    /// The servers that are asked for streams nobody publishes here, in their order (`cdn_origins`).
    pub origins: Vec<String>,
}

impl Wcs {
    pub(super) fn read(layers: &mut Layers) -> Option<Self> {
        let ssl = layers.get("wcs_agent_ssl", value::switch);
        let ca_file = layers.get("wcs_agent_ca_file", value::path);
        let insecure = layers.get("wcs_agent_insecure", value::switch);
        let connect_timeout = layers.get("wcs_agent_connect_timeout", value::time);
        let answer_timeout = layers.get("wcs_agent_answer_timeout", value::time);
        let media_timeout = layers.get("wcs_agent_media_timeout", value::time);
        let ping_interval = layers.get("wcs_agent_ping_interval", value::time);
        let idle_timeout = layers.get("wcs_activity_timer_timeout", time_or_never);
        let origins = layers.get("cdn_origins", origins);
        Some(Self {
            ssl: ssl?,
            ca_file: ca_file?,
            insecure: insecure?,
            connect_timeout: connect_timeout?,
            answer_timeout: answer_timeout?,
            media_timeout: media_timeout?,
            ping_interval: ping_interval?,
            idle_timeout: idle_timeout?,
            origins: origins?,
        })
    }

    pub(super) fn settings(&self) -> [(&'static str, String); 9] {
        [
            ("wcs_agent_ssl", self.ssl.to_string()),
            ("wcs_agent_ca_file", self.ca_file.as_deref().map(|path| path.display().to_string()).unwrap_or_default()),
            ("wcs_agent_insecure", self.insecure.to_string()),
            ("wcs_agent_connect_timeout", value::show_time(self.connect_timeout)),
            ("wcs_agent_answer_timeout", value::show_time(self.answer_timeout)),
            ("wcs_agent_media_timeout", value::show_time(self.media_timeout)),
            ("wcs_agent_ping_interval", value::show_time(self.ping_interval)),
            ("wcs_activity_timer_timeout", show_time_or_never(self.idle_timeout)),
            ("cdn_origins", self.origins.join(",")),
        ]
    }
}

/// Addresses between commas.
fn origins(text: &str) -> Parsed<Vec<String>> {
    let addresses = text.split(',').map(str::trim).filter(|address| !address.is_empty());
    let origins: Vec<String> = addresses.map(str::to_owned).collect();
    let usable = |address: &String| {
        let url = url::Url::parse(address);
        url.is_ok_and(|url| matches!(url.scheme(), "ws" | "wss") && url.host_str().is_some_and(|host| !host.is_empty()))
    };
    match origins.len() <= MAX_ORIGINS && origins.iter().all(usable) {
        true => Ok(origins),
        false => value::expected("up to 64 addresses ws://host:port or wss://host:port, separated by commas"),
    }
}
