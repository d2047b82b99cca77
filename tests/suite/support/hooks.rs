//! A hook server of the tests' own: it takes every call down and answers as a test wants, also as no good server does.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{SOON, wait};

/// How a call is answered.
#[derive(Debug, Clone)]
pub enum Reply {
    /// 200 and what was sent.
    Mirror,
    /// 200 and what was sent, with these fields.
    With(Value),
    /// A status, without a body.
    Status(u16),
    /// 200 and this text.
    Text(&'static str),
    /// Another address.
    Redirect(String),
    /// 200 and what was sent, after this long.
    Slow(Duration),
    /// Nothing, for as long as the caller waits.
    Never,
    /// The beginning of an answer; then the connection is closed.
    Half,
    /// The connection is closed.
    Closed,
}

/// A call that came.
#[derive(Debug, Clone)]
pub struct Call {
    pub method: String,
    pub head: String,
    pub text: String,
    pub body: Value,
    pub at: Instant,
}

impl Call {
    pub fn header(&self, name: &str) -> Option<String> {
        self.headers(name).into_iter().next()
    }

    /// Every header of a name.
    pub fn headers(&self, name: &str) -> Vec<String> {
        let lines = self.head.lines().filter_map(|line| line.split_once(':'));
        lines.filter(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim().to_owned()).collect()
    }
}

type Answer = Box<dyn Fn(&Call) -> Reply + Send>;

struct Shared {
    calls: Mutex<Vec<Call>>,
    answer: Mutex<Answer>,
}

/// The server. Dropped: it is gone, with every connection to it.
pub struct HookServer {
    port: u16,
    shared: Arc<Shared>,
    running: Option<Running>,
}

struct Running {
    over: Arc<AtomicBool>,
    thread: std::thread::JoinHandle<()>,
}

impl HookServer {
    /// One that mirrors everything.
    pub fn start() -> Self {
        Self::on(TcpListener::bind("127.0.0.1:0").unwrap())
    }

    /// One that listens where it is told.
    pub fn on(listener: TcpListener) -> Self {
        let port = listener.local_addr().unwrap().port();
        let shared = Arc::new(Shared { calls: Mutex::default(), answer: Mutex::new(Box::new(|_| Reply::Mirror)) });
        let running = Some(run(listener, shared.clone()));
        Self { port, shared, running }
    }

    /// A port of its own, and nobody there yet.
    pub fn away() -> Self {
        let mut server = Self::start();
        server.stop();
        server
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}/MyAPI", self.port)
    }

    /// How calls are answered from now on.
    pub fn answers(&self, answer: impl Fn(&Call) -> Reply + Send + 'static) {
        *self.shared.answer.lock().unwrap() = Box::new(answer);
    }

    /// How one method is answered from now on; the others are mirrored.
    pub fn answers_to(&self, method: &'static str, reply: Reply) {
        self.answers(move |call| if call.method == method { reply.clone() } else { Reply::Mirror });
    }

    /// `connect` is answered with this `restClientConfig`, the others as `answer` says.
    pub fn configures(&self, config: Value, answer: impl Fn(&Call) -> Reply + Send + 'static) {
        self.answers(move |call| match call.method.as_str() {
            "connect" => Reply::With(json!({"restClientConfig": config})),
            _ => answer(call),
        });
    }

    pub fn stop(&mut self) {
        if let Some(running) = self.running.take() {
            running.over.store(true, Ordering::SeqCst);
            running.thread.join().unwrap();
        }
    }

    /// Listens again, where it did before.
    pub fn restart(&mut self) {
        let listener = wait("the old port", SOON, || TcpListener::bind(("127.0.0.1", self.port)).ok());
        self.running = Some(run(listener, self.shared.clone()));
    }

    pub fn calls(&self) -> Vec<Call> {
        self.shared.calls.lock().unwrap().clone()
    }

    pub fn of(&self, method: &str) -> Vec<Call> {
        self.calls().into_iter().filter(|call| call.method == method).collect()
    }

    pub fn forget(&self) {
        self.shared.calls.lock().unwrap().clear();
    }

    /// Waits for a call of `method` that `fits`.
    pub fn wait(&self, method: &str, fits: impl Fn(&Value) -> bool) -> Call {
        wait(&format!("{method} among {:?}", self.seen()), SOON, || {
            self.of(method).into_iter().find(|call| fits(&call.body))
        })
    }

    /// What came, in short: the methods, and what a status is.
    pub fn seen(&self) -> Vec<String> {
        let short = |call: &Call| match call.body["status"].as_str() {
            Some(status) => format!("{} {status}", call.method),
            None => call.method.clone(),
        };
        self.calls().iter().map(short).collect()
    }
}

impl Drop for HookServer {
    fn drop(&mut self) {
        self.stop();
    }
}

fn run(listener: TcpListener, shared: Arc<Shared>) -> Running {
    listener.set_nonblocking(true).unwrap();
    let over = Arc::new(AtomicBool::new(false));
    let ending = over.clone();
    let thread = std::thread::spawn(move || {
        let mut connections = Vec::new();
        while !ending.load(Ordering::SeqCst) {
            match listener.accept() {
                Ok((stream, _)) => {
                    let (shared, ending) = (shared.clone(), ending.clone());
                    connections.push(std::thread::spawn(move || {
                        let _ = serve(stream, &shared, &ending);
                    }));
                }
                Err(_) => std::thread::sleep(Duration::from_millis(2)),
            }
        }
        connections.into_iter().for_each(|connection| connection.join().unwrap());
    });
    Running { over, thread }
}

/// Waits, unless the server ends.
fn pause(time: Duration, over: &AtomicBool) {
    let until = Instant::now() + time;
    while Instant::now() < until && !over.load(Ordering::SeqCst) {
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn serve(stream: TcpStream, shared: &Shared, over: &AtomicBool) -> std::io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(Duration::from_millis(20)))?;
    let mut reader = BufReader::new(Patient { stream: stream.try_clone()?, over });
    let mut stream = stream;
    loop {
        let Some(call) = read(&mut reader)? else { return Ok(()) };
        // The lock is not held while a slow answer is on its way.
        let reply = (shared.answer.lock().unwrap())(&call);
        shared.calls.lock().unwrap().push(call.clone());
        let whole = |status: &str, more: &str, body: &str| {
            format!(
                "HTTP/1.1 {status}\r\n{more}Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            )
        };
        let text = match reply {
            Reply::Mirror => whole("200 OK", "", &call.text),
            Reply::With(fields) => {
                let mut body = call.body.clone();
                body.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
                whole("200 OK", "", &body.to_string())
            }
            Reply::Status(status) => whole(&format!("{status} Status"), "", ""),
            Reply::Text(text) => whole("200 OK", "", text),
            Reply::Redirect(to) => whole("302 Found", &format!("Location: {to}\r\n"), ""),
            Reply::Slow(time) => {
                pause(time, over);
                whole("200 OK", "", &call.text)
            }
            Reply::Never => {
                pause(Duration::from_secs(3600), over);
                return Ok(());
            }
            Reply::Half => {
                stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{\"a\":")?;
                return Ok(());
            }
            Reply::Closed => return Ok(()),
        };
        stream.write_all(text.as_bytes())?;
    }
}

/// Reads until the server ends.
struct Patient<'a> {
    stream: TcpStream,
    over: &'a AtomicBool,
}

impl Read for Patient<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        loop {
            match self.stream.read(buffer) {
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                    if self.over.load(Ordering::SeqCst) {
                        return Ok(0);
                    }
                }
                read => return read,
            }
        }
    }
}

/// One request; `None` at the end of the connection.
fn read(reader: &mut BufReader<Patient<'_>>) -> std::io::Result<Option<Call>> {
    let mut head = String::new();
    loop {
        let before = head.len();
        if reader.read_line(&mut head)? == 0 {
            return Ok(None);
        }
        if &head[before..] == "\r\n" {
            break;
        }
    }
    let mut call = Call {
        method: head.split(' ').nth(1).unwrap_or_default().rsplit('/').next().unwrap_or_default().to_owned(),
        head,
        text: String::new(),
        body: Value::Null,
        at: Instant::now(),
    };
    let length = call.header("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    call.text = String::from_utf8(body).unwrap();
    call.body = serde_json::from_str(&call.text).unwrap();
    Ok(Some(call))
}
