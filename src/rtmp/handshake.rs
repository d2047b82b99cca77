//! The plain handshake, server side (RTMP 1.0 section 5.2).
//!
//! ```text
//! client: C0 C1 ─────────────► server          C0 version byte, C1 1536 bytes
//! client ◄──────────── S0 S1 S2                S2 is C1 again
//! client: C2 ─────────────────►                C2 is S1 again, or a digest; not looked at
//! ```
//!
//! Clients that could do the digest handshake put a Flash version into bytes 4 to 7 of C1. S1 has zeros there, which
//! tells them to go on without: ffmpeg asks for a version of at least 3 before it looks for a digest, librtmp clears its
//! flag on a zero, nginx-rtmp falls back on a C1 or S1 without a digest.

use super::Violation;
use bytes::Bytes;

/// Length of C1, C2, S1 and S2, bytes.
const PACKET: usize = 1536;

/// Where the handshake is.
#[derive(Debug)]
enum Step {
    Version,
    C1(Vec<u8>),
    C2 { left: usize },
    Done,
}

/// The handshake of one connection.
#[derive(Debug)]
pub(crate) struct Handshake {
    step: Step,
}

impl Handshake {
    /// Bytes a client sends until it is done.
    pub(crate) const CLIENT_LEN: u64 = 3073;

    /// A handshake that waits for C0.
    pub(crate) fn new() -> Self {
        Self { step: Step::Version }
    }

    /// Whether the chunk stream starts with the next byte.
    pub(crate) fn is_done(&self) -> bool {
        matches!(self.step, Step::Done)
    }

    /// Takes what it needs off the front of `data`; gives S0, S1 and S2 once C1 is complete.
    ///
    /// # Errors
    /// [`Violation::NotRtmp`] and [`Violation::Encrypted`], on the first byte.
    pub(crate) fn feed(&mut self, data: &mut &[u8]) -> Result<Option<Bytes>, Violation> {
        let mut answer = None;
        while !self.is_done() && !data.is_empty() {
            if let Some(bytes) = self.step(data)? {
                answer = Some(bytes);
            }
        }
        Ok(answer)
    }

    fn step(&mut self, data: &mut &[u8]) -> Result<Option<Bytes>, Violation> {
        match &mut self.step {
            Step::Version => {
                if let Some(version) = take(data, 1).first() {
                    check_version(*version)?;
                    self.step = Step::C1(Vec::new());
                }
            }
            Step::C1(c1) => {
                c1.extend_from_slice(take(data, PACKET.saturating_sub(c1.len())));
                if c1.len() >= PACKET {
                    let answer = answer(c1);
                    self.step = Step::C2 { left: PACKET };
                    return Ok(Some(answer));
                }
            }
            Step::C2 { left } => {
                *left = left.saturating_sub(take(data, *left).len());
                if *left == 0 {
                    self.step = Step::Done;
                }
            }
            Step::Done => {}
        }
        Ok(None)
    }
}

/// Up to `n` bytes off the front of `data`.
pub(crate) fn take<'a>(data: &mut &'a [u8], n: usize) -> &'a [u8] {
    let (head, tail) = data.split_at_checked(n).unwrap_or((*data, &[]));
    *data = tail;
    head
}

fn check_version(version: u8) -> Result<(), Violation> {
    match version {
        3 => Ok(()),
        6 | 8 | 9 => Err(Violation::Encrypted(version)),
        other => Err(Violation::NotRtmp(other)),
    }
}

fn answer(c1: &[u8]) -> Bytes {
    let mut out = Vec::with_capacity(PACKET.saturating_mul(2).saturating_add(1));
    out.push(3);
    // S1: time zero, version zero, then filler. The filler only has to differ from a constant run: nothing is secret.
    out.extend_from_slice(&[0; 8]);
    let mut state: u32 = 0x9e37_79b9;
    for _ in 8..PACKET {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        out.push(state.to_be_bytes()[0]);
    }
    out.extend_from_slice(c1);
    Bytes::from(out)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn hello() -> Vec<u8> {
        let mut bytes = vec![3];
        bytes.extend((0..2 * PACKET).map(|i| (i % 251) as u8));
        bytes
    }

    #[test]
    fn answers_after_c1_and_echoes_it() {
        assert_eq!(hello().len() as u64, Handshake::CLIENT_LEN);
        for step in [1, 7, 1536, 4000] {
            let bytes = hello();
            let mut handshake = Handshake::new();
            let mut answers = Vec::new();
            for mut part in bytes.chunks(step) {
                answers.extend(handshake.feed(&mut part).unwrap());
                assert!(part.is_empty());
            }
            assert!(handshake.is_done());
            let [answer] = &answers[..] else { panic!("one answer") };
            assert_eq!(answer.len(), 1 + 2 * PACKET);
            assert_eq!(answer[0], 3);
            assert_eq!(answer[5..9], [0; 4]);
            assert_eq!(answer[1 + PACKET..], bytes[1..1 + PACKET]);
        }
    }

    #[test]
    fn leaves_what_follows_c2() {
        let mut bytes = hello();
        bytes.extend([1, 2, 3]);
        let mut rest = &bytes[..];
        Handshake::new().feed(&mut rest).unwrap();
        assert_eq!(rest, [1, 2, 3]);
    }

    #[test]
    fn refuses_others_on_the_first_byte() {
        let first = |byte: u8| Handshake::new().feed(&mut &[byte][..]);
        assert_eq!(first(6), Err(Violation::Encrypted(6)));
        assert_eq!(first(b'G'), Err(Violation::NotRtmp(b'G')));
        assert_eq!(first(0x16), Err(Violation::NotRtmp(0x16)));
    }

    #[test]
    fn half_a_handshake_waits() {
        let mut handshake = Handshake::new();
        assert_eq!(handshake.feed(&mut &hello()[..1000]), Ok(None));
        assert!(!handshake.is_done());
    }
}
