//! The client's side of WCS's WebSocket protocol: what a pull from another server, and a push to one, says and hears.
//!
//! The messages are the WebSDK's, field by field (`websdk-2.0.276.jsonl` is a recording of its own). Between two weirs
//! one field is added, `weirPath`: the publishers a stream comes from, the nearest first, by their media sessions.
//! Who finds its own among them would feed a stream with itself.

use serde_json::{Value, json};

use super::{Envelope, envelope};
use crate::name::{MediaSessionId, StreamName};

/// The most publishers of a path that are read: no chain of servers is as long.
const MAX_PATH: usize = 32;

/// What a server is told of this client where the SDK names a browser.
const AGENT: &str = concat!("weir/", env!("CARGO_PKG_VERSION"));

/// `connection`: who is calling.
pub fn connection() -> String {
    let hello = json!({
        "appKey": "defaultApp",
        "mediaProviders": ["WebRTC"],
        "clientVersion": "2.0",
        "clientOSVersion": std::env::consts::OS,
        "clientBrowserVersion": AGENT,
        "msePacketizationVersion": 2,
        "clientInfo": {},
        "weirPath": [],
    });
    envelope("connection", &[hello])
}

/// `playStream`: an offer to receive.
pub fn play_stream(session: &MediaSessionId, name: &StreamName, sdp: &str, custom: Option<&Value>) -> String {
    let mut call = stream(session, name, false, "PENDING");
    merge(&mut call, json!({"mediaProvider": "WebRTC", "sdp": sdp, "bitrate": 0, "minBitrate": 0, "maxBitrate": 0}));
    merge(&mut call, json!({"width": 0, "height": 0, "quality": 0}));
    merge(&mut call, shown(custom));
    envelope("playStream", &[call])
}

/// `publishStream`: an offer to send. `kinds` says whether there are pictures and sound.
pub fn publish_stream(
    session: &MediaSessionId,
    name: &StreamName,
    sdp: &str,
    (video, audio): (bool, bool),
    path: &[String],
) -> String {
    let mut call = stream(session, name, true, "PENDING");
    merge(&mut call, json!({"mediaProvider": "WebRTC", "sdp": sdp, "bitrate": 0, "minBitrate": 0, "maxBitrate": 0}));
    let none = json!({"video": [], "audio": []});
    merge(&mut call, json!({"localMediaInfo": {"devices": none, "tracks": none}, "weirPath": path}));
    merge(&mut call, json!({"hasVideo": video, "hasAudio": audio}));
    envelope("publishStream", &[call])
}

/// `stopStream`.
pub fn stop_stream(session: &MediaSessionId, name: &StreamName) -> String {
    envelope("stopStream", &[stream(session, name, false, "PLAYING")])
}

/// `unPublishStream`.
pub fn unpublish_stream(session: &MediaSessionId, name: &StreamName) -> String {
    envelope("unPublishStream", &[stream(session, name, true, "PUBLISHING")])
}

/// `availableStream`: whether a name can be played.
pub fn available_stream(session: &MediaSessionId, name: &StreamName, custom: Option<&Value>) -> String {
    let mut call = json!({"mediaSessionId": session.as_str(), "name": name.as_str()});
    merge(&mut call, shown(custom));
    envelope("availableStream", &[call])
}

/// A page's own fields, where there are some.
fn shown(custom: Option<&Value>) -> Value {
    custom.map_or(Value::Null, |custom| json!({"custom": custom}))
}

/// What all messages about a stream have.
fn stream(session: &MediaSessionId, name: &StreamName, published: bool, status: &str) -> Value {
    json!({
        "mediaSessionId": session.as_str(),
        "name": name.as_str(),
        "published": published,
        "hasVideo": true,
        "hasAudio": true,
        "status": status,
        "record": false,
    })
}

fn merge(call: &mut Value, more: Value) {
    if let (Some(call), Value::Object(more)) = (call.as_object_mut(), more) {
        call.extend(more);
    }
}

/// What a server says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FromServer {
    /// The connection is established.
    UserData,
    /// It wants to hear a `pong`.
    Ping,
    /// An SDP for a media session.
    RemoteSdp {
        /// The session.
        session: String,
        /// The answer.
        sdp: String,
    },
    /// A media session's status.
    Status {
        /// The session.
        session: String,
        /// WCS's word.
        status: String,
        /// WCS's text, empty where there is none.
        info: String,
        /// Where the stream comes from; `None` where the server does not say.
        path: Option<Vec<String>>,
    },
    /// A call that cannot be carried out.
    Fail {
        /// The message or event it is about.
        method: String,
        /// The session, empty where there is none.
        session: String,
        /// Why.
        info: String,
    },
    /// The answer to `availableStream`.
    Available {
        /// The session it was asked with.
        session: String,
        /// It can be played.
        yes: bool,
        /// Why not.
        info: String,
    },
    /// Anything else: a sign of life.
    Other,
}

impl FromServer {
    /// Reads a text frame.
    ///
    /// # Errors
    /// A sentence: it is no message of the protocol, or lacks what its kind must have. Nothing of the frame is in it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let Envelope { message: name, data } = Envelope::parse(text)?;
        let second = data.get(1).and_then(Value::as_str);
        let data = data.first().unwrap_or(&Value::Null);
        let text = |field: &str| data[field].as_str().unwrap_or_default().to_owned();
        let session = || match text("mediaSessionId") {
            none if none.is_empty() => Err(format!("{name} has no mediaSessionId")),
            session => Ok(session),
        };
        Ok(match name.as_str() {
            "getUserData" => Self::UserData,
            "ping" => Self::Ping,
            "setRemoteSDP" => match (data.as_str(), second) {
                (Some(session), Some(sdp)) => Self::RemoteSdp { session: session.to_owned(), sdp: sdp.to_owned() },
                _ => return Err("setRemoteSDP has no SDP".into()),
            },
            "notifyStreamStatusEvent" => Self::Status {
                session: session()?,
                status: text("status"),
                info: text("info"),
                path: path(&data["weirPath"]),
            },
            "fail" => Self::Fail { method: text("apiMethod"), session: text("id"), info: text("info") },
            "availableStream" => {
                Self::Available { session: text("id"), yes: data["status"] == "true", info: text("info") }
            }
            _ => Self::Other,
        })
    }
}

/// The publishers of a `weirPath`, bounded.
pub fn path(value: &Value) -> Option<Vec<String>> {
    let text = |entry: &Value| entry.as_str().map(str::to_owned);
    Some(value.as_array()?.iter().take(MAX_PATH).filter_map(text).collect())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::BTreeMap;

    use super::*;
    use proptest::prelude::*;

    /// What the SDK said to a server while it published and played, sdp left out.
    const SDK: &str = include_str!("websdk-2.0.276.jsonl");
    /// What weir says beside.
    const OURS: [&str; 1] = ["weirPath"];

    fn payload(frame: &str) -> (String, Value) {
        let envelope: Value = serde_json::from_str(frame).unwrap();
        let data = envelope["data"].as_array().unwrap();
        assert_eq!(data.len(), 1, "{frame}");
        (envelope["message"].as_str().unwrap().to_owned(), data[0].clone())
    }

    /// The kind of a value: what a server of another make must be able to read.
    fn kind(value: &Value) -> &'static str {
        match value {
            Value::Null => "null",
            Value::Bool(_) => "flag",
            Value::Number(_) => "number",
            Value::String(_) => "text",
            Value::Array(_) => "list",
            Value::Object(_) => "object",
        }
    }

    #[test]
    fn every_message_has_the_fields_of_the_sdks() {
        let (session, name) = (MediaSessionId::new("S").unwrap(), StreamName::new("s1").unwrap());
        let recorded: BTreeMap<_, _> = SDK.lines().map(payload).collect();
        let ours = [
            connection(),
            super::super::pong(),
            play_stream(&session, &name, "v=0\r\n", None),
            publish_stream(&session, &name, "v=0\r\n", (true, true), &[]),
            stop_stream(&session, &name),
            unpublish_stream(&session, &name),
        ];
        assert_eq!(ours.len(), recorded.len(), "every message of the recording is compared");
        for frame in ours {
            let (message, said) = payload(&frame);
            let sdk = &recorded[&message];
            let Some(sdk) = sdk.as_object() else {
                assert_eq!(&said, sdk, "{message}");
                continue;
            };
            for (field, value) in sdk {
                assert_eq!(kind(&said[field]), kind(value), "{message}.{field}");
                // Ids, names and the client's own description differ; statuses, flags and numbers do not.
                let same = matches!(value, Value::Bool(_) | Value::Number(_))
                    || ["status", "mediaProvider", "sdp"].contains(&field.as_str());
                assert!(!same || said[field] == *value, "{message}.{field}: {} and {value}", said[field]);
            }
            let more: Vec<_> = said.as_object().unwrap().keys().filter(|key| !sdk.contains_key(*key)).collect();
            assert!(more.iter().all(|key| OURS.contains(&key.as_str())), "{message}: {more:?}");
        }
    }

    #[test]
    fn a_servers_messages_are_read() {
        let read = FromServer::parse;
        assert_eq!(read(r#"{"message":"getUserData","data":[{"authToken":"t"}]}"#).unwrap(), FromServer::UserData);
        assert_eq!(read(r#"{"message":"ping","data":[]}"#).unwrap(), FromServer::Ping);
        let sdp = FromServer::RemoteSdp { session: "S".into(), sdp: "v=0".into() };
        assert_eq!(read(r#"{"message":"setRemoteSDP","data":["S","v=0"]}"#).unwrap(), sdp);
        let status = r#"{"message":"notifyStreamStatusEvent","data":[{"mediaSessionId":"S","status":"PENDING","info":null,"weirPath":["a",1,"b"]}]}"#;
        let path = Some(vec!["a".to_owned(), "b".to_owned()]);
        let wanted = FromServer::Status { session: "S".into(), status: "PENDING".into(), info: String::new(), path };
        assert_eq!(read(status).unwrap(), wanted);
        let available = r#"{"message":"availableStream","data":[{"id":"A","status":"true"}]}"#;
        assert!(matches!(read(available).unwrap(), FromServer::Available { yes: true, .. }));
        // A JSON true is none for the SDK either.
        let no = r#"{"message":"availableStream","data":[{"id":"A","status":true}]}"#;
        assert!(matches!(read(no).unwrap(), FromServer::Available { yes: false, .. }));
        assert_eq!(read(r#"{"message":"inboundVideoRate","data":[{"videoRate":1}]}"#).unwrap(), FromServer::Other);
    }

    #[test]
    fn a_frame_that_lacks_what_it_must_have_is_refused_without_its_text() {
        for bad in [
            "",
            "{}",
            "[1]",
            r#"{"message":"setRemoteSDP","data":["S"]}"#,
            r#"{"message":"setRemoteSDP","data":[1,"secret"]}"#,
            r#"{"message":"notifyStreamStatusEvent","data":[{"status":"secret"}]}"#,
            r#"{"message":"notifyStreamStatusEvent","data":"secret"}"#,
        ] {
            let reason = FromServer::parse(bad).unwrap_err();
            assert!(!reason.contains("secret") && !reason.is_empty(), "{bad}: {reason}");
        }
    }

    proptest! {
        #[test]
        fn no_frame_makes_it_panic(text in "\\PC{0,300}") {
            let _ = FromServer::parse(&text);
        }

        #[test]
        fn no_payload_makes_it_panic(message in "getUserData|setRemoteSDP|notifyStreamStatusEvent|fail|availableStream", data in "[\\[\\]{}\":,a-z0-9]{0,60}") {
            let _ = FromServer::parse(&format!(r#"{{"message":"{message}","data":[{data}]}}"#));
        }
    }
}
