//! Browsers' media: [`publish`] takes what they send through webrtcbin, [`play`] gives them streams through the packet
//! [`relay`]. [`sdp`] reads offers and is pure.

mod answer;
mod feed;
mod intake;
pub mod play;
pub mod publish;
pub mod relay;
mod sdp;

pub use sdp::SdpError;

/// What a session is told that its own connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LastWord {
    /// It did not ask for it: FAILED.
    pub failed: bool,
    /// WCS's text.
    pub info: &'static str,
}
