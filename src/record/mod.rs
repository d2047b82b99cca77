//! Recordings: who is recorded, into which files, and what a crash leaves behind.
//!
//! The supervisor watches the hub for streams that want to be recorded; each recording is a task of its own
//! ([`recorder`]), each file of it a pipeline ([`crate::media::Part`]). [`name`] gives files their names, [`files`] puts
//! them in place, [`repair`] and [`recover`] finish what a killed process left.

mod container;
mod files;
mod mp4;
pub mod name;
mod recorder;
pub mod recover;
pub mod repair;

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::admission::Admission;
use crate::event::Event;
use crate::hub::{Hub, Phase};
use crate::media::{Catalog, CutRule, Pipelines};
pub use files::free_space;
use name::NameRules;

/// What every recorder works with.
#[derive(Clone)]
pub struct Tools {
    /// The launch templates.
    pub catalog: Catalog,
    /// The list of running pipelines.
    pub pipelines: Pipelines,
    /// Where streams are.
    pub hub: Hub,
    /// Who is refused.
    pub admission: Admission,
    /// The rules of a recording.
    pub rules: Arc<Rules>,
}

/// The settings of a recording.
#[derive(Debug, Clone)]
pub struct Rules {
    /// The directory the files go into; absolute.
    pub dir: PathBuf,
    /// When a part ends.
    pub cut: CutRule,
    /// How files are named.
    pub names: NameRules,
    /// Free bytes the file system must keep; 0 for no limit.
    pub min_free_space: u64,
}

/// A handle on the recordings of this server.
pub struct Recorders {
    stop: CancellationToken,
    running: TaskTracker,
}

impl Recorders {
    /// Starts the supervisor's task in `tasks`.
    pub fn start(tools: Tools, tasks: &TaskTracker) -> Self {
        let recorders = Self { stop: CancellationToken::new(), running: TaskTracker::new() };
        tasks.spawn(supervise(tools, recorders.stop.clone(), recorders.running.clone()));
        recorders
    }

    /// Finishes every recording; true when all files are in place within `deadline`.
    pub async fn finish(&self, deadline: Duration) -> bool {
        self.stop.cancel();
        self.running.close();
        tokio::time::timeout(deadline, self.running.wait()).await.is_ok()
    }
}

async fn supervise(tools: Tools, stop: CancellationToken, running: TaskTracker) {
    let mut streams = tools.hub.watch();
    let mut seen = HashSet::new();
    loop {
        let now = streams.borrow_and_update().clone();
        let mut present = HashSet::new();
        for handle in now.values() {
            let view = handle.view();
            let (Some(recorded), Some(publisher)) = (view.record, view.publisher()) else { continue };
            // A browser may use an id again; when it began tells the two apart.
            let key = (publisher.id.clone(), publisher.since);
            present.insert(key.clone());
            if !seen.insert(key) {
                continue;
            }
            let place = match tools.admission.recording() {
                Ok(place) => place,
                Err(refused) => {
                    let (stream, session) = (view.name.clone(), publisher.id.clone());
                    tools.hub.events().tell(Event::RecordingFailed { stream, session, reason: refused.to_string() });
                    continue;
                }
            };
            if let Some(recorder) = recorder::Recorder::new(&tools, handle, recorded, publisher, &stop) {
                running.spawn(async move {
                    recorder.run().await;
                    drop(place);
                });
            }
        }
        seen.retain(|id| present.contains(id));
        tokio::select! {
            () = stop.cancelled() => return,
            changed = streams.changed() => if changed.is_err() { return },
        }
    }
}

/// Whether a stream in this phase has media to record.
fn flows(phase: Phase) -> bool {
    phase == Phase::Live
}
