//! Where a source's frames stand on its stream's time line. Pure.
//!
//! The time line goes on without holes and never back, whatever the source's clock does. A track keeps the offset between
//! the two until its decoding times break off: they go back, or run ahead of the time that has passed. Then the frame
//! follows the one before it. All tracks of a source jump together but not at once; the first one chooses the new
//! offset, and the others take it over where it fits, so that sound and picture stay as they were to each other.

use std::sync::atomic::{AtomicI64, Ordering::Relaxed};

/// Nanoseconds of a millisecond.
const MS: i64 = 1_000_000;
/// Decoding times that go back by no more than this are jitter: the frame stands where the one before it does.
const JITTER: i64 = 100 * MS;
/// Presentation times without decoding times go back by up to this much where pictures are reordered.
const REORDERED: i64 = 1_000 * MS;
/// How much more than the time that has passed a frame may be later than the one before it.
const AHEAD: i64 = 3_000 * MS;
/// A pause in what arrives that is a pause on the time line, too, where the source's clock is of no use.
const PAUSE: i64 = 1_000 * MS;
/// How far the tracks of a source may be apart.
const APART: i64 = 3_000 * MS;

/// The time of a frame as its source has it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stamp {
    /// When it is to be decoded, or shown where that is all there is; nanoseconds.
    pub time: i64,
    /// Times never go back in a source that is in order: they are decoding times, or of sound.
    pub ordered: bool,
    /// How long it lasts, nanoseconds; 0 where that is not known.
    pub length: i64,
    /// When it came, nanoseconds.
    pub arrival: i64,
}

/// One track's place on the time line.
#[derive(Debug, Default)]
pub(super) struct Line {
    before: Option<Before>,
}

/// The newest frame.
#[derive(Debug, Clone, Copy)]
struct Before {
    time: i64,
    offset: i64,
    /// How long it lasts, as far as known.
    length: i64,
    arrival: i64,
}

impl Line {
    /// What is added to the source's times for this frame. `shared` is the newest offset of any track of the source, and
    /// `first` chooses one where this track has none yet.
    pub(super) fn offset(&mut self, frame: Stamp, shared: &AtomicI64, first: impl FnOnce() -> i64) -> i64 {
        let Some(before) = self.before else {
            let offset = first();
            self.before = Some(Before { time: frame.time, offset, length: frame.length, arrival: frame.arrival });
            return offset;
        };
        let step = frame.time.saturating_sub(before.time);
        let passed = frame.arrival.saturating_sub(before.arrival);
        let back = if frame.ordered { JITTER } else { REORDERED };
        if step < -back || step > passed.saturating_add(AHEAD) {
            let pause = if passed > PAUSE { passed } else { 0 };
            let here = before.time.saturating_add(before.offset).saturating_add(before.length.max(pause));
            let offset = agreed(frame.time, here, before.offset, shared);
            self.before = Some(Before { time: frame.time, offset, arrival: frame.arrival, ..before });
            return offset;
        }
        if step < 0 {
            // Jitter stands still, reordered pictures have their own place; the next frame goes on from the latest.
            let raised = if frame.ordered { -step } else { 0 };
            self.before = Some(Before { arrival: frame.arrival, ..before });
            return before.offset.saturating_add(raised);
        }
        let length = if frame.length > 0 { frame.length } else { step.min(PAUSE) };
        self.before = Some(Before { time: frame.time, length, arrival: frame.arrival, ..before });
        before.offset
    }
}

/// The offset for a frame at `time` that is to stand at `here`: the one that another track has chosen, where that brings
/// it close enough, else its own.
fn agreed(time: i64, here: i64, before: i64, shared: &AtomicI64) -> i64 {
    let mine = here.saturating_sub(time);
    let fits = |offset: i64| time.saturating_add(offset).saturating_sub(here).abs() < APART;
    let newest = shared.load(Relaxed);
    if newest != before && fits(newest) {
        return newest;
    }
    match shared.compare_exchange(newest, mine, Relaxed, Relaxed) {
        Err(theirs) if fits(theirs) => theirs,
        _ => mine,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Places frames of (milliseconds of the source, milliseconds of arrival); gives their places in milliseconds.
    fn places(line: &mut Line, shared: &AtomicI64, frames: &[(i64, i64)]) -> Vec<i64> {
        let place = |(time, arrival): &(i64, i64)| {
            let frame = Stamp { time: time * MS, ordered: true, length: 40 * MS, arrival: arrival * MS };
            let first = || {
                shared.store(-frame.time, Relaxed);
                -frame.time
            };
            (frame.time + line.offset(frame, shared, first)) / MS
        };
        frames.iter().map(place).collect()
    }

    fn alone(frames: &[(i64, i64)]) -> Vec<i64> {
        places(&mut Line::default(), &AtomicI64::new(0), frames)
    }

    #[test]
    fn the_time_line_has_no_holes_and_never_goes_back() {
        // As it should be, from a large value on; with a burst; with a real pause.
        assert_eq!(alone(&[(9_000_000, 0), (9_000_040, 40), (9_000_080, 80)]), [0, 40, 80]);
        assert_eq!(alone(&[(0, 0), (40, 0), (2_900, 1)]), [0, 40, 2_900]);
        assert_eq!(alone(&[(0, 0), (40, 40), (60_040, 60_000)]), [0, 40, 60_040]);
        // An hour ahead, back to the beginning, and both with a pause.
        assert_eq!(alone(&[(0, 0), (40, 40), (3_600_080, 80), (3_600_120, 120)]), [0, 40, 80, 120]);
        assert_eq!(alone(&[(50_000, 0), (50_040, 40), (0, 80), (40, 120)]), [0, 40, 80, 120]);
        assert_eq!(alone(&[(50_000, 0), (50_040, 40), (0, 5_040), (40, 5_080)]), [0, 40, 5_040, 5_080]);
        // Jitter stands still and is forgotten.
        assert_eq!(alone(&[(0, 0), (40, 40), (30, 80), (80, 120)]), [0, 40, 40, 80]);
    }

    #[test]
    fn reordered_pictures_have_their_own_place() {
        let (mut line, shared) = (Line::default(), AtomicI64::new(0));
        let mut place = |ms: i64, arrival: i64| {
            let frame = Stamp { time: ms * MS, ordered: false, length: 0, arrival: arrival * MS };
            (frame.time + line.offset(frame, &shared, || 0)) / MS
        };
        let places: Vec<i64> =
            [0, 160, 80, 40, 120, 320].into_iter().zip((0..).step_by(40)).map(|(t, a)| place(t, a)).collect();
        assert_eq!(places, [0, 160, 80, 40, 120, 320]);
        assert!(place(-5_000, 240) > 320);
    }

    #[test]
    fn tracks_stay_as_they_were_to_each_other() {
        let shared = AtomicI64::new(0);
        let (mut pictures, mut sound) = (Line::default(), Line::default());
        assert_eq!(places(&mut pictures, &shared, &[(70_000, 0), (70_040, 40)]), [0, 40]);
        let offset = shared.load(Relaxed);
        let first = Stamp { time: 69_990 * MS, ordered: true, length: 20 * MS, arrival: 10 * MS };
        assert_eq!((first.time + sound.offset(first, &shared, || offset)) / MS, -10);
        assert_eq!(places(&mut sound, &shared, &[(70_010, 30)]), [10]);
        // Both jump by 70 s back; the sound comes 50 ms later than expected, and so it does afterwards.
        assert_eq!(places(&mut pictures, &shared, &[(80, 80)]), [80]);
        assert_eq!(places(&mut sound, &shared, &[(100, 90)]), [100]);
        // One that jumps alone does not take the other along.
        assert_eq!(places(&mut sound, &shared, &[(900_000, 120)]), [140]);
        assert_eq!(places(&mut pictures, &shared, &[(120, 120)]), [120]);
    }
}
