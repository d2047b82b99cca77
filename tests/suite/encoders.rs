//! Encoders and players other than ffmpeg's defaults: GStreamer's, ffmpeg told that it is live, and one that speaks as OBS
//! does; and encoders of one track alone.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::support::{
    Clip, Home, HookServer, Media, Process, Publisher, Reply, SOON, Weir, decodes, probe, wait_until,
};
use serde_json::json;
use weir::hook::Method;

fn weir(home: &Home) -> Weir {
    home.setup().set("stream_record_policy=streamName").set("record_flash_published_streams=true").start()
}

fn quiet(program: &str, line: &str) -> Process {
    Process::start(program, |command| {
        command.args(line.split_whitespace()).stdout(Stdio::null()).stderr(Stdio::null());
    })
}

fn players(weir: &Weir, count: usize) {
    wait_until("the players in REST", || {
        let found = weir.post("/rest-api/stream/find", &json!({"published": false, "status": "PLAYING"}));
        found.status == 200 && found.json().as_array().unwrap().len() == count
    });
}

/// Every picture of the clip, with its sound beside them.
fn whole(clip: Clip, file: &Path) {
    decodes(file);
    let media = probe(file);
    assert_eq!(media.video.len(), clip.video_frames());
    assert!((Media::end(&media.video) - Media::end(&media.audio)).abs() < 0.2);
}

#[test]
fn gstreamer_publishes_and_plays() {
    let home = Home::new();
    let weir = weir(&home);
    let (source, target) = (Clip::AV.file(), weir.rtmp("cam"));
    let mut encoder = quiet(
        "gst-launch-1.0",
        &format!(
            // Behind the muxer: one that waits for live tracks gives what comes late the time of what came before it.
            "-q flvmux name=mux streamable=true ! clocksync ! rtmp2sink location={target} \
             filesrc location={} ! flvdemux name=clip \
             clip.video ! queue ! h264parse ! mux. clip.audio ! queue ! aacparse ! mux.",
            source.display()
        ),
    );
    weir.wait_frames("cam", 25);
    let file = home.path().join("played.flv");
    let mut player =
        quiet("gst-launch-1.0", &format!("-q rtmp2src location={target} ! filesink location={}", file.display()));
    players(&weir, 1);
    assert!(encoder.ended(Duration::from_secs(30)).success());
    player.ended(SOON);
    whole(Clip::AV, &home.wait_finished(1)[0]);
    let (pictures, all) = (probe(&file).video.len(), Clip::AV.video_frames());
    println!("rtmp2src got {pictures} of {all} pictures");
    decodes(&file);
    assert!(pictures >= 50 && (all - pictures).is_multiple_of(25), "{pictures} of {all}");
}

#[test]
fn ffmpeg_that_says_it_is_live_publishes_and_plays() {
    let home = Home::new();
    let weir = weir(&home);
    let (clip, target, file) = (Clip::AV, weir.rtmp("cam"), home.path().join("played.nut"));
    let source = clip.file();
    let mut encoder = quiet(
        "ffmpeg",
        &format!("-v error -nostdin -re -i {} -c copy -rtmp_live live -f flv {target}", source.display()),
    );
    weir.wait_frames("cam", 25);
    let mut player =
        quiet("ffmpeg", &format!("-v error -nostdin -rtmp_live live -i {target} -c copy {}", file.display()));
    players(&weir, 1);
    assert!(encoder.ended(Duration::from_secs(30)).success());
    player.ended(SOON);
    whole(clip, &home.wait_finished(1)[0]);
    decodes(&file);
    let played = probe(&file);
    assert!(played.video[0].key && played.video.len() >= 50 && played.audio.len() >= 80);
}

#[test]
fn one_track_is_recorded() {
    let home = Home::new();
    let weir = weir(&home);
    let mut publishers = [("pictures", Clip::VIDEO), ("sound", Clip::AUDIO)]
        .map(|(name, clip)| Publisher::start(clip, &weir.rtmp(name)));
    publishers.iter_mut().for_each(Publisher::sent);
    let files = home.wait_finished(2);
    let [pictures, sound] = [&files[0], &files[1]].map(|file| {
        decodes(file);
        probe(file)
    });
    assert_eq!((pictures.video.len(), pictures.audio.len()), (Clip::VIDEO.video_frames(), 0));
    let seconds = Media::end(&sound.audio) - Media::start(&sound.audio);
    println!("{} pictures; {seconds} s of sound", pictures.video.len());
    assert!(sound.video.is_empty() && (seconds - 9.0).abs() < 0.1, "{seconds}");
}

#[test]
fn sound_that_ffmpeg_copies_from_adts_is_no_broken_one() {
    let home = Home::new();
    let weir = weir(&home);
    let (adts, target) = (home.path().join("sound.aac"), weir.rtmp("cam"));
    let source = Clip::AV.file();
    quiet("ffmpeg", &format!("-v error -nostdin -i {} -vn -c copy {}", source.display(), adts.display())).ended(SOON);
    let inputs = format!("-re -i {} -re -i {}", source.display(), adts.display());
    let line = format!("-v error -nostdin {inputs} -map 0:v -map 1:a -c copy -f flv {target}");
    let mut encoder = quiet("ffmpeg", &line);
    wait_until("sound", || weir.stream("cam").is_some_and(|stream| stream["audioCodec"] == "mpeg4-generic/44100/2"));
    assert!(encoder.ended(Duration::from_secs(30)).success());
    whole(Clip::AV, &home.wait_finished(1)[0]);
}

fn text(text: &str) -> Vec<u8> {
    [&[2][..], &u16::try_from(text.len()).unwrap().to_be_bytes(), text.as_bytes()].concat()
}

fn number(number: f64) -> Vec<u8> {
    [&[0][..], &number.to_be_bytes()].concat()
}

fn object(marker: &[u8], fields: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let fields = fields.iter().flat_map(|(name, value)| [&text(name)[1..], value].concat());
    marker.iter().copied().chain(fields).chain([0, 0, 9]).collect()
}

/// What a list of names is: `fourCcList` of Enhanced RTMP.
fn list(names: &[&str]) -> Vec<u8> {
    let count = u32::try_from(names.len()).unwrap().to_be_bytes();
    [&[10][..], &count, &names.iter().flat_map(|name| text(name)).collect::<Vec<u8>>()].concat()
}

const NULL: &[u8] = &[5];

/// An encoder that speaks as OBS does: librtmp's order of commands, everything of one kind on one chunk stream with headers
/// as short as may be, and what Enhanced RTMP adds.
struct Obs {
    socket: TcpStream,
    chunk: usize,
    heard: Vec<u8>,
    last: Option<u32>,
}

impl Obs {
    fn connect(weir: &Weir) -> Self {
        let mut socket = TcpStream::connect(("127.0.0.1", weir.port_of("rtmp.port"))).unwrap();
        socket.set_read_timeout(Some(SOON)).unwrap();
        let hello: Vec<u8> = (0..1537_u32).map(|at| if at == 0 { 3 } else { (at * 7) as u8 }).collect();
        socket.write_all(&hello).unwrap();
        let mut theirs = [0; 3073];
        socket.read_exact(&mut theirs).unwrap();
        assert_eq!(theirs[1537..], hello[1..], "S2 is C1");
        socket.write_all(&theirs[1..1537]).unwrap();
        Self { socket, chunk: 128, heard: Vec::new(), last: None }
    }

    fn message(&mut self, header: &[u8], body: &[u8]) {
        let mut bytes = header.to_vec();
        for (at, piece) in body.chunks(self.chunk).enumerate() {
            if at > 0 {
                bytes.push(0xc0 | (header[0] & 0x3f));
            }
            bytes.extend(piece);
        }
        self.socket.write_all(&bytes).unwrap();
    }

    /// A message with a whole header.
    fn send(&mut self, stream: u8, kind: u8, on: u8, time: u32, body: &[u8]) {
        let [_, len @ ..] = u32::try_from(body.len()).unwrap().to_be_bytes();
        let [_, time @ ..] = time.to_be_bytes();
        self.message(&[&[stream][..], &time, &len, &[kind, on, 0, 0, 0]].concat(), body);
    }

    fn call(&mut self, on: u8, name: &str, transaction: f64, arguments: &[Vec<u8>]) {
        let stream = if on == 0 { 3 } else { 8 };
        let body = [text(name), number(transaction), arguments.concat()].concat();
        self.send(stream, 20, on, 0, &body);
    }

    /// Media goes on by what its time is later than the last one's.
    fn media(&mut self, kind: u8, time: u32, body: &[u8]) {
        let [_, len @ ..] = u32::try_from(body.len()).unwrap().to_be_bytes();
        match self.last.replace(time) {
            Some(last) if time >= last => {
                let [_, later @ ..] = (time - last).to_be_bytes();
                self.message(&[&[0x44][..], &later, &len, &[kind]].concat(), body);
            }
            _ => self.send(4, kind, 1, time, body),
        }
    }

    /// Reads until the server has said this.
    fn hears(&mut self, said: &[u8]) {
        while !self.heard.windows(said.len()).any(|part| part == said) {
            let mut some = [0; 4096];
            let len = self.socket.read(&mut some).unwrap();
            assert!(len > 0, "closed before {}", String::from_utf8_lossy(said));
            self.heard.extend(&some[..len]);
        }
    }

    /// The server neither closes nor says anything for that long.
    fn is_let_be(&mut self, time: Duration) {
        self.socket.set_read_timeout(Some(time)).unwrap();
        let heard = self.socket.read(&mut [0; 1]).map_err(|error| error.kind());
        assert_eq!(heard, Err(std::io::ErrorKind::WouldBlock));
        self.socket.set_read_timeout(Some(SOON)).unwrap();
    }

    fn is_answered(&mut self, transaction: f64) {
        self.hears(&[text("_result"), number(transaction)].concat());
    }

    fn publish(&mut self, host: &str, name: &str) {
        let url = text(&format!("rtmp://{host}/live"));
        let connect = [
            ("app", text("live")),
            ("type", text("nonprivate")),
            ("flashVer", text("FMLE/3.0 (compatible; FMSc/1.0)")),
            ("swfUrl", url.clone()),
            ("tcUrl", url),
            ("capsEx", number(15.0)),
            ("fourCcList", list(&["av01", "hvc1", "vp09", "avc1", "mp4a", "Opus"])),
            ("videoFourCcInfoMap", object(&[3], &[("*", number(4.0)), ("avc1", number(6.0))])),
            ("audioFourCcInfoMap", object(&[3], &[("mp4a", number(6.0))])),
            ("videoFunction", number(1.0)),
            ("objectEncoding", number(0.0)),
        ];
        self.call(0, "connect", 1.0, &[object(&[3], &connect)]);
        self.is_answered(1.0);
        self.hears(b"NetConnection.Connect.Success");
        self.send(2, 1, 0, 0, &4096_u32.to_be_bytes());
        self.chunk = 4096;
        self.call(0, "releaseStream", 2.0, &[NULL.to_vec(), text(name)]);
        self.call(0, "FCPublish", 3.0, &[NULL.to_vec(), text(name)]);
        self.call(0, "createStream", 4.0, &[NULL.to_vec()]);
        self.call(0, "_checkbw", 5.0, &[NULL.to_vec()]);
        for transaction in [2.0, 3.0, 4.0, 5.0] {
            self.is_answered(transaction);
        }
        self.hears(b"onFCPublish");
        self.call(1, "publish", 6.0, &[NULL.to_vec(), text(name), text("live")]);
        self.hears(b"NetStream.Publish.Start");
        let metadata = [
            ("duration", number(0.0)),
            ("fileSize", number(0.0)),
            ("width", number(320.0)),
            ("height", number(180.0)),
            ("videocodecid", number(7.0)),
            ("framerate", number(25.0)),
            ("audiocodecid", number(10.0)),
            ("stereo", vec![1, 1]),
            ("2.1", vec![1, 0]),
            ("encoder", text("obs-output module (libobs version 31.0.0)")),
        ];
        let metadata = object(&[8, 0, 0, 0, 10], &metadata);
        self.send(4, 18, 1, 0, &[text("@setDataFrame"), text("onMetaData"), metadata].concat());
    }

    /// Sends the tags of an FLV file four times as fast as they are to be played.
    fn play(&mut self, file: &Path) {
        let bytes = std::fs::read(file).unwrap();
        let (mut at, began) = (13, Instant::now());
        while at + 11 < bytes.len() {
            let len = u32::from_be_bytes([0, bytes[at + 1], bytes[at + 2], bytes[at + 3]]) as usize;
            let time = u32::from_be_bytes([bytes[at + 7], bytes[at + 4], bytes[at + 5], bytes[at + 6]]);
            if bytes[at] != 18 {
                std::thread::sleep(Duration::from_millis(u64::from(time) / 4).saturating_sub(began.elapsed()));
                self.media(bytes[at], time, &bytes[at + 11..at + 11 + len]);
            }
            at += 11 + len + 4;
        }
    }

    fn leave(&mut self, name: &str) {
        self.call(1, "FCUnpublish", 7.0, &[NULL.to_vec(), text(name)]);
        self.call(1, "deleteStream", 8.0, &[NULL.to_vec(), number(1.0)]);
        self.hears(b"onFCUnpublish");
    }
}

#[test]
fn an_encoder_that_speaks_as_obs_publishes() {
    let home = Home::new();
    let weir = weir(&home);
    let mut obs = Obs::connect(&weir);
    obs.publish(&format!("127.0.0.1:{}", weir.port_of("rtmp.port")), "cam?token=1");
    obs.play(&Clip::AV.file());
    weir.wait_frames("cam", Clip::AV.video_frames() as u64);
    assert_eq!(weir.stream("cam").unwrap()["videoCodec"], "H264");
    obs.leave("cam?token=1");
    wait_until("the stream to be gone", || weir.stream("cam").is_none());
    whole(Clip::AV, &home.wait_finished(1)[0]);
}

#[test]
fn the_time_that_an_answer_takes_is_not_the_clients() {
    let (home, hooks) = (Home::new(), HookServer::start());
    home.hooks("flashStreamingApp", &hooks, &[Method::PlayStream]);
    let weir = home.setup().set("rtmp_idle_timeout=2s").start();
    hooks.answers_to("playStream", Reply::Slow(Duration::from_secs(3)));
    let mut client = Obs::connect(&weir);
    client.call(0, "connect", 1.0, &[object(&[3], &[("app", text("live"))])]);
    client.call(0, "createStream", 2.0, &[NULL.to_vec()]);
    client.is_answered(2.0);
    client.call(1, "play", 3.0, &[NULL.to_vec(), text("nothing")]);
    client.hears(b"NetStream.Play.StreamNotFound");
    client.is_let_be(Duration::from_secs(1));
    client.call(1, "publish", 4.0, &[NULL.to_vec(), text("cam"), text("live")]);
    client.hears(b"NetStream.Publish.Start");
}
