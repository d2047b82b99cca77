//! What is chosen, and files that are trimmed as they are finished.

use super::*;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

/// Ten seconds of 30 pictures a second, a keyframe each second, and AAC; an MP4 is in fragments.
fn film(dir: &Path, extension: &str, b_frames: u8) -> PathBuf {
    let file = dir.join(format!("film-{b_frames}.{extension}"));
    let mut ffmpeg = Command::new("ffmpeg");
    ffmpeg.args(["-v", "error", "-f", "lavfi", "-i", "testsrc2=size=160x120:rate=30", "-f", "lavfi", "-i", "sine"]);
    ffmpeg.args(["-t", "10", "-c:v", "libx264", "-preset", "ultrafast", "-g", "30", "-sc_threshold", "0"]);
    ffmpeg.args(["-bf", &b_frames.to_string(), "-pix_fmt", "yuv420p", "-c:a", "aac", "-ar", "44100"]);
    ffmpeg.args(["-movflags", "empty_moov+delay_moov+default_base_moof", "-frag_duration", "500000"]).arg(&file);
    let done = ffmpeg.output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    file
}

/// The packets' times of presentation, in seconds: pictures, sound. And how long the file says that it is.
fn packets(file: &Path) -> (Vec<f64>, Vec<f64>, f64) {
    let probe = |what: &str| {
        let mut ffprobe = Command::new("ffprobe");
        ffprobe.args(["-v", "error", "-of", "csv=p=0", "-show_entries", what]).arg(file);
        let done = ffprobe.output().unwrap();
        assert!(done.status.success() && done.stderr.is_empty(), "{}", String::from_utf8_lossy(&done.stderr));
        String::from_utf8(done.stdout).unwrap()
    };
    let (mut video, mut audio) = (Vec::new(), Vec::new());
    for line in probe("packet=codec_type,pts_time").lines() {
        // A packet with side data is followed by an empty line.
        let Some((kind, time)) = line.trim_end_matches(',').split_once(',') else { continue };
        if kind == "video" { &mut video } else { &mut audio }.push(time.parse().unwrap());
    }
    (video, audio, probe("format=duration").trim().parse().unwrap())
}

fn seconds(seconds: f64) -> Option<Duration> {
    Some(Duration::from_secs_f64(seconds))
}

#[test]
fn frames_from_a_time_on_are_taken_off() {
    let dir = tempfile::tempdir().unwrap();
    // ffmpeg puts several packets of sound under one time stamp of a transport stream, which weir does not: the tests of whole
    // recordings judge that.
    for (container, b_frames) in [(Container::Mp4, 0), (Container::Mp4, 2), (Container::Mkv, 0)] {
        let film = film(dir.path(), container.extension(), b_frames);
        let file = film.with_file_name(format!("part.{}", container.extension()));
        let (video, audio, _) = packets(&film);
        for (until, pictures, sound) in [
            (None, 300, 20.0),
            (Some(Until { video: seconds(20.0), audio: seconds(20.0) }), 300, 20.0),
            (Some(Until { video: None, audio: None }), 300, 20.0),
            (Some(Until { video: seconds(7.0), audio: seconds(7.5) }), 210, 7.5),
            (Some(Until { video: seconds(5.0), audio: seconds(5.0) }), 150, 5.0),
            (Some(Until { video: seconds(5.0), audio: seconds(1.0) }), 150, 1.0),
            (Some(Until { video: seconds(0.0), audio: seconds(0.5) }), 0, 0.5),
        ] {
            std::fs::copy(&film, &file).unwrap();
            let about = format!("{container:?}, {b_frames} B-frames, {until:?}");
            let found = container.finish(&file, until).unwrap().unwrap();
            let (left_video, left_audio, length) = packets(&file);
            assert_eq!(left_video, video[..pictures], "{about}");
            let wanted: Vec<f64> = audio.iter().copied().filter(|time| *time < sound - 0.002).collect();
            assert_eq!(left_audio, wanted, "{about}");
            // What another muxer finished is only counted where there is an index that tells.
            let counted = (found.video_frames, found.audio_frames);
            assert!(found.was_finished || counted == (pictures as u64, wanted.len() as u64), "{about}: {found:?}");
            let end = left_video.iter().chain(&left_audio).copied().fold(0.0, f64::max);
            assert!(length >= end && length < end + 0.1, "{about}: it says {length} s and has {end} s and a frame");
            assert!((found.duration.as_secs_f64() - length).abs() < 0.1, "{about}: {found:?}");
            // ffmpeg refuses a track of pictures without one, which a Matroska still has.
            if pictures > 0 {
                let mut ffmpeg = Command::new("ffmpeg");
                let ffmpeg = ffmpeg.args(["-v", "error", "-xerror", "-i"]).arg(&file).args(["-f", "null", "-"]);
                let done = ffmpeg.output().unwrap();
                assert!(done.status.success() && done.stderr.is_empty(), "{}", String::from_utf8_lossy(&done.stderr));
            }
            assert!(container.finish(&file, None).unwrap().unwrap().was_finished, "{about}: a second time");
        }
    }
}

#[test]
fn a_file_of_which_nothing_is_left() {
    let dir = tempfile::tempdir().unwrap();
    for container in [Container::Mp4, Container::Mkv, Container::Ts] {
        let file = film(dir.path(), container.extension(), 0);
        let nothing = Until { video: seconds(0.0), audio: seconds(0.0) };
        assert_eq!(container.finish(&file, Some(nothing)).unwrap(), None, "{container:?}");
    }
}

fn track(kind: Kind, codec: Codec) -> Track {
    let caps = String::new();
    Track { kind, codec, width: 0, height: 0, rate: 0, channels: 0, profile_level_id: None, b_frames: false, caps }
}

#[test]
fn the_codecs_choose() {
    use Codec::{Aac, H264, H265, Opus, Other, Pcma, Pcmu, Vp8};
    let (video, audio) = (Kind::Video, Kind::Audio);
    let everything = Recorded::Everything;
    let (default, mkv): (RecordFormats, RecordFormats) =
        (RecordFormats::default(), "h264-mkv,vp8-mkv".parse().unwrap());
    let ts: RecordFormats = "h264-ts".parse().unwrap();
    for (tracks, recorded, formats, container, kept) in [
        (vec![(video, H264), (audio, Aac)], everything, default, Container::Mp4, 2),
        (vec![(video, H264), (audio, Opus)], everything, default, Container::Mp4, 2),
        (vec![(video, Vp8), (audio, Opus)], everything, default, Container::WebM, 2),
        (vec![(video, Vp8), (audio, Aac)], everything, default, Container::WebM, 1),
        (vec![(audio, Pcma)], everything, default, Container::Mp4, 1),
        (vec![(video, H264), (audio, Aac)], Recorded::SoundOnly, default, Container::Mp4, 1),
        (vec![(video, Vp8), (audio, Opus)], Recorded::SoundOnly, default, Container::Mp4, 1),
        (vec![(video, Other("video/x-h263".into()))], everything, default, Container::Mp4, 0),
        (vec![(video, H264), (audio, Opus)], everything, mkv, Container::Mkv, 2),
        (vec![(video, Vp8), (audio, Aac)], everything, mkv, Container::Mkv, 2),
        (vec![(video, H265), (audio, Opus)], everything, mkv, Container::Mp4, 2),
        (vec![(audio, Aac)], everything, mkv, Container::Mp4, 1),
        (vec![(video, H264), (audio, Aac)], Recorded::SoundOnly, mkv, Container::Mp4, 1),
        (vec![(video, H264), (audio, Pcmu)], everything, ts, Container::Ts, 2),
        (vec![(video, Vp8), (audio, Opus)], everything, ts, Container::WebM, 2),
    ] {
        let tracks: Vec<Track> = tracks.into_iter().map(|(kind, codec)| track(kind, codec)).collect();
        let chosen = choose(&tracks, recorded, formats);
        assert_eq!((chosen.0, chosen.1.len()), (container, kept), "{tracks:?} {recorded:?} {formats}");
    }
}
