//! Publishing and playing that ask for a token or a password, without a hook server.

use std::process::{Command, Output};

use serde_json::json;

use crate::page::Page;
use crate::sender::Sender;
use crate::support::{Clip, Home, HookServer, Publisher, SOON, Weir, run, wait_until};
use weir::gate::{Action, token};
use weir::hook::Method;

const PROGRAM: &str = env!("CARGO_BIN_EXE_weir");
const SECRET: &str = "a secret of this test alone";

/// What `weir token` prints.
fn made(name: &str, action: &str, more: &[&str]) -> String {
    let output = weir_token(name, action, more, Some(SECRET));
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

fn weir_token(name: &str, action: &str, more: &[&str], secret: Option<&str>) -> Output {
    let mut command = Command::new(PROGRAM);
    command.args(["token", name, action]).args(more);
    run(command.envs(secret.map(|secret| ("WEIR_STREAM_TOKEN_SECRET", secret))), SOON)
}

fn expired(name: &str, action: Action) -> String {
    token::sign(SECRET, action, name, std::time::SystemTime::now() - std::time::Duration::from_secs(1))
}

/// ffmpeg with one try: what it says of a refusal.
fn try_publish(weir: &Weir, name: &str) -> String {
    let mut ffmpeg = Command::new("ffmpeg");
    ffmpeg.args(["-v", "verbose", "-nostdin", "-re", "-i"]).arg(Clip::AV.file());
    ffmpeg.args(["-c", "copy", "-f", "flv", &weir.rtmp(name)]);
    let output = run(&mut ffmpeg, SOON);
    assert!(!output.status.success());
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Packets that an RTMP player gets of a stream in two seconds of it, or what it is told.
fn try_play(weir: &Weir, name: &str) -> Result<usize, String> {
    let mut ffprobe = Command::new("ffprobe");
    ffprobe.args(["-v", "error", "-show_packets", "-of", "csv=p=0", "-read_intervals", "%+2", &weir.rtmp(name)]);
    let output = run(&mut ffprobe, SOON);
    match output.status.success() {
        true => Ok(output.stdout.split(|byte| *byte == b'\n').count()),
        false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
    }
}

fn silent(weir: &Weir, words: &[&str]) {
    let said = words.iter().find(|word| weir.logged(word));
    assert_eq!(said, None, "in the log: {:#?}", weir.log());
}

#[test]
fn encoders_and_rtmp_players_show_a_token() {
    let home = Home::new();
    let settings = ["stream_record_policy=streamName", "record_flash_published_streams=true"];
    let setup = settings.into_iter().fold(home.setup(), |setup, setting| setup.set(setting));
    let weir = setup.set(&format!("stream_token_secret={SECRET}")).start();
    let publish = made("cam", "publish", &["--expires", "10m"]);
    let play = made("cam", "play", &[]);
    let old = expired("cam", Action::Publish);
    for (shown, reason) in [
        (String::new(), "to publish this stream takes a token"),
        (format!("?token={play}"), "the token is not one to publish this stream"),
        (format!("?token={old}"), "the token has expired"),
    ] {
        let said = try_publish(&weir, &format!("cam{shown}"));
        assert!(said.contains(reason), "{said}");
        weir.wait_log(reason);
    }
    assert!(weir.stream("cam").is_none());
    let metrics = weir.get("/metrics").body;
    for (reason, count) in [("missing", 1), ("token", 1), ("expired", 1), ("password", 0)] {
        assert_eq!(Weir::denials(&metrics, "publish", reason), count, "{reason}");
    }
    let publisher = Publisher::start(Clip::LONG, &weir.rtmp(&format!("cam?token={publish}")));
    weir.wait_frames("cam", 30);
    assert!(try_play(&weir, "cam").unwrap_err().contains("takes a token"));
    assert!(try_play(&weir, &format!("cam?token={publish}")).unwrap_err().contains("not one to play"));
    let packets = try_play(&weir, &format!("cam?token={play}")).unwrap();
    assert!(packets > 20, "{packets}");
    let shown = weir.get("/rest-api/stream/find_all").body;
    assert!(shown.contains("\"cam\"") && !shown.contains("token"), "{shown}");
    weir.done("/rest-api/stream/terminate", &json!({"name": "cam"}));
    drop(publisher);
    home.wait_finished(1);
    assert_eq!(home.names(".mp4"), ["cam.mp4"]);
    silent(&weir, &[SECRET, &publish, &play, &old]);
    weir.stop();
}

#[test]
fn pages_show_a_token_in_the_name_or_beside_it() {
    let (home, hooks) = (Home::new(), HookServer::start());
    home.hooks("defaultApp", &hooks, &[Method::PublishStream, Method::StreamStatusEvent]);
    let weir = home.setup().set(&format!("stream_token_secret={SECRET}")).start();
    let mut page = Page::established(&weir);
    let refused = |page: &mut Page, name: &str, custom: serde_json::Value, reason: &str| {
        let id = format!("{name}{custom}");
        let call = json!({"mediaSessionId": &id[..20.min(id.len())], "name": name, "custom": custom, "sdp": "v=0"});
        page.say("publishStream", &call);
        let (status, info) = page.status();
        assert_eq!(status, "FAILED");
        assert!(info.starts_with("Restricted access: ") && info.contains(reason), "{info}");
    };
    refused(&mut page, "cam", json!({}), "takes a token (NAME?token=…)");
    refused(&mut page, "cam", json!({"token": 7}), "takes a token");
    refused(&mut page, "cam", json!({"token": made("cam", "play", &[])}), "not one to publish");
    refused(&mut page, &format!("cam?token={}", expired("cam", Action::Publish)), json!({}), "has expired");
    refused(&mut page, &format!("other?token={}", made("cam", "publish", &[])), json!({}), "not one to publish");
    assert!(hooks.of("publishStream").is_empty(), "who has no token is not asked about");

    let sender = Sender::new();
    page.publish("P", &format!("cam?token={}", made("cam", "publish", &[])), &sender.offer());
    sender.answered(page.hears("setRemoteSDP")[1].as_str().unwrap());
    assert_eq!(page.status(), ("PUBLISHING".into(), String::new()));
    let told = hooks.wait("StreamStatusEvent", |body| body["status"] == "PUBLISHING");
    assert_eq!(told.body["name"], "cam");
    assert_eq!(hooks.of("publishStream")[0].body["name"], "cam");
    assert_eq!(weir.stream("cam").unwrap()["name"], "cam");

    // What is like playing asks for the same.
    for (message, answer) in [("availableStream", "availableStream"), ("snapshot", "notifyStreamEvent")] {
        page.say(message, &json!({"mediaSessionId": "A", "name": "cam"}));
        let said = page.hears(answer);
        let info = if message == "snapshot" { &said["payload"]["info"] } else { &said["info"] };
        assert!(info.as_str().unwrap().contains("to play this stream takes a token"), "{said}");
        let with = json!({"mediaSessionId": "A", "name": "cam", "custom": {"token": made("cam", "play", &[])}});
        page.say(message, &with);
        let said = page.hears(answer);
        let yes = if message == "snapshot" { said["type"] == "snapshotCompleted" } else { said["status"] == "true" };
        assert!(yes, "{said}");
    }
    // An address that a player wants to be pulled is a name like others; its own query stays its own.
    let url = "rtsp://127.0.0.1:9/cam?token=the-cameras";
    page.play("U", url, "v=0");
    assert!(page.status().1.contains("takes a token"));
    assert!(weir.get("/rest-api/rtsp/find_all").status == 404);
    page.say("unPublishStream", &json!({"mediaSessionId": "P", "name": "cam"}));
    hooks.wait("StreamStatusEvent", |body| body["status"] == "UNPUBLISHED");
    silent(&weir, &[SECRET, "token=1", "the-cameras"]);
    weir.stop();
}

#[test]
fn a_password_is_one_for_all_streams_and_cannot_be_guessed_fast() {
    let home = Home::new();
    let mut weir = home.setup().set("publish_password=open sesame").start();
    weir.announce("Restricted access: the password is wrong");
    assert!(try_publish(&weir, "cam").contains("takes a password"));
    assert!(try_publish(&weir, "cam?password=open").contains("the password is wrong"));
    let mut page = Page::open(&weir);
    page.say("connection", &json!({"appKey": "defaultApp", "custom": {"password": "open sesame"}}));
    page.hears("getUserData");
    // At most one wrong one a second is looked at, right ones included.
    let guesses = 50;
    for guess in 0..guesses {
        page.publish(&format!("G{guess}"), &format!("cam?password={guess}"), "v=0");
    }
    let said: Vec<String> = (0..guesses).map(|_| page.status().1).collect();
    assert!(said.iter().any(|info| info.contains("too many wrong passwords")), "{said:?}");
    let metrics = weir.get("/metrics").body;
    let count = |text: &str| said.iter().filter(|info| info.contains(text)).count() as u64;
    assert_eq!(Weir::denials(&metrics, "publish", "wait"), count("too many wrong passwords"));
    assert_eq!(Weir::denials(&metrics, "publish", "password"), 1 + count("the password is wrong"));
    wait_until("the password to be looked at again", || {
        page.publish("P", "page", "v=0");
        // It is let in, and has no offer.
        page.status().1 == "Failed to add stream to proxy"
    });
    let _publisher = Publisher::start(Clip::LONG, &weir.rtmp("cam?password=open%20sesame"));
    weir.wait_frames("cam", 10);
    assert!(try_play(&weir, "cam").is_ok(), "playing asks for nothing");
    silent(&weir, &["sesame"]);
    weir.stop();
}

#[test]
fn an_edge_shows_its_origin_what_it_asks_for_itself() {
    let (origin_home, edge_home) = (Home::new(), Home::new());
    let secret = format!("stream_token_secret={SECRET}");
    let origin = origin_home.setup().set(&secret).set("stream_token_publish=false").start();
    let address = format!("ws://127.0.0.1:{}", origin.port_of("ws.port"));
    let edge = edge_home.setup().set(&secret).set(&format!("cdn_origins={address}")).start();
    let _publisher = Publisher::start(Clip::LONG, &origin.rtmp("cam"));
    origin.wait_frames("cam", 10);
    let mut page = Page::established(&edge);
    page.play("V", "cam", "v=0");
    assert!(page.status().1.contains("takes a token"));
    page.play("W", &format!("cam?token={}", made("cam", "play", &[])), &Sender::new().offer());
    edge.wait_frames("cam", 10);
    drop(page);

    // By REST a token is given like a page gives it, and is not seen again.
    let play = made("cam", "play", &["--expires", "1d"]);
    let call = json!({"uri": address, "remoteStreamName": format!("cam?token={play}"), "localStreamName": "copy"});
    edge.done("/rest-api/pull/pull", &call);
    edge.wait_frames("copy", 10);
    let agents = edge.get("/rest-api/pull/find_all").body;
    assert!(agents.contains("cam?token=***") && !agents.contains(&play), "{agents}");
    edge.done("/rest-api/pull/terminate", &json!({"remoteStreamName": format!("cam?token={play}")}));
    silent(&edge, &[&play]);
    silent(&origin, &[&play]);
    edge.stop();
    origin.stop();
}

#[test]
fn the_helper_says_what_it_needs() {
    let none = weir_token("cam", "play", &[], None);
    let said = String::from_utf8_lossy(&none.stderr).into_owned();
    assert!(none.status.code() == Some(1) && said.contains("stream_token_secret"), "{said}");
    for more in [["--expires", "0"], ["--expires", "soon"]] {
        assert_eq!(weir_token("cam", "play", &more, Some(SECRET)).status.code(), Some(2));
    }
    assert_eq!(weir_token("cam", "look", &[], Some(SECRET)).status.code(), Some(2));
    let home = Home::new();
    let mut weir = home.setup().set("stream_token_secret=short").start();
    weir.announce("fewer than 16 characters");
    weir.stop();
}
