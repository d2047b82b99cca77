//! What recordings of every format survive: SIGKILL, a disk that fills up and has room again, a directory that is taken
//! away, and tracks that come late, stop and come back.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod film;
mod support;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use film::Film;
use serde_json::{Value, json};
use support::{Clip, Home, Media, Nginx, Publisher, SOON, Setup, Weir, decodes, probe, run, wait, wait_until};

fn films(home: &Home, film: Film) -> Setup {
    film::setup(home, [film]).set("record_min_free_space=0").set("stream_record_policy=streamName")
}

fn started(setup: Setup) -> Weir {
    let mut weir = setup.start();
    weir.tolerate("stream interrupted");
    weir.tolerate("pull has no source");
    weir
}

/// What mkvinfo says of a file that can be searched.
fn searchable(file: &Path) {
    let output = run(Command::new("mkvinfo").arg("--all").arg(file), SOON);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("Cue point"), "{}: {text}", file.display());
    assert!(!text.contains("size is unknown") && !text.contains("18446744073709551615"), "{text}");
}

/// Kills a server that records a film after `frames` frames, and judges what the next one makes of it.
fn killed(film: Film, format: &str, extension: &str, frames: u64) {
    let home = Home::new();
    let weir = started(films(&home, film).set(format));
    weir.pull(&film.uri(), "a", true);
    weir.wait_frames("a", frames);
    let counted = weir.frames("a").0;
    weir.kill();
    let left = home.files(&format!(".{extension}.tmp"));
    assert_eq!((left.len(), home.names("").len()), (1, 1));
    // As it is left it plays.
    let frames = probe(&left[0]).video.len();
    let fps = film.frames_a_second();
    assert!(frames as u64 + fps >= counted, "{frames} frames of {counted} play before the repair");

    let weir = started(home.setup().set("record_min_free_space=0"));
    let line = weir.wait_log("recovered=true");
    assert!(line.contains("stream=\"a\"") || line.contains("stream=a"), "{line}");
    let file = home.records().join(format!("a.{extension}"));
    assert_eq!(home.files(""), [file.clone()]);
    decodes(&file);
    let media = probe(&file);
    let (start, end) = (Media::start(&media.video), Media::end(&media.video).max(Media::end(&media.audio)));
    println!("{extension}: {} frames of {counted}, {:.2} s", media.video.len(), media.duration);
    assert!(media.video.len() as u64 + fps >= counted, "{} frames of {counted}", media.video.len());
    assert!(media.video.len() >= frames.saturating_sub(1));
    let length = if extension == "ts" { end - start } else { end };
    assert!((media.duration - length).abs() < 0.1, "it says {} s and has {length} s", media.duration);
    if extension != "ts" {
        searchable(&file);
        let listed = weir.get("/rest-api/recordings").json()[0].clone();
        assert!((listed["duration"].as_f64().unwrap() / 1000.0 - length).abs() < 0.1, "{listed}");
        assert_eq!((&listed["recovered"], &listed["stream"]), (&json!(true), &json!("a")));
    }
    drop(weir);
    let quiet = started(home.setup().set("record_min_free_space=0"));
    assert!(!quiet.logged("recover"), "a third start has nothing to do");
}

/// How often each format is killed: more where somebody has the time (WEIR_TEST_KILLS=50).
fn kills() -> u64 {
    std::env::var("WEIR_TEST_KILLS").ok().and_then(|kills| kills.parse().ok()).unwrap_or(2)
}

/// At a moment that is another one every time.
fn moment(film: Film) -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    30 + u64::from(now.subsec_nanos() / 1000) % (film.frames() as u64 - 60)
}

#[test]
fn a_webm_that_was_killed_is_whole_and_searchable() {
    (0..kills()).for_each(|_| killed(Film::VP8, "record_formats=vp8-webm", "webm", moment(Film::VP8)));
    killed(Film::VP8_60, "record_webm_audio=opus", "webm", 300);
}

#[test]
fn a_matroska_that_was_killed_is_whole_and_searchable() {
    (0..kills()).for_each(|_| killed(Film::H264, "record_formats=h264-mkv", "mkv", moment(Film::H264)));
}

#[test]
fn a_transport_stream_that_was_killed_plays() {
    (0..kills()).for_each(|_| killed(Film::H264, "record_formats=h264-ts", "ts", moment(Film::H264)));
}
