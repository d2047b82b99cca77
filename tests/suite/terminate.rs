//! `/rest-api/stream/terminate` for every kind of session, by every filter and combinations of them: who is ended, what
//! each is told, that nothing of it is left, and that the same can be begun again at once.

use std::process::Stdio;

use crate::page::Page;
use crate::support::{Clip, Home, Process, Publisher, SOON, Weir, wait, wait_until};
use serde_json::{Value, json};

/// An offer as Chromium makes it for `publish`.
const OFFER: &str = include_str!("../../src/webrtc/offers/chromium156_publish.sdp");
/// The same for `play`.
const PLAY: &str = include_str!("../../src/webrtc/offers/chromium156_play.sdp");
const PATH: &str = "/rest-api/stream/terminate";

fn by_rest() -> (String, String) {
    ("FAILED".into(), "Stopped by rest /terminate".into())
}

fn uri(weir: &Weir, name: &str) -> String {
    format!("rtmp://127.0.0.1:{}/live/{name}", weir.port_of("rtmp.port"))
}

/// A player over RTMP; it ends with its stream.
fn player(weir: &Weir, name: &str) -> Process {
    let uri = uri(weir, name);
    Process::start("ffmpeg", move |command| {
        command.args(["-v", "error", "-nostdin", "-i", &uri, "-c", "copy", "-f", "null", "-"]);
        command.stdout(Stdio::null()).stderr(Stdio::null());
    })
}

fn plays(page: &mut Page, session: &str, name: &str) {
    page.say("playStream", &json!({"mediaSessionId": session, "name": name, "published": false, "sdp": PLAY}));
    page.hears("setRemoteSDP");
}

/// The ids a filter finds.
fn found(weir: &Weir, filter: &Value) -> Vec<String> {
    let answer = weir.post("/rest-api/stream/find", filter);
    if answer.status == 404 {
        return Vec::new();
    }
    let list = answer.json();
    let mut ids: Vec<_> =
        list.as_array().unwrap().iter().map(|one| one["mediaSessionId"].as_str().unwrap().to_owned()).collect();
    ids.sort();
    ids
}

/// Everybody but `puller`, a pull's own player, which comes and goes with the pull.
fn others(weir: &Weir, puller: &str) -> Vec<String> {
    let all = [found(weir, &json!({"published": true})), found(weir, &json!({"published": false}))].concat();
    all.into_iter().filter(|id| id != puller).collect()
}

/// Ends what a filter finds, which is `wanted`; nothing of it is left when the call is done, and nobody else is ended.
fn ends(weir: &Weir, puller: &str, filter: &Value, wanted: &[&str]) {
    let mut before = others(weir, puller);
    let mut wanted: Vec<_> = wanted.iter().map(|&id| id.to_owned()).collect();
    wanted.sort();
    assert_eq!(found(weir, filter), wanted, "{filter}");
    weir.done(PATH, filter);
    assert!(found(weir, filter).is_empty(), "{filter}");
    assert_eq!(weir.refused(&weir.post(PATH, filter), PATH), (404, "StreamNotFound".into()));
    before.retain(|id| !wanted.contains(id));
    assert_eq!(others(weir, puller), before, "{filter}");
}

#[test]
fn each_filter_ends_those_it_names_and_nobody_else() {
    let home = Home::new();
    let mut weir = home.start();
    weir.tolerate("pull has no source");
    let mut encoder = Publisher::start(Clip::LONG, &uri(&weir, "enc"));
    weir.wait_frames("enc", 5);
    weir.pull(&uri(&weir, "enc"), "pulled", false);
    weir.wait_frames("pulled", 5);
    let id = |name: &str, published: bool| found(&weir, &json!({"name": name, "published": published}));
    // The pull is itself a player of the encoder's stream.
    let (enc, pulled, puller) = (&id("enc", true)[0], &id("pulled", true)[0], &id("enc", false)[0]);

    let (mut one, mut two) = (Page::established(&weir), Page::established(&weir));
    one.publish("S1", "web", OFFER);
    one.hears("setRemoteSDP");
    let connection = weir.stream("web").unwrap()["sessionId"].clone();
    plays(&mut one, "P1", "enc");
    plays(&mut one, "P2", "pulled");
    plays(&mut two, "P3", "enc");
    let mut rtmp = player(&weir, "enc");
    let viewer = wait("the RTMP player", SOON, || {
        id("enc", false).into_iter().find(|id| !["P1", "P3", puller.as_str()].contains(&id.as_str()))
    });

    for (filter, wanted) in [
        (json!({"published": true}), vec!["S1", enc, pulled]),
        (json!({"published": "false"}), vec!["P1", "P2", "P3", puller, &viewer]),
        (json!({"name": "enc"}), vec![enc, puller, "P1", "P3", &viewer]),
        (json!({"name": "enc", "published": false}), vec![puller, "P1", "P3", &viewer]),
        (json!({"name": "enc", "status": "PUBLISHING"}), vec![enc]),
        (json!({"status": "PENDING", "published": true}), vec!["S1"]),
        (json!({"appKey": "flashStreamingApp", "published": true}), vec![enc]),
        (json!({"sessionId": connection}), vec!["S1", "P1", "P2"]),
        (json!({"mediaSessionIds": ["P1", "P3", "none"], "sessionId": connection}), vec!["P1"]),
    ] {
        let mut wanted: Vec<_> = wanted.into_iter().map(str::to_owned).collect();
        wanted.sort();
        assert_eq!(found(&weir, &filter), wanted, "{filter}");
    }

    // One viewer of several, by name and connection; its page hears of it.
    ends(&weir, puller, &json!({"name": "enc", "published": false, "sessionId": connection}), &["P1"]);
    assert_eq!(one.status(), by_rest());
    // A list: a browser's viewer and an RTMP player.
    ends(&weir, puller, &json!({"mediaSessionIds": ["P2", viewer]}), &["P2", &viewer]);
    assert_eq!(one.status(), by_rest());
    rtmp.ended(SOON);
    // A browser's publisher, by its status; it publishes again at once.
    ends(&weir, puller, &json!({"status": "PENDING", "appKey": "defaultApp", "published": "true"}), &["S1"]);
    assert_eq!(one.status(), by_rest());
    assert!(weir.pipelines("publish-webrtc").is_empty());
    one.publish("S1", "web", OFFER);
    one.hears("setRemoteSDP");
    // A pull, by name and status; it is pulled again at once.
    ends(&weir, puller, &json!({"name": "pulled", "status": "PUBLISHING"}), &[pulled]);
    assert!(weir.agent("pulled").is_none() && weir.pipelines("pull-rtmp").is_empty());
    weir.pull(&uri(&weir, "enc"), "pulled", false);
    weir.wait_frames("pulled", 5);
    weir.terminate("pulled");
    wait_until("the pull's player is gone", || id("enc", false) == ["P3"]);
    // An encoder, by its id: its viewers are told of it, and the name is free at once.
    ends_with_viewers(&weir, enc, &mut two);
    encoder.ended(SOON);
    assert!(weir.pipelines("ingest-rtmp").is_empty());
    let again = Publisher::start(Clip::LONG, &uri(&weir, "enc"));
    weir.wait_frames("enc", 5);
    plays(&mut two, "P3", "enc");
    // All viewers; then all there is.
    ends(&weir, puller, &json!({"published": false}), &["P3"]);
    assert_eq!(two.status(), by_rest());
    weir.done(PATH, &json!({"published": true}));
    assert_eq!(one.status(), by_rest());
    wait_until("no pipeline is left", || weir.get("/rest-api/pipelines").json() == json!([]));
    assert_eq!(weir.get("/rest-api/stream/find_all").status, 404);
    drop(again);
}

fn ends_with_viewers(weir: &Weir, publisher: &str, viewer: &mut Page) {
    weir.done(PATH, &json!({"mediaSessionId": publisher}));
    assert_eq!(viewer.status(), ("FAILED".into(), "Stopped by publisher stop".into()));
    assert!(weir.stream("enc").is_none());
}

#[test]
fn a_call_that_names_nobody_or_cannot_be_read_ends_nobody() {
    let home = Home::new();
    let weir = home.start();
    let mut page = Page::established(&weir);
    page.publish("S1", "web", OFFER);
    page.hears("setRemoteSDP");
    for (body, status, code) in [
        (json!({}), 400, "FilterMissing"),
        (json!({"unknown": 1}), 400, "FilterMissing"),
        (json!({"mediaSessionIds": "S1"}), 400, "FieldInvalid"),
        (json!({"published": "perhaps"}), 400, "FieldInvalid"),
        (json!({"name": 7}), 400, "FieldInvalid"),
        (json!({"mediaSessionIds": []}), 404, "StreamNotFound"),
        (json!({"name": "web", "status": "PLAYING"}), 404, "StreamNotFound"),
        (json!({"mediaSessionId": "S1", "published": false}), 404, "StreamNotFound"),
    ] {
        let refused = weir.refused(&weir.post(PATH, &body), PATH);
        assert_eq!(refused.0, status, "{body}: {refused:?}");
        if status == 404 || code == "FilterMissing" {
            assert_eq!(refused.1, code, "{body}");
        }
    }
    assert!(weir.stream("web").is_some());
}
