//! The file name of a recording part: a pure function of the settings and of what is known about the part.
//!
//! A name is `<stem><_number>.<extension>`. The stem is the filled template (`stream_record_policy_template`), without the
//! characters of `exclude_record_name_characters`, encoded when `encode_record_name` asks for it, and cut to what is left
//! of [`MAX_NAME`]. Whatever the stream is called, the result is one file name: it has no separator, no control character,
//! no dot in front, and is never empty.
//!
//! While it is written a file has its name with [`TMP_SUFFIX`] behind it, and a name that is taken gets `-2`, `-3` and so on
//! ([`with_suffix`]). [`MAX_NAME`] leaves room for both, so that neither ever cuts into an encoded stem.

use crate::config::NameEncoding;
use data_encoding::{BASE64URL, HEXLOWER};
use serde::{Deserialize, Serialize};

/// The template of the policy `streamName`.
pub const STREAM_NAME_TEMPLATE: &str = "{streamName}";

/// What follows the final name while the file is being written.
pub const TMP_SUFFIX: &str = ".tmp";

/// The most bytes that a Linux file system takes for one name.
const NAME_MAX: usize = 255;

/// The most bytes of a final name with its `-n`: the temporary name has to fit a directory entry too.
const MAX_TAKEN_NAME: usize = NAME_MAX - TMP_SUFFIX.len();

/// The most bytes of a name that [`NameRules::file_name`] gives: room is left for `-` and any `u32` of [`with_suffix`], and
/// for [`TMP_SUFFIX`].
pub const MAX_NAME: usize = MAX_TAKEN_NAME - "-4294967295".len();

/// The stem of a part whose template gives nothing that can be in a file name.
const FALLBACK_STEM: &str = "record";

/// The settings that decide a name (`stream_record_policy`, `stream_record_policy_template`, `encode_record_name`,
/// `exclude_record_name_characters`), or what `config.fileTemplate` of a REST call puts in their place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NameRules {
    /// Literal text and `{elements}`; an element that is not known stays as it is written.
    pub template: String,
    /// How the stem is encoded.
    pub encoding: NameEncoding,
    /// Characters taken out of the stem before it is encoded. An encoded stem keeps its slashes, as keeping them is what
    /// the encoding is for and `/` is excluded by default.
    pub exclude: String,
}

/// What is known about a part when its name is asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NameFacts {
    /// `{streamName}`: the stream's name as its publisher gave it.
    pub stream_name: String,
    /// `{sessionId}`: the publisher's connection, in clear; the name has it in BASE64.
    pub session_id: Option<String>,
    /// `{mediaSessionId}`: the publisher's media session.
    pub media_session_id: String,
    /// `{login}`: the user behind the connection.
    pub login: Option<String>,
    /// `{audioCodec}`: short name, for example `AAC`.
    pub audio_codec: Option<String>,
    /// `{videoCodec}`: short name, for example `H264`.
    pub video_codec: Option<String>,
    /// `{startTime}`: the part's first sample on the stream's clock, ms.
    pub start_stream_ms: u64,
    /// `{startTimeMillis}`: the part's start on the server's clock, ms since the epoch.
    pub start_wall_ms: u64,
    /// How the part ended; `None` while that is not known, which makes the name a pending one.
    pub end: Option<NameEnd>,
    /// The part's number, from 1; `None` without rotation.
    pub part: Option<u32>,
    /// Whether no part follows this one: the last part has no number.
    pub last: bool,
    /// The container's file extension without its dot: up to 8 ASCII letters and digits, always from our own source; it is
    /// not kept with the rest.
    #[serde(skip)]
    pub extension: &'static str,
}

/// How a part ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NameEnd {
    /// `{endTime}`: the end of the last sample on the stream's clock, ms.
    pub stream_ms: u64,
    /// `{endTimeMillis}`: the end on the server's clock, ms since the epoch.
    pub wall_ms: u64,
    /// `{duration}`: the length of the finished file, ms.
    pub duration_ms: u64,
}

impl NameRules {
    /// The name of one part's file, at most [`MAX_NAME`] bytes, without a directory and without [`TMP_SUFFIX`].
    ///
    /// It is *pending* while `facts.end` is `None`: `{endTime}`, `{endTimeMillis}` and `{duration}` stand in it literally.
    /// It is *final* otherwise. Too long a stem is cut at its end, on a character border; number and extension stay.
    pub fn file_name(&self, facts: &NameFacts) -> String {
        let tail = self.tail(facts);
        let room = MAX_NAME.saturating_sub(tail.len());
        let plain = self.plain_stem(facts);
        let stem = match self.encoding {
            NameEncoding::Plain => cut_tidy(&plain, room).to_owned(),
            // Two digits a byte: cut so that the last character is whole when it is decoded.
            NameEncoding::Hex => HEXLOWER.encode(cut(&plain, room / 2).as_bytes()),
            // Four characters for three bytes, the last group padded to four.
            NameEncoding::Base64 => BASE64URL.encode(cut(&plain, room / 4 * 3).as_bytes()),
        };
        stem + &tail
    }

    /// Whether the name is another one once the end is known.
    pub(super) fn is_pending(&self) -> bool {
        ["{endTime}", "{endTimeMillis}", "{duration}"].iter().any(|element| self.template.contains(element))
    }

    /// Number and extension.
    fn tail(&self, facts: &NameFacts) -> String {
        match facts.part {
            Some(number) if !facts.last && !self.has_times() => {
                format!("_{number}.{}", facts.extension)
            }
            _ => format!(".{}", facts.extension),
        }
    }

    /// Whether start or end tell the parts apart, so that they have no number.
    fn has_times(&self) -> bool {
        ["{startTime}", "{endTime}", "{startTimeMillis}", "{endTimeMillis}"]
            .iter()
            .any(|element| self.template.contains(element))
    }

    /// The stem before it is encoded and cut: never empty.
    fn plain_stem(&self, facts: &NameFacts) -> String {
        let encoded = self.encoding != NameEncoding::Plain;
        let kept = |c: &char| {
            if encoded { *c == '/' || !self.exclude.contains(*c) } else { !self.exclude.contains(*c) && !is_unfit(*c) }
        };
        let filled: String = fill(&self.template, facts).chars().filter(kept).collect();
        let stem = if encoded { filled.as_str() } else { filled.trim_matches(is_edge) };
        if stem.is_empty() { FALLBACK_STEM.to_owned() } else { stem.to_owned() }
    }
}

/// The name that a part takes when `name` is taken: `a.mp4` and 2 give `a-2.mp4`.
///
/// A name of [`NameRules::file_name`] only grows. The stem of a longer one is cut so that the result, with [`TMP_SUFFIX`],
/// stays a file name.
pub fn with_suffix(name: &str, n: u32) -> String {
    let (stem, extension) = match name.rfind('.') {
        Some(dot) if dot > 0 && name.len() - dot <= 16 => name.split_at(dot),
        _ => (name, ""),
    };
    let tail = format!("-{n}{extension}");
    let stem = cut(stem, MAX_TAKEN_NAME.saturating_sub(tail.len()));
    format!("{stem}{tail}")
}

/// The name that a file has while it is being written.
pub fn temporary(name: &str) -> String {
    format!("{name}{TMP_SUFFIX}")
}

/// The final name of a file that is being written, or `None` when `name` is not [`temporary`].
pub fn finished(name: &str) -> Option<&str> {
    name.strip_suffix(TMP_SUFFIX).filter(|rest| !rest.is_empty())
}

/// Fills the template in one pass, so that a stream called `{login}` is not filled a second time.
fn fill(template: &str, facts: &NameFacts) -> String {
    let mut out = String::new();
    let mut rest = template;
    while let Some(open) = rest.find('{') {
        let (before, from) = rest.split_at(open);
        out.push_str(before);
        let element = from[1..].find(['{', '}']).filter(|i| from[1 + i..].starts_with('}')).map(|i| &from[1..1 + i]);
        match element.and_then(|name| Some((name, value(name, facts)?))) {
            Some((name, text)) => {
                out.push_str(&text);
                rest = &from[name.len() + 2..];
            }
            None => {
                out.push('{');
                rest = &from[1..];
            }
        }
    }
    out + rest
}

/// An element's value within its maximum length (`None`: not known, or not known yet). A fact that is missing is empty.
fn value(element: &str, facts: &NameFacts) -> Option<String> {
    let some = |text: &Option<String>| text.clone().unwrap_or_default();
    let (text, max) = match element {
        "streamName" => return Some(facts.stream_name.clone()),
        "duration" => (facts.end?.duration_ms.to_string(), 20),
        "startTime" => (facts.start_stream_ms.to_string(), 20),
        "endTime" => (facts.end?.stream_ms.to_string(), 20),
        "startTimeMillis" => (facts.start_wall_ms.to_string(), 20),
        "endTimeMillis" => (facts.end?.wall_ms.to_string(), 20),
        // The URL-safe alphabet: the usual one has a slash. 60 is a whole number of groups, so that a cut id decodes.
        "sessionId" => (BASE64URL.encode(some(&facts.session_id).as_bytes()), 60),
        "mediaSessionId" => (facts.media_session_id.clone(), 36),
        "login" => (some(&facts.login), 32),
        "audioCodec" => (some(&facts.audio_codec), 4),
        "videoCodec" => (some(&facts.video_codec), 4),
        _ => return None,
    };
    Some(text.chars().take(max).collect())
}

/// Characters that no name has: separators (browsers read `\` in an address as `/`), controls, line separators, and the
/// invisible marks that turn the reading direction and so can show another extension than the file has.
fn is_unfit(c: char) -> bool {
    c.is_control()
        || matches!(c, '/' | '\\' | '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

/// Characters that a stem neither begins nor ends with: a dot in front hides a file, and some file systems and shares drop
/// a dot or a blank at the end.
fn is_edge(c: char) -> bool {
    c == '.' || c.is_whitespace()
}

/// The longest beginning of at most `max` bytes that ends between two characters.
fn cut(text: &str, max: usize) -> &str {
    &text[..text.floor_char_boundary(max)]
}

/// [`cut`] without leaving a dot or a blank at the end.
fn cut_tidy(text: &str, max: usize) -> &str {
    cut(text, max).trim_end_matches(is_edge)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn facts(stream_name: &str) -> NameFacts {
        NameFacts {
            stream_name: stream_name.into(),
            session_id: Some("/10.0.0.1:5000/10.0.0.2:8443-3f9d".into()),
            media_session_id: "5a072377-73c1-4caf-abd3-111122223333".into(),
            login: Some("Ann".into()),
            audio_codec: Some("mpeg4-generic".into()),
            video_codec: Some("H264".into()),
            start_stream_ms: 1_563_776_083_752,
            start_wall_ms: 1_563_776_083_900,
            end: None,
            part: None,
            last: false,
            extension: "mp4",
        }
    }

    fn ended(facts: NameFacts) -> NameFacts {
        let end = NameEnd { stream_ms: 1_563_776_093_752, wall_ms: 1_563_776_093_900, duration_ms: 10_000 };
        NameFacts { end: Some(end), ..facts }
    }

    fn rules(template: &str, encoding: NameEncoding, exclude: &str) -> NameRules {
        NameRules { template: template.into(), encoding, exclude: exclude.into() }
    }

    fn plain(template: &str) -> NameRules {
        rules(template, NameEncoding::Plain, "/")
    }

    #[test]
    fn every_element_is_filled_within_its_length() {
        let all = "{streamName}|{duration}|{startTime}|{endTime}|{startTimeMillis}|{endTimeMillis}|{sessionId}|{mediaSessionId}|{login}|{audioCodec}|{videoCodec}";
        assert_eq!(
            plain(all).file_name(&ended(facts("cam"))),
            "cam|10000|1563776083752|1563776093752|1563776083900|1563776093900|\
             LzEwLjAuMC4xOjUwMDAvMTAuMC4wLjI6ODQ0My0zZjlk|5a072377-73c1-4caf-abd3-111122223333|Ann|mpeg|H264.mp4"
        );
        let long = NameFacts {
            session_id: Some("s".repeat(100)),
            media_session_id: "m".repeat(100),
            login: Some("é".repeat(100)),
            ..facts("x")
        };
        assert_eq!(plain("{sessionId}").file_name(&long).len(), 60 + 4);
        assert_eq!(plain("{mediaSessionId}").file_name(&long).len(), 36 + 4);
        assert_eq!(plain("{login}").file_name(&long).chars().count(), 32 + 4);
    }

    #[test]
    fn names_of_parts() {
        let table = [
            // template, part, last, ended, name
            (
                "stream-{mediaSessionId}-{login}",
                None,
                true,
                true,
                "stream-5a072377-73c1-4caf-abd3-111122223333-Ann.mp4",
            ),
            ("{streamName}", Some(1), false, true, "cam_1.mp4"),
            ("{streamName}", Some(12), false, false, "cam_12.mp4"),
            ("{streamName}", Some(13), true, true, "cam.mp4"),
            ("{streamName}-{startTime}", Some(2), false, true, "cam-1563776083752.mp4"),
            ("{streamName}-{startTimeMillis}", Some(2), false, true, "cam-1563776083900.mp4"),
            ("{streamName}-{endTime}", Some(2), false, false, "cam-{endTime}.mp4"),
            ("{streamName}-{endTimeMillis}-{duration}", Some(2), false, false, "cam-{endTimeMillis}-{duration}.mp4"),
            ("{streamName}-{endTimeMillis}-{duration}", Some(2), false, true, "cam-1563776093900-10000.mp4"),
            ("{streamName}-{duration}", Some(2), false, true, "cam-10000_2.mp4"),
            ("{streamName}-{other}{", None, false, true, "cam-{other}{.mp4"),
            ("{{streamName}}", None, false, true, "{cam}.mp4"),
            ("{other{streamName}", None, false, true, "{othercam.mp4"),
            ("", None, false, true, "record.mp4"),
        ];
        for (template, part, last, end, name) in table {
            let facts = NameFacts { part, last, ..facts("cam") };
            let facts = if end { ended(facts) } else { facts };
            assert_eq!(plain(template).file_name(&facts), name, "{template}");
        }
    }

    #[test]
    fn missing_facts_are_empty() {
        let bare = NameFacts { session_id: None, login: None, audio_codec: None, video_codec: None, ..facts("cam") };
        assert_eq!(plain("a-{sessionId}-{login}-{audioCodec}{videoCodec}").file_name(&bare), "a---.mp4");
    }

    #[test]
    fn a_stream_name_is_not_a_template() {
        assert_eq!(plain("{streamName}").file_name(&facts("{login}-{endTime}")), "{login}-{endTime}.mp4");
    }

    #[test]
    fn names_that_are_no_file_names() {
        let table = [
            ("../../etc/passwd", "etcpasswd.mp4"),
            ("..", "record.mp4"),
            (" . ", "record.mp4"),
            ("/", "record.mp4"),
            ("a\0b\n\u{7f}c", "abc.mp4"),
            (".hidden", "hidden.mp4"),
            ("end. ", "end.mp4"),
            ("a\\b", "ab.mp4"),
            ("x\u{202e}gpj", "xgpj.mp4"),
            ("קול", "קול.mp4"),
            ("👩‍👩‍👧", "👩‍👩‍👧.mp4"),
        ];
        for (stream, name) in table {
            assert_eq!(rules("{streamName}", NameEncoding::Plain, "").file_name(&facts(stream)), name, "{stream:?}");
        }
    }

    #[test]
    fn excluded_characters_go_before_the_encoding_but_a_slash_survives_it() {
        assert_eq!(rules("{streamName}", NameEncoding::Plain, ":.,/").file_name(&facts("a:b.c,d/e")), "abcde.mp4");
        let hex = rules("{streamName}", NameEncoding::Hex, ":.,/").file_name(&facts("a:b/c"));
        assert_eq!(hex, format!("{}.mp4", HEXLOWER.encode(b"ab/c")));
        let base64 = rules("{streamName}", NameEncoding::Base64, "/").file_name(&facts("rtmp://h/a?b"));
        assert_eq!(base64, format!("{}.mp4", BASE64URL.encode(b"rtmp://h/a?b")));
    }

    #[test]
    fn long_names_keep_number_and_extension() {
        let long = NameFacts { part: Some(u32::MAX), ..facts(&"€".repeat(4000)) };
        let name = plain("{streamName}").file_name(&long);
        assert!(name.len() <= MAX_NAME && name.len() > MAX_NAME - 3, "{}", name.len());
        assert!(name.ends_with("€_4294967295.mp4"));
    }

    #[test]
    fn names_that_are_taken() {
        assert_eq!(with_suffix("a.mp4", 2), "a-2.mp4");
        assert_eq!(with_suffix("a.b_1.webm", 3), "a.b_1-3.webm");
        assert_eq!(with_suffix("a", 3), "a-3");
        assert_eq!(with_suffix(&format!("{}.mp4", "é".repeat(125)), 10).len(), 251);
        assert_eq!(finished(&temporary("a.mp4")), Some("a.mp4"));
        assert_eq!(finished("a.mp4"), None);
        assert_eq!(finished(".tmp"), None);
    }

    fn any_text() -> impl Strategy<Value = String> {
        prop_oneof![
            any::<String>(),
            "[./\\\\\u{0}{} a-z]{0,40}",
            "[👩‍😀אבג\u{202e}/.é ]{0,300}",
            (".", 1..4000usize).prop_map(|(c, n)| c.repeat(n)),
            Just("..".to_owned()),
        ]
    }

    fn any_encoding() -> impl Strategy<Value = NameEncoding> {
        prop_oneof![Just(NameEncoding::Plain), Just(NameEncoding::Hex), Just(NameEncoding::Base64)]
    }

    fn assert_one_file_name(name: &str, max: usize) {
        assert!(!name.is_empty() && name.len() <= max, "{} bytes", name.len());
        assert!(!name.starts_with('.') && !name.ends_with(is_edge), "{name:?}");
        assert!(!name.contains(is_unfit), "{name:?}");
        let inside: Vec<_> =
            std::path::Path::new("dir").join(name).components().map(|c| c.as_os_str().to_owned()).collect();
        assert_eq!(inside, ["dir", name]);
    }

    proptest! {
        #[test]
        fn any_stream_gives_one_file_name(
            stream in any_text(), login in any_text(), session in any_text(),
            template in prop_oneof![Just("{streamName}".to_owned()), Just("{login}{streamName}-{endTime}{sessionId}".to_owned()), any_text()],
            exclude in "[/.:a]{0,3}", encoding in any_encoding(),
            part in proptest::option::of(1u32..), last: bool, done: bool, n: u32,
        ) {
            let rules = NameRules { template, encoding, exclude };
            let facts = NameFacts { login: Some(login), session_id: Some(session), part, last, ..facts(&stream) };
            let facts = if done { ended(facts) } else { facts };
            let name = rules.file_name(&facts);
            assert_one_file_name(&name, MAX_NAME);
            prop_assert!(name.ends_with(".mp4"));
            let taken = with_suffix(&name, n);
            assert_one_file_name(&taken, MAX_TAKEN_NAME);
            prop_assert_eq!(taken.len(), name.len() + 1 + n.to_string().len());
            assert_one_file_name(&temporary(&taken), NAME_MAX);
        }

        #[test]
        fn encodings_decode_back(stream in any_text(), hex: bool, part in proptest::option::of(1u32..)) {
            let encoding = if hex { NameEncoding::Hex } else { NameEncoding::Base64 };
            let rules = rules("{streamName}", encoding, "");
            let facts = NameFacts { part, ..facts(&stream) };
            let name = rules.file_name(&facts);
            let stem = name.strip_suffix(&rules.tail(&facts)).unwrap();
            let bytes = if hex { HEXLOWER.decode(stem.as_bytes()) } else { BASE64URL.decode(stem.as_bytes()) }.unwrap();
            let text = String::from_utf8(bytes).unwrap();
            let whole = if stream.is_empty() { FALLBACK_STEM } else { &stream };
            prop_assert!(whole.starts_with(&text));
            prop_assert!(whole == text || text.len() > 100);
        }

        #[test]
        fn suffixes_of_any_name_stay_within_the_limit(name in any_text(), n: u32) {
            prop_assert!(temporary(&with_suffix(&name, n)).len() <= NAME_MAX);
        }
    }
}
