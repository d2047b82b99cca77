//! What goes over WCS's WebSocket: what a server reads and sends here, a client's side in [`client`].
//! Source: wcs.md 3.1 to 3.3 and 11.

pub mod client;

use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::name::MediaSessionId;

/// A message of a browser: its name, and the one element of its `data` (`null` where there is none).
#[derive(Debug, Clone, PartialEq)]
pub struct Incoming {
    /// The message's name.
    pub name: String,
    /// `data[0]`.
    pub data: Value,
    /// How long the whole message was, bytes.
    pub len: usize,
}

#[derive(Deserialize)]
struct Envelope {
    message: String,
    #[serde(default)]
    data: Vec<Value>,
}

impl Incoming {
    /// Reads a text frame.
    ///
    /// # Errors
    /// A sentence for the close frame: no JSON, or not of the protocol's form.
    pub fn parse(text: &str) -> Result<Self, String> {
        let envelope = Envelope::parse(text)?;
        let data = envelope.data.into_iter().next().unwrap_or(Value::Null);
        Ok(Self { name: envelope.message, data, len: text.len() })
    }
}

impl Envelope {
    fn parse(text: &str) -> Result<Self, String> {
        serde_json::from_str(text).map_err(|error| {
            // The text is the other side's and may hold its secrets; where it is wrong is all that is told.
            format!("not a message: line {} column {}", error.line(), error.column())
        })
    }
}

/// `connection`: who the browser is. Everything it sends is echoed.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Hello {
    /// The application; `defaultApp` where absent.
    pub app_key: Option<String>,
    /// The SDK's version.
    pub client_version: Option<String>,
    /// There for another weir, which is told where streams come from.
    pub weir_path: Option<Value>,
}

/// `publishStream` and `playStream`, and the fields of their ends.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StreamCall {
    /// The id the browser chose.
    pub media_session_id: Option<String>,
    /// The stream's name, or the URL to pull.
    pub name: Option<String>,
    /// The offer.
    pub sdp: Option<String>,
    /// Record it.
    #[serde(default)]
    pub record: Option<bool>,
    /// The publishers a stream comes from, where another weir pushes it.
    pub weir_path: Option<Value>,
    /// A player's wishes: picture size in pixels, bits per second, quality. 0 is none.
    #[serde(default)]
    pub width: Value,
    /// See `width`.
    #[serde(default)]
    pub height: Value,
    /// See `width`.
    #[serde(default)]
    pub bitrate: Value,
    /// See `width`.
    #[serde(default)]
    pub quality: Value,
}

impl StreamCall {
    /// Whether a player wants the stream other than it is.
    pub fn wants_transcoding(&self) -> bool {
        let wishes = [&self.width, &self.height, &self.bitrate, &self.quality];
        wishes.into_iter().any(|wish| !wish.is_null() && wish.as_f64() != Some(0.0))
    }
}

/// `sendStreamEvent`.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StreamEventCall {
    /// The publisher's session.
    pub media_session_id: Option<String>,
    /// `audioMuted`, `videoUnmuted`, `data` and so on.
    #[serde(rename = "type")]
    pub kind: String,
    /// What a `data` event carries.
    pub payload: Option<Value>,
}

/// `sendData`.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DataCall {
    /// What the answer is matched by.
    pub operation_id: Option<Value>,
}

/// A stream's status as `notifyStreamStatusEvent` carries it.
#[derive(Debug, Clone)]
pub struct Status<'a> {
    /// The media session.
    pub session: &'a str,
    /// The stream.
    pub name: &'a str,
    /// Publisher or player.
    pub published: bool,
    /// WCS's word.
    pub status: &'a str,
    /// WCS's text.
    pub info: Option<&'a str>,
    /// The recorded file.
    pub record_name: Option<&'a str>,
    /// For a player: whether the publisher has switched sound and picture off.
    pub muted: Option<(bool, bool)>,
}

/// A frame: its name, and its `data`, which the SDK expects not to be empty.
pub fn envelope(message: &str, data: &[Value]) -> String {
    json!({"message": message, "data": data}).to_string()
}

/// The server's `ping`. The SDK reads `data[0]` before it looks at the name.
pub fn ping() -> String {
    envelope("ping", &[Value::Null])
}

/// The answer to a browser's `ping`.
pub fn pong() -> String {
    envelope("pong", &[Value::Null])
}

/// The data of `getUserData`, the connection is established: what the browser sent, and what it is called here.
pub fn user_data(hello: &Value, app_key: &str, connection: &str, token: &str) -> Map<String, Value> {
    let mut data = hello.as_object().cloned().unwrap_or_else(Map::new);
    // A password has no business in an echo.
    data.remove("sipPassword");
    data.insert("appKey".into(), app_key.into());
    data.insert("sessionId".into(), connection.into());
    data.insert("authToken".into(), token.into());
    data.insert("mediaProviders".into(), json!(["WebRTC"]));
    data
}

/// An SDP answer.
pub fn remote_sdp(session: &MediaSessionId, sdp: &str) -> String {
    envelope("setRemoteSDP", &[session.as_str().into(), sdp.into()])
}

/// What a stream's status says.
pub fn status_fields(status: &Status<'_>) -> Map<String, Value> {
    let fields = json!({
        "mediaSessionId": status.session,
        "name": status.name,
        "published": status.published,
        "hasVideo": true,
        "hasAudio": true,
        "status": status.status,
        "mediaProvider": "WebRTC",
    });
    let mut fields = fields.as_object().cloned().unwrap_or_default();
    fields.extend(status.info.map(|info| ("info".to_owned(), info.into())));
    fields.extend(status.record_name.map(|name| ("recordName".to_owned(), name.into())));
    if let Some((audio, video)) = status.muted {
        fields.insert("audioState".into(), json!({"muted": audio}));
        fields.insert("videoState".into(), json!({"muted": video}));
    }
    fields
}

/// A stream's status.
pub fn stream_status(fields: Map<String, Value>) -> String {
    envelope("notifyStreamStatusEvent", &[Value::Object(fields)])
}

/// A stream's event.
pub fn stream_event(session: &str, kind: &str, payload: &Value) -> String {
    envelope("notifyStreamEvent", &[json!({"mediaSessionId": session, "type": kind, "payload": payload})])
}

/// Whether a stream can be played. The SDK compares with the string `"true"`.
pub fn available(session: &str, info: Option<&str>) -> String {
    let mut data = json!({"id": session, "status": if info.is_none() { "true" } else { "false" }});
    if let Some(info) = info {
        data["info"] = info.into();
    }
    envelope("availableStream", &[data])
}

/// What became of a `sendData`.
pub fn data_status(operation: &Value, status: &str, info: Option<&str>) -> String {
    let mut data = json!({"operationId": operation, "status": status});
    if let Some(info) = info {
        data["info"] = info.into();
    }
    envelope("DataStatusEvent", &[data])
}

/// A call that cannot be carried out; the SDK fires a warning.
pub fn fail(method: &str, id: &str, info: &str) -> String {
    envelope("fail", &[json!({"apiMethod": method, "id": id, "status": "FAILED", "info": info})])
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn frames_are_read() {
        let read = |text| Incoming::parse(text);
        assert_eq!(read(r#"{"message":"pong","data":[null]}"#).unwrap().data, Value::Null);
        assert_eq!(read(r#"{"message":"ping"}"#).unwrap().name, "ping");
        assert_eq!(read(r#"{"message":"x","data":[{"a":1},2]}"#).unwrap().data, json!({"a": 1}));
        for bad in ["", "x", "[]", "{}", r#"{"message":1}"#, r#"{"message":"x","data":{}}"#, "null"] {
            assert!(read(bad).unwrap_err().starts_with("not a message"), "{bad}");
        }
        let secret = read(r#"{"message":"x","data":"token-abc"}"#).unwrap_err();
        assert!(!secret.contains("token"), "{secret}");
    }

    #[test]
    fn every_frame_has_data_the_sdk_can_index() {
        let session = MediaSessionId::new("S").unwrap();
        let status = Status {
            session: "S",
            name: "s1",
            published: true,
            status: "UNPUBLISHED",
            info: Some("Stopped by user"),
            record_name: Some("a.mp4"),
            muted: Some((true, false)),
        };
        let text = stream_status(status_fields(&status));
        let frames = [ping(), pong(), remote_sdp(&session, "v=0"), text.clone(), available("S", None)];
        for frame in frames {
            let value: Value = serde_json::from_str(&frame).unwrap();
            assert!(value["data"].as_array().is_some_and(|data| !data.is_empty()), "{frame}");
        }
        assert!(text.contains(r#""audioState":{"muted":true}"#) && text.contains(r#""videoState":{"muted":false}"#));
        assert!(text.contains(r#""recordName":"a.mp4""#) && text.contains(r#""info":"Stopped by user""#));
        assert!(available("S", Some("Stream not found")).contains(r#""status":"false""#));
    }

    #[test]
    fn the_hello_is_echoed_without_its_password() {
        let hello = json!({"appKey": "x", "custom": {"a": 1}, "sipPassword": "secret"});
        let text = Value::Object(user_data(&hello, "defaultApp", "c1", "t1")).to_string();
        assert!(text.contains(r#""custom":{"a":1}"#) && text.contains(r#""authToken":"t1""#));
        assert!(!text.contains("secret"));
    }

    proptest! {
        #[test]
        fn no_frame_makes_it_panic(text in "\\PC{0,300}") {
            let _ = Incoming::parse(&text);
        }
    }
}
