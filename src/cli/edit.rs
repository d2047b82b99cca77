//! A line being typed at a terminal that is far away: keys in, what the terminal is to show out. Pure.
//!
//! `weir ctl -i` has the library's editor, which works on a terminal of its own host; over SSH the terminal is at the
//! other end and only bytes come and go.

use unicode_width::UnicodeWidthChar;

use super::complete::following;
use super::console::MAX_LINE;
use super::grammar::may_be_kept;

/// How many lines can be called back.
const HISTORY: usize = 100;
/// The longest escape sequence that means something, in bytes.
const SEQUENCE: usize = 16;
const BELL: &str = "\x07";

/// What has come of the keys so far.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Typed {
    /// A line.
    Line(String),
    /// Control-C: the line is given up.
    Interrupt,
    /// Control-D on an empty line: there will be no more.
    End,
}

/// The line being typed, and those before it.
pub struct Editor {
    line: Vec<char>,
    cursor: usize,
    prompt: String,
    /// Nothing typed is shown, kept or completed.
    hidden: bool,
    columns: usize,
    history: Vec<String>,
    /// Which line of the history is shown, from its end; 0 is the line being typed, which is kept in `draft`.
    back: usize,
    draft: Vec<char>,
    /// The beginning of a character or an escape sequence.
    pending: Vec<u8>,
    after_return: bool,
    stale: bool,
    out: String,
}

impl Editor {
    /// For a terminal of so many columns; 0 means that it did not say.
    pub fn new(columns: usize) -> Self {
        let mut editor = Self {
            line: Vec::new(),
            cursor: 0,
            prompt: String::new(),
            hidden: false,
            columns: 0,
            history: Vec::new(),
            back: 0,
            draft: Vec::new(),
            pending: Vec::new(),
            after_return: false,
            stale: false,
            out: String::new(),
        };
        editor.resize(columns);
        editor
    }

    /// The terminal has another width.
    pub fn resize(&mut self, columns: usize) {
        self.columns = if columns == 0 { 80 } else { columns.clamp(20, 1000) };
        self.stale = true;
    }

    /// Begins a line.
    pub fn begin(&mut self, prompt: &str, hidden: bool) {
        prompt.clone_into(&mut self.prompt);
        self.hidden = hidden;
        self.clear();
        self.stale = true;
    }

    /// What the terminal is to be sent now.
    pub fn output(&mut self) -> String {
        if std::mem::take(&mut self.stale) {
            let drawn = self.drawn();
            self.out.push_str(&drawn);
        }
        std::mem::take(&mut self.out)
    }

    /// Takes one byte of what was typed.
    pub fn feed(&mut self, byte: u8) -> Option<Typed> {
        let after_return = std::mem::replace(&mut self.after_return, byte == b'\r');
        if self.pending.first() == Some(&0x1b) {
            // Of one that is too long only the end matters.
            self.pending.truncate(SEQUENCE);
            self.pending.push(byte);
            self.sequence();
            return None;
        }
        match byte {
            b'\n' if after_return => None,
            b'\r' | b'\n' => Some(self.finish()),
            0x03 => {
                self.end_of_line("^C");
                Some(Typed::Interrupt)
            }
            0x04 if self.line.is_empty() => {
                self.end_of_line("");
                Some(Typed::End)
            }
            0x1b => {
                self.pending = vec![byte];
                None
            }
            _ => {
                self.edit(byte);
                None
            }
        }
    }

    fn edit(&mut self, byte: u8) {
        self.stale = true;
        match byte {
            0x01 => self.cursor = 0,
            0x02 => self.cursor = self.cursor.saturating_sub(1),
            0x04 => self.delete(),
            0x05 => self.cursor = self.line.len(),
            0x06 => self.cursor = self.line.len().min(self.cursor + 1),
            0x08 | 0x7f => self.rub_out(self.cursor.saturating_sub(1)),
            0x09 => self.complete(),
            0x0b => self.line.truncate(self.cursor),
            0x0c => self.out.push_str("\x1b[H\x1b[2J"),
            0x0e => self.recall(self.back.saturating_sub(1)),
            0x10 => self.recall(self.back + 1),
            0x15 => self.rub_out(0),
            0x17 => self.rub_out(self.word_before()),
            0x20..0x7f => self.insert(char::from(byte)),
            0x80.. => self.character(byte),
            _ => self.stale = false,
        }
    }

    /// One more byte of a character outside ASCII.
    fn character(&mut self, byte: u8) {
        self.pending.push(byte);
        match std::str::from_utf8(&self.pending) {
            Ok(text) => {
                let chars: Vec<char> = text.chars().filter(|c| !c.is_control()).collect();
                self.pending.clear();
                chars.into_iter().for_each(|c| self.insert(c));
            }
            // Half a character.
            Err(error) if error.error_len().is_none() => {}
            Err(_) => self.pending.clear(),
        }
    }

    /// One more byte of an escape sequence: cursor keys and the like. Those that are not known do nothing.
    fn sequence(&mut self) {
        let done = match self.pending[1..] {
            [b'[' | b'O'] => false,
            [b'[' | b'O', .., last] => (0x40..0x7f).contains(&last),
            _ => true,
        };
        if !done {
            return;
        }
        let sequence = std::mem::take(&mut self.pending);
        let key = match &sequence[1..] {
            b"[A" | b"OA" => 0x10,
            b"[B" | b"OB" => 0x0e,
            b"[C" | b"OC" => 0x06,
            b"[D" | b"OD" => 0x02,
            b"[H" | b"OH" | b"[1~" | b"[7~" => 0x01,
            b"[F" | b"OF" | b"[4~" | b"[8~" => 0x05,
            b"[3~" => 0x04,
            _ => return,
        };
        self.edit(key);
    }

    fn insert(&mut self, c: char) {
        let bytes: usize = self.line.iter().map(|c| c.len_utf8()).sum();
        if bytes + c.len_utf8() > MAX_LINE {
            self.out.push_str(BELL);
            return;
        }
        self.line.insert(self.cursor, c);
        self.cursor += 1;
    }

    fn delete(&mut self) {
        if self.cursor < self.line.len() {
            self.line.remove(self.cursor);
        }
    }

    /// Takes away what stands between `from` and the cursor.
    fn rub_out(&mut self, from: usize) {
        self.line.drain(from..self.cursor);
        self.cursor = from;
    }

    fn word_before(&self) -> usize {
        let before = &self.line[..self.cursor];
        let end = before.iter().rposition(|c| *c != ' ').map_or(0, |at| at + 1);
        before[..end].iter().rposition(|c| *c == ' ').map_or(0, |at| at + 1)
    }

    /// Shows a line of the history; 0 is the one being typed.
    fn recall(&mut self, back: usize) {
        if self.hidden || back > self.history.len() {
            self.out.push_str(BELL);
            return;
        }
        if self.back == 0 {
            self.draft = self.line.clone();
        }
        self.back = back;
        self.line = match back {
            0 => self.draft.clone(),
            back => self.history[self.history.len() - back].chars().collect(),
        };
        self.cursor = self.line.len();
    }

    /// Writes what can only follow; where there is a choice, shows it.
    fn complete(&mut self) {
        if self.hidden || self.cursor < self.line.len() {
            return;
        }
        let line: String = self.line.iter().collect();
        let half = line.rsplit(' ').next().unwrap_or_default().len();
        let words = following(&line);
        let Some(first) = words.first() else {
            self.out.push_str(BELL);
            return;
        };
        let common = words.iter().fold(first.as_str(), |common, word| {
            let same = common.char_indices().zip(word.chars()).take_while(|((_, a), b)| a == b);
            &common[..same.last().map_or(0, |((at, c), _)| at + c.len_utf8())]
        });
        let ending = if words.len() == 1 { " " } else { "" };
        if common.len() > half || words.len() == 1 {
            format!("{}{ending}", &common[half..]).chars().for_each(|c| self.insert(c));
        } else {
            self.out.push_str("\r\n");
            self.out.push_str(&words.join("  "));
            self.out.push_str("\r\n");
        }
    }

    fn finish(&mut self) -> Typed {
        let line: String = self.line.iter().collect();
        self.end_of_line("");
        if !self.hidden && may_be_kept(&line) && self.history.last() != Some(&line) {
            self.history.push(line.clone());
            if self.history.len() > HISTORY {
                self.history.remove(0);
            }
        }
        Typed::Line(line)
    }

    fn end_of_line(&mut self, mark: &str) {
        if !self.hidden {
            self.cursor = self.line.len();
            let drawn = self.drawn();
            self.out.push_str(&drawn);
        }
        self.out.push_str(mark);
        self.out.push_str("\r\n");
        self.clear();
        self.stale = false;
    }

    fn clear(&mut self) {
        self.line.clear();
        self.cursor = 0;
        self.back = 0;
        self.draft.clear();
        self.pending.clear();
    }

    /// The terminal's line anew, with the cursor in its place. A line that is too long is shown from where the cursor
    /// can be seen.
    fn drawn(&self) -> String {
        if self.hidden {
            return format!("\r{}\x1b[K", self.prompt);
        }
        let width = |chars: &[char]| chars.iter().map(|c| c.width().unwrap_or(0)).sum::<usize>();
        let prompt: Vec<char> = self.prompt.chars().collect();
        let room = self.columns.saturating_sub(width(&prompt) + 1).max(1);
        let mut from = 0;
        while width(&self.line[from..self.cursor]) > room {
            from += 1;
        }
        let mut to = self.line.len();
        while width(&self.line[from..to]) > room {
            to -= 1;
        }
        let shown: String = self.line[from..to].iter().collect();
        let column = width(&prompt) + width(&self.line[from..self.cursor]);
        let mut drawn = format!("\r{}{shown}\x1b[K\r", self.prompt);
        if column > 0 {
            drawn.push_str(&format!("\x1b[{column}C"));
        }
        drawn
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn typed(keys: &[u8]) -> Vec<Typed> {
        let mut editor = Editor::new(80);
        editor.begin("> ", false);
        let mut all = Vec::new();
        for byte in keys {
            if let Some(typed) = editor.feed(*byte) {
                all.push(typed);
                editor.begin("> ", false);
            }
        }
        all
    }

    fn lines(keys: &str) -> Vec<String> {
        let line = |typed| match typed {
            Typed::Line(line) => line,
            other => format!("{other:?}"),
        };
        typed(keys.as_bytes()).into_iter().map(line).collect()
    }

    #[test]
    fn keys_make_lines() {
        for (keys, made) in [
            ("show apps\r", &["show apps"][..]),
            ("a\nb\r\nc\r", &["a", "b", "c"]),
            ("show appz\x7fs\r", &["show apps"]),
            ("how\x01s\r", &["show"]),
            ("shw\x1b[Do\r", &["show"]),
            ("ab\x1b[D\x1b[3~\r", &["a"]),
            ("bc\x1b[Ha\x1b[Fd\r", &["abcd"]),
            ("one two\x17three\r", &["one three"]),
            ("one two  \x17\r", &["one "]),
            ("rubbish\x15show\r", &["show"]),
            ("showrubbish\x02\x02\x02\x02\x02\x02\x02\x0b\r", &["show"]),
            ("show apps\r\x1b[A\r", &["show apps", "show apps"]),
            ("show apps\rshow users\r\x10\x10\r", &["show apps", "show users", "show apps"]),
            ("show apps\rdraft\x10\x0e\r", &["show apps", "draft"]),
            ("upd\tapp x\r", &["update app x"]),
            ("show ap\t\t-r\tx\r", &["show app-rest-methods x"]),
            ("abc\x03d\r", &["Interrupt", "d"]),
            ("\x04", &["End"]),
            ("ab\x01\x04\r", &["b"]),
            ("ä日\x7f\r", &["ä"]),
            ("a\x1b[200~b\x1b[201~\r", &["ab"]),
            ("a\x1b[99;99;99;99;99;99zb\r", &["ab"]),
            ("\x07\x00a\x7f\x7f\x7f\r", &[""]),
        ] {
            assert_eq!(lines(keys), made, "{keys:?}");
        }
        assert_eq!(typed(b"a\xff\xfeb\xc3\r"), [Typed::Line("ab".into())], "what is no text is passed over");
    }

    #[test]
    fn what_holds_a_secret_is_not_called_back() {
        let kept = lines("show apps\radd user bob hunter2\rnonsense hunter2\r\x10\r");
        assert_eq!(kept[3], "show apps");
    }

    #[test]
    fn a_hidden_line_is_neither_shown_nor_kept() {
        let mut editor = Editor::new(80);
        editor.begin("Password: ", true);
        let mut shown = editor.output();
        let mut line = None;
        for byte in b"show apps\x10\t\x7fS\r" {
            line = line.or(editor.feed(*byte));
            shown.push_str(&editor.output());
        }
        assert_eq!(line, Some(Typed::Line("show appS".into())));
        assert!(shown.contains("Password: ") && !shown.contains("how"), "{shown:?}");
        editor.begin("> ", false);
        editor.feed(0x10);
        assert!(!editor.output().contains("show"));
    }

    #[test]
    fn a_long_line_is_shown_around_the_cursor() {
        let mut editor = Editor::new(20);
        editor.begin("> ", false);
        b"0123456789abcdefghijklmnop".iter().for_each(|byte| assert_eq!(editor.feed(*byte), None));
        assert_eq!(editor.output(), "\r> 9abcdefghijklmnop\x1b[K\r\x1b[19C");
        editor.feed(0x01);
        assert_eq!(editor.output(), "\r> 0123456789abcdefg\x1b[K\r\x1b[2C");
    }

    #[test]
    fn a_line_is_bounded() {
        let mut editor = Editor::new(80);
        editor.begin("> ", false);
        (0..MAX_LINE + 100).for_each(|_| assert_eq!(editor.feed(b'x'), None));
        assert_eq!(editor.feed(b'\r'), Some(Typed::Line("x".repeat(MAX_LINE))));
    }

    proptest! {
        /// Nothing typed drives the terminal: what is sent to it is text and the editor's own few sequences.
        #[test]
        fn any_keys_are_survived(keys in prop::collection::vec(any::<u8>(), 0..300), columns in 0usize..200) {
            let mut editor = Editor::new(columns);
            editor.begin("> ", false);
            for byte in keys {
                if let Some(Typed::Line(line)) = editor.feed(byte) {
                    prop_assert!(!line.chars().any(char::is_control), "{:?}", line);
                }
                let out = editor.output().replace("\x1b[K", "").replace("\x1b[H", "").replace("\x1b[2J", "");
                prop_assert!(out.matches('\x1b').count() == out.matches("\x1b[").count());
            }
        }
    }
}
