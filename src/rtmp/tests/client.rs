//! A client for the tests: writes chunks in every way the specification allows, independently of `frame.rs`.

use crate::rtmp::amf::{Value, encode};
use crate::rtmp::*;
use std::collections::HashMap;
use std::time::Instant;

pub(super) const AUDIO: u8 = 8;
pub(super) const VIDEO: u8 = 9;
pub(super) const COMMAND: u8 = 20;

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Sent {
    pub(super) kind: u8,
    pub(super) time: u32,
    pub(super) body: Vec<u8>,
}

#[derive(Debug, Clone, Default)]
struct Previous {
    time: u32,
    delta: u32,
    extended: bool,
    len: usize,
    kind: u8,
}

/// A message that is being cut.
#[derive(Debug, Clone)]
struct Open {
    body: Vec<u8>,
    at: usize,
    extended: Option<u32>,
}

/// The writing side of a chunk stream.
#[derive(Debug, Clone)]
pub(super) struct Writer {
    pub(super) chunk_size: usize,
    previous: HashMap<u32, Previous>,
    open: HashMap<u32, Open>,
}

impl Writer {
    pub(super) fn new() -> Self {
        Self { chunk_size: 128, previous: HashMap::new(), open: HashMap::new() }
    }

    pub(super) fn is_open(&self, id: u32) -> bool {
        self.open.contains_key(&id)
    }

    /// Writes the first chunk of a message, with the shortest header that `format` at least allows.
    pub(super) fn start(&mut self, id: u32, sent: &Sent, format: u8, out: &mut Vec<u8>) {
        let (format, previous) = match self.previous.get(&id) {
            None => (0, Previous::default()),
            Some(p) => (self.shortest(p, sent).min(format), p.clone()),
        };
        let delta = match format {
            0 => sent.time,
            _ => sent.time.wrapping_sub(previous.time),
        };
        basic(format, id, out);
        let extended = if format == 3 { previous.extended } else { delta >= 0xff_ffff };
        if format < 3 {
            out.extend(&delta.min(0xff_ffff).to_be_bytes()[1..]);
        }
        if format < 2 {
            out.extend(&(sent.body.len() as u32).to_be_bytes()[1..]);
            out.push(sent.kind);
        }
        if format == 0 {
            out.extend(1u32.to_le_bytes());
        }
        if extended {
            out.extend(delta.to_be_bytes());
        }
        self.previous.insert(id, Previous { time: sent.time, delta, extended, len: sent.body.len(), kind: sent.kind });
        let open = Open { body: sent.body.clone(), at: 0, extended: extended.then_some(delta) };
        self.open.insert(id, open);
        self.body(id, out);
    }

    /// A message that needs no header of its own behind the last one of its chunk stream.
    pub(super) fn like_the_last(&self, id: u32, filler: u8) -> Option<Sent> {
        let last = self.previous.get(&id)?;
        Some(Sent { kind: last.kind, time: last.time.wrapping_add(last.delta), body: vec![filler; last.len] })
    }

    fn shortest(&self, previous: &Previous, sent: &Sent) -> u8 {
        let same = previous.len == sent.body.len() && previous.kind == sent.kind;
        let delta = sent.time.wrapping_sub(previous.time);
        match (same, delta == previous.delta) {
            (true, true) => 3,
            (true, false) => 2,
            _ => 1,
        }
    }

    /// Writes the next chunk of an open message; says whether it is complete.
    pub(super) fn go_on(&mut self, id: u32, out: &mut Vec<u8>) -> bool {
        basic(3, id, out);
        if let Some(time) = self.open[&id].extended {
            out.extend(time.to_be_bytes());
        }
        self.body(id, out)
    }

    fn body(&mut self, id: u32, out: &mut Vec<u8>) -> bool {
        let open = self.open.get_mut(&id).unwrap();
        let end = (open.at + self.chunk_size).min(open.body.len());
        out.extend(&open.body[open.at..end]);
        open.at = end;
        let complete = end == open.body.len();
        if complete {
            self.open.remove(&id);
        }
        complete
    }

    /// A whole message with nothing in between.
    pub(super) fn message(&mut self, id: u32, kind: u8, time: u32, body: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        let sent = Sent { kind, time, body: body.to_vec() };
        self.start(id, &sent, 3, &mut out);
        while self.is_open(id) {
            self.go_on(id, &mut out);
        }
        out
    }

    pub(super) fn set_chunk_size(&mut self, size: u32) -> Vec<u8> {
        let out = self.message(2, 1, 0, &size.to_be_bytes());
        self.chunk_size = size as usize;
        out
    }

    pub(super) fn command(&mut self, values: &[Value]) -> Vec<u8> {
        self.message(3, COMMAND, 0, &amf(values))
    }
}

fn basic(format: u8, id: u32, out: &mut Vec<u8>) {
    let format = format << 6;
    match id {
        2..=63 => out.push(format | id as u8),
        64..=319 => out.extend([format, (id - 64) as u8]),
        _ => out.extend([format | 1, ((id - 64) % 256) as u8, ((id - 64) / 256) as u8]),
    }
}

pub(super) fn amf(values: &[Value]) -> Vec<u8> {
    let mut body = Vec::new();
    encode(values, &mut body);
    body
}

pub(super) fn handshake() -> Vec<u8> {
    let mut bytes = vec![3];
    bytes.resize(3073, 0);
    bytes
}

pub(super) fn connect(app: &str) -> Vec<Value> {
    let object = vec![
        ("app".to_owned(), app.into()),
        ("tcUrl".to_owned(), format!("rtmp://h/{app}").as_str().into()),
        ("flashVer".to_owned(), "FMLE/3.0".into()),
    ];
    vec!["connect".into(), 1.0.into(), Value::Object(object)]
}

pub(super) fn publish(name: &str) -> Vec<Value> {
    vec!["publish".into(), 5.0.into(), Value::Null, name.into(), "live".into()]
}

pub(super) fn play(name: &str) -> Vec<Value> {
    vec!["play".into(), 5.0.into(), Value::Null, name.into(), (-2000.0).into()]
}

pub(super) fn call(name: &str) -> Vec<Value> {
    vec![name.into(), 4.0.into(), Value::Null, "x".into()]
}

/// A session and its client, at one moment of one clock.
pub(super) struct Pair {
    pub(super) session: Session,
    pub(super) writer: Writer,
    pub(super) now: Instant,
}

impl Pair {
    pub(super) fn new(limits: Limits) -> Self {
        let now = Instant::now();
        Self { session: Session::new(limits, now), writer: Writer::new(), now }
    }

    /// Connected to `live`.
    pub(super) fn connected(limits: Limits) -> Self {
        let mut pair = Self::new(limits);
        pair.feed(&handshake()).unwrap();
        pair.say(&connect("live")).unwrap();
        assert!(matches!(pair.session.poll_event(), Some(Event::Connect(_))));
        pair.session.accept_connect().unwrap();
        pair.output();
        pair
    }

    pub(super) fn publishing() -> Self {
        let mut pair = Self::connected(Limits::default());
        pair.say(&publish("x")).unwrap();
        assert!(matches!(pair.session.poll_event(), Some(Event::Publish(_))));
        pair.session.accept_publish().unwrap();
        pair.output();
        pair
    }

    pub(super) fn playing(limits: Limits) -> Self {
        let mut pair = Self::connected(limits);
        pair.say(&play("x")).unwrap();
        assert!(matches!(pair.session.poll_event(), Some(Event::Play(_))));
        pair.session.accept_play().unwrap();
        pair.output();
        pair
    }

    pub(super) fn feed(&mut self, data: &[u8]) -> Result<(), Violation> {
        self.session.feed(self.now, data)
    }

    pub(super) fn say(&mut self, values: &[Value]) -> Result<(), Violation> {
        let bytes = self.writer.command(values);
        self.feed(&bytes)
    }

    pub(super) fn events(&mut self) -> Vec<Event> {
        std::iter::from_fn(|| self.session.poll_event()).collect()
    }

    /// Everything that waits to be written.
    pub(super) fn output(&mut self) -> Vec<u8> {
        let slices: Vec<_> = std::iter::from_fn(|| self.session.poll_output()).collect();
        assert_eq!(self.session.output_len(), 0);
        slices.concat()
    }

    /// The messages that wait to be written, read back; after the handshake's answer was taken.
    pub(super) fn answers(&mut self) -> Vec<message::Message> {
        let bytes = self.output();
        let limits = Limits { max_command: 1 << 24, ..Limits::default() };
        let mut reader = chunk::ChunkReader::new(limits);
        // What a client knows once it was let in.
        let size = [2, 0, 0, 0, 0, 0, 4, 1, 0, 0, 0, 0, 0, 0, 0x40, 0];
        assert_eq!(reader.next(&mut &size[..]), Ok(None));
        let mut data = &bytes[..];
        std::iter::from_fn(|| reader.next(&mut data).unwrap()).collect()
    }

    /// The `code`s of the commands that wait to be written, or their names where they have none.
    pub(super) fn codes(&mut self) -> Vec<String> {
        let caps = Limits::default().amf();
        let commands = self.answers().into_iter();
        let commands = commands.filter(|m| m.kind == message::Kind::CommandAmf0);
        let values = commands.map(|m| amf::Decoder::new(&m.payload, caps).all().unwrap());
        values
            .map(|values| {
                let info = values.last().and_then(Value::as_object);
                let code = info.and_then(|info| amf::get(info, "code"));
                code.unwrap_or(&values[0]).as_str().unwrap().to_owned()
            })
            .collect()
    }
}

/// Media events as what was sent.
pub(super) fn media(events: Vec<Event>) -> Vec<Sent> {
    let sent = |kind, time, payload: bytes::Bytes| Sent { kind, time, body: payload.to_vec() };
    events
        .into_iter()
        .map(|event| match event {
            Event::Video { timestamp, payload } => sent(VIDEO, timestamp, payload),
            Event::Audio { timestamp, payload } => sent(AUDIO, timestamp, payload),
            other => panic!("{other:?}"),
        })
        .collect()
}
