//! Files of another muxer, and the tables one by one.

use super::*;
use crate::config::Container;
use proptest::prelude::*;
use std::path::PathBuf;
use std::process::Command;

/// Ten seconds of 30 pictures a second, a keyframe each second, and AAC.
fn film(dir: &Path, extension: &str, b_frames: u8) -> PathBuf {
    let file = dir.join(format!("film-{b_frames}.{extension}"));
    let mut ffmpeg = Command::new("ffmpeg");
    ffmpeg.args(["-v", "error", "-f", "lavfi", "-i", "testsrc2=size=160x120:rate=30", "-f", "lavfi", "-i", "sine"]);
    ffmpeg.args(["-t", "10", "-c:v", "libx264", "-preset", "ultrafast", "-g", "30", "-sc_threshold", "0"]);
    ffmpeg.args(["-bf", &b_frames.to_string(), "-pix_fmt", "yuv420p", "-c:a", "aac", "-ar", "44100"]).arg(&file);
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
        let file = film(dir.path(), container.extension(), b_frames);
        let (video, audio, _) = packets(&file);
        for (until, pictures, sound) in [
            (Until { video: seconds(20.0), audio: seconds(20.0) }, 300, 20.0),
            (Until { video: None, audio: None }, 300, 20.0),
            (Until { video: seconds(7.0), audio: seconds(7.5) }, 210, 7.5),
            (Until { video: seconds(5.0), audio: seconds(5.0) }, 150, 5.0),
            (Until { video: seconds(5.0), audio: seconds(1.0) }, 150, 1.0),
        ] {
            container.trim(&file, until).unwrap();
            let about = format!("{container:?}, {b_frames} B-frames, {until:?}");
            let (left_video, left_audio, length) = packets(&file);
            assert_eq!(left_video, video[..pictures], "{about}");
            let wanted: Vec<f64> = audio.iter().copied().filter(|time| *time < sound - 0.002).collect();
            assert_eq!(left_audio, wanted, "{about}");
            let end = left_video.iter().chain(&left_audio).copied().fold(0.0, f64::max);
            assert!(length >= end && length < end + 0.1, "{about}: it says {length} s and has {end} s and a frame");
            let found = container.mend(&file).unwrap();
            assert!(found.was_finished && found.duration.as_secs_f64().abs() < length + 0.1, "{about}: {found:?}");
        }
        let mut ffmpeg = Command::new("ffmpeg");
        let done = ffmpeg.args(["-v", "error", "-xerror", "-i"]).arg(&file).args(["-f", "null", "-"]).output().unwrap();
        assert!(done.status.success() && done.stderr.is_empty(), "{}", String::from_utf8_lossy(&done.stderr));
        // Sound alone is left, and then nothing.
        container.trim(&file, Until { video: seconds(0.0), audio: seconds(0.5) }).unwrap();
        let (left_video, left_audio, _) = packets(&file);
        assert_eq!((left_video.len(), left_audio.len() > 15), (0, true), "{container:?}");
    }
}

#[test]
fn a_file_of_which_nothing_is_left_is_empty() {
    let dir = tempfile::tempdir().unwrap();
    for container in [Container::Mp4, Container::Mkv, Container::Ts] {
        let file = film(dir.path(), container.extension(), 0);
        container.trim(&file, Until { video: seconds(0.0), audio: seconds(0.0) }).unwrap();
        assert_eq!(std::fs::metadata(&file).unwrap().len(), 0, "{container:?}");
    }
}

#[test]
fn tables_are_shortened() {
    let table = |words: &[u32]| words.iter().flat_map(|word| word.to_be_bytes()).collect::<Vec<u8>>();
    let mut runs = table(&[0, 3, 2, 10, 3, 20, 4, 30]);
    assert_eq!(super::runs(&runs, 9).unwrap(), [10, 10, 20, 20, 20, 30, 30, 30, 30]);
    keep_runs(&mut runs, 4);
    assert_eq!(runs, table(&[0, 2, 2, 10, 2, 20]));
    let found = chunks(&table(&[0, 2, 1, 3, 1, 3, 2, 1]), &table(&[0, 4]), 10).unwrap();
    assert_eq!(found, [(3, 1), (3, 1), (2, 1), (2, 1)]);
    assert_eq!(kept_chunks(&found, 5), [(3, 1), (2, 1)]);
    assert_eq!(kept_chunks(&found, 6), [(3, 1), (3, 1)]);
    assert_eq!(chunk_runs(&kept_chunks(&found, 7)), [1, 3, 1, 3, 1, 1]);
}

proptest! {
    #[test]
    fn no_index_panics(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..8), until in 0..2000_u64,
    ) {
        let table = |words: &[u32]| words.iter().flat_map(|word| word.to_be_bytes()).collect::<Vec<u8>>();
        let leaf = |kind: &[u8; 4], bytes: Vec<u8>| Node { kind: *kind, content: Content::Bytes(bytes) };
        let boxes = |kind: &[u8; 4], children: Vec<Node>| Node { kind: *kind, content: Content::Boxes(children) };
        let header = table(&[0, 0, 0, 1000, 900, 0]);
        let stbl = boxes(b"stbl", vec![
            leaf(b"stts", table(&[0, 1, 9, 100])),
            leaf(b"ctts", table(&[0, 1, 9, 0])),
            leaf(b"stss", table(&[0, 2, 1, 5])),
            leaf(b"stsz", table(&[0, 0, 9, 1, 1, 1, 1, 1, 1, 1, 1, 1])),
            leaf(b"stsc", table(&[0, 1, 1, 3, 1])),
            leaf(b"stco", table(&[0, 3, 10, 20, 30])),
        ]);
        let mdia = boxes(b"mdia", vec![
            leaf(b"mdhd", header.clone()),
            leaf(b"hdlr", [&table(&[0, 0])[..], b"vide"].concat()),
            boxes(b"minf", vec![stbl]),
        ]);
        let edts = boxes(b"edts", vec![leaf(b"elst", table(&[0, 1, 900, 0, 0x1_0000]))]);
        let trak = boxes(b"trak", vec![leaf(b"tkhd", table(&[0, 0, 0, 1, 0, 900])), edts, mdia]);
        let moov = boxes(b"moov", vec![leaf(b"mvhd", header), trak]);
        let mut bytes = moov.bytes();
        prop_assert_eq!(Node::read(*b"moov", &bytes[8..], 0).unwrap(), moov);
        for (at, byte) in &changes {
            let at = 8 + at.index(bytes.len() - 8);
            bytes[at] = *byte;
        }
        let until = Some(Duration::from_millis(until));
        if let Some(mut moov) = Node::read(*b"moov", &bytes[8..], 0) {
            let left = moov.trim(Until { video: until, audio: until });
            prop_assert!(!changes.is_empty() || left == Some(usize::from(until > Some(ROUNDING))));
        }
    }
}
