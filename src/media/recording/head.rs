//! The head of a fragmented MP4, as mp4mux does not write it.
//!
//! mp4mux lets the times of each track of a fragmented file begin at 0, whenever the track began: a player would play sound
//! that begins later than the pictures too early, and pictures that are reordered too late. The edit lists that say it
//! otherwise are put into its `moov` on the way into the file. A track that has had no frame by then is left out of it: it
//! has no time scale and no sample description, for which players refuse the whole file.
//!
//! At its end mp4mux goes back to write the `moov` once more, with the duration, and an index for streaming (`mfra`).
//! Neither goes into the file, as the one is no longer of the size that mp4mux counts on, and the file gets an index of
//! another kind when it is finished (`record`).
//!
//! Source of the format: ISO/IEC 14496-12, 8.6.6 (`elst`).

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};

use gstreamer as gst;
use gstreamer::prelude::*;
use mp4_atom::{Decode, Edts, Elst, ElstEntry, Encode, FixedPoint, FourCC, Moov, Trak};

use crate::media::segment::running_time;
use crate::media::track::Kind;

/// The first frame of a track: running times, nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct First {
    shown: i64,
    decoded: i64,
}

impl First {
    /// Of a buffer that comes through `pad`.
    fn read(pad: &gst::Pad, buffer: &gst::BufferRef) -> Option<Self> {
        let segment = pad.sticky_event::<gst::event::Segment>(0)?;
        let segment = segment.segment().downcast_ref()?;
        let place = |time| running_time(segment, time);
        let shown = place(buffer.pts()?)?;
        Some(Self { shown, decoded: buffer.dts().and_then(place).unwrap_or(shown) })
    }
}

type Firsts = Vec<(Kind, Arc<OnceLock<First>>)>;

/// Completes what `muxer` writes, if it is an mp4mux that writes fragments of one track each: an operator's template may
/// have it write something else, or another muxer.
pub(super) fn complete_written_by(muxer: &gst::Element) {
    let Some(pad) = muxer.static_pad("src").filter(|_| writes_fragments(muxer)) else { return };
    let firsts: Firsts = muxer.sink_pads().iter().map(watch).collect();
    let (media_left, begun) = (AtomicU64::new(0), AtomicBool::new(false));
    pad.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
        let Some(buffer) = info.buffer_mut() else { return gst::PadProbeReturn::Ok };
        let size = buffer.size() as u64;
        // What is inside a `mdat` may look like anything.
        let left = media_left.load(Relaxed);
        if left > 0 {
            media_left.store(left.saturating_sub(size), Relaxed);
            return gst::PadProbeReturn::Ok;
        }
        match head(buffer) {
            Some((whole, kind)) if &kind == b"mdat" => media_left.store(whole.saturating_sub(size), Relaxed),
            Some((_, kind)) if &kind == b"moov" && !begun.swap(true, Relaxed) => complete(buffer, &firsts),
            Some((_, kind)) if matches!(&kind, b"moov" | b"mfra") => return gst::PadProbeReturn::Drop,
            _ => {}
        }
        gst::PadProbeReturn::Ok
    });
}

fn writes_fragments(muxer: &gst::Element) -> bool {
    let set = |name: &str| muxer.has_property(name).then(|| muxer.property_value(name).serialize().ok()).flatten();
    let is_mp4mux = muxer.factory().is_some_and(|factory| factory.name() == "mp4mux");
    let by_track = set("fragment-mode").is_some_and(|mode| mode == "dash-or-mss");
    is_mp4mux && by_track && set("fragment-duration").is_some_and(|duration| duration != "0")
}

/// Takes down the first frame that comes through a pad of the muxer's.
fn watch(pad: &gst::Pad) -> (Kind, Arc<OnceLock<First>>) {
    let first = Arc::new(OnceLock::new());
    let found = first.clone();
    pad.add_probe(gst::PadProbeType::BUFFER | gst::PadProbeType::BUFFER_LIST, move |pad, info| {
        let buffer = info.buffer().map(|buffer| buffer.as_ref());
        let buffer = buffer.or_else(|| info.buffer_list().and_then(|list| list.get(0)));
        if let Some(first) = buffer.and_then(|buffer| First::read(pad, buffer)) {
            let _ = found.set(first);
            return gst::PadProbeReturn::Remove;
        }
        gst::PadProbeReturn::Ok
    });
    (if pad.name().starts_with("video") { Kind::Video } else { Kind::Audio }, first)
}

/// Size and type of the box that a buffer begins with.
fn head(buffer: &gst::BufferRef) -> Option<(u64, [u8; 4])> {
    let mut head = [0; 8];
    // The binding panics rather than copy from a buffer that is too small.
    if buffer.size() < head.len() || buffer.copy_to_slice(0, &mut head).is_err() {
        return None;
    }
    let (size, kind) = head.split_first_chunk::<4>()?;
    Some((u32::from_be_bytes(*size).into(), kind.try_into().ok()?))
}

fn complete(buffer: &mut gst::Buffer, firsts: &Firsts) {
    let known: Vec<(Kind, First)> = firsts.iter().filter_map(|(kind, first)| Some((*kind, *first.get()?))).collect();
    let completed = buffer.map_readable().ok().and_then(|bytes| completed(&bytes, &known));
    let Some(bytes) = completed else {
        tracing::warn!("the head of a recording is not as expected: sound and pictures may be apart by how they begin");
        return;
    };
    let mut ours = gst::Buffer::from_mut_slice(bytes);
    if let Some(ours) = ours.get_mut() {
        let _ = buffer.copy_into(ours, gst::BufferCopyFlags::FLAGS | gst::BufferCopyFlags::TIMESTAMPS, ..);
    }
    *buffer = ours;
}

/// A `moov` with edit lists, and without the tracks that have no format.
fn completed(moov: &[u8], firsts: &[(Kind, First)]) -> Option<Vec<u8>> {
    let mut moov = Moov::decode(&mut &*moov).ok()?;
    moov.trak.retain(|track| track.mdia.mdhd.timescale > 0);
    let begin = firsts.iter().map(|(_, first)| first.shown).min()?;
    for track in &mut moov.trak {
        let kind = if track.mdia.hdlr.handler == FourCC::new(b"vide") { Kind::Video } else { Kind::Audio };
        if let Some((_, first)) = firsts.iter().find(|(of, _)| *of == kind) {
            track.edts = Some(Edts { elst: Some(edits(track, *first, begin, moov.mvhd.timescale)) });
        }
    }
    let mut bytes = Vec::new();
    moov.encode(&mut bytes).ok()?;
    Some(bytes)
}

/// First nothing, where the track begins later than the movie, then all of the track.
fn edits(track: &Trak, first: First, begin: i64, movie_scale: u32) -> Elst {
    let edit =
        |segment_duration, media_time| ElstEntry { segment_duration, media_time, media_rate: FixedPoint::new(1, 0) };
    let scale = track.mdia.mdhd.timescale;
    let late = first.shown - begin;
    // What is shorter than a tick of the track is not there.
    let empty = (ticks(late, scale) > 0).then(|| edit(ticks(late, movie_scale), None));
    let whole = edit(0, Some(ticks(first.shown - first.decoded, scale)));
    Elst { entries: empty.into_iter().chain([whole]).collect() }
}

/// Nanoseconds in ticks of `scale` a second, to the nearest; nothing for less than nothing.
fn ticks(nanos: i64, scale: u32) -> u64 {
    let scaled = (i128::from(nanos.max(0)) * i128::from(scale) + 500_000_000) / 1_000_000_000;
    u64::try_from(scaled).unwrap_or(u64::MAX)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    /// What ends in the file when a pipeline of mp4mux runs to its end.
    fn written(branches: &str) -> Vec<u8> {
        fed(branches, |_| ())
    }

    fn fed(branches: &str, feed: impl FnOnce(&gst::Pipeline)) -> Vec<u8> {
        crate::media::init().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("a.mp4");
        let muxer = "mp4mux name=mux fragment-duration=500 fragment-mode=dash-or-mss ! filesink buffer-mode=unbuffered";
        let line = format!("{muxer} location={} {branches}", file.display());
        let pipeline = gst::parse::launch(&line).unwrap().downcast::<gst::Pipeline>().unwrap();
        complete_written_by(&pipeline.by_name("mux").unwrap());
        pipeline.set_state(gst::State::Playing).unwrap();
        feed(&pipeline);
        let bus = pipeline.bus().unwrap();
        let ends = [gst::MessageType::Eos, gst::MessageType::Error];
        let end = bus.timed_pop_filtered(gst::ClockTime::from_seconds(60), &ends).unwrap();
        assert_eq!(end.type_(), gst::MessageType::Eos, "{end:?}");
        pipeline.set_state(gst::State::Null).unwrap();
        std::fs::read(file).unwrap()
    }

    /// The types of the boxes of a file, which have to fill it.
    fn boxes(mut bytes: &[u8]) -> Vec<String> {
        let mut kinds = Vec::new();
        while !bytes.is_empty() {
            let size = u32::from_be_bytes(*bytes.first_chunk().unwrap()) as usize;
            kinds.push(String::from_utf8(bytes[4..8].to_vec()).unwrap());
            bytes = &bytes[size..];
        }
        kinds
    }

    fn movie(bytes: &[u8]) -> Moov {
        let at = bytes.windows(4).position(|four| four == b"moov").unwrap() - 4;
        Moov::decode(&mut &bytes[at..]).unwrap()
    }

    const VIDEO: &str = "videotestsrc num-buffers=60 ! video/x-raw,width=64,height=48,framerate=30/1 ! \
                         x264enc speed-preset=ultrafast bframes=2 key-int-max=30 ! h264parse ! queue ! mux.video_0";

    fn sound(offset_ms: u64) -> String {
        format!(
            "audiotestsrc num-buffers=80 timestamp-offset={} ! audio/x-raw,rate=44100,channels=1 ! avenc_aac ! aacparse ! \
             queue ! mux.audio_0",
            offset_ms * 1_000_000
        )
    }

    /// What the edit list of a track says: empty time in ms, and the media time of its first frame in ms.
    fn begins(movie: &Moov, handler: &[u8; 4]) -> (u64, u64) {
        let track = movie.trak.iter().find(|track| track.mdia.hdlr.handler == FourCC::new(handler)).unwrap();
        let entries = &track.edts.as_ref().unwrap().elst.as_ref().unwrap().entries;
        let [empty @ .., whole] = &entries[..] else { panic!("{entries:?}") };
        assert_eq!(whole.segment_duration, 0, "open to its end");
        let empty: u64 = empty.iter().map(|edit| edit.segment_duration).sum();
        let media = whole.media_time.unwrap() * 1000 / u64::from(track.mdia.mdhd.timescale);
        (empty * 1000 / u64::from(movie.mvhd.timescale), media)
    }

    #[test]
    fn tracks_begin_where_their_frames_did() {
        for (late, wanted) in [(0, 0), (400, 400)] {
            let bytes = written(&format!("{VIDEO} {}", sound(late)));
            let movie = movie(&bytes);
            let (empty, media) = begins(&movie, b"soun");
            // Encoders put their delay into the first time stamp.
            assert!((wanted..wanted + 50).contains(&empty), "{late}: {empty}");
            assert_eq!(media, 0);
            let (empty, media) = begins(&movie, b"vide");
            assert_eq!(empty, 0);
            assert!((60..=70).contains(&media), "two pictures of 33 ms: {media}");
        }
    }

    #[test]
    fn the_file_is_a_head_and_fragments() {
        let bytes = written(&format!("{VIDEO} {}", sound(0)));
        let kinds = boxes(&bytes);
        assert_eq!(kinds[..2], ["ftyp", "moov"]);
        let fragments: Vec<&String> = kinds.iter().skip(2).filter(|kind| *kind != "uuid").collect();
        assert!(fragments.len() >= 12, "{kinds:?}");
        assert!(fragments.chunks(2).all(|two| two == ["moof", "mdat"]), "{kinds:?}");
    }

    /// A box's name inside the media is no box.
    #[test]
    fn media_may_look_like_boxes() {
        let media = b"\0\0\0\x60moov\0\0\0\x60mfra\0\0\0\x60mdat";
        let caps = "audio/x-opus,rate=48000,channels=1,channel-mapping-family=0";
        let bytes = fed(&format!("appsrc name=in format=time caps={caps} ! mux.audio_0"), |pipeline| {
            let source = pipeline.by_name("in").unwrap().downcast::<gstreamer_app::AppSrc>().unwrap();
            for n in 0..200 {
                let mut buffer = gst::Buffer::from_slice(&media[n % 3 * 8..]);
                let times = buffer.get_mut().unwrap();
                times.set_pts(gst::ClockTime::from_mseconds(n as u64 * 20));
                times.set_duration(gst::ClockTime::from_mseconds(20));
                source.push_buffer(buffer).unwrap();
            }
            source.end_of_stream().unwrap();
        });
        assert_eq!(bytes.windows(4).filter(|four| *four == b"mfra").count(), 134, "two of three packets have it");
        let kinds = boxes(&bytes);
        assert!(
            kinds.iter().filter(|kind| *kind == "moov").count() == 1 && !kinds.contains(&"mfra".to_owned()),
            "{kinds:?}"
        );
    }

    #[test]
    fn what_is_no_fragmented_file_is_left_alone() {
        crate::media::init().unwrap();
        for (line, wanted) in [
            ("mp4mux fragment-duration=500", true),
            ("mp4mux fragment-duration=500 fragment-mode=first-moov-then-finalise", false),
            ("mp4mux", false),
            ("matroskamux", false),
        ] {
            let muxer = gst::parse::launch(line).unwrap();
            assert_eq!(writes_fragments(&muxer), wanted, "{line}");
        }
    }

    #[test]
    fn a_track_without_a_frame_is_left_out() {
        let bytes =
            written(&format!("{VIDEO} audiotestsrc num-buffers=0 ! avenc_aac ! aacparse ! queue ! mux.audio_0"));
        assert_eq!(movie(&bytes).trak.len(), 1);
    }
}
