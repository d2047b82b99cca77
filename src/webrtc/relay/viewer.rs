//! A viewer as the rest of the server sees it: a handle, its numbers, and what happens to it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch};

use super::lobby::Lobby;

/// How far a viewer has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ViewerState {
    /// Its answer is made; ICE or DTLS is not done.
    Connecting,
    /// ICE and DTLS are done; media flows.
    Connected,
    /// It is gone, for this reason.
    Ended(EndReason),
}

/// Why a viewer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndReason {
    /// No valid ICE check arrived before [`RelayConfig::connect_timeout`](super::RelayConfig::connect_timeout).
    IceTimeout,
    /// ICE worked, but the DTLS handshake was not done before the connect timeout.
    DtlsTimeout,
    /// The DTLS handshake failed.
    DtlsFailed,
    /// The certificate is not the one of the offer's fingerprint.
    WrongCertificate,
    /// Neither STUN, DTLS nor RTCP was heard for [`RelayConfig::silence_timeout`](super::RelayConfig::silence_timeout).
    Vanished,
    /// The browser closed the connection.
    ClosedByPeer,
    /// The stream's last [`RelayStream`](super::RelayStream) handle was dropped.
    StreamEnded,
    /// The viewer's own handle was dropped.
    Left,
    /// The relay stopped.
    RelayStopped,
    /// A fault inside the WebRTC stack; only this viewer is affected.
    Internal,
}

/// What happens to a viewer. [`ViewerEvent::Ended`] is the last.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum ViewerEvent {
    /// ICE and DTLS are done; media flows from now on.
    Connected,
    /// The first media packet has been sent to it.
    Flowing,
    /// The estimate of the viewer's bandwidth has stayed under the stream's bitrate for several seconds. Sent at
    /// most once every [`RelayConfig::bandwidth_event_interval`](super::RelayConfig::bandwidth_event_interval).
    NotEnoughBandwidth {
        /// Payload bits per second of the stream, both tracks.
        stream_bps: u64,
        /// The estimate in bits per second.
        estimate_bps: u64,
    },
    /// The viewer is gone.
    Ended(EndReason),
}

/// A viewer's numbers, renewed about once a second and at every change of state.
#[derive(Debug, Clone, PartialEq)]
pub struct ViewerSnapshot {
    /// How far it has come.
    pub state: ViewerState,
    /// Where its packets go, once anything was sent.
    pub remote: Option<SocketAddr>,
    /// Time from the join to ICE and DTLS being done.
    pub connected_after: Option<Duration>,
    /// UDP datagrams sent, RTX and RTCP included.
    pub packets: u64,
    /// Bytes of those datagrams, without UDP and IP headers.
    pub bytes: u64,
    /// Media packets that were due but not sent: the socket had no room, or the viewer's shard was late.
    pub dropped: u64,
    /// Packets the browser reports as lost in total (RTCP receiver reports, before repair), both tracks.
    pub lost: u64,
    /// Share of packets lost in the last second, 0 to 1, the worse of the two tracks.
    pub loss: f32,
    /// NACK messages received.
    pub nacks: u64,
    /// Keyframe requests received, PLI and FIR together.
    pub plis: u64,
    /// Round trip time from RTCP.
    pub rtt: Option<Duration>,
    /// Estimated bandwidth towards the viewer in bits per second (transport-wide feedback, or REMB).
    pub estimate_bps: Option<u64>,
    /// How often this viewer was started at the stream's last keyframe: 1 after the join, more after repairs.
    pub starts: u64,
}

impl ViewerSnapshot {
    pub(super) fn new() -> Self {
        ViewerSnapshot {
            state: ViewerState::Connecting,
            remote: None,
            connected_after: None,
            packets: 0,
            bytes: 0,
            dropped: 0,
            lost: 0,
            loss: 0.0,
            nacks: 0,
            plis: 0,
            rtt: None,
            estimate_bps: None,
            starts: 0,
        }
    }
}

/// One viewer of one stream. Dropping it leaves: the browser is told, and nothing of the viewer remains.
#[derive(Debug)]
pub struct Viewer {
    ufrag: String,
    lobby: Arc<Lobby>,
    snapshot: watch::Receiver<ViewerSnapshot>,
    events: mpsc::Receiver<ViewerEvent>,
}

impl Viewer {
    pub(super) fn new(
        ufrag: String,
        lobby: Arc<Lobby>,
        snapshot: watch::Receiver<ViewerSnapshot>,
        events: mpsc::Receiver<ViewerEvent>,
    ) -> Self {
        Viewer { ufrag, lobby, snapshot, events }
    }

    /// The viewer's numbers now.
    pub fn snapshot(&self) -> ViewerSnapshot {
        self.snapshot.borrow().clone()
    }

    /// A receiver for the viewer's numbers, to wait on or to keep after the viewer is gone.
    pub fn watch(&self) -> watch::Receiver<ViewerSnapshot> {
        self.snapshot.clone()
    }

    /// Waits for the next event; `None` after [`ViewerEvent::Ended`]. Safe to cancel.
    pub async fn event(&mut self) -> Option<ViewerEvent> {
        self.events.recv().await
    }
}

impl Drop for Viewer {
    fn drop(&mut self) {
        self.lobby.leave(&self.ufrag);
    }
}

/// Decides when a viewer's bandwidth counts as too small.
#[derive(Debug)]
pub(super) struct BandwidthWatch {
    short_since: Option<Instant>,
    last_event: Option<Instant>,
    interval: Duration,
}

/// How long an estimate must stay under the stream's bitrate: shorter dips are the estimator at work.
const SHORT_FOR: Duration = Duration::from_secs(3);

impl BandwidthWatch {
    pub fn new(interval: Duration) -> Self {
        BandwidthWatch { short_since: None, last_event: None, interval }
    }

    /// True when an event is due, given the stream's bitrate and the estimate, both in bits per second.
    pub fn check(&mut self, now: Instant, stream_bps: u64, estimate_bps: u64) -> bool {
        if estimate_bps >= stream_bps {
            self.short_since = None;
            return false;
        }
        let since = *self.short_since.get_or_insert(now);
        let rested = self.last_event.is_none_or(|last| now.duration_since(last) >= self.interval);
        let due = rested && now.duration_since(since) >= SHORT_FOR;
        if due {
            self.last_event = Some(now);
        }
        due
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn bandwidth_must_stay_short_and_events_are_rare() {
        let start = Instant::now();
        let at = |s: u64| start + Duration::from_secs(s);
        let mut watch = BandwidthWatch::new(Duration::from_secs(10));
        let mut events = vec![];
        for second in 0..40 {
            let estimate = if (5..7).contains(&second) || second < 2 { 2_000 } else { 500 };
            if watch.check(at(second), 1_000, estimate) {
                events.push(second);
            }
        }
        // short from 2 to 4 is too brief; from 7 on it stays short
        assert_eq!(events, [10, 20, 30]);
    }
}
