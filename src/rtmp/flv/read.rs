//! Reading the bodies of audio and video messages.

use super::{AudioCodec, FrameKind, Packet, VideoCodec};
use crate::rtmp::wire::Reader;
use bytes::Bytes;

/// A video message's body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VideoTag {
    /// The codec.
    pub codec: VideoCodec,
    /// How the frame depends on others.
    pub frame: FrameKind,
    /// What `data` is.
    pub packet: Packet,
    /// Presentation time less decoding time, milliseconds; 0 where the codec's tags carry none.
    pub composition_ms: i32,
    /// The configuration record, or for H.264 and H.265 NAL units behind their lengths. Shares the message's memory.
    pub data: Bytes,
}

/// An audio message's body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AudioTag {
    /// The codec.
    pub codec: AudioCodec,
    /// What `data` is. Formats without a configuration have frames only.
    pub packet: Packet,
    /// Sampling rate that the tag claims, hertz. Of use for old formats only: AAC and Enhanced RTMP have it in the
    /// configuration.
    pub rate: u32,
    /// Channels that the tag claims; with the same caution as `rate`.
    pub channels: u8,
    /// Configuration or frame. Shares the message's memory.
    pub data: Bytes,
}

/// Why a body cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TagError {
    /// It ends inside its header.
    #[error("the tag ends inside its header")]
    Truncated,
    /// A frame type, packet type or sound format that is not defined.
    #[error("the tag's type {0} is not defined")]
    Type(u8),
    /// Several tracks in one message (Enhanced RTMP v2), which is not supported.
    #[error("multitrack tags are not supported")]
    Multitrack,
}

/// Packet types of Enhanced RTMP that video and audio share, and those where they differ.
const SEQUENCE_START: u8 = 0;
const CODED_FRAMES: u8 = 1;
const SEQUENCE_END: u8 = 2;
const VIDEO_CODED_FRAMES_X: u8 = 3;
const VIDEO_METADATA: u8 = 4;
const VIDEO_TS_SEQUENCE_START: u8 = 5;
const VIDEO_MULTITRACK: u8 = 6;
const AUDIO_MULTICHANNEL_CONFIG: u8 = 4;
const AUDIO_MULTITRACK: u8 = 5;
const MOD_EX: u8 = 7;

impl VideoTag {
    /// Reads the body of a video message (annex E.4.3.1; Enhanced RTMP, "Extended VideoTagHeader").
    ///
    /// # Errors
    /// [`TagError`]. A message that fails can be skipped: the next one stands on its own.
    pub fn parse(payload: &Bytes) -> Result<Self, TagError> {
        let mut reader = Reader::new(payload);
        let first = reader.u8().ok_or(TagError::Truncated)?;
        let frame = frame_kind(first >> 4 & 7)?;
        let (codec, packet, composition_ms) = if first & 0x80 != 0 {
            enhanced_video(&mut reader, first & 0x0f, frame)
        } else {
            plain_video(&mut reader, first & 0x0f, frame)
        }?;
        Ok(Self { codec, frame, packet, composition_ms, data: payload.slice_ref(reader.rest()) })
    }

    /// Whether a player can start with this message: a key frame's media.
    pub fn is_key_frame(&self) -> bool {
        self.packet == Packet::Frames && matches!(self.frame, FrameKind::Key | FrameKind::Generated)
    }
}

fn frame_kind(id: u8) -> Result<FrameKind, TagError> {
    Ok(match id {
        1 => FrameKind::Key,
        2 => FrameKind::Inter,
        3 => FrameKind::Disposable,
        4 => FrameKind::Generated,
        5 => FrameKind::Command,
        other => return Err(TagError::Type(other)),
    })
}

type VideoHeader = (VideoCodec, Packet, i32);

fn plain_video(reader: &mut Reader, id: u8, frame: FrameKind) -> Result<VideoHeader, TagError> {
    let codec = match id {
        7 => VideoCodec::Avc,
        12 => VideoCodec::Hevc,
        other => VideoCodec::Legacy(other),
    };
    if frame == FrameKind::Command {
        return Ok((codec, Packet::Other, 0));
    }
    if let VideoCodec::Legacy(_) = codec {
        return Ok((codec, Packet::Frames, 0));
    }
    let packet = match reader.u8().ok_or(TagError::Truncated)? {
        0 => Packet::SequenceStart,
        1 => Packet::Frames,
        2 => Packet::SequenceEnd,
        other => return Err(TagError::Type(other)),
    };
    // Some encoders end a sequence with two bytes and no composition time.
    let composition = match (packet, reader.i24()) {
        (_, Some(composition)) => composition,
        (Packet::SequenceEnd, None) => 0,
        (_, None) => return Err(TagError::Truncated),
    };
    let composition = if packet == Packet::Frames { composition } else { 0 };
    Ok((codec, packet, composition))
}

fn enhanced_video(reader: &mut Reader, id: u8, frame: FrameKind) -> Result<VideoHeader, TagError> {
    let id = skip_modifiers(reader, id)?;
    if id == VIDEO_MULTITRACK {
        return Err(TagError::Multitrack);
    }
    if frame == FrameKind::Command && id != VIDEO_METADATA {
        // The command takes the codec's place.
        return Ok((VideoCodec::Other([0; 4]), Packet::Other, 0));
    }
    let codec = video_codec(four(reader)?);
    let packet = match id {
        SEQUENCE_START => Packet::SequenceStart,
        CODED_FRAMES | VIDEO_CODED_FRAMES_X => Packet::Frames,
        SEQUENCE_END => Packet::SequenceEnd,
        VIDEO_METADATA | VIDEO_TS_SEQUENCE_START => Packet::Other,
        other => return Err(TagError::Type(other)),
    };
    let composed = id == CODED_FRAMES && matches!(codec, VideoCodec::Avc | VideoCodec::Hevc);
    let composition = if composed { reader.i24().ok_or(TagError::Truncated)? } else { 0 };
    Ok((codec, packet, composition))
}

/// Enhanced RTMP v2 may put modifiers (`ModEx`: nanoseconds of the time) before the packet type that counts.
fn skip_modifiers(reader: &mut Reader, mut id: u8) -> Result<u8, TagError> {
    while id == MOD_EX {
        let short = reader.u8().ok_or(TagError::Truncated)?;
        let len =
            if short == u8::MAX { usize::from(reader.u16().ok_or(TagError::Truncated)?) } else { usize::from(short) };
        reader.take(len.saturating_add(1)).ok_or(TagError::Truncated)?;
        id = reader.u8().ok_or(TagError::Truncated)? & 0x0f;
    }
    Ok(id)
}

fn four(reader: &mut Reader) -> Result<[u8; 4], TagError> {
    let word = reader.u32().ok_or(TagError::Truncated)?;
    Ok(word.to_be_bytes())
}

fn video_codec(name: [u8; 4]) -> VideoCodec {
    match &name {
        b"avc1" => VideoCodec::Avc,
        b"hvc1" => VideoCodec::Hevc,
        b"av01" => VideoCodec::Av1,
        b"vp09" => VideoCodec::Vp9,
        b"vp08" => VideoCodec::Vp8,
        _ => VideoCodec::Other(name),
    }
}

impl AudioTag {
    /// Reads the body of an audio message (annex E.4.2.1; Enhanced RTMP, "Extended AudioTagHeader").
    ///
    /// # Errors
    /// [`TagError`]. A message that fails can be skipped: the next one stands on its own.
    pub fn parse(payload: &Bytes) -> Result<Self, TagError> {
        let mut reader = Reader::new(payload);
        let first = reader.u8().ok_or(TagError::Truncated)?;
        let format = first >> 4;
        let enhanced = format == 9;
        let (codec, packet) =
            if enhanced { enhanced_audio(&mut reader, first & 0x0f)? } else { plain_audio(&mut reader, format)? };
        Ok(Self {
            codec,
            packet,
            rate: if enhanced { 0 } else { rate(format, first) },
            channels: if enhanced { 0 } else { channels(format, first) },
            data: payload.slice_ref(reader.rest()),
        })
    }
}

fn plain_audio(reader: &mut Reader, format: u8) -> Result<(AudioCodec, Packet), TagError> {
    let codec = match format {
        10 => AudioCodec::Aac,
        2 | 14 => AudioCodec::Mp3,
        7 => AudioCodec::Pcma,
        8 => AudioCodec::Pcmu,
        11 => AudioCodec::Speex,
        other => AudioCodec::Legacy(other),
    };
    if codec != AudioCodec::Aac {
        return Ok((codec, Packet::Frames));
    }
    match reader.u8().ok_or(TagError::Truncated)? {
        0 => Ok((codec, Packet::SequenceStart)),
        1 => Ok((codec, Packet::Frames)),
        other => Err(TagError::Type(other)),
    }
}

fn enhanced_audio(reader: &mut Reader, id: u8) -> Result<(AudioCodec, Packet), TagError> {
    let packet = match skip_modifiers(reader, id)? {
        SEQUENCE_START => Packet::SequenceStart,
        CODED_FRAMES => Packet::Frames,
        SEQUENCE_END => Packet::SequenceEnd,
        AUDIO_MULTICHANNEL_CONFIG => Packet::Other,
        AUDIO_MULTITRACK => return Err(TagError::Multitrack),
        other => return Err(TagError::Type(other)),
    };
    let name = four(reader)?;
    let codec = match &name {
        b"mp4a" => AudioCodec::Aac,
        b".mp3" => AudioCodec::Mp3,
        b"Opus" => AudioCodec::Opus,
        b"fLaC" => AudioCodec::Flac,
        b"ac-3" => AudioCodec::Ac3,
        b"ec-3" => AudioCodec::Eac3,
        _ => AudioCodec::Other(name),
    };
    Ok((codec, packet))
}

/// Formats with a rate of their own ignore the two bits (annex E.4.2.1, `SoundFormat` and `SoundRate`).
fn rate(format: u8, first: u8) -> u32 {
    match (format, first >> 2 & 3) {
        (5 | 7 | 8 | 14, _) => 8000,
        (4 | 11, _) => 16_000,
        (_, 0) => 5512,
        (_, 1) => 11_025,
        (_, 2) => 22_050,
        _ => 44_100,
    }
}

fn channels(format: u8, first: u8) -> u8 {
    match format {
        4 | 5 | 11 => 1,
        _ => (first & 1).saturating_add(1),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    fn video(bytes: &[u8]) -> Result<VideoTag, TagError> {
        VideoTag::parse(&Bytes::copy_from_slice(bytes))
    }

    fn audio(bytes: &[u8]) -> Result<AudioTag, TagError> {
        AudioTag::parse(&Bytes::copy_from_slice(bytes))
    }

    fn summary(bytes: &[u8]) -> (VideoCodec, FrameKind, Packet, i32, Vec<u8>) {
        let tag = video(bytes).unwrap();
        (tag.codec, tag.frame, tag.packet, tag.composition_ms, tag.data.to_vec())
    }

    #[test]
    fn plain_video() {
        use {FrameKind::*, VideoCodec::*};
        assert_eq!(summary(&[0x17, 0, 0, 0, 0, 1]), (Avc, Key, Packet::SequenceStart, 0, vec![1]));
        assert_eq!(summary(&[0x27, 1, 0, 0, 80, 9]), (Avc, Inter, Packet::Frames, 80, vec![9]));
        assert_eq!(summary(&[0x27, 1, 0xff, 0xff, 0xd8]), (Avc, Inter, Packet::Frames, -40, vec![]));
        assert_eq!(summary(&[0x17, 2]), (Avc, Key, Packet::SequenceEnd, 0, vec![]));
        assert_eq!(summary(&[0x1c, 1, 0, 0, 0]), (Hevc, Key, Packet::Frames, 0, vec![]));
        assert_eq!(summary(&[0x12, 7]), (Legacy(2), Key, Packet::Frames, 0, vec![7]));
        assert_eq!(summary(&[0x57, 0]), (Avc, Command, Packet::Other, 0, vec![0]));
        assert!(video(&[0x17, 1, 0, 0, 0]).unwrap().is_key_frame());
        assert!(!video(&[0x17, 0, 0, 0, 0]).unwrap().is_key_frame());
        assert_eq!(video(&[]), Err(TagError::Truncated));
        assert_eq!(video(&[0x17, 1, 0]), Err(TagError::Truncated));
        assert_eq!(video(&[0x77]), Err(TagError::Type(7)));
        assert_eq!(video(&[0x17, 9]), Err(TagError::Type(9)));
    }

    #[test]
    fn enhanced_video() {
        use {FrameKind::*, VideoCodec::*};
        let tag = |head: &[u8], name: &[u8; 4], rest: &[u8]| summary(&[head, name, rest].concat());
        assert_eq!(tag(&[0x90], b"hvc1", &[1]), (Hevc, Key, Packet::SequenceStart, 0, vec![1]));
        assert_eq!(tag(&[0xa1], b"hvc1", &[0, 0, 40, 9]), (Hevc, Inter, Packet::Frames, 40, vec![9]));
        assert_eq!(tag(&[0xa1], b"avc1", &[0, 0, 40, 9]), (Avc, Inter, Packet::Frames, 40, vec![9]));
        assert_eq!(tag(&[0xa3], b"hvc1", &[9]), (Hevc, Inter, Packet::Frames, 0, vec![9]));
        assert_eq!(tag(&[0x91], b"av01", &[9]), (Av1, Key, Packet::Frames, 0, vec![9]));
        assert_eq!(tag(&[0x91], b"vp09", &[9]), (Vp9, Key, Packet::Frames, 0, vec![9]));
        assert_eq!(tag(&[0xd4], b"hvc1", &[9]), (Hevc, Command, Packet::Other, 0, vec![9]));
        // Three bytes of modifier, then coded frames.
        assert_eq!(tag(&[0x97, 2, 0, 0, 1, 1], b"av01", &[9]), (Av1, Key, Packet::Frames, 0, vec![9]));
        assert_eq!(video(&[0x96, 0]), Err(TagError::Multitrack));
        assert_eq!(video(b"\x91hv"), Err(TagError::Truncated));
    }

    #[test]
    fn audio_formats() {
        let tag = |bytes: &[u8]| {
            let tag = audio(bytes).unwrap();
            (tag.codec, tag.packet, tag.rate, tag.channels, tag.data.to_vec())
        };
        use AudioCodec::*;
        assert_eq!(tag(&[0xaf, 0, 0x12, 0x10]), (Aac, Packet::SequenceStart, 44_100, 2, vec![0x12, 0x10]));
        assert_eq!(tag(&[0xaf, 1, 5]), (Aac, Packet::Frames, 44_100, 2, vec![5]));
        assert_eq!(tag(&[0x72, 5]), (Pcma, Packet::Frames, 8000, 1, vec![5]));
        assert_eq!(tag(&[0x83, 5]), (Pcmu, Packet::Frames, 8000, 2, vec![5]));
        assert_eq!(tag(&[0x2a, 5]), (Mp3, Packet::Frames, 22_050, 1, vec![5]));
        assert_eq!(tag(&[0xb2, 5]), (Speex, Packet::Frames, 16_000, 1, vec![5]));
        assert_eq!(tag(b"\x91Opus\x05"), (Opus, Packet::Frames, 0, 0, vec![5]));
        assert_eq!(tag(b"\x90mp4a\x05"), (Aac, Packet::SequenceStart, 0, 0, vec![5]));
        assert_eq!(audio(&[0xaf]), Err(TagError::Truncated));
        assert_eq!(audio(&[0x95]), Err(TagError::Multitrack));
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = video(&bytes);
            let _ = audio(&bytes);
        }
    }
}
