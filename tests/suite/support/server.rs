//! The server under test, as a process, with its log.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Output, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use weir::hook::application::Update;
use weir::hook::{Applications, Method};
use weir::store::Store;

use super::hooks::HookServer;
use super::process::{Process, Signal, run};
use super::rest::{self, Answer};
use super::{SOON, wait};

const PROGRAM: &str = env!("CARGO_BIN_EXE_weir");

/// The directory that one or several runs of the server share.
pub struct Home {
    dir: tempfile::TempDir,
}

/// How a server is to be started.
pub struct Setup {
    home: PathBuf,
    prefix: Vec<String>,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
}

/// A running server. When it is dropped it must still run, stop in order on SIGTERM, and have logged no warning and no
/// error that the test did not announce.
pub struct Weir {
    process: Process,
    port: u16,
    ports: Value,
    log: Log,
    announced: Vec<String>,
    tolerated: Vec<String>,
    ended: bool,
}

#[derive(Clone, Default)]
struct Log(Arc<Pages>);

#[derive(Default)]
struct Pages {
    written: Mutex<Written>,
    news: Condvar,
}

#[derive(Default)]
struct Written {
    lines: Vec<String>,
    /// The process has closed its end.
    closed: bool,
}

impl Home {
    pub fn new() -> Self {
        Self { dir: tempfile::Builder::new().prefix("weir-test-").tempdir().unwrap() }
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    pub fn records(&self) -> PathBuf {
        self.path().join("records")
    }

    /// The names in `record_dir` that end in `ending`, in alphabetical order.
    pub fn files(&self, ending: &str) -> Vec<PathBuf> {
        let Ok(entries) = std::fs::read_dir(self.records()) else { return Vec::new() };
        let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
        // The server's mark that the directory is its own, and what it knows of the files, are no recordings.
        let own = |file: &PathBuf| file.ends_with(".weir.lock") || file.ends_with(".weir");
        files.retain(|file| file.to_string_lossy().ends_with(ending) && !own(file));
        files.sort();
        files
    }

    pub fn finished(&self) -> Vec<PathBuf> {
        self.files(".mp4")
    }

    pub fn names(&self, ending: &str) -> Vec<String> {
        let name = |file: &PathBuf| file.file_name().unwrap().to_string_lossy().into_owned();
        self.files(ending).iter().map(name).collect()
    }

    /// Waits until `count` finished files are there.
    pub fn wait_finished(&self, count: usize) -> Vec<PathBuf> {
        wait(&format!("{count} finished recordings in {:?}", self.files("")), SOON, || {
            Some(self.finished()).filter(|files| files.len() == count)
        })
    }

    /// Waits until a file is being written and has media in it.
    pub fn wait_writing(&self) -> PathBuf {
        wait("a recording in progress", SOON, || {
            let large = |file: &PathBuf| std::fs::metadata(file).is_ok_and(|facts| facts.len() > 1000);
            self.files(".mp4.tmp").into_iter().find(large)
        })
    }

    /// Gives an application a hook server and methods, before the server starts.
    pub fn hooks(&self, app: &str, hooks: &HookServer, methods: &[Method]) {
        self.application(app, Update { url: Some(hooks.url()), ..Update::default() }, methods);
    }

    /// Changes an application before the server starts, and says which methods are called.
    pub fn application(&self, app: &str, update: Update, methods: &[Method]) {
        let data = self.path().join("data");
        std::fs::create_dir_all(&data).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let applications = Applications::open(&Store::open(&data).unwrap()).await.unwrap();
            applications.update(app, update).await.unwrap();
            applications.disable(app, &Method::ALL).await.unwrap();
            applications.enable(app, methods).await.unwrap();
        });
    }

    /// What a command of `weir ctl` prints; it succeeds.
    pub fn ctl(&self, line: &str) -> String {
        let output = self.bare("ctl").arg(line).run();
        assert!(output.status.success(), "{line}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// A server on free ports of loopback with its directories here.
    pub fn setup(&self) -> Setup {
        let setup = self.bare("serve").arg("--data").arg(&self.path().join("data").to_string_lossy());
        let setup =
            setup.set("http.port=0").set("ws.port=0").set("webrtc.port=0").set("rtmp.port=0").set("ip_local=127.0.0.1");
        let setup = setup.set("https.port=0").set("wss.port=0");
        // A stream whose encoder has left ends at once, unless a test is about just that.
        let setup = setup.set("publisher_linger=0");
        let setup = setup.set("ssh.port=0");
        setup.set(&format!("record_dir={}", self.records().display()))
    }

    /// Only a verb: everything else is as the program has it, relative to this directory.
    pub fn bare(&self, verb: &str) -> Setup {
        let prefix = vec![PROGRAM.to_owned()];
        Setup { home: self.path().to_owned(), prefix, arguments: vec![verb.to_owned()], environment: Vec::new() }
    }

    pub fn start(&self) -> Weir {
        self.setup().start()
    }
}

impl Setup {
    pub fn set(self, setting: &str) -> Self {
        self.arg("--set").arg(setting)
    }

    pub fn arg(mut self, argument: &str) -> Self {
        self.arguments.push(argument.to_owned());
        self
    }

    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Has the server started by another program: `unshare`, `sh`.
    pub fn through(mut self, prefix: &[&str]) -> Self {
        let program = self.prefix;
        self.prefix = prefix.iter().map(|&word| word.to_owned()).chain(program).collect();
        self
    }

    fn apply(&self, command: &mut Command) {
        // What the caller's shell sets for weir or GStreamer is not part of a test.
        let inherited = std::env::vars_os().map(|(name, _)| name);
        for name in
            inherited.filter(|n| n.to_string_lossy().starts_with("WEIR_") || n.to_string_lossy().starts_with("GST_"))
        {
            command.env_remove(name);
        }
        // A home that cannot be written to is a critical of dconf's, and says nothing of the server.
        command.env("GSETTINGS_BACKEND", "memory");
        command.env("G_DEBUG", "fatal-criticals").current_dir(&self.home);
        command.args(&self.prefix[1..]).args(&self.arguments).envs(self.environment.iter().cloned());
    }

    /// Runs it to its end.
    pub fn run(&self) -> Output {
        let mut command = Command::new(&self.prefix[0]);
        self.apply(&mut command);
        run(&mut command, Duration::from_secs(30))
    }

    /// Starts it and waits until it listens.
    pub fn start(self) -> Weir {
        let ports = self.home.join("data/ports.json");
        let _ = std::fs::remove_file(&ports);
        let mut process = Process::start(&self.prefix[0], |command| {
            self.apply(command);
            command.stderr(Stdio::piped());
        });
        let log = Log::default();
        log.read(process.child.stderr.take().unwrap());
        let ports = wait("ports.json", SOON, || {
            assert!(process.runs(), "the server has ended: {:#?}", log.lines());
            let text = std::fs::read_to_string(&ports).ok()?;
            Some(serde_json::from_str::<Value>(&text).unwrap())
        });
        let port = port_of(&ports, "http.port");
        Weir { process, port, ports, log, announced: Vec::new(), tolerated: Vec::new(), ended: false }
    }
}

fn port_of(ports: &Value, setting: &str) -> u16 {
    u16::try_from(ports[setting].as_u64().unwrap()).unwrap()
}

impl Log {
    fn read(&self, from: impl std::io::Read + Send + 'static) {
        let log = self.clone();
        std::thread::spawn(move || {
            for line in BufReader::new(from).lines() {
                let Ok(line) = line else { break };
                log.0.written.lock().unwrap().lines.push(line);
            }
            log.0.written.lock().unwrap().closed = true;
            log.0.news.notify_all();
        });
    }

    fn lines(&self) -> Vec<String> {
        self.0.written.lock().unwrap().lines.clone()
    }

    /// All lines, once the process has closed its end.
    fn all(&self) -> Vec<String> {
        let written = self.0.written.lock().unwrap();
        let (written, late) = self.0.news.wait_timeout_while(written, SOON, |written| !written.closed).unwrap();
        assert!(!late.timed_out(), "the log stays open after the server's end");
        written.lines.clone()
    }
}

/// Whether a line tells of something a healthy server does not say.
fn is_bad(line: &str) -> bool {
    let level = line.split_whitespace().nth(1);
    matches!(level, Some("WARN" | "ERROR"))
        || line.contains(r#""level":"WARN""#)
        || line.contains(r#""level":"ERROR""#)
        || line.contains("CRITICAL **")
        || line.contains("WARNING **")
        || line.contains("panicked at")
}

impl Weir {
    /// A warning or an error with this text will be logged, and is meant to be.
    pub fn announce(&mut self, text: &str) {
        self.announced.push(text.to_owned());
    }

    /// A warning or an error with this text may be logged.
    pub fn tolerate(&mut self, text: &str) {
        self.tolerated.push(text.to_owned());
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// The port in use of another setting.
    pub fn port_of(&self, setting: &str) -> u16 {
        port_of(&self.ports, setting)
    }

    /// Where encoders publish a stream.
    pub fn rtmp(&self, name: &str) -> String {
        format!("rtmp://127.0.0.1:{}/live/{name}", self.port_of("rtmp.port"))
    }

    pub fn pid(&self) -> u32 {
        self.process.child.id()
    }

    pub fn log(&self) -> Vec<String> {
        self.log.lines()
    }

    pub fn logged(&self, text: &str) -> bool {
        self.log().iter().any(|line| line.contains(text))
    }

    /// How often somebody was not let in at `door`, for `reason`: a line of `/metrics`.
    pub fn denials(metrics: &str, door: &str, reason: &str) -> u64 {
        let name = format!("weir_denials_total{{door=\"{door}\",reason=\"{reason}\"}} ");
        let found = metrics.lines().find_map(|line| line.strip_prefix(&name));
        found.unwrap_or_else(|| panic!("{name}in {metrics}")).parse().unwrap()
    }

    /// Waits for a line of the log that holds `text`.
    pub fn wait_log(&self, text: &str) -> String {
        wait(&format!("a line of the log with {text:?} in {:#?}", self.log()), SOON, || {
            self.log().into_iter().find(|line| line.contains(text))
        })
    }

    pub fn get(&self, path: &str) -> Answer {
        rest::call(self.port, "GET", path, "")
    }

    pub fn call(&self, method: &str, path: &str, body: &str) -> Answer {
        rest::call(self.port, method, path, body)
    }

    pub fn raw(&self, bytes: &[u8]) -> Option<Answer> {
        rest::exchange(self.port, bytes)
    }

    pub fn post(&self, path: &str, body: &Value) -> Answer {
        rest::call(self.port, "POST", path, &body.to_string())
    }

    /// A call that must be done: 200 without a body.
    pub fn done(&self, path: &str, body: &Value) {
        let answer = self.post(path, body);
        assert_eq!((answer.status, answer.body.as_str()), (200, ""), "{path} {body}: {answer:?}");
    }

    /// A call that must be refused: the status and the code of an error body that is as wcs.md 14 wants it.
    pub fn refused(&self, answer: &Answer, path: &str) -> (u16, String) {
        let body = answer.json();
        let text = |field: &str| body[field].as_str().unwrap_or_else(|| panic!("{field} in {body}")).to_owned();
        assert!(answer.status >= 400, "{answer:?}");
        assert_eq!(body["status"], answer.status, "{body}");
        assert_eq!(text("path"), path);
        assert_eq!(text("reason"), text("message"));
        assert!(!text("reason").is_empty() && !text("error").is_empty());
        assert!(body["timestamp"].as_u64().unwrap() > 1_700_000_000_000, "{body}");
        assert_eq!(answer.header("content-type"), Some("application/json;charset=UTF-8"));
        (answer.status, text("exception"))
    }

    pub fn pull(&self, uri: &str, name: &str, record: bool) {
        self.done("/rest-api/pull/rtmp/pull", &json!({"uri": uri, "localStreamName": name, "record": record}));
    }

    pub fn terminate(&self, name: &str) {
        self.done("/rest-api/pull/rtmp/terminate", &json!({"localStreamName": name}));
    }

    pub fn agent(&self, name: &str) -> Option<Value> {
        let answer = self.post("/rest-api/pull/rtmp/find", &json!({"localStreamName": name}));
        (answer.status == 200).then(|| answer.json()[0].clone())
    }

    pub fn stream(&self, name: &str) -> Option<Value> {
        let answer = self.post("/rest-api/stream/find", &json!({"name": name, "display": ["metrics"]}));
        (answer.status == 200).then(|| answer.json()[0].clone())
    }

    pub fn wait_agent(&self, name: &str, status: &str) -> Value {
        wait(&format!("{name} to be {status}; it is {:?}", self.agent(name)), SOON, || {
            self.agent(name).filter(|agent| agent["status"] == status)
        })
    }

    /// Video and audio frames that have come in so far.
    pub fn frames(&self, name: &str) -> (u64, u64) {
        let stream = self.stream(name).unwrap_or_default();
        let count = |key: &str| stream["metrics"][key].as_u64().unwrap_or(0);
        (count("VIDEO_FRAMES"), count("AUDIO_FRAMES"))
    }

    /// Waits until this many video frames (audio, where there is no video) have come in.
    pub fn wait_frames(&self, name: &str, at_least: u64) {
        wait(&format!("{at_least} frames of {name}"), Duration::from_secs(40), || {
            let (video, audio) = self.frames(name);
            (if video > 0 { video } else { audio } >= at_least).then_some(())
        });
    }

    pub fn pipelines(&self, template: &str) -> Vec<Value> {
        let list = self.get("/rest-api/pipelines").json();
        list.as_array().unwrap().iter().filter(|p| p["template"] == template).cloned().collect()
    }

    pub fn signal(&self, signal: Signal) {
        self.process.signal(signal);
    }

    /// Ends it at once, as `kill -9` does.
    pub fn kill(mut self) {
        self.process.signal(Signal::KILL);
        self.process.ended(SOON);
        self.check();
    }

    /// Ends it in order, and tells how it ended and how long it took.
    pub fn stop(mut self) -> (ExitStatus, Duration) {
        let began = Instant::now();
        self.process.signal(Signal::TERM);
        let status = self.process.ended(Duration::from_secs(40));
        let took = began.elapsed();
        self.check();
        (status, took)
    }

    /// Waits for an end that is under way.
    pub fn ended(mut self) -> (ExitStatus, Vec<String>) {
        let status = self.process.ended(Duration::from_secs(40));
        let log = self.log.all();
        self.check();
        (status, log)
    }

    fn check(&mut self) {
        self.ended = true;
        let log = self.log.all();
        let mut bad = log.iter().filter(|line| is_bad(line));
        let known = |line: &str| self.announced.iter().chain(&self.tolerated).any(|text| line.contains(text));
        let surprise = bad.find(|line| !known(line));
        assert!(surprise.is_none(), "not announced: {surprise:?} in {log:#?}");
        for text in &self.announced {
            let came = log.iter().any(|line| is_bad(line) && line.contains(text));
            assert!(came, "announced but not logged: {text:?} in {log:#?}");
        }
    }
}

impl Drop for Weir {
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        if std::thread::panicking() {
            eprintln!("the server's log:\n{}", self.log.lines().join("\n"));
            return;
        }
        let early = self.process.child.try_wait().unwrap();
        assert!(early.is_none(), "the server has ended: {early:?} {:#?}", self.log.lines());
        self.process.signal(Signal::TERM);
        let status = self.process.ended(Duration::from_secs(40));
        assert_eq!(status.code(), Some(0), "{:#?}", self.log.lines());
        self.check();
    }
}
