//! The RTMP server: real encoders, players and relays, and clients that mean no good. Judged by what REST says, by
//! ffprobe and by decoding.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::support::{
    Clip, Home, Media, Nginx, Process, Publisher, SOON, Setup, Signal, Weir, decodes, probe, wait, wait_until,
};
use serde_json::json;

fn setup(home: &Home) -> Setup {
    home.setup().set("stream_record_policy=streamName")
}

fn uri(weir: &Weir, name: &str) -> String {
    format!("rtmp://127.0.0.1:{}/live/{name}", weir.port_of("rtmp.port"))
}

/// ffmpeg, playing into a file.
fn ffmpeg(uri: &str, file: &Path) -> Process {
    Process::start("ffmpeg", |command| {
        command.args(["-v", "error", "-nostdin", "-i", uri, "-map", "0", "-c", "copy", "-y"]).arg(file);
        command.stdout(Stdio::null()).stderr(Stdio::null());
    })
}

/// GStreamer's client, playing into a file.
fn rtmp2src(uri: &str, file: &Path) -> Process {
    Process::start("gst-launch-1.0", |command| {
        command.args(["-q", "rtmp2src", &format!("location={uri}"), "!", "filesink"]);
        command.arg(format!("location={}", file.display())).stdout(Stdio::null()).stderr(Stdio::null());
    })
}

/// What a player got: from a keyframe on, every frame of the clip to its end, in order, with its sound.
fn judge(clip: Clip, file: &Path, first: &str) {
    let (got, sent) = (probe(file), probe(&clip.file()));
    let missing = sent.video.len() - got.video.len();
    println!(
        "{first}: {} of {} pictures, {} of {} sounds",
        got.video.len(),
        sent.video.len(),
        got.audio.len(),
        sent.audio.len()
    );
    assert!(got.video[0].key, "{first}: {:?}", got.video[0]);
    assert_eq!(missing % 25, 0, "{first}: {missing} pictures are missing");
    let same = got.video.iter().zip(&sent.video[missing..]);
    let offset = got.video[0].pts - sent.video[missing].pts;
    for (got, sent) in same {
        // Parameter sets are put before each keyframe, for those who come in over RTP.
        let more = if sent.key { 0..=100 } else { 0..=0 };
        let added = got.size.checked_sub(sent.size);
        assert!(got.key == sent.key && added.is_some_and(|n| more.contains(&n)), "{first}: {got:?} {sent:?}");
        assert!((got.pts - sent.pts - offset).abs() < 0.002, "{first}: {got:?} {sent:?}");
    }
    let (video, audio) = (Media::end(&got.video), Media::end(&got.audio));
    assert!((video - audio).abs() < 0.2, "{first}: pictures end at {video}, sound at {audio}");
    assert!((Media::start(&got.video) - Media::start(&got.audio)).abs() < 0.15, "{first}");
    decodes(file);
}

fn published(clip: Clip) {
    let home = Home::new();
    let weir = setup(&home).set("record_flash_published_streams=true").start();
    let mut publisher = Publisher::start(clip, &format!("{}?token=1", uri(&weir, "cam")));
    weir.wait_frames("cam", 60);
    let stream = weir.stream("cam").unwrap();
    for (field, value) in [
        ("appKey", "flashStreamingApp"),
        ("status", "PUBLISHING"),
        ("mediaType", "publish"),
        ("mediaProvider", "Flash"),
        ("transport", "TCP"),
        ("videoCodec", "H264"),
        ("audioCodec", "mpeg4-generic/44100/2"),
    ] {
        assert_eq!(stream[field], value, "{stream}");
    }
    assert_eq!((&stream["width"], &stream["published"]), (&json!(320), &json!(true)));
    let connection = stream["sessionId"].as_str().unwrap();
    assert!(
        connection.starts_with("/127.0.0.1:")
            && connection.ends_with(&format!("/127.0.0.1:{}", weir.port_of("rtmp.port")))
    );
    let players: [(&str, PathBuf); 2] =
        [("ffmpeg", home.path().join("ffmpeg.nut")), ("rtmp2src", home.path().join("rtmp2src.flv"))];
    let mut playing = [ffmpeg(&uri(&weir, "cam"), &players[0].1), rtmp2src(&uri(&weir, "cam"), &players[1].1)];
    wait_until("two players in REST", || {
        let found = weir.post("/rest-api/stream/find", &json!({"published": false, "status": "PLAYING"}));
        found.status == 200 && found.json().as_array().unwrap().len() == 2
    });
    publisher.sent();
    wait_until("the stream to be gone", || weir.stream("cam").is_none());
    for ((name, file), player) in players.iter().zip(&mut playing) {
        player.ended(SOON);
        judge(clip, file, name);
    }
    let recorded = &home.wait_finished(1)[0];
    assert_eq!(home.names(""), ["cam.mp4"]);
    decodes(recorded);
    assert_eq!(probe(recorded).video.len(), clip.video_frames());
}

#[test]
fn an_encoder_publishes_and_players_get_every_frame() {
    published(Clip::AV);
}

#[test]
fn b_frames_stay_as_they_are() {
    published(Clip::B_FRAMES);
}

#[test]
fn one_track_is_a_stream() {
    let home = Home::new();
    let weir = setup(&home).start();
    for (name, clip) in [("pictures", Clip::VIDEO), ("sound", Clip::AUDIO)] {
        let _publisher = Publisher::start(clip, &uri(&weir, name));
        let began = Instant::now();
        wait_until("the stream to be live", || weir.stream(name).is_some_and(|s| s["status"] == "PUBLISHING"));
        println!("{name}: live after {:?}", began.elapsed());
        let file = home.path().join(format!("{name}.nut"));
        let mut player = ffmpeg(&uri(&weir, name), &file);
        player.ended(SOON);
        let got = probe(&file);
        assert_eq!((got.video.is_empty(), got.audio.is_empty()), (name == "sound", name == "pictures"));
    }
}

#[test]
fn g711_is_sound_too() {
    let home = Home::new();
    let weir = setup(&home).start();
    let target = uri(&weir, "phone");
    let _publisher = Process::start("ffmpeg", |command| {
        let line = "-v error -nostdin -re -f lavfi -i sine=440:sample_rate=8000 -c:a pcm_alaw -ac 1 -t 8 -f flv";
        command.args(line.split(' ')).arg(&target).stdout(Stdio::null()).stderr(Stdio::null());
    });
    wait_until("the stream to be live", || weir.stream("phone").is_some_and(|s| s["audioCodec"] == "PCMA"));
    let file = home.path().join("phone.nut");
    ffmpeg(&target, &file).ended(SOON);
    let got = probe(&file);
    assert_eq!(got.stream("audio")["codec_name"], "pcm_alaw");
    assert!(got.duration > 3.0, "{}", got.duration);
}

#[test]
fn a_name_has_one_publisher_and_terminate_ends_it() {
    let home = Home::new();
    let weir = setup(&home).start();
    let mut first = Publisher::start(Clip::LONG, &uri(&weir, "cam"));
    weir.wait_frames("cam", 10);
    let mut second = Publisher::start(Clip::AV, &uri(&weir, "cam"));
    assert!(!second.ended(SOON).success(), "a second publisher is refused");
    assert!(weir.logged("already in use"));
    let player_file = home.path().join("player.nut");
    let mut player = ffmpeg(&uri(&weir, "cam"), &player_file);
    wait_until("a player", || weir.post("/rest-api/stream/find", &json!({"published": false})).status == 200);
    weir.done("/rest-api/stream/terminate", &json!({"published": false}));
    player.ended(SOON);
    let before = weir.frames("cam").0;
    weir.wait_frames("cam", before + 10);
    weir.done("/rest-api/stream/terminate", &json!({"name": "cam"}));
    assert!(weir.stream("cam").is_none());
    first.ended(SOON);
    let _again = Publisher::start(Clip::LONG, &uri(&weir, "cam"));
    weir.wait_frames("cam", 10);
}

/// The stream waits for its publisher: it is there, and gets no frames.
fn wait_vacant(weir: &Weir) {
    weir.wait_log("stream waits");
    assert_eq!(weir.stream("cam").unwrap()["status"], "PUBLISHING");
}

#[test]
fn a_publisher_that_comes_back_goes_on_with_its_players_and_its_recording() {
    let home = Home::new();
    let mut weir = setup(&home).set("publisher_linger=15s").set("record_flash_published_streams=true").start();
    weir.tolerate("RTMP player could not keep up");
    let mut first = Publisher::start(Clip::LONG, &uri(&weir, "cam"));
    weir.wait_frames("cam", 60);
    let before = weir.stream("cam").unwrap();
    let file = home.path().join("player.nut");
    let mut player = ffmpeg(&uri(&weir, "cam"), &file);
    wait_until("a player", || weir.post("/rest-api/stream/find", &json!({"published": false})).status == 200);
    // Once without a word, once in order.
    first.signal(Signal::KILL);
    first.ended(SOON);
    wait_vacant(&weir);
    let sent = weir.frames("cam").0;
    let mut second = Publisher::start(Clip::AV, &uri(&weir, "cam"));
    weir.wait_frames("cam", sent + 200);
    let now = weir.stream("cam").unwrap();
    assert_eq!(now["mediaSessionId"], before["mediaSessionId"]);
    assert_ne!(now["sessionId"], before["sessionId"], "it came by another connection");
    second.sent();
    wait_until("the second good-bye", || weir.log().iter().filter(|line| line.contains("stream waits")).count() == 2);
    let third = Publisher::start(Clip::AV, &uri(&weir, "cam"));
    weir.wait_frames("cam", sent + 225 + 100);
    weir.done("/rest-api/stream/terminate", &json!({"name": "cam"}));
    drop(third);
    player.ended(SOON);
    let recorded = &home.wait_finished(1)[0];
    for (name, file) in [("the player", &file), ("the recording", recorded)] {
        decodes(file);
        let pictures = probe(file).video.len();
        println!("{name} got {pictures} pictures, the first publisher had sent {sent}");
        assert!(pictures >= 325, "{name} got {pictures} pictures");
    }
}

#[test]
fn an_encoder_whose_old_connection_hangs_gets_in_again() {
    let home = Home::new();
    // Nothing but the newcomer ends the old one; and it goes on with the stream though streams do not wait here.
    let setup = setup(&home).set("publisher_linger=0").set("rtmp_idle_timeout=600s");
    let mut weir = setup.set("record_flash_published_streams=true").start();
    weir.announce("its stream is wanted by another client");
    let mut hung = Publisher::start(Clip::LONG, &uri(&weir, "cam"));
    weir.wait_frames("cam", 60);
    let before = weir.stream("cam").unwrap();
    let file = home.path().join("player.nut");
    let mut player = ffmpeg(&uri(&weir, "cam"), &file);
    wait_until("a player", || weir.post("/rest-api/stream/find", &json!({"published": false})).status == 200);
    // Whoever joins begins with the next frame.
    weir.wait_frames("cam", weir.frames("cam").0 + 10);
    hung.signal(Signal::STOP);
    let sent = weir.frames("cam").0;
    let mut again = Publisher::start(Clip::AV, &uri(&weir, "cam"));
    weir.wait_frames("cam", sent + 200);
    let now = weir.stream("cam").unwrap();
    assert_eq!(now["mediaSessionId"], before["mediaSessionId"], "the same stream");
    assert_ne!(now["sessionId"], before["sessionId"], "it came by another connection");
    // The old one finds out when it wakes up, and changes nothing.
    hung.signal(Signal::CONT);
    assert!(!hung.ended(SOON).success());
    again.sent();
    wait_until("the stream to be gone", || weir.stream("cam").is_none());
    player.ended(SOON);
    let recorded = &home.wait_finished(1)[0];
    for (name, file) in [("the player", &file), ("the recording", recorded)] {
        decodes(file);
        let pictures = probe(file).video.len();
        println!("{name} got {pictures} pictures, the first publisher had sent {sent}");
        assert!(pictures > Clip::AV.video_frames(), "{name} got {pictures} pictures");
    }
}

#[test]
fn a_stream_waits_no_longer_than_it_should() {
    let home = Home::new();
    let mut weir = setup(&home).set("publisher_linger=2s").start();
    let publish = |weir: &Weir| {
        let publisher = Publisher::start(Clip::LONG, &uri(weir, "cam"));
        weir.wait_frames("cam", 10);
        publisher
    };
    publish(&weir).leave();
    wait_vacant(&weir);
    let left = Instant::now();
    wait_until("the stream to be gone", || weir.stream("cam").is_none());
    println!("gone after {:?}", left.elapsed());
    assert!(left.elapsed() > Duration::from_secs(1));
    drop(weir);

    weir = setup(&home).set("publisher_linger=60s").start();
    publish(&weir).leave();
    wait_vacant(&weir);
    weir.done("/rest-api/stream/terminate", &json!({"name": "cam"}));
    assert!(weir.stream("cam").is_none(), "REST ends it at once");
    // The name is free, and a server that stops waits for nobody.
    publish(&weir).leave();
    wait_until("the second good-bye", || weir.log().iter().filter(|line| line.contains("stream waits")).count() == 2);
    let (status, took) = weir.stop();
    println!("stopped after {took:?}");
    assert!(status.success() && took < Duration::from_secs(8), "{status} {took:?}");
}

#[test]
fn what_nobody_publishes_is_not_found() {
    let home = Home::new();
    let weir = setup(&home).start();
    let file = home.path().join("nothing.nut");
    for name in ["nothing", "rtmp://127.0.0.1:1/live/a"] {
        assert!(!ffmpeg(&uri(&weir, name), &file).ended(SOON).success());
    }
    wait_until("two refusals", || weir.log().iter().filter(|line| line.contains("nobody publishes")).count() >= 2);
    assert!(weir.agent("rtmp://127.0.0.1:1/live/a").is_none(), "a player's URL is not pulled");
}

#[test]
fn weir_pulls_from_weir() {
    let (home, other_home) = (Home::new(), Home::new());
    let (weir, other) = (setup(&home).start(), setup(&other_home).start());
    let mut publisher = Publisher::start(Clip::B_FRAMES, &uri(&other, "cam"));
    other.wait_frames("cam", 10);
    let mut weir = weir;
    weir.tolerate("pull has no source");
    weir.tolerate("stream interrupted");
    weir.pull(&uri(&other, "cam"), "copy", true);
    weir.wait_agent("copy", "PROCESSED_REMOTE");
    weir.wait_frames("copy", 100);
    publisher.sent();
    wait_until("the source to be gone", || other.stream("cam").is_none());
    weir.terminate("copy");
    let file = &home.wait_finished(1)[0];
    decodes(file);
    let pictures = probe(file).video.len();
    println!("{pictures} pictures recorded");
    assert!(pictures >= 175 && pictures.is_multiple_of(25), "{pictures}");
}

#[test]
fn nginx_pulls_from_weir_and_pushes_to_it() {
    let home = Home::new();
    let weir = setup(&home).start();
    let nginx = Nginx::relay(weir.port_of("rtmp.port"));
    let mut publisher = Publisher::start(Clip::AV, &uri(&weir, "cam"));
    weir.wait_frames("cam", 10);
    let file = home.path().join("pulled.nut");
    let mut player = ffmpeg(&nginx.uri("cam").replace("/live/", "/pulled/"), &file);
    let mut pushing = Publisher::start(Clip::AV, &nginx.uri("pushed").replace("/live/", "/pushed/"));
    weir.wait_frames("pushed", 200);
    publisher.sent();
    pushing.sent();
    wait_until("nginx to have left", || weir.stream("pushed").is_none() && weir.stream("cam").is_none());
    drop(nginx);
    player.ended(SOON);
    let got = probe(&file);
    println!("pulled through nginx: {} pictures, {} sounds", got.video.len(), got.audio.len());
    assert!(got.video[0].key && got.video.len() >= 150, "{}", got.video.len());
}

#[test]
fn a_publisher_that_vanishes_is_ended() {
    let home = Home::new();
    let mut weir = setup(&home).set("rtmp_idle_timeout=2s").start();
    weir.announce("it publishes and sends no media for 2 s");
    let publisher = Publisher::start(Clip::LONG, &uri(&weir, "cam"));
    weir.wait_frames("cam", 10);
    publisher.signal(Signal::STOP);
    let stopped = Instant::now();
    wait_until("the stream to be gone", || weir.stream("cam").is_none());
    println!("ended {:?} after the publisher stood still", stopped.elapsed());
    assert!(stopped.elapsed() < Duration::from_secs(6));
    let _again = Publisher::start(Clip::LONG, &uri(&weir, "cam"));
    weir.wait_frames("cam", 10);
}

#[test]
fn a_player_that_reads_nothing_hurts_only_itself() {
    let home = Home::new();
    let mut weir = setup(&home).set("rtmp_idle_timeout=2s").start();
    weir.announce("it plays and reads nothing for 2 s");
    let mut publisher = Publisher::start(Clip::HEAVY, &uri(&weir, "cam"));
    weir.wait_frames("cam", 10);
    let stuck = ffmpeg(&uri(&weir, "cam"), &home.path().join("stuck.nut"));
    let file = home.path().join("good.nut");
    let mut good = ffmpeg(&uri(&weir, "cam"), &file);
    wait_until("two players", || {
        let found = weir.post("/rest-api/stream/find", &json!({"published": false}));
        found.status == 200 && found.json().as_array().unwrap().len() == 2
    });
    stuck.signal(Signal::STOP);
    publisher.sent();
    good.ended(SOON);
    judge(Clip::HEAVY, &file, "the other player");
}

/// Resident memory of the server, KiB.
fn memory(weir: &Weir) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", weir.pid())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

fn handshake() -> Vec<u8> {
    let mut bytes = vec![3];
    bytes.resize(3073, 0);
    bytes
}

fn noise(len: usize, mut seed: u64) -> Vec<u8> {
    let next = |_| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed as u8
    };
    (0..len).map(next).collect()
}

/// Headers of messages of 16 MB, each with its first chunk, on 60,000 chunk streams.
fn announcements() -> Vec<u8> {
    let mut bytes = handshake();
    for id in 0..60_000u32 {
        let [_, _, high, low] = id.to_be_bytes();
        bytes.extend([1, low, high, 0, 0, 0, 0xf4, 0x24, 0, 9, 1, 0, 0, 0]);
        bytes.extend([0; 128]);
    }
    bytes
}

fn huge_chunk() -> Vec<u8> {
    let size = [2, 0, 0, 0, 0, 0, 4, 1, 0, 0, 0, 0, 0x7f, 0xff, 0xff, 0xff];
    let message = [6, 0, 0, 0, 0xff, 0xff, 0xff, 9, 1, 0, 0, 0];
    [&handshake()[..], &size, &message, &vec![0; 20 << 20]].concat()
}

fn deep() -> Vec<u8> {
    let mut body = b"\x02\x00\x07connect\x00\x3f\xf0\0\0\0\0\0\0".to_vec();
    body.extend([3, 0, 1, b'a'].repeat(1000));
    let [_, len @ ..] = u32::try_from(body.len()).unwrap().to_be_bytes();
    let chunk_size = [2, 0, 0, 0, 0, 0, 4, 1, 0, 0, 0, 0, 0, 0, 0xff, 0xff];
    [&handshake()[..], &chunk_size, &[3, 0, 0, 0], &len, &[20, 0, 0, 0, 0], &body].concat()
}

/// Writes until the server has had enough; it must close.
fn attack(port: u16, name: &str, bytes: &[u8]) {
    let mut socket = TcpStream::connect(("127.0.0.1", port)).unwrap();
    socket.set_read_timeout(Some(SOON)).unwrap();
    socket.set_write_timeout(Some(SOON)).unwrap();
    let began = Instant::now();
    let _ = socket.write_all(bytes);
    let mut buffer = [0; 4096];
    loop {
        match socket.read(&mut buffer) {
            Ok(0) => break,
            Ok(_) => {}
            Err(error) => {
                assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "{name}: {error}");
                break;
            }
        }
    }
    println!("{name}: closed after {:?}", began.elapsed());
}

#[test]
fn attacks_end_the_attacker_alone() {
    let home = Home::new();
    let mut weir = setup(&home).set("rtmp_handshake_timeout=2s").set("rtmp_idle_timeout=5s").start();
    weir.announce("an RTMP client is closed");
    let _publisher = Publisher::start(Clip::LONG, &uri(&weir, "cam"));
    weir.wait_frames("cam", 50);
    let (before, frames, began) = (memory(&weir), weir.frames("cam").0, Instant::now());
    let port = weir.port_of("rtmp.port");
    for (name, bytes) in [
        ("60,000 announced messages", announcements()),
        ("a chunk of 2 GB", huge_chunk()),
        ("AMF of depth 1000", deep()),
        ("random bytes", noise(1 << 20, 78)),
        ("random bytes after the handshake", [handshake(), noise(1 << 20, 77)].concat()),
        ("http", b"GET / HTTP/1.1\r\n\r\n".to_vec()),
        ("half a handshake", handshake()[..700].to_vec()),
    ] {
        attack(port, name, &bytes);
    }
    let (after, seconds) = (memory(&weir), began.elapsed().as_secs_f64());
    println!("memory {before} KiB before, {after} KiB after");
    assert!(after < before + (24 << 10), "{before} KiB, then {after} KiB");
    let flowed = || weir.frames("cam").0 - frames;
    wait_until("the stream to have flowed all the while", || flowed() as f64 > 25.0 * (seconds - 2.0));
    // The attacker sees the end before the log does.
    let closed = || weir.log().iter().filter(|line| line.contains("an RTMP client is closed")).count();
    wait_until("a line for each", || closed() >= 7);
    assert_eq!(closed(), 7, "one line for each: {:#?}", weir.log());
}

#[test]
fn a_client_that_dribbles_is_closed_by_its_deadline() {
    let home = Home::new();
    let mut weir = setup(&home).set("rtmp_handshake_timeout=2s").start();
    weir.announce("it has not connected for 2 s");
    let mut socket = TcpStream::connect(("127.0.0.1", weir.port_of("rtmp.port"))).unwrap();
    let began = Instant::now();
    let closed = wait("the connection to be closed", SOON, || {
        let byte: &[u8] = if began.elapsed() < Duration::from_millis(20) { &[3] } else { &[0] };
        socket.write_all(byte).is_err().then(|| began.elapsed())
    });
    println!("closed after {closed:?}");
    assert!(closed > Duration::from_secs(1) && closed < Duration::from_secs(5), "{closed:?}");
}

#[test]
fn there_are_as_many_connections_as_the_operator_allows() {
    let home = Home::new();
    let mut weir = setup(&home).set("rtmp_max_connections=2").set("rtmp_handshake_timeout=3600s").start();
    weir.announce("rtmp_max_connections");
    let port = weir.port_of("rtmp.port");
    let held: Vec<TcpStream> = (0..2).map(|_| TcpStream::connect(("127.0.0.1", port)).unwrap()).collect();
    std::thread::sleep(Duration::from_millis(200));
    let mut third = TcpStream::connect(("127.0.0.1", port)).unwrap();
    third.set_read_timeout(Some(SOON)).unwrap();
    assert_eq!(third.read(&mut [0; 1]).unwrap_or(0), 0);
    drop(held);
}
