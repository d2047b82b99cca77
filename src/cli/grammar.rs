//! The grammar of the command line: what a command is made of, how a line is read by it, and the help that follows from
//! it (wcs.md section 5). Pure. The commands themselves are in [`commands`](super::commands).

use std::fmt::Write;

use super::commands::{ALL, Verb};
use super::words::{Word, quote, split};
use crate::name::mask;

/// One command.
#[derive(Debug)]
pub struct Command {
    /// What it does.
    pub verb: Verb,
    /// The words it begins with: `show apps`.
    pub words: &'static str,
    /// Its options, which may stand anywhere behind those words.
    pub options: &'static [Opt],
    /// What stands behind, in this order; those that may be left out come last.
    pub arguments: &'static [Argument],
    /// What it does, for people.
    pub does: &'static str,
    /// A line that works.
    pub example: &'static str,
}

/// An option of a command.
#[derive(Debug)]
pub struct Opt {
    /// `-l` for `l`.
    pub short: Option<char>,
    /// `--url` for `url`.
    pub long: &'static str,
    /// What its value is called; `None` takes none.
    pub value: Option<&'static str>,
    /// Its value is never shown.
    pub secret: bool,
    /// What it is for, for people.
    pub does: &'static str,
}

/// A word that stands behind a command's own.
#[derive(Debug)]
pub struct Argument {
    /// What it is called.
    pub name: &'static str,
    /// It may be left out.
    pub optional: bool,
    /// It is never shown.
    pub secret: bool,
}

/// A line that the grammar knows.
#[derive(Debug, Clone)]
pub struct Call {
    /// The command.
    pub command: &'static Command,
    /// The options that were given, with their values.
    options: Vec<(&'static str, String)>,
    /// The arguments that were given.
    pub arguments: Vec<String>,
}

/// What becomes of the lines that a command prints: `| grep TEXT`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grep {
    text: String,
    ignore_case: bool,
    invert: bool,
}

/// A line as it was read.
#[derive(Debug, Clone)]
pub enum Input {
    /// There is nothing on it, or a comment.
    Nothing,
    /// A command, and what its output goes through.
    Call(Call, Option<Grep>),
    /// Help is wanted for the commands that begin with these words.
    Help(Vec<String>),
    /// `exit`.
    Exit,
}

/// A line that cannot be read, in one line that says what was expected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Wrong(pub String);

fn wrong<T>(sentence: impl Into<String>) -> Result<T, Wrong> {
    Err(Wrong(sentence.into()))
}

/// Reads a line.
///
/// # Errors
/// What was expected instead.
pub fn parse(line: &str) -> Result<Input, Wrong> {
    let Some(mut words) = split(line) else {
        return wrong("expected the end of a quote: a quote or a backslash stays open");
    };
    let Some(first) = words.first() else { return Ok(Input::Nothing) };
    if first.text.starts_with('#') && !first.quoted {
        return Ok(Input::Nothing);
    }
    let pipe = words.iter().position(|word| word.text == "|" && !word.quoted);
    let behind = pipe.map(|at| words.split_off(at));
    let grep = behind.map(|words| grep(&words[1..])).transpose()?;
    match words.first().map(|word| word.text.as_str()) {
        Some("exit" | "quit" | "logout") if words.len() == 1 => return Ok(Input::Exit),
        Some("help" | "?") => return Ok(Input::Help(words.into_iter().skip(1).map(|word| word.text).collect())),
        _ => {}
    }
    let (command, rest) = command(&words)?;
    if rest.iter().any(|word| word.text == "--help" && !word.quoted) {
        return Ok(Input::Help(vec![command.words.to_owned()]));
    }
    Ok(Input::Call(command.read(rest)?, grep))
}

/// Whether a line may be called back later, and stand in a file until then. Only one that is known to hold no secret: one
/// that was mistyped may hold one.
pub fn may_be_kept(line: &str) -> bool {
    match parse(line) {
        Ok(Input::Call(call, _)) => !call.has_secret(),
        Ok(Input::Help(_)) => true,
        _ => false,
    }
}

/// The command whose words a line begins with, and what stands behind them.
fn command(words: &[Word]) -> Result<(&'static Command, &[Word]), Wrong> {
    let begins = |command: &&Command| {
        let mut own = command.words.split(' ');
        own.by_ref().zip(words).all(|(own, word)| own == word.text) && command.word_count() <= words.len()
    };
    if let Some(command) = ALL.iter().find(begins) {
        return Ok((command, &words[command.word_count()..]));
    }
    let first = words.first().map_or("", |word| word.text.as_str());
    let follow: Vec<&str> = ALL.iter().filter_map(|c| c.words.strip_prefix(first)?.strip_prefix(' ')).collect();
    if follow.is_empty() {
        let mut firsts: Vec<&str> = ALL.iter().filter_map(|command| command.words.split(' ').next()).collect();
        firsts.dedup();
        return wrong(format!("expected a command: {}, help or exit", firsts.join(", ")));
    }
    wrong(format!("expected {first} with one of: {}", follow.join(", ")))
}

fn grep(words: &[Word]) -> Result<Grep, Wrong> {
    let usage = "expected | grep [-i] [-v] TEXT behind a command";
    let mut grep = Grep { text: String::new(), ignore_case: false, invert: false };
    let mut texts = Vec::new();
    match words.split_first() {
        Some((first, rest)) if first.text == "grep" => {
            for word in rest {
                match word.text.as_str() {
                    "-i" if !word.quoted => grep.ignore_case = true,
                    "-v" if !word.quoted => grep.invert = true,
                    text => texts.push(text.to_owned()),
                }
            }
        }
        _ => return wrong(usage),
    }
    match <[String; 1]>::try_from(texts) {
        Ok([text]) => Ok(Grep { text, ..grep }),
        Err(_) => wrong(usage),
    }
}

impl Grep {
    /// The lines that pass, each with its end.
    pub fn filter(&self, text: &str) -> String {
        let fold = |text: &str| if self.ignore_case { text.to_lowercase() } else { text.to_owned() };
        let wanted = fold(&self.text);
        text.split_inclusive('\n').filter(|line| fold(line).contains(&wanted) != self.invert).collect()
    }
}

impl Command {
    fn word_count(&self) -> usize {
        self.words.split(' ').count()
    }

    /// How it is written: `add user [-r role] <name> [password]`.
    pub fn usage(&self) -> String {
        let mut usage = self.words.to_owned();
        for option in self.options {
            let _ = write!(usage, " [{}]", option.usage());
        }
        for argument in self.arguments {
            let _ = match argument.optional {
                true => write!(usage, " [{}]", argument.name),
                false => write!(usage, " <{}>", argument.name),
            };
        }
        usage
    }

    fn read(&'static self, words: &[Word]) -> Result<Call, Wrong> {
        let mut call = Call { command: self, options: Vec::new(), arguments: Vec::new() };
        let mut rest = words.iter();
        let mut only_arguments = false;
        while let Some(word) = rest.next() {
            let text = word.text.as_str();
            if only_arguments || word.quoted || !text.starts_with('-') || text == "-" {
                call.arguments.push(text.to_owned());
                continue;
            }
            if text == "--" {
                only_arguments = true;
                continue;
            }
            let (name, attached) = match text.split_once('=') {
                Some((name, value)) if name.starts_with("--") => (name, Some(value.to_owned())),
                _ => (text, None),
            };
            let Some(option) = self.options.iter().find(|option| option.is_written(name)) else {
                return self.expected("other options");
            };
            if call.has(option.long) {
                return self.expected(&format!("{} once", option.shortest()));
            }
            let value = match (option.value, attached) {
                (None, None) => String::new(),
                (None, Some(_)) => return self.expected(&format!("no value behind {}", option.shortest())),
                (Some(_), Some(value)) => value,
                (Some(name), None) => match rest.next() {
                    Some(value) => value.text.clone(),
                    None => return self.expected(&format!("a {name} behind {}", option.shortest())),
                },
            };
            call.options.push((option.long, value));
        }
        let given = call.arguments.len();
        if given > self.arguments.len() {
            return self.expected("fewer words");
        }
        match self.arguments.get(given) {
            Some(missing) if !missing.optional => self.expected(&format!("<{}>", missing.name)),
            _ => Ok(call),
        }
    }

    /// Refuses a line that was meant for this command.
    pub fn expected<T>(&self, what: &str) -> Result<T, Wrong> {
        wrong(format!("expected {what}: {}", self.usage()))
    }
}

impl Opt {
    fn is_written(&self, name: &str) -> bool {
        let long = name.strip_prefix("--").is_some_and(|long| long == self.long);
        let mut chars = name.chars().skip(1);
        long || (self.short.is_some() && chars.next() == self.short && chars.next().is_none())
    }

    fn shortest(&self) -> String {
        self.short.map_or_else(|| format!("--{}", self.long), |short| format!("-{short}"))
    }

    fn usage(&self) -> String {
        let names = self.short.map_or_else(|| format!("--{}", self.long), |short| format!("-{short}|--{}", self.long));
        self.value.map_or_else(|| names.clone(), |value| format!("{names} {value}"))
    }
}

impl Call {
    /// Whether an option was given, by its long name.
    pub fn has(&self, long: &str) -> bool {
        self.option(long).is_some()
    }

    /// The value of an option, by its long name.
    pub fn option(&self, long: &str) -> Option<&str> {
        self.options.iter().find(|(name, _)| *name == long).map(|(_, value)| value.as_str())
    }

    /// An argument, from 0.
    pub fn argument(&self, at: usize) -> Option<&str> {
        self.arguments.get(at).map(String::as_str)
    }

    /// Whether something in it is never to be shown or kept.
    pub fn has_secret(&self) -> bool {
        let argument = self.command.arguments.iter().zip(&self.arguments).any(|(argument, _)| argument.secret);
        let option =
            self.options.iter().any(|(long, _)| self.command.options.iter().any(|o| o.long == *long && o.secret));
        let url = |text: &str| mask(text) != text;
        argument || option || self.options.iter().map(|(_, value)| value).chain(&self.arguments).any(|text| url(text))
    }

    /// The line for the log: secrets masked.
    pub fn shown(&self) -> String {
        let mut line = self.command.words.to_owned();
        for (long, value) in &self.options {
            let Some(option) = self.command.options.iter().find(|option| option.long == *long) else { continue };
            let _ = write!(line, " {}", option.shortest());
            if option.value.is_some() {
                let _ = write!(line, " {}", if option.secret { "***".to_owned() } else { quote(&mask(value)) });
            }
        }
        for (argument, value) in self.command.arguments.iter().zip(&self.arguments) {
            let _ = write!(line, " {}", if argument.secret { "***".to_owned() } else { quote(&mask(value)) });
        }
        line.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
    }
}

/// Help for the commands that begin with these words; for all of them where there is none.
///
/// # Errors
/// No command begins so.
pub fn help(words: &[String]) -> Result<String, Wrong> {
    let asked = words.join(" ");
    let behind = |command: &&Command| {
        let rest = command.words.strip_prefix(asked.as_str());
        asked.is_empty() || rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(' '))
    };
    let found: Vec<&Command> = ALL.iter().filter(behind).collect();
    match found[..] {
        [] => wrong("expected help with the words a command begins with, as in: help add app"),
        [command] => Ok(one(command)),
        ref several => {
            let mut text = String::new();
            for command in several {
                let _ = writeln!(text, "{}\n    {}\n    {}", command.usage(), command.does, command.example);
            }
            if asked.is_empty() {
                text.push_str("help [command]\n    Shows this, or more about some commands.\n    help update app\n");
                text.push_str("exit\n    Leaves.\n    exit\n");
                text.push_str("Behind any command: | grep [-i] [-v] TEXT. Words with spaces go in quotes.\n");
            }
            Ok(text)
        }
    }
}

fn one(command: &Command) -> String {
    let mut text = format!("{}\n    {}\n", command.usage(), command.does);
    let width = command.options.iter().map(|option| option.usage().len()).max().unwrap_or(0);
    for option in command.options {
        let _ = writeln!(text, "    {:<width$}  {}", option.usage(), option.does);
    }
    let _ = writeln!(text, "Example:\n    {}", command.example);
    text
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests;
