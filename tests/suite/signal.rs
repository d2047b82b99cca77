//! The browsers' WebSocket, message by message, and what it does with bad input. The pictures are judged in a browser.

use std::time::{Duration, Instant};

use crate::page::Page;
use crate::support;
use crate::support::{Home, SOON, Signal, wait};
use serde_json::{Value, json};
use tungstenite::Message;
use tungstenite::protocol::frame::coding::CloseCode;

/// An offer as Chromium makes it for `publish`.
const OFFER: &str = include_str!("../../src/webrtc/offers/chromium156_publish.sdp");

fn failed(info: &str) -> (String, String) {
    ("FAILED".into(), info.into())
}

#[test]
fn a_connection_is_established_listed_and_terminated() {
    let home = Home::new();
    let weir = home.start();
    let mut page = Page::established(&weir);
    let list = weir.get("/rest-api/connection/find_all").json();
    assert_eq!(list[0]["appKey"], "defaultApp");
    assert_eq!(list[0]["clientVersion"], "2.0");
    page.say("ping", &Value::Null);
    page.hears("pong");
    page.say("connection", &json!({"appKey": "x"}));
    assert_eq!(page.hears("fail")["info"], "the connection is established already");
    weir.done("/rest-api/connection/terminate", &json!({"sessionId": list[0]["sessionId"]}));
    assert_eq!(page.closed(), CloseCode::Policy);
    wait("an empty list", SOON, || (weir.get("/rest-api/connection/find_all").status == 404).then_some(()));
}

#[test]
fn an_offer_is_answered_and_the_name_is_taken() {
    let home = Home::new();
    let weir = home.start();
    let mut page = Page::established(&weir);
    page.publish("S1", "s", OFFER);
    let answer = page.hears("setRemoteSDP");
    assert_eq!(answer[0], "S1");
    let sdp = answer[1].as_str().unwrap();
    assert!(sdp.contains("\r\n") && !sdp.contains("OPUS"), "{sdp}");
    assert!(sdp.contains("a=candidate") && sdp.contains("127.0.0.1"), "the candidates stand in the answer: {sdp}");
    assert!(sdp.contains("profile-level-id=42e01f") && sdp.contains("opus/48000/2"), "{sdp}");
    let stream = weir.stream("s").unwrap();
    assert_eq!((&stream["status"], &stream["mediaProvider"]), (&json!("PENDING"), &json!("WebRTC")));
    assert_eq!(stream["mediaSessionId"], "S1");

    page.say("availableStream", &json!({"mediaSessionId": "A", "name": "s"}));
    let available = page.hears("availableStream");
    assert_eq!((&available["status"], &available["info"]), (&json!("false"), &json!("Publish stream is not ready")));
    page.publish("S2", "s", OFFER);
    assert_eq!(page.status(), failed("Stream name is already in use"));
    page.publish("S1", "other", OFFER);
    assert_eq!(page.status(), failed("MediaSessionId is already in use"));
    let mut second = Page::established(&weir);
    second.publish("S1", "other", OFFER);
    assert_eq!(second.status(), failed("MediaSessionId is already in use"));

    page.say("unPublishStream", &json!({"mediaSessionId": "S1", "name": "s"}));
    assert_eq!(page.status(), ("UNPUBLISHED".into(), "Stopped by user".into()));
    assert!(weir.stream("s").is_none());
    page.publish("S1", "s", OFFER);
    page.hears("setRemoteSDP");
    drop(page);
    wait("the stream of a closed socket to end", SOON, || weir.stream("s").is_none().then_some(()));
    assert!(weir.logged("Stopped by session disconnect"));
    assert!(weir.pipelines("publish-webrtc").is_empty());
}

#[test]
fn a_publisher_that_rest_ends_is_told() {
    let home = Home::new();
    let weir = home.start();
    let mut page = Page::established(&weir);
    page.publish("S", "s", OFFER);
    page.hears("setRemoteSDP");
    weir.done("/rest-api/stream/terminate", &json!({"mediaSessionId": "S"}));
    assert_eq!(page.status(), failed("Stopped by rest /terminate"));
    assert!(weir.pipelines("publish-webrtc").is_empty());
}

#[test]
fn the_last_word_on_every_session_comes_before_the_socket_is_closed() {
    let home = Home::new();
    let weir = home.start();
    let mut page = Page::established(&weir);
    page.publish("S", "s", OFFER);
    page.hears("setRemoteSDP");
    let connection = weir.stream("s").unwrap()["sessionId"].clone();
    weir.done("/rest-api/connection/terminate", &json!({"sessionId": connection}));
    assert_eq!(page.status(), ("UNPUBLISHED".into(), "Stopped by session disconnect".into()));
    assert_eq!(page.closed(), CloseCode::Policy);

    let (mut publisher, mut player) = (Page::established(&weir), Page::established(&weir));
    publisher.publish("S", "s", OFFER);
    publisher.hears("setRemoteSDP");
    player.play("P", "s", OFFER);
    assert_eq!(player.status().0, "PENDING");
    weir.signal(Signal::TERM);
    assert_eq!(publisher.status(), failed("Requested stream shutdown"));
    assert_eq!(player.status().0, "FAILED");
    for mut page in [publisher, player] {
        assert_eq!(page.closed(), CloseCode::Away);
    }
    assert_eq!(weir.ended().0.code(), Some(0));
}

#[test]
fn what_cannot_be_published_or_played_says_why() {
    let home = Home::new();
    let weir = home.start();
    let mut early = Page::open(&weir);
    early.publish("S", "s", OFFER);
    assert_eq!(early.status(), failed("Session not ready"));
    let mut page = Page::established(&weir);
    page.say("publishStream", &json!({"name": "s", "sdp": OFFER}));
    assert_eq!(page.status(), failed("MediaSessionId is null"));
    page.publish("S", "s", "this is no SDP");
    assert_eq!(page.status(), failed("Failed to add stream to proxy"));
    page.publish("S", "s", &OFFER.replace("a=sendonly", "a=recvonly").replace("a=sendrecv", "a=recvonly"));
    assert_eq!(page.status(), failed("No common codecs"));
    page.say("publishStream", &json!({"mediaSessionId": "S", "name": "s"}));
    assert_eq!(page.status(), failed("Failed to add stream to proxy"));
    for (name, info) in
        [("nobody", "Stream not found"), ("dov://file.mp4", "Failed to get agent storage"), ("rtmp://host", "Bad URI")]
    {
        page.say("playStream", &json!({"mediaSessionId": "P", "name": name, "published": false, "sdp": OFFER}));
        assert_eq!(page.status(), failed(info), "{name}");
    }
    page.say("snapshot", &json!({"mediaSessionId": "P", "name": "nobody"}));
    let event = page.hears("notifyStreamEvent");
    assert_eq!((&event["type"], &event["payload"]["info"]), (&json!("snapshotFailed"), &json!("Stream not found")));
    page.say("sendData", &json!({"operationId": "o1", "payload": {}}));
    assert_eq!(page.hears("DataStatusEvent")["status"], "ACCEPTED");
    for call in ["pushLogs", "sessionDebug", "submitBugReport"] {
        page.say(call, &json!({"logs": "x"}));
    }
    page.say("stopStream", &json!({"mediaSessionId": "nothing", "name": "s"}));
    assert_eq!(page.status().0, "FAILED", "the page waits for a last word");
    assert!(weir.get("/rest-api/stream/find_all").status == 404);
}

#[test]
fn a_source_that_players_cannot_have_is_given_up_at_once() {
    let home = Home::new();
    let mut weir = home.start();
    weir.tolerate("pull has no source");
    let mut page = Page::established(&weir);
    let name =
        format!("rtmp://{}/live/a", support::dead_port().trim_start_matches("rtmp://").split('/').next().unwrap());
    page.say("playStream", &json!({"mediaSessionId": "P", "name": name, "published": false, "sdp": OFFER}));
    let mut status = page.status();
    if status.0 == "PENDING" {
        status = page.status();
    }
    assert_eq!(status, failed("Failed to connect to origin stream"));
    wait("the agent to be gone", SOON, || (weir.get("/rest-api/pull/rtmp/find_all").status == 404).then_some(()));
}

#[test]
fn bad_frames_close_their_socket_only() {
    let home = Home::new();
    let weir = home.start();
    let mut healthy = Page::established(&weir);
    for frame in ["not json", "[]", "{}", r#"{"message":5}"#, r#"{"message":"x","data":{}}"#] {
        let mut page = Page::established(&weir);
        page.raw(frame);
        assert_eq!(page.closed(), CloseCode::Protocol, "{frame}");
    }
    for (message, data) in [("publishStream", json!(7)), ("playStream", Value::Null), ("nonsense", json!({}))] {
        let mut page = Page::established(&weir);
        page.say(message, &data);
        assert!(page.hears("fail")["info"].is_string(), "{message}");
    }
    let mut binary = Page::established(&weir);
    binary.socket.send(Message::binary(vec![0u8; 1000])).unwrap();
    binary.say("ping", &Value::Null);
    binary.hears("pong");
    let mut huge = Page::established(&weir);
    // The server may close before it has read all of it.
    let _ = huge.socket.send(Message::text("x".repeat(5 << 20)));
    wait("the end of a socket with a frame of 5 MB", SOON, || match huge.socket.read() {
        Ok(Message::Close(_)) | Err(_) => Some(()),
        Ok(_) => None,
    });
    healthy.say("ping", &Value::Null);
    healthy.hears("pong");
}

#[test]
fn pings_come_and_a_page_that_answers_none_is_closed() {
    let home = Home::new();
    let weir = home.setup().set("keep_alive.server_interval=100").set("keep_alive.probes=3").start();
    let mut page = Page::established(&weir);
    let mut lively = Page::established(&weir);
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(1) {
        lively.hears("ping");
        lively.say("pong", &Value::Null);
    }
    assert_eq!(page.closed(), CloseCode::Away);
    assert_eq!(weir.get("/rest-api/connection/find_all").json().as_array().unwrap().len(), 1);
}

#[test]
fn a_shutdown_ends_the_pages() {
    let home = Home::new();
    let weir = home.start();
    let mut page = Page::established(&weir);
    page.publish("S", "s", OFFER);
    page.hears("setRemoteSDP");
    let (status, took) = weir.stop();
    assert!(status.success() && took < Duration::from_secs(5), "{status} after {took:?}");
    assert_eq!(page.closed(), CloseCode::Away);
}
