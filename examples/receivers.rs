//! N viewers in one process, for the benchmark `viewers`: str0m sessions that watch a stream of weir or of Janus and
//! count packets. A JSON line about them goes to stdout twice a second.
//!
//! `receivers weir|janus ws://HOST:PORT STREAM N ADDRESS`: the receivers' sockets are bound to ADDRESS.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a benchmark ends by panicking")]

#[path = "../tests/suite/viewer/mod.rs"]
mod viewer;

use std::collections::BTreeSet;
use std::net::{IpAddr, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::layer::{Context, Filter, Layer, SubscriberExt};
use tungstenite::client::IntoClientRequest;
use tungstenite::{Message, WebSocket};
use viewer::Client;

/// Viewers of one signalling connection; a page of weir's has 256 media sessions at most.
const OF_A_CONNECTION: usize = 200;
/// Longest pause between two looks at all sockets.
const PAUSE: Duration = Duration::from_millis(4);

struct Signalling(WebSocket<TcpStream>);

impl Signalling {
    fn open(url: &str, protocol: Option<&str>) -> Self {
        let mut request = url.into_client_request().unwrap();
        if let Some(protocol) = protocol {
            request.headers_mut().insert("Sec-WebSocket-Protocol", protocol.parse().unwrap());
        }
        let authority = request.uri().authority().unwrap().to_string();
        let stream = TcpStream::connect(authority).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        Self(tungstenite::client(request, stream).unwrap().0)
    }

    fn say(&mut self, message: &Value) {
        self.0.send(Message::text(message.to_string())).unwrap();
    }

    /// The next message that `wanted` takes something from.
    fn hear<T>(&mut self, wanted: impl Fn(&Value) -> Option<T>) -> T {
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

/// A connection that viewers can be made through, and Janus's session on it.
fn connect(kind: &str, url: &str) -> (Signalling, u64) {
    let mut server = Signalling::open(url, (kind == "janus").then_some("janus-protocol"));
    let session = match kind {
        "janus" => janus(&mut server, json!({"janus": "create"}), |m| m["data"]["id"].as_u64()),
        _ => {
            server.say(&json!({"message": "connection", "data": [{"appKey": "defaultApp"}]}));
            server.hear(|message| (message["message"] == "getUserData").then_some(0))
        }
    };
    (server, session)
}

fn watch_weir(server: &mut Signalling, stream: &str, number: usize, address: IpAddr) -> Client {
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

/// A call of Janus's, and what comes of it.
fn janus<T>(server: &mut Signalling, mut call: Value, wanted: impl Fn(&Value) -> Option<T>) -> T {
    call["transaction"] = "t".into();
    server.say(&call);
    server.hear(|message| {
        assert_ne!(message["janus"], "error", "{message}");
        wanted(message)
    })
}

fn watch_janus(server: &mut Signalling, session: u64, stream: u64, address: IpAddr) -> Client {
    let handle =
        janus(server, json!({"janus": "attach", "session_id": session, "plugin": "janus.plugin.streaming"}), |m| {
            m["data"]["id"].as_u64()
        });
    let message = |body: Value| json!({"janus": "message", "session_id": session, "handle_id": handle, "body": body});
    let offer = janus(server, message(json!({"request": "watch", "id": stream})), |m| {
        m["jsep"]["sdp"].as_str().map(str::to_owned)
    });
    let (client, answer) = Client::answering(address, &offer);
    let mut start = message(json!({"request": "start"}));
    start["jsep"] = json!({"type": "answer", "sdp": answer});
    janus(server, start, |m| (m["janus"] == "event" || m["janus"] == "ack").then_some(()));
    client
}

/// Which ciphers were negotiated: str0m tells it in its log only.
#[derive(Clone, Default)]
struct Ciphers(Arc<Mutex<BTreeSet<String>>>);

impl Visit for Ciphers {
    fn record_debug(&mut self, _: &Field, value: &dyn std::fmt::Debug) {
        if let Some((_, profile)) = format!("{value:?}").split_once("profile: ") {
            self.0.lock().unwrap().insert(profile.to_owned());
        }
    }
}

impl<S: Subscriber> Layer<S> for Ciphers {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        event.record(&mut self.clone());
    }
}

struct OnlyStr0m;

impl<S> Filter<S> for OnlyStr0m {
    fn enabled(&self, metadata: &Metadata<'_>, _: &Context<'_, S>) -> bool {
        *metadata.level() == Level::DEBUG && metadata.target() == "str0m"
    }
}

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [kind, url, stream, count, address] = &words[..] else { panic!("see the head of receivers.rs") };
    let (count, address): (usize, IpAddr) = (count.parse().unwrap(), address.parse().unwrap());
    let ciphers = Ciphers::default();
    tracing::subscriber::set_global_default(
        tracing_subscriber::registry().with(ciphers.clone().with_filter(OnlyStr0m)),
    )
    .unwrap();
    let mut connections: Vec<(Signalling, u64)> = Vec::new();
    let mut clients: Vec<Client> = Vec::new();
    let zero = Instant::now();
    let (mut told, mut alive) = (zero, zero);
    loop {
        // One joins in each round, so that a handshake does not wait for those of all others.
        if clients.len() < count {
            if clients.len().is_multiple_of(OF_A_CONNECTION) {
                connections.push(connect(kind, url));
            }
            let (server, session) = connections.last_mut().unwrap();
            let mut client = match kind.as_str() {
                "janus" => watch_janus(server, *session, stream.parse().unwrap(), address),
                _ => watch_weir(server, stream, clients.len(), address),
            };
            client.keep = false;
            clients.push(client);
        }
        let began = Instant::now();
        clients.iter_mut().for_each(Client::step);
        if told.elapsed() > Duration::from_millis(500) {
            told = Instant::now();
            let up = clients.iter().filter(|client| client.count > 0).count();
            let packets: u64 = clients.iter().map(|client| client.count).sum();
            let at = zero.elapsed().as_secs_f64();
            println!("{}", json!({"at": at, "up": up, "packets": packets, "ciphers": *ciphers.0.lock().unwrap()}));
        }
        if alive.elapsed() > Duration::from_secs(5) {
            alive = Instant::now();
            for (server, session) in &mut connections {
                server.say(&match kind.as_str() {
                    "janus" => json!({"janus": "keepalive", "session_id": session, "transaction": "k"}),
                    _ => json!({"message": "pong", "data": [null]}),
                });
            }
        }
        std::thread::sleep(PAUSE.saturating_sub(began.elapsed()));
    }
}
