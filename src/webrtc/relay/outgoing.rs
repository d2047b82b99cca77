//! What one viewer is sent: its own payload types, SSRCs, sequence numbers and timestamps around shared payloads.

use std::sync::Arc;
use std::time::{Duration, Instant};

use str0m::Rtc;
use str0m::media::{Mid, Pt};
use str0m::rtp::{RtpWrite, Ssrc};

use super::backlog::{Backlog, Edge, Labels};
use super::packet::{Kind, Packet};
use super::stream::Start;

/// How long, and how many, packets can be repeated for a NACK. str0m keeps one reference and one header for each;
/// the payloads are the stream's.
const RTX_AGE: Duration = Duration::from_millis(1500);
const RTX_PACKETS: usize = 768;
/// Share of all bytes that may be repeats. Past it NACKs go unanswered: a viewer cannot multiply what it is sent.
const RTX_RATIO: f32 = 0.25;

/// How long a keyframe that a viewer asked for may take before the viewer is started at the last one instead: pulled
/// sources cannot be asked, and the next keyframe may be ten seconds away.
const KEYFRAME_PATIENCE: Duration = Duration::from_millis(700);
/// Least time between two starts of a viewer: each repeats up to a whole group of pictures.
const RESTART_INTERVAL: Duration = Duration::from_secs(3);

/// One track of one viewer.
#[derive(Debug)]
pub(super) struct Track {
    pub mid: Mid,
    pub pt: Pt,
    pub ssrc: Ssrc,
    pub rtx: Option<Ssrc>,
    /// Number of the next packet. Starts under 2^15, so that a receiver that misses the first packets still counts
    /// the rollovers right (RFC 3711, 3.3.1).
    pub seq: u64,
    /// Added to the stream's timestamps.
    pub offset: u32,
    pub declared: bool,
}

/// The sending side of a viewer.
#[derive(Debug)]
pub(super) struct Outgoing {
    tracks: [Option<Track>; 2],
    backlog: Backlog,
    labels: Labels,
    edge: Option<Edge>,
    /// Live packets before this number came with the start.
    next: u64,
    /// Whether the video the viewer has got can be decoded up to here.
    in_step: bool,
    /// Since when the viewer has been asking for a keyframe in vain.
    asked: Option<Instant>,
    started: Instant,
    /// How often the viewer was started at a keyframe of the past.
    pub starts: u64,
    /// Live packets not sent because the viewer waits for a keyframe.
    pub dropped: u64,
}

impl Outgoing {
    pub fn new(tracks: [Option<Track>; 2], now: Instant) -> Self {
        Outgoing {
            tracks,
            backlog: Backlog::none(now),
            labels: Labels::default(),
            edge: None,
            next: 0,
            in_step: false,
            asked: None,
            started: now,
            starts: 0,
            dropped: 0,
        }
    }

    /// Starts (again) at the last keyframe.
    pub fn start(&mut self, start: Start, bits_per_second: u64, now: Instant) {
        self.next = self.next.max(start.next);
        self.started = now;
        self.asked = None;
        self.in_step = !start.packets.is_empty();
        if self.tracks[super::packet::index(Kind::Video)].is_some() && self.in_step {
            self.edge = start.edge;
            self.backlog = Backlog::start(start.packets, bits_per_second, now);
            self.starts += 1;
        }
    }

    /// The video after packets were lost inside the server cannot be decoded until the next start or keyframe.
    pub fn out_of_step(&mut self, missed: u64) {
        self.in_step = false;
        self.dropped += missed;
        self.asked.get_or_insert(self.started);
    }

    /// Whether nothing of a track has been written: the session must be drained before, see [`Outgoing::write`].
    pub fn is_silent(&self, kind: Kind) -> bool {
        self.tracks[super::packet::index(kind)].as_ref().is_some_and(|track| !track.declared)
    }

    /// Writes a live packet, or queues it behind the backlog. True when the session must be drained before the next
    /// write: see [`Outgoing::write`].
    pub fn live(&mut self, rtc: &mut Rtc, number: u64, packet: &Arc<Packet>) -> bool {
        if number < self.next || self.tracks[super::packet::index(packet.kind)].is_none() {
            return false;
        }
        if packet.kind == Kind::Audio {
            return self.write(rtc, packet, (packet.ts, packet.wallclock));
        }
        self.edge = Some(Edge::at(packet));
        if packet.key {
            self.asked = None;
            self.in_step = true;
        }
        if !self.in_step {
            self.dropped += 1;
            return false;
        }
        if self.backlog.is_active() {
            self.in_step = self.backlog.follow(packet);
            return false;
        }
        let label = self.labels.of(packet.ts, (packet.ts, packet.wallclock));
        self.write(rtc, packet, label)
    }

    /// Writes the next packet of the backlog. `None` when none may go now, else as [`Outgoing::live`].
    pub fn catch_up(&mut self, rtc: &mut Rtc, now: Instant) -> Option<bool> {
        let packet = self.backlog.take(now)?;
        let wanted = self.edge.map_or((packet.ts, packet.wallclock), |edge| edge.label(now));
        let label = self.labels.of(packet.ts, wanted);
        Some(self.write(rtc, &packet, label))
    }

    /// When the backlog wants to be served.
    pub fn due(&self) -> Option<Instant> {
        self.backlog.due()
    }

    /// The viewer cannot decode what it has and asks for a keyframe.
    pub fn keyframe_wanted(&mut self, now: Instant) {
        if !self.backlog.is_active() {
            self.asked.get_or_insert(now);
        }
    }

    /// Whether a viewer that needs a keyframe should be started at the last one, since no new one has come.
    pub fn needs_restart(&self, now: Instant) -> bool {
        let over = |since: Instant, wait| now.saturating_duration_since(since) >= wait;
        let in_vain = self.asked.is_some_and(|asked| over(asked, KEYFRAME_PATIENCE));
        in_vain && over(self.started, RESTART_INTERVAL) && !self.backlog.is_active()
    }

    /// Hands a packet to str0m. True for the first of a track: the session must be drained before it, and again before
    /// anything else is written. str0m makes a sender report right after a track's declaration, and only a packet that
    /// is already on its way gives that report a timestamp; one that waits behind others leaves it at zero, which a
    /// browser needs three more reports to get over.
    fn write(&mut self, rtc: &mut Rtc, packet: &Packet, (ts, wallclock): (u32, Instant)) -> bool {
        let Some(track) = &mut self.tracks[super::packet::index(packet.kind)] else { return false };
        let mut api = rtc.direct_api();
        let first = !track.declared;
        if first {
            let tx = api.declare_stream_tx(track.ssrc, track.rtx, track.mid, None);
            // the stream's own rate is what there is to send; pacing it by the estimate would only queue it here
            tx.set_unpaced(true);
            tx.set_rtx_cache(RTX_PACKETS, RTX_AGE, Some(RTX_RATIO));
            track.declared = true;
        }
        let Some(tx) = api.stream_tx(&track.ssrc) else { return false };
        let payload = Arc::clone(&packet.payload);
        let write = RtpWrite::new(track.pt, track.seq.into(), ts.wrapping_add(track.offset), wallclock, payload);
        tx.write_rtp(write.marker(packet.marker).nackable(track.rtx.is_some()));
        track.seq += 1;
        first
    }
}
