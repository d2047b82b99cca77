//! A long life in short: everything that comes and goes does so for a while, and what it used is given back.
//!
//! `WEIR_TEST_SOAK=SECONDS` makes it long; without, it takes some rounds.

use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::leaks::{publish, settled, used, watch};
use crate::page::Page;
use crate::support::{Clip, Home, Nginx, Publisher, Setup, Signal, Weir, wait_until};

/// How long it goes on by default, after the rounds that warm up.
const SHORT: Duration = Duration::from_secs(8);
/// Megabytes that a round may add, from the first third of the rounds to the last. GStreamer 1.22 itself takes 0.05 to
/// 0.07 of them: mp4mux loses 4 KB with every fragment of a recording (`media/defects.rs`), a round records some sixteen.
const GROWTH: f64 = 0.08;
/// Megabytes by which what is measured once differs from what is measured a round later.
const NOISE: f64 = 6.0;
/// Rounds that warm up: caches, thread pools and tables have their sizes then.
const WARM: u32 = 2;

fn length() -> Duration {
    let wanted = std::env::var("WEIR_TEST_SOAK").ok();
    wanted.map_or(SHORT, |seconds| Duration::from_secs(seconds.parse().expect("WEIR_TEST_SOAK is in seconds")))
}

fn setup(home: &Home) -> Setup {
    let settings = [
        "stream_record_policy=streamName",
        "record_flash_published_streams=true",
        "publisher_linger=0",
        "rtmp_activity_timer_timeout=500",
        "pull_reconnect_initial=50",
        "pull_reconnect_max=200",
    ];
    let setup = settings.into_iter().fold(home.setup(), |setup, setting| setup.set(setting));
    // As the unit and the image have it.
    setup.env("MALLOC_ARENA_MAX", "2")
}

/// By how many megabytes the last third of what was measured lies above the first, and how many rounds lie between them.
fn grown(measured: &[f64]) -> (f64, f64) {
    let third = measured.len().div_ceil(3);
    let mean = |of: &[f64]| of.iter().sum::<f64>() / of.len() as f64;
    let (first, last) = (&measured[..third], &measured[measured.len() - third..]);
    (mean(last) - mean(first), (measured.len() - third) as f64)
}

/// The files below a folder, at any depth.
fn files(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        match entry.path() {
            path if path.is_dir() => found.extend(files(&path)),
            path => found.push(path.to_string_lossy().into_owned()),
        }
    }
    found.sort();
    found
}

/// Encoders and browsers publish, viewers and pulls come, sources are killed and come back, all is recorded and ended.
fn round(home: &Home, weir: &Weir, nginx: &mut Nginx, number: u32) {
    let (encoder, pulled) = (format!("e{number}"), format!("p{number}"));
    let publisher = Publisher::start(Clip::LONG, &weir.rtmp(&encoder));
    let source = Publisher::start(Clip::LONG, &nginx.uri(&pulled));
    weir.pull(&nginx.uri(&pulled), &pulled, true);
    let mut page = Page::established(weir);
    publish(&mut page, &format!("b{number}"));
    weir.wait_frames(&encoder, 10);
    weir.wait_frames(&pulled, 10);
    watch(&mut page, &encoder, &format!("v{number}"));
    watch(&mut page, &pulled, &format!("w{number}"));
    // Players ask for an address, and the agent leaves after them.
    let address = nginx.uri(&pulled).replace("127.0.0.1", "localhost");
    watch(&mut page, &address, &format!("x{number}"));
    // It leaves while media flows: one that is stopped before its server has answered leaves a connection behind, which
    // is rtmp2src's (`media/defects.rs`).
    wait_until("the agent to leave after its player", || weir.stream(&address).is_none());
    page.say("snapshot", &json!({"mediaSessionId": "S", "name": encoder}));
    page.hears("notifyStreamEvent");
    // A source that dies and comes back; an encoder that vanishes.
    nginx.stop();
    weir.wait_agent(&pulled, "RECONNECTING");
    drop(source);
    nginx.restart();
    let source = Publisher::start(Clip::LONG, &nginx.uri(&pulled));
    let before = weir.frames(&pulled).0;
    weir.wait_frames(&pulled, before + 10);
    drop(publisher);
    wait_until("the encoder's stream to end", || weir.stream(&encoder).is_none());
    weir.terminate(&pulled);
    drop((source, page));
    wait_until("all pipelines to end", || weir.get("/rest-api/pipelines").body == "[]");
    wait_until("the recordings to be finished", || home.files(".tmp").is_empty() && !home.files("").is_empty());
    for name in weir.get("/rest-api/recordings").json().as_array().unwrap() {
        let name = name["name"].as_str().unwrap();
        assert_eq!(weir.call("DELETE", &format!("/rest-api/recordings/{name}"), "").status, 200, "{name}");
    }
    assert_eq!(home.files(""), Vec::<std::path::PathBuf>::new());
}

fn tolerant(weir: &mut Weir) {
    // Sources are killed.
    weir.tolerate("stream interrupted");
    weir.tolerate("pull has no source");
}

#[test]
fn nothing_is_left_of_a_long_life() {
    let home = Home::new();
    let mut nginx = Nginx::start();
    let mut weir = setup(&home).start();
    tolerant(&mut weir);
    (0..WARM).for_each(|number| round(&home, &weir, &mut nginx, number));
    let (before, there) = (used(&weir), files(home.path()));
    let until = Instant::now() + length();
    let (mut number, mut measured) = (WARM, vec![before.megabytes]);
    while number == WARM || Instant::now() < until {
        round(&home, &weir, &mut nginx, number);
        measured.push(used(&weir).megabytes);
        number += 1;
    }
    let (Ok(after) | Err(after)) = settled(&weir, before);
    assert!(after.threads <= before.threads && after.descriptors <= before.descriptors, "{before:?}, {after:?}");
    let (grown, rounds) = grown(&measured);
    println!("{number} rounds, {grown:.2} MB within {rounds} of them: {measured:.1?}");
    assert!(grown < NOISE + GROWTH * rounds, "{grown:.2} MB within {rounds} rounds: {measured:.1?}");
    assert_eq!(files(home.path()), there);
    weir.stop();

    // The same once more in the next life, with GStreamer's own tracer to count what is left at its end.
    let mut weir = setup(&home).env("GST_TRACERS", "leaks").start();
    tolerant(&mut weir);
    round(&home, &weir, &mut nginx, number);
    weir.signal(Signal::TERM);
    let (status, log) = weir.ended();
    assert_eq!(status.code(), Some(0), "{log:#?}");
    assert!(log.iter().any(|line| line.contains("leaks: no GStreamer object is alive")), "{log:#?}");
}
