//! Servers feed servers: pulls and pushes between weirs on loopback, and servers that mean no good.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use serde_json::{Value, json};
use support::{Clip, Home, Publisher, SOON, Weir, decodes, probe, wait};

fn ws(weir: &Weir) -> String {
    format!("ws://127.0.0.1:{}", weir.port_of("ws.port"))
}

/// The agents `/pull/*` sees.
fn agents(weir: &Weir) -> Vec<Value> {
    weir.get("/rest-api/pull/find_all").json().as_array().unwrap().clone()
}

fn wait_agent(weir: &Weir, status: &str) -> Value {
    wait(&format!("an agent that is {status}: {:#?}", agents(weir)), SOON, || {
        agents(weir).into_iter().find(|agent| agent["status"] == status)
    })
}

#[test]
fn a_stream_is_pulled_and_recorded_untouched() {
    let (origin_home, edge_home) = (Home::new(), Home::new());
    let origin = origin_home.start();
    let edge = edge_home.setup().set("stream_record_policy=streamName").start();
    let _publisher = Publisher::start(Clip::LONG, &origin.rtmp("cam"));
    origin.wait_frames("cam", 30);
    let call = json!({"uri": ws(&origin), "remoteStreamName": "cam", "localStreamName": "here", "record": "true"});
    edge.done("/rest-api/pull/pull", &call);
    let agent = wait_agent(&edge, "PROCESSED_REMOTE");
    assert_eq!(agent["uri"], format!("{}/websocket", ws(&origin)));
    assert_eq!((&agent["localStreamName"], &agent["remoteStreamName"]), (&json!("here"), &json!("cam")));
    edge.wait_frames("here", 120);
    let stream = edge.stream("here").unwrap();
    for (field, value) in
        [("videoCodec", "H264"), ("audioCodec", "opus"), ("mediaProvider", "WebRTC"), ("status", "PUBLISHING")]
    {
        assert_eq!(stream[field], value, "{stream}");
    }
    assert_eq!(stream["mediaSessionId"], agent["localMediaSessionId"]);
    let viewer = origin.post("/rest-api/stream/find", &json!({"published": false})).json();
    assert_eq!(viewer[0]["mediaSessionId"], agent["remoteMediaSessionId"]);
    assert_eq!(edge.post("/rest-api/pull/pull", &call).status, 409);
    edge.done("/rest-api/pull/terminate", &json!({"remoteStreamName": "cam", "localStreamName": "here"}));
    assert!(edge.stream("here").is_none());
    let file = edge_home.wait_finished(1).remove(0);
    decodes(&file);
    let facts = probe(&file);
    assert!(
        facts.video.len() >= 100 && facts.video[0].key && facts.audio.len() > 50,
        "{} {}",
        facts.video.len(),
        facts.audio.len()
    );
    wait("the origin's viewer to be gone", SOON, || {
        (origin.post("/rest-api/stream/find", &json!({"published": false})).status == 404).then_some(())
    });
}
