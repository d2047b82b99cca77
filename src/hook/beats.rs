//! When each stream has its next beat. Pure: the caller brings the time.
//!
//! A newcomer's first beat is somewhere in its first interval, and every further one exactly an interval later. Where in
//! the interval is decided by the golden ratio: however many come at once, they are spread evenly over it.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;
use std::time::Duration;

use tokio::time::Instant;

/// The golden ratio's fractional part: its multiples, taken modulo 1, are spread as evenly as any sequence.
const GOLDEN: f64 = 0.618_033_988_749_894_9;

/// The times of the next beats.
pub struct Beats<K> {
    interval: Duration,
    /// Who has its next beat when; the number tells those of one time apart.
    due: BTreeMap<(Instant, u64), K>,
    known: HashMap<K, Place>,
    /// How many have come.
    newcomers: u64,
    /// The number of the last look at who is there.
    look: u64,
}

struct Place {
    at: Instant,
    number: u64,
    seen: u64,
}

impl<K: Clone + Eq + Hash> Beats<K> {
    /// Nobody yet; a beat each `interval`, which is over zero.
    pub fn new(interval: Duration) -> Self {
        Self { interval, due: BTreeMap::new(), known: HashMap::new(), newcomers: 0, look: 0 }
    }

    /// Takes in who is there now: newcomers begin, those that are gone have no further beat.
    pub fn see(&mut self, now: Instant, there: impl IntoIterator<Item = K>) {
        self.look += 1;
        for key in there {
            if let Some(place) = self.known.get_mut(&key) {
                place.seen = self.look;
                continue;
            }
            self.newcomers += 1;
            #[allow(clippy::cast_precision_loss, reason = "the fraction of a number this small is exact enough")]
            let fraction = 1.0 - (self.newcomers as f64 * GOLDEN).fract();
            let at = now + self.interval.mul_f64(fraction);
            let number = self.newcomers;
            self.due.insert((at, number), key.clone());
            self.known.insert(key, Place { at, number, seen: self.look });
        }
        let (look, due) = (self.look, &mut self.due);
        self.known.retain(|_, place| {
            let there = place.seen == look;
            if !there {
                due.remove(&(place.at, place.number));
            }
            there
        });
    }

    /// When the next beat is.
    pub fn next(&self) -> Option<Instant> {
        self.due.keys().next().map(|(at, _)| *at)
    }

    /// Takes one whose beat is due, with when it was due; its next one is an interval after that. Beats that lie further
    /// back than an interval (the process was suspended) are not made up for.
    pub fn due(&mut self, now: Instant) -> Option<(K, Instant)> {
        let ((at, number), key) = self.due.pop_first()?;
        if at > now {
            self.due.insert((at, number), key);
            return None;
        }
        let behind = now.duration_since(at).as_nanos() / self.interval.as_nanos().max(1);
        let steps = u32::try_from(behind).unwrap_or(u32::MAX).saturating_add(1);
        let next = at + self.interval.saturating_mul(steps);
        self.due.insert((next, number), key.clone());
        if let Some(place) = self.known.get_mut(&key) {
            place.at = next;
        }
        Some((key, at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const INTERVAL: Duration = Duration::from_secs(10);

    /// Lets time pass as a driver would: from one beat to the next.
    async fn run_until(beats: &mut Beats<u32>, end: Instant, mut beat: impl FnMut(u32, Instant)) {
        while let Some(next) = beats.next().filter(|next| *next <= end) {
            tokio::time::sleep_until(next).await;
            let now = Instant::now();
            while let Some((key, at)) = beats.due(now) {
                assert!(now.duration_since(at) <= Duration::from_millis(1), "a beat is late");
                beat(key, at);
            }
        }
        tokio::time::sleep_until(end).await;
    }

    #[tokio::test(start_paused = true)]
    async fn ten_thousand_streams_at_once_make_no_burst_and_miss_no_beat() {
        const STREAMS: u32 = 10_000;
        let begin = Instant::now();
        let mut beats = Beats::new(INTERVAL);
        beats.see(begin, 0..STREAMS);
        let mut times: Vec<Vec<Instant>> = vec![Vec::new(); STREAMS as usize];
        run_until(&mut beats, begin + INTERVAL * 6, |key, at| times[key as usize].push(at)).await;
        for beats in &times {
            assert_eq!(beats.len(), 6, "a beat in each interval");
            assert!(beats[0] > begin && beats[0] <= begin + INTERVAL);
            assert!(beats.windows(2).all(|pair| pair[1] - pair[0] == INTERVAL));
        }
        // 10,000 in 10 s: 100 in 100 ms, and never many more.
        let mut windows = vec![0u32; 600];
        for at in times.iter().flatten() {
            let window = (*at - begin).as_millis().saturating_sub(1) / 100;
            windows[usize::try_from(window).unwrap_or(0).min(599)] += 1;
        }
        let (least, most) = (windows.iter().min().copied(), windows.iter().max().copied());
        assert!(least >= Some(95) && most <= Some(105), "{least:?} to {most:?} in 100 ms");
    }

    #[tokio::test(start_paused = true)]
    async fn who_comes_later_begins_later_and_who_is_gone_has_no_beat() {
        let begin = Instant::now();
        let mut beats = Beats::new(INTERVAL);
        beats.see(begin, [1, 2]);
        tokio::time::advance(INTERVAL / 2).await;
        beats.see(Instant::now(), [2, 3]);
        let mut seen = Vec::new();
        run_until(&mut beats, begin + INTERVAL * 3, |key, _| seen.push(key)).await;
        assert!(!seen.contains(&1));
        let third = seen.iter().filter(|key| **key == 3).count();
        assert!((2..=3).contains(&third), "from its first beat on one in each interval: {third}");
        assert_eq!(beats.known.len(), 2);
        beats.see(Instant::now(), []);
        assert!(beats.known.is_empty() && beats.next().is_none());
    }

    #[test]
    fn a_suspended_process_does_not_make_up_for_what_it_missed() {
        let begin = Instant::now();
        let mut beats = Beats::new(INTERVAL);
        beats.see(begin, [1]);
        let first = beats.next().unwrap_or(begin);
        let late = first + INTERVAL * 5 + INTERVAL / 2;
        assert_eq!(beats.due(late), Some((1, first)));
        assert_eq!(beats.due(late), None);
        assert_eq!(beats.next(), Some(first + INTERVAL * 6));
    }

    proptest! {
        /// However streams come and go: no stream has two beats closer than an interval, none is forgotten.
        #[test]
        fn beats_are_an_interval_apart(steps in proptest::collection::vec((0u64..4000, proptest::collection::vec(0u8..6, 0..6)), 1..40)) {
            let mut beats = Beats::new(INTERVAL);
            let mut now = Instant::now();
            let mut last: HashMap<u8, Instant> = HashMap::new();
            for (ms, there) in steps {
                now += Duration::from_millis(ms);
                while let Some((key, at)) = beats.due(now) {
                    if let Some(before) = last.insert(key, at) {
                        prop_assert!(at.duration_since(before) >= INTERVAL);
                    }
                }
                beats.see(now, there.iter().copied());
                last.retain(|key, _| there.contains(key));
                prop_assert_eq!(beats.due.len(), beats.known.len());
                prop_assert!(beats.next().is_none_or(|next| next <= now + INTERVAL));
            }
        }
    }
}
