//! What a session tells its driver.

use super::amf::Object;
use bytes::Bytes;

/// Something a client did. The first three want an answer; until it is given the session reads nothing more.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// The client names its application. Answer with [`accept_connect`](super::Session::accept_connect) or
    /// [`reject_connect`](super::Session::reject_connect).
    Connect(Connect),
    /// The client wants to feed a stream. Answer with [`accept_publish`](super::Session::accept_publish) or
    /// [`reject_publish`](super::Session::reject_publish).
    Publish(Publish),
    /// The client wants to take a stream. Answer with [`accept_play`](super::Session::accept_play) or
    /// [`reject_play`](super::Session::reject_play).
    Play(Play),
    /// A video message of an accepted publisher.
    Video {
        /// Decoding time, milliseconds, wrapping at 2^32.
        timestamp: u32,
        /// Body of an FLV video tag; see [`flv::VideoTag`](super::flv::VideoTag).
        payload: Bytes,
    },
    /// An audio message of an accepted publisher.
    Audio {
        /// Milliseconds, wrapping at 2^32.
        timestamp: u32,
        /// Body of an FLV audio tag; see [`flv::AudioTag`](super::flv::AudioTag).
        payload: Bytes,
    },
    /// `onMetaData` of an accepted publisher. What cannot be read as AMF0 within the limits is not reported.
    Metadata {
        /// Milliseconds, wrapping at 2^32.
        timestamp: u32,
        /// The properties: `width`, `height`, `videocodecid` and so on. They are claims, often wrong.
        object: Object,
        /// `onMetaData` and its object in AMF0 as players are sent it, without `@setDataFrame`.
        payload: Bytes,
    },
    /// The publisher has ended its stream; the connection may go on.
    Unpublish,
    /// The player has ended; the connection may go on.
    StopPlay,
    /// The player pauses, or goes on after a pause or after video was switched off (`receiveVideo`). While it pauses
    /// the session takes frames and drops them; when it goes on it needs a key frame first.
    Pause {
        /// Whether it pauses.
        paused: bool,
    },
}

/// A client's `connect` (RTMP 1.0 section 7.2.1.1). Everything in it is a claim of the client.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Connect {
    /// The application, without instance and query.
    pub app: String,
    /// What follows the application in the path; Flash's `_definst_` counts as none.
    pub instance: Option<String>,
    /// Query of the application or the URL, without the `?`; empty if there is none.
    pub query: String,
    /// The URL the client says it connects to.
    pub tc_url: String,
    /// The client's name for itself, for instance `FMLE/3.0 (compatible; Lavf59)`.
    pub flash_ver: String,
    /// All properties.
    pub object: Object,
}

/// A client's `publish` (RTMP 1.0 section 7.2.2.6).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Publish {
    /// The stream's name; not empty, otherwise unchecked.
    pub name: String,
    /// Queries of the name, the application and the URL, joined with `&`, without the `?`.
    pub query: String,
    /// The application of the connection.
    pub app: String,
    /// The application's instance.
    pub instance: Option<String>,
    /// What the client wants done with the stream.
    pub kind: PublishKind,
}

/// Whether the client asks for a recording (RTMP 1.0 section 7.2.2.6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PublishKind {
    /// Live only.
    Live,
    /// Record into a new file.
    Record,
    /// Record behind what there is.
    Append,
}

/// A client's `play` (RTMP 1.0 section 7.2.2.1).
#[derive(Debug, Clone, PartialEq)]
pub struct Play {
    /// The stream's name; not empty, otherwise unchecked.
    pub name: String,
    /// Queries of the name, the application and the URL, joined with `&`, without the `?`.
    pub query: String,
    /// The application of the connection.
    pub app: String,
    /// The application's instance.
    pub instance: Option<String>,
    /// Which part of the stream.
    pub start: Start,
}

/// Where a player wants to start.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Start {
    /// The live stream if there is one, else a recording.
    LiveOrRecorded,
    /// The live stream only.
    Live,
    /// A recording at this offset, as sent: seconds by the specification, milliseconds by ffmpeg and librtmp.
    At(f64),
}

/// What a session does, for a driver's deadlines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// The handshake is not complete.
    Handshake,
    /// `connect` has not come.
    Connect,
    /// The driver owes an answer.
    Deciding,
    /// Connected; neither publishes nor plays.
    Idle,
    /// A publish was accepted.
    Publishing,
    /// A play was accepted.
    Playing,
    /// The connect was rejected or the peer broke a rule: write what is left, then close.
    Closing,
}

/// What became of a frame given to [`Session::send`](super::Session::send).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivery {
    /// It waits to be written.
    Queued,
    /// The player has paused or switched this kind off. It is not sent.
    Muted,
    /// [`Limits::max_output`](super::Limits::max_output) would be passed. It is not sent; video after it makes no sense
    /// to the player until a key frame.
    Full,
    /// Nobody plays.
    NotPlaying,
}
