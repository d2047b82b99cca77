//! Launch templates: text with holes, and what comes out when they are filled.
//!
//! A template is a file of `pipelines/`. Lines that start with `#` are comments, a line that starts with `[video]` or
//! `[audio]` is the branch of that track and is used only when the stream has the track, an indented line continues
//! the one before, and everything else is the head. A hole is `{name}`. What fills it is either a *value*, which is
//! always quoted and can never become launch syntax, or a *fragment*, a literal of this program.

use std::collections::{BTreeMap, BTreeSet};

use super::track::Kind;
use crate::name::mask;

/// A parsed template file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    name: String,
    lines: Vec<Line>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Line {
    track: Option<Kind>,
    pieces: Vec<Piece>,
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
    tracks: BTreeSet<Kind>,
}

#[derive(Debug, Clone)]
enum Content {
    Value { server: String, shell: Option<String> },
    Fragment { server: &'static str, shell: String },
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

    /// Uses the branch of this track.
    pub fn track(mut self, kind: Kind) -> Self {
        self.tracks.insert(kind);
        self
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
    pub branches: Vec<(Kind, String)>,
    shown: Parts,
    shell: Parts,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Parts {
    head: String,
    branches: Vec<(Kind, String)>,
}

impl Parts {
    fn joined(&self, tracks: impl Fn(Kind) -> bool) -> String {
        let branches = self.branches.iter().filter(|(kind, _)| tracks(*kind));
        let mut line = self.head.clone();
        for (_, branch) in branches {
            line.push(' ');
            line.push_str(branch);
        }
        line
    }
}

impl Launch {
    /// The whole text that is parsed.
    pub fn text(&self) -> String {
        let parts = Parts { head: self.head.clone(), branches: self.branches.clone() };
        parts.joined(|_| true)
    }

    /// The line to show: what is parsed, with the branches of `tracks` only and secrets masked.
    pub fn shown(&self, tracks: impl Fn(Kind) -> bool) -> String {
        self.shown.joined(tracks)
    }

    /// A `gst-launch-1.0` command that runs when pasted into a shell (secrets masked).
    pub fn shell(&self, tracks: impl Fn(Kind) -> bool) -> String {
        let line = self.shell.joined(tracks);
        let words = words(&line).map(shell_quoted).collect::<Vec<_>>();
        format!("gst-launch-1.0 -e {}", words.join(" "))
    }

    /// The shell's line before a shell quotes it: what `weir check` parses, as it needs neither appsrc nor appsink.
    pub fn terminal_text(&self) -> String {
        self.shell.joined(|_| true)
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
        if lines.first().is_none_or(|line| line.track.is_some()) {
            return Err(TemplateError::Syntax {
                template: name.to_owned(),
                line: 1,
                reason: "there is no head: the first line must be launch syntax".into(),
            });
        }
        Ok(Self { name: name.to_owned(), lines })
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
            shown: self.render(filling, Reader::Person)?,
            shell: self.render(filling, Reader::Shell)?,
        })
    }

    fn render(&self, filling: &Filling, reader: Reader) -> Result<Parts, TemplateError> {
        let mut parts = Parts::default();
        for line in &self.lines {
            match line.track {
                None => parts.head = self.render_line(line, filling, reader)?,
                Some(kind) if filling.tracks.contains(&kind) => {
                    parts.branches.push((kind, self.render_line(line, filling, reader)?));
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
                    text.push_str(&content.for_reader(reader));
                }
            }
        }
        Ok(text)
    }
}

impl Content {
    fn for_reader(&self, reader: Reader) -> String {
        match (self, reader) {
            (Content::Value { server, .. }, Reader::Parser) => quoted(server),
            (Content::Value { server, .. }, Reader::Person) => quoted(&mask(server)),
            (Content::Value { server, shell }, Reader::Shell) => quoted(&mask(shell.as_ref().unwrap_or(server))),
            (Content::Fragment { server, .. }, Reader::Parser | Reader::Person) => (*server).to_owned(),
            (Content::Fragment { shell, .. }, Reader::Shell) => shell.clone(),
        }
    }
}

fn split_track(line: &str) -> Result<(Option<Kind>, &str), String> {
    let Some(rest) = line.strip_prefix('[') else {
        return Ok((None, line));
    };
    let (label, body) = rest.split_once(']').ok_or("a branch is labelled [video] or [audio]")?;
    match label {
        "video" => Ok((Some(Kind::Video), body.trim())),
        "audio" => Ok((Some(Kind::Audio), body.trim())),
        other => Err(format!("[{other}] is no track: a branch is labelled [video] or [audio]")),
    }
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
        assert_eq!(launch.branches[0], (Kind::Video, "d.video ! appsink name=video_out".to_owned()));
        let shown = launch.shown(|kind| kind == Kind::Audio);
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
            [("a ! {", 1), ("a\n[subtitle] b", 2), ("a\n[video] b\nc", 3), ("[video] b", 1), ("a {B}", 1)]
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
