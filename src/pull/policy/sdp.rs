//! Reads the sections of an `rtmp_agent.sdp`. What they mean is decided in the parent module.

use super::Kind;
use std::collections::{BTreeMap, BTreeSet};

/// Payload types with a meaning of their own (RFC 3551) that RTMP can carry, for an `m=` line that lists them without
/// an `a=rtpmap`.
const STATIC_PAYLOADS: [(u8, &str, u32); 3] = [(0, "PCMU", 8000), (8, "PCMA", 8000), (14, "MPA", 90_000)];

/// Why an `rtmp_agent.sdp` cannot be used. Lines count from 1.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    /// A line that is no line of an SDP.
    #[error("line {line}: expected a letter, = and a value (such as a=sendonly)")]
    Line {
        /// The line.
        line: usize,
    },
    /// An `m=` line that cannot be read.
    #[error("line {line}: expected m=KIND PORT RTP/AVP and payload types from 0 to 127 (m=video 0 RTP/AVP 95)")]
    Media {
        /// The line.
        line: usize,
    },
    /// A second section of a kind.
    #[error("line {line}: a second m={kind} section; write all payload types into the first, at line {first}")]
    SecondSection {
        /// The line.
        line: usize,
        /// The kind.
        kind: Kind,
        /// The line of the first section.
        first: usize,
    },
    /// An `a=rtpmap` that cannot be read.
    #[error("line {line}: expected a=rtpmap:PAYLOAD NAME/RATE or NAME/RATE/CHANNELS (a=rtpmap:95 H264/90000)")]
    Rtpmap {
        /// The line.
        line: usize,
    },
    /// A second, different meaning of a payload type in one section.
    #[error("line {line}: payload type {payload} has an a=rtpmap already in this section")]
    SecondRtpmap {
        /// The line.
        line: usize,
        /// The payload type.
        payload: u8,
    },
    /// A second, different direction in one section: which one counts would be a guess.
    #[error("line {line}: a second direction in this section; keep one of the two, the first is at line {first}")]
    SecondDirection {
        /// The line.
        line: usize,
        /// The line of the first direction.
        first: usize,
    },
    /// A section that names no codec.
    #[error("line {line}: none of the payload types of this m= line has an a=rtpmap line")]
    NoCodec {
        /// The line of the `m=` line.
        line: usize,
    },
    /// A text without a section for video or audio.
    #[error("expected an m=video or m=audio section, found neither")]
    NoMedia,
}

/// What a section says, once all of it is read.
#[derive(Debug)]
pub(super) struct Rules {
    /// The clock rates in Hz listed for each codec, by its name in small letters; not empty.
    pub(super) encodings: BTreeMap<String, BTreeSet<u32>>,
    pub(super) direction: Direction,
    /// The first dynamic payload type the section does not use.
    pub(super) free_payload: Option<u8>,
}

/// Reads the rules for video and for audio, each `None` without a section or with an inactive one.
///
/// # Errors
/// The first thing that cannot be used, with its line.
pub(super) fn read(text: &str) -> Result<(Option<Rules>, Option<Rules>), PolicyError> {
    let Sections { session, video, audio, .. } = Sections::parse(text)?;
    if video.is_none() && audio.is_none() {
        return Err(PolicyError::NoMedia);
    }
    let finish = |section: Option<Section>| match section {
        Some(section) => section.finish(session),
        None => Ok(None),
    };
    Ok((finish(video)?, finish(audio)?))
}

/// A direction of an SDP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Direction {
    SendRecv,
    SendOnly,
    RecvOnly,
    Inactive,
}

impl Direction {
    fn parse(attribute: &str) -> Option<Self> {
        match attribute {
            "sendrecv" => Some(Self::SendRecv),
            "sendonly" => Some(Self::SendOnly),
            "recvonly" => Some(Self::RecvOnly),
            "inactive" => Some(Self::Inactive),
            _ => None,
        }
    }

    /// Tells whether media flows away from the one who says it.
    pub(super) fn sends(self) -> bool {
        matches!(self, Self::SendRecv | Self::SendOnly)
    }
}

/// A direction and the line it stands in.
type Found = (Direction, usize);

/// The sections of the text that matter, and which of them the lines being read belong to.
#[derive(Debug, Default)]
struct Sections {
    /// The direction before the first `m=` line.
    session: Option<Found>,
    video: Option<Section>,
    audio: Option<Section>,
    place: Place,
}

/// Where in the text a line stands.
#[derive(Debug, Default, Clone, Copy)]
enum Place {
    #[default]
    Session,
    Media(Kind),
    /// A section of another kind of media.
    Other,
}

impl Sections {
    fn parse(text: &str) -> Result<Self, PolicyError> {
        let mut sections = Self::default();
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        for (index, line) in text.lines().enumerate() {
            let (line, number) = (line.trim(), index + 1);
            match line.split_once('=') {
                _ if line.is_empty() => {}
                Some(("m", value)) => sections.open(value, number)?,
                Some(("a", value)) => sections.attribute(value, number)?,
                Some((letter, _)) if letter.len() == 1 => {}
                _ => return Err(PolicyError::Line { line: number }),
            }
        }
        Ok(sections)
    }

    fn open(&mut self, value: &str, line: usize) -> Result<(), PolicyError> {
        let (name, payloads) = media(value).ok_or(PolicyError::Media { line })?;
        let (kind, slot) = match name.to_ascii_lowercase().as_str() {
            "video" => (Kind::Video, &mut self.video),
            "audio" => (Kind::Audio, &mut self.audio),
            _ => {
                self.place = Place::Other;
                return Ok(());
            }
        };
        if let Some(first) = slot {
            return Err(PolicyError::SecondSection { line, kind, first: first.line });
        }
        // A numeric payload type in each place is a matter of the kinds read here only: others list other things.
        let payloads = payloads.map(|payload| payload_type(payload).ok_or(PolicyError::Media { line }));
        *slot = Some(Section { line, payloads: payloads.collect::<Result<_, _>>()?, ..Section::default() });
        self.place = Place::Media(kind);
        Ok(())
    }

    fn attribute(&mut self, value: &str, line: usize) -> Result<(), PolicyError> {
        let section = match self.place {
            Place::Session => None,
            Place::Media(Kind::Video) => self.video.as_mut(),
            Place::Media(Kind::Audio) => self.audio.as_mut(),
            Place::Other => return Ok(()),
        };
        if let Some(direction) = Direction::parse(value) {
            let slot = section.map_or(&mut self.session, |section| &mut section.direction);
            return match *slot {
                Some((other, first)) if other != direction => Err(PolicyError::SecondDirection { line, first }),
                _ => {
                    *slot = Some((direction, line));
                    Ok(())
                }
            };
        }
        match (section, value.strip_prefix("rtpmap:")) {
            (Some(section), Some(map)) => section.rtpmap(map, line),
            _ => Ok(()),
        }
    }
}

/// Splits an `m=` line into the kind of media and the payload types, of which there is at least one.
fn media(value: &str) -> Option<(&str, impl Iterator<Item = &str>)> {
    let mut words = value.split_whitespace();
    let (kind, _port, _protocol) = (words.next()?, words.next()?, words.next()?);
    let mut payloads = words.peekable();
    payloads.peek()?;
    Some((kind, payloads))
}

fn payload_type(text: &str) -> Option<u8> {
    text.parse().ok().filter(|payload| *payload < 128)
}

/// A section while it is read.
#[derive(Debug, Default)]
struct Section {
    /// The line of its `m=` line.
    line: usize,
    payloads: BTreeSet<u8>,
    /// Name in small letters and clock rate of each payload type.
    maps: BTreeMap<u8, (String, u32)>,
    direction: Option<Found>,
}

impl Section {
    fn rtpmap(&mut self, map: &str, line: usize) -> Result<(), PolicyError> {
        let (payload, meaning) = rtpmap(map).ok_or(PolicyError::Rtpmap { line })?;
        match self.maps.insert(payload, meaning.clone()) {
            Some(other) if other != meaning => Err(PolicyError::SecondRtpmap { line, payload }),
            _ => Ok(()),
        }
    }

    /// The rules of the section; `None` if it is inactive.
    fn finish(self, session: Option<Found>) -> Result<Option<Rules>, PolicyError> {
        let direction = self.direction.or(session).map_or(Direction::SendRecv, |(direction, _)| direction);
        if direction == Direction::Inactive {
            return Ok(None);
        }
        let mut encodings: BTreeMap<String, BTreeSet<u32>> = BTreeMap::new();
        for (name, rate) in self.payloads.iter().filter_map(|payload| self.meaning(*payload)) {
            encodings.entry(name).or_default().insert(rate);
        }
        if encodings.is_empty() {
            return Err(PolicyError::NoCodec { line: self.line });
        }
        let taken = |payload: &u8| self.payloads.contains(payload) || self.maps.contains_key(payload);
        Ok(Some(Rules { encodings, direction, free_payload: (96..128).find(|payload| !taken(payload)) }))
    }

    fn meaning(&self, payload: u8) -> Option<(String, u32)> {
        let fixed = || STATIC_PAYLOADS.iter().find(|(number, ..)| *number == payload);
        self.maps.get(&payload).cloned().or_else(|| fixed().map(|(_, name, rate)| (name.to_ascii_lowercase(), *rate)))
    }
}

/// Reads `PAYLOAD NAME/RATE` or `PAYLOAD NAME/RATE/CHANNELS`: the payload type, and its name and clock rate.
fn rtpmap(text: &str) -> Option<(u8, (String, u32))> {
    let (payload, encoding) = text.trim().split_once(char::is_whitespace)?;
    let mut parts = encoding.trim().split('/');
    let (name, rate) = (parts.next()?, parts.next()?.parse().ok()?);
    let channels = parts.next().unwrap_or("1");
    let sound = !name.is_empty() && rate > 0 && channels.parse::<u8>().is_ok() && parts.next().is_none();
    sound.then_some((payload_type(payload)?, (name.to_ascii_lowercase(), rate)))
}
