//! Instant start: what a viewer still has to catch up with, when it may be sent, and under which timestamps.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::packet::{Packet, VIDEO_CLOCK_RATE};

/// Bytes that may go at once, so that a small keyframe leaves in one go.
const KICK: i64 = 24 * 1024;
/// Most packets a viewer may be behind. Past it the viewer waits for a keyframe instead.
const MAX_PACKETS: usize = 16 * 1024;
/// A frame's label runs at most this far past the newest frame: a stream that stalls must not be overtaken.
const MAX_LEAD: Duration = Duration::from_secs(1);

/// The video packets a viewer has not got yet, sent at a pace until it has caught up with the stream.
#[derive(Debug)]
pub(super) struct Backlog {
    packets: VecDeque<Arc<Packet>>,
    bytes_per_second: i64,
    credit: i64,
    last: Instant,
    /// Every packet goes, even those before a newer keyframe.
    whole: bool,
}

impl Backlog {
    /// No backlog.
    pub fn none(now: Instant) -> Self {
        Backlog { packets: VecDeque::new(), bytes_per_second: 1, credit: 0, last: now, whole: false }
    }

    /// Starts over with these packets, to be sent at `bits_per_second` of payload; with `whole`, to the last of them.
    pub fn start(packets: VecDeque<Arc<Packet>>, bits_per_second: u64, whole: bool, now: Instant) -> Self {
        let bytes_per_second = i64::try_from(bits_per_second / 8).unwrap_or(i64::MAX / 4).max(1);
        Backlog { packets, bytes_per_second, credit: KICK, last: now, whole }
    }

    /// Whether packets are left.
    pub fn is_active(&self) -> bool {
        !self.packets.is_empty()
    }

    /// Queues a live video packet behind the rest. A keyframe replaces the rest: to show the present, nothing before it is
    /// needed.
    /// False when the viewer is too far behind to ever catch up; the backlog is then empty.
    pub fn follow(&mut self, packet: &Arc<Packet>) -> bool {
        if (packet.key && !self.whole) || self.packets.len() >= MAX_PACKETS {
            self.packets.clear();
            if !packet.key {
                return false;
            }
        }
        self.packets.push_back(Arc::clone(packet));
        true
    }

    /// The next packet, if the pace allows one now.
    pub fn take(&mut self, now: Instant) -> Option<Arc<Packet>> {
        self.refill(now);
        if self.credit <= 0 {
            return None;
        }
        let packet = self.packets.pop_front()?;
        self.credit -= packet.payload.len() as i64;
        Some(packet)
    }

    /// When [`Backlog::take`] has something to give; `None` without a backlog.
    pub fn due(&self) -> Option<Instant> {
        self.is_active().then(|| {
            let missing = u64::try_from(1 - self.credit).unwrap_or(0);
            self.last + Duration::from_nanos(missing * 1_000_000_000 / self.bytes_per_second.unsigned_abs())
        })
    }

    fn refill(&mut self, now: Instant) {
        let micros = i64::try_from(now.saturating_duration_since(self.last).as_micros()).unwrap_or(i64::MAX);
        let earned = self.bytes_per_second.saturating_mul(micros.min(1_000_000)) / 1_000_000;
        if earned > 0 {
            self.credit = (self.credit + earned).min(KICK);
            self.last = now;
        }
    }
}

/// The newest video frame a viewer knows of: what "now" is on the stream's timeline.
#[derive(Debug, Clone, Copy)]
pub(super) struct Edge {
    ts: u32,
    wallclock: Instant,
    arrival: Instant,
}

impl Edge {
    /// The edge after this packet.
    pub fn at(packet: &Packet) -> Self {
        Edge { ts: packet.ts, wallclock: packet.wallclock, arrival: packet.arrival }
    }

    /// RTP timestamp and instant of a frame that is shown `now`.
    pub fn label(&self, now: Instant) -> (u32, Instant) {
        let lead = now.saturating_duration_since(self.arrival).min(MAX_LEAD);
        let ticks = lead.as_micros() as u64 * u64::from(VIDEO_CLOCK_RATE) / 1_000_000;
        (self.ts.wrapping_add(ticks as u32), self.wallclock + lead)
    }
}

/// Gives every frame one timestamp, each later than the one before, however the wishes for them move.
#[derive(Debug, Default)]
pub(super) struct Labels {
    current: Option<Label>,
}

#[derive(Debug, Clone, Copy)]
struct Label {
    source: u32,
    ts: u32,
    wallclock: Instant,
}

impl Labels {
    /// The timestamp for a packet of the frame `source`, which would like to have `wanted`.
    pub fn of(&mut self, source: u32, wanted: (u32, Instant)) -> (u32, Instant) {
        let label = match self.current {
            Some(label) if label.source == source => label,
            Some(last) if (wanted.0.wrapping_sub(last.ts) as i32) <= 0 => {
                Label { source, ts: last.ts.wrapping_add(1), wallclock: last.wallclock }
            }
            _ => Label { source, ts: wanted.0, wallclock: wanted.1 },
        };
        self.current = Some(label);
        (label.ts, label.wallclock)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::gop::tests::packet;
    use super::*;

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    #[test]
    fn is_paced() {
        let start = Instant::now();
        let packets: VecDeque<_> = (0..100).map(|n| packet(n, n == 0, 1000)).collect();
        let mut backlog = Backlog::start(packets, 8_000_000, false, start);
        let mut sent = 0;
        while backlog.take(start).is_some() {
            sent += 1;
        }
        assert_eq!(sent, 25);
        assert!(backlog.due().unwrap() > start);
        let later = start + ms(20);
        while backlog.take(later).is_some() {
            sent += 1;
        }
        // 1 MB/s: 20 kB in 20 ms, less what the first round overdrew
        assert!((44..=46).contains(&sent), "{sent}");
        assert!(backlog.is_active());
    }

    #[test]
    fn a_live_keyframe_replaces_the_rest() {
        let now = Instant::now();
        let mut backlog = Backlog::start((0..10).map(|n| packet(n, n == 0, 10)).collect(), 1_000, false, now);
        assert!(backlog.follow(&packet(10, false, 10)));
        assert!(backlog.follow(&packet(11, true, 10)));
        assert_eq!(backlog.take(now).unwrap().ts, 11);
        assert!(!backlog.is_active());
        assert!(backlog.due().is_none());
    }

    #[test]
    fn a_whole_one_goes_on_over_a_keyframe() {
        let now = Instant::now();
        let mut backlog = Backlog::start((0..3).map(|n| packet(n, n == 0, 10)).collect(), 1_000_000, true, now);
        assert!(backlog.follow(&packet(3, true, 10)));
        let sent: Vec<u32> = std::iter::from_fn(|| backlog.take(now)).map(|packet| packet.ts).collect();
        assert_eq!(sent, [0, 1, 2, 3]);
    }

    #[test]
    fn one_that_never_catches_up_is_given_up() {
        let now = Instant::now();
        let mut backlog = Backlog::start((0..MAX_PACKETS as u32).map(|n| packet(n, false, 1)).collect(), 1, false, now);
        assert!(!backlog.follow(&packet(0, false, 1)));
        assert!(!backlog.is_active());
    }

    #[test]
    fn labels_end_at_now_and_never_go_back() {
        let now = Instant::now();
        let newest = packet(900_000, false, 1);
        let edge = Edge::at(&newest);
        let mut labels = Labels::default();
        let first = labels.of(1, edge.label(newest.arrival + ms(10)));
        assert_eq!(first.0, 900_900);
        // the second packet of the frame, a little later
        assert_eq!(labels.of(1, edge.label(newest.arrival + ms(12))), first);
        let second = labels.of(2, edge.label(newest.arrival + ms(20)));
        assert_eq!(second.0, 901_800);
        // the live frame after the burst has an earlier timestamp of its own
        let live = labels.of(901_000, (901_000, now));
        assert_eq!(live.0, 901_801);
        assert_eq!(labels.of(903_000, (903_000, now)).0, 903_000);
    }

    #[test]
    fn a_stalled_stream_is_not_overtaken() {
        let newest = packet(0, false, 1);
        let (ts, _) = Edge::at(&newest).label(newest.arrival + Duration::from_secs(100));
        assert_eq!(ts, 90_000);
    }
}
