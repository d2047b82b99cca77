//! A stream whose publisher has left, while it waits for it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::sleep;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use super::info::STOPPED_BY_SHUTDOWN;
use super::publication::Publication;

/// A publication without a publisher. Whoever takes it out goes on with its stream; nobody else can.
pub(super) struct Vacant {
    place: Arc<Mutex<Option<Publication>>>,
    /// Ends the task that waits: the publication is taken, or the registry is gone.
    _over: DropGuard,
}

impl Vacant {
    /// Keeps a stream for `wait`; then it ends, with `info` for its subscribers.
    pub(super) fn keep(publication: Publication, wait: Duration, info: String, tasks: &TaskTracker) -> Self {
        let (ended, doubts) = (publication.end(), publication.doubts());
        let over = CancellationToken::new();
        let place = Arc::new(Mutex::new(Some(publication)));
        let (here, stop) = (place.clone(), over.clone());
        tasks.spawn(async move {
            let info = tokio::select! {
                () = stop.cancelled() => STOPPED_BY_SHUTDOWN,
                reason = ended.asked() => reason,
                () = sleep(wait) => &info,
                // Who asks for the publisher need not wait: it has left.
                () = async { loop { drop(doubts.next().await) } } => return,
            };
            if let Some(publication) = taken(&here) {
                publication.leave(info).await;
            }
        });
        Self { place, _over: over.drop_guard() }
    }

    /// Takes the publication out; `None` when the stream is ending.
    pub(super) fn take(self) -> Option<Publication> {
        taken(&self.place)
    }

    /// Whether the stream is being ended from outside.
    pub(super) fn is_ending(&self) -> bool {
        let place = self.place.lock().unwrap_or_else(PoisonError::into_inner);
        place.as_ref().is_none_or(|publication| publication.end().reason().is_some())
    }
}

fn taken(place: &Mutex<Option<Publication>>) -> Option<Publication> {
    place.lock().unwrap_or_else(PoisonError::into_inner).take()
}
