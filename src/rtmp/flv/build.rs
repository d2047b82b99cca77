//! Building the bodies of audio, video and metadata messages for players.

use crate::rtmp::amf::{Value, encode};
use bytes::{BufMut, Bytes, BytesMut};

/// AAC says this for every rate and channel count (annex E.4.2.1): format 10, 44 kHz, 16 bit, stereo.
const AAC: u8 = 0xaf;

/// The H.264 configuration, sent before the first frame and whenever it changes. `avcc` is an
/// `AVCDecoderConfigurationRecord` (ISO/IEC 14496-15).
pub fn avc_sequence_header(avcc: &[u8]) -> Bytes {
    avc(true, 0, 0, avcc)
}

/// One H.264 access unit, NAL units behind their lengths as the configuration says. `composition_ms` is presentation time
/// less decoding time in milliseconds, cut to 24 bits signed. The unit is copied once, behind its header.
pub fn avc_frame(key: bool, composition_ms: i32, access_unit: &[u8]) -> Bytes {
    avc(key, 1, composition_ms, access_unit)
}

/// Says that no picture follows under the present configuration.
pub fn avc_end_of_sequence() -> Bytes {
    avc(true, 2, 0, &[])
}

/// What stands before an H.264 access unit in its tag; see [`avc_frame`].
pub fn avc_head(key: bool, composition_ms: i32) -> [u8; 5] {
    avc_bytes(key, 1, composition_ms)
}

fn avc_bytes(key: bool, packet: u8, composition_ms: i32) -> [u8; 5] {
    let [_, a, b, c] = composition_ms.clamp(-0x80_0000, 0x7f_ffff).to_be_bytes();
    [if key { 0x17 } else { 0x27 }, packet, a, b, c]
}

fn avc(key: bool, packet: u8, composition_ms: i32, data: &[u8]) -> Bytes {
    prefixed(&avc_bytes(key, packet, composition_ms), data)
}

/// The AAC configuration, sent before the first frame. `config` is an `AudioSpecificConfig` (ISO/IEC 14496-3).
pub fn aac_sequence_header(config: &[u8]) -> Bytes {
    prefixed(&[AAC, 0], config)
}

/// One AAC frame without ADTS header.
pub fn aac_frame(frame: &[u8]) -> Bytes {
    prefixed(&[AAC, 1], frame)
}

/// What stands before an AAC frame in its tag.
pub const AAC_HEAD: [u8; 2] = [AAC, 1];

/// What stands before samples of G.711 in their tag: 8 kHz, A-law if `a_law`, else mu-law.
pub fn g711_head(a_law: bool, channels: u8) -> [u8; 1] {
    [if a_law { 0x72 } else { 0x82 } | u8::from(channels > 1)]
}

/// Samples of G.711, 8 kHz, one channel: A-law if `a_law`, else mu-law.
pub fn g711_frame(a_law: bool, samples: &[u8]) -> Bytes {
    prefixed(&[if a_law { 0x72 } else { 0x82 }], samples)
}

fn prefixed(prefix: &[u8], data: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(data.len().saturating_add(prefix.len()));
    out.put_slice(prefix);
    out.put_slice(data);
    out.freeze()
}

/// What players are told about a stream before it starts (annex E.5). What is `None` is left out.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Metadata {
    /// Width and height, pixels.
    pub size: Option<(u32, u32)>,
    /// Frames a second.
    pub frame_rate: Option<f64>,
    /// FLV's codec id: 7 for H.264.
    pub video_codec: Option<u8>,
    /// Kilobits a second.
    pub video_kbps: Option<f64>,
    /// FLV's sound format: 10 for AAC, 7 for A-law, 8 for mu-law.
    pub audio_codec: Option<u8>,
    /// Hertz.
    pub audio_rate: Option<u32>,
    /// Channels; FLV knows one and more than one.
    pub audio_channels: Option<u8>,
    /// Kilobits a second.
    pub audio_kbps: Option<f64>,
    /// Who made the stream.
    pub encoder: Option<String>,
}

impl Metadata {
    /// The `onMetaData` message's body, for [`Frame::metadata`](crate::rtmp::Frame::metadata).
    pub fn payload(&self) -> Bytes {
        let number = |name: &'static str, value: Option<f64>| Some((name.to_owned(), value?.into()));
        let properties = [
            number("width", self.size.map(|(width, _)| width.into())),
            number("height", self.size.map(|(_, height)| height.into())),
            number("framerate", self.frame_rate),
            number("videocodecid", self.video_codec.map(f64::from)),
            number("videodatarate", self.video_kbps),
            number("audiocodecid", self.audio_codec.map(f64::from)),
            number("audiosamplerate", self.audio_rate.map(f64::from)),
            self.audio_channels.map(|n| ("stereo".to_owned(), Value::Boolean(n > 1))),
            number("audiodatarate", self.audio_kbps),
            self.encoder.as_deref().map(|name| ("encoder".to_owned(), name.into())),
        ];
        let object = properties.into_iter().flatten().collect();
        let mut out = Vec::new();
        encode(&["onMetaData".into(), Value::EcmaArray(object)], &mut out);
        Bytes::from(out)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::rtmp::flv::{AudioTag, Packet, VideoTag};

    #[test]
    fn what_is_built_is_read_back() {
        let header = VideoTag::parse(&avc_sequence_header(&[1, 2])).unwrap();
        assert_eq!((header.packet, &header.data[..]), (Packet::SequenceStart, &[1, 2][..]));
        for composition in [-40, 0, 80, 0x7f_ffff, -0x80_0000] {
            let frame = VideoTag::parse(&avc_frame(false, composition, &[3])).unwrap();
            assert_eq!(frame.composition_ms, composition);
            assert_eq!((frame.packet, frame.is_key_frame()), (Packet::Frames, false));
        }
        assert!(VideoTag::parse(&avc_frame(true, 0, &[])).unwrap().is_key_frame());
        let end = VideoTag::parse(&avc_end_of_sequence()).unwrap();
        assert_eq!(end.packet, Packet::SequenceEnd);
        let config = AudioTag::parse(&aac_sequence_header(&[0x12, 0x10])).unwrap();
        assert_eq!((config.packet, &config.data[..]), (Packet::SequenceStart, &[0x12, 0x10][..]));
        let samples = AudioTag::parse(&g711_frame(true, &[5; 160])).unwrap();
        assert_eq!((samples.rate, samples.channels, samples.data.len()), (8000, 1, 160));
    }

    #[test]
    fn metadata_leaves_out_what_is_not_known() {
        let bytes = Metadata { size: Some((640, 360)), audio_channels: Some(2), ..Metadata::default() }.payload();
        let mut expected = b"\x02\x00\x0aonMetaData\x08\x00\x00\x00\x03\x00\x05width\x00".to_vec();
        expected.extend(640f64.to_be_bytes());
        expected.extend(b"\x00\x06height\x00");
        expected.extend(360f64.to_be_bytes());
        expected.extend(b"\x00\x06stereo\x01\x01\x00\x00\x09");
        assert_eq!(bytes, expected);
    }
}
