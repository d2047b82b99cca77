//! Which container a stream is recorded in. Pure. Source: wcs.md 6.2, 14.

use std::fs::OpenOptions;
use std::io;
use std::path::Path;

use super::empty::hide_empty_tracks;
use super::matroska::{repair_matroska, trim_matroska};
use super::repair::{RepairError, Repaired, repair_mp4};
use super::transport::{repair_transport, trim_transport};
use super::trim::{Until, trim_mp4};
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

    /// Reads what is in a written file and mends what a process that died left open.
    ///
    /// # Errors
    /// See [`RepairError`].
    pub(super) fn mend(self, file: &Path) -> Result<Repaired, RepairError> {
        match self {
            Container::Mp4 => {
                hide_empty_tracks(file)?;
                repair_mp4(file)
            }
            Container::WebM | Container::Mkv => repair_matroska(file),
            Container::Ts => repair_transport(file),
        }
    }

    /// Takes the frames from `until` on off a finished file; one that has no frame then is left empty.
    ///
    /// # Errors
    /// The system's.
    pub(super) fn trim(self, file: &Path, until: Until) -> io::Result<()> {
        let something_left = match self {
            Container::Mp4 => trim_mp4(file, until)?,
            Container::WebM | Container::Mkv => trim_matroska(file, until)?,
            Container::Ts => trim_transport(file, until)?,
        };
        if something_left { Ok(()) } else { OpenOptions::new().write(true).open(file)?.set_len(0) }
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
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn track(kind: Kind, codec: Codec) -> Track {
        let caps = String::new();
        Track { kind, codec, width: 0, height: 0, rate: 0, channels: 0, profile_level_id: None, b_frames: false, caps }
    }

    #[test]
    fn the_codecs_choose() {
        use Codec::{Aac, H264, H265, Opus, Other, Pcma, Pcmu, Vp8};
        let (video, audio) = (Kind::Video, Kind::Audio);
        let everything = Recorded::Everything;
        let (default, mkv): (RecordFormats, RecordFormats) =
            (RecordFormats::default(), "h264-mkv,vp8-mkv".parse().unwrap());
        let ts: RecordFormats = "h264-ts".parse().unwrap();
        for (tracks, recorded, formats, container, kept) in [
            (vec![(video, H264), (audio, Aac)], everything, default, Container::Mp4, 2),
            (vec![(video, H264), (audio, Opus)], everything, default, Container::Mp4, 2),
            (vec![(video, Vp8), (audio, Opus)], everything, default, Container::WebM, 2),
            (vec![(video, Vp8), (audio, Aac)], everything, default, Container::WebM, 1),
            (vec![(audio, Pcma)], everything, default, Container::Mp4, 1),
            (vec![(video, H264), (audio, Aac)], Recorded::SoundOnly, default, Container::Mp4, 1),
            (vec![(video, Vp8), (audio, Opus)], Recorded::SoundOnly, default, Container::Mp4, 1),
            (vec![(video, Other("video/x-h263".into()))], everything, default, Container::Mp4, 0),
            (vec![(video, H264), (audio, Opus)], everything, mkv, Container::Mkv, 2),
            (vec![(video, Vp8), (audio, Aac)], everything, mkv, Container::Mkv, 2),
            (vec![(video, H265), (audio, Opus)], everything, mkv, Container::Mp4, 2),
            (vec![(audio, Aac)], everything, mkv, Container::Mp4, 1),
            (vec![(video, H264), (audio, Aac)], Recorded::SoundOnly, mkv, Container::Mp4, 1),
            (vec![(video, H264), (audio, Pcmu)], everything, ts, Container::Ts, 2),
            (vec![(video, Vp8), (audio, Opus)], everything, ts, Container::WebM, 2),
        ] {
            let tracks: Vec<Track> = tracks.into_iter().map(|(kind, codec)| track(kind, codec)).collect();
            let chosen = choose(&tracks, recorded, formats);
            assert_eq!((chosen.0, chosen.1.len()), (container, kept), "{tracks:?} {recorded:?} {formats}");
        }
    }
}
