//! What a pulled RTMP stream may bring: the rules of `rtmp_agent.sdp`. Pure: text in, rules out, questions answered.
//!
//! The file is the SDP that Flashphoner WCS keeps as `conf/rtmp_agent.sdp` (wcs.md section 2); SDP has no comments,
//! so what weir reads out of it stands here.
//!
//! - **A kind of media is brought if it has an `m=` line** (`m=video`, `m=audio`; others are passed over). To leave a
//!   kind out, remove its section or write `a=inactive` into it. The port says nothing: it is 0 in the file as
//!   it is shipped, for both kinds.
//! - **A codec may come if one of the payload types listed in the `m=` line has an `a=rtpmap` with its name.** The case
//!   of letters does not matter. An `a=rtpmap` of a payload type that is not listed counts for nothing, as in any SDP.
//! - **AAC (`mpeg4-generic`) may come at the clock rates listed for it.** Other codecs come at any rate: theirs is
//!   fixed by the codec.
//! - **Channels limit nothing.** `/1`, `/2` and no number all let mono and stereo through: the file that WCS ships
//!   says `/1` everywhere, and stereo streams are pulled with it.
//! - **Video is recorded if its direction is `a=sendonly` or `a=sendrecv`.** With `a=recvonly` it is played but a
//!   recording has audio only, as in WCS. Audio is recorded with either; the shipped file says `a=recvonly` there. A
//!   direction before the first `m=` line holds for the sections without one; no direction at all is `sendrecv`.
//! - **`a=fmtp` limits nothing**: a profile or level in it keeps no stream out.
//!
//! The order of lines before the first `m=` line, line ends, blank lines and a byte order mark do not matter.

mod sdp;

pub use sdp::PolicyError;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// The compiled-in rules: H.264, recorded, and AAC at every standard rate: the nine that WCS lists, and 7350, 64000, 88200 and 96000 Hz.
const DEFAULT: &str = include_str!("../../conf/rtmp_agent.sdp");

/// The name AAC has in an SDP, in small letters.
const AAC: &str = "mpeg4-generic";

/// What a pulled RTMP stream may bring.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourcePolicy {
    /// What video may come; `None` if none may.
    video: Option<VideoRule>,
    /// What audio may come; `None` if none may.
    audio: Option<AudioRule>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct VideoRule {
    /// Names of codecs in small letters.
    encodings: BTreeSet<String>,
    recorded: bool,
    free_payload: Option<u8>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct AudioRule {
    /// The clock rates listed for each codec, by its name in small letters.
    encodings: BTreeMap<String, BTreeSet<u32>>,
    free_payload: Option<u8>,
}

/// A kind of media a source may bring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Pictures.
    Video,
    /// Sound.
    Audio,
}

impl fmt::Display for Kind {
    /// Writes the word an SDP has for it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Video => "video",
            Self::Audio => "audio",
        })
    }
}

/// Why a track of a source is left out. Displays as a sentence for the operator that names the file and what to write
/// into it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The file has no section of this kind, or an inactive one.
    #[error("rtmp_agent.sdp (setting rtmp_agent_sdp) lets no {0} through: add an m={0} section that is not a=inactive")]
    Kind(Kind),
    /// The codec is not listed.
    #[error("rtmp_agent.sdp (setting rtmp_agent_sdp) does not list the {kind} codec {codec}: {}", remedy(*kind, codec, *rate, *payload))]
    Codec {
        /// The kind of the track.
        kind: Kind,
        /// The codec as the caller named it.
        codec: String,
        /// The clock rate in Hz.
        rate: u32,
        /// A payload type that is still free in the section.
        payload: Option<u8>,
    },
    /// AAC is listed, but not at this rate.
    #[error("rtmp_agent.sdp (setting rtmp_agent_sdp) does not list AAC at {rate} Hz: {}", remedy(Kind::Audio, AAC, *rate, *payload))]
    Rate {
        /// The clock rate in Hz.
        rate: u32,
        /// A payload type that is still free in the section.
        payload: Option<u8>,
    },
}

/// Says what lets a track through: a number in the `m=` line and a line that says what it is.
fn remedy(kind: Kind, codec: &str, rate: u32, payload: Option<u8>) -> String {
    let number = payload.map_or_else(|| "N".to_owned(), |payload| payload.to_string());
    format!("add {number} to the end of the m={kind} line, and below it the line a=rtpmap:{number} {codec}/{rate}")
}

impl SourcePolicy {
    /// Reads the text of an `rtmp_agent.sdp`.
    ///
    /// # Errors
    /// The first thing that cannot be used, with its line.
    pub fn parse(text: &str) -> Result<Self, PolicyError> {
        let (video, audio) = sdp::read(text)?;
        Ok(Self {
            video: video.map(|rules| VideoRule {
                encodings: rules.encodings.into_keys().collect(),
                recorded: rules.direction.sends(),
                free_payload: rules.free_payload,
            }),
            audio: audio.map(|rules| AudioRule { encodings: rules.encodings, free_payload: rules.free_payload }),
        })
    }

    /// Tells whether a stream may bring video of this codec, by its name in an SDP (`H264`), in any case.
    pub fn allows_video(&self, codec: &str) -> bool {
        self.check_video(codec).is_ok()
    }

    /// Like [`SourcePolicy::allows_video`], with the reason.
    ///
    /// # Errors
    /// Why the track is left out.
    pub fn check_video(&self, codec: &str) -> Result<(), Refusal> {
        let rule = self.video.as_ref().ok_or(Refusal::Kind(Kind::Video))?;
        if rule.encodings.contains(&canonical(codec)) {
            return Ok(());
        }
        // Every video codec has this clock rate in RTP.
        let rate = 90_000;
        Err(Refusal::Codec { kind: Kind::Video, codec: codec.to_owned(), rate, payload: rule.free_payload })
    }

    /// Tells whether recordings of a pulled stream have its video. If not, it is played only.
    pub fn records_video(&self) -> bool {
        self.video.as_ref().is_some_and(|rule| rule.recorded)
    }

    /// Tells whether a stream may bring audio of this codec, by its name in an SDP (`mpeg4-generic`, or `AAC` for the
    /// same, `PCMA` …) in any case, at this sample rate in Hz. The rate matters for AAC only.
    ///
    /// # Errors
    /// Why the track is left out.
    pub fn allows_audio(&self, codec: &str, sample_rate: u32) -> Result<(), Refusal> {
        let rule = self.audio.as_ref().ok_or(Refusal::Kind(Kind::Audio))?;
        let (name, rate, payload) = (canonical(codec), sample_rate, rule.free_payload);
        match rule.encodings.get(&name) {
            Some(rates) if name != AAC || rates.contains(&rate) => Ok(()),
            Some(_) => Err(Refusal::Rate { rate, payload }),
            None if name == AAC => Err(Refusal::Codec { kind: Kind::Audio, codec: name, rate, payload }),
            None => Err(Refusal::Codec { kind: Kind::Audio, codec: codec.to_owned(), rate, payload }),
        }
    }
}

impl Default for SourcePolicy {
    /// The compiled-in rules.
    ///
    /// # Panics
    /// If the compiled-in file cannot be used, which depends on nothing but the build; a test reads it.
    fn default() -> Self {
        match Self::parse(DEFAULT) {
            Ok(policy) => policy,
            Err(error) => panic!("conf/rtmp_agent.sdp: {error}"),
        }
    }
}

/// The name of a codec in the form the rules have it.
fn canonical(codec: &str) -> String {
    let name = codec.to_ascii_lowercase();
    if name == "aac" { AAC.to_owned() } else { name }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use proptest::prelude::*;

    /// ISO/IEC 14496-3, table 1.18.
    const RATES: [u32; 13] =
        [7350, 8000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000, 64_000, 88_200, 96_000];

    /// A file with these lines below a working video section's `m=` and `a=rtpmap`, then an audio section.
    fn with_video(lines: &str) -> SourcePolicy {
        SourcePolicy::parse(&format!("m=video 0 RTP/AVP 95\na=rtpmap:95 H264/90000\n{lines}\nm=audio 0 RTP/AVP 0"))
            .unwrap()
    }

    #[test]
    fn the_compiled_in_rules() {
        let policy = SourcePolicy::default();
        assert!(policy.allows_video("H264") && policy.allows_video("h264"));
        assert!(!policy.allows_video("VP8"));
        assert!(policy.records_video());
        for rate in RATES {
            assert_eq!(policy.allows_audio("mpeg4-generic", rate), Ok(()));
            assert_eq!(policy.allows_audio("AAC", rate), Ok(()));
        }
        assert!(matches!(policy.allows_audio("AAC", 44_056), Err(Refusal::Rate { rate: 44_056, .. })));
        assert!(matches!(policy.allows_audio("PCMA", 8000), Err(Refusal::Codec { .. })));
    }

    #[test]
    fn directions() {
        for (lines, played, recorded) in [
            ("a=sendonly", true, true),
            ("a=sendrecv", true, true),
            ("", true, true),
            ("a=recvonly", true, false),
            ("a=recvonly\na=recvonly", true, false),
            ("a=inactive", false, false),
        ] {
            let policy = with_video(lines);
            assert_eq!((policy.allows_video("H264"), policy.records_video()), (played, recorded), "{lines}");
            assert_eq!(policy.allows_audio("PCMU", 8000), Ok(()));
        }
    }

    #[test]
    fn the_direction_of_the_session_is_the_default() {
        let sdp = "a=recvonly\nm=video 0 RTP/AVP 95\na=rtpmap:95 H264/90000\n";
        let policy = SourcePolicy::parse(sdp).unwrap();
        assert!(policy.allows_video("H264") && !policy.records_video());
        assert!(SourcePolicy::parse(&format!("{sdp}a=sendonly")).unwrap().records_video());
    }

    #[test]
    fn a_missing_section_brings_nothing() {
        let policy = SourcePolicy::parse("m=audio 0 RTP/AVP 96\na=rtpmap:96 mpeg4-generic/8000/1\na=recvonly").unwrap();
        assert!(!policy.allows_video("H264") && !policy.records_video());
        assert_eq!(policy.allows_audio("AAC", 8000), Ok(()));
        let policy = SourcePolicy::parse("m=video 0 RTP/AVP 95\na=rtpmap:95 H264/90000").unwrap();
        assert_eq!(policy.allows_audio("AAC", 8000), Err(Refusal::Kind(Kind::Audio)));
    }

    #[test]
    fn codecs_rates_and_channels() {
        let policy = SourcePolicy::parse(
            "\u{feff}v=0\r\n\r\nm=audio 1234 RTP/SAVPF 0 8 110 111 112 \r\na=rtpmap:110 MPEG4-GENERIC/96000\r\n\
             a=rtpmap:111 speex/16000\r\na=rtpmap:112 mpeg4-generic/44100/2\r\na=rtpmap:113 opus/48000/2\r\n\
             a=fmtp:110 config=1190\r\na=ptime:20\r\nm=application 9 UDP/DTLS webrtc-datachannel\r\na=inactive\r\n",
        )
        .unwrap();
        for (codec, rate, allowed) in [
            ("PCMU", 8000, true),
            ("PCMA", 8000, true),
            ("AAC", 96_000, true),
            ("AAC", 44_100, true),
            ("AAC", 48_000, false),
            ("Speex", 8000, true),
            ("opus", 48_000, false),
            ("", 0, false),
        ] {
            assert_eq!(policy.allows_audio(codec, rate).is_ok(), allowed, "{codec} {rate}");
        }
    }

    #[test]
    fn a_refusal_names_the_file_and_the_line_to_add() {
        let policy = SourcePolicy::default();
        for (refusal, text) in [
            (
                policy.allows_audio("AAC", 44_056),
                "does not list AAC at 44056 Hz: add 101 to the end of the m=audio line, and below it the line \
                 a=rtpmap:101 mpeg4-generic/44056",
            ),
            (policy.allows_audio("PCMA", 8000), "the audio codec PCMA: add 101 to the end of the m=audio line"),
            (policy.check_video("H265"), "below it the line a=rtpmap:96 H265/90000"),
            (with_video("a=inactive").check_video("H264"), "lets no video through: add an m=video section"),
            (with_video("").allows_audio("aac", 8000), "a=rtpmap:96 mpeg4-generic/8000"),
        ] {
            let sentence = refusal.unwrap_err().to_string();
            assert!(sentence.starts_with("rtmp_agent.sdp (setting rtmp_agent_sdp) "), "{sentence}");
            assert!(sentence.contains(text), "{sentence} has {text}");
        }
    }

    #[test]
    fn doing_what_the_refusal_says_lets_the_track_through() {
        let sdp = DEFAULT.replace("107 109", "107 109 101\na=rtpmap:101 mpeg4-generic/44056");
        assert_eq!(SourcePolicy::parse(&sdp).unwrap().allows_audio("AAC", 44_056), Ok(()));
    }

    #[test]
    fn what_cannot_be_used() {
        let media = |line| PolicyError::Media { line };
        let rtpmap = |line| PolicyError::Rtpmap { line };
        for (text, error) in [
            ("", PolicyError::NoMedia),
            ("v=0\nt=0 0\nm=application 9 UDP/DTLS webrtc-datachannel", PolicyError::NoMedia),
            ("# a comment", PolicyError::Line { line: 1 }),
            ("v=0\n\nsendonly", PolicyError::Line { line: 3 }),
            ("m=", media(1)),
            ("m=video 0 RTP/AVP", media(1)),
            ("m=video 0 RTP/AVP h264", media(1)),
            ("m=video 0 RTP/AVP 128", media(1)),
            ("v=0\nm=video 0 RTP/AVP 95\na=rtpmap:95", rtpmap(3)),
            ("m=video 0 RTP/AVP 95\na=rtpmap:95 H264", rtpmap(2)),
            ("m=video 0 RTP/AVP 95\na=rtpmap:95 H264/fast", rtpmap(2)),
            ("m=video 0 RTP/AVP 95\na=rtpmap:95 H264/0", rtpmap(2)),
            ("m=video 0 RTP/AVP 95\na=rtpmap:300 H264/90000", rtpmap(2)),
            ("m=video 0 RTP/AVP 95\na=rtpmap:95 H264/90000/two", rtpmap(2)),
            ("m=video 0 RTP/AVP 95\na=rtpmap:96 H264/90000", PolicyError::NoCodec { line: 1 }),
            (
                "m=video 0 RTP/AVP 95\na=rtpmap:95 H264/90000\na=rtpmap:95 VP8/90000",
                PolicyError::SecondRtpmap { line: 3, payload: 95 },
            ),
            (
                "m=video 0 RTP/AVP 95\na=rtpmap:95 H264/90000\na=recvonly\na=sendonly",
                PolicyError::SecondDirection { line: 4, first: 3 },
            ),
            ("a=recvonly\na=sendonly", PolicyError::SecondDirection { line: 2, first: 1 }),
            (
                "m=audio 0 RTP/AVP 0\nm=audio 0 RTP/AVP 8",
                PolicyError::SecondSection { line: 2, kind: Kind::Audio, first: 1 },
            ),
        ] {
            assert_eq!(SourcePolicy::parse(text), Err(error), "{text:?}");
        }
        assert!(SourcePolicy::parse("v=0\nm=x").unwrap_err().to_string().starts_with("line 2: expected m="));
    }

    #[test]
    fn an_inactive_section_needs_no_codec() {
        assert!(SourcePolicy::parse("m=video 0 RTP/AVP 95\na=inactive\nm=audio 0 RTP/AVP 0").is_ok());
    }

    fn line() -> impl Strategy<Value = String> {
        prop_oneof![
            "m=(video|audio|text) [0-9]{1,3} RTP/AVP( [0-9]{1,3}){0,4}",
            "a=rtpmap:[0-9]{0,3} (H264|mpeg4-generic|PCMU)/[0-9]{0,6}(/[12])?",
            "a=(sendonly|recvonly|sendrecv|inactive)",
            "[a-z]?=\\PC{0,20}",
        ]
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "\\PC*", bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let _ = SourcePolicy::parse(&text);
            let _ = SourcePolicy::parse(&String::from_utf8_lossy(&bytes));
        }

        #[test]
        fn no_sdp_panics(lines in proptest::collection::vec(line(), 0..12), codec in "\\PC{0,8}", rate in any::<u32>()) {
            match SourcePolicy::parse(&lines.join("\r\n")) {
                Ok(policy) => {
                    let _ = policy.check_video(&codec).map_err(|refusal| refusal.to_string());
                    let _ = policy.allows_audio(&codec, rate).map_err(|refusal| refusal.to_string());
                    prop_assert!(!policy.records_video() || policy.video.is_some());
                }
                Err(error) => prop_assert!(!error.to_string().is_empty()),
            }
        }
    }
}
