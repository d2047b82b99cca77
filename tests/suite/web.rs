//! What the HTTP port serves beside REST's calls: pages, files, events; against a whole server in this process.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use weir::config::Config;
use weir::server::Server;

/// A server on a free port, with a recording, other files near it, and a folder of the operator's.
struct World {
    server: Server,
    address: SocketAddr,
    folder: TempDir,
}

/// A recording's content: every byte differs from its neighbours.
fn film() -> Vec<u8> {
    (0..200_000_u32).map(|n| (n % 251) as u8).collect()
}

async fn world() -> World {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| -> PathBuf { folder.path().join(name) };
    std::fs::create_dir_all(path("records/folder.mp4")).unwrap();
    std::fs::write(path("records/film.mp4"), film()).unwrap();
    std::fs::write(path("records/käse & co.webm"), "webm").unwrap();
    std::fs::write(path("records/empty.mp4"), "").unwrap();
    std::fs::write(path("records/page.html"), "<script>").unwrap();
    std::fs::write(path("records/.hidden.mp4"), "no").unwrap();
    std::fs::write(path("records/bad.mp4.broken"), "no").unwrap();
    std::fs::write(path("secret.mp4"), "no").unwrap();
    symlink(path("secret.mp4"), path("records/link.mp4")).unwrap();
    symlink(path("records/film.mp4"), path("records/same.mp4")).unwrap();
    std::fs::create_dir_all(path("pages/demo")).unwrap();
    std::fs::write(path("pages/demo/index.html"), "<p>demo").unwrap();
    std::fs::write(path("pages/a.js"), "1").unwrap();
    std::fs::write(path("pages/.git"), "no").unwrap();
    symlink(folder.path(), path("pages/out")).unwrap();
    let fifo = std::process::Command::new("mkfifo").arg(path("pages/pipe.html")).status().unwrap();
    assert!(fifo.success());

    let sets = [
        "http.port=0".to_owned(),
        "ws.port=0".to_owned(),
        "rtmp.port=0".to_owned(),
        "https.port=0".to_owned(),
        "wss.port=0".to_owned(),
        "ssh.port=0".to_owned(),
        "webrtc.port=0".to_owned(),
        "ip_local=127.0.0.1".to_owned(),
        format!("record_dir={}", path("records").display()),
        format!("web_root={}", path("pages").display()),
    ];
    let config = Config::load(None, [], &sets).unwrap().config;
    let server = Server::start(config, &path("data"), None).await.unwrap();
    let address = server.http();
    // A recorder's unfinished file; the start would have taken it for a crash's.
    std::fs::write(path("records/running.mp4.tmp"), "no").unwrap();
    World { server, address, folder }
}

/// An answer, read to its end.
struct Answer {
    status: u16,
    head: String,
    body: Vec<u8>,
}

impl Answer {
    fn header(&self, name: &str) -> &str {
        let named = |line: &&str| line.split_once(':').is_some_and(|(key, _)| key.eq_ignore_ascii_case(name));
        self.head.lines().find(named).map_or("", |line| line.split_once(':').unwrap().1.trim())
    }

    fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}

impl World {
    /// Sends a request as it is: what an HTTP client would tidy up before it asks goes out as it stands here.
    fn open(&self, method: &str, target: &str, headers: &[(&str, &str)]) -> TcpStream {
        let mut stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let mut head = format!("{method} {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n");
        for (name, value) in headers {
            head += &format!("{name}: {value}\r\n");
        }
        stream.write_all((head + "\r\n").as_bytes()).unwrap();
        stream
    }

    fn ask(&self, method: &str, target: &str, headers: &[(&str, &str)]) -> Answer {
        let mut all = Vec::new();
        self.open(method, target, headers).read_to_end(&mut all).unwrap();
        let end = all.windows(4).position(|four| four == b"\r\n\r\n").unwrap();
        let head = String::from_utf8(all[..end].to_vec()).unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        Answer { status, head, body: all.split_off(end + 4) }
    }

    fn get(&self, target: &str, headers: &[(&str, &str)]) -> Answer {
        self.ask("GET", target, headers)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_are_served_with_what_keeps_them_safe_and_fresh() {
    let world = world().await;
    for (path, kind) in [
        ("/", "text/html; charset=utf-8"),
        ("/player.html?name=a", "text/html; charset=utf-8"),
        ("/weir.css", "text/css; charset=utf-8"),
        ("/weir.js", "text/javascript; charset=utf-8"),
        ("/icon.svg", "image/svg+xml; charset=utf-8"),
    ] {
        let page = world.get(path, &[]);
        assert_eq!((page.status, page.header("content-type")), (200, kind), "{path}");
        assert!(!page.body.is_empty());
        assert_eq!(page.header("cache-control"), "no-cache");
        assert_eq!(page.header("x-content-type-options"), "nosniff");
        assert_eq!(page.header("referrer-policy"), "no-referrer");
        let policy = page.header("content-security-policy");
        assert!(policy.contains("default-src 'none'") && policy.contains("connect-src 'self' ws: wss:"), "{policy}");
        assert!(!policy.contains("unsafe"), "{policy}");

        let again = world.get(path, &[("if-none-match", page.header("etag"))]);
        assert_eq!((again.status, again.body.len()), (304, 0), "{path}");
        assert_eq!(again.header("etag"), page.header("etag"));
        let head = world.ask("HEAD", path, &[]);
        assert_eq!((head.status, head.body.len()), (200, 0), "{path}");
        assert_eq!(head.header("content-length"), page.header("content-length"));
    }
    let none = world.get("/nothing.html", &[]);
    assert_eq!((none.status, none.header("content-type")), (404, "text/plain;charset=UTF-8"));
    assert!(!none.body.starts_with(b"{"));
    assert_eq!(world.ask("POST", "/player.html", &[]).status, 405);
    assert!(world.server.stop().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recording_is_served_whole_and_in_parts() {
    let world = world().await;
    let film = film();
    let path = "/client/records/film.mp4";
    let whole = world.get(path, &[]);
    assert_eq!((whole.status, whole.body == film), (200, true));
    assert_eq!(whole.header("content-type"), "video/mp4");
    assert_eq!(whole.header("content-length"), "200000");
    assert_eq!(whole.header("accept-ranges"), "bytes");
    assert_eq!(whole.header("content-disposition"), "");
    let (tag, modified) = (whole.header("etag"), whole.header("last-modified"));

    for (range, first, last) in [
        ("bytes=0-0", 0, 0),
        ("bytes=100-", 100, 199_999),
        ("bytes=-1000", 199_000, 199_999),
        ("bytes=7-70000", 7, 70_000),
    ] {
        for also in [None, Some(("if-range", tag)), Some(("if-range", modified))] {
            let asked: Vec<_> = std::iter::once(("range", range)).chain(also).collect();
            let part = world.get(path, &asked);
            assert_eq!(part.status, 206, "{asked:?}");
            assert_eq!(part.header("content-range"), format!("bytes {first}-{last}/200000"));
            assert_eq!(part.header("content-length"), part.body.len().to_string());
            assert!(part.body == film[first..=last], "{asked:?}");
        }
    }
    let beyond = world.get(path, &[("range", "bytes=200000-")]);
    assert_eq!((beyond.status, beyond.body.len()), (416, 0));
    assert_eq!(beyond.header("content-range"), "bytes */200000");
    assert_eq!(world.get(path, &[("range", "bytes=5-"), ("if-range", "\"old\"")]).status, 200);
    assert_eq!(world.get(path, &[("if-none-match", tag)]).status, 304);
    assert_eq!(world.get(path, &[("if-modified-since", modified)]).status, 304);
    let head = world.ask("HEAD", path, &[("range", "bytes=0-9")]);
    assert_eq!((head.status, head.body.len(), head.header("content-length")), (200, 0, "200000"));

    let other = world.get("/client/records/k%C3%A4se%20%26%20co.webm?download", &[]);
    assert_eq!((other.header("content-type"), other.body.as_slice()), ("video/webm", &b"webm"[..]));
    assert_eq!(other.header("content-disposition"), "attachment; filename*=UTF-8''k%C3%A4se%20%26%20co%2Ewebm");
    let empty = world.get("/client/records/empty.mp4", &[]);
    assert_eq!((empty.status, empty.body.len(), empty.header("content-length")), (200, 0, "0"));
    assert_eq!(world.get("/client/records/page.html", &[]).header("content-type"), "application/octet-stream");
    assert_eq!(world.get("/client/records/same.mp4", &[]).body.len(), 200_000);
    assert!(world.server.stop().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_outside_a_folder_is_served() {
    let world = world().await;
    let absolute = world.folder.path().join("secret.mp4").display().to_string();
    for target in [
        "/client/records/../../secret.mp4",
        "/client/records/..%2f..%2fsecret.mp4",
        "/client/records/%2e%2e/%2e%2e/secret.mp4",
        "/client/records/..",
        "/client/records/%2e%2e%2fsecret.mp4",
        "/client/records/..%5csecret.mp4",
        "/client/records/film.mp4%00.txt",
        "/client/records/film.mp4%ff",
        "/client/records/link.mp4",
        "/client/records/folder.mp4",
        "/client/records/.hidden.mp4",
        "/client/records/bad.mp4.broken",
        "/client/records/running.mp4.tmp",
        "/client/records/",
        "/client/records",
        "/client/records//film.mp4",
        &format!("/client/records/{absolute}"),
        &format!("/client/records/{}", absolute.replace('/', "%2f")),
        "/client2/../secret.mp4",
        "/client2/%2e%2e/secret.mp4",
        "/client2/demo/%2e%2e/%2e%2e/secret.mp4",
        "/client2/demo/..%2f..%2fsecret.mp4",
        "/client2/out/secret.mp4",
        "/client2/out/",
        "/client2/.git",
        "/client2/a.js%00",
        "/client2/a.js/",
        "/client2/pipe.html",
        "/client2/",
        &format!("/client2/{absolute}"),
    ] {
        let answer = world.get(target, &[]);
        assert_eq!(answer.status, 404, "{target}");
        assert!(answer.json()["exception"].is_string(), "{target}");
    }
    assert!(world.server.stop().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_operators_folder_is_served() {
    let world = world().await;
    let moved = world.get("/client2/demo?x=1", &[]);
    assert_eq!((moved.status, moved.header("location")), (308, "/client2/demo/?x=1"));
    let page = world.get("/client2/demo/", &[]);
    assert_eq!((page.status, page.body.as_slice()), (200, &b"<p>demo"[..]));
    assert_eq!(page.header("content-type"), "text/html; charset=utf-8");
    // Pages of WCS have scripts in their attributes.
    assert_eq!(page.header("content-security-policy"), "");
    assert_eq!(world.get("/client2/a.js", &[]).header("content-type"), "text/javascript; charset=utf-8");
    assert!(world.server.stop().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn recordings_and_ports_are_listed() {
    let world = world().await;
    assert_eq!(world.get("/rest-api/ports", &[]).json()["http.port"], world.address.port());

    let listed = world.get("/rest-api/recordings", &[]).json();
    let listed = listed.as_array().unwrap();
    let state = |name: &str| listed.iter().find(|file| file["name"] == name).map(|file| file["state"].clone());
    assert_eq!(state("film.mp4"), Some("finished".into()));
    assert_eq!(state("running.mp4.tmp"), Some("writing".into()));
    assert_eq!(state("bad.mp4.broken"), Some("broken".into()));
    assert_eq!(state("link.mp4"), None);
    assert_eq!(listed[0]["name"], "running.mp4.tmp");
    let times: Vec<_> = listed.iter().map(|file| file["modified"].as_u64().unwrap()).collect();
    assert!(times.is_sorted_by(|a, b| a >= b), "{times:?}");
    assert!(world.server.stop().await);
}

/// Reads until `end` is in what was heard, or the server has ended it.
fn hear(feed: &mut TcpStream, heard: &mut String, end: &str) {
    let mut piece = [0; 4096];
    while !heard.contains(end) {
        match feed.read(&mut piece).unwrap() {
            0 => return,
            count => heard.push_str(std::str::from_utf8(&piece[..count]).unwrap()),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn events_are_followed_and_end_with_the_server() {
    let world = world().await;
    let mut heard = String::new();
    let mut feed = world.open("GET", "/rest-api/events", &[]);
    hear(&mut feed, &mut heard, "retry: ");
    assert!(heard.contains("content-type: text/event-stream\r\n"), "{heard}");
    // Nobody listens there: the stream starts and its pull is tried again.
    let pull = r#"{"uri": "rtmp://u:secret@127.0.0.1:1/live/a", "localStreamName": "a"}"#;
    let mut asked = world.open("POST", "/rest-api/pull/rtmp/pull", &[("content-length", &pull.len().to_string())]);
    asked.write_all(pull.as_bytes()).unwrap();
    hear(&mut feed, &mut heard, "event: pullRetry\n");
    assert!(heard.contains("event: streamStarted\n") && !heard.contains("secret"), "{heard}");
    for data in heard.lines().filter_map(|line| line.strip_prefix("data: ")) {
        let data: serde_json::Value = serde_json::from_str(data).unwrap();
        assert_eq!(data["stream"], "a");
    }
    // One that asked and does not read does not keep the server either.
    let _idle = world.open("GET", "/client/records/film.mp4", &[]);
    let began = Instant::now();
    assert!(world.server.stop().await);
    assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
    hear(&mut feed, &mut heard, "no such words");
    assert!(heard.contains("event: streamEnded\n"), "{heard}");
}
