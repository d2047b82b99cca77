//! A subscriber's end of a stream.

use tokio::sync::{mpsc, watch};

use super::figures::Figures;
use super::stream::Command;
use super::termination::Termination;
use super::view::StreamView;
use crate::admission::{Place, Refused};
use crate::media::Fanout;
use crate::name::MediaSessionId;

/// A subscriber's place in a stream. Dropped: it has left.
pub struct Subscription {
    pub(super) id: MediaSessionId,
    pub(super) terminated: Termination,
    pub(super) commands: mpsc::UnboundedSender<Command>,
    pub(super) view: watch::Receiver<StreamView>,
    pub(super) fanout: Fanout,
    pub(super) _place: Option<Place>,
}

/// Why a stream cannot be subscribed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SubscribeError {
    /// It has ended meanwhile.
    #[error("the stream has ended")]
    Gone,
    /// It has as many players as it may have.
    #[error(transparent)]
    Refused(#[from] Refused),
}

impl Subscription {
    /// Where the frames come from.
    pub fn fanout(&self) -> &Fanout {
        &self.fanout
    }

    /// The stream as it is and as it changes; closed when the stream has ended.
    pub fn view(&self) -> watch::Receiver<StreamView> {
        self.view.clone()
    }

    /// Resolves when somebody outside ends this subscriber: with what it is told.
    pub async fn terminated(&self) -> &'static str {
        self.terminated.asked().await
    }

    /// Shows what a player counts.
    pub fn set_figures(&self, figures: Figures) {
        let _ = self.commands.send(Command::Figures(self.id.clone(), figures));
    }

    /// Shows a player's status: WCS's word.
    pub fn set_status(&self, status: &'static str) {
        let _ = self.commands.send(Command::Status(self.id.clone(), status));
    }

    /// Shows which file is being written.
    pub fn note_recording(&self, name: Option<String>) {
        let _ = self.commands.send(Command::Record(name));
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let _ = self.commands.send(Command::Unsubscribe(self.id.clone()));
    }
}
