//! The values settings can have, and how each is written. Pure: text in, a typed value or what is allowed out.

use std::fmt;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

/// The longest time a setting takes: one day. It keeps every deadline far from where adding to a clock overflows.
const MAX_TIME: Duration = Duration::from_secs(24 * 60 * 60);

/// The longest part of a recording that is rotated by time: one year, which fits GStreamer's nanoseconds easily.
const MAX_PART_SECONDS: u64 = 365 * 24 * 60 * 60;

/// Suffixes of sizes, with their bytes. Megabytes are 1024*1024 bytes, as Java's settings count them.
const UNITS: [(&str, u64); 4] = [("G", 1 << 30), ("M", 1 << 20), ("K", 1 << 10), ("B", 1)];

/// A text that is no value of its kind. Displays as "expected …", saying what is allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected {expected}")]
pub struct InvalidValue {
    /// What is allowed, as a noun phrase for a person.
    pub expected: &'static str,
}

/// What a parser of a setting's text returns.
pub(super) type Parsed<T> = Result<T, InvalidValue>;

/// Builds the error of a value that is not as `expected` says.
pub(super) fn expected<T>(expected: &'static str) -> Parsed<T> {
    Err(InvalidValue { expected })
}

/// When a recording starts a new file: `record_rotation`, and `rotation` in a REST request (wcs.md 6.4, 6.9).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rotation {
    /// Never: one file. Written as nothing, `disabled` or `0`.
    Off,
    /// After this long, at the next key frame. Written as whole seconds, `20`.
    Time(Duration),
    /// After this many bytes, at the next key frame. Written with a suffix, `20M`; a megabyte is 1024*1024 bytes.
    Size(u64),
}

impl FromStr for Rotation {
    type Err = InvalidValue;

    /// Reads a rotation.
    ///
    /// # Errors
    /// What is allowed, if the text is none of the three forms. A small `m` is refused, as it could mean minutes.
    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        let wrong = InvalidValue {
            expected: "seconds (20, up to 31536000), a size with K, M or G (20M), or off for no rotation",
        };
        let text = text.trim();
        if text.is_empty() || ["off", "disabled", "false"].into_iter().any(|off| text.eq_ignore_ascii_case(off)) {
            return Ok(Self::Off);
        }
        if text.bytes().any(|b| b.is_ascii_lowercase()) {
            return Err(wrong);
        }
        match (integer(text), size(text)) {
            (Some(0), _) | (_, Ok(0)) => Ok(Self::Off),
            (Some(seconds), _) if seconds <= MAX_PART_SECONDS => Ok(Self::Time(Duration::from_secs(seconds))),
            (None, Ok(bytes)) => Ok(Self::Size(bytes)),
            _ => Err(wrong),
        }
    }
}

impl fmt::Display for Rotation {
    /// Writes the rotation as the setting is written; `Off` is the empty text.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Off => Ok(()),
            Self::Time(time) => write!(f, "{}", time.as_secs_f64()),
            Self::Size(bytes) => f.write_str(&show_size(*bytes)),
        }
    }
}

/// Where the file name of a recording comes from: `stream_record_policy` (wcs.md 6.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecordPolicy {
    /// The stream's name: `streamName`.
    StreamName,
    /// The template of `stream_record_policy_template`: `template`.
    Template,
}

impl FromStr for RecordPolicy {
    type Err = InvalidValue;

    /// Reads a policy; the case of letters does not matter.
    ///
    /// # Errors
    /// What is allowed, if the text is neither policy.
    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        match text.trim().to_ascii_lowercase().as_str() {
            "streamname" => Ok(Self::StreamName),
            "template" => Ok(Self::Template),
            _ => expected("streamName or template"),
        }
    }
}

impl fmt::Display for RecordPolicy {
    /// Writes the policy as the setting is written.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::StreamName => "streamName",
            Self::Template => "template",
        })
    }
}

/// How the file name of a recording is encoded: `encode_record_name` (wcs.md 6.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum NameEncoding {
    /// As it is: `false`, or nothing.
    Plain,
    /// Hexadecimal digits of its UTF-8 bytes: `true,HEX`.
    Hex,
    /// BASE64 of its UTF-8 bytes: `true,BASE64`.
    Base64,
}

impl FromStr for NameEncoding {
    type Err = InvalidValue;

    /// Reads an encoding; the case of letters and the space around the comma do not matter. `false,HEX` is off.
    ///
    /// # Errors
    /// What is allowed, if the text is none of the forms.
    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        let text = text.trim().to_ascii_lowercase();
        let (switch, kind) = text.split_once(',').map_or((text.as_str(), ""), |(a, b)| (a.trim(), b.trim()));
        match (switch, kind) {
            ("" | "false", "" | "hex" | "base64") | ("off", "") => Ok(Self::Plain),
            ("true", "hex") => Ok(Self::Hex),
            ("true", "base64") => Ok(Self::Base64),
            _ => expected("false, true,HEX or true,BASE64"),
        }
    }
}

impl fmt::Display for NameEncoding {
    /// Writes the encoding as the setting is written.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Plain => "false",
            Self::Hex => "true,HEX",
            Self::Base64 => "true,BASE64",
        })
    }
}

/// Reads digits only: Rust's own parser also takes a leading `+`, which no settings file means.
fn integer(text: &str) -> Option<u64> {
    text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

/// Reads how many there may be of something; 0 is no limit.
pub(super) fn count(text: &str) -> Parsed<u64> {
    match integer(text) {
        Some(count) if !text.is_empty() => Ok(count),
        _ => expected("a number, 0 for no limit"),
    }
}

/// Reads a size: bytes, or a number with a suffix of [`UNITS`] in either case.
pub(super) fn size(text: &str) -> Parsed<u64> {
    let upper = text.to_ascii_uppercase();
    let (digits, unit) = UNITS
        .iter()
        .find_map(|(suffix, bytes)| upper.strip_suffix(suffix).map(|digits| (digits, *bytes)))
        .unwrap_or((upper.as_str(), 1));
    match integer(digits).and_then(|count| count.checked_mul(unit)) {
        Some(bytes) => Ok(bytes),
        None => expected("a size: bytes, or a number with K, M or G (512M)"),
    }
}

/// Reads a size of at least one byte.
pub(super) fn positive_size(text: &str) -> Parsed<u64> {
    match size(text) {
        Ok(bytes) if bytes > 0 => Ok(bytes),
        _ => expected("a size over 0: bytes, or a number with K, M or G (1M)"),
    }
}

/// Writes a size with the largest suffix that divides it, so that [`size`] reads back the same bytes.
pub(super) fn show_size(bytes: u64) -> String {
    match UNITS.iter().find(|(_, unit)| bytes > 0 && bytes.is_multiple_of(*unit)) {
        Some((suffix, unit)) => format!("{}{suffix}", bytes / unit),
        None => "0".to_owned(),
    }
}

/// Reads a time: milliseconds as WCS writes them, or a number with `ms` or `s`.
///
/// Zero is refused: nothing tells whether it would mean at once or never.
pub(super) fn time(text: &str) -> Parsed<Duration> {
    let (digits, unit) = match (text.strip_suffix("ms"), text.strip_suffix('s')) {
        (Some(digits), _) => (digits, 1),
        (None, Some(digits)) => (digits, 1000),
        (None, None) => (text, 1),
    };
    let time = integer(digits).and_then(|count| count.checked_mul(unit)).map(Duration::from_millis);
    match time {
        Some(time) if !time.is_zero() && time <= MAX_TIME => Ok(time),
        _ => expected("milliseconds from 1 to 86400000 (10000, 10000ms or 10s)"),
    }
}

/// Writes a time as plain milliseconds.
pub(super) fn show_time(time: Duration) -> String {
    time.as_millis().to_string()
}

/// Reads a port.
pub(super) fn port(text: &str) -> Parsed<u16> {
    match integer(text).map(u16::try_from) {
        Some(Ok(port)) => Ok(port),
        _ => expected("a port from 0 to 65535 (0 takes a free one)"),
    }
}

/// Reads an address to listen on; IPv6 also in brackets, as in a URL.
pub(super) fn ip(text: &str) -> Parsed<IpAddr> {
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    bare.parse().or_else(|_| expected("an IPv4 or IPv6 address of this host (0.0.0.0 for all)"))
}

/// Reads a switch.
pub(super) fn switch(text: &str) -> Parsed<bool> {
    match text.to_ascii_lowercase().as_str() {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => expected("true or false"),
    }
}

/// Reads a number of tries, where 0 is no limit.
pub(super) fn attempts(text: &str) -> Parsed<Option<NonZeroU32>> {
    match integer(text).map(u32::try_from) {
        Some(Ok(count)) => Ok(NonZeroU32::new(count)),
        _ => expected("a number from 0 to 4294967295 (0 for ever)"),
    }
}

/// Reads the path of a directory.
pub(super) fn directory(text: &str) -> Parsed<PathBuf> {
    match path(text)? {
        Some(path) => Ok(path),
        None => expected("the path of a directory"),
    }
}

/// Reads a path; nothing is no path.
pub(super) fn path(text: &str) -> Parsed<Option<PathBuf>> {
    if text.contains('\0') {
        return expected("a path without a NUL character");
    }
    Ok((!text.is_empty()).then(|| PathBuf::from(text)))
}

/// Reads a token that is sent as `Bearer`; nothing is none.
pub(super) fn token(text: &str) -> Parsed<Option<String>> {
    if text.bytes().any(|b| !b.is_ascii_graphic()) {
        return expected("ASCII letters, digits and signs without spaces");
    }
    Ok((!text.is_empty()).then(|| text.to_owned()))
}

/// Reads the value of an HTTP header; nothing is no header.
pub(super) fn header(text: &str) -> Parsed<Option<String>> {
    if text.bytes().any(|b| !(b' '..=b'~').contains(&b)) {
        return expected("the value of an HTTP header: ASCII letters, digits, signs and spaces");
    }
    Ok((!text.is_empty()).then(|| text.to_owned()))
}

/// What no operator sets: how long an answer is, and what its connection does.
const FRAMING: [&str; 4] = ["content-length", "transfer-encoding", "connection", "upgrade"];

/// Reads headers as WCS has them: `Name: value;Name: value`. A piece that begins with no name belongs to the value before
/// it (`Strict-Transport-Security: max-age=1; includeSubDomains`).
pub(super) fn headers(text: &str) -> Parsed<Vec<(String, String)>> {
    let allowed = "headers with semicolons between them, for example X-Frame-Options: DENY;Vary: Origin";
    let mut headers: Vec<(String, String)> = Vec::new();
    for piece in text.split(';').map(str::trim).filter(|piece| !piece.is_empty()) {
        let token =
            |name: &&str| !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b));
        let named =
            piece.split_once(':').map(|(name, value)| (name.trim(), value.trim())).filter(|(name, _)| token(name));
        match (named, headers.last_mut()) {
            (Some((name, _)), _) if FRAMING.contains(&name.to_ascii_lowercase().as_str()) => return expected(allowed),
            (Some((name, value)), _) => headers.push((name.to_owned(), value.to_owned())),
            (None, Some((_, value))) => value.push_str(&format!("; {piece}")),
            (None, None) => return expected(allowed),
        }
    }
    match headers.iter().all(|(_, value)| value.bytes().all(|b| (b' '..=b'~').contains(&b))) {
        true => Ok(headers),
        false => expected(allowed),
    }
}

/// Writes headers so that [`headers`] reads them back.
pub(super) fn show_headers(headers: &[(String, String)]) -> String {
    headers.iter().map(|(name, value)| format!("{name}: {value}")).collect::<Vec<_>>().join(";")
}

/// Reads a template of file names.
pub(super) fn template(text: &str) -> Parsed<String> {
    if text.is_empty() || text.chars().any(char::is_control) {
        return expected("a file name template such as {streamName}-{startTime}");
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use proptest::prelude::*;

    #[test]
    fn headers_of_the_operator() {
        let own = |text| headers(text).map(|list| show_headers(&list)).unwrap_or_else(|_| "?".into());
        for (text, shown) in [
            ("", ""),
            ("A: b", "A: b"),
            (" A:b ; C : d;", "A: b;C: d"),
            ("S: max-age=1; includeSubDomains;X: y", "S: max-age=1; includeSubDomains;X: y"),
            ("A: http://h:1", "A: http://h:1"),
            ("b", "?"),
            ("Content-Length: 0", "?"),
            ("A: \u{e9}", "?"),
        ] {
            assert_eq!(own(text), shown, "{text:?}");
        }
    }

    #[test]
    fn rotations() {
        let seconds = |s| Some(Rotation::Time(Duration::from_secs(s)));
        for (text, want) in [
            ("", Some(Rotation::Off)),
            (" disabled ", Some(Rotation::Off)),
            ("0", Some(Rotation::Off)),
            ("0M", Some(Rotation::Off)),
            ("20", seconds(20)),
            (" 20 ", seconds(20)),
            ("31536000", seconds(31_536_000)),
            ("31536001", None),
            ("20M", Some(Rotation::Size(20 * 1024 * 1024))),
            ("1G", Some(Rotation::Size(1 << 30))),
            ("300K", Some(Rotation::Size(300 * 1024))),
            ("20m", None),
            ("20s", None),
            ("M", None),
            ("-1", None),
            ("+20", None),
            ("1.5M", None),
            ("20 M", None),
            ("99999999999999999999", None),
            ("99999999999999999999M", None),
            ("18446744073709551615G", None),
            ("on", None),
        ] {
            assert_eq!(text.parse::<Rotation>().ok(), want, "{text:?}");
        }
        assert_eq!(Rotation::Size(20 << 20).to_string(), "20M");
        assert_eq!(Rotation::Time(Duration::from_secs(20)).to_string(), "20");
        assert_eq!(Rotation::Off.to_string(), "");
        assert!("x".parse::<Rotation>().unwrap_err().to_string().starts_with("expected seconds (20"));
    }

    #[test]
    fn policies_and_encodings() {
        assert_eq!("streamName".parse(), Ok(RecordPolicy::StreamName));
        assert_eq!("Template".parse(), Ok(RecordPolicy::Template));
        assert!("".parse::<RecordPolicy>().is_err());
        for (text, want) in [
            ("", Some(NameEncoding::Plain)),
            ("false", Some(NameEncoding::Plain)),
            ("false,HEX", Some(NameEncoding::Plain)),
            ("off", Some(NameEncoding::Plain)),
            ("true,HEX", Some(NameEncoding::Hex)),
            ("true, base64", Some(NameEncoding::Base64)),
            ("true", None),
            ("true,ROT13", None),
            ("HEX", None),
        ] {
            assert_eq!(text.parse::<NameEncoding>().ok(), want, "{text:?}");
        }
    }

    #[test]
    fn times() {
        for (text, want) in [
            ("10000", Some(10_000)),
            ("10000ms", Some(10_000)),
            ("10s", Some(10_000)),
            ("1", Some(1)),
            ("86400000", Some(86_400_000)),
            ("86401s", None),
            ("0", None),
            ("0s", None),
            ("", None),
            ("s", None),
            ("-5", None),
            ("1.5s", None),
            ("18446744073709551615s", None),
        ] {
            assert_eq!(time(text).ok(), want.map(Duration::from_millis), "{text:?}");
        }
    }

    #[test]
    fn sizes_ports_addresses_and_paths() {
        assert_eq!(size("512M"), Ok(512 << 20));
        assert_eq!(size("512m"), Ok(512 << 20));
        assert_eq!(size("0"), Ok(0));
        assert_eq!(size("7"), Ok(7));
        assert!(size("").is_err() && size("M").is_err() && size("512MB").is_err());
        assert!(positive_size("0").is_err());
        assert_eq!((port("0"), port("65535")), (Ok(0), Ok(65535)));
        assert!(port("65536").is_err() && port("").is_err() && port("+1").is_err());
        assert_eq!(ip("[::1]"), ip("::1"));
        assert!(ip("localhost").is_err());
        assert!(switch("TRUE").is_ok_and(|on| on) && switch("yes").is_err());
        assert_eq!(attempts("0"), Ok(None));
        assert_eq!(attempts("3"), Ok(NonZeroU32::new(3)));
        assert!(directory("").is_err() && directory("a\0b").is_err());
        assert_eq!(path(""), Ok(None));
        assert_eq!(header(""), Ok(None));
        assert!(header("a\r\nSet-Cookie: b").is_err());
        assert!(template("").is_err() && template("a\nb").is_err());
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "\\PC*|[0-9]{0,24}[BKMGbkmgs]{0,2}") {
            let _ = (text.parse::<Rotation>(), text.parse::<NameEncoding>(), text.parse::<RecordPolicy>());
            let _ = (size(&text), time(&text), port(&text), ip(&text), attempts(&text), header(&text));
        }

        #[test]
        fn sizes_and_rotations_read_back(bytes in any::<u64>()) {
            prop_assert_eq!(size(&show_size(bytes)), Ok(bytes));
            let rotation = if bytes == 0 { Rotation::Off } else { Rotation::Size(bytes) };
            prop_assert_eq!(rotation.to_string().parse(), Ok(rotation));
        }
    }
}
