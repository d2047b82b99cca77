//! Recordings whose sound is transcoded more slowly than it comes: a machine that has too much to do.

use std::path::Path;
use std::time::Duration;

use crate::film;
use crate::film::Film;
use crate::support::{Home, Media, Setup, decodes, probe};
use serde_json::json;

/// A server that takes `pause` for each 20 ms of a WebM's sound.
fn slow(home: &Home, pause: Duration) -> Setup {
    let setup = film::setup(home, [Film::VP8]).set("record_min_free_space=0").set("stream_record_policy=streamName");
    let template = format!(
        "webmmux name=mux offset-to-zero=true ! filesink location={{location}} buffer-mode=unbuffered\n\
        [video vp8] {{video_in}} ! mux.video_0\n\
        [audio opus] {{audio_in}} ! identity sleep-time={} ! opusdec ! audioconvert ! audioresample ! \
        capsfilter caps={{audio_caps}} ! vorbisenc ! mux.audio_0\n",
        pause.as_micros()
    );
    std::fs::write(home.path().join("pipelines/record-webm.launch"), template).unwrap();
    setup
}

fn judged(file: &Path, frames: u64) -> Media {
    decodes(file);
    let media = probe(file);
    assert!(media.video.len() as u64 + 1 >= frames, "{} pictures of {frames}", media.video.len());
    media
}

/// What is still to be transcoded when a recording is ended is waited for, as long as something comes of it.
#[test]
fn a_recording_is_waited_for() {
    let home = Home::new();
    let mut weir = slow(&home, Duration::from_millis(75)).start();
    weir.tolerate("stream interrupted");
    weir.tolerate("pull has no source");
    weir.pull(&Film::VP8.uri(), "a", true);
    weir.wait_frames("a", 120);
    let session = weir.stream("a").unwrap()["mediaSessionId"].clone();
    let counted = weir.frames("a");
    weir.done("/rest-api/stream/stopRecording", &json!({"mediaSessionId": session}));
    let media = judged(&home.records().join("a.webm"), counted.0);
    let (sound, sent) = (Media::end(&media.audio), counted.1 as f64 / 50.0);
    assert!(sound > sent - 0.1, "{sound} s of the sound's {sent} s");
    assert_eq!(weir.get("/rest-api/recordings").json()[0]["recovered"], json!(false));
}

/// With no time left the file is in place all the same, with every picture and the sound there is.
#[test]
fn a_server_that_stops_leaves_the_end_of_the_sound_out() {
    let home = Home::new();
    let mut weir = slow(&home, Duration::from_millis(200)).set("shutdown_timeout=3s").start();
    weir.announce("the end of the sound is missing");
    weir.pull(&Film::VP8.uri(), "a", true);
    weir.wait_frames("a", 120);
    let counted = weir.frames("a");
    let (status, took) = weir.stop();
    assert_eq!(status.code(), Some(0), "after {took:?}");
    let media = judged(&home.records().join("a.webm"), counted.0);
    let sound = Media::end(&media.audio);
    assert!(sound < 3.0 && sound > 0.3, "{sound} s of sound");
    assert_eq!(home.names("").len(), 1);
}
