//! The settings as a page for people: made from the compiled-in file, so that it says what the program reads.

/// A line of dashes begins a section of the file.
const RULE: &str = "# ---";

/// The page in Markdown: `docs/settings.md`.
pub(super) fn page(file: &str) -> String {
    let mut page = String::from("# Settings\n");
    let mut comment: Vec<&str> = Vec::new();
    let mut title_follows = false;
    for line in file.lines().chain([""]) {
        if line.starts_with(RULE) {
            title_follows = true;
        } else if let Some(text) = line.strip_prefix('#') {
            let text = text.strip_prefix(' ').unwrap_or(text);
            if std::mem::take(&mut title_follows) {
                page += &format!("\n## {text}\n");
            } else {
                comment.push(text);
            }
        } else if let Some((key, value)) = line.split_once('=') {
            let default = if value.is_empty() { "empty".to_owned() } else { format!("`{value}`") };
            page += &format!("\n### `{key}`\n\nDefault: {default}. Environment: `{}`.\n", variable(key));
            page += &paragraphs(&comment);
            comment.clear();
        } else if !comment.is_empty() {
            page += &paragraphs(&comment);
            comment.clear();
        }
    }
    page
}

/// The environment's name of a key.
fn variable(key: &str) -> String {
    format!("WEIR_{}", key.to_ascii_uppercase().replace('.', "_"))
}

/// Comments as Markdown: what is set in deeper is a block as it is, an empty line ends a paragraph.
fn paragraphs(lines: &[&str]) -> String {
    let mut text = String::new();
    let mut before = "";
    for line in lines {
        if line.is_empty() {
            before = line;
            continue;
        }
        let (deeper, was_deeper) = (line.starts_with("  "), before.starts_with("  "));
        if before.is_empty() || deeper != was_deeper {
            text.push('\n');
        }
        text += &if deeper { format!("    {}\n", line.trim()) } else { format!("{}\n", escaped(line)) };
        before = line;
    }
    text
}

/// Markdown takes neither a word in angle brackets nor a star or an underscore of ours for its own.
fn escaped(line: &str) -> String {
    line.chars().fold(String::new(), |mut text, c| {
        if matches!(c, '*' | '_' | '<' | '>' | '[' | ']' | '`') {
            text.push('\\');
        }
        text.push(c);
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_has_sections_settings_and_what_is_set_in() {
        let file = "# All of it.\n#\n# More.\n\n# -----\n# Listening\n\n# Where: a_b\n#   20   seconds\nhttp.port=8081\n\n# Who.\nip=\n";
        let expected = "# Settings\n\nAll of it.\n\nMore.\n\n## Listening\n\n### `http.port`\n\nDefault: `8081`. Environment: \
            `WEIR_HTTP_PORT`.\n\nWhere: a\\_b\n\n    20   seconds\n\n### `ip`\n\nDefault: empty. Environment: `WEIR_IP`.\n\nWho.\n";
        assert_eq!(page(file), expected);
    }
}
