//! What a recording survives: SIGKILL, a full disk, a directory that goes away, and names that are taken.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::support;
use crate::support::{
    Clip, Home, Media, Nginx, Publisher, Setup, SmallDisk, Weir, decodes, probe, run, wait, wait_until,
    where_mounting_works,
};

fn setup(home: &Home) -> Setup {
    home.setup().set("stream_record_policy=streamName").set("record_min_free_space=0")
}

/// The video frames and seconds of a file, which decodes as it is.
fn plays(file: &Path) -> (usize, f64) {
    decodes(file);
    let media = probe(file);
    let first = media.video.first().unwrap();
    assert!(first.key && Media::start(&media.video).abs() < 0.05);
    (media.video.len(), Media::end(&media.video))
}

/// Kills a server that records `clip` after it has got `frames` frames, and gives the file it leaves and how many
/// frames it had got by then at least.
fn killed(home: &Home, clip: Clip, frames: u64) -> (PathBuf, u64) {
    clip.file();
    let nginx = Nginx::start();
    let weir = setup(home).start();
    // The pull is there before the stream: who comes later gets no keyframe until the next GOP.
    weir.pull(&nginx.uri("a"), "a", true);
    let _publisher = Publisher::start(clip, &nginx.uri("a"));
    weir.wait_frames("a", frames);
    let counted = weir.frames("a").0;
    weir.kill();
    let left = home.files(".mp4.tmp");
    assert_eq!((left.len(), home.finished().len()), (1, 0));
    (left[0].clone(), counted)
}

/// Starts a server again on what the one before left: it finishes it.
fn recovered(home: &Home) -> (Weir, PathBuf) {
    let weir = setup(home).start();
    weir.wait_log("recording finished");
    let line = weir.wait_log("recovered=true");
    assert!(line.contains("seconds=") && line.contains("a.mp4"), "{line}");
    assert_eq!(home.names(""), ["a.mp4"]);
    (weir, home.finished()[0].clone())
}

#[test]
fn killed_in_the_middle_of_the_default_gop_of_250_frames() {
    let home = Home::new();
    let (left, counted) = killed(&home, Clip::LONG_GOP, 180);
    let (frames, seconds) = plays(&left);
    let lost = counted as f64 / 25.0 - seconds;
    println!("as it was left: {frames} frames of {counted}, {lost:.2} s before the kill");
    assert!(lost < 1.0, "{frames} of {counted} frames play, {lost} s are lost");
    assert!(probe(&left).video.iter().filter(|packet| packet.key).count() == 1, "the first GOP has not ended");

    let (weir, file) = recovered(&home);
    let (again, length) = plays(&file);
    assert!(again >= frames, "{again} frames of {frames}");
    assert!(counted as f64 / 25.0 - length < 1.0);
    let media = probe(&file);
    // Each track ends with its own last fragment.
    let longest = length.max(Media::end(&media.audio));
    assert!((media.duration - longest).abs() < 0.1, "the file says {} s and has {longest} s", media.duration);
    drop(weir);
    // A third start has nothing to do.
    let weir = setup(&home).start();
    assert!(!weir.logged("recover"));
    assert_eq!(home.names(""), ["a.mp4"]);
}

#[test]
fn killed_in_a_later_gop_and_a_later_part() {
    let home = Home::new();
    let nginx = Nginx::start();
    let _publisher = Publisher::start(Clip::LONG, &nginx.uri("a"));
    let weir = setup(&home).set("record_rotation=2").start();
    weir.pull(&nginx.uri("a"), "a", true);
    wait_until("the third part", || home.names("").iter().any(|name| name == "a_3.mp4.tmp"));
    home.wait_writing();
    wait_until("two finished parts", || home.finished().len() == 2);
    weir.wait_frames("a", 130);
    let counted = weir.frames("a").0;
    weir.kill();
    for file in home.finished() {
        plays(&file);
    }
    let frames: usize = home.files("").iter().map(|file| plays(file).0).sum();
    println!("{frames} frames of {counted} play after the kill");
    // The first part begins with the keyframe before the pull's first frame at the earliest.
    assert!(frames as u64 + 50 >= counted, "{frames} frames of {counted}");
    let weir = setup(&home).start();
    weir.wait_log("recovered=true");
    assert_eq!(home.names(""), ["a_1.mp4", "a_2.mp4", "a_3.mp4"]);
    home.finished().iter().for_each(|file| decodes(file));
}

/// Every fragment of every file must be one that players read, whatever is in it: one bad one makes the whole file unreadable.
#[test]
fn killed_with_many_fragments_of_packets_of_one_size() {
    const FILES: usize = 8;
    let (home, nginx) = (Home::new(), Nginx::start());
    let weir = setup(&home).start();
    let mut publishers = Vec::new();
    for n in 0..FILES {
        let name = format!("a{n}");
        publishers.push(Publisher::start(Clip::SILENT, &nginx.uri(&name)));
        weir.pull(&nginx.uri(&name), &name, true);
    }
    for n in 0..FILES {
        weir.wait_frames(&format!("a{n}"), 200);
    }
    weir.kill();
    let left = home.files(".mp4.tmp");
    assert_eq!(left.len(), FILES);
    for file in &left {
        let (frames, seconds) = plays(file);
        assert!(frames > 150 && seconds > 6.0, "{frames} frames, {seconds} s in {file:?}");
    }
    let weir = setup(&home).start();
    wait_until("the files to be finished", || home.finished().len() == FILES);
    home.finished().iter().for_each(|file| decodes(file));
    drop(weir);
}

#[test]
fn what_cannot_be_finished_is_kept_and_never_in_the_way() {
    let home = Home::new();
    std::fs::create_dir(home.records()).unwrap();
    let put = |name: &str, text: &str| std::fs::write(home.records().join(name), text).unwrap();
    put("garbage.mp4.tmp", "this is no MP4 at all");
    put("empty.mp4.tmp", "");
    put("other.txt.tmp", "not ours");
    put(".tmp", "not ours either");
    std::fs::create_dir(home.records().join("folder.mp4.tmp")).unwrap();
    let mut weir = setup(&home).start();
    weir.announce("a recording cannot be finished and is kept for you to look at");
    assert_eq!(home.names(""), [".tmp", "folder.mp4.tmp", "garbage.mp4.broken", "other.txt.tmp"]);
    drop(weir);
    let _quiet = setup(&home).start();
}

#[test]
fn a_name_that_is_taken_is_never_written_over() {
    let home = Home::new();
    std::fs::create_dir(home.records()).unwrap();
    std::fs::write(home.records().join("a.mp4"), "old").unwrap();
    let nginx = Nginx::start();
    let _publisher = Publisher::start(Clip::LONG, &nginx.uri("a"));
    let weir = setup(&home).start();
    for count in 2..4 {
        weir.pull(&nginx.uri("a"), "a", true);
        weir.wait_frames("a", 10);
        home.wait_writing();
        let stream = weir.stream("a").unwrap();
        assert_eq!(stream["recordName"], format!("a-{count}.mp4"), "{stream}");
        weir.terminate("a");
        home.wait_finished(count);
    }
    assert_eq!(home.names(""), ["a-2.mp4", "a-3.mp4", "a.mp4"]);
    assert_eq!(std::fs::read_to_string(home.records().join("a.mp4")).unwrap(), "old");
    plays(&home.records().join("a-2.mp4"));
    plays(&home.records().join("a-3.mp4"));
}

#[test]
fn a_full_disk_ends_the_recording_and_not_the_stream() {
    if !where_mounting_works("crash::a_full_disk_ends_the_recording_and_not_the_stream") {
        return;
    }
    let home = Home::new();
    let _disk = SmallDisk::mount(home.records(), "3m");
    let nginx = Nginx::start();
    let _publisher = Publisher::start(Clip::HEAVY, &nginx.uri("a"));
    let mut weir = setup(&home).start();
    weir.announce("recording failed: the disk is full");
    weir.tolerate("recording failed");
    weir.pull(&nginx.uri("a"), "a", true);
    weir.wait_log("recording failed: the disk is full");
    let before = weir.frames("a");
    wait_until("the stream to flow on", || weir.frames("a") > (before.0 + 25, before.1));
    assert_eq!(weir.stream("a").unwrap()["status"], "PUBLISHING");
    let written = wait("the written part in place", support::SOON, || home.finished().into_iter().next());
    let (frames, seconds) = plays(&written);
    println!("{frames} frames, {seconds} s on a disk of 3 MB");
    assert!(seconds > 2.0);
    let line = weir.wait_log("recording failed: the disk is full");
    assert!(line.contains("stream=a"), "{line}");
}

#[test]
fn a_disk_with_too_little_room_is_left_alone() {
    let home = Home::new();
    let nginx = Nginx::start();
    let _publisher = Publisher::start(Clip::LONG, &nginx.uri("a"));
    let mut weir = home.setup().set("record_min_free_space=1000000G").start();
    weir.announce("record_min_free_space keeps");
    weir.pull(&nginx.uri("a"), "a", true);
    weir.wait_log("record_min_free_space keeps 1024000000 MiB free");
    let before = weir.frames("a").0;
    wait_until("the stream to flow on", || weir.frames("a").0 > before + 10);
    assert!(home.files("").is_empty(), "{:?}", home.files(""));
}

#[test]
fn a_record_dir_that_turns_into_a_file_fails_the_recording_and_not_the_stream() {
    let home = Home::new();
    let nginx = Nginx::start();
    let _publisher = Publisher::start(Clip::LONG, &nginx.uri("a"));
    let mut weir = setup(&home).start();
    std::fs::remove_dir_all(home.records()).unwrap();
    std::fs::write(home.records(), "a file").unwrap();
    weir.announce("recording failed: cannot write to");
    weir.pull(&nginx.uri("a"), "a", true);
    let line = weir.wait_log("recording failed: cannot write to");
    assert!(line.contains("Not a directory"), "{line}");
    let before = weir.frames("a").0;
    wait_until("the stream to flow on", || weir.frames("a").0 > before + 10);
    // Once it is a directory again, the recorder's next try writes.
    std::fs::remove_file(home.records()).unwrap();
    std::fs::create_dir(home.records()).unwrap();
    home.wait_writing();
    weir.terminate("a");
    plays(&home.wait_finished(1)[0]);
}

#[test]
fn a_record_dir_nobody_may_write_to_fails_the_recording_and_not_the_stream() {
    let home = Home::new();
    let nginx = Nginx::start();
    let _publisher = Publisher::start(Clip::LONG, &nginx.uri("a"));
    std::fs::create_dir(home.records()).unwrap();
    // Root may write everywhere; the server runs without its rights.
    let as_nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"];
    let root = run(Command::new("id").arg("-u"), Duration::from_secs(5)).stdout == b"0\n";
    let setup = if root { setup(&home).through(&as_nobody) } else { setup(&home) };
    std::fs::create_dir(home.path().join("data")).unwrap();
    let open = |path: PathBuf, mode| std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    open(home.path().to_owned(), 0o755);
    open(home.path().join("data"), 0o777);
    open(home.records(), 0o555);
    let mut weir = setup.start();
    weir.announce("recording failed: cannot write to");
    weir.tolerate("record_dir");
    weir.pull(&nginx.uri("a"), "a", true);
    let line = weir.wait_log("recording failed: cannot write to");
    assert!(line.contains("Permission denied"), "{line}");
    let before = weir.frames("a").0;
    wait_until("the stream to flow on", || weir.frames("a").0 > before + 10);
}
