//! A walk over the elements of a recording: what is in it, and where it ends.

use std::fs::File;
use std::io;
use std::time::Duration;

use super::ebml::{Head, Reader};
use super::id;

/// A recording has two tracks.
const TRACKS_MAX: usize = 16;
/// The most elements looked at inside one that is not a cluster.
const CHILDREN_MAX: usize = 1000;
/// The longest entry of a seek head, bytes.
const SEEK_MAX: u64 = 64;

/// A place in the file that is written to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Field {
    pub at: u64,
    pub len: usize,
}

/// An entry of the seek head.
#[derive(Debug)]
pub(super) struct Seek {
    /// What it leads to.
    pub id: u32,
    pub at: u64,
    pub len: usize,
    /// It as it is.
    pub bytes: Vec<u8>,
    /// Where in it its eight bytes of position begin.
    pub position: usize,
}

/// A cluster that has a block.
#[derive(Debug)]
pub(super) struct Cluster {
    pub at: u64,
    pub size: Field,
    /// The time of its first keyframe of the leading track, in ticks.
    pub keyframe: Option<u64>,
}

/// A block that holds a frame.
#[derive(Debug, Clone, Copy)]
pub(super) struct Block {
    pub at: u64,
    pub video: bool,
    pub time: u64,
}

#[derive(Debug, Clone, Copy, Default)]
struct Track {
    number: u64,
    video: bool,
    /// Ticks, rounded up; 0 where it does not say.
    default_duration: u64,
}

#[derive(Debug, Default)]
pub(super) struct Frames {
    pub video: u64,
    pub audio: u64,
}

/// What is in a recording. Offsets count from the beginning of the file, times are in ticks of `scale` nanoseconds.
#[derive(Debug)]
pub(super) struct Scan {
    /// Where the segment's size stands.
    pub segment: Field,
    /// Where the segment's body begins: what positions in it count from.
    pub body: u64,
    /// It has its size and nothing is missing.
    pub finished: bool,
    pub scale: u64,
    /// What it says its duration is.
    pub told: Duration,
    pub duration: Option<Field>,
    pub info: Option<u64>,
    pub tracks: Option<u64>,
    pub seeks: Vec<Seek>,
    pub clusters: Vec<Cluster>,
    /// The number of the track that the cues are for.
    pub leader: u64,
    pub frames: Frames,
    /// The end of the last frame.
    pub end: u64,
    /// The offset behind the last whole block.
    pub kept: u64,
    /// The blocks from a time on, where they were asked for.
    pub blocks: Vec<Block>,
    blocks_from: Option<Duration>,
    known: Vec<Track>,
    /// The time of the running cluster.
    time: u64,
}

impl Scan {
    /// Reads a file; `None` for one that is no Matroska, or breaks off before its tracks are known.
    pub fn run(file: &File, len: u64) -> io::Result<Option<Self>> {
        Self::walk(file, len, None)
    }

    /// As `run`, for a file that is to be finished again, with its blocks from a time on.
    pub fn anew(file: &File, len: u64, from: Duration) -> io::Result<Option<Self>> {
        Self::walk(file, len, Some(from))
    }

    fn walk(file: &File, len: u64, blocks_from: Option<Duration>) -> io::Result<Option<Self>> {
        let mut reader = Reader::new(file, len);
        let Some(head) = reader.head(0)?.filter(|head| head.id == id::EBML) else { return Ok(None) };
        let Some(segment) = reader.head(head.end.unwrap_or(len))?.filter(|head| head.id == id::SEGMENT) else {
            return Ok(None);
        };
        let mut scan = Self {
            segment: Field { at: segment.size_at, len: segment.size_len },
            body: segment.body,
            finished: blocks_from.is_none() && segment.end.is_some_and(|end| end <= len),
            scale: 1_000_000,
            told: Duration::ZERO,
            duration: None,
            info: None,
            tracks: None,
            seeks: Vec::new(),
            clusters: Vec::new(),
            leader: 1,
            frames: Frames::default(),
            end: 0,
            kept: 0,
            blocks: Vec::new(),
            blocks_from,
            known: Vec::new(),
            time: 0,
        };
        scan.segment(&mut reader)?;
        Ok((!scan.known.is_empty()).then_some(scan))
    }

    /// Walks from element to element until the first that is torn, or that stands behind the last cluster.
    fn segment(&mut self, reader: &mut Reader<'_>) -> io::Result<()> {
        let mut at = self.body;
        while let Some(head) = reader.head(at)? {
            let whole = head.end.filter(|end| *end <= reader.len);
            match (head.id, whole) {
                (id::CLUSTER, _) if self.known.is_empty() => return Ok(()),
                (id::CLUSTER, Some(end)) if self.finished => at = end,
                (id::CLUSTER, _) => match self.cluster(reader, head)? {
                    Some(next) => at = next,
                    None => return Ok(()),
                },
                (id::CUES, _) => return Ok(()),
                (id::INFO, Some(end)) => {
                    self.info = Some(head.at);
                    self.info(reader, head)?;
                    at = end;
                }
                (id::TRACKS, Some(end)) => {
                    self.tracks = Some(head.at);
                    self.tracks(reader, head)?;
                    at = end;
                }
                (id::SEEK_HEAD, Some(end)) => {
                    self.seek_head(reader, head)?;
                    at = end;
                }
                (_, Some(end)) => at = end,
                (_, None) => return Ok(()),
            }
        }
        Ok(())
    }

    /// Takes in a cluster; gives where the next element is, `None` when this one is torn.
    fn cluster(&mut self, reader: &mut Reader<'_>, head: Head) -> io::Result<Option<u64>> {
        let limit = head.end.unwrap_or(reader.len).min(reader.len);
        let mut cluster = Cluster { at: head.at, size: Field { at: head.size_at, len: head.size_len }, keyframe: None };
        let (mut at, mut blocks) = (head.body, 0_u64);
        self.time = 0;
        while at < limit {
            let Some(child) = reader.head(at)? else { break };
            // Where a cluster's size is unknown, the next element of the segment ends it.
            if head.end.is_none() && matches!(child.id, id::CLUSTER | id::CUES | 0x1254_C367) {
                break;
            }
            let Some(end) = child.end.filter(|end| *end <= limit) else { break };
            match child.id {
                id::TIMESTAMP => self.time = reader.number(child)?.unwrap_or(0),
                id::SIMPLE_BLOCK => {
                    self.block(reader, (child.at, child), None, None, &mut cluster)?;
                    blocks += 1;
                    self.kept = end;
                }
                id::BLOCK_GROUP => {
                    self.group(reader, child, &mut cluster)?;
                    blocks += 1;
                    self.kept = end;
                }
                _ => {}
            }
            at = end;
        }
        if blocks > 0 {
            self.clusters.push(cluster);
        }
        Ok((at == limit || head.end.is_none() && blocks > 0 && reader.head(at)?.is_some()).then_some(at))
    }

    fn group(&mut self, reader: &mut Reader<'_>, group: Head, cluster: &mut Cluster) -> io::Result<()> {
        let (mut block, mut duration, mut key) = (None, None, true);
        for child in children(reader, group)? {
            match child.id {
                id::BLOCK => block = Some(child),
                id::BLOCK_DURATION => duration = reader.number(child)?,
                id::REFERENCE => key = false,
                _ => {}
            }
        }
        match block {
            Some(block) => self.block(reader, (group.at, block), duration, Some(key), cluster),
            None => Ok(()),
        }
    }

    /// Takes in a block: track, time against the cluster's, flags.
    fn block(
        &mut self,
        reader: &mut Reader<'_>,
        (at, block): (u64, Head),
        duration: Option<u64>,
        key: Option<bool>,
        cluster: &mut Cluster,
    ) -> io::Result<()> {
        let [number, high, low, flags] = reader.read(block.body, 4)? else { return Ok(()) };
        // Tracks of a recording have numbers of one byte.
        let number = u64::from(number & 0x7f);
        let later = i16::from_be_bytes([*high, *low]);
        let key = key.unwrap_or(flags & 0x80 != 0);
        let time = self.time.saturating_add_signed(later.into());
        let Some(track) = self.known.iter().find(|track| track.number == number) else { return Ok(()) };
        if self.blocks_from.is_some_and(|from| Duration::from_nanos(time.saturating_mul(self.scale)) >= from) {
            self.blocks.push(Block { at, video: track.video, time });
        }
        match track.video {
            true => self.frames.video += 1,
            false => self.frames.audio += 1,
        }
        self.end = self.end.max(time.saturating_add(duration.unwrap_or(track.default_duration)));
        if key && number == self.leader {
            cluster.keyframe.get_or_insert(time);
        }
        Ok(())
    }

    fn info(&mut self, reader: &mut Reader<'_>, info: Head) -> io::Result<()> {
        let mut duration = 0.0;
        for child in children(reader, info)? {
            let number = reader.number(child)?;
            match (child.id, number) {
                (id::TIMESTAMP_SCALE, Some(scale @ 1..)) => self.scale = scale,
                (id::DURATION, Some(bits)) => {
                    let len = usize::try_from(child.end.unwrap_or(child.body) - child.body).unwrap_or(0);
                    duration = match len {
                        4 => u32::try_from(bits).map(f32::from_bits).map_or(0.0, f64::from),
                        _ => f64::from_bits(bits),
                    };
                    self.duration = [4, 8].contains(&len).then_some(Field { at: child.body, len });
                }
                _ => {}
            }
        }
        #[allow(clippy::cast_precision_loss, reason = "nanoseconds a tick")]
        let seconds = duration * self.scale as f64 / 1e9;
        self.told = Duration::try_from_secs_f64(seconds).unwrap_or_default();
        Ok(())
    }

    fn tracks(&mut self, reader: &mut Reader<'_>, tracks: Head) -> io::Result<()> {
        for entry in children(reader, tracks)?.into_iter().filter(|child| child.id == id::TRACK).take(TRACKS_MAX) {
            let mut track = Track::default();
            for child in children(reader, entry)? {
                let number = reader.number(child)?.unwrap_or(0);
                match child.id {
                    id::TRACK_NUMBER => track.number = number,
                    id::TRACK_TYPE => track.video = number == 1,
                    id::DEFAULT_DURATION => track.default_duration = number.div_ceil(self.scale.max(1)),
                    _ => {}
                }
            }
            self.known.push(track);
        }
        let leader = self.known.iter().find(|track| track.video).or(self.known.first());
        self.leader = leader.map_or(1, |track| track.number);
        Ok(())
    }

    fn seek_head(&mut self, reader: &mut Reader<'_>, head: Head) -> io::Result<()> {
        for entry in children(reader, head)? {
            let Some(end) = entry.end.filter(|end| entry.id == id::SEEK && end - entry.at <= SEEK_MAX) else {
                continue;
            };
            let (mut sought, mut position) = (None, None);
            for child in children(reader, entry)? {
                match child.id {
                    id::SEEK_ID => sought = reader.number(child)?.and_then(|id| u32::try_from(id).ok()),
                    id::SEEK_POSITION if child.end == Some(child.body + 8) => position = Some(child.body - entry.at),
                    _ => {}
                }
            }
            if let (Some(id), Some(position)) = (sought, position) {
                let len = usize::try_from(end - entry.at).unwrap_or(0);
                let bytes = reader.read(entry.at, len)?.to_vec();
                let position = usize::try_from(position).unwrap_or(len);
                self.seeks.push(Seek { id, at: entry.at, len, bytes, position });
            }
        }
        Ok(())
    }
}

/// The elements in one that is whole, as far as they are whole themselves.
fn children(reader: &mut Reader<'_>, parent: Head) -> io::Result<Vec<Head>> {
    let (mut found, mut at) = (Vec::new(), parent.body);
    let limit = parent.end.unwrap_or(parent.body);
    while at < limit && found.len() < CHILDREN_MAX {
        let Some(child) = reader.head(at)?.filter(|child| child.end.is_some_and(|end| end <= limit)) else { break };
        at = child.end.unwrap_or(limit);
        found.push(child);
    }
    Ok(found)
}
