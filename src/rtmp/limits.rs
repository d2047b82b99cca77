//! What a peer may ask of us, and what it did when it asked for more.

use super::amf;

/// Caps of one session. The defaults let every encoder in use through. At worst one connection holds under 1 MiB of
/// input before its publish is accepted, about 32 MiB of unfinished messages afterwards, and 8 MiB of output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Largest chunk size a peer may set, bytes. RTMP 1.0 section 5.4.1 calls everything above 16,777,215 the same as
    /// 16,777,215, so a larger value is read as that before it is compared. Nothing is ever allocated by it.
    pub max_chunk_size: u32,
    /// Most chunk stream ids one connection may use in its life. Encoders use three to six.
    pub max_chunk_streams: usize,
    /// Most messages that may be unfinished at one time (one a chunk stream).
    pub max_partial_messages: usize,
    /// Most bytes that the unfinished messages may hold together.
    pub max_partial_bytes: usize,
    /// Largest command or control message, and largest message of any kind before a publish is accepted, bytes.
    pub max_command: usize,
    /// Largest data message (`onMetaData`) of an accepted publisher, bytes.
    pub max_data: usize,
    /// Largest audio, video or aggregate message of an accepted publisher, bytes.
    pub max_media: usize,
    /// Most bytes after the handshake until the `connect` command is complete.
    pub max_before_connect: u64,
    /// Most input kept while the caller decides about a connect, a publish or a play, bytes.
    /// See [`Session::wants_input`](super::Session::wants_input).
    pub max_held: usize,
    /// Most output that may wait for the driver, bytes. Media beyond it is refused
    /// ([`Delivery::Full`](super::Delivery::Full)); a peer that makes us answer and does not read is a violation.
    pub max_output: usize,
    /// Commands, user control messages and bandwidth requests a second. Encoders send some ten in their first second,
    /// then none.
    pub max_commands_per_second: u32,
    /// Deepest nesting of AMF values; a plain value in the message has depth 1.
    pub amf_depth: usize,
    /// Most AMF values in one message, counted at every level.
    pub amf_values: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_chunk_size: 0xff_ffff,
            max_chunk_streams: 64,
            max_partial_messages: 8,
            max_partial_bytes: 16 << 20,
            max_command: 64 << 10,
            max_data: 256 << 10,
            max_media: 8 << 20,
            max_before_connect: 64 << 10,
            max_held: 256 << 10,
            max_output: 8 << 20,
            max_commands_per_second: 100,
            amf_depth: 16,
            amf_values: 1024,
        }
    }
}

impl Limits {
    /// The part that the AMF reader needs.
    pub(crate) fn amf(&self) -> amf::Caps {
        amf::Caps { depth: self.amf_depth, values: self.amf_values }
    }
}

/// Why a session ended: what the peer did. The connection is of no use afterwards; its driver logs this once and closes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// The first byte is not RTMP's version 3 (RTMP 1.0 section 5.2.2).
    #[error("not RTMP: the first byte is {0}, not 3")]
    NotRtmp(u8),
    /// The peer asks for RTMPE, which hides nothing from anybody and is not offered.
    #[error("encrypted RTMP (RTMPE, version byte {0}) is not offered")]
    Encrypted(u8),
    /// A chunk size of zero, with the top bit set, or over the limit (RTMP 1.0 section 5.4.1).
    #[error("chunk size {0} is not allowed")]
    ChunkSize(u32),
    /// More chunk stream ids than [`Limits::max_chunk_streams`].
    #[error("more than {0} chunk streams")]
    ChunkStreams(usize),
    /// More unfinished messages than [`Limits::max_partial_messages`].
    #[error("more than {0} unfinished messages")]
    PartialMessages(usize),
    /// The unfinished messages hold more than [`Limits::max_partial_bytes`].
    #[error("unfinished messages of more than {0} bytes")]
    PartialBytes(usize),
    /// A message announced as larger than its kind may be at this point.
    #[error("message of type {kind} announced with {len} bytes, at most {max} are allowed here")]
    MessageSize {
        /// The message type id (RTMP 1.0 section 7.1).
        kind: u8,
        /// The announced length, bytes.
        len: usize,
        /// The length allowed, bytes.
        max: usize,
    },
    /// The first chunk of a chunk stream leans on a header that was never sent (RTMP 1.0 section 5.3.1.2).
    #[error("chunk stream {0} starts without a message header")]
    HeaderMissing(u32),
    /// A chunk with a new message header came before the message was complete (RTMP 1.0 section 5.3.1.2.4).
    #[error("chunk stream {0} has a new message header inside a message")]
    HeaderInsideMessage(u32),
    /// A protocol control or user control message that is too short for its fields.
    #[error("message of type {0} is too short")]
    Short(u8),
    /// A command that is not AMF0 within the limits.
    #[error("command: {0}")]
    Amf(#[from] amf::AmfError),
    /// An aggregate message whose tags do not add up (RTMP 1.0 section 7.1.6).
    #[error("aggregate message is malformed")]
    Aggregate,
    /// More than [`Limits::max_before_connect`] bytes and still no `connect`.
    #[error("{0} bytes and no connect command")]
    NoConnect(u64),
    /// A command that needs a connection came before `connect`.
    #[error("command before connect")]
    CommandBeforeConnect,
    /// A second `connect` on one connection.
    #[error("connect came twice")]
    SecondConnect,
    /// More commands than [`Limits::max_commands_per_second`].
    #[error("more than {0} commands in a second")]
    CommandRate(u32),
    /// Input went on coming while a decision was awaited, beyond [`Limits::max_held`].
    #[error("more than {0} bytes while an answer was awaited")]
    Held(usize),
    /// The peer makes us answer and does not read, beyond [`Limits::max_output`].
    #[error("more than {0} bytes of answers were not read")]
    OutputFull(usize),
}
