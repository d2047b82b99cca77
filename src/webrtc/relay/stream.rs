//! A watched stream: takes each packet once, keeps what viewers need, and wakes the shards that have viewers.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::backlog::Edge;
use super::gop::GopCache;
use super::history::{History, Read};
use super::keyframe::starts_keyframe;
use super::packet::{Kind, MAX_PAYLOAD, Packet, RtpPacket, Tracks};
use super::timeline::{Timeline, rate_of};
use super::waker::ShardWaker;

/// Called when the stream should produce a keyframe. Runs on a shard's thread: it must only send and return.
pub type KeyframeRequest = Box<dyn Fn() + Send + Sync>;

/// How a stream enters the relay.
pub struct StreamConfig {
    /// Name for logs.
    pub name: String,
    /// What its packets hold.
    pub tracks: Tracks,
    /// Asks upstream for a keyframe, where upstream can be asked.
    pub on_keyframe_request: Option<KeyframeRequest>,
}

impl fmt::Debug for StreamConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StreamConfig").field("name", &self.name).field("tracks", &self.tracks).finish_non_exhaustive()
    }
}

/// Bounds of a stream, from the relay's configuration.
#[derive(Debug, Clone, Copy)]
pub(super) struct StreamBounds {
    pub queue_packets: usize,
    pub gop_bytes: usize,
    pub keyframe_interval: Duration,
}

/// A stream's numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct StreamSnapshot {
    /// Viewers that get packets now.
    pub viewers: usize,
    /// Packets taken, both tracks.
    pub packets: u64,
    /// Payload bytes taken, both tracks.
    pub bytes: u64,
    /// Packets refused: of a track the stream does not have, empty, or over [`MAX_PAYLOAD`].
    pub refused: u64,
    /// Packets a shard was too late for, counted once for each shard.
    pub dropped: u64,
    /// Payload bits per second, both tracks, over the last second or so.
    pub bitrate_bps: u64,
    /// Packets since the last keyframe, kept for late viewers.
    pub gop_packets: usize,
    /// Payload bytes of those.
    pub gop_bytes: usize,
    /// Keyframes asked for upstream, after throttling.
    pub keyframe_requests: u64,
}

/// What a viewer starts with.
#[derive(Debug)]
pub(super) struct Start {
    /// The packets since the last keyframe.
    pub packets: std::collections::VecDeque<Arc<Packet>>,
    /// The newest of them.
    pub edge: Option<Edge>,
    /// Number of the first live packet that is not among them.
    pub next: u64,
}

/// A stream as shards and viewers share it.
pub(super) struct Shared {
    pub id: u64,
    config: StreamConfig,
    keyframe_interval: Duration,
    inner: Mutex<Inner>,
    head: AtomicU64,
    closed: AtomicBool,
    /// Viewers by shard.
    attached: Box<[AtomicUsize]>,
    wakers: Arc<[ShardWaker]>,
    refused: AtomicU64,
    dropped: AtomicU64,
    bitrate: AtomicU64,
    keyframe_requests: AtomicU64,
}

struct Inner {
    timeline: Timeline,
    history: History,
    gop: GopCache,
    meter: Meter,
    packets: u64,
    bytes: u64,
    last_request: Option<Instant>,
}

impl Shared {
    pub fn new(id: u64, config: StreamConfig, bounds: StreamBounds, wakers: Arc<[ShardWaker]>) -> Self {
        let inner = Inner {
            timeline: Timeline::default(),
            history: History::new(bounds.queue_packets),
            gop: GopCache::new(bounds.gop_bytes),
            meter: Meter::default(),
            packets: 0,
            bytes: 0,
            last_request: None,
        };
        Shared {
            id,
            config,
            keyframe_interval: bounds.keyframe_interval,
            inner: Mutex::new(inner),
            head: AtomicU64::new(0),
            closed: AtomicBool::new(false),
            attached: wakers.iter().map(|_| AtomicUsize::new(0)).collect(),
            wakers,
            refused: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
            bitrate: AtomicU64::new(0),
            keyframe_requests: AtomicU64::new(0),
        }
    }

    /// The lock is held for the time it takes to move one packet, or to copy a list of references: never over I/O.
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn name(&self) -> &str {
        &self.config.name
    }

    pub fn tracks(&self) -> &Tracks {
        &self.config.tracks
    }

    /// Number of the next packet; grows with every push.
    pub fn head(&self) -> u64 {
        self.head.load(SeqCst)
    }

    pub fn is_closed(&self) -> bool {
        self.closed.load(SeqCst)
    }

    /// Payload bits per second, both tracks; 0 before the first second is over.
    pub fn bitrate(&self) -> u64 {
        self.bitrate.load(Relaxed)
    }

    /// Packets from number `cursor` on, for one shard.
    pub fn since(&self, cursor: u64) -> Read {
        let read = self.lock().history.since(cursor);
        self.dropped.fetch_add(read.missed, Relaxed);
        read
    }

    /// What a viewer that starts now gets first.
    pub fn start(&self) -> Start {
        let inner = self.lock();
        let packets = inner.gop.packets();
        Start { edge: packets.back().map(|packet| Edge::at(packet)), packets, next: inner.history.head() }
    }

    /// From now on the shard is woken for this stream.
    pub fn attach(&self, shard: usize) {
        self.attached[shard].fetch_add(1, SeqCst);
    }

    pub fn detach(&self, shard: usize) {
        self.attached[shard].fetch_sub(1, SeqCst);
    }

    /// Asks upstream for a keyframe, unless that was done a moment ago.
    pub fn request_keyframe(&self, now: Instant) {
        {
            let mut inner = self.lock();
            let recent =
                inner.last_request.is_some_and(|at| now.saturating_duration_since(at) < self.keyframe_interval);
            if recent {
                return;
            }
            inner.last_request = Some(now);
        }
        self.keyframe_requests.fetch_add(1, Relaxed);
        if let Some(request) = &self.config.on_keyframe_request {
            request();
        }
    }

    fn push(&self, kind: Kind, packets: impl IntoIterator<Item = RtpPacket>) {
        let arrival = Instant::now();
        let mut inner = self.lock();
        for packet in packets {
            if self.config.tracks.clock_rate(kind).is_none() || !(1..=MAX_PAYLOAD).contains(&packet.payload.len()) {
                self.refused.fetch_add(1, Relaxed);
            } else {
                inner.push(&self.config.tracks, kind, packet, arrival);
            }
        }
        if let Some(bitrate) = inner.meter.read(arrival) {
            self.bitrate.store(bitrate, Relaxed);
        }
        self.head.store(inner.history.head(), SeqCst);
        drop(inner);
        self.wake();
    }

    fn stands_at(&self, time: Duration) {
        let now = Instant::now();
        self.lock().timeline.stands_at(time, now);
    }

    fn wake(&self) {
        for (waker, viewers) in self.wakers.iter().zip(&self.attached) {
            if viewers.load(SeqCst) > 0 {
                waker.wake();
            }
        }
    }

    fn snapshot(&self) -> StreamSnapshot {
        let inner = self.lock();
        StreamSnapshot {
            viewers: self.attached.iter().map(|viewers| viewers.load(SeqCst)).sum(),
            packets: inner.packets,
            bytes: inner.bytes,
            refused: self.refused.load(Relaxed),
            dropped: self.dropped.load(Relaxed),
            bitrate_bps: self.bitrate(),
            gop_packets: inner.gop.len(),
            gop_bytes: inner.gop.bytes(),
            keyframe_requests: self.keyframe_requests.load(Relaxed),
        }
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stream").field("name", &self.config.name).finish_non_exhaustive()
    }
}

impl Inner {
    fn push(&mut self, tracks: &Tracks, kind: Kind, packet: RtpPacket, arrival: Instant) {
        let placed = self.timeline.place(kind, rate_of(tracks, kind), packet.timestamp, packet.time, arrival);
        let starts = |codec| starts_keyframe(codec, &packet.payload);
        let key = kind == Kind::Video && tracks.video.is_some_and(starts) && self.gop.is_new_key(placed.ts);
        self.packets += 1;
        self.bytes += packet.payload.len() as u64;
        self.meter.add(packet.payload.len());
        let packet = Arc::new(Packet {
            kind,
            payload: packet.payload,
            ts: placed.ts,
            marker: packet.marker,
            key,
            wallclock: placed.wallclock,
            arrival,
        });
        if kind == Kind::Video {
            self.gop.push(&packet);
        }
        self.history.push(packet);
    }
}

/// Measures bits per second over windows of about a second.
#[derive(Debug, Default)]
struct Meter {
    since: Option<Instant>,
    bytes: u64,
}

impl Meter {
    fn add(&mut self, bytes: usize) {
        self.bytes += bytes as u64;
    }

    /// The rate of the window that has just ended, if one has.
    fn read(&mut self, now: Instant) -> Option<u64> {
        let since = *self.since.get_or_insert(now);
        let elapsed = now.saturating_duration_since(since);
        if elapsed < Duration::from_secs(1) {
            return None;
        }
        let bits = u128::from(self.bytes) * 8 * 1000 / elapsed.as_millis().max(1);
        *self = Meter { since: Some(now), bytes: 0 };
        Some(u64::try_from(bits).unwrap_or(u64::MAX))
    }
}

/// A stream in the relay. Dropping it ends its viewers with [`EndReason::StreamEnded`](super::EndReason::StreamEnded).
#[derive(Debug)]
pub struct RelayStream {
    shared: Arc<Shared>,
}

impl RelayStream {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        RelayStream { shared }
    }

    pub(super) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Says that what is live now stands at this running time, before the first packets are pushed: they may be of the
    /// past. Later calls change nothing.
    pub fn stands_at(&self, time: Duration) {
        self.shared.stands_at(time);
    }

    /// Hands one packet of a track to every viewer. Callable from any thread; it does not wait for viewers: a shard
    /// that falls further behind than [`RelayConfig::queue_packets`](super::RelayConfig::queue_packets) loses the
    /// oldest packets, which [`StreamSnapshot::dropped`] counts. A packet that cannot be sent at all is counted in
    /// [`StreamSnapshot::refused`].
    pub fn push(&self, kind: Kind, packet: RtpPacket) {
        self.shared.push(kind, [packet]);
    }

    /// As [`RelayStream::push`] for all packets of a frame at once: one lock and one wake-up.
    pub fn push_list(&self, kind: Kind, packets: impl IntoIterator<Item = RtpPacket>) {
        self.shared.push(kind, packets);
    }

    /// The stream's numbers now.
    pub fn snapshot(&self) -> StreamSnapshot {
        self.shared.snapshot()
    }
}

impl Drop for RelayStream {
    fn drop(&mut self) {
        self.shared.closed.store(true, SeqCst);
        self.shared.wake();
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::packet::{AudioCodec, VideoCodec};
    use super::*;

    fn shared(requests: Arc<AtomicUsize>) -> Shared {
        let config = StreamConfig {
            name: "s".into(),
            tracks: Tracks { video: Some(VideoCodec::Vp8), audio: Some(AudioCodec::Opus) },
            on_keyframe_request: Some(Box::new(move || {
                requests.fetch_add(1, Relaxed);
            })),
        };
        let bounds = StreamBounds { queue_packets: 8, gop_bytes: 1000, keyframe_interval: Duration::from_millis(500) };
        Shared::new(1, config, bounds, Arc::new([]))
    }

    fn rtp(payload: &[u8], ms: u64) -> RtpPacket {
        let time = Duration::from_millis(ms);
        RtpPacket { payload: payload.into(), timestamp: (ms * 90) as u32, time, marker: true }
    }

    #[test]
    fn keeps_the_group_and_the_queue() {
        let stream = shared(Arc::default());
        stream.push(Kind::Video, [rtp(&[0x10, 0x00], 0), rtp(&[0x00, 0x00], 0), rtp(&[0x10, 0x01], 33)]);
        stream.push(Kind::Audio, [rtp(&[1], 20)]);
        let start = stream.start();
        assert_eq!((start.packets.len(), start.next), (3, 4));
        assert!(start.packets[0].key && !start.packets[1].key);
        assert_eq!(stream.since(0).packets.len(), 4);
        for ms in 0..20 {
            stream.push(Kind::Audio, [rtp(&[1], 40 + ms * 20)]);
        }
        assert_eq!(stream.since(4).missed, 12);
        let snapshot = stream.snapshot();
        assert_eq!((snapshot.packets, snapshot.dropped, snapshot.gop_packets), (24, 12, 3));
    }

    #[test]
    fn refuses_what_cannot_be_sent() {
        let stream = shared(Arc::default());
        stream.push(Kind::Video, [rtp(&[], 0), rtp(&[0; MAX_PAYLOAD + 1], 0)]);
        assert_eq!((stream.snapshot().refused, stream.head()), (2, 0));
    }

    #[test]
    fn one_keyframe_request_an_interval() {
        let requests = Arc::new(AtomicUsize::new(0));
        let stream = shared(Arc::clone(&requests));
        let now = Instant::now();
        for ms in (0..2000).step_by(10) {
            stream.request_keyframe(now + Duration::from_millis(ms));
        }
        assert_eq!(requests.load(Relaxed), 4);
        assert_eq!(stream.snapshot().keyframe_requests, 4);
    }

    #[test]
    fn measures_the_bitrate() {
        let mut meter = Meter::default();
        let now = Instant::now();
        assert_eq!(meter.read(now), None);
        meter.add(125_000);
        assert_eq!(meter.read(now + Duration::from_millis(999)), None);
        assert_eq!(meter.read(now + Duration::from_millis(1000)), Some(1_000_000));
    }
}
