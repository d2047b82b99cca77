//! What goes out, cut into chunks (RTMP 1.0 section 5.3).
//!
//! Every message starts with a full header (format 0) and an absolute time, so a message's chunks are the same for every
//! viewer: they are made once a stream, and a viewer costs a few reference counts. The eight bytes a message that shorter
//! headers would save are less than the work of making them per viewer.

use super::message::{Kind, STREAM_ID};
use bytes::{BufMut, Bytes, BytesMut};
use std::sync::Arc;

/// The chunk size a session announces and [`Frame`]s are cut to, bytes. Large enough that most frames are one or two
/// chunks, small enough for relays that allocate a chunk at a time (nginx-rtmp).
pub const OUT_CHUNK_SIZE: usize = 16_384;
/// Longest body the length field can say, and the timestamp from which on 32 bits follow (section 5.3.1).
const EXTENDED: u32 = 0xff_ffff;
/// Payloads up to this are copied behind their header: cheaper than one more slice to write.
const COPY_BELOW: usize = 512;

/// An audio, video or metadata message ready to be sent to any number of players.
///
/// It is a list of slices: chunk headers, and pieces of the payload that share its memory. Cloning it copies nothing.
/// A payload over 16,777,215 bytes, which RTMP cannot say the length of, makes a frame of nothing: it is not sent.
#[derive(Debug, Clone)]
pub struct Frame {
    kind: Kind,
    parts: Arc<[Bytes]>,
    len: usize,
}

impl Frame {
    /// A video message. `timestamp` is its decoding time in milliseconds, modulo 2^32; `payload` an FLV video tag's body.
    pub fn video(timestamp: u32, payload: Bytes) -> Self {
        Self::new(Kind::Video, timestamp, &[], payload)
    }

    /// A video message whose tag header is apart from its media, which is then not copied: see
    /// [`flv::avc_head`](super::flv::avc_head).
    pub fn video_behind(timestamp: u32, head: &[u8], media: Bytes) -> Self {
        Self::new(Kind::Video, timestamp, head, media)
    }

    /// An audio message. `timestamp` in milliseconds, modulo 2^32; `payload` an FLV audio tag's body.
    pub fn audio(timestamp: u32, payload: Bytes) -> Self {
        Self::new(Kind::Audio, timestamp, &[], payload)
    }

    /// An audio message whose tag header is apart from its media: see [`flv::AAC_HEAD`](super::flv::AAC_HEAD) and
    /// [`flv::g711_head`](super::flv::g711_head).
    pub fn audio_behind(timestamp: u32, head: &[u8], media: Bytes) -> Self {
        Self::new(Kind::Audio, timestamp, head, media)
    }

    /// A data message: `payload` is an `onMetaData` in AMF0, as [`Event::Metadata`](super::Event::Metadata) carries it and
    /// [`flv::Metadata`](super::flv::Metadata) builds it.
    pub fn metadata(timestamp: u32, payload: Bytes) -> Self {
        Self::new(Kind::DataAmf0, timestamp, &[], payload)
    }

    fn new(kind: Kind, timestamp: u32, head: &[u8], payload: Bytes) -> Self {
        let parts = chunks(kind, STREAM_ID, timestamp, head, payload);
        let len = parts.iter().map(Bytes::len).sum();
        Self { kind, parts: parts.into(), len }
    }

    pub(crate) fn kind(&self) -> Kind {
        self.kind
    }

    /// The slices in the order they are sent.
    pub(crate) fn parts(&self) -> &[Bytes] {
        &self.parts
    }

    /// Bytes on the wire, headers included.
    pub fn wire_len(&self) -> usize {
        self.len
    }
}

/// The chunk stream of each kind of message: control is on 2 (section 5.4), the rest where FMS has them.
fn chunk_stream(kind: Kind) -> u8 {
    match kind {
        Kind::Audio => 4,
        Kind::DataAmf0 => 5,
        Kind::Video => 6,
        Kind::CommandAmf0 => 3,
        _ => 2,
    }
}

/// Cuts one message, `prefix` and then `payload`, into chunks. The prefix is short: at most a tag's header. A payload that
/// is not short is sliced, not copied. Too long for RTMP: no chunks.
pub(crate) fn chunks(kind: Kind, stream_id: u32, timestamp: u32, prefix: &[u8], payload: Bytes) -> Vec<Bytes> {
    let whole = payload.len().saturating_add(prefix.len());
    let Some(len) = u32::try_from(whole).ok().filter(|len| *len <= EXTENDED) else {
        return Vec::new();
    };
    let continuations = whole.saturating_sub(1) / OUT_CHUNK_SIZE;
    // One allocation holds all headers: 16 bytes for the first, 5 for each that continues.
    let headers = continuations.saturating_mul(5).saturating_add(prefix.len()).saturating_add(16);
    let copied = if payload.len() <= COPY_BELOW { payload.len() } else { 0 };
    let mut head = BytesMut::with_capacity(headers.saturating_add(copied));
    put_full_header(&mut head, kind, stream_id, timestamp, len);
    head.put_slice(prefix);
    if payload.len() <= COPY_BELOW {
        head.put_slice(&payload);
        return vec![head.freeze()];
    }
    let mut parts = Vec::with_capacity(continuations.saturating_mul(2).saturating_add(2));
    let mut rest = payload;
    let mut room = OUT_CHUNK_SIZE.saturating_sub(prefix.len());
    loop {
        parts.push(head.split().freeze());
        parts.push(rest.split_to(rest.len().min(room)));
        room = OUT_CHUNK_SIZE;
        if rest.is_empty() {
            return parts;
        }
        head.put_u8(0xc0 | chunk_stream(kind));
        if timestamp >= EXTENDED {
            head.put_u32(timestamp);
        }
    }
}

fn put_full_header(head: &mut BytesMut, kind: Kind, stream_id: u32, timestamp: u32, len: u32) {
    head.put_u8(chunk_stream(kind));
    head.put_uint(u64::from(timestamp.min(EXTENDED)), 3);
    head.put_uint(u64::from(len), 3);
    head.put_u8(kind.id());
    head.put_u32_le(stream_id);
    if timestamp >= EXTENDED {
        head.put_u32(timestamp);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_large_payload_is_shared_not_copied() {
        let payload = Bytes::from(vec![7; OUT_CHUNK_SIZE * 2 + 1]);
        let frame = Frame::video(5, payload.clone());
        let lens: Vec<usize> = frame.parts().iter().map(Bytes::len).collect();
        assert_eq!(lens, [12, OUT_CHUNK_SIZE, 1, OUT_CHUNK_SIZE, 1, 1]);
        assert_eq!(frame.parts()[1].as_ptr(), payload.as_ptr());
        assert_eq!(frame.wire_len(), payload.len() + 14);
    }

    #[test]
    fn a_header_apart_makes_the_same_message() {
        for len in [0, 9, COPY_BELOW, COPY_BELOW + 1, OUT_CHUNK_SIZE - 5, OUT_CHUNK_SIZE - 4, 3 * OUT_CHUNK_SIZE] {
            let media = Bytes::from((0..len).map(|n| n as u8).collect::<Vec<_>>());
            let whole = Bytes::from([&[0x27, 1, 0, 0, 9][..], &media].concat());
            let apart = Frame::video_behind(77, &[0x27, 1, 0, 0, 9], media);
            assert_eq!(apart.parts().concat(), Frame::video(77, whole).parts().concat(), "{len}");
        }
    }

    #[test]
    fn exact_chunks_and_small_payloads() {
        let exact = Frame::audio(0, Bytes::from(vec![0; OUT_CHUNK_SIZE]));
        assert_eq!(exact.parts().len(), 2);
        let small = Frame::audio(0x0102_0304, Bytes::from_static(&[0xaf, 1]));
        assert_eq!(small.parts().concat(), [4, 0xff, 0xff, 0xff, 0, 0, 2, 8, 1, 0, 0, 0, 1, 2, 3, 4, 0xaf, 1]);
        assert_eq!(Frame::audio(0, Bytes::new()).wire_len(), 12);
    }

    #[test]
    fn a_length_that_cannot_be_said_is_not_sent() {
        assert_eq!(Frame::video(0, Bytes::from(vec![0; 1 << 24])).wire_len(), 0);
    }

    #[test]
    fn long_times_are_repeated_in_every_chunk() {
        let frame = Frame::video(0xff_ffff, Bytes::from(vec![0; OUT_CHUNK_SIZE + 1]));
        assert_eq!(frame.parts()[2].as_ref(), [0xc6, 0, 0xff, 0xff, 0xff]);
    }
}
