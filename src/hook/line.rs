//! The events of one application on their way to its hook server. Pure: no clock, no socket.
//!
//! Events of one lane (one connection) arrive in their order: the next one is not sent before the last one has landed.
//! Lanes do not wait for each other. While the hook server is away nothing is sent but, from time to time, one event to
//! see whether it is back.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::Method;
use crate::retry::Backoff;

/// Most events on their way at once.
const FLYING: usize = 32;
/// Most events of one lane that wait: one connection does not push out those of others.
const LANE: usize = 1000;
/// The same for the bytes of their bodies: of one lane, and of all.
const LANE_BYTES: usize = 4 << 20;
const BYTES: usize = 64 << 20;
/// How a hook server that is away is tried again.
const AWAY: Backoff = Backoff { initial: Duration::from_millis(500), max: Duration::from_secs(30), attempts: 0 };

/// An event for a hook server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Item {
    /// Its place in the order of all events.
    #[serde(skip)]
    pub place: u64,
    /// The application.
    pub app_key: String,
    /// The method's name.
    pub method: String,
    /// What it is in order with.
    pub lane: Arc<str>,
    /// The JSON that is sent.
    pub body: Arc<str>,
    /// When it happened, epoch milliseconds.
    pub at: u64,
    /// How often it may have arrived although no answer came.
    #[serde(default)]
    pub tries: u32,
}

impl Item {
    /// The method; `None` for one that this weir does not know.
    pub fn method(&self) -> Option<Method> {
        self.method.parse().ok()
    }
}

/// How an event landed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Landing {
    /// It is done with: answered, whatever the answer, or given up.
    Done,
    /// Nobody answered; `sent` where it may have arrived all the same.
    Away {
        /// See above.
        sent: bool,
    },
}

#[derive(Default)]
struct Lane {
    /// The place of the one that is on its way.
    flying: Option<u64>,
    waiting: VecDeque<Item>,
    /// Of the bodies that wait.
    bytes: usize,
}

/// One application's events.
#[derive(Default)]
pub struct Line {
    lanes: HashMap<Arc<str>, Lane>,
    /// All that wait, by their place.
    waiting: BTreeMap<u64, Arc<str>>,
    /// Those of them that are the first of a lane that is not busy.
    ready: BTreeSet<u64>,
    /// Of the bodies that wait.
    bytes: usize,
    flying: usize,
    /// How often in a row the hook server was found away.
    failed: u32,
    /// When it is tried again.
    resume: Option<Instant>,
}

impl Line {
    /// How many wait.
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether nothing can be sent before some time has passed, and nothing is on its way.
    pub fn rests(&self, now: Instant) -> bool {
        self.flying == 0 && (self.waiting.is_empty() || self.resume.is_some_and(|resume| resume > now))
    }

    /// When the hook server is tried again, while it is away and somebody waits.
    pub fn resume(&self) -> Option<Instant> {
        self.resume.filter(|_| !self.waiting.is_empty())
    }

    /// Whether nobody need wait for the events of a lane that came before `place`: they have landed, or the hook server is
    /// away.
    pub fn clear(&self, name: &str, place: u64) -> bool {
        let Some(lane) = self.lanes.get(name) else { return true };
        let before = |other: u64| other < place;
        let waits = lane.flying.is_some_and(before) || lane.waiting.front().is_some_and(|first| before(first.place));
        self.failed > 0 || !waits
    }

    /// Takes an event; gives those that are given up for it, at most `limit` being allowed to wait.
    pub fn push(&mut self, item: Item, limit: usize) -> Vec<Item> {
        let mut dropped = Vec::new();
        let lane = self.lanes.entry(item.lane.clone()).or_default();
        let name = item.lane.clone();
        if lane.flying.is_none() && lane.waiting.is_empty() {
            self.ready.insert(item.place);
        }
        self.waiting.insert(item.place, item.lane.clone());
        lane.bytes += item.body.len();
        self.bytes += item.body.len();
        lane.waiting.push_back(item);
        let crowded = |line: &Self| {
            let lane = line.lanes.get(&name);
            lane.is_some_and(|lane| lane.waiting.len() > LANE || (lane.bytes > LANE_BYTES && lane.waiting.len() > 1))
        };
        while crowded(self) {
            dropped.extend(self.drop_first(&name));
        }
        while self.waiting.len() > limit || self.bytes > BYTES {
            let Some(oldest) = self.waiting.values().next().cloned() else { break };
            dropped.extend(self.drop_first(&oldest));
        }
        dropped
    }

    /// Gives up the first of a lane that waits.
    fn drop_first(&mut self, name: &Arc<str>) -> Option<Item> {
        let item = self.pop(name)?;
        self.waiting.remove(&item.place);
        self.ready.remove(&item.place);
        self.line_up(name);
        Some(item)
    }

    fn pop(&mut self, name: &Arc<str>) -> Option<Item> {
        let lane = self.lanes.get_mut(name)?;
        let item = lane.waiting.pop_front()?;
        lane.bytes -= item.body.len();
        self.bytes -= item.body.len();
        Some(item)
    }

    /// The first of a lane that is not busy is ready; a lane without events is none.
    fn line_up(&mut self, name: &Arc<str>) {
        let Some(lane) = self.lanes.get(name) else { return };
        match lane.waiting.front() {
            Some(first) if lane.flying.is_none() => drop(self.ready.insert(first.place)),
            None if lane.flying.is_none() => drop(self.lanes.remove(name)),
            _ => {}
        }
    }

    /// The next one to be sent now.
    pub fn next(&mut self, now: Instant) -> Option<Item> {
        let at_once = if self.failed == 0 { FLYING } else { 1 };
        if self.flying >= at_once || self.resume.is_some_and(|resume| resume > now) {
            return None;
        }
        let place = self.ready.pop_first()?;
        let name = self.waiting.remove(&place)?;
        self.lanes.get_mut(&name)?.flying = Some(place);
        self.flying += 1;
        self.pop(&name)
    }

    /// One that was sent has landed. `random` is uniform in 0..1.
    pub fn landed(&mut self, mut item: Item, landing: Landing, now: Instant, random: f64) {
        self.flying = self.flying.saturating_sub(1);
        let name = item.lane.clone();
        if let Some(lane) = self.lanes.get_mut(&name) {
            lane.flying = None;
        }
        match landing {
            Landing::Done => (self.failed, self.resume) = (0, None),
            Landing::Away { sent } => {
                // Those that were on their way together count as one.
                if self.resume.is_none_or(|resume| resume <= now) {
                    self.failed += 1;
                    self.resume = AWAY.wait(self.failed, random).map(|wait| now + wait);
                }
                item.tries += u32::from(sent);
                self.waiting.insert(item.place, name.clone());
                if let Some(lane) = self.lanes.get_mut(&name) {
                    lane.bytes += item.body.len();
                    self.bytes += item.body.len();
                    lane.waiting.push_front(item);
                }
            }
        }
        self.line_up(&name);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn item(place: u64, lane: &str) -> Item {
        Item {
            place,
            app_key: "a".into(),
            method: "StreamStatusEvent".into(),
            lane: lane.into(),
            body: "{}".into(),
            at: 0,
            tries: 0,
        }
    }

    fn places(line: &mut Line, now: Instant) -> Vec<u64> {
        std::iter::from_fn(|| line.next(now).map(|item| item.place)).collect()
    }

    #[test]
    fn a_lane_waits_for_its_last_event_and_for_nothing_else() {
        let (mut line, now) = (Line::default(), Instant::now());
        for (place, lane) in [(1, "a"), (2, "a"), (3, "b")] {
            assert!(line.push(item(place, lane), 100).is_empty());
        }
        assert_eq!(places(&mut line, now), [1, 3]);
        line.landed(item(3, "b"), Landing::Done, now, 0.0);
        assert_eq!(places(&mut line, now), [0u64; 0]);
        line.landed(item(1, "a"), Landing::Done, now, 0.0);
        assert_eq!(places(&mut line, now), [2]);
        line.landed(item(2, "a"), Landing::Done, now, 0.0);
        assert!(line.lanes.is_empty() && line.rests(now));
    }

    #[test]
    fn a_question_waits_for_the_events_before_it_unless_nobody_is_there() {
        let (mut line, now) = (Line::default(), Instant::now());
        line.push(item(1, "a"), 100);
        line.push(item(2, "a"), 100);
        assert!(line.clear("a", 1) && line.clear("b", 9));
        assert!(!line.clear("a", 2) && !line.clear("a", 3));
        let first = line.next(now).unwrap();
        assert!(line.clear("a", 1) && !line.clear("a", 2));
        line.landed(first, Landing::Done, now, 0.0);
        assert!(line.clear("a", 2) && !line.clear("a", 3));
        let second = line.next(now).unwrap();
        line.landed(second, Landing::Away { sent: false }, now, 0.0);
        assert!(line.clear("a", 3));
    }

    #[test]
    fn a_server_that_is_away_is_tried_with_one_event_at_a_time() {
        let (mut line, now) = (Line::default(), Instant::now());
        (0..100).for_each(|place| drop(line.push(item(place, &place.to_string()), 1000)));
        let flying = places(&mut line, now);
        assert_eq!(flying.len(), FLYING);
        for place in flying {
            line.landed(item(place, &place.to_string()), Landing::Away { sent: false }, now, 1.0);
        }
        assert!(line.rests(now) && line.len() == 100);
        assert_eq!(line.resume(), Some(now + AWAY.initial));
        let later = now + AWAY.initial;
        assert_eq!(places(&mut line, later), [0]);
        line.landed(item(0, "0"), Landing::Away { sent: true }, later, 1.0);
        assert_eq!(line.resume(), Some(later + AWAY.initial * 2));
        let back = later + AWAY.initial * 2;
        let first = line.next(back).unwrap();
        assert_eq!((first.place, first.tries), (0, 1));
        line.landed(first, Landing::Done, back, 0.0);
        assert_eq!(places(&mut line, back).len(), FLYING);
    }

    #[test]
    fn what_is_too_much_pushes_out_the_oldest_that_waits() {
        let (mut line, now) = (Line::default(), Instant::now());
        line.push(item(0, "a"), 2);
        assert_eq!(line.next(now).unwrap().place, 0);
        line.push(item(1, "a"), 2);
        line.push(item(2, "b"), 2);
        let dropped = line.push(item(3, "c"), 2);
        assert_eq!(dropped.iter().map(|item| item.place).collect::<Vec<_>>(), [1]);
        line.landed(item(0, "a"), Landing::Done, now, 0.0);
        assert_eq!(places(&mut line, now), [2, 3]);
    }

    #[test]
    fn one_connection_does_not_push_out_others() {
        let mut line = Line::default();
        line.push(item(0, "quiet"), 1_000_000);
        for place in 1..=LANE as u64 {
            assert!(line.push(item(place, "loud"), 1_000_000).is_empty());
        }
        let dropped = line.push(item(9999, "loud"), 1_000_000);
        assert_eq!(dropped.iter().map(|item| item.place).collect::<Vec<_>>(), [1]);
        assert_eq!(line.len(), LANE + 1);
    }

    #[test]
    fn nor_does_one_with_large_events() {
        let mut line = Line::default();
        let large = |place, lane: &str| Item { body: "x".repeat(1 << 20).into(), ..item(place, lane) };
        line.push(item(0, "quiet"), 1_000_000);
        for place in 1..=4 {
            assert!(line.push(large(place, "loud"), 1_000_000).is_empty());
        }
        let dropped = line.push(large(5, "loud"), 1_000_000);
        assert_eq!(dropped.iter().map(|item| item.place).collect::<Vec<_>>(), [1]);
        for place in 6..100 {
            line.push(large(place, &place.to_string()), 1_000_000);
        }
        assert!(line.bytes <= BYTES && line.len() == 64, "{} events", line.len());
    }

    proptest! {
        /// Whatever lands how and when: each event is done with once, and in the order of its lane.
        #[test]
        fn nothing_is_lost_and_lanes_keep_their_order(
            lanes in proptest::collection::vec(0u8..5, 1..60),
            fates in proptest::collection::vec((any::<bool>(), 0usize..40), 0..400),
        ) {
            let (mut line, mut now) = (Line::default(), Instant::now());
            let mut done: HashMap<Arc<str>, Vec<u64>> = HashMap::new();
            let mut flying: Vec<Item> = Vec::new();
            for (place, lane) in lanes.iter().enumerate() {
                line.push(item(place as u64, &lane.to_string()), 1000);
            }
            let mut fates = fates.into_iter();
            while line.len() > 0 || !flying.is_empty() {
                flying.extend(std::iter::from_fn(|| line.next(now)));
                if flying.is_empty() {
                    now = line.resume().unwrap();
                    continue;
                }
                let (away, which) = fates.next().unwrap_or((false, 0));
                let item = flying.remove(which % flying.len());
                if !away {
                    done.entry(item.lane.clone()).or_default().push(item.place);
                }
                line.landed(item, if away { Landing::Away { sent: true } } else { Landing::Done }, now, 0.5);
            }
            prop_assert_eq!(done.values().map(Vec::len).sum::<usize>(), lanes.len());
            prop_assert!(done.values().all(|places| places.is_sorted()));
            prop_assert!(line.lanes.is_empty() && line.bytes == 0);
        }
    }
}
