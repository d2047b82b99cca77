//! What is in an MPEG transport stream (ISO/IEC 13818-1): how long it plays, and where a file that was cut off ends.
//!
//! Such a file has no index and says nowhere how long it is. Its time stamps (PTS, 90 kHz, 33 bits) do: the length is from
//! the first of any track to the last, and a frame more. Only the file's two ends are read, whatever its size.

use std::collections::HashSet;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;

use super::repair::{RepairError, Repaired};
use super::trim::{Cut, Until};

/// The size of a packet, bytes.
const PACKET: usize = 188;
/// What each packet begins with.
const SYNC: u8 = 0x47;
/// How much of each end is read at first, packets: a second and more of most streams. It grows until there is a frame.
const WINDOW: u64 = 8 << 10;
/// Where time stamps start anew.
const WRAP: u64 = 1 << 33;
/// Ticks a second.
const CLOCK: u32 = 90_000;

/// Cuts the transport stream at `path` after its last whole packet, which is all that one needs to play, and says what is
/// in it. Blocks.
///
/// A stream of more than 26 hours counts from where its time stamps began anew.
///
/// # Errors
/// See [`RepairError`]; a file without a frame is untouched.
pub(super) fn repair_transport(path: &Path) -> Result<Repaired, RepairError> {
    let file = OpenOptions::new().read(true).write(true).open(path)?;
    let len = file.metadata()?.len();
    let packets = len / PACKET as u64;
    let kept = packets * PACKET as u64;
    let head = stamps(&file, packets, |size| 0..size)?;
    let tail = stamps(&file, packets, |size| packets - size..packets)?;
    let length = length(&head, &tail).ok_or(RepairError::Nothing)?;
    if kept < len {
        file.set_len(kept)?;
        file.sync_all()?;
    }
    Ok(Repaired {
        bytes_kept: kept,
        bytes_cut: len - kept,
        duration: Duration::from_nanos(length * 1_000_000_000 / u64::from(CLOCK)),
        video_frames: 0,
        audio_frames: 0,
        was_finished: kept == len,
    })
}

/// Takes the frames from `until` on off a transport stream whose first picture is its beginning; false when none is left.
/// Only as much of its end is read as it takes to find frames that stay. Blocks.
///
/// # Errors
/// The system's.
pub(super) fn trim_transport(path: &Path, until: Until) -> io::Result<bool> {
    let file = OpenOptions::new().read(true).write(true).open(path)?;
    let packets = file.metadata()?.len() / PACKET as u64;
    let head = stamps(&file, packets, |size| 0..size)?;
    let Some(origin) = head.iter().find(|stamp| stamp.video).map(|stamp| stamp.pts) else { return Ok(true) };
    let time = |stamp: &Stamp| {
        let ticks = u64::try_from(from_origin(stamp.pts, origin)).unwrap_or(0);
        Duration::from_nanos(ticks * 1_000_000_000 / u64::from(CLOCK))
    };
    let mut size = WINDOW.min(packets);
    loop {
        let from = (packets - size) * PACKET as u64;
        let bytes = read(&file, packets - size..packets)?;
        let stays = |stamp: Stamp| !Cut::new(until).drops(stamp.video, time(&stamp));
        // Behind a frame that stays of each track, nothing is cut that is not seen here.
        let known = |video| bytes.chunks_exact(PACKET).filter_map(stamp).any(|it| it.video == video && stays(it));
        if size < packets && !(known(true) && known(false)) {
            size = size.saturating_mul(4).min(packets);
            continue;
        }
        let (mut cut, mut dropped, mut kept) = (Cut::new(until), HashSet::new(), Vec::new());
        for packet in bytes.chunks_exact(PACKET) {
            let begins = stamp(packet);
            if let Some(begins) = begins {
                match cut.drops(begins.video, time(&begins)) {
                    true => dropped.insert(begins.pid),
                    false => dropped.remove(&begins.pid),
                };
            }
            if !dropped.contains(&pid(packet)) {
                kept.extend_from_slice(packet);
            }
        }
        file.write_all_at(&kept, from)?;
        file.set_len(from + kept.len() as u64)?;
        return Ok(size < packets || kept.chunks_exact(PACKET).any(|packet| stamp(packet).is_some()));
    }
}

/// A frame's presentation time, and the track it belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    pid: u16,
    video: bool,
    pts: u64,
}

/// The time stamps in one end of the file: of as few packets as have two of one track, or of all.
fn stamps(file: &File, packets: u64, end: impl Fn(u64) -> std::ops::Range<u64>) -> io::Result<Vec<Stamp>> {
    let mut size = WINDOW.min(packets);
    loop {
        let bytes = read(file, end(size))?;
        let found: Vec<Stamp> = bytes.chunks_exact(PACKET).filter_map(stamp).collect();
        let follows = |(n, one): (usize, &Stamp)| found[..n].iter().any(|before| before.pid == one.pid);
        if size == packets || found.iter().enumerate().any(follows) {
            return Ok(found);
        }
        size = size.saturating_mul(4).min(packets);
    }
}

fn read(file: &File, packets: std::ops::Range<u64>) -> io::Result<Vec<u8>> {
    let count = usize::try_from(packets.end - packets.start).map_err(io::Error::other)?;
    let mut bytes = vec![0; count * PACKET];
    file.read_exact_at(&mut bytes, packets.start * PACKET as u64)?;
    Ok(bytes)
}

/// Ticks since `origin`; what is a little before it is negative.
fn from_origin(pts: u64, origin: u64) -> i64 {
    let ticks = pts.wrapping_sub(origin) % WRAP;
    let early = WRAP - ticks;
    if early < u64::from(CLOCK) * 10 { -early.cast_signed() } else { ticks.cast_signed() }
}

/// From the first picture or sound to the end of the last, in ticks; `None` without any.
fn length(head: &[Stamp], tail: &[Stamp]) -> Option<u64> {
    let origin = head.first()?.pts;
    let time = |stamp: &Stamp| from_origin(stamp.pts, origin);
    let start = head.iter().map(time).min()?;
    let end = tail.iter().map(|last| {
        let mut of_track: Vec<i64> = tail.iter().filter(|one| one.pid == last.pid).map(time).collect();
        of_track.sort_unstable();
        // The last frame lasts as long as the one before it.
        let last = of_track.last().copied().unwrap_or_default();
        let before = of_track.iter().rev().find(|time| **time < last).copied().unwrap_or(last);
        last + (last - before).min(CLOCK.into())
    });
    u64::try_from(end.max()? - start).ok()
}

/// The presentation time in a packet that begins a frame.
fn stamp(packet: &[u8]) -> Option<Stamp> {
    let starts = packet[0] == SYNC && packet[1] & 0x40 != 0 && packet[3] & 0x10 != 0;
    let body = if packet[3] & 0x20 == 0 { 4 } else { 5 + usize::from(packet[4]) };
    let pes = packet.get(body..).filter(|pes| starts && pes.len() >= 14)?;
    let is_media = pes[..3] == [0, 0, 1] && matches!(pes[3], 0xBD | 0xC0..=0xEF);
    let has_pts = pes[6] & 0xC0 == 0x80 && pes[7] & 0x80 != 0;
    let bits = |at: usize, mask: u8| u64::from(pes[at] & mask);
    let pts =
        bits(9, 0x0E) << 29 | bits(10, 0xFF) << 22 | bits(11, 0xFE) << 14 | bits(12, 0xFF) << 7 | bits(13, 0xFE) >> 1;
    (is_media && has_pts).then_some(Stamp { pid: pid(packet), video: pes[3] >= 0xE0, pts })
}

fn pid(packet: &[u8]) -> u16 {
    u16::from(packet[1] & 0x1F) << 8 | u16::from(packet[2])
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    /// The packet that begins a frame.
    fn frame(pid: u16, pts: u64, stuffing: usize) -> Vec<u8> {
        let [high, low] = pid.to_be_bytes();
        let mut packet = vec![SYNC, 0x40 | high, low, 0x30, u8::try_from(stuffing).unwrap()];
        packet.resize(5 + stuffing, 0xFF);
        let byte = |shift: u32, mask: u64| u8::try_from((pts >> shift) & mask).unwrap();
        let stamp =
            [0x21 | byte(30, 7) << 1, byte(22, 255), 1 | byte(15, 127) << 1, byte(7, 255), 1 | byte(0, 127) << 1];
        packet.extend([0, 0, 1, if pid == 65 { 0xE0 } else { 0xC0 }, 0, 0, 0x80, 0x80, 5]);
        packet.extend(stamp);
        packet.resize(PACKET, 0);
        packet
    }

    fn other(pid: u16) -> Vec<u8> {
        let [high, low] = pid.to_be_bytes();
        let mut packet = vec![SYNC, high, low, 0x10];
        packet.resize(PACKET, 1);
        packet
    }

    fn repaired(bytes: &[u8]) -> (Result<Repaired, RepairError>, u64) {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), bytes).unwrap();
        let found = repair_transport(file.path());
        (found, std::fs::metadata(file.path()).unwrap().len())
    }

    #[test]
    fn stamps_are_read_behind_any_stuffing() {
        for (pts, stuffing) in [(0, 0), (1, 7), (324_000_000, 1), (WRAP - 1, 160)] {
            assert_eq!(stamp(&frame(65, pts, stuffing)), Some(Stamp { pid: 65, video: true, pts }));
        }
        assert_eq!(stamp(&other(65)), None);
        assert_eq!(stamp(&frame(65, 5, 170)), None, "no room for a stamp");
    }

    #[test]
    fn it_plays_from_its_first_frame_to_the_end_of_its_last() {
        // 25 pictures a second, reordered, with sound that ends a little later, and a torn packet.
        for origin in [0, 324_000_000, WRAP - 90_000] {
            let mut bytes = Vec::new();
            for n in 0..100_u64 {
                let shown = if n % 3 == 1 {
                    n + 1
                } else if n % 3 == 2 {
                    n - 1
                } else {
                    n
                };
                bytes.extend(frame(65, (origin + shown * 3600) % WRAP, 0));
                (0..3).for_each(|_| bytes.extend(other(65)));
                bytes.extend(frame(66, (origin + n * 3600) % WRAP, 0));
            }
            bytes.extend(frame(66, (origin + 100 * 3600) % WRAP, 0));
            let whole = bytes.len() as u64;
            bytes.extend(&frame(65, 0, 0)[..100]);
            let (found, len) = repaired(&bytes);
            let found = found.unwrap();
            assert_eq!((found.bytes_kept, found.bytes_cut, len), (whole, 100, whole));
            assert_eq!((found.duration, found.was_finished), (Duration::from_millis(4040), false));
        }
    }

    #[test]
    fn a_frame_larger_than_what_is_read_at_first_is_found() {
        let mut bytes = [frame(65, 0, 0), frame(65, 3000, 0)].concat();
        bytes.extend((0..WINDOW * 5).flat_map(|_| other(65)));
        assert_eq!(repaired(&bytes).0.unwrap().duration, Duration::from_nanos(66_666_666));
    }

    #[test]
    fn what_has_no_frame_is_nothing() {
        for bytes in [vec![], vec![SYNC; 100], other(0), vec![0; PACKET * 3]] {
            let (found, len) = repaired(&bytes);
            assert!(matches!(found, Err(RepairError::Nothing)), "{found:?}");
            assert_eq!(len, bytes.len() as u64);
        }
    }

    proptest! {
        #[test]
        fn garbage_is_survived(bytes in proptest::collection::vec(any::<u8>(), 0..1500)) {
            let marked: Vec<u8> = bytes.iter().enumerate().map(|(n, byte)| if n % PACKET == 0 { SYNC } else { *byte }).collect();
            let _ = repaired(&marked);
        }
    }
}
