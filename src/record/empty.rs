//! Tracks of an MP4 that never got a frame: a recording that is ended as soon as it has begun, or a track that a source
//! announces and never sends.
//!
//! `mp4mux` writes such a track all the same, with a time scale of 0 and no sample description, and players refuse the
//! whole file for it. Its `trak` becomes a `free`, a box that every player skips.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::mp4::{Head, Media};

/// The most boxes looked at on one level: a recording has two tracks, and a fragment is some boxes.
const BOXES: usize = 100_000;

/// Takes the tracks without a frame out of the MP4 at `path`; true when there were some, and others beside them. Blocks.
///
/// # Errors
/// The system's.
pub(super) fn hide_empty_tracks(path: &Path) -> io::Result<bool> {
    let file = OpenOptions::new().read(true).write(true).open(path)?;
    let media = Media { file: &file, len: file.metadata()?.len() };
    let Some(moov) = child(&media, 0, media.len, b"moov")? else { return Ok(false) };
    let mut tracks = Vec::new();
    let mut at = moov.body;
    while let Some(track) = child(&media, at, moov.end, b"trak")? {
        tracks.push(track);
        at = track.end;
    }
    let mut empty = Vec::new();
    for track in &tracks {
        if time_scale(&media, *track)? == Some(0) {
            empty.push(*track);
        }
    }
    // With nothing left there is no movie, and what is there says more than what would be.
    if empty.is_empty() || empty.len() == tracks.len() {
        return Ok(false);
    }
    for track in empty {
        file.write_all_at(b"free", track.at + 4)?;
    }
    Ok(true)
}

/// The first whole box of that type in `from..to`.
fn child(media: &Media<'_>, from: u64, to: u64, kind: &[u8; 4]) -> io::Result<Option<Head>> {
    let mut at = from;
    for _ in 0..BOXES {
        let Some(head) = media.head(at)?.filter(|head| head.end <= to.min(media.len)) else { break };
        if head.kind == *kind {
            return Ok(Some(head));
        }
        at = head.end;
    }
    Ok(None)
}

/// The time scale of a track; `None` where it has no header.
fn time_scale(media: &Media<'_>, track: Head) -> io::Result<Option<u32>> {
    let Some(mdia) = child(media, track.body, track.end, b"mdia")? else { return Ok(None) };
    let Some(mdhd) = child(media, mdia.body, mdia.end, b"mdhd")? else { return Ok(None) };
    let wide = number(media.file, mdhd.body)? >> 24 == 1;
    let at = mdhd.body + if wide { 20 } else { 12 };
    if at + 4 > mdhd.end { Ok(None) } else { number(media.file, at).map(Some) }
}

fn number(file: &File, at: u64) -> io::Result<u32> {
    let mut bytes = [0; 4];
    file.read_exact_at(&mut bytes, at)?;
    Ok(u32::from_be_bytes(bytes))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn boxed(kind: &[u8; 4], body: &[u8]) -> Vec<u8> {
        let size = u32::try_from(body.len() + 8).unwrap();
        [&size.to_be_bytes()[..], kind, body].concat()
    }

    fn track(scale: u32) -> Vec<u8> {
        let header = [&[0; 12][..], &scale.to_be_bytes(), &[0; 8]].concat();
        boxed(b"trak", &[boxed(b"tkhd", &[0; 84]), boxed(b"mdia", &boxed(b"mdhd", &header))].concat())
    }

    fn hidden(tracks: &[u32]) -> (bool, usize) {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("a.mp4");
        let tracks: Vec<u8> = tracks.iter().flat_map(|scale| track(*scale)).collect();
        let moov = boxed(b"moov", &[boxed(b"mvhd", &[0; 100]), tracks].concat());
        std::fs::write(&file, [boxed(b"ftyp", b"isom"), boxed(b"mdat", &[7; 50]), moov].concat()).unwrap();
        let changed = hide_empty_tracks(&file).unwrap();
        let bytes = std::fs::read(&file).unwrap();
        (changed, bytes.windows(4).filter(|four| *four == b"trak").count())
    }

    #[test]
    fn only_empty_tracks_beside_others_are_hidden() {
        assert_eq!(hidden(&[30_000, 0]), (true, 1));
        assert_eq!(hidden(&[0, 44_100]), (true, 1));
        assert_eq!(hidden(&[30_000, 44_100]), (false, 2));
        assert_eq!(hidden(&[0]), (false, 1));
        assert_eq!(hidden(&[0, 0]), (false, 2));
    }

    #[test]
    fn what_is_no_mp4_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("a.mp4");
        for bytes in [&b""[..], b"moov", &[0; 100], &[255; 100], &boxed(b"moov", &[0, 0, 0, 9, b't'])] {
            std::fs::write(&file, bytes).unwrap();
            assert!(!hide_empty_tracks(&file).unwrap());
            assert_eq!(std::fs::read(&file).unwrap(), bytes);
        }
    }
}
