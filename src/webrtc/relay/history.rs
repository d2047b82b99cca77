//! The packets on their way from a stream to its shards: one bounded queue a stream, read by every shard.

use std::collections::VecDeque;
use std::sync::Arc;

use super::packet::Packet;

/// A bounded queue that every reader walks with a cursor of its own: a packet number that only grows.
///
/// A writer never waits for a reader. A reader that is more than the bound behind is told how many it missed.
#[derive(Debug)]
pub(super) struct History {
    packets: VecDeque<Arc<Packet>>,
    /// Number of the packet at the front.
    first: u64,
    bound: usize,
}

/// What a reader gets.
#[derive(Debug)]
pub(super) struct Read {
    /// Number of the first packet in `packets`.
    pub first: u64,
    /// The packets from there on, oldest first.
    pub packets: Vec<Arc<Packet>>,
    /// How many packets between the reader's cursor and `first` are gone.
    pub missed: u64,
}

impl History {
    /// An empty queue of at most `bound` packets.
    pub fn new(bound: usize) -> Self {
        History { packets: VecDeque::with_capacity(bound.min(256)), first: 0, bound: bound.max(1) }
    }

    /// Appends a packet, in place of the oldest one where the queue is full. Returns the number after it.
    pub fn push(&mut self, packet: Arc<Packet>) -> u64 {
        if self.packets.len() == self.bound {
            self.packets.pop_front();
            self.first += 1;
        }
        self.packets.push_back(packet);
        self.head()
    }

    /// The number the next packet will get.
    pub fn head(&self) -> u64 {
        self.first + self.packets.len() as u64
    }

    /// Everything from packet number `cursor` on.
    pub fn since(&self, cursor: u64) -> Read {
        let first = cursor.max(self.first);
        let skip = usize::try_from(first - self.first).unwrap_or(usize::MAX);
        let packets = self.packets.iter().skip(skip).cloned().collect();
        Read { first, packets, missed: first - cursor }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::gop::tests::packet;
    use super::*;

    #[test]
    fn readers_have_cursors_of_their_own() {
        let mut history = History::new(4);
        for n in 0..3 {
            assert_eq!(history.push(packet(n, false, 1)), u64::from(n) + 1);
        }
        let read = history.since(1);
        assert_eq!((read.first, read.missed, read.packets.len()), (1, 0, 2));
        assert_eq!(history.since(3).packets.len(), 0);
        assert_eq!(history.since(9).packets.len(), 0);
    }

    #[test]
    fn a_late_reader_learns_what_it_missed() {
        let mut history = History::new(4);
        for n in 0..10 {
            history.push(packet(n, false, 1));
        }
        let read = history.since(2);
        assert_eq!((read.first, read.missed), (6, 4));
        assert_eq!(read.packets[0].ts, 6);
        assert_eq!(history.head(), 10);
    }
}
