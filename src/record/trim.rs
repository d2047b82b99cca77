//! Which frames do not belong to a part any more when it is finished, as the part behind it begins with them.
//!
//! A part that cannot take what a stream has become (sound comes late or comes back, a format changes) is followed by one
//! that has to begin with a keyframe, and the last one has been written already. Which frames are in both is known only
//! once the next part begins, so they are left out when the part is finished: in [`super::mp4`], [`super::matroska`] and
//! [`super::transport`].

use std::time::Duration;

/// Time stamps of files are rounded, to milliseconds at most; frames are further apart.
const ROUNDING: Duration = Duration::from_millis(2);

/// Where each track is to end, counted from the part's start; `None` where nothing of it is taken off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Until {
    /// The first picture that does not belong to it.
    pub(super) video: Option<Duration>,
    /// The first packet of sound that does not.
    pub(super) audio: Option<Duration>,
}

impl Until {
    /// No frame before this is taken off.
    pub(super) fn earliest(self) -> Duration {
        self.video.into_iter().chain(self.audio).min().unwrap_or(Duration::MAX).saturating_sub(ROUNDING)
    }
}

/// Decides frame by frame, in the order in which they are decoded: what follows the first picture that goes needs it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cut {
    until: Until,
    video_ended: bool,
}

impl Cut {
    pub(super) fn new(until: Until) -> Self {
        Self { until, video_ended: false }
    }

    /// Whether a frame of this time goes.
    pub(super) fn drops(&mut self, video: bool, time: Duration) -> bool {
        let is_late = |until: Option<Duration>| until.is_some_and(|until| time + ROUNDING >= until);
        if video {
            self.video_ended |= is_late(self.until.video);
            self.video_ended
        } else {
            is_late(self.until.audio)
        }
    }
}
