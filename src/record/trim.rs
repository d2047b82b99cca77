//! Takes frames off the end of a finished part, so that it ends where the part behind it begins.
//!
//! A part that cannot take what a stream has become (sound comes late or comes back, a format changes) is followed by one
//! that has to begin with a keyframe, and the last one has been written already. Which frames are in both is known only
//! once the next part begins, so they are taken out when the part is finished: here out of the tables of an MP4, in
//! [`super::matroska`] and [`super::transport`] out of the other files.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;

use super::mp4::Media;

/// Time stamps of files are rounded, to milliseconds at most; frames are further apart.
const ROUNDING: Duration = Duration::from_millis(2);
/// The largest `moov` that is loaded: that of some days.
const MOOV_MAX: u64 = 128 << 20;

/// Where each track is to end, counted from the part's start; `None` where nothing of it is taken off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Until {
    /// The first picture that does not belong to it.
    pub(super) video: Option<Duration>,
    /// The first packet of sound that does not.
    pub(super) audio: Option<Duration>,
}

impl Until {
    /// No frame before this is taken off.
    pub(super) fn earliest(self) -> Duration {
        self.video.into_iter().chain(self.audio).min().unwrap_or(Duration::MAX).saturating_sub(ROUNDING)
    }
}

/// Decides frame by frame, in the order in which they are decoded: what follows the first picture that goes needs it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cut {
    until: Until,
    video_ended: bool,
}

impl Cut {
    pub(super) fn new(until: Until) -> Self {
        Self { until, video_ended: false }
    }

    /// Whether a frame of this time goes.
    pub(super) fn drops(&mut self, video: bool, time: Duration) -> bool {
        let is_late = |until: Option<Duration>| until.is_some_and(|until| time + ROUNDING >= until);
        if video {
            self.video_ended |= is_late(self.until.video);
            self.video_ended
        } else {
            is_late(self.until.audio)
        }
    }
}

/// Takes the frames from `until` on out of the tables of a finished MP4; false when none is left. Their bytes stay in the
/// file. What is no MP4 with one index at its end is left as it is. Blocks.
///
/// # Errors
/// The system's.
pub(super) fn trim_mp4(path: &Path, until: Until) -> io::Result<bool> {
    let file = OpenOptions::new().read(true).write(true).open(path)?;
    let Some((at, mut movie)) = index(&file)? else { return Ok(true) };
    let Some(tracks_left) = movie.trim(until) else { return Ok(true) };
    let bytes = movie.bytes();
    file.write_all_at(&bytes, at)?;
    file.set_len(at + bytes.len() as u64)?;
    Ok(tracks_left > 0)
}

/// The index at the end of a file and where it stands.
fn index(file: &File) -> io::Result<Option<(u64, Node)>> {
    let media = Media { file, len: file.metadata()?.len() };
    let mut at = 0;
    while let Some(head) = media.head(at)?.filter(|head| head.end <= media.len) {
        if head.kind == *b"moov" {
            if head.end != media.len || head.end - head.body > MOOV_MAX {
                return Ok(None);
            }
            let mut body = vec![0; usize::try_from(head.end - head.body).map_err(io::Error::other)?];
            file.read_exact_at(&mut body, head.body)?;
            let node = Node::read(*b"moov", &body, 0).filter(|node| node.child(b"mvex").is_none());
            return Ok(node.map(|node| (head.at, node)));
        }
        at = head.end;
    }
    Ok(None)
}

/// A box, as far as it is looked into.
#[derive(Debug, Clone, PartialEq)]
struct Node {
    kind: [u8; 4],
    content: Content,
}

#[derive(Debug, Clone, PartialEq)]
enum Content {
    Boxes(Vec<Node>),
    Bytes(Vec<u8>),
}

impl Node {
    /// `None` where the boxes do not fill it.
    fn read(kind: [u8; 4], body: &[u8], depth: u8) -> Option<Self> {
        if depth > 5 || !matches!(&kind, b"moov" | b"trak" | b"mdia" | b"minf" | b"stbl" | b"edts") {
            return Some(Self { kind, content: Content::Bytes(body.to_vec()) });
        }
        let (mut children, mut rest) = (Vec::new(), body);
        while !rest.is_empty() {
            let size = usize::try_from(u32_at(rest, 0)?).ok().filter(|size| *size >= 8)?;
            let (this, after) = rest.split_at_checked(size)?;
            children.push(Self::read(this.get(4..8)?.try_into().ok()?, &this[8..], depth + 1)?);
            rest = after;
        }
        Some(Self { kind, content: Content::Boxes(children) })
    }

    fn bytes(&self) -> Vec<u8> {
        let body = match &self.content {
            Content::Bytes(bytes) => bytes.clone(),
            Content::Boxes(children) => children.iter().flat_map(Self::bytes).collect(),
        };
        let size = u32::try_from(body.len() + 8).unwrap_or(0).to_be_bytes();
        [&size[..], &self.kind, &body].concat()
    }

    fn children(&self) -> &[Node] {
        match &self.content {
            Content::Boxes(children) => children,
            Content::Bytes(_) => &[],
        }
    }

    fn child(&self, kind: &[u8; 4]) -> Option<&Node> {
        self.children().iter().find(|child| child.kind == *kind)
    }

    /// The body of a box further down.
    fn leaf(&self, path: &[&[u8; 4]]) -> Option<&[u8]> {
        let node = path.iter().try_fold(self, |node, kind| node.child(kind))?;
        match &node.content {
            Content::Bytes(bytes) => Some(bytes),
            Content::Boxes(_) => None,
        }
    }

    fn leaf_mut(&mut self, path: &[&[u8; 4]]) -> Option<&mut Vec<u8>> {
        let mut node = self;
        for kind in path {
            let Content::Boxes(children) = &mut node.content else { return None };
            node = children.iter_mut().find(|child| child.kind == **kind)?;
        }
        match &mut node.content {
            Content::Bytes(bytes) => Some(bytes),
            Content::Boxes(_) => None,
        }
    }

    /// Trims every track of a `moov`; gives how many are left, `None` where it is not understood.
    fn trim(&mut self, until: Until) -> Option<usize> {
        let mvhd = self.leaf(&[b"mvhd"])?;
        let scale = u32_at(mvhd, if mvhd.first()? == &1 { 20 } else { 12 }).filter(|scale| *scale > 0)?;
        let Content::Boxes(children) = &mut self.content else { return None };
        let (mut left, mut longest) = (0, 0);
        let mut empty = Vec::new();
        for (n, track) in children.iter_mut().enumerate().filter(|(_, child)| child.kind == *b"trak") {
            let samples = Samples::read(track, scale)?;
            let keep = samples.before(until);
            if keep == 0 {
                empty.push(n);
                continue;
            }
            longest = longest.max(samples.cut(track, keep)?);
            left += 1;
        }
        empty.iter().rev().for_each(|n| drop(children.remove(*n)));
        let mvhd = self.leaf_mut(&[b"mvhd"])?;
        put(mvhd, 16, longest)?;
        Some(left)
    }
}

const STBL: [&[u8; 4]; 3] = [b"mdia", b"minf", b"stbl"];

/// What the tables of a track say of its samples.
struct Samples {
    video: bool,
    /// Ticks a second, of the track and of the movie.
    scales: (u64, u64),
    /// The media time that is shown first, ticks of the track, and the empty time before it, ticks of the movie.
    shown_from: (i64, u64),
    durations: Vec<u32>,
    /// From decoding to showing; empty where that is the same.
    offsets: Vec<i32>,
    /// Samples in each chunk, and the number of their description.
    chunks: Vec<(u32, u32)>,
}

impl Samples {
    fn read(track: &Node, movie_scale: u32) -> Option<Self> {
        let table = |kind| track.leaf(&[STBL[0], STBL[1], STBL[2], kind]);
        let mdhd = track.leaf(&[b"mdia", b"mdhd"])?;
        let scale = u32_at(mdhd, if mdhd.first()? == &1 { 20 } else { 12 }).filter(|scale| *scale > 0)?;
        let count = usize::try_from(u32_at(table(b"stsz")?, 8)?).ok()?;
        let durations = runs(table(b"stts")?, count)?;
        let offsets = match table(b"ctts") {
            Some(ctts) => runs(ctts, count)?.into_iter().map(u32::cast_signed).collect(),
            None => Vec::new(),
        };
        Some(Self {
            video: track.leaf(&[b"mdia", b"hdlr"])?.get(8..12)? == b"vide",
            scales: (scale.into(), movie_scale.into()),
            shown_from: edit(track)?,
            durations,
            offsets,
            chunks: chunks(table(b"stsc")?, table(b"stco").or(table(b"co64"))?, count)?,
        })
    }

    /// Decoding and showing of each sample, ticks.
    fn times(&self) -> impl Iterator<Item = (i64, i64)> {
        self.durations.iter().enumerate().scan(0_i64, |next, (n, duration)| {
            let decoded = *next;
            *next = next.saturating_add((*duration).into());
            Some((decoded, decoded + i64::from(self.offsets.get(n).copied().unwrap_or(0))))
        })
    }

    /// How many samples stay.
    fn before(&self, until: Until) -> usize {
        let mut cut = Cut::new(until);
        let early = Duration::from_nanos(self.shown_from.1 * 1_000_000_000 / self.scales.1);
        let stays = |shown: i64| {
            let ticks = u128::try_from(shown - self.shown_from.0).unwrap_or(0);
            let nanos = ticks * 1_000_000_000 / u128::from(self.scales.0);
            !cut.drops(self.video, early + Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX)))
        };
        self.times().map(|(_, shown)| shown).map(stays).take_while(|stays| *stays).count()
    }

    /// Writes the tables of the first `keep` samples; gives how long they are shown, ticks of the movie.
    fn cut(&self, track: &mut Node, keep: usize) -> Option<u64> {
        let count = u32::try_from(keep).ok()?;
        let mut table = |kind, change: &dyn Fn(&mut Vec<u8>) -> Option<()>| {
            track.leaf_mut(&[STBL[0], STBL[1], STBL[2], kind]).map_or(Some(()), change)
        };
        for kind in [b"stts", b"ctts"] {
            table(kind, &|runs| {
                keep_runs(runs, count);
                Some(())
            })?;
        }
        table(b"stss", &|stss| {
            let kept: Vec<u32> = words(stss.get(8..)?).take_while(|number| *number <= count).collect();
            stss.splice(4.., listed(kept.len(), &kept));
            Some(())
        })?;
        table(b"stsz", &|stsz| {
            if u32_at(stsz, 4)? == 0 {
                stsz.truncate(12 + keep * 4);
            }
            put32(stsz, 8, count)
        })?;
        let chunks = kept_chunks(&self.chunks, count);
        let number = u32::try_from(chunks.len()).ok()?;
        for (kind, width) in [(b"stco", 4), (b"co64", 8)] {
            table(kind, &|offsets| {
                offsets.truncate(8 + chunks.len() * width);
                put32(offsets, 4, number)
            })?;
        }
        table(b"stsc", &|stsc| {
            let runs = chunk_runs(&chunks);
            stsc.splice(4.., listed(runs.len() / 3, &runs));
            Some(())
        })?;
        let length: u64 = self.durations.iter().take(keep).map(|duration| u64::from(*duration)).sum();
        let ends = self.times().zip(&self.durations).take(keep).map(|((_, shown), length)| shown + i64::from(*length));
        let shown = u64::try_from(ends.max()? - self.shown_from.0).ok()?;
        let of_movie = u64::try_from(u128::from(shown) * u128::from(self.scales.1) / u128::from(self.scales.0)).ok()?;
        put(track.leaf_mut(&[b"mdia", b"mdhd"])?, 16, length)?;
        put(track.leaf_mut(&[b"tkhd"])?, 20, self.shown_from.1 + of_movie)?;
        if let Some(elst) = track.leaf_mut(&[b"edts", b"elst"]) {
            let (entry, wide) = if elst.first()? == &1 { (20, true) } else { (12, false) };
            let last = elst.len().checked_sub(entry)?;
            put_number(elst, last, of_movie, wide)?;
        }
        Some(self.shown_from.1 + of_movie)
    }
}

/// What an edit list shows, in the one form that mp4mux writes: at most some empty time, then the media.
fn edit(track: &Node) -> Option<(i64, u64)> {
    let Some(elst) = track.leaf(&[b"edts", b"elst"]) else { return Some((0, 0)) };
    let wide = elst.first()? == &1;
    let (entry, number) = if wide { (20, 8) } else { (12, 4) };
    let count = u32_at(elst, 4)?;
    let empty = if count == 2 { number_at(elst, 8, wide)? } else { 0 };
    let last = 8 + entry * usize::try_from(count).ok().filter(|count| (1..=2).contains(count))?.checked_sub(1)?;
    let from = number_at(elst, last + number, wide)?;
    Some((if wide { from.cast_signed() } else { u32::try_from(from).ok()?.cast_signed().into() }, empty))
}

/// The values of a table of runs, one a sample.
fn runs(table: &[u8], count: usize) -> Option<Vec<u32>> {
    let mut values = Vec::new();
    for run in table.get(8..)?.chunks_exact(8) {
        let length = usize::try_from(u32_at(run, 0)?).ok()?;
        values.resize(values.len().checked_add(length)?.min(count), u32_at(run, 4)?);
    }
    (values.len() == count).then_some(values)
}

/// Shortens a table of runs to `count` samples.
fn keep_runs(table: &mut Vec<u8>, count: u32) {
    let (mut left, mut kept) = (count, Vec::new());
    for run in words(table.get(8..).unwrap_or_default()).collect::<Vec<_>>().chunks_exact(2) {
        let length = run[0].min(left);
        left -= length;
        if length > 0 {
            kept.extend([length, run[1]]);
        }
    }
    table.splice(4.., listed(kept.len() / 2, &kept));
}

/// Samples and description of each chunk.
fn chunks(stsc: &[u8], offsets: &[u8], samples: usize) -> Option<Vec<(u32, u32)>> {
    let count = u32_at(offsets, 4)?;
    // No chunk is empty, so that their number is bounded by what is there.
    let count = usize::try_from(count).ok().filter(|count| *count <= samples)?;
    let entries: Vec<u32> = words(stsc.get(8..)?).collect();
    let mut chunks = Vec::new();
    for (n, entry) in entries.chunks_exact(3).enumerate() {
        let end = entries.get(n * 3 + 3).map_or(count, |first| (*first as usize).saturating_sub(1).min(count));
        chunks.resize(end.max(chunks.len()), (entry[1], entry[2]));
    }
    (chunks.len() == count).then_some(chunks)
}

/// The chunks that hold the first `count` samples, the last of them shortened.
fn kept_chunks(chunks: &[(u32, u32)], count: u32) -> Vec<(u32, u32)> {
    let mut left = count;
    let shortened = chunks.iter().map_while(|(samples, description)| {
        let kept = (*samples).min(left);
        left -= kept;
        (kept > 0).then_some((kept, *description))
    });
    shortened.collect()
}

/// The entries of a `stsc`: first chunk, samples, description.
fn chunk_runs(chunks: &[(u32, u32)]) -> Vec<u32> {
    let mut runs = Vec::new();
    for (number, chunk) in (1..).zip(chunks) {
        if runs.last_chunk::<2>() != Some(&[chunk.0, chunk.1]) {
            runs.extend([number, chunk.0, chunk.1]);
        }
    }
    runs
}

/// A table behind its version: the number of its entries, and their words.
fn listed(count: usize, entries: &[u32]) -> Vec<u8> {
    let count = u32::try_from(count).unwrap_or(u32::MAX);
    std::iter::once(&count).chain(entries).flat_map(|word| word.to_be_bytes()).collect()
}

fn words(bytes: &[u8]) -> impl Iterator<Item = u32> {
    bytes.as_chunks().0.iter().map(|word| u32::from_be_bytes(*word))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|word| u32::from_be_bytes(*word))
}

fn number_at(bytes: &[u8], at: usize, wide: bool) -> Option<u64> {
    if wide {
        bytes.get(at..)?.first_chunk().map(|word| u64::from_be_bytes(*word))
    } else {
        u32_at(bytes, at).map(u64::from)
    }
}

fn put32(bytes: &mut [u8], at: usize, value: u32) -> Option<()> {
    bytes.get_mut(at..at + 4)?.copy_from_slice(&value.to_be_bytes());
    Some(())
}

fn put_number(bytes: &mut [u8], at: usize, value: u64, wide: bool) -> Option<()> {
    match wide {
        true => bytes.get_mut(at..at + 8)?.copy_from_slice(&value.to_be_bytes()),
        false => put32(bytes, at, u32::try_from(value).ok()?)?,
    }
    Some(())
}

/// Writes a duration into a header whose fields before it have 32 bits, at `at`, or 64 bits, 8 further.
fn put(header: &mut [u8], at: usize, value: u64) -> Option<()> {
    let wide = header.first()? == &1;
    put_number(header, if wide { at + 8 } else { at }, value, wide)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests;
