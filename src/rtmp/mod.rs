//! The RTMP server: what encoders publish to and players play from.
//!
//! [`serve`] runs a task for each client. It owns the socket and the deadlines, and decides who may publish or play; a
//! publisher's frames go into a [`crate::media::Ingest`], a player's come from a [`crate::media::Tap`].
//!
//! The protocol has neither a socket nor a clock. A [`Session`] is fed bytes and gives [`Event`]s and bytes. It is written against Adobe's "Real-Time Messaging
//! Protocol 1.0" (December 2012), "AMF 0" (2007) and Veovera's "Enhanced RTMP" v1 and v2, and against what ffmpeg,
//! librtmp (OBS), nginx-rtmp and GStreamer do.
//!
//! | file | what |
//! |---|---|
//! | `connection` | one client: socket, deadlines, decisions |
//! | `asking` | what its hook server is asked and told |
//! | `absent` | publishers that may come back |
//! | `publishing`, `playing` | what it feeds, what it takes |
//! | `sound` | Opus as AAC, for players |
//! | [`session`] | the state machine; [`Session`] |
//! | [`event`] | what it reports |
//! | [`limits`] | what a peer may ask for, and how it broke that |
//! | [`frame`] | outgoing media, cut once for all viewers |
//! | [`flv`] | the bodies of audio and video messages |
//! | [`amf`] | the values of commands and metadata |
//! | `handshake`, `chunk`, `message`, `aggregate` | bytes to messages |
//! | `command`, `target`, `reply` | messages to commands and back |
//!
//! What drives a session is a loop:
//!
//! ```text
//! loop {
//!     while let Some(event) = session.poll_event() { decide, forward }
//!     write what session.poll_output() gives          (a deadline for a client that does not read)
//!     if session.phase() == Phase::Closing { break }
//!     read while session.wants_input(): session.feed(now, bytes)?    (a deadline per phase)
//! }
//! ```
//!
//! What the peer may make us keep: unfinished messages and held input within [`Limits`], and events of one `feed`.
//! A connection that ends without [`Event::Unpublish`] has ended all the same; the driver sees that on its socket.

pub mod amf;
pub mod event;
pub mod flv;
pub mod frame;
pub mod limits;
pub mod session;

mod absent;
mod aggregate;
mod alarm;
mod asking;
mod chunk;
mod command;
mod connection;
mod handshake;
mod message;
mod playing;
mod publishing;
mod reply;
mod sound;
mod target;
mod wire;

pub use absent::Absent;
pub use event::{Connect, Delivery, Event, Phase, Play, Publish, PublishKind, Start};
pub use frame::{Frame, OUT_CHUNK_SIZE};
pub use limits::{Limits, Violation};
pub use session::Session;
pub use sound::Sounds;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::sync::CancellationToken;

use crate::admission::{Admission, Places};
use crate::gate::Gate;
use crate::hook::Hooks;
use crate::hub::{Hub, StreamHandle};
use crate::media::{Catalog, Pipelines};
use crate::meter::Meter;
use crate::name::StreamName;
use connection::Connection;

/// The application that RTMP clients belong to. Source: WCS.
const APP_KEY: &str = "flashStreamingApp";
/// WCS's word for RTMP.
const PROVIDER: &str = "Flash";

/// Finds the stream that a player asks for by its name, or has it fetched from an origin; `Err` is WCS's `info`.
pub type FindStream = Arc<dyn Fn(StreamName) -> BoxFuture<'static, Result<StreamHandle, &'static str>> + Send + Sync>;

/// What the server works with.
#[derive(Clone)]
pub struct Tools {
    /// The launch templates.
    pub catalog: Catalog,
    /// The list of running pipelines.
    pub pipelines: Pipelines,
    /// Where streams are published.
    pub hub: Hub,
    /// Where players find them.
    pub find: FindStream,
    /// What publishing and playing ask for.
    pub gate: Gate,
    /// Who is asked whether clients may do what they want.
    pub hooks: Hooks,
    /// Sound in codecs that FLV does not carry.
    pub sounds: Sounds,
    /// Whether what is published is recorded.
    pub record: bool,
    /// How long the stream of a publisher that has left waits for it; `None` not at all.
    pub linger: Option<Duration>,
    /// Whose streams wait.
    pub absent: Absent,
    /// What a client may ask for.
    pub limits: Limits,
    /// How long a client may take until it has connected.
    pub handshake_timeout: Duration,
    /// How long a client may do nothing.
    pub idle_timeout: Duration,
    /// A place for each connection there may be.
    pub places: Places,
    /// Who is refused.
    pub admission: Admission,
    /// What is counted.
    pub meter: Meter,
}

/// Serves one client until it leaves, breaks a limit, or `stop` asks for the end.
/// `addresses` are the client's and ours.
pub async fn serve<S>(tools: Tools, stream: S, addresses: (SocketAddr, Option<SocketAddr>), stop: CancellationToken)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (peer, local) = addresses;
    let _place = match tools.admission.descriptors().and_then(|()| tools.places.take()) {
        Ok(place) => place,
        Err(refused) => return tracing::debug!(%peer, "an RTMP client is closed: {refused}"),
    };
    // A client that is gone already has no address of ours.
    if let Some(local) = local {
        Connection::new(tools, stream, (peer, local)).run(stop).await;
    }
}

#[cfg(test)]
mod tests;
