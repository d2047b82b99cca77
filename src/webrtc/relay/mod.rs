//! The viewers' packet relay: one RTP packet in, one SRTP packet out for every browser that watches.
//!
//! A track is payloaded once, elsewhere. [`RelayStream::push`] takes each RTP packet once; shards hand it to the str0m
//! session of every viewer. A viewer has no pipeline, no thread, no port and no payloads of its own.
//!
//! ```text
//!  payloader's thread             a shard: one thread, one UDP socket an address
//!  ───────────────────            ──────────────────────────────────────────────────────────────
//!  RelayStream::push              feed ─► session ─► outgoing ─► str0m ─► SRTP ─► socket ─► browser
//!   timeline  one clock            │        │          │ payload type, SSRC, sequence number, timestamp
//!   history ───(bounded queue)─────┘        │          └ backlog: the start, at a pace
//!   gop     ───(since the last keyframe)────┘
//!                                 socket ─► demux ─► session         by address, else by ICE user name (lobby)
//!                                           session ─► stream: one keyframe request in 500 ms
//! ```
//!
//! * **One port.** All shards listen on it (`SO_REUSEPORT`) and the kernel spreads viewers over them by address. A
//!   viewer's address is unknown until its first ICE check arrives, so a new session waits in the `lobby` and the
//!   shard that gets the check takes it. A browser that checks from several addresses may reach two shards; the one
//!   that does not have the session hands the datagram over.
//! * **Copies.** A payload is copied into one reference-counted buffer when it enters ([`RtpPacket::parse`]). Queues,
//!   the start of late viewers and str0m's history for NACKs hold references. What remains for each datagram is
//!   str0m's: once into its scratch packet, once more by the cipher into the datagram.
//! * **Instant start.** A new viewer gets the packets since the last keyframe first. A frame of the past is labelled
//!   with the time it is sent at, so the browser sees a stream that starts now, a little fast, and has caught up when
//!   the `backlog` is empty. Sound starts with the newest packet.
//! * **Sync.** RTP timestamps and the instants in sender reports come from one running time (`timeline`).
//! * **Repair.** NACKs are answered by str0m through RTX. A keyframe request goes upstream at most once in 500 ms; a
//!   viewer that gets none (pulled sources cannot be asked) is started again at the last keyframe.
//! * **Nobody waits for a viewer.** Sockets do not block, queues are bounded, deadlines are this module's own.
//!
//! Which WebRTC engine carries viewers is known in this module only.

mod answer;
mod backlog;
mod clock;
mod demux;
mod entrance;
mod feed;
mod gop;
mod handshake;
mod history;
mod keyframe;
mod lobby;
mod mailbox;
mod outgoing;
mod packet;
mod session;
mod setup;
mod shard;
mod socket;
mod stream;
mod timeline;
mod viewer;
mod waker;

use super::sdp;

pub use super::sdp::SdpError;
pub use entrance::{JoinError, JoinOptions, Joined, Relay, RelayConfig, StartError};
pub use packet::{AudioCodec, Kind, MAX_PAYLOAD, RtpPacket, Tracks, VIDEO_CLOCK_RATE, VideoCodec};
pub use socket::Listen;
pub use stream::{KeyframeRequest, RelayStream, StreamConfig, StreamSnapshot};
pub use viewer::{EndReason, Viewer, ViewerEvent, ViewerSnapshot, ViewerState};
