//! A page of a browser as far as its WebSocket goes.

#![allow(dead_code, clippy::unwrap_used, reason = "each test binary uses a part of it; a test fails by panicking")]

use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tungstenite::protocol::frame::coding::CloseCode;
use tungstenite::{Message, WebSocket, client};

use super::support::{SOON, Weir};

/// A browser's side of the WebSocket.
pub struct Page(pub WebSocket<TcpStream>, Duration);

impl Page {
    pub fn open(weir: &Weir) -> Self {
        let port = weir.port_of("ws.port");
        let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream.set_read_timeout(Some(SOON)).unwrap();
        // Any path is taken.
        let (socket, _) = client(format!("ws://127.0.0.1:{port}/any/path"), stream).unwrap();
        Self(socket, SOON)
    }

    pub fn established(weir: &Weir) -> Self {
        let mut page = Self::open(weir);
        page.say("connection", &json!({"appKey": "defaultApp", "clientVersion": "2.0", "custom": {"a": 1}}));
        let hello = page.hears("getUserData");
        assert!(hello["authToken"].is_string() && hello["sessionId"].is_string(), "{hello}");
        assert_eq!(hello["custom"], json!({"a": 1}), "what the page sent is echoed");
        page
    }

    /// How long it may take until the next message comes.
    pub fn patience(&mut self, limit: Duration) {
        self.0.get_ref().set_read_timeout(Some(limit)).unwrap();
        self.1 = limit;
    }

    pub fn say(&mut self, message: &str, data: &Value) {
        self.raw(&json!({"message": message, "data": [data]}).to_string());
    }

    pub fn raw(&mut self, text: &str) {
        self.0.send(Message::text(text)).unwrap();
    }

    pub fn next(&mut self) -> Message {
        self.0.read().unwrap()
    }

    /// The next message of this name; its `data[0]`, or all of `data` for an SDP.
    pub fn hears(&mut self, name: &str) -> Value {
        let until = Instant::now() + self.1;
        loop {
            assert!(Instant::now() < until, "no {name} came");
            let Message::Text(text) = self.next() else { continue };
            let message: Value = serde_json::from_str(&text).unwrap();
            assert!(message["data"].is_array(), "the SDK indexes data: {text}");
            if message["message"] == name {
                return if name == "setRemoteSDP" { message["data"].clone() } else { message["data"][0].clone() };
            }
        }
    }

    pub fn status(&mut self) -> (String, String) {
        let status = self.hears("notifyStreamStatusEvent");
        let text = |key: &str| status[key].as_str().unwrap_or_default().to_owned();
        (text("status"), text("info"))
    }

    pub fn publish(&mut self, session: &str, name: &str, sdp: &str) {
        let call = json!({"mediaSessionId": session, "name": name, "published": true, "record": false, "sdp": sdp});
        self.say("publishStream", &call);
    }

    /// How the server closes the socket.
    pub fn closed(&mut self) -> CloseCode {
        let until = Instant::now() + self.1;
        while Instant::now() < until {
            match self.0.read() {
                Ok(Message::Close(Some(frame))) => return frame.code,
                Ok(_) => {}
                Err(error) => panic!("the socket ended without a reason: {error}"),
            }
        }
        panic!("the socket stays open");
    }
}
