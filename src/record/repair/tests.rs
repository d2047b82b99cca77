//! Files built box by box for the odd cases, files of real pipelines that were killed for the usual ones.

use super::*;
use proptest::prelude::*;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};

fn boxed(kind: &[u8; 4], content: &[&[u8]]) -> Vec<u8> {
    let content = content.concat();
    let size = u32::try_from(content.len() + 8).unwrap();
    [&size.to_be_bytes(), &kind[..], &content].concat()
}

fn words(numbers: &[u32]) -> Vec<u8> {
    numbers.iter().flat_map(|number| number.to_be_bytes()).collect()
}

/// One video track, 1,000 ticks a second, 100 ticks a sample, with `samples` of them in the moov itself.
fn moov(kind: &[u8; 4], samples: u32, fragmented: bool) -> Vec<u8> {
    let header = |first: &[u32]| words(&[first, &[1000, samples * 100], &[0; 20]].concat());
    let tkhd = words(&[&[0, 0, 0, 1, 0, samples * 100], &[0; 15][..]].concat());
    let elst = words(&[0, 1, samples * 100, 200, 0x1_0000]);
    let hdlr = [&words(&[0, 0])[..], b"vide", &[0; 13]].concat();
    let stbl = boxed(b"stbl", &[&boxed(b"stsz", &[&words(&[0, 1, samples])])]);
    let mdia = boxed(
        b"mdia",
        &[&boxed(b"mdhd", &[&header(&[0, 0, 0])]), &boxed(b"hdlr", &[&hdlr]), &boxed(b"minf", &[&stbl])],
    );
    let edts = boxed(b"edts", &[&boxed(b"elst", &[&elst])]);
    let trak = boxed(b"trak", &[&boxed(b"tkhd", &[&tkhd]), &edts, &mdia]);
    let mehd = boxed(b"mehd", &[&words(&[0x0100_0000, 0, samples * 100])]);
    let mvex = boxed(b"mvex", &[&mehd, &boxed(b"trex", &[&words(&[0, 1, 1, 100, 10, 0])])]);
    let mvex: &[u8] = if fragmented { &mvex } else { &[] };
    boxed(kind, &[&boxed(b"mvhd", &[&header(&[0, 0, 0])]), &trak, mvex])
}

/// A fragment at file offset `at`: `samples` samples of 10 bytes, then their moof.
fn fragment(at: usize, start: u32, samples: u32) -> Vec<u8> {
    let mut out = boxed(b"free", &[]);
    out.extend(boxed(b"mdat", &[&vec![7; samples as usize * 10]]));
    let base = u32::try_from(at).unwrap();
    let tfhd = boxed(b"tfhd", &[&words(&[1, 1, 0, base])]);
    let tfdt = boxed(b"tfdt", &[&words(&[0, start])]);
    let trun = boxed(b"trun", &[&words(&[1, samples, 16])]);
    out.extend(boxed(b"moof", &[&boxed(b"mfhd", &[&words(&[0, 1])]), &boxed(b"traf", &[&tfhd, &tfdt, &trun])]));
    out
}

/// A recording as it is being written, and the offset behind its moov and behind each of its fragments.
fn recording(fragments: u32) -> (Vec<u8>, Vec<usize>) {
    let mut out = boxed(b"ftyp", &[b"mp42\0\0\0\0mp42"]);
    out.extend(boxed(b"free", &[]));
    out.extend(boxed(b"mdat", &[&[7; 50]]));
    out.extend(moov(b"moov", 5, true));
    let mut ends = vec![out.len()];
    for n in 0..fragments {
        out.extend(fragment(out.len(), 500 + n * 400, 4));
        ends.push(out.len());
    }
    (out, ends)
}

fn file_of(bytes: &[u8]) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(bytes).unwrap();
    file
}

fn u32_behind(bytes: &[u8], kind: &[u8; 4], skip: usize) -> u32 {
    let at = bytes.windows(4).position(|four| four == kind).unwrap() + 4 + skip;
    u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap())
}

#[test]
fn cut_at_any_byte_keeps_every_whole_fragment() {
    let (bytes, ends) = recording(3);
    for cut in 0..=bytes.len() {
        let file = file_of(&bytes[..cut]);
        let whole = ends.iter().rposition(|end| *end <= cut);
        match (repair_mp4(file.path()), whole) {
            (Err(RepairError::Nothing), None) => {}
            (Ok(repaired), Some(n)) => {
                assert_eq!(repaired.bytes_kept, ends[n] as u64, "cut at {cut}");
                assert_eq!(repaired.bytes_cut, (cut - ends[n]) as u64);
                assert_eq!(repaired.video_frames, 5 + 4 * n as u64);
                assert_eq!(repaired.duration, Duration::from_millis(500 + 400 * n as u64));
                assert!(!repaired.first_fragment_missing && !repaired.was_finished);
                let again = repair_mp4(file.path()).unwrap();
                assert_eq!(again, Repaired { bytes_cut: 0, ..repaired });
            }
            (result, whole) => panic!("cut at {cut}: {result:?}, whole: {whole:?}"),
        }
    }
}

#[test]
fn durations_are_those_of_the_kept_media() {
    let (bytes, _) = recording(3);
    let file = file_of(&bytes);
    repair_mp4(file.path()).unwrap();
    let bytes = std::fs::read(file.path()).unwrap();
    // The edit list begins at media time 200, so that 1,500 of the 1,700 ticks are shown.
    assert_eq!(u32_behind(&bytes, b"elst", 8), 1500);
    assert_eq!(u32_behind(&bytes, b"tkhd", 20), 1500);
    assert_eq!(u32_behind(&bytes, b"mvhd", 16), 1500);
    assert_eq!(u32_behind(&bytes, b"mehd", 8), 1500);
    assert_eq!(u32_behind(&bytes, b"mdhd", 16), 500, "that of the moov's own samples");
}

#[test]
fn an_open_mdat_is_torn() {
    let (mut bytes, ends) = recording(1);
    bytes.extend(boxed(b"free", &[]));
    bytes.extend(b"\0\0\0\0mdat and some media");
    let repaired = repair_mp4(file_of(&bytes).path()).unwrap();
    assert_eq!(repaired.bytes_kept, ends[1] as u64);
}

#[test]
fn a_tail_of_zeros_is_torn() {
    let (mut bytes, ends) = recording(1);
    bytes.extend([0; 5000]);
    let repaired = repair_mp4(file_of(&bytes).path()).unwrap();
    assert_eq!(repaired.bytes_kept, ends[1] as u64);
}

/// The states of a file between "finishing, 1" and "finished", with the number of bytes behind its fragments.
fn finishing(wide: bool, tail: &[u8]) -> Vec<u8> {
    let (mut bytes, _) = recording(3);
    let moov = bytes.windows(4).position(|four| four == b"moov").unwrap();
    bytes[moov] = b'h';
    if wide {
        let mdat = bytes.windows(4).position(|four| four == b"mdat").unwrap() - 4;
        let size = u32::try_from(bytes.len() - mdat).unwrap();
        bytes[mdat..mdat + 4].copy_from_slice(&size.to_be_bytes());
    }
    bytes.extend(tail);
    bytes
}

#[test]
fn a_hidden_moov_is_put_back() {
    let (plain, ends) = recording(3);
    let last = moov(b"moov", 17, false);
    for (wide, tail) in [(false, 0), (true, 0), (true, 1), (true, 9), (true, last.len() - 1)] {
        let file = file_of(&finishing(wide, &last[..tail]));
        let repaired = repair_mp4(file.path()).unwrap();
        assert_eq!((repaired.video_frames, repaired.bytes_kept), (17, ends[3] as u64), "{wide} {tail}");
        let same = file_of(&plain);
        repair_mp4(same.path()).unwrap();
        assert_eq!(std::fs::read(file.path()).unwrap(), std::fs::read(same.path()).unwrap());
    }
}

#[test]
fn a_hidden_moov_behind_a_64_bit_size_is_put_back() {
    let mut bytes = finishing(true, &[]);
    let free = bytes.windows(4).position(|four| four == b"free").unwrap() - 4;
    let size = (bytes.len() - free) as u64;
    bytes[free..free + 8].copy_from_slice(b"\0\0\0\x01mdat");
    bytes[free + 8..free + 16].copy_from_slice(&size.to_be_bytes());
    let repaired = repair_mp4(file_of(&bytes).path()).unwrap();
    assert_eq!(repaired.video_frames, 17);
}

#[test]
fn a_finished_file_is_only_read() {
    let bytes = finishing(true, &moov(b"moov", 17, false));
    let file = file_of(&bytes);
    let repaired = repair_mp4(file.path()).unwrap();
    assert!(repaired.was_finished && repaired.bytes_cut == 0);
    assert_eq!((repaired.video_frames, repaired.duration), (17, Duration::from_millis(1700)));
    assert_eq!(std::fs::read(file.path()).unwrap(), bytes);
}

#[test]
fn a_cut_never_takes_a_whole_fragment() {
    let (mut bytes, ends) = recording(3);
    bytes[ends[1]..ends[1] + 20].fill(0xff);
    let file = file_of(&bytes);
    let at = ends[1] as u64;
    assert!(matches!(repair_mp4(file.path()), Err(RepairError::Damaged { at: found }) if found == at));
    assert_eq!(std::fs::read(file.path()).unwrap(), bytes);
}

#[test]
fn a_moof_before_its_media_needs_all_of_it() {
    let (start, ends) = recording(0);
    let back = fragment(start.len(), 500, 4);
    let (mdat, moof) = back.split_at(8 + 48);
    // The samples follow the moof: free, moof, mdat; 8 + 8 bytes of heads before them.
    let moof = {
        let mut moof = moof.to_vec();
        let offset = u32::try_from(8 + moof.len() + 8).unwrap();
        let at = moof.len() - 4;
        moof[at..].copy_from_slice(&offset.to_be_bytes());
        moof
    };
    let bytes = [&start[..], &mdat[..8], &moof, &mdat[8..]].concat();
    let repaired = repair_mp4(file_of(&bytes).path()).unwrap();
    assert_eq!((repaired.video_frames, repaired.bytes_cut), (9, 0));
    let repaired = repair_mp4(file_of(&bytes[..bytes.len() - 1]).path()).unwrap();
    assert_eq!((repaired.video_frames, repaired.bytes_kept), (5, ends[0] as u64));
}

#[test]
fn a_file_over_4_gib() {
    const FIRST: u64 = 5 << 30;
    let file = tempfile::NamedTempFile::new().unwrap();
    let head = [&boxed(b"ftyp", &[b"mp42"])[..], b"\0\0\0\x01mdat", &FIRST.to_be_bytes()].concat();
    let moov = moov(b"moov", 5, true);
    let at = 12 + FIRST;
    let fragment_at = at + moov.len() as u64;
    // A 64-bit base, with the fragment's own offsets left as they are.
    let mut fragment = fragment(0, 500, 4);
    let tfhd = fragment.windows(4).position(|four| four == b"tfhd").unwrap();
    fragment[tfhd + 12..tfhd + 20].copy_from_slice(&fragment_at.to_be_bytes());
    let handle = file.as_file();
    handle.write_all_at(&head, 0).unwrap();
    handle.write_all_at(&moov, at).unwrap();
    handle.write_all_at(&fragment, fragment_at).unwrap();
    let end = fragment_at + fragment.len() as u64;
    handle.write_all_at(b"\0\0\0\x08free\0\0\0\x01mdat\x7f\xff", end).unwrap();
    let repaired = repair_mp4(file.path()).unwrap();
    assert_eq!((repaired.bytes_kept, repaired.bytes_cut, repaired.video_frames), (end, 18, 9));
}

#[test]
fn missing_beginning() {
    let mut bytes = boxed(b"ftyp", &[b"mp42"]);
    bytes.extend(moov(b"moov", 0, true));
    assert!(matches!(repair_mp4(file_of(&bytes).path()), Err(RepairError::Nothing)));
    bytes.extend(fragment(bytes.len(), 500, 4));
    let repaired = repair_mp4(file_of(&bytes).path()).unwrap();
    assert!(repaired.first_fragment_missing);
    assert_eq!((repaired.video_frames, repaired.duration), (4, Duration::from_millis(900)));
}

#[test]
fn a_path_that_is_no_file() {
    assert!(matches!(repair_mp4(Path::new("/nonexistent/a.mp4.tmp")), Err(RepairError::Io(_))));
    assert!(matches!(repair_mp4(file_of(b"").path()), Err(RepairError::Nothing)));
}

/// Repairs any bytes: the sums have to be right, a failure has to leave the file alone.
fn survives(bytes: &[u8]) {
    let file = file_of(bytes);
    match repair_mp4(file.path()) {
        Ok(repaired) => {
            assert_eq!(repaired.bytes_kept + repaired.bytes_cut, bytes.len() as u64);
            assert_eq!(file.as_file().metadata().unwrap().len(), repaired.bytes_kept);
            let again = repair_mp4(file.path()).unwrap();
            assert_eq!((again.bytes_kept, again.bytes_cut), (repaired.bytes_kept, 0));
        }
        Err(RepairError::Io(error)) => panic!("{error}"),
        Err(_) => assert_eq!(std::fs::read(file.path()).unwrap(), bytes),
    }
}

fn any_box() -> impl Strategy<Value = Vec<u8>> {
    let kinds =
        *b"ftypfreemdatmoovhoovmoofmvhdtraktkhdmdiamdhdminfstblstszcttselstedtsmvexmehdtrextraftfhdtfdttrunmfhd";
    let kind = (0..kinds.len() / 4).prop_map(move |n| kinds[n * 4..n * 4 + 4].to_vec());
    let size = prop_oneof![0..64_u32, Just(0), Just(1), any::<u32>()];
    (size, kind, proptest::collection::vec(any::<u8>(), 0..40))
        .prop_map(|(size, kind, rest)| [&size.to_be_bytes()[..], &kind, &rest].concat())
}

proptest! {
    #[test]
    fn any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..2000)) {
        survives(&bytes);
    }

    #[test]
    fn any_boxes(boxes in proptest::collection::vec(any_box(), 0..30), start: bool) {
        let start = if start { recording(1).0 } else { vec![] };
        survives(&[start, boxes.concat()].concat());
    }

    #[test]
    fn changed_bytes(changes in proptest::collection::vec((any::<proptest::sample::Index>(), any::<[u8; 4]>(), 1..5_usize), 1..4), wide: bool, hidden: bool) {
        let mut bytes = if hidden { finishing(wide, b"\0\0\xff\xffmoov") } else { recording(3).0 };
        for (at, with, len) in changes {
            let at = at.index(bytes.len() - 4);
            bytes[at..at + len.min(4)].copy_from_slice(&with[..len.min(4)]);
        }
        survives(&bytes);
    }
}

// Files of real pipelines.

const VIDEO: &str = "videotestsrc ! video/x-raw,width=160,height=120,framerate=30/1 ! x264enc speed-preset=ultrafast \
                     key-int-max=30 bframes=0 ! h264parse ! queue ! m.";
const VIDEO_B: &str = "videotestsrc ! video/x-raw,width=160,height=120,framerate=30/1 ! x264enc speed-preset=ultrafast \
                       key-int-max=30 bframes=2 ! h264parse ! queue ! m.";
const AUDIO: &str = "audiotestsrc ! audio/x-raw,rate=44100,channels=2 ! avenc_aac ! aacparse ! queue ! m.";

/// Packets of one size, as silence has; with a GOP of pictures of one size, as a still picture has.
const SILENCE: &str =
    "audiotestsrc wave=silence ! audio/x-raw,rate=48000,channels=2 ! voaacenc ! aacparse ! queue ! m.";

fn launch(path: &Path, branches: &[&str]) -> Command {
    let mux =
        "mp4mux name=m fragment-duration=500 fragment-mode=first-moov-then-finalise ! filesink buffer-mode=unbuffered";
    let line = format!("{mux} location={} {}", path.display(), branches.join(" "));
    let mut command = Command::new("gst-launch-1.0");
    command.arg("-q").args(line.split_whitespace()).stdout(Stdio::null());
    command
}

/// The bytes of a recording whose process was killed when the file had `size` bytes.
fn killed(branches: &[&str], size: u64) -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.mp4.tmp");
    let mut process = launch(&path, branches).spawn().unwrap();
    let deadline = std::time::Instant::now() + Duration::from_secs(60);
    while std::fs::metadata(&path).map_or(0, |meta| meta.len()) < size {
        assert!(process.try_wait().unwrap().is_none(), "it ended by itself");
        assert!(std::time::Instant::now() < deadline, "no {size} bytes in time");
        std::thread::sleep(Duration::from_millis(2));
    }
    process.kill().unwrap();
    process.wait().unwrap();
    std::fs::read(path).unwrap()
}

fn output(program: &str, args: &[&str], path: &Path) -> String {
    let result = Command::new(program).args(args).arg(path).output().unwrap();
    assert!(result.status.success(), "{program}: {}", String::from_utf8_lossy(&result.stderr));
    String::from_utf8(result.stdout).unwrap()
}

/// What ffprobe counts in a file: seconds, frames of video, packets of audio. The file has to decode without an error.
fn judge(path: &Path) -> (f64, u64, u64) {
    let decoded =
        Command::new("ffmpeg").args(["-xerror", "-v", "error", "-i"]).arg(path).args(["-f", "null", "-"]).output();
    let decoded = decoded.unwrap();
    assert!(decoded.status.success() && decoded.stderr.is_empty(), "{}", String::from_utf8_lossy(&decoded.stderr));
    let seconds = output("ffprobe", &["-v", "error", "-show_entries", "format=duration", "-of", "csv=p=0"], path);
    let count = |stream| {
        let args = [
            "-v",
            "error",
            "-count_packets",
            "-select_streams",
            stream,
            "-show_entries",
            "stream=nb_read_packets",
            "-of",
            "csv=p=0",
        ];
        output("ffprobe", &args, path).trim().parse().unwrap_or(0)
    };
    (seconds.trim().parse().unwrap(), count("v"), count("a"))
}

/// Cuts the bytes at random places, repairs each, and has other tools look at the result.
fn cut_and_judge(bytes: &[u8], cuts: u64) {
    let dir = tempfile::tempdir().unwrap();
    let path: PathBuf = dir.path().join("a.mp4");
    let moov = bytes.windows(4).position(|four| four == b"moov").unwrap() as u64;
    let first = moov - 4 + u64::from(size_at(bytes, moov as usize - 4));
    let mut random: u64 = 0x9e37_79b9_7f4a_7c15;
    for n in 0..cuts {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let cut = if n == 0 { bytes.len() as u64 } else { (random >> 16) % bytes.len() as u64 };
        std::fs::write(&path, &bytes[..cut as usize]).unwrap();
        let repaired = match repair_mp4(&path) {
            Err(RepairError::Nothing) if cut < first => continue,
            result => result.unwrap(),
        };
        let (seconds, video, audio) = judge(&path);
        assert_eq!((video, audio), (repaired.video_frames, repaired.audio_frames), "cut at {cut}");
        assert!(
            (seconds - repaired.duration.as_secs_f64()).abs() < 0.05,
            "cut at {cut}: {seconds} {:?}",
            repaired.duration
        );
        assert!(!repaired.first_fragment_missing && !repaired.was_finished);
    }
}

fn size_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap())
}

#[test]
fn killed_with_sound_and_b_frames() {
    cut_and_judge(&killed(&[VIDEO_B, AUDIO], 800_000), 20);
}

#[test]
fn killed_with_sound() {
    cut_and_judge(&killed(&[VIDEO, AUDIO], 800_000), 15);
}

/// mp4mux leaves the size out of a run of one sample that is as long as the fragment's first (see `media::mend_moof`).
#[test]
fn killed_with_packets_of_one_size() {
    let bytes = killed(&[VIDEO, SILENCE], 800_000);
    cut_and_judge(&bytes, 15);
    let path = file_of(&bytes);
    let mended = repair_mp4(path.path()).unwrap();
    assert_ne!(std::fs::read(path.path()).unwrap()[..mended.bytes_kept as usize], bytes[..mended.bytes_kept as usize]);
}

#[test]
fn killed_with_video_only() {
    cut_and_judge(&killed(&[VIDEO_B], 800_000), 15);
}

#[test]
fn killed_with_sound_only() {
    cut_and_judge(&killed(&[AUDIO], 100_000), 15);
}

/// GStreamer's demuxer ends at the edit list, which mp4mux writes with the first fragment's duration.
#[test]
fn a_player_that_follows_the_edit_list_shows_everything() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.mp4");
    std::fs::write(&path, killed(&[VIDEO_B, AUDIO], 800_000)).unwrap();
    let repaired = repair_mp4(&path).unwrap();
    let source = format!("location={}", path.display());
    let args = [
        "-v",
        "filesrc",
        &source,
        "!",
        "qtdemux",
        "name=d",
        "d.video_0",
        "!",
        "queue",
        "!",
        "fakesink",
        "silent=false",
        "sync=false",
    ];
    let shown = Command::new("gst-launch-1.0").args(args).output().unwrap();
    let shown = String::from_utf8_lossy(&shown.stdout).matches("chain   *").count() as u64;
    assert_eq!(shown, repaired.video_frames);
}

#[test]
fn killed_while_it_finished() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.mp4");
    let video = VIDEO_B.replacen("videotestsrc", "videotestsrc num-buffers=100", 1);
    let audio = AUDIO.replacen("audiotestsrc", "audiotestsrc num-buffers=140", 1);
    assert!(launch(&path, &[&video, &audio]).status().unwrap().success());
    let whole = std::fs::read(&path).unwrap();
    let done = repair_mp4(&path).unwrap();
    assert!(done.was_finished);
    assert_eq!(std::fs::read(&path).unwrap(), whole);
    let (seconds, video, audio) = judge(&path);
    assert_eq!((video, audio), (done.video_frames, done.audio_frames));
    assert!((seconds - done.duration.as_secs_f64()).abs() < 0.05);

    let last = whole.windows(4).rposition(|four| four == b"moov").unwrap() - 4;
    for cut in [last, last + 6, last + 700, whole.len() - 1] {
        std::fs::write(&path, &whole[..cut]).unwrap();
        let repaired = repair_mp4(&path).unwrap();
        // What was still in the queues when the last fragment ended is described by the last moov alone.
        assert!(done.duration - repaired.duration < Duration::from_millis(1000), "{repaired:?} of {done:?}");
        let (seconds, video, audio) = judge(&path);
        assert_eq!((video, audio), (repaired.video_frames, repaired.audio_frames));
        assert!((seconds - repaired.duration.as_secs_f64()).abs() < 0.05);
    }
}
