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

/// One video track, 1,000 ticks a second; what has a `mvex` has fragments.
fn moov(fragmented: bool) -> Vec<u8> {
    let mut track = Trak::default();
    track.tkhd.track_id = 1;
    track.mdia.mdhd.timescale = 1000;
    track.mdia.hdlr.handler = mp4_atom::FourCC::new(b"vide");
    track.mdia.minf.stbl.stsz.samples = mp4_atom::StszSamples::Identical { count: 17, size: 10 };
    let defaults = mp4_atom::Trex {
        track_id: 1,
        default_sample_description_index: 1,
        default_sample_duration: 100,
        default_sample_size: 10,
        default_sample_flags: 0,
    };
    let mut movie = Moov { trak: vec![track], ..Moov::default() };
    movie.mvhd.timescale = 1000;
    movie.mvhd.duration = 1700;
    movie.mvex = fragmented.then(|| mp4_atom::Mvex { trex: vec![defaults], ..Default::default() });
    let mut bytes = Vec::new();
    movie.encode(&mut bytes).unwrap();
    bytes
}

/// `samples` samples of 10 bytes from `start` on: their moof, and they.
fn fragment(start: u32, samples: u32) -> Vec<u8> {
    let tfhd = boxed(b"tfhd", &[&words(&[0, 1])]);
    let tfdt = boxed(b"tfdt", &[&words(&[0, start])]);
    let moof = |offset| {
        let trun = boxed(b"trun", &[&words(&[1, samples, offset])]);
        boxed(b"moof", &[&boxed(b"mfhd", &[&words(&[0, 1])]), &boxed(b"traf", &[&tfhd, &tfdt, &trun])])
    };
    let offset = u32::try_from(moof(0).len() + 8).unwrap();
    [moof(offset), boxed(b"mdat", &[&vec![7; samples as usize * 10]])].concat()
}

/// A recording as it is being written, and the offset behind its moov and behind each of its fragments.
fn recording(fragments: u32) -> (Vec<u8>, Vec<usize>) {
    let mut out = boxed(b"ftyp", &[b"mp42\0\0\0\0mp42"]);
    out.extend(moov(true));
    let mut ends = vec![out.len()];
    for n in 0..fragments {
        out.extend(fragment(n * 400, 4));
        ends.push(out.len());
    }
    (out, ends)
}

fn file_of(bytes: &[u8]) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(bytes).unwrap();
    file
}

fn repair_mp4(path: &Path) -> Result<Repaired, RepairError> {
    finish_mp4(path, None).map(|found| found.unwrap_or_default())
}

/// The index that a file ends with, and where it stands.
fn index_of(bytes: &[u8]) -> (Moov, usize) {
    let at = bytes.windows(4).rposition(|four| four == b"moov").unwrap() - 4;
    (Moov::decode(&mut &bytes[at..]).unwrap(), at)
}

#[test]
fn cut_at_any_byte_keeps_every_whole_fragment() {
    let (bytes, ends) = recording(3);
    for cut in 0..=bytes.len() {
        let file = file_of(&bytes[..cut]);
        let whole = ends.iter().rposition(|end| *end <= cut);
        match (finish_mp4(file.path(), None), whole) {
            (Err(RepairError::Nothing), None | Some(0)) => {}
            // Whole boxes of which none is media.
            (Ok(None), None | Some(0)) => assert!([0, 20, ends[0]].contains(&cut), "cut at {cut}"),
            (Ok(Some(found)), Some(n)) => {
                assert_eq!(found.bytes_cut, (cut - ends[n]) as u64, "cut at {cut}");
                assert_eq!(found.video_frames, 4 * n as u64);
                assert_eq!(found.duration, Duration::from_millis(400 * n as u64));
                assert_eq!(found.bytes_kept, file.as_file().metadata().unwrap().len());
                let (movie, at) = index_of(&std::fs::read(file.path()).unwrap());
                assert_eq!((at, movie.mvhd.duration), (ends[n], 400 * n as u64));
                let again = finish_mp4(file.path(), None).unwrap().unwrap();
                assert_eq!(again, Repaired { bytes_cut: 0, was_finished: true, ..found });
            }
            (result, whole) => panic!("cut at {cut}: {result:?}, whole: {whole:?}"),
        }
    }
}

#[test]
fn the_index_says_where_every_sample_is() {
    let (bytes, ends) = recording(2);
    let file = file_of(&bytes);
    finish_mp4(file.path(), None).unwrap();
    let bytes = std::fs::read(file.path()).unwrap();
    let (movie, at) = index_of(&bytes);
    let table = &movie.trak[0].mdia.minf.stbl;
    let chunks = table.stco.as_ref().unwrap().entries.clone();
    assert_eq!(chunks, [ends[1] as u32 - 40, ends[2] as u32 - 40]);
    assert!(chunks.iter().all(|chunk| bytes[*chunk as usize..][..40] == [7; 40]));
    assert_eq!((table.stsc.entries.len(), table.stsc.entries[0].samples_per_chunk), (1, 4));
    assert!(movie.mvex.is_none() && table.ctts.is_none() && table.stss.is_none());
    // One mdat over all that was between the brands and the index.
    assert_eq!(&bytes[24..28], b"mdat");
    assert_eq!(u64::from_be_bytes(bytes[28..36].try_into().unwrap()), (at - 20) as u64);
}

#[test]
fn what_dies_while_it_finishes_is_finished_again() {
    let (plain, ends) = recording(3);
    let whole = file_of(&plain);
    finish_mp4(whole.path(), None).unwrap();
    let whole = std::fs::read(whole.path()).unwrap();
    for tail in 0..=whole.len() - plain.len() {
        let file = file_of(&[&plain[..], &whole[plain.len()..][..tail]].concat());
        let found = finish_mp4(file.path(), None).unwrap().unwrap();
        assert_eq!((found.video_frames, found.bytes_cut), (12, tail as u64));
        assert_eq!(std::fs::read(file.path()).unwrap(), whole, "{tail}");
    }
    assert_eq!(ends[3], plain.len());
}

#[test]
fn a_tail_of_zeros_is_torn() {
    let (mut bytes, ends) = recording(1);
    bytes.extend([0; 5000]);
    let file = file_of(&bytes);
    assert_eq!(repair_mp4(file.path()).unwrap().bytes_cut, 5000);
    assert_eq!(index_of(&std::fs::read(file.path()).unwrap()).1, ends[1]);
}

#[test]
fn a_finished_file_is_only_read() {
    let bytes = [boxed(b"ftyp", &[b"mp42"]), boxed(b"mdat", &[&[7; 170]]), moov(false)].concat();
    let file = file_of(&bytes);
    let found = repair_mp4(file.path()).unwrap();
    assert!(found.was_finished && found.bytes_cut == 0);
    assert_eq!((found.video_frames, found.duration), (17, Duration::from_millis(1700)));
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
fn a_file_over_4_gib() {
    const GAP: u64 = 5 << 30;
    let (start, _) = recording(1);
    let file = file_of(&start);
    let hole = start.len() as u64;
    let head = [b"\0\0\0\x01mdat", &GAP.to_be_bytes()[..]].concat();
    file.as_file().write_all_at(&head, hole).unwrap();
    file.as_file().write_all_at(&fragment(400, 4), hole + GAP).unwrap();
    let found = repair_mp4(file.path()).unwrap();
    assert_eq!((found.bytes_cut, found.video_frames, found.duration), (0, 8, Duration::from_millis(800)));
    let end = found.bytes_kept - (hole + GAP);
    let tail = Media { file: file.as_file(), len: found.bytes_kept }.bytes(hole + GAP, found.bytes_kept).unwrap();
    let table = &index_of(&tail).0.trak[0].mdia.minf.stbl;
    let last = hole + GAP + fragment(400, 4).len() as u64 - 40;
    assert_eq!(table.co64.as_ref().unwrap().entries, [hole - 40, last]);
    assert!(table.stco.is_none() && end < 1000, "{end}");
}

#[test]
fn a_path_that_is_no_file() {
    assert!(matches!(repair_mp4(Path::new("/nonexistent/a.mp4.tmp")), Err(RepairError::Io(_))));
    assert!(matches!(finish_mp4(file_of(b"no recording at all").path(), None), Err(RepairError::Nothing)));
}

/// Repairs any bytes: the sums have to be right, a failure has to leave the file alone.
fn survives(bytes: &[u8]) {
    let file = file_of(bytes);
    match finish_mp4(file.path(), None) {
        Ok(Some(found)) => {
            assert_eq!(file.as_file().metadata().unwrap().len(), found.bytes_kept);
            let again = finish_mp4(file.path(), None).unwrap().unwrap();
            assert_eq!((again.bytes_kept, again.was_finished), (found.bytes_kept, true));
        }
        Err(RepairError::Io(error)) => panic!("{error}"),
        Ok(None) | Err(_) => assert_eq!(std::fs::read(file.path()).unwrap(), bytes),
    }
}

fn any_box() -> impl Strategy<Value = Vec<u8>> {
    let kinds = *b"ftypfreemdatmoovmoofmvhdtraktkhdmdiamdhdminfstblstszcttselstedtsmvexmehdtrextraftfhdtfdttrunmfhd";
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
    fn changed_bytes(changes in proptest::collection::vec((any::<proptest::sample::Index>(), any::<[u8; 4]>(), 1..5_usize), 1..4), finished: bool) {
        let mut bytes = recording(3).0;
        if finished {
            let file = file_of(&bytes);
            finish_mp4(file.path(), None).unwrap();
            bytes = std::fs::read(file.path()).unwrap();
        }
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
    let mux = "mp4mux name=m fragment-duration=500 fragment-mode=dash-or-mss ! filesink buffer-mode=unbuffered";
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
    let first = bytes.windows(4).position(|four| four == b"mdat").unwrap();
    let first = (first - 4) as u64 + u64::from(size_at(bytes, first - 4));
    let mut random: u64 = 0x9e37_79b9_7f4a_7c15;
    for n in 0..cuts {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let cut = if n == 0 { bytes.len() as u64 } else { (random >> 16) % bytes.len() as u64 };
        std::fs::write(&path, &bytes[..cut as usize]).unwrap();
        let repaired = match repair_mp4(&path) {
            Err(RepairError::Nothing) | Ok(Repaired { bytes_kept: 0, .. }) if cut < first => continue,
            result => result.unwrap(),
        };
        let (seconds, video, audio) = judge(&path);
        assert_eq!((video, audio), (repaired.video_frames, repaired.audio_frames), "cut at {cut}");
        assert!(
            (seconds - repaired.duration.as_secs_f64()).abs() < 0.05,
            "cut at {cut}: {seconds} {:?}",
            repaired.duration
        );
        assert!(!repaired.was_finished);
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

#[test]
fn killed_with_packets_of_one_size() {
    cut_and_judge(&killed(&[VIDEO, SILENCE], 800_000), 15);
}

#[test]
fn killed_with_video_only() {
    cut_and_judge(&killed(&[VIDEO_B], 800_000), 15);
}

#[test]
fn killed_with_sound_only() {
    cut_and_judge(&killed(&[AUDIO], 100_000), 15);
}

/// GStreamer's demuxer ends where the edit list does.
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

/// What the muxer writes when it ends in order, its own index for streaming included.
#[test]
fn ended_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.mp4");
    let video = VIDEO_B.replacen("videotestsrc", "videotestsrc num-buffers=100", 1);
    let audio = AUDIO.replacen("audiotestsrc", "audiotestsrc num-buffers=140", 1);
    assert!(launch(&path, &[&video, &audio]).status().unwrap().success());
    let done = repair_mp4(&path).unwrap();
    let (seconds, video, audio) = judge(&path);
    assert_eq!((video, audio), (done.video_frames, done.audio_frames));
    assert_eq!(video, 100);
    assert!((seconds - done.duration.as_secs_f64()).abs() < 0.05);
}
