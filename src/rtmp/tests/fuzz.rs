//! Random and damaged bytes: no panic, no endless work, no memory that was not paid for in bytes.

use super::client::*;
use crate::rtmp::*;
use std::time::Instant;

/// How many seeds a test tries; `RTMP_FUZZ_ROUNDS` asks for more.
fn rounds() -> std::ops::Range<u64> {
    let rounds = std::env::var("RTMP_FUZZ_ROUNDS").ok().and_then(|n| n.parse().ok());
    1..rounds.unwrap_or(2000)
}

/// A small generator, so that a failure can be run again from its seed.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }
}

/// Feeds `data` cut anywhere to a session whose driver says yes to everything; gives how many bytes were taken.
fn exercise(data: &[u8], random: &mut Random) -> usize {
    let now = Instant::now();
    let mut session = Session::new(Limits::default(), now);
    let mut taken = 0;
    while taken < data.len() {
        let end = (taken + 1 + random.below(4096)).min(data.len());
        if session.feed(now, &data[taken..end]).is_err() {
            break;
        }
        taken = end;
        while let Some(event) = session.poll_event() {
            let done = match event {
                Event::Connect(_) => session.accept_connect(),
                Event::Publish(_) => session.accept_publish(),
                Event::Play(_) => session.accept_play(),
                Event::Video { payload, .. } => flv::VideoTag::parse(&payload).map(drop).or(Ok(())),
                Event::Audio { payload, .. } => flv::AudioTag::parse(&payload).map(drop).or(Ok(())),
                _ => Ok(()),
            };
            if done.is_err() {
                break;
            }
        }
        assert!(session.output_len() <= taken + 16_384);
        while session.poll_output().is_some() {}
    }
    taken
}

/// A good session: a publisher with every kind of message, then a player.
fn good() -> Vec<u8> {
    let mut writer = Writer::new();
    let mut bytes = handshake();
    for values in [connect("live"), call("releaseStream"), call("FCPublish"), call("createStream"), publish("x")] {
        bytes.extend(writer.command(&values));
    }
    bytes.extend(writer.message(5, 18, 0, &flv::Metadata::default().payload()));
    bytes.extend(writer.set_chunk_size(200));
    for time in 0..10u32 {
        bytes.extend(writer.message(6, VIDEO, time * 40, &[0x17, 1, 0, 0, 0, 5].repeat(60)));
        bytes.extend(writer.message(4, AUDIO, time * 0x20_0000, &[0xaf, 1, 9, 9]));
    }
    let tags = aggregate::join(&[(9, 0, b"\x17\x01\0\0\0"), (8, 5, b"\xaf\x01\x02")]);
    bytes.extend(writer.message(6, 22, 900, &tags));
    bytes.extend(writer.message(2, 2, 0, &[0, 0, 0, 6]));
    for values in [call("deleteStream"), play("y"), call("closeStream")] {
        bytes.extend(writer.command(&values));
    }
    bytes
}

#[test]
fn good_bytes_are_all_taken() {
    let bytes = good();
    for seed in 1..50 {
        assert_eq!(exercise(&bytes, &mut Random(seed)), bytes.len());
    }
}

#[test]
fn random_bytes() {
    for seed in rounds() {
        let mut random = Random(seed);
        let noise: Vec<u8> = (0..random.below(5000)).map(|_| random.next() as u8).collect();
        exercise(&noise, &mut random);
        exercise(&[handshake(), noise].concat(), &mut random);
    }
}

#[test]
fn damaged_sessions() {
    let whole = good();
    let mut refused = 0;
    for seed in rounds() {
        let mut random = Random(seed);
        let mut bytes = whole.clone();
        for _ in 0..1 + random.below(8) {
            // Behind the handshake, where it is looked at.
            let at = 3073 + random.below(bytes.len() - 3073);
            match random.below(4) {
                0 => bytes[at] = random.next() as u8,
                1 => bytes[at] ^= 1 << random.below(8),
                2 => drop(bytes.remove(at)),
                _ => bytes.truncate(at.max(3100)),
            }
        }
        refused += usize::from(exercise(&bytes, &mut random) < bytes.len());
    }
    println!("{refused} of {} damaged sessions were refused, the rest taken", rounds().count());
}
