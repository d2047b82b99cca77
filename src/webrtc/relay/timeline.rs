//! One clock for both tracks of a stream: RTP timestamps that never jump, and the instants sender reports need.
//!
//! A browser works out from its last twenty or so sender reports which sound belongs to which picture. Should running
//! time and instants move against each other between two of them, it is wrong about that by hundreds of milliseconds
//! until the older ones are forgotten. So the pair that holds the two together is chosen once, by where the stream
//! stands when its first viewer comes ([`Timeline::stands_at`]), and not by the frames of the past that are pushed
//! first; after that it follows a source's clock in steps that no report shows.

use std::time::{Duration, Instant};

use super::packet::{Kind, Tracks};

/// Instants handed to str0m lie this far in the past. str0m writes a sender report without a usable RTP timestamp
/// when a frame's instant is after "now", and some milliseconds of lead are normal: between two tracks, and after a
/// frame that a busy machine brought late.
const MARGIN: Duration = Duration::from_secs(1);
/// How often the pair follows the source's clock, and by how much at most: a thousandth is more than clocks part by.
const FOLLOWS: Duration = Duration::from_secs(5);
const STEP: Duration = Duration::from_millis(5);
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

/// The pair that says which instant a running time is, and how far what arrives stays behind it.
#[derive(Debug, Clone, Copy)]
struct Anchor {
    instant: Instant,
    time: Duration,
    /// The least time that a frame came after its instant, since when.
    least: Duration,
    since: Instant,
}

/// The timeline of one stream.
#[derive(Debug, Default)]
pub(super) struct Timeline {
    anchor: Option<Anchor>,
    tracks: [Option<Track>; 2],
}

impl Timeline {
    /// Says that what is live `now` stands at `time`, before anything is placed. What is placed first may be older.
    pub fn stands_at(&mut self, time: Duration, now: Instant) {
        if self.anchor.is_none() {
            self.anchor = Some(Anchor::new(time, now));
        }
    }

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
        let fitting = self.anchor.and_then(|anchor| Some((anchor, anchor.instant_of(time)?)));
        let fitting = fitting.filter(|(_, at)| arrival.checked_duration_since(*at).is_some_and(|late| late < STALE));
        let (mut anchor, instant) = fitting.unwrap_or_else(|| {
            let anchor = Anchor::new(time, arrival);
            (anchor, anchor.instant)
        });
        anchor.follow(arrival.saturating_duration_since(instant), arrival);
        self.anchor = Some(anchor);
        instant
    }
}

impl Anchor {
    fn new(time: Duration, now: Instant) -> Self {
        let instant = now.checked_sub(MARGIN).unwrap_or(now);
        Anchor { instant, time, least: Duration::MAX, since: now }
    }

    fn instant_of(&self, time: Duration) -> Option<Instant> {
        match time.checked_sub(self.time) {
            Some(later) => self.instant.checked_add(later),
            None => self.instant.checked_sub(self.time.checked_sub(time)?),
        }
    }

    /// A source's clock runs a little faster or slower than ours: what comes least late shall stay [`MARGIN`] late.
    fn follow(&mut self, late: Duration, arrival: Instant) {
        self.least = self.least.min(late);
        if arrival.saturating_duration_since(self.since) < FOLLOWS {
            return;
        }
        let moved = match self.least.checked_sub(MARGIN) {
            Some(behind) => self.instant.checked_add(behind.min(STEP)),
            None => self.instant.checked_sub(MARGIN.saturating_sub(self.least).min(STEP)),
        };
        self.instant = moved.unwrap_or(self.instant);
        (self.least, self.since) = (Duration::MAX, arrival);
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
fn ticks(time: Duration, rate: u32) -> u64 {
    (time.as_nanos() * u128::from(rate) / 1_000_000_000) as u64
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
    /// What the first packets of a stream say about instants must still hold for the later ones, whatever comes first.
    #[test]
    fn a_past_that_comes_first_does_not_move_the_clock() {
        let start = Instant::now();
        for gop in [100, 1_700, 12_000] {
            let mut line = Timeline::default();
            let now = start + ms(60_000);
            line.stands_at(ms(100_000), now);
            let first = line.place(Kind::Video, V, 0, ms(100_000 - gop), now + ms(30));
            let sound = line.place(Kind::Audio, A, 0, ms(100_000), now + ms(30));
            assert_eq!(sound.wallclock - first.wallclock, ms(gop));
            for behind in (0..gop).step_by(40) {
                line.place(Kind::Video, V, ((gop - behind) * 90) as u32, ms(100_000 - behind), now + ms(30));
            }
            // Live, and earlier than the first frames after their wait.
            let live = line.place(Kind::Video, V, ((gop + 40) * 90) as u32, ms(100_040), now + ms(31));
            assert_eq!(live.wallclock - first.wallclock, ms(gop + 40));
            assert!(live.wallclock < now);
        }
    }

    #[test]
    fn follows_a_clock_that_runs_faster_or_slower() {
        let start = Instant::now();
        for parts_per_million in [-500_i64, -100, 100, 500] {
            let mut line = Timeline::default();
            let (mut before, mut frame) = (None, 0_u64);
            while frame < 3 * 3600 * 5 {
                let time = ms(frame * 200);
                let real = (frame * 200_000).saturating_add_signed(-((frame / 5) as i64) * parts_per_million);
                let arrival = start + Duration::from_micros(real);
                let placed = line.place(Kind::Video, V, (frame * 18_000) as u32, time, arrival);
                assert!(placed.wallclock <= arrival && arrival - placed.wallclock < ms(1_100));
                if let Some(before) = before.replace(placed.wallclock) {
                    let step = placed.wallclock - before;
                    assert!(step >= ms(194) && step <= ms(206), "{parts_per_million}: {step:?} in frame {frame}");
                }
                frame += 1;
            }
        }
    }
}
