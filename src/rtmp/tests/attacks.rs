//! What broke other servers.

use super::client::*;
use crate::rtmp::amf::{AmfError, Value};
use crate::rtmp::chunk::{ChunkReader, Sizes};
use crate::rtmp::*;
use std::time::Duration;

/// The header of a message on a chunk stream of its own.
fn announce(id: u32, kind: u8, len: u32) -> Vec<u8> {
    let mut writer = Writer::new();
    let sent = Sent { kind, time: 0, body: vec![0] };
    let mut out = Vec::new();
    writer.start(id, &sent, 0, &mut out);
    let at = out.len() - 1 - 8;
    out[at..at + 3].copy_from_slice(&len.to_be_bytes()[1..]);
    out
}

#[test]
fn sixty_thousand_announced_messages_before_connect() {
    for kind in [AUDIO, VIDEO, COMMAND, 22, 18, 99] {
        let mut pair = Pair::new(Limits::default());
        pair.feed(&handshake()).unwrap();
        let attack: Vec<u8> = (64..60_064).flat_map(|id| announce(id, kind, 16_000_000)).collect();
        assert_eq!(pair.feed(&attack), Err(Violation::MessageSize { kind, len: 16_000_000, max: 65_536 }));
    }
}

#[test]
fn many_small_announced_messages() {
    let mut pair = Pair::new(Limits::default());
    pair.feed(&handshake()).unwrap();
    // One of 128 bytes is a chunk of its own; a longer one stays open behind its first chunk.
    let attack: Vec<u8> = (64..60_064).flat_map(|id| [announce(id, COMMAND, 60_000), vec![0; 127]].concat()).collect();
    assert_eq!(pair.feed(&attack), Err(Violation::PartialMessages(8)));

    let mut pair = Pair::new(Limits::default());
    pair.feed(&handshake()).unwrap();
    let attack: Vec<u8> = (64..60_064).flat_map(|id| announce(id, AUDIO, 1)).collect();
    assert_eq!(pair.feed(&attack), Err(Violation::ChunkStreams(64)));
}

#[test]
fn memory_follows_what_came_not_what_was_announced() {
    let limits = Limits::default();
    let sizes = Sizes { media: limits.max_media, data: limits.max_data, other: limits.max_command };
    let mut reader = ChunkReader::new(limits.clone());
    reader.set_sizes(sizes);
    let mut came = 0;
    let mut feed = |reader: &mut ChunkReader, bytes: &[u8]| {
        came += bytes.len();
        let done = reader.next(&mut &bytes[..]);
        let allocated = reader.allocated();
        assert!(allocated <= 2 * came + 8 * 512, "{allocated} for {came}");
        done
    };
    for id in 64..72 {
        let head = [announce(id, VIDEO, 8 << 20), vec![0; 127]].concat();
        assert_eq!(feed(&mut reader, &head), Ok(None));
    }
    assert!(reader.allocated() <= 8 * 512);
    let chunk = |id: u8| [vec![0xc0, id - 64], vec![0; 128]].concat();
    let mut done = Ok(None);
    for round in 0..200_000u32 {
        done = feed(&mut reader, &chunk(64 + (round % 8) as u8));
        if done.is_err() {
            break;
        }
    }
    assert_eq!(done, Err(Violation::PartialBytes(16 << 20)));
    assert!(came < 17 << 20);
}

#[test]
fn a_chunk_size_of_two_gigabytes() {
    let mut pair = Pair::new(Limits::default());
    pair.feed(&handshake()).unwrap();
    let bytes = pair.writer.set_chunk_size(0x7fff_ffff);
    pair.feed(&bytes).unwrap();
    // Within the limit it is read, and may not go on for ever: no connect comes.
    let bytes = pair.writer.message(6, VIDEO, 0, &[0; 65_536]);
    assert_eq!(pair.feed(&bytes), Err(Violation::NoConnect(65_536)));

    let mut pair = Pair::connected(Limits::default());
    let bytes = pair.writer.set_chunk_size(0x7fff_ffff);
    pair.feed(&bytes).unwrap();
    let violation = pair.feed(&announce(6, VIDEO, 0xff_ffff)).unwrap_err();
    assert!(matches!(violation, Violation::MessageSize { .. }), "{violation}");
    assert_eq!(pair.feed(&[0; 65_536]), Err(violation));
}

/// Seconds of this thread's work: what others do on the machine does not count.
fn worked() -> f64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

/// Seconds of work for a message of `len` bytes in chunks of one byte, fed in reads of `read` bytes.
fn one_byte_chunks(len: usize, read: usize) -> f64 {
    let mut pair = Pair::publishing();
    let bytes = pair.writer.set_chunk_size(1);
    pair.feed(&bytes).unwrap();
    let bytes = pair.writer.message(6, VIDEO, 0, &vec![1; len]);
    let start = worked();
    for part in bytes.chunks(read) {
        pair.feed(part).unwrap();
    }
    let seconds = worked() - start;
    assert_eq!(media(pair.events())[0].body.len(), len);
    seconds
}

#[test]
fn one_byte_chunks_take_linear_time() {
    // Sixteen times the bytes; quadratic work would take 256 times as long. The best of three, and a bound well above
    // sixteen, as the machine's caches are shared.
    let best = |len, read| {
        let runs = (0..3).map(|_| one_byte_chunks(len, read));
        runs.fold(f64::MAX, f64::min)
    };
    for read in [1, 65_536] {
        let (small, large) = (best(30_000, read), best(480_000, read));
        println!("one-byte chunks, reads of {read}: 30 kB {small:.4} s, 480 kB {large:.4} s");
        assert!(large < small * 80.0, "{small} s, then {large} s");
    }
}

#[test]
fn a_truncated_handshake_waits_and_a_wrong_one_ends() {
    let mut pair = Pair::new(Limits::default());
    pair.feed(&handshake()[..1000]).unwrap();
    assert_eq!(pair.session.phase(), Phase::Handshake);
    assert!(pair.output().is_empty() && pair.events().is_empty());
    let mut pair = Pair::new(Limits::default());
    assert_eq!(pair.feed(b"GET / HTTP/1.1\r\n"), Err(Violation::NotRtmp(b'G')));
    assert_eq!(pair.session.phase(), Phase::Closing);
    assert_eq!(pair.feed(&handshake()), Err(Violation::NotRtmp(b'G')));
}

#[test]
fn amf_of_depth_a_thousand() {
    let mut pair = Pair::new(Limits::default());
    pair.feed(&handshake()).unwrap();
    let mut deep = amf(&["connect".into(), 1.0.into()]);
    deep.extend([3, 0, 1, b'a'].repeat(1000));
    let bytes = pair.writer.message(3, COMMAND, 0, &deep);
    assert_eq!(pair.feed(&bytes), Err(Violation::Amf(AmfError::Depth)));
    // Metadata is only not reported: it is no reason to end a stream.
    let mut pair = Pair::publishing();
    let mut deep = amf(&["onMetaData".into()]);
    deep.extend([3, 0, 1, b'a'].repeat(1000));
    let bytes = pair.writer.message(5, 18, 0, &deep);
    pair.feed(&bytes).unwrap();
    assert!(pair.events().is_empty());
}

#[test]
fn a_flood_of_commands() {
    let mut pair = Pair::connected(Limits::default());
    // The connect was the first.
    for _ in 1..100 {
        pair.say(&call("createStream")).unwrap();
    }
    pair.now += Duration::from_secs(1);
    for _ in 0..100 {
        pair.say(&call("createStream")).unwrap();
    }
    let violation = pair.say(&call("createStream"));
    assert_eq!(violation, Err(Violation::CommandRate(100)));
}

#[test]
fn a_peer_that_makes_us_answer_and_does_not_read() {
    let mut pair = Pair::connected(Limits { max_output: 0, max_commands_per_second: u32::MAX, ..Limits::default() });
    let ping = pair.writer.message(2, 4, 0, &[0, 6, 1, 2, 3, 4]);
    let violation = (0..5000).find_map(|_| pair.feed(&ping).err());
    assert_eq!(violation, Some(Violation::OutputFull(0)));
    assert!(pair.session.output_len() < 70_000);
}

#[test]
fn input_during_a_decision_is_bounded() {
    let mut pair = Pair::connected(Limits::default());
    pair.say(&publish("x")).unwrap();
    assert!(!pair.session.wants_input());
    for _ in 0..4 {
        pair.feed(&[0; 65_536]).unwrap();
    }
    assert_eq!(pair.feed(&[0]), Err(Violation::Held(256 << 10)));
}

#[test]
fn media_before_permission_is_small() {
    // Sent in one go with the publish, as relays do: it counts by the answer, not by when it came.
    let run = |accept: bool| {
        let mut pair = Pair::connected(Limits::default());
        let mut bytes = pair.writer.command(&publish("x"));
        bytes.extend(pair.writer.message(6, VIDEO, 0, &vec![7; 100_000]));
        pair.feed(&bytes).unwrap();
        let done = if accept {
            pair.session.accept_publish()
        } else {
            pair.session.reject_publish("NetStream.Publish.BadName", "in use")
        };
        (done, pair.events().len())
    };
    assert_eq!(run(true), (Ok(()), 2));
    let (done, events) = run(false);
    assert!(matches!(done, Err(Violation::MessageSize { kind: 9, .. })));
    assert_eq!(events, 1);
}

#[test]
fn commands_out_of_place() {
    let mut pair = Pair::new(Limits::default());
    pair.feed(&handshake()).unwrap();
    assert_eq!(pair.say(&publish("x")), Err(Violation::CommandBeforeConnect));
    let mut pair = Pair::connected(Limits::default());
    assert_eq!(pair.say(&connect("live")), Err(Violation::SecondConnect));
    let mut pair = Pair::connected(Limits::default());
    let bytes = pair.writer.message(3, COMMAND, 0, &[0x11, 0xff]);
    assert_eq!(pair.feed(&bytes), Err(Violation::Amf(AmfError::Marker(0x11))));
    let mut pair = Pair::connected(Limits::default());
    let bytes = pair.writer.message(2, 4, 0, &[0]);
    assert_eq!(pair.feed(&bytes), Err(Violation::Short(4)));
    let mut pair = Pair::connected(Limits::default());
    pair.say(&[Value::Null, Value::Null]).unwrap();
    assert!(pair.codes().is_empty());
}
