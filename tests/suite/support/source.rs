//! Remote servers to pull from: a real one with real publishers, and ones that misbehave.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::process::{Process, Signal, run};
use super::{SOON, wait};

/// A port of loopback that was free a moment ago.
fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// An address that refuses connections.
pub fn dead_port() -> String {
    format!("rtmp://127.0.0.1:{}/live/a", free_port())
}

/// Debian's nginx with its RTMP module: a server that is not ours.
pub struct Nginx {
    process: Process,
    port: u16,
    dir: tempfile::TempDir,
    applications: String,
}

impl Nginx {
    pub fn start() -> Self {
        Self::with("application live { live on; idle_streams on; }")
    }

    /// One that plays `pulled` from another server, and pushes what is published to `pushed` there.
    pub fn relay(other: u16) -> Self {
        Self::with(&format!(
            "application pulled {{ live on; wait_key off; pull rtmp://127.0.0.1:{other}/live; }}\n\
             application pushed {{ live on; push rtmp://127.0.0.1:{other}/live; }}"
        ))
    }

    fn with(applications: &str) -> Self {
        let dir = tempfile::Builder::new().prefix("weir-nginx-").tempdir().unwrap();
        // A port may be taken between being found free and being used; then another is tried.
        for _ in 0..5 {
            let port = free_port();
            if let Some(process) = Self::launch(dir.path(), port, applications) {
                return Self { process, port, dir, applications: applications.to_owned() };
            }
        }
        panic!("nginx does not start: {:?}", std::fs::read_to_string(dir.path().join("nginx.log")));
    }

    /// Starts it again on the same port after [`Nginx::stop`].
    pub fn restart(&mut self) {
        self.process =
            wait("nginx on its old port", SOON, || Self::launch(self.dir.path(), self.port, &self.applications));
    }

    pub fn stop(&mut self) {
        self.process.signal(Signal::KILL);
        self.process.ended(SOON);
    }

    fn launch(dir: &Path, port: u16, applications: &str) -> Option<Process> {
        let home = dir.display();
        let conf = format!(
            "load_module /usr/lib/nginx/modules/ngx_rtmp_module.so;\n\
             daemon off;\nmaster_process off;\npid {home}/nginx.pid;\nerror_log {home}/nginx.log warn;\nevents {{}}\n\
             rtmp {{\n access_log off;\n server {{\n  listen 127.0.0.1:{port};\n  chunk_size 4096;\n\
             {applications}\n }}\n}}\n"
        );
        std::fs::write(dir.join("nginx.conf"), conf).unwrap();
        let pid = dir.join("nginx.pid");
        let _ = std::fs::remove_file(&pid);
        let mut process = Process::start("nginx", |command| {
            command.arg("-p").arg(dir).arg("-e").arg(dir.join("nginx.log")).arg("-c").arg(dir.join("nginx.conf"));
            command.stdout(Stdio::null()).stderr(Stdio::null());
        });
        // It writes the file once the port is its own.
        let up = wait("nginx", SOON, || {
            if !process.runs() {
                return Some(false);
            }
            std::fs::metadata(&pid).is_ok_and(|facts| facts.len() > 0).then_some(true)
        });
        up.then_some(process)
    }

    pub fn uri(&self, stream: &str) -> String {
        format!("rtmp://127.0.0.1:{}/live/{stream}", self.port)
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn signal(&self, signal: Signal) {
        self.process.signal(signal);
    }
}

/// What a publisher sends: a file encoded once for all tests, so that every test knows its frames and a publisher costs
/// next to nothing.
#[derive(Debug, Clone, Copy)]
pub struct Clip {
    name: &'static str,
    video: Option<&'static [&'static str]>,
    audio: Option<&'static [&'static str]>,
    seconds: u32,
}

const AAC: &[&str] = &["-c:a", "aac", "-b:a", "64k", "-ar", "44100", "-ac", "2"];
const MONO: &[&str] = &["-c:a", "aac", "-b:a", "48k", "-ar", "48000", "-ac", "1"];

/// Silence: each packet as long as the next.
const SILENCE: &[&str] = &["-af", "volume=0", "-c:a", "aac", "-b:a", "64k", "-ar", "44100", "-ac", "2"];

impl Clip {
    /// A keyframe each second, no B-frames, AAC 44.1 kHz stereo.
    pub const AV: Self = Self { name: "av", video: Some(&["-bf", "0", "-g", "25"]), audio: Some(AAC), seconds: 9 };
    /// The same for as long as any test needs.
    pub const LONG: Self = Self { name: "long", seconds: 90, ..Self::AV };
    /// The same without a sound.
    pub const SILENT: Self = Self { name: "silent", audio: Some(SILENCE), ..Self::LONG };
    /// x264's own distance of keyframes, 250 frames, and no scene cut that adds one.
    pub const LONG_GOP: Self =
        Self { name: "long-gop", video: Some(&["-bf", "0", "-sc_threshold", "0"]), seconds: 40, ..Self::AV };
    /// A keyframe every two seconds, and every four: as cameras and encoders are often set.
    pub const GOP_2: Self =
        Self { name: "gop-2", video: Some(&["-bf", "0", "-g", "50", "-sc_threshold", "0"]), ..Self::LONG_GOP };
    pub const GOP_4: Self =
        Self { name: "gop-4", video: Some(&["-bf", "0", "-g", "100", "-sc_threshold", "0"]), ..Self::LONG_GOP };
    pub const B_FRAMES: Self =
        Self { name: "b-frames", video: Some(&["-bf", "2", "-g", "25", "-sc_threshold", "0"]), ..Self::AV };
    pub const VIDEO: Self = Self { name: "video", audio: None, ..Self::AV };
    pub const AUDIO: Self = Self { name: "audio", video: None, ..Self::AV };
    pub const LONG_AUDIO: Self = Self { name: "long-audio", seconds: 40, ..Self::AUDIO };
    pub const MONO_48: Self = Self { name: "mono48", audio: Some(MONO), ..Self::AV };
    /// As much as fills a small disk soon.
    pub const HEAVY: Self = Self {
        name: "heavy",
        video: Some(&[
            "-bf",
            "0",
            "-g",
            "25",
            "-b:v",
            "4M",
            "-minrate",
            "4M",
            "-maxrate",
            "4M",
            "-bufsize",
            "1M",
            "-x264-params",
            "nal-hrd=cbr",
        ]),
        seconds: 20,
        ..Self::AV
    };

    /// The frames it has: 25 a second.
    pub fn video_frames(&self) -> usize {
        if self.video.is_some() { 25 * self.seconds as usize } else { 0 }
    }

    /// The file, made by whoever needs it first.
    pub fn file(&self) -> PathBuf {
        static MAKING: Mutex<()> = Mutex::new(());
        let _one_at_a_time = MAKING.lock().unwrap_or_else(|broken| broken.into_inner());
        let dir = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let file = dir.join(format!("clip-{}-{}s.flv", self.name, self.seconds));
        if !file.exists() {
            self.encode(dir, &file);
        }
        file
    }

    fn encode(&self, dir: &Path, file: &Path) {
        // Test binaries may run at once: whole files only, each from a draft of its own.
        let draft = dir.join(format!("clip-{}-{}.flv", self.name, std::process::id()));
        let mut ffmpeg = Command::new("ffmpeg");
        ffmpeg.args(["-v", "error", "-nostdin", "-y"]);
        if self.video.is_some() {
            ffmpeg.args(["-f", "lavfi", "-i", "testsrc2=size=320x180:rate=25"]);
        }
        if self.audio.is_some() {
            ffmpeg.args(["-f", "lavfi", "-i", "sine=frequency=440:beep_factor=4:sample_rate=48000"]);
        }
        if let Some(video) = self.video {
            ffmpeg.args(["-c:v", "libx264", "-preset", "veryfast", "-pix_fmt", "yuv420p"]).args(video);
        }
        ffmpeg.args(self.audio.unwrap_or_default());
        ffmpeg.args(["-t", &self.seconds.to_string(), "-f", "flv"]).arg(&draft);
        let output = run(&mut ffmpeg, Duration::from_secs(120));
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        std::fs::rename(&draft, file).unwrap();
    }
}

/// ffmpeg, sending a clip in real time.
pub struct Publisher {
    process: Process,
}

impl Publisher {
    pub fn start(clip: Clip, uri: &str) -> Self {
        let file = clip.file();
        let process = Process::start("ffmpeg", |command| {
            command.args(["-v", "error", "-nostdin", "-re", "-i"]).arg(&file);
            command.args(["-c", "copy", "-f", "flv", "-flvflags", "no_duration_filesize", uri]);
            command.stdout(Stdio::null()).stderr(Stdio::null());
        });
        Self { process }
    }

    pub fn signal(&self, signal: Signal) {
        self.process.signal(signal);
    }

    /// Waits for its end, whatever it is.
    pub fn ended(&mut self, limit: Duration) -> std::process::ExitStatus {
        self.process.ended(limit)
    }

    /// Waits until everything is sent.
    pub fn sent(&mut self) {
        let status = self.process.ended(Duration::from_secs(60));
        assert!(status.success(), "ffmpeg ended with {status}");
    }

    /// Leaves as a publisher does that is told to: it says good-bye.
    pub fn leave(mut self) {
        self.process.signal(Signal::INT);
        self.process.ended(SOON);
    }
}

/// A server that takes connections and says what it is told to, which is no RTMP.
pub struct Dumb {
    port: u16,
    over: Arc<AtomicBool>,
    accepting: Option<std::thread::JoinHandle<()>>,
}

impl Dumb {
    /// Answers every connection with `answer` and then stays silent without closing.
    pub fn start(answer: &'static [u8]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let over = Arc::new(AtomicBool::new(false));
        let stop = over.clone();
        let accepting = std::thread::spawn(move || {
            let mut held: Vec<TcpStream> = Vec::new();
            for stream in listener.incoming() {
                if stop.load(Ordering::Relaxed) {
                    return;
                }
                let Ok(mut stream) = stream else { continue };
                let _ = stream.write_all(answer);
                let _ = stream.set_read_timeout(Some(Duration::from_millis(10)));
                let _ = stream.read(&mut [0; 4096]);
                held.push(stream);
            }
        });
        Self { port, over, accepting: Some(accepting) }
    }

    pub fn uri(&self) -> String {
        format!("rtmp://127.0.0.1:{}/live/a", self.port)
    }
}

impl Drop for Dumb {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        // The listener wakes up once more, to see that it is over.
        let _ = TcpStream::connect(("127.0.0.1", self.port));
        if let Some(accepting) = self.accepting.take() {
            let _ = accepting.join();
        }
    }
}
