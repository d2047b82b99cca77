//! The bodies of audio and video messages: FLV tags without their header.
//!
//! Reading follows "Adobe Flash Video File Format 10.1" annex E.4 and Veovera's "Enhanced RTMP" v1 and v2 for the codecs
//! that are named by four characters. Writing is what RTMP players need of H.264, AAC and G.711.

mod build;
mod read;

pub use build::{
    AAC_HEAD, Metadata, aac_frame, aac_sequence_header, avc_end_of_sequence, avc_frame, avc_head, avc_sequence_header,
    g711_frame, g711_head,
};
pub use read::{AudioTag, TagError, VideoTag};

/// How a video frame depends on others (annex E.4.3.1, `FrameType`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FrameKind {
    /// Decoding can start here.
    Key,
    /// Needs earlier frames.
    Inter,
    /// Needs earlier frames, and none needs it (H.263 only).
    Disposable,
    /// A key frame that a server made.
    Generated,
    /// No picture: a command to the player.
    Command,
}

/// The codec of a video message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VideoCodec {
    /// H.264: codec id 7, or `avc1`.
    Avc,
    /// H.265: `hvc1`, or the codec id 12 that some encoders use without a standard.
    Hevc,
    /// AV1: `av01`.
    Av1,
    /// VP9: `vp09`.
    Vp9,
    /// VP8: `vp08`.
    Vp8,
    /// Another codec id of FLV (Sorenson H.263, VP6, Screen).
    Legacy(u8),
    /// Another name of Enhanced RTMP.
    Other([u8; 4]),
}

/// The codec of an audio message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AudioCodec {
    /// AAC: format 10, or `mp4a`.
    Aac,
    /// MP3: format 2 or 14, or `.mp3`.
    Mp3,
    /// G.711 A-law, 8 kHz.
    Pcma,
    /// G.711 mu-law, 8 kHz.
    Pcmu,
    /// Speex, 16 kHz mono.
    Speex,
    /// Opus: `Opus`.
    Opus,
    /// FLAC: `fLaC`.
    Flac,
    /// AC-3: `ac-3`.
    Ac3,
    /// Enhanced AC-3: `ec-3`.
    Eac3,
    /// Another sound format of FLV (PCM 0 and 3, ADPCM 1, Nellymoser 4 to 6).
    Legacy(u8),
    /// Another name of Enhanced RTMP.
    Other([u8; 4]),
}

/// What the body of a message is to its codec.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Packet {
    /// The decoder's configuration: `AVCDecoderConfigurationRecord`, `AudioSpecificConfig` and so on.
    SequenceStart,
    /// Media.
    Frames,
    /// The sequence has ended; the next picture needs a new configuration.
    SequenceEnd,
    /// Neither configuration nor media: colour information, channel layout, a command.
    Other,
}

/// Extends a message's 32-bit time to one that does not wrap: the value congruent to `timestamp` modulo 2^32 that is
/// nearest to `last`, the extended time of the message before, in milliseconds. A step back stays a step back, but
/// never before zero.
pub fn unwrap_timestamp(last: u64, timestamp: u32) -> u64 {
    const WRAP: u64 = 1 << 32;
    let near = last.saturating_sub(last % WRAP).saturating_add(u64::from(timestamp));
    if near > last.saturating_add(WRAP / 2) && near >= WRAP {
        near.saturating_sub(WRAP)
    } else if near.saturating_add(WRAP / 2) < last {
        near.saturating_add(WRAP)
    } else {
        near
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_go_on_over_the_wrap() {
        const WRAP: u64 = 1 << 32;
        assert_eq!(unwrap_timestamp(0, 0), 0);
        assert_eq!(unwrap_timestamp(100, 40), 40);
        assert_eq!(unwrap_timestamp(0, u32::MAX), u64::from(u32::MAX));
        assert_eq!(unwrap_timestamp(WRAP - 10, 5), WRAP + 5);
        assert_eq!(unwrap_timestamp(WRAP + 5, u32::MAX - 9), WRAP - 10);
        assert_eq!(unwrap_timestamp(3 * WRAP - 1, 0), 3 * WRAP);
        assert_eq!(unwrap_timestamp(3 * WRAP, 40), 3 * WRAP + 40);
    }
}
