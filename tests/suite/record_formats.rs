//! Every format a recording can be, in parts by time and by size: no frame and no packet of sound is lost or doubled, each
//! part plays by itself, and starts with sound and picture together.
//!
//! The source is a file that a launch template of the test's own plays in real time, so that what is sent is known
//! to the byte.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::film;
use crate::film::Film;
use crate::support::{Home, Media, Packet, Weir, decodes, probe, run, wait, wait_until};
use serde_json::json;

/// Records the films from their first frame to their last, each with its rotation.
fn record(home: &Home, settings: &[&str], films: &[(Film, &str)]) -> Weir {
    let setup = film::setup(home, films.iter().map(|(film, _)| *film)).set("record_min_free_space=0");
    let mut weir = settings.iter().fold(setup, |setup, setting| setup.set(setting)).start();
    weir.tolerate("stream interrupted");
    weir.tolerate("pull has no source");
    for (film, rotation) in films {
        let name = film.stream();
        weir.pull(&film.uri(), name, false);
        wait_until("the stream to flow", || weir.stream(name).is_some_and(|stream| stream["status"] == "PUBLISHING"));
        let session = weir.stream(name).unwrap()["mediaSessionId"].clone();
        let config = json!({"fileTemplate": "{streamName}", "rotation": rotation});
        weir.done("/rest-api/recorder/startup", &json!({"mediaSessionId": session, "config": config}));
    }
    for (film, _) in films {
        let name = film.stream();
        let sent = probe(&film.file());
        let (video, audio) = (sent.video.len() as u64, sent.audio.len() as u64);
        assert_eq!(video, film.frames() as u64);
        let came = || weir.frames(name).0 >= video && weir.frames(name).1 >= audio;
        wait(&format!("the end of {name}"), Duration::from_secs(60), || came().then_some(()));
        weir.terminate(name);
    }
    wait_until("the files to be in place", || home.files(".tmp").is_empty());
    weir
}

/// The parts of a stream in their order.
fn parts(home: &Home, stream: &str, extension: &str) -> Vec<PathBuf> {
    let mut parts: Vec<(u32, PathBuf)> = Vec::new();
    for file in home.files(&format!(".{extension}")) {
        let stem = file.file_stem().unwrap().to_str().unwrap().to_owned();
        let number = if stem == stream {
            Some(u32::MAX)
        } else {
            stem.strip_prefix(&format!("{stream}_")).and_then(|n| n.parse().ok())
        };
        parts.extend(number.map(|number| (number, file)));
    }
    parts.sort();
    parts.into_iter().map(|(_, file)| file).collect()
}

/// How sound goes into a format.
#[derive(Clone, Copy, PartialEq)]
enum Sound {
    Copied,
    /// To this codec and sample rate.
    Transcoded(&'static str, &'static str),
}

/// Judges the parts of one film; gives how many there are.
fn judge(home: &Home, film: Film, extension: &str, sound: Sound) -> Vec<(PathBuf, Media)> {
    let files = parts(home, film.stream(), extension);
    let parts: Vec<Media> = files.iter().map(|file| probe(file)).collect();
    let sent = probe(&film.file());
    let sizes = |packets: &[Packet]| packets.iter().map(|packet| packet.size).collect::<Vec<_>>();
    let video: Vec<_> = parts.iter().flat_map(|part| sizes(&part.video)).collect();
    let audio: Vec<_> = parts.iter().flat_map(|part| sizes(&part.audio)).collect();
    println!("{}.{extension}: {} parts, {} frames, {} packets", film.stream(), parts.len(), video.len(), audio.len());
    assert_eq!(video.len(), sent.video.len(), "frames of {files:?}");
    // A transport stream repeats the parameter sets, and has a header before every packet of sound.
    if extension != "ts" {
        assert_eq!(video, sizes(&sent.video));
    }
    // Sound from before the first picture is not recorded.
    let early = sent.audio.iter().filter(|packet| packet.pts < sent.video[0].pts).count();
    let sent_sound = &sent.audio[early..];
    match sound {
        Sound::Copied if extension == "ts" => assert_eq!(audio.len(), sent_sound.len()),
        Sound::Copied => assert_eq!(audio, sizes(sent_sound)),
        Sound::Transcoded(codec, rate) => {
            for part in &parts {
                let stream = part.stream("audio");
                assert_eq!((&stream["codec_name"], &stream["sample_rate"]), (&json!(codec), &json!(rate)));
            }
            let length: f64 = parts.iter().map(|part| Media::end(&part.audio) - Media::start(&part.audio)).sum();
            let wanted = Media::end(sent_sound) - Media::start(sent_sound);
            let slack = 0.06 * parts.len() as f64;
            assert!((length - wanted).abs() < slack, "{length} s of sound in {} parts, {wanted} s sent", parts.len());
        }
    }
    for (file, part) in files.iter().zip(&parts) {
        decodes(file);
        judge_part(&file.display().to_string(), part, extension);
    }
    files.into_iter().zip(parts).collect()
}

fn judge_part(name: &str, part: &Media, extension: &str) {
    let (video, audio) = (Media::start(&part.video), Media::start(&part.audio));
    assert!(part.video[0].key, "{name} starts with a frame that needs others");
    assert!((video - audio).abs() < 0.04, "{name}: picture at {video} s, sound at {audio} s");
    if extension != "ts" {
        assert!(video.min(audio).abs() < 0.05, "{name} starts at {video} s and {audio} s");
    }
    assert!(
        part.video.windows(2).all(|two| two[0].dts < two[1].dts || two[0].dts.is_nan()),
        "{name}: time stamps go back"
    );
    let end = Media::end(&part.video).max(Media::end(&part.audio));
    let length = if extension == "ts" { end - video.min(audio) } else { end };
    assert!((part.duration - length).abs() < 0.1, "{name} says {} s and has {length} s", part.duration);
}

/// What mkvinfo complains of; nothing without it.
fn mkv_is_sound(file: &Path) {
    let output =
        run(Command::new("mkvinfo").args(["--all", "--ui-language", "en_US"]).arg(file), Duration::from_secs(30));
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}");
    assert!(text.contains("Cues") && text.contains("Duration:"), "{} cannot be searched: {text}", file.display());
    let trouble = text.lines().find(|line| {
        let line = line.to_lowercase();
        ["error", "unknown", "damaged", "invalid"].iter().any(|bad| line.contains(bad))
            && !line.contains("unknown size")
    });
    assert!(trouble.is_none(), "{}: {trouble:?}", file.display());
}

/// What a player does when somebody drags its slider.
fn seeks(file: &Path, to: f64) {
    let mut ffmpeg = Command::new("ffprobe");
    ffmpeg.args(["-v", "error", "-read_intervals", &format!("{to}%+#3"), "-select_streams", "v"]);
    ffmpeg.args(["-show_entries", "packet=pts_time", "-of", "csv=p=0"]).arg(file);
    let output = run(&mut ffmpeg, Duration::from_secs(30));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let first: f64 = text.split([',', '\n']).next().unwrap().trim().parse().unwrap_or(f64::NAN);
    assert!(first <= to && first > to - 1.2, "{}: looked for {to} s, got {text}", file.display());
}

#[test]
fn vp8_in_webm_with_vorbis() {
    let home = Home::new();
    let _weir = record(&home, &[], &[(Film::VP8, "2"), (Film::VP8_60, "300K"), (Film::VP8_WHOLE, "disabled")]);
    let vorbis = Sound::Transcoded("vorbis", "44100");
    assert_eq!(judge(&home, Film::VP8, "webm", vorbis).len(), 4);
    assert!(judge(&home, Film::VP8_60, "webm", vorbis).len() > 1);
    let whole = judge(&home, Film::VP8_WHOLE, "webm", vorbis);
    assert_eq!(whole.len(), 1);
    seeks(&whole[0].0, 5.5);
    for file in home.files(".webm") {
        mkv_is_sound(&file);
    }
}

#[test]
fn vp8_in_webm_with_opus_as_it_came() {
    let home = Home::new();
    let _weir = record(&home, &["record_webm_audio=opus"], &[(Film::VP8, "200K"), (Film::VP8_60, "3")]);
    assert!(judge(&home, Film::VP8, "webm", Sound::Copied).len() > 2);
    // Keyframes are ten seconds apart: that is what a part can be at least.
    assert_eq!(judge(&home, Film::VP8_60, "webm", Sound::Copied).len(), 2);
    for file in home.files(".webm") {
        mkv_is_sound(&file);
    }
}

#[test]
fn both_codecs_in_matroska() {
    let home = Home::new();
    let films = [(Film::VP8, "2"), (Film::H264, "2"), (Film::H264_60, "400K"), (Film::VP8_60, "disabled")];
    let _weir = record(&home, &["record_formats=h264-mkv,vp8-mkv"], &films);
    assert_eq!(judge(&home, Film::VP8, "mkv", Sound::Copied).len(), 4);
    assert_eq!(judge(&home, Film::H264, "mkv", Sound::Copied).len(), 4);
    assert!(judge(&home, Film::H264_60, "mkv", Sound::Copied).len() > 1);
    assert_eq!(judge(&home, Film::VP8_60, "mkv", Sound::Copied).len(), 1);
    for file in home.files(".mkv") {
        mkv_is_sound(&file);
    }
}

#[test]
fn h264_in_a_transport_stream() {
    let home = Home::new();
    let films = [(Film::H264, "2"), (Film::H264_60, "500K"), (Film::H264_OPUS, "disabled")];
    let _weir = record(&home, &["record_formats=h264-ts", "record_audio_codec_sample_rate=48000"], &films);
    assert_eq!(judge(&home, Film::H264, "ts", Sound::Copied).len(), 4);
    assert!(judge(&home, Film::H264_60, "ts", Sound::Copied).len() > 1);
    assert_eq!(judge(&home, Film::H264_OPUS, "ts", Sound::Transcoded("aac", "48000")).len(), 1);
}

#[test]
fn h264_in_mp4() {
    let home = Home::new();
    let films = [(Film::H264, "1"), (Film::H264_60, "400K"), (Film::H264_OPUS, "3")];
    let _weir = record(&home, &["record_audio_codec_sample_rate=32000"], &films);
    assert_eq!(judge(&home, Film::H264, "mp4", Sound::Copied).len(), 8);
    assert!(judge(&home, Film::H264_60, "mp4", Sound::Copied).len() > 1);
    assert_eq!(judge(&home, Film::H264_OPUS, "mp4", Sound::Transcoded("aac", "32000")).len(), 3);
}

#[test]
fn names_are_encoded_cleaned_and_timed() {
    let home = Home::new();
    let settings = ["encode_record_name=true,HEX", "exclude_record_name_characters=8", "record_formats=h264-ts"];
    let weir = record(&home, &settings, &[(Film::VP8, "disabled"), (Film::H264, "disabled")]);
    // "vp8" without its 8, and "h264", in hexadecimal.
    assert_eq!(home.names(""), ["68323634.ts", "7670.webm"]);
    for (name, kind) in [("68323634.ts", "video/mp2t"), ("7670.webm", "video/webm")] {
        let answer = weir.call("HEAD", &format!("/client/records/{name}"), "");
        assert_eq!((answer.status, answer.header("content-type")), (200, Some(kind)));
    }
}

#[test]
fn every_rtmp_stream_is_recorded_where_that_is_set() {
    let home = Home::new();
    let setup = film::setup(&home, [Film::H264]).set("record_min_free_space=0").set("stream_record_policy=streamName");
    let mut weir = setup.set("record_flash_published_streams=true").start();
    weir.tolerate("stream interrupted");
    weir.tolerate("pull has no source");
    weir.pull(&Film::H264.uri(), "all", false);
    wait_until("a recording", || home.names(".tmp") == ["all.mp4.tmp"]);
    weir.wait_frames("all", 30);
    weir.terminate("all");
    decodes(&home.wait_finished(1)[0]);
}
