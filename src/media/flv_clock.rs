//! The clock of an FLV stream, put right in front of its demuxer.
//!
//! flvdemux does not follow a clock that wraps at 2^32 milliseconds or runs ahead, and one that goes back it puts right
//! for each track by itself, which pulls them apart. So the time stamps of the tags are rewritten: both tracks on one
//! time line that only goes on ([`super::timeline`]).

use std::sync::atomic::{AtomicI64, Ordering::Relaxed};
use std::time::Instant;

use gstreamer as gst;
use gstreamer::prelude::*;

use super::timeline::{Line, Stamp};

/// Bytes of a tag's header: type, length, time stamp, stream. Source: Adobe's FLV 10.1, annex E.4.1.
const HEAD: usize = 11;
/// Bytes of the file's header with the length that follows it.
const FILE_HEAD: usize = 13;
const SOUND: u8 = 8;
const PICTURES: u8 = 9;
/// Nanoseconds of a millisecond.
const MS: i64 = 1_000_000;

/// The clock of one source.
struct Clock {
    began: Instant,
    shared: AtomicI64,
    started: bool,
    /// The newest time stamp, unwrapped, milliseconds.
    newest: i64,
    lines: [Line; 2],
}

impl Clock {
    fn new() -> Self {
        let lines = [Line::default(), Line::default()];
        Self { began: Instant::now(), shared: AtomicI64::new(0), started: false, newest: 0, lines }
    }

    /// The time stamp to write in place of `stamp`; `None` where the tag is neither sound nor pictures.
    fn place(&mut self, kind: u8, stamp: u32) -> Option<u32> {
        let line = match kind {
            PICTURES => &mut self.lines[0],
            SOUND => &mut self.lines[1],
            _ => return None,
        };
        // The nearest time with these 32 bits.
        let newest = u32::try_from(self.newest.rem_euclid(1 << 32)).unwrap_or(0);
        self.newest = self.newest.saturating_add(i64::from(stamp.wrapping_sub(newest).cast_signed()));
        let time = self.newest.saturating_mul(MS);
        let arrival = i64::try_from(self.began.elapsed().as_nanos()).unwrap_or(i64::MAX);
        let (shared, started) = (&self.shared, &mut self.started);
        let first = || {
            // The source's first tag stands at 0, the other track where it is by the same clock.
            if !std::mem::replace(started, true) {
                shared.store(time.saturating_neg(), Relaxed);
            }
            shared.load(Relaxed)
        };
        let offset = line.offset(Stamp { time, ordered: true, length: 0, arrival }, shared, first);
        let placed = time.saturating_add(offset).max(0) / MS;
        u32::try_from(placed.rem_euclid(1 << 32)).ok()
    }
}

/// Puts the time stamps right of what goes into `demux`: buffers of one tag each, as rtmp2src gives them.
pub(super) fn correct(demux: &gst::Element) {
    let Some(pad) = demux.static_pad("sink") else { return };
    let clock = std::sync::Mutex::new(Clock::new());
    pad.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
        if let Some(buffer) = info.buffer_mut() {
            // Only the source's streaming thread comes here.
            let mut clock = clock.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            rewrite(buffer, &mut clock);
        }
        gst::PadProbeReturn::Ok
    });
}

/// Makes the time stamps of pictures that pass `pad` differ, by less than a millisecond.
pub(super) fn tell_apart(pad: &gst::Pad) {
    let state = std::sync::Mutex::new(Apart::default());
    pad.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
        if let Some(buffer) = info.buffer_mut()
            && let Some(decoded) = buffer.dts().or(buffer.pts())
        {
            let later = state.lock().unwrap_or_else(std::sync::PoisonError::into_inner).later(decoded);
            if later > gst::ClockTime::ZERO {
                let (pts, dts) = (buffer.pts().map(|pts| pts + later), buffer.dts().map(|dts| dts + later));
                let buffer = buffer.make_mut();
                buffer.set_pts(pts);
                buffer.set_dts(dts);
            }
        }
        gst::PadProbeReturn::Ok
    });
}

/// Tells pictures of the same millisecond apart.
#[derive(Debug, Default)]
pub(super) struct Apart {
    last: Option<gst::ClockTime>,
    repeats: u32,
}

impl Apart {
    /// What the next picture, to be decoded at this time, is put later by.
    pub(super) fn later(&mut self, decoded: gst::ClockTime) -> gst::ClockTime {
        self.repeats = if self.last.replace(decoded) == Some(decoded) { self.repeats.saturating_add(1) } else { 0 };
        within_millisecond(self.repeats)
    }
}

/// Nothing, a half, three quarters, seven eighths: there is always room for one more.
fn within_millisecond(repeats: u32) -> gst::ClockTime {
    gst::ClockTime::MSECOND - gst::ClockTime::MSECOND / (1 << repeats.min(19))
}

fn rewrite(buffer: &mut gst::Buffer, clock: &mut Clock) {
    let mut head = [0; FILE_HEAD + HEAD];
    let length = buffer.size().min(head.len());
    let _ = buffer.copy_to_slice(0, &mut head[..length]);
    let at = if head.starts_with(b"FLV") { FILE_HEAD } else { 0 };
    let Some([kind, _, _, _, high, middle, low, highest, ..]) = head.get(at..length) else { return };
    let stamp = u32::from_be_bytes([*highest, *high, *middle, *low]);
    if let Some(placed) = clock.place(*kind, stamp).filter(|placed| *placed != stamp) {
        let [highest, high, middle, low] = placed.to_be_bytes();
        // A tag that cannot be written to keeps its time.
        let _ = buffer.make_mut().copy_from_slice(at + 4, &[high, middle, low, highest]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_goes_on_from_where_it_is() {
        let mut clock = Clock::new();
        let mut place = |kind, stamp| clock.place(kind, stamp);
        assert_eq!([place(PICTURES, u32::MAX - 99), place(SOUND, u32::MAX - 89)], [Some(0), Some(10)]);
        assert_eq!([place(PICTURES, u32::MAX - 59), place(SOUND, u32::MAX - 66)], [Some(40), Some(33)]);
        // Over the wrap.
        assert_eq!([place(PICTURES, 0), place(SOUND, 0)], [Some(100), Some(100)]);
        // Back, and the sound along with the pictures.
        assert_eq!(
            [place(PICTURES, 0x8000_0010), place(SOUND, 0x8000_0020)].map(|at| at.is_some_and(|at| at < 300)),
            [true; 2]
        );
        assert_eq!(place(18, 7), None);
    }

    #[test]
    fn pictures_of_one_millisecond_are_apart() {
        let places: Vec<u64> = (0..=19).map(|repeats| within_millisecond(repeats).nseconds()).collect();
        assert_eq!(places[..4], [0, 500_000, 750_000, 875_000]);
        assert!(places.is_sorted_by(|a, b| a < b) && places.iter().all(|place| *place < 1_000_000), "{places:?}");
        assert_eq!(within_millisecond(500), within_millisecond(19));
    }

    #[test]
    fn tags_are_rewritten_in_place() {
        crate::media::init().unwrap_or_default();
        let mut clock = Clock::new();
        let tag = [9, 0, 0, 1, 0x10, 0, 0, 0x20, 0, 0, 0, 0x17, 0, 0, 0, 12];
        let file = [&b"FLV\x01\x05\0\0\0\x09\0\0\0\0"[..], &tag].concat();
        for (bytes, at) in [(file, 13), (tag.to_vec(), 0)] {
            let mut buffer = gst::Buffer::from_mut_slice(bytes.clone());
            rewrite(&mut buffer, &mut clock);
            let mut now = vec![0; bytes.len()];
            assert!(buffer.copy_to_slice(0, &mut now).is_ok());
            assert_eq!(now[at + 4..at + 8], [0; 4]);
            assert_eq!((&now[..at + 4], &now[at + 8..]), (&bytes[..at + 4], &bytes[at + 8..]));
        }
        let mut short = gst::Buffer::from_mut_slice(vec![9, 0, 0]);
        rewrite(&mut short, &mut clock);
        assert_eq!(short.size(), 3);
    }
}
