//! The WebSocket of a page, and what weir is told through it to play a stream.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a benchmark ends by panicking")]

use std::net::{IpAddr, TcpStream};
use std::time::Duration;

use serde_json::{Value, json};
use tungstenite::client::IntoClientRequest;
use tungstenite::{Message, WebSocket};

use super::viewer::Client;

pub struct Signalling(WebSocket<TcpStream>);

impl Signalling {
    pub fn open(url: &str, protocol: Option<&str>) -> Self {
        let mut request = url.into_client_request().unwrap();
        if let Some(protocol) = protocol {
            request.headers_mut().insert("Sec-WebSocket-Protocol", protocol.parse().unwrap());
        }
        let authority = request.uri().authority().unwrap().to_string();
        let stream = TcpStream::connect(authority).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        Self(tungstenite::client(request, stream).unwrap().0)
    }

    pub fn say(&mut self, message: &Value) {
        self.0.send(Message::text(message.to_string())).unwrap();
    }

    /// The next message that `wanted` takes something from.
    pub fn hear<T>(&mut self, wanted: impl Fn(&Value) -> Option<T>) -> T {
        loop {
            let Message::Text(text) = self.0.read().expect("the server answers") else { continue };
            let message: Value = serde_json::from_str(&text).unwrap();
            if message["message"] == "ping" {
                self.say(&json!({"message": "pong", "data": [null]}));
            }
            if let Some(found) = wanted(&message) {
                return found;
            }
        }
    }
}

/// A connection to weir, established.
pub fn connect_weir(url: &str) -> Signalling {
    let mut server = Signalling::open(url, None);
    server.say(&json!({"message": "connection", "data": [{"appKey": "defaultApp"}]}));
    server.hear(|message| (message["message"] == "getUserData").then_some(()));
    server
}

/// A viewer of a stream of weir's.
pub fn watch_weir(server: &mut Signalling, stream: &str, number: usize, address: IpAddr) -> Client {
    let id = format!("viewer-{number}");
    Client::joined_at(address, |offer| {
        let call = json!({"mediaSessionId": id, "name": stream, "published": false, "sdp": offer});
        server.say(&json!({"message": "playStream", "data": [call]}));
        server.hear(|message| {
            assert_ne!(message["data"][0]["status"], "FAILED", "{message}");
            (message["message"] == "setRemoteSDP").then(|| message["data"][1].as_str().unwrap().to_owned())
        })
    })
}
