//! The bodies of the messages a server sends (RTMP 1.0 sections 5.4, 6.2 and 7).

use super::amf::{Value, encode};
use bytes::Bytes;

/// User control events (section 7.1.7).
pub(crate) const STREAM_BEGIN: u16 = 0;
pub(crate) const STREAM_EOF: u16 = 1;
pub(crate) const PING_REQUEST: u16 = 6;
pub(crate) const PING_RESPONSE: u16 = 7;

/// A 32-bit body: Set Chunk Size, Acknowledgement, Window Acknowledgement Size.
pub(crate) fn word(value: u32) -> Bytes {
    Bytes::copy_from_slice(&value.to_be_bytes())
}

/// Set Peer Bandwidth with limit type "dynamic" (section 5.4.5).
pub(crate) fn peer_bandwidth(size: u32) -> Bytes {
    let [a, b, c, d] = size.to_be_bytes();
    Bytes::copy_from_slice(&[a, b, c, d, 2])
}

/// A user control message with one value (section 6.2).
pub(crate) fn user_control(event: u16, value: u32) -> Bytes {
    let [a, b] = event.to_be_bytes();
    let [c, d, e, f] = value.to_be_bytes();
    Bytes::copy_from_slice(&[a, b, c, d, e, f])
}

/// Values one after the other in AMF0.
pub(crate) fn values(values: &[Value]) -> Bytes {
    let mut out = Vec::new();
    encode(values, &mut out);
    Bytes::from(out)
}

/// A successful answer to a call.
pub(crate) fn result(transaction: f64, value: Value) -> Bytes {
    values(&["_result".into(), transaction.into(), Value::Null, value])
}

/// A failed answer to a call.
pub(crate) fn error(transaction: f64, code: &str, description: &str) -> Bytes {
    let info = info("error", code, description);
    values(&["_error".into(), transaction.into(), Value::Null, info])
}

/// The answer to `connect`. AMF0 is what both sides speak from here on (`objectEncoding` 0).
pub(crate) fn connected(transaction: f64) -> Bytes {
    let server = Value::Object(vec![("fmsVer".into(), "FMS/3,0,1,123".into()), ("capabilities".into(), 31.0.into())]);
    let success = "NetConnection.Connect.Success";
    let mut info = status("status", success, "Connection succeeded.");
    info.push(("objectEncoding".into(), 0.0.into()));
    values(&["_result".into(), transaction.into(), server, Value::Object(info)])
}

/// `onStatus` (section 7.2.2) and its older relatives `onFCPublish` and so on.
pub(crate) fn on(handler: &str, level: &str, code: &str, description: &str) -> Bytes {
    let info = info(level, code, description);
    values(&[handler.into(), 0.0.into(), Value::Null, info])
}

/// Tells Flash that it may look at the samples; FMS sends it before a live stream's first frame.
pub(crate) fn sample_access() -> Bytes {
    values(&["|RtmpSampleAccess".into(), Value::Boolean(true), Value::Boolean(true)])
}

fn info(level: &str, code: &str, description: &str) -> Value {
    Value::Object(status(level, code, description))
}

fn status(level: &str, code: &str, description: &str) -> Vec<(String, Value)> {
    vec![("level".into(), level.into()), ("code".into(), code.into()), ("description".into(), description.into())]
}
