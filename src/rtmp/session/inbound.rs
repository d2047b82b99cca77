//! What messages do to a session, commands apart.

use super::{Session, State, WINDOW};
use crate::rtmp::event::Event;
use crate::rtmp::message::{Kind, Message};
use crate::rtmp::wire::Reader;
use crate::rtmp::{Violation, aggregate, amf, reply};
use bytes::Bytes;

impl Session {
    /// Does what a message asks for.
    pub(super) fn message(&mut self, message: Message) -> Result<(), Violation> {
        match message.kind {
            Kind::CommandAmf0 => self.command(&message.payload),
            // AMF3 commands are AMF0 behind one byte that says so, unless a value switches.
            Kind::CommandAmf3 => self.command(message.payload.get(1..).unwrap_or_default()),
            Kind::UserControl => self.user_control(&message.payload),
            Kind::WindowSize => {
                self.peer_window = word(&message)?;
                Ok(())
            }
            Kind::PeerBandwidth => self.peer_bandwidth(word(&message)?),
            Kind::Aggregate if self.state == State::Publishing => {
                let messages = aggregate::split(&message)?;
                messages.into_iter().for_each(|m| self.media(m));
                Ok(())
            }
            _ => {
                self.media(message);
                Ok(())
            }
        }
    }

    /// Reports a publisher's media. Empty messages say nothing and cost an event each, so they are dropped.
    fn media(&mut self, message: Message) {
        if self.state != State::Publishing || message.payload.is_empty() {
            return;
        }
        let Message { kind, timestamp, payload } = message;
        self.events.extend(match kind {
            Kind::Video => Some(Event::Video { timestamp, payload }),
            Kind::Audio => Some(Event::Audio { timestamp, payload }),
            Kind::DataAmf0 => metadata(timestamp, payload, self.limits.amf()),
            // As with commands, one byte and then AMF0.
            Kind::DataAmf3 => metadata(timestamp, payload.slice(1..), self.limits.amf()),
            _ => None,
        });
    }

    /// Answers pings; what else players and encoders report here (buffer lengths) is theirs.
    fn user_control(&mut self, payload: &[u8]) -> Result<(), Violation> {
        self.rate.count()?;
        let short = Violation::Short(Kind::UserControl.id());
        let mut reader = Reader::new(payload);
        let event = reader.u16().ok_or(short.clone())?;
        if event == reply::PING_REQUEST {
            let time = reader.u32().ok_or(short)?;
            let answer = reply::user_control(reply::PING_RESPONSE, time);
            self.output.control(Kind::UserControl, answer);
        }
        Ok(())
    }

    /// The peer limits what we send. We answer with the window it asked for (section 5.4.5) and rely on TCP for the rest.
    fn peer_bandwidth(&mut self, size: u32) -> Result<(), Violation> {
        self.rate.count()?;
        if size != WINDOW {
            self.output.control(Kind::WindowSize, reply::word(size));
        }
        Ok(())
    }
}

/// The first 32 bits of a control message.
fn word(message: &Message) -> Result<u32, Violation> {
    Reader::new(&message.payload).u32().ok_or(Violation::Short(message.kind.id()))
}

/// Reads `onMetaData`, bare or behind `@setDataFrame`. Other data, and what cannot be read, is none.
fn metadata(timestamp: u32, payload: Bytes, caps: amf::Caps) -> Option<Event> {
    let mut decoder = amf::Decoder::new(&payload, caps);
    let mut start = payload.as_ref();
    let mut handler = decoder.next().ok()??;
    if handler.as_str() == Some("@setDataFrame") {
        start = decoder.rest();
        handler = decoder.next().ok()??;
    }
    if handler.as_str() != Some("onMetaData") {
        return None;
    }
    let object = decoder.next().ok()??.as_object()?.clone();
    let payload = payload.slice_ref(start);
    Some(Event::Metadata { timestamp, object, payload })
}
