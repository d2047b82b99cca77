//! The samples of a track: taken up from its fragments, written as the tables of an index.

use mp4_atom::{
    Co64, Ctts, CttsEntry, Edts, Elst, ElstEntry, FixedPoint, FourCC, Stco, Stsc, StscEntry, Stss, Stsz, StszSamples,
    Stts, SttsEntry, Tfhd, Traf, Trak, Trex, TrunEntry,
};

use super::seconds;
use crate::record::trim::{Cut, Until};

/// The flag of a sample that cannot be decoded by itself.
const NOT_SYNC: u32 = 0x1_0000;
/// More samples than this in one fragment are none of a recording's.
const SAMPLES_MAX: usize = 1 << 20;

/// What is known of a track's samples so far. Times are ticks of the track.
#[derive(Debug, Default)]
pub(super) struct Samples {
    durations: Runs<u32>,
    /// From decoding to showing.
    offsets: Runs<i64>,
    sizes: Vec<u32>,
    /// The numbers, from 1, of those that can be decoded by themselves.
    sync: Vec<u32>,
    chunks: Vec<Chunk>,
    /// Where the last one's time of decoding ends.
    decode_end: u64,
}

/// Samples that lie behind each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Chunk {
    at: u64,
    samples: u32,
}

/// Values of which many that follow each other are the same.
#[derive(Debug)]
struct Runs<T>(Vec<(u32, T)>);

impl<T> Default for Runs<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T: Copy + PartialEq> Runs<T> {
    fn push(&mut self, value: T) {
        match self.0.last_mut() {
            Some((count, last)) if *last == value && *count < u32::MAX => *count += 1,
            _ => self.0.push((1, value)),
        }
    }

    fn pop(&mut self) -> Option<T> {
        let (count, value) = self.0.last_mut()?;
        let value = *value;
        *count -= 1;
        if *count == 0 {
            self.0.pop();
        }
        Some(value)
    }

    fn iter(&self) -> impl Iterator<Item = T> {
        self.0.iter().flat_map(|(count, value)| std::iter::repeat_n(*value, *count as usize))
    }

    fn truncate(&mut self, mut left: u32) {
        self.0.retain_mut(|(count, _)| {
            *count = left.min(*count);
            left -= *count;
            *count > 0
        });
    }
}

impl Runs<u32> {
    /// The same, with what follows samples of no length shared out among all of them: encoders send packets of sound
    /// under one time stamp, and players take those for a fault.
    fn shared_out(&self) -> Self {
        let (mut shared, mut waiting) = (Self::default(), 0_u32);
        for (count, duration) in &self.0 {
            if *duration == 0 {
                waiting = waiting.saturating_add(*count);
                continue;
            }
            let among = std::mem::take(&mut waiting).saturating_add(1);
            (1..among).for_each(|_| shared.push(duration / among));
            shared.push(duration - duration / among * (among - 1));
            (1..*count).for_each(|_| shared.push(*duration));
        }
        (0..waiting).for_each(|_| shared.push(0));
        shared
    }
}

/// A track's part of a fragment, in values: where its data lies, and what its samples are.
#[derive(Debug)]
pub(super) struct Run {
    begin: u64,
    at: u64,
    samples: Vec<TrunEntry>,
    /// The offset behind its last byte.
    pub(super) data_end: u64,
}

impl Run {
    /// Reads a track fragment of the `moof` at `moof_at`; `None` where it is none that mp4mux writes.
    pub(super) fn read(traf: Traf, moof_at: u64, defaults: &Trex) -> Option<Self> {
        let Traf { tfhd, tfdt, trun, .. } = traf;
        let begin = tfdt?.base_media_decode_time;
        let [run] = <[_; 1]>::try_from(trun).ok()?;
        let at = base(&tfhd, moof_at).checked_add_signed(run.data_offset?.into())?;
        if run.samples.len() > SAMPLES_MAX {
            return None;
        }
        let duration = tfhd.default_sample_duration.unwrap_or(defaults.default_sample_duration);
        let size = tfhd.default_sample_size.unwrap_or(defaults.default_sample_size);
        let flags = tfhd.default_sample_flags.unwrap_or(defaults.default_sample_flags);
        let whole = |sample: TrunEntry| TrunEntry {
            duration: sample.duration.or(Some(duration)),
            size: sample.size.or(Some(size)),
            flags: sample.flags.or(Some(flags)),
            ..sample
        };
        let samples: Vec<TrunEntry> = run.samples.iter().map(whole).collect();
        let bytes: u64 = samples.iter().map(|sample| u64::from(sample.size.unwrap_or(0))).sum();
        Some(Self { begin, at, data_end: at.checked_add(bytes)?, samples })
    }
}

fn base(tfhd: &Tfhd, moof_at: u64) -> u64 {
    tfhd.base_data_offset.unwrap_or(moof_at)
}

impl Samples {
    pub(super) fn count(&self) -> u32 {
        u32::try_from(self.sizes.len()).unwrap_or(u32::MAX)
    }

    /// Adds the samples of a fragment; `None` where an index cannot have them.
    pub(super) fn take(&mut self, run: &Run) -> Option<()> {
        if run.samples.is_empty() {
            return Some(());
        }
        self.reach(run.begin)?;
        let before = self.sizes.len();
        u32::try_from(before + run.samples.len()).ok()?;
        for sample in &run.samples {
            let duration = sample.duration?;
            self.durations.push(duration);
            self.offsets.push(signed(sample.cts.unwrap_or(0)));
            self.sizes.push(sample.size?);
            if sample.flags? & NOT_SYNC == 0 {
                self.sync.push(self.count());
            }
            self.decode_end = self.decode_end.checked_add(duration.into())?;
        }
        self.chunks.push(Chunk { at: run.at, samples: self.count() - u32::try_from(before).ok()? });
        Some(())
    }

    /// Has the last sample last until `begin`: tables have no gaps.
    fn reach(&mut self, begin: u64) -> Option<()> {
        if begin != self.decode_end
            && let Some(last) = self.durations.pop()
        {
            let since = self.decode_end - u64::from(last);
            let duration = u32::try_from(begin.saturating_sub(since)).ok()?;
            self.durations.push(duration);
            self.decode_end = since + u64::from(duration);
        }
        Some(())
    }

    /// Decoding and showing of each sample.
    fn times(&self) -> impl Iterator<Item = (i64, i64)> {
        self.durations.iter().zip(self.offsets.iter()).scan(0_i64, |next, (duration, offset)| {
            let decoded = *next;
            *next = next.saturating_add(duration.into());
            Some((decoded, decoded.saturating_add(offset)))
        })
    }

    /// Takes the samples from `until` on off; `track` says what they are.
    pub(super) fn trim(&mut self, track: &Trak, movie_scale: u32, until: Until) {
        let (from, scale) = (shown_from(track), track.mdia.mdhd.timescale);
        let early = seconds(empty(track), movie_scale);
        let video = is_video(track);
        let mut cut = Cut::new(until);
        let stays = |(_, shown): &(i64, i64)| {
            let time = early + seconds(u64::try_from(shown - from).unwrap_or(0), scale);
            !cut.drops(video, time)
        };
        let kept = self.times().take_while(stays).count();
        self.truncate(u32::try_from(kept).unwrap_or(u32::MAX));
    }

    fn truncate(&mut self, count: u32) {
        self.durations.truncate(count);
        self.offsets.truncate(count);
        self.sizes.truncate(count as usize);
        self.sync.retain(|number| *number <= count);
        let mut left = count;
        self.chunks.retain_mut(|chunk| {
            chunk.samples = chunk.samples.min(left);
            left -= chunk.samples;
            chunk.samples > 0
        });
        self.decode_end = self.durations.iter().map(u64::from).sum();
    }

    /// Makes `track` one of a file with an index, in a movie of `movie_scale` ticks a second; gives how long it is shown,
    /// in these.
    pub(super) fn write_into(self, track: &mut Trak, movie_scale: u32) -> u64 {
        let from = shown_from(track);
        let ends =
            self.times().zip(self.durations.iter()).map(|((_, shown), length)| shown.saturating_add(length.into()));
        let shown = u64::try_from(ends.max().unwrap_or(0) - from).unwrap_or(0);
        let scale = u128::from(track.mdia.mdhd.timescale.max(1));
        // Rounded up, so that the last sample is inside.
        let shown = u64::try_from((u128::from(shown) * u128::from(movie_scale)).div_ceil(scale)).unwrap_or(u64::MAX);
        let early = empty(track);
        let edit = |segment_duration, media_time| ElstEntry {
            segment_duration,
            media_time,
            media_rate: FixedPoint::new(1, 0),
        };
        let whole = edit(shown, u64::try_from(from).ok());
        let entries = (early > 0).then(|| edit(early, None)).into_iter().chain([whole]).collect();
        track.edts = Some(Edts { elst: Some(Elst { entries }) });
        track.tkhd.duration = early.saturating_add(shown);
        track.mdia.mdhd.duration = self.decode_end;
        self.write_tables(track);
        early.saturating_add(shown)
    }

    fn write_tables(mut self, track: &mut Trak) {
        if !is_video(track) {
            self.durations = self.durations.shared_out();
        }
        let all_sync = self.sync.len() == self.sizes.len();
        let stbl = &mut track.mdia.minf.stbl;
        let durations =
            self.durations.0.iter().map(|(count, value)| SttsEntry { sample_count: *count, sample_delta: *value });
        stbl.stts = Stts { entries: durations.collect() };
        let offsets =
            self.offsets.0.iter().map(|(count, value)| CttsEntry { sample_count: *count, sample_offset: *value });
        stbl.ctts = self.offsets.0.iter().any(|(_, offset)| *offset != 0).then(|| Ctts { entries: offsets.collect() });
        stbl.stss = (!all_sync).then_some(Stss { entries: self.sync });
        stbl.stsc = Stsc { entries: chunk_runs(&self.chunks) };
        stbl.stsz = Stsz { samples: StszSamples::Different { sizes: self.sizes } };
        let narrow: Option<Vec<u32>> = self.chunks.iter().map(|chunk| u32::try_from(chunk.at).ok()).collect();
        stbl.co64 = narrow.is_none().then(|| Co64 { entries: self.chunks.iter().map(|chunk| chunk.at).collect() });
        stbl.stco = narrow.map(|entries| Stco { entries });
    }
}

/// mp4mux writes negative offsets also where the version of the box has none.
fn signed(offset: i64) -> i64 {
    if offset > i64::from(i32::MAX) { offset - (1 << 32) } else { offset }
}

/// The entries of a `stsc`: one for each run of chunks of the same length.
fn chunk_runs(chunks: &[Chunk]) -> Vec<StscEntry> {
    let mut runs: Vec<StscEntry> = Vec::new();
    for (first_chunk, chunk) in (1..).zip(chunks) {
        if runs.last().is_none_or(|run| run.samples_per_chunk != chunk.samples) {
            runs.push(StscEntry { first_chunk, samples_per_chunk: chunk.samples, sample_description_index: 1 });
        }
    }
    runs
}

pub(super) fn is_video(track: &Trak) -> bool {
    track.mdia.hdlr.handler == FourCC::new(b"vide")
}

fn edits(track: &Trak) -> impl Iterator<Item = &ElstEntry> {
    track.edts.iter().filter_map(|edts| edts.elst.as_ref()).flat_map(|list| &list.entries)
}

/// The time before the track begins, in the movie's ticks.
fn empty(track: &Trak) -> u64 {
    edits(track).take_while(|edit| edit.media_time.is_none()).map(|edit| edit.segment_duration).sum()
}

/// The media time that is shown first, in the track's ticks.
fn shown_from(track: &Trak) -> i64 {
    edits(track).find_map(|edit| edit.media_time).and_then(|time| i64::try_from(time).ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples(durations: &[u32]) -> Samples {
        let mut samples = Samples::default();
        let entry = |duration: &u32| TrunEntry {
            duration: Some(*duration),
            size: Some(10),
            flags: Some(if *duration == 1 { 0 } else { NOT_SYNC }),
            cts: Some(5),
        };
        let run = Run { begin: 0, at: 100, samples: durations.iter().map(entry).collect(), data_end: 0 };
        assert!(samples.take(&run).is_some());
        samples
    }

    #[test]
    fn tables_have_no_gaps() {
        for (begin, last) in [(30, 10), (35, 15), (28, 8), (3, 0)] {
            let mut samples = samples(&[10, 10, 10]);
            let next = Run {
                begin,
                at: 500,
                samples: vec![TrunEntry { duration: Some(7), size: Some(1), flags: Some(0), cts: None }],
                data_end: 501,
            };
            assert!(samples.take(&next).is_some());
            assert_eq!(samples.durations.iter().collect::<Vec<_>>(), [10, 10, last, 7], "{begin}");
            assert_eq!(samples.decode_end, 20 + u64::from(last) + 7);
            assert_eq!(samples.chunks, [Chunk { at: 100, samples: 3 }, Chunk { at: 500, samples: 1 }]);
        }
    }

    #[test]
    fn what_is_cut_is_in_no_table() {
        let mut samples = samples(&[1, 2, 2, 1, 2]);
        assert_eq!(samples.sync, [1, 4]);
        samples.truncate(3);
        assert_eq!(samples.durations.iter().collect::<Vec<_>>(), [1, 2, 2]);
        assert_eq!((samples.sync.as_slice(), samples.sizes.len(), samples.decode_end), (&[1][..], 3, 5));
        assert_eq!(samples.chunks, [Chunk { at: 100, samples: 3 }]);
        samples.truncate(0);
        assert!(samples.chunks.is_empty() && samples.durations.0.is_empty() && samples.offsets.0.is_empty());
    }

    #[test]
    fn sound_of_one_time_stamp_is_shared_out() {
        for (durations, wanted) in [
            (&[10, 10][..], &[10, 10][..]),
            (&[10, 0, 20, 10], &[10, 10, 10, 10]),
            (&[0, 0, 0, 11, 11], &[2, 2, 2, 5, 11]),
            (&[10, 0], &[10, 0]),
            (&[0, 0, 1], &[0, 0, 1]),
        ] {
            let shared = samples(durations).durations.shared_out();
            assert_eq!(shared.iter().collect::<Vec<_>>(), wanted);
        }
    }

    #[test]
    fn chunks_of_one_length_are_one_entry() {
        let chunks = [3, 3, 2, 3].map(|samples| Chunk { at: 0, samples });
        let runs: Vec<_> = chunk_runs(&chunks).iter().map(|run| (run.first_chunk, run.samples_per_chunk)).collect();
        assert_eq!(runs, [(1, 3), (3, 2), (4, 3)]);
    }
}
