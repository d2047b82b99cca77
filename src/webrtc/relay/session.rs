//! One viewer inside a shard: a sans-IO str0m session, its deadlines and its numbers.
//!
//! ```text
//! Connecting ──ICE and DTLS done──► Connected ──┐
//!     │ connect timeout, DTLS failure           │ silence, closed by peer, stream ended, left
//!     └───────────────► Ended ◄─────────────────┘
//! ```

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use str0m::bwe::BweKind;
use str0m::net::{Protocol, Receive};
use str0m::{Event, Input, Output, Rtc};
use tokio::sync::{mpsc, watch};

use super::handshake::Repeats;
use super::outgoing::Outgoing;
use super::packet::{Kind, Packet};
use super::setup::Prepared;
use super::socket::Sockets;
use super::stream::Shared;
use super::viewer::{BandwidthWatch, EndReason, ViewerEvent, ViewerSnapshot, ViewerState};

/// How often in a row str0m may ask to be called back at once, or fail, without sending anything before it has to wait.
const MAX_IDLE_TURNS: usize = 4;
/// Most turns that are taken at once to send what was written, and what is soon enough to be one of them.
const MAX_FLUSHED: usize = 512;
const SOON: Duration = Duration::from_micros(10);
/// How long after its connect a viewer's estimate means something.
const ESTIMATE_SETTLES: Duration = Duration::from_secs(4);

/// Deadlines and rates of sessions, from the relay's configuration.
#[derive(Debug, Clone, Copy)]
pub(super) struct SessionBounds {
    pub connect_timeout: Duration,
    pub silence_timeout: Duration,
    pub bandwidth_event_interval: Duration,
    pub catch_up_bps: u64,
}

/// A viewer's session.
#[derive(Debug)]
pub(super) struct Session {
    id: u64,
    ufrag: String,
    rtc: Rtc,
    stream: Arc<Shared>,
    outgoing: Outgoing,
    repeats: Repeats,
    bounds: SessionBounds,
    created: Instant,
    heard: Option<Instant>,
    connected: Option<Instant>,
    /// Set between the end of the handshake and the start of media.
    ready: bool,
    /// A media packet was sent.
    flows: bool,
    deadline: Instant,
    addresses: Vec<SocketAddr>,
    bandwidth: BandwidthWatch,
    stats: [TrackStats; 2],
    snapshot: ViewerSnapshot,
    report: watch::Sender<ViewerSnapshot>,
    events: mpsc::Sender<ViewerEvent>,
}

/// str0m's numbers of one track, as of the last second.
#[derive(Debug, Clone, Copy, Default)]
struct TrackStats {
    lost: u64,
    loss: f32,
    nacks: u64,
    plis: u64,
}

impl Session {
    pub fn new(
        id: u64,
        prepared: Prepared,
        stream: Arc<Shared>,
        bounds: SessionBounds,
        report: watch::Sender<ViewerSnapshot>,
        events: mpsc::Sender<ViewerEvent>,
        now: Instant,
    ) -> Self {
        Session {
            id,
            ufrag: prepared.ufrag,
            rtc: prepared.rtc,
            stream,
            outgoing: prepared.outgoing,
            repeats: Repeats::default(),
            bounds,
            created: now,
            heard: None,
            connected: None,
            ready: false,
            flows: false,
            deadline: now,
            addresses: vec![],
            bandwidth: BandwidthWatch::new(bounds.bandwidth_event_interval),
            stats: Default::default(),
            snapshot: ViewerSnapshot::new(),
            report,
            events,
        }
    }

    pub fn id(&self) -> u64 {
        self.id
    }

    pub fn ufrag(&self) -> &str {
        &self.ufrag
    }

    /// Whether the handshake was ever done.
    pub fn is_connected(&self) -> bool {
        self.connected.is_some()
    }

    pub fn stream(&self) -> &Arc<Shared> {
        &self.stream
    }

    /// Addresses that packets of this viewer have come from.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Notes an address of this viewer. False when it has too many.
    pub fn add_address(&mut self, address: SocketAddr) -> bool {
        const MAX_ADDRESSES: usize = 16;
        let room = self.addresses.len() < MAX_ADDRESSES;
        if room {
            self.addresses.push(address);
        }
        room
    }

    /// When [`Session::drain`] must be called again at the latest.
    pub fn deadline(&self) -> Instant {
        [self.outgoing.due(), self.repeats.due()].into_iter().flatten().fold(self.deadline, Instant::min)
    }

    /// Whether media can start; true once.
    pub fn take_ready(&mut self) -> bool {
        std::mem::take(&mut self.ready)
    }

    /// Whether a datagram is from this viewer: by its integrity if it is STUN, else by where it comes from.
    pub fn accepts(&self, input: &Input<'_>) -> bool {
        self.rtc.accepts(input)
    }

    /// Takes a datagram. False when it is not this viewer's.
    pub fn receive(
        &mut self,
        now: Instant,
        source: SocketAddr,
        to: SocketAddr,
        bytes: &[u8],
    ) -> Result<bool, EndReason> {
        let Ok(receive) = Receive::new(Protocol::Udp, source, to, bytes) else { return Ok(false) };
        let input = Input::Receive(now, receive);
        if !self.rtc.accepts(&input) {
            return Ok(false);
        }
        self.heard = Some(now);
        self.rtc.handle_input(input).or_else(|error| self.fault(&error))?;
        self.deadline = now;
        Ok(true)
    }

    /// Sends what is due and handles what has happened.
    pub fn drain(&mut self, now: Instant, sockets: &Sockets) -> Result<(), EndReason> {
        for repeat in self.repeats.take(now) {
            // One that gets lost is one of three.
            let _ = sockets.send(repeat.source, repeat.destination, &repeat.contents);
        }
        let mut idle = 0;
        while idle <= MAX_IDLE_TURNS {
            match self.rtc.poll_output() {
                Ok(Output::Transmit(transmit)) => {
                    idle = 0;
                    self.repeats.note(&transmit, now);
                    self.transmit(&transmit, sockets);
                }
                Ok(Output::Event(event)) => self.event(event, now)?,
                Ok(Output::Timeout(at)) if at > now => {
                    self.deadline = at;
                    return Ok(());
                }
                Ok(Output::Timeout(_)) => {
                    idle += 1;
                    self.rtc.handle_input(Input::Timeout(now)).or_else(|error| self.fault(&error))?;
                }
                Err(error) => {
                    idle += 1;
                    self.fault(&error)?;
                }
            }
        }
        self.deadline = now + Duration::from_millis(1);
        Ok(())
    }

    /// Sends all that was written. str0m gives one packet for each instant and wants to be called a microsecond later;
    /// media leaves in that way turn by turn, but what comes after this must not wait behind it.
    fn flush(&mut self, now: Instant, sockets: &Sockets) -> Result<(), EndReason> {
        self.drain(now, sockets)?;
        for _ in 0..MAX_FLUSHED {
            let now = Instant::now() + SOON;
            if self.deadline > now {
                break;
            }
            self.drain(now, sockets)?;
        }
        Ok(())
    }

    fn transmit(&mut self, transmit: &str0m::net::Transmit, sockets: &Sockets) {
        self.snapshot.remote = Some(transmit.destination);
        if sockets.send(transmit.source, transmit.destination, &transmit.contents) {
            self.snapshot.packets += 1;
            self.snapshot.bytes += transmit.contents.len() as u64;
        } else {
            self.snapshot.dropped += 1;
        }
    }

    /// An error ends a session during the handshake. Later it is a datagram that could not be used.
    fn fault(&self, error: &str0m::RtcError) -> Result<(), EndReason> {
        if self.connected.is_none() {
            tracing::debug!(stream = self.stream.name(), viewer = self.id, %error, "a viewer's handshake failed");
            // Once the answer is made, the only thing of the offer's that can still be wrong is its fingerprint.
            let forged = matches!(error, str0m::RtcError::RemoteSdp(_));
            return Err(if forged { EndReason::WrongCertificate } else { EndReason::DtlsFailed });
        }
        tracing::debug!(stream = self.stream.name(), viewer = self.id, %error, "a viewer's session reports an error");
        if self.rtc.is_alive() { Ok(()) } else { Err(EndReason::Internal) }
    }

    fn event(&mut self, event: Event, now: Instant) -> Result<(), EndReason> {
        match event {
            Event::Connected => {
                self.connected = Some(now);
                self.ready = true;
                self.snapshot.state = ViewerState::Connected;
                self.snapshot.connected_after = Some(now.saturating_duration_since(self.created));
                self.publish();
                self.emit(ViewerEvent::Connected);
            }
            Event::KeyframeRequest(_) => {
                self.stream.request_keyframe(now);
                self.outgoing.keyframe_wanted(now);
            }
            Event::EgressBitrateEstimate(BweKind::Twcc { estimate, .. } | BweKind::Remb { estimate, .. }) => {
                self.snapshot.estimate_bps = Some(estimate.as_u64());
            }
            Event::MediaEgressStats(stats) => self.media_stats(&stats),
            Event::Closed => return Err(EndReason::ClosedByPeer),
            _ => {}
        }
        Ok(())
    }

    fn media_stats(&mut self, stats: &str0m::stats::MediaEgressStats) {
        let audio = &*stats.mid == "audio";
        self.stats[usize::from(!audio)] = TrackStats {
            lost: stats.remote.as_ref().map_or(0, |remote| remote.packets_lost),
            loss: stats.loss.unwrap_or(0.0),
            nacks: stats.nacks,
            plis: stats.plis + stats.firs,
        };
        if stats.rtt.is_some() {
            self.snapshot.rtt = stats.rtt;
        }
    }

    /// Starts media: the packets since the last keyframe first.
    pub fn start(&mut self, now: Instant) {
        let start = self.stream.start();
        if start.packets.is_empty() && self.stream.tracks().video.is_some() {
            self.stream.request_keyframe(now);
        }
        // a backlog sent no faster than the stream runs would never end
        let rate = self.bounds.catch_up_bps.max(self.stream.bitrate().saturating_mul(4));
        self.outgoing.start(start, rate, now);
    }

    /// The shard was too late for some packets.
    pub fn missed(&mut self, packets: u64) {
        self.outgoing.out_of_step(packets);
    }

    /// Writes a live packet. It leaves with the next [`Session::drain`].
    pub fn live(
        &mut self,
        number: u64,
        packet: &Arc<Packet>,
        now: Instant,
        sockets: &Sockets,
    ) -> Result<(), EndReason> {
        if self.outgoing.is_silent(packet.kind) {
            self.flush(now, sockets)?;
        }
        if !self.outgoing.live(&mut self.rtc, number, packet) {
            return Ok(());
        }
        self.drain(now, sockets)?;
        self.flowing();
        Ok(())
    }

    /// Writes up to `budget` packets of the backlog, as its pace allows, and sends them. Returns how many.
    pub fn catch_up(&mut self, budget: usize, now: Instant, sockets: &Sockets) -> Result<usize, EndReason> {
        let mut written = 0;
        if self.outgoing.is_silent(Kind::Video) {
            self.flush(now, sockets)?;
        }
        while written < budget
            && let Some(first) = self.outgoing.catch_up(&mut self.rtc, now)
        {
            written += 1;
            if first {
                self.drain(now, sockets)?;
            }
        }
        if written > 0 {
            self.drain(now, sockets)?;
            self.flowing();
        }
        Ok(written)
    }

    /// Says that media flows, once.
    fn flowing(&mut self) {
        if !std::mem::replace(&mut self.flows, true) {
            self.emit(ViewerEvent::Flowing);
        }
    }

    /// Checks the deadlines, a few times a second.
    pub fn check(&mut self, now: Instant) -> Result<(), EndReason> {
        let age = now.saturating_duration_since(self.created);
        if self.connected.is_none() && age >= self.bounds.connect_timeout {
            return Err(if self.heard.is_some() { EndReason::DtlsTimeout } else { EndReason::IceTimeout });
        }
        let silence = now.saturating_duration_since(self.heard.unwrap_or(self.created));
        if self.connected.is_some() && silence >= self.bounds.silence_timeout {
            return Err(EndReason::Vanished);
        }
        if self.stream.is_closed() {
            return Err(EndReason::StreamEnded);
        }
        if self.connected.is_some() && self.outgoing.needs_restart(now) {
            self.start(now);
        }
        Ok(())
    }

    /// Publishes the numbers, about once a second, and judges the bandwidth.
    pub fn report(&mut self, now: Instant) {
        let [audio, video] = self.stats;
        self.snapshot.lost = audio.lost + video.lost;
        self.snapshot.loss = audio.loss.max(video.loss);
        self.snapshot.nacks = audio.nacks + video.nacks;
        self.snapshot.plis = audio.plis + video.plis;
        self.publish();
        let settled = self.connected.is_some_and(|at| now.saturating_duration_since(at) >= ESTIMATE_SETTLES);
        if let Some(estimate_bps) = self.snapshot.estimate_bps.filter(|_| settled) {
            let stream_bps = self.stream.bitrate();
            if self.bandwidth.check(now, stream_bps, estimate_bps) {
                self.emit(ViewerEvent::NotEnoughBandwidth { stream_bps, estimate_bps });
            }
        }
    }

    /// Ends the session: tells the browser and the handle's owner.
    pub fn end(mut self, reason: EndReason, now: Instant, sockets: &Sockets) {
        // after a fault inside str0m its state cannot be trusted
        if self.connected.is_some() && reason != EndReason::Internal && self.rtc.close().is_ok() {
            // the farewell is best effort: there is nothing left to do about an error
            let _ = self.drain(now, sockets);
        }
        tracing::debug!(stream = self.stream.name(), viewer = self.id, ?reason, "a viewer ended");
        self.snapshot.state = ViewerState::Ended(reason);
        self.publish();
        self.emit(ViewerEvent::Ended(reason));
    }

    fn publish(&mut self) {
        self.snapshot.starts = self.outgoing.starts;
        let mut snapshot = self.snapshot.clone();
        snapshot.dropped += self.outgoing.dropped;
        self.report.send_replace(snapshot);
    }

    /// The channel holds more events than a session has kinds of; whoever does not read loses bandwidth events only.
    fn emit(&self, event: ViewerEvent) {
        let last = matches!(event, ViewerEvent::NotEnoughBandwidth { .. }) && self.events.capacity() <= 2;
        if !last && self.events.try_send(event).is_err() {
            tracing::trace!(viewer = self.id, "nobody reads a viewer's events");
        }
    }
}
