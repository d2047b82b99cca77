//! Hook servers: what they are asked and told, what their answers do, and what happens when they are no good. The server
//! is the tests' own and real; the browser is one as far as its WebSocket goes (the SDK's view is in `tests/browser`).

use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::page::Page;
use crate::support;
use crate::support::{Clip, Home, HookServer, Process, Publisher, Reply, SOON, Weir, dead_port, wait, wait_until};
use serde_json::{Value, json};
use tungstenite::protocol::frame::coding::CloseCode;
use weir::hook::Method;
use weir::hook::application::{Secret, Update};

/// An offer as Chromium makes it for `publish`.
const OFFER: &str = include_str!("../../src/webrtc/offers/chromium156_publish.sdp");
const APP: &str = "defaultApp";
const FLASH: &str = "flashStreamingApp";

fn failed(info: &str) -> (String, String) {
    ("FAILED".into(), info.into())
}

fn publishes(page: &mut Page, session: &str, name: &str) {
    let call = json!({"mediaSessionId": session, "name": name, "published": true, "hasVideo": true, "hasAudio": true,
        "status": "PENDING", "record": false, "mediaProvider": "WebRTC", "sdp": OFFER, "custom": {"of": session}});
    page.say("publishStream", &call);
}

fn stops(page: &mut Page, session: &str, name: &str) {
    page.say("unPublishStream", &json!({"mediaSessionId": session, "name": name, "published": true}));
}

/// A server whose `defaultApp` calls `hooks` with every method.
fn all_hooks(home: &Home, hooks: &HookServer) {
    home.hooks(APP, hooks, &Method::ALL);
}

fn object_has(body: &Value, fields: &Value) -> bool {
    fields.as_object().unwrap().iter().all(|(key, value)| body[key] == *value)
}

#[test]
fn a_browser_is_told_of_from_its_connection_to_its_end_in_order() {
    let (home, hooks) = (Home::new(), HookServer::start());
    let update = Update {
        url: Some(format!("{}/", hooks.url())),
        rest_username: Some("user".into()),
        rest_password: Some(Secret::new("pässword".into())),
        ..Update::default()
    };
    home.application(APP, update, &Method::ALL);
    let weir = home.start();
    let mut page = Page::established(&weir);
    publishes(&mut page, "S1", "cam");
    page.hears("setRemoteSDP");
    page.say("sendStreamEvent", &json!({"mediaSessionId": "S1", "type": "data", "payload": {"n": 1}}));
    stops(&mut page, "S1", "cam");
    assert_eq!(page.status(), ("UNPUBLISHED".into(), "Stopped by user".into()));
    drop(page);
    hooks.wait("ConnectionStatusEvent", |body| body["status"] == "DISCONNECTED");
    assert_eq!(
        hooks.seen(),
        [
            "connect",
            "ConnectionStatusEvent ESTABLISHED",
            "publishStream PENDING",
            "StreamEvent",
            "unPublishStream PENDING",
            "StreamStatusEvent UNPUBLISHED",
            "ConnectionStatusEvent DISCONNECTED",
        ]
    );
    let calls = hooks.calls();
    let node = calls[0].body["nodeId"].as_str().unwrap().to_owned();
    assert!(node.len() > 20 && node.ends_with("@127.0.0.1"), "{node}");
    let session = calls[0].body["sessionId"].clone();
    for call in &calls {
        let whose = json!({"nodeId": node, "appKey": APP, "sessionId": session});
        assert!(object_has(&call.body, &whose), "{call:?}");
        assert!(call.head.starts_with(&format!("POST /MyAPI/{} HTTP/1.1\r\n", call.method)), "{}", call.head);
        assert_eq!(call.header("content-type").unwrap(), "application/json;charset=UTF-8");
        // "user:pässword" in BASE64, from the shell's base64.
        assert_eq!(call.header("authorization").unwrap(), "Basic dXNlcjpww6Rzc3dvcmQ=");
    }
    let connect = json!({"clientVersion": "2.0", "custom": {"a": 1}, "origin": "", "keepAlive": false});
    assert!(object_has(&calls[0].body, &connect), "{}", calls[0].body);
    let publish =
        json!({"mediaSessionId": "S1", "name": "cam", "published": true, "sdp": OFFER, "custom": {"of": "S1"}});
    assert!(object_has(&hooks.of("publishStream")[0].body, &publish));
    assert_eq!(hooks.of("StreamEvent")[0].body["payload"], json!({"n": 1}));
    let over = json!({"mediaSessionId": "S1", "name": "cam", "published": true, "info": "Stopped by user",
        "custom": {"of": "S1"}, "mediaProvider": "WebRTC", "mediaType": "publish", "transport": "UDP"});
    let status = &hooks.of("StreamStatusEvent")[0].body;
    assert!(object_has(status, &over) && status["createDate"].is_u64() && status["sdp"].is_null(), "{status}");
    assert!(!weir.log().iter().any(|line| line.contains("pässword")), "no password is logged");
}

/// More than are sent at once wait for their answers, so that what the last page is told of waits its turn.
/// The `Stream` object of wcs.md 1.4, as far as it is known while nothing flows.
#[test]
fn what_begins_and_what_ends_is_shown_as_a_stream() {
    let (home, hooks) = (Home::new(), HookServer::start());
    all_hooks(&home, &hooks);
    let weir = home.start();
    let mut page = Page::established(&weir);
    publishes(&mut page, "S1", "cam");
    page.hears("setRemoteSDP");
    stops(&mut page, "S1", "cam");
    assert_eq!(page.status().0, "UNPUBLISHED");
    let known = json!({"mediaSessionId": "S1", "name": "cam", "published": true, "record": false, "width": 0, "height": 0,
        "bitrate": 0, "minBitrate": 0, "maxBitrate": 0, "quality": 0, "history": false, "gop": 0, "fps": 0,
        "audioBitrate": 0, "codecImpl": "", "transport": "UDP", "cvoExtension": false, "mediaType": "publish",
        "audioState": {"muted": false}, "videoState": {"muted": false}, "mediaProvider": "WebRTC", "custom": {"of": "S1"}});
    for (method, status) in
        [("publishStream", "PENDING"), ("unPublishStream", "PENDING"), ("StreamStatusEvent", "UNPUBLISHED")]
    {
        let body = hooks.wait(method, |_| true).body;
        assert!(object_has(&body, &known) && body["createDate"].is_u64(), "{method}: {body}");
        assert_eq!(body["status"], status, "{method}");
        assert_eq!(body.get("sdp").is_some(), method == "publishStream", "{method}");
    }
}

#[test]
fn a_verdict_is_not_asked_for_before_what_was_told_has_arrived() {
    let (home, hooks) = (Home::new(), HookServer::start());
    home.hooks(APP, &hooks, &[Method::ConnectionStatusEvent, Method::PublishStream]);
    hooks.answers_to("ConnectionStatusEvent", Reply::Slow(Duration::from_millis(400)));
    let weir = home.start();
    let pages: Vec<Page> = (0..40).map(|_| Page::established(&weir)).collect();
    let mut page = Page::established(&weir);
    publishes(&mut page, "S1", "cam");
    page.hears("setRemoteSDP");
    let calls = hooks.calls();
    let asked = calls.iter().position(|call| call.method == "publishStream").unwrap();
    let connection = &calls[asked].body["sessionId"];
    let told = calls.iter().position(|call| call.method != "publishStream" && call.body["sessionId"] == *connection);
    assert!(told.is_some_and(|told| told < asked), "{:?}", hooks.seen());
    drop(pages);
}

#[test]
fn only_an_answer_of_200_lets_a_browser_in() {
    let (home, mut hooks) = (Home::new(), HookServer::start());
    all_hooks(&home, &hooks);
    let mut weir = home.setup().set("rest_request_timeout=1").set("rest_client_request_retry_count=1").start();
    weir.announce("hook=connect");
    let other = HookServer::start();
    let refused = |info: &str| {
        let mut page = Page::open(&weir);
        page.say("connection", &json!({"appKey": APP}));
        let fail = page.hears("fail");
        assert_eq!((&fail["apiMethod"], &fail["status"]), (&json!("connect"), &json!("FAILED")), "{fail}");
        assert!(fail["info"].as_str().unwrap().contains(info), "{fail} for {info}");
        assert_eq!(page.closed(), CloseCode::Policy);
        assert_eq!(weir.get("/rest-api/connection/find_all").status, 404);
    };
    for (reply, info) in [
        (Reply::Status(403), "REST 403 Forbidden"),
        (Reply::Status(500), "REST 500 Internal Server Error"),
        (Reply::Status(204), "REST 204"),
        (Reply::Redirect(other.url()), "REST 302"),
        (Reply::Text("<html>"), "it is no JSON, line 1"),
        (Reply::Text("[1]"), "it is no JSON object"),
        (Reply::Half, "not reached"),
        (Reply::Closed, "not reached"),
        (Reply::Never, "no answer within 1 s"),
    ] {
        hooks.answers_to("connect", reply);
        refused(info);
    }
    assert!(other.calls().is_empty(), "a redirect is not followed");
    hooks.stop();
    refused("not reached");
    hooks.restart();
    for reply in [Reply::Mirror, Reply::Text(""), Reply::Slow(Duration::from_millis(400))] {
        hooks.answers_to("connect", reply);
        Page::established(&weir);
    }
    hooks.forget();
    // A connection that breaks is tried again.
    let tries = std::sync::atomic::AtomicUsize::new(0);
    hooks.answers(move |call| match call.method == "connect" {
        true if tries.fetch_add(1, std::sync::atomic::Ordering::SeqCst) == 0 => Reply::Closed,
        _ => Reply::Mirror,
    });
    Page::established(&weir);
    assert_eq!(hooks.of("connect").len(), 2);
}

#[test]
fn nobody_gets_round_a_hook_with_an_application_that_is_none() {
    let (home, hooks) = (Home::new(), HookServer::start());
    all_hooks(&home, &hooks);
    let weir = home.start();
    let mut page = Page::open(&weir);
    page.say("connection", &json!({"appKey": "nope"}));
    assert!(page.hears("fail")["info"].as_str().unwrap().contains("no application"));
    assert_eq!(page.closed(), CloseCode::Policy);
    assert!(hooks.calls().is_empty());
}

#[test]
fn an_error_counts_where_connect_said_so_and_not_otherwise() {
    let (home, hooks) = (Home::new(), HookServer::start());
    all_hooks(&home, &hooks);
    let mut weir = home.start();
    weir.announce("REST 403 Forbidden");
    hooks.answers_to("publishStream", Reply::Status(403));
    let mut page = Page::established(&weir);
    publishes(&mut page, "S1", "logged");
    page.hears("setRemoteSDP");
    assert!(weir.stream("logged").is_some(), "LOG is the default: it goes on");

    let config = json!({
        "publishStream": {"restOnError": "FAIL", "restExclude": "sdp,custom"},
        "playStream": {"restOnError": "FAIL"},
        "snapshot": {"restOnError": "FAIL"},
        "sendData": {"restPolicy": "DISABLE"},
        "OnDataEvent": {"restOnError": "FAIL"},
        "pushLogs": {"restOnError": "FAIL"},
        "StreamEvent": {"restOnError": "FAIL"},
        "StreamStatusEvent": {"clientExclude": "hasVideo, hasAudio"},
    });
    hooks.configures(config, |_| Reply::Status(403));
    let mut page = Page::established(&weir);
    hooks.forget();
    publishes(&mut page, "S2", "refused");
    let status = page.hears("notifyStreamStatusEvent");
    assert_eq!((&status["status"], &status["info"]), (&json!("FAILED"), &json!("REST 403 Forbidden")));
    assert!(status["hasVideo"].is_null(), "{status}");
    assert!(weir.stream("refused").is_none());
    let asked = hooks.wait("publishStream", |body| body["mediaSessionId"] == "S2");
    assert!(asked.body["sdp"].is_null(), "{}", asked.body);
    hooks.wait("StreamStatusEvent", |body| object_has(body, &json!({"mediaSessionId": "S2", "status": "FAILED"})));

    page.say("playStream", &json!({"mediaSessionId": "P", "name": "logged", "published": false, "sdp": OFFER}));
    assert_eq!(page.status(), failed("REST 403 Forbidden"));
    page.say("snapshot", &json!({"mediaSessionId": "P2", "name": "logged"}));
    let event = page.hears("notifyStreamEvent");
    assert_eq!((&event["type"], &event["payload"]["info"]), (&json!("snapshotFailed"), &json!("REST 403 Forbidden")));
    page.say("sendData", &json!({"operationId": "o1", "payload": {"x": 1}}));
    let data = page.hears("DataStatusEvent");
    assert_eq!((&data["status"], &data["info"]), (&json!("FAILED"), &json!("REST 403 Forbidden")));
    assert!(hooks.of("sendData").is_empty(), "DISABLE");
    assert_eq!(hooks.wait("OnDataEvent", |_| true).body["payload"], json!({"x": 1}));
    hooks.wait("DataStatusEvent", |body| object_has(body, &json!({"operationId": "o1", "status": "FAILED"})));
    page.say("pushLogs", &json!({"logs": "one\ntwo"}));
    assert_eq!(page.hears("fail")["apiMethod"], "pushLogs");
    assert_eq!(hooks.wait("pushLogs", |_| true).body["logs"], "one\ntwo");
    page.say("submitBugReport", &json!({"text": "it hangs", "type": "no_media"}));
    hooks.wait("submitBugReport", |body| body["text"] == "it hangs");
}

#[test]
fn what_became_of_a_snapshot_is_told() {
    let (home, hooks) = (Home::new(), HookServer::start());
    all_hooks(&home, &hooks);
    let weir = home.start();
    let _publisher = Publisher::start(Clip::LONG, &rtmp(&weir, "cam"));
    weir.wait_frames("cam", 10);
    let mut page = Page::established(&weir);
    for (session, name, event, status, info) in [
        ("P1", "cam", "snapshotCompleted", "SNAPSHOT_COMPLETE", Value::Null),
        ("P2", "nobody", "snapshotFailed", "FAILED", json!("Stream not found")),
    ] {
        page.say("snapshot", &json!({"mediaSessionId": session, "name": name}));
        assert_eq!(page.hears("notifyStreamEvent")["type"], event);
        let told = hooks.wait("StreamStatusEvent", |body| body["mediaSessionId"] == session).body;
        let fields = json!({"name": name, "status": status, "published": false, "info": info, "appKey": APP});
        assert!(object_has(&told, &fields), "{told}");
    }
}

#[test]
fn a_hook_that_rewrites_a_name_takes_effect_and_the_browser_keeps_its_own() {
    let (home, hooks) = (Home::new(), HookServer::start());
    all_hooks(&home, &hooks);
    let weir = home.start();
    let rewrite = json!({"restPolicy": "OVERWRITE", "restOverwrite": "name"});
    hooks.configures(json!({"publishStream": rewrite, "playStream": rewrite}), |call| {
        let asked = call.body["name"].as_str().unwrap_or_default();
        Reply::With(json!({"name": format!("real-{asked}"), "mediaSessionId": "not listed", "record": true}))
    });
    let mut page = Page::established(&weir);
    publishes(&mut page, "S1", "a");
    assert_eq!(page.hears("setRemoteSDP")[0], "S1");
    assert!(weir.stream("a").is_none());
    let stream = weir.stream("real-a").unwrap();
    assert_eq!((&stream["mediaSessionId"], &stream["record"]), (&json!("S1"), &json!(false)));
    stops(&mut page, "S1", "a");
    let status = page.hears("notifyStreamStatusEvent");
    assert_eq!((&status["name"], &status["status"]), (&json!("a"), &json!("UNPUBLISHED")));
    hooks.wait("StreamStatusEvent", |body| object_has(body, &json!({"name": "real-a", "status": "UNPUBLISHED"})));
    page.say("playStream", &json!({"mediaSessionId": "P", "name": "b", "published": false, "sdp": OFFER}));
    assert_eq!(page.status(), failed("Stream not found"));
}

#[test]
fn a_slow_verdict_delays_what_waits_for_it_and_nothing_else() {
    let (home, hooks) = (Home::new(), HookServer::start());
    all_hooks(&home, &hooks);
    let weir = home.start();
    hooks.answers(|call| match call.body["name"] == "slow" && call.method == "publishStream" {
        true => Reply::Slow(Duration::from_secs(4)),
        false => Reply::Mirror,
    });
    let mut page = Page::established(&weir);
    let began = Instant::now();
    publishes(&mut page, "S1", "slow");
    hooks.wait("publishStream", |body| body["name"] == "slow");
    publishes(&mut page, "S2", "quick");
    assert_eq!(page.hears("setRemoteSDP")[0], "S2");
    page.say("ping", &Value::Null);
    page.hears("pong");
    assert!(began.elapsed() < Duration::from_secs(4), "the second did not wait for the first");
    // One that does not wait for its verdict is told so at once, and its name was never taken.
    publishes(&mut page, "S3", "slow");
    hooks.wait("publishStream", |body| body["mediaSessionId"] == "S3");
    let stopped = Instant::now();
    stops(&mut page, "S3", "slow");
    assert_eq!(page.status(), ("UNPUBLISHED".into(), "Stopped by user".into()));
    assert!(stopped.elapsed() < Duration::from_secs(2));
    assert_eq!(page.hears("setRemoteSDP")[0], "S1");
    assert!(weir.stream("slow").is_some());
}

#[test]
fn a_browser_that_leaves_while_its_verdict_is_awaited_leaves_nothing() {
    let (home, hooks) = (Home::new(), HookServer::start());
    all_hooks(&home, &hooks);
    let weir = home.start();
    hooks.answers(|call| match call.method.as_str() {
        "connect" if call.body["custom"]["never"] == true => Reply::Never,
        "publishStream" => Reply::Never,
        _ => Reply::Mirror,
    });
    let mut page = Page::open(&weir);
    page.say("connection", &json!({"appKey": APP, "custom": {"never": true}}));
    hooks.wait("connect", |body| body["custom"]["never"] == true);
    drop(page);
    let mut page = Page::established(&weir);
    publishes(&mut page, "S1", "a");
    hooks.wait("publishStream", |_| true);
    drop(page);
    let over = hooks.wait("StreamStatusEvent", |body| body["mediaSessionId"] == "S1");
    assert_eq!(over.body["info"], "Stopped by session disconnect");
    hooks.wait("ConnectionStatusEvent", |body| body["status"] == "DISCONNECTED");
    wait_until("no connection is left", || weir.get("/rest-api/connection/find_all").status == 404);
    let (status, took) = weir.stop();
    assert!(status.success() && took < Duration::from_secs(5), "{status} after {took:?}");
}

#[test]
fn bodies_are_signed_where_the_operator_wants_that() {
    let (home, hooks) = (Home::new(), HookServer::start());
    all_hooks(&home, &hooks);
    let weir = home.setup().set("rest_hook_send_hash=true").set("rest_hook_secret_key=s3cret").start();
    Page::established(&weir);
    let call = hooks.wait("connect", |_| true);
    let python = "import hmac,sys;print(hmac.new(b's3cret',sys.argv[1].encode(),'md5').hexdigest())";
    let mut tool = std::process::Command::new("python3");
    let wanted = support::run(tool.args(["-c", python, &call.text]), SOON).stdout;
    let wanted = format!("WCS {}", String::from_utf8(wanted).unwrap().trim());
    assert_eq!(call.header("authorization").unwrap(), wanted);
    assert!(!weir.log().iter().any(|line| line.contains("s3cret")));
}

#[test]
fn nothing_is_called_where_hooks_are_switched_off() {
    let (home, hooks) = (Home::new(), HookServer::start());
    all_hooks(&home, &hooks);
    hooks.answers(|_| Reply::Status(403));
    let weir = home.setup().set("disable_rest_requests=true").start();
    let mut page = Page::established(&weir);
    publishes(&mut page, "S1", "a");
    page.hears("setRemoteSDP");
    drop(page);
    wait_until("the stream is gone", || weir.stream("a").is_none());
    assert!(hooks.calls().is_empty());
}

/// Streams that come and go while nobody listens: as many statuses as there are to be told.
fn come_and_go(weir: &Weir, count: usize) -> Vec<String> {
    let mut page = Page::established(weir);
    for n in 0..count {
        let (session, name) = (format!("S{n}"), format!("s{n}"));
        publishes(&mut page, &session, &name);
        page.hears("setRemoteSDP");
        stops(&mut page, &session, &name);
        assert_eq!(page.status().0, "UNPUBLISHED");
    }
    (0..count).map(|n| format!("S{n}")).collect()
}

fn told(hooks: &HookServer) -> Vec<String> {
    hooks.of("StreamStatusEvent").iter().map(|call| call.body["mediaSessionId"].as_str().unwrap().to_owned()).collect()
}

const EVENTS: [Method; 2] = [Method::StreamStatusEvent, Method::ConnectionStatusEvent];

#[test]
fn events_wait_for_a_hook_server_that_is_away_and_arrive_in_order() {
    let (home, mut hooks) = (Home::new(), HookServer::away());
    home.hooks(APP, &hooks, &EVENTS);
    let mut weir = home.start();
    weir.announce("REST hook is not reached");
    let sessions = come_and_go(&weir, 4);
    hooks.restart();
    wait_until("all events are told", || told(&hooks).len() == sessions.len());
    assert_eq!(told(&hooks), sessions);
    assert_eq!(hooks.seen()[0], "ConnectionStatusEvent ESTABLISHED");
    // Answers of any kind are an end of it; broken ones are tried again.
    hooks.forget();
    let tries = std::sync::atomic::AtomicUsize::new(0);
    weir.tolerate("StreamStatusEvent: REST");
    hooks.answers(move |call| match call.method.as_str() {
        "StreamStatusEvent" => match tries.fetch_add(1, std::sync::atomic::Ordering::SeqCst) {
            0 => Reply::Half,
            1 => Reply::Status(503),
            2 => Reply::Mirror,
            _ => Reply::Status(500),
        },
        _ => Reply::Mirror,
    });
    let sessions = come_and_go(&weir, 2);
    wait_until("both are told", || told(&hooks).len() >= 4);
    assert_eq!(told(&hooks), [&sessions[0], &sessions[0], &sessions[0], &sessions[1]].map(String::clone));
}

#[test]
fn events_survive_a_kill_and_arrive_in_order_and_once_more_at_most() {
    let (home, mut hooks) = (Home::new(), HookServer::away());
    home.hooks(APP, &hooks, &EVENTS);
    let mut weir = home.start();
    weir.announce("REST hook is not reached");
    let sessions = come_and_go(&weir, 6);
    let last = sessions.last().unwrap();
    wait_until("the last one is written down", || kept(&home).lines().any(|line| line.contains(last)));
    weir.kill();
    hooks.restart();
    let weir = home.start();
    wait_until("all events are told", || told(&hooks).len() >= sessions.len());
    assert!(weir.logged("are left from an earlier run"));
    let mut arrived = told(&hooks);
    arrived.dedup();
    assert_eq!(arrived, sessions);
    for session in &sessions {
        assert!(told(&hooks).iter().filter(|told| *told == session).count() <= 2);
    }
    weir.stop();
    hooks.forget();
    let weir = home.start();
    let mut page = Page::established(&weir);
    page.say("ping", &Value::Null);
    page.hears("pong");
    hooks.wait("ConnectionStatusEvent", |_| true);
    assert!(told(&hooks).is_empty(), "what was told is not told again: {:?}", hooks.seen());
}

/// What is written down of events that wait.
fn kept(home: &Home) -> String {
    std::fs::read_to_string(home.path().join("data/hook_events.log")).unwrap()
}

#[test]
fn an_event_that_is_on_its_way_when_weir_is_killed_arrives_after_the_restart() {
    let (home, hooks) = (Home::new(), HookServer::start());
    home.hooks(APP, &hooks, &[Method::StreamStatusEvent]);
    let weir = home.start();
    hooks.answers(|_| Reply::Never);
    come_and_go(&weir, 1);
    hooks.wait("StreamStatusEvent", |_| true);
    weir.kill();
    assert_eq!(told(&hooks).len(), 1);
    hooks.answers(|_| Reply::Mirror);
    let _weir = home.start();
    wait_until("it is told once more", || told(&hooks) == ["S0", "S0"]);
    wait_until("it is done with", || kept(&home).lines().last().is_some_and(|line| line.starts_with('-')));
}

#[test]
fn a_stop_in_order_keeps_what_could_not_be_told() {
    let (home, mut hooks) = (Home::new(), HookServer::away());
    home.hooks(APP, &hooks, &EVENTS);
    let mut weir = home.start();
    weir.announce("REST hook is not reached");
    let sessions = come_and_go(&weir, 2);
    let (status, took) = weir.stop();
    assert!(status.success() && took < Duration::from_secs(8), "{status} after {took:?}");
    hooks.restart();
    let _weir = home.start();
    wait_until("all events are told", || told(&hooks).len() == sessions.len());
    assert_eq!(told(&hooks), sessions);
}

#[test]
fn what_is_too_much_is_dropped_oldest_first_and_said() {
    let (home, mut hooks) = (Home::new(), HookServer::away());
    home.hooks(APP, &hooks, &[Method::StreamStatusEvent]);
    let mut weir = home.setup().set("rest_hook_queue=3").start();
    weir.announce("REST hook is not reached");
    weir.announce("rest_hook_queue");
    let sessions = come_and_go(&weir, 6);
    hooks.restart();
    wait_until("those that are kept are told", || told(&hooks).last() == sessions.last());
    let kept = told(&hooks);
    assert!(sessions.ends_with(&kept[kept.len() - 3..]), "{kept:?}");
    assert!(kept.len() <= 4, "{kept:?}");
}

#[test]
fn the_keep_alive_ends_a_browsers_stream_and_only_that() {
    let (home, hooks) = (Home::new(), HookServer::start());
    home.hooks(APP, &hooks, &[Method::StreamKeepAliveEvent, Method::StreamStatusEvent]);
    hooks.answers(|call| match call.body["name"] == "bad" && call.method == "StreamKeepAliveEvent" {
        true => Reply::Status(403),
        false => Reply::Mirror,
    });
    let weir = keep_alive(&home, APP).start();
    let mut page = Page::established(&weir);
    publishes(&mut page, "G", "good");
    page.hears("setRemoteSDP");
    publishes(&mut page, "B", "bad");
    assert_eq!(page.status(), failed("Terminated by keep-alive"));
    assert!(weir.stream("bad").is_none() && weir.stream("good").is_some());
    let beat = hooks.wait("StreamKeepAliveEvent", |body| body["name"] == "good");
    let fields = json!({"mediaSessionId": "G", "published": true, "appKey": APP, "sdp": OFFER, "custom": {"of": "G"}});
    assert!(object_has(&beat.body, &fields) && beat.body["nodeId"].is_string(), "{}", beat.body);
    hooks.wait("StreamStatusEvent", |body| {
        object_has(body, &json!({"mediaSessionId": "B", "status": "FAILED", "info": "Terminated by keep-alive"}))
    });
    // The name is free at once, and beats go on evenly.
    hooks.answers(|_| Reply::Mirror);
    publishes(&mut page, "B", "bad");
    page.hears("setRemoteSDP");
    wait_until("five beats", || beats(&hooks, "G").len() >= 5);
    let times = beats(&hooks, "G");
    let gaps: Vec<_> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(gaps.iter().all(|gap| *gap > BEAT / 2), "{gaps:?}");
}

const BEAT: Duration = Duration::from_millis(300);

fn keep_alive(home: &Home, apps: &str) -> support::Setup {
    let setup = home.setup().set("keep_alive_streaming_sessions_enabled=true");
    let setup = setup.set(&format!("streaming_sessions_keep_alive_interval={}", BEAT.as_millis()));
    setup.set(&format!("streaming_sessions_keep_alive_app_keys={apps}"))
}

fn beats(hooks: &HookServer, session: &str) -> Vec<Instant> {
    let of = |call: &support::Call| call.body["mediaSessionId"] == session;
    hooks.of("StreamKeepAliveEvent").into_iter().filter(of).map(|call| call.at).collect()
}

#[test]
fn no_error_but_403_ends_a_stream() {
    let (home, mut hooks) = (Home::new(), HookServer::start());
    home.hooks(APP, &hooks, &[Method::StreamKeepAliveEvent]);
    let mut weir = keep_alive(&home, APP).set("rest_request_timeout=500ms").start();
    weir.announce("hook=keep-alive");
    let mut page = Page::established(&weir);
    publishes(&mut page, "S", "s");
    page.hears("setRemoteSDP");
    for reply in [
        Reply::Status(500),
        Reply::Status(401),
        Reply::Text("<"),
        Reply::Half,
        Reply::Redirect("/x".into()),
        Reply::Never,
    ] {
        hooks.answers_to("StreamKeepAliveEvent", reply);
        let before = beats(&hooks, "S").len();
        wait_until("two more beats", || beats(&hooks, "S").len() >= before + 2);
    }
    hooks.stop();
    std::thread::sleep(BEAT * 3);
    assert!(weir.stream("s").is_some(), "the stream lives on");
    hooks.restart();
    hooks.answers_to("StreamKeepAliveEvent", Reply::Status(403));
    assert_eq!(page.status(), failed("Terminated by keep-alive"));
}

#[test]
fn connect_can_take_the_teeth_out_of_the_keep_alive() {
    let (home, hooks) = (Home::new(), HookServer::start());
    home.hooks(APP, &hooks, &[Method::Connect, Method::StreamKeepAliveEvent]);
    let mut weir = keep_alive(&home, APP).start();
    weir.tolerate("hook=keep-alive");
    hooks.configures(json!({"StreamKeepAliveEvent": {"restOnError": "LOG", "restExclude": "sdp"}}), |_| {
        Reply::Status(403)
    });
    let mut page = Page::established(&weir);
    publishes(&mut page, "S", "s");
    page.hears("setRemoteSDP");
    wait_until("three beats", || beats(&hooks, "S").len() >= 3);
    assert!(hooks.of("StreamKeepAliveEvent")[0].body["sdp"].is_null());
    assert!(weir.stream("s").is_some());
    hooks.configures(json!({"StreamKeepAliveEvent": {"restPolicy": "DISABLE"}}), |_| Reply::Status(403));
    let mut other = Page::established(&weir);
    publishes(&mut other, "D", "d");
    other.hears("setRemoteSDP");
    wait_until("three more beats", || beats(&hooks, "S").len() >= 6);
    assert!(beats(&hooks, "D").is_empty());
}

fn rtmp(weir: &Weir, name: &str) -> String {
    format!("rtmp://127.0.0.1:{}/live/{name}", weir.port_of("rtmp.port"))
}

#[test]
fn an_encoder_is_asked_about_told_of_and_ended() {
    let (home, hooks) = (Home::new(), HookServer::start());
    home.hooks(FLASH, &hooks, &Method::ALL);
    let weir = keep_alive(&home, FLASH).start();
    let mut publisher = Publisher::start(Clip::LONG, &format!("{}?token=t1", rtmp(&weir, "cam")));
    let connect = hooks.wait("connect", |_| true);
    let fields = json!({"appKey": FLASH, "app": "live", "mediaProviders": ["Flash"]});
    assert!(object_has(&connect.body, &fields), "{}", connect.body);
    let asked = hooks.wait("publishStream", |_| true);
    let fields = json!({"name": "cam", "published": true, "mediaProvider": "Flash", "custom": {"token": "t1"}});
    assert!(object_has(&asked.body, &fields), "{}", asked.body);
    let told = hooks.wait("StreamStatusEvent", |body| body["status"] == "PUBLISHING");
    let fields = json!({"name": "cam", "videoCodec": "H264", "custom": {"token": "t1"},
        "mediaSessionId": asked.body["mediaSessionId"], "sessionId": connect.body["sessionId"]});
    assert!(object_has(&told.body, &fields), "{}", told.body);
    hooks.wait("StreamKeepAliveEvent", |body| body["status"] == "PUBLISHING");
    hooks.answers_to("StreamKeepAliveEvent", Reply::Status(403));
    publisher.ended(SOON);
    assert!(weir.stream("cam").is_none());
    hooks.wait("StreamStatusEvent", |body| {
        object_has(body, &json!({"status": "FAILED", "info": "Terminated by keep-alive"}))
    });
    hooks.wait("ConnectionStatusEvent", |body| body["status"] == "DISCONNECTED");
    let seen = hooks.seen();
    let at = |what: &str| seen.iter().position(|one| one == what).unwrap_or_else(|| panic!("{what} in {seen:?}"));
    assert!(at("StreamStatusEvent FAILED") < at("ConnectionStatusEvent DISCONNECTED"));

    hooks.answers(|_| Reply::Mirror);
    let again = Publisher::start(Clip::LONG, &rtmp(&weir, "cam"));
    weir.wait_frames("cam", 10);
    drop(again);
    hooks.wait("StreamStatusEvent", |body| body["status"] == "UNPUBLISHED");
}

#[test]
fn an_rtmp_players_last_word_comes_before_that_of_its_connection() {
    let (home, hooks) = (Home::new(), HookServer::start());
    home.hooks(FLASH, &hooks, &Method::ALL);
    let weir = home.start();
    let _publisher = Publisher::start(Clip::LONG, &rtmp(&weir, "cam"));
    weir.wait_frames("cam", 10);
    let uri = format!("{}?who=me", rtmp(&weir, "cam"));
    let player = Process::start("ffmpeg", move |command| {
        command.args(["-v", "error", "-nostdin", "-i", &uri, "-c", "copy", "-f", "null", "-"]);
        command.stdout(Stdio::null()).stderr(Stdio::null());
    });
    let playing = hooks.wait("StreamStatusEvent", |body| body["status"] == "PLAYING");
    let whose = playing.body["sessionId"].clone();
    drop(player);
    hooks.wait("ConnectionStatusEvent", |body| body["status"] == "DISCONNECTED" && body["sessionId"] == whose);
    let calls = hooks.calls().into_iter().filter(|call| call.body["sessionId"] == whose);
    let told: Vec<_> =
        calls.map(|call| (call.method, call.body["status"].clone(), call.body["custom"].clone())).collect();
    let word = |method: &str, status: &str, custom: Value| (method.to_owned(), json!(status), custom);
    let last = [
        word("StreamStatusEvent", "STOPPED", json!({"who": "me"})),
        word("ConnectionStatusEvent", "DISCONNECTED", json!({})),
    ];
    assert_eq!(told[told.len() - 2..], last, "{told:#?}");
}

/// Under a name that the hook server has put in place of the encoder's.
#[test]
fn an_encoder_that_comes_back_is_asked_about_as_the_session_it_goes_on_with() {
    let (home, hooks) = (Home::new(), HookServer::start());
    home.hooks(FLASH, &hooks, &[Method::Connect, Method::PublishStream, Method::StreamStatusEvent]);
    let rewrite = json!({"restPolicy": "OVERWRITE", "restOverwrite": "name"});
    hooks.configures(json!({"publishStream": rewrite}), |call| match call.method.as_str() {
        "publishStream" => Reply::With(json!({"name": "cam"})),
        _ => Reply::Mirror,
    });
    let weir = home.setup().set("publisher_linger=60s").start();
    let shown = || weir.stream("cam").map(|stream| (stream["mediaSessionId"].clone(), stream["sessionId"].clone()));
    let told = || {
        let all = hooks.calls();
        let of = |call: &&support::Call| call.body["status"] == "PENDING" || call.body["status"] == "PUBLISHING";
        let ids = all.iter().filter(of).map(|call| (call.method.clone(), call.body["mediaSessionId"].clone()));
        ids.collect::<Vec<_>>()
    };
    Publisher::start(Clip::AV, &rtmp(&weir, "key?n=1")).sent();
    weir.wait_log("stream waits");
    let first = shown().unwrap();
    let _second = Publisher::start(Clip::LONG, &rtmp(&weir, "key?n=2"));
    let again = |body: &Value| body["status"] == "PUBLISHING" && body["custom"]["n"] == "2";
    let again = hooks.wait("StreamStatusEvent", again).body;
    let second = shown().unwrap();
    assert!(first.0 == second.0 && first.1 != second.1, "{first:?} {second:?}");
    assert_eq!((&again["mediaSessionId"], &again["sessionId"]), (&second.0, &second.1));
    let call = |method: &str| (method.to_owned(), first.0.clone());
    let each = [call("publishStream"), call("StreamStatusEvent")];
    assert_eq!(told(), [each.clone(), each].concat());
    // While it is there, somebody else of that name is somebody else.
    Publisher::start(Clip::AV, &rtmp(&weir, "key?n=3")).ended(SOON);
    let third = hooks.wait("publishStream", |body| body["custom"]["n"] == "3");
    assert_ne!(third.body["mediaSessionId"], first.0);
}

#[test]
fn an_encoder_is_refused_and_renamed() {
    let (home, hooks) = (Home::new(), HookServer::start());
    home.hooks(FLASH, &hooks, &[Method::Connect, Method::PublishStream, Method::StreamStatusEvent]);
    let mut weir = home.start();
    weir.announce("REST 403 Forbidden");
    hooks.answers_to("connect", Reply::Status(403));
    Publisher::start(Clip::AV, &rtmp(&weir, "a")).ended(SOON);
    assert!(hooks.of("publishStream").is_empty());
    hooks.configures(json!({"publishStream": {"restOnError": "FAIL"}}), |_| Reply::Status(403));
    Publisher::start(Clip::AV, &rtmp(&weir, "b")).ended(SOON);
    hooks.wait("StreamStatusEvent", |body| object_has(body, &json!({"status": "FAILED", "name": "b"})));
    assert!(weir.stream("a").is_none() && weir.stream("b").is_none());
    let rewrite = json!({"restPolicy": "OVERWRITE", "restOverwrite": "name"});
    hooks.configures(json!({"publishStream": rewrite}), |call| match call.method.as_str() {
        "publishStream" => Reply::With(json!({"name": "secret-name"})),
        _ => Reply::Mirror,
    });
    let _publisher = Publisher::start(Clip::AV, &rtmp(&weir, "c"));
    weir.wait_frames("secret-name", 10);
    assert!(weir.stream("c").is_none());
}

#[test]
fn a_pulled_stream_is_told_of_and_ended_by_its_keep_alive() {
    let (home, hooks) = (Home::new(), HookServer::start());
    home.hooks(APP, &hooks, &[Method::StreamKeepAliveEvent, Method::StreamStatusEvent]);
    let weir = keep_alive(&home, APP).start();
    // From itself: its RTMP server is a remote one as good as any.
    let _publisher = Publisher::start(Clip::LONG, &rtmp(&weir, "source"));
    weir.wait_frames("source", 5);
    weir.pull(&rtmp(&weir, "source"), "pulled", false);
    weir.wait_frames("pulled", 5);
    let beat = hooks.wait("StreamKeepAliveEvent", |body| body["status"] == "PUBLISHING");
    assert!(object_has(&beat.body, &json!({"name": "pulled", "mediaType": "rtmp", "published": true})));
    hooks.wait("StreamStatusEvent", |body| object_has(body, &json!({"name": "pulled", "status": "PUBLISHING"})));
    hooks.answers_to("StreamKeepAliveEvent", Reply::Status(403));
    let ended = json!({"name": "pulled", "status": "FAILED", "info": "Terminated by keep-alive"});
    hooks.wait("StreamStatusEvent", |body| object_has(body, &ended));
    wait_until("the pull is gone", || weir.agent("pulled").is_none() && weir.stream("pulled").is_none());
    assert!(weir.stream("source").is_some(), "an encoder's stream is of another application");
    hooks.answers(|_| Reply::Mirror);
    weir.pull(&rtmp(&weir, "source"), "pulled", false);
    weir.wait_frames("pulled", 5);
    weir.terminate("pulled");
}

#[test]
fn a_camera_is_ended_by_its_keep_alive_and_by_rest_and_is_captured_again_at_once() {
    let (home, hooks) = (Home::new(), HookServer::start());
    let camera = support::Camera::start(&[support::camera::h264()]);
    home.hooks(APP, &hooks, &[Method::StreamKeepAliveEvent, Method::StreamStatusEvent]);
    let weir = keep_alive(&home, APP).start();
    let capture = || {
        hooks.answers(|_| Reply::Mirror);
        weir.done("/rest-api/rtsp/startup", &json!({"uri": camera.uri(), "toStream": "cam"}));
        weir.wait_frames("cam", 5);
    };
    let gone = || {
        wait_until("the capture is gone", || weir.get("/rest-api/rtsp/find_all").status == 404);
        assert!(weir.stream("cam").is_none());
    };
    capture();
    hooks.wait("StreamKeepAliveEvent", |body| object_has(body, &json!({"name": "cam", "mediaType": "rtsp"})));
    hooks.answers_to("StreamKeepAliveEvent", Reply::Status(403));
    let ended = |info: &str| json!({"name": "cam", "status": "FAILED", "info": info});
    hooks.wait("StreamStatusEvent", |body| object_has(body, &ended("Terminated by keep-alive")));
    gone();
    capture();
    weir.done("/rest-api/stream/terminate", &json!({"name": "cam", "status": "PUBLISHING"}));
    gone();
    hooks.wait("StreamStatusEvent", |body| object_has(body, &ended("Stopped by rest /terminate")));
}

#[test]
fn a_pull_that_has_no_source_is_no_reason_for_events() {
    let (home, hooks) = (Home::new(), HookServer::start());
    home.hooks(APP, &hooks, &[Method::StreamStatusEvent]);
    let mut weir = home.start();
    weir.announce("pull has no source");
    weir.pull(&dead_port(), "none", false);
    weir.wait_agent("none", "RECONNECTING");
    weir.terminate("none");
    let over = hooks.wait("StreamStatusEvent", |body| body["name"] == "none");
    assert_eq!(hooks.of("StreamStatusEvent").len(), 1, "{over:?}");
    wait("the list to be empty", SOON, || weir.agent("none").is_none().then_some(()));
}

/// The README's hook server, as it is pasted, but for its port; and set up as the README says.
#[test]
fn the_tour_of_the_readme_ends_a_stream() {
    let readme = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md")).unwrap();
    let code = readme.split("```python\n").nth(1).unwrap().split("```").next().unwrap();
    assert!(readme.contains("update app -l http://127.0.0.1:9091/MyAPI defaultApp"));
    // A free port: of a server that is gone.
    let url = HookServer::away().url();
    let port = url.split(':').nth(2).unwrap().split('/').next().unwrap().to_owned();
    let home = Home::new();
    let script = home.path().join("hooks.py");
    std::fs::write(&script, code.replace("9091", &port)).unwrap();
    let out = home.path().join("hooks.log");
    let log = std::fs::File::create(&out).unwrap();
    let _python = support::Process::start("python3", |command| {
        command.arg(&script).stdout(log).stderr(std::process::Stdio::null());
    });
    wait_until("the script listens", || std::net::TcpStream::connect(format!("127.0.0.1:{port}")).is_ok());
    let weir = keep_alive(&home, APP).start();
    for line in [&format!("update app -l {url} {APP}"), &format!("add app-rest-method {APP} StreamKeepAliveEvent")] {
        let mut ctl = std::process::Command::new(env!("CARGO_BIN_EXE_weir"));
        ctl.args(["ctl", "--data"]).arg(home.path().join("data")).arg(line);
        assert!(support::run(&mut ctl, SOON).status.success(), "{line}");
    }
    let mut page = Page::established(&weir);
    publishes(&mut page, "S", "cam");
    page.hears("setRemoteSDP");
    wait_until("a beat", || std::fs::read_to_string(&out).unwrap().contains("StreamKeepAliveEvent cam PENDING 200"));
    let mut curl = std::process::Command::new("curl");
    let end = format!("http://127.0.0.1:{port}/end");
    assert!(
        support::run(curl.args(["-sS", "--noproxy", "*", "--json", r#"{"name": "cam"}"#, &end]), SOON).status.success()
    );
    assert_eq!(page.status(), failed("Terminated by keep-alive"));
    let counts = weir.get("/rest-api/hooks").json();
    assert!(counts[APP]["beats"].as_u64() >= Some(2) && counts[APP]["beatsEnded"] == 1, "{counts}");
    assert_eq!((&counts[APP]["dropped"], &counts[APP]["beatsMissed"]), (&json!(0), &json!(0)), "{counts}");
}
