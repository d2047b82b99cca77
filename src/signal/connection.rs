//! One browser: a task that owns the socket and knows the media sessions it has started.
//!
//! ```text
//!  (open) ── connection ──► joining ── the hook server agrees ──► established ── publishStream / playStream ──► media
//!     │                        │                                      │ ▲                       sessions, a task each
//!     │ HELLO passes           │ it declines                          │ └───── outgoing messages ◄───── news ────┘
//!     ▼                        ▼                                      ▼ socket closes, pings unanswered, terminated
//!  (closed)                 (closed)             every session is stopped ("Stopped by session disconnect") ──► (closed)
//! ```

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use futures_util::stream::SplitStream;
use futures_util::{SinkExt, StreamExt};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;
use warp::ws::{Message, WebSocket};

use super::Signal;
use super::outbox::{Outbox, write};
use super::streams::{self, Teller};
use crate::admission::Refused;
use crate::config::KeepAliveAlgorithm;
use crate::gate::{self, Action, Credentials};
use crate::hook::{self, Caller, Method, Object, Refusal};
use crate::hub::{ConnectionView, STOPPED_BY_DISCONNECT, STOPPED_BY_SHUTDOWN};
use crate::message::{self, Hello, Incoming, StreamCall};
use crate::name::MediaSessionId;
use crate::webrtc::LastWord;

/// Longest time from an open socket to its `connection` message.
const HELLO: Duration = Duration::from_secs(30);
/// Longest time the sessions of a closed socket may take to end.
const ENDING: Duration = Duration::from_secs(15);
/// Longest time to tell a browser that there is no room for it.
const REFUSING: Duration = Duration::from_secs(2);
/// Calls of one browser that wait for those before them.
const ERRANDS: usize = 32;

/// WebSocket close codes: RFC 6455, 7.4.1.
const CLOSE_GOING_AWAY: u16 = 1001;
const CLOSE_PROTOCOL: u16 = 1002;
const CLOSE_POLICY: u16 = 1008;
const CLOSE_TOO_BIG: u16 = 1009;
const CLOSE_TRY_LATER: u16 = 1013;
/// The longest reason of a close, bytes: RFC 6455, 5.5.1, less its code.
const CLOSE_REASON: usize = 123;

/// Why a socket is closed.
struct Close {
    code: u16,
    /// A sentence for the browser's log.
    reason: String,
    /// What its media sessions are told.
    farewell: LastWord,
}

impl Close {
    fn new(code: u16, reason: impl Into<String>) -> Self {
        let farewell = LastWord { failed: false, info: STOPPED_BY_DISCONNECT };
        Self { code, reason: reason.into(), farewell }
    }

    fn by_shutdown() -> Self {
        let farewell = LastWord { failed: true, info: STOPPED_BY_SHUTDOWN };
        Self { farewell, ..Self::new(CLOSE_GOING_AWAY, "the server is shutting down") }
    }
}

/// Something done for a browser beside its connection, one after the other.
pub(super) type Errand = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A `connection` message that its hook server is asked about.
struct Joining {
    hello: Value,
    client_version: String,
    peer: SocketAddr,
    origin: Option<String>,
    answer: Pin<Box<dyn Future<Output = Result<Arc<hook::Session>, Refusal>> + Send>>,
}

/// Runs a socket until it is closed.
pub(super) async fn run(
    signal: Signal,
    socket: WebSocket,
    peer: SocketAddr,
    origin: Option<String>,
    shutdown: CancellationToken,
) {
    let (sink, stream) = socket.split();
    let (outbox, outgoing) = Outbox::new();
    let writer = signal.tasks.spawn(write(sink, outgoing));
    let (errands, jobs) = mpsc::channel(ERRANDS);
    let over = CancellationToken::new();
    signal.tasks.spawn(run_errands(jobs, over.clone()));
    let mut connection = Connection {
        id: Uuid::new_v4().to_string(),
        peer: peer.ip(),
        shown: Credentials::default(),
        login: None,
        hook: None,
        joining: None,
        weir: false,
        signal,
        outbox,
        sessions: HashMap::new(),
        unanswered: Arc::new(AtomicU64::new(0)),
        stop: CancellationToken::new(),
        errands,
        _over: over.drop_guard(),
    };
    let close = connection.serve(stream, peer, origin, shutdown).await;
    tracing::debug!(connection = %connection.id, %peer, "socket closed: {}", close.reason);
    connection.end(&close).await;
    drop(connection);
    // The writer ends with the last sender, or with its own deadline.
    let _ = writer.await;
}

/// Tells a browser that there is no room for it, and closes.
pub(super) async fn refuse(mut socket: WebSocket, refused: Refused) {
    let reason = refused.to_string();
    let _ = timeout(REFUSING, async {
        let _ = socket.send(Message::text(message::fail("connection", "", &reason))).await;
        let _ = socket.send(Message::close_with(CLOSE_TRY_LATER, reason)).await;
        // The browser closes its side, once it has read this.
        while socket.next().await.is_some_and(|message| message.is_ok()) {}
    })
    .await;
}

async fn run_errands(mut jobs: mpsc::Receiver<Errand>, over: CancellationToken) {
    let all = async {
        while let Some(job) = jobs.recv().await {
            job.await;
        }
    };
    tokio::select! {
        () = all => {}
        () = over.cancelled() => {}
    }
}

/// A media session as its connection knows it.
pub(super) struct MediaSession {
    pub(super) teller: Arc<Teller>,
    pub(super) stop: CancellationToken,
    /// What is said of its end, set before `stop`.
    pub(super) stopped_by: Arc<OnceLock<LastWord>>,
    /// It is over: its id may be used again.
    pub(super) over: CancellationToken,
    /// Its last word is on its way too.
    pub(super) told: CancellationToken,
}

impl MediaSession {
    pub(super) fn stop(&self, word: LastWord) {
        // The first one stands.
        let _ = self.stopped_by.set(word);
        self.stop.cancel();
    }
}

/// What a browser asks of a stream.
pub(super) struct Wish {
    /// All it said.
    pub(super) said: Object,
    /// What of it is read.
    pub(super) call: StreamCall,
    /// What it shows.
    shown: Credentials,
    /// How long the message was, bytes.
    pub(super) len: usize,
}

pub(super) struct Connection {
    pub(super) id: String,
    peer: IpAddr,
    /// What it has shown as it connected.
    shown: Credentials,
    /// Who it has said it is.
    pub(super) login: Option<String>,
    /// Set once the connection is established.
    pub(super) hook: Option<Arc<hook::Session>>,
    joining: Option<Joining>,
    /// The other side is a weir: it is told where streams come from, and of every frame's own time.
    pub(super) weir: bool,
    pub(super) signal: Signal,
    pub(super) outbox: Outbox,
    pub(super) sessions: HashMap<MediaSessionId, MediaSession>,
    /// Pings since the last sign of life.
    unanswered: Arc<AtomicU64>,
    stop: CancellationToken,
    errands: mpsc::Sender<Errand>,
    _over: tokio_util::sync::DropGuard,
}

impl Connection {
    async fn serve(
        &mut self,
        mut stream: SplitStream<WebSocket>,
        peer: SocketAddr,
        origin: Option<String>,
        shutdown: CancellationToken,
    ) -> Close {
        let keep_alive = self.signal.keep_alive.clone();
        let mut ping = interval(keep_alive.interval);
        ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let hello = sleep(HELLO);
        tokio::pin!(hello);
        let (stop, overrun) = (self.stop.clone(), self.outbox.overrun());
        loop {
            let frame = tokio::select! {
                frame = stream.next() => frame,
                joined = joined(&mut self.joining) => match self.join(joined) {
                    Ok(()) => continue,
                    Err(close) => return close,
                },
                _ = ping.tick() => {
                    if let Some(close) = self.ping(keep_alive.algorithm, keep_alive.probes) {
                        return close;
                    }
                    continue;
                }
                () = &mut hello, if self.hook.is_none() && self.joining.is_none() => {
                    return Close::new(CLOSE_POLICY, "no connection message came");
                }
                () = stop.cancelled() => return Close::new(CLOSE_POLICY, "the connection was terminated"),
                () = overrun.cancelled() => return Close::new(CLOSE_POLICY, "messages are read too slowly"),
                () = shutdown.cancelled() => return Close::by_shutdown(),
            };
            self.unanswered.store(0, Relaxed);
            let message = match frame {
                None => return Close::new(CLOSE_GOING_AWAY, "the browser left"),
                Some(Err(error)) => return self.broken(&error),
                Some(Ok(message)) => message,
            };
            if message.is_close() {
                return Close::new(CLOSE_GOING_AWAY, "the browser left");
            }
            // Binary frames are tolerated, as the SDK tolerates ours; pings are answered below us.
            let Ok(text) = message.to_str() else { continue };
            let incoming = match Incoming::parse(text) {
                Ok(incoming) => incoming,
                Err(reason) => return Close::new(CLOSE_PROTOCOL, reason),
            };
            self.sessions.retain(|_, session| !session.told.is_cancelled());
            if let Err(info) = self.handle(&incoming, peer, origin.as_deref()) {
                self.outbox.text(message::fail(&incoming.name, "", &info));
            }
        }
    }

    /// What cannot be read: too large, or no WebSocket's.
    fn broken(&self, error: &warp::Error) -> Close {
        let reason = error.to_string();
        if !reason.contains("too long") {
            return Close::new(CLOSE_PROTOCOL, reason);
        }
        self.signal.admission.message_refused();
        Close::new(CLOSE_TOO_BIG, format!("a message has at most {} bytes", self.signal.admission.limits().message))
    }

    /// Sends a ping; a close when too many stay unanswered.
    fn ping(&self, algorithm: KeepAliveAlgorithm, probes: u64) -> Option<Close> {
        if algorithm == KeepAliveAlgorithm::None || self.hook.is_none() {
            return None;
        }
        if self.unanswered.fetch_add(1, Relaxed) >= probes {
            return Some(Close::new(CLOSE_GOING_AWAY, "pings stay unanswered"));
        }
        match algorithm {
            KeepAliveAlgorithm::Internal => self.outbox.message(Message::ping(Vec::new())),
            _ => self.outbox.text(message::ping()),
        }
        None
    }

    /// Carries out one message, or begins to; `Err` is the `info` of a `fail`.
    fn handle(&mut self, incoming: &Incoming, peer: SocketAddr, origin: Option<&str>) -> Result<(), String> {
        match incoming.name.as_str() {
            "connection" => self.establish(&incoming.data, peer, origin),
            "pong" => Ok(()),
            "ping" => {
                self.outbox.text(message::pong());
                Ok(())
            }
            "publishStream" => self.begin(self.wish(incoming)?, true),
            "playStream" => self.begin(self.wish(incoming)?, false),
            "unPublishStream" => self.stop_session(self.wish(incoming)?, true),
            "stopStream" => self.stop_session(self.wish(incoming)?, false),
            "availableStream" => self.available(&self.wish(incoming)?),
            "snapshot" => self.snapshot(self.wish(incoming)?),
            "sendStreamEvent" => self.stream_event(object(incoming)?, fields(incoming)?),
            "sendData" => self.data(object(incoming)?, &fields(incoming)?),
            "pushLogs" => self.report(Method::PushLogs, incoming),
            "submitBugReport" => self.report(Method::SubmitBugReport, incoming),
            "sessionDebug" => Ok(()),
            other => {
                tracing::debug!(connection = %self.id, "unknown message {other:?}");
                Err("unknown message".into())
            }
        }
    }

    /// What is asked of a stream, its name without what the browser shows with it.
    fn wish(&self, incoming: &Incoming) -> Result<Wish, String> {
        let mut said = object(incoming)?;
        let mut call: StreamCall = fields(incoming)?;
        let shown = gate::take(&self.signal.gate, &mut said, &self.shown);
        call.name = call.name.and(said.get("name")).and_then(Value::as_str).map(str::to_owned);
        Ok(Wish { said, call, shown, len: incoming.len })
    }

    /// Whether the browser shows what `action` asks for; the `info` where it does not.
    pub(super) fn admit(&self, action: Action, wish: &Wish) -> Result<(), String> {
        let name = wish.call.name.as_deref().unwrap_or_default();
        let admitted = self.signal.gate.check(action, name, &wish.shown, self.peer);
        admitted.map_err(|refusal| refusal.to_string())
    }

    /// Asks the application's hook server whether the browser may connect; [`Connection::join`] has the answer.
    fn establish(&mut self, data: &Value, peer: SocketAddr, origin: Option<&str>) -> Result<(), String> {
        let hello: Hello = serde_json::from_value(data.clone()).map_err(|_| "connection has no data".to_owned())?;
        if self.hook.is_some() || self.joining.is_some() {
            return Err("the connection is established already".into());
        }
        let app_key = hello.app_key.filter(|key| !key.is_empty()).unwrap_or_else(|| "defaultApp".into());
        let outbox = self.outbox.clone();
        let caller = Caller {
            id: self.id.clone(),
            app_key,
            fields: connect_fields(data, peer, origin),
            // Without an id: the SDK would take it for the end of that stream.
            warn: Box::new(move |method, error| outbox.text(message::fail(method.name(), "", error))),
            tells_statuses: true,
        };
        let hooks = self.signal.hooks.clone();
        self.weir = hello.weir_path.is_some();
        self.shown = Credentials::of_custom(data.get("custom"));
        self.login = streams::login(data.get("custom"));
        self.joining = Some(Joining {
            hello: data.clone(),
            client_version: hello.client_version.unwrap_or_default(),
            peer,
            origin: origin.map(str::to_owned),
            answer: Box::pin(async move { hooks.connect(caller).await }),
        });
        Ok(())
    }

    /// The hook server has answered.
    fn join(&mut self, answer: Result<Arc<hook::Session>, Refusal>) -> Result<(), Close> {
        let Some(joining) = self.joining.take() else { return Ok(()) };
        let session = answer.map_err(|refusal| {
            let info = refusal.to_string();
            tracing::info!(connection = %self.id, "a browser may not connect: {info}");
            self.outbox.text(message::fail("connect", "", &info));
            Close::new(CLOSE_POLICY, info)
        })?;
        self.signal.connections.insert(ConnectionView {
            id: self.id.clone(),
            app_key: session.app_key().to_owned(),
            client_version: joining.client_version,
            origin: joining.origin,
            peer: joining.peer.to_string(),
            since: SystemTime::now(),
            stop: self.stop.clone(),
        });
        let mut data = message::user_data(&joining.hello, session.app_key(), &self.id, &Uuid::new_v4().to_string());
        session.policy(Method::Connect).told(&mut data);
        self.outbox.text(message::envelope("getUserData", &[Value::Object(data)]));
        self.hook = Some(session);
        Ok(())
    }

    /// Does something for the browser beside the connection, after what it asked for before.
    pub(super) fn errand(&self, job: impl Future<Output = ()> + Send + 'static) -> Result<(), String> {
        self.errands.try_send(Box::pin(job)).map_err(|_| "too much is asked at once".to_owned())
    }

    /// Ends every media session, waits until all are gone, and says good-bye: a browser hears the last word on each
    /// before its socket is closed.
    async fn end(&mut self, close: &Close) {
        self.signal.connections.remove(&self.id);
        let sessions = std::mem::take(&mut self.sessions);
        sessions.values().for_each(|session| session.stop(close.farewell));
        let all_over = async {
            for session in sessions.values() {
                session.told.cancelled().await;
            }
        };
        // What takes longer ends by itself: each step has its own deadline.
        let _ = timeout(ENDING, all_over).await;
        if let Some(session) = self.hook.take() {
            session.left(&close.reason);
        }
        let shown = &close.reason[..close.reason.floor_char_boundary(CLOSE_REASON)];
        self.outbox.message(Message::close_with(close.code, shown.to_owned()));
    }
}

/// Resolves with the hook server's answer while one is awaited.
async fn joined(joining: &mut Option<Joining>) -> Result<Arc<hook::Session>, Refusal> {
    match joining {
        Some(joining) => joining.answer.as_mut().await,
        None => std::future::pending().await,
    }
}

/// The body of `connect`: what the browser says, and what is known of it. Source: wcs.md 4.3.
fn connect_fields(data: &Value, peer: SocketAddr, origin: Option<&str>) -> Object {
    let defaults = json!({
        "useWsTunnel": false, "useWsTunnelPacketization2": false, "useBase64BinaryEncoding": false, "keepAlive": false,
    });
    let mut fields = defaults.as_object().cloned().unwrap_or_default();
    fields.extend(data.as_object().cloned().unwrap_or_default());
    fields.insert("origin".into(), origin.unwrap_or_default().into());
    fields.insert("remoteAddress".into(), peer.to_string().into());
    fields
}

/// The fields of a message, or the `info` of its `fail`.
fn fields<T: DeserializeOwned>(incoming: &Incoming) -> Result<T, String> {
    serde_json::from_value(incoming.data.clone()).map_err(|_| unusable(incoming))
}

/// All of what a message says, for hooks.
fn object(incoming: &Incoming) -> Result<Object, String> {
    incoming.data.as_object().cloned().ok_or_else(|| unusable(incoming))
}

fn unusable(incoming: &Incoming) -> String {
    format!("{} has no usable data", incoming.name)
}
