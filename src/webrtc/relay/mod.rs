//! The viewers' packet relay.
mod answer;
mod backlog;
mod demux;
mod feed;
mod gop;
mod history;
mod keyframe;
mod lobby;
mod mailbox;
mod outgoing;
mod packet;
mod relay;
use super::sdp;
mod session;
mod setup;
mod shard;
mod socket;
mod stream;
mod timeline;
mod viewer;
mod waker;

pub use super::sdp::SdpError;
pub use packet::{AudioCodec, Kind, MAX_PAYLOAD, RtpPacket, Tracks, VIDEO_CLOCK_RATE, VideoCodec};
pub use relay::{JoinError, JoinOptions, Joined, Relay, RelayConfig, StartError};
pub use socket::Listen;
pub use stream::{KeyframeRequest, RelayStream, StreamConfig, StreamSnapshot};
pub use viewer::{EndReason, Viewer, ViewerEvent, ViewerSnapshot, ViewerState};
