//! Wakes a shard from another thread, at most once until the shard has looked.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

/// Wakes one shard's poll. A packet pushed while the shard is awake anyway costs one atomic swap, no system call.
#[derive(Debug)]
pub(super) struct ShardWaker {
    waker: mio::Waker,
    pending: AtomicBool,
}

impl ShardWaker {
    pub fn new(registry: &mio::Registry, token: mio::Token) -> io::Result<Self> {
        Ok(ShardWaker { waker: mio::Waker::new(registry, token)?, pending: AtomicBool::new(false) })
    }

    /// Makes the shard look at its queues soon.
    pub fn wake(&self) {
        if !self.pending.swap(true, SeqCst)
            && let Err(error) = self.waker.wake()
        {
            // the shard polls with a timeout, so it sees the packets a little later
            self.pending.store(false, SeqCst);
            tracing::debug!(%error, "cannot wake a relay shard");
        }
    }

    /// The shard is about to look: what is pushed from now on wakes it again.
    pub fn clear(&self) {
        self.pending.store(false, SeqCst);
    }
}
