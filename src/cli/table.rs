//! What commands print: lists as aligned columns or as JSON, from the same values. Pure.

use std::time::{Duration, SystemTime};

use serde_json::Value;
use unicode_width::UnicodeWidthStr;

/// The longest cell of a table, in columns of the screen; a longer one is cut, in JSON it is whole.
const WIDEST: usize = 120;
/// What stands where one is cut.
const CUT: char = '…';
/// The space between columns.
const GAP: &str = "  ";
/// A list of nothing.
const NONE: &str = "none\n";

/// A column: its heading, the field it shows, and how.
pub type Column = (&'static str, &'static str, Shown);

/// How a value is shown in a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shown {
    /// As it is: a list with commas, nothing as `-`.
    Plain,
    /// Milliseconds since 1970, as how long ago that was.
    Ago,
    /// Bytes.
    Size,
}

/// A list: objects, and which of their fields are columns.
pub struct List {
    /// The objects.
    pub rows: Vec<Value>,
    /// What of them is shown.
    pub columns: Vec<Column>,
}

impl List {
    /// As JSON, for programs.
    pub fn json(&self) -> String {
        let text = serde_json::to_string_pretty(&self.rows).unwrap_or_default();
        text + "\n"
    }

    /// Each with a line for every field, nothing cut, for people.
    pub fn details(&self, now: SystemTime) -> String {
        let width = self.columns.iter().map(|(heading, _, _)| heading.width()).max().unwrap_or(0);
        let of = |row: &Value| -> String {
            let field = |(heading, field, how): &Column| {
                format!("{}{GAP}{}\n", pad(heading, width), shown(&row[*field], *how, ", ", now))
            };
            self.columns.iter().map(field).collect()
        };
        match self.rows.is_empty() {
            true => NONE.to_owned(),
            false => self.rows.iter().map(of).collect::<Vec<_>>().join("\n"),
        }
    }

    /// As aligned columns, for people; `now` is what ages are counted from.
    pub fn text(&self, now: SystemTime) -> String {
        if self.rows.is_empty() {
            return NONE.to_owned();
        }
        let heading = self.columns.iter().map(|(heading, _, _)| (*heading).to_owned()).collect();
        let cells = |row: &Value| self.columns.iter().map(|(_, field, how)| cell(&row[field], *how, now)).collect();
        let lines: Vec<Vec<String>> = std::iter::once(heading).chain(self.rows.iter().map(cells)).collect();
        let width = |at: usize| lines.iter().map(|line| line[at].width()).max().unwrap_or(0);
        let widths: Vec<usize> = (0..self.columns.len()).map(width).collect();
        let mut text = String::new();
        for line in &lines {
            let padded = line.iter().zip(&widths).map(|(cell, width)| pad(cell, *width)).collect::<Vec<_>>();
            text.push_str(padded.join(GAP).trim_end());
            text.push('\n');
        }
        text
    }
}

fn pad(cell: &str, width: usize) -> String {
    format!("{cell}{}", " ".repeat(width.saturating_sub(cell.width())))
}

/// A value in a table.
fn cell(value: &Value, how: Shown, now: SystemTime) -> String {
    let text = shown(value, how, ",", now);
    if text.width() <= WIDEST {
        return text;
    }
    let mut width = 1;
    let fits = |c: &char| {
        width += c.to_string().width();
        width <= WIDEST
    };
    text.chars().take_while(fits).chain([CUT]).collect()
}

/// A value as text, `-` for nothing.
fn shown(value: &Value, how: Shown, between: &str, now: SystemTime) -> String {
    let text = match (value, how) {
        (Value::Number(ms), Shown::Ago) => ago(ms.as_u64().unwrap_or(0), now),
        (Value::Number(bytes), Shown::Size) => size(bytes.as_u64().unwrap_or(0)),
        (Value::String(text), _) => text.clone(),
        (Value::Array(values), _) => {
            values.iter().map(|value| shown(value, how, between, now)).collect::<Vec<_>>().join(between)
        }
        (Value::Bool(yes), _) => (if *yes { "yes" } else { "no" }).to_owned(),
        (Value::Null, _) => String::new(),
        (other, _) => other.to_string(),
    };
    if text.is_empty() { "-".to_owned() } else { safe(&text) }
}

/// A text that does nothing to a terminal: what controls it is shown as a replacement character.
pub fn safe(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

fn ago(epoch_ms: u64, now: SystemTime) -> String {
    let then = SystemTime::UNIX_EPOCH + Duration::from_millis(epoch_ms);
    let seconds = now.duration_since(then).unwrap_or_default().as_secs();
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, _) => format!("{minutes}m{:02}s", seconds % 60),
        (0, _, _) => format!("{hours}h{minutes:02}m"),
        _ => format!("{days}d{hours:02}h"),
    }
}

fn size(bytes: u64) -> String {
    let units = [("G", 30), ("M", 20), ("K", 10)];
    match units.into_iter().find(|(_, bits)| bytes >= 1 << bits) {
        Some((unit, bits)) => format!("{:.1}{unit}", bytes as f64 / f64::from(1 << bits)),
        None => format!("{bytes}B"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn columns_are_aligned_and_json_is_whole() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(100_000);
        let list = List {
            rows: vec![
                json!({"name": "a", "n": 1, "since": 99_990_000u64, "size": 10, "hidden": "x"}),
                json!({"name": "日本\u{1b}[2J", "n": ["b", "c"], "since": 0, "size": 3 << 20}),
                json!({"name": "", "n": true, "since": null, "size": 2048}),
            ],
            columns: vec![
                ("NAME", "name", Shown::Plain),
                ("N", "n", Shown::Plain),
                ("SIZE", "size", Shown::Size),
                ("SINCE", "since", Shown::Ago),
            ],
        };
        let text = list.text(now);
        let expected = "NAME      N    SIZE  SINCE\n\
                        a         1    10B   10s\n\
                        日本\u{fffd}[2J  b,c  3.0M  1d03h\n\
                        -         yes  2.0K  -\n";
        assert_eq!(text, expected);
        assert!(list.json().contains("\"hidden\": \"x\""));
        assert_eq!(List { rows: Vec::new(), columns: list.columns }.text(now), "none\n");
    }

    #[test]
    fn details_are_whole() {
        let now = SystemTime::UNIX_EPOCH;
        let columns = vec![("NAME", "name", Shown::Plain), ("THE METHODS", "methods", Shown::Plain)];
        let rows = vec![json!({"name": "a", "methods": vec!["method"; 50]}), json!({"name": "b", "methods": []})];
        let all = vec!["method"; 50].join(", ");
        let details = List { rows, columns }.details(now);
        assert_eq!(details, format!("NAME         a\nTHE METHODS  {all}\n\nNAME         b\nTHE METHODS  -\n"));
    }

    #[test]
    fn ages_and_sizes() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        let at = |seconds: u64| ago((1_000_000 - seconds) * 1000, now);
        assert_eq!([at(0), at(59), at(61), at(3600), at(90_000)], ["0s", "59s", "1m01s", "1h00m", "1d01h"]);
        assert_eq!(ago(2_000_000_000, now), "0s", "a clock that was set back");
        assert_eq!([size(0), size(1023), size(1 << 30)], ["0B", "1023B", "1.0G"]);
    }

    #[test]
    fn a_cell_is_bounded() {
        let now = SystemTime::UNIX_EPOCH;
        let long = cell(&json!("x".repeat(500)), Shown::Plain, now);
        assert!(long.width() == WIDEST && long.ends_with("x…"), "{long}");
        assert_eq!(cell(&json!("x".repeat(WIDEST)), Shown::Plain, now), "x".repeat(WIDEST));
        assert!(cell(&json!("日".repeat(500)), Shown::Plain, now).width() <= WIDEST);
    }
}
