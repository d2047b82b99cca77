//! A line of input as words, as a shell would split it. Pure.

/// One word of a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Word {
    /// What it says, without its quotes.
    pub text: String,
    /// Some of it was quoted: then it is no `|`.
    pub quoted: bool,
}

/// Splits a line at spaces. `'…'` keeps what is in it as it is, `"…"` all but a backslash before `"` and `\`; a
/// backslash elsewhere takes the next character as it is. `None`: a quote stays open.
pub fn split(line: &str) -> Option<Vec<Word>> {
    let mut words = Vec::new();
    let mut current: Option<Word> = None;
    let mut rest = line.chars().peekable();
    while let Some(c) = rest.next() {
        if c.is_whitespace() {
            words.extend(current.take());
            continue;
        }
        let word = current.get_or_insert_with(|| Word { text: String::new(), quoted: false });
        match c {
            '\'' | '"' => {
                word.quoted = true;
                loop {
                    match rest.next()? {
                        end if end == c => break,
                        '\\' if c == '"' && rest.peek().is_some_and(|next| "\"\\".contains(*next)) => {
                            word.text.extend(rest.next());
                        }
                        other => word.text.push(other),
                    }
                }
            }
            '\\' => {
                word.quoted = true;
                word.text.push(rest.next()?);
            }
            other => word.text.push(other),
        }
    }
    words.extend(current);
    Some(words)
}

/// A text as a word of a line, quoted where it must be.
pub fn quote(text: &str) -> String {
    let plain = |c: char| !c.is_whitespace() && !"'\"\\|".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        return text.to_owned();
    }
    let mut quoted = String::from("\"");
    for c in text.chars() {
        if "\"\\".contains(c) {
            quoted.push('\\');
        }
        quoted.push(c);
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn texts(line: &str) -> Option<Vec<String>> {
        split(line).map(|words| words.into_iter().map(|word| word.text).collect())
    }

    #[test]
    fn lines_are_split_as_a_shell_does() {
        for (line, words) in [
            ("", Some(&[][..])),
            ("  \t ", Some(&[])),
            ("show apps", Some(&["show", "apps"])),
            ("  show   apps ", Some(&["show", "apps"])),
            ("a ''", Some(&["a", ""])),
            ("a \"\" b", Some(&["a", "", "b"])),
            ("'a b' \"c d\"", Some(&["a b", "c d"])),
            ("a'b'\"c\"d", Some(&["abcd"])),
            (r#""a\"b\\c\d""#, Some(&[r#"a"b\c\d"#])),
            (r"'a\b'", Some(&[r"a\b"])),
            (r"a\ b \| \'", Some(&["a b", "|", "'"])),
            ("\"a", None),
            ("'a", None),
            ("a\\", None),
            ("ä 日本", Some(&["ä", "日本"])),
        ] {
            let words = words.map(|words| words.iter().map(|&word| word.to_owned()).collect());
            assert_eq!(texts(line), words, "{line:?}");
        }
        let quoted: Vec<_> = split(r#"| "|" \| '|' a"#).unwrap().into_iter().map(|word| word.quoted).collect();
        assert_eq!(quoted, [false, true, true, true, false]);
    }

    proptest! {
        #[test]
        fn what_is_quoted_is_one_word_again(words in prop::collection::vec(any::<String>(), 0..6)) {
            let line = words.iter().map(|word| quote(word)).collect::<Vec<_>>().join(" ");
            prop_assert_eq!(texts(&line), Some(words));
        }

        #[test]
        fn any_line_is_split_or_refused(line in any::<String>()) {
            let _ = split(&line);
        }
    }
}
