//! Elements: an id, a size, and a body (RFC 8794).

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// How much of a file is read at once.
const WINDOW: usize = 64 << 10;

/// Where an element is, offsets from the beginning of the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Head {
    pub id: u32,
    pub at: u64,
    /// Where its size stands, and in how many bytes.
    pub size_at: u64,
    pub size_len: usize,
    pub body: u64,
    /// The offset behind it; `None` while its size is unknown.
    pub end: Option<u64>,
}

/// A file that is read at offsets, mostly one behind the other.
pub(super) struct Reader<'a> {
    file: &'a File,
    pub len: u64,
    window: Vec<u8>,
    from: u64,
}

impl<'a> Reader<'a> {
    pub fn new(file: &'a File, len: u64) -> Self {
        Self { file, len, window: Vec::new(), from: 0 }
    }

    /// The bytes from `at` on, `count` of them or as many as the file has.
    pub fn read(&mut self, at: u64, count: usize) -> io::Result<&[u8]> {
        let wanted = usize::try_from(self.len.saturating_sub(at)).unwrap_or(usize::MAX).min(count);
        let inside = at >= self.from && at + wanted as u64 <= self.from + self.window.len() as u64;
        if !inside {
            let length = usize::try_from(self.len.saturating_sub(at)).unwrap_or(usize::MAX).min(WINDOW.max(count));
            self.window.resize(length, 0);
            self.file.read_exact_at(&mut self.window, at)?;
            self.from = at;
        }
        let start = usize::try_from(at.saturating_sub(self.from)).unwrap_or(usize::MAX);
        Ok(self.window.get(start..start.saturating_add(wanted)).unwrap_or_default())
    }

    /// The head of the element at `at`; `None` where there is none, or not all of it.
    pub fn head(&mut self, at: u64) -> io::Result<Option<Head>> {
        let bytes = self.read(at, 12)?;
        let head = || {
            let id_len = vint_len(*bytes.first()?).filter(|len| *len <= 4)?;
            let id = bytes.get(..id_len)?.iter().fold(0_u32, |id, byte| id << 8 | u32::from(*byte));
            let size_len = vint_len(*bytes.get(id_len)?)?;
            let size = vint(bytes.get(id_len..id_len + size_len)?);
            let body = at + (id_len + size_len) as u64;
            let end = match size {
                Some(size) => Some(body.checked_add(size)?),
                None => None,
            };
            Some(Head { id, at, size_at: at + id_len as u64, size_len, body, end })
        };
        Ok(head())
    }

    /// A whole element's body as a number; `None` for more than eight bytes.
    pub fn number(&mut self, head: Head) -> io::Result<Option<u64>> {
        let Some(len) = head.end.map(|end| end - head.body).filter(|len| *len <= 8) else { return Ok(None) };
        let bytes = self.read(head.body, usize::try_from(len).unwrap_or(0))?;
        Ok(Some(bytes.iter().fold(0, |number, byte| number << 8 | u64::from(*byte))))
    }
}

/// How many bytes a number of variable length has, by its first one.
fn vint_len(first: u8) -> Option<usize> {
    (first != 0).then(|| first.leading_zeros() as usize + 1)
}

/// A size; `None` for the one that says "unknown".
fn vint(bytes: &[u8]) -> Option<u64> {
    let bits = 7 * bytes.len();
    let number = bytes.iter().fold(0, |number, byte| number << 8 | u64::from(*byte)) & ((1 << bits) - 1);
    (number != (1 << bits) - 1).then_some(number)
}

/// A size in exactly `len` bytes; `None` where it does not fit.
pub(super) fn sized_as(size: u64, len: usize) -> Option<Vec<u8>> {
    if !(1..=8).contains(&len) || size >= (1 << (7 * len)) - 1 {
        return None;
    }
    let marked = size | 1 << (7 * len);
    Some(marked.to_be_bytes()[8 - len..].to_vec())
}

/// A number in as few bytes as it needs.
pub(super) fn number(number: u64) -> Vec<u8> {
    let bytes = number.to_be_bytes();
    let skip = bytes.iter().take(7).take_while(|byte| **byte == 0).count();
    bytes[skip..].to_vec()
}

/// An element with its size in eight bytes.
pub(super) fn element(id: u32, body: &[u8]) -> Vec<u8> {
    let size = sized_as(body.len() as u64, 8).unwrap_or_default();
    [&number(u64::from(id))[..], &size, body].concat()
}

/// An element of `len` bytes that says nothing.
pub(super) fn void(len: usize) -> Vec<u8> {
    let Some(body) = len.checked_sub(9) else { return vec![] };
    element(super::id::VOID, &vec![0; body])
}
