//! What finishing a recording comes to, whatever its container.

use std::io;
use std::time::Duration;

/// What is in a recording that was finished, or that was so already.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Repaired {
    /// The file's size now, bytes.
    pub bytes_kept: u64,
    /// How many bytes were cut from its end.
    pub bytes_cut: u64,
    /// The end of the longest track.
    pub duration: Duration,
    /// Samples of video tracks.
    pub video_frames: u64,
    /// Samples of audio tracks: packets of the codec, 1,024 samples of sound each with AAC.
    pub audio_frames: u64,
    /// Whether the file was finished already, and only waited for its name; nothing was written then.
    pub was_finished: bool,
}

/// Why a recording is not finished.
#[derive(Debug, thiserror::Error)]
pub enum RepairError {
    /// The file cannot be read or written. What could not be written is done again from its beginning the next time.
    #[error("cannot read or write the recording: {0}")]
    Io(#[from] io::Error),
    /// There is no whole fragment: the process ended before the first one, or this is no recording.
    #[error("the recording has no whole fragment")]
    Nothing,
    /// A whole fragment stands behind bytes that cannot be read; a cut there would delete media that another tool may save.
    #[error("the recording is damaged at byte {at}, before media that is whole")]
    Damaged {
        /// The offset of the first byte that cannot be read as a part of a recording.
        at: u64,
    },
}
