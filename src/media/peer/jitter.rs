//! The jitter buffers that webrtcbin makes, one a track.

use gstreamer as gst;
use gstreamer::prelude::*;

use crate::media::track::Kind;

/// Longest time lost sound is waited for, milliseconds: it is not sent again.
const SOUND_LATENCY: u32 = 200;
/// Packets in a row that start a jitter buffer at once instead of after its latency.
const FASTSTART: u32 = 2;

/// Sets what webrtcbin has no property for on the elements it makes.
pub(super) fn tune(element: &gst::Element) {
    if element.factory().is_some_and(|factory| factory.name() == "rtpjitterbuffer") {
        element.set_property("faststart-min-packets", FASTSTART);
    }
}

/// What the RTP of a pad carries.
pub(super) fn media(pad: &gst::Pad) -> Option<Kind> {
    let caps = pad.current_caps().unwrap_or_else(|| pad.query_caps(None));
    let media = caps.structure(0)?.get::<&str>("media").ok()?;
    Kind::ALL.into_iter().find(|kind| kind.label() == media)
}

/// Bounds how long a track of sound is held up by a packet that is lost; `pad` is one of webrtcbin's, whose latency is that of
/// pictures.
pub(super) fn hurry_sound(pad: &gst::Pad) {
    let Some(buffer) = jitter_buffer(pad).filter(|_| media(pad) == Some(Kind::Audio)) else { return };
    if buffer.property::<u32>("latency") > SOUND_LATENCY {
        buffer.set_property("latency", SOUND_LATENCY);
    }
}

/// The jitter buffer that a pad of webrtcbin's comes from: behind the element that tells payload types apart.
fn jitter_buffer(pad: &gst::Pad) -> Option<gst::Element> {
    let mut pad = pad.clone();
    while let Some(ghost) = pad.downcast_ref::<gst::GhostPad>() {
        pad = ghost.target()?;
    }
    let before = pad.parent_element()?.static_pad("sink")?.peer()?.parent_element()?;
    before.factory().is_some_and(|factory| factory.name() == "rtpjitterbuffer").then_some(before)
}
