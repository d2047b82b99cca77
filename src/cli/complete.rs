//! What the tabulator key does: the words that may follow. [`following`] is pure.

use rustyline::completion::Completer;
use rustyline::highlight::Highlighter;
use rustyline::hint::Hinter;
use rustyline::validate::Validator;
use rustyline::{Context, Helper, Result};

use super::commands::ALL;
use crate::hook::application::Method;

/// The words that may stand at the end of `line`, in place of its last, half-written one.
pub fn following(line: &str) -> Vec<String> {
    let (before, half) = line.rsplit_once(' ').unwrap_or(("", line));
    let before: Vec<&str> = before.split_whitespace().collect();
    let mut words: Vec<String> = Vec::new();
    for command in ALL {
        let own: Vec<&str> = command.words.split(' ').collect();
        if let Some(next) = own.get(before.len()).filter(|_| own.starts_with(&before)) {
            words.push((*next).to_owned());
        }
        if before.starts_with(&own) {
            words.extend(command.options.iter().map(|option| format!("--{}", option.long)));
            if own.last().is_some_and(|word| *word == "app-rest-method") && before.len() == own.len() + 1 {
                words.extend(Method::ALL.iter().map(Method::to_string));
            }
        }
    }
    if before.is_empty() {
        words.extend(["help", "exit"].map(str::to_owned));
    }
    words.retain(|word| word.starts_with(half));
    words.sort();
    words.dedup();
    words
}

/// The completion of `weir ctl -i`.
pub(super) struct Completing;

impl Helper for Completing {}
impl Highlighter for Completing {}
impl Validator for Completing {}
impl Hinter for Completing {
    type Hint = String;
}

impl Completer for Completing {
    type Candidate = String;

    fn complete(&self, line: &str, pos: usize, _: &Context<'_>) -> Result<(usize, Vec<String>)> {
        let line = line.get(..pos).unwrap_or(line);
        let start = line.rfind(' ').map_or(0, |at| at + 1);
        Ok((start, following(line).into_iter().map(|word| word + " ").collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_follow() {
        for (line, words) in [
            ("upd", &["update"][..]),
            ("add ", &["app", "app-rest-method", "user"]),
            ("show app", &["app-rest-methods", "apps"]),
            ("show apps --", &["--detail", "--json"]),
            ("add app-rest-method defaultApp StreamK", &["StreamKeepAliveEvent"]),
            ("nonsense ", &[]),
            ("h", &["help"]),
        ] {
            assert_eq!(following(line), words, "{line:?}");
        }
        assert!(following("").contains(&"terminate".to_owned()));
    }
}
