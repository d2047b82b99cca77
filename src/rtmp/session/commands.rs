//! What a session answers: commands of the client, decisions of the driver.

use super::{Session, State, Taste, WINDOW};
use crate::rtmp::amf::{self, Value};
use crate::rtmp::command::{self, Call, Command};
use crate::rtmp::event::{Connect, Event, Play, Publish, PublishKind, Start};
use crate::rtmp::frame::OUT_CHUNK_SIZE;
use crate::rtmp::message::{Kind, STREAM_ID};
use crate::rtmp::{Violation, reply, target};

const EVERYTHING: Taste = Taste { paused: false, audio: true, video: true };

impl Session {
    /// Lets the client in. Does nothing unless a [`Event::Connect`] awaits its answer.
    ///
    /// # Errors
    /// A violation in the input that waited behind the `connect`.
    pub fn accept_connect(&mut self) -> Result<(), Violation> {
        let State::Connecting(transaction) = self.state else {
            return Ok(());
        };
        self.output.answer(reply::connected(transaction));
        self.state = State::Idle;
        self.resume()
    }

    /// Turns the client away with a code such as `NetConnection.Connect.Rejected`. The session is [`Phase::Closing`]
    /// afterwards: the driver writes what is left and closes. Does nothing unless a [`Event::Connect`] awaits its answer.
    ///
    /// [`Phase::Closing`]: crate::rtmp::Phase::Closing
    pub fn reject_connect(&mut self, code: &str, description: &str) {
        if let State::Connecting(transaction) = self.state {
            self.output.answer(reply::error(transaction, code, description));
            self.state = State::Closing;
            self.held = Vec::new();
        }
    }

    /// Lets the publisher start; its media follows as events. Does nothing unless a [`Event::Publish`] awaits its answer.
    ///
    /// # Errors
    /// A violation in the input that waited behind the `publish`.
    pub fn accept_publish(&mut self) -> Result<(), Violation> {
        if self.state != State::PublishAsked {
            return Ok(());
        }
        self.state = State::Publishing;
        self.set_sizes();
        self.stream_event(reply::STREAM_BEGIN);
        self.send_status("status", "NetStream.Publish.Start", "Publishing.");
        self.resume()
    }

    /// Refuses the publisher, with `NetStream.Publish.BadName` for a name in use. The connection stays; most encoders
    /// close it. Does nothing unless a [`Event::Publish`] awaits its answer.
    ///
    /// # Errors
    /// A violation in the input that waited behind the `publish`: relays send media at once, and a key frame is over the
    /// limit of those who may not publish.
    pub fn reject_publish(&mut self, code: &str, description: &str) -> Result<(), Violation> {
        if self.state != State::PublishAsked {
            return Ok(());
        }
        self.refuse(code, description)
    }

    /// Lets the player start: metadata, sequence headers and a key frame are what it wants first. Does nothing unless a
    /// [`Event::Play`] awaits its answer.
    ///
    /// # Errors
    /// A violation in the input that waited behind the `play`.
    pub fn accept_play(&mut self) -> Result<(), Violation> {
        let State::PlayAsked(reset) = self.state else {
            return Ok(());
        };
        self.state = State::Playing(EVERYTHING);
        self.stream_event(reply::STREAM_BEGIN);
        if reset {
            self.send_status("status", "NetStream.Play.Reset", "Playing and resetting.");
        }
        self.send_status("status", "NetStream.Play.Start", "Started playing.");
        self.output.data(reply::sample_access());
        self.resume()
    }

    /// Refuses the player, with `NetStream.Play.StreamNotFound` or `NetStream.Play.Failed`. The connection stays. Does
    /// nothing unless a [`Event::Play`] awaits its answer.
    ///
    /// # Errors
    /// A violation in the input that waited behind the `play`.
    pub fn reject_play(&mut self, code: &str, description: &str) -> Result<(), Violation> {
        if !matches!(self.state, State::PlayAsked(_)) {
            return Ok(());
        }
        self.refuse(code, description)
    }

    /// Tells the player that the stream is over. Does nothing unless somebody plays.
    pub fn finish_play(&mut self) {
        if matches!(self.state, State::Playing(_)) {
            self.stream_event(reply::STREAM_EOF);
            self.send_status("status", "NetStream.Play.UnpublishNotify", "The stream has ended.");
            self.send_status("status", "NetStream.Play.Stop", "Stopped playing.");
            self.state = State::Idle;
        }
    }

    /// Sends `onStatus` on the stream: `level` is `status`, `warning` or `error` (RTMP 1.0 section 7.2.2).
    pub fn send_status(&mut self, level: &str, code: &str, description: &str) {
        self.output.status(reply::on("onStatus", level, code, description));
    }

    fn refuse(&mut self, code: &str, description: &str) -> Result<(), Violation> {
        self.send_status("error", code, description);
        self.state = State::Idle;
        self.resume()
    }

    fn stream_event(&mut self, event: u16) {
        let body = reply::user_control(event, STREAM_ID);
        self.output.control(Kind::UserControl, body);
    }

    /// Reads and obeys one command message.
    pub(super) fn command(&mut self, payload: &[u8]) -> Result<(), Violation> {
        self.rate.count()?;
        let Call { transaction, command } = command::parse(payload, self.limits.amf())?;
        match (command, self.state) {
            (Command::Connect(object), State::Connect) => self.connect(transaction, object),
            (Command::Connect(_), _) => return Err(Violation::SecondConnect),
            (Command::Answer, _) => {}
            (_, State::Connect) => return Err(Violation::CommandBeforeConnect),
            (Command::Publish { name, kind }, _) => self.publish(&name, kind),
            (Command::Play { name, start, reset }, _) => self.play(&name, start, reset),
            (Command::CloseStream, _) => self.close_stream(),
            (command, _) => self.call(transaction, command),
        }
        Ok(())
    }

    /// Commands that are answered at once and leave the stream as it is, or nearly.
    fn call(&mut self, transaction: f64, command: Command) {
        match command {
            Command::CreateStream => self.create_stream(transaction),
            Command::ReleaseStream | Command::CheckBandwidth => {
                self.answer(transaction, Value::Undefined);
            }
            Command::FcPublish(name) => {
                self.answer(transaction, Value::Undefined);
                self.notify("onFCPublish", "NetStream.Publish.Start", &name);
            }
            Command::FcUnpublish(name) => {
                self.answer(transaction, Value::Undefined);
                self.notify("onFCUnpublish", "NetStream.Unpublish.Success", &name);
                self.close_stream();
            }
            Command::FcSubscribe(name) => {
                self.answer(transaction, Value::Undefined);
                self.notify("onFCSubscribe", "NetStream.Play.Start", &name);
            }
            Command::FcUnsubscribe(name) => {
                self.answer(transaction, Value::Undefined);
                self.notify("onFCUnsubscribe", "NetStream.Play.Stop", &name);
            }
            // A live stream has no length.
            Command::GetStreamLength => self.answer(transaction, 0.0.into()),
            Command::Seek => {
                self.send_status("error", "NetStream.Seek.Failed", "A live stream cannot seek.");
            }
            Command::Pause(paused) => self.pause(paused),
            Command::ReceiveAudio(on) => self.taste(|taste| taste.audio = on),
            Command::ReceiveVideo(on) => self.receive_video(on),
            Command::Unknown(_) if transaction != 0.0 => {
                self.output.answer(reply::error(transaction, "NetConnection.Call.Failed", "Method not found."))
            }
            _ => {}
        }
    }

    fn answer(&mut self, transaction: f64, value: Value) {
        if transaction != 0.0 {
            self.output.answer(reply::result(transaction, value));
        }
    }

    fn notify(&mut self, handler: &str, code: &str, name: &str) {
        // The name is the client's text; cut, so that a short call never costs a long answer.
        let name: String = name.chars().take(256).collect();
        self.output.answer(reply::on(handler, "status", code, &name));
    }

    fn connect(&mut self, transaction: f64, object: amf::Object) {
        self.output.control(Kind::WindowSize, reply::word(WINDOW));
        self.output.control(Kind::PeerBandwidth, reply::peer_bandwidth(WINDOW));
        // Before any answer that the initial chunk size of 128 could not hold.
        let size = u32::try_from(OUT_CHUNK_SIZE).unwrap_or(128);
        self.output.control(Kind::SetChunkSize, reply::word(size));
        let text = |name: &str| {
            let value = amf::get(&object, name).and_then(Value::as_str);
            value.unwrap_or_default().to_owned()
        };
        let tc_url = text("tcUrl");
        self.app = target::parse_app(&text("app"), &tc_url);
        self.state = State::Connecting(transaction);
        self.events.push_back(Event::Connect(Connect {
            app: self.app.name.clone(),
            instance: self.app.instance.clone(),
            query: self.app.query.clone(),
            tc_url,
            flash_ver: text("flashVer"),
            object,
        }));
    }

    /// Every `createStream` gets the one stream there is, as long as it is free.
    fn create_stream(&mut self, transaction: f64) {
        if self.state == State::Idle {
            self.answer(transaction, f64::from(STREAM_ID).into());
        } else {
            self.output.answer(reply::error(transaction, "NetConnection.Call.Failed", "A connection has one stream."));
        }
    }

    fn publish(&mut self, raw: &str, kind: PublishKind) {
        let (name, query) = target::parse_name(raw);
        if self.state != State::Idle || name.is_empty() {
            let why = if name.is_empty() { "No stream name." } else { "The stream is in use." };
            self.send_status("error", "NetStream.Publish.BadName", why);
            return;
        }
        self.state = State::PublishAsked;
        self.events.push_back(Event::Publish(Publish {
            name,
            query: target::join_queries(&query, &self.app.query),
            app: self.app.name.clone(),
            instance: self.app.instance.clone(),
            kind,
        }));
    }

    fn play(&mut self, raw: &str, start: Start, reset: bool) {
        // A second play switches to another stream.
        if matches!(self.state, State::Playing(_)) {
            self.close_stream();
        }
        let (name, query) = target::parse_name(raw);
        if self.state != State::Idle || name.is_empty() {
            self.send_status("error", "NetStream.Play.Failed", "No stream name, or it publishes.");
            return;
        }
        self.state = State::PlayAsked(reset);
        self.events.push_back(Event::Play(Play {
            name,
            query: target::join_queries(&query, &self.app.query),
            app: self.app.name.clone(),
            instance: self.app.instance.clone(),
            start,
        }));
    }

    /// Ends what the stream does.
    fn close_stream(&mut self) {
        match self.state {
            State::Publishing => {
                self.send_status("status", "NetStream.Unpublish.Success", "Stopped publishing.");
                self.events.push_back(Event::Unpublish);
            }
            State::Playing(_) => self.events.push_back(Event::StopPlay),
            _ => return,
        }
        self.state = State::Idle;
        self.set_sizes();
    }

    fn pause(&mut self, paused: bool) {
        if !matches!(self.state, State::Playing(_)) {
            return;
        }
        self.taste(|taste| taste.paused = paused);
        let (event, code) = if paused {
            (reply::STREAM_EOF, "NetStream.Pause.Notify")
        } else {
            (reply::STREAM_BEGIN, "NetStream.Unpause.Notify")
        };
        self.stream_event(event);
        self.send_status("status", code, "As asked.");
        self.events.push_back(Event::Pause { paused });
    }

    fn receive_video(&mut self, on: bool) {
        let State::Playing(before) = self.state else {
            return;
        };
        self.taste(|taste| taste.video = on);
        if on && !before.video && !before.paused {
            self.events.push_back(Event::Pause { paused: false });
        }
    }

    fn taste(&mut self, change: impl FnOnce(&mut Taste)) {
        if let State::Playing(taste) = &mut self.state {
            change(taste);
        }
    }
}
