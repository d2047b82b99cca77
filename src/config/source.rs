//! Where settings come from: layers of text, the later over the earlier, and what is wrong with them.
//!
//! Nothing here knows what a setting means; the keys weir knows are the keys of the compiled-in file.

use super::value::InvalidValue;
use crate::name::is_secret;
use java_properties::{LineContent, PropertiesIter};
use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

/// What the names of weir's environment variables begin with.
const PREFIX: &str = "WEIR_";

/// Environment variables that are no settings: those of the command line and the log, and `WEIR_PORT`, which
/// Kubernetes sets.
const RESERVED: [&str; 6] = ["WEIR_LOG", "WEIR_LOG_FORMAT", "WEIR_CONF", "WEIR_DATA", "WEIR_PIPELINES", "WEIR_PORT"];

/// What the names of further variables begin with that Kubernetes puts into every container next to a service named
/// `weir`: nobody wrote these, so nobody is warned of them.
const INJECTED_PREFIXES: [&str; 2] = ["WEIR_SERVICE_", "WEIR_PORT_"];

/// Where a value was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// The compiled-in defaults.
    Defaults,
    /// A settings file.
    File {
        /// The file as it was named on the command line.
        path: PathBuf,
        /// The line the setting starts at, from 1.
        line: usize,
    },
    /// An environment variable, by its name.
    Environment(String),
    /// `--set` on the command line.
    Argument,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Defaults => f.write_str("the defaults"),
            Self::File { path, line } => write!(f, "{} line {line}", path.display()),
            Self::Environment(name) => write!(f, "environment variable {name}"),
            Self::Argument => f.write_str("--set"),
        }
    }
}

/// One thing that keeps the settings from being used. Displays as one line for the operator, secrets masked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// A settings file, or a line of it, that cannot be read.
    #[error("{}{}: {reason}", path.display(), line.map(|line| format!(" line {line}")).unwrap_or_default())]
    File {
        /// The file as it was named on the command line.
        path: PathBuf,
        /// The line, from 1; `None` if the whole file is meant.
        line: Option<usize>,
        /// What is wrong with it.
        reason: String,
    },
    /// A `--set` that is not `key=value`.
    #[error("--set {:?}: expected key=value", mask(text, text))]
    Argument {
        /// What was given.
        text: String,
    },
    /// A value that a setting cannot have.
    #[error("{key} = {:?} ({origin}): {reason}", mask(key, value))]
    Value {
        /// The setting.
        key: &'static str,
        /// The value as it was written.
        value: String,
        /// Where it was written.
        origin: Origin,
        /// What is allowed.
        reason: InvalidValue,
    },
    /// A setting the program asks for and the compiled-in file does not have: a mistake of weir's own.
    #[error("{key} is missing in the compiled-in defaults")]
    Missing {
        /// The setting.
        key: &'static str,
    },
}

/// Everything that is wrong with the settings, so that one start shows all of it. Displays as a line a problem below
/// a heading.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct Problems(pub Vec<Problem>);

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the settings cannot be used:")?;
        self.0.iter().try_for_each(|problem| write!(f, "\n  {problem}"))
    }
}

/// What an operator has given beside the settings cannot be used: a file that a setting names, or two settings that do
/// not go together. As with [`Problems`], trying again mends nothing. Displays as a sentence for the operator.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Unusable(pub String);

/// The text to show for the value of a setting: stars in place of a secret.
pub(super) fn mask<'a>(key: &str, value: &'a str) -> &'a str {
    // A switch is none, whatever it switches.
    let plain = matches!(value, "" | "true" | "false");
    if is_secret(key) && !plain { "***" } else { value }
}

/// The effective text of every setting while the layers are laid, and what was found wrong on the way.
#[derive(Debug, Default)]
pub(super) struct Layers {
    values: BTreeMap<String, (String, Origin)>,
    /// Names nobody knows, each once, in the order they were met: the key of a file, an environment variable, `--set key`.
    pub(super) unknown: Vec<String>,
    pub(super) problems: Vec<Problem>,
}

impl Layers {
    /// Starts with the defaults. Their keys are the keys the later layers may have.
    pub(super) fn new(defaults: &str) -> Self {
        let mut layers = Self::default();
        let path = Path::new("the compiled-in defaults");
        for entry in layers.valid(path, entries(defaults)) {
            layers.values.insert(entry.key, (entry.value, Origin::Defaults));
        }
        layers
    }

    /// Lays a settings file over what is there.
    pub(super) fn file(&mut self, path: &Path) {
        let text = match std::fs::read(path).map_err(|e| e.to_string()).and_then(decode) {
            Ok(text) => text,
            Err(reason) => {
                return self.problems.push(Problem::File { path: path.to_owned(), line: None, reason });
            }
        };
        for Entry { line, key, value } in self.valid(path, entries(&text)) {
            self.lay(&key, value, Origin::File { path: path.to_owned(), line }, || key.clone());
        }
    }

    /// Lays the variables that begin with `WEIR_` over what is there; others are passed over.
    ///
    /// `.` and `_` of a key are both `_` in a variable, so the key is looked for among those that are known.
    pub(super) fn environment(&mut self, variables: impl IntoIterator<Item = (String, String)>) {
        let keys: BTreeMap<String, String> = self.values.keys().map(|key| (variable(key), key.clone())).collect();
        // Sorted, as the order of the environment is nobody's intention and the warning should not change with it.
        let ours: BTreeMap<String, String> =
            variables.into_iter().filter(|(name, _)| name.starts_with(PREFIX)).collect();
        for (name, value) in ours {
            match keys.get(&name) {
                Some(key) => self.lay(key, value, Origin::Environment(name), String::new),
                None if is_reserved(&name) => {}
                None => self.note_unknown(name),
            }
        }
    }

    /// Lays a `key=value` of the command line over what is there.
    pub(super) fn argument(&mut self, text: &str) {
        match text.split_once('=') {
            Some((key, value)) if !key.trim().is_empty() => {
                let key = key.trim();
                self.lay(key, value.to_owned(), Origin::Argument, || format!("--set {key}"));
            }
            _ => self.problems.push(Problem::Argument { text: text.to_owned() }),
        }
    }

    /// Reads the effective value of a setting, without the white space around it. A value that cannot be used is
    /// noted and gives `None`.
    pub(super) fn get<T>(
        &mut self,
        key: &'static str,
        parse: impl FnOnce(&str) -> Result<T, InvalidValue>,
    ) -> Option<T> {
        self.get_verbatim(key, |text| parse(text.trim()))
    }

    /// Reads the effective value of a setting where white space counts.
    pub(super) fn get_verbatim<T>(
        &mut self,
        key: &'static str,
        parse: impl FnOnce(&str) -> Result<T, InvalidValue>,
    ) -> Option<T> {
        let Some((value, origin)) = self.values.get(key) else {
            self.problems.push(Problem::Missing { key });
            return None;
        };
        match parse(value) {
            Ok(value) => Some(value),
            Err(reason) => {
                let (value, origin) = (value.clone(), origin.clone());
                self.problems.push(Problem::Value { key, value, origin, reason });
                None
            }
        }
    }

    fn lay(&mut self, key: &str, value: String, origin: Origin, unknown: impl FnOnce() -> String) {
        match self.values.get_mut(key) {
            Some(setting) => *setting = (value, origin),
            None => self.note_unknown(unknown()),
        }
    }

    fn note_unknown(&mut self, name: String) {
        if !self.unknown.contains(&name) {
            self.unknown.push(name);
        }
    }

    /// Keeps the entries that can be read, and notes the others as problems of that file.
    fn valid(&mut self, path: &Path, entries: Vec<Result<Entry, Malformed>>) -> Vec<Entry> {
        let mut note = |Malformed { line, reason }| {
            self.problems.push(Problem::File { path: path.to_owned(), line: Some(line), reason });
        };
        entries.into_iter().filter_map(|entry| entry.map_err(&mut note).ok()).collect()
    }
}

/// The environment variable of a setting: `WEIR_HTTP_PORT` for `http.port`.
fn variable(key: &str) -> String {
    format!("{PREFIX}{}", key.replace('.', "_").to_ascii_uppercase())
}

fn is_reserved(name: &str) -> bool {
    RESERVED.contains(&name) || INJECTED_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

/// A setting of a properties text.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    /// The line it starts at, from 1.
    line: usize,
    key: String,
    value: String,
}

/// A setting of a properties text that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Malformed {
    line: usize,
    reason: String,
}

/// The text of a settings file: UTF-8, or else Latin-1, in which Java reads its properties.
fn decode(bytes: Vec<u8>) -> Result<String, String> {
    let text = match String::from_utf8(bytes) {
        Ok(text) => text,
        Err(e) => e.into_bytes().into_iter().map(char::from).collect(),
    };
    if text.contains('\0') {
        return Err("expected text in UTF-8 or Latin-1, found a NUL character (UTF-16, or no text at all)".to_owned());
    }
    Ok(text.strip_prefix('\u{feff}').unwrap_or(&text).to_owned())
}

/// The settings of a properties text, in its order.
fn entries(text: &str) -> Vec<Result<Entry, Malformed>> {
    logical_lines(text).into_iter().filter_map(|(line, text)| entry(line, &text)).collect()
}

/// Splits a properties text into its settings, each with the lines that continue it.
///
/// The parser behind [`entry`] gets one setting at a time: it ends at the first one it cannot read, it reads escapes
/// even in comments, and it loses a last line that ends in a backslash.
fn logical_lines(text: &str) -> Vec<(usize, String)> {
    let natural = text.replace("\r\n", "\n").replace('\r', "\n");
    let mut settings = Vec::new();
    let mut open: Option<(usize, String)> = None;
    for (index, line) in natural.split('\n').enumerate() {
        let start = line.trim_start();
        if open.is_none() && (start.is_empty() || start.starts_with(['#', '!'])) {
            continue;
        }
        let (_, setting) = open.get_or_insert((index + 1, String::new()));
        setting.push_str(line);
        setting.push('\n');
        let backslashes = line.len() - line.trim_end_matches('\\').len();
        if backslashes.is_multiple_of(2) {
            settings.extend(open.take());
        }
    }
    settings.extend(open);
    settings
}

/// Reads one setting; `None` if the text holds none.
fn entry(line: usize, text: &str) -> Option<Result<Entry, Malformed>> {
    // The parser takes Latin-1 unless the text begins with the mark of UTF-8.
    let marked = format!("\u{feff}{text}");
    PropertiesIter::new(marked.as_bytes()).find_map(|found| match found.map(|found| found.consume_content()) {
        Ok(LineContent::KVPair(key, _)) if key.is_empty() => {
            Some(Err(Malformed { line, reason: "expected key=value, found no key".to_owned() }))
        }
        Ok(LineContent::KVPair(key, value)) => Some(Ok(Entry { line, key, value })),
        Ok(LineContent::Comment(_)) => None,
        Err(_) => Some(Err(Malformed {
            line,
            reason: "expected four hexadecimal digits of a character after \\u (a backslash itself is written \\\\, \
                     and a character beyond U+FFFF as it is)"
                .to_owned(),
        })),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use proptest::prelude::*;

    fn pairs(text: &str) -> Vec<(usize, String, String)> {
        entries(text).into_iter().map(|entry| entry.unwrap()).map(|e| (e.line, e.key, e.value)).collect()
    }

    #[test]
    fn syntax_of_java_properties() {
        for (text, want) in [
            ("a=1", vec![(1, "a", "1")]),
            ("a = 1\r\nb:2\rc 3\n", vec![(1, "a", "1"), (2, "b", "2"), (3, "c", "3")]),
            ("a=x,\\\n   y,\\\r\n\tz\nb=1", vec![(1, "a", "x,y,z"), (4, "b", "1")]),
            ("# a=1\n ! b=2\n\n\t\nc=3", vec![(5, "c", "3")]),
            ("# ends in a backslash \\\na=1", vec![(2, "a", "1")]),
            ("# C:\\users\\u12\na=1", vec![(2, "a", "1")]),
            ("a=1\\\n#2", vec![(1, "a", "1#2")]),
            ("a=1\\", vec![(1, "a", "1")]),
            ("a=\\\n\nb=2", vec![(1, "a", ""), (3, "b", "2")]),
            ("a=C:\\\\x", vec![(1, "a", "C:\\x")]),
            ("a\\=b=1", vec![(1, "a=b", "1")]),
            ("x=:.,/", vec![(1, "x", ":.,/")]),
            ("a=", vec![(1, "a", "")]),
            ("a", vec![(1, "a", "")]),
            ("a=b=c", vec![(1, "a", "b=c")]),
            ("a=\\u00e9\\t.", vec![(1, "a", "é\t.")]),
            ("a=日本語 😀", vec![(1, "a", "日本語 😀")]),
            ("", vec![]),
        ] {
            let want: Vec<_> = want.into_iter().map(|(l, k, v)| (l, k.to_owned(), v.to_owned())).collect();
            assert_eq!(pairs(text), want, "{text:?}");
        }
    }

    #[test]
    fn one_bad_line_does_not_hide_the_next() {
        let found = entries("a=\\u12\nb=1\n=2\nc=\\uD83D\nd=3");
        let lines: Vec<_> = found.iter().map(|e| e.as_ref().map(|e| e.line).map_err(|m| m.line)).collect();
        assert_eq!(lines, [Err(1), Ok(2), Err(3), Err(4), Ok(5)]);
    }

    #[test]
    fn encodings() {
        assert_eq!(decode(b"\xef\xbb\xbfa=1".to_vec()), Ok("a=1".to_owned()));
        assert_eq!(decode("a=é".into()), Ok("a=é".to_owned()));
        assert_eq!(decode(b"a=\xe9".to_vec()), Ok("a=é".to_owned()));
        assert!(decode(b"\xff\xfea\0=\x001\0".to_vec()).is_err_and(|reason| reason.contains("UTF-16")));
    }

    #[test]
    fn secrets_are_masked() {
        let reason = InvalidValue { expected: "hexadecimal digits" };
        let value = "hunter2".to_owned();
        let problem = Problem::Value { key: "x_secret", value, origin: Origin::Argument, reason };
        assert_eq!(problem.to_string(), "x_secret = \"***\" (--set): expected hexadecimal digits");
        let problem = Problem::Argument { text: "password:hunter2".to_owned() };
        assert_eq!(problem.to_string(), "--set \"***\": expected key=value");
    }

    #[test]
    fn layers_and_names() {
        let mut layers = Layers::new("a.b=1\nc_d=2\n");
        layers.environment(
            [("WEIR_A_B", "3"), ("WEIR_C_D", "4"), ("WEIR_Z", "5"), ("WEIR_LOG", "6"), ("PATH", "7")]
                .map(|(name, value)| (name.to_owned(), value.to_owned())),
        );
        layers.environment([("WEIR_SERVICE_HOST".to_owned(), String::new()), ("WEIR_PORT".to_owned(), String::new())]);
        layers.argument("a.b = 8");
        layers.argument("q=9");
        layers.argument("q=9");
        layers.argument("no value");
        layers.argument("=x");
        assert_eq!(layers.get("a.b", |t| Ok(t.to_owned())), Some("8".to_owned()));
        assert_eq!(layers.get_verbatim("a.b", |t| Ok(t.to_owned())), Some(" 8".to_owned()));
        assert_eq!(layers.get("c_d", |t| Ok(t.to_owned())), Some("4".to_owned()));
        assert_eq!(layers.get("nope", |t| Ok(t.to_owned())), None);
        assert_eq!(layers.unknown, ["WEIR_Z", "--set q"]);
        let problems: Vec<_> = layers.problems.iter().map(Problem::to_string).collect();
        assert_eq!(
            problems,
            [
                "--set \"no value\": expected key=value",
                "--set \"=x\": expected key=value",
                "nope is missing in the compiled-in defaults",
            ]
        );
    }

    #[test]
    fn no_two_keys_share_a_variable() {
        let keys = pairs(super::super::DEFAULTS);
        let names: std::collections::BTreeSet<_> = keys.iter().map(|(_, key, _)| variable(key)).collect();
        assert_eq!(names.len(), keys.len());
        assert!(names.iter().all(|name| !is_reserved(name)), "a setting has a reserved name");
    }

    proptest! {
        #[test]
        fn no_file_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode(bytes).map(|text| entries(&text));
        }

        #[test]
        fn no_text_panics(text in "[a-c\\\\u0-9#!:= \t\r\n\u{e9}\u{c}]{0,60}") {
            let _ = entries(&text);
        }
    }
}
