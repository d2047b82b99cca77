//! What pages say and hear about streams that have media: each message and status of WCS's protocol, in order.

use std::net::UdpSocket;
use std::time::{Duration, Instant};

use crate::page::Page;
use crate::sender::Sender;
use crate::support::{Clip, Home, Publisher, SOON, Weir, wait_until};
use crate::viewer::{Client, drive};
use data_encoding::BASE64;
use serde_json::{Value, json};
use tungstenite::Message;

/// Offers as Chromium makes them.
const PUBLISH: &str = include_str!("../../src/webrtc/offers/chromium156_publish.sdp");
const PLAY: &str = include_str!("../../src/webrtc/offers/chromium156_play.sdp");

/// A page whose stream `name` is live; its session is called the same.
fn publishing(weir: &Weir, name: &str) -> (Page, Sender) {
    let (mut page, sender) = (Page::established(weir), Sender::new());
    page.publish(name, name, &sender.offer());
    assert_eq!(page.next_but_ping().0, "setRemoteSDP", "the answer comes first");
    sender.answered(page.last_sdp().unwrap());
    let (message, data) = page.next_but_ping();
    assert_eq!((message.as_str(), &data["status"]), ("notifyStreamStatusEvent", &json!("PUBLISHING")));
    assert_eq!(
        (&data["mediaSessionId"], &data["name"], &data["published"]),
        (&json!(name), &json!(name), &json!(true))
    );
    (page, sender)
}

/// A page that plays `name` as `session`; gives its PLAYING too.
fn playing(weir: &Weir, name: &str, session: &str) -> (Page, Client, Value) {
    let mut page = Page::established(weir);
    let mut client = Client::join_by(|offer| {
        page.play(session, name, &offer);
        assert_eq!(page.next_but_ping().0, "setRemoteSDP", "the answer comes first");
        page.last_sdp().unwrap().to_owned()
    });
    assert!(drive(&mut [&mut client], SOON, |clients| clients[0].count > 20), "no packets came");
    let (message, status) = page.next_but_ping();
    assert_eq!((message.as_str(), &status["status"]), ("notifyStreamStatusEvent", &json!("PLAYING")));
    assert_eq!((&status["mediaSessionId"], &status["published"]), (&json!(session), &json!(false)));
    let (message, event) = page.next_but_ping();
    assert_eq!((message.as_str(), &event["type"]), ("notifyStreamEvent", &json!("resize")));
    assert_eq!(event["payload"], json!({"streamerVideoWidth": 160, "streamerVideoHeight": 120}));
    (page, client, status)
}

fn failed(info: &str) -> (String, String) {
    ("FAILED".into(), info.into())
}

#[test]
fn a_publishers_events_reach_its_viewers() {
    let home = Home::new();
    let weir = home.start();
    let (mut publisher, _sender) = publishing(&weir, "s");
    let (mut viewer, _client, status) = playing(&weir, "s", "v1");
    assert_eq!((&status["audioState"]["muted"], &status["videoState"]["muted"]), (&json!(false), &json!(false)));
    for (kind, payload) in [
        ("audioMuted", Value::Null),
        ("videoMuted", Value::Null),
        ("videoUnmuted", Value::Null),
        ("data", json!({"count": 23, "text": "é"})),
    ] {
        let mut event = json!({"mediaSessionId": "s", "type": kind});
        if !payload.is_null() {
            event["payload"] = payload.clone();
        }
        publisher.say("sendStreamEvent", &event);
        let heard = viewer.hears("notifyStreamEvent");
        assert_eq!((&heard["mediaSessionId"], &heard["type"]), (&json!("v1"), &json!(kind)), "under the viewer's id");
        if !payload.is_null() {
            assert_eq!(heard["payload"], payload);
        }
    }
    let (_late, _client, status) = playing(&weir, "s", "v2");
    assert_eq!((&status["audioState"]["muted"], &status["videoState"]["muted"]), (&json!(true), &json!(false)));
    let stream = weir.post("/rest-api/stream/find", &json!({"name": "s", "published": true})).json();
    assert_eq!((&stream[0]["audioState"]["muted"], &stream[0]["videoState"]["muted"]), (&json!(true), &json!(false)));

    viewer.say("sendStreamEvent", &json!({"mediaSessionId": "s", "type": "audioUnmuted"}));
    assert_eq!(viewer.hears("fail")["info"], "Stream not found", "a stream's events are its publisher's");
    viewer.say("sendStreamEvent", &json!({"mediaSessionId": "s"}));
    assert_eq!(viewer.hears("fail")["info"], "sendStreamEvent has no usable data");
}

#[test]
fn a_stream_is_available_and_pictured() {
    let home = Home::new();
    let weir = home.start();
    let (_publisher, _sender) = publishing(&weir, "s");
    let mut page = Page::established(&weir);
    page.say("availableStream", &json!({"mediaSessionId": "a1", "name": "s"}));
    assert_eq!(page.hears("availableStream"), json!({"id": "a1", "status": "true"}), "a string, as the SDK compares");
    page.say("availableStream", &json!({"mediaSessionId": "a2", "name": "nobody"}));
    assert_eq!(page.hears("availableStream"), json!({"id": "a2", "status": "false", "info": "Stream not found"}));
    page.say("snapshot", &json!({"mediaSessionId": "fresh", "name": "s"}));
    let event = page.hears("notifyStreamEvent");
    assert_eq!((&event["mediaSessionId"], &event["type"]), (&json!("fresh"), &json!("snapshotCompleted")));
    let png = BASE64.decode(event["payload"]["snapshot"].as_str().unwrap().as_bytes()).unwrap();
    assert_eq!(&png[..8], b"\x89PNG\r\n\x1a\n");
    assert_eq!((&png[16..20], &png[20..24]), (&160u32.to_be_bytes()[..], &120u32.to_be_bytes()[..]), "IHDR's size");
}

#[test]
fn viewers_end_with_the_word_for_it() {
    let home = Home::new();
    let weir = home.start();
    let (mut publisher, _sender) = publishing(&weir, "s");
    let (mut stops, _a, _) = playing(&weir, "s", "stops");
    let (mut terminated, _b, _) = playing(&weir, "s", "terminated");
    let (mut stays, _c, _) = playing(&weir, "s", "stays");
    stops.say("stopStream", &json!({"mediaSessionId": "stops", "name": "s", "published": false}));
    assert_eq!(stops.status(), ("STOPPED".into(), "Stopped by user".into()));
    weir.done("/rest-api/stream/terminate", &json!({"mediaSessionId": "terminated"}));
    assert_eq!(terminated.status(), failed("Stopped by rest /terminate"));
    publisher.say("unPublishStream", &json!({"mediaSessionId": "s", "name": "s", "published": true}));
    assert_eq!(stays.status(), failed("Stopped by publisher stop"));
    assert_eq!(publisher.status(), ("UNPUBLISHED".into(), "Stopped by user".into()));
    wait_until("nothing is left", || weir.get("/rest-api/stream/find_all").status == 404);
}

#[test]
fn what_is_stopped_at_once_ends_at_once() {
    let home = Home::new();
    let weir = home.start();
    let (_publisher, _sender) = publishing(&weir, "s");
    let mut page = Page::established(&weir);
    for round in 0..5 {
        let id = format!("p{round}");
        page.publish(&id, &id, PUBLISH);
        page.say("unPublishStream", &json!({"mediaSessionId": id, "name": id, "published": true}));
        assert_eq!(page.status(), ("UNPUBLISHED".into(), "Stopped by user".into()));
        let id = format!("v{round}");
        page.play(&id, "s", PLAY);
        page.say("stopStream", &json!({"mediaSessionId": id, "name": "s", "published": false}));
        assert_eq!(page.status(), ("STOPPED".into(), "Stopped by user".into()));
    }
    wait_until("only the publisher is left", || {
        weir.get("/rest-api/stream/find_all").json().as_array().is_some_and(|sessions| sessions.len() == 1)
    });
    assert!(weir.pipelines("publish-webrtc").len() == 1);
}

#[test]
fn viewers_wishes_for_keyframes_are_one_each_half_second_upstream() {
    let home = Home::new();
    let weir = home.start();
    let (_publisher, sender) = publishing(&weir, "s");
    let (_a, mut a, _) = playing(&weir, "s", "a");
    let (_b, mut b, _) = playing(&weir, "s", "b");
    let before = sender.keyframes_asked();
    let (began, mut asked, mut last) = (Instant::now(), 0, Instant::now());
    drive(&mut [&mut a, &mut b], Duration::from_secs(3), |clients| {
        if last.elapsed() > Duration::from_millis(30) {
            last = Instant::now();
            clients.iter_mut().for_each(|client| client.ask_keyframe());
            asked += clients.len();
        }
        false
    });
    let took = began.elapsed();
    wait_until("the viewers' wishes are counted", || {
        let found = weir.post("/rest-api/stream/find", &json!({"published": false, "display": ["metrics"]})).json();
        drive(&mut [&mut a, &mut b], Duration::from_millis(200), |_| false);
        found.as_array().unwrap().iter().all(|viewer| viewer["metrics"]["VIDEO_PLI"].as_u64().unwrap() > 10)
    });
    let came = sender.keyframes_asked() - before;
    println!("{came} requests came of {asked} wishes in {took:?}");
    assert!(came >= 3 && came <= 2 + took.as_millis() as usize / 500, "{came} requests in {took:?}");
}

#[test]
fn a_viewer_whose_line_is_too_thin_is_told() {
    let home = Home::new();
    let weir = home.start();
    let _publisher = Publisher::start(Clip::HEAVY, &weir.rtmp("heavy"));
    wait_until("the stream", || weir.stream("heavy").is_some_and(|stream| stream["status"] == "PUBLISHING"));
    let mut page = Page::established(&weir);
    let mut client = Client::join_by(|offer| {
        page.play("v", "heavy", &offer);
        page.hears("setRemoteSDP")[1].as_str().unwrap().to_owned()
    });
    // The stream has 4 Mbit/s.
    client.limit = Some(1_000_000.0);
    let driven = std::thread::spawn(move || drive(&mut [&mut client], SOON, |_| false));
    let event = loop {
        let event = page.hears("notifyStreamEvent");
        if event["type"] != "resize" {
            break event;
        }
    };
    assert_eq!((&event["mediaSessionId"], &event["type"]), (&json!("v"), &json!("notEnoughBandwidth")));
    let info = event["payload"]["info"].as_str().unwrap();
    let (stream, line) = info.split_once('/').unwrap();
    let (stream, line): (u64, u64) = (stream.parse().unwrap(), line.parse().unwrap());
    assert!((3_000_000..6_000_000).contains(&stream) && line < stream, "bits per second of stream and line: {info}");
    // The loss is that of the newest report, and a report may come while nothing is sent.
    wait_until("the viewer's figures", || {
        let viewer = weir.post("/rest-api/stream/find", &json!({"mediaSessionId": "v", "display": ["metrics"]})).json();
        let metric = |key: &str| viewer[0]["metrics"][key].as_f64().unwrap_or_else(|| panic!("{key}: {viewer}"));
        metric("BANDWIDTH_ESTIMATE") < 3_000_000.0 && metric("VIDEO_LOST") > 50.0 && metric("LOSS") > 0.1
    });
    drop(driven);
}

#[test]
fn what_cannot_be_played_says_why() {
    let home = Home::new();
    let weir = home.start();
    let (_publisher, _sender) = publishing(&weir, "s");
    let mut page = Page::established(&weir);
    page.play("v", "s", &PLAY.replace("VP8/90000", "VP7/90000"));
    assert_eq!(page.status(), failed("No common codecs"));
    page.play("v", "s", "garbage");
    assert_eq!(page.status(), failed("Failed to add stream to proxy"));
    page.play("s", "s", PLAY);
    assert_eq!(page.status(), failed("MediaSessionId is already in use"));
    for wish in ["width", "height", "bitrate", "quality"] {
        let mut call = json!({"mediaSessionId": "v", "name": "s", "sdp": PLAY, "width": 0, "height": 0, "bitrate": 0});
        call[wish] = json!(100);
        page.say("playStream", &call);
        assert_eq!(page.status(), failed("Transcoding required, but disabled"), "{wish}");
    }
    // Its publisher has not connected yet: that is waited for, until it leaves.
    let mut slow = Page::established(&weir);
    slow.publish("slow", "slow", PUBLISH);
    slow.hears("setRemoteSDP");
    page.play("v", "slow", PLAY);
    assert_eq!(page.status().0, "PENDING");
    slow.say("unPublishStream", &json!({"mediaSessionId": "slow", "name": "slow", "published": true}));
    assert_eq!(page.status(), failed("Stopped by publisher stop"));
}

#[test]
fn nothing_is_done_before_the_connection_message() {
    let home = Home::new();
    let weir = home.start();
    let (_publisher, _sender) = publishing(&weir, "s");
    let mut page = Page::open(&weir);
    page.play("v", "s", PLAY);
    assert_eq!(page.status(), failed("Session not ready"));
    page.say("availableStream", &json!({"mediaSessionId": "a", "name": "s"}));
    assert_eq!(page.hears("availableStream")["info"], "Session not ready");
    page.say("snapshot", &json!({"mediaSessionId": "a", "name": "s"}));
    assert_eq!(page.hears("notifyStreamEvent")["type"], "snapshotFailed");
    page.say("sendData", &json!({"operationId": "o", "payload": {}}));
    let refused = json!({"operationId": "o", "status": "FAILED", "info": "Session not ready"});
    assert_eq!(page.hears("DataStatusEvent"), refused);
    page.say("sendStreamEvent", &json!({"mediaSessionId": "s", "type": "audioMuted"}));
    assert_eq!(page.hears("fail")["info"], "Stream not found");
}

#[test]
fn a_publisher_without_a_port_is_told() {
    let home = Home::new();
    // All of the range is somebody else's.
    let taken = UdpSocket::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let range = [format!("media_port_from={port}"), format!("media_port_to={port}")];
    let mut weir = range.iter().fold(home.setup(), |setup, setting| setup.set(setting)).start();
    weir.announce("a browser cannot publish");
    let mut page = Page::established(&weir);
    page.publish("p", "p", PUBLISH);
    assert_eq!(page.status(), failed("Failed to add stream to proxy"));
    drop(taken);
    page.publish("p", "p", PUBLISH);
    assert!(page.hears("setRemoteSDP")[1].as_str().unwrap().contains(&format!(" {port} typ host")));
}

#[test]
fn keep_alive_may_be_the_websockets_own_or_none() {
    let home = Home::new();
    let setup = |algorithm: &str| {
        let setup = home.setup().set("keep_alive.server_interval=100").set("keep_alive.probes=3");
        setup.set(&format!("keep_alive.algorithm={algorithm}"))
    };
    let weir = setup("INTERNAL").start();
    let mut page = Page::established(&weir);
    let began = Instant::now();
    // Reading answers them.
    while began.elapsed() < Duration::from_secs(1) {
        assert!(matches!(page.next(), Message::Ping(_)));
    }
    page.say("ping", &Value::Null);
    page.hears("pong");
    drop(weir);
    let weir = setup("NONE").start();
    let mut page = Page::established(&weir);
    page.patience(Duration::from_secs(1));
    assert!(page.socket.read().is_err(), "nothing is sent");
    page.patience(SOON);
    page.say("ping", &Value::Null);
    page.hears("pong");
}

#[test]
fn a_browser_that_cannot_be_reached_is_told() {
    let home = Home::new();
    let weir = home.start();
    // Nobody answers at its candidate.
    let deaf = UdpSocket::bind("127.0.0.1:0").unwrap();
    let port = deaf.local_addr().unwrap().port();
    let candidate = format!("a=candidate:1 1 UDP 2122252543 127.0.0.1 {port} typ host\r\na=end-of-candidates\r\n");
    let with =
        |line: &str| if line.starts_with("a=mid:") { format!("{line}\r\n{candidate}") } else { format!("{line}\r\n") };
    let offer: String = PUBLISH.lines().map(with).collect();
    let mut page = Page::established(&weir);
    page.publish("p", "p", &offer);
    page.hears("setRemoteSDP");
    assert_eq!(page.status(), failed("Failed by ICE error"));
}

/// Templates of an operator's: the publisher's breaks after some pictures, the viewers' cannot be started.
#[test]
fn media_that_breaks_is_told() {
    let home = Home::new();
    let folder = home.path().join("pipelines");
    std::fs::create_dir(&folder).unwrap();
    let whole = include_str!("../../pipelines/publish-webrtc.launch");
    let breaking = whole.replace("! {video_out}", "! identity error-after=30 ! {video_out}");
    std::fs::write(folder.join("publish-webrtc.launch"), &breaking).unwrap();
    let start = || home.setup().arg("--pipelines").arg("pipelines").start();
    let mut weir = start();
    weir.announce("a publisher's pipeline failed");
    let (mut page, sender) = (Page::established(&weir), Sender::new());
    page.publish("p", "p", &sender.offer());
    sender.answered(page.hears("setRemoteSDP")[1].as_str().unwrap());
    let mut status = page.status();
    if status.0 == "PUBLISHING" {
        status = page.status();
    }
    assert_eq!(status, failed("Failed by error"));
    drop(weir);

    std::fs::write(folder.join("publish-webrtc.launch"), whole).unwrap();
    let play = include_str!("../../pipelines/play-webrtc.launch").replace("! rtpvp8pay", "! nosuchthing ! rtpvp8pay");
    std::fs::write(folder.join("play-webrtc.launch"), play).unwrap();
    let mut weir = start();
    weir.announce("GStreamer has no element nosuchthing");
    let (_publisher, _sender) = publishing(&weir, "s");
    let mut page = Page::established(&weir);
    page.play("v", "s", PLAY);
    assert_eq!(page.status(), failed("Failed by error"));
}
