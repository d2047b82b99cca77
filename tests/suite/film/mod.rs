//! Films of a known number of frames, and a server that pulls them from the disk in place of a remote server.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::time::Duration;

use crate::support::{Home, Setup, run};

/// A Matroska file with picture and sound.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Film {
    stream: &'static str,
    video: &'static [&'static str],
    audio: &'static [&'static str],
    fps: usize,
    /// Frames from keyframe to keyframe.
    gop: usize,
    seconds: usize,
    /// What is left out.
    holes: &'static [&'static str],
}

const VP8: &[&str] =
    &["-c:v", "libvpx", "-deadline", "realtime", "-cpu-used", "8", "-auto-alt-ref", "0", "-b:v", "500k"];
const H264: &[&str] = &[
    "-c:v",
    "libx264",
    "-preset",
    "veryfast",
    "-bf",
    "0",
    "-sc_threshold",
    "0",
    "-b:v",
    "500k",
    "-pix_fmt",
    "yuv420p",
];
const OPUS: &[&str] = &["-c:a", "libopus", "-b:a", "48k", "-ar", "48000"];
const AAC: &[&str] = &["-c:a", "aac", "-b:a", "48k", "-ar", "44100"];

impl Film {
    pub const VP8: Self = Self { stream: "vp8", video: VP8, audio: OPUS, fps: 30, gop: 30, seconds: 8, holes: &[] };
    pub const VP8_WHOLE: Self = Self { stream: "vp8-whole", ..Self::VP8 };
    /// Sixty frames a second, and ten seconds from keyframe to keyframe.
    pub const VP8_60: Self = Self { stream: "vp8-60", fps: 60, gop: 600, seconds: 13, ..Self::VP8 };
    pub const H264: Self = Self { stream: "h264", video: H264, audio: AAC, ..Self::VP8 };
    pub const H264_60: Self = Self { stream: "h264-60", fps: 60, gop: 600, seconds: 13, ..Self::H264 };
    pub const H264_OPUS: Self = Self { stream: "h264-opus", audio: OPUS, ..Self::H264 };

    pub const SOUND_STOPS: Self =
        Self { stream: "sound-stops", seconds: 12, holes: &["-af", "atrim=end=2.5"], ..Self::H264 };
    pub const SOUND_PAUSES: Self = Self {
        stream: "sound-pauses",
        seconds: 12,
        holes: &["-af", "aselect='not(between(t,2.5,8.5))'"],
        ..Self::H264
    };
    /// Its only keyframe is the first frame.
    pub const SOUND_PAUSES_IN_A_GOP: Self = Self { stream: "sound-pauses-in-a-gop", gop: 600, ..Self::SOUND_PAUSES };
    pub const SOUND_LATE: Self =
        Self { stream: "sound-late", seconds: 10, holes: &["-af", "aselect='gt(t,5)'"], ..Self::H264 };
    pub const PICTURES_PAUSE: Self = Self {
        stream: "pictures-pause",
        seconds: 20,
        holes: &["-vf", "select='not(between(t,3,16))'", "-fps_mode", "passthrough"],
        ..Self::H264
    };

    pub fn stream(&self) -> &'static str {
        self.stream
    }

    pub fn frames(&self) -> usize {
        self.fps * self.seconds
    }

    pub fn frames_a_second(&self) -> u64 {
        self.fps as u64
    }

    /// What weir is told to pull. It is the path of the file too, from the server's working directory on.
    pub fn uri(&self) -> String {
        format!("rtmp://127.0.0.1/live/{}", self.stream)
    }

    /// The file, made by whoever needs it first.
    pub fn file(&self) -> PathBuf {
        static MAKING: Mutex<()> = Mutex::new(());
        let _one_at_a_time = MAKING.lock().unwrap_or_else(|broken| broken.into_inner());
        let dir = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let file = dir.join(format!("film-{}-{}s.mkv", self.stream, self.seconds));
        if !file.exists() {
            let draft = dir.join(format!("film-{}-{}.mkv", self.stream, std::process::id()));
            let picture = format!("testsrc2=size=320x180:rate={}", self.fps);
            let mut ffmpeg = Command::new("ffmpeg");
            ffmpeg.args(["-v", "error", "-nostdin", "-y", "-f", "lavfi", "-i", &picture, "-f", "lavfi", "-i"]);
            ffmpeg.arg("sine=frequency=440:beep_factor=4:sample_rate=48000").args(self.video);
            ffmpeg.args(["-g", &self.gop.to_string(), "-keyint_min", &self.gop.to_string()]).args(self.audio);
            ffmpeg.args(self.holes);
            ffmpeg.args(["-t", &self.seconds.to_string()]).arg(&draft);
            let output = run(&mut ffmpeg, Duration::from_secs(120));
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            std::fs::rename(&draft, &file).unwrap();
        }
        file
    }
}

/// A server that pulls `films` from the disk, in real time, each once.
pub fn setup(home: &Home, films: impl IntoIterator<Item = Film>) -> Setup {
    let remote = home.path().join("rtmp:/127.0.0.1/live");
    std::fs::create_dir_all(&remote).unwrap();
    for film in films {
        std::os::unix::fs::symlink(film.file(), remote.join(film.stream)).unwrap();
    }
    let templates = home.path().join("pipelines");
    std::fs::create_dir(&templates).unwrap();
    let template = "filesrc location={uri} ! matroskademux name=demux\n\
        [video] demux.video ! queue max-size-time=0 max-size-bytes=0 max-size-buffers=0 ! identity sync=true ! {video_out}\n\
        [audio aac] demux.audio ! queue max-size-time=0 max-size-bytes=0 max-size-buffers=0 ! aacparse ! \
        audio/mpeg,stream-format=raw ! identity sync=true ! {audio_out}\n\
        [audio opus] demux.audio ! queue max-size-time=0 max-size-bytes=0 max-size-buffers=0 ! identity sync=true ! {audio_out}\n";
    std::fs::write(templates.join("pull-rtmp.launch"), template).unwrap();
    let sdp = home.path().join("agent.sdp");
    // matroskademux says twice the rate of AAC that could have SBR, until its parser has looked.
    let text = "v=0\nm=video 0 RTP/AVP 95 96\na=rtpmap:95 H264/90000\na=rtpmap:96 VP8/90000\na=sendonly\n\
        m=audio 0 RTP/AVP 103 104 105\na=rtpmap:103 mpeg4-generic/44100/1\na=rtpmap:104 opus/48000/2\n\
        a=rtpmap:105 mpeg4-generic/88200/1\na=recvonly\n";
    std::fs::write(&sdp, text).unwrap();
    let setup = home.setup().set(&format!("rtmp_agent_sdp={}", sdp.display())).set("pull_reconnect_initial=60s");
    setup.set("pull_reconnect_max=60s").arg("--pipelines").arg("pipelines")
}
