//! `moov`: the movie and its tracks, and where their durations are.

use super::{BoxError, Head, Media, need, number_at, u32_at};

/// How deep boxes are nested where this module looks: moov, trak, mdia, minf, stbl.
const DEPTH_MAX: u8 = 5;

/// A recording has two tracks.
const TRACKS_MAX: usize = 16;

/// The most bytes read of a box inside `moov`; only `ctts` is ever longer.
const LEAF_MAX: u64 = 64 << 10;

/// A number in the file that can be written again: its offset, and whether it has 64 bits or 32.
#[derive(Clone, Copy, Debug)]
pub(in crate::record) struct Field {
    pub at: u64,
    pub wide: bool,
}

/// What a track shows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::record) enum Kind {
    Video,
    Audio,
    #[default]
    Other,
}

/// A track as its `trak` and its `trex` describe it. Times are in ticks of `scale` a second unless they say otherwise.
#[derive(Debug, Default)]
pub(in crate::record) struct Track {
    pub id: u32,
    pub kind: Kind,
    pub scale: u32,
    /// Samples counted so far.
    pub samples: u64,
    /// The decode time of the first sample, once there is one.
    pub first: Option<u64>,
    /// Where the last sample's decode time ends.
    pub decode_end: u64,
    /// Where the sample that is shown last ends, before the edit list. For the samples of `moov` an upper bound.
    pub shown_end: u64,
    pub tkhd: Option<Field>,
    pub edit: Option<Edit>,
    /// The longest time between decoding and showing a sample of `moov`.
    reorder: u32,
    /// What a fragment's samples have where it does not say otherwise.
    pub default_duration: u32,
    /// As `default_duration`, bytes.
    pub default_size: u32,
}

/// The last entry of an edit list, the one that shows the media.
#[derive(Clone, Copy, Debug)]
pub(in crate::record) struct Edit {
    /// Its duration, in the movie's ticks.
    pub duration: Field,
    /// Whether the duration says 0: the whole track, fragments included.
    pub open: bool,
    /// The media time that it starts at, in the track's ticks.
    pub media_time: u64,
    /// The empty time before it, in the movie's ticks.
    pub empty: u64,
}

/// What `moov` says. Times are in ticks of `scale` a second.
#[derive(Debug)]
pub(in crate::record) struct Movie {
    pub head: Head,
    pub scale: u32,
    pub duration: u64,
    pub mvhd: Option<Field>,
    pub mehd: Option<Field>,
    /// Whether fragments follow (`mvex`).
    pub fragmented: bool,
    pub tracks: Vec<Track>,
}

impl Movie {
    /// Reads the `moov` of `head`, which has to lie inside the file, box by box, without loading it.
    pub fn read(media: &Media<'_>, head: Head) -> Result<Movie, BoxError> {
        let mut movie =
            Movie { head, scale: 0, duration: 0, mvhd: None, mehd: None, fragmented: false, tracks: vec![] };
        movie.walk(media, head, 1)?;
        for track in &mut movie.tracks {
            track.first = (track.samples > 0).then_some(0);
            track.shown_end = track.decode_end.saturating_add(track.reorder.into());
        }
        let timed = movie.scale > 0 && !movie.tracks.is_empty() && movie.tracks.iter().all(|track| track.scale > 0);
        if timed { Ok(movie) } else { Err(BoxError::Malformed) }
    }

    fn walk(&mut self, media: &Media<'_>, parent: Head, depth: u8) -> Result<(), BoxError> {
        let mut at = parent.body;
        while at < parent.end {
            let child = need(media.head(at)?.filter(|child| child.end <= parent.end))?;
            match &child.kind {
                b"trak" | b"mdia" | b"minf" | b"stbl" | b"edts" | b"mvex" => {
                    need((depth < DEPTH_MAX && self.tracks.len() < TRACKS_MAX).then_some(()))?;
                    self.fragmented |= child.kind == *b"mvex";
                    if child.kind == *b"trak" {
                        self.tracks.push(Track::default());
                    }
                    self.walk(media, child, depth + 1)?;
                }
                b"mvhd" | b"tkhd" | b"mdhd" | b"hdlr" | b"stsz" | b"ctts" | b"elst" | b"mehd" | b"trex" => {
                    let bytes = media.read(child.body, child.end.min(child.body + LEAF_MAX))?;
                    need(self.leaf(child, &bytes))?;
                }
                _ => {}
            }
            at = child.end;
        }
        Ok(())
    }

    fn leaf(&mut self, head: Head, bytes: &[u8]) -> Option<()> {
        let wide = *bytes.first()? == 1;
        match &head.kind {
            b"mvhd" => {
                let at = if wide { 24 } else { 16 };
                (self.scale, self.duration) = (u32_at(bytes, at - 4)?, number_at(bytes, at, wide)?);
                self.mvhd = Some(Field { at: head.body + at as u64, wide });
            }
            b"mehd" => {
                number_at(bytes, 4, wide)?;
                self.mehd = Some(Field { at: head.body + 4, wide });
            }
            b"trex" => {
                let id = u32_at(bytes, 4)?;
                let track = self.tracks.iter_mut().find(|track| track.id == id)?;
                (track.default_duration, track.default_size) = (u32_at(bytes, 12)?, u32_at(bytes, 16)?);
            }
            _ => self.tracks.last_mut()?.leaf(head, bytes, wide)?,
        }
        Some(())
    }
}

impl Track {
    fn leaf(&mut self, head: Head, bytes: &[u8], wide: bool) -> Option<()> {
        match &head.kind {
            b"tkhd" => {
                let at = if wide { 28 } else { 20 };
                self.id = u32_at(bytes, at - 8)?;
                number_at(bytes, at, wide)?;
                self.tkhd = Some(Field { at: head.body + at as u64, wide });
            }
            b"mdhd" => {
                let at = if wide { 24 } else { 16 };
                (self.scale, self.decode_end) = (u32_at(bytes, at - 4)?, number_at(bytes, at, wide)?);
            }
            b"hdlr" => match bytes.get(8..12)? {
                b"vide" => self.kind = Kind::Video,
                b"soun" => self.kind = Kind::Audio,
                _ => {}
            },
            b"stsz" => self.samples = u32_at(bytes, 8)?.into(),
            b"ctts" => self.reorder = reorder(bytes)?,
            b"elst" => self.edit = edit(head, bytes, wide),
            _ => {}
        }
        Some(())
    }
}

/// The largest time between decoding and showing in a `ctts`.
fn reorder(bytes: &[u8]) -> Option<u32> {
    let entries = bytes.get(8..)?.chunks_exact(8);
    entries.filter_map(|entry| u32::try_from(u32_at(entry, 4)?.cast_signed()).ok()).max().or(Some(0))
}

/// The edit list in the one form that mp4mux writes: at most some empty time, then the media.
fn edit(head: Head, bytes: &[u8], wide: bool) -> Option<Edit> {
    let (entry, number) = if wide { (20, 8) } else { (12, 4) };
    let last = match u32_at(bytes, 4)? {
        1 => 8,
        2 => 8 + entry,
        _ => return None,
    };
    let empty = if last > 8 { number_at(bytes, 8, wide)? } else { 0 };
    let media_time = match wide {
        true => number_at(bytes, last + number, true)?.cast_signed(),
        false => u32_at(bytes, last + number)?.cast_signed().into(),
    };
    Some(Edit {
        duration: Field { at: head.body + last as u64, wide },
        open: number_at(bytes, last, wide)? == 0,
        media_time: u64::try_from(media_time).ok()?,
        empty,
    })
}
