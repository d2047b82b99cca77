//! Whatever a peer sends by the rules arrives as it was sent.

use super::client::*;
use crate::rtmp::aggregate;
use crate::rtmp::*;
use proptest::collection::vec;
use proptest::prelude::*;

const IDS: [u32; 7] = [5, 4, 6, 63, 64, 319, 65_599];

/// One step of a sending client.
#[derive(Debug, Clone)]
enum Step {
    /// The next chunk of the message on a chunk stream; a new message if there is none, with this format of header
    /// or a shorter one: 4 stands for a message that has none.
    Chunk {
        id: usize,
        next: Sent,
        format: u8,
    },
    SetChunkSize(u32),
}

fn sent() -> impl Strategy<Value = Sent> {
    let time = prop_oneof![
        4 => 0..2000u32,
        2 => (0..50u32).prop_map(|n| n * 40),
        1 => 0xff_fff0..0x100_0010u32,
        1 => any::<u32>(),
    ];
    let body = prop_oneof![
        4 => vec(any::<u8>(), 1..40),
        2 => vec(any::<u8>(), 20..21),
        1 => vec(any::<u8>(), 1..3000),
    ];
    (prop_oneof![Just(AUDIO), Just(VIDEO)], time, body).prop_map(|(kind, time, body)| Sent { kind, time, body })
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => (0..IDS.len(), sent(), 0..5u8).prop_map(|(id, next, format)| Step::Chunk { id, next, format }),
        1 => prop_oneof![1..200u32, Just(1), Just(0xff_ffff), Just(0x7fff_ffff)].prop_map(Step::SetChunkSize),
    ]
}

/// What the steps put on the wire, and the messages in the order they are completed.
fn write(writer: &mut Writer, steps: &[Step]) -> (Vec<u8>, Vec<Sent>) {
    let mut out = Vec::new();
    let mut open: [Option<Sent>; IDS.len()] = Default::default();
    let mut complete = Vec::new();
    for step in steps {
        match step {
            Step::SetChunkSize(size) => out.extend(writer.set_chunk_size(*size)),
            Step::Chunk { id, next, format } => {
                if writer.is_open(IDS[*id]) {
                    writer.go_on(IDS[*id], &mut out);
                } else {
                    let like = writer.like_the_last(IDS[*id], next.body[0]).filter(|_| *format == 4);
                    let next = like.unwrap_or_else(|| next.clone());
                    writer.start(IDS[*id], &next, (*format).min(3), &mut out);
                    open[*id] = Some(next);
                }
                if !writer.is_open(IDS[*id]) {
                    complete.extend(open[*id].take());
                }
            }
        }
    }
    for (id, message) in IDS.iter().zip(open) {
        while writer.is_open(*id) {
            writer.go_on(*id, &mut out);
        }
        complete.extend(message);
    }
    (out, complete)
}

proptest! {
    #[test]
    fn any_interleaving_and_chunk_size_cut_anywhere(steps in vec(step(), 1..60), cuts in vec(1..200usize, 1..20)) {
        let mut pair = Pair::publishing();
        let (bytes, expected) = write(&mut pair.writer, &steps);
        let mut rest = &bytes[..];
        for cut in cuts.iter().cycle() {
            let (head, tail) = rest.split_at((*cut).min(rest.len()));
            pair.feed(head).unwrap();
            rest = tail;
            if rest.is_empty() {
                break;
            }
        }
        prop_assert_eq!(media(pair.events()), expected);
    }

    #[test]
    fn frames_are_read_back(time in any::<u32>(), len in prop_oneof![0..600usize, 16_000..50_000usize]) {
        let mut pair = Pair::playing(Limits::default());
        let payload = bytes::Bytes::from(vec![7; len]);
        prop_assert_eq!(pair.session.send_video(time, payload.clone()), Delivery::Queued);
        let got = pair.answers();
        prop_assert_eq!(got.len(), 1);
        prop_assert_eq!((got[0].timestamp, &got[0].payload), (time, &payload));
    }
}

/// Feeds raw chunks to a publisher's session.
fn read(chunks: &[&[u8]]) -> Result<Vec<Sent>, Violation> {
    let mut pair = Pair::publishing();
    for chunk in chunks {
        pair.feed(chunk)?;
    }
    Ok(media(pair.events()))
}

fn times(sent: &[Sent]) -> Vec<u32> {
    sent.iter().map(|s| s.time).collect()
}

#[test]
fn a_header_of_one_byte_adds_the_delta_again() {
    let full = [6, 0, 0, 100, 0, 0, 1, 9, 1, 0, 0, 0, b'a'];
    let delta = [0x86, 0, 0, 40, b'b'];
    let none = [0xc6, b'c'];
    let got = read(&[&full, &delta, &none, &none]).unwrap();
    assert_eq!(times(&got), [100, 140, 180, 220]);
    // After an absolute time the delta is that time (section 5.3.1.2.4), as ffmpeg and librtmp have it.
    assert_eq!(times(&read(&[&full, &none]).unwrap()), [100, 200]);
}

#[test]
fn times_wrap() {
    let full = [6, 0xff, 0xff, 0xff, 0, 0, 1, 9, 1, 0, 0, 0, 0xff, 0xff, 0xff, 0xf0, b'a'];
    let delta = [0x86, 0, 0, 0x20, b'b'];
    assert_eq!(times(&read(&[&full, &delta]).unwrap()), [0xffff_fff0, 0x10]);
}

/// Two chunks of 128 and 22 bytes at 2^24 ms, with or without the time in the second.
fn long_time(repeat: bool) -> Vec<u8> {
    let mut bytes = vec![6, 0xff, 0xff, 0xff, 0, 0, 150, 9, 1, 0, 0, 0, 1, 0, 0, 0];
    bytes.extend([5; 128]);
    bytes.push(0xc6);
    if repeat {
        bytes.extend([1, 0, 0, 0]);
    }
    bytes.extend([5; 22]);
    bytes
}

#[test]
fn long_times_with_and_without_repetition() {
    let expected = Sent { kind: VIDEO, time: 1 << 24, body: vec![5; 150] };
    for repeat in [true, false] {
        let bytes = long_time(repeat);
        let got = read(&[&bytes, &bytes]).unwrap();
        assert_eq!(got, [expected.clone(), expected.clone()]);
        let single: Vec<&[u8]> = bytes.chunks(1).collect();
        assert_eq!(read(&single).unwrap()[..], got[..1]);
    }
}

#[test]
fn abort_drops_the_message_and_keeps_the_header() {
    let mut start = vec![6, 0, 0, 100, 0, 0, 200, 9, 1, 0, 0, 0];
    start.extend([1; 128]);
    let abort = [2, 0, 0, 0, 0, 0, 4, 2, 0, 0, 0, 0, 0, 0, 0, 6];
    let abort_7 = [2, 0, 0, 0, 0, 0, 4, 2, 0, 0, 0, 0, 0, 0, 0, 7];
    let other = [2, 0, 0, 0, 0, 0, 4, 2, 0, 0, 0, 0, 0, 0, 0, 9];
    let mut again = vec![0xc6];
    again.extend([2; 128]);
    again.push(0xc6);
    again.extend([2; 72]);
    let got = read(&[&start, &other, &abort, &again]).unwrap();
    assert_eq!(got.len(), 1);
    assert_eq!((got[0].time, &got[0].body[..]), (200, &[2; 200][..]));
    // What was dropped no longer counts as unfinished.
    start[0] = 7;
    let mut chunks: Vec<&[u8]> = Vec::new();
    for _ in 0..20 {
        chunks.extend([&start[..], &abort_7]);
    }
    assert_eq!(read(&chunks), Ok(vec![]));
}

#[test]
fn aggregates_are_taken_apart() {
    let body = aggregate::join(&[(9, 500, b"v"), (8, 520, b"a"), (9, 540, b"")]);
    let mut pair = Pair::publishing();
    let bytes = pair.writer.message(6, 22, 7000, &body);
    pair.feed(&bytes).unwrap();
    assert_eq!(times(&media(pair.events())), [7000, 7020]);
}

#[test]
fn headers_out_of_place_are_refused() {
    assert_eq!(read(&[&[0xc9]]), Err(Violation::HeaderMissing(9)));
    assert_eq!(read(&[&[0x89, 0, 0, 0]]), Err(Violation::HeaderMissing(9)));
    let mut start = vec![6, 0, 0, 0, 0, 0, 200, 9, 1, 0, 0, 0];
    start.extend([1; 128]);
    assert_eq!(read(&[&start, &start]), Err(Violation::HeaderInsideMessage(6)));
}

#[test]
fn chunk_sizes() {
    let set = |size: u32| {
        let mut pair = Pair::publishing();
        let bytes = pair.writer.message(2, 1, 0, &size.to_be_bytes());
        pair.feed(&bytes)
    };
    assert_eq!(set(1), Ok(()));
    assert_eq!(set(0x7fff_ffff), Ok(()));
    assert_eq!(set(0), Err(Violation::ChunkSize(0)));
    assert_eq!(set(0x8000_0080), Err(Violation::ChunkSize(0x8000_0080)));
    let mut pair = Pair::connected(Limits { max_chunk_size: 65_536, ..Limits::default() });
    let bytes = pair.writer.message(2, 1, 0, &0x7fff_ffffu32.to_be_bytes());
    assert_eq!(pair.feed(&bytes), Err(Violation::ChunkSize(0x7fff_ffff)));
}
