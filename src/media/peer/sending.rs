//! A peer that sends one of our streams to another server.
//!
//! webrtcbin has a sink pad for each branch of the template; the transceivers behind them are told what they send before
//! the offer is made, as no frame has come yet that says it. Frames come once the connection stands.

use std::sync::atomic::AtomicU64;

use gstreamer_app::AppSrc;

use super::offering::{PICTURES, SOUND};
use super::*;
use crate::media::fanout::{Consumer, Fanout, Link};
use crate::media::payloader::{Into, Nothing};
use crate::media::track::Track;

/// A stream's place in a peer. Dropping it leaves.
pub struct Sending {
    _link: Link,
    dropped: Arc<AtomicU64>,
}

impl Sending {
    /// Frames that came faster than they could be sent.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(std::sync::atomic::Ordering::Relaxed)
    }
}

impl Peer {
    /// Starts a peer that wants to send tracks like `tracks`, and gives its offer. Its clock is `fanout`'s time line.
    ///
    /// # Errors
    /// See [`MediaError`].
    pub async fn offer_to_send(
        pipelines: &Pipelines,
        launch: Launch,
        stream: &StreamName,
        fanout: &Fanout,
        tracks: &[Track],
        options: &PeerOptions,
    ) -> Result<(Self, String), MediaError> {
        let peer = Self::start(pipelines, launch, Parse::Whole, stream, None, options).await?;
        identity::show(&peer.bin);
        follow_clock(&peer.pipeline.gst, fanout);
        for track in tracks {
            peer.prepare(track)?;
        }
        let offer = peer.offer().await?;
        Ok((peer, offer))
    }

    /// Tells the transceiver of a track's branch what it sends.
    fn prepare(&self, track: &Track) -> Result<(), MediaError> {
        let payloader: gst::Element = self.pipeline.element(&format!("{}_pay", track.kind.label()))?;
        let ssrc: u32 = rand::random();
        payloader.set_property("ssrc", ssrc);
        let sink = payloader.static_pad("src").and_then(|pad| pad.peer());
        let sink = sink.ok_or_else(|| unlinked("a payloader is not linked to the peer"))?;
        let transceiver: gst_webrtc::WebRTCRTPTransceiver = sink.property("transceiver");
        // AAC leaves as Opus.
        let codec = if track.codec == Codec::Aac { Codec::Opus } else { track.codec.clone() };
        let format = PICTURES.iter().chain(&SOUND).find(|format| format.codec == codec);
        let format = format.ok_or_else(|| unlinked("a track's codec cannot be sent"))?;
        let mut structure = format.structure(track.kind);
        structure.set("ssrc", ssrc);
        if let Some(id) = track.profile_level_id {
            structure.set("profile-level-id", format!("{id:06x}"));
        }
        let caps = gst::Caps::builder_full().structure(structure).build();
        transceiver.set_codec_preferences(Some(&caps));
        transceiver.set_direction(gst_webrtc::WebRTCRTPTransceiverDirection::Sendonly);
        transceiver.set_property("do-nack", track.kind == Kind::Video);
        Ok(())
    }

    /// Sends the tracks of `kinds` from now on, beginning with the running GOP. What the remote side asks for keyframes is
    /// asked of the stream's source.
    ///
    /// # Errors
    /// [`MediaError::NoElement`] for a template without its inputs.
    pub fn send(&self, fanout: &Fanout, kinds: &[Kind]) -> Result<Sending, MediaError> {
        let dropped = Arc::new(AtomicU64::new(0));
        let consumer = |kind: Kind| -> Result<Box<dyn Consumer>, MediaError> {
            if !kinds.contains(&kind) {
                return Ok(Box::new(Nothing));
            }
            let input: AppSrc = self.pipeline.element(&format!("{}_in", kind.label()))?;
            if kind == Kind::Video {
                pass_wishes(&input, fanout);
            }
            // As for viewers: sound that was before is of no use.
            let from = if kind == Kind::Audio { fanout.latest() } else { 0 };
            Ok(Box::new(Into { input, from, dropped: dropped.clone() }))
        };
        let link = fanout.join(consumer(Kind::Video)?, consumer(Kind::Audio)?);
        Ok(Sending { _link: link, dropped })
    }
}

fn unlinked(reason: &str) -> MediaError {
    MediaError::Negotiation { what: "offer", reason: reason.to_owned() }
}

/// Makes the pipeline's running time the stream's: frames come with theirs, and are not to wait for a clock that began
/// later.
fn follow_clock(pipeline: &gst::Pipeline, fanout: &Fanout) {
    let clock = gst::SystemClock::obtain();
    let now = clock.time();
    pipeline.use_clock(Some(&clock));
    pipeline.set_start_time(gst::ClockTime::NONE);
    pipeline.set_base_time(now.saturating_sub(gst::ClockTime::from_nseconds(fanout.latest())));
}

/// The remote side's requests for keyframes end at the source of the pipeline: they go on from there.
fn pass_wishes(input: &AppSrc, fanout: &Fanout) {
    let Some(pad) = input.static_pad("src") else { return };
    let fanout = fanout.clone();
    pad.add_probe(gst::PadProbeType::EVENT_UPSTREAM, move |_, info| {
        let wish = info.event().and_then(|event| event.structure().map(|what| what.has_name("GstForceKeyUnit")));
        if wish == Some(true) {
            fanout.request_keyframe();
        }
        gst::PadProbeReturn::Ok
    });
}
