//! Tracks whose timestamps count from one zero.
//!
//! A jitter buffer places a track by when its packets arrive. Of a server that hands over pictures of the last seconds at
//! once, and sound of the present, that would make a compressed beginning. Where the server says that its tracks have one
//! clock (RFC 7273), a frame stands where its timestamp says. And what such a server sends again since the last keyframe, as a
//! picture was lost, is known by its time: only what is new goes on.

use std::sync::atomic::{AtomicBool, AtomicI64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_sdp::{SDPMediaRef, SDPMessageRef};
use gstreamer_webrtc::WebRTCSessionDescription;

/// What a description says whose tracks count from the zero of one clock (RFC 7273, 4.8 and 5.2).
pub const CLOCK_LINES: [&str; 2] = ["a=ts-refclk:local", "a=mediaclk:direct=0"];

/// What the clock says when the first frame is sent: it begins this far from zero, as a track may begin a little before the
/// other, and far from where the timestamps of one of them wrap.
pub const CLOCK_BEGINS: Duration = Duration::from_secs(3600);

/// No packet has come yet.
const UNSET: i64 = i64::MIN;

/// Whether the timestamps of all tracks of a description count from the zero of one clock.
pub(super) fn is_one(sdp: &SDPMessageRef) -> bool {
    let mut taken = sdp.medias().filter(|media| media.port() != 0).peekable();
    taken.peek().is_some() && taken.all(|media| media.attribute_val("mediaclk") == Some("direct=0"))
}

/// A description of ours in which every track says that it counts from the zero of one clock.
pub(super) fn announced(description: &str) -> String {
    let mut text = String::with_capacity(description.len() + 128);
    for line in description.lines() {
        let more = line.starts_with("a=mid:").then_some(CLOCK_LINES).into_iter().flatten();
        std::iter::once(line).chain(more).for_each(|line| {
            text.push_str(line);
            text.push_str("\r\n");
        });
    }
    text
}

/// Whether the remote side has agreed to send pictures.
pub(super) fn has_pictures(bin: &gst::Element) -> bool {
    let remote = bin.property::<Option<WebRTCSessionDescription>>("remote-description");
    let sends = |media: &SDPMediaRef| media.media() == Some("video") && media.port() != 0;
    remote.is_some_and(|remote| remote.sdp().medias().any(sends))
}

/// Places the packets that leave `pad` by their timestamps.
pub(super) fn place(pad: &gst::Pad) {
    let newest = AtomicI64::new(UNSET);
    pad.add_probe(gst::PadProbeType::BUFFER, move |pad, info| {
        if let Some(gst::PadProbeData::Buffer(buffer)) = &mut info.data
            && let Some(time) = timestamp(buffer).and_then(|stamp| time(pad, extended(&newest, stamp)))
        {
            let buffer = buffer.make_mut();
            buffer.set_pts(time);
            // What is sent over WebRTC is shown in the order of its decoding.
            buffer.set_dts(time);
        }
        gst::PadProbeReturn::Ok
    });
}

/// How long sound waits for the first picture. A server begins with pictures of the past: sound that went on before them would
/// begin the stream, and they would be before its beginning.
const HOLD: Duration = Duration::from_secs(3);

/// Drops the sound that comes in by `pad`, a pad that is linked to its branch, until `pictures` have begun.
pub(super) fn hold_sound(pad: &gst::Pad, pictures: &Arc<AtomicBool>) {
    let (pictures, first) = (pictures.clone(), OnceLock::new());
    let Some(frames) = depayloaded(pad) else { return };
    frames.add_probe(gst::PadProbeType::BUFFER, move |_, _| {
        let early = first.get_or_init(Instant::now).elapsed() < HOLD;
        if early && !pictures.load(Relaxed) { gst::PadProbeReturn::Handled } else { gst::PadProbeReturn::Ok }
    });
}

/// Lets every picture that comes in by `pad`, a pad that is linked to its branch, go on once only, and says when there is one.
pub(super) fn once(pad: &gst::Pad, pictures: &Arc<AtomicBool>) {
    let pictures = pictures.clone();
    let newest = AtomicI64::new(UNSET);
    let again = AtomicBool::new(false);
    let Some(frames) = depayloaded(pad) else { return };
    frames.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
        let time = info.buffer().and_then(|buffer| buffer.pts()).and_then(|time| i64::try_from(time.nseconds()).ok());
        let Some(time) = time else { return gst::PadProbeReturn::Ok };
        let before = newest.fetch_max(time, Relaxed);
        // A picture may come in several pieces of one time; all of them are new, or none.
        let known = time < before || (time == before && again.load(Relaxed));
        again.store(known, Relaxed);
        pictures.store(true, Relaxed);
        if known { gst::PadProbeReturn::Handled } else { gst::PadProbeReturn::Ok }
    });
}

/// Where the frames of a track come out of its depayloader, the first element of its branch.
fn depayloaded(pad: &gst::Pad) -> Option<gst::Pad> {
    let end = pad.peer()?.downcast::<gst::GhostPad>().ok()?.target()?;
    let first = end.parent_element()?;
    first.factory().is_some_and(|factory| factory.has_type(gst::ElementFactoryType::DEPAYLOADER)).then_some(())?;
    first.static_pad("src")
}

/// The RTP timestamp of a packet (RFC 3550, 5.1).
fn timestamp(packet: &gst::BufferRef) -> Option<u32> {
    let mut bytes = [0; 4];
    packet.copy_to_slice(4, &mut bytes).ok()?;
    Some(u32::from_be_bytes(bytes))
}

/// A timestamp beyond its 32 bits: the one nearest to the packet before.
fn extended(newest: &AtomicI64, stamp: u32) -> i64 {
    let extended = match newest.load(Relaxed) {
        UNSET => i64::from(stamp),
        before => before + i64::from(stamp.wrapping_sub(before as u32).cast_signed()),
    };
    newest.store(extended, Relaxed);
    extended
}

/// `None` before the pad knows its clock rate, and for what is before the zero.
fn time(pad: &gst::Pad, stamp: i64) -> Option<gst::ClockTime> {
    let rate = pad.current_caps()?.structure(0)?.get::<i32>("clock-rate").ok()?;
    let (stamp, rate) = (u64::try_from(stamp).ok()?, u64::try_from(rate).ok()?);
    stamp.mul_div_floor(gst::ClockTime::SECOND.nseconds(), rate).map(gst::ClockTime::from_nseconds)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn timestamps_go_on_over_the_wrap_and_back() {
        let newest = AtomicI64::new(UNSET);
        let places = [u32::MAX - 10, 5, u32::MAX - 2, 90_000].map(|stamp| extended(&newest, stamp));
        assert_eq!(places, [4_294_967_285, 4_294_967_301, 4_294_967_293, 4_295_057_296]);
    }

    #[test]
    fn one_clock_is_what_every_track_says() {
        crate::media::init().unwrap();
        let clock = |lines: [&str; 2]| {
            let [sound, picture] = lines;
            let head = "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\n";
            let text = format!(
                "{head}m=audio 9 UDP/TLS/RTP/SAVPF 111\r\n{sound}m=video 9 UDP/TLS/RTP/SAVPF 108\r\n{picture}\
                 m=video 0 UDP/TLS/RTP/SAVPF 96\r\n"
            );
            is_one(&gstreamer_sdp::SDPMessage::parse_buffer(text.as_bytes()).unwrap())
        };
        let (yes, other) = ("a=ts-refclk:local\r\na=mediaclk:direct=0\r\n", "a=mediaclk:sender\r\n");
        assert!(clock([yes, yes]));
        assert!(!clock([yes, ""]) && !clock(["", yes]) && !clock([yes, other]) && !clock(["", ""]));
    }
}
