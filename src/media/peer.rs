//! A WebRTC peer that sends us media: one webrtcbin in one pipeline, destroyed whole.
//!
//! webrtcbin answers an offer only with the transceivers it has: one is added for each m-line before the offer is set,
//! with the one payload type that is accepted in its caps. Candidates are gathered before the answer is given, as
//! the browsers' SDK reads none later. [`offering`] is the other way round: we dial and offer.

mod clock;
mod handshake;
mod identity;
mod jitter;
mod offering;
mod sending;

pub use clock::{CLOCK_BEGINS, CLOCK_LINES};
pub use handshake::{HANDSHAKE_REPEATS, MAX_REPEATED, is_handshake};
pub use offering::Agreed;
pub use sending::Sending;

use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};

use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_sdp::SDPMessage;
use gstreamer_webrtc as gst_webrtc;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::bus::BusEvent;
use super::fanout::Fanout;
use super::pipeline::{MediaError, Parse, Pipeline, TRANSITION, blocking};
use super::pipelines::Pipelines;
use super::source::{Accept, Grafter, SourceEvent};
use super::template::Launch;
use super::track::{Codec, Kind};
use crate::name::StreamName;

/// RTCP may be sent this often, so that a keyframe request leaves at once. Nanoseconds.
const RTCP_INTERVAL: u64 = 100_000_000;
/// Share of the bandwidth RTCP may have, for the same reason.
const RTCP_FRACTION: f64 = 0.2;

/// What is accepted on one m-line of an offer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receive {
    /// The track.
    pub kind: Kind,
    /// Its codec.
    pub codec: Codec,
    /// The offer's payload type for it.
    pub payload: u8,
    /// RTP clock rate, Hz.
    pub clock_rate: u32,
    /// The offer's id for the transport-wide congestion control extension: without it a browser's estimate stays at
    /// 300 kbit/s.
    pub twcc: Option<u8>,
}

/// Where and how a peer listens.
#[derive(Debug, Clone)]
pub struct PeerOptions {
    /// Addresses that become candidates.
    pub addresses: Vec<IpAddr>,
    /// First and last UDP port; (0, 0) for any.
    pub ports: (u16, u16),
}

/// What a peer said.
#[derive(Debug, Clone, PartialEq)]
pub enum PeerEvent {
    /// ICE has found a way.
    IceConnected,
    /// ICE has found none.
    IceFailed,
    /// ICE and DTLS are done.
    Connected,
    /// DTLS has failed.
    DtlsFailed,
    /// The remote side has closed the connection.
    Closed,
    /// News of its tracks.
    Source(SourceEvent),
}

/// A running peer. Dropping it stops it without waiting.
pub struct Peer {
    pipeline: Pipeline,
    bin: gst::Element,
    events: UnboundedReceiver<PeerEvent>,
    tracks: UnboundedReceiver<SourceEvent>,
    /// What it receives counts from one zero: see [`clock`].
    one_clock: Arc<AtomicBool>,
}

impl Peer {
    /// Starts a peer that receives what `lines` accept of `offer`, an entry an m-line, and gives the answer webrtcbin
    /// made, with all candidates.
    ///
    /// # Errors
    /// See [`MediaError`]; an offer webrtcbin refuses is one too.
    pub async fn receive(
        pipelines: &Pipelines,
        launch: Launch,
        stream: &StreamName,
        fanout: &Fanout,
        offer: &str,
        lines: Vec<Option<Receive>>,
        options: &PeerOptions,
    ) -> Result<(Self, String), MediaError> {
        let accept: Accept = Arc::new(|_| Ok(()));
        let peer = Self::start(pipelines, launch, Parse::Head, stream, Some((fanout, accept)), options).await?;
        let template = peer.pipeline.entry.launch.template.clone();
        let answer = timeout(TRANSITION, negotiate(&template, &peer, offer, lines)).await;
        let answer = answer.map_err(|_| MediaError::Deadline { template, what: "negotiating" })??;
        Ok((peer, answer))
    }

    /// Starts its pipeline. What it receives goes to a fan-out where one is given, as far as its judge takes it.
    async fn start(
        pipelines: &Pipelines,
        launch: Launch,
        parse: Parse,
        stream: &StreamName,
        receives: Option<(&Fanout, Accept)>,
        options: &PeerOptions,
    ) -> Result<Self, MediaError> {
        let template = launch.template.clone();
        let mut pipeline = Pipeline::build(pipelines, launch, parse, stream).await?;
        let bin: gst::Element = pipeline.element("peer")?;
        let (sender, tracks) = unbounded_channel();
        let one_clock = Arc::new(AtomicBool::new(false));
        if let Some((fanout, accept)) = receives {
            fanout.expect_source();
            let grafter = Grafter::new(&pipeline, fanout, accept, sender);
            let (one_clock, pictures) = (one_clock.clone(), Arc::new(AtomicBool::new(false)));
            bin.connect_pad_added(move |bin, pad| {
                if pad.direction() == gst::PadDirection::Src {
                    jitter::hurry_sound(pad);
                    let (one_clock, both) = (one_clock.load(Relaxed), clock::has_pictures(bin));
                    if one_clock {
                        clock::place(pad);
                    }
                    grafter.graft(pad);
                    match jitter::media(pad) {
                        Some(Kind::Video) if one_clock => clock::once(pad, &pictures),
                        Some(Kind::Audio) if one_clock && both => clock::hold_sound(pad, &pictures),
                        _ => {}
                    }
                }
            });
        } else {
            sending::set_clock(&pipeline.gst);
        }
        let (events, received) = unbounded_channel();
        watch_connection(&bin, &events);
        let (set_up, options) = (bin.clone(), options.clone());
        blocking(&template, "making the key", make_key).await?;
        blocking(&template, "setting up ICE", move || set_up_ice(&set_up, &options)).await?;
        pipeline.play().await?;
        Ok(Self { pipeline, bin, events: received, tracks, one_clock })
    }

    /// The next event; `None` never comes before the peer is dropped.
    pub async fn event(&mut self) -> Option<PeerEvent> {
        tokio::select! {
            biased;
            Some(event) = self.tracks.recv() => Some(PeerEvent::Source(event)),
            event = self.events.recv() => event,
            event = self.pipeline.events.recv() => match event? {
                BusEvent::Eos => Some(PeerEvent::Source(SourceEvent::Ended)),
                BusEvent::Error(failure) => Some(PeerEvent::Source(SourceEvent::Failed(failure))),
            },
        }
    }

    /// SHA-256 of the certificate that the remote side has shown; `None` before the handshake is done.
    pub async fn certificate_sha256(&self) -> Option<Vec<u8>> {
        let bin = self.bin.clone();
        let shown =
            blocking(&self.pipeline.entry.launch.template, "reading the certificate", move || certificate(&bin));
        let der = shown.await.ok().flatten()?;
        let mut sha = gst::glib::Checksum::new(gst::glib::ChecksumType::Sha256)?;
        sha.update(&der);
        Some(sha.digest())
    }

    /// Stops it and waits until its threads are gone and its feeders are home.
    pub async fn stop(self) {
        self.pipeline.stop().await;
    }
}

/// The remote side's certificate, DER, as the element that did the handshake has it: the transports of webrtcbin 1.22
/// do not lead there.
fn certificate(bin: &gst::Element) -> Option<Vec<u8>> {
    let handshakes = bin.downcast_ref::<gst::Bin>()?.iterate_all_by_element_factory_name("dtlssrtpdec");
    let pem = handshakes.into_iter().flatten().find_map(|element| element.property::<Option<String>>("peer-pem"))?;
    let body: String = pem.lines().filter(|line| !line.starts_with("-----")).collect();
    data_encoding::BASE64.decode(body.as_bytes()).ok()
}

fn watch_connection(bin: &gst::Element, events: &UnboundedSender<PeerEvent>) {
    let ice = events.clone();
    bin.connect_notify(Some("ice-connection-state"), move |bin, _| {
        use gst_webrtc::WebRTCICEConnectionState as State;
        let event = match bin.property::<State>("ice-connection-state") {
            State::Connected | State::Completed => PeerEvent::IceConnected,
            State::Failed => PeerEvent::IceFailed,
            _ => return,
        };
        let _ = ice.send(event);
    });
    let connection = events.clone();
    bin.connect_notify(Some("connection-state"), move |bin, _| {
        use gst_webrtc::WebRTCICEConnectionState as Ice;
        use gst_webrtc::WebRTCPeerConnectionState as State;
        let event = match bin.property::<State>("connection-state") {
            State::Connected => PeerEvent::Connected,
            State::Closed => PeerEvent::Closed,
            State::Failed if bin.property::<Ice>("ice-connection-state") == Ice::Failed => PeerEvent::IceFailed,
            State::Failed => PeerEvent::DtlsFailed,
            _ => return,
        };
        let _ = connection.send(event);
    });
    // When the page closes its connection, DTLS says so before ICE notices.
    let Some(bin) = bin.downcast_ref::<gst::Bin>() else { return };
    bin.connect_deep_element_added(|_, _, element| {
        jitter::tune(element);
        handshake::repeat(element);
        sending::hurry(element);
    });
}

/// Has GStreamer make the RSA key that all peers of this process share, which the first one would wait for in the middle
/// of its negotiation: seconds of it, where the processor is busy.
fn make_key() {
    static MADE: OnceLock<()> = OnceLock::new();
    MADE.get_or_init(|| {
        // Whoever lacks the element is told by its pipeline.
        let _ = gst::ElementFactory::make("dtlsdec").build();
    });
}

fn set_up_ice(bin: &gst::Element, options: &PeerOptions) {
    let ice: gst::Object = bin.property("ice-agent");
    if options.ports != (0, 0) {
        ice.set_property("min-rtp-port", u32::from(options.ports.0));
        ice.set_property("max-rtp-port", u32::from(options.ports.1));
    }
    // libnice would look for a router on the local network: 200 ms, a thread and descriptors for nothing.
    if ice.has_property("agent") {
        let agent: gst::glib::Object = ice.property("agent");
        for (switch, value) in [("upnp", false), ("ice-tcp", false)] {
            if agent.has_property(switch) {
                agent.set_property(switch, value);
            }
        }
    }
    for address in &options.addresses {
        let taken: bool = ice.emit_by_name("add-local-ip-address", &[&address.to_string()]);
        if !taken {
            tracing::warn!("libnice does not take the address {address} as a candidate");
        }
    }
}

async fn negotiate(
    template: &str,
    peer: &Peer,
    offer: &str,
    lines: Vec<Option<Receive>>,
) -> Result<String, MediaError> {
    let refused = |reason: &str| MediaError::Parse {
        template: template.to_owned(),
        reason: format!("webrtcbin does not take the offer: {reason}"),
        line: String::new(),
    };
    let sdp = SDPMessage::parse_buffer(offer.as_bytes()).map_err(|_| refused("it is no SDP"))?;
    if sdp.medias_len() as usize != lines.len() {
        return Err(refused("its m-lines cannot be counted"));
    }
    peer.one_clock.store(clock::is_one(&sdp), Relaxed);
    let bin = &peer.bin;
    let offer = gst_webrtc::WebRTCSessionDescription::new(gst_webrtc::WebRTCSDPType::Offer, sdp);
    let (gathered, gathering_done) = oneshot::channel();
    notify_gathered(bin, gathered);
    let prepared = bin.clone();
    let remote_set = blocking(template, "setting the offer", move || {
        lines.into_iter().for_each(|line| add_transceiver(&prepared, line));
        let (promise, done) = promised();
        prepared.emit_by_name::<()>("set-remote-description", &[&offer, &promise]);
        done
    })
    .await?;
    remote_set.await.map_err(|_| refused("no reply"))?.map_err(|reason| refused(&reason))?;
    tune_sessions(bin);
    let (promise, answered) = promised();
    bin.emit_by_name::<()>("create-answer", &[&None::<gst::Structure>, &promise]);
    let reply = answered.await.map_err(|_| refused("no reply"))?.map_err(|reason| refused(&reason))?;
    let answer = reply.and_then(|reply| reply.get::<gst_webrtc::WebRTCSessionDescription>("answer").ok());
    let answer = answer.ok_or_else(|| refused("it makes no answer"))?;
    let (promise, local_set) = promised();
    bin.emit_by_name::<()>("set-local-description", &[&answer, &promise]);
    local_set.await.map_err(|_| refused("no reply"))?.map_err(|reason| refused(&reason))?;
    let _ = gathering_done.await;
    let local: Option<gst_webrtc::WebRTCSessionDescription> = bin.property("local-description");
    let text = local.and_then(|local| local.sdp().as_text().ok());
    text.ok_or_else(|| refused("it has no local description"))
}

type Reply = Result<Option<gst::Structure>, String>;

/// A promise and what it will say.
fn promised() -> (gst::Promise, oneshot::Receiver<Reply>) {
    let (sender, receiver) = oneshot::channel();
    let promise = gst::Promise::with_change_func(move |reply| {
        let reply = match reply {
            Ok(reply) => match reply.and_then(|reply| reply.get::<gst::glib::Error>("error").ok()) {
                Some(error) => Err(error.to_string()),
                None => Ok(reply.map(|reply| reply.to_owned())),
            },
            Err(_) => Err("the promise was broken".to_owned()),
        };
        let _ = sender.send(reply);
    });
    (promise, receiver)
}

fn notify_gathered(bin: &gst::Element, gathered: oneshot::Sender<()>) {
    let gathered = std::sync::Mutex::new(Some(gathered));
    bin.connect_notify(Some("ice-gathering-state"), move |bin, _| {
        use gst_webrtc::WebRTCICEGatheringState as State;
        if bin.property::<State>("ice-gathering-state") == State::Complete {
            let sender = gathered.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take();
            if let Some(sender) = sender {
                let _ = sender.send(());
            }
        }
    });
}

fn add_transceiver(bin: &gst::Element, line: Option<Receive>) {
    use gst_webrtc::WebRTCRTPTransceiverDirection as Direction;
    let (direction, caps) = match &line {
        Some(receive) => (Direction::Recvonly, receive.caps()),
        None => (Direction::Inactive, gst::Caps::new_empty_simple("application/x-rtp")),
    };
    let transceiver: gst_webrtc::WebRTCRTPTransceiver = bin.emit_by_name("add-transceiver", &[&direction, &caps]);
    // Sound that comes late is of no use; a missing piece of a picture is.
    transceiver.set_property("do-nack", line.is_some_and(|receive| receive.kind == Kind::Video));
}

impl Receive {
    fn caps(&self) -> gst::Caps {
        gst::Caps::builder_full().structure(self.structure()).build()
    }

    fn structure(&self) -> gst::Structure {
        let name = match self.codec {
            // GStreamer's own names are in upper case.
            Codec::Opus => "OPUS".to_owned(),
            _ => self.codec.encoding_name().to_owned(),
        };
        let mut caps = gst::Structure::builder("application/x-rtp")
            .field("media", self.kind.label())
            .field("encoding-name", name)
            .field("clock-rate", i32::try_from(self.clock_rate).unwrap_or(i32::MAX))
            .field("payload", i32::from(self.payload));
        if let Some(id) = self.twcc {
            let uri = "http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01";
            caps = caps.field(format!("extmap-{id}"), uri);
        }
        if self.kind == Kind::Video {
            caps = caps.field("rtcp-fb-nack", true).field("rtcp-fb-nack-pli", true).field("rtcp-fb-ccm-fir", true);
            caps = caps.field("rtcp-fb-transport-cc", self.twcc.is_some());
        }
        caps.build()
    }
}

/// Lets RTCP go out soon. Sessions exist once the offer is set.
fn tune_sessions(bin: &gst::Element) {
    let Some(rtpbin) = bin.downcast_ref::<gst::Bin>().and_then(|bin| bin.by_name("rtpbin")) else { return };
    for id in 0..2u32 {
        let session: Option<gst::glib::Object> = rtpbin.emit_by_name("get-internal-session", &[&id]);
        if let Some(session) = session {
            session.set_property("rtcp-min-interval", RTCP_INTERVAL);
            session.set_property("rtcp-fraction", RTCP_FRACTION);
        }
    }
}
