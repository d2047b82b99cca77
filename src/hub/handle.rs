//! What everybody has of a stream: a look at it, a place in it, a word to its task.

use std::time::Duration;

use serde_json::Value;
use tokio::sync::{broadcast, mpsc, watch};

use super::doubt;
use super::stream::Command;
use super::subscription::{SubscribeError, Subscription};
use super::termination::Termination;
use super::view::{StreamSignal, StreamView, Subscriber};
use crate::admission::Places;
use crate::media::{Fanout, Kind};
use crate::name::MediaSessionId;

/// A cheap handle on a stream. Holding one does not keep the stream.
#[derive(Clone)]
pub struct StreamHandle {
    pub(super) commands: mpsc::UnboundedSender<Command>,
    pub(super) signals: broadcast::Sender<StreamSignal>,
    pub(super) view: watch::Receiver<StreamView>,
    pub(super) fanout: Fanout,
    pub(super) doubts: doubt::Asked,
    pub(super) viewers: Places,
}

impl StreamHandle {
    /// The stream as it is.
    pub fn view(&self) -> StreamView {
        self.view.borrow().clone()
    }

    /// Looks at the stream as it is, without a copy. `look` must not wait.
    pub fn look<T>(&self, look: impl FnOnce(&StreamView) -> T) -> T {
        look(&self.view.borrow())
    }

    /// The stream as it is and as it changes; closed when it has ended.
    pub fn watch(&self) -> watch::Receiver<StreamView> {
        self.view.clone()
    }

    /// What its fan-out has counted.
    pub fn fanout(&self) -> &Fanout {
        &self.fanout
    }

    /// Tells every subscriber something of the publisher's.
    pub fn signal(&self, kind: &str, payload: Value) {
        let muted = match kind {
            "audioMuted" => Some((Kind::Audio, true)),
            "audioUnmuted" => Some((Kind::Audio, false)),
            "videoMuted" => Some((Kind::Video, true)),
            "videoUnmuted" => Some((Kind::Video, false)),
            _ => None,
        };
        if let Some((kind, muted)) = muted {
            let _ = self.commands.send(Command::Muted(kind, muted));
        }
        // Nobody listening is no failure.
        let _ = self.signals.send(StreamSignal { kind: kind.to_owned(), payload });
    }

    /// A recording of one of its publishers is over, and in this file.
    pub fn recorded(&self, session: MediaSessionId, file: String) {
        let _ = self.commands.send(Command::Recorded(session, file));
    }

    /// A transcode for its subscribers has begun, or has ended.
    pub fn rendition(&self, what: &str, begins: bool) {
        let _ = self.commands.send(Command::Rendition(what.to_owned(), begins));
    }

    /// What the publisher tells, from now on.
    pub fn signals(&self) -> broadcast::Receiver<StreamSignal> {
        self.signals.subscribe()
    }

    /// Takes a place.
    ///
    /// # Errors
    /// See [`SubscribeError`].
    pub fn subscribe(&self, subscriber: Subscriber) -> Result<Subscription, SubscribeError> {
        let (id, place) = match &subscriber {
            Subscriber::Player(player) => (player.session.clone(), Some(self.viewers.take()?)),
            Subscriber::Recorder => (MediaSessionId::random(), None),
        };
        let terminated = Termination::default();
        let asked = self.commands.send(Command::Subscribe(id.clone(), subscriber, terminated.clone()));
        asked.map_err(|_| SubscribeError::Gone)?;
        let (commands, view, fanout) = (self.commands.clone(), self.view.clone(), self.fanout.clone());
        Ok(Subscription { id, terminated, commands, view, fanout, _place: place })
    }

    /// Asks one of its sessions to leave; `reason` is what it is told:
    /// [`STOPPED_BY_REST`](super::STOPPED_BY_REST), or another text of an end. [`StreamHandle::left`] tells when it has.
    pub fn terminate(&self, session: &MediaSessionId, reason: &'static str) {
        // A stream that has ended needs no termination.
        let _ = self.commands.send(Command::Terminate(session.clone(), reason));
    }

    /// Asks the publisher to show that it is there, for somebody who wants its name. Waits until it has, until it has
    /// left, or at most for `patience`.
    pub async fn doubt(&self, patience: Duration) {
        self.doubts.ask(patience).await;
    }

    /// Waits until a session has left, the stream's end included.
    pub async fn left(&self, session: &MediaSessionId) {
        let mut view = self.view.clone();
        // An error is the stream's end.
        let _ = view.wait_for(|view| view.sessions.iter().all(|other| other.id != *session)).await;
    }
}
