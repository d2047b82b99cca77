//! Encoded media as values: what a protocol of weir's own hands to a stream, and takes from one.

use std::time::{Duration, Instant};

use bytes::Bytes;

use super::track::{Codec, Kind};

/// How a track is encoded, with what its decoder needs first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Format {
    /// H.264, NAL units behind their lengths.
    H264 {
        /// `AVCDecoderConfigurationRecord`, ISO/IEC 14496-15, 5.3.3.1.
        record: Bytes,
    },
    /// AAC without ADTS headers.
    Aac {
        /// `AudioSpecificConfig`, ISO/IEC 14496-3, 1.6.2.1.
        config: Bytes,
    },
    /// G.711 A-law at 8 kHz.
    Pcma {
        /// Channels.
        channels: u8,
    },
    /// G.711 µ-law at 8 kHz.
    Pcmu {
        /// Channels.
        channels: u8,
    },
}

impl Format {
    /// Its kind.
    pub fn kind(&self) -> Kind {
        match self {
            Format::H264 { .. } => Kind::Video,
            Format::Aac { .. } | Format::Pcma { .. } | Format::Pcmu { .. } => Kind::Audio,
        }
    }

    /// Its codec.
    pub fn codec(&self) -> Codec {
        match self {
            Format::H264 { .. } => Codec::H264,
            Format::Aac { .. } => Codec::Aac,
            Format::Pcma { .. } => Codec::Pcma,
            Format::Pcmu { .. } => Codec::Pcmu,
        }
    }

    /// Whether a decoder could be set up with it: a record that is cut or of another version would only make the
    /// pipeline fail later.
    pub fn usable(&self) -> bool {
        match self {
            Format::H264 { record } => record.len() >= 7 && record.first() == Some(&1),
            Format::Aac { config } => config.len() >= 2,
            Format::Pcma { channels } | Format::Pcmu { channels } => (1..=2).contains(channels),
        }
    }

    /// How long `bytes` of it last, where their number says so: G.711 has 8000 of them a second and channel.
    pub fn duration(&self, bytes: usize) -> Option<Duration> {
        match self {
            Format::Pcma { channels } | Format::Pcmu { channels } => {
                let samples = u64::try_from(bytes).ok()?.checked_div((*channels).into())?;
                Some(Duration::from_micros(samples.saturating_mul(125)))
            }
            Format::H264 { .. } | Format::Aac { .. } => None,
        }
    }
}

/// One access unit or audio frame on its way into a stream.
#[derive(Debug, Clone)]
pub struct Input {
    /// Decoding time; any origin, but the same for all tracks of a source.
    pub dts: Duration,
    /// Presentation time.
    pub pts: Duration,
    /// Decoding can start here.
    pub keyframe: bool,
    /// The encoded bytes.
    pub payload: Bytes,
}

/// One access unit or audio frame out of a stream.
#[derive(Debug, Clone)]
pub struct Output {
    /// Which track.
    pub kind: Kind,
    /// Decoding time on the stream's time line, nanoseconds. Negative where a stream's first pictures are reordered.
    pub dts: i64,
    /// Presentation time on the stream's time line, nanoseconds.
    pub pts: i64,
    /// Decoding can start here.
    pub keyframe: bool,
    /// The encoded bytes. They share the stream's memory.
    pub payload: Bytes,
    /// When it was handed over.
    pub since: Instant,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn broken_configurations_are_seen() {
        let video = |bytes: &'static [u8]| Format::H264 { record: Bytes::from_static(bytes) }.usable();
        assert!(video(&[1, 66, 0, 30, 255, 225, 0]));
        assert!(!video(&[1, 66, 0]) && !video(&[0, 0, 0, 1, 103, 66, 0]) && !video(&[]));
        assert!(!Format::Aac { config: Bytes::from_static(&[0x12]) }.usable());
        assert!(!Format::Pcma { channels: 0 }.usable());
    }

    #[test]
    fn samples_have_a_length() {
        assert_eq!(Format::Pcmu { channels: 1 }.duration(160), Some(Duration::from_millis(20)));
        assert_eq!(Format::Pcma { channels: 2 }.duration(320), Some(Duration::from_millis(20)));
        assert_eq!(Format::Aac { config: Bytes::new() }.duration(9), None);
    }
}
