//! A conversation with another WCS server over a socket: drives the [`Dialogue`].

use std::collections::VecDeque;
use std::io;
use std::time::{Duration, Instant};

use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::{sleep_until, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{self, Message, Utf8Bytes};
use tokio_tungstenite::{WebSocketStream, client_async_with_config};

use super::dialogue::{Dialogue, End, Limits, Todo, Way};
use crate::gate::Gate;
use crate::name::{MediaSessionId, StreamName};
use crate::pull::{Reach, SourceUri};
use crate::trust;

/// The setting with more certificates to trust.
const CA_FILE: &str = "wcs_agent_ca_file";

/// The largest message that is read, bytes; an answer has some 5,000.
const MAX_MESSAGE: usize = 256 << 10;
/// Longest time the last words may take.
const HANG_UP: Duration = Duration::from_secs(1);

/// TCP, or TLS over it.
trait Transport: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Transport for T {}

type Socket = WebSocketStream<Box<dyn Transport>>;

/// Where another server listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Address {
    /// The whole URI, with its path.
    pub uri: String,
    pub host: String,
    pub port: u16,
    pub tls: bool,
}

/// What calls are made with.
#[derive(Clone)]
pub struct Dial {
    /// How long a server may take once the WebSocket is open.
    pub limits: Limits,
    /// Longest time until it is.
    pub connect: Duration,
    /// Makes TLS of a connection; `None` where that is not allowed.
    pub tls: Option<TlsConnector>,
    /// Which servers may be dialled.
    pub reach: Reach,
    /// What this server asks for, and so shows its origins.
    pub gate: Gate,
}

/// What a call is for.
#[derive(Debug, Clone)]
pub(super) struct Subject {
    pub way: Way,
    /// The stream's name there.
    pub name: StreamName,
    /// The publisher the stream has here.
    pub ours: MediaSessionId,
    /// What is shown there (`custom`).
    pub custom: Option<Value>,
    /// The operator has chosen the server: it is dialled wherever it is.
    pub trusted: bool,
}

/// An open conversation. Dropping it closes the socket, which ends its media session on the other side.
pub(super) struct Call {
    sink: SplitSink<Socket, Message>,
    stream: SplitStream<Socket>,
    dialogue: Dialogue,
    todo: VecDeque<Todo>,
    outgoing: VecDeque<Utf8Bytes>,
    /// Something that was handed to the socket may still be in its buffer.
    unflushed: bool,
}

/// What is said to whoever has the call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum News {
    /// The connection is established: ask or offer.
    Ready,
    /// The answer to the offer.
    Answer(String),
    /// Media flows, says the server.
    Flowing,
    /// The publishers the stream comes from.
    Path(Vec<String>),
    /// Whether the name can be played.
    Available(bool),
}

impl Dial {
    /// Opens the WebSocket and says hello; the first news is [`News::Ready`].
    pub(super) async fn open(&self, uri: &SourceUri, subject: Subject) -> Result<Call, End> {
        let reach = if subject.trusted { Reach::default() } else { self.reach.clone() };
        let late = || End::Lost(format!("no connection within {} s", self.connect.as_secs_f32()));
        let socket = timeout(self.connect, self.socket(uri, &reach)).await.map_err(|_| late())?;
        let (sink, stream) = socket.map_err(End::Lost)?.split();
        let (dialogue, todo) = Dialogue::new(subject, self.limits, Instant::now());
        Ok(Call { sink, stream, dialogue, todo: todo.into(), outgoing: VecDeque::new(), unflushed: false })
    }

    async fn socket(&self, uri: &SourceUri, reach: &Reach) -> Result<Socket, String> {
        let address = super::address(uri)?;
        let found = reach.addresses(uri).await.map_err(|barred| barred.to_string())?;
        let tcp = TcpStream::connect(found.as_slice()).await;
        let tcp = tcp.map_err(|error| format!("no connection: {error}"))?;
        // A delayed answer to a ping or an offer helps nobody.
        let _ = tcp.set_nodelay(true);
        let line: Box<dyn Transport> = match &self.tls {
            _ if !address.tls => Box::new(tcp),
            None => return Err("wss is not allowed (wcs_agent_ssl)".into()),
            Some(tls) => {
                let name = ServerName::try_from(address.host.clone()).map_err(|error| error.to_string())?;
                let told = |error: io::Error| trust::complaint(&error, CA_FILE).unwrap_or_else(|| error.to_string());
                Box::new(tls.connect(name, tcp).await.map_err(|error| format!("no TLS: {}", told(error)))?)
            }
        };
        let config = WebSocketConfig::default().max_message_size(Some(MAX_MESSAGE)).max_frame_size(Some(MAX_MESSAGE));
        let opened = client_async_with_config(address.uri.as_str(), line, Some(config)).await;
        opened.map(|(socket, _)| socket).map_err(|error| match error {
            tungstenite::Error::Http(answer) => format!("no WebSocket there: HTTP status {}", answer.status()),
            other => format!("no WebSocket there: {other}"),
        })
    }
}

impl Call {
    /// The media session's id there.
    pub fn session(&self) -> &MediaSessionId {
        self.dialogue.session()
    }

    /// Asks whether the stream can be played.
    pub fn ask(&mut self) {
        let todo = self.dialogue.ask(Instant::now());
        self.todo.extend(todo);
    }

    /// Offers to play.
    pub fn play(&mut self, sdp: &str) {
        let todo = self.dialogue.play(Instant::now(), sdp);
        self.todo.extend(todo);
    }

    /// Offers to publish what has pictures, sound, or both, and comes from `path`.
    pub fn publish(&mut self, sdp: &str, tracks: (bool, bool), path: &[String]) {
        let todo = self.dialogue.publish(Instant::now(), sdp, tracks, path);
        self.todo.extend(todo);
    }

    /// The next news, or how it ended. Nothing is lost when this is dropped before it is done.
    pub async fn next(&mut self) -> Result<News, End> {
        loop {
            match self.todo.pop_front() {
                Some(Todo::Send(text)) => self.outgoing.push_back(text.into()),
                Some(Todo::Ready) => return Ok(News::Ready),
                Some(Todo::Answer(sdp)) => return Ok(News::Answer(sdp)),
                Some(Todo::Flowing) => return Ok(News::Flowing),
                Some(Todo::Path(path)) => return Ok(News::Path(path)),
                Some(Todo::Available(yes)) => return Ok(News::Available(yes)),
                Some(Todo::Over(end)) => return Err(end),
                None => self.step().await?,
            }
        }
    }

    /// One event of the socket or the clock.
    async fn step(&mut self) -> Result<(), End> {
        let due = sleep_until(self.dialogue.due().into());
        let waiting = self.unflushed || !self.outgoing.is_empty();
        tokio::select! {
            frame = self.stream.next() => return self.take(frame),
            () = due => {
                let todo = self.dialogue.tick(Instant::now());
                self.todo.extend(todo);
            }
            sent = send(&mut self.sink, &mut self.outgoing, &mut self.unflushed), if waiting => {
                sent.map_err(|error| End::Lost(format!("the connection broke: {error}")))?;
            }
        }
        Ok(())
    }

    fn take(&mut self, frame: Option<Result<Message, tungstenite::Error>>) -> Result<(), End> {
        let lost = |reason: String| Err(End::Lost(reason));
        self.dialogue.alive();
        match frame {
            None => return lost("the server closed the connection".into()),
            Some(Err(error)) => return lost(format!("the connection broke: {error}")),
            Some(Ok(Message::Close(frame))) => {
                let code = frame.map_or(0, |frame| frame.code.into());
                return lost(format!("the server closed the connection (code {code})"));
            }
            Some(Ok(Message::Text(text))) => {
                let todo = self.dialogue.heard(Instant::now(), &text);
                self.todo.extend(todo);
            }
            // The WebSocket answers its own pings, with what is sent next.
            Some(Ok(Message::Ping(_))) => self.unflushed = true,
            Some(Ok(_)) => {}
        }
        Ok(())
    }

    /// Says that it ends and closes the socket; does not wait for the server.
    pub async fn hang_up(mut self) {
        self.outgoing.extend(self.dialogue.bye().map(Utf8Bytes::from));
        let words = async {
            send(&mut self.sink, &mut self.outgoing, &mut self.unflushed).await?;
            self.sink.close().await
        };
        // A server that does not read is left all the same.
        let _ = timeout(HANG_UP, words).await;
    }
}

/// Sends what waits. A message leaves the queue once the socket has it.
async fn send(
    sink: &mut SplitSink<Socket, Message>,
    outgoing: &mut VecDeque<Utf8Bytes>,
    unflushed: &mut bool,
) -> Result<(), tungstenite::Error> {
    while let Some(text) = outgoing.front() {
        sink.feed(Message::Text(text.clone())).await?;
        outgoing.pop_front();
        *unflushed = true;
    }
    sink.flush().await?;
    *unflushed = false;
    Ok(())
}
