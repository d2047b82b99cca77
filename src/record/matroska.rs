//! What the next start does with a WebM or Matroska recording that a killed process left behind: cuts it after its last
//! whole block, and gives it the duration and the cues that make it one that can be searched.
//!
//! The files come from `matroskamux`, which writes
//!
//! ```text
//! while recording   EBML  Segment(?)  SeekHead(blank)  Info(duration: blank)  Tracks  Cluster  Cluster  Cluster(?…
//! finished          EBML  Segment     SeekHead         Info                   Tracks  Cluster  …  Cluster  Cues  Tags
//! ```
//!
//! - `(?)`: the size is unknown as yet. A cluster gets its size when the next one begins; one cluster has up to some
//!   seconds, its blocks follow each other as they came.
//! - Finishing writes cues and tags, then the seek head, the duration, and last the segment's size. A process that dies
//!   between leaves a file whose segment has no size, and whatever stands behind its last cluster is written anew.
//!
//! The repair writes in the same order, so that one which is cut short is done again from its beginning.

mod ebml;
mod scan;

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;

use super::repair::{RepairError, Repaired};
use super::trim::{Cut, Until};
use ebml::{element, number, sized_as, void};
use scan::{Field, Scan, Seek};

/// Element ids (RFC 9559).
mod id {
    pub const EBML: u32 = 0x1A45_DFA3;
    pub const SEGMENT: u32 = 0x1853_8067;
    pub const SEEK_HEAD: u32 = 0x114D_9B74;
    pub const SEEK: u32 = 0x4DBB;
    pub const SEEK_ID: u32 = 0x53AB;
    pub const SEEK_POSITION: u32 = 0x53AC;
    pub const INFO: u32 = 0x1549_A966;
    pub const TIMESTAMP_SCALE: u32 = 0x002A_D7B1;
    pub const DURATION: u32 = 0x4489;
    pub const TRACKS: u32 = 0x1654_AE6B;
    pub const TRACK: u32 = 0xAE;
    pub const TRACK_NUMBER: u32 = 0xD7;
    pub const TRACK_TYPE: u32 = 0x83;
    pub const DEFAULT_DURATION: u32 = 0x0023_E383;
    pub const CLUSTER: u32 = 0x1F43_B675;
    pub const TIMESTAMP: u32 = 0xE7;
    pub const SIMPLE_BLOCK: u32 = 0xA3;
    pub const BLOCK_GROUP: u32 = 0xA0;
    pub const BLOCK: u32 = 0xA1;
    pub const BLOCK_DURATION: u32 = 0x9B;
    pub const REFERENCE: u32 = 0xFB;
    pub const CUES: u32 = 0x1C53_BB6B;
    pub const CUE_POINT: u32 = 0xBB;
    pub const CUE_TIME: u32 = 0xB3;
    pub const CUE_TRACK_POSITIONS: u32 = 0xB7;
    pub const CUE_TRACK: u32 = 0xF7;
    pub const CUE_CLUSTER_POSITION: u32 = 0xF1;
    pub const VOID: u32 = 0xEC;
}

/// Makes the WebM or Matroska recording at `path` one that plays and can be searched; a finished file is only read. Blocks.
///
/// # Errors
/// See [`RepairError`]; nothing is ever deleted, and except for [`RepairError::Io`] the file is as it was.
pub(super) fn repair_matroska(path: &Path) -> Result<Repaired, RepairError> {
    let file = OpenOptions::new().read(true).write(true).open(path)?;
    let len = file.metadata()?.len();
    let scan = Scan::run(&file, len)?.ok_or(RepairError::Nothing)?;
    let found = |bytes_kept, duration, was_finished| Repaired {
        bytes_kept,
        bytes_cut: len.saturating_sub(bytes_kept),
        duration,
        video_frames: scan.frames.video,
        audio_frames: scan.frames.audio,
        was_finished,
    };
    if scan.finished {
        return Ok(found(len, scan.told, true));
    }
    if scan.clusters.is_empty() {
        return Err(RepairError::Nothing);
    }
    finish(&file, &scan)?;
    Ok(found(scan.kept, Duration::from_nanos(scan.end.saturating_mul(scan.scale)), false))
}

/// Takes the frames from `until` on out of a finished recording; false when none is left. The blocks become elements that
/// say nothing, those at the end are cut off, and duration and cues are written anew. Blocks.
///
/// # Errors
/// The system's.
pub(super) fn trim_matroska(path: &Path, until: Until) -> io::Result<bool> {
    let file = OpenOptions::new().read(true).write(true).open(path)?;
    let len = file.metadata()?.len();
    let Some(scan) = Scan::anew(&file, len, until.earliest())? else { return Ok(true) };
    let mut cut = Cut::new(until);
    for block in &scan.blocks {
        let time = Duration::from_nanos(block.time.saturating_mul(scan.scale));
        if cut.drops(block.video, time) {
            file.write_all_at(&number(u64::from(id::VOID)), block.at)?;
        }
    }
    match Scan::anew(&file, len, until.earliest())? {
        Some(scan) if !scan.clusters.is_empty() => finish(&file, &scan).map(|()| true),
        _ => Ok(false),
    }
}

/// Writes what is missing.
fn finish(file: &File, scan: &Scan) -> io::Result<()> {
    file.set_len(scan.kept)?;
    if let Some(cluster) = scan.clusters.last() {
        close(file, cluster.size, scan.kept)?;
    }
    let mut cues = cues(scan);
    match file.write_all_at(&cues, scan.kept) {
        // On a full disk the recording is worth more than what makes it easy to search.
        Err(error) if error.kind() == io::ErrorKind::StorageFull => {
            file.set_len(scan.kept)?;
            cues.clear();
        }
        other => other?,
    }
    for seek in &scan.seeks {
        file.write_all_at(&sought(seek, scan, !cues.is_empty()), seek.at)?;
    }
    if let Some(duration) = scan.duration {
        // The field has four bytes or eight; less than all of an hour's milliseconds fit into four.
        #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, reason = "milliseconds of a recording")]
        let bytes = match duration.len {
            4 => (scan.end as f32).to_be_bytes().to_vec(),
            _ => (scan.end as f64).to_be_bytes().to_vec(),
        };
        file.write_all_at(&bytes, duration.at)?;
    }
    file.sync_all()?;
    close(file, scan.segment, scan.kept + cues.len() as u64)?;
    file.sync_all()
}

/// Gives an element the size that makes it end at `end`, in a field of the length it has.
fn close(file: &File, size: Field, end: u64) -> io::Result<()> {
    let body = size.at + size.len as u64;
    match sized_as(end.saturating_sub(body), size.len) {
        Some(bytes) => file.write_all_at(&bytes, size.at),
        // One that does not fit stays unknown, which players take as "to the end".
        None => Ok(()),
    }
}

/// A cue for every cluster that has a keyframe of the leading track.
fn cues(scan: &Scan) -> Vec<u8> {
    let mut points = Vec::new();
    for cluster in &scan.clusters {
        let Some(time) = cluster.keyframe else { continue };
        let position = element(id::CUE_CLUSTER_POSITION, &number(cluster.at - scan.body));
        let positions = [element(id::CUE_TRACK, &number(scan.leader)), position].concat();
        let point = [element(id::CUE_TIME, &number(time)), element(id::CUE_TRACK_POSITIONS, &positions)].concat();
        points.extend(element(id::CUE_POINT, &point));
    }
    element(id::CUES, &points)
}

/// An entry of the seek head: where the element it names is, or nothing where there is none.
fn sought(seek: &Seek, scan: &Scan, has_cues: bool) -> Vec<u8> {
    let position = match seek.id {
        id::INFO => scan.info,
        id::TRACKS => scan.tracks,
        id::CUES => Some(scan.kept).filter(|_| has_cues),
        _ => None,
    };
    let Some(position) = position else { return void(seek.len) };
    let mut entry = seek.bytes.clone();
    let at = seek.position;
    if let (Some(position), Some(field)) = (position.checked_sub(scan.body), entry.get_mut(at..at + 8)) {
        field.copy_from_slice(&position.to_be_bytes());
    }
    entry
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests;
