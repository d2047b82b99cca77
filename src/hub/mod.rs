//! Streams by name: who publishes them, who takes them.
//!
//! One task owns the registry, one task owns each stream. Commands go in through channels; what is, is read from
//! snapshots without asking a task ([`Hub::streams`], [`StreamHandle::view`]); what happened goes out as events.
//! Leaving is dropping: a [`Publication`] or [`Subscription`] that is dropped has left.

mod connections;
mod phase;
mod stream;

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::task::TaskTracker;

pub use connections::{ConnectionView, Connections};
pub use phase::Phase;
pub use stream::{
    Figures, Player, Publication, Publisher, Recorded, Role, SessionView, StreamHandle, StreamSignal, StreamView,
    SubscribeError, Subscriber, Subscription,
};
pub use stream::{STOPPED_BY_PUBLISHER, STOPPED_BY_REST, STOPPED_BY_SHUTDOWN};

use crate::admission::{Admission, Place, Refused};
use crate::event::Events;
use crate::name::StreamName;

/// How many commands may wait for the registry.
const QUEUE: usize = 256;

/// The streams that exist, by name.
pub type Streams = BTreeMap<StreamName, StreamHandle>;

/// A cheap handle on the registry.
#[derive(Clone)]
pub struct Hub {
    commands: mpsc::Sender<Command>,
    streams: watch::Receiver<Arc<Streams>>,
    events: Events,
}

/// Why a name cannot be published.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PublishError {
    /// Somebody publishes it already.
    #[error("the stream name {0} is already in use")]
    NameTaken(StreamName),
    /// The server is shutting down.
    #[error("the server is shutting down")]
    Closing,
    /// There are as many as there may be.
    #[error(transparent)]
    Refused(#[from] Refused),
}

enum Command {
    Publish { publisher: Publisher, reply: oneshot::Sender<Result<Publication, PublishError>> },
}

impl Hub {
    /// Starts the registry's task in `tasks`. It ends with the last handle.
    pub fn start(events: Events, admission: Admission, tasks: &TaskTracker) -> Self {
        let (commands, inbox) = mpsc::channel(QUEUE);
        let (view, streams) = watch::channel(Arc::new(Streams::new()));
        let registry =
            Registry { events: events.clone(), view, places: BTreeMap::new(), admission, tasks: tasks.clone() };
        tasks.spawn(registry.run(inbox));
        Self { commands, streams, events }
    }

    /// Takes a name for a publisher; the stream exists from now on and waits for media.
    ///
    /// # Errors
    /// See [`PublishError`].
    pub async fn publish(&self, publisher: Publisher) -> Result<Publication, PublishError> {
        let (reply, answer) = oneshot::channel();
        let asked = self.commands.send(Command::Publish { publisher, reply }).await;
        asked.map_err(|_| PublishError::Closing)?;
        answer.await.map_err(|_| PublishError::Closing)?
    }

    /// The streams as they are.
    pub fn streams(&self) -> Arc<Streams> {
        self.streams.borrow().clone()
    }

    /// The streams as they are and as they change.
    pub fn watch(&self) -> watch::Receiver<Arc<Streams>> {
        self.streams.clone()
    }

    /// The feed of events.
    pub fn events(&self) -> &Events {
        &self.events
    }
}

struct Registry {
    events: Events,
    view: watch::Sender<Arc<Streams>>,
    /// What each stream takes of those there may be.
    places: BTreeMap<StreamName, Place>,
    admission: Admission,
    tasks: TaskTracker,
}

impl Registry {
    async fn run(mut self, mut inbox: mpsc::Receiver<Command>) {
        let (gone, mut goners) = mpsc::unbounded_channel::<stream::Gone>();
        loop {
            tokio::select! {
                biased;
                // First the names that are free again: whoever left may come back at once.
                Some(gone) = goners.recv() => self.forget(gone),
                command = inbox.recv() => match command {
                    Some(Command::Publish { publisher, reply }) => {
                        // A caller that no longer waits drops the publication, which has then left.
                        let _ = reply.send(self.publish(publisher, &gone));
                    }
                    None => return,
                },
            }
        }
    }

    fn publish(
        &mut self,
        publisher: Publisher,
        gone: &mpsc::UnboundedSender<stream::Gone>,
    ) -> Result<Publication, PublishError> {
        let name = publisher.name.clone();
        if self.view.borrow().contains_key(&name) {
            return Err(PublishError::NameTaken(name));
        }
        self.places.insert(name.clone(), self.admission.stream()?);
        let viewers = self.admission.viewers();
        let (handle, publication) = stream::start(publisher, self.events.clone(), gone.clone(), viewers, &self.tasks);
        self.change(|streams| {
            streams.insert(name, handle);
        });
        Ok(publication)
    }

    fn forget(&mut self, gone: stream::Gone) {
        self.places.remove(&gone.name);
        self.change(|streams| {
            streams.remove(&gone.name);
        });
    }

    fn change(&self, change: impl FnOnce(&mut Streams)) {
        self.view.send_modify(|streams| change(Arc::make_mut(streams)));
    }
}
