//! A pipeline's graph as a picture, drawn by Graphviz's `dot`.

use std::process::Stdio;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::process::Command;

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
