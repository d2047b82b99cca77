//! The plan of the house, held by reading the sources: who may use whom, and what may be written where.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The rooms from the top down; one on a line may use those of the lines below it, and none beside it.
const LAYERS: [&[&str]; 7] = [
    &["main"],
    &["server"],
    &["api", "signal", "cli"],
    &["picture", "pull", "rtmp", "record", "webrtc"],
    &["hook"],
    &["hub"],
    &["media"],
];
/// Rooms that anybody may use, and that use only each other.
const LEAVES: [&str; 14] = [
    "message",
    "name",
    "event",
    "retry",
    "config",
    "store",
    "users",
    "listen",
    "tls",
    "trust",
    "meter",
    "admission",
    "gate",
    "systemd",
];
/// The list of modules.
const ROOT: &str = "lib";

/// A source file: its path under `src`, its room, and its lines of code. Comments are out, and so is what stands under
/// `#[cfg(test)]`.
struct Source {
    path: PathBuf,
    room: String,
    code: Vec<(usize, String)>,
}

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut folders = vec![root.clone()];
    let mut found = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(source(&root, &path));
            }
        }
    }
    assert!(found.len() > 20, "the sources are found");
    found
}

fn source(root: &Path, path: &Path) -> Source {
    let path_under = path.strip_prefix(root).unwrap().to_owned();
    let first = path_under.components().next().unwrap().as_os_str().to_string_lossy().into_owned();
    let room = first.trim_end_matches(".rs").to_owned();
    let text = std::fs::read_to_string(path).unwrap();
    let only_tests = path_under.components().any(|part| part.as_os_str() == "tests")
        || path_under.file_stem().is_some_and(|stem| stem.to_string_lossy().ends_with("tests"));
    let code = if only_tests { Vec::new() } else { code(&text) };
    Source { path: path_under, room, code }
}

/// The lines of a file that are neither comments nor tests. A test module is the last thing in its file.
fn code(text: &str) -> Vec<(usize, String)> {
    let lines = text.lines().enumerate().map(|(index, line)| (index + 1, line));
    let before_tests = lines.take_while(|(_, line)| line.trim() != "#[cfg(test)]");
    let uncommented = before_tests.map(|(number, line)| {
        let comment = line.trim_start().starts_with("//");
        (number, if comment { String::new() } else { line.split(" // ").next().unwrap().to_owned() })
    });
    uncommented.collect()
}

/// The rooms a file names: in `crate::…`, `weir::…`, and `use crate::{…}`.
fn used(source: &Source) -> Vec<(usize, String)> {
    let mut rooms = Vec::new();
    for (number, line) in &source.code {
        for start in ["crate::", "weir::"] {
            for (at, _) in line.match_indices(start) {
                let whole_word = !line[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_');
                let rest = &line[at + start.len()..];
                let list = rest.strip_prefix('{').map(|list| list.split('}').next().unwrap());
                let names = list.map_or_else(|| vec![rest], |list| list.split(',').collect());
                for name in names.into_iter().filter(|_| whole_word) {
                    let end = name.trim().find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(name.trim().len());
                    let room = name.trim()[..end].trim_start_matches("self");
                    if !room.is_empty() {
                        rooms.push((*number, room.to_owned()));
                    }
                }
            }
        }
    }
    rooms
}

fn layer(room: &str) -> Option<usize> {
    LAYERS.iter().position(|layer| layer.contains(&room))
}

fn may_use(room: &str, other: &str) -> bool {
    if room == other || room == ROOT {
        return true;
    }
    if LEAVES.contains(&other) {
        return true;
    }
    match (layer(room), layer(other)) {
        (Some(from), Some(to)) => from < to,
        _ => false,
    }
}

#[test]
fn calls_go_down() {
    let mut up = Vec::new();
    for source in sources() {
        assert!(
            source.room == ROOT || LEAVES.contains(&source.room.as_str()) || layer(&source.room).is_some(),
            "{} is a room without a place in the plan",
            source.room
        );
        for (line, other) in used(&source) {
            if !may_use(&source.room, &other) {
                up.push(format!("src/{}:{line}: {} uses {other}", source.path.display(), source.room));
            }
        }
    }
    assert!(up.is_empty(), "calls go down, events go up:\n{}", up.join("\n"));
}

#[test]
fn the_rule_itself() {
    for (from, to, allowed) in [
        ("main", "media", true),
        ("api", "pull", true),
        ("pull", "api", false),
        ("pull", "record", false),
        ("hub", "pull", false),
        ("media", "hub", false),
        ("media", "name", true),
        ("name", "media", false),
        ("event", "name", true),
        ("config", "server", false),
    ] {
        assert_eq!(may_use(from, to), allowed, "{from} uses {to}");
    }
    let text = "use crate::{hub::Hub, name::mask};\n// crate::api\nlet a = crate::media::init();\n#[cfg(test)]\nuse crate::api;";
    let source = Source { path: PathBuf::new(), room: "pull".into(), code: code(text) };
    let rooms: Vec<_> = used(&source).into_iter().map(|(_, room)| room).collect();
    assert_eq!(rooms, ["hub", "name", "media"]);
}

/// A foreign crate may only be named in some rooms: its types stay behind their border.
#[test]
fn crates_stay_in_their_rooms() {
    let borders: BTreeMap<&str, &[&str]> = BTreeMap::from([
        ("gstreamer", &["media"][..]),
        ("gst", &["media"]),
        ("glib", &["media"]),
        ("str0m", &["webrtc"]),
        ("warp", &["api", "signal"]),
        ("hyper", &["api", "signal"]),
        ("reqwest", &["hook"]),
        ("prometheus_client", &["meter", "api"]),
        ("procfs", &["api", "admission"]),
        ("tokio_rustls", &["tls", "trust", "pull", "server"]),
        ("rcgen", &["tls", "media"]),
        ("anyhow", &["main", "server"]),
        ("clap", &["main", "cli"]),
        ("redb", &["store"]),
        ("argon2", &["users"]),
        ("blake2", &["users"]),
        ("rustyline", &["cli"]),
        ("russh", &["cli"]),
    ]);
    let mut strays = Vec::new();
    for source in sources() {
        for (number, line) in &source.code {
            for (name, rooms) in &borders {
                if names_crate(line, name) && !rooms.contains(&source.room.as_str()) {
                    strays.push(format!("src/{}:{number}: {name} belongs to {rooms:?}", source.path.display()));
                }
            }
        }
    }
    assert!(strays.is_empty(), "{}", strays.join("\n"));
}

/// `gst::…`, `use gst…` and `gstreamer_app::…`; not `ingest::…`.
fn names_crate(line: &str, name: &str) -> bool {
    line.match_indices(name).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        let after = line[at + name.len()..].trim_start_matches(|c: char| c.is_alphanumeric() || c == '_');
        let whole = name != "gst" || line[at + 3..].starts_with("::");
        whole && !before.is_some_and(|c| c.is_alphanumeric() || "_:.\"".contains(c)) && after.starts_with("::")
    })
}

#[test]
fn nothing_is_unwrapped_and_nothing_is_left_to_do() {
    let mut found = Vec::new();
    for source in sources() {
        for (number, line) in &source.code {
            for word in [".unwrap()", "unsafe ", "block_on(", "todo!(", "dbg!(", "tokio::spawn("] {
                let allowed = word == "block_on(" && source.room == "main";
                if line.contains(word) && !allowed {
                    found.push(format!("src/{}:{number}: {word}", source.path.display()));
                }
            }
        }
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn files_are_short_enough_to_be_read() {
    for source in sources() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src").join(&source.path);
        let lines = std::fs::read_to_string(path).unwrap().lines().count();
        assert!(lines <= 600, "src/{} has {lines} lines: put its tests beside it, or split it", source.path.display());
    }
}

/// Every path that the README and the page of the architecture name is there.
#[test]
fn the_readme_names_what_there_is() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let readme = std::fs::read_to_string(root.join("README.md")).unwrap();
    for (_, rest) in readme.match_indices("](").map(|(at, _)| readme.split_at(at + 2)) {
        let target = rest.split(')').next().unwrap();
        if !target.contains("://") && !target.starts_with('#') {
            assert!(root.join(target).exists(), "README.md links to {target}");
        }
    }
    let known: Vec<String> = sources().into_iter().map(|source| source.room).collect();
    for room in known.iter().filter(|room| !LEAVES.contains(&room.as_str())) {
        let named = readme.contains(&format!("src/{room}.rs")) || readme.contains(&format!("src/{room}/"));
        assert!(named, "README.md does not name the room {room}");
    }
}
