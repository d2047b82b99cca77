//! What a late viewer starts with: the video packets since the last keyframe, kept once for each stream.

use std::collections::VecDeque;
use std::sync::Arc;

use super::packet::Packet;

/// The video packets since the last keyframe, at most `bound` bytes of payload.
///
/// A group that outgrows the bound is of no use to anybody (a decoder needs all of it), so it is dropped whole and
/// the next keyframe starts a new one.
#[derive(Debug)]
pub(super) struct GopCache {
    packets: VecDeque<Arc<Packet>>,
    bytes: usize,
    bound: usize,
    key_ts: Option<u32>,
}

impl GopCache {
    /// An empty cache of at most `bound` bytes of payload.
    pub fn new(bound: usize) -> Self {
        GopCache { packets: VecDeque::new(), bytes: 0, bound, key_ts: None }
    }

    /// Whether a packet that may start a keyframe starts a new one: the packets of one frame share a timestamp.
    pub fn is_new_key(&self, ts: u32) -> bool {
        self.key_ts != Some(ts)
    }

    /// Adds a video packet. One with `key` set starts the group anew.
    pub fn push(&mut self, packet: &Arc<Packet>) {
        if packet.key {
            self.clear();
            self.key_ts = Some(packet.ts);
        } else if self.packets.is_empty() {
            return;
        }
        self.bytes += packet.payload.len();
        if self.bytes > self.bound {
            self.clear();
        } else {
            self.packets.push_back(Arc::clone(packet));
        }
    }

    /// The packets from the keyframe on, oldest first; empty when there is no usable keyframe.
    pub fn packets(&self) -> VecDeque<Arc<Packet>> {
        self.packets.clone()
    }

    /// Number of packets held.
    pub fn len(&self) -> usize {
        self.packets.len()
    }

    /// Bytes of payload held.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    fn clear(&mut self) {
        self.packets.clear();
        self.bytes = 0;
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
pub(super) mod tests {
    use std::time::{Duration, Instant};

    use super::super::packet::Kind;
    use super::*;

    pub(in super::super) fn packet(ts: u32, key: bool, size: usize) -> Arc<Packet> {
        let now = Instant::now();
        let payload = vec![0u8; size].into();
        Arc::new(Packet {
            kind: Kind::Video,
            payload,
            ts,
            marker: true,
            key,
            time: Duration::ZERO,
            wallclock: now,
            arrival: now,
        })
    }

    #[test]
    fn starts_at_a_keyframe_and_restarts_at_the_next() {
        let mut gop = GopCache::new(1000);
        gop.push(&packet(1, false, 10));
        assert_eq!(gop.len(), 0);
        gop.push(&packet(2, true, 10));
        gop.push(&packet(3, false, 10));
        assert_eq!((gop.len(), gop.bytes()), (2, 20));
        gop.push(&packet(4, true, 10));
        assert_eq!((gop.len(), gop.bytes()), (1, 10));
        assert!(!gop.is_new_key(4));
        assert!(gop.is_new_key(5));
    }

    #[test]
    fn a_group_over_the_bound_is_dropped_whole() {
        let mut gop = GopCache::new(25);
        gop.push(&packet(1, true, 10));
        gop.push(&packet(2, false, 10));
        gop.push(&packet(3, false, 10));
        assert_eq!((gop.len(), gop.bytes()), (0, 0));
        gop.push(&packet(4, false, 10));
        assert_eq!(gop.len(), 0);
        gop.push(&packet(5, true, 10));
        assert_eq!(gop.len(), 1);
    }
}
