//! What a stream carries: kinds, codecs, and the facts about a track that caps tell.

use gstreamer as gst;
use h264_reader::avcc::AvcDecoderConfigurationRecord;
use h264_reader::nal::sps::SeqParameterSet;
use h264_reader::rbsp::{BitReader, decode_nal};

/// The two kinds of track weir knows. Video orders before audio: it leads where both exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Pictures.
    Video,
    /// Sound.
    Audio,
}

impl Kind {
    /// Both kinds, video first.
    pub const ALL: [Kind; 2] = [Kind::Video, Kind::Audio];

    /// `video` or `audio`: the label of a template's branch.
    pub const fn label(self) -> &'static str {
        match self {
            Kind::Video => "video",
            Kind::Audio => "audio",
        }
    }
}

/// A codec a track is in.
#[derive(Debug, Clone, PartialEq, Eq, Hash, serde::Serialize)]
pub enum Codec {
    /// H.264, ITU-T H.264.
    H264,
    /// H.265, ITU-T H.265.
    H265,
    /// VP8, RFC 6386.
    Vp8,
    /// AAC, ISO/IEC 14496-3.
    Aac,
    /// Opus, RFC 6716.
    Opus,
    /// G.711 A-law.
    Pcma,
    /// G.711 µ-law.
    Pcmu,
    /// Something weir does not carry; the media type as GStreamer names it.
    Other(String),
}

impl Codec {
    /// The name of the RTP payload format (`rtpmap`), as SDP files and WCS write it.
    pub fn encoding_name(&self) -> &str {
        match self {
            Codec::H264 => "H264",
            Codec::H265 => "H265",
            Codec::Vp8 => "VP8",
            Codec::Aac => "mpeg4-generic",
            Codec::Opus => "opus",
            Codec::Pcma => "PCMA",
            Codec::Pcmu => "PCMU",
            Codec::Other(media_type) => media_type,
        }
    }

    /// The codec of an RTP payload format by its name, in any case (RFC 4566: names are case-insensitive).
    pub fn from_encoding_name(name: &str) -> Option<Self> {
        let known = [Codec::H264, Codec::H265, Codec::Vp8, Codec::Aac, Codec::Opus, Codec::Pcma, Codec::Pcmu];
        known.into_iter().find(|codec| codec.encoding_name().eq_ignore_ascii_case(name))
    }

    /// Its name in the label of a template's branch: `[audio opus]`.
    pub fn label(&self) -> &str {
        match self {
            Codec::H264 => "h264",
            Codec::H265 => "h265",
            Codec::Vp8 => "vp8",
            Codec::Aac => "aac",
            Codec::Opus => "opus",
            Codec::Pcma => "pcma",
            Codec::Pcmu => "pcmu",
            Codec::Other(media_type) => media_type,
        }
    }
}

/// A track as it is: everything a person or a muxer asks about it.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Track {
    /// Video or audio.
    pub kind: Kind,
    /// Its codec.
    pub codec: Codec,
    /// Picture width in pixels; 0 for audio or while unknown.
    pub width: u32,
    /// Picture height in pixels; 0 for audio or while unknown.
    pub height: u32,
    /// Sample rate in Hz; 0 for video.
    pub rate: u32,
    /// Audio channels; 0 for video.
    pub channels: u32,
    /// H.264's profile, constraint flags and level, as in `profile-level-id` (RFC 6184).
    pub profile_level_id: Option<u32>,
    /// Its pictures come in another order than they are shown in, which browsers do not play over WebRTC. H.264 may say
    /// so ahead; otherwise it is known once the first of them has come.
    pub b_frames: bool,
    /// The caps in GStreamer's notation.
    pub caps: String,
}

impl Track {
    /// Reads a track's facts from its caps; `None` when they describe neither audio nor video.
    pub(in crate::media) fn from_caps(caps: &gst::CapsRef) -> Option<Self> {
        let structure = caps.structure(0)?;
        let (kind, codec) = kind_and_codec(structure)?;
        let number = |field: &str| structure.get::<i32>(field).ok().and_then(|n| u32::try_from(n).ok()).unwrap_or(0);
        Some(Self {
            kind,
            codec,
            width: number("width"),
            height: number("height"),
            rate: number("rate"),
            channels: number("channels"),
            profile_level_id: profile_level_id(structure),
            b_frames: announces_b_frames(structure),
            caps: caps.to_string(),
        })
    }

    /// Whether its codec can send pictures in another order than they are shown in: VP8 cannot, nor H.264 in the baseline
    /// profiles (ITU-T H.264, A.2.1).
    pub(in crate::media) fn may_reorder(&self) -> bool {
        match self.codec {
            Codec::H264 => self.profile_level_id.is_none_or(|id| id >> 16 != 0x42),
            Codec::H265 => true,
            _ => false,
        }
    }

    /// Puts its facts among those of a stream's tracks, one of each kind, video first; true when they are news.
    pub fn note_in(self, tracks: &mut Vec<Track>) -> bool {
        match tracks.iter_mut().find(|known| known.kind == self.kind) {
            Some(known) if *known == self => false,
            Some(known) => {
                *known = self;
                true
            }
            None => {
                tracks.push(self);
                tracks.sort_by_key(|track| track.kind);
                true
            }
        }
    }

    /// The codec as a WCS `Stream` object names it: `H264`, `mpeg4-generic/48000/2`.
    pub fn wcs_codec(&self) -> String {
        match self.codec {
            Codec::Aac => format!("{}/{}/{}", self.codec.encoding_name(), self.rate, self.channels),
            _ => self.codec.encoding_name().to_owned(),
        }
    }
}

fn kind_and_codec(structure: &gst::StructureRef) -> Option<(Kind, Codec)> {
    let media_type = structure.name().as_str();
    if media_type == "application/x-rtp" {
        let kind = structure.get::<&str>("media").ok()?;
        let kind = Kind::ALL.into_iter().find(|known| known.label() == kind)?;
        let name = structure.get::<&str>("encoding-name").ok()?;
        return Some((kind, Codec::from_encoding_name(name).unwrap_or_else(|| Codec::Other(name.to_owned()))));
    }
    let kind = match media_type.split('/').next() {
        Some("video") => Kind::Video,
        Some("audio") => Kind::Audio,
        _ => return None,
    };
    let codec = match media_type {
        "video/x-h264" => Codec::H264,
        "video/x-h265" => Codec::H265,
        "video/x-vp8" => Codec::Vp8,
        "audio/mpeg" if structure.get::<i32>("mpegversion").is_ok_and(|v| v == 4 || v == 2) => Codec::Aac,
        "audio/x-opus" => Codec::Opus,
        "audio/x-alaw" => Codec::Pcma,
        "audio/x-mulaw" => Codec::Pcmu,
        other => Codec::Other(other.to_owned()),
    };
    Some((kind, codec))
}

/// What the parameter sets in the caps say of reordered pictures (`max_num_reorder_frames`, ITU-T H.264 E.2.1). Many
/// encoders say nothing.
fn announces_b_frames(structure: &gst::StructureRef) -> bool {
    let Ok(record) = structure.get::<gst::Buffer>("codec_data") else { return false };
    let Ok(bytes) = record.map_readable() else { return false };
    structure.name() == "video/x-h264" && reordered(&bytes).unwrap_or(0) > 0
}

/// How many pictures may come before one that is shown earlier; `None` where the record does not say.
fn reordered(record: &[u8]) -> Option<u32> {
    let record = AvcDecoderConfigurationRecord::try_from(record).ok()?;
    let unit = record.sequence_parameter_sets().next()?.ok()?;
    let payload = decode_nal(unit).ok()?;
    let parameters = SeqParameterSet::from_bits(BitReader::new(&*payload)).ok()?;
    Some(parameters.vui_parameters?.bitstream_restrictions?.max_num_reorder_frames)
}

/// From the configuration record in the caps: ISO/IEC 14496-15, 5.3.3.
fn profile_level_id(structure: &gst::StructureRef) -> Option<u32> {
    let record = structure.get::<gst::Buffer>("codec_data").ok()?;
    let bytes = record.map_readable().ok()?;
    match (structure.name().as_str(), bytes.get(..4)?) {
        ("video/x-h264", [1, profile, flags, level]) => Some(u32::from_be_bytes([0, *profile, *flags, *level])),
        _ => None,
    }
}
