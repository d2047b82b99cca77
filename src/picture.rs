//! Snapshots: one picture of a stream, for REST and for browsers.

use std::sync::Arc;

use tokio::sync::Semaphore;

use crate::hub::{Hub, Phase};
use crate::media::{Catalog, Kind, Pipelines, snapshot};
use crate::name::StreamName;

/// Most pictures taken at once; further ones wait. Each decodes.
const AT_ONCE: usize = 4;

/// Takes pictures of streams. A cheap handle.
#[derive(Clone)]
pub struct Pictures {
    catalog: Catalog,
    pipelines: Pipelines,
    hub: Hub,
    places: Arc<Semaphore>,
}

/// Why there is no picture. The texts are WCS's `info` where it has one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PictureError {
    /// Nobody publishes the stream.
    #[error("Stream not found")]
    NotFound,
    /// It has no media yet.
    #[error("Publish stream is not ready")]
    NotReady,
    /// It has no pictures, or none weir can decode.
    #[error("the stream has no picture weir can decode")]
    NoVideo,
    /// The picture could not be taken.
    #[error("{0}")]
    Failed(String),
}

impl Pictures {
    /// Takes pictures of the streams of `hub`.
    pub fn new(catalog: Catalog, pipelines: Pipelines, hub: Hub) -> Self {
        Self { catalog, pipelines, hub, places: Arc::new(Semaphore::new(AT_ONCE)) }
    }

    /// Takes a picture, as PNG.
    ///
    /// # Errors
    /// See [`PictureError`].
    pub async fn take(&self, name: &StreamName) -> Result<Vec<u8>, PictureError> {
        let stream = self.hub.streams().get(name).cloned().ok_or(PictureError::NotFound)?;
        let view = stream.view();
        if view.phase == Phase::Waiting {
            return Err(PictureError::NotReady);
        }
        let failed = |error: &dyn std::fmt::Display| PictureError::Failed(error.to_string());
        let track = view.tracks.iter().find(|track| track.kind == Kind::Video).ok_or(PictureError::NoVideo)?;
        let launch = self.catalog.launch("snapshot", |filling| filling.track_in(Kind::Video, &track.codec));
        let launch = launch.map_err(|error| failed(&error))?;
        if launch.branches.is_empty() {
            return Err(PictureError::NoVideo);
        }
        // The semaphore is never closed.
        let _place = self.places.acquire().await;
        snapshot(&self.pipelines, launch, name, stream.fanout()).await.map_err(|error| failed(&error))
    }
}
