//! A str0m viewer and a made-up stream, in process.

#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "each of the programs that share it uses a part"
)]

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use str0m::change::{SdpAnswer, SdpOffer};
use str0m::media::{Direction, KeyframeRequestKind, MediaKind};
use str0m::net::{Protocol, Receive};
use str0m::rtp::RtpPacket as Received;
use str0m::{Candidate, Event, Input, Output, Rtc, RtcConfig};
use weir::webrtc::relay::*;

pub fn config() -> RelayConfig {
    RelayConfig {
        listen: vec![Listen { bind: Ipv4Addr::LOCALHOST.into(), advertise: None }],
        shards: 2,
        ..RelayConfig::default()
    }
}

pub fn tracks() -> Tracks {
    Tracks { video: Some(VideoCodec::H264 { profile_level_id: None }), audio: Some(AudioCodec::Opus) }
}

pub fn stream_config(requests: Option<KeyframeRequest>) -> StreamConfig {
    StreamConfig { name: "test".into(), tracks: tracks(), on_keyframe_request: requests }
}

/// What a client got of one track: extended sequence number → packet, in order of sequence.
#[derive(Default)]
pub struct Got {
    pub packets: BTreeMap<u64, (Instant, Received)>,
    pub first: Option<Instant>,
}

impl Got {
    pub fn missing(&self) -> u64 {
        let (Some((first, _)), Some((last, _))) = (self.packets.first_key_value(), self.packets.last_key_value())
        else {
            return 0;
        };
        last - first + 1 - self.packets.len() as u64
    }
}

pub struct Client {
    pub rtc: Rtc,
    pub socket: UdpSocket,
    local: SocketAddr,
    pub connected: Option<Instant>,
    pub joined: Instant,
    pub video: Got,
    pub audio: Got,
    /// Share of received RTP datagrams to throw away.
    pub loss: f64,
    pub thrown: u64,
    random: u64,
    pub closed: bool,
    pub keep: bool,
    pub count: u64,
    pub answer: String,
    /// Sends the first datagrams from another address, whose answers get lost.
    pub decoy: Option<(UdpSocket, usize)>,
    /// Keeps its part of the DTLS handshake to itself.
    pub mute_dtls: bool,
    /// Receives no more than this many bits per second, behind a queue of 200 ms.
    pub limit: Option<f64>,
    queue: VecDeque<(Instant, SocketAddr, Vec<u8>)>,
    line_free: Instant,
}

pub fn offer(rtc: &mut Rtc, direction: Direction) -> (String, str0m::change::SdpPendingOffer) {
    let mut api = rtc.sdp_api();
    api.add_media(MediaKind::Audio, direction, None, None, None);
    api.add_media(MediaKind::Video, direction, None, None, None);
    let (offer, pending) = api.apply().unwrap();
    (offer.to_sdp_string(), pending)
}

impl Client {
    pub fn join(relay: &Relay, stream: &RelayStream) -> (Client, Viewer) {
        Self::join_with(relay, stream, |offer| offer)
    }

    pub fn join_with(relay: &Relay, stream: &RelayStream, edit: impl Fn(String) -> String) -> (Client, Viewer) {
        let mut viewer = None;
        let client = Self::join_by(|offer| {
            let joined = relay.join(stream, &edit(offer), &JoinOptions::default()).unwrap();
            viewer = Some(joined.viewer);
            joined.answer
        });
        (client, viewer.unwrap())
    }

    /// A client that receives sound and pictures, its offer answered by `answer`.
    pub fn join_by(answer: impl FnOnce(String) -> String) -> Client {
        Self::joined_at(Ipv4Addr::LOCALHOST.into(), answer)
    }

    /// The same on another address of the host.
    pub fn joined_at(address: IpAddr, answer: impl FnOnce(String) -> String) -> Client {
        Self::new(address).offering(Direction::RecvOnly, answer)
    }

    /// One that offers to send both. It has nothing to send.
    pub fn publish_by(answer: impl FnOnce(String) -> String) -> Client {
        Self::new(Ipv4Addr::LOCALHOST.into()).offering(Direction::SendOnly, answer)
    }

    /// One that receives what another side offers; its answer too.
    pub fn answering(address: IpAddr, offer: &str) -> (Client, String) {
        let mut client = Self::new(address);
        let answer = client.rtc.sdp_api().accept_offer(SdpOffer::from_sdp_string(offer).unwrap()).unwrap();
        (client, answer.to_sdp_string())
    }

    fn offering(mut self, direction: Direction, answer: impl FnOnce(String) -> String) -> Client {
        let (sdp, pending) = offer(&mut self.rtc, direction);
        self.answer = answer(sdp);
        let parsed = SdpAnswer::from_sdp_string(&self.answer).unwrap();
        self.rtc.sdp_api().accept_answer(pending, parsed).unwrap();
        self.joined = Instant::now();
        self
    }

    fn new(address: IpAddr) -> Client {
        let mut rtc = RtcConfig::new().set_rtp_mode(true).build(Instant::now());
        let socket = UdpSocket::bind((address, 0)).unwrap();
        socket.set_nonblocking(true).unwrap();
        let local = socket.local_addr().unwrap();
        rtc.add_local_candidate(Candidate::host(local, "udp").unwrap());
        Client {
            rtc,
            socket,
            local,
            connected: None,
            joined: Instant::now(),
            video: Got::default(),
            audio: Got::default(),
            loss: 0.0,
            thrown: 0,
            random: 0x9e37_79b9_7f4a_7c15,
            closed: false,
            keep: true,
            count: 0,
            answer: String::new(),
            decoy: None,
            mute_dtls: false,
            limit: None,
            queue: VecDeque::new(),
            line_free: Instant::now(),
        }
    }

    pub fn step(&mut self) {
        let mut buffer = [0; 2000];
        self.drain();
        while let Ok((len, source)) = self.socket.recv_from(&mut buffer) {
            let bytes = &buffer[..len];
            let is_rtp = (128..192).contains(&bytes[0]) && !(64..96).contains(&(bytes[1] & 0x7f));
            if is_rtp && self.throw() {
                self.thrown += 1;
                continue;
            }
            self.enqueue(source, bytes);
            self.deliver();
        }
        self.deliver();
        let _ = self.rtc.handle_input(Input::Timeout(Instant::now()));
        self.drain();
    }

    fn enqueue(&mut self, source: SocketAddr, bytes: &[u8]) {
        let now = Instant::now();
        self.line_free = self.line_free.max(now);
        if let Some(limit) = self.limit {
            if self.line_free > now + Duration::from_millis(200) {
                self.thrown += 1;
                return;
            }
            self.line_free += Duration::from_secs_f64(bytes.len() as f64 * 8.0 / limit);
        }
        self.queue.push_back((self.line_free, source, bytes.to_vec()));
    }

    fn deliver(&mut self) {
        while self.queue.front().is_some_and(|(at, ..)| *at <= Instant::now()) {
            let Some((_, source, bytes)) = self.queue.pop_front() else { return };
            let Ok(receive) = Receive::new(Protocol::Udp, source, self.local, &bytes) else { continue };
            let _ = self.rtc.handle_input(Input::Receive(Instant::now(), receive));
            self.drain();
        }
    }

    fn throw(&mut self) -> bool {
        self.random = self.random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        ((self.random >> 33) as f64 / (1u64 << 31) as f64) < self.loss
    }

    fn drain(&mut self) {
        loop {
            match self.rtc.poll_output() {
                // RFC 7983: 20 to 63 is DTLS.
                Ok(Output::Transmit(t)) if self.mute_dtls && (20..64).contains(&t.contents[0]) => {}
                Ok(Output::Transmit(t)) => {
                    let socket = match &mut self.decoy {
                        Some((decoy, left)) if *left > 0 => {
                            *left -= 1;
                            &*decoy
                        }
                        _ => &self.socket,
                    };
                    let _ = socket.send_to(&t.contents, t.destination);
                }
                Ok(Output::Event(event)) => self.event(event),
                Ok(Output::Timeout(_)) => return,
                Err(_) => {
                    self.closed = true;
                    return;
                }
            }
        }
    }

    fn event(&mut self, event: Event) {
        match event {
            Event::Connected => self.connected = Some(Instant::now()),
            Event::Closed => self.closed = true,
            Event::RtpPacket(packet) => {
                self.count += 1;
                if self.keep {
                    let video = *packet.header.payload_type != 111;
                    let got = if video { &mut self.video } else { &mut self.audio };
                    got.first.get_or_insert(Instant::now());
                    got.packets.insert(*packet.seq_no, (Instant::now(), packet));
                }
            }
            _ => {}
        }
    }

    pub fn ask_keyframe(&mut self) {
        let ssrc = self.video.packets.values().next().map(|(_, p)| p.header.ssrc).unwrap();
        self.rtc.direct_api().stream_rx(&ssrc).unwrap().request_keyframe(KeyframeRequestKind::Pli);
    }
}

pub fn drive(
    clients: &mut [&mut Client],
    timeout: Duration,
    mut until: impl FnMut(&mut [&mut Client]) -> bool,
) -> bool {
    let end = Instant::now() + timeout;
    while Instant::now() < end {
        for client in clients.iter_mut() {
            client.step();
        }
        if until(clients) {
            return true;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    false
}

/// A made-up H.264 + Opus stream, pushed in real time from two threads.
pub struct Feeder {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Clone, Copy)]
pub struct Shape {
    pub gop: u64,
    pub packets_per_frame: u64,
    pub payload: usize,
}

pub const MBIT: Shape = Shape { gop: 60, packets_per_frame: 4, payload: 1040 };

pub fn frame(shape: Shape, number: u64, time: Duration) -> Vec<RtpPacket> {
    let key = number.is_multiple_of(shape.gop);
    let timestamp = (time.as_micros() as u64 * 9 / 100) as u32;
    let packet = |payload: Vec<u8>, marker| RtpPacket { payload: payload.into(), timestamp, time, marker };
    let mut out = vec![];
    if key {
        out.push(packet(vec![0x67, 0x42, 0xe0, 0x1f], false));
    }
    let nal = if key { 5 } else { 1 };
    for part in 0..shape.packets_per_frame {
        let (first, last) = (part == 0, part + 1 == shape.packets_per_frame);
        let mut payload = vec![number as u8; shape.payload];
        payload[0] = 0x7c;
        payload[1] = nal | if first { 0x80 } else { 0 } | if last { 0x40 } else { 0 };
        out.push(packet(payload, last));
    }
    out
}

/// As the measurements of Janus and webrtcbin: 1.00 Mbit/s in 151 packets a second.
pub const BENCH: Shape = Shape { gop: 60, packets_per_frame: 5, payload: 833 };

impl Feeder {
    pub fn start(stream: Arc<RelayStream>, shape: Shape) -> Feeder {
        let stop = Arc::new(AtomicBool::new(false));
        let zero = Instant::now();
        let (s, st) = (Arc::clone(&stop), Arc::clone(&stream));
        let video = std::thread::spawn(move || {
            for number in 0.. {
                let time = Duration::from_nanos(number * 1_000_000_000 / 30);
                std::thread::sleep((zero + time).saturating_duration_since(Instant::now()));
                if s.load(SeqCst) {
                    return;
                }
                st.push_list(Kind::Video, frame(shape, number, time));
            }
        });
        let s = Arc::clone(&stop);
        let audio = std::thread::spawn(move || {
            for number in 0u64.. {
                let time = Duration::from_millis(number * 20);
                std::thread::sleep((zero + time).saturating_duration_since(Instant::now()));
                if s.load(SeqCst) {
                    return;
                }
                let timestamp = (number * 960) as u32 + 12345;
                stream.push(Kind::Audio, RtpPacket { payload: vec![7; 80].into(), timestamp, time, marker: false });
            }
        });
        Feeder { stop, threads: vec![video, audio] }
    }
}

impl Drop for Feeder {
    fn drop(&mut self) {
        self.stop.store(true, SeqCst);
        for thread in self.threads.drain(..) {
            thread.join().unwrap();
        }
    }
}

/// Waits for a viewer's next event without a runtime.
pub fn next_event(viewer: &mut Viewer, timeout: Duration) -> Option<ViewerEvent> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(timeout, viewer.event()).await.ok().flatten() })
}

/// `Threads` of this process, and its open files.
pub fn resources() -> (usize, usize) {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let threads = status.lines().find_map(|l| l.strip_prefix("Threads:")).unwrap().trim().parse().unwrap();
    (threads, std::fs::read_dir("/proc/self/fd").unwrap().count())
}

pub fn by_ssrc(got: &Got) -> HashMap<u32, usize> {
    let mut map = HashMap::new();
    for (_, packet) in got.packets.values() {
        *map.entry(*packet.header.ssrc).or_default() += 1;
    }
    map
}
