//! Cameras: gst-rtsp-server, which is not ours, with what its name says.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::process::Stdio;
use std::time::{Duration, Instant};

use super::SOON;
use super::process::{Process, Signal};

/// Pictures of a moving ball, 25 a second, a keyframe each second.
const BALL: &str = "videotestsrc is-live=true pattern=ball ! video/x-raw,width=320,height=180,framerate=25/1";
const X264: &str = "x264enc tune=zerolatency speed-preset=ultrafast key-int-max=25 bframes=0";
const TONE: &str = "audiotestsrc is-live=true";

/// H.264 whose parameter sets are in the SDP only.
pub fn h264() -> String {
    format!("{BALL} ! {X264} ! rtph264pay name=pay0 pt=96 config-interval=0")
}

/// H.264 whose parameter sets are in the stream only.
pub fn h264_in_band() -> String {
    let caps =
        "application/x-rtp,media=video,clock-rate=90000,encoding-name=H264,payload=96,packetization-mode=(string)1";
    format!("{BALL} ! {X264} ! rtph264pay pt=96 config-interval=-1 ! capssetter name=pay0 replace=true caps=\"{caps}\"")
}

/// H.264 with B-frames.
pub fn h264_b_frames() -> String {
    format!(
        "{BALL} ! x264enc speed-preset=veryfast key-int-max=25 bframes=3 b-adapt=false rc-lookahead=5 ! video/x-h264,profile=main \
         ! rtph264pay name=pay0 pt=96 config-interval=-1"
    )
}

pub fn h265() -> String {
    format!(
        "{BALL} ! x265enc tune=zerolatency speed-preset=ultrafast key-int-max=25 ! rtph265pay name=pay0 pt=96 \
         config-interval=-1"
    )
}

pub fn vp8() -> String {
    format!("{BALL} ! vp8enc deadline=1 keyframe-max-dist=25 ! rtpvp8pay name=pay0 pt=96")
}

/// AAC of 44.1 kHz, stereo.
pub fn aac() -> String {
    let aac = "audio/x-raw,rate=44100,channels=2 ! avenc_aac ! aacparse";
    format!("{TONE} ! {aac} ! rtpmp4gpay name=pay1 pt=97")
}

pub fn aac_latm() -> String {
    format!("{TONE} ! audio/x-raw,rate=48000,channels=1 ! avenc_aac ! aacparse ! rtpmp4apay name=pay1 pt=97")
}

pub fn pcma() -> String {
    format!("{TONE} ! audio/x-raw,rate=8000,channels=1 ! alawenc ! rtppcmapay name=pay1")
}

pub fn pcmu() -> String {
    format!("{TONE} ! audio/x-raw,rate=8000,channels=1 ! mulawenc ! rtppcmupay name=pay1")
}

pub fn opus() -> String {
    format!("{TONE} ! audio/x-raw,rate=48000,channels=2 ! opusenc ! rtpopuspay name=pay1 pt=97")
}

/// An RTSP server with a stream at `/cam`.
pub struct Camera {
    process: Process,
    port: u16,
    arguments: Vec<String>,
}

impl Camera {
    /// One stream of these tracks, for everybody.
    pub fn start(tracks: &[String]) -> Self {
        Self::with(&[], tracks)
    }

    /// The same with options of the server's program.
    pub fn with(options: &[&str], tracks: &[String]) -> Self {
        let mut arguments: Vec<String> = options.iter().map(|&option| option.to_owned()).collect();
        arguments.push(format!("/cam={}", tracks.join(" ")));
        let (process, port) = Self::launch(&arguments);
        Self { process, port, arguments }
    }

    fn launch(arguments: &[String]) -> (Process, u16) {
        // Debian's own: another Python that comes first in the path has no GStreamer.
        let mut process = Process::start("/usr/bin/python3", |command| {
            command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/suite/support/rtsp_server.py")).args(arguments);
            command.stdout(Stdio::piped()).stderr(Stdio::null());
        });
        let mut line = String::new();
        BufReader::new(process.child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let port = line.trim().parse().unwrap_or_else(|_| panic!("the RTSP server does not start: {line:?}"));
        (process, port)
    }

    pub fn uri(&self) -> String {
        self.uri_of("")
    }

    /// The address with `user:password@` before the host.
    pub fn uri_of(&self, user: &str) -> String {
        format!("rtsp://{user}127.0.0.1:{}/cam", self.port)
    }

    pub fn signal(&self, signal: Signal) {
        self.process.signal(signal);
    }

    /// Ends at once, as a camera does whose plug is pulled.
    pub fn stop(&mut self) {
        self.process.signal(Signal::KILL);
        self.process.ended(SOON);
    }

    /// Starts again on the same port after [`Camera::stop`].
    pub fn restart(&mut self) {
        let mut arguments = vec!["--port".to_owned(), self.port.to_string()];
        arguments.extend(self.arguments.iter().cloned());
        (self.process, self.port) = Self::launch(&arguments);
    }
}

/// A server that sends whoever asks to another address, and says `status` to it: the address to ask. Its thread ends
/// with the test program.
pub fn redirecting(status: &str, location: &str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let answer = format!("RTSP/1.0 {status}\r\nLocation: {location}\r\n");
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let answer = answer.clone();
            std::thread::spawn(move || redirect(&client, &answer));
        }
    });
    format!("rtsp://127.0.0.1:{port}/old")
}

/// Answers each request, with its number.
fn redirect(client: &TcpStream, answer: &str) -> Option<()> {
    let mut lines = BufReader::new(client).lines();
    loop {
        let request: Vec<String> = lines.by_ref().map_while(Result::ok).take_while(|line| !line.is_empty()).collect();
        let number = request.iter().find(|line| line.starts_with("CSeq"))?;
        let mut client = client;
        client.write_all(format!("{answer}{number}\r\n\r\n").as_bytes()).ok()?;
    }
}

/// A way to a camera on which the media of its second track begins late: the address to use. Its thread ends with the
/// connections it carries.
pub fn muted(camera: &Camera, until: Duration) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (port, to) = (listener.local_addr().unwrap().port(), camera.port);
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let Ok(server) = TcpStream::connect(("127.0.0.1", to)) else { return };
            let (mut from, mut into) = (client.try_clone().unwrap(), server.try_clone().unwrap());
            std::thread::spawn(move || {
                let _ = std::io::copy(&mut from, &mut into);
                let _ = into.shutdown(Shutdown::Both);
            });
            std::thread::spawn(move || forward(BufReader::new(server), client, until));
        }
    });
    camera.uri().replace(&format!(":{to}/"), &format!(":{port}/"))
}

/// Forwards answers and interleaved packets (RFC 2326, 10.12), those of channels 2 and 3 only after a time.
fn forward(mut server: BufReader<TcpStream>, mut client: TcpStream, until: Duration) -> Option<()> {
    let mut since = None;
    let mut first = [0];
    loop {
        server.read_exact(&mut first).ok()?;
        let mut bytes = first.to_vec();
        if first == *b"$" {
            let mut head = [0; 3];
            server.read_exact(&mut head).ok()?;
            bytes.extend(head);
            bytes.resize(4 + usize::from(u16::from_be_bytes([head[1], head[2]])), 0);
            server.read_exact(&mut bytes[4..]).ok()?;
            let since = *since.get_or_insert_with(Instant::now);
            if head[0] >= 2 && since.elapsed() < until {
                continue;
            }
        } else {
            server.read_until(b'\n', &mut bytes).ok()?;
        }
        client.write_all(&bytes).ok()?;
    }
}
