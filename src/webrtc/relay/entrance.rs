//! The relay: starts the shards, takes streams and viewers in.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use mio::Poll;
use str0m::config::DtlsCert;
use thiserror::Error;
use tokio::sync::{mpsc, watch};

use super::answer::negotiate;
use super::lobby::Lobby;
use super::mailbox::{Command, Inbox, mailbox};
use super::sdp::{Offer, SdpError};
use super::session::{Session, SessionBounds};
use super::setup::{certificate, prepare};
use super::shard::{Shard, WAKER};
use super::socket::{self, Listen, Sockets};
use super::stream::{RelayStream, Shared, StreamBounds, StreamConfig};
use super::viewer::{Viewer, ViewerSnapshot};
use super::waker::ShardWaker;

/// Events a viewer's channel holds.
const EVENTS: usize = 8;

/// Settings of the relay.
#[derive(Debug, Clone)]
pub struct RelayConfig {
    /// Addresses to listen on; each becomes a host candidate of every answer, in this order of preference.
    pub listen: Vec<Listen>,
    /// The UDP port, the same for all addresses and shards; 0 for any free one.
    pub port: u16,
    /// Number of shards, each one thread with one socket an address; 0 for one a core.
    pub shards: usize,
    /// Most packets of a stream a shard may be behind before it loses the oldest.
    pub queue_packets: usize,
    /// Most payload bytes kept of a stream for late viewers. A longer group of pictures is not kept at all.
    pub gop_bytes: usize,
    /// Payload bits per second at which a late viewer is sent what it has missed; never under four times the
    /// stream's own rate.
    pub catch_up_bps: u64,
    /// Least time between two keyframe requests of a stream.
    pub keyframe_interval: Duration,
    /// How long ICE and DTLS may take together, from the join.
    pub connect_timeout: Duration,
    /// How long a viewer may be silent. Browsers check the connection every few seconds.
    pub silence_timeout: Duration,
    /// Least time between two [`ViewerEvent::NotEnoughBandwidth`](super::ViewerEvent::NotEnoughBandwidth) of a viewer.
    pub bandwidth_event_interval: Duration,
}

impl Default for RelayConfig {
    fn default() -> Self {
        RelayConfig {
            listen: vec![],
            port: 0,
            shards: 0,
            queue_packets: 2048,
            gop_bytes: 8 << 20,
            catch_up_bps: 20_000_000,
            keyframe_interval: Duration::from_millis(500),
            connect_timeout: Duration::from_secs(15),
            silence_timeout: Duration::from_secs(15),
            bandwidth_event_interval: Duration::from_secs(10),
        }
    }
}

/// Why the relay does not start.
#[derive(Debug, Error)]
pub enum StartError {
    /// [`RelayConfig::listen`] is empty or holds an address that cannot be a candidate (a wildcard or broadcast one).
    #[error("the relay needs at least one address, and wildcards are none")]
    NoAddress,
    /// A socket, thread or poll could not be made.
    #[error("the relay cannot listen: {0}")]
    Io(#[from] io::Error),
    /// The crypto backend made no DTLS certificate.
    #[error("the relay cannot make a DTLS certificate")]
    Certificate,
}

/// Why a viewer cannot join.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum JoinError {
    /// The offer cannot be answered: the caller's fault.
    #[error(transparent)]
    Sdp(#[from] SdpError),
    /// The WebRTC stack refused what the offer and the configuration gave it: ours.
    #[error("the viewer's session cannot be set up")]
    Session,
}

/// What a viewer may ask for beyond its offer.
#[derive(Debug, Clone, Default)]
pub struct JoinOptions {
    /// Leave out the video track.
    pub without_video: bool,
    /// Leave out the audio track.
    pub without_audio: bool,
    /// The viewer is another server, which wants every frame's own time rather than an instant picture: see
    /// [`super::clock`].
    pub one_clock: bool,
}

/// A viewer that has joined.
#[derive(Debug)]
pub struct Joined {
    /// The SDP answer, complete with candidates.
    pub answer: String,
    /// The viewer; it lives as long as this handle.
    pub viewer: Viewer,
}

/// The relay. Dropping it stops the shards and ends all viewers; [`Relay::stop`] also waits for that.
#[derive(Debug)]
pub struct Relay {
    config: RelayConfig,
    bounds: SessionBounds,
    candidates: Vec<SocketAddr>,
    cert: Arc<DtlsCert>,
    lobby: Arc<Lobby>,
    wakers: Arc<[ShardWaker]>,
    threads: Vec<JoinHandle<()>>,
    ids: AtomicU64,
}

impl Relay {
    /// Binds the sockets and starts the shards.
    ///
    /// # Errors
    /// [`StartError`]; nothing is left running then.
    pub fn start(config: RelayConfig) -> Result<Relay, StartError> {
        let usable = |listen: &Listen| {
            let address = listen.advertised(1).ip();
            !listen.bind.is_unspecified() && !address.is_unspecified() && !address.is_multicast()
        };
        if config.listen.is_empty() || !config.listen.iter().all(usable) {
            return Err(StartError::NoAddress);
        }
        let cert = certificate().ok_or(StartError::Certificate)?;
        let cores = || thread::available_parallelism().map_or(1, |cores| cores.get());
        let count = if config.shards == 0 { cores() } else { config.shards };
        let (port, sockets) = socket::bind(&config.listen, config.port, count)?;
        let polls = (0..count).map(|_| Poll::new()).collect::<io::Result<Vec<Poll>>>()?;
        let wakers = polls.iter().map(|poll| ShardWaker::new(poll.registry(), WAKER));
        let wakers: Arc<[ShardWaker]> = wakers.collect::<io::Result<Vec<_>>>()?.into();
        let (mailboxes, inboxes): (Vec<_>, Vec<_>) = (0..count).map(|shard| mailbox(shard, &wakers)).unzip();
        let lobby = Arc::new(Lobby::new(mailboxes.into()));
        let mut relay = Relay {
            bounds: bounds(&config),
            candidates: config.listen.iter().map(|listen| listen.advertised(port)).collect(),
            config,
            cert,
            lobby,
            wakers,
            threads: vec![],
            ids: AtomicU64::new(1),
        };
        for (index, ((poll, sockets), inbox)) in polls.into_iter().zip(sockets).zip(inboxes).enumerate() {
            // a failure drops the relay, which stops the shards that run
            relay.spawn(index, poll, sockets, inbox)?;
        }
        tracing::info!(candidates = ?relay.candidates, shards = count, "the relay listens");
        Ok(relay)
    }

    fn spawn(&mut self, index: usize, poll: Poll, sockets: Sockets, inbox: Inbox) -> io::Result<()> {
        let (lobby, wakers) = (Arc::clone(&self.lobby), Arc::clone(&self.wakers));
        let shard = Shard::new(index, poll, sockets, lobby, wakers, inbox)?;
        let thread = thread::Builder::new().name(format!("relay-{index}")).spawn(move || shard.run())?;
        self.threads.push(thread);
        Ok(())
    }

    /// The addresses viewers are told.
    pub fn candidates(&self) -> &[SocketAddr] {
        &self.candidates
    }

    /// Takes a stream in. Its viewers live as long as the handle.
    pub fn stream(&self, config: StreamConfig) -> RelayStream {
        let bounds = StreamBounds {
            queue_packets: self.config.queue_packets,
            gop_bytes: self.config.gop_bytes,
            keyframe_interval: self.config.keyframe_interval,
        };
        let id = self.ids.fetch_add(1, Relaxed);
        RelayStream::new(Arc::new(Shared::new(id, config, bounds, Arc::clone(&self.wakers))))
    }

    /// Answers a viewer's offer. Media flows as soon as the browser has finished ICE and DTLS; the first packets are
    /// those since the stream's last keyframe.
    ///
    /// # Errors
    /// [`JoinError::Sdp`] for an offer that cannot be answered, "No common codecs" among them.
    pub fn join(&self, stream: &RelayStream, offer: &str, options: &JoinOptions) -> Result<Joined, JoinError> {
        let mut tracks = *stream.shared().tracks();
        tracks.video = tracks.video.filter(|_| !options.without_video);
        tracks.audio = tracks.audio.filter(|_| !options.without_audio);
        let mut plan = negotiate(&Offer::parse(offer)?, &tracks)?;
        plan.one_clock = options.one_clock;
        let now = Instant::now();
        let bitrate = stream.shared().bitrate();
        let mut prepared = prepare(&plan, &self.cert, &self.candidates, bitrate, now).ok_or(JoinError::Session)?;
        let (ufrag, answer) = (prepared.ufrag.clone(), std::mem::take(&mut prepared.answer));
        let (report, snapshot) = watch::channel(ViewerSnapshot::new());
        let (events, received) = mpsc::channel(EVENTS);
        let id = self.ids.fetch_add(1, Relaxed);
        let shared = Arc::clone(stream.shared());
        let session = Session::new(id, prepared, shared, self.bounds, report, events, now);
        // 16 random characters that are taken already do not happen; should they, the caller may try again
        self.lobby.enter(ufrag.clone(), Box::new(session)).map_err(|_| JoinError::Session)?;
        Ok(Joined { answer, viewer: Viewer::new(ufrag, Arc::clone(&self.lobby), snapshot, received) })
    }

    /// Stops the shards and waits until all viewers have been told. Blocks for a few milliseconds.
    pub fn stop(mut self) {
        self.tell_to_stop();
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a relay shard panicked");
            }
        }
    }

    fn tell_to_stop(&self) {
        for shard in 0..self.wakers.len() {
            self.lobby.send(shard, Command::Stop);
        }
        for (session, _) in self.lobby.take_waiting(|_| Some(super::viewer::EndReason::RelayStopped)) {
            session.end(super::viewer::EndReason::RelayStopped, Instant::now(), &Sockets(vec![]));
        }
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.tell_to_stop();
    }
}

fn bounds(config: &RelayConfig) -> SessionBounds {
    SessionBounds {
        connect_timeout: config.connect_timeout,
        silence_timeout: config.silence_timeout,
        bandwidth_event_interval: config.bandwidth_event_interval,
        catch_up_bps: config.catch_up_bps,
    }
}
