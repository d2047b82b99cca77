//! What a fan-out tells of its tracks.

#![allow(clippy::unwrap_used)]

use gstreamer_app::AppSrc;

use super::*;

/// Frames with these presentation times, in milliseconds, 40 ms apart in decoding; what is told of the track.
fn told(caps: &str, times: &[u64]) -> Vec<bool> {
    crate::media::init().unwrap();
    let line = format!("appsrc name=in format=time caps=\"{caps}\" ! appsink name=out sync=false");
    let pipeline = gst::parse::launch(&line).unwrap().downcast::<gst::Pipeline>().unwrap();
    let input = pipeline.by_name("in").unwrap().downcast::<AppSrc>().unwrap();
    let sink = pipeline.by_name("out").unwrap().downcast::<AppSink>().unwrap();
    let (sender, tracks) = channel();
    assert!(Fanout::default().feed(Kind::Video, &sink, move |track| sender.send(track.b_frames).unwrap()));
    pipeline.set_state(gst::State::Playing).unwrap();
    for (at, time) in times.iter().enumerate() {
        let mut buffer = gst::Buffer::from_slice([0; 4]);
        let ms = gst::ClockTime::from_mseconds;
        buffer.get_mut().unwrap().set_pts(ms(1000 + time));
        buffer.get_mut().unwrap().set_dts(ms(900 + 40 * at as u64));
        input.push_buffer(buffer).unwrap();
    }
    input.end_of_stream().unwrap();
    let end = pipeline.bus().unwrap().timed_pop_filtered(gst::ClockTime::from_seconds(10), &[gst::MessageType::Eos]);
    assert!(end.is_some());
    pipeline.set_state(gst::State::Null).unwrap();
    tracks.try_iter().collect()
}

#[test]
fn b_frames_are_seen_where_nothing_announces_them() {
    assert_eq!(told("video/x-h264", &[0, 40, 80, 120]), [false]);
    assert_eq!(told("video/x-h264", &[0, 40, 200, 80, 120, 160, 360, 240]), [false, true]);
    assert_eq!(told("video/x-h265", &[0, 40, 200, 80]), [false, true]);
}

#[test]
fn a_jitter_of_times_is_no_b_frame_where_the_codec_has_none() {
    let baseline = "video/x-h264,stream-format=avc,codec_data=(buffer)0142e01fffe1";
    for caps in ["video/x-vp8", baseline] {
        assert!(told(caps, &[0, 40, 39, 80]).iter().all(|b_frames| !b_frames), "{caps}");
    }
}
