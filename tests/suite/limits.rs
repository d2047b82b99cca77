//! How much there may be at once: what is one too many is refused with a reason, counted, and in nobody's way.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Stdio;
use std::time::Duration;

use crate::page::Page;
use crate::support;
use crate::support::{Clip, Home, Process, Publisher, SOON, Setup, Weir, dead_port, wait, wait_until};
use serde_json::{Value, json};
use tungstenite::Message;
use tungstenite::protocol::frame::coding::CloseCode;

const OFFER: &str = include_str!("../../src/webrtc/offers/chromium156_publish.sdp");

/// How often the limit has refused somebody.
fn refusals(weir: &Weir, limit: &str) -> u64 {
    let text = weir.get("/metrics").body;
    let name = format!("weir_refusals_total{{limit=\"{limit}\"}} ");
    text.lines()
        .find_map(|line| line.strip_prefix(&name))
        .unwrap_or_else(|| panic!("{limit} in {text}"))
        .parse()
        .unwrap()
}

fn uri(weir: &Weir, name: &str) -> String {
    format!("rtmp://127.0.0.1:{}/live/{name}", weir.port_of("rtmp.port"))
}

fn player(weir: &Weir, name: &str) -> Process {
    Process::start("ffmpeg", |command| {
        command.args(["-v", "error", "-nostdin", "-i", &uri(weir, name), "-map", "0", "-c", "copy", "-f", "null", "-"]);
        command.stdout(Stdio::null()).stderr(Stdio::null());
    })
}

fn socket(weir: &Weir) -> TcpStream {
    let socket = TcpStream::connect(("127.0.0.1", weir.port())).unwrap();
    socket.set_read_timeout(Some(SOON)).unwrap();
    socket
}

/// The first thing a browser is told.
fn first(page: &mut Page) -> Value {
    let Message::Text(text) = page.next() else { panic!("no text") };
    serde_json::from_str::<Value>(&text).unwrap()["data"][0].clone()
}

/// Everything the server says until it closes.
fn to_end(mut socket: &TcpStream) -> String {
    let mut text = Vec::new();
    let _ = socket.read_to_end(&mut text);
    String::from_utf8(text).unwrap()
}

#[test]
fn connections_of_rest() {
    let home = Home::new();
    let mut weir = home.setup().set("rest_max_connections=2").start();
    weir.announce("refused: the server has no room for more");
    let mut held: Vec<TcpStream> = (0..2).map(|_| socket(&weir)).collect();
    // Both have their places once they are answered.
    for socket in &mut held {
        socket.write_all(b"GET /rest-api/ports HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
        let mut answer = [0; 12];
        socket.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"HTTP/1.1 200");
    }
    let answer = weir.get("/rest-api/ports");
    assert_eq!(weir.refused(&answer, "/rest-api/ports"), (503, "LimitReached".into()));
    assert!(answer.body.contains("rest_max_connections is 2"), "{}", answer.body);
    // Who watches the server is let in, and who is refused is not kept.
    assert_eq!(weir.get("/health/live").status, 200);
    assert!(refusals(&weir, "rest_max_connections") >= 2);
    let silent = socket(&weir);
    assert_eq!(to_end(&silent), "");
    drop(held);
    wait_until("a place", || weir.get("/rest-api/ports").status == 200);
}

#[test]
fn requests_of_an_address() {
    let home = Home::new();
    let mut weir = home.setup().set("rest_max_requests=5").start();
    weir.announce("refused: the server has no room for more");
    let mut socket = socket(&weir);
    let request = b"GET /rest-api/ports HTTP/1.1\r\nHost: h\r\n\r\n";
    (0..29).for_each(|_| socket.write_all(request).unwrap());
    socket.write_all(b"GET /rest-api/ports HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n").unwrap();
    let answers = to_end(&socket);
    let count = |status: &str| answers.matches(&format!("HTTP/1.1 {status}")).count();
    assert!((5..25).contains(&count("200")) && count("200") + count("429") == 30, "{answers}");
    assert_eq!(answers.matches("retry-after: 1").count(), count("429"));
    assert!(answers.contains(r#""exception":"TooManyRequests""#) && answers.contains("rest_max_requests is 5"));
    assert_eq!(refusals(&weir, "rest_max_requests"), count("429") as u64);
    wait_until("the next second", || weir.get("/rest-api/ports").status == 200);
}

#[test]
fn times_of_requests() {
    let home = Home::new();
    let weir = home.setup().set("rest_body_timeout=300").set("rest_header_timeout=300").start();
    let mut slow = socket(&weir);
    slow.write_all(b"POST /rest-api/stream/find HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\n{").unwrap();
    let answer = to_end(&slow);
    assert!(answer.starts_with("HTTP/1.1 408") && answer.contains("rest_body_timeout"), "{answer}");
    let mut slower = socket(&weir);
    slower.write_all(b"GET /rest-api/ports HTTP/1.1\r\nHost:").unwrap();
    to_end(&slower);
    // An idle one.
    to_end(&socket(&weir));
    assert_eq!(refusals(&weir, "rest_body_timeout"), 1);
    assert!(refusals(&weir, "rest_header_timeout") >= 1);
}

#[test]
fn streams_and_agents() {
    let home = Home::new();
    let mut weir = home
        .setup()
        .set("max_streams=2")
        .set("max_pull_agents=1")
        .set("pull_reconnect_initial=3600s")
        .set("pull_reconnect_max=3600s")
        .start();
    weir.announce("refused: the server has no room for more");
    weir.tolerate("pull has no source");
    let _publisher = Publisher::start(Clip::LONG, &uri(&weir, "one"));
    weir.wait_frames("one", 5);
    weir.pull(&dead_port(), "two", false);
    let pull =
        |name: &str| weir.post("/rest-api/pull/rtmp/pull", &json!({"uri": dead_port(), "localStreamName": name}));
    let refused = pull("three");
    assert_eq!(weir.refused(&refused, "/rest-api/pull/rtmp/pull"), (503, "LimitReached".into()));
    assert!(refused.body.contains("max_pull_agents is 1"), "{}", refused.body);

    let mut page = Page::established(&weir);
    page.publish("S1", "three", OFFER);
    assert_eq!(page.status(), ("FAILED".into(), "the server has no room for more: max_streams is 2".into()));
    let mut second = Publisher::start(Clip::LONG, &uri(&weir, "three"));
    assert!(!second.ended(SOON).success());
    assert!(weir.stream("three").is_none());
    assert_eq!((refusals(&weir, "max_streams"), refusals(&weir, "max_pull_agents")), (2, 1));
    // A source that a player asks for is an agent as well.
    page.say("playStream", &json!({"mediaSessionId": "P", "name": dead_port(), "sdp": OFFER}));
    assert_eq!(page.status(), ("FAILED".into(), "The server has no room for more".into()));

    weir.terminate("two");
    assert_eq!(pull("three").status, 200);
    weir.terminate("three");
}

#[test]
fn viewers_of_a_stream() {
    let home = Home::new();
    let mut weir = home.setup().set("max_viewers_per_stream=1").start();
    weir.announce("refused: the server has no room for more");
    let (_one, _other) =
        (Publisher::start(Clip::LONG, &uri(&weir, "one")), Publisher::start(Clip::LONG, &uri(&weir, "other")));
    weir.wait_frames("one", 30);
    weir.wait_frames("other", 30);
    let mut first = player(&weir, "one");
    let players = || weir.post("/rest-api/stream/find", &json!({"published": false, "status": "PLAYING"}));
    wait_until("a player", || players().status == 200);
    assert!(!player(&weir, "one").ended(SOON).success(), "the second player of a stream");
    let mut page = Page::established(&weir);
    page.say("playStream", &json!({"mediaSessionId": "P", "name": "one", "sdp": OFFER}));
    assert_eq!(page.status(), ("FAILED".into(), "the server has no room for more: max_viewers_per_stream is 1".into()));
    assert_eq!(refusals(&weir, "max_viewers_per_stream"), 2);
    let _second = player(&weir, "other");
    wait_until("two players", || players().status == 200 && players().json().as_array().unwrap().len() == 2);
    assert!(first.runs());
    first.signal(support::Signal::KILL);
    first.ended(SOON);
    wait_until("its place", || {
        let mut again = player(&weir, "one");
        wait_until("it plays or is refused", || !again.runs() || players().json().as_array().unwrap().len() == 2);
        again.runs()
    });
}

#[test]
fn recordings() {
    let home = Home::new();
    let setup = home.setup().set("max_recordings=1").set("record_flash_published_streams=true");
    let mut weir = setup.start();
    weir.announce("refused: the server has no room for more");
    let first = Publisher::start(Clip::LONG, &uri(&weir, "one"));
    home.wait_writing();
    weir.announce("recording failed: the server has no room for more: max_recordings is 1");
    let _second = Publisher::start(Clip::LONG, &uri(&weir, "two"));
    weir.wait_frames("two", 30);
    weir.wait_log("max_recordings is 1");
    assert_eq!(home.files(".mp4.tmp").len(), 1);
    assert_eq!(refusals(&weir, "max_recordings"), 1);
    first.leave();
    home.wait_finished(1);
    let _third = Publisher::start(Clip::LONG, &uri(&weir, "three"));
    home.wait_writing();
}

#[test]
fn browsers_and_what_they_send() {
    let home = Home::new();
    let mut weir = home.setup().set("ws_max_connections=1").set("ws_max_sessions=1").set("ws_max_message=64K").start();
    weir.announce("refused: the server has no room for more");
    let mut page = Page::established(&weir);
    let mut second = Page::open(&weir);
    let fail = second.hears("fail");
    assert_eq!(fail["info"], "the server has no room for more: ws_max_connections is 1");
    assert_eq!(second.closed(), CloseCode::Again);
    page.publish("S1", "one", OFFER);
    page.hears("setRemoteSDP");
    page.publish("S2", "two", OFFER);
    assert_eq!(page.status(), ("FAILED".into(), "the server has no room for more: ws_max_sessions is 1".into()));
    page.raw(&"x".repeat(70_000));
    assert_eq!(page.closed(), CloseCode::Size);
    for limit in ["ws_max_connections", "ws_max_sessions", "ws_max_message"] {
        assert_eq!(refusals(&weir, limit), 1, "{limit}");
    }
    wait("a place for another", SOON, || {
        let mut page = Page::open(&weir);
        page.say("connection", &json!({"appKey": "defaultApp"}));
        first(&mut page)["sessionId"].is_string().then_some(())
    });
}

/// A server that may open `soft` descriptors, and raise that to `hard`.
fn descriptors(setup: Setup, soft: u32, hard: u32) -> Weir {
    setup.through(&["prlimit", &format!("--nofile={soft}:{hard}"), "--"]).start()
}

#[test]
fn descriptors_are_raised_and_the_last_are_for_rest() {
    let home = Home::new();
    let mut weir = descriptors(home.setup(), 128, 160);
    assert!(weir.get("/metrics").body.contains("\nprocess_max_fds 160"));
    weir.announce("refused: the server has no room for more");
    // Browsers come until none is let in.
    let mut pages: Vec<Page> = Vec::new();
    let refused = wait("a refusal", Duration::from_secs(30), || {
        let mut page = Page::open(&weir);
        page.say("connection", &json!({"appKey": "defaultApp"}));
        let info = first(&mut page)["info"].as_str().map(str::to_owned);
        pages.push(page);
        info
    });
    assert!(refused.contains("reserved_descriptors is 64"), "{refused}");
    assert!(pages.len() > 5, "{}", pages.len());
    let answer = weir.post("/rest-api/pull/rtmp/pull", &json!({"uri": dead_port(), "localStreamName": "a"}));
    assert_eq!(weir.refused(&answer, "/rest-api/pull/rtmp/pull"), (503, "NoDescriptors".into()));
    let ready = weir.get("/health/ready");
    assert_eq!((ready.status, &ready.json()["reasons"][0]["code"]), (503, &json!("descriptors")));
    let open: Vec<Value> = serde_json::from_str(&weir.get("/rest-api/connection/find_all").body).unwrap();
    assert!(open.len() > 5);
    assert!(refusals(&weir, "reserved_descriptors") >= 2);
    drop(pages);
    wait_until("descriptors are free again", || weir.get("/health/ready").status == 200);
    assert!(!weir.logged("cannot accept"), "{:?}", weir.log());
}
