//! Sound that waits for the pictures its stream announces.
//!
//! A server may give a player sound at once and pictures from the next keyframe on (nginx does), so a source whose
//! pictures are seconds away looks like one without any. Its metadata (`onMetaData`) tells them apart. Sound that came
//! first would also cost the pictures: once it has run for six seconds, flvdemux takes no other track.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use gstreamer as gst;
use gstreamer::prelude::*;

/// Types of FLV tags, and where their data begins. Source: Video File Format Specification 10.1, E.4.1.
const AUDIO: u8 = 8;
const VIDEO: u8 = 9;
const SCRIPT: u8 = 18;
const TAG_HEADER: usize = 11;
/// Where the first tag stands behind a file header.
const FILE_HEADER: usize = 13;

/// What a tag means for those behind it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tag {
    /// Metadata that announces pictures.
    Announcement,
    /// Pictures, or their configuration.
    Pictures,
    /// A frame of sound.
    Sound,
    /// Anything else; the configuration of sound too, which comes only once.
    Other,
}

/// Drops sound on its way into `demux` from the metadata that announces pictures on until they come, `longest` at most.
/// `announced` is called once, in a streaming thread.
pub(super) fn hold_sound(demux: &gst::Element, longest: Duration, announced: impl Fn() + Send + Sync + 'static) {
    let Some(pad) = demux.static_pad("sink") else { return };
    let since = Mutex::new(None::<Instant>);
    pad.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
        let tag = info.buffer().and_then(|buffer| buffer.map_readable().ok()).map(|flv| tag(&flv));
        let mut since = since.lock().unwrap_or_else(PoisonError::into_inner);
        match (tag, *since) {
            (Some(Tag::Pictures), _) => gst::PadProbeReturn::Remove,
            (_, Some(since)) if since.elapsed() > longest => gst::PadProbeReturn::Remove,
            (Some(Tag::Sound), Some(_)) => {
                info.flow_res = Ok(gst::FlowSuccess::Ok);
                // "Drop" makes 1.22 log a critical.
                gst::PadProbeReturn::Handled
            }
            (Some(Tag::Announcement), None) => {
                *since = Some(Instant::now());
                announced();
                gst::PadProbeReturn::Ok
            }
            // Metadata comes before the media it tells of.
            (Some(Tag::Sound), None) => gst::PadProbeReturn::Remove,
            _ => gst::PadProbeReturn::Ok,
        }
    });
}

fn tag(flv: &[u8]) -> Tag {
    const AAC: u8 = 10;
    let tag = if flv.starts_with(b"FLV") { flv.get(FILE_HEADER..).unwrap_or_default() } else { flv };
    let data = tag.get(TAG_HEADER..).unwrap_or_default();
    match (tag.first(), data) {
        (Some(&SCRIPT), data) if tells_of_pictures(data) => Tag::Announcement,
        (Some(&VIDEO), _) => Tag::Pictures,
        (Some(&AUDIO), [format, 0, ..]) if format >> 4 == AAC => Tag::Other,
        (Some(&AUDIO), _) => Tag::Sound,
        _ => Tag::Other,
    }
}

/// Whether metadata has a video codec in it. A codec of 0 is how nginx says that there is none.
fn tells_of_pictures(data: &[u8]) -> bool {
    const KEY: &[u8] = b"\x00\x0cvideocodecid";
    let Some(at) = data.windows(KEY.len()).position(|window| window == KEY) else { return false };
    // AMF 0: a number, or a string such as `avc1`.
    match data.get(at + KEY.len()..) {
        Some([0, number @ ..]) => number.first_chunk().is_some_and(|bytes| f64::from_be_bytes(*bytes) > 0.0),
        Some([2, high, low, ..]) => (*high, *low) != (0, 0),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn metadata(value: &[u8]) -> Vec<u8> {
        let mut tag = vec![SCRIPT; 1];
        tag.extend([0; TAG_HEADER - 1]);
        tag.extend(b"\x02\x00\x0aonMetaData\x08\x00\x00\x00\x01\x00\x0cvideocodecid");
        tag.extend(value);
        tag
    }

    #[test]
    fn a_codec_is_a_number_or_a_name() {
        let number = |n: f64| [&[0], &n.to_be_bytes()[..]].concat();
        let of = |value: &[u8]| tag(&metadata(value));
        assert_eq!((of(&number(7.0)), of(b"\x02\x00\x04avc1")), (Tag::Announcement, Tag::Announcement));
        assert_eq!(of(&number(0.0)), Tag::Other, "nginx, of a stream without pictures");
        assert_eq!((of(b"\x02\x00\x00"), of(b"\x05"), of(b"")), (Tag::Other, Tag::Other, Tag::Other));
        let file = [b"FLV\x01\x05\x00\x00\x00\x09\x00\x00\x00\x00", &metadata(&number(7.0))[..]].concat();
        assert_eq!(tag(&file), Tag::Announcement);
    }

    #[test]
    fn sounds_configuration_is_no_sound() {
        let of = |kind: u8, data: &[u8]| tag(&[&[kind; 1], &[0; TAG_HEADER - 1][..], data].concat());
        assert_eq!(of(AUDIO, &[0xaf, 0, 0x12, 0x10]), Tag::Other);
        assert_eq!((of(AUDIO, &[0xaf, 1, 0x21]), of(AUDIO, &[0x72, 0, 1])), (Tag::Sound, Tag::Sound));
        assert_eq!((of(VIDEO, &[0x17, 0]), of(SCRIPT, b""), tag(b"")), (Tag::Pictures, Tag::Other, Tag::Other));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), cut in 0usize..60) {
            let _ = tag(&bytes);
            let whole = metadata(&bytes);
            let _ = tag(&whole[..cut.min(whole.len())]);
        }
    }
}
