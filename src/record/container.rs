//! Which container a stream is recorded in. Pure. Source: wcs.md 6.2, 14.

use std::path::Path;
use std::time::Duration;

use super::repair::{RepairError, Repaired, repair_mp4};
use crate::hub::Recorded;
use crate::media::{Codec, Kind, Track};

/// A container weir writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Container {
    /// H.264 or H.265 with AAC, or AAC alone.
    Mp4,
    /// VP8 with Vorbis.
    WebM,
}

impl Container {
    /// Both.
    pub(super) const ALL: [Container; 2] = [Container::Mp4, Container::WebM];

    /// The launch template that writes it.
    pub(super) fn template(self) -> &'static str {
        match self {
            Container::Mp4 => "record-mp4",
            Container::WebM => "record-webm",
        }
    }

    /// The extension of its files.
    pub(super) fn extension(self) -> &'static str {
        match self {
            Container::Mp4 => "mp4",
            Container::WebM => "webm",
        }
    }

    /// Reads what is in a written file and mends what a process that died left open. `written` is how long its frames
    /// were, where that is known.
    ///
    /// # Errors
    /// See [`RepairError`].
    pub(super) fn mend(self, file: &Path, written: Duration) -> Result<Repaired, RepairError> {
        match self {
            Container::Mp4 => repair_mp4(file),
            // Plays up to its last cluster as it is.
            Container::WebM => Ok(Repaired {
                bytes_kept: std::fs::metadata(file)?.len(),
                bytes_cut: 0,
                duration: written,
                video_frames: 0,
                audio_frames: 0,
                first_fragment_missing: false,
                was_finished: true,
            }),
        }
    }
}

/// The container for a stream and the tracks that go into it; no tracks where nothing of the stream can be recorded.
pub(super) fn choose(tracks: &[Track], recorded: Recorded) -> (Container, Vec<Track>) {
    let pictures = |track: &&Track| track.kind == Kind::Video && recorded == Recorded::Everything;
    let container = match tracks.iter().find(pictures).map(|track| &track.codec) {
        Some(Codec::Vp8) => Container::WebM,
        _ => Container::Mp4,
    };
    let fits = |track: &&Track| match (&track.codec, container) {
        (Codec::H264 | Codec::H265, Container::Mp4) | (Codec::Vp8, Container::WebM) => recorded == Recorded::Everything,
        (Codec::Aac, Container::Mp4) | (Codec::Opus | Codec::Pcma | Codec::Pcmu, _) => true,
        _ => false,
    };
    (container, tracks.iter().filter(fits).cloned().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn track(kind: Kind, codec: Codec) -> Track {
        let caps = String::new();
        Track { kind, codec, width: 0, height: 0, rate: 0, channels: 0, profile_level_id: None, b_frames: false, caps }
    }

    #[test]
    fn the_codecs_choose() {
        use Codec::{Aac, H264, Opus, Other, Pcma, Vp8};
        let (video, audio) = (Kind::Video, Kind::Audio);
        let everything = Recorded::Everything;
        for (tracks, recorded, container, kept) in [
            (vec![(video, H264), (audio, Aac)], everything, Container::Mp4, 2),
            (vec![(video, H264), (audio, Opus)], everything, Container::Mp4, 2),
            (vec![(video, Vp8), (audio, Opus)], everything, Container::WebM, 2),
            (vec![(video, Vp8), (audio, Aac)], everything, Container::WebM, 1),
            (vec![(audio, Pcma)], everything, Container::Mp4, 1),
            (vec![(video, H264), (audio, Aac)], Recorded::SoundOnly, Container::Mp4, 1),
            (vec![(video, Vp8), (audio, Opus)], Recorded::SoundOnly, Container::Mp4, 1),
            (vec![(video, Other("video/x-h263".into()))], everything, Container::Mp4, 0),
        ] {
            let tracks: Vec<Track> = tracks.into_iter().map(|(kind, codec)| track(kind, codec)).collect();
            let chosen = choose(&tracks, recorded);
            assert_eq!((chosen.0, chosen.1.len()), (container, kept), "{tracks:?} {recorded:?}");
        }
    }
}
