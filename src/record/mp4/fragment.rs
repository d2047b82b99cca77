//! `moof`: the samples of a fragment.

use super::movie::Track;
use super::{BoxError, Head, Media, boxes, need, number_at, take_u32, take_u64};
use crate::media::mend_moof;

/// The largest `moof` that is read. mp4mux writes about 2 kB a second of media into it.
const MOOF_MAX: u64 = 16 << 20;

/// What a `moof` says about its samples.
#[derive(Debug)]
pub(in crate::record) struct Fragment {
    /// The file offset behind the last byte of its samples.
    pub data_end: u64,
    /// What has to stand in the file in its place, with its offset, where it leaves out what readers need.
    pub mended: Option<(u64, Vec<u8>)>,
    runs: Vec<Run>,
}

/// The samples of one track in a fragment.
#[derive(Debug)]
struct Run {
    track: usize,
    samples: u64,
    first: u64,
    decode_end: u64,
    shown_end: u64,
}

/// What the `tfhd` of a track fragment sets for its runs.
struct Defaults {
    base: u64,
    duration: u32,
    size: u32,
}

impl Fragment {
    /// Reads the `moof` of `head`, which has to lie inside the file.
    pub fn read(media: &Media<'_>, head: Head, tracks: &[Track]) -> Result<Fragment, BoxError> {
        need((head.end - head.at <= MOOF_MAX).then_some(()))?;
        let mut bytes = media.read(head.at, head.end)?;
        let mended = mend_moof(&mut bytes);
        let mut fragment = Fragment { data_end: 0, mended: None, runs: vec![] };
        let mut base = head.at;
        let body = usize::try_from(head.body - head.at).ok().and_then(|body| bytes.get(body..));
        for child in boxes(need(body)?) {
            let (kind, body) = need(child)?;
            if kind == *b"traf" {
                base = need(fragment.traf(body, head.at, base, tracks))?;
            }
        }
        fragment.mended = mended.then_some((head.at, bytes));
        Ok(fragment)
    }

    /// Adds what the fragment holds to its tracks.
    pub fn add_to(&self, tracks: &mut [Track]) {
        for run in self.runs.iter().filter(|run| run.samples > 0) {
            if let Some(track) = tracks.get_mut(run.track) {
                track.samples = track.samples.saturating_add(run.samples);
                track.first.get_or_insert(run.first);
                track.decode_end = track.decode_end.max(run.decode_end);
                track.shown_end = track.shown_end.max(run.shown_end);
            }
        }
    }

    /// Reads a track fragment, whose data starts at `base` unless it says otherwise; gives where its data ends.
    fn traf(&mut self, bytes: &[u8], moof: u64, base: u64, tracks: &[Track]) -> Option<u64> {
        let mut boxes = boxes(bytes);
        let (kind, body) = boxes.next()??;
        let (track, defaults) = if kind == *b"tfhd" {
            tfhd(body, moof, base, tracks)?
        } else {
            return None;
        };
        let start = tracks.get(track)?.decode_end;
        let mut run = Run { track, samples: 0, first: start, decode_end: start, shown_end: 0 };
        let mut data = defaults.base;
        for child in boxes {
            match child? {
                ([b't', b'f', b'd', b't'], body) => {
                    run.first = number_at(body, 4, *body.first()? == 1)?;
                    run.decode_end = run.first;
                }
                ([b't', b'r', b'u', b'n'], body) => {
                    data = run.add(body, &defaults, data)?;
                    self.data_end = self.data_end.max(data);
                }
                _ => {}
            }
        }
        self.runs.push(run);
        Some(data)
    }
}

/// The track's index and the defaults of a track fragment.
fn tfhd(mut bytes: &[u8], moof: u64, base: u64, tracks: &[Track]) -> Option<(usize, Defaults)> {
    let flags = take_u32(&mut bytes)?;
    let id = take_u32(&mut bytes)?;
    let index = tracks.iter().position(|track| track.id == id)?;
    let track = tracks.get(index)?;
    let mut defaults = Defaults { base, duration: track.default_duration, size: track.default_size };
    if flags & 0x02_0000 != 0 {
        defaults.base = moof;
    }
    if flags & 0x1 != 0 {
        defaults.base = take_u64(&mut bytes)?;
    }
    if flags & 0x2 != 0 {
        take_u32(&mut bytes)?;
    }
    if flags & 0x8 != 0 {
        defaults.duration = take_u32(&mut bytes)?;
    }
    if flags & 0x10 != 0 {
        defaults.size = take_u32(&mut bytes)?;
    }
    Some((index, defaults))
}

impl Run {
    /// Adds the samples of a `trun`, whose data starts at `data` unless it says otherwise; gives where its data ends.
    fn add(&mut self, mut bytes: &[u8], defaults: &Defaults, mut data: u64) -> Option<u64> {
        let flags = take_u32(&mut bytes)?;
        let count = take_u32(&mut bytes)?;
        if flags & 0x1 != 0 {
            data = defaults.base.checked_add_signed(take_u32(&mut bytes)?.cast_signed().into())?;
        }
        if flags & 0x4 != 0 {
            take_u32(&mut bytes)?;
        }
        self.samples = self.samples.checked_add(count.into())?;
        // Without a field of its own no sample takes a byte, so that the count is not to be counted up to.
        if flags & 0xf00 == 0 {
            let count = u64::from(count);
            self.decode_end = self.decode_end.checked_add(count * u64::from(defaults.duration))?;
            self.shown_end = self.shown_end.max(self.decode_end);
            return data.checked_add(count * u64::from(defaults.size));
        }
        let signed = flags >> 24 != 0;
        for _ in 0..count {
            let mut own = |flag| {
                if flags & flag != 0 { take_u32(&mut bytes).map(Some) } else { Some(None) }
            };
            let duration = own(0x100)?.unwrap_or(defaults.duration);
            let size = own(0x200)?.unwrap_or(defaults.size);
            own(0x400)?;
            let later = own(0x800)?.unwrap_or(0);
            let later = if signed { later.cast_signed().into() } else { i64::from(later) };
            self.decode_end = self.decode_end.checked_add(duration.into())?;
            self.shown_end = self.shown_end.max(self.decode_end.saturating_add_signed(later));
            data = data.checked_add(size.into())?;
        }
        Some(data)
    }
}
