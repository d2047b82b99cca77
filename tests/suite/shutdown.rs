//! SIGTERM: recordings are finished and the program ends in time, whatever its sources do. And the log.

use std::time::Duration;

use crate::support;
use crate::support::{Clip, Dumb, Home, HookServer, Nginx, Publisher, Reply, Signal, Weir, decodes, probe, wait_until};
use serde_json::{Value, json};
use weir::hook::Method;

fn recording(home: &Home, nginx: &Nginx, arguments: &[&str]) -> Weir {
    let setup = home.setup().set("stream_record_policy=streamName");
    let weir = arguments.iter().fold(setup, |setup, argument| setup.arg(argument)).start();
    weir.pull(&nginx.uri("a"), "a", true);
    weir.wait_frames("a", 40);
    home.wait_writing();
    weir
}

/// Stops it; it must end with 0 within `limit`.
fn stops(weir: Weir, limit: Duration) {
    let (status, took) = weir.stop();
    println!("ended after {took:?}");
    assert_eq!(status.code(), Some(0));
    assert!(took < limit, "{took:?}");
}

/// Stops the source and its server in their tracks, and waits until no frame comes any more.
fn stall(weir: &Weir, nginx: &Nginx, publisher: &Publisher) {
    publisher.signal(Signal::STOP);
    nginx.signal(Signal::STOP);
    wait_until("the stream to stand still", || {
        let before = weir.frames("a");
        std::thread::sleep(Duration::from_millis(300));
        weir.frames("a") == before
    });
}

/// The one recording is in place and whole.
fn finished(home: &Home, frames: usize) {
    assert_eq!(home.names(""), ["a.mp4"]);
    let file = &home.finished()[0];
    decodes(file);
    let media = probe(file);
    assert!(media.video.len() >= frames, "{} frames", media.video.len());
    assert!((media.duration - media.video.len() as f64 / 25.0).abs() < 0.2, "{}", media.duration);
}

#[test]
fn a_recording_is_finished() {
    let (home, nginx) = (Home::new(), Nginx::start());
    let _publisher = Publisher::start(Clip::LONG, &nginx.uri("a"));
    let weir = recording(&home, &nginx, &[]);
    weir.signal(Signal::TERM);
    let (status, log) = weir.ended();
    assert_eq!(status.code(), Some(0));
    finished(&home, 15);
    let at =
        |text: &str| log.iter().position(|line| line.contains(text)).unwrap_or_else(|| panic!("{text} in {log:#?}"));
    let order = [
        "shutting down",
        "shutdown: recordings are finished",
        "shutdown: pulls are stopped",
        "shutdown: REST is closed",
        "shutdown: all is ended",
    ];
    assert!(order.windows(2).all(|two| at(two[0]) < at(two[1])), "{log:#?}");
    assert!(log[at("stream ended:")].contains("stream ended: Requested stream shutdown"), "{log:#?}");
    assert!(log[at("recording finished")].contains("recovered=false"));
}

#[test]
fn ctrl_c_does_the_same() {
    let (home, nginx) = (Home::new(), Nginx::start());
    let _publisher = Publisher::start(Clip::LONG, &nginx.uri("a"));
    let weir = recording(&home, &nginx, &[]);
    weir.signal(Signal::INT);
    assert_eq!(weir.ended().0.code(), Some(0));
    finished(&home, 15);
}

#[test]
fn a_source_that_stalls_does_not_hold_it_up() {
    let (home, nginx) = (Home::new(), Nginx::start());
    let publisher = Publisher::start(Clip::LONG, &nginx.uri("a"));
    let weir = recording(&home, &nginx, &[]);
    stall(&weir, &nginx, &publisher);
    stops(weir, Duration::from_secs(10));
    finished(&home, 15);
}

#[test]
fn agents_that_dial_do_not_hold_it_up() {
    let home = Home::new();
    let silent = Dumb::start(b"");
    let mut weir = home.start();
    weir.tolerate("pull has no source");
    for name in ["a", "b", "c", "d"] {
        weir.pull(&format!("{}-{name}", silent.uri()), name, true);
    }
    weir.pull(&support::dead_port(), "dead", true);
    weir.wait_agent("dead", "RECONNECTING");
    stops(weir, Duration::from_secs(3));
}

#[test]
fn an_idle_server_ends_at_once_even_with_a_connection_open() {
    let home = Home::new();
    let weir = home.start();
    let _idle = std::net::TcpStream::connect(("127.0.0.1", weir.port())).unwrap();
    stops(weir, Duration::from_secs(2));
}

#[test]
fn new_work_is_refused_while_it_drains() {
    let (home, nginx, hooks) = (Home::new(), Nginx::start(), HookServer::start());
    let _publisher = Publisher::start(Clip::LONG, &nginx.uri("a"));
    home.hooks("defaultApp", &hooks, &[Method::StreamStatusEvent]);
    let mut weir = recording(&home, &nginx, &[]);
    weir.announce("a call failed: the server is shutting down");
    // A hook server that takes its time makes the drain last; a connection that is open by then hears of it.
    hooks.wait("StreamStatusEvent", |body| body["status"] == "PUBLISHING");
    hooks.answers_to("StreamStatusEvent", Reply::Slow(Duration::from_secs(2)));
    let mut open = std::net::TcpStream::connect(("127.0.0.1", weir.port())).unwrap();
    open.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let call = |stream: &mut std::net::TcpStream, close: &str| {
        let request = format!("GET /rest-api/pull/find_all HTTP/1.1\r\nHost: h\r\n{close}\r\n");
        std::io::Write::write_all(stream, request.as_bytes()).unwrap();
    };
    call(&mut open, "");
    let mut first = [0; 12];
    std::io::Read::read_exact(&mut open, &mut first).unwrap();
    assert_eq!(&first, b"HTTP/1.1 200");
    weir.signal(Signal::TERM);
    weir.wait_log("shutting down");
    call(&mut open, "Connection: close\r\n");
    let mut rest = String::new();
    std::io::Read::read_to_string(&mut open, &mut rest).unwrap();
    assert!(rest.contains("HTTP/1.1 503") && rest.contains(r#""exception":"ShuttingDown""#), "{rest}");
    assert_eq!(weir.ended().0.code(), Some(0));
    finished(&home, 15);
}

#[test]
fn the_log_in_json_is_json_and_tells_the_life_of_a_stream() {
    let (home, nginx) = (Home::new(), Nginx::start());
    let _publisher = Publisher::start(Clip::LONG, &nginx.uri("a"));
    let weir = recording(&home, &nginx, &["--log-format", "json"]);
    weir.terminate("a");
    home.wait_finished(1);
    weir.signal(Signal::TERM);
    let (_, log) = weir.ended();
    let lines: Vec<Value> =
        log.iter().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"))).collect();
    for line in &lines {
        assert!(line["timestamp"].is_string() && line["level"] == "INFO" && line["message"].is_string(), "{line}");
    }
    for text in ["stream started by", "stream is live", "recording started", "stream ended", "recording finished"] {
        let of_text: Vec<_> = lines.iter().filter(|line| line["message"].as_str().unwrap().starts_with(text)).collect();
        assert_eq!(of_text.len(), 1, "one line for {text}");
        assert_eq!(of_text[0]["stream"], "a", "{:?}", of_text[0]);
        assert_eq!(of_text[0]["session"].as_str().map(str::len), Some(36), "{:?}", of_text[0]);
    }
}

#[test]
fn a_second_server_leaves_the_first_ones_recordings_alone() {
    let (home, nginx) = (Home::new(), Nginx::start());
    let _publisher = Publisher::start(Clip::LONG, &nginx.uri("a"));
    let weir = recording(&home, &nginx, &[]);
    let second = Home::new();
    let setup = second.setup().set(&format!("record_dir={}", home.records().display()));
    let mut other = setup.start();
    other.announce("another server writes to this record_dir");
    assert_eq!(home.names(".mp4.tmp"), ["a.mp4.tmp"], "it is being written, and is let be");
    let before = weir.frames("a").0;
    wait_until("the stream to flow on", || weir.frames("a").0 > before + 25);
    drop(other);
    stops(weir, Duration::from_secs(10));
    finished(&home, 40);
    // The lock goes with its owner.
    let _third = home.start();
}

#[test]
fn a_log_level_may_be_chosen() {
    let home = Home::new();
    let weir = home.setup().env("WEIR_LOG", "warn").arg("--log-format").arg("json").start();
    assert_eq!(weir.get("/rest-api/pull/find_all").json(), json!([]));
    assert!(weir.log().is_empty(), "{:?}", weir.log());
}
