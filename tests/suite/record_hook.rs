//! The hook script: once for every finished file, and never in the way of a recording.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::support;
use crate::support::{Clip, Home, Nginx, Publisher, Setup, Weir, decodes, wait, wait_until};
use serde_json::{Value, json};

/// Writes what it sees to a file of its own for every call, named by the recording, in one piece.
const SEE: &str = r#"out="$SEEN/$(basename "$2")"
{ echo "arg1=$1"; echo "arg2=$2"; echo "args=$#"; [ -f "$2" ] && echo there=yes; env | grep ^WEIR_; } > "$out.draft"
mv "$out.draft" "$out.$(ls "$SEEN" | grep -c -F "$(basename "$2").")"
echo "seen $1"; echo "complaint rtmp://u:secret@h/a" >&2
"#;

fn script(home: &Home, text: &str) -> PathBuf {
    let file = home.path().join("hook.sh");
    // Whole before it is there: a script that is being written cannot be run.
    let draft = home.path().join("hook.draft");
    std::fs::write(&draft, format!("#!/bin/sh\n{text}")).unwrap();
    std::fs::set_permissions(&draft, std::fs::Permissions::from_mode(0o755)).unwrap();
    std::fs::rename(draft, &file).unwrap();
    let _ = std::fs::create_dir(home.path().join("seen"));
    file
}

fn setup(home: &Home) -> Setup {
    let setup = home.setup().set("stream_record_policy=streamName").set("record_min_free_space=0");
    let setup = setup.set(&format!("on_record_hook_script={}", home.path().join("hook.sh").display()));
    setup.env("SEEN", &home.path().join("seen").to_string_lossy()).env("WEIR_RTMP_MAX_CHUNK", "1M")
}

/// What the script was called with, by the name of its file; each call of one file is one more.
fn seen(home: &Home) -> Vec<(String, BTreeMap<String, String>)> {
    let mut calls = Vec::new();
    for entry in std::fs::read_dir(home.path().join("seen")).unwrap().flatten() {
        let name = entry.file_name().into_string().unwrap();
        if name.contains(".mp4.") && !name.ends_with(".draft") {
            let text = std::fs::read_to_string(entry.path()).unwrap();
            let pairs = text.lines().filter_map(|line| line.split_once('='));
            calls.push((name, pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).collect()));
        }
    }
    calls.sort();
    calls
}

fn hook_of(weir: &Weir, name: &str) -> Value {
    let listed = weir.get("/rest-api/recordings").json();
    listed.as_array().unwrap().iter().find(|file| file["name"] == name).map_or(Value::Null, |file| file["hook"].clone())
}

fn recorded(weir: &Weir, nginx: &Nginx, name: &str, frames: u64) {
    weir.pull(&nginx.uri("a"), name, true);
    weir.wait_frames(name, frames);
    weir.terminate(name);
}

#[test]
fn every_part_is_seen_once_with_all_that_is_known() {
    let (home, nginx) = (Home::new(), Nginx::start());
    let _publisher = Publisher::start(Clip::LONG, &nginx.uri("a"));
    script(&home, SEE);
    let weir = setup(&home).set("record_rotation=2").start();
    let name = "it's $(touch here) \"a\"";
    recorded(&weir, &nginx, name, 130);
    wait_until("the last part", || home.names("").iter().any(|file| file == &format!("{name}.mp4")));
    let files = home.finished();
    assert!(files.len() >= 2, "{files:?}");
    wait_until("all to be seen", || seen(&home).len() == files.len());
    wait_until("all to be noted", || home.names(".mp4").iter().all(|name| hook_of(&weir, name) == json!({"ended": 0})));
    weir.wait_log(&format!("stdout: seen {name}"));
    weir.wait_log("stderr: complaint rtmp://u:***@h/a");
    let listed = weir.get("/rest-api/recordings").json();
    for (file, (call, facts)) in files.iter().zip(seen(&home)) {
        let base = file.file_name().unwrap().to_str().unwrap();
        assert_eq!(call, format!("{base}.1"), "seen once");
        assert_eq!((facts["arg1"].as_str(), facts["arg2"].as_str()), (name, file.to_str().unwrap()));
        assert_eq!((facts["args"].as_str(), facts["there"].as_str()), ("2", "yes"));
        let about = listed.as_array().unwrap().iter().find(|listed| listed["name"] == base).unwrap();
        for (key, field) in [
            ("WEIR_MEDIA_SESSION_ID", "mediaSessionId"),
            ("WEIR_DURATION", "duration"),
            ("WEIR_PART", "part"),
            ("WEIR_LAST", "last"),
            ("WEIR_SIZE", "size"),
            ("WEIR_STARTED", "started"),
            ("WEIR_ENDED", "ended"),
            ("WEIR_VIDEO_CODEC", "videoCodec"),
            ("WEIR_AUDIO_CODEC", "audioCodec"),
            ("WEIR_RECOVERED", "recovered"),
            ("WEIR_STREAM", "stream"),
        ] {
            let known = about[field].as_str().map_or_else(|| about[field].to_string(), str::to_owned);
            assert_eq!(facts[key], known, "{key}");
        }
        assert!(!facts.contains_key("WEIR_RTMP_MAX_CHUNK"), "weir's own settings are not the script's");
    }
    assert!(!home.records().join("here").exists());
    let line = weir.log().into_iter().find(|line| line.contains("secret"));
    assert!(line.is_none(), "{line:?}");
}

#[test]
fn scripts_that_fail_hang_or_are_not_there_lose_nothing() {
    for (text, trouble, state) in [
        ("exit 3", "hook script failed: it ended with exit code 3", Some(json!({"ended": 3}))),
        ("kill -9 $$", "hook script failed: signal: 9", None),
        // It hangs with a child of its own, and does not listen.
        ("trap '' TERM; sleep 600 & sleep 600", "hook script failed: it was ended after 1 s", None),
        ("", "there is no file", None),
    ] {
        let (home, nginx) = (Home::new(), Nginx::start());
        let _publisher = Publisher::start(Clip::LONG, &nginx.uri("a"));
        let hook = script(&home, text);
        if text.is_empty() {
            std::fs::remove_file(hook).unwrap();
        }
        let mut weir = setup(&home).set("on_record_hook_timeout=1s").start();
        weir.announce(trouble);
        weir.tolerate("hook script failed");
        recorded(&weir, &nginx, "a", 30);
        weir.wait_log("hook script failed");
        let state = state.unwrap_or_else(|| hook_of(&weir, "a.mp4"));
        wait_until("it to be noted", || hook_of(&weir, "a.mp4") == state);
        assert!(state["ended"].is_u64() || state["failed"].is_string(), "{state}");
        decodes(&home.finished()[0]);
        // The next recording is as good.
        recorded(&weir, &nginx, "b", 30);
        home.wait_finished(2);
        wait_until("the next to be noted", || {
            !["waiting", "running"].contains(&hook_of(&weir, "b.mp4").as_str().unwrap_or(""))
        });
        let began = Instant::now();
        drop(weir);
        assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    }
}

#[test]
fn what_floods_the_log_is_cut_and_does_not_stop() {
    let (home, nginx) = (Home::new(), Nginx::start());
    let _publisher = Publisher::start(Clip::LONG, &nginx.uri("a"));
    script(
        &home,
        "head -c 3000000 /dev/zero | tr '\\0' 'x'; yes | head -n 100000; printf '\\033[31mred\\n' >&2; exit 7",
    );
    let mut weir = setup(&home).start();
    weir.announce("hook script failed: it ended with exit code 7");
    recorded(&weir, &nginx, "a", 20);
    weir.wait_log("hook script failed");
    weir.wait_log("the rest is left out");
    let log = weir.log();
    assert!(log.iter().map(String::len).sum::<usize>() < 200_000);
    assert!(log.iter().all(|line| !line.contains('\u{1b}')));
}

/// More files than scripts may run at once, and one script that never ends: the others are seen all the same, and so is
/// nothing more than four at once.
#[test]
fn a_few_run_at_once() {
    let (home, nginx) = (Home::new(), Nginx::start());
    let _publisher = Publisher::start(Clip::LONG, &nginx.uri("a"));
    script(
        &home,
        "touch \"$SEEN/run-$$\"; ls \"$SEEN\" | grep -c run- > \"$SEEN/many-$$\"\n\
         [ \"$WEIR_PART\" = 1 ] && sleep 600\nsleep 0.3; rm \"$SEEN/run-$$\"",
    );
    let mut weir = setup(&home).set("record_rotation=1").set("on_record_hook_timeout=8s").start();
    weir.tolerate("hook script failed");
    weir.announce("hook script failed: it was ended after 8 s");
    recorded(&weir, &nginx, "a", 220);
    wait_until("all to be seen", || {
        let names = home.names(".mp4");
        let done = names.iter().filter(|name| hook_of(&weir, name) == json!({"ended": 0})).count();
        names.len() >= 7 && done + 1 == names.len()
    });
    weir.wait_log("it was ended after 8 s");
    for entry in std::fs::read_dir(home.path().join("seen")).unwrap().flatten() {
        if entry.file_name().to_string_lossy().starts_with("many-") {
            let many: u32 = std::fs::read_to_string(entry.path()).unwrap().trim().parse().unwrap();
            assert!(many <= 4, "{many} at once");
        }
    }
}

#[test]
fn the_shutdown_waits_for_a_script_and_the_next_start_runs_what_was_cut_short() {
    let (home, nginx) = (Home::new(), Nginx::start());
    let _publisher = Publisher::start(Clip::LONG, &nginx.uri("a"));
    script(&home, &format!("sleep 1\n{SEE}"));
    let weir = setup(&home).start();
    weir.pull(&nginx.uri("a"), "a", true);
    weir.wait_frames("a", 30);
    let (status, took) = weir.stop();
    assert_eq!(status.code(), Some(0));
    assert!(took > Duration::from_secs(1), "{took:?}");
    assert_eq!(seen(&home)[0].0, "a.mp4.1");

    // One that takes longer than the shutdown is ended, and run again.
    script(&home, &format!("touch \"$SEEN/began\"\nsleep 60\n{SEE}"));
    let mut weir = setup(&home).set("shutdown_timeout=3s").start();
    weir.announce("shutdown: gave up waiting until hook scripts have ended");
    recorded(&weir, &nginx, "b", 30);
    wait_until("it to run", || home.path().join("seen/began").exists());
    let (status, took) = weir.stop();
    assert_eq!(status.code(), Some(0), "no file is lost by it");
    assert!(took < Duration::from_secs(5), "{took:?}");
    script(&home, SEE);
    let weir = setup(&home).start();
    wait_until("it to be seen", || seen(&home).iter().any(|(call, _)| call == "b.mp4.1"));
    wait_until("it to be noted", || hook_of(&weir, "b.mp4") == json!({"ended": 0}));
    assert_eq!(
        seen(&home).iter().filter(|(call, _)| call.contains(".mp4.")).count(),
        2,
        "each once: {:?}",
        seen(&home)
    );
}

#[test]
fn files_of_a_killed_server_are_seen_by_the_next() {
    let (home, nginx) = (Home::new(), Nginx::start());
    let _publisher = Publisher::start(Clip::LONG, &nginx.uri("a"));
    let _other = Publisher::start(Clip::LONG, &nginx.uri("first"));
    // The first part's script never ends by itself: the kill finds it running, and another file waiting for it.
    script(&home, "echo $$ >> \"$SEEN/pids\"; sleep 600");
    let template = "stream_record_policy_template={streamName}-{mediaSessionId}-{endTimeMillis}-{duration}";
    let with = |home: &Home| setup(home).set("stream_record_policy=template").set(template);
    let weir = with(&home).start();
    weir.pull(&nginx.uri("a"), "a", true);
    let session = weir.stream("a").unwrap()["mediaSessionId"].as_str().unwrap().to_owned();
    weir.wait_frames("a", 60);
    home.wait_writing();
    let pids = home.path().join("seen/pids");
    weir.pull(&nginx.uri("first"), "first", true);
    weir.wait_frames("first", 30);
    weir.terminate("first");
    wait_until("a script to run", || std::fs::read_to_string(&pids).is_ok_and(|text| text.ends_with('\n')));
    let before = weir.frames("a").0;
    weir.wait_frames("a", before + 40);
    weir.kill();
    // What the dead server started is the test's to end.
    for pid in std::fs::read_to_string(&pids).unwrap().lines() {
        let group = rustix::process::Pid::from_raw(pid.parse().unwrap()).unwrap();
        let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
    }
    script(&home, SEE);
    let weir = with(&home).start();
    weir.wait_log("recovered=true");
    let file = wait("the recovered file", support::SOON, || {
        home.finished().into_iter().find(|file| file.file_name().unwrap().to_str().unwrap().starts_with("a-"))
    });
    decodes(&file);
    // Its name is what it would have been, its length in it.
    let stem = file.file_stem().unwrap().to_str().unwrap().to_owned();
    let duration = (support::probe(&file).duration * 1000.0) as i64;
    let numbers: Vec<i64> =
        stem.strip_prefix(&format!("a-{session}-")).unwrap().split('-').map(|n| n.parse().unwrap()).collect();
    assert!((numbers[1] - duration).abs() < 100 && numbers[0] > 1_700_000_000_000, "{stem}, {duration} ms");
    wait_until("it to be seen", || seen(&home).len() == 1);
    let (call, facts) = &seen(&home)[0];
    assert_eq!(call, &format!("{stem}.mp4.1"));
    assert_eq!((facts["arg1"].as_str(), facts["WEIR_RECOVERED"].as_str()), ("a", "true"));
    assert_eq!(facts["WEIR_MEDIA_SESSION_ID"], session);
    // The script that ran when the server died has run; it is not run twice.
    let first = home.names(".mp4").into_iter().find(|name| name.starts_with("first")).unwrap();
    assert_eq!(hook_of(&weir, &first), json!({"failed": "the server died while it ran"}));
}

/// A file that got its name just before the process died: what is known of it stands under its old name.
#[test]
fn a_file_that_was_named_but_not_noted_is_found_and_seen() {
    let (home, nginx) = (Home::new(), Nginx::start());
    let _publisher = Publisher::start(Clip::LONG, &nginx.uri("a"));
    let setup_without = || home.setup().set("stream_record_policy=streamName").set("record_min_free_space=0");
    let weir = setup_without().start();
    weir.pull(&nginx.uri("a"), "a", true);
    home.wait_writing();
    weir.wait_frames("a", 40);
    let note = home.records().join(".weir/a.mp4");
    let noted = std::fs::read(&note).unwrap();
    weir.terminate("a");
    home.wait_finished(1);
    drop(weir);
    std::fs::write(&note, noted).unwrap();
    std::fs::rename(home.records().join("a.mp4"), home.records().join("a-7.mp4")).unwrap();
    script(&home, SEE);
    let weir = setup(&home).start();
    wait_until("it to be seen", || seen(&home).len() == 1);
    assert_eq!(seen(&home)[0].0, "a-7.mp4.1");
    assert_eq!(seen(&home)[0].1["arg1"], "a");
    assert!(!note.exists());
    wait_until("it to be noted", || hook_of(&weir, "a-7.mp4") == json!({"ended": 0}));
}
