//! One clock for both tracks of a stream: RTP timestamps that never jump, and the instants sender reports need.

use std::time::{Duration, Instant};

use super::packet::{Kind, Tracks};

/// Instants handed to str0m lie this far in the past. str0m writes a sender report without a usable RTP timestamp
/// when a frame's instant is after "now", and a few milliseconds of lead are normal between two tracks.
const MARGIN: Duration = Duration::from_secs(1);
/// A frame that stands further behind than this belongs to a new time base.
const STALE: Duration = Duration::from_secs(60);
/// How far a payloader's timestamps may part from running time before they count as a new series.
const JUMP: f64 = 0.5;

/// Where a packet stands: an RTP timestamp in ticks of its track, and the instant its frame stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Placed {
    pub ts: u32,
    pub wallclock: Instant,
}

#[derive(Debug)]
struct Track {
    source_ts: u32,
    ts: u32,
    time: Duration,
}

/// The timeline of one stream.
#[derive(Debug, Default)]
pub(super) struct Timeline {
    /// A pair that says which instant a running time is.
    anchor: Option<(Instant, Duration)>,
    tracks: [Option<Track>; 2],
}

impl Timeline {
    /// Places the next packet of a track that ticks `rate` times a second.
    ///
    /// Inside a series the payloader's own steps are kept, so that audio stays exact to the sample; where a series
    /// ends (a restarted source), the next one continues from running time.
    pub fn place(&mut self, kind: Kind, rate: u32, source_ts: u32, time: Duration, arrival: Instant) -> Placed {
        let slot = &mut self.tracks[super::packet::index(kind)];
        let ts = match slot {
            Some(track) => track.next(rate, source_ts, time),
            None => ticks(time, rate) as u32,
        };
        *slot = Some(Track { source_ts, ts, time });
        Placed { ts, wallclock: self.instant_of(time, arrival) }
    }

    fn instant_of(&mut self, time: Duration, arrival: Instant) -> Instant {
        if let Some(instant) = self.anchor.and_then(|anchor| shift(anchor, time))
            && instant <= arrival
            && arrival.duration_since(instant) < STALE
        {
            return instant;
        }
        let instant = arrival.checked_sub(MARGIN).unwrap_or(arrival);
        self.anchor = Some((instant, time));
        instant
    }
}

impl Track {
    fn next(&self, rate: u32, source_ts: u32, time: Duration) -> u32 {
        let step = source_ts.wrapping_sub(self.source_ts) as i32;
        let elapsed = time.as_secs_f64() - self.time.as_secs_f64();
        if (f64::from(step) / f64::from(rate) - elapsed).abs() < JUMP {
            return self.ts.wrapping_add_signed(step);
        }
        let forward = time.checked_sub(self.time).map_or(1, |d| ticks(d, rate).max(1));
        self.ts.wrapping_add(forward as u32)
    }
}

/// `time` in ticks of a clock of `rate` Hz, rounded down.
pub(super) fn ticks(time: Duration, rate: u32) -> u64 {
    (time.as_nanos() * u128::from(rate) / 1_000_000_000) as u64
}

fn shift((instant, zero): (Instant, Duration), time: Duration) -> Option<Instant> {
    match time.checked_sub(zero) {
        Some(later) => instant.checked_add(later),
        None => instant.checked_sub(zero.checked_sub(time)?),
    }
}

/// The clock rates a timeline needs, from the stream's tracks.
pub(super) fn rate_of(tracks: &Tracks, kind: Kind) -> u32 {
    tracks.clock_rate(kind).unwrap_or(super::packet::VIDEO_CLOCK_RATE)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const V: u32 = 90_000;
    const A: u32 = 48_000;

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    #[test]
    fn both_tracks_share_one_zero() {
        let mut line = Timeline::default();
        let now = Instant::now();
        let v = line.place(Kind::Video, V, 4_000_000_000, ms(100_000), now);
        let a = line.place(Kind::Audio, A, 17, ms(100_040), now);
        assert_eq!(v.ts, 9_000_000);
        assert_eq!(a.ts, 4_801_920);
        assert_eq!(a.wallclock - v.wallclock, ms(40));
        assert!(a.wallclock <= now);
    }

    #[test]
    fn keeps_the_payloaders_steps_over_the_wrap() {
        let mut line = Timeline::default();
        let now = Instant::now();
        let first = line.place(Kind::Audio, A, u32::MAX - 959, ms(1000), now);
        // 20.4 ms of running time, exactly 960 samples of RTP time
        let second = line.place(Kind::Audio, A, 0, Duration::from_micros(1_020_400), now);
        assert_eq!(second.ts - first.ts, 960);
    }

    #[test]
    fn a_new_series_continues_from_running_time() {
        let mut line = Timeline::default();
        let now = Instant::now();
        let a = line.place(Kind::Video, V, 1_000, ms(1_000), now);
        let b = line.place(Kind::Video, V, 3_500_000_000, ms(3_000), now);
        assert_eq!(b.ts - a.ts, 180_000);
        let c = line.place(Kind::Video, V, 3_500_003_000, ms(3_033), now);
        assert_eq!(c.ts - b.ts, 3_000);
        // a base time that went back still moves forward
        let d = line.place(Kind::Video, V, 9, ms(10), now);
        assert_eq!(d.ts - c.ts, 1);
    }

    #[test]
    fn the_instant_is_never_in_the_future() {
        let mut line = Timeline::default();
        let now = Instant::now();
        line.place(Kind::Video, V, 0, ms(0), now);
        let lead = line.place(Kind::Audio, A, 0, ms(900), now);
        assert!(lead.wallclock <= now);
        let far = line.place(Kind::Video, V, 90_000 * 50, ms(50_000), now);
        assert!(far.wallclock <= now);
    }
}
