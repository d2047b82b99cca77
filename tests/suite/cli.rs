//! The command line over the local socket: `weir ctl` as an operator runs it, restarts, a second weir, and clients that
//! mean no good. `ssh.rs` has the same over SSH.

use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use crate::support::{Clip, Home, Process, Publisher, SOON, Weir, wait_until};
use serde_json::{Value, json};

const PROGRAM: &str = env!("CARGO_BIN_EXE_weir");

/// `weir ctl` with these arguments, and the exit code, output and error output it ends with.
fn ctl(home: &Home, arguments: &[&str]) -> (i32, String, String) {
    let setup = arguments.iter().fold(home.bare("ctl"), |setup, argument| setup.arg(argument));
    told(setup.run())
}

fn told(output: Output) -> (i32, String, String) {
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

/// A command that must be done: what it prints.
fn done(home: &Home, line: &str) -> String {
    let (code, out, err) = ctl(home, &[line]);
    assert_eq!((code, err.as_str()), (0, ""), "{line}: {out}");
    out
}

/// `weir ctl` with these arguments and this input.
fn ctl_reading(home: &Home, arguments: &[&str], input: &str) -> (i32, String, String) {
    let mut command = Command::new(PROGRAM);
    command.arg("ctl").args(arguments).current_dir(home.path());
    told(fed(&mut command, input))
}

fn fed(command: &mut Command, input: &str) -> Output {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn what_was_set_is_there_after_a_restart_and_after_a_crash() {
    let home = Home::new();
    let weir = home.start();
    assert!(done(&home, "show apps").contains("flashStreamingApp"));
    done(&home, "update app defaultApp http://127.0.0.1:1/MyAPI");
    done(&home, "add app-rest-method defaultApp StreamKeepAliveEvent");
    weir.stop();

    let weir = home.start();
    assert!(done(&home, "show apps").contains("http://127.0.0.1:1/MyAPI"));
    done(&home, "add app -u rest -p hunter2 'my shop' shopKey http://u:hunter3@127.0.0.1:1/");
    done(&home, "add user bob hunter4");
    weir.kill();

    let weir = home.start();
    let apps: Value = serde_json::from_str(&done(&home, "show apps --json")).unwrap();
    assert_eq!(apps[0]["methods"].as_array().unwrap().iter().filter(|m| *m == "StreamKeepAliveEvent").count(), 1);
    assert_eq!((&apps[2]["name"], &apps[2]["url"]), (&json!("my shop"), &json!("http://u:***@127.0.0.1:1")));
    assert!(done(&home, "show users").contains("bob"));
    weir.stop();
}

#[test]
fn the_first_password_is_told_once_and_no_other_ever() {
    let home = Home::new();
    let weir = home.start();
    let line = weir.wait_log("the command line's user admin is new, with the password ");
    let password = line.split("the password ").nth(1).unwrap().split(' ').next().unwrap().to_owned();
    assert!(password.len() >= 20, "{line}");
    done(&home, "add user bob hunter2");
    done(&home, "update app -l http://u:hunter2@h/ -p hunter2 defaultApp");
    assert_eq!(ctl_reading(&home, &["passwd admin"], "hunter2\n").0, 0);
    assert!(weir.logged("command line: add user bob ***: done"), "{:#?}", weir.log());
    assert!(weir.logged("command line: update app -l http://u:***@h/ -p *** defaultApp: done"), "{:#?}", weir.log());
    let told = |weir: &Weir, text: &str| weir.log().iter().filter(|line| line.contains(text)).count();
    assert_eq!((told(&weir, &password), told(&weir, "hunter2")), (1, 0));
    weir.stop();
    let weir = home.start();
    assert_eq!(told(&weir, "with the password"), 0);
    let bytes = std::fs::read(home.path().join("data/weir.redb")).unwrap();
    assert!(!bytes.windows(password.len()).any(|window| window == password.as_bytes()));
    weir.stop();
}

#[test]
fn what_holds_secrets_is_for_its_owner_alone() {
    let home = Home::new();
    let data = home.path().join("data");
    let weir = home.start();
    assert_eq!((mode(&data.join("ctl.sock")), mode(&data.join("weir.redb"))), (0o600, 0o600));
    weir.stop();
    assert!(!data.join("ctl.sock").exists(), "nobody listens any more");
    let weir = home.start();
    weir.kill();
    assert!(data.join("ctl.sock").exists(), "a killed one cannot tidy up");
    let weir = home.start();
    done(&home, "show apps");
    weir.stop();
}

#[test]
fn a_second_weir_on_the_same_data_directory_is_refused() {
    let home = Home::new();
    let weir = home.start();
    let ports = std::fs::read(home.path().join("data/ports.json")).unwrap();
    let (code, _, err) = told(home.setup().run());
    assert_eq!(code, 1);
    assert!(err.contains("another weir uses this data directory") && err.contains("--data"), "{err}");
    done(&home, "show apps");
    assert_eq!(std::fs::read(home.path().join("data/ports.json")).unwrap(), ports, "the first one's ports");
    weir.stop();
}

#[test]
fn a_damaged_database_stops_the_start_with_a_sentence() {
    let home = Home::new();
    home.start().stop();
    let file = home.path().join("data/weir.redb");
    let whole = std::fs::read(&file).unwrap();
    std::fs::write(&file, &whole[..whole.len() / 3]).unwrap();
    let (code, _, err) = told(home.setup().run());
    assert_eq!(code, 1);
    assert!(err.contains("weir.redb is damaged"), "{err}");
    std::fs::write(&file, &whole).unwrap();
    home.start().stop();
}

#[test]
fn without_a_server_it_says_so() {
    let home = Home::new();
    std::fs::create_dir(home.path().join("data")).unwrap();
    for data in ["data", "nowhere"] {
        let (code, out, err) = ctl(&home, &["--data", data, "show apps"]);
        assert_eq!((code, out.as_str()), (1, ""));
        assert!(err.starts_with(&format!("weir: no weir runs with the data directory {data}")), "{err}");
    }
}

#[test]
fn wrong_lines_end_with_two_and_one_line_of_what_was_expected() {
    let home = Home::new();
    let weir = home.start();
    for (arguments, code, said) in [
        (&["fly"][..], 2, "expected a command: "),
        (&["show", "planes"], 2, "expected show with one of: "),
        (&["add app shop"], 2, "expected <app key>: "),
        (&["update", "app", "-l"], 2, "expected a url behind -l: "),
        (&["update", "app", "-l", "nonsense", "defaultApp"], 2, "expected a URL"),
        (&["add app-rest-method defaultApp nonsense"], 2, "expected a method"),
        (&["add user -r king carl geheim"], 2, "expected a role"),
        (&["remove app none"], 1, "there is no application none"),
        (&["terminate none"], 1, "there is no such media session"),
    ] {
        let (is, out, err) = ctl(&home, arguments);
        assert_eq!((is, out.as_str()), (code, ""), "{arguments:?}: {err}");
        assert!(err.starts_with(said) && err.lines().count() == 1, "{arguments:?}: {err}");
    }
    assert_eq!(ctl(&home, &["help", "update", "app"]).0, 0);
    // Words of a shell are one line, each as it is.
    assert_eq!(ctl(&home, &["add", "app", "my shop", "k", ""]).0, 0);
    assert_eq!(ctl(&home, &["update", "app", "my shop", "-l", "http://h"]).0, 0);
    assert!(done(&home, "show apps").contains("my shop"));
    weir.stop();
}

#[test]
fn lines_of_a_file_are_carried_out_until_one_fails() {
    let home = Home::new();
    let weir = home.start();
    let script = "# set up\n\nadd user eve\nhunter2\nshow users\nremove user nobody\nremove user eve\n";
    let (code, out, err) = ctl_reading(&home, &[], script);
    assert_eq!(code, 1, "{err}");
    assert!(out.contains("the user eve is added") && out.contains("eve    user"), "{out}");
    assert!(err.contains("there is no user nobody"), "{err}");
    assert!(done(&home, "show users").contains("eve"), "what stood behind the failure is not done");
    assert_eq!(ctl_reading(&home, &[], "show users\nexit\nremove user eve\n").0, 0);
    assert!(done(&home, "show users").contains("eve"));
    weir.stop();
}

#[test]
fn a_data_directory_may_have_a_long_path() {
    let home = Home::new();
    let data = home.path().join("x".repeat(100)).join("y".repeat(100));
    let data = data.to_string_lossy();
    let mut weir = Process::start(PROGRAM, |command| {
        command.args(["serve", "--data", &data, "--set", "ip_local=127.0.0.1"]).stderr(Stdio::null());
        for port in ["http.port=0", "ws.port=0", "webrtc.port=0", "rtmp.port=0", "ssh.port=0"] {
            command.args(["--set", port]);
        }
        command.args(["--set", &format!("record_dir={}", home.records().display())]);
    });
    wait_until("ports.json", || {
        assert!(weir.runs());
        Path::new(data.as_ref()).join("ports.json").exists()
    });
    let (code, out, err) = ctl(&home, &["--data", &data, "show apps"]);
    assert!(code == 0 && out.contains("defaultApp"), "{err}");
}

#[test]
fn streams_are_shown_and_terminated() {
    let home = Home::new();
    let weir = home.start();
    let uri = |name: &str| format!("rtmp://127.0.0.1:{}/live/{name}", weir.port_of("rtmp.port"));
    let mut publisher = Publisher::start(Clip::LONG, &uri("one"));
    weir.wait_frames("one", 10);
    weir.pull(&uri("one"), "two", true);
    weir.wait_frames("two", 60);
    let streams: Value = serde_json::from_str(&done(&home, "show streams --json")).unwrap();
    let names: Vec<_> = streams.as_array().unwrap().iter().map(|s| (&s["name"], &s["role"])).collect();
    assert!(names.contains(&(&json!("one"), &json!("publisher"))), "{streams:#}");
    assert!(names.contains(&(&json!("two"), &json!("publisher"))), "{streams:#}");
    assert!(done(&home, "show agents").contains("PROCESSED_REMOTE"));
    wait_until("the recording in the list", || {
        let list: Value = serde_json::from_str(&done(&home, "show recordings --json")).unwrap();
        list.as_array().unwrap().iter().any(|file| file["state"] == "writing" && file["stream"] == "two")
    });
    assert_eq!(done(&home, "terminate two"), "1 ended\n");
    assert_eq!((weir.agent("two"), weir.stream("two")), (None, None));
    let id = weir.stream("one").unwrap()["mediaSessionId"].as_str().unwrap().to_owned();
    assert_eq!(ctl(&home, &["terminate", "--id", &id, "--role", "player"]).0, 1, "it is no player");
    assert_eq!(done(&home, &format!("terminate --id {id}")), "1 ended\n");
    assert_eq!(weir.stream("one"), None);
    publisher.ended(SOON);
    home.wait_finished(1);
    let list: Value = serde_json::from_str(&done(&home, "show recordings --json")).unwrap();
    assert!(list[0]["duration"].as_u64().unwrap() > 1000 && list[0]["state"] == "finished", "{list}");
    assert_eq!(list, weir.get("/rest-api/recordings").json(), "what REST says");
    weir.stop();
}

#[test]
fn clients_that_mean_no_good_do_no_harm() {
    let home = Home::new();
    let weir = home.start();
    let socket = home.path().join("data/ctl.sock");
    let send = |bytes: &[u8]| {
        let mut stream = UnixStream::connect(&socket).unwrap();
        stream.set_read_timeout(Some(SOON)).unwrap();
        // It may close before it has read all.
        let _ = stream.write_all(bytes);
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        String::from_utf8(answer).unwrap()
    };
    let long = vec![b'x'; 1 << 20];
    let binary: Vec<u8> = (0..=255).cycle().take(10_000).collect();
    for bytes in [b"".as_slice(), b"\n\n", b"show apps\n", b"{}\n", b"{\"answer\":\"x\"}\n", &long, &binary] {
        assert_eq!(send(bytes), "", "closed without a word");
    }
    let line = format!("{{\"line\":\"terminate {}\"}}\n", "x".repeat(20_000));
    assert!(send(line.as_bytes()).contains("expected a line of at most 8192 bytes"));
    let half: Vec<_> = (0..20).map(|_| UnixStream::connect(&socket).unwrap()).collect();
    assert!(done(&home, "show apps").contains("defaultApp"));
    // Clients that stay connected do not hold up the end.
    let (status, took) = weir.stop();
    assert!(status.success() && took < Duration::from_secs(9), "{took:?}");
    drop(half);
}

/// `weir ctl` at a terminal, which util-linux's `script` makes. Each line of `typed` is sent once `prompt` has been
/// shown again.
fn at_a_terminal(home: &Home, arguments: &str, prompt: &str, typed: &str) -> (i32, String) {
    let mut command = Command::new("script");
    command.args(["-qefc", &format!("{PROGRAM} ctl {arguments}"), "/dev/null"]);
    command.current_dir(home.path()).env("HOME", home.path()).env("TERM", "xterm");
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let (mut stdin, mut stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    let (told, screen) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(read @ 1..) = stdout.read(&mut buffer) {
            let _ = told.send(String::from_utf8_lossy(&buffer[..read]).into_owned());
        }
    });
    let mut seen = String::new();
    for line in typed.split_inclusive('\r') {
        let before = seen.len();
        while !seen[before..].contains(prompt) {
            seen.push_str(&screen.recv_timeout(SOON).unwrap_or_else(|_| panic!("no prompt: {seen:?}")));
        }
        stdin.write_all(line.as_bytes()).unwrap();
    }
    drop(stdin);
    seen.extend(screen.iter());
    (child.wait().unwrap().code().unwrap(), seen)
}

/// What the line editor switches on whenever it begins to read a line.
const BRACKETED_PASTE: &str = "\u{1b}[?2004h";

#[test]
fn a_person_edits_lines_and_finds_them_again() {
    let home = Home::new();
    let weir = home.start();
    // A slip that is rubbed out, a line that is completed, one with a secret, one from the history.
    let typed = "show appz\u{7f}s\radd user eve hunter2\rshow u\t\r\u{1b}[A\u{1b}[A\rexit\r";
    let (code, seen) = at_a_terminal(&home, "-i", BRACKETED_PASTE, typed);
    assert_eq!(code, 0, "{seen}");
    assert_eq!(seen.matches("flashStreamingApp  flashStreamingApp").count(), 2, "{seen}");
    assert!(seen.contains("the user eve is added") && seen.contains("eve    user"), "{seen}");
    let history = std::fs::read_to_string(home.path().join(".weir_history")).unwrap();
    assert!(history.contains("show apps\n") && history.contains("show users"), "{history}");
    assert!(!history.contains("hunter2"), "{history}");
    assert_eq!(mode(&home.path().join(".weir_history")), 0o600);
    weir.stop();
}

#[test]
fn a_password_is_asked_for_twice_and_never_shown() {
    let home = Home::new();
    let weir = home.start();
    let (code, seen) = at_a_terminal(&home, "passwd admin", ": ", "hunter2\rhunter2\r");
    assert!(code == 0 && seen.contains("the password of admin is changed"), "{seen}");
    assert!(!seen.contains("hunter2"), "{seen}");
    let (code, seen) = at_a_terminal(&home, "add user eve", ": ", "hunter2\rhunter3\r");
    assert!(code == 1 && seen.contains("expected the same password twice"), "{seen}");
    assert!(!done(&home, "show users").contains("eve"));
    weir.stop();
}
