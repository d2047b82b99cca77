//! The few MP4 boxes (ISO/IEC 14496-12) that the repair of a recording reads: headers, durations, sample counts, and where
//! a fragment's samples lie.
//!
//! Every byte may be hostile: sizes are checked against what holds them, sums are checked, recursion and track count are
//! limited, and nothing is allocated by a number that the file gives, except a whole `moof` of at most 16 MiB.
//! Crates that decode MP4 (`mp4-atom` does it well) decode whole boxes into values; a final `moov` has up to 100 MB,
//! and what the repair needs of it are some fixed-size fields and where they are.

mod fragment;
mod movie;

pub(super) use fragment::Fragment;
pub(super) use movie::{Field, Kind, Movie, Track};

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// Why a box cannot be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum BoxError {
    /// The file cannot be read.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The bytes are not the box that they should be.
    #[error("a malformed box")]
    Malformed,
}

/// The box is malformed where a value is missing.
fn need<T>(value: Option<T>) -> Result<T, BoxError> {
    value.ok_or(BoxError::Malformed)
}

/// Where a box is. The offsets count from the beginning of the file, or of the slice that it was read from.
#[derive(Clone, Copy, Debug)]
pub(super) struct Head {
    /// The four characters of its type.
    pub kind: [u8; 4],
    /// The offset of its first byte.
    pub at: u64,
    /// The offset of its content: `at` + 8, or `at` + 16 with a 64-bit size.
    pub body: u64,
    /// The offset behind its last byte; `u64::MAX` when the size is still 0, "to the end", as it is while it is written.
    pub end: u64,
}

impl Head {
    /// Reads up to 16 bytes; `None` when they are too few, or the size is smaller than the header.
    fn parse(mut bytes: &[u8], at: u64) -> Option<Head> {
        let short = take_u32(&mut bytes)?;
        let kind = take_u32(&mut bytes)?.to_be_bytes();
        let (size, header) = match short {
            0 => {
                return Some(Head { kind, at, body: at.checked_add(8)?, end: u64::MAX });
            }
            1 => (take_u64(&mut bytes)?, 16),
            size => (u64::from(size), 8),
        };
        let whole = Head { kind, at, body: at.checked_add(header)?, end: at.saturating_add(size) };
        (size >= header).then_some(whole)
    }
}

/// A file that is read at offsets, with the length that it had when it was opened.
#[derive(Debug)]
pub(super) struct Media<'a> {
    pub file: &'a File,
    pub len: u64,
}

impl Media<'_> {
    /// The head of the box at `at`, which may end behind the file; `None` where there is none.
    pub fn head(&self, at: u64) -> io::Result<Option<Head>> {
        Ok(Head::parse(&self.read(at, at.saturating_add(16))?, at))
    }

    /// The first offset in `from..to` where `is` holds for the 12 bytes from there on.
    pub fn find(&self, from: u64, to: u64, is: fn(&[u8]) -> bool) -> io::Result<Option<u64>> {
        const STEP: u64 = 1 << 20;
        let mut at = from;
        while at < to.min(self.len) {
            let bytes = self.read(at, at.saturating_add(STEP + 11).min(to))?;
            if let Some(found) = bytes.windows(12).position(is) {
                return Ok(Some(at + found as u64));
            }
            at += STEP;
        }
        Ok(None)
    }

    /// The bytes of `from..to`, as far as the file goes.
    fn read(&self, from: u64, to: u64) -> io::Result<Vec<u8>> {
        let size = to.min(self.len).saturating_sub(from);
        let mut bytes = vec![0; usize::try_from(size).map_err(io::Error::other)?];
        self.file.read_exact_at(&mut bytes, from)?;
        Ok(bytes)
    }
}

/// The boxes in `bytes`, each as its type and its content; an item is `None` where no whole box is, and the last then.
fn boxes(mut bytes: &[u8]) -> impl Iterator<Item = Option<([u8; 4], &[u8])>> {
    std::iter::from_fn(move || {
        if bytes.is_empty() {
            return None;
        }
        let whole = std::mem::take(&mut bytes);
        let split = || {
            let head = Head::parse(whole, 0)?;
            let (this, rest) = whole.split_at_checked(usize::try_from(head.end).ok()?)?;
            Some((head.kind, this.get(usize::try_from(head.body).ok()?..)?, rest))
        };
        Some(split().map(|(kind, body, rest)| {
            bytes = rest;
            (kind, body)
        }))
    })
}

fn take_u32(bytes: &mut &[u8]) -> Option<u32> {
    let (number, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(u32::from_be_bytes(*number))
}

fn take_u64(bytes: &mut &[u8]) -> Option<u64> {
    let (number, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(u64::from_be_bytes(*number))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    take_u32(&mut bytes.get(at..)?)
}

fn number_at(bytes: &[u8], at: usize, wide: bool) -> Option<u64> {
    if wide { take_u64(&mut bytes.get(at..)?) } else { u32_at(bytes, at).map(u64::from) }
}
