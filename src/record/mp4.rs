//! Turns the fragments of an MP4 (ISO/IEC 14496-12) into an ordinary file with one index: when a recording ends, or at the
//! next start when a killed process left it.
//!
//! The files come from `mp4mux fragment-mode=dash-or-mss`, with a head that [`crate::media`] completes:
//!
//! ```text
//! while recording   ftyp moov | moof mdat | moof mdat | moof md…       (the first moov has no samples, but an mvex)
//! finishing         ftyp moov | moof mdat | moof mdat | moov           (on the disk before the next step)
//! finished          ftyp mdat························ | moov           (16 bytes: one mdat is over everything between)
//! ```
//!
//! Whenever a process dies the file plays, or can be finished once more from its beginning. What is cut off the end is a
//! fragment that is not all there.
//!
//! Every byte may be hostile: sizes are checked against what holds them, sums are checked, and nothing is allocated by a
//! number that the file gives, except a whole `moof` of at most 16 MiB and a `moov` of at most 512.

mod samples;

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;

use mp4_atom::{Decode, Encode, Moof, Moov, Trak};

use super::repair::{RepairError, Repaired};
use super::trim::Until;
use samples::{Run, Samples, is_video};

/// The largest `moof` that is read. mp4mux writes about 2 kB a second of media into it.
const MOOF_MAX: u64 = 16 << 20;
/// The largest `moov`: that of some weeks.
const MOOV_MAX: u64 = 512 << 20;
/// How many places that look like a box are tried.
const TRIES: usize = 16;

/// Makes the MP4 recording at `path` an ordinary one, in place: cuts a torn end off, leaves the frames from `until` on out
/// of the index, and writes that. A file that is finished is only read. `None` when there is no frame, or none is left. Blocks.
///
/// # Errors
/// See [`RepairError`]; except for [`RepairError::Io`] the file is as it was, and after that it is finished by another call.
pub(super) fn finish_mp4(path: &Path, until: Option<Until>) -> Result<Option<Repaired>, RepairError> {
    let file = OpenOptions::new().read(true).write(true).open(path)?;
    let media = Media { file: &file, len: file.metadata()?.len() };
    let mut scan = Scan::default();
    scan.run(&media)?;
    if scan.is_head_only() {
        return Ok(None);
    }
    let Scan { begin, movie: Some(mut movie), mut tracks, kept, mdat, .. } = scan else {
        return Err(RepairError::Nothing);
    };
    if movie.mvex.is_none() {
        // An index without its media is no recording.
        return mdat.then(|| Some(finished(&movie, media.len))).ok_or(RepairError::Nothing);
    }
    if kept == 0 {
        return Err(RepairError::Nothing);
    }
    if media.holds_fragment(kept)? {
        return Err(RepairError::Damaged { at: kept });
    }
    if let Some(until) = until {
        let scale = movie.mvhd.timescale;
        movie.trak.iter().zip(&mut tracks).for_each(|(track, samples)| samples.trim(track, scale, until));
    }
    let Some(found) = index(&mut movie, tracks) else { return Ok(None) };
    let mut bytes = Vec::new();
    movie.encode(&mut bytes).map_err(io::Error::other)?;
    file.set_len(kept)?;
    file.write_all_at(&bytes, kept)?;
    // The index is there before anything says that it counts.
    file.sync_data()?;
    let size = (kept - begin).to_be_bytes();
    file.write_all_at(&[&1_u32.to_be_bytes()[..], b"mdat", &size].concat(), begin)?;
    let (bytes_kept, bytes_cut) = (kept + bytes.len() as u64, media.len - kept);
    Ok(Some(Repaired { bytes_kept, bytes_cut, ..found }))
}

/// Puts the samples into the movie, and takes out what only a fragmented one has; `None` without samples.
fn index(movie: &mut Moov, tracks: Vec<Samples>) -> Option<Repaired> {
    let scale = movie.mvhd.timescale;
    let mut found = Repaired::default();
    let (mut longest, mut kept) = (0, Vec::new());
    for (mut track, samples) in std::mem::take(&mut movie.trak).into_iter().zip(tracks) {
        let count = samples.count();
        if count > 0 {
            found.count(&track, count.into());
            longest = longest.max(samples.write_into(&mut track, scale));
            kept.push(track);
        }
    }
    movie.trak = kept;
    movie.mvhd.duration = longest;
    movie.mvex = None;
    found.duration = seconds(longest, scale);
    (!movie.trak.is_empty()).then_some(found)
}

/// What a finished file holds.
fn finished(movie: &Moov, len: u64) -> Repaired {
    let duration = seconds(movie.mvhd.duration, movie.mvhd.timescale);
    let mut found = Repaired { bytes_kept: len, duration, was_finished: true, ..Repaired::default() };
    for track in &movie.trak {
        let sizes = &track.mdia.minf.stbl.stsz.samples;
        found.count(
            track,
            match sizes {
                mp4_atom::StszSamples::Identical { count, .. } => (*count).into(),
                mp4_atom::StszSamples::Different { sizes } => sizes.len() as u64,
            },
        );
    }
    found
}

impl Repaired {
    fn count(&mut self, track: &Trak, samples: u64) {
        let frames = if is_video(track) { &mut self.video_frames } else { &mut self.audio_frames };
        *frames += samples;
    }
}

/// What a walk over the boxes of a file has found.
#[derive(Default)]
struct Scan {
    /// The offset behind the `ftyp`.
    begin: u64,
    movie: Option<Moov>,
    /// The samples of each track of the movie.
    tracks: Vec<Samples>,
    /// There is a `mdat`, whole.
    mdat: bool,
    /// The offset behind the last whole fragment; 0 without one.
    kept: u64,
    /// The fragment whose media is still to come.
    pending: Vec<(usize, Run)>,
    /// Every byte is in a box that has been taken.
    whole: bool,
}

impl Scan {
    /// Walks from box to box until the end, or to the first one that is torn, or that no recorder writes there.
    fn run(&mut self, media: &Media<'_>) -> io::Result<()> {
        let mut at = 0;
        while let Some(head) = media.head(at)?.filter(|head| head.end <= media.len) {
            let taken = match &head.kind {
                b"ftyp" if at == 0 => {
                    self.begin = head.end;
                    Some(())
                }
                b"moov" if self.movie.is_none() => self.movie(&media.read(head, MOOV_MAX)?),
                b"moof" => self.fragment(&media.read(head, MOOF_MAX)?, head.at),
                b"mdat" => self.media(head.end),
                b"free" | b"skip" | b"uuid" | b"styp" | b"sidx" => Some(()),
                _ => None,
            };
            if taken.is_none() {
                break;
            }
            at = head.end;
        }
        self.whole = at == media.len;
        Ok(())
    }

    /// No media has been written, whole or torn.
    fn is_head_only(&self) -> bool {
        self.whole && !self.mdat && self.pending.is_empty()
    }

    fn movie(&mut self, bytes: &[u8]) -> Option<()> {
        let movie = Moov::decode(&mut &*bytes).ok()?;
        let timed = movie.mvhd.timescale > 0 && movie.trak.iter().all(|track| track.mdia.mdhd.timescale > 0);
        self.tracks = movie.trak.iter().map(|_| Samples::default()).collect();
        self.movie = (timed && !movie.trak.is_empty()).then_some(movie);
        self.movie.as_ref().map(|_| ())
    }

    fn fragment(&mut self, bytes: &[u8], at: u64) -> Option<()> {
        let movie = self.movie.as_ref()?;
        let defaults = &movie.mvex.as_ref()?.trex;
        self.pending = Vec::new();
        for traf in Moof::decode(&mut &*bytes).ok()?.traf {
            let id = traf.tfhd.track_id;
            let track = movie.trak.iter().position(|track| track.tkhd.track_id == id)?;
            let defaults = defaults.iter().find(|defaults| defaults.track_id == id)?;
            self.pending.push((track, Run::read(traf, at, defaults)?));
        }
        Some(())
    }

    /// Keeps the fragment whose media ends before `end`.
    fn media(&mut self, end: u64) -> Option<()> {
        self.mdat = true;
        if self.pending.is_empty() {
            return Some(());
        }
        if self.pending.iter().any(|(_, run)| run.data_end > end) {
            return None;
        }
        for (track, run) in self.pending.drain(..) {
            self.tracks.get_mut(track)?.take(&run)?;
        }
        self.kept = end;
        Some(())
    }
}

/// Where a box is in the file.
#[derive(Clone, Copy, Debug)]
struct Head {
    kind: [u8; 4],
    at: u64,
    /// The offset behind its last byte.
    end: u64,
}

/// A file that is read at offsets, with the length that it had when it was opened.
struct Media<'a> {
    file: &'a File,
    len: u64,
}

impl Media<'_> {
    /// The head of the box at `at`, which may end behind the file; `None` where there is none.
    fn head(&self, at: u64) -> io::Result<Option<Head>> {
        let bytes = self.bytes(at, at.saturating_add(16))?;
        let word = |from: usize| Some(u32::from_be_bytes(*bytes.get(from..)?.first_chunk()?));
        let parse = || {
            let (size, header) = match word(0)? {
                1 => (u64::from(word(8)?) << 32 | u64::from(word(12)?), 16),
                size => (u64::from(size), 8),
            };
            let head = Head { kind: *bytes.get(4..)?.first_chunk()?, at, end: at.saturating_add(size) };
            (size >= header).then_some(head)
        };
        Ok(parse())
    }

    /// A whole box; nothing of one of more than `max` bytes.
    fn read(&self, head: Head, max: u64) -> io::Result<Vec<u8>> {
        if head.end - head.at > max { Ok(Vec::new()) } else { self.bytes(head.at, head.end) }
    }

    /// The bytes of `from..to`, as far as the file goes.
    fn bytes(&self, from: u64, to: u64) -> io::Result<Vec<u8>> {
        let size = to.min(self.len).saturating_sub(from);
        let mut bytes = vec![0; usize::try_from(size).map_err(io::Error::other)?];
        self.file.read_exact_at(&mut bytes, from)?;
        Ok(bytes)
    }

    /// Whether there is a fragment from `from` on that is whole, with its media: what is torn at the end has none.
    fn holds_fragment(&self, from: u64) -> io::Result<bool> {
        let mut at = from;
        for _ in 0..TRIES {
            let Some(found) = self.find_moof(at)? else { return Ok(false) };
            at = found + 1;
            let Some(moof) = self.head(found)?.filter(|moof| moof.end <= self.len) else { continue };
            let media = self.head(moof.end)?;
            if media.is_some_and(|media| media.kind == *b"mdat" && media.end <= self.len) {
                return Ok(true);
            }
        }
        Ok(true)
    }

    /// The next place from `from` on that looks like a `moof`.
    fn find_moof(&self, from: u64) -> io::Result<Option<u64>> {
        const STEP: u64 = 1 << 20;
        let looks = |bytes: &[u8]| &bytes[4..8] == b"moof" && &bytes[12..16] == b"mfhd";
        let mut at = from;
        while at < self.len {
            let bytes = self.bytes(at, at.saturating_add(STEP + 15))?;
            if let Some(found) = bytes.windows(16).position(looks) {
                return Ok(Some(at + found as u64));
            }
            at += STEP;
        }
        Ok(None)
    }
}

/// Ticks of `scale` a second as a time.
fn seconds(ticks: u64, scale: u32) -> Duration {
    let nanos = u128::from(ticks) * 1_000_000_000 / u128::from(scale.max(1));
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests;
