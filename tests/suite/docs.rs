//! What the documents tell their readers to type is typed here, in its order, against a running weir.
//!
//! A block of three backticks and `sh` is run. Further words behind `sh` say why it is not: see [`ELSEWHERE`].

use std::fmt::Write as _;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::page::Page;
use crate::support::{Clip, Home, Process, Publisher, Weir, wait_until};

/// Why a block is not run here.
const ELSEWHERE: [(&str, &str); 6] = [
    ("build", "it builds weir, and runs these tests"),
    ("docker", "it needs a container engine"),
    ("root", "it changes the host, or needs another one"),
    ("graphviz", "it needs graphviz"),
    ("terminal", "somebody types at it"),
    ("screen", "it opens a window"),
];

/// What the commands stand in: the ports of the server under test, and answers to what the documents ask for.
const PREAMBLE: &str = r#"
set -euo pipefail
curl() { command curl -sS --fail-with-body --retry 30 --retry-delay 1 --retry-max-time 30 --retry-all-errors "$@"; echo; }
# A server that listens, and is told to stop.
serve() {
  local pid tries
  rm -rf served && mkdir served
  command weir serve --data served/data --set record_dir=served/records --set http.port=0 --set ws.port=0 \
    --set rtmp.port=0 --set webrtc.port=0 --set ssh.port=0 --set https.port= --set wss.port= \
    --set ip_local=127.0.0.1 "$@" &
  pid=$!
  for ((tries = 0; tries < 200; tries++)); do
    [[ ! -e served/data/ports.json ]] || break
    sleep 0.1
  done
  kill "$pid" && wait "$pid"
}
weir() { if [[ $1 == serve ]]; then serve "${@:2}"; else command weir "$@"; fi; }
field() { python3 -c "import json, sys; print(json.load(sys.stdin)$1)"; }
pipeline() { command curl -sS "$REST/pipelines" | field '[0]["id"]'; }
publisher() {
  command curl -sS --json '{"name": "demo", "published": true}' "$REST/stream/find" | field '[0]["mediaSessionId"]'
}
recording() { command curl -sS "$REST/recordings" | field '[-1]["name"]'; }
"#;

/// A fenced block: the line it stands at, what stands behind its backticks, and its text.
struct Block {
    line: usize,
    info: String,
    text: String,
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// README and all of `docs/`.
fn documents() -> Vec<PathBuf> {
    let entries = std::fs::read_dir(root().join("docs")).unwrap();
    let mut found: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    found.retain(|file| file.extension().is_some_and(|ending| ending == "md"));
    found.push(root().join("README.md"));
    found.sort();
    found
}

fn blocks(text: &str) -> Vec<Block> {
    let mut found: Vec<Block> = Vec::new();
    let mut inside: Option<usize> = None;
    for (number, line) in text.lines().enumerate() {
        let fence = line.trim_start().strip_prefix("```");
        match (fence, inside) {
            (Some(_), Some(_)) => inside = None,
            (Some(info), None) => {
                inside = Some(line.len() - line.trim_start().len());
                found.push(Block { line: number + 1, info: info.trim().to_owned(), text: String::new() });
            }
            (None, Some(indent)) => {
                let last = found.last_mut().unwrap();
                writeln!(last.text, "{}", line.get(indent..).unwrap_or_default()).unwrap();
            }
            (None, None) => {}
        }
    }
    assert!(inside.is_none(), "a block has no end");
    found
}

/// The commands that are run, with a word before each block; those that are not are printed with their reason.
fn commands(file: &Path, text: &str) -> String {
    let mut script = String::new();
    for block in blocks(text) {
        let place = format!("{}:{}", file.file_name().unwrap().to_string_lossy(), block.line);
        let mut words = block.info.split_whitespace();
        match (words.next(), words.next()) {
            (Some("sh"), None) => writeln!(script, "echo '--- {place}'\n{}", block.text).unwrap(),
            (Some("sh"), Some(word)) => {
                let known = ELSEWHERE.iter().find(|(known, _)| *known == word);
                let (_, why) = known.unwrap_or_else(|| panic!("{place}: {word:?} is no reason not to run it"));
                println!("{place} is not run: {why}");
            }
            _ => {}
        }
    }
    script
}

/// The documents have the default ports, and words in capitals that are the reader's.
fn adapted(text: &str, weir: &Weir, hooks: u16) -> String {
    let port = |setting| weir.port_of(setting);
    let rtmp = port("rtmp.port");
    let film = Clip::AV.file();
    [
        ("HOST:", "127.0.0.1:".to_owned()),
        ("127.0.0.1:8081", format!("127.0.0.1:{}", port("http.port"))),
        ("127.0.0.1:8080", format!("127.0.0.1:{}", port("ws.port"))),
        ("127.0.0.1:1935", format!("127.0.0.1:{rtmp}")),
        ("rtmp://127.0.0.1/", format!("rtmp://127.0.0.1:{rtmp}/")),
        ("9091", hooks.to_string()),
        ("@CAMERA/", "@127.0.0.1:9/".to_owned()),
        ("-re -i FILE", format!("-v error -nostdin -re -t 1 -i {}", film.display())),
        ("live/NAME", "live/name".to_owned()),
        ("{\"mediaSessionId\": \"ID\"", "{\"mediaSessionId\": \"'$(publisher)'\"".to_owned()),
        ("pipelines/ID", "pipelines/$(pipeline)".to_owned()),
        ("recordings/NAME", "recordings/$(recording)".to_owned()),
        ("target/release/weir", "weir".to_owned()),
    ]
    .iter()
    .fold(text.to_owned(), |text, (from, to)| text.replace(from, to))
}

/// Runs the commands of one document; fails with all they have said.
fn run_document(file: &Path) {
    let text = std::fs::read_to_string(file).unwrap();
    let commands = commands(file, &text);
    if commands.is_empty() {
        return;
    }
    let home = Home::new();
    let mut weir = home.setup().set("record_flash_published_streams=false").start();
    // What is tried out may fail for weir; what the reader types must not.
    weir.tolerate(" WARN ");
    let _publishers = ["cam", "source"].map(|name| Publisher::start(Clip::LONG, &weir.rtmp(name)));
    weir.pull(&weir.rtmp("source"), "demo", true);
    ["cam", "demo"].into_iter().for_each(|name| weir.wait_frames(name, 1));
    let _player = Process::start("ffmpeg", |command| {
        command.args(["-v", "error", "-nostdin", "-i", &weir.rtmp("cam"), "-f", "null", "-"]);
        command.stdout(Stdio::null()).stderr(Stdio::null());
    });
    let _browser = Page::established(&weir);
    wait_until("the player", || weir.get("/rest-api/stream/find_all").body.contains("\"published\":false"));

    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let script = adapted(&format!("{PREAMBLE}\n{commands}"), &weir, port);
    let hooks = blocks(&text).into_iter().find(|block| block.info == "python").map(|block| block.text);
    let _hooks = hooks.map(|hooks| {
        std::fs::write(home.path().join("hooks.py"), adapted(&hooks, &weir, port)).unwrap();
        Process::start("python3", |command| {
            command.arg("hooks.py").current_dir(home.path()).stdout(Stdio::null()).stderr(Stdio::null());
        })
    });
    std::fs::write(home.path().join("commands.txt"), "show apps\n").unwrap();
    std::fs::write(home.path().join("script.sh"), &script).unwrap();
    let program = Path::new(env!("CARGO_BIN_EXE_weir")).parent().unwrap();
    let path = format!("{}:{}", program.display(), std::env::var("PATH").unwrap());
    let said = home.path().join("said.txt");
    let mut shell = Process::start("bash", |command: &mut Command| {
        let out = std::fs::File::create(&said).unwrap();
        command.arg("script.sh").current_dir(home.path()).env("PATH", path).env("TOKEN", "none");
        command.env("REST", format!("http://127.0.0.1:{}/rest-api", weir.port())).stdin(Stdio::null());
        command.stdout(out.try_clone().unwrap()).stderr(out);
    });
    let status = shell.ended(Duration::from_secs(120));
    let said = std::fs::read_to_string(said).unwrap();
    assert!(status.success(), "{}: {status}\n{said}\n--- of\n{script}", file.display());
    assert_eq!(said.matches("--- ").count(), script.matches("echo '--- ").count(), "every block is run");
    weir.stop();
}

#[test]
fn what_the_readme_says_is_typed() {
    run_document(&root().join("README.md"));
}

#[test]
fn what_the_documents_say_is_typed() {
    let all = documents();
    assert!(all.len() >= 8, "{all:?}");
    std::thread::scope(|scope| {
        let others = all.iter().filter(|file| !file.ends_with("README.md"));
        let running: Vec<_> = others.map(|file| scope.spawn(move || run_document(file))).collect();
        running.into_iter().for_each(|document| document.join().unwrap());
    });
}

#[test]
fn documents_link_to_what_there_is() {
    for file in documents() {
        let text = std::fs::read_to_string(&file).unwrap();
        let folder = file.parent().unwrap();
        for (at, _) in text.match_indices("](") {
            let target = text[at + 2..].split([')', '#']).next().unwrap();
            let there = target.is_empty() || target.contains("://") || folder.join(target).exists();
            assert!(there, "{} links to {target}", file.display());
        }
    }
    let readme = std::fs::read_to_string(root().join("README.md")).unwrap();
    for file in documents().iter().filter(|file| !file.ends_with("README.md")) {
        let name = file.file_name().unwrap().to_string_lossy();
        assert!(readme.contains(&format!("](docs/{name})")), "README links to docs/{name}");
    }
}

#[test]
fn the_fences_are_read() {
    let text = "a\n```sh\none\n```\n- b\n  ```sh docker\n  two\n  ```\n```python\nx\n```\n";
    let found: Vec<_> = blocks(text).into_iter().map(|block| (block.line, block.info, block.text)).collect();
    let block = |line, info: &str, text: &str| (line, info.to_owned(), text.to_owned());
    assert_eq!(found, [block(2, "sh", "one\n"), block(6, "sh docker", "two\n"), block(9, "python", "x\n")]);
    assert_eq!(commands(Path::new("a.md"), text), "echo '--- a.md:2'\none\n\n");
}
