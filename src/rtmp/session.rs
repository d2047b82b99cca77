//! One client's connection, without a socket: bytes in, events and bytes out.
//!
//! ```text
//! Handshake ─► Connect ─► (connect?) ──accept──► Idle ◄──────────────────────────────┐
//!                             │                   │ publish                           │
//!                           reject                ├────► (publish?) ─accept─► Publishing ─closeStream─┤
//!                             ▼                   │ play                              │
//!                          Closing ◄─violation    └────► (play?) ────accept─► Playing ────closeStream─┘
//! ```
//!
//! In a state in brackets the driver owes an answer. Nothing that follows in the input is looked at before it: so the
//! small limits hold until a publish is accepted, however early a client sends its media.

mod commands;
mod inbound;
mod output;
mod rate;

use super::chunk::{ChunkReader, Sizes};
use super::event::{Delivery, Event, Phase};
use super::frame::Frame;
use super::handshake::Handshake;
use super::message::{Kind, Message};
use super::target::App;
use super::{Limits, Violation, reply};
use bytes::Bytes;
use output::Output;
use rate::Rate;
use std::collections::VecDeque;
use std::time::Instant;

/// The window we announce in both directions, bytes: a few seconds of a high-rate stream. What the peer acknowledges is
/// not waited for, as some never do.
const WINDOW: u32 = 5_000_000;
/// We acknowledge at half the peer's window, but not for less than this many bytes.
const MIN_ACKNOWLEDGED: u64 = 4096;

/// Where the connection is; the diagram is in the module's head.
#[derive(Debug, Clone, Copy, PartialEq)]
enum State {
    Handshake,
    Connect,
    /// `connect` awaits its answer, with this transaction.
    Connecting(f64),
    Idle,
    PublishAsked,
    Publishing,
    /// `play` awaits its answer; whether the player wants its list reset.
    PlayAsked(bool),
    Playing(Taste),
    Closing,
}

/// What a player wants to be sent.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Taste {
    paused: bool,
    audio: bool,
    video: bool,
}

/// The server's side of one RTMP connection.
///
/// The driver reads from its socket into [`feed`](Self::feed) while [`wants_input`](Self::wants_input), takes events with
/// [`poll_event`](Self::poll_event), answers them, and writes what [`poll_output`](Self::poll_output) gives. Time limits are
/// the driver's: [`phase`](Self::phase) says which one applies. After a [`Violation`] there is nothing to do but close.
#[derive(Debug)]
pub struct Session {
    limits: Limits,
    state: State,
    handshake: Handshake,
    reader: ChunkReader,
    events: VecDeque<Event>,
    output: Output,
    /// Input behind a message that awaits the driver's answer.
    held: Vec<u8>,
    app: App,
    received: u64,
    acknowledged: u64,
    peer_window: u32,
    rate: Rate,
    failed: Option<Violation>,
}

impl Session {
    /// A session at the first byte of a connection, at the time `now`.
    pub fn new(limits: Limits, now: Instant) -> Self {
        Self {
            state: State::Handshake,
            handshake: Handshake::new(),
            reader: ChunkReader::new(limits.clone()),
            events: VecDeque::new(),
            output: Output::new(limits.max_output),
            held: Vec::new(),
            app: App::default(),
            received: 0,
            acknowledged: 0,
            peer_window: WINDOW,
            rate: Rate::new(now, limits.max_commands_per_second),
            failed: None,
            limits,
        }
    }

    /// Takes bytes that came at the time `now`, any number of them, cut anywhere.
    ///
    /// # Errors
    /// The peer broke a rule or passed a limit. Events from before it can still be taken; every later call fails alike.
    pub fn feed(&mut self, now: Instant, data: &[u8]) -> Result<(), Violation> {
        self.rate.set_now(now);
        let len = u64::try_from(data.len()).unwrap_or(u64::MAX);
        self.received = self.received.saturating_add(len);
        self.run(data)
    }

    /// Whether [`feed`](Self::feed) should be given more. While an answer is owed it should not: what is fed all the same
    /// is kept up to [`Limits::max_held`].
    pub fn wants_input(&self) -> bool {
        !self.deciding()
    }

    /// The next thing the client did.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// The next slice to write. A message is several slices; they are written in the order they come.
    pub fn poll_output(&mut self) -> Option<Bytes> {
        self.output.pop()
    }

    /// Bytes that wait in [`poll_output`](Self::poll_output).
    pub fn output_len(&self) -> usize {
        self.output.len()
    }

    /// What the session does now.
    pub fn phase(&self) -> Phase {
        match self.state {
            State::Handshake => Phase::Handshake,
            State::Connect => Phase::Connect,
            State::Connecting(_) | State::PublishAsked | State::PlayAsked(_) => Phase::Deciding,
            State::Idle => Phase::Idle,
            State::Publishing => Phase::Publishing,
            State::Playing(_) => Phase::Playing,
            State::Closing => Phase::Closing,
        }
    }

    /// Queues a frame for the player. Nothing of it is copied.
    pub fn send(&mut self, frame: &Frame) -> Delivery {
        let State::Playing(taste) = self.state else {
            return Delivery::NotPlaying;
        };
        let muted = match frame.kind() {
            Kind::Audio => taste.paused || !taste.audio,
            Kind::Video => taste.paused || !taste.video,
            _ => false,
        };
        if muted {
            Delivery::Muted
        } else if self.output.push_frame(frame) {
            Delivery::Queued
        } else {
            Delivery::Full
        }
    }

    /// Queues a video message for the player: [`Frame::video`] and [`send`](Self::send), for a stream with one viewer.
    pub fn send_video(&mut self, timestamp: u32, payload: Bytes) -> Delivery {
        self.send(&Frame::video(timestamp, payload))
    }

    /// Queues an audio message for the player: [`Frame::audio`] and [`send`](Self::send), for a stream with one viewer.
    pub fn send_audio(&mut self, timestamp: u32, payload: Bytes) -> Delivery {
        self.send(&Frame::audio(timestamp, payload))
    }

    /// Queues `onMetaData` for the player: [`Frame::metadata`] and [`send`](Self::send), for a stream with one viewer.
    pub fn send_metadata(&mut self, timestamp: u32, payload: Bytes) -> Delivery {
        self.send(&Frame::metadata(timestamp, payload))
    }

    /// Asks the client to answer, which shows that it is there. `timestamp` in milliseconds, of any clock.
    pub fn ping(&mut self, timestamp: u32) {
        self.output.control(Kind::UserControl, reply::user_control(reply::PING_REQUEST, timestamp));
    }

    fn deciding(&self) -> bool {
        self.phase() == Phase::Deciding
    }

    /// Takes input, or what was held, and remembers a violation.
    fn run(&mut self, data: &[u8]) -> Result<(), Violation> {
        if let Some(violation) = &self.failed {
            return Err(violation.clone());
        }
        let done = self.process(data).and_then(|()| self.check());
        if let Err(violation) = &done {
            self.failed = Some(violation.clone());
            self.state = State::Closing;
            self.held = Vec::new();
        }
        done
    }

    /// Goes on with the input behind a message that has its answer now.
    fn resume(&mut self) -> Result<(), Violation> {
        let held = std::mem::take(&mut self.held);
        self.run(&held)
    }

    fn process(&mut self, mut data: &[u8]) -> Result<(), Violation> {
        if self.state == State::Handshake {
            if let Some(answer) = self.handshake.feed(&mut data)? {
                self.output.push(answer);
            }
            if self.handshake.is_done() {
                self.state = State::Connect;
            }
        }
        while !self.deciding() && self.state != State::Closing {
            match self.reader_next(&mut data)? {
                Some(message) => self.message(message)?,
                None => return Ok(()),
            }
        }
        self.hold(data)
    }

    fn reader_next(&mut self, data: &mut &[u8]) -> Result<Option<Message>, Violation> {
        if data.is_empty() {
            return Ok(None);
        }
        self.reader.next(data)
    }

    fn hold(&mut self, data: &[u8]) -> Result<(), Violation> {
        if self.state == State::Closing {
            return Ok(());
        }
        if self.held.len().saturating_add(data.len()) > self.limits.max_held {
            return Err(Violation::Held(self.limits.max_held));
        }
        self.held.extend_from_slice(data);
        Ok(())
    }

    /// What is true after every piece of input: acknowledge it, and bound what came before `connect` and what waits.
    fn check(&mut self) -> Result<(), Violation> {
        self.acknowledge();
        let early = matches!(self.state, State::Handshake | State::Connect);
        let limit = self.limits.max_before_connect;
        if early && self.received > Handshake::CLIENT_LEN.saturating_add(limit) {
            return Err(Violation::NoConnect(limit));
        }
        if self.output.is_overfull() {
            return Err(Violation::OutputFull(self.limits.max_output));
        }
        Ok(())
    }

    /// Sends an Acknowledgement when one is due (section 5.4.3). At half the window, because peers that stop at a full
    /// one do not agree on whether the handshake counts.
    fn acknowledge(&mut self) {
        let due = u64::from(self.peer_window / 2).max(MIN_ACKNOWLEDGED);
        if self.state != State::Handshake && self.received.saturating_sub(self.acknowledged) >= due {
            self.acknowledged = self.received;
            // The sequence number is the count of bytes modulo 2^32.
            let [_, _, _, _, low @ ..] = self.received.to_be_bytes();
            self.output.control(Kind::Acknowledgement, reply::word(u32::from_be_bytes(low)));
        }
    }

    /// Sets how large messages may be: large for an accepted publisher only.
    fn set_sizes(&mut self) {
        let limits = &self.limits;
        let publishing = self.state == State::Publishing;
        let of = |large: usize| {
            if publishing { large } else { limits.max_command }
        };
        self.reader.set_sizes(Sizes {
            media: of(limits.max_media),
            data: of(limits.max_data),
            other: limits.max_command,
        });
    }
}
