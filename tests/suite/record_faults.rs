//! What recordings of every format survive: SIGKILL, a disk that fills up and has room again, a directory that is taken
//! away, and tracks that come late, stop and come back.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::film;
use crate::film::Film;
use crate::support::{
    Clip, Home, Media, Nginx, Publisher, SOON, Setup, Signal, SmallDisk, Weir, decodes, probe, run, wait, wait_until,
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
    let media = judge_killed(&file, extension);
    println!("{extension}: {} frames of {counted}, {:.2} s", media.video.len(), media.duration);
    assert!(media.video.len() as u64 + fps >= counted, "{} frames of {counted}", media.video.len());
    assert!(media.video.len() >= frames.saturating_sub(1));
    if ["webm", "mkv"].contains(&extension) {
        searchable(&file);
    }
    let listed = weir.get("/rest-api/recordings").json()[0].clone();
    let seconds = listed["duration"].as_f64().unwrap_or(0.0) / 1000.0;
    assert!((seconds - length(&media, extension)).abs() < 0.1, "{listed}");
    assert_eq!((&listed["recovered"], &listed["stream"]), (&json!(true), &json!("a")));
    drop(weir);
    let quiet = started(home.setup().set("record_min_free_space=0"));
    assert!(!quiet.logged("recover"), "a third start has nothing to do");
}

/// From the first picture or sound of a file to its end; a transport stream's clock begins anywhere.
fn length(media: &Media, extension: &str) -> f64 {
    let end = Media::end(&media.video).max(Media::end(&media.audio));
    let start = Media::start(&media.video).min(Media::start(&media.audio));
    if extension == "ts" { end - start } else { end }
}

fn judge_killed(file: &Path, extension: &str) -> Media {
    decodes(file);
    let media = probe(file);
    let length = length(&media, extension);
    assert!((media.duration - length).abs() < 0.1, "{} says {} s and has {length} s", file.display(), media.duration);
    media
}

/// Kills a server that records in parts of a second, so that it may just be finishing one, beginning one, or both, and
/// judges all the files that the next start leaves: every frame older than a second is there once, in order, and each
/// file has been seen by the hook script once.
fn killed_between_parts(film: Film, format: &str, extension: &str, frames: u64) {
    let home = Home::new();
    let hook = home.path().join("hook.sh");
    std::fs::write(&hook, "#!/bin/sh\necho \"$2\" >> ../seen\n").unwrap();
    std::fs::set_permissions(&hook, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let hook = format!("on_record_hook_script={}", hook.display());
    let weir = started(films(&home, film).set(format).set("record_rotation=1").set(&hook));
    weir.pull(&film.uri(), "a", true);
    weir.wait_frames("a", frames);
    let counted = weir.frames("a").0;
    weir.kill();
    let left = home.names(".tmp");
    let sizes = |names: &[String]| {
        names.iter().map(|name| std::fs::metadata(home.records().join(name)).unwrap().len()).collect::<Vec<_>>()
    };
    let left: Vec<_> = left.iter().zip(sizes(&left)).collect();
    println!("left: {left:?}");
    let mut weir = started(home.setup().set("record_min_free_space=0").set(&hook));
    // An MP4 that began just now has frames and no index to find them by as yet.
    weir.tolerate("a recording cannot be finished and is kept for you to look at: the recording has no whole fragment");
    wait_until("nothing to be unfinished", || home.names(".tmp").is_empty());
    let listed = || weir.get("/rest-api/recordings").json().as_array().unwrap().clone();
    let is_open = |file: &Value| ["waiting", "running"].contains(&file["hook"].as_str().unwrap_or(""));
    wait_until("every hook", || !listed().iter().any(is_open));
    assert!(home.names(".broken").len() <= 1, "{:?}", home.names(".broken"));
    let finished: Vec<Value> = listed().into_iter().filter(|file| file["state"] == "finished").collect();
    let mut parts: Vec<(u64, String)> =
        finished.iter().map(|file| (file["part"].as_u64().unwrap(), file["name"].as_str().unwrap().into())).collect();
    parts.sort();
    let numbers: Vec<u64> = parts.iter().map(|(number, _)| *number).collect();
    assert_eq!(numbers, (1..=parts.len() as u64).collect::<Vec<_>>(), "{parts:?}, of which {left:?} were left");
    let (mut sizes, mut total) = (Vec::new(), 0.0);
    for (_, name) in &parts {
        let media = judge_killed(&home.records().join(name), extension);
        sizes.extend(media.video.iter().map(|packet| packet.size));
        total += media.duration;
    }
    println!("{extension}: {} frames of {counted} in {} parts, {left:?} left", sizes.len(), parts.len());
    assert!(sizes.len() as u64 + film.frames_a_second() >= counted, "{} frames of {counted}", sizes.len());
    // A transport stream repeats the parameter sets.
    let sent: Vec<usize> = probe(&film.file()).video.iter().map(|packet| packet.size).take(sizes.len()).collect();
    assert!(extension == "ts" || sizes == sent, "frames are missing, or doubled, between {parts:?}");
    let seconds = sizes.len() as f64 / film.frames_a_second() as f64;
    assert!((total - seconds).abs() < 0.1 * parts.len() as f64, "{total} s for {seconds} s");
    let seen = std::fs::read_to_string(home.path().join("seen")).unwrap_or_default();
    for (_, name) in &parts {
        let times = seen.lines().filter(|line| line.ends_with(&format!("/{name}"))).count();
        let state = listed().into_iter().find(|file| file["name"] == name.as_str()).unwrap()["hook"].clone();
        // A script that ran when the server died is not run again: it may have seen the file.
        let cut_off = state["failed"] == "the server died while it ran";
        assert!(times == 1 || times == 0 && cut_off, "{name} was seen {times} times: {state}");
    }
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

#[test]
fn an_mp4_that_was_killed_is_whole() {
    (0..kills()).for_each(|_| killed(Film::H264, "record_formats=h264-mp4", "mp4", moment(Film::H264)));
}

#[test]
fn mp4_parts_that_were_killed_are_whole_and_join() {
    (0..kills()).for_each(|_| killed_between_parts(Film::H264, "record_formats=h264-mp4", "mp4", moment(Film::H264)));
}

#[test]
fn webm_parts_that_were_killed_are_whole_and_join() {
    (0..kills()).for_each(|_| killed_between_parts(Film::VP8, "record_webm_audio=opus", "webm", moment(Film::VP8)));
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
    if where_mounting_works("record_faults::a_full_disk_stops_and_room_starts_it_again_mp4") {
        filled_up("record_formats=h264-mp4", "mp4", "0", 400 << 10, "the disk is full");
    }
}

#[test]
fn a_full_disk_stops_and_room_starts_it_again_mkv() {
    if where_mounting_works("record_faults::a_full_disk_stops_and_room_starts_it_again_mkv") {
        filled_up("record_formats=h264-mkv", "mkv", "0", 400 << 10, "the disk is full");
    }
}

#[test]
fn it_stops_before_the_disk_is_full() {
    if where_mounting_works("record_faults::it_stops_before_the_disk_is_full") {
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

/// Debian's libfaketime, the one for programs with threads: it reads from a file how far the clock is off.
fn fake_clock() -> PathBuf {
    let find = |root: &str| {
        let folders = std::fs::read_dir(root).into_iter().flatten().flatten();
        folders.map(|folder| folder.path().join("faketime/libfaketimeMT.so.1")).find(|file| file.exists())
    };
    find("/usr/lib").expect("libfaketime is not installed: see TEST_PACKAGES in ./dev")
}

/// The wall clock is set back by an hour within a part, and later forward again by two; the names have the time in them.
#[test]
fn a_clock_that_is_set_back_and_forth_costs_nothing() {
    let home = Home::new();
    let offset = home.path().join("offset");
    let set_clock = |text: &str| {
        // In one step: it is read at any moment.
        std::fs::write(home.path().join("draft"), text).unwrap();
        std::fs::rename(home.path().join("draft"), &offset).unwrap();
    };
    set_clock("+0\n");
    let film = Film::H264;
    let weir = films(&home, film).set("record_rotation=1").set("stream_record_policy=template");
    let weir = weir.set("stream_record_policy_template={streamName}-{startTimeMillis}-{endTimeMillis}");
    let weir = weir.env("LD_PRELOAD", &fake_clock().to_string_lossy()).env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
    let weir = started(weir.env("FAKETIME_TIMESTAMP_FILE", &offset.to_string_lossy()).env("FAKETIME_NO_CACHE", "1"));
    // The clock of the log tells that it has jumped.
    let hour = |weir: &Weir| weir.log().last().unwrap()[..13].to_owned();
    weir.pull(&film.uri(), "a", true);
    weir.wait_frames("a", 75);
    let before = hour(&weir);
    set_clock("-1h\n");
    weir.wait_frames("a", 110);
    wait_until("a line of the log with the other time", || hour(&weir) < before);
    weir.wait_frames("a", 165);
    set_clock("+1h\n");
    wait("the end of the film", Duration::from_secs(60), || (weir.frames("a").0 >= film.frames() as u64).then_some(()));
    weir.terminate("a");
    wait_until("the files in place", || home.files(".tmp").is_empty());
    let listed = weir.get("/rest-api/recordings").json();
    let field = |file: &Value, field: &str| file[field].as_u64().unwrap_or_else(|| panic!("{field} in {file}"));
    let mut parts: Vec<&Value> = listed.as_array().unwrap().iter().collect();
    parts.sort_by_key(|file| field(file, "part"));
    assert_eq!(parts.len(), 8, "{listed:#}");
    let (mut frames, mut end) = (0, field(parts[0], "started"));
    for part in &parts {
        let file = home.records().join(part["name"].as_str().unwrap());
        let media = judge_killed(&file, "mp4");
        frames += media.video.len();
        let (started, ended, duration) = (field(part, "started"), field(part, "ended"), field(part, "duration"));
        assert!((duration as f64 / 1000.0 - media.duration).abs() < 0.05, "{part}");
        // One follows the other as the frames do, whatever the clock says meanwhile.
        assert!(started.abs_diff(end) < 60 && ended == started + duration, "{part} begins at {end}");
        assert_eq!(part["name"], format!("a-{started}-{ended}.mp4"));
        assert_eq!(part["recovered"], json!(false));
        end = ended;
    }
    assert_eq!(frames, film.frames());
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
    // Where a part begins because of its tracks, the one before ends there: every frame is in one of them, and in one only.
    assert_eq!((video, audio + early), (sent.video.len(), sent.audio.len()), "{extension}: {files:?}");
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
    // The part with the sound begins where the whole recording did, and takes the place of what was there before.
    in_each_format(|format, extension| {
        assert_eq!(incomplete(Film::SOUND_PAUSES_IN_A_GOP, format, extension, ""), 1, "{extension}");
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

#[test]
fn old_recordings_go_where_that_is_set() {
    let home = Home::new();
    let weir = started(films(&home, Film::H264).set("record_rotation=1").set("encode_record_name=true,BASE64"));
    weir.pull(&Film::H264.uri(), "a", true);
    weir.wait_frames("a", 130);
    weir.terminate("a");
    wait_until("the files in place", || home.files(".tmp").is_empty());
    // "a" in BASE64; the last part has no number.
    let parts = home.names(".mp4");
    assert!(parts.len() >= 4 && parts[0] == "YQ==.mp4" && parts[1] == "YQ==_1.mp4", "{parts:?}");
    drop(weir);
    std::fs::write(home.records().join("of the operator.mp4"), vec![0; 1 << 20]).unwrap();
    let size = |name: &str| std::fs::metadata(home.records().join(name)).unwrap().len();
    let newest_two = size("YQ==.mp4") + size(&parts[parts.len() - 1]);
    let setup = || home.setup().set("record_min_free_space=0");
    let weir = setup().set(&format!("record_max_total_size={newest_two}")).start();
    wait_until("the oldest to be gone", || home.names(".mp4").len() == 3);
    assert_eq!(home.names(".mp4"), ["YQ==.mp4", parts[parts.len() - 1].as_str(), "of the operator.mp4"]);
    drop(weir);
    let weir = setup().set("record_max_age=1").start();
    wait_until("all of weir's to be gone", || home.names(".mp4") == ["of the operator.mp4"]);
    assert_eq!(weir.get("/rest-api/recordings").json()[0]["name"], "of the operator.mp4");
}

/// What has come is in the file even if nothing follows it.
#[test]
fn a_source_that_falls_silent_leaves_nothing_in_memory() {
    let (home, nginx) = (Home::new(), Nginx::start());
    let publisher = Publisher::start(Clip::LONG, &nginx.uri("a"));
    let setup = home.setup().set("stream_record_policy=streamName").set("record_formats=h264-ts");
    let mut weir = setup.set("record_min_free_space=0").start();
    weir.tolerate("stream interrupted");
    weir.tolerate("pull has no source");
    weir.pull(&nginx.uri("a"), "a", true);
    weir.wait_frames("a", 60);
    publisher.signal(Signal::STOP);
    // Half a second without a frame: it is silent.
    let mut before = weir.frames("a");
    let counted = wait("silence", SOON, || {
        std::thread::sleep(Duration::from_millis(500));
        let now = weir.frames("a");
        (std::mem::replace(&mut before, now) == now).then_some(now)
    });
    let file = home.files(".ts.tmp").pop().unwrap();
    wait_until("all but the last frames in the file", || {
        let media = probe(&file);
        media.video.len() as u64 + 3 >= counted.0 && media.audio.len() as u64 + 4 >= counted.1
    });
    publisher.signal(Signal::CONT);
    weir.terminate("a");
}
