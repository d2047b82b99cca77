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
    /// Starts a peer that wants to send tracks like `tracks`, and gives its offer. Frames keep the distances they have on `fanout`'s time
    /// line.
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
        let late = peer.lateness(fanout);
        for track in tracks {
            peer.delay(track.kind, late)?;
            peer.prepare(track)?;
        }
        let offer = peer.offer().await?;
        Ok((peer, clock::announced(&offer)))
    }

    /// How far the pipeline's running time is past the stream's, nanoseconds.
    fn lateness(&self, fanout: &Fanout) -> i64 {
        let running = self.pipeline.gst.current_running_time().unwrap_or_default();
        running.nseconds().cast_signed() - fanout.latest().cast_signed()
    }

    /// Gives the frames of a track the pipeline's time for the stream's, which may be older than what a timestamp can count.
    fn delay(&self, kind: Kind, nanoseconds: i64) -> Result<(), MediaError> {
        let input: AppSrc = self.pipeline.element(&format!("{}_in", kind.label()))?;
        let pad = input.static_pad("src").ok_or_else(|| unlinked("an input has no pad"))?;
        pad.set_offset(nanoseconds);
        Ok(())
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

/// Lets a pipeline that has not begun count from [`CLOCK_BEGINS`] on: frames of the past have a time too.
pub(super) fn set_clock(pipeline: &gst::Pipeline) {
    let clock = gst::SystemClock::obtain();
    pipeline.use_clock(Some(&clock));
    pipeline.set_start_time(gst::ClockTime::NONE);
    let begins = gst::ClockTime::from_seconds(CLOCK_BEGINS.as_secs());
    pipeline.set_base_time(clock.time().saturating_sub(begins));
}

/// Lets what webrtcbin is given go on at once: it would wait for the time of each frame, and a frame is as late as it is.
pub(super) fn hurry(element: &gst::Element) {
    if element.factory().is_some_and(|factory| factory.name() == "clocksync") {
        element.set_property("sync", false);
    }
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
