//! What clients ask for (RTMP 1.0 section 7.2, and the calls of Flash Media Live Encoder that everybody copied).

use super::amf::{AmfError, Caps, Decoder, Object, Value};
use super::event::{PublishKind, Start};

/// One command message.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Call {
    /// Number that the answer repeats; 0 wants none.
    pub(crate) transaction: f64,
    pub(crate) command: Command,
}

/// The commands a server of streams knows.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Command {
    Connect(Object),
    CreateStream,
    /// Ends what the stream does; `deleteStream`, `closeStream` and `FCUnpublish` mean the same to one stream.
    CloseStream,
    FcUnpublish(String),
    ReleaseStream,
    FcPublish(String),
    FcSubscribe(String),
    FcUnsubscribe(String),
    Publish {
        name: String,
        kind: PublishKind,
    },
    Play {
        name: String,
        start: Start,
        reset: bool,
    },
    Pause(bool),
    Seek,
    ReceiveAudio(bool),
    ReceiveVideo(bool),
    GetStreamLength,
    CheckBandwidth,
    /// An answer to a call of ours; we make none that wants one.
    Answer,
    Unknown(String),
}

/// Reads a command message in AMF0.
///
/// # Errors
/// The values are not AMF0 within the caps. Missing arguments are no error: they read as empty.
pub(crate) fn parse(payload: &[u8], caps: Caps) -> Result<Call, AmfError> {
    let mut values = Decoder::new(payload, caps).all()?.into_iter();
    let name = string(values.next());
    let transaction = values.next().and_then(|v| v.as_number()).unwrap_or(0.0);
    // The command object: connect's properties, null everywhere else.
    let object = values.next();
    let command = match name.as_str() {
        "connect" => Command::Connect(object.map(into_object).unwrap_or_default()),
        "createStream" => Command::CreateStream,
        "deleteStream" | "closeStream" => Command::CloseStream,
        "releaseStream" => Command::ReleaseStream,
        "FCPublish" => Command::FcPublish(string(values.next())),
        "FCUnpublish" => Command::FcUnpublish(string(values.next())),
        "FCSubscribe" => Command::FcSubscribe(string(values.next())),
        "FCUnsubscribe" => Command::FcUnsubscribe(string(values.next())),
        "publish" => publish(values),
        "play" => play(values),
        "pause" | "pauseRaw" => Command::Pause(boolean(values.next())),
        "seek" => Command::Seek,
        "receiveAudio" => Command::ReceiveAudio(boolean(values.next())),
        "receiveVideo" => Command::ReceiveVideo(boolean(values.next())),
        "getStreamLength" => Command::GetStreamLength,
        "_checkbw" | "checkBandwidth" => Command::CheckBandwidth,
        "_result" | "_error" | "onStatus" => Command::Answer,
        _ => Command::Unknown(name),
    };
    Ok(Call { transaction, command })
}

/// `false` in the name's place ends what the stream does, here and in `play`, as Flash's `NetStream` has it.
const STOP: Option<Value> = Some(Value::Boolean(false));

fn publish(mut values: impl Iterator<Item = Value>) -> Command {
    let name = values.next();
    if name == STOP {
        return Command::CloseStream;
    }
    Command::Publish { name: string(name), kind: publish_kind(values.next()) }
}

fn play(mut values: impl Iterator<Item = Value>) -> Command {
    let name = values.next();
    if name == STOP {
        return Command::CloseStream;
    }
    let name = string(name);
    let start = start(values.next());
    let _duration = values.next();
    let reset = values.next().and_then(|v| v.as_bool()).unwrap_or(true);
    Command::Play { name, start, reset }
}

/// Section 7.2.2.1 counts in seconds; ffmpeg and librtmp send milliseconds, so that live is -1 or -1000.
fn start(value: Option<Value>) -> Start {
    match value.and_then(|v| v.as_number()) {
        Some(at) if at >= 0.0 => Start::At(at),
        Some(at) if at == -1.0 || at == -1000.0 => Start::Live,
        _ => Start::LiveOrRecorded,
    }
}

fn publish_kind(value: Option<Value>) -> PublishKind {
    match value.as_ref().and_then(Value::as_str) {
        Some("record") => PublishKind::Record,
        Some("append") => PublishKind::Append,
        _ => PublishKind::Live,
    }
}

fn string(value: Option<Value>) -> String {
    match value {
        Some(Value::String(text)) => text,
        _ => String::new(),
    }
}

fn boolean(value: Option<Value>) -> bool {
    value.and_then(|v| v.as_bool()).unwrap_or(false)
}

fn into_object(value: Value) -> Object {
    match value {
        Value::Object(object) | Value::EcmaArray(object) | Value::Typed(_, object) => object,
        _ => Object::new(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::rtmp::amf::encode;

    fn call(values: &[Value]) -> Call {
        let mut bytes = Vec::new();
        encode(values, &mut bytes);
        let caps = Caps { depth: 4, values: 32 };
        parse(&bytes, caps).unwrap()
    }

    #[test]
    fn play_as_ffmpeg_and_as_the_specification() {
        let play = |start: f64| call(&["play".into(), 4.0.into(), Value::Null, "a".into(), start.into()]).command;
        let with = |start| Command::Play { name: "a".into(), start, reset: true };
        assert_eq!(play(-2000.0), with(Start::LiveOrRecorded));
        assert_eq!(play(-2.0), with(Start::LiveOrRecorded));
        assert_eq!(play(-1000.0), with(Start::Live));
        assert_eq!(play(-1.0), with(Start::Live));
        assert_eq!(play(0.0), with(Start::At(0.0)));
        assert_eq!(play(f64::NAN), with(Start::LiveOrRecorded));
    }

    #[test]
    fn false_in_the_names_place_stops() {
        for name in ["publish", "play"] {
            let stop = call(&[name.into(), 0.0.into(), Value::Null, Value::Boolean(false)]);
            assert_eq!(stop.command, Command::CloseStream);
        }
    }

    #[test]
    fn missing_and_wrong_arguments_read_as_empty() {
        assert_eq!(call(&[]).command, Command::Unknown(String::new()));
        assert_eq!(call(&["connect".into()]).command, Command::Connect(vec![]));
        let publish = call(&["publish".into(), "x".into(), Value::Null, 5.0.into()]);
        assert_eq!(publish.transaction, 0.0);
        assert_eq!(publish.command, Command::Publish { name: String::new(), kind: PublishKind::Live });
    }
}
