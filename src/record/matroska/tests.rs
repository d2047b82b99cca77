//! A real file, cut at any place.

use super::*;
use proptest::prelude::*;
use std::io::Write as _;
use std::process::Command;
use std::sync::LazyLock;

/// Ten seconds of VP8 and Vorbis with a keyframe each second, made by the pipeline that recordings are made by.
static WHOLE: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("whole.webm");
    let line = "webmmux name=mux offset-to-zero=true ! filesink name=out \
        videotestsrc num-buffers=300 ! video/x-raw,width=160,height=120,framerate=30/1 ! \
        vp8enc deadline=1 keyframe-max-dist=30 ! mux.video_0 \
        audiotestsrc num-buffers=431 ! audio/x-raw,rate=44100 ! vorbisenc ! mux.audio_0";
    let words = line.replace("name=out", &format!("location={}", file.display()));
    let done = Command::new("gst-launch-1.0").arg("-q").args(words.split_whitespace()).output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    std::fs::read(file).unwrap()
});

fn file_of(bytes: &[u8]) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(bytes).unwrap();
    file
}

/// What a process that dies leaves: the first `len` bytes, with nothing of what is written last.
fn torn(len: usize) -> Vec<u8> {
    let mut bytes = WHOLE[..len].to_vec();
    let file = file_of(&WHOLE);
    let scan = Scan::run(file.as_file(), WHOLE.len() as u64).unwrap().unwrap();
    let mut put = |at: u64, new: &[u8]| {
        let at = usize::try_from(at).unwrap();
        if let Some(place) = bytes.get_mut(at..at + new.len()) {
            place.copy_from_slice(new);
        }
    };
    put(scan.segment.at, &[1, 255, 255, 255, 255, 255, 255, 255]);
    put(scan.duration.unwrap().at, &[0; 8]);
    bytes
}

#[test]
fn a_finished_file_is_only_read() {
    let file = file_of(&WHOLE);
    let found = repair_matroska(file.path()).unwrap();
    assert!(found.was_finished && found.bytes_cut == 0);
    assert!((found.duration.as_secs_f64() - 10.0).abs() < 0.05, "{found:?}");
    assert_eq!(std::fs::read(file.path()).unwrap(), *WHOLE);
}

#[test]
fn cut_at_many_places_it_is_whole_again() {
    let mut last = Duration::ZERO;
    for tenth in 1..=10 {
        let bytes = torn(WHOLE.len() * tenth / 10 - 3);
        let file = file_of(&bytes);
        let found = repair_matroska(file.path()).unwrap();
        assert!(!found.was_finished && found.duration > last, "{tenth}: {found:?}");
        last = found.duration;
        let told = repair_matroska(file.path()).unwrap();
        assert!(told.was_finished, "a second time there is nothing to do");
        assert_eq!(told.duration, found.duration);
        let seconds = found.duration.as_secs_f64();
        assert!((found.video_frames as f64 / 30.0 - seconds).abs() < 0.2, "{found:?}");
        // A cue for every keyframe in it.
        let bytes = std::fs::read(file.path()).unwrap();
        let cues = bytes.windows(4).rposition(|four| four == id::CUES.to_be_bytes()).unwrap();
        let points = bytes[cues..].iter().zip(&bytes[cues + 1..]).filter(|two| *two == (&0xBB, &1)).count();
        assert!(points as f64 >= seconds.floor(), "{points} cues in {seconds} s");
    }
    assert!((last.as_secs_f64() - 10.0).abs() < 0.1, "{last:?}");
}

#[test]
fn a_repair_that_was_cut_short_is_done_again() {
    let bytes = torn(WHOLE.len() / 2);
    let file = file_of(&bytes);
    let found = repair_matroska(file.path()).unwrap();
    let repaired = std::fs::read(file.path()).unwrap();
    // Everything is written but the segment's size, and not all of the cues.
    for len in [repaired.len(), repaired.len() - 1, repaired.len() - 100] {
        let mut half = repaired[..len].to_vec();
        let scan = Scan::run(file.as_file(), len as u64).unwrap().unwrap();
        let at = usize::try_from(scan.segment.at).unwrap();
        half[at..at + 8].copy_from_slice(&[1, 255, 255, 255, 255, 255, 255, 255]);
        let again = file_of(&half);
        assert_eq!(repair_matroska(again.path()).unwrap().duration, found.duration);
        assert_eq!(std::fs::read(again.path()).unwrap(), repaired);
    }
}

#[test]
fn what_has_no_block_is_nothing() {
    for bytes in [&b""[..], b"RIFF", &WHOLE[..20], &torn(300)] {
        let file = file_of(bytes);
        assert!(matches!(repair_matroska(file.path()), Err(RepairError::Nothing)), "{} bytes", bytes.len());
        assert_eq!(std::fs::read(file.path()).unwrap(), bytes, "it is left as it is");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn no_file_panics_and_a_repaired_one_stays(
        cut in 0.0..1.0f64,
        places in proptest::collection::vec((0.0..1.0f64, any::<u8>()), 0..6),
    ) {
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let at = |part: f64, of: usize| (part * of as f64) as usize;
        let mut bytes = torn(at(cut, WHOLE.len()));
        let len = bytes.len();
        for (place, byte) in places {
            if let Some(found) = bytes.get_mut(at(place * place * place, len)) {
                *found = byte;
            }
        }
        let file = file_of(&bytes);
        if let Ok(found) = repair_matroska(file.path()) {
            prop_assert!(found.bytes_kept <= len as u64);
            let before = std::fs::read(file.path()).unwrap();
            let again = repair_matroska(file.path());
            prop_assert!(again.is_ok(), "{:?}", again);
            prop_assert!(!again.unwrap().was_finished || std::fs::read(file.path()).unwrap() == before);
        }
    }

    #[test]
    fn garbage_is_nothing(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let file = file_of(&bytes);
        prop_assert!(repair_matroska(file.path()).is_err());
    }
}
