//! The end that somebody outside gives a session, and the words it is told with.

use std::sync::{Arc, OnceLock};

use tokio_util::sync::CancellationToken;

/// Asked for once; the first reason stands. Copies are the same one.
#[derive(Debug, Clone, Default)]
pub(super) struct Termination {
    asked: CancellationToken,
    reason: Arc<OnceLock<&'static str>>,
}

impl Termination {
    /// Asks for the end. `reason` is what the session is told (WCS's `info`).
    pub(super) fn ask(&self, reason: &'static str) {
        let _ = self.reason.set(reason);
        self.asked.cancel();
    }

    /// The reason, once it was asked for.
    pub(super) fn reason(&self) -> Option<&'static str> {
        self.reason.get().copied()
    }

    /// Resolves with the reason when it is asked for.
    pub(super) async fn asked(&self) -> &'static str {
        self.asked.cancelled().await;
        // It is set before the token is cancelled.
        self.reason().unwrap_or_default()
    }
}
