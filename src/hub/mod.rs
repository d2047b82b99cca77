//! Streams by name: who publishes them, who takes them.
//!
//! One task owns the registry, one task owns each stream. Commands go in through channels; what is, is read from
//! snapshots without asking a task ([`Hub::streams`], [`StreamHandle::view`]); what happened goes out as events.
//! Leaving is dropping: a [`Publication`] or [`Subscription`] that is dropped has left.

mod connections;
mod doubt;
mod figures;
mod filter;
mod handle;
mod info;
mod phase;
mod publication;
mod shown;
mod stream;
mod subscription;
mod termination;
mod upstream;
mod vacant;
mod view;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::task::TaskTracker;

pub use connections::{ConnectionView, Connections};
pub use doubt::Doubt;
pub use figures::Figures;
pub use filter::{Filter, Found};
pub use handle::StreamHandle;
pub use info::{
    STOPPED_BY_DISCONNECT, STOPPED_BY_PUBLISHER, STOPPED_BY_REST, STOPPED_BY_SHUTDOWN, STOPPED_BY_USER,
    TERMINATED_BY_KEEP_ALIVE,
};
pub use phase::Phase;
pub use publication::{Publication, Wish};
pub use shown::{Shown, is_last_word};
pub use subscription::{SubscribeError, Subscription};
pub use view::{Player, Publisher, Recorded, Role, SessionView, StreamSignal, StreamView, Subscriber};

use crate::admission::{self, Admission, Place};
use crate::event::Events;
use crate::name::StreamName;
use vacant::Vacant;

/// How many commands may wait for the registry.
const QUEUE: usize = 256;

/// How many streams may wait for their publisher; a further one ends at once. Each holds its newest frames.
const WAITING: usize = 1024;

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
    Refused(#[from] admission::Refused),
}

enum Command {
    Publish { publisher: Box<Publisher>, reply: oneshot::Sender<Result<Publication, Refused>> },
    Keep { publication: Publication, wait: Duration, info: String },
}

/// Why the registry gives no publication.
enum Refused {
    /// Somebody publishes the name.
    Taken,
    /// The stream of that name waited for a publisher of another kind; it is ending now.
    Ending,
    /// There are as many streams as there may be.
    Full(admission::Refused),
}

impl Hub {
    /// Starts the registry's task in `tasks`. It ends with the last handle.
    pub fn start(events: Events, admission: Admission, tasks: &TaskTracker) -> Self {
        let (commands, inbox) = mpsc::channel(QUEUE);
        let (view, streams) = watch::channel(Arc::new(Streams::new()));
        let registry = Registry {
            events: events.clone(),
            view,
            places: BTreeMap::new(),
            admission,
            tasks: tasks.clone(),
            vacant: BTreeMap::new(),
        };
        tasks.spawn(registry.run(inbox));
        Self { commands, streams, events }
    }

    /// Takes a name for a publisher; the stream exists from now on and waits for media. One that waits for a publisher of
    /// this kind ([`Hub::keep`]) goes on with it: media session, subscribers and all.
    ///
    /// # Errors
    /// See [`PublishError`].
    pub async fn publish(&self, publisher: Publisher) -> Result<Publication, PublishError> {
        let name = publisher.name.clone();
        loop {
            let (reply, answer) = oneshot::channel();
            let command = Command::Publish { publisher: Box::new(publisher.clone()), reply };
            self.commands.send(command).await.map_err(|_| PublishError::Closing)?;
            match answer.await.map_err(|_| PublishError::Closing)? {
                Ok(publication) => return Ok(publication),
                Err(Refused::Taken) => return Err(PublishError::NameTaken(name)),
                Err(Refused::Full(refused)) => return Err(refused.into()),
                Err(Refused::Ending) => {
                    let free = |streams: &Arc<Streams>| !streams.contains_key(&name);
                    self.watch().wait_for(free).await.map_err(|_| PublishError::Closing)?;
                }
            }
        }
    }

    /// Leaves a stream that has had media to whoever publishes its name within `wait`; then it ends, with `info` for its
    /// subscribers. One without media ends at once.
    pub async fn keep(&self, publication: Publication, wait: Duration, info: &str) {
        if publication.view().phase == Phase::Waiting {
            return publication.leave(info).await;
        }
        publication.vacant(&format!("its publisher has left, and may come back for {} s", wait.as_secs_f32()));
        // A registry that is gone drops it.
        let _ = self.commands.send(Command::Keep { publication, wait, info: info.to_owned() }).await;
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
    /// Streams that wait for their publisher.
    vacant: BTreeMap<StreamName, Vacant>,
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
                        let _ = reply.send(self.publish(*publisher, &gone));
                    }
                    // A publication that is dropped has left.
                    Some(Command::Keep { publication, wait, info }) => if self.vacant.len() < WAITING {
                        let name = publication.name().clone();
                        let kept = Vacant::keep(publication, wait, info, &self.tasks);
                        self.vacant.insert(name, kept);
                    },
                    None => return,
                },
            }
        }
    }

    fn publish(
        &mut self,
        publisher: Publisher,
        gone: &mpsc::UnboundedSender<stream::Gone>,
    ) -> Result<Publication, Refused> {
        let name = publisher.name.clone();
        if self.view.borrow().contains_key(&name) {
            let publication = self.back(&name).ok_or(Refused::Taken)?;
            // One of another kind is somebody else: dropped, the publication has left.
            let view = publication.view();
            let kind = |session: &SessionView| (session.provider, session.media_type);
            if view.publisher().map(kind) != Some((publisher.provider, publisher.media_type)) {
                return Err(Refused::Ending);
            }
            publication.take_over(publisher);
            return Ok(publication);
        }
        self.places.insert(name.clone(), self.admission.stream().map_err(Refused::Full)?);
        let viewers = self.admission.viewers();
        let (handle, publication) = stream::start(publisher, self.events.clone(), gone.clone(), viewers, &self.tasks);
        self.change(|streams| {
            streams.insert(name, handle);
        });
        Ok(publication)
    }

    /// The publication of a stream that waits for its publisher.
    fn back(&mut self, name: &StreamName) -> Option<Publication> {
        if self.vacant.get(name)?.is_ending() {
            return None;
        }
        self.vacant.remove(name)?.take()
    }

    fn forget(&mut self, gone: stream::Gone) {
        self.vacant.remove(&gone.name);
        self.places.remove(&gone.name);
        self.change(|streams| {
            streams.remove(&gone.name);
        });
    }

    fn change(&self, change: impl FnOnce(&mut Streams)) {
        self.view.send_modify(|streams| change(Arc::make_mut(streams)));
    }
}

#[cfg(test)]
pub(crate) mod tests;
