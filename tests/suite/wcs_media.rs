//! What arrives over several servers: every picture, at its true time, over a path that loses packets too.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::net::{SocketAddr, UdpSocket};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::json;

use crate::film::{self, Film};
use crate::support::{Clip, Home, Publisher, SOON, Weir, decodes, run, wait, wait_until};

/// Where a lossy path begins: another address of loopback than the servers'.
const FRONT: &str = "127.0.0.2";
/// Packets a path loses of each hundred.
const LOSS: u64 = 5;

/// A picture of a file: when it is shown, seconds, and what it shows.
struct Picture {
    at: f64,
    hash: String,
}

/// Every picture of a file, decoded.
fn pictures(file: &Path) -> Vec<Picture> {
    let mut ffmpeg = Command::new("ffmpeg");
    ffmpeg.args(["-nostdin", "-v", "error", "-xerror", "-copyts", "-i"]).arg(file);
    ffmpeg.args(["-map", "0:v", "-fps_mode", "passthrough", "-enc_time_base", "1:90000", "-f", "framemd5", "-"]);
    let output = run(&mut ffmpeg, SOON);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.trim().is_empty(), "{} does not decode: {said}", file.display());
    let lines = String::from_utf8(output.stdout).unwrap();
    // Stream, dts, pts, duration, size, hash.
    let picture = |line: &str| {
        let fields: Vec<&str> = line.split(',').map(str::trim).collect();
        Picture { at: fields[2].parse::<f64>().unwrap() / 90_000.0, hash: fields[5].to_owned() }
    };
    lines.lines().filter(|line| !line.starts_with('#')).map(picture).collect()
}

/// The pictures of a recording, as the numbers they have in their source, with their times.
fn numbered(recording: &Path, source: &Path) -> Vec<(usize, f64)> {
    let numbers: HashMap<String, usize> =
        pictures(source).into_iter().enumerate().map(|(number, picture)| (picture.hash, number)).collect();
    let number = |picture: Picture| (numbers[&picture.hash], picture.at);
    pictures(recording).into_iter().map(number).collect()
}

/// When the beeps of a clip begin in a file, seconds: one each second of its source.
fn beeps(file: &Path) -> Vec<f64> {
    let mut ffmpeg = Command::new("ffmpeg");
    ffmpeg.args(["-nostdin", "-hide_banner", "-v", "info", "-copyts", "-i"]).arg(file);
    ffmpeg.args(["-vn", "-af", "highpass=f=1400,highpass=f=1400,silencedetect=n=-35dB:d=0.3", "-f", "null", "-"]);
    let output = run(&mut ffmpeg, SOON);
    let said = String::from_utf8_lossy(&output.stderr);
    let end = |line: &str| line.split_once("silence_end: ")?.1.split_whitespace().next()?.parse().ok();
    let mut ends: Vec<f64> = said.lines().filter_map(end).collect();
    // The end of the file ends a silence too.
    ends.pop();
    ends
}

fn pull(edge: &Weir, origin: &Weir, name: &str, record: bool) {
    let uri = format!("ws://127.0.0.1:{}", origin.port_of("ws.port"));
    edge.done("/rest-api/pull/pull", &json!({"uri": uri, "remoteStreamName": name, "record": record}));
}

fn unpull(edge: &Weir, name: &str) {
    edge.done("/rest-api/pull/terminate", &json!({"remoteStreamName": name}));
}

#[test]
fn a_recording_begins_with_pictures_at_their_true_times() {
    let homes = [Home::new(), Home::new(), Home::new()];
    let [origin, mut middle, mut edge] = homes.each_ref().map(Home::start);
    // On a machine that is very busy; it is tried again.
    middle.tolerate("took longer than");
    edge.tolerate("took longer than");
    // Ten seconds between keyframes: the server hands over what it has since the last one at once.
    let _publisher = Publisher::start(Clip::LONG_GOP, &origin.rtmp("cam"));
    origin.wait_frames("cam", 90);
    pull(&middle, &origin, "cam", true);
    middle.wait_frames("cam", 100);
    pull(&edge, &middle, "cam", true);
    edge.wait_frames("cam", 220);
    // The past has no sound; packets of Opus have 20 ms.
    wait_until("some beeps on the edge", || edge.frames("cam").1 > 225);
    for (weir, home) in [(&edge, &homes[2]), (&middle, &homes[1])] {
        unpull(weir, "cam");
        pictures_are_in_time(&home.wait_finished(1).remove(0));
    }
}

#[test]
fn what_is_pushed_begins_with_pictures_at_their_true_times() {
    let homes = [Home::new(), Home::new()];
    let here = homes[0].start();
    let mut there = homes[1].start();
    there.tolerate("took longer than");
    let _publisher = Publisher::start(Clip::LONG_GOP, &here.rtmp("cam"));
    here.wait_frames("cam", 90);
    let uri = format!("ws://127.0.0.1:{}", there.port_of("ws.port"));
    here.done("/rest-api/pull/push", &json!({"uri": uri, "localStreamName": "cam", "remoteStreamName": "copy"}));
    there.wait_frames("copy", 1);
    // From the last keyframe on: the first that came.
    let copy = there.stream("copy").unwrap();
    there.done("/rest-api/stream/startRecording", &json!({"mediaSessionId": copy["mediaSessionId"]}));
    // Where it took long to connect, the beginning of the pictures is over, and the next keyframe comes with the next 250.
    let (sent, come) = (here.frames("cam").0, there.frames("copy").0);
    here.wait_frames("cam", if come + 60 > sent { sent + 130 } else { sent.next_multiple_of(250) + 150 });
    let sent = here.frames("cam").0;
    here.done("/rest-api/pull/terminate", &json!({"uri": uri}));
    let last = pictures_are_in_time(&homes[1].wait_finished(1).remove(0));
    assert!(last as u64 + 75 > sent, "it does not stay behind by what the stream was old: {last} of {sent}");
}

/// A recording of [`Clip::LONG_GOP`] begins with a keyframe, and has each picture, and each beep, where it is in the clip;
/// the number of its last picture.
fn pictures_are_in_time(file: &Path) -> usize {
    decodes(file);
    let pictures = numbered(file, &Clip::LONG_GOP.file());
    let (first, began) = pictures[0];
    assert!(first % 250 == 0 && pictures.len() > 120, "{} pictures from {first} on", pictures.len());
    for (place, (number, at)) in pictures.iter().enumerate() {
        assert_eq!(*number, first + place, "pictures follow each other");
        let should = began + place as f64 * 0.04;
        assert!((at - should).abs() < 0.005, "picture {number} is shown at {at} s, and not at {should} s");
    }
    // A beep is where it is in the source, less what the encoders of sound delay it. A gap in the sound, as a busy machine
    // makes one, may look like a beep.
    let mut off: Vec<f64> =
        beeps(file).iter().map(|beep| beep - began + first as f64 * 0.04).map(|there| there - there.round()).collect();
    off.sort_by(f64::total_cmp);
    assert!(off.len() >= 3 && off[off.len() / 2].abs() < 0.1, "beeps are off their pictures: {off:?} s");
    first + pictures.len() - 1
}

/// A path between two servers that loses packets each way: a UDP port at another address, behind which the origin is.
struct LossyPath {
    lost: Arc<AtomicU64>,
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl LossyPath {
    /// In front of the viewers' port of `origin`, which tells the address of the path for its own; `loses` says which
    /// packets get lost.
    fn to(origin: &Weir, loses: impl FnMut(&[u8]) -> bool + Send + 'static) -> Self {
        let port = origin.port_of("webrtc.port");
        let front = UdpSocket::bind((FRONT, port)).unwrap();
        front.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
        let (lost, over) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let (counted, ends) = (lost.clone(), over.clone());
        let thread = std::thread::spawn(move || carry(&front, port, loses, &counted, &ends));
        Self { lost, over, thread: Some(thread) }
    }

    fn lost(&self) -> u64 {
        self.lost.load(SeqCst)
    }
}

/// Loses [`LOSS`] of each hundred.
fn now_and_then() -> impl FnMut(&[u8]) -> bool + Send {
    let mut random = 20_261_121u64;
    move |_| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) % 100 < LOSS
    }
}

/// Loses each datagram of a handshake, told by its first byte (RFC 7983), when it comes the first time.
fn the_first_of_each_handshake() -> impl FnMut(&[u8]) -> bool + Send {
    let mut seen = HashSet::new();
    move |packet| (20..=22).contains(&packet[0]) && seen.insert(packet.to_vec())
}

fn carry(front: &UdpSocket, port: u16, mut loses: impl FnMut(&[u8]) -> bool, lost: &AtomicU64, over: &AtomicBool) {
    // Each address in front gets one of its own behind.
    let mut behind: HashMap<SocketAddr, UdpSocket> = HashMap::new();
    let mut loses = |packet: &[u8]| {
        let loses = loses(packet);
        lost.fetch_add(u64::from(loses), SeqCst);
        loses
    };
    let mut packet = [0; 2048];
    while !over.load(SeqCst) {
        while let Ok((len, from)) = front.recv_from(&mut packet) {
            let back = behind.entry(from).or_insert_with(|| {
                let back = UdpSocket::bind("127.0.0.1:0").unwrap();
                back.connect(("127.0.0.1", port)).unwrap();
                back.set_nonblocking(true).unwrap();
                back
            });
            if !loses(&packet[..len]) {
                let _ = back.send(&packet[..len]);
            }
        }
        for (to, back) in &behind {
            while let Ok(len) = back.recv(&mut packet) {
                if !loses(&packet[..len]) {
                    let _ = front.send_to(&packet[..len], to);
                }
            }
        }
    }
}

impl Drop for LossyPath {
    fn drop(&mut self) {
        self.over.store(true, SeqCst);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

#[test]
fn what_is_lost_between_servers_is_sent_again() {
    let films = [Film::H264, Film::VP8];
    let (origin_home, edge_home) = (Home::new(), Home::new());
    let mut origin = film::setup(&origin_home, films).set(&format!("ip={FRONT}")).start();
    origin.announce("pull has no source");
    origin.announce("stream interrupted");
    let mut edge = edge_home.start();
    edge.tolerate("took longer than");
    let path = LossyPath::to(&origin, now_and_then());
    for film in films {
        origin.pull(&film.uri(), film.stream(), false);
        origin.wait_frames(film.stream(), 1);
        pull(&edge, &origin, film.stream(), true);
    }
    for film in films {
        wait(&format!("{film:?} to be over"), Duration::from_secs(60), || {
            (origin.frames(film.stream()).0 >= film.frames() as u64).then_some(())
        });
        edge.wait_frames(film.stream(), 60);
        unpull(&edge, film.stream());
    }
    assert!(path.lost() > 30, "the path loses packets: {}", path.lost());
    for (film, format) in films.into_iter().zip([".mp4", ".webm"]) {
        wait_until(&format!("the recording of {film:?}"), || {
            !edge_home.files(format).is_empty() && edge_home.files(".tmp").is_empty()
        });
        let numbers = edge_home.files(format).into_iter().flat_map(|part| numbered(&part, &film.file()));
        let seen: BTreeSet<usize> = numbers.map(|(number, _)| number).collect();
        let (first, last) = (seen.first().unwrap(), seen.last().unwrap());
        let between = last - first + 1;
        // Without repairs hardly a second would be whole.
        assert!(between >= 60 && seen.len() * 10 >= between * 9, "{film:?}: {} of {between} pictures", seen.len());
    }
}

#[test]
fn a_handshake_gets_through_where_each_datagram_is_lost_once() {
    // DTLS's own repeats are new datagrams: were they all there is, none would ever arrive.
    let (origin_home, edge_home) = (Home::new(), Home::new());
    let origin = origin_home.setup().set(&format!("ip={FRONT}")).start();
    let mut edge = edge_home.start();
    edge.tolerate("took longer than");
    let path = LossyPath::to(&origin, the_first_of_each_handshake());
    let _publisher = Publisher::start(Clip::LONG, &origin.rtmp("cam"));
    origin.wait_frames("cam", 1);
    pull(&edge, &origin, "cam", false);
    edge.wait_frames("cam", 30);
    unpull(&edge, "cam");
    assert!(path.lost() >= 5, "of a handshake five datagrams at least are lost: {}", path.lost());
}
