//! A directory of recordings that cannot be written to for a while: its file system becomes read-only, as Linux does
//! with one that has an error, or weir lacks the permission.

use std::path::PathBuf;
use std::process::Command;

use crate::support::{
    Clip, FailingDisk, Home, Nginx, Publisher, SOON, Setup, SmallDisk, Weir, decodes, probe, run, wait, wait_until,
    where_mounting_works,
};
use serde_json::{Value, json};

fn recorder(weir: &Weir) -> Value {
    let answer = weir.get("/rest-api/recorder/find_all");
    if answer.status == 200 { answer.json()[0].clone() } else { Value::Null }
}

/// Waits until the recorder says why it does not record.
fn failed(weir: &Weir, reason: &str) {
    let says = |recorder: &Value| {
        recorder["state"] == "FAILED" && recorder["reason"].as_str().is_some_and(|text| text.contains(reason))
    };
    wait(&format!("a recorder that fails with {reason}; it is {}", recorder(weir)), SOON, || {
        says(&recorder(weir)).then_some(())
    });
}

fn listed(weir: &Weir, name: &str) -> Value {
    let all = weir.get("/rest-api/recordings").json();
    all.as_array().unwrap().iter().find(|file| file["name"] == name).cloned().unwrap_or_default()
}

/// Waits for the second file of a stream, and ends it in order.
fn goes_on(home: &Home, weir: &Weir, extension: &str) {
    wait_until("it to record again", || recorder(weir)["state"] == "RECORDING");
    let before = weir.frames("a").0;
    weir.wait_frames("a", before + 40);
    weir.terminate("a");
    wait_until("the files in place", || home.files(".tmp").is_empty());
    home.files(&format!(".{extension}")).iter().for_each(|file| decodes(file));
}

fn becomes_read_only(extension: &str) {
    let home = Home::new();
    let Some(disk) = FailingDisk::mount(home.records(), home.path()) else { return };
    let nginx = Nginx::start();
    let _publisher = Publisher::start(Clip::LONG, &nginx.uri("a"));
    let hook = home.path().join("hook.sh");
    std::fs::write(&hook, "#!/bin/sh\necho \"$2\" >> ../seen\n").unwrap();
    std::fs::set_permissions(&hook, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let setup = home.setup().set("stream_record_policy=streamName").set(&format!("record_formats=h264-{extension}"));
    let setup = setup.set(&format!("on_record_hook_script={}", hook.display()));
    let mut weir = setup.set("record_min_free_space=0").start();
    weir.announce("recording failed");
    weir.tolerate("what is known of a recording cannot be kept");
    weir.tolerate("an unfinished recording is kept as it is");
    weir.pull(&nginx.uri("a"), "a", true);
    weir.wait_frames("a", 75);
    let counted = weir.frames("a").0;
    let file = home.files(".tmp").pop().unwrap();
    disk.fail();
    failed(&weir, "Read-only file system");
    // What was written plays as it is, and the stream flows on.
    let frames = probe(&file).video.len() as u64;
    assert!(frames + 25 >= counted, "{frames} of {counted}");
    let before = weir.frames("a").0;
    weir.wait_frames("a", before + 25);
    disk.replace();
    // Nobody has to be told: the file is finished and seen, and another one begun.
    let first = format!("a.{extension}");
    wait_until("the first file in place", || listed(&weir, &first)["state"] == "finished");
    let entry = listed(&weir, &first);
    assert_eq!((&entry["recovered"], &entry["stream"]), (&json!(true), &json!("a")), "{entry}");
    assert!(entry["duration"].as_u64().unwrap() + 1000 >= counted * 40, "{entry} of {counted} frames");
    goes_on(&home, &weir, extension);
    let files = home.names(&format!(".{extension}"));
    assert_eq!(files.len(), 2, "{files:?}");
    wait_until("the hooks", || files.iter().all(|name| listed(&weir, name)["hook"] == json!({"ended": 0})));
    let seen = std::fs::read_to_string(home.path().join("seen")).unwrap_or_default();
    // The sidecar of the first was noted before the disk became read-only.
    files.iter().for_each(|name| {
        assert_eq!(seen.lines().filter(|line| line.ends_with(&format!("/{name}"))).count(), 1, "{name} in {seen}");
    });
}

#[test]
fn a_disk_that_becomes_read_only_mp4() {
    becomes_read_only("mp4");
}

#[test]
fn a_disk_that_becomes_read_only_ts() {
    becomes_read_only("ts");
}

/// A server that starts beside a directory it cannot write to, which holds an unfinished file.
fn locked_out(weir: Weir, home: &Home, nginx: &Nginx, reason: &str, open: impl FnOnce()) {
    let mut weir = weir;
    weir.announce("record_dir cannot be locked");
    weir.announce("a call failed: the recording cannot start");
    weir.announce("recording failed");
    weir.tolerate("what is known of a recording cannot be kept");
    weir.pull(&nginx.uri("a"), "a", true);
    failed(&weir, reason);
    let session = weir.stream("a").unwrap()["mediaSessionId"].clone();
    let answer = weir.post("/rest-api/stream/startRecording", &json!({"mediaSessionId": session}));
    assert_eq!(answer.status, 500, "{answer:?}");
    assert!(answer.json()["reason"].as_str().unwrap().contains(reason), "{answer:?}");
    weir.done("/rest-api/pull/rtmp/terminate", &json!({"localStreamName": "a"}));
    weir.pull(&nginx.uri("a"), "a", true);
    failed(&weir, reason);
    open();
    wait_until("the file left before to be finished", || listed(&weir, "left.ts")["state"] == "finished");
    goes_on(home, &weir, "mp4");
}

/// A file that a killed server left.
fn left(home: &Home) -> PathBuf {
    let file = home.records().join("left.ts.tmp");
    let mut ffmpeg = Command::new("ffmpeg");
    ffmpeg.args(["-v", "error", "-nostdin", "-i"]).arg(Clip::AV.file()).args(["-c", "copy", "-f", "mpegts"]).arg(&file);
    let output = run(&mut ffmpeg, SOON);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    file
}

#[test]
fn a_disk_that_is_read_only_from_the_start() {
    if !where_mounting_works("record_readonly::a_disk_that_is_read_only_from_the_start") {
        return;
    }
    let (home, nginx) = (Home::new(), Nginx::start());
    let _publisher = Publisher::start(Clip::LONG, &nginx.uri("a"));
    let disk = SmallDisk::mount(home.records(), "50m");
    left(&home);
    disk.read_only(true);
    let weir = home.setup().set("stream_record_policy=streamName").set("record_min_free_space=0").start();
    locked_out(weir, &home, &nginx, "Read-only file system", || disk.read_only(false));
}

/// For root there is no such thing as no permission, unless it gives this away.
fn unprivileged(home: &Home) -> Setup {
    let setup = home.setup().set("stream_record_policy=streamName").set("record_min_free_space=0");
    match rustix::process::geteuid().is_root() {
        true => setup.through(&["setpriv", "--bounding-set=-dac_override,-dac_read_search", "--"]),
        false => setup,
    }
}

#[test]
fn a_directory_without_permission_from_the_start() {
    use std::os::unix::fs::PermissionsExt;
    let (home, nginx) = (Home::new(), Nginx::start());
    let _publisher = Publisher::start(Clip::LONG, &nginx.uri("a"));
    std::fs::create_dir(home.records()).unwrap();
    left(&home);
    let permit = |mode| std::fs::set_permissions(home.records(), std::fs::Permissions::from_mode(mode)).unwrap();
    permit(0o555);
    locked_out(unprivileged(&home).start(), &home, &nginx, "Permission denied", || permit(0o755));
}

/// The file that is open is written on, and cannot get its name for a while.
#[test]
fn a_directory_that_loses_its_permission() {
    use std::os::unix::fs::PermissionsExt;
    let (home, nginx) = (Home::new(), Nginx::start());
    let _publisher = Publisher::start(Clip::LONG, &nginx.uri("a"));
    let mut weir = unprivileged(&home).start();
    weir.announce("is kept as it is, and finished when that works");
    weir.tolerate("what is known of a recording cannot be kept");
    weir.tolerate("an unfinished recording is kept as it is");
    let permit = |mode| std::fs::set_permissions(home.records(), std::fs::Permissions::from_mode(mode)).unwrap();
    weir.pull(&nginx.uri("a"), "a", true);
    weir.wait_frames("a", 50);
    permit(0o555);
    weir.terminate("a");
    weir.wait_log("is kept as it is, and finished when that works");
    permit(0o755);
    wait_until("the file in place", || listed(&weir, "a.mp4")["state"] == "finished");
    let file = home.records().join("a.mp4");
    decodes(&file);
    assert!(probe(&file).video.len() >= 49);
}
