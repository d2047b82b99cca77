//! What goes into the relay: codecs, tracks and RTP packets.

use std::sync::Arc;
use std::time::{Duration, Instant};

pub use crate::media::Kind;

/// Largest RTP payload the relay takes, in bytes. A packet must fit an Ethernet frame after the RTP header, the
/// header extensions, RTX's two bytes and SRTP's tag are added, and str0m serialises into a buffer of 2,000 bytes.
pub const MAX_PAYLOAD: usize = 1400;

/// Position of a track in the two-element arrays of this module.
pub(super) fn index(kind: Kind) -> usize {
    match kind {
        Kind::Audio => 0,
        Kind::Video => 1,
    }
}

/// The video codecs the relay can carry to a browser.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VideoCodec {
    /// H.264 without B-frames, payloaded with packetization-mode 1 (RFC 6184).
    H264 {
        /// `profile-level-id` of the stream's SPS (profile_idc, constraint flags, level_idc), when known: an offer
        /// that names the same profile is preferred to constrained baseline.
        profile_level_id: Option<u32>,
    },
    /// VP8 (RFC 7741).
    Vp8,
}

/// The audio codecs the relay can carry to a browser.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AudioCodec {
    /// Opus (RFC 7587), RTP clock 48 kHz.
    Opus,
    /// G.711 A-law, 8 kHz, one channel.
    Pcma,
    /// G.711 µ-law, 8 kHz, one channel.
    Pcmu,
}

impl AudioCodec {
    /// RTP clock rate in Hz.
    pub fn clock_rate(self) -> u32 {
        match self {
            AudioCodec::Opus => 48_000,
            AudioCodec::Pcma | AudioCodec::Pcmu => 8_000,
        }
    }
}

/// RTP clock rate of every video codec here, in Hz.
pub const VIDEO_CLOCK_RATE: u32 = 90_000;

/// The tracks of a stream: what its packets hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tracks {
    /// Codec of the video track, if the stream has one.
    pub video: Option<VideoCodec>,
    /// Codec of the audio track, if the stream has one.
    pub audio: Option<AudioCodec>,
}

impl Tracks {
    /// RTP clock rate of a track in Hz; `None` for a track the stream does not have.
    pub fn clock_rate(&self, kind: Kind) -> Option<u32> {
        match kind {
            Kind::Audio => self.audio.map(AudioCodec::clock_rate),
            Kind::Video => self.video.map(|_| VIDEO_CLOCK_RATE),
        }
    }
}

/// One RTP packet as a payloader made it, before it belongs to any viewer.
///
/// Payload type, SSRC and sequence number are missing on purpose: every viewer has its own.
#[derive(Debug, Clone)]
pub struct RtpPacket {
    /// The payload without the RTP header. All viewers and all histories share this allocation.
    pub payload: Arc<[u8]>,
    /// The payloader's RTP timestamp, in ticks of the track's clock, with any starting offset.
    pub timestamp: u32,
    /// Running time of the frame this packet belongs to. Both tracks of a stream count from the same zero.
    pub time: Duration,
    /// The RTP marker bit.
    pub marker: bool,
}

impl RtpPacket {
    /// Reads an RTP packet (RFC 3550, 5.1) such as an `appsink` behind a payloader gives, copying its payload once.
    ///
    /// `time` is the running time of its frame. `None` for bytes that are not RTP version 2 or are cut short.
    pub fn parse(datagram: &[u8], time: Duration) -> Option<RtpPacket> {
        let (&first, &second) = (datagram.first()?, datagram.get(1)?);
        if first >> 6 != 2 {
            return None;
        }
        let timestamp = u32::from_be_bytes(datagram.get(4..8)?.try_into().ok()?);
        let mut start = 12 + usize::from(first & 0x0f) * 4;
        if first & 0x10 != 0 {
            let words = datagram.get(start + 2..start + 4)?;
            start += 4 + usize::from(u16::from_be_bytes(words.try_into().ok()?)) * 4;
        }
        let padding = if first & 0x20 != 0 { usize::from(*datagram.last()?) } else { 0 };
        let end = datagram.len().checked_sub(padding)?;
        let payload = datagram.get(start..end)?;
        Some(RtpPacket { payload: payload.into(), timestamp, time, marker: second & 0x80 != 0 })
    }
}

/// A packet after the stream has placed it on its timeline: what histories and viewers hold.
#[derive(Debug)]
pub(super) struct Packet {
    pub kind: Kind,
    pub payload: Arc<[u8]>,
    /// RTP timestamp on the stream's timeline, continuous over restarts of the payloader.
    pub ts: u32,
    pub marker: bool,
    /// True for the first packet of a random access point.
    pub key: bool,
    /// Running time of the frame, the same zero for both tracks.
    pub time: Duration,
    /// The instant the frame stands for, always in the past, the same clock for both tracks.
    pub wallclock: Instant,
    /// When the packet was pushed.
    pub arrival: Instant,
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn parses_header_variants() {
        let t = Duration::from_millis(5);
        let plain = [0x80, 0xe0, 0, 1, 0, 0, 0, 9, 1, 2, 3, 4, 7, 8];
        let p = RtpPacket::parse(&plain, t).unwrap();
        assert_eq!((&p.payload[..], p.timestamp, p.marker, p.time), (&[7u8, 8][..], 9, true, t));

        let csrc = [0x81, 0x60, 0, 1, 0, 0, 0, 9, 1, 2, 3, 4, 9, 9, 9, 9, 7];
        assert_eq!(&RtpPacket::parse(&csrc, t).unwrap().payload[..], &[7]);

        let ext = [0x90, 0x60, 0, 1, 0, 0, 0, 9, 1, 2, 3, 4, 0xbe, 0xde, 0, 1, 0, 0, 0, 0, 7];
        assert_eq!(&RtpPacket::parse(&ext, t).unwrap().payload[..], &[7]);

        let padded = [0xa0, 0x60, 0, 1, 0, 0, 0, 9, 1, 2, 3, 4, 7, 0, 2];
        assert_eq!(&RtpPacket::parse(&padded, t).unwrap().payload[..], &[7]);
    }

    #[test]
    fn refuses_what_is_cut_short() {
        let ext = [0x90, 0x60, 0, 1, 0, 0, 0, 9, 1, 2, 3, 4, 0xbe, 0xde, 0, 9];
        for bad in [&[][..], &[0x80], &[0x80; 11], &[0x40; 20], &ext, &[0xaf; 40]] {
            assert!(RtpPacket::parse(bad, Duration::ZERO).is_none(), "{bad:?}");
        }
    }
}
