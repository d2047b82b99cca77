//! What the next start does with an MP4 recording that a killed process left behind: cuts it after its last whole fragment.
//!
//! The files come from `mp4mux fragment-mode=first-moov-then-finalise`, which writes
//!
//! ```text
//! while recording   ftyp free mdat moov | free mdat moof | free mdat moof | free mdat…
//! finishing, 1      ftyp free mdat hoov | free mdat moof | …                           (one byte: the first moov is hidden)
//! finishing, 2      ftyp free mdat·····································…               (the first mdat grows over all of it)
//! finished          ftyp free mdat·····································… moov
//! ```
//!
//! - The first `moov` describes the samples of the first `mdat`, and has an `mvex`; the finished one has none.
//! - Media stands *before* the `moof` that describes it, and `moof` is written only when its `mdat` is complete. An `mdat`
//!   has size 0 ("to the end") until then; with 64 bits its size also takes the place of the `free` before it.
//! - A process that dies between "finishing, 1" and "finished", or that has no room left on the disk for the last `moov`,
//!   leaves a file that no player opens. The hidden `moov` is still in it: it is found and put back.
//! - The first `moov` is written before there are fragments, so its durations and edit lists end with the first one, and some
//!   players (GStreamer's) stop there. The repair sets them to what the file holds.
//! - A `moof` of mp4mux's may leave out a sample's size, at which players refuse the whole file. weir mends it while it is
//!   written (`media::mend_moof`); a file that another program wrote is mended here.
//!
//! What is cut is media that no `moof` describes, thus without sizes, times or tracks: nothing can play it. For a tail
//! with a whole `moof` and a torn `mdat` (other writers put them in that order) the whole fragment goes: keeping its whole
//! samples means rewriting every run of every track in it, for at most a second of media.

use super::mp4::{BoxError, Field, Fragment, Head, Kind, Media, Movie, Track};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;

/// How far a hidden `moov` is looked for: it stands behind the first fragment.
const HIDDEN_MAX: u64 = 256 << 20;

/// How many places that look like a box are tried.
const TRIES: usize = 16;

/// What is in a recording that was repaired, or that needed no repair.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Repaired {
    /// The file's size now, bytes.
    pub bytes_kept: u64,
    /// How many bytes were cut from its end.
    pub bytes_cut: u64,
    /// The end of the longest track, from the decode times and durations of its samples.
    pub duration: Duration,
    /// Samples of video tracks.
    pub video_frames: u64,
    /// Samples of audio tracks: packets of the codec, 1,024 samples of sound each with AAC.
    pub audio_frames: u64,
    /// Whether the media does not begin at the recording's beginning: no track has a sample with decode time 0.
    pub first_fragment_missing: bool,
    /// Whether the file was finished already, and only waited for its name; nothing was written then.
    pub was_finished: bool,
}

/// Why a recording is not repaired. The file is untouched.
#[derive(Debug, thiserror::Error)]
pub enum RepairError {
    /// The file cannot be read or written. A repair that could not write is done again from its beginning the next time.
    #[error("cannot read or write the recording: {0}")]
    Io(#[from] io::Error),
    /// There is no `moov`, or no whole fragment: the process ended before the first one, or this is no MP4.
    #[error("the recording has no whole fragment")]
    Nothing,
    /// A whole fragment stands behind bytes that cannot be read; a cut there would delete media that another tool may save.
    #[error("the recording is damaged at byte {at}, before media that is whole")]
    Damaged {
        /// The offset of the first byte that cannot be read as a part of a recording.
        at: u64,
    },
}

/// Makes the MP4 recording at `path` one that plays: removes the torn tail in place, puts a hidden `moov` back, sets the
/// durations to what the file holds, and syncs it to the disk. A finished file is only read.
///
/// The file's memory need is that of one `moof`, whatever the file's size. Doing it again changes nothing, and doing it again
/// after it was interrupted finishes it. Blocks: call it off the runtime's threads.
///
/// # Errors
/// See [`RepairError`]; nothing is ever deleted, and except for [`RepairError::Io`] the file is as it was.
pub fn repair_mp4(path: &Path) -> Result<Repaired, RepairError> {
    let file = OpenOptions::new().read(true).write(true).open(path)?;
    let media = Media { file: &file, len: file.metadata()?.len() };
    let mut scan = Scan::default();
    scan.run(&media, 0)?;
    let mut edits = vec![];
    if scan.movie.is_none() {
        edits.extend(scan.unhide(&media)?);
    }
    let Scan { movie: Some(movie), mdat, kept, mended, .. } = scan else {
        return Err(RepairError::Nothing);
    };
    edits.extend(mended);
    if !movie.fragmented {
        // A movie without fragments is the finished one, if its media is there.
        mdat.filter(|mdat| mdat.end <= media.len).ok_or(RepairError::Nothing)?;
        return Ok(finished(&movie, media.len));
    }
    if kept == 0 {
        return Err(RepairError::Nothing);
    }
    if holds_fragment(&media, kept, &movie.tracks)? {
        return Err(RepairError::Damaged { at: kept });
    }
    if movie.head.kind == *b"hoov" {
        edits.push((movie.head.at + 4, b"m".to_vec()));
    }
    edits.extend(durations(&movie));
    write(&file, &edits, kept)?;
    let duration = movie.tracks.iter().map(|track| seconds(track.decode_end, track.scale)).max().unwrap_or_default();
    Ok(Repaired {
        bytes_kept: kept,
        bytes_cut: media.len - kept,
        first_fragment_missing: movie.tracks.iter().all(|track| track.first != Some(0)),
        was_finished: false,
        ..contents(&movie.tracks, duration)
    })
}

/// Bytes to write at an offset.
type Change = (u64, Vec<u8>);

/// What a walk over the boxes of a file has found.
#[derive(Default)]
struct Scan {
    movie: Option<Movie>,
    /// The first `mdat`.
    mdat: Option<Head>,
    /// The offset behind the last whole fragment; 0 without one.
    kept: u64,
    /// Fragments whose media does not end before the box that was read last.
    pending: Vec<Fragment>,
    /// What goes into kept fragments that leave out what readers need.
    mended: Vec<Change>,
}

impl Scan {
    /// Walks from box to box until the end, or to the first one that is torn, or that no recorder writes there.
    fn run(&mut self, media: &Media<'_>, from: u64) -> io::Result<()> {
        let mut at = from;
        while let Some(head) = media.head(at)? {
            if head.kind == *b"mdat" {
                self.mdat.get_or_insert(head);
            }
            if head.end > media.len {
                break;
            }
            match self.take(media, head) {
                Ok(()) => at = head.end,
                Err(BoxError::Malformed) => break,
                Err(BoxError::Io(error)) => return Err(error),
            }
        }
        Ok(())
    }

    /// Takes in a box that is whole.
    fn take(&mut self, media: &Media<'_>, head: Head) -> Result<(), BoxError> {
        match (&head.kind, &self.movie) {
            (b"moov" | b"hoov", None) => {
                let movie = Movie::read(media, head)?;
                if self.mdat.is_some() && movie.tracks.iter().any(|track| track.samples > 0) {
                    self.kept = head.end;
                }
                self.movie = Some(movie);
            }
            (b"moof", Some(movie)) => self.pending.push(Fragment::read(media, head, &movie.tracks)?),
            (b"ftyp" | b"styp" | b"free" | b"skip" | b"wide" | b"sidx" | b"mfra" | b"mdat", _) => {}
            _ => return Err(BoxError::Malformed),
        }
        self.settle(head.end);
        Ok(())
    }

    /// Keeps the pending fragments when their media ends before `at`.
    fn settle(&mut self, at: u64) {
        if let Some(movie) = &mut self.movie
            && !self.pending.is_empty()
            && self.pending.iter().all(|fragment| fragment.data_end <= at)
        {
            for fragment in self.pending.drain(..) {
                fragment.add_to(&mut movie.tracks);
                self.mended.extend(fragment.mended);
            }
            self.kept = at;
        }
    }

    /// Looks for a `moov` that the grown `mdat` hides, and goes on from there; gives the size that `mdat` had before.
    fn unhide(&mut self, media: &Media<'_>) -> io::Result<Option<Change>> {
        let Some(mdat) = self.mdat else {
            return Ok(None);
        };
        let looks = |bytes: &[u8]| matches!(&bytes[..4], b"moov" | b"hoov") && &bytes[8..] == b"mvhd";
        let mut from = mdat.body + 4;
        for _ in 0..TRIES {
            let Some(found) = media.find(from, mdat.body + HIDDEN_MAX, looks)? else {
                break;
            };
            from = found + 1;
            let head = media.head(found - 4)?.filter(|head| head.end <= media.len);
            match head.map(|head| Movie::read(media, head)) {
                Some(Ok(movie)) if movie.fragmented => {
                    self.run(media, movie.head.at)?;
                    return Ok(Some(size(mdat, movie.head.at)));
                }
                Some(Err(BoxError::Io(error))) => return Err(error),
                _ => {}
            }
        }
        Ok(None)
    }
}

/// The change that makes a box end at `end`, in the form that its header has.
fn size(head: Head, end: u64) -> Change {
    let size = end - head.at;
    match u32::try_from(size) {
        Ok(size) if head.body - head.at == 8 => (head.at, size.to_be_bytes().to_vec()),
        _ => (head.at + 8, size.to_be_bytes().to_vec()),
    }
}

/// Whether there is a fragment from `from` on that is whole, with its media. A torn tail has none: `moof` comes last.
fn holds_fragment(media: &Media<'_>, from: u64, tracks: &[Track]) -> io::Result<bool> {
    let looks = |bytes: &[u8]| &bytes[..4] == b"moof" && &bytes[8..] == b"mfhd";
    let mut at = from;
    for _ in 0..TRIES {
        let Some(found) = media.find(at, media.len, looks)? else {
            return Ok(false);
        };
        at = found + 1;
        let head = media.head(found.saturating_sub(4))?.filter(|head| head.end <= media.len);
        match head.map(|head| Fragment::read(media, head, tracks)) {
            None => {}
            Some(Ok(fragment)) if fragment.data_end > media.len => {}
            Some(Ok(_) | Err(BoxError::Malformed)) => return Ok(true),
            Some(Err(BoxError::Io(error))) => return Err(error),
        }
    }
    Ok(true)
}

/// The durations of movie, tracks and edit lists, set to what the tracks hold. A number too large for its field is left.
fn durations(movie: &Movie) -> Vec<Change> {
    let mut changes = vec![];
    let mut set = |field: Option<Field>, value: u64| match field {
        Some(field) if field.wide => changes.push((field.at, value.to_be_bytes().to_vec())),
        Some(field) => changes.extend(u32::try_from(value).ok().map(|value| (field.at, value.to_be_bytes().to_vec()))),
        None => {}
    };
    let mut longest = 0;
    for track in movie.tracks.iter().filter(|track| track.samples > 0) {
        let total = match track.edit.filter(|edit| !edit.open) {
            Some(edit) => {
                let shown = movie_ticks(movie, track, track.shown_end.saturating_sub(edit.media_time));
                set(Some(edit.duration), shown);
                shown.saturating_add(edit.empty)
            }
            None => movie_ticks(movie, track, track.decode_end),
        };
        set(track.tkhd, total);
        longest = longest.max(total);
    }
    set(movie.mvhd, longest);
    set(movie.mehd, longest);
    changes
}

/// A track's time in the movie's ticks, rounded up so that the last sample is inside.
fn movie_ticks(movie: &Movie, track: &Track, ticks: u64) -> u64 {
    let scaled = (u128::from(ticks) * u128::from(movie.scale)).div_ceil(u128::from(track.scale.max(1)));
    u64::try_from(scaled).unwrap_or(u64::MAX)
}

/// Writes the changes, then cuts, then syncs. The cut comes after: a file whose `moov` is hidden again opens the same way.
fn write(file: &File, changes: &[Change], len: u64) -> io::Result<()> {
    for (at, bytes) in changes {
        file.write_all_at(bytes, *at)?;
    }
    file.set_len(len)?;
    file.sync_all()
}

/// What a finished file holds.
fn finished(movie: &Movie, len: u64) -> Repaired {
    let duration = seconds(movie.duration, movie.scale);
    Repaired { bytes_kept: len, was_finished: true, ..contents(&movie.tracks, duration) }
}

fn contents(tracks: &[Track], duration: Duration) -> Repaired {
    let frames = |kind| {
        let of_kind = tracks.iter().filter(|track| track.kind == kind);
        of_kind.fold(0_u64, |sum, track| sum.saturating_add(track.samples))
    };
    Repaired {
        bytes_kept: 0,
        bytes_cut: 0,
        duration,
        video_frames: frames(Kind::Video),
        audio_frames: frames(Kind::Audio),
        first_fragment_missing: false,
        was_finished: false,
    }
}

/// Ticks of `scale` a second as a time; nothing for a scale of 0, which [`Movie::read`] refuses.
fn seconds(ticks: u64, scale: u32) -> Duration {
    let Some(whole) = ticks.checked_div(scale.into()) else {
        return Duration::ZERO;
    };
    let nanos = (ticks % u64::from(scale)) * 1_000_000_000 / u64::from(scale);
    Duration::new(whole, u32::try_from(nanos).unwrap_or(0))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests;
