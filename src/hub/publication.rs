//! A publisher's end of a stream.

use tokio::sync::{mpsc, watch};

use super::doubt::{self, Doubt};
use super::info::STOPPED_BY_PUBLISHER;
use super::phase::{Phase, Step};
use super::stream::Command;
use super::termination::Termination;
use super::view::{Publisher, StreamView};
use crate::media::{Fanout, Track};
use crate::name::{MediaSessionId, StreamName};

/// The right to feed a stream. Dropped: the publisher has left.
pub struct Publication {
    pub(super) name: StreamName,
    pub(super) session: MediaSessionId,
    pub(super) commands: mpsc::UnboundedSender<Command>,
    pub(super) terminated: Termination,
    pub(super) doubts: doubt::Heard,
    pub(super) view: watch::Receiver<StreamView>,
    pub(super) fanout: Fanout,
    /// Closes when the name is free again.
    pub(super) freed: mpsc::Receiver<()>,
    pub(super) farewell: Option<Farewell>,
}

/// What somebody outside wants of a publisher.
pub enum Wish {
    /// Its end: see [`Publication::terminated`].
    End(&'static str),
    /// Its name, and asks whether it is still there ([`StreamHandle::doubt`](super::StreamHandle::doubt)).
    SignOfLife(Doubt),
}

/// How a session has left.
pub(super) struct Farewell {
    /// It did not ask for it: FAILED.
    pub(super) failed: bool,
    /// WCS's text.
    pub(super) info: String,
}

impl Publication {
    /// Where the source's frames go.
    pub fn fanout(&self) -> &Fanout {
        &self.fanout
    }

    /// The publisher's media session.
    pub fn session(&self) -> MediaSessionId {
        self.session.clone()
    }

    /// The stream's name.
    pub fn name(&self) -> &StreamName {
        &self.name
    }

    /// The stream as it is.
    pub fn view(&self) -> StreamView {
        self.view.borrow().clone()
    }

    /// Media flows, with these tracks.
    pub fn live(&self, tracks: Vec<Track>) {
        self.fanout.settle();
        let note = tracks.iter().map(describe).collect::<Vec<_>>().join(", ");
        self.send(Command::Step(Step::Flows, Some(tracks.into()), note));
    }

    /// The same, and waits until everybody sees it.
    pub async fn seen_live(&self, tracks: Vec<Track>) {
        self.live(tracks);
        // An error is the stream's end.
        let _ = self.view.clone().wait_for(|view| view.phase == Phase::Live).await;
    }

    /// The source is lost; the stream waits for it.
    pub fn interrupted(&self, reason: &str) {
        self.send(Command::Step(Step::Lost, None, reason.to_owned()));
    }

    /// Resolves when somebody outside ends the stream: with what its publisher is told.
    pub async fn terminated(&self) -> &'static str {
        self.terminated.asked().await
    }

    /// Resolves with what somebody outside wants first. Kept by a publisher that waits for much else beside it.
    pub fn wish(&self) -> impl Future<Output = Wish> + Send + 'static {
        let (terminated, doubts) = (self.terminated.clone(), self.doubts.clone());
        async move {
            tokio::select! {
                biased;
                reason = terminated.asked() => Wish::End(reason),
                doubt = doubts.next() => Wish::SignOfLife(doubt),
            }
        }
    }

    /// The publisher has left; the stream waits for it.
    pub(super) fn vacant(&self, reason: &str) {
        self.send(Command::Step(Step::Left, None, reason.to_owned()));
    }

    /// Somebody publishes on. The media session stays what it was, as it does for a source that comes back.
    pub(super) fn take_over(&self, publisher: Publisher) {
        self.send(Command::TakeOver(Box::new(publisher)));
    }

    /// Where doubts are heard.
    pub(super) fn doubts(&self) -> doubt::Heard {
        self.doubts.clone()
    }

    /// What ends the stream from outside.
    pub(super) fn end(&self) -> Termination {
        self.terminated.clone()
    }

    /// Leaves as its publisher wants it (UNPUBLISHED unless somebody outside ended it), and waits until the name is free.
    pub async fn leave(self, info: &str) {
        self.gone(false, info).await;
    }

    /// Leaves because it cannot go on (FAILED), and waits until the name is free.
    pub async fn fail(self, info: &str) {
        self.gone(true, info).await;
    }

    async fn gone(mut self, failed: bool, info: &str) {
        self.farewell = Some(Farewell { failed, info: info.to_owned() });
        let (_, never) = mpsc::channel(1);
        let mut freed = std::mem::replace(&mut self.freed, never);
        drop(self);
        freed.recv().await;
    }

    pub(super) fn send(&self, command: Command) {
        // The stream's task ends after this publication, never before.
        let _ = self.commands.send(command);
    }
}

impl Drop for Publication {
    fn drop(&mut self) {
        let unsaid = || Farewell { failed: true, info: STOPPED_BY_PUBLISHER.to_owned() };
        let farewell = self.farewell.take().unwrap_or_else(unsaid);
        self.send(Command::Leave(farewell));
    }
}

fn describe(track: &Track) -> String {
    match (track.width, track.height) {
        (0, 0) => track.wcs_codec(),
        (width, height) => format!("{} {width}x{height}", track.wcs_codec()),
    }
}
