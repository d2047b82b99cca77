//! The chunk stream's reader: bytes in, messages out (RTMP 1.0 section 5.3).
//!
//! ```text
//!            header bytes                      body bytes of this chunk
//!  ┌──────┐ complete, body left  ┌──────┐ chunk ends, message goes on: the chunk stream stays open
//!  │ head ├─────────────────────►│ body ├──────────────────────────────────────────────► head
//!  └──────┘                      └──────┘ message ends: given out ─────────────────────► head
//! ```
//!
//! Body bytes go from the input straight into the message they belong to; the only thing kept besides is one header of
//! at most 18 bytes. So every byte is touched once however small the chunks or the reads are, and memory grows with
//! bytes that came: an announced length is compared with the limits and never allocated.
//!
//! Set Chunk Size and Abort are the chunk layer's own messages and are obeyed here.

mod header;

use super::handshake::take;
use super::message::{Kind, Message};
use super::wire::Reader;
use super::{Limits, Violation};
use bytes::Bytes;
use header::{EXTENDED, Header, MAX_HEADER};

/// Largest body of each kind of message at this time, bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sizes {
    /// Audio, video, aggregates.
    pub(crate) media: usize,
    /// Data messages.
    pub(crate) data: usize,
    /// Everything else.
    pub(crate) other: usize,
}

impl Sizes {
    fn of(&self, kind: Kind) -> usize {
        match kind {
            Kind::Audio | Kind::Video | Kind::Aggregate => self.media,
            Kind::DataAmf0 | Kind::DataAmf3 => self.data,
            _ => self.other,
        }
    }
}

/// What a chunk stream remembers between chunks.
#[derive(Debug, Default)]
struct Stream {
    id: u32,
    /// Of the message at hand, absolute.
    timestamp: u32,
    /// What a message without a header of its own adds. After an absolute time it is that time (section 5.3.1.2.4).
    delta: u32,
    /// The extended timestamp field of the last header that had one in this run of messages.
    extended: Option<u32>,
    len: usize,
    kind: u8,
    body: Vec<u8>,
    /// A message has started and is not complete.
    open: bool,
}

/// The chunk whose body is being read.
#[derive(Debug)]
struct Body {
    /// Index of its stream.
    stream: usize,
    /// Bytes of the message that are still to come in this chunk.
    left: usize,
}

/// Reassembles the messages of one connection.
#[derive(Debug)]
pub(crate) struct ChunkReader {
    limits: Limits,
    sizes: Sizes,
    chunk_size: usize,
    streams: Vec<Stream>,
    head: [u8; MAX_HEADER],
    head_len: usize,
    body: Option<Body>,
    partial_messages: usize,
    partial_bytes: usize,
}

impl ChunkReader {
    /// A reader at the first byte after the handshake: chunk size 128, every message as small as a command.
    pub(crate) fn new(limits: Limits) -> Self {
        let sizes = Sizes { media: limits.max_command, data: limits.max_command, other: limits.max_command };
        Self {
            limits,
            sizes,
            chunk_size: 128,
            streams: Vec::new(),
            head: [0; MAX_HEADER],
            head_len: 0,
            body: None,
            partial_messages: 0,
            partial_bytes: 0,
        }
    }

    /// Sets what messages may measure from the next message header on.
    pub(crate) fn set_sizes(&mut self, sizes: Sizes) {
        self.sizes = sizes;
    }

    /// The next complete message, taking what it needs off the front of `data`. `None`: all of `data` is taken.
    ///
    /// # Errors
    /// The chunk layer's violations; the reader is of no use afterwards.
    pub(crate) fn next(&mut self, data: &mut &[u8]) -> Result<Option<Message>, Violation> {
        loop {
            let complete = match self.body {
                Some(_) => self.read_body(data)?,
                None => self.read_head(data)?,
            };
            match complete {
                Some(message) if self.own_message(&message)? => {}
                Some(message) => return Ok(Some(message)),
                None if data.is_empty() => return Ok(None),
                None => {}
            }
        }
    }

    /// Obeys the chunk layer's own messages; says whether this was one.
    fn own_message(&mut self, message: &Message) -> Result<bool, Violation> {
        if !matches!(message.kind, Kind::SetChunkSize | Kind::Abort) {
            return Ok(false);
        }
        let value = Reader::new(&message.payload).u32();
        let value = value.ok_or(Violation::Short(message.kind.id()))?;
        if message.kind == Kind::Abort {
            self.abort(value);
        } else {
            self.set_chunk_size(value)?;
        }
        Ok(true)
    }

    fn set_chunk_size(&mut self, size: u32) -> Result<(), Violation> {
        // Section 5.4.1: no message is longer than 16,777,215, so larger sizes mean the same.
        let effective = if size >> 31 == 0 { size.min(0xff_ffff) } else { 0 };
        if effective == 0 || effective > self.limits.max_chunk_size {
            return Err(Violation::ChunkSize(size));
        }
        self.chunk_size = usize::try_from(effective).map_err(|_| Violation::ChunkSize(size))?;
        Ok(())
    }

    /// Drops the unfinished message of a chunk stream (section 5.4.2).
    fn abort(&mut self, id: u32) {
        if let Some(stream) = self.streams.iter_mut().find(|s| s.id == id && s.open) {
            let body = std::mem::take(&mut stream.body);
            stream.open = false;
            self.partial_messages = self.partial_messages.saturating_sub(1);
            self.partial_bytes = self.partial_bytes.saturating_sub(body.len());
        }
    }

    fn read_head(&mut self, data: &mut &[u8]) -> Result<Option<Message>, Violation> {
        loop {
            let need = self.head_need();
            if self.head_len >= need {
                return self.start_chunk();
            }
            let room = self.head.get_mut(self.head_len..need).unwrap_or_default();
            let bytes = take(data, room.len());
            if bytes.is_empty() {
                return Ok(None);
            }
            for (to, from) in room.iter_mut().zip(bytes) {
                *to = *from;
            }
            self.head_len = self.head_len.saturating_add(bytes.len());
        }
    }

    /// The bytes of the header so far.
    fn head(&self) -> &[u8] {
        self.head.get(..self.head_len).unwrap_or_default()
    }

    /// The header's length as far as its first bytes tell it.
    fn head_need(&self) -> usize {
        let fixed = header::fixed_len(self.head());
        match Header::parse(self.head()) {
            Some(header) if self.has_extended(&header) => fixed.saturating_add(4),
            _ => fixed,
        }
    }

    fn has_extended(&self, header: &Header) -> bool {
        match header.time {
            Some(time) => time == EXTENDED,
            None => self.streams.iter().any(|s| s.id == header.stream && s.extended.is_some()),
        }
    }

    /// A complete header is there: opens or continues its message.
    fn start_chunk(&mut self) -> Result<Option<Message>, Violation> {
        let Some(header) = Header::parse(self.head()) else {
            return Ok(None);
        };
        self.head_len = 0;
        let index = self.stream_index(&header)?;
        let open = self.streams.get(index).is_some_and(|s| s.open);
        if open && header.format != 3 {
            return Err(Violation::HeaderInsideMessage(header.stream));
        }
        if !open {
            self.start_message(index, &header)?;
        }
        let Some(stream) = self.streams.get(index) else {
            return Ok(None);
        };
        let missing = stream.len.saturating_sub(stream.body.len());
        let left = missing.min(self.chunk_size);
        let stray = match header.extended {
            // Some encoders leave the extended timestamp out of continuing chunks. Four bytes that differ from the
            // one in force are then the message's own.
            Some(time) if open && stream.extended != Some(time) && left >= 4 => Some(time),
            _ => None,
        };
        self.body = Some(Body { stream: index, left });
        match stray {
            Some(time) => self.read_body(&mut &time.to_be_bytes()[..]),
            None if left == 0 => self.read_body(&mut &[][..]),
            None => Ok(None),
        }
    }

    /// Where the header's chunk stream is, made if it is new.
    fn stream_index(&mut self, header: &Header) -> Result<usize, Violation> {
        if let Some(index) = self.streams.iter().position(|s| s.id == header.stream) {
            return Ok(index);
        }
        // librtmp's first user control message comes with a header that leaves the message stream id out: format 1.
        if header.format > 1 {
            return Err(Violation::HeaderMissing(header.stream));
        }
        if self.streams.len() >= self.limits.max_chunk_streams {
            return Err(Violation::ChunkStreams(self.limits.max_chunk_streams));
        }
        self.streams.push(Stream { id: header.stream, ..Stream::default() });
        Ok(self.streams.len().saturating_sub(1))
    }

    fn start_message(&mut self, index: usize, header: &Header) -> Result<(), Violation> {
        let Some(stream) = self.streams.get_mut(index) else {
            return Ok(());
        };
        stream.len = header.len.unwrap_or(stream.len);
        stream.kind = header.kind.unwrap_or(stream.kind);
        if header.time.is_some() {
            stream.extended = header.extended;
        }
        stream.delta = header.extended.or(header.time).unwrap_or(stream.delta);
        stream.timestamp = match header.format {
            0 => stream.delta,
            _ => stream.timestamp.wrapping_add(stream.delta),
        };
        let max = self.sizes.of(Kind::from_id(stream.kind));
        if stream.len > max {
            return Err(Violation::MessageSize { kind: stream.kind, len: stream.len, max });
        }
        stream.open = true;
        self.partial_messages = self.partial_messages.saturating_add(1);
        if self.partial_messages > self.limits.max_partial_messages {
            return Err(Violation::PartialMessages(self.limits.max_partial_messages));
        }
        Ok(())
    }

    /// Moves body bytes into their message; gives the message once it is complete.
    fn read_body(&mut self, data: &mut &[u8]) -> Result<Option<Message>, Violation> {
        let Some(body) = &mut self.body else {
            return Ok(None);
        };
        let Some(stream) = self.streams.get_mut(body.stream) else {
            return Ok(None);
        };
        let bytes = take(data, body.left);
        body.left = body.left.saturating_sub(bytes.len());
        let chunk_ends = body.left == 0;
        append(&mut stream.body, bytes, stream.len);
        self.partial_bytes = self.partial_bytes.saturating_add(bytes.len());
        if self.partial_bytes > self.limits.max_partial_bytes {
            return Err(Violation::PartialBytes(self.limits.max_partial_bytes));
        }
        if !chunk_ends {
            return Ok(None);
        }
        self.body = None;
        if stream.body.len() < stream.len {
            return Ok(None);
        }
        stream.open = false;
        let payload = Bytes::from(std::mem::take(&mut stream.body));
        self.partial_messages = self.partial_messages.saturating_sub(1);
        self.partial_bytes = self.partial_bytes.saturating_sub(payload.len());
        Ok(Some(Message { kind: Kind::from_id(stream.kind), timestamp: stream.timestamp, payload }))
    }

    /// Bytes allocated for unfinished messages.
    #[cfg(test)]
    pub(crate) fn allocated(&self) -> usize {
        self.streams.iter().map(|s| s.body.capacity()).sum()
    }
}

/// Appends to a message's body. Room doubles with what came and never passes what the message will need.
fn append(body: &mut Vec<u8>, bytes: &[u8], total: usize) {
    let need = body.len().saturating_add(bytes.len());
    if need > body.capacity() {
        let room = body.capacity().saturating_mul(2).max(512).min(total).max(need);
        body.reserve_exact(room.saturating_sub(body.len()));
    }
    body.extend_from_slice(bytes);
}
