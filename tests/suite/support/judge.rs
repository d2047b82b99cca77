//! What a second tool says about a file.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use super::process::run;

const LIMIT: Duration = Duration::from_secs(60);

/// A packet as ffprobe sees it, in seconds.
#[derive(Debug, Clone, Copy)]
pub struct Packet {
    pub pts: f64,
    pub dts: f64,
    pub duration: f64,
    pub key: bool,
    pub size: usize,
}

/// A media file as ffprobe sees it.
#[derive(Debug, Clone)]
pub struct Media {
    pub duration: f64,
    pub video: Vec<Packet>,
    pub audio: Vec<Packet>,
    /// The description of each stream.
    pub streams: Vec<Value>,
}

impl Media {
    /// The first time stamp of a track's packets.
    pub fn start(packets: &[Packet]) -> f64 {
        packets.iter().map(|packet| packet.pts).fold(f64::MAX, f64::min)
    }

    /// Where a track's last packet ends.
    pub fn end(packets: &[Packet]) -> f64 {
        packets.iter().map(|packet| packet.pts + packet.duration).fold(0.0, f64::max)
    }

    pub fn stream(&self, kind: &str) -> &Value {
        let found = self.streams.iter().find(|stream| stream["codec_type"] == kind);
        found.unwrap_or_else(|| panic!("no {kind} in {:?}", self.streams))
    }
}

/// Asks ffprobe; `None` for a file it cannot open.
pub fn try_probe(file: &Path) -> Option<Media> {
    let mut ffprobe = Command::new("ffprobe");
    ffprobe.args(["-v", "error", "-of", "json", "-show_format", "-show_streams", "-show_packets"]).arg(file);
    let output = run(&mut ffprobe, LIMIT);
    if !output.status.success() {
        return None;
    }
    let found: Value = serde_json::from_slice(&output.stdout).unwrap();
    let number = |value: &Value| value.as_str().and_then(|text| text.parse::<f64>().ok());
    let packets = |kind: &str| {
        let of_kind = found["packets"].as_array().into_iter().flatten().filter(|p| p["codec_type"] == kind);
        let packet = |p: &Value| Packet {
            pts: number(&p["pts_time"]).unwrap_or(f64::NAN),
            dts: number(&p["dts_time"]).unwrap_or(f64::NAN),
            duration: number(&p["duration_time"]).unwrap_or(0.0),
            size: number(&p["size"]).unwrap_or(0.0) as usize,
            key: p["flags"].as_str().is_some_and(|flags| flags.starts_with('K')),
        };
        of_kind.map(packet).collect::<Vec<_>>()
    };
    Some(Media {
        duration: number(&found["format"]["duration"]).unwrap_or(0.0),
        video: packets("video"),
        audio: packets("audio"),
        streams: found["streams"].as_array().cloned().unwrap_or_default(),
    })
}

pub fn probe(file: &Path) -> Media {
    try_probe(file).unwrap_or_else(|| panic!("ffprobe cannot read {}", file.display()))
}

/// Every frame decodes, and nobody complains.
pub fn decodes(file: &Path) {
    let mut ffmpeg = Command::new("ffmpeg");
    ffmpeg.args(["-v", "error", "-nostdin", "-xerror", "-i"]).arg(file).args([
        "-fps_mode",
        "passthrough",
        "-enc_time_base",
        "-1",
        "-f",
        "null",
        "-",
    ]);
    let output = run(&mut ffmpeg, LIMIT);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.is_empty(), "{} does not decode: {said}", file.display());
}
