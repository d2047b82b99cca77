//! Reads the SDP offers of browsers (RFC 8866, RFC 8829): pure, and no more of it than an answer needs.

use thiserror::Error;

/// Longest offer that is read, in bytes. Chromium's are about 6 kB.
const MAX_OFFER: usize = 128 * 1024;
/// Most m-lines that are read.
const MAX_MEDIA: usize = 16;
/// Most `a=rtpmap`, `a=fmtp`, `a=rtcp-fb` or `a=extmap` lines of one m-line that are read.
const MAX_ATTRIBUTES: usize = 256;

/// Header extension for transport-wide congestion control.
pub(in crate::webrtc) const TWCC_URI: &str =
    "http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01";
/// Header extension for the absolute send time, which REMB needs.
pub(in crate::webrtc) const ABS_SEND_TIME_URI: &str = "http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time";

/// Why an offer cannot be answered. The fault is the caller's.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum SdpError {
    /// Not SDP, or an SDP that no browser makes.
    #[error("the offer is not usable SDP: {0}")]
    Malformed(&'static str),
    /// Nothing in the offer fits the stream's tracks.
    #[error("No common codecs")]
    NoCommonCodecs,
    /// A line that ICE or DTLS cannot do without is missing.
    #[error("the offer lacks {0}")]
    Missing(&'static str),
}

/// What an m-line is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::webrtc) enum MediaKind {
    Audio,
    Video,
    Other,
}

/// The offerer's side of a media direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(in crate::webrtc) enum Direction {
    #[default]
    SendRecv,
    SendOnly,
    RecvOnly,
    Inactive,
}

impl Direction {
    /// Whether the offerer wants to send.
    pub fn sends(self) -> bool {
        matches!(self, Direction::SendRecv | Direction::SendOnly)
    }

    /// Whether the offerer wants to receive.
    pub fn receives(self) -> bool {
        matches!(self, Direction::SendRecv | Direction::RecvOnly)
    }
}

/// Who starts the DTLS handshake, as the offer says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::webrtc) enum Setup {
    ActPass,
    Active,
    Passive,
}

/// ICE and DTLS lines, of the session or of one m-line.
#[derive(Debug, Clone, Default)]
pub(in crate::webrtc) struct Transport<'a> {
    pub ufrag: Option<&'a str>,
    pub pwd: Option<&'a str>,
    /// The SHA-256 fingerprint.
    pub fingerprint: Option<Vec<u8>>,
    pub setup: Option<Setup>,
}

/// A payload type of an m-line.
#[derive(Debug, Clone, Default)]
pub(in crate::webrtc) struct Codec<'a> {
    pub pt: u8,
    /// The value of its `a=rtpmap`, as it stands; empty for a static payload type without one.
    pub map: &'a str,
    pub name: &'a str,
    pub clock: u32,
    pub fmtp: Option<&'a str>,
    pub feedback: Vec<&'a str>,
}

impl<'a> Codec<'a> {
    /// The value of a parameter of the `a=fmtp` line, its name compared without case.
    pub fn param(&self, name: &str) -> Option<&'a str> {
        let (_, value) = self
            .fmtp?
            .split(';')
            .filter_map(|part| part.trim().split_once('='))
            .find(|(key, _)| key.trim().eq_ignore_ascii_case(name))?;
        Some(value.trim())
    }
}

/// One m-line and what follows it.
#[derive(Debug, Clone)]
pub(in crate::webrtc) struct Media<'a> {
    pub kind: MediaKind,
    /// First word of the m-line, repeated in the answer.
    pub media: &'a str,
    pub port: &'a str,
    pub proto: &'a str,
    /// The m-line's formats as they stand.
    pub formats: Vec<&'a str>,
    pub mid: &'a str,
    pub direction: Direction,
    pub rtcp_mux: bool,
    /// The payload types with an `a=rtpmap` (or a static meaning), in the order of the m-line.
    pub codecs: Vec<Codec<'a>>,
    pub extensions: Vec<(u8, &'a str)>,
    pub transport: Transport<'a>,
}

impl<'a> Media<'a> {
    /// The id of a header extension of this m-line.
    pub fn extension(&self, uri: &str) -> Option<u8> {
        self.extensions.iter().find(|(_, u)| *u == uri).map(|(id, _)| *id)
    }

    /// The payload type that repeats packets of `pt` (RFC 4588).
    pub fn rtx_of(&self, pt: u8) -> Option<u8> {
        let apt = pt.to_string();
        let rtx = |c: &&Codec<'a>| c.name.eq_ignore_ascii_case("rtx") && c.param("apt") == Some(apt.as_str());
        self.codecs.iter().find(rtx).map(|c| c.pt)
    }
}

/// An offer, cut into its parts. The text is borrowed.
#[derive(Debug, Clone)]
pub(in crate::webrtc) struct Offer<'a> {
    pub bundle: Vec<&'a str>,
    pub media: Vec<Media<'a>>,
    pub transport: Transport<'a>,
}

impl<'a> Offer<'a> {
    /// Cuts an offer into its parts. Lines may end in CRLF or LF.
    ///
    /// # Errors
    /// [`SdpError::Malformed`] for text that is not SDP or goes over the bounds of this module.
    pub fn parse(text: &'a str) -> Result<Self, SdpError> {
        if text.len() > MAX_OFFER {
            return Err(SdpError::Malformed("it is too long"));
        }
        let mut lines = text.lines().map(str::trim_end).filter(|line| !line.is_empty());
        if lines.next() != Some("v=0") {
            return Err(SdpError::Malformed("it does not start with v=0"));
        }
        let mut offer = Offer { bundle: vec![], media: vec![], transport: Transport::default() };
        for line in lines {
            offer.line(line)?;
        }
        if offer.media.is_empty() {
            return Err(SdpError::Malformed("it has no m-line"));
        }
        Ok(offer)
    }

    fn line(&mut self, line: &'a str) -> Result<(), SdpError> {
        let Some((kind, value)) = line.split_once('=') else {
            return Err(SdpError::Malformed("a line has no '='"));
        };
        let full = self.media.len() == MAX_MEDIA;
        match (kind, self.media.last_mut()) {
            ("m", _) if full => Err(SdpError::Malformed("it has too many m-lines")),
            ("m", _) => {
                self.media.push(media_line(value)?);
                Ok(())
            }
            ("a", Some(media)) => media.attribute(value),
            ("a", None) => {
                self.session_attribute(value);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn session_attribute(&mut self, attribute: &'a str) {
        let (key, value) = attribute.split_once(':').unwrap_or((attribute, ""));
        if let Some(mids) = attribute.strip_prefix("group:BUNDLE ") {
            self.bundle = mids.split_whitespace().take(MAX_MEDIA).collect();
        } else {
            self.transport.attribute(key, value);
        }
    }
}

impl<'a> Transport<'a> {
    fn attribute(&mut self, key: &str, value: &'a str) {
        match key {
            "ice-ufrag" => self.ufrag = Some(value),
            "ice-pwd" => self.pwd = Some(value),
            "fingerprint" => self.fingerprint = sha256_fingerprint(value).or(self.fingerprint.take()),
            "setup" => {
                self.setup = match value {
                    "actpass" => Some(Setup::ActPass),
                    "active" => Some(Setup::Active),
                    "passive" => Some(Setup::Passive),
                    _ => None,
                }
            }
            _ => {}
        }
    }
}

impl<'a> Media<'a> {
    fn attribute(&mut self, attribute: &'a str) -> Result<(), SdpError> {
        let (key, value) = attribute.split_once(':').unwrap_or((attribute, ""));
        match key {
            "mid" => self.mid = value,
            "sendrecv" => self.direction = Direction::SendRecv,
            "sendonly" => self.direction = Direction::SendOnly,
            "recvonly" => self.direction = Direction::RecvOnly,
            "inactive" => self.direction = Direction::Inactive,
            "rtcp-mux" => self.rtcp_mux = true,
            "extmap" => return self.extmap(value),
            "rtpmap" => self.rtpmap(value),
            "fmtp" => self.with_codec(value, |codec, params| codec.fmtp = Some(params)),
            "rtcp-fb" => return self.feedback(value),
            _ => self.transport.attribute(key, value),
        }
        Ok(())
    }

    fn extmap(&mut self, value: &'a str) -> Result<(), SdpError> {
        if self.extensions.len() == MAX_ATTRIBUTES {
            return Err(SdpError::Malformed("an m-line has too many lines"));
        }
        // "3 uri" or "3/sendrecv uri"; only ids of the one-byte form are of use
        if let Some((id, rest)) = value.split_once(' ')
            && let Some(Ok(id @ 1..=14)) = id.split('/').next().map(str::parse)
        {
            self.extensions.push((id, rest.split(' ').next().unwrap_or(rest)));
        }
        Ok(())
    }

    fn rtpmap(&mut self, value: &'a str) {
        self.with_codec(value, |codec, map| {
            codec.map = map;
            let mut parts = map.split('/');
            codec.name = parts.next().unwrap_or_default();
            codec.clock = parts.next().and_then(|clock| clock.trim().parse().ok()).unwrap_or(0);
        });
    }

    fn feedback(&mut self, value: &'a str) -> Result<(), SdpError> {
        let mut full = false;
        self.with_codec(value, |codec, kind| {
            full = codec.feedback.len() == MAX_ATTRIBUTES;
            if !full {
                codec.feedback.push(kind);
            }
        });
        if full { Err(SdpError::Malformed("an m-line has too many lines")) } else { Ok(()) }
    }

    /// Runs `set` with the codec an attribute such as `96 …` is about, if the m-line has it.
    fn with_codec(&mut self, value: &'a str, set: impl FnOnce(&mut Codec<'a>, &'a str)) {
        if let Some((pt, rest)) = value.split_once(' ')
            && let Ok(pt) = pt.parse::<u8>()
            && let Some(codec) = self.codecs.iter_mut().find(|c| c.pt == pt)
        {
            set(codec, rest.trim());
        }
    }
}

fn media_line(value: &str) -> Result<Media<'_>, SdpError> {
    let mut words = value.split_whitespace();
    let mut word = || words.next().ok_or(SdpError::Malformed("an m-line is cut short"));
    let (media, port, proto) = (word()?, word()?, word()?);
    let formats: Vec<&str> = words.take(MAX_ATTRIBUTES).collect();
    let kind = match media {
        "audio" => MediaKind::Audio,
        "video" => MediaKind::Video,
        _ => MediaKind::Other,
    };
    let pts = formats.iter().filter_map(|f| f.parse::<u8>().ok()).filter(|pt| *pt < 128);
    Ok(Media {
        kind,
        media,
        port,
        proto,
        mid: "",
        direction: Direction::default(),
        rtcp_mux: false,
        codecs: pts.map(static_codec).collect(),
        formats,
        extensions: vec![],
        transport: Transport::default(),
    })
}

/// A payload type before its `a=rtpmap` is read: PCMU and PCMA need none (RFC 3551).
fn static_codec(pt: u8) -> Codec<'static> {
    let (name, clock) = match pt {
        0 => ("PCMU", 8000),
        8 => ("PCMA", 8000),
        _ => ("", 0),
    };
    Codec { pt, name, clock, ..Codec::default() }
}

fn sha256_fingerprint(value: &str) -> Option<Vec<u8>> {
    let (hash, hex) = value.split_once(' ')?;
    if !hash.eq_ignore_ascii_case("sha-256") {
        return None;
    }
    let byte = |pair: &str| (pair.len() == 2).then(|| u8::from_str_radix(pair, 16).ok()).flatten();
    let bytes: Vec<u8> = hex.trim().split(':').take(33).map(byte).collect::<Option<_>>()?;
    (bytes.len() == 32).then_some(bytes)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const PLAY: &str = include_str!("offers/chromium156_play.sdp");

    #[test]
    fn reads_chromiums_offer() {
        let offer = Offer::parse(PLAY).unwrap();
        assert_eq!(offer.bundle, ["0", "1"]);
        let [audio, video] = &offer.media[..] else { panic!("two m-lines") };
        assert_eq!((audio.kind, audio.mid, audio.direction), (MediaKind::Audio, "0", Direction::RecvOnly));
        assert_eq!((audio.codecs[0].pt, audio.codecs[0].name, audio.codecs[0].clock), (111, "opus", 48_000));
        assert!(audio.rtcp_mux && video.rtcp_mux);
        assert_eq!(video.extension(TWCC_URI), Some(3));
        assert_eq!(video.rtx_of(108), Some(109));
        assert_eq!(video.transport.setup, Some(Setup::ActPass));
        assert_eq!(video.transport.fingerprint.as_ref().map(Vec::len), Some(32));
        let h264 = video.codecs.iter().find(|c| c.pt == 108).unwrap();
        assert_eq!(h264.param("Profile-Level-Id"), Some("42e01f"));
        assert_eq!(h264.feedback.len(), 5);
    }

    #[test]
    fn either_line_end_reads_the_same() {
        let lf = PLAY.replace("\r\n", "\n");
        let a = Offer::parse(PLAY).unwrap();
        let b = Offer::parse(&lf).unwrap();
        assert_eq!(format!("{a:?}"), format!("{b:?}"));
    }

    #[test]
    fn garbage_is_refused_and_never_panics() {
        let many = format!("v=0\r\n{}", "m=audio 9 X 1\r\n".repeat(17));
        let long = format!("v=0\r\n{}", "a=x\r\n".repeat(MAX_OFFER));
        let fb = format!("v=0\r\nm=video 9 X 96\r\n{}", "a=rtcp-fb:96 nack\r\n".repeat(300));
        for bad in ["", "v=1", "v=0", "hello", "v=0\r\nm=", "v=0\r\nm=audio", "v=0\r\nnothing", &many, &long, &fb] {
            assert!(matches!(Offer::parse(bad), Err(SdpError::Malformed(_))), "{:.40}", bad);
        }
        // every prefix and every one-byte change of a real offer
        let bytes = PLAY.as_bytes();
        for at in (0..bytes.len()).step_by(7) {
            let _ = Offer::parse(&PLAY[..at]);
            let mut changed = bytes.to_vec();
            changed[at] = b'\n';
            let _ = Offer::parse(std::str::from_utf8(&changed).unwrap());
        }
    }

    #[test]
    fn fingerprints() {
        let good = format!("SHA-256 {}", ["0a"; 32].join(":"));
        assert_eq!(sha256_fingerprint(&good), Some(vec![10; 32]));
        let sha1 = format!("sha-1 {}", ["0a"; 20].join(":"));
        let short = format!("sha-256 {}", ["0a"; 31].join(":"));
        let long = format!("sha-256 {}", ["0a"; 33].join(":"));
        for bad in [sha1.as_str(), &short, &long, "sha-256", "sha-256 é", ""] {
            assert_eq!(sha256_fingerprint(bad), None, "{bad}");
        }
    }
}
