//! N encoders or N players in one process, for the benchmarks `publishers` and `delay`: what they cost is little next to
//! what the server does. Twice a second a line of JSON about them goes to stdout.
//!
//! `rtmp_clients publish FILE HOST:PORT N`: sends an FLV file again and again as the streams 0 to N-1 of the application
//! `live`, each message at its time, in chunks of 4096 bytes as OBS does. The streams begin within two seconds, so that
//! their keyframes do not meet.
//!
//! `rtmp_clients play FILE HOST:PORT N`: plays those streams, one player each, and compares every message with the file's.
//! A parser may have put parameter sets before a keyframe; everything else must be what was sent, and nothing missing.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a benchmark ends by panicking")]

use std::collections::HashMap;
use std::io::IoSlice;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::net::tcp::OwnedReadHalf;
use tokio::time::{Instant, sleep, sleep_until};

const CHUNK: usize = 4096;
const AUDIO: u8 = 8;
const VIDEO: u8 = 9;
/// The time within which the streams begin: the distance of the medium's keyframes.
const SPREAD: Duration = Duration::from_secs(2);
/// Bytes at the end of a message that it is known by.
const TAIL: usize = 256;

/// A message of the medium.
struct Tag {
    kind: u8,
    /// Milliseconds from the medium's start.
    time: u32,
    body: Vec<u8>,
    /// The body as it follows the first chunk's header on the wire.
    wire: Vec<u8>,
}

impl Tag {
    /// A decoder's configuration, which is no media.
    fn configures(&self) -> bool {
        configures(self.kind, &self.body)
    }
}

/// Reads a file's messages and how long it lasts, milliseconds.
fn medium(file: &str) -> (Vec<Tag>, u32) {
    let bytes = std::fs::read(file).expect("the medium can be read");
    let (mut at, mut tags) = (13, Vec::new());
    while at + 11 < bytes.len() {
        let len = u32::from_be_bytes([0, bytes[at + 1], bytes[at + 2], bytes[at + 3]]) as usize;
        let time = u32::from_be_bytes([bytes[at + 7], bytes[at + 4], bytes[at + 5], bytes[at + 6]]);
        let (kind, body) = (bytes[at], bytes[at + 11..at + 11 + len].to_vec());
        // AVC's end of sequence is no media either.
        if !(kind == VIDEO && body.get(1) == Some(&2)) {
            let wire = body.chunks(CHUNK).collect::<Vec<_>>().join(&(0xc0 | chunk_stream(kind)));
            tags.push(Tag { kind, time, body, wire });
        }
        at += 11 + len + 4;
    }
    let pictures: Vec<u32> = tags.iter().filter(|tag| tag.kind == VIDEO && !tag.configures()).map(|t| t.time).collect();
    let last = *pictures.last().unwrap();
    (tags, last + (last - pictures[0]) / (pictures.len() as u32 - 1))
}

fn chunk_stream(kind: u8) -> u8 {
    match kind {
        1 => 2,
        AUDIO => 4,
        VIDEO => 6,
        _ => 3,
    }
}

/// The header of a message's first chunk, format 0; `stream` is 1 for what belongs to the stream.
fn head(kind: u8, stream: u8, time: u32, len: usize) -> Vec<u8> {
    assert!(time < 0xff_ffff, "a benchmark ends before times need more than 24 bits");
    let [_, len @ ..] = u32::try_from(len).unwrap().to_be_bytes();
    let [_, time @ ..] = time.to_be_bytes();
    [&[chunk_stream(kind)][..], &time, &len, &[kind, stream, 0, 0, 0]].concat()
}

fn message(kind: u8, stream: u8, body: &[u8]) -> Vec<u8> {
    [head(kind, stream, 0, body.len()), body.to_vec()].concat()
}

/// A command in AMF0.
fn command(stream: u8, values: &[Value]) -> Vec<u8> {
    message(20, stream, &values.iter().map(amf0).collect::<Vec<_>>().concat())
}

fn amf0(value: &Value) -> Vec<u8> {
    let text = |text: &str| [&u16::try_from(text.len()).unwrap().to_be_bytes()[..], text.as_bytes()].concat();
    match value {
        Value::Number(number) => [&[0][..], &number.as_f64().unwrap().to_be_bytes()].concat(),
        Value::String(string) => [vec![2], text(string)].concat(),
        Value::Object(object) => {
            let pairs = object.iter().flat_map(|(key, value)| [text(key), amf0(value)]);
            [vec![vec![3]], pairs.collect(), vec![vec![0, 0, 9]]].concat().concat()
        }
        _ => vec![5],
    }
}

/// Shakes hands and asks for everything at once, as some encoders do; `last` is the command on the stream.
async fn connected(address: &str, last: &[Value]) -> TcpStream {
    let mut socket = TcpStream::connect(address).await.expect("the server listens");
    socket.set_nodelay(true).unwrap();
    let mut hello = vec![3];
    hello.resize(1537, 0);
    socket.write_all(&hello).await.unwrap();
    let mut theirs = vec![0; 3073];
    socket.read_exact(&mut theirs).await.unwrap();
    let app =
        json!({"app": "live", "tcUrl": format!("rtmp://{address}/live"), "flashVer": "FMLE/3.0 (compatible; bench)"});
    let asked = [
        theirs[1..1537].to_vec(),
        message(1, 0, &u32::try_from(CHUNK).unwrap().to_be_bytes()),
        command(0, &[json!("connect"), json!(1.0), app]),
        command(0, &[json!("createStream"), json!(2.0), Value::Null]),
        command(1, last),
    ];
    socket.write_all(&asked.concat()).await.unwrap();
    socket
}

/// What all clients of this process have done.
#[derive(Default)]
struct Counts {
    up: AtomicU64,
    messages: AtomicU64,
    bytes: AtomicU64,
    /// Where the messages of a player are not those of the medium.
    breaks: AtomicU64,
    /// The longest that a message went out after its time, or that a frame was away from its time, milliseconds.
    late: AtomicU64,
    /// When the first encoder's publish was accepted, milliseconds since 1970.
    accepted: AtomicU64,
}

fn now_ms() -> u64 {
    u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap()
}

async fn publish(tags: Arc<(Vec<Tag>, u32)>, address: String, name: String, counts: Arc<Counts>) {
    let last = [json!("publish"), json!(3.0), Value::Null, json!(name), json!("live")];
    let mut socket = connected(&address, &last).await;
    let (mut heard, mut buffer) = (Vec::new(), vec![0; 4096]);
    while !heard.windows(23).any(|window| window == b"NetStream.Publish.Start") {
        let len = socket.read(&mut buffer).await.unwrap();
        assert!(len > 0, "the server closes: {}", String::from_utf8_lossy(&heard));
        heard.extend(&buffer[..len]);
    }
    let _ = counts.accepted.compare_exchange(0, now_ms(), Relaxed, Relaxed);
    counts.up.fetch_add(1, Relaxed);
    let (mut from, mut to) = socket.into_split();
    tokio::spawn(async move { while from.read(&mut buffer).await.is_ok_and(|len| len > 0) {} });
    let (tags, length) = &*tags;
    let began = Instant::now();
    for round in 0.. {
        for tag in tags {
            if round > 0 && (tag.configures() || tag.kind == 18) {
                continue;
            }
            let time = tag.time + round * length;
            let due = began + Duration::from_millis(time.into());
            sleep_until(due).await;
            counts.late.fetch_max(u64::try_from(due.elapsed().as_millis()).unwrap(), Relaxed);
            let head = head(tag.kind, 1, time, tag.body.len());
            write(&mut to, &head, &tag.wire).await;
            counts.messages.fetch_add(u64::from(!tag.configures() && tag.kind != 18), Relaxed);
            counts.bytes.fetch_add((head.len() + tag.wire.len()) as u64, Relaxed);
        }
    }
}

async fn write(to: &mut tokio::net::tcp::OwnedWriteHalf, head: &[u8], body: &[u8]) {
    let written = to.write_vectored(&[IoSlice::new(head), IoSlice::new(body)]).await.expect("the server takes it");
    for rest in [&head[written.min(head.len())..], &body[written.saturating_sub(head.len()).min(body.len())..]] {
        to.write_all(rest).await.expect("the server takes it");
    }
}

/// What a message is known by: a keyframe by its end, anything else by its length too.
fn token(body: &[u8]) -> (usize, &[u8]) {
    let keyframe = body[0] >> 4 == 1 && body[0] & 15 == 7;
    (if keyframe { 0 } else { body.len() }, &body[body.len().saturating_sub(TAIL)..])
}

/// One track of a player next to the medium's.
struct Track<'a> {
    medium: Vec<&'a Tag>,
    /// The messages that the last one may have been.
    last: Vec<usize>,
    time: u32,
}

impl<'a> Track<'a> {
    fn new(tags: &'a [Tag], kind: u8) -> Self {
        let medium = tags.iter().filter(|tag| tag.kind == kind && !tag.configures()).collect();
        Self { medium, last: Vec::new(), time: 0 }
    }

    /// Whether a message goes on where the last one was; and how far its time is from what it should be, milliseconds.
    fn goes_on(&mut self, time: u32, body: &[u8]) -> (bool, u32) {
        let step = time.wrapping_sub(std::mem::replace(&mut self.time, time));
        let is = |at: &usize| token(&self.medium[*at].body) == token(body);
        let next: Vec<usize> = self.last.iter().map(|at| (at + 1) % self.medium.len()).filter(is).collect();
        if !next.is_empty() {
            let off = |at: &usize| match at {
                0 => 0,
                at => step.abs_diff(self.medium[*at].time - self.medium[at - 1].time),
            };
            let off = next.iter().map(off).min().unwrap_or(0);
            self.last = next;
            return (true, off);
        }
        let first = self.last.is_empty();
        self.last = (0..self.medium.len()).filter(is).collect();
        (first && !self.last.is_empty(), 0)
    }
}

fn configures(kind: u8, body: &[u8]) -> bool {
    matches!(kind, AUDIO | VIDEO) && body.get(1) == Some(&0)
}

async fn play(tags: Arc<(Vec<Tag>, u32)>, address: String, name: String, counts: Arc<Counts>, own: Arc<AtomicU64>) {
    let last = [json!("play"), json!(3.0), Value::Null, json!(name), json!(-1000.0)];
    let (from, _to) = connected(&address, &last).await.into_split();
    let mut reader = Reader { from: BufReader::with_capacity(32 << 10, from), chunk: 128, streams: HashMap::new() };
    let mut tracks = [(VIDEO, Track::new(&tags.0, VIDEO)), (AUDIO, Track::new(&tags.0, AUDIO))];
    let mut first = true;
    loop {
        let Some((kind, time, body)) = reader.message().await else { panic!("the server has ended the stream {name}") };
        counts.bytes.fetch_add(body.len() as u64, Relaxed);
        let media = tracks.iter_mut().find(|(own, _)| *own == kind && !configures(kind, &body) && body.len() > 2);
        let Some((_, track)) = media else { continue };
        let (good, off) = track.goes_on(time, &body);
        counts.breaks.fetch_add(u64::from(!good), Relaxed);
        counts.late.fetch_max(off.into(), Relaxed);
        counts.messages.fetch_add(1, Relaxed);
        own.fetch_add(1, Relaxed);
        if std::mem::replace(&mut first, false) {
            counts.up.fetch_add(1, Relaxed);
        }
    }
}

/// Reads messages out of chunks (RTMP 1.0 section 5.3).
struct Reader {
    from: BufReader<OwnedReadHalf>,
    chunk: usize,
    streams: HashMap<u32, Open>,
}

/// The last header of a chunk stream, and what there is of its message.
#[derive(Default)]
struct Open {
    time: u32,
    delta: u32,
    extended: bool,
    len: usize,
    kind: u8,
    body: Vec<u8>,
}

impl Reader {
    /// Kind, time and body of the next message; `None` at the end.
    async fn message(&mut self) -> Option<(u8, u32, Vec<u8>)> {
        loop {
            let first = self.from.read_u8().await.ok()?;
            let id = match first & 63 {
                0 => 64 + u32::from(self.from.read_u8().await.ok()?),
                1 => 64 + u32::from(self.from.read_u16_le().await.ok()?),
                id => id.into(),
            };
            let open = self.streams.entry(id).or_default();
            let format = first >> 6;
            let starts = open.body.is_empty();
            if format < 3 {
                open.delta = u24(&mut self.from).await?;
                if format < 2 {
                    open.len = u24(&mut self.from).await? as usize;
                    open.kind = self.from.read_u8().await.ok()?;
                }
                if format == 0 {
                    self.from.read_u32_le().await.ok()?;
                }
                open.extended = open.delta == 0xff_ffff;
            }
            if open.extended {
                open.delta = self.from.read_u32().await.ok()?;
            }
            if starts {
                open.time = if format == 0 { open.delta } else { open.time.wrapping_add(open.delta) };
            }
            let at = open.body.len();
            open.body.resize(open.len.min(at + self.chunk), 0);
            self.from.read_exact(&mut open.body[at..]).await.ok()?;
            if open.body.len() == open.len {
                let (kind, time, body) = (open.kind, open.time, std::mem::take(&mut open.body));
                if kind == 1 {
                    self.chunk = u32::from_be_bytes(body[..4].try_into().ok()?) as usize;
                }
                return Some((kind, time, body));
            }
        }
    }
}

async fn u24(from: &mut BufReader<OwnedReadHalf>) -> Option<u32> {
    let mut bytes = [0; 4];
    from.read_exact(&mut bytes[1..]).await.ok()?;
    Some(u32::from_be_bytes(bytes))
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [role, file, address, count] = &words[..] else { panic!("see the head of rtmp_clients.rs") };
    let count: u32 = count.parse().unwrap();
    let tags = Arc::new(medium(file));
    let counts = Arc::new(Counts::default());
    let began = now_ms();
    let mut own = Vec::new();
    for number in 0..count {
        let (tags, address, name, counts) = (tags.clone(), address.clone(), number.to_string(), counts.clone());
        let task = match role.as_str() {
            "publish" => tokio::spawn(async move {
                sleep(SPREAD * number / count).await;
                publish(tags, address, name, counts).await;
            }),
            _ => {
                own.push(Arc::new(AtomicU64::new(0)));
                tokio::spawn(play(tags, address, name, counts, own.last().unwrap().clone()))
            }
        };
        // One that fails ends all of it: a benchmark with fewer clients is another one.
        tokio::spawn(async move {
            if task.await.is_err() {
                std::process::exit(1);
            }
        });
    }
    loop {
        let get = |count: &AtomicU64| count.load(Relaxed);
        let line = json!({
            "at": now_ms(), "began": began, "accepted": get(&counts.accepted), "up": get(&counts.up),
            "messages": get(&counts.messages), "fewest": own.iter().map(|own| get(own)).min(),
            "bytes": get(&counts.bytes), "breaks": get(&counts.breaks), "late": get(&counts.late),
        });
        println!("{line}");
        sleep(Duration::from_millis(500)).await;
    }
}
