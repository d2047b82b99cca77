//! Recordings: names, parts, every frame, and times, judged by ffprobe and a full decode.

use std::path::{Path, PathBuf};

use crate::support::{Clip, Home, Media, Nginx, Packet, Publisher, Setup, Weir, decodes, probe, wait_until};
use serde_json::json;

/// When the recording of a clip is ended.
#[derive(Clone, Copy, PartialEq)]
enum Until {
    /// While the source still sends.
    Sending,
    /// After the source has left; the agent tries to get it back.
    Left,
}

/// A recording: its files in their order, and the frames the server had counted when it was ended.
struct Recorded {
    files: Vec<PathBuf>,
    counted: (u64, u64),
    weir: Weir,
}

/// Publishes a clip to a server that waits for it, and ends the recording after 8 s or after the clip.
///
/// The server has dialled before the first frame is sent, so that what it gets begins with the first frame.
fn record(home: &Home, clip: Clip, until: Until, setup: impl FnOnce(Setup) -> Setup) -> Recorded {
    clip.file();
    let nginx = Nginx::start();
    let base = home.setup().set("pull_connect_timeout=30000").set("stream_record_policy=streamName");
    let mut weir = setup(base).start();
    weir.pull(&nginx.uri("a"), "a", true);
    wait_until("weir to be connected to nginx", || connected(&weir, nginx.port()));
    let mut publisher = Publisher::start(clip, &nginx.uri("a"));
    if until == Until::Left {
        weir.announce("the source has ended the stream");
        weir.tolerate("Got EOS before any data");
        publisher.sent();
        weir.wait_log("stream interrupted");
    } else {
        weir.wait_frames("a", if clip.video_frames() > 0 { 200 } else { 345 });
    }
    let counted = weir.frames("a");
    weir.terminate("a");
    wait_until("the recording to be in place", || home.files(".tmp").is_empty() && !home.finished().is_empty());
    let mut files = home.finished();
    // a_1, a_2 … a_10, and then the last, which has no number.
    files.sort_by_key(|file| number(file).unwrap_or(u32::MAX));
    Recorded { files, counted, weir }
}

/// Whether the server's process has an established connection to `port`, and has had its say there.
fn connected(weir: &Weir, port: u16) -> bool {
    let table = std::fs::read_to_string(format!("/proc/{}/net/tcp", weir.pid())).unwrap();
    let remote = format!("0100007F:{port:04X}");
    let established = table.lines().any(|line| {
        let mut words = line.split_whitespace();
        words.nth(2) == Some(&remote) && words.next() == Some("01")
    });
    established && weir.pipelines("pull-rtmp").iter().any(|pipeline| pipeline["state"] == "PLAYING")
}

fn number(file: &Path) -> Option<u32> {
    file.file_stem()?.to_str()?.rsplit_once('_')?.1.parse().ok()
}

/// Judges the parts of one recording of `clip`: each for itself, and all together.
fn judge(clip: Clip, recorded: &Recorded) -> Vec<Media> {
    let parts: Vec<Media> = recorded.files.iter().map(|file| probe(file)).collect();
    for (file, part) in recorded.files.iter().zip(&parts) {
        decodes(file);
        judge_part(&file.display().to_string(), part);
    }
    let sent = probe(&clip.file());
    // Sound from before the first picture is not recorded.
    let silent =
        sent.video.first().map_or(0, |first| sent.audio.iter().filter(|packet| packet.pts < first.pts).count());
    let sizes = |packets: &[Packet]| packets.iter().map(|packet| packet.size).collect::<Vec<_>>();
    let all = |track: fn(&Media) -> &Vec<Packet>| parts.iter().flat_map(|part| sizes(track(part))).collect::<Vec<_>>();
    let (video, audio) = (all(|part| &part.video), all(|part| &part.audio));
    println!("{} parts; recorded {} and {} of {:?} counted", parts.len(), video.len(), audio.len(), recorded.counted);
    // Every frame the server has counted, none twice, in order, from the first one on.
    assert!(video.len() as u64 >= recorded.counted.0, "{} frames of {:?}", video.len(), recorded.counted);
    assert!((audio.len() + silent) as u64 >= recorded.counted.1, "{} frames of {:?}", audio.len(), recorded.counted);
    assert_eq!(audio[..], sizes(&sent.audio)[silent..][..audio.len()], "sound");
    let differ = video.iter().zip(sizes(&sent.video)).filter(|(ours, theirs)| **ours != *theirs).count();
    let keyframes = parts.iter().flat_map(|part| &part.video).filter(|packet| packet.key).count();
    assert!(differ <= keyframes, "only parameter sets may be added or left out: {differ} frames differ");
    let total: f64 = parts.iter().map(|part| part.duration).sum();
    let wanted = (video.len() as f64 / 25.0).max(audio.len() as f64 * 1024.0 / rate(&sent));
    assert!((total - wanted).abs() < 0.1 + 0.05 * parts.len() as f64, "{total} s recorded of {wanted} s");
    parts
}

fn rate(media: &Media) -> f64 {
    let found = media.streams.iter().find_map(|stream| stream["sample_rate"].as_str());
    found.map_or(f64::MAX, |rate| rate.parse().unwrap())
}

fn judge_part(name: &str, part: &Media) {
    for track in [&part.video, &part.audio] {
        let Some(first) = track.first() else { continue };
        assert!(first.key, "{name} starts with a frame that needs others");
        assert!(Media::start(track).abs() < 0.05, "{name} starts at {}", Media::start(track));
        assert!(track.windows(2).all(|two| two[0].dts < two[1].dts), "{name}: time stamps go back");
    }
    if !part.video.is_empty() && !part.audio.is_empty() {
        let offset = (Media::start(&part.video) - Media::start(&part.audio)).abs();
        assert!(offset < 0.04, "{name}: sound and pictures start {offset} s apart");
    }
    let length = Media::end(&part.video).max(Media::end(&part.audio));
    assert!((part.duration - length).abs() < 0.1, "{name} says {} s and has {length} s", part.duration);
}

#[test]
fn one_file_has_every_frame() {
    let home = Home::new();
    let recorded = record(&home, Clip::AV, Until::Sending, |setup| setup);
    let weir = &recorded.weir;
    assert_eq!(home.names(""), ["a.mp4"]);
    let parts = judge(Clip::AV, &recorded);
    let (video, audio) = (parts[0].stream("video"), parts[0].stream("audio"));
    assert_eq!((&video["codec_name"], &video["width"], &video["height"]), (&json!("h264"), &json!(320), &json!(180)));
    assert_eq!(
        (&audio["codec_name"], &audio["sample_rate"], &audio["channels"]),
        (&json!("aac"), &json!("44100"), &json!(2))
    );
    for text in ["recording started stream=a", "recording finished stream=\"a\"", "recovered=false"] {
        assert!(weir.logged(text) || weir.logged(&text.replace('"', "")), "{text} in {:#?}", weir.log());
    }
}

#[test]
fn parts_by_time_lose_not_one_frame() {
    let home = Home::new();
    let recorded = record(&home, Clip::AV, Until::Sending, |setup| setup.set("record_rotation=2"));
    let names = home.names("");
    // The source goes on while the recording is ended.
    assert!(names.len() >= 4 && names[..4] == ["a.mp4", "a_1.mp4", "a_2.mp4", "a_3.mp4"], "{names:?}");
    let parts = judge(Clip::AV, &recorded);
    for part in &parts[..parts.len() - 1] {
        assert_eq!(part.video.len(), 50, "two seconds at 25 frames a second");
        assert!((part.duration - 2.0).abs() < 0.06, "{}", part.duration);
    }
}

#[test]
fn parts_by_size_lose_not_one_frame() {
    let home = Home::new();
    let recorded = record(&home, Clip::AV, Until::Sending, |setup| setup.set("record_rotation=100K"));
    let files = &recorded.files;
    assert!(files.len() > 2, "{files:?}");
    judge(Clip::AV, &recorded);
    for file in files {
        let size = std::fs::metadata(file).unwrap().len();
        assert!(size < 115 << 10, "{} has {size} bytes", file.display());
    }
}

#[test]
fn b_frames_in_parts() {
    let home = Home::new();
    let recorded = record(&home, Clip::B_FRAMES, Until::Sending, |setup| setup.set("record_rotation=2"));
    let parts = judge(Clip::B_FRAMES, &recorded);
    let reordered = parts.iter().flat_map(|part| &part.video).any(|packet| packet.pts > packet.dts + 0.001);
    assert!(reordered && parts.len() > 3, "the clip has B-frames, and so have the parts");
}

#[test]
fn video_only() {
    let home = Home::new();
    let recorded = record(&home, Clip::VIDEO, Until::Sending, |setup| setup.set("record_rotation=3"));
    let parts = judge(Clip::VIDEO, &recorded);
    assert!(parts.len() == 3 && parts.iter().all(|part| part.streams.len() == 1));
}

#[test]
fn sound_only() {
    let home = Home::new();
    let recorded = record(&home, Clip::AUDIO, Until::Sending, |setup| setup.set("record_rotation=3"));
    let parts = judge(Clip::AUDIO, &recorded);
    assert!(parts.len() >= 3 && parts.iter().all(|part| part.streams.len() == 1));
}

#[test]
fn sound_of_48_khz_in_mono() {
    let home = Home::new();
    let recorded = record(&home, Clip::MONO_48, Until::Sending, |setup| setup);
    let parts = judge(Clip::MONO_48, &recorded);
    let audio = parts[0].stream("audio");
    assert_eq!((&audio["sample_rate"], &audio["channels"]), (&json!("48000"), &json!(1)));
}

#[test]
fn a_source_that_leaves_takes_no_frame_with_it() {
    let home = Home::new();
    let recorded = record(&home, Clip::AV, Until::Left, |setup| setup);
    let parts = judge(Clip::AV, &recorded);
    assert_eq!(parts[0].video.len(), Clip::AV.video_frames());
}
