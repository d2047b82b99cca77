//! What real encoders send seldom: time stamps that wrap, configurations that change or are broken, damaged media. Sent by
//! a client of our own that speaks just enough RTMP.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::support;
use crate::support::{Clip, Home, Media, Nginx, Process, Publisher, SOON, Weir, decodes, probe, run, wait, wait_until};

const COMMAND: u8 = 20;
const AUDIO: u8 = 8;
const VIDEO: u8 = 9;

/// A publisher.
struct Encoder {
    socket: TcpStream,
}

impl Encoder {
    fn publish(weir: &Weir, name: &str) -> Self {
        Self::publish_to(weir.port_of("rtmp.port"), name)
    }

    fn publish_to(port: u16, name: &str) -> Self {
        let mut socket = TcpStream::connect(("127.0.0.1", port)).unwrap();
        let mut hello = vec![3];
        hello.resize(1537, 0);
        socket.write_all(&hello).unwrap();
        let mut theirs = [0; 3073];
        socket.read_exact(&mut theirs).unwrap();
        socket.write_all(&theirs[1..1537]).unwrap();
        // What the server says is read by nobody; it is little.
        let mut encoder = Self { socket };
        encoder.send(1, 0, &[0, 0x7f, 0xff, 0xff]);
        encoder.send(COMMAND, 0, b"\x02\x00\x07connect\x00\x3f\xf0\0\0\0\0\0\0\x03\x00\x03app\x02\x00\x04live\0\0\x09");
        encoder.send(COMMAND, 0, b"\x02\x00\x0ccreateStream\x00\x40\0\0\0\0\0\0\0\x05");
        let mut publish = b"\x02\x00\x07publish\x00\x40\x08\0\0\0\0\0\0\x05\x02\0".to_vec();
        publish.push(u8::try_from(name.len()).unwrap());
        publish.extend(name.as_bytes());
        publish.extend(b"\x02\x00\x04live");
        encoder.send(COMMAND, 0, &publish);
        encoder
    }

    /// One message in one chunk; true when it went out.
    fn send(&mut self, kind: u8, timestamp: u32, body: &[u8]) -> bool {
        let [_, len @ ..] = u32::try_from(body.len()).unwrap().to_be_bytes();
        let extended = timestamp >= 0xff_ffff;
        let [_, time @ ..] = timestamp.min(0xff_ffff).to_be_bytes();
        let mut bytes = [&[if kind == 1 { 2 } else { 4 }][..], &time, &len, &[kind, 1, 0, 0, 0]].concat();
        if extended {
            bytes.extend(timestamp.to_be_bytes());
        }
        // The first message of all sets the chunk size.
        bytes.extend(body);
        self.socket.write_all(&bytes).is_ok()
    }

    /// Sends the tags of an FLV file, their times later by `later` and modulo 2^32, four times as fast as they are to be
    /// played.
    fn play(&mut self, file: &Path, later: u32) {
        self.play_by(file, |time| later.wrapping_add(time));
    }

    /// The same with times by a clock of its own.
    fn play_by(&mut self, file: &Path, clock: impl Fn(u32) -> u32) {
        self.play_each_by(file, |_, time| clock(time));
    }

    /// The same with a clock for each kind of message.
    fn play_each_by(&mut self, file: &Path, clock: impl Fn(u8, u32) -> u32) {
        let bytes = std::fs::read(file).unwrap();
        let (mut at, began) = (13, Instant::now());
        while at + 11 < bytes.len() {
            let len = u32::from_be_bytes([0, bytes[at + 1], bytes[at + 2], bytes[at + 3]]) as usize;
            let time = u32::from_be_bytes([bytes[at + 7], bytes[at + 4], bytes[at + 5], bytes[at + 6]]);
            if bytes[at] != 18 {
                let due = Duration::from_millis(u64::from(time) / 4);
                std::thread::sleep(due.saturating_sub(began.elapsed()));
                assert!(self.send(bytes[at], clock(bytes[at], time), &bytes[at + 11..at + 11 + len]));
            }
            at += 11 + len + 4;
        }
    }
}

fn weir(home: &Home) -> Weir {
    home.setup().set("stream_record_policy=streamName").set("record_flash_published_streams=true").start()
}

/// Every recorded frame is there, in order, without a hole.
fn whole(file: &Path, pictures: usize) {
    decodes(file);
    let media = probe(file);
    assert_eq!(media.video.len(), pictures);
    let steps = media.video.windows(2).map(|pair| pair[1].dts - pair[0].dts);
    let (shortest, longest) = steps.fold((f64::MAX, 0.0_f64), |(s, l), step| (s.min(step), l.max(step)));
    assert!(shortest > 0.03 && longest < 0.05, "{shortest} {longest}");
}

#[test]
fn times_wrap_and_start_anywhere() {
    let home = Home::new();
    let weir = weir(&home);
    for (name, later) in [("wraps", u32::MAX - 3000), ("late", 0x0100_0000), ("later", 0x8000_0000 - 10)] {
        let mut encoder = Encoder::publish(&weir, name);
        encoder.play(&Clip::B_FRAMES.file(), later);
        weir.wait_frames(name, 225);
        drop(encoder);
        wait_until("the stream to be gone", || weir.stream(name).is_none());
    }
    for file in home.wait_finished(3) {
        whole(&file, 225);
    }
}

/// As GStreamer's flvmux sends what is late.
#[test]
fn pictures_of_one_moment_are_all_recorded() {
    let home = Home::new();
    let (mut weir, nginx) = (weir(&home), Nginx::start());
    weir.tolerate("pull has no source");
    weir.tolerate("stream interrupted");
    weir.pull(&nginx.uri("cam"), "pulled", true);
    let mut encoders = [Encoder::publish(&weir, "published"), Encoder::publish_to(nginx.port(), "cam")];
    let late = |kind, time| if kind == VIDEO { time / 120 * 120 } else { time };
    std::thread::scope(|scope| {
        for encoder in &mut encoders {
            scope.spawn(|| encoder.play_each_by(&Clip::AV.file(), late));
        }
    });
    // nginx lets a player begin with the next keyframe.
    for (name, least) in [("published", 225), ("pulled", 150)] {
        weir.wait_frames(name, least);
    }
    drop(encoders);
    weir.terminate("pulled");
    for file in home.wait_finished(2) {
        decodes(&file);
        let pictures = probe(&file).video;
        println!("{}: {} pictures", file.display(), pictures.len());
        assert!(pictures.len() >= 150 && pictures.len().is_multiple_of(25), "{}", pictures.len());
        assert!(pictures.is_sorted_by(|a, b| a.dts <= b.dts));
    }
}

#[test]
fn a_silent_publisher_that_answers_keeps_its_name() {
    let home = Home::new();
    let weir = home.setup().start();
    let mut silent = Encoder::publish(&weir, "cam");
    wait_until("the name to be taken", || weir.stream("cam").is_some());
    let mut other = Publisher::start(Clip::AV, &format!("rtmp://127.0.0.1:{}/live/cam", weir.port_of("rtmp.port")));
    // A user control message (type 4) of 6 bytes on stream 0, and in it a ping (6); the answer is 7.
    let (ping, mut heard) = ([6_u8, 4, 0, 0, 0, 0, 0, 6], Vec::<u8>::new());
    while !heard.windows(8).any(|eight| *eight == ping) {
        let mut some = [0; 512];
        let len = silent.socket.read(&mut some).unwrap();
        assert!(len > 0, "it is closed without a question");
        heard.extend(&some[..len]);
    }
    assert!(silent.send(4, 0, &[0, 7, 0, 0, 0, 0]));
    assert!(!other.ended(SOON).success(), "the name is taken");
    assert!(weir.logged("already in use"));
    let clip = Clip::AV.file();
    silent.play(&clip, 0);
    weir.wait_frames("cam", 225);
}

/// What becomes of a clock in the middle of a clip.
type Clock = fn(u32) -> u32;

const CLOCKS: [(&str, Clock); 4] = [
    ("ahead", |time| if time < 4000 { time } else { time + 3_600_000 }),
    ("back", |time| if time < 4000 { time + 500_000 } else { time - 4000 }),
    // Every two seconds by a little.
    ("little-by-little", |time| 5000 + time - time / 2000 * 300),
    ("wraps-and-jumps", |time| if time < 4000 { time.wrapping_sub(2000) } else { time.wrapping_add(0x7000_0000) }),
];

/// Pictures and sound follow each other as the encoder made them.
fn in_step(media: &Media, name: &str) {
    for (kind, packets, most) in [("pictures", &media.video, 0.25), ("sound", &media.audio, 0.1)] {
        let steps = packets.windows(2).map(|pair| pair[1].dts - pair[0].dts);
        let (shortest, longest) = steps.fold((f64::MAX, 0.0_f64), |(s, l), step| (s.min(step), l.max(step)));
        println!("{name}: {} {kind}, {shortest:.3} to {longest:.3} s apart", packets.len());
        assert!(shortest >= 0.0 && longest < most, "{name}: {kind} are {shortest} to {longest} s apart");
    }
    let (pictures, sound) = (Media::end(&media.video), Media::end(&media.audio));
    assert!((pictures - sound).abs() < 0.06 + 0.05, "{name}: pictures end at {pictures}, sound at {sound}");
}

#[test]
fn clocks_that_jump_are_put_right() {
    let home = Home::new();
    let weir = weir(&home);
    for (name, clock) in CLOCKS {
        let mut encoder = Encoder::publish(&weir, name);
        encoder.play_by(&Clip::B_FRAMES.file(), clock);
        weir.wait_frames(name, 225);
        drop(encoder);
        wait_until("the stream to be gone", || weir.stream(name).is_none());
        let file = wait("the recording", support::SOON, || {
            home.finished().into_iter().find(|file| file.ends_with(format!("{name}.mp4")))
        });
        decodes(&file);
        let media = probe(&file);
        assert_eq!(media.video.len(), 225, "{name}");
        assert!((media.duration - 9.0).abs() < 0.7, "{name} has {} s", media.duration);
        in_step(&media, name);
    }
}

#[test]
fn a_pulled_source_whose_clock_jumps_is_played_and_recorded() {
    let home = Home::new();
    let (weir, nginx) = (home.setup().set("stream_record_policy=streamName").start(), Nginx::start());
    for (name, clock) in CLOCKS {
        let mut encoder = Encoder::publish_to(nginx.port(), name);
        weir.pull(&nginx.uri(name), name, true);
        encoder.play_by(&Clip::B_FRAMES.file(), clock);
        weir.wait_frames(name, 150);
        // Cut in the middle of what nginx sends at once, pictures and sound would not end together.
        wait_until("what nginx has to come", || {
            let came = weir.frames(name);
            std::thread::sleep(Duration::from_millis(500));
            came == weir.frames(name)
        });
        weir.terminate(name);
        drop(encoder);
        let file = wait("the recording", support::SOON, || {
            home.finished().into_iter().find(|file| file.ends_with(format!("{name}.mp4")))
        });
        decodes(&file);
        let media = probe(&file);
        assert!((5.0..10.0).contains(&media.duration), "{name} has {} s", media.duration);
        in_step(&media, name);
    }
}

/// The clip [`Clip::AV`] in another size and with other sound, four seconds of it.
fn larger(home: &Home) -> PathBuf {
    let large = home.path().join("large.flv");
    let mut ffmpeg = Command::new("ffmpeg");
    let line = "-v error -nostdin -f lavfi -i testsrc2=size=640x360:rate=25 -f lavfi -i sine=880:sample_rate=44100 \
                -c:v libx264 -preset ultrafast -pix_fmt yuv420p -bf 0 -g 25 -c:a aac -ac 2 -t 4";
    ffmpeg.args(line.split_whitespace()).arg(&large);
    assert!(run(&mut ffmpeg, Duration::from_secs(60)).status.success());
    large
}

/// Sends both clips in one; weir must show the new size.
fn send_both(weir: &Weir, encoder: &mut Encoder, large: &Path) {
    encoder.play(&Clip::AV.file(), 0);
    wait_until("the first size in REST", || weir.stream("cam").is_some_and(|stream| stream["width"] == 320));
    encoder.play(large, 9_100);
    wait_until("the new size in REST", || weir.stream("cam").is_some_and(|stream| stream["width"] == 640));
    assert_eq!(weir.stream("cam").unwrap()["status"], "PUBLISHING");
}

/// Pictures and width of each of two finished parts, the smaller first.
fn two_parts(home: &Home) -> Vec<(usize, u64)> {
    let parts = home.wait_finished(2);
    parts.iter().for_each(|part| decodes(part));
    let width = |media: &Media| media.stream("video")["width"].as_u64().unwrap();
    let mut sizes: Vec<_> = parts.iter().map(|part| probe(part)).map(|part| (part.video.len(), width(&part))).collect();
    sizes.sort_by_key(|(_, width)| *width);
    println!("{sizes:?}");
    sizes
}

#[test]
fn a_new_configuration_goes_on_in_the_same_stream() {
    let home = Home::new();
    let weir = weir(&home);
    let mut encoder = Encoder::publish(&weir, "cam");
    send_both(&weir, &mut encoder, &larger(&home));
    weir.wait_frames("cam", 325);
    drop(encoder);
    assert_eq!(two_parts(&home), [(225, 320), (100, 640)]);
}

#[test]
fn a_pulled_source_may_change_its_configuration() {
    let home = Home::new();
    let (weir, nginx) = (weir(&home), Nginx::start());
    let large = larger(&home);
    let mut encoder = Encoder::publish_to(nginx.port(), "cam");
    weir.pull(&nginx.uri("cam"), "cam", true);
    send_both(&weir, &mut encoder, &large);
    let seen = weir.frames("cam").0;
    wait_until("all frames", || weir.frames("cam").0 >= seen.max(250));
    weir.terminate("cam");
    let parts = two_parts(&home);
    assert!(parts[0].1 == 320 && parts[1].1 == 640 && parts[0].0 > 125 && parts[1].0 > 20, "{parts:?}");
}

#[test]
fn broken_configurations_and_damaged_media_hurt_only_their_stream() {
    let home = Home::new();
    let mut weir = home.setup().start();
    for text in ["is left out", "an RTMP publisher is closed", "an RTMP client is closed"] {
        weir.tolerate(text);
    }
    let _good = Publisher::start(Clip::LONG, &format!("rtmp://127.0.0.1:{}/live/good", weir.port_of("rtmp.port")));
    weir.wait_frames("good", 10);
    let noise = |len: usize, seed: u8| -> Vec<u8> {
        let next = |state: &mut u32, _| {
            *state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            Some((*state >> 24) as u8)
        };
        (0..len).scan(u32::from(seed), next).collect()
    };
    for seed in 0..12 {
        let name = format!("bad{seed}");
        let mut encoder = Encoder::publish(&weir, &name);
        let video = |packet: u8, media: Vec<u8>| [vec![0x17, packet, 0, 0, 0], media].concat();
        // A record that looks like one, then one that is noise, then units whose lengths are noise.
        let record = [vec![1, 66, 0, 30, 0xff, 0xe1, 0, 40], noise(60, seed)].concat();
        let _ = encoder.send(VIDEO, 0, &video(0, record));
        let _ = encoder.send(VIDEO, 0, &video(0, noise(40, seed)));
        let _ = encoder.send(AUDIO, 0, &[vec![0xaf, 0], noise(usize::from(seed), seed)].concat());
        for time in 0..40 {
            let _ = encoder.send(VIDEO, time * 40, &video(1, noise(900, seed)));
            let _ = encoder.send(AUDIO, time * 40, &[vec![0xaf, 1], noise(300, seed)].concat());
            let _ = encoder.send(if time % 2 == 0 { VIDEO } else { AUDIO }, time * 40, &noise(30, time as u8));
        }
        std::thread::sleep(Duration::from_millis(100));
        drop(encoder);
        wait_until("the bad stream to be gone", || weir.stream(&name).is_none());
    }
    let before = weir.frames("good").0;
    weir.wait_frames("good", before + 25);
}

#[test]
fn a_stream_with_bit_errors_flows_and_ends_in_order() {
    let home = Home::new();
    let mut weir = home.setup().set("record_flash_published_streams=true").start();
    for text in ["is left out", "an RTMP publisher is closed", "recording failed"] {
        weir.tolerate(text);
    }
    let uri = format!("rtmp://127.0.0.1:{}/live/cam", weir.port_of("rtmp.port"));
    let file = Clip::AV.file();
    let mut ffmpeg = Process::start("ffmpeg", |command| {
        command.args(["-v", "quiet", "-nostdin", "-re", "-i"]).arg(&file);
        command.args(["-c", "copy", "-bsf:v", "noise=amount=200", "-bsf:a", "noise=amount=200", "-f", "flv", &uri]);
        command.stdout(Stdio::null()).stderr(Stdio::null());
    });
    weir.wait_frames("cam", 100);
    ffmpeg.ended(Duration::from_secs(20));
    wait("the stream to be gone", support::SOON, || weir.stream("cam").is_none().then_some(()));
}
