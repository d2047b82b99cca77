//! What `weir ctl` and the server say to each other over the local socket: a JSON object a line.

use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// The socket's file under the data directory.
pub const SOCKET: &str = "ctl.sock";
/// The longest message to the server, bytes: a line, with room for the quoting of JSON.
pub const MAX_REQUEST: usize = 8 * super::console::MAX_LINE;

/// What the client says.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Request {
    /// Carry out this line.
    Line(String),
    /// The answer to a question.
    Answer(String),
}

/// What the server says.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Response {
    /// It is done; what to print, and the exit code.
    Done {
        /// Lines, each with its end.
        text: String,
        /// See [`Reply::code`](super::console::Reply::code).
        code: u8,
    },
    /// A password is wanted first.
    Ask(String),
    /// The client may leave.
    Leave,
}

/// Calls `with` with a path to the socket of the data directory `data` that is short enough for a socket's address,
/// however long the directory's own path is: by way of the open directory.
///
/// # Errors
/// The directory's and those of `with`.
pub fn near<T>(data: &Path, with: impl FnOnce(&Path) -> io::Result<T>) -> io::Result<T> {
    let dir = std::fs::File::open(data)?;
    let path: PathBuf = format!("/proc/self/fd/{}/{SOCKET}", dir.as_raw_fd()).into();
    with(&path)
}
