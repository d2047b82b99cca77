//! A pipeline's graph as a picture, drawn by Graphviz's `dot`.

use std::process::Stdio;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use crate::name::{is_secret, mask};

/// Longest time a graph may take to be drawn.
const DRAWING: Duration = Duration::from_secs(10);

/// Why there is no picture.
#[derive(Debug, thiserror::Error)]
pub enum GraphError {
    /// The host has no `dot`.
    #[error("drawing needs the program dot: install the package graphviz, or draw graph.dot elsewhere")]
    NoDot,
    /// `dot` failed or took too long.
    #[error("dot could not draw the graph: {0}")]
    Failed(String),
}

/// A graph without secrets: those of URIs, and the values of properties whose names speak of secrets.
///
/// GStreamer writes an element's properties into the label of its box, as `\nname=value`; a backslash that belongs to a
/// value is doubled.
pub(super) fn masked(dot: &str) -> String {
    let mut out = String::with_capacity(dot.len());
    let mut rest = dot;
    while let Some(end) = label_piece(rest, false) {
        let (done, property) = rest.split_at((end + 2).min(rest.len()));
        out.push_str(done);
        rest = property;
        let name = property.split('=').next().unwrap_or("");
        if name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b)) && is_secret(name) {
            out.push_str(name);
            out.push_str("=***");
            rest = &property[label_piece(property, true).unwrap_or(property.len())..];
        }
    }
    out.push_str(rest);
    mask(&out)
}

/// Where the next `\n` stands, or the quotation mark that closes the label.
fn label_piece(text: &str, or_label_end: bool) -> Option<usize> {
    let bytes = text.as_bytes();
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'\\' if bytes.get(at + 1) == Some(&b'n') => return Some(at),
            b'\\' => at += 2,
            b'"' if or_label_end => return Some(at),
            _ => at += 1,
        }
    }
    None
}

/// Draws a graph in Graphviz's language as SVG.
///
/// # Errors
/// See [`GraphError`].
pub async fn svg(dot: &str) -> Result<Vec<u8>, GraphError> {
    let mut child = Command::new("dot")
        .arg("-Tsvg")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => GraphError::NoDot,
            _ => GraphError::Failed(error.to_string()),
        })?;
    let input = child.stdin.take();
    let write = async {
        if let Some(mut input) = input {
            // A dot that reads no further says why on its way out.
            let _ = input.write_all(dot.as_bytes()).await;
        }
    };
    let both = async { tokio::join!(write, child.wait_with_output()).1 };
    let output = tokio::time::timeout(DRAWING, both)
        .await
        .map_err(|_| GraphError::Failed("it took too long".into()))?
        .map_err(|error| GraphError::Failed(error.to_string()))?;
    if output.status.success() {
        Ok(output.stdout)
    } else {
        Err(GraphError::Failed(String::from_utf8_lossy(&output.stderr).trim().to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_of_elements_are_masked() {
        let dot = r#"label="GstRtmp2Src\nsrc0\n[=]\nlocation=\"rtmp://h/live/a?token=abc\"\npassword=\"s\\\\n\\\"x\"\nport=9\nstream=\"a?token=abc\"\nuser-pw=\"q\"";
  next [label="q = \n"];"#;
        let shown = r#"label="GstRtmp2Src\nsrc0\n[=]\nlocation=\"rtmp://h/live/a?token=***\"\npassword=***\nport=9\nstream=\"a?token=***\"\nuser-pw=***";
  next [label="q = \n"];"#;
        assert_eq!(masked(dot), shown);
        assert_eq!(masked(shown), shown);
        assert_eq!(masked(r"torn\npassword=abc\"), r"torn\npassword=***");
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "[a-z\\\\n\"=\u{e4}]{0,60}") {
            let _ = masked(&text);
        }
    }
}
