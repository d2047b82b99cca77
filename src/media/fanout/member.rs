//! Who takes a track's frames, and where it began.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use super::{Consumer, Frame, UNSET};

pub(super) struct Joiner {
    pub(super) consumer: Box<dyn Consumer>,
    pub(super) shared: Arc<Membership>,
}

pub(super) struct Membership {
    /// The stream time the consumer starts at; video decides it, sound follows.
    pub(super) start: AtomicU64,
    pub(super) left: AtomicBool,
}

pub(super) struct Member {
    pub(super) consumer: Box<dyn Consumer>,
    pub(super) shared: Arc<Membership>,
    pub(super) started: bool,
}

impl Member {
    /// Starts a member with what the cache holds, the newest frame included. The leading track decides the time.
    pub(super) fn begin(&mut self, leads: bool, complete: bool, cache: &VecDeque<Frame>) {
        if leads {
            match cache.front() {
                Some(first) if complete => {
                    let _ = self.shared.start.compare_exchange(UNSET, first.time, Relaxed, Relaxed);
                }
                _ => return,
            }
        }
        let start = self.shared.start.load(Relaxed);
        if start == UNSET {
            return;
        }
        self.started = true;
        let from_start = cache.iter().filter(|frame| leads || frame.time >= start);
        from_start.for_each(|frame| self.consumer.take(frame));
    }
}
