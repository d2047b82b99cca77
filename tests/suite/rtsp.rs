//! RTSP capture: cameras of every kind, played by gst-rtsp-server, as REST sees them and as recordings have them.

use std::path::PathBuf;
use std::time::Duration;

use crate::support;
use crate::support::camera::{self, Camera};
use crate::support::tls::Certificate;
use crate::support::{Dumb, Home, Media, Signal, Weir, dead_port, decodes, probe, wait, wait_until};
use serde_json::{Value, json};

/// A server with short patience.
fn weir(home: &Home) -> Weir {
    let setup = home.setup().set("pull_connect_timeout=4s").set("pull_stall_timeout=1500").set("pull_reconnect_max=1s");
    let mut weir = setup.set("stream_record_policy=streamName").start();
    weir.tolerate("pull has no source");
    weir
}

fn startup(weir: &Weir, uri: &str, name: &str, record: bool) {
    weir.done("/rest-api/rtsp/startup", &json!({"uri": uri, "toStream": name, "record": record}));
}

fn agent(weir: &Weir, name: &str) -> Option<Value> {
    let answer = weir.post("/rest-api/rtsp/find", &json!({"toStream": name}));
    (answer.status == 200).then(|| answer.json()[0].clone())
}

fn terminate(weir: &Weir, uri: &str) {
    weir.done("/rest-api/rtsp/terminate", &json!({"uri": uri}));
}

/// Waits until the agent's last try has ended for a reason that holds `text`.
fn fails_with(weir: &Weir, name: &str, text: &str) -> String {
    wait(&format!("{name} to fail with {text:?}; it is {:?}", agent(weir, name)), support::SOON, || {
        let reason = agent(weir, name)?["lastError"].as_str()?.to_owned();
        reason.contains(text).then_some(reason)
    })
}

/// Records what a camera sends for some seconds, and gives the file.
fn recorded(tracks: &[String], options: &[&str]) -> (Home, Media) {
    let (home, camera) = (Home::new(), Camera::with(options, tracks));
    let weir = weir(&home);
    startup(&weir, &camera.uri(), "cam", true);
    weir.wait_frames("cam", 60);
    terminate(&weir, &camera.uri());
    let media = probe(&home.wait_finished(1)[0]);
    (home, media)
}

fn decoded(home: &Home) {
    home.finished().iter().for_each(|file| decodes(file));
}

/// Pictures of 25 a second, each once, in order, from 0 on; of the last ones some that are shown between others may not
/// have come before the end.
fn steady(media: &Media) {
    assert!(media.video.len() >= 50, "{} pictures", media.video.len());
    assert!(media.video[0].key && Media::start(&media.video) < 0.1, "{:?}", media.video[0]);
    assert!(media.video.windows(2).all(|two| two[0].dts < two[1].dts), "decode times go up");
    let mut shown: Vec<f64> = media.video.iter().map(|packet| packet.pts).collect();
    shown.sort_by(f64::total_cmp);
    shown.truncate(shown.len() - 4);
    let gaps: Vec<f64> = shown.windows(2).map(|two| two[1] - two[0]).collect();
    assert!(gaps.iter().all(|gap| (0.005..0.12).contains(gap)), "{gaps:?}");
    let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
    assert!((0.038..0.042).contains(&mean), "{mean} s from one picture to the next");
}

fn codec(media: &Media, kind: &str) -> String {
    media.stream(kind)["codec_name"].as_str().unwrap().to_owned()
}

#[test]
fn a_camera_is_captured_seen_and_ended() {
    let (home, camera) = (Home::new(), Camera::start(&[camera::h264(), camera::aac()]));
    let weir = weir(&home);
    let (uri, path) = (camera.uri(), "/rest-api/rtsp/startup");
    assert_eq!(weir.post("/rest-api/rtsp/find_all", &json!({})).status, 404);
    startup(&weir, &uri, "cam", true);
    let again = weir.post(path, &json!({"uri": uri}));
    assert_eq!(weir.refused(&again, path), (409, "AlreadyPulled".into()));
    weir.wait_frames("cam", 60);
    let agents = weir.get("/rest-api/rtsp/find_all").json();
    assert_eq!(agents.as_array().unwrap().len(), 1);
    let agent = &agents[0];
    assert_eq!((&agent["uri"], &agent["status"], &agent["toStream"]), (&json!(uri), &json!("PLAYING"), &json!("cam")));
    let playing = weir.post("/rest-api/rtsp/find", &json!({"uri": uri, "status": "PLAYING"})).json();
    assert_eq!(playing.as_array().unwrap().len(), 1);
    assert_eq!(weir.post("/rest-api/rtsp/find", &json!({"status": "NEW"})).status, 404);
    assert_eq!(weir.post("/rest-api/pull/rtmp/find_all", &json!({})).status, 404, "RTMP is another family");
    let stream = weir.stream("cam").unwrap();
    assert_eq!((&stream["mediaProvider"], &stream["mediaType"]), (&json!("RTSP"), &json!("rtsp")));
    assert_eq!((&stream["status"], &stream["transport"]), (&json!("PUBLISHING"), &json!("TCP")));
    assert_eq!(
        (&stream["width"], &stream["height"], &stream["videoCodec"]),
        (&json!(320), &json!(180), &json!("H264"))
    );
    assert_eq!(stream["audioCodec"], "mpeg4-generic/44100/2");
    assert_eq!(weir.pipelines("pull-rtsp").len(), 1);
    terminate(&weir, &uri);
    assert!(weir.stream("cam").is_none());
    let media = probe(&home.wait_finished(1)[0]);
    steady(&media);
    assert!((Media::end(&media.video) - Media::end(&media.audio)).abs() < 0.3, "{media:?}");
    let gone = weir.post("/rest-api/rtsp/terminate", &json!({"uri": uri}));
    assert_eq!(weir.refused(&gone, "/rest-api/rtsp/terminate"), (404, "AgentNotFound".into()));
}

#[test]
fn without_a_name_it_is_called_by_its_address_and_pull_takes_it_too() {
    let (home, camera) = (Home::new(), Camera::start(&[camera::vp8(), camera::opus()]));
    let weir = weir(&home);
    weir.done("/rest-api/pull/pull", &json!({"uri": camera.uri()}));
    weir.wait_frames(&camera.uri(), 10);
    let stream = weir.stream(&camera.uri()).unwrap();
    assert_eq!((&stream["videoCodec"], &stream["audioCodec"]), (&json!("VP8"), &json!("opus")));
    assert_eq!(weir.get("/rest-api/pull/find_all").json()[0]["status"], "PROCESSED_REMOTE");
    assert_eq!(weir.get("/rest-api/rtsp/find_all").json()[0]["status"], "PLAYING");
    weir.done("/rest-api/pull/terminate", &json!({"uri": camera.uri()}));
    assert_eq!(weir.get("/rest-api/rtsp/find_all").status, 404);
}

#[test]
fn bad_requests() {
    let home = Home::new();
    let weir = weir(&home);
    let path = "/rest-api/rtsp/startup";
    for (body, code) in [
        (json!({}), "FieldMissing"),
        (json!({"uri": "rtsp://"}), "UriInvalid"),
        (json!({"uri": "rtsp:///cam"}), "UriInvalid"),
        (json!({"uri": "rtmp://h/live/a"}), "UriInvalid"),
        (json!({"uri": "rtsp://admin:pass/word@h/cam"}), "UriInvalid"),
        (json!({"uri": "rtsp://h/cam", "toStream": "a", "localStreamName": "b"}), "InvalidField"),
        (json!({"uri": "rtsp://h/cam", "hasAudio": false, "hasVideo": false}), "NoTracks"),
        (json!({"uri": 5}), "InvalidField"),
    ] {
        let answer = weir.post(path, &body);
        assert_eq!(weir.refused(&answer, path), (400, code.into()), "{body}");
        assert!(!answer.body.contains("word@"), "{}", answer.body);
    }
    let path = "/rest-api/pull/rtmp/pull";
    let other = weir.post(path, &json!({"uri": "rtsp://h/cam"}));
    assert_eq!(weir.refused(&other, path), (400, "UriInvalid".into()));
    assert_eq!(weir.post("/rest-api/rtsp/terminate", &json!({})).status, 400);
    assert_eq!(weir.post("/rest-api/rtsp/pull", &json!({})).status, 404);
    assert_eq!(weir.get("/rest-api/rtsp/startup").status, 405);
    assert_eq!(weir.get("/rest-api/rtsp/find_all").status, 404);
}

#[test]
fn passwords_of_special_characters_get_in_and_never_out() {
    const PASSWORD: &str = "p@ss:w/rd#1%";
    for (method, user) in [("digest", "admin:p%40ss%3Aw%2Frd%231%25@"), ("basic", "admin:p@ss%3Aw%2Frd%231%25@")] {
        let home = Home::new();
        let camera = Camera::with(&["--auth", method, "admin", PASSWORD], &[camera::h264()]);
        let weir = weir(&home);
        startup(&weir, &camera.uri_of(user), "cam", false);
        startup(&weir, &camera.uri_of("admin:wrong@"), "wrong", false);
        startup(&weir, &camera.uri(), "nobody", false);
        weir.wait_frames("cam", 10);
        for name in ["wrong", "nobody"] {
            println!("{method}, {name}: {}", fails_with(&weir, name, "nauthorized"));
        }
        let shown = [
            weir.get("/rest-api/rtsp/find_all").body,
            weir.get("/rest-api/stream/find_all").body,
            weir.get("/rest-api/pipelines").body,
            weir.log().join("\n"),
        ];
        for text in shown {
            assert!(!["p%40ss", "p@ss", "rd%231", "rd#1"].iter().any(|secret| text.contains(secret)), "{text}");
        }
        terminate(&weir, &camera.uri_of("admin:***@"));
    }
}

#[test]
fn codecs_and_where_their_parameters_are() {
    let (home, media) = recorded(&[camera::h264_in_band(), camera::pcma()], &[]);
    steady(&media);
    decoded(&home);
    assert_eq!((codec(&media, "video"), codec(&media, "audio")), ("h264".into(), "aac".into()));
    assert!((Media::end(&media.video) - Media::end(&media.audio)).abs() < 0.4);
    let (_home, media) = recorded(&[camera::h264_b_frames(), camera::pcmu()], &[]);
    steady(&media);
    assert!(media.video.iter().any(|packet| packet.pts > packet.dts + 0.03), "it has B-frames");
    let (home, media) = recorded(&[camera::h265(), camera::opus()], &[]);
    steady(&media);
    decoded(&home);
    assert_eq!((codec(&media, "video"), codec(&media, "audio")), ("hevc".into(), "aac".into()));
    let (home, media) = recorded(&[camera::h264(), camera::aac_latm()], &[]);
    steady(&media);
    decoded(&home);
    assert_eq!((codec(&media, "audio"), &media.stream("audio")["sample_rate"]), ("aac".into(), &json!("48000")));
}

#[test]
fn over_udp_when_it_is_asked_for() {
    let home = Home::new();
    let udp = Camera::with(&["--only", "udp"], &[camera::h264(), camera::aac()]);
    let weir = weir(&home);
    startup(&weir, &udp.uri(), "cam", false);
    fails_with(&weir, "cam", "");
    drop(weir);
    let mut weir = home.setup().set("rtsp_interleaved_mode=false").set("stream_record_policy=streamName").start();
    weir.tolerate("pull has no source");
    startup(&weir, &udp.uri(), "cam", true);
    weir.wait_frames("cam", 60);
    assert_eq!(weir.stream("cam").unwrap()["transport"], "UDP");
    terminate(&weir, &udp.uri());
    steady(&probe(&home.wait_finished(1)[0]));
}

#[test]
fn sound_that_is_announced_and_comes_late_or_never() {
    const LATE: Duration = Duration::from_secs(4);
    let (home, camera) = (Home::new(), Camera::start(&[camera::h264(), camera::aac()]));
    let weir = weir(&home);
    let (late, never) = (camera::muted(&camera, LATE), camera::muted(&camera, Duration::MAX));
    startup(&weir, &never, "never", true);
    startup(&weir, &late, "late", true);
    weir.wait_frames("never", 10);
    weir.wait_frames("late", 10);
    assert_eq!(weir.stream("late").unwrap()["hasAudio"], false, "the pictures do not wait for it");
    wait_until("the sound", || weir.stream("late").is_some_and(|stream| stream["hasAudio"] == true));
    let before = weir.frames("late");
    wait_until("more of it", || weir.frames("late").1 > before.1 + 60);
    let counted = weir.frames("late").0;
    terminate(&weir, &late);
    terminate(&weir, &never);
    wait_until("the recordings to be in place", || home.files(".tmp").is_empty() && home.finished().len() >= 3);
    let parts = |name: &str| -> Vec<Media> {
        let of_name = |file: &&PathBuf| file.file_name().unwrap().to_string_lossy().starts_with(name);
        home.finished().iter().filter(of_name).map(|file| probe(file)).collect()
    };
    let late = parts("late");
    assert!(late.iter().any(|part| part.audio.len() > 40 && !part.video.is_empty()), "{late:?}");
    let pictures: usize = late.iter().map(|part| part.video.len()).sum();
    // At most what comes between the part without sound and the keyframe that the part with it begins with.
    assert!(pictures as u64 + 30 >= counted, "{pictures} of {counted} pictures");
    assert!(parts("never").iter().all(|part| part.audio.is_empty() && part.video.len() > 50));
}

#[test]
fn sources_that_cannot_be_had_say_why() {
    let home = Home::new();
    let camera = Camera::start(&[camera::h264()]);
    let (garbage, silent) = (Dumb::start(&[b'x'; 8192]), Dumb::start(b""));
    let weir = weir(&home);
    let rtsp = |uri: String| uri.replacen("rtmp://", "rtsp://", 1);
    startup(&weir, &rtsp(dead_port()), "dead", true);
    startup(&weir, &camera.uri().replace("/cam", "/other"), "missing", false);
    startup(&weir, &rtsp(garbage.uri()), "garbage", false);
    startup(&weir, &rtsp(silent.uri()), "silent", false);
    startup(&weir, "rtsp://no-such-host.invalid/a", "nameless", false);
    startup(&weir, &camera.uri(), "good", false);
    for (name, reason) in [
        ("dead", "Connection refused"),
        ("missing", "Not found"),
        ("garbage", ""),
        ("silent", "no answer within 4 s"),
        ("nameless", "no-such-host.invalid"),
    ] {
        let said = fails_with(&weir, name, reason);
        println!("{name}: {said}");
        assert!(said.len() > 8 && !said.contains("0x"), "{name}: {said}");
    }
    weir.wait_frames("good", 20);
    weir.wait_frames("good", weir.frames("good").0 + 20);
    assert!(home.files(".mp4").is_empty());
}

/// A stream is recorded while `fault` breaks its camera and `mend` mends it: the same stream, all in files that play.
fn survives(fault: impl FnOnce(&mut Camera), mend: impl FnOnce(&mut Camera)) {
    let (home, mut camera) = (Home::new(), Camera::start(&[camera::h264(), camera::aac()]));
    let mut weir = weir(&home);
    weir.announce("stream interrupted");
    weir.tolerate("recording");
    startup(&weir, &camera.uri(), "cam", true);
    weir.wait_frames("cam", 40);
    let session = weir.stream("cam").unwrap()["mediaSessionId"].clone();
    fault(&mut camera);
    weir.wait_log("stream interrupted");
    let before = weir.frames("cam").0;
    mend(&mut camera);
    wait_until("the stream to flow again", || weir.frames("cam").0 > before + 40);
    assert_eq!(weir.stream("cam").unwrap()["mediaSessionId"], session, "the same stream");
    let counted = weir.frames("cam").0;
    terminate(&weir, &camera.uri());
    wait_until("the recording to be in place", || home.files(".tmp").is_empty() && !home.finished().is_empty());
    home.finished().iter().for_each(|file| decodes(file));
    let frames: usize = home.finished().iter().map(|file| probe(file).video.len()).sum();
    println!("{frames} frames of {counted}");
    assert!(frames as u64 + 50 >= counted, "{frames} frames of {counted}");
}

#[test]
fn a_camera_that_stalls_and_goes_on() {
    survives(|camera| camera.signal(Signal::STOP), |camera| camera.signal(Signal::CONT));
}

#[test]
fn a_camera_that_dies_and_comes_back() {
    survives(Camera::stop, Camera::restart);
}

#[test]
fn all_captures_are_recorded_when_the_setting_says_so() {
    let (home, camera) = (Home::new(), Camera::start(&[camera::h264()]));
    let weir = home.setup().set("record_rtsp_streams=true").start();
    weir.done("/rest-api/rtsp/startup", &json!({"uri": camera.uri(), "localStreamName": "cam"}));
    weir.wait_frames("cam", 50);
    terminate(&weir, &camera.uri());
    decodes(&home.wait_finished(1)[0]);
}

#[test]
fn a_camera_that_redirects_is_followed_to_rtsp_alone() {
    let home = Home::new();
    let camera = Camera::with(&["--auth", "digest", "admin", "p@ss"], &[camera::h264()]);
    let weir = weir(&home);
    let with = |user: &str, uri: String| uri.replace("rtsp://", &format!("rtsp://{user}"));
    // Twice on the same host: user and password go along. The stream is known by the address that was asked.
    let twice = camera::redirecting("301 Moved Permanently", &camera::redirecting("302 Found", &camera.uri()));
    let asked = with("admin:p%40ss@", twice);
    startup(&weir, &asked, "cam", false);
    weir.wait_frames("cam", 10);
    assert_eq!(agent(&weir, "cam").unwrap()["uri"], asked.replace("p%40ss", "***"));
    // To another name of the same machine they do not go.
    let elsewhere = camera.uri().replace("127.0.0.1", "localhost");
    startup(&weir, &with("admin:p%40ss@", camera::redirecting("302 Found", &elsewhere)), "elsewhere", false);
    fails_with(&weir, "elsewhere", "nauthorized");
    for (name, location, said) in [
        ("http", "http://127.0.0.1:1/secret", "no RTSP address"),
        ("transport", "rtspt://127.0.0.1:1/a", "the scheme must be"),
        ("description", "rtsp-sdp://v=0", "no RTSP address"),
        ("nonsense", "nonsense", "no RTSP address"),
    ] {
        startup(&weir, &camera::redirecting("302 Found", location), name, false);
        println!("{name}: {}", fails_with(&weir, name, said));
    }
    let dead = dead_port().replacen("rtmp://", "rtsp://", 1);
    startup(&weir, &camera::redirecting("302 Found", &dead), "dead", false);
    let said = fails_with(&weir, "dead", "Connection refused");
    assert!(said.contains(&format!("redirected to {dead}")), "{said}");
    let mut chain = camera.uri();
    for _ in 0..7 {
        chain = camera::redirecting("302 Found", &chain);
    }
    startup(&weir, &chain, "chain", false);
    println!("{}", fails_with(&weir, "chain", "redirects more than 5 times"));
    assert!(!weir.log().join("\n").contains("p%40ss"), "no password in the log");
}

#[test]
fn cameras_over_tls_are_believed_by_their_certificates() {
    let home = Home::new();
    let Certificate { ca, chain, key } = Certificate::make(home.path());
    let options = ["--auth", "basic", "admin", "pass", "--tls", chain.to_str().unwrap(), key.to_str().unwrap()];
    let camera = Camera::with(&options, &[camera::h264(), camera::aac()]);
    // Another one is signed by somebody whom the system trusts.
    let public = Certificate::make(home.path());
    let options = ["--tls", public.chain.to_str().unwrap(), public.key.to_str().unwrap()];
    let known = Camera::with(&options, &[camera::h264()]);
    let known = known.uri_of("").replace("rtsp://", "rtsps://").replace("127.0.0.1", "localhost");
    let trusting = format!("mount --bind {} /etc/ssl/certs/ca-certificates.crt && exec \"$@\"", public.ca.display());
    let secure = |host: &str| camera.uri_of("admin:pass@").replace("rtsp://", "rtsps://").replace("127.0.0.1", host);
    // Media stays in the connection, whatever the setting says.
    let mut believing = home
        .setup()
        .set(&format!("rtsp_ca_file={}", ca.display()))
        .set("rtsp_interleaved_mode=false")
        .set("stream_record_policy=streamName")
        .through(&["unshare", "-Urm", "--", "sh", "-c", &trusting, "sh"])
        .start();
    believing.tolerate("pull has no source");
    startup(&believing, &secure("localhost"), "cam", true);
    startup(&believing, &camera::redirecting("302 Found", &secure("localhost")), "redirected", false);
    believing.wait_frames("cam", 60);
    believing.wait_frames("redirected", 10);
    startup(&believing, &known, "known", false);
    believing.wait_frames("known", 10);
    assert_eq!(believing.stream("cam").unwrap()["transport"], "TCP");
    startup(&believing, &secure("127.0.0.1"), "other", false);
    println!("{}", fails_with(&believing, "other", "it is for another host"));
    startup(&believing, &camera.uri_of("admin:pass@"), "open", false);
    println!("{}", fails_with(&believing, "open", ""));
    terminate(&believing, &secure("localhost"));
    steady(&probe(&home.wait_finished(1)[0]));
    drop(believing);

    let strict = weir(&home);
    startup(&strict, &secure("localhost"), "cam", false);
    println!("{}", fails_with(&strict, "cam", "nobody who is trusted has signed it"));
    drop(strict);

    let mut careless = home.setup().set("rtsp_insecure=true").start();
    careless.announce("certificates of cameras are NOT verified");
    startup(&careless, &secure("127.0.0.1"), "cam", false);
    careless.wait_frames("cam", 10);
}

#[test]
fn settings_of_cameras_that_cannot_be_had_are_said() {
    let home = Home::new();
    let file = home.path().join("ca.pem");
    std::fs::write(&file, "nothing").unwrap();
    let output = home.setup().set(&format!("rtsp_ca_file={}", file.display())).run();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("rtsp_ca_file"), "{said}");
    // A WCS's settings file goes on working.
    let mut weir = home.setup().set("rtsp_client_address=172.16.0.3").start();
    weir.announce("rtsp_client_address=172.16.0.3 has no effect");
}
