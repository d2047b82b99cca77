//! The datagrams of a viewer's handshake, sent again in case they are lost.

use std::net::SocketAddr;
use std::time::Instant;

use str0m::net::Transmit;

use crate::media::{HANDSHAKE_REPEATS, MAX_REPEATED, is_handshake};

/// A datagram that is sent again.
#[derive(Debug)]
pub(super) struct Repeat {
    at: Instant,
    pub source: SocketAddr,
    pub destination: SocketAddr,
    pub contents: Vec<u8>,
}

/// What is still to be sent again. Empty but for the first moments of a session.
#[derive(Debug, Default)]
pub(super) struct Repeats {
    waiting: Vec<Repeat>,
    noted: usize,
}

impl Repeats {
    /// Notes a datagram that was sent; those of a handshake come again.
    pub fn note(&mut self, transmit: &Transmit, now: Instant) {
        if !is_handshake(&transmit.contents) || self.noted >= MAX_REPEATED {
            return;
        }
        self.noted += 1;
        let (source, destination) = (transmit.source, transmit.destination);
        let again = |wait| Repeat { at: now + wait, source, destination, contents: transmit.contents.to_vec() };
        self.waiting.extend(HANDSHAKE_REPEATS.into_iter().map(again));
    }

    /// When [`Repeats::take`] has something to give.
    pub fn due(&self) -> Option<Instant> {
        self.waiting.iter().map(|repeat| repeat.at).min()
    }

    /// What is to be sent by now, in the order in which it was sent first.
    pub fn take(&mut self, now: Instant) -> impl Iterator<Item = Repeat> {
        self.waiting.extract_if(.., move |repeat| repeat.at <= now)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use str0m::net::Protocol;

    fn datagram(first: u8, number: u8) -> Transmit {
        let [source, destination] = ["127.0.0.1:1", "127.0.0.1:2"].map(|address| address.parse().unwrap());
        Transmit { proto: Protocol::Udp, source, destination, contents: vec![first, number].into() }
    }

    #[test]
    fn a_handshake_is_sent_three_times_and_media_once() {
        let (mut repeats, start) = (Repeats::default(), Instant::now());
        let [first, second] = HANDSHAKE_REPEATS.map(|wait| start + wait);
        for (kind, number) in [(22, 1), (0x80, 2), (20, 3), (23, 4)] {
            repeats.note(&datagram(kind, number), start);
        }
        for due in [first, second] {
            assert_eq!(repeats.due(), Some(due));
            assert!(repeats.take(due - HANDSHAKE_REPEATS[0] / 2).next().is_none());
            let numbers: Vec<u8> = repeats.take(due).map(|repeat| repeat.contents[1]).collect();
            assert_eq!(numbers, [1, 3]);
        }
        assert_eq!(repeats.due(), None);
    }

    #[test]
    fn who_starts_over_and_over_is_not_answered_threefold() {
        let (mut repeats, now) = (Repeats::default(), Instant::now());
        (0..200).for_each(|_| repeats.note(&datagram(22, 0), now));
        assert_eq!(repeats.take(now + HANDSHAKE_REPEATS[1]).count(), MAX_REPEATED * HANDSHAKE_REPEATS.len());
    }
}
