//! The header of one chunk (RTMP 1.0 section 5.3.1).

use crate::rtmp::wire::Reader;

/// The longest header: three basic bytes, eleven of message header, four of extended timestamp.
pub(super) const MAX_HEADER: usize = 18;
/// A 24-bit timestamp field with this value says that 32 bits follow (section 5.3.1.3).
pub(super) const EXTENDED: u32 = 0xff_ffff;

/// The fields of one chunk header.
#[derive(Debug)]
pub(super) struct Header {
    /// 0 to 3: the message header has 11, 7, 3 or no bytes.
    pub(super) format: u8,
    /// The chunk stream id.
    pub(super) stream: u32,
    /// Timestamp (format 0) or delta (1 and 2), 24 bits.
    pub(super) time: Option<u32>,
    /// Length of the message, bytes (0 and 1).
    pub(super) len: Option<usize>,
    /// Message type id (0 and 1).
    pub(super) kind: Option<u8>,
    /// The four bytes behind the message header, if they were there to be read.
    pub(super) extended: Option<u32>,
}

impl Header {
    /// Reads a header's fields from bytes that may end early; `None` if they end before the message header does.
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader::new(bytes);
        let first = reader.u8()?;
        let format = first >> 6;
        let stream = match first & 0x3f {
            0 => u32::from(reader.u8()?).wrapping_add(64),
            // Section 5.3.1.1: the second byte counts ones, the third 256s.
            1 => u32::from(reader.u16()?.swap_bytes()).wrapping_add(64),
            id => u32::from(id),
        };
        let mut header = Self { format, stream, time: None, len: None, kind: None, extended: None };
        if format <= 2 {
            header.time = Some(reader.u24()?);
        }
        if format <= 1 {
            header.len = Some(usize::try_from(reader.u24()?).ok()?);
            header.kind = Some(reader.u8()?);
        }
        if format == 0 {
            // The message stream id: one connection has one stream, whatever the peer calls it.
            reader.u32_le()?;
        }
        header.extended = reader.u32();
        Some(header)
    }
}

/// Length of basic and message header, without an extended timestamp, as far as the first byte of `bytes` tells it.
pub(super) fn fixed_len(bytes: &[u8]) -> usize {
    let Some(first) = bytes.first() else {
        return 1;
    };
    let basic: usize = match first & 0x3f {
        0 => 2,
        1 => 3,
        _ => 1,
    };
    let message = match first >> 6 {
        0 => 11,
        1 => 7,
        2 => 3,
        _ => 0,
    };
    basic.saturating_add(message)
}
