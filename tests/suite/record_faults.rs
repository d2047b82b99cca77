//! What recordings of every format survive: SIGKILL, a disk that fills up and has room again, a directory that is taken
//! away, and tracks that come late, stop and come back.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::film;
use crate::film::Film;
use crate::support::{
    Clip, Home, Media, Nginx, Publisher, SOON, Setup, SmallDisk, Weir, decodes, probe, run, wait, wait_until,
    where_mounting_works,
};
use serde_json::{Value, json};

fn films(home: &Home, film: Film) -> Setup {
    film::setup(home, [film]).set("record_min_free_space=0").set("stream_record_policy=streamName")
}

fn started(setup: Setup) -> Weir {
    let mut weir = setup.start();
    weir.tolerate("stream interrupted");
    weir.tolerate("pull has no source");
    weir
}

/// What mkvinfo says of a file that can be searched.
fn searchable(file: &Path) {
    let output = run(Command::new("mkvinfo").arg("--all").arg(file), SOON);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("Cue point"), "{}: {text}", file.display());
    assert!(!text.contains("size is unknown") && !text.contains("18446744073709551615"), "{text}");
}

/// Kills a server that records a film after `frames` frames, and judges what the next one makes of it.
fn killed(film: Film, format: &str, extension: &str, frames: u64) {
    let home = Home::new();
    let weir = started(films(&home, film).set(format));
    weir.pull(&film.uri(), "a", true);
    weir.wait_frames("a", frames);
    let counted = weir.frames("a").0;
    weir.kill();
    let left = home.files(&format!(".{extension}.tmp"));
    assert_eq!((left.len(), home.names("").len()), (1, 1));
    // As it is left it plays.
    let frames = probe(&left[0]).video.len();
    let fps = film.frames_a_second();
    assert!(frames as u64 + fps >= counted, "{frames} frames of {counted} play before the repair");

    let weir = started(home.setup().set("record_min_free_space=0"));
    let line = weir.wait_log("recovered=true");
    assert!(line.contains("stream=\"a\"") || line.contains("stream=a"), "{line}");
    let file = home.records().join(format!("a.{extension}"));
    assert_eq!(home.files(""), std::slice::from_ref(&file));
    decodes(&file);
    let media = probe(&file);
    let (start, end) = (Media::start(&media.video), Media::end(&media.video).max(Media::end(&media.audio)));
    println!("{extension}: {} frames of {counted}, {:.2} s", media.video.len(), media.duration);
    assert!(media.video.len() as u64 + fps >= counted, "{} frames of {counted}", media.video.len());
    assert!(media.video.len() >= frames.saturating_sub(1));
    let length = if extension == "ts" { end - start } else { end };
    assert!((media.duration - length).abs() < 0.1, "it says {} s and has {length} s", media.duration);
    if extension != "ts" {
        searchable(&file);
        let listed = weir.get("/rest-api/recordings").json()[0].clone();
        assert!((listed["duration"].as_f64().unwrap() / 1000.0 - length).abs() < 0.1, "{listed}");
        assert_eq!((&listed["recovered"], &listed["stream"]), (&json!(true), &json!("a")));
    }
    drop(weir);
    let quiet = started(home.setup().set("record_min_free_space=0"));
    assert!(!quiet.logged("recover"), "a third start has nothing to do");
}

/// How often each format is killed: more where somebody has the time (WEIR_TEST_KILLS=50).
fn kills() -> u64 {
    std::env::var("WEIR_TEST_KILLS").ok().and_then(|kills| kills.parse().ok()).unwrap_or(2)
}

/// At a moment that is another one every time.
fn moment(film: Film) -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    30 + u64::from(now.subsec_micros()) % (film.frames() as u64 - 60)
}

#[test]
fn a_webm_that_was_killed_is_whole_and_searchable() {
    (0..kills()).for_each(|_| killed(Film::VP8, "record_formats=vp8-webm", "webm", moment(Film::VP8)));
    killed(Film::VP8_60, "record_webm_audio=opus", "webm", 300);
}

#[test]
fn a_matroska_that_was_killed_is_whole_and_searchable() {
    (0..kills()).for_each(|_| killed(Film::H264, "record_formats=h264-mkv", "mkv", moment(Film::H264)));
}

#[test]
fn a_transport_stream_that_was_killed_plays() {
    (0..kills()).for_each(|_| killed(Film::H264, "record_formats=h264-ts", "ts", moment(Film::H264)));
}

fn recorders(weir: &Weir) -> Vec<Value> {
    let answer = weir.get("/rest-api/recorder/find_all");
    if answer.status == 404 { Vec::new() } else { answer.json().as_array().unwrap().clone() }
}

/// A file that takes what is there of a disk but for `free` bytes.
fn ballast(home: &Home, free: u64) -> PathBuf {
    let file = home.records().join(".ballast");
    let chunk = vec![1; 64 << 10];
    let mut out = std::fs::File::create(&file).unwrap();
    loop {
        let stat = rustix::fs::statvfs(home.records()).unwrap();
        if stat.f_bavail * stat.f_frsize < free + chunk.len() as u64 {
            return file;
        }
        std::io::Write::write_all(&mut out, &chunk).unwrap();
    }
}

/// A disk of 20 MB that fills up while a stream is recorded, and has room again later.
fn filled_up(format: &str, extension: &str, min_free: &str, free: u64, reason: &str) {
    let home = Home::new();
    let _disk = SmallDisk::mount(home.records(), "20m");
    let ballast = ballast(&home, free);
    let nginx = Nginx::start();
    let _publisher = Publisher::start(Clip::LONG, &nginx.uri("a"));
    let setup = home.setup().set("stream_record_policy=streamName").set(format);
    let mut weir = setup.set(&format!("record_min_free_space={min_free}")).start();
    weir.announce(reason);
    weir.tolerate("recording failed");
    weir.tolerate("what is known of a recording cannot be kept");
    weir.pull(&nginx.uri("a"), "a", true);
    weir.wait_log(reason);
    // It says so, and the stream flows on.
    let recorder =
        wait("a recorder that says why", SOON, || recorders(&weir).into_iter().find(|r| r["state"] == "FAILED"));
    assert!(recorder["reason"].as_str().unwrap().contains(reason), "{recorder}");
    let before = weir.frames("a").0;
    wait_until("the stream to flow on", || weir.frames("a").0 > before + 25);
    assert_eq!(weir.stream("a").unwrap()["status"], "PUBLISHING");
    let first = wait("what was written", SOON, || home.files(&format!(".{extension}")).into_iter().next());
    decodes(&first);
    let seconds = probe(&first).duration;
    println!("{extension}: {seconds} s on a disk with {free} bytes left");
    assert!(seconds > 1.0);
    // There is room again, and nobody has to be told.
    std::fs::remove_file(ballast).unwrap();
    wait("another file", Duration::from_secs(30), || home.files(&format!(".{extension}.tmp")).pop());
    wait_until("it to say so", || recorders(&weir)[0]["state"] == "RECORDING");
    let before = weir.frames("a").0;
    weir.wait_frames("a", before + 50);
    weir.terminate("a");
    wait_until("the files in place", || {
        home.files(".tmp").is_empty() && home.files(&format!(".{extension}")).len() > 1
    });
    home.files(&format!(".{extension}")).iter().for_each(|file| decodes(file));
}

#[test]
fn a_full_disk_stops_and_room_starts_it_again_mp4() {
    if where_mounting_works("a_full_disk_stops_and_room_starts_it_again_mp4") {
        filled_up("record_formats=h264-mp4", "mp4", "0", 400 << 10, "the disk is full");
    }
}

#[test]
fn a_full_disk_stops_and_room_starts_it_again_mkv() {
    if where_mounting_works("a_full_disk_stops_and_room_starts_it_again_mkv") {
        filled_up("record_formats=h264-mkv", "mkv", "0", 400 << 10, "the disk is full");
    }
}

#[test]
fn it_stops_before_the_disk_is_full() {
    if where_mounting_works("it_stops_before_the_disk_is_full") {
        filled_up(
            "record_formats=h264-mp4",
            "mp4",
            "4M",
            (4 << 20) + (300 << 10),
            "record_min_free_space keeps 4 MiB free",
        );
    }
}

#[test]
fn a_file_and_a_directory_that_are_taken_away() {
    let (home, nginx) = (Home::new(), Nginx::start());
    let _publisher = Publisher::start(Clip::LONG, &nginx.uri("a"));
    let mut weir = home.setup().set("stream_record_policy=streamName").set("record_min_free_space=1").start();
    weir.announce("has been removed while it was written");
    weir.tolerate("is kept as it is");
    weir.pull(&nginx.uri("a"), "a", true);
    std::fs::remove_dir_all(home.wait_writing().parent().unwrap()).unwrap();
    weir.wait_log("has been removed while it was written");
    // The directory is made again, and the recording goes on in another file.
    home.wait_writing();
    let before = weir.frames("a").0;
    weir.wait_frames("a", before + 50);
    weir.terminate("a");
    let file = home.wait_finished(1).remove(0);
    decodes(&file);
    assert!(probe(&file).duration > 1.5);
}

/// Records a film with something missing from before its first frame to its end, in parts of some seconds, and judges
/// that all of it is there; gives how many files have sound.
fn incomplete(film: Film, format: &str, extension: &str, rotation: &str) -> usize {
    let home = Home::new();
    let weir = started(films(&home, film).set(format).set(&format!("record_rotation={rotation}")));
    weir.pull(&film.uri(), "a", true);
    let sent = probe(&film.file());
    let came = || weir.frames("a").0 >= sent.video.len() as u64 && weir.frames("a").1 >= sent.audio.len() as u64;
    wait("all of it to come", Duration::from_secs(60), || came().then_some(()));
    weir.terminate("a");
    wait_until("the files in place", || home.files(".tmp").is_empty());
    let files = home.files(&format!(".{extension}"));
    let parts: Vec<Media> = files.iter().map(|file| probe(file)).collect();
    files.iter().for_each(|file| decodes(file));
    let count = |track: fn(&Media) -> usize| parts.iter().map(track).sum::<usize>();
    let (video, audio) = (count(|part| part.video.len()), count(|part| part.audio.len()));
    println!(
        "{} {extension}: {} parts, {video} of {}, {audio} of {}",
        film.stream(),
        parts.len(),
        sent.video.len(),
        sent.audio.len()
    );
    let early = sent.audio.iter().filter(|packet| packet.pts < sent.video[0].pts).count();
    // Where a new part begins because of its tracks, it begins with its keyframe, which the one before has too.
    assert!(video >= sent.video.len() && audio + early >= sent.audio.len(), "{video} and {audio}");
    assert!(video < sent.video.len() + 90, "{video} of {}", sent.video.len());
    for (file, part) in files.iter().zip(&parts) {
        let end = Media::end(&part.video).max(Media::end(&part.audio));
        let start = if extension == "ts" { Media::start(&part.video) } else { 0.0 };
        assert!((part.duration - (end - start)).abs() < 0.1, "{}: {} s of {end}", file.display(), part.duration);
    }
    parts.iter().filter(|part| !part.audio.is_empty()).count()
}

const FORMATS: [(&str, &str); 3] =
    [("record_formats=h264-mp4", "mp4"), ("record_formats=h264-mkv", "mkv"), ("record_formats=h264-ts", "ts")];

/// Each format at once: they wait for the same seconds.
fn in_each_format(judge: impl Fn(&str, &str) + Sync) {
    std::thread::scope(|scope| {
        for (format, extension) in FORMATS {
            let judge = &judge;
            scope.spawn(move || judge(format, extension));
        }
    });
}

#[test]
fn sound_that_stops_takes_nothing_with_it() {
    in_each_format(|format, extension| {
        assert_eq!(incomplete(Film::SOUND_STOPS, format, extension, "4"), 1, "{extension}");
    });
}

#[test]
fn sound_that_stops_and_comes_back() {
    in_each_format(|format, extension| {
        assert!(incomplete(Film::SOUND_PAUSES, format, extension, "") >= 2, "{extension}");
    });
}

#[test]
fn sound_that_comes_late() {
    in_each_format(|format, extension| {
        assert!(incomplete(Film::SOUND_LATE, format, extension, "") >= 1, "{extension}");
    });
}

#[test]
fn pictures_that_stop_and_come_back() {
    in_each_format(|format, extension| {
        assert!(incomplete(Film::PICTURES_PAUSE, format, extension, "") >= 1, "{extension}");
    });
}
