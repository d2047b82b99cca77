//! The question whether a publisher is still there, for somebody who wants its name.
//!
//! A connection whose other end has vanished looks like one that is silent. Only its owner can find out, so it is asked.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex, mpsc, oneshot};
use tokio::time::timeout;

/// How many may ask at a time. A further one is as good as answered: the name is taken.
const ASKING: usize = 8;

/// One question. Dropped without an answer: the publisher has left.
#[derive(Debug)]
pub struct Doubt(oneshot::Sender<()>);

impl Doubt {
    /// The publisher is there.
    pub fn dispel(self) {
        // Whoever asked may have gone.
        let _ = self.0.send(());
    }
}

/// Where questions are asked.
#[derive(Clone)]
pub(super) struct Asked(mpsc::Sender<Doubt>);

/// Where they are heard. Copies are the same one.
#[derive(Clone)]
pub(super) struct Heard(Arc<Mutex<mpsc::Receiver<Doubt>>>);

pub(super) fn channel() -> (Asked, Heard) {
    let (asked, heard) = mpsc::channel(ASKING);
    (Asked(asked), Heard(Arc::new(Mutex::new(heard))))
}

impl Asked {
    /// Asks, and waits until the publisher has answered, has left, or `patience` is over.
    pub(super) async fn ask(&self, patience: Duration) {
        let (answer, answered) = oneshot::channel();
        if self.0.try_send(Doubt(answer)).is_ok() {
            // However it ends: whether the name is free is the registry's to say.
            let _ = timeout(patience, answered).await;
        }
    }
}

impl Heard {
    /// Resolves when somebody asks.
    pub(super) async fn next(&self) -> Doubt {
        match self.0.lock().await.recv().await {
            Some(doubt) => doubt,
            // Nobody is left who could.
            None => std::future::pending().await,
        }
    }
}
