//! One browser: a task that owns the socket and knows the media sessions it has started.
//!
//! ```text
//!  (open) ── connection ──► established ── publishStream / playStream ──► media sessions, a task each
//!     │                         │ ▲                                            │ news
//!     │ HELLO passes            │ └──────────── outgoing messages ◄────────────┘
//!     ▼                         ▼ socket closes, pings unanswered, terminated
//!  (closed)                  every session is stopped ("Stopped by session disconnect") ──► (closed)
//! ```

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use data_encoding::BASE64;
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;
use warp::ws::{Message, WebSocket};

use super::Signal;
use super::message::{self, DataCall, Hello, Incoming, Status, StreamCall, StreamEventCall};
use crate::admission::Refused;
use crate::config::KeepAliveAlgorithm;
use crate::hub::{ConnectionView, Phase, Player, Publisher, Recorded, StreamHandle, SubscribeError, Subscriber};
use crate::name::{MediaSessionId, StreamName};
use crate::picture::PictureError;
use crate::webrtc::SdpError;
use crate::webrtc::play::{PlayNews, Viewing};
use crate::webrtc::publish::{self, Ending, Offer, PublishNews};

/// Longest time from an open socket to its `connection` message.
const HELLO: Duration = Duration::from_secs(30);
/// Messages that may wait for a browser. One that reads slower is closed.
const OUTGOING: usize = 256;
/// Longest time a message may take to be sent.
const SENDING: Duration = Duration::from_secs(10);
/// Longest time the sessions of a closed socket may take to end.
const ENDING: Duration = Duration::from_secs(15);

/// Longest time to tell a browser that there is no room for it.
const REFUSING: Duration = Duration::from_secs(2);

/// WebSocket close codes: RFC 6455, 7.4.1.
const CLOSE_GOING_AWAY: u16 = 1001;
const CLOSE_PROTOCOL: u16 = 1002;
const CLOSE_POLICY: u16 = 1008;
const CLOSE_TOO_BIG: u16 = 1009;
const CLOSE_TRY_LATER: u16 = 1013;

/// Why a socket is closed: the code and a sentence for the browser's log.
struct Close(u16, String);

/// Runs a socket until it is closed.
pub(super) async fn run(
    signal: Signal,
    socket: WebSocket,
    peer: SocketAddr,
    origin: Option<String>,
    shutdown: CancellationToken,
) {
    let (sink, stream) = socket.split();
    let (out, outgoing) = mpsc::channel(OUTGOING);
    let stop = CancellationToken::new();
    let writer = signal.tasks.spawn(write(sink, outgoing));
    let outbox = Outbox { out: out.clone(), overrun: CancellationToken::new() };
    let mut connection = Connection {
        id: Uuid::new_v4().to_string(),
        app_key: None,
        signal,
        outbox,
        sessions: HashMap::new(),
        unanswered: Arc::new(AtomicU64::new(0)),
        stop,
    };
    let close = connection.serve(stream, peer, origin, shutdown).await;
    tracing::debug!(connection = %connection.id, %peer, "socket closed: {}", close.1);
    let _ = out.try_send(Message::close_with(close.0, close.1));
    connection.end().await;
    drop((connection, out));
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

/// Sends what waits, each message with a deadline.
async fn write(mut sink: SplitSink<WebSocket, Message>, mut outgoing: mpsc::Receiver<Message>) {
    while let Some(message) = outgoing.recv().await {
        let closing = message.is_close();
        match timeout(SENDING, sink.send(message)).await {
            Ok(Ok(())) if !closing => {}
            _ => break,
        }
    }
    let _ = timeout(SENDING, sink.close()).await;
}

/// Where messages for the browser go. Never waits.
#[derive(Clone)]
struct Outbox {
    out: mpsc::Sender<Message>,
    overrun: CancellationToken,
}

impl Outbox {
    fn text(&self, text: String) {
        self.message(Message::text(text));
    }

    fn message(&self, message: Message) {
        if let Err(mpsc::error::TrySendError::Full(_)) = self.out.try_send(message) {
            self.overrun.cancel();
        }
    }
}

/// A media session as its connection knows it.
struct Session {
    stop: CancellationToken,
    /// The text of its end, set before `stop`.
    stopped_by: Arc<OnceLock<&'static str>>,
    over: CancellationToken,
}

impl Session {
    fn stop(&self, info: &'static str) {
        // The first reason stands.
        let _ = self.stopped_by.set(info);
        self.stop.cancel();
    }
}

struct Connection {
    id: String,
    /// Set by the `connection` message.
    app_key: Option<String>,
    signal: Signal,
    outbox: Outbox,
    sessions: HashMap<MediaSessionId, Session>,
    /// Pings since the last sign of life.
    unanswered: Arc<AtomicU64>,
    stop: CancellationToken,
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
        let (stop, overrun) = (self.stop.clone(), self.outbox.overrun.clone());
        loop {
            let frame = tokio::select! {
                frame = stream.next() => frame,
                _ = ping.tick() => {
                    if let Some(close) = self.ping(keep_alive.algorithm, keep_alive.probes) {
                        return close;
                    }
                    continue;
                }
                () = &mut hello, if self.app_key.is_none() => {
                    return Close(CLOSE_POLICY, "no connection message came".into());
                }
                () = stop.cancelled() => return Close(CLOSE_POLICY, "the connection was terminated".into()),
                () = overrun.cancelled() => return Close(CLOSE_POLICY, "messages are read too slowly".into()),
                () = shutdown.cancelled() => return Close(CLOSE_GOING_AWAY, "the server is shutting down".into()),
            };
            self.unanswered.store(0, Relaxed);
            let message = match frame {
                None => return Close(CLOSE_GOING_AWAY, "the browser left".into()),
                Some(Err(error)) => return self.broken(&error),
                Some(Ok(message)) => message,
            };
            if message.is_close() {
                return Close(CLOSE_GOING_AWAY, "the browser left".into());
            }
            // Binary frames are tolerated, as the SDK tolerates ours; pings are answered below us.
            let Ok(text) = message.to_str() else { continue };
            let incoming = match Incoming::parse(text) {
                Ok(incoming) => incoming,
                Err(reason) => return Close(CLOSE_PROTOCOL, reason),
            };
            self.sessions.retain(|_, session| !session.over.is_cancelled());
            if let Err(info) = self.handle(&incoming, peer, origin.as_deref()).await {
                self.outbox.text(message::fail(&incoming.name, "", &info));
            }
        }
    }

    /// What cannot be read: too large, or no WebSocket's.
    fn broken(&self, error: &warp::Error) -> Close {
        let reason = error.to_string();
        if !reason.contains("too long") {
            return Close(CLOSE_PROTOCOL, reason);
        }
        self.signal.admission.message_refused();
        Close(CLOSE_TOO_BIG, format!("a message has at most {} bytes", self.signal.admission.limits().message))
    }

    /// Sends a ping; a close when too many stay unanswered.
    fn ping(&self, algorithm: KeepAliveAlgorithm, probes: u64) -> Option<Close> {
        if algorithm == KeepAliveAlgorithm::None || self.app_key.is_none() {
            return None;
        }
        if self.unanswered.fetch_add(1, Relaxed) >= probes {
            return Some(Close(CLOSE_GOING_AWAY, "pings stay unanswered".into()));
        }
        match algorithm {
            KeepAliveAlgorithm::Internal => self.outbox.message(Message::ping(Vec::new())),
            _ => self.outbox.text(message::ping()),
        }
        None
    }

    /// Carries out one message; `Err` is the `info` of a `fail`.
    async fn handle(&mut self, incoming: &Incoming, peer: SocketAddr, origin: Option<&str>) -> Result<(), String> {
        match incoming.name.as_str() {
            "connection" => self.establish(&incoming.data, peer, origin),
            "pong" => Ok(()),
            "ping" => {
                self.outbox.text(message::pong());
                Ok(())
            }
            "publishStream" => self.publish(fields(incoming)?).await,
            "playStream" => self.play(fields(incoming)?).await,
            "unPublishStream" => self.stop_session(&fields(incoming)?, true),
            "stopStream" => self.stop_session(&fields(incoming)?, false),
            "availableStream" => self.available(&fields(incoming)?),
            "snapshot" => self.snapshot(&fields(incoming)?),
            "sendStreamEvent" => self.stream_event(fields(incoming)?),
            "sendData" => self.data(&fields(incoming)?),
            "pushLogs" | "sessionDebug" | "submitBugReport" => {
                tracing::debug!(connection = %self.id, "{}: {} bytes", incoming.name, incoming.data.to_string().len());
                Ok(())
            }
            other => {
                tracing::debug!(connection = %self.id, "unknown message {other:?}");
                Err("unknown message".into())
            }
        }
    }

    fn establish(&mut self, data: &Value, peer: SocketAddr, origin: Option<&str>) -> Result<(), String> {
        let hello: Hello = serde_json::from_value(data.clone()).map_err(|_| "connection has no data".to_owned())?;
        if self.app_key.is_some() {
            return Err("the connection is established already".into());
        }
        let app_key = hello.app_key.filter(|key| !key.is_empty()).unwrap_or_else(|| "defaultApp".into());
        self.signal.connections.insert(ConnectionView {
            id: self.id.clone(),
            app_key: app_key.clone(),
            client_version: hello.client_version.unwrap_or_default(),
            origin: origin.map(str::to_owned),
            peer: peer.to_string(),
            since: SystemTime::now(),
            stop: self.stop.clone(),
        });
        let token = Uuid::new_v4().to_string();
        self.outbox.text(message::user_data(data, &app_key, &self.id, &token));
        self.app_key = Some(app_key);
        Ok(())
    }

    /// The checks every new media session has to pass; failures are told as its FAILED.
    fn open(&self, call: &StreamCall, published: bool) -> Result<(MediaSessionId, StreamName, String), ()> {
        let id = call.media_session_id.as_deref().and_then(|id| MediaSessionId::new(id).ok());
        let name = call.name.as_deref().and_then(|name| StreamName::new(name).ok());
        let (Some(id), Some(name)) = (id.clone(), name) else {
            let info = if id.is_none() { "MediaSessionId is null" } else { "Stream not found" };
            let session = call.media_session_id.clone().unwrap_or_default();
            let name = call.name.clone().unwrap_or_default();
            self.refuse_raw(&session, &name, published, info);
            return Err(());
        };
        let refuse = |info: &str| self.status(&id, &name, published, "FAILED", Some(info));
        if self.app_key.is_none() {
            refuse("Session not ready");
        } else if self.in_use(&id) {
            refuse("MediaSessionId is already in use");
        } else if let Err(refused) = self.signal.admission.session(self.sessions.len()) {
            refuse(&refused.to_string());
        } else if let Some(sdp) = call.sdp.clone() {
            return Ok((id, name, sdp));
        } else {
            refuse("Failed to add stream to proxy");
        }
        Err(())
    }

    fn refuse_raw(&self, session: &str, name: &str, published: bool, info: &str) {
        let data =
            json!({"mediaSessionId": session, "name": name, "published": published, "status": "FAILED", "info": info});
        self.outbox.text(json!({"message": "notifyStreamStatusEvent", "data": [data]}).to_string());
    }

    fn in_use(&self, id: &MediaSessionId) -> bool {
        let elsewhere = |stream: &StreamHandle| stream.view().sessions.iter().any(|session| session.id == *id);
        self.sessions.contains_key(id) || self.signal.hub.streams().values().any(elsewhere)
    }

    fn status(&self, id: &MediaSessionId, name: &StreamName, published: bool, status: &str, info: Option<&str>) {
        let status = Status { session: id, name, published, status, info, record_name: None };
        self.outbox.text(message::stream_status(&status));
    }

    fn enter(&mut self, id: &MediaSessionId) -> (CancellationToken, Arc<OnceLock<&'static str>>, CancellationToken) {
        let session =
            Session { stop: CancellationToken::new(), stopped_by: Arc::default(), over: CancellationToken::new() };
        let parts = (session.stop.clone(), session.stopped_by.clone(), session.over.clone());
        self.sessions.insert(id.clone(), session);
        parts
    }

    async fn publish(&mut self, call: StreamCall) -> Result<(), String> {
        let Ok((id, name, sdp)) = self.open(&call, true) else { return Ok(()) };
        let tools = self.signal.publish.clone();
        let offer = match Offer::read(&sdp, &tools.codecs) {
            Ok(offer) => offer,
            Err(error) => {
                self.status(&id, &name, true, "FAILED", Some(info_of(&error)));
                return Ok(());
            }
        };
        let publisher = Publisher {
            name: name.clone(),
            session: id.clone(),
            app_key: self.app_key.clone().unwrap_or_default(),
            connection: self.id.clone(),
            provider: "WebRTC",
            media_type: "publish",
            transport: "UDP",
            record: (call.record == Some(true) && self.signal.record).then_some(Recorded::Everything),
            by: "a browser".into(),
        };
        let publication = match self.signal.hub.publish(publisher).await {
            Ok(publication) => publication,
            Err(crate::hub::PublishError::NameTaken(_)) => {
                self.status(&id, &name, true, "FAILED", Some("Stream name is already in use"));
                return Ok(());
            }
            Err(crate::hub::PublishError::Refused(refused)) => {
                self.status(&id, &name, true, "FAILED", Some(&refused.to_string()));
                return Ok(());
            }
            Err(crate::hub::PublishError::Closing) => {
                self.status(&id, &name, true, "FAILED", Some("Requested stream shutdown"));
                return Ok(());
            }
        };
        let (stop, stopped_by, over) = self.enter(&id);
        let outbox = self.outbox.clone();
        let news = move |news| publisher_news(&outbox, &id, &name, news);
        self.signal.tasks.spawn(async move {
            let reason = move || stopped_by.get().copied().unwrap_or("Stopped by user");
            publish::run(tools, publication, offer, stop, reason, news).await;
            over.cancel();
        });
        Ok(())
    }

    async fn play(&mut self, call: StreamCall) -> Result<(), String> {
        let Ok((id, name, offer)) = self.open(&call, false) else { return Ok(()) };
        let stream = match self.signal.pulls.stream_for(&name).await {
            Ok(stream) => stream,
            Err(info) => {
                self.status(&id, &name, false, "FAILED", Some(info));
                return Ok(());
            }
        };
        let player = Player {
            session: id.clone(),
            app_key: self.app_key.clone().unwrap_or_default(),
            connection: self.id.clone(),
            provider: "WebRTC",
            transport: "UDP",
        };
        let subscription = match stream.subscribe(Subscriber::Player(player)) {
            Ok(subscription) => subscription,
            Err(error) => {
                let info = if error == SubscribeError::Gone { "Stream not found".into() } else { error.to_string() };
                self.status(&id, &name, false, "FAILED", Some(&info));
                return Ok(());
            }
        };
        let (stop, stopped_by, over) = self.enter(&id);
        self.forward(&stream, &id, &over);
        let viewing = Viewing { plays: self.signal.plays.clone(), stream, subscription, offer, stop };
        let outbox = self.outbox.clone();
        let news = move |news| player_news(&outbox, &id, &name, news);
        self.signal.tasks.spawn(async move {
            viewing.run(move || stopped_by.get().copied().unwrap_or("Stopped by user"), news).await;
            over.cancel();
        });
        Ok(())
    }

    /// Passes the publisher's own events on to this player.
    fn forward(&self, stream: &StreamHandle, id: &MediaSessionId, over: &CancellationToken) {
        let (mut signals, outbox, id, over) = (stream.signals(), self.outbox.clone(), id.clone(), over.clone());
        self.signal.tasks.spawn(async move {
            loop {
                let signal = tokio::select! {
                    signal = signals.recv() => signal,
                    () = over.cancelled() => return,
                };
                match signal {
                    Ok(signal) => outbox.text(message::stream_event(id.as_str(), &signal.kind, &signal.payload)),
                    Err(tokio::sync::broadcast::error::RecvError::Lagged(_)) => {}
                    Err(tokio::sync::broadcast::error::RecvError::Closed) => return,
                }
            }
        });
    }

    fn stop_session(&mut self, call: &StreamCall, published: bool) -> Result<(), String> {
        let id = call.media_session_id.as_deref().and_then(|id| MediaSessionId::new(id).ok());
        match id.as_ref().and_then(|id| self.sessions.get(id)) {
            Some(session) => session.stop("Stopped by user"),
            // The browser waits for the last word all the same.
            None => {
                let (session, name) = (call.media_session_id.as_deref(), call.name.as_deref());
                self.refuse_raw(session.unwrap_or_default(), name.unwrap_or_default(), published, "Stream not found");
            }
        }
        Ok(())
    }

    fn available(&self, call: &StreamCall) -> Result<(), String> {
        let streams = self.signal.hub.streams();
        let name = call.name.as_deref().and_then(|name| StreamName::new(name).ok());
        let info = match name.and_then(|name| streams.get(&name).map(StreamHandle::view)) {
            None => Some("Stream not found"),
            Some(view) if view.phase == Phase::Waiting => Some("Publish stream is not ready"),
            Some(_) => None,
        };
        self.outbox.text(message::available(call.media_session_id.as_deref().unwrap_or_default(), info));
        Ok(())
    }

    /// Takes a picture beside the connection; the browser is told under the id it chose for it.
    fn snapshot(&self, call: &StreamCall) -> Result<(), String> {
        let session = call.media_session_id.clone().unwrap_or_default();
        let name = call.name.as_deref().and_then(|name| StreamName::new(name).ok());
        let (pictures, outbox) = (self.signal.pictures.clone(), self.outbox.clone());
        let established = self.app_key.is_some();
        self.signal.tasks.spawn(async move {
            let taken = match name.filter(|_| established) {
                Some(name) => pictures.take(&name).await,
                None => Err(PictureError::NotFound),
            };
            outbox.text(match taken {
                Ok(png) => {
                    let payload = json!({"snapshot": BASE64.encode(&png)});
                    message::stream_event(&session, "snapshotCompleted", &payload)
                }
                Err(error) => message::stream_event(&session, "snapshotFailed", &json!({"info": error.to_string()})),
            });
        });
        Ok(())
    }

    fn stream_event(&self, call: StreamEventCall) -> Result<(), String> {
        let streams = self.signal.hub.streams();
        let id = call.media_session_id.unwrap_or_default();
        let mine = |stream: &&StreamHandle| {
            stream.view().publisher().is_some_and(|session| session.id.as_str() == id && session.connection == self.id)
        };
        let stream = streams.values().find(mine).ok_or("Stream not found")?;
        stream.signal(&call.kind, call.payload.unwrap_or_else(|| json!({})));
        Ok(())
    }

    fn data(&self, call: &DataCall) -> Result<(), String> {
        let operation = call.operation_id.as_ref().ok_or("sendData has no operationId")?;
        let status = if self.app_key.is_some() { "ACCEPTED" } else { "FAILED" };
        self.outbox.text(message::data_status(operation, status));
        Ok(())
    }

    /// Ends every media session and waits until all are gone.
    async fn end(&mut self) {
        self.signal.connections.remove(&self.id);
        let sessions = std::mem::take(&mut self.sessions);
        sessions.values().for_each(|session| session.stop("Stopped by session disconnect"));
        let all_over = async {
            for session in sessions.values() {
                session.over.cancelled().await;
            }
        };
        // What takes longer ends by itself: each step has its own deadline.
        let _ = timeout(ENDING, all_over).await;
    }
}

/// The fields of a message, or the `info` of its `fail`.
fn fields<T: DeserializeOwned>(incoming: &Incoming) -> Result<T, String> {
    serde_json::from_value(incoming.data.clone()).map_err(|_| format!("{} has no usable data", incoming.name))
}

fn info_of(error: &SdpError) -> &'static str {
    match error {
        SdpError::NoCommonCodecs => "No common codecs",
        _ => "Failed to add stream to proxy",
    }
}

fn publisher_news(outbox: &Outbox, session: &MediaSessionId, name: &StreamName, news: PublishNews) {
    let status = |status, info, record_name| {
        let status = Status { session, name, published: true, status, info, record_name };
        outbox.text(message::stream_status(&status));
    };
    match news {
        PublishNews::Answer(sdp) => outbox.text(message::remote_sdp(session, &sdp)),
        PublishNews::Publishing => status("PUBLISHING", None, None),
        PublishNews::Ended(Ending { failed, info, record_name }) => {
            status(if failed { "FAILED" } else { "UNPUBLISHED" }, Some(&info), record_name.as_deref());
        }
    }
}

fn player_news(outbox: &Outbox, session: &MediaSessionId, name: &StreamName, news: PlayNews) {
    let status = |status, info| {
        let status = Status { session, name, published: false, status, info, record_name: None };
        outbox.text(message::stream_status(&status));
    };
    let event = |kind, payload| outbox.text(message::stream_event(session.as_str(), kind, &payload));
    match news {
        PlayNews::Pending => status("PENDING", None),
        PlayNews::Answer(sdp) => outbox.text(message::remote_sdp(session, &sdp)),
        PlayNews::Playing { size } => {
            status("PLAYING", None);
            if let Some((width, height)) = size {
                event("resize", json!({"streamerVideoWidth": width, "streamerVideoHeight": height}));
            }
        }
        PlayNews::NotEnoughBandwidth { stream_bps, estimate_bps } => {
            event("notEnoughBandwidth", json!({"info": format!("{stream_bps}/{estimate_bps}")}));
        }
        PlayNews::Ended { failed, info } => status(if failed { "FAILED" } else { "STOPPED" }, Some(&info)),
    }
}
