//! Mends the `moof` boxes that mp4mux writes, on their way into the file.
//!
//! mp4mux (1.22) gives each run of samples (`trun`) a size and a duration a sample, but leaves both out of a last run
//! of one sample whose values equal those of the fragment's first sample, and then writes no default into the track
//! fragment's header (`tfhd`) either. Readers take such a sample as empty and refuse the whole file. The mended box says
//! the defaults in `tfhd`; it has the same length, as the muxer counts on where it has written what: in place of the
//! 8 bytes of the base data offset come the defaults, and the runs count from the `moof` instead.
//!
//! Source of the format: ISO/IEC 14496-12, 8.8.7 (`tfhd`) and 8.8.8 (`trun`).

use gstreamer as gst;
use gstreamer::prelude::*;

const BASE_DATA_OFFSET: u32 = 0x1;
const SAMPLE_DESCRIPTION: u32 = 0x2;
const DEFAULT_DURATION: u32 = 0x8;
const DEFAULT_SIZE: u32 = 0x10;
const DEFAULT_FLAGS: u32 = 0x20;
const DEFAULT_BASE_IS_MOOF: u32 = 0x02_0000;

const DATA_OFFSET: u32 = 0x1;
const FIRST_FLAGS: u32 = 0x4;
const DURATION: u32 = 0x100;
const SIZE: u32 = 0x200;
/// The fields that each sample of a run can have: duration, size, flags, composition time.
const SAMPLE_FIELDS: [u32; 4] = [DURATION, SIZE, 0x400, 0x800];

/// Mends every `moof` that leaves `muxer`. Other buffers, the samples among them, pass unread but for their first bytes.
pub(super) fn mend_written_by(muxer: &gst::Element) {
    let Some(pad) = muxer.static_pad("src") else { return };
    pad.add_probe(gst::PadProbeType::BUFFER, |_, info| {
        if let Some(buffer) = info.buffer_mut()
            && starts_a_moof(buffer)
            && let Ok(mut bytes) = buffer.make_mut().map_writable()
        {
            mend(&mut bytes);
        }
        gst::PadProbeReturn::Ok
    });
}

fn starts_a_moof(buffer: &gst::BufferRef) -> bool {
    let mut head = [0; 8];
    // The binding panics rather than copy from a buffer that is too small.
    buffer.size() >= head.len() && buffer.copy_to_slice(0, &mut head).is_ok() && &head[4..] == b"moof"
}

/// Gives the runs of a `moof` the sizes and durations they lack, in place. What is no `moof` of mp4mux's, or lacks
/// nothing, stays as it is; `true` when something was written.
pub(crate) fn mend(moof: &mut [u8]) -> bool {
    match edits(moof) {
        Some(edits) if !edits.is_empty() => {
            for (at, bytes) in edits {
                moof[at..at + bytes.len()].copy_from_slice(&bytes);
            }
            true
        }
        _ => false,
    }
}

/// Bytes to be written at an offset that lies inside the `moof` with them.
type Edit = (usize, Vec<u8>);

fn edits(moof: &[u8]) -> Option<Vec<Edit>> {
    let whole = boxes(moof, 0, moof.len()).next().filter(|it| it.kind == *b"moof" && it.end == moof.len())?;
    let mut fragments = Vec::new();
    for traf in boxes(moof, whole.body, whole.end).filter(|it| it.kind == *b"traf") {
        fragments.push(TrackFragment::read(moof, traf)?);
    }
    // The samples of mp4mux's fragments end where their moof begins.
    let moof_at = fragments.iter().map(|fragment| fragment.data_end).max()?;
    let mut edits = Vec::new();
    for fragment in fragments.iter().filter(|fragment| fragment.lacks) {
        edits.extend(fragment.edits(moof_at)?);
    }
    Some(edits)
}

/// Where a box is in the `moof`.
struct BoxAt {
    kind: [u8; 4],
    body: usize,
    end: usize,
}

/// The boxes of `bytes[at..end]`, up to the first that is not whole.
fn boxes(bytes: &[u8], mut at: usize, end: usize) -> impl Iterator<Item = BoxAt> {
    std::iter::from_fn(move || {
        let size = usize::try_from(word(bytes, at)?).ok()?;
        let kind = bytes.get(at + 4..at + 8)?.try_into().ok()?;
        let found = BoxAt { kind, body: at + 8, end: at.checked_add(size)? };
        at = found.end;
        (size >= 8 && found.end <= end).then_some(found)
    })
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

/// What a `traf` says.
struct TrackFragment {
    tfhd: Header,
    /// The data offsets of its runs, and where they stand.
    run_offsets: Vec<(usize, i32)>,
    /// The values of its first sample, which are those that the muxer leaves out.
    first: Sample,
    data_end: u64,
    /// A run has no size or no duration from anywhere.
    lacks: bool,
}

/// A `tfhd`.
struct Header {
    body: usize,
    end: usize,
    flags: u32,
    track: u32,
    base: u64,
    duration: Option<u32>,
    size: Option<u32>,
    sample_flags: Option<u32>,
}

#[derive(Clone, Copy)]
struct Sample {
    duration: u32,
    size: u32,
}

impl Header {
    fn read(moof: &[u8], tfhd: &BoxAt) -> Option<Self> {
        let flags = word(moof, tfhd.body)?;
        if flags & BASE_DATA_OFFSET == 0 || flags & SAMPLE_DESCRIPTION != 0 {
            return None;
        }
        let base = u64::from(word(moof, tfhd.body + 8)?) << 32 | u64::from(word(moof, tfhd.body + 12)?);
        let mut at = tfhd.body + 16;
        let mut next = |flag| {
            (flags & flag != 0).then(|| {
                at += 4;
                word(moof, at - 4)
            })
        };
        let (duration, size) = (next(DEFAULT_DURATION), next(DEFAULT_SIZE));
        let sample_flags = next(DEFAULT_FLAGS);
        Some(Self {
            body: tfhd.body,
            end: tfhd.end,
            flags,
            track: word(moof, tfhd.body + 4)?,
            base,
            duration: duration.flatten(),
            size: size.flatten(),
            sample_flags: sample_flags.flatten(),
        })
    }
}

impl TrackFragment {
    fn read(moof: &[u8], traf: BoxAt) -> Option<Self> {
        let tfhd = boxes(moof, traf.body, traf.end).next().filter(|it| it.kind == *b"tfhd")?;
        let tfhd = Header::read(moof, &tfhd)?;
        let mut first = None;
        let mut fragment =
            Self { run_offsets: vec![], first: Sample { duration: 0, size: 0 }, data_end: 0, lacks: false, tfhd };
        for trun in boxes(moof, traf.body, traf.end).filter(|it| it.kind == *b"trun") {
            fragment.run(moof, &trun, &mut first)?;
        }
        fragment.first = first?;
        Some(fragment)
    }

    fn run(&mut self, moof: &[u8], trun: &BoxAt, first: &mut Option<Sample>) -> Option<()> {
        let flags = word(moof, trun.body)?;
        let count = word(moof, trun.body + 4)?;
        if flags & DATA_OFFSET == 0 {
            return None;
        }
        let offset = word(moof, trun.body + 8)?.cast_signed();
        self.run_offsets.push((trun.body + 8, offset));
        let mut data = self.tfhd.base.checked_add_signed(offset.into())?;
        let mut at = trun.body + 12 + if flags & FIRST_FLAGS != 0 { 4 } else { 0 };
        let own = SAMPLE_FIELDS.iter().filter(|field| flags & **field != 0).count() * 4;
        if usize::try_from(count).ok()?.checked_mul(own)? != trun.end.checked_sub(at)? {
            return None;
        }
        // A run without fields of its own is not counted through: its count is not bounded by its length.
        let samples = if own == 0 { count.min(1) } else { count };
        for _ in 0..samples {
            let duration = if flags & DURATION != 0 { word(moof, at) } else { self.tfhd.duration };
            let size_at = at + if flags & DURATION != 0 { 4 } else { 0 };
            let size = if flags & SIZE != 0 { word(moof, size_at) } else { self.tfhd.size };
            let known = *first.get_or_insert(Sample { duration: duration.unwrap_or(0), size: size.unwrap_or(0) });
            self.lacks |= duration.is_none() || size.is_none();
            data = data.checked_add(size.unwrap_or(known.size).into())?;
            at += own;
        }
        if own == 0 && count > 1 {
            data = data.checked_add(u64::from(count - 1) * u64::from(self.tfhd.size?))?;
        }
        self.data_end = self.data_end.max(data);
        Some(())
    }

    /// The header with both defaults, and the runs' offsets counted from the `moof` at the file offset `moof_at`.
    fn edits(&self, moof_at: u64) -> Option<Vec<Edit>> {
        let header = &self.tfhd;
        let (duration, size) = (header.duration.unwrap_or(self.first.duration), header.size.unwrap_or(self.first.size));
        let mut flags = header.flags & !BASE_DATA_OFFSET | DEFAULT_BASE_IS_MOOF | DEFAULT_DURATION | DEFAULT_SIZE;
        let mut words = vec![header.track];
        if header.duration.is_some() || header.size.is_some() {
            // One default is there already: the only kind of samples (each file has one) takes the room that is left.
            flags |= SAMPLE_DESCRIPTION;
            words.push(1);
        }
        words.extend([duration, size]);
        words.extend(header.sample_flags);
        words.insert(0, flags);
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_be_bytes()).collect();
        if bytes.len() != header.end - header.body {
            return None;
        }
        let mut edits = vec![(header.body, bytes)];
        for (at, offset) in &self.run_offsets {
            let from_base = i64::try_from(moof_at).ok()?.checked_sub(i64::try_from(header.base).ok()?)?;
            let from_moof = i64::from(*offset).checked_sub(from_base)?;
            edits.push((*at, i32::try_from(from_moof).ok()?.to_be_bytes().to_vec()));
        }
        Some(edits)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn boxed(kind: &[u8; 4], content: &[&[u8]]) -> Vec<u8> {
        let content = content.concat();
        let size = u32::try_from(content.len() + 8).unwrap();
        [&size.to_be_bytes(), &kind[..], &content].concat()
    }

    fn words(numbers: &[u32]) -> Vec<u8> {
        numbers.iter().flat_map(|number| number.to_be_bytes()).collect()
    }

    /// Video from 16 to 516 behind the base at 1,000, sound behind it with a last run as mp4mux leaves it.
    fn moof(tfhd_sound: &[u32], last_run: &[u32]) -> Vec<u8> {
        let tfdt = boxed(b"tfdt", &[&words(&[0, 77])]);
        let video = [
            boxed(b"tfhd", &[&words(&[0x21, 1, 0, 1000, 0x1_00c0])]),
            tfdt.clone(),
            boxed(b"trun", &[&words(&[0x301, 2, 16, 40, 200, 41, 300])]),
        ];
        let sound = [
            boxed(b"tfhd", &[&words(tfhd_sound)]),
            tfdt,
            boxed(b"trun", &[&words(&[0x301, 2, 516, 1024, 10, 1024, 12])]),
            boxed(b"trun", &[&words(last_run)]),
        ];
        let (video, sound) = (boxed(b"traf", &[&video.concat()]), boxed(b"traf", &[&sound.concat()]));
        boxed(b"moof", &[&boxed(b"mfhd", &[&words(&[0, 9])]), &video, &sound])
    }

    fn fields(moof: &[u8], kind: &[u8; 4], nth: usize) -> Vec<u32> {
        let at = moof.windows(4).enumerate().filter(|(_, four)| four == kind).nth(nth).unwrap().0;
        let size = word(moof, at - 4).unwrap() as usize;
        moof[at + 4..at - 4 + size].chunks(4).map(|four| word(four, 0).unwrap()).collect()
    }

    #[test]
    fn what_a_last_run_leaves_out_becomes_the_default() {
        // The samples end at 1000 + 538 + 10, where the moof begins: 548 behind the base.
        for (tfhd, run, tfhd_after, run_after) in [
            (&[0x21, 2, 0, 1000, 0xc0][..], &[0x101, 1, 538, 1015][..], &[0x02_0038, 2, 1024, 10, 0xc0][..], 1015),
            (&[0x21, 2, 0, 1000, 0xc0], &[0x1, 1, 538], &[0x02_0038, 2, 1024, 10, 0xc0], 0),
            (&[0x01, 2, 0, 1000], &[0x1, 1, 538], &[0x02_0018, 2, 1024, 10], 0),
            (&[0x29, 2, 0, 1000, 33, 0xc0], &[0x1, 1, 538], &[0x02_003a, 2, 1, 33, 10, 0xc0], 0),
        ] {
            let before = moof(tfhd, run);
            let mut after = before.clone();
            assert!(mend(&mut after));
            assert_eq!(after.len(), before.len());
            assert_eq!(fields(&after, b"tfhd", 1), tfhd_after);
            assert_eq!(fields(&after, b"trun", 1)[2].cast_signed(), 516 - 548);
            let last = fields(&after, b"trun", 2);
            assert_eq!((last[0], last[2].cast_signed()), (run[0], 538 - 548));
            assert_eq!(last.get(3).copied().unwrap_or(0), run_after);
            assert_eq!(fields(&after, b"tfhd", 0), fields(&before, b"tfhd", 0), "the other track lacks nothing");
            assert!(!mend(&mut after), "once is enough");
        }
    }

    #[test]
    fn what_lacks_nothing_or_is_no_moof_of_the_muxers_stays() {
        let whole = moof(&[0x21, 2, 0, 1000, 0xc0], &[0x301, 1, 538, 1024, 10]);
        let no_base = moof(&[0x20, 2, 0xc0], &[0x1, 1, 538]);
        let no_offset = moof(&[0x21, 2, 0, 1000, 0xc0], &[0x100, 1, 1024]);
        let many = moof(&[0x21, 2, 0, 1000, 0xc0], &[0x1, u32::MAX, 538]);
        let far = moof(&[0x21, 2, u32::MAX, 1000, 0xc0], &[0x1, 1, 538]);
        let torn = moof(&[0x21, 2, 0, 1000, 0xc0], &[0x1, 1, 538])[..150].to_vec();
        for before in [whole, no_base, no_offset, many, far, torn, vec![], b"\0\0\0\x08moof".to_vec()] {
            let mut after = before.clone();
            assert!(!mend(&mut after));
            assert_eq!(after, before);
        }
    }

    proptest! {
        #[test]
        fn any_change_of_bytes_is_survived(changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6)) {
            let mut bytes = moof(&[0x21, 2, 0, 1000, 0xc0], &[0x1, 1, 538]);
            for (at, byte) in changes {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            let length = bytes.len();
            mend(&mut bytes);
            prop_assert_eq!(bytes.len(), length);
        }
    }
}
