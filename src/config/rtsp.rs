//! Settings of RTSP capture.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::browser::{show_time_or_never, time_or_never};
use super::source::Layers;
use super::value;

/// Settings of RTSP capture.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rtsp {
    /// How long a source that players asked for by its address stays without them; `None` for ever
    /// (`rtsp_activity_timer_timeout`).
    pub idle_timeout: Option<Duration>,
    /// Whether sources send their media in the RTSP connection, not as UDP (`rtsp_interleaved_mode`).
    pub interleaved: bool,
    /// A PEM file of certificates that are trusted beside the system's (`rtsp_ca_file`).
    pub ca_file: Option<PathBuf>,
    /// Certificates are not looked at (`rtsp_insecure`).
    pub insecure: bool,
    /// The local address that cameras are to be dialled from (`rtsp_client_address`).
    pub client_address: Option<IpAddr>,
}

impl Rtsp {
    pub(super) fn read(layers: &mut Layers) -> Option<Self> {
        let idle_timeout = layers.get("rtsp_activity_timer_timeout", time_or_never);
        let interleaved = layers.get("rtsp_interleaved_mode", value::switch);
        let ca_file = layers.get("rtsp_ca_file", value::path);
        let insecure = layers.get("rtsp_insecure", value::switch);
        let client_address = layers.get("rtsp_client_address", client_address);
        Some(Self {
            idle_timeout: idle_timeout?,
            interleaved: interleaved?,
            ca_file: ca_file?,
            insecure: insecure?,
            client_address: client_address?,
        })
    }

    pub(super) fn settings(&self) -> [(&'static str, String); 5] {
        [
            ("rtsp_activity_timer_timeout", show_time_or_never(self.idle_timeout)),
            ("rtsp_interleaved_mode", self.interleaved.to_string()),
            ("rtsp_ca_file", self.ca_file.as_deref().map(|path| path.display().to_string()).unwrap_or_default()),
            ("rtsp_insecure", self.insecure.to_string()),
            ("rtsp_client_address", self.client_address.map(|address| address.to_string()).unwrap_or_default()),
        ]
    }
}

/// An IP address, or nothing.
fn client_address(text: &str) -> value::Parsed<Option<IpAddr>> {
    match text {
        "" => Ok(None),
        text => text.parse().map(Some).or_else(|_| value::expected("an IP address of this host, or nothing")),
    }
}
