//! Publishers that have left and may come back: which media session waits for them, by the name they asked for.
//!
//! A hook server may put another name in its place, so that only the publisher's own wish tells, before the hook server
//! is asked, that it is the one who comes back. It is then asked about as the media session it goes on with.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::hub::{Hub, Phase};
use crate::name::{MediaSessionId, StreamName};

/// Who is away. A cheap handle.
#[derive(Clone, Default)]
pub struct Absent(Arc<Mutex<HashMap<String, Place>>>);

/// A stream that waits, and its publisher's media session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) stream: StreamName,
    pub(super) session: MediaSessionId,
}

impl Absent {
    /// A publisher that asked for this name has left its stream.
    pub(super) fn left(&self, asked: &str, place: Place, hub: &Hub) {
        let mut places = self.places();
        places.retain(|_, place| place.waits(hub));
        places.insert(asked.to_owned(), place);
    }

    /// What waits for a publisher that asks for this name.
    pub(super) fn place(&self, asked: &str, hub: &Hub) -> Option<Place> {
        self.places().get(asked).filter(|place| place.waits(hub)).cloned()
    }

    fn places(&self) -> MutexGuard<'_, HashMap<String, Place>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    fn waits(&self, hub: &Hub) -> bool {
        hub.streams().get(&self.stream).is_some_and(|stream| {
            stream.look(|view| {
                let mine = view.publisher().is_some_and(|publisher| publisher.id == self.session);
                mine && view.phase == Phase::Interrupted
            })
        })
    }
}
