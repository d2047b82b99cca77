//! Recordings of what browsers publish: only where a page asks and the settings allow it, and never in parts for a room.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::page::Page;
use crate::sender::Sender;
use crate::support::{Home, SOON, Setup, Weir, probe, run, wait, wait_until};
use serde_json::{Value, json};

fn setup(home: &Home) -> Setup {
    home.setup().set("stream_record_policy=streamName").set("record_min_free_space=0").set("record_rotation=1")
}

/// A page of this application, and a browser that publishes from it.
fn publish(weir: &Weir, app_key: &str, name: &str, record: bool) -> (Page, Sender) {
    publish_as(weir, &json!({"appKey": app_key, "clientVersion": "2.0"}), name, record)
}

fn publish_as(weir: &Weir, hello: &Value, name: &str, record: bool) -> (Page, Sender) {
    let mut page = Page::open(weir);
    page.say("connection", hello);
    page.hears("getUserData");
    let sender = Sender::new();
    let offer = sender.offer();
    let call = json!({"mediaSessionId": name, "name": name, "published": true, "record": record, "sdp": offer});
    page.say("publishStream", &call);
    sender.answered(page.hears("setRemoteSDP")[1].as_str().unwrap());
    assert_eq!(page.status(), ("PUBLISHING".into(), String::new()));
    (page, sender)
}

/// Every frame decodes. (What waited for the connection comes in a burst, and RTP's receiver gives it one time stamp;
/// frames of one time are one frame to a player.)
fn plays(file: &Path) {
    let mut ffmpeg = Command::new("ffmpeg");
    ffmpeg.args(["-v", "error", "-nostdin", "-xerror", "-i"]).arg(file).args(["-fps_mode", "vfr", "-f", "null", "-"]);
    let output = run(&mut ffmpeg, SOON);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.is_empty(), "{} does not decode: {said}", file.display());
}

/// Ends it; gives the name of its file.
fn unpublish(page: &mut Page, name: &str) -> Option<String> {
    page.say("unPublishStream", &json!({"mediaSessionId": name, "name": name}));
    let status = page.hears("notifyStreamStatusEvent");
    assert_eq!(status["status"], "UNPUBLISHED", "{status}");
    status["recordName"].as_str().map(str::to_owned)
}

#[test]
fn a_page_is_recorded_where_it_asks_and_may() {
    for (allowed, asks) in [(true, true), (true, false), (false, true)] {
        let home = Home::new();
        let weir = setup(&home).set(&format!("record_streams={allowed}")).set("record_rotation=").start();
        let (mut page, _sender) = publish(&weir, "defaultApp", "a", asks);
        weir.wait_frames("a", 20);
        let name = unpublish(&mut page, "a");
        if allowed && asks {
            assert_eq!(name.as_deref(), Some("a.webm"));
            plays(&home.records().join("a.webm"));
        } else {
            assert_eq!((name, home.names("")), (None, vec![]), "{allowed} {asks}");
        }
    }
}

/// Every element of the template but the times, as a browser's stream fills it.
#[test]
fn a_name_says_who_publishes() {
    let home = Home::new();
    let template = "{streamName}-{login}-{mediaSessionId}-{videoCodec}-{audioCodec}-{sessionId}";
    let weir = home.setup().set("record_min_free_space=0");
    let weir = weir.set(&format!("stream_record_policy_template={template}")).start();
    let hello = json!({"appKey": "defaultApp", "custom": {"login": "Ann/../of the North, whose name is long"}});
    let (mut page, _sender) = publish_as(&weir, &hello, "a", true);
    weir.wait_frames("a", 20);
    let session = weir.get("/rest-api/stream/find_all").json()[0]["sessionId"].as_str().unwrap().to_owned();
    let name = unpublish(&mut page, "a").unwrap();
    let session = data_encoding::BASE64URL.encode(session.as_bytes());
    let session: String = session.chars().take(60).collect();
    // Of the 32 characters of the login, a file name has no slash.
    assert_eq!(name, format!("a-Ann..of the North, whose name -a-VP8--{session}.webm"));
    plays(&home.records().join(name));
}

#[test]
fn a_room_is_not_recorded_in_parts() {
    let home = Home::new();
    let weir = setup(&home).start();
    let (mut room, _in_room) = publish(&weir, "roomApp", "room", true);
    let (mut other, _other) = publish(&weir, "defaultApp", "other", true);
    wait_until("parts of the other", || home.names(".webm").len() >= 2);
    weir.wait_frames("room", 60);
    assert_eq!(unpublish(&mut room, "room").as_deref(), Some("room.webm"));
    assert_eq!(unpublish(&mut other, "other").as_deref(), Some("other.webm"));
    let names = home.names("");
    assert_eq!(names.iter().filter(|name| name.starts_with("room")).collect::<Vec<_>>(), ["room.webm"]);
    assert!(names.iter().filter(|name| name.starts_with("other")).count() >= 3, "{names:?}");
    let file = home.records().join("room.webm");
    plays(&file);
    // Three times as many as from keyframe to keyframe, each of which begins a part of the other.
    let frames = probe(&file).video.len();
    assert!(frames >= 45, "{frames} frames");
    // Who asks for parts gets them.
    let (mut room, _in_room) = publish(&weir, "roomApp", "asked", false);
    let config = json!({"rotation": 1});
    weir.done("/rest-api/recorder/startup", &json!({"mediaSessionId": "asked", "config": config}));
    wait("a part", Duration::from_secs(60), || home.names("").contains(&"asked_1.webm".to_owned()).then_some(()));
    unpublish(&mut room, "asked");
}
