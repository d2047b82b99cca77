//! Servers feed servers: pulls and pushes between weirs on loopback, and servers that mean no good.

use crate::page::Page;
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use crate::support::{Clip, Home, Publisher, SOON, Signal, Weir, dead_port, probe, run, wait, wait_until};
use serde_json::{Value, json};

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

fn pull(edge: &Weir, origin: &Weir, remote: &str, local: &str) {
    let call = json!({"uri": ws(origin), "remoteStreamName": remote, "localStreamName": local});
    edge.done("/rest-api/pull/pull", &call);
}

/// Frames that come on: what was there before counts for nothing.
fn wait_more_frames(weir: &Weir, name: &str) {
    let before = weir.frames(name).0;
    weir.wait_frames(name, before + 25);
}

/// ffmpeg decodes every frame and sample. Into formats without times: a server hands over its running GOP at once, with
/// times so close that a file's clock may give two frames the same.
fn decodes_whatever_its_times(file: &Path) {
    let mut ffmpeg = Command::new("ffmpeg");
    ffmpeg.args(["-nostdin", "-y", "-v", "error", "-xerror", "-i"]).arg(file);
    ffmpeg.args(["-map", "0:v", "-f", "rawvideo", "/dev/null", "-map", "0:a", "-f", "s16le", "/dev/null"]);
    let output = run(&mut ffmpeg, SOON);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.trim().is_empty(), "{} does not decode: {said}", file.display());
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
    decodes_whatever_its_times(&file);
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

#[test]
fn a_stream_is_pushed_and_comes_back() {
    let (here_home, there_home) = (Home::new(), Home::new());
    let mut here = here_home.start();
    let mut there = there_home.start();
    let call = json!({"uri": ws(&there), "localStreamName": "cam", "remoteStreamName": "copy"});
    assert_eq!(here.refused(&here.post("/rest-api/pull/push", &call), "/rest-api/pull/push").0, 404);
    let publisher = Publisher::start(Clip::LONG, &here.rtmp("cam"));
    here.wait_frames("cam", 10);
    here.done("/rest-api/pull/push", &call);
    assert_eq!(here.post("/rest-api/pull/push", &call).status, 409);
    let agent = wait_agent(&here, "PROCESSED_REMOTE");
    assert_eq!((&agent["direction"], &agent["localStreamName"]), (&json!("push"), &json!("cam")));
    there.wait_frames("copy", 60);
    let copy = there.stream("copy").unwrap();
    assert_eq!((&copy["videoCodec"], &copy["audioCodec"]), (&json!("H264"), &json!("opus")), "{copy}");
    assert_eq!(copy["mediaSessionId"], agent["remoteMediaSessionId"]);
    let taker = here.post("/rest-api/stream/find", &json!({"published": false})).json();
    assert_eq!(taker[0]["mediaSessionId"], agent["localMediaSessionId"]);

    here.announce("is interrupted");
    there.tolerate("stream interrupted");
    publisher.leave();
    wait_agent(&here, "RECONNECTING");
    wait_until("the copy to end", || there.stream("copy").is_none());
    let _again = Publisher::start(Clip::LONG, &here.rtmp("cam"));
    wait_agent(&here, "PROCESSED_REMOTE");
    there.wait_frames("copy", 30);
    here.done("/rest-api/pull/terminate", &json!({"uri": ws(&there)}));
    assert!(agents(&here).is_empty());
    wait_until("the copy to end", || there.stream("copy").is_none());
    assert!(here.pipelines("push-wcs").is_empty());
}

#[test]
fn what_cannot_be_pulled_or_pushed_says_why() {
    let home = Home::new();
    let weir = home.start();
    for (call, body, status, words) in [
        ("pull", json!({"uri": "wss://h:8443", "remoteStreamName": "a"}), 400, "wcs_agent_ssl"),
        ("pull", json!({"uri": "ws://h:8080"}), 400, "remoteStreamName"),
        ("pull", json!({"uri": "http://h", "remoteStreamName": "a"}), 400, "scheme"),
        ("pull", json!({"uri": "ws://u:secret@h", "remoteStreamName": "a"}), 400, "password"),
        ("push", json!({"uri": "ws://h:8080", "remoteStreamName": "a"}), 400, "localStreamName"),
        ("push", json!({"uri": "rtmp://h/live/a", "localStreamName": "a"}), 400, "ws and wss"),
        ("push", json!({"uri": "ws://h", "localStreamName": "a"}), 404, "no stream a"),
        ("terminate", json!({}), 400, "say which"),
        ("terminate", json!({"remoteStreamName": "a"}), 404, "no such"),
    ] {
        let path = format!("/rest-api/pull/{call}");
        let answer = weir.post(&path, &body);
        weir.refused(&answer, &path);
        let (got, reason) = (answer.status, answer.json()["reason"].as_str().unwrap().to_owned());
        assert!(got == status && reason.contains(words) && !reason.contains("secret"), "{call} {body}: {got} {reason}");
    }
    assert_eq!(weir.post("/rest-api/pull/rtmp/pull", &json!({"uri": "ws://h:1"})).status, 400);
    assert_eq!(weir.post("/rest-api/pull/rtmp/push", &json!({})).status, 404);
}

#[test]
fn a_pull_outlives_its_stream_and_its_server() {
    let (origin_home, edge_home) = (Home::new(), Home::new());
    let mut edge = edge_home.setup().set("pull_reconnect_max=1000").set("pull_stall_timeout=3000").start();
    edge.announce("pull has no source");
    edge.announce("stream interrupted");
    let port = dead_port();
    let port = port.rsplit(':').next().unwrap().trim_end_matches(|c: char| !c.is_ascii_digit()).to_owned();
    let setup = || origin_home.setup().set(&format!("ws.port={port}"));
    let call = json!({"uri": format!("ws://127.0.0.1:{port}"), "remoteStreamName": "cam", "record": true});
    edge.done("/rest-api/pull/pull", &call);
    let lost = |words: &str| {
        wait(&format!("an error with {words}: {:?}", agents(&edge)), SOON, || {
            agents(&edge)
                .into_iter()
                .find(|agent| agent["lastError"].as_str().is_some_and(|error| error.contains(words)))
        })
    };
    // Nobody listens; somebody does, without the stream; it comes, goes, and comes back.
    lost("no connection");
    let origin = setup().start();
    lost("Stream not found");
    let publisher = Publisher::start(Clip::LONG, &origin.rtmp("cam"));
    wait_agent(&edge, "PROCESSED_REMOTE");
    wait_more_frames(&edge, "cam");
    let session = edge.stream("cam").unwrap()["mediaSessionId"].clone();
    publisher.leave();
    lost("Stopped by publisher stop");
    let publisher = Publisher::start(Clip::LONG, &origin.rtmp("cam"));
    wait_more_frames(&edge, "cam");
    // It hangs without a word, and is killed; another one takes its place.
    origin.signal(Signal::STOP);
    lost("no data for 3 s");
    origin.signal(Signal::CONT);
    wait_more_frames(&edge, "cam");
    origin.kill();
    drop(publisher);
    lost("no connection");
    let origin = setup().start();
    let _publisher = Publisher::start(Clip::LONG, &origin.rtmp("cam"));
    wait_more_frames(&edge, "cam");
    assert_eq!(edge.stream("cam").unwrap()["mediaSessionId"], session, "one stream all the time");
    edge.done("/rest-api/pull/terminate", &json!({"remoteStreamName": "cam"}));
    let file = edge_home.wait_finished(1).remove(0);
    decodes_whatever_its_times(&file);
}

#[test]
fn a_loop_is_refused() {
    let (a_home, b_home) = (Home::new(), Home::new());
    let (mut a, mut b) = (a_home.start(), b_home.start());
    for weir in [&mut a, &mut b] {
        weir.tolerate("pull has no source");
        weir.tolerate("pull gave up");
    }
    pull(&a, &b, "x", "x");
    pull(&b, &a, "x", "x");
    wait("one of them to refuse the loop", SOON, || {
        let both = agents(&a).into_iter().chain(agents(&b));
        both.into_iter().find(|agent| {
            agent["status"] == "FAILED" && agent["lastError"].as_str().is_some_and(|e| e.contains("a loop"))
        })
    });
}

#[test]
fn a_chain_of_three_starts_at_once() {
    let homes = [Home::new(), Home::new(), Home::new()];
    let [a, b, c] = homes.each_ref().map(Home::start);
    // x264's own distance of keyframes: ten seconds. Who waited for the next one would be late.
    let _publisher = Publisher::start(Clip::LONG_GOP, &a.rtmp("cam"));
    a.wait_frames("cam", 25);
    pull(&b, &a, "cam", "cam");
    pull(&c, &b, "cam", "cam");
    c.wait_frames("cam", 50);
    let stream = c.stream("cam").unwrap();
    assert_eq!((&stream["videoCodec"], &stream["width"]), (&json!("H264"), &json!(320)), "{stream}");
    let a_frames = a.frames("cam").0;
    assert!(a_frames < 240, "{a_frames} frames at the origin: a second keyframe was waited for");
    // From the far end: who ends first leaves nobody who looks for it.
    for weir in [&c, &b] {
        weir.done("/rest-api/pull/terminate", &json!({"localStreamName": "cam"}));
    }
}

#[test]
fn an_edge_asks_its_origins() {
    let homes = [Home::new(), Home::new(), Home::new()];
    let [empty, full] = [&homes[0], &homes[1]].map(Home::start);
    let origins = format!("cdn_origins={},{},ws://127.0.0.1:1", ws(&empty), ws(&full));
    let mut edge = homes[2].setup().set(&origins).set("wcs_activity_timer_timeout=1000").start();
    edge.announce("an origin cannot be asked");
    let _publisher = Publisher::start(Clip::LONG, &full.rtmp("cam"));
    full.wait_frames("cam", 10);
    let offer = include_str!("../../src/webrtc/offers/chromium156_play.sdp");
    let mut players = [Page::established(&edge), Page::established(&edge)];
    for (number, player) in players.iter_mut().enumerate() {
        let play = |session: &str, name: &str| json!({"mediaSessionId": session, "name": name, "published": false, "sdp": offer});
        player.say("playStream", &play(&format!("N{number}"), "nobody"));
        assert_eq!(player.status(), ("FAILED".into(), "CDN stream not found".into()));
        player.say("playStream", &play(&format!("P{number}"), "cam"));
    }
    players
        .iter_mut()
        .for_each(|player| assert_eq!(player.hears("setRemoteSDP")[1].as_str().map(str::is_empty), Some(false)));
    let agents_there = agents(&edge);
    assert_eq!(agents_there.len(), 1, "one agent a name: {agents_there:#?}");
    assert_eq!(agents_there[0]["uri"], format!("{}/websocket", ws(&full)));
    wait_more_frames(&edge, "cam");
    drop(players);
    wait_until("the stream to be left", || edge.stream("cam").is_none() && agents(&edge).is_empty());
    assert_eq!(full.post("/rest-api/stream/find", &json!({"published": false})).status, 404);
}

/// A server that is none: takes WebSockets, greets, and answers the offer with what the test makes of its session.
struct Impostor {
    port: u16,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Impostor {
    fn start(answer: impl Fn(&str) -> String + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let stop = Arc::new(AtomicBool::new(false));
        let ends = stop.clone();
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming() {
                if ends.load(Ordering::SeqCst) {
                    return;
                }
                let stream = stream.unwrap();
                stream.set_read_timeout(Some(SOON)).unwrap();
                let Ok(mut socket) = tungstenite::accept(stream) else { continue };
                while let Ok(message) = socket.read() {
                    let Ok(call) = serde_json::from_str::<Value>(message.to_text().unwrap_or_default()) else {
                        continue;
                    };
                    let reply = match call["message"].as_str() {
                        Some("connection") => json!({"message": "getUserData", "data": [{}]}).to_string(),
                        Some("playStream") => answer(call["data"][0]["mediaSessionId"].as_str().unwrap()),
                        _ => continue,
                    };
                    if socket.send(tungstenite::Message::text(reply)).is_err() {
                        break;
                    }
                }
            }
        });
        Self { port, stop, thread: Some(thread) }
    }
}

impl Drop for Impostor {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(("127.0.0.1", self.port));
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

#[test]
fn hostile_servers_are_bounded() {
    let home = Home::new();
    let mut weir = home
        .setup()
        .set("wcs_agent_answer_timeout=1000")
        .set("wcs_agent_connect_timeout=1000")
        .set("wcs_agent_media_timeout=1000")
        .set("pull_reconnect_attempts=1")
        .start();
    weir.announce("pull gave up");
    let sdp = |session: &str, sdp: &str| json!({"message": "setRemoteSDP", "data": [session, sdp]}).to_string();
    let status = |session: &str, info: &str| {
        let data = json!({"mediaSessionId": session, "status": "FAILED", "info": info});
        json!({"message": "notifyStreamStatusEvent", "data": [data]}).to_string()
    };
    type Answer = Box<dyn Fn(&str) -> String + Send>;
    let servers: Vec<(&str, Answer)> = vec![
        ("WCS's protocol", Box::new(|_| "garbage".to_owned())),
        ("does not answer the offer", Box::new(|_| json!({"message": "x", "data": [1]}).to_string())),
        ("m-lines", Box::new(move |id| sdp(id, "v=0"))),
        ("too long", Box::new(move |id| sdp(id, &"a".repeat(100_000)))),
        ("the connection broke", Box::new(move |id| sdp(id, &"a".repeat(600_000)))),
        ("gone away", Box::new(move |id| status(id, &format!("gone away {}", "x".repeat(9000))))),
    ];
    for (number, (words, answer)) in servers.into_iter().enumerate() {
        let server = Impostor::start(answer);
        let name = format!("s{number}");
        let uri = format!("ws://127.0.0.1:{}", server.port);
        weir.done("/rest-api/pull/pull", &json!({"uri": uri, "remoteStreamName": name}));
        let agent = wait(&format!("{words}: {:#?}", agents(&weir)), SOON, || {
            agents(&weir).into_iter().find(|agent| agent["localStreamName"] == *name && agent["status"] == "FAILED")
        });
        let error = agent["lastError"].as_str().unwrap();
        assert!(error.contains(words) && error.len() < 400, "{words}: {error}");
        weir.done("/rest-api/pull/terminate", &json!({"localStreamName": name}));
    }
    // One that says nothing at all, and one that is no WebSocket.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    for (uri, words) in [
        (format!("ws://{}", silent.local_addr().unwrap()), "no connection within 1 s"),
        (format!("ws://127.0.0.1:{}", weir.port_of("http.port")), "no WebSocket there"),
    ] {
        weir.done("/rest-api/pull/pull", &json!({"uri": uri, "remoteStreamName": "t"}));
        let agent = wait_agent(&weir, "FAILED");
        assert!(agent["lastError"].as_str().unwrap().contains(words), "{agent}");
        weir.done("/rest-api/pull/terminate", &json!({"remoteStreamName": "t"}));
    }
    assert!(weir.pipelines("pull-wcs").is_empty());
}
