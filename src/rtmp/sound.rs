//! Sound that FLV does not carry, turned into AAC: one rendition a stream, for as long as somebody plays it.
//!
//! One task owns which stream has a rendition; a rendition lives as long as its players hold it.

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::SystemTime;

use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use crate::hub::{StreamHandle, StreamView};
use crate::media::{Catalog, Codec, Fanout, Kind, Pipelines, Rendition};
use crate::name::{MediaSessionId, StreamName};

/// How many players may wait for a rendition.
const QUEUE: usize = 256;

/// A stream's sound in AAC.
pub(super) struct Sound {
    pub(super) fanout: Fanout,
    /// Ends the task that owns the pipeline.
    _alive: DropGuard,
}

/// A cheap handle on the renditions.
#[derive(Clone)]
pub struct Sounds(mpsc::Sender<Wanted>);

struct Wanted {
    stream: StreamHandle,
    view: StreamView,
    codec: Codec,
    reply: oneshot::Sender<Result<Arc<Sound>, String>>,
}

/// A stream is another one when its publisher is.
type Key = (StreamName, MediaSessionId, SystemTime);

impl Sounds {
    /// Starts the renditions' task in `tasks`. It ends with the last handle.
    pub fn start(catalog: Catalog, pipelines: Pipelines, tasks: &TaskTracker) -> Self {
        let (sounds, inbox) = mpsc::channel(QUEUE);
        let owner = Owner { catalog, pipelines, sounds: HashMap::new(), tasks: tasks.clone() };
        tasks.spawn(owner.run(inbox));
        Self(sounds)
    }

    /// The stream's sound, which is in `codec`, in AAC.
    pub(super) async fn of(
        &self,
        stream: &StreamHandle,
        view: &StreamView,
        codec: &Codec,
    ) -> Result<Arc<Sound>, String> {
        let (reply, answer) = oneshot::channel();
        let wanted = Wanted { stream: stream.clone(), view: view.clone(), codec: codec.clone(), reply };
        let closing = || "the server is shutting down".to_owned();
        self.0.send(wanted).await.map_err(|_| closing())?;
        answer.await.map_err(|_| closing())?
    }
}

struct Owner {
    catalog: Catalog,
    pipelines: Pipelines,
    sounds: HashMap<Key, Weak<Sound>>,
    tasks: TaskTracker,
}

impl Owner {
    async fn run(mut self, mut inbox: mpsc::Receiver<Wanted>) {
        while let Some(wanted) = inbox.recv().await {
            self.sounds.retain(|_, sound| sound.strong_count() > 0);
            let sound = self.get(&wanted).await;
            // A player that has left drops the rendition.
            let _ = wanted.reply.send(sound);
        }
    }

    async fn get(&mut self, wanted: &Wanted) -> Result<Arc<Sound>, String> {
        let publisher = wanted.view.publisher().ok_or("the stream has no publisher")?;
        let key = (wanted.view.name.clone(), publisher.id.clone(), publisher.since);
        if let Some(sound) = self.sounds.get(&key).and_then(Weak::upgrade) {
            return Ok(sound);
        }
        let launch = self.catalog.launch("play-rtmp", |filling| filling.track_in(Kind::Audio, &wanted.codec));
        let launch = launch.map_err(|error| error.to_string())?;
        let started = Rendition::sound(&self.pipelines, launch, &wanted.view.name, wanted.stream.fanout()).await;
        let rendition = started.map_err(|error| error.to_string())?;
        let alive = CancellationToken::new();
        let fanout = rendition.fanout().clone();
        self.tasks.spawn(keep(rendition, wanted.stream.clone(), wanted.codec.clone(), alive.clone()));
        let sound = Arc::new(Sound { fanout, _alive: alive.drop_guard() });
        self.sounds.insert(key, Arc::downgrade(&sound));
        Ok(sound)
    }
}

/// Owns a rendition until its last player has left.
async fn keep(mut rendition: Rendition, handle: StreamHandle, codec: Codec, alive: CancellationToken) {
    let what = format!("{} to {}", codec.encoding_name(), Codec::Aac.encoding_name());
    handle.rendition(&what, true);
    tokio::select! {
        () = alive.cancelled() => {}
        failure = rendition.failed() => {
            if let Some(failure) = failure {
                tracing::warn!(stream = %handle.view().name, "RTMP players' sound has failed: {failure}");
            }
            alive.cancelled().await;
        }
    }
    handle.rendition(&what, false);
}
