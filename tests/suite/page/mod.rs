//! A page of a browser as far as its WebSocket goes.

use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tungstenite::protocol::frame::coding::CloseCode;
use tungstenite::{Message, WebSocket, client};

use crate::support::{SOON, Weir};

/// A browser's side of the WebSocket.
pub struct Page {
    pub socket: WebSocket<TcpStream>,
    /// How long a message may take to come.
    patience: Duration,
    sdp: Option<String>,
}

impl Page {
    pub fn open(weir: &Weir) -> Self {
        let port = weir.port_of("ws.port");
        let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream.set_read_timeout(Some(SOON)).unwrap();
        // Any path is taken.
        let (socket, _) = client(format!("ws://127.0.0.1:{port}/any/path"), stream).unwrap();
        Self { socket, patience: SOON, sdp: None }
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
        self.socket.get_ref().set_read_timeout(Some(limit)).unwrap();
        self.patience = limit;
    }

    pub fn say(&mut self, message: &str, data: &Value) {
        self.raw(&json!({"message": message, "data": [data]}).to_string());
    }

    pub fn raw(&mut self, text: &str) {
        self.socket.send(Message::text(text)).unwrap();
    }

    pub fn next(&mut self) -> Message {
        self.socket.read().unwrap()
    }

    /// The next message that is no ping: its name and its `data[0]`. An SDP is kept for [`Page::last_sdp`].
    pub fn next_but_ping(&mut self) -> (String, Value) {
        loop {
            let Message::Text(text) = self.next() else { continue };
            let message: Value = serde_json::from_str(&text).unwrap();
            let name = message["message"].as_str().unwrap();
            if name == "setRemoteSDP" {
                self.sdp = message["data"][1].as_str().map(str::to_owned);
            }
            if name != "ping" {
                return (name.to_owned(), message["data"][0].clone());
            }
        }
    }

    /// The last answer that [`Page::next_but_ping`] has met.
    pub fn last_sdp(&self) -> Option<&str> {
        self.sdp.as_deref()
    }

    /// The next message of this name; its `data[0]`, or all of `data` for an SDP.
    pub fn hears(&mut self, name: &str) -> Value {
        let until = Instant::now() + self.patience;
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

    pub fn play(&mut self, session: &str, name: &str, sdp: &str) {
        let call = json!({"mediaSessionId": session, "name": name, "published": false, "record": false, "sdp": sdp});
        self.say("playStream", &call);
    }

    /// How the server closes the socket.
    pub fn closed(&mut self) -> CloseCode {
        let until = Instant::now() + self.patience;
        while Instant::now() < until {
            match self.socket.read() {
                Ok(Message::Close(Some(frame))) => return frame.code,
                Ok(_) => {}
                Err(error) => panic!("the socket ended without a reason: {error}"),
            }
        }
        panic!("the socket stays open");
    }
}
