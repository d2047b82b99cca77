//! Launch templates: text with holes, and what comes out when they are filled.
//!
//! A template is a file of `pipelines/`. Lines that start with `#` are comments, a line that starts with `[video]` or
//! `[audio]` is the branch of that track and is used only when the stream has the track (`[audio opus]`: only when the
//! track is in that codec), an indented line continues the one before, and everything else is the head. A hole is `{name}`. What fills it is either a *value*, which is
//! always quoted and can never become launch syntax, or a *fragment*, a literal of this program.

use std::collections::{BTreeMap, BTreeSet};

use super::track::{Codec, Kind};
use crate::name::mask;

/// A parsed template file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    name: String,
    lines: Vec<Line>,
    operators: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Line {
    track: Option<Label>,
    pieces: Vec<Piece>,
}

/// What stands in the brackets before a branch.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Label {
    kind: Kind,
    codec: Option<String>,
}

impl Label {
    /// Whether the branch is for a track of this codec.
    fn takes(&self, codec: &Codec) -> bool {
        self.codec.as_deref().is_none_or(|label| label == codec.label())
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Text(String),
    Hole(String),
}

/// Why a template cannot be read or filled. The operator's template file is at fault, or our code; never the network.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// The text is not a template.
    #[error("template {template}, line {line}: {reason}")]
    Syntax {
        /// The template's name.
        template: String,
        /// The line, from 1.
        line: usize,
        /// What is wrong with it.
        reason: String,
    },
    /// A hole that nothing was given for.
    #[error("template {template}: nothing fills the hole {{{hole}}}; give {hole}=…")]
    Unfilled {
        /// The template's name.
        template: String,
        /// The hole's name.
        hole: String,
    },
    /// Something was given that the template has no hole for.
    #[error("template {template} has no hole {{{hole}}}; it has: {known}")]
    Unused {
        /// The template's name.
        template: String,
        /// The name that was given.
        hole: String,
        /// The holes there are, separated by commas.
        known: String,
    },
}

/// What goes into the holes of one template.
#[derive(Debug, Clone, Default)]
pub struct Filling {
    holes: BTreeMap<String, Content>,
    tracks: Vec<Used>,
}

/// Which branches are used.
#[derive(Debug, Clone)]
enum Used {
    All(Kind),
    First(Kind),
    In(Kind, Codec),
}

#[derive(Debug, Clone)]
enum Content {
    Value { server: String, shell: Option<String> },
    Fragment { server: &'static str, shell: String },
    Input { server: &'static str, shell: fn(Option<&str>) -> &'static str },
}

impl Filling {
    /// Nothing filled yet, and no track's branch used.
    pub fn new() -> Self {
        Self::default()
    }

    /// A value for `hole`: quoted wherever it is used, with secrets masked wherever it is shown.
    pub fn value(mut self, hole: &str, value: impl Into<String>) -> Self {
        let content = Content::Value { server: value.into(), shell: None };
        self.holes.insert(hole.to_owned(), content);
        self
    }

    /// A value that stands for something else in the shell: a recording's file must not be overwritten by whoever
    /// pastes the command.
    pub fn value_for_shell(mut self, hole: &str, server: &str, shell: &str) -> Self {
        let content = Content::Value { server: server.to_owned(), shell: Some(shell.to_owned()) };
        self.holes.insert(hole.to_owned(), content);
        self
    }

    /// A fragment for `hole`: `server` is a literal of this program, `shell` what stands there in a terminal.
    pub fn fragment(mut self, hole: &str, server: &'static str, shell: impl Into<String>) -> Self {
        let content = Content::Fragment { server, shell: shell.into() };
        self.holes.insert(hole.to_owned(), content);
        self
    }

    /// A fragment whose place a test source takes in a shell: `shell` gives the one for a branch's codec.
    pub fn input(mut self, hole: &str, server: &'static str, shell: fn(Option<&str>) -> &'static str) -> Self {
        self.holes.insert(hole.to_owned(), Content::Input { server, shell });
        self
    }

    /// Uses every branch of this kind: which codec it will be is not known yet.
    pub fn track(mut self, kind: Kind) -> Self {
        self.tracks.push(Used::All(kind));
        self
    }

    /// Uses the first branch of this kind: an example for a person.
    pub fn first(mut self, kind: Kind) -> Self {
        self.tracks.push(Used::First(kind));
        self
    }

    /// Uses the branch for a track of this codec.
    pub fn track_in(mut self, kind: Kind, codec: &Codec) -> Self {
        self.tracks.push(Used::In(kind, codec.clone()));
        self
    }
}

impl Filling {
    fn uses(&self, label: &Label, before: &[Branch]) -> bool {
        let has_kind = before.iter().any(|branch| branch.label.kind == label.kind);
        self.tracks.iter().any(|used| match used {
            Used::All(kind) => *kind == label.kind,
            Used::First(kind) => *kind == label.kind && !has_kind,
            Used::In(kind, codec) => *kind == label.kind && label.takes(codec) && !has_kind,
        })
    }
}

/// A filled template: the pieces that are parsed, and the same for a reader.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Launch {
    /// The template's name.
    pub template: String,
    /// The head as it is parsed.
    pub head: String,
    /// The branches as they are parsed.
    pub branches: Vec<Branch>,
    /// The template is the operator's: what its elements do, and how long they take, is not known.
    pub operators: bool,
    shown: Parts,
    shell: Parts,
}

/// A filled branch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Branch {
    label: Label,
    /// The launch text.
    pub text: String,
}

impl Branch {
    /// The track it is for.
    pub fn kind(&self) -> Kind {
        self.label.kind
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Parts {
    head: String,
    branches: Vec<Branch>,
}

impl Parts {
    fn joined(&self, used: impl Fn(usize) -> bool) -> String {
        let branches = self.branches.iter().enumerate().filter(|(index, _)| used(*index));
        let texts = std::iter::once(self.head.as_str()).chain(branches.map(|(_, branch)| branch.text.as_str()));
        texts.filter(|text| !text.is_empty()).collect::<Vec<_>>().join(" ")
    }
}

impl Launch {
    /// The whole text that is parsed.
    pub fn text(&self) -> String {
        self.parsed().joined(|_| true)
    }

    /// The head and one branch as they are parsed.
    pub fn text_with(&self, branch: usize) -> String {
        self.parsed().joined(|other| other == branch)
    }

    fn parsed(&self) -> Parts {
        Parts { head: self.head.clone(), branches: self.branches.clone() }
    }

    /// The number of the branch for a track, in [`Launch::branches`].
    pub fn branch_for(&self, kind: Kind, codec: &Codec) -> Option<usize> {
        self.branches.iter().position(|branch| branch.label.kind == kind && branch.label.takes(codec))
    }

    /// The line to show: what is parsed, with the branches of these numbers only and secrets masked.
    pub fn shown(&self, used: impl Fn(usize) -> bool) -> String {
        self.shown.joined(used)
    }

    /// A `gst-launch-1.0` command that runs when pasted into a shell (secrets masked).
    pub fn shell(&self, used: impl Fn(usize) -> bool) -> String {
        let line = self.shell.joined(used);
        let words = words(&line).map(shell_quoted).collect::<Vec<_>>();
        format!("gst-launch-1.0 -e {}", words.join(" "))
    }

    /// The head and one branch for a shell, before a shell quotes them.
    pub fn terminal_text(&self, branch: usize) -> String {
        self.shell.joined(|other| other == branch)
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Reader {
    Parser,
    Person,
    Shell,
}

impl Template {
    /// Reads a template's text.
    ///
    /// # Errors
    /// [`TemplateError::Syntax`] with the line at fault.
    pub fn parse(name: &str, text: &str) -> Result<Self, TemplateError> {
        let mut lines: Vec<Line> = Vec::new();
        for (number, raw) in text.lines().enumerate() {
            let syntax = |reason: String| TemplateError::Syntax { template: name.to_owned(), line: number + 1, reason };
            if raw.trim().is_empty() || raw.starts_with('#') {
                continue;
            }
            let continues = raw.starts_with([' ', '\t']);
            let (track, body) = split_track(raw.trim()).map_err(syntax)?;
            let pieces = split_holes(body).map_err(syntax)?;
            match lines.last_mut() {
                Some(last) if continues || (track.is_none() && last.track.is_none()) => {
                    last.pieces.push(Piece::Text(" ".into()));
                    last.pieces.extend(pieces);
                }
                Some(last) if track.is_none() && last.track.is_some() => {
                    return Err(syntax("the head must stand before the branches".into()));
                }
                _ => lines.push(Line { track, pieces }),
            }
        }
        if lines.is_empty() {
            let reason = "there is no launch line in it".into();
            return Err(TemplateError::Syntax { template: name.to_owned(), line: 1, reason });
        }
        Ok(Self { name: name.to_owned(), lines, operators: false })
    }

    /// The same, written by the operator.
    pub(super) fn of_the_operator(self) -> Self {
        Self { operators: true, ..self }
    }

    /// The template's name: its file name without `.launch`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The names of its holes, each once, in alphabetical order.
    pub fn holes(&self) -> BTreeSet<&str> {
        let pieces = self.lines.iter().flat_map(|line| &line.pieces);
        pieces
            .filter_map(|piece| match piece {
                Piece::Hole(hole) => Some(hole.as_str()),
                Piece::Text(_) => None,
            })
            .collect()
    }

    /// Fills every hole.
    ///
    /// # Errors
    /// [`TemplateError::Unfilled`] for a hole of a used line that nothing fills, [`TemplateError::Unused`] for
    /// something given that no line has a hole for.
    pub fn fill(&self, filling: &Filling) -> Result<Launch, TemplateError> {
        let holes = self.holes();
        if let Some(hole) = filling.holes.keys().find(|hole| !holes.contains(hole.as_str())) {
            return Err(TemplateError::Unused {
                template: self.name.clone(),
                hole: hole.clone(),
                known: holes.into_iter().collect::<Vec<_>>().join(", "),
            });
        }
        let parsed = self.render(filling, Reader::Parser)?;
        Ok(Launch {
            template: self.name.clone(),
            head: parsed.head,
            branches: parsed.branches,
            operators: self.operators,
            shown: self.render(filling, Reader::Person)?,
            shell: self.render(filling, Reader::Shell)?,
        })
    }

    fn render(&self, filling: &Filling, reader: Reader) -> Result<Parts, TemplateError> {
        let mut parts = Parts::default();
        for line in &self.lines {
            match &line.track {
                None => parts.head = self.render_line(line, filling, reader)?,
                Some(label) if filling.uses(label, &parts.branches) => {
                    let text = self.render_line(line, filling, reader)?;
                    parts.branches.push(Branch { label: label.clone(), text });
                }
                Some(_) => {}
            }
        }
        Ok(parts)
    }

    fn render_line(&self, line: &Line, filling: &Filling, reader: Reader) -> Result<String, TemplateError> {
        let mut text = String::new();
        for piece in &line.pieces {
            match piece {
                Piece::Text(literal) => text.push_str(literal),
                Piece::Hole(hole) => {
                    let content = filling
                        .holes
                        .get(hole)
                        .ok_or_else(|| TemplateError::Unfilled { template: self.name.clone(), hole: hole.clone() })?;
                    let codec = line.track.as_ref().and_then(|label| label.codec.as_deref());
                    text.push_str(&content.for_reader(reader, codec));
                }
            }
        }
        Ok(text)
    }
}

impl Content {
    fn for_reader(&self, reader: Reader, codec: Option<&str>) -> String {
        match (self, reader) {
            (Content::Value { server, .. }, Reader::Parser) => quoted(server),
            (Content::Value { server, .. }, Reader::Person) => quoted(&mask(server)),
            (Content::Value { server, shell }, Reader::Shell) => quoted(&mask(shell.as_ref().unwrap_or(server))),
            (Content::Fragment { server, .. }, Reader::Parser | Reader::Person) => (*server).to_owned(),
            (Content::Fragment { shell, .. }, Reader::Shell) => shell.clone(),
            (Content::Input { server, .. }, Reader::Parser | Reader::Person) => (*server).to_owned(),
            (Content::Input { shell, .. }, Reader::Shell) => shell(codec).to_owned(),
        }
    }
}

fn split_track(line: &str) -> Result<(Option<Label>, &str), String> {
    let Some(rest) = line.strip_prefix('[') else {
        return Ok((None, line));
    };
    let (label, body) = rest.split_once(']').ok_or("a branch is labelled [video] or [audio]")?;
    let (kind, codec) = match label.split_once(' ') {
        Some((kind, codec)) => (kind, Some(codec.trim().to_owned())),
        None => (label, None),
    };
    let kind = Kind::ALL.into_iter().find(|known| known.label() == kind);
    let kind = kind.ok_or_else(|| format!("[{label}] is no track: a branch is labelled [video] or [audio]"))?;
    Ok((Some(Label { kind, codec }), body.trim()))
}

fn split_holes(mut text: &str) -> Result<Vec<Piece>, String> {
    let mut pieces = Vec::new();
    while let Some(open) = text.find('{') {
        let close = text[open..].find('}').ok_or("a hole is opened with { and not closed")? + open;
        let hole = &text[open + 1..close];
        if hole.is_empty() || !hole.bytes().all(|b| b.is_ascii_lowercase() || b == b'_' || b.is_ascii_digit()) {
            return Err(format!("{{{hole}}} is no hole: names are lower case letters, digits and _"));
        }
        if open > 0 {
            pieces.push(Piece::Text(text[..open].to_owned()));
        }
        pieces.push(Piece::Hole(hole.to_owned()));
        text = &text[close + 1..];
    }
    if !text.is_empty() {
        pieces.push(Piece::Text(text.to_owned()));
    }
    Ok(pieces)
}

/// A value in the quotes of the launch syntax, so that nothing in it is syntax.
fn quoted(value: &str) -> String {
    let mut text = String::with_capacity(value.len() + 2);
    text.push('"');
    for c in value.chars() {
        if c == '"' || c == '\\' {
            text.push('\\');
        }
        text.push(c);
    }
    text.push('"');
    text
}

/// The words of a launch line: white space separates them, except inside quotes.
fn words(line: &str) -> impl Iterator<Item = String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let (mut in_quotes, mut escaped) = (false, false);
    for c in line.chars() {
        if c.is_whitespace() && !in_quotes {
            if !word.is_empty() {
                words.push(std::mem::take(&mut word));
            }
            continue;
        }
        in_quotes ^= c == '"' && !escaped;
        escaped = c == '\\' && !escaped;
        word.push(c);
    }
    if !word.is_empty() {
        words.push(word);
    }
    words.into_iter()
}

/// A word as a POSIX shell passes it on unchanged.
fn shell_quoted(word: String) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,+@%!".contains(c);
    if word.chars().all(plain) { word } else { format!("'{}'", word.replace('\'', r"'\''")) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    const PULL: &str = "# comment\nsrc location={uri}\n  timeout=5 ! demux name=d\n[video] d.video ! {video_out}\n[audio] d.audio ! {audio_out}\n";

    fn filling(uri: &str) -> Filling {
        Filling::new()
            .value("uri", uri)
            .fragment("video_out", "appsink name=video_out", "fakesink")
            .fragment("audio_out", "appsink name=audio_out", "fakesink")
            .track(Kind::Video)
            .track(Kind::Audio)
    }

    #[test]
    fn fills_quotes_masks_and_joins() {
        let launch = Template::parse("pull", PULL).unwrap().fill(&filling("rtmp://u:pw@h/a b")).unwrap();
        assert_eq!(launch.head, r#"src location="rtmp://u:pw@h/a b" timeout=5 ! demux name=d"#);
        assert_eq!(launch.branches[0].text, "d.video ! appsink name=video_out");
        let shown = launch.shown(|branch| branch == 1);
        assert_eq!(
            shown,
            r#"src location="rtmp://u:***@h/a b" timeout=5 ! demux name=d d.audio ! appsink name=audio_out"#
        );
        assert_eq!(
            launch.shell(|_| true),
            r#"gst-launch-1.0 -e src 'location="rtmp://u:***@h/a b"' timeout=5 ! demux name=d d.video ! fakesink d.audio ! fakesink"#
        );
    }

    #[test]
    fn a_branch_that_is_not_used_needs_no_filling() {
        let template = Template::parse("pull", PULL).unwrap();
        let filling = Filling::new().value("uri", "rtmp://h/a").track(Kind::Video).fragment("video_out", "x", "x");
        assert_eq!(template.fill(&filling).unwrap().branches.len(), 1);
    }

    #[test]
    fn branches_are_chosen_by_codec() {
        let text =
            "mux name=m\n[audio aac] {audio_in} ! m.\n[audio opus] {audio_in} ! opusdec ! m.\n[audio] {audio_in} ! x";
        let template = Template::parse("record", text).unwrap();
        let fill = |filling: Filling| template.fill(&filling.fragment("audio_in", "appsrc", "test")).unwrap();
        let opus = fill(Filling::new().track_in(Kind::Audio, &Codec::Opus));
        assert_eq!(opus.text(), "mux name=m appsrc ! opusdec ! m.");
        assert_eq!(fill(Filling::new().track_in(Kind::Audio, &Codec::Pcma)).text(), "mux name=m appsrc ! x");
        assert_eq!(fill(Filling::new().first(Kind::Audio)).text(), "mux name=m appsrc ! m.");
        let all = fill(Filling::new().track(Kind::Audio));
        assert_eq!(all.branches.len(), 3);
        assert_eq!(all.branch_for(Kind::Audio, &Codec::Opus), Some(1));
        assert_eq!(all.branch_for(Kind::Audio, &Codec::Pcmu), Some(2));
        assert_eq!(all.branch_for(Kind::Video, &Codec::H264), None);
    }

    #[test]
    fn unfilled_and_unused_holes_are_errors() {
        let template = Template::parse("pull", PULL).unwrap();
        let missing = template.fill(&Filling::new()).unwrap_err();
        assert!(missing.to_string().contains("{uri}"), "{missing}");
        let unused = template.fill(&filling("rtmp://h/a").value("url", "x")).unwrap_err();
        assert!(unused.to_string().contains("has no hole {url}"), "{unused}");
    }

    #[test]
    fn bad_templates_name_their_line() {
        for (text, line) in
            [("a ! {", 1), ("a\n[subtitle] b", 2), ("a\n[video] b\nc", 3), ("# nothing", 1), ("a {B}", 1)]
        {
            match Template::parse("t", text) {
                Err(TemplateError::Syntax { line: at, .. }) => assert_eq!(at, line, "{text:?}"),
                other => panic!("{text:?} gave {other:?}"),
            }
        }
    }

    proptest! {
        #[test]
        fn a_value_stays_one_word_whatever_is_in_it(value in "[ -~]{0,80}") {
            let template = Template::parse("t", "src location={uri}").unwrap();
            let launch = template.fill(&Filling::new().value("uri", value)).unwrap();
            prop_assert_eq!(words(&launch.head).count(), 2);
        }

        #[test]
        fn no_text_makes_the_parser_panic(text in "\\PC{0,200}") {
            let _ = Template::parse("t", &text);
        }
    }
}
