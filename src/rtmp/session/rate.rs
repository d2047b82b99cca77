//! How often a client may make us work.

use crate::rtmp::Violation;
use std::time::{Duration, Instant};

/// Counts commands in seconds that start when the first one comes.
#[derive(Debug)]
pub(super) struct Rate {
    now: Instant,
    start: Instant,
    count: u32,
    max: u32,
}

impl Rate {
    pub(super) fn new(now: Instant, max: u32) -> Self {
        Self { now, start: now, count: 0, max }
    }

    /// The time of what is counted next.
    pub(super) fn set_now(&mut self, now: Instant) {
        self.now = now;
    }

    /// Counts one.
    ///
    /// # Errors
    /// [`Violation::CommandRate`]: it is one too many for this second.
    pub(super) fn count(&mut self) -> Result<(), Violation> {
        if self.now.saturating_duration_since(self.start) >= Duration::from_secs(1) {
            self.start = self.now;
            self.count = 0;
        }
        self.count = self.count.saturating_add(1);
        if self.count > self.max {
            return Err(Violation::CommandRate(self.max));
        }
        Ok(())
    }
}
