//! RTMP messages: what the chunk stream carries (RTMP 1.0 sections 6.1 and 7.1).

use bytes::Bytes;

/// The message stream everything happens on: one connection publishes or plays one stream, and `createStream` always
/// answers with this id.
pub(crate) const STREAM_ID: u32 = 1;

/// What a message is (RTMP 1.0 sections 5.4 and 7.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Set chunk size, 1.
    SetChunkSize,
    /// Abort, 2.
    Abort,
    /// Acknowledgement, 3.
    Acknowledgement,
    /// User control, 4.
    UserControl,
    /// Window acknowledgement size, 5.
    WindowSize,
    /// Set peer bandwidth, 6.
    PeerBandwidth,
    /// Audio, 8.
    Audio,
    /// Video, 9.
    Video,
    /// Data in AMF3, 15.
    DataAmf3,
    /// Command in AMF3, 17.
    CommandAmf3,
    /// Data in AMF0, 18.
    DataAmf0,
    /// Command in AMF0, 20.
    CommandAmf0,
    /// Aggregate, 22.
    Aggregate,
    /// Anything else: shared objects (16, 19) and ids nobody defined. Read and dropped.
    Other(u8),
}

impl Kind {
    /// The kind of a message type id.
    pub(crate) fn from_id(id: u8) -> Self {
        match id {
            1 => Self::SetChunkSize,
            2 => Self::Abort,
            3 => Self::Acknowledgement,
            4 => Self::UserControl,
            5 => Self::WindowSize,
            6 => Self::PeerBandwidth,
            8 => Self::Audio,
            9 => Self::Video,
            15 => Self::DataAmf3,
            17 => Self::CommandAmf3,
            18 => Self::DataAmf0,
            20 => Self::CommandAmf0,
            22 => Self::Aggregate,
            other => Self::Other(other),
        }
    }

    /// The message type id.
    pub(crate) fn id(self) -> u8 {
        match self {
            Self::SetChunkSize => 1,
            Self::Abort => 2,
            Self::Acknowledgement => 3,
            Self::UserControl => 4,
            Self::WindowSize => 5,
            Self::PeerBandwidth => 6,
            Self::Audio => 8,
            Self::Video => 9,
            Self::DataAmf3 => 15,
            Self::CommandAmf3 => 17,
            Self::DataAmf0 => 18,
            Self::CommandAmf0 => 20,
            Self::Aggregate => 22,
            Self::Other(id) => id,
        }
    }
}

/// One whole message from the peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Message {
    /// What it is.
    pub(crate) kind: Kind,
    /// Absolute time in milliseconds, wrapping at 2^32.
    pub(crate) timestamp: u32,
    /// Its body.
    pub(crate) payload: Bytes,
}
