//! Which container a stream is recorded in. Pure. Source: wcs.md 6.2, 14.

use std::path::Path;

use super::matroska::{repair_matroska, trim_matroska};
use super::mp4::finish_mp4;
use super::repair::{RepairError, Repaired};
use super::transport::{repair_transport, trim_transport};
use super::trim::Until;
use crate::config::{Container, RecordFormats, WebmAudio};
use crate::hub::Recorded;
use crate::media::{Codec, Kind, Track};

impl Container {
    /// The launch template that writes it.
    pub(super) fn template(self, webm_audio: WebmAudio) -> &'static str {
        match (self, webm_audio) {
            (Container::Mp4, _) => "record-mp4",
            (Container::WebM, WebmAudio::Vorbis) => "record-webm",
            (Container::WebM, WebmAudio::Opus) => "record-webm-opus",
            (Container::Mkv, _) => "record-mkv",
            (Container::Ts, _) => "record-ts",
        }
    }

    /// Finishes a written file, also what a process that died left open, and tells what is in it: without the frames from
    /// `until` on. `None` when no frame is left.
    ///
    /// # Errors
    /// See [`RepairError`].
    pub(super) fn finish(self, file: &Path, until: Option<Until>) -> Result<Option<Repaired>, RepairError> {
        let something_left = match (self, until) {
            (Container::Mp4, until) => return finish_mp4(file, until),
            (_, None) => true,
            (Container::WebM | Container::Mkv, Some(until)) => trim_matroska(file, until)?,
            (Container::Ts, Some(until)) => trim_transport(file, until)?,
        };
        if !something_left {
            return Ok(None);
        }
        let repair = if self == Container::Ts { repair_transport } else { repair_matroska };
        repair(file).map(Some)
    }
}

/// The container for a stream and the tracks that go into it; no tracks where nothing of the stream can be recorded.
pub(super) fn choose(tracks: &[Track], recorded: Recorded, formats: RecordFormats) -> (Container, Vec<Track>) {
    let pictures = |track: &&Track| track.kind == Kind::Video && recorded == Recorded::Everything;
    let container = match tracks.iter().find(pictures).map(|track| &track.codec) {
        Some(Codec::Vp8) => formats.vp8,
        Some(Codec::H264) => formats.h264,
        _ => Container::Mp4,
    };
    let fits = |track: &&Track| match &track.codec {
        Codec::H264 => recorded == Recorded::Everything && container != Container::WebM,
        Codec::H265 => recorded == Recorded::Everything && container == Container::Mp4,
        Codec::Vp8 => recorded == Recorded::Everything && container == formats.vp8,
        Codec::Aac => container != Container::WebM,
        Codec::Opus | Codec::Pcma | Codec::Pcmu => true,
        Codec::Other(_) => false,
    };
    (container, tracks.iter().filter(fits).cloned().collect())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests;
