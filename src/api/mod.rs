//! The REST API over warp: [`routes`] is the table, a file a family, [`error`] the one place where an error becomes a
//! status.

mod connection;
pub mod error;
mod pipelines;
mod pull;
mod request;
mod routes;
mod serve;
mod stream;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::config::Cors;
use crate::hub::{Connections, Hub};
use crate::media::Pipelines;
use crate::picture::Pictures;
use crate::pull::Pulls;

pub use serve::serve;

/// What the handlers work with. A cheap handle.
#[derive(Clone)]
pub struct Api {
    /// Streams.
    pub hub: Hub,
    /// Pull agents.
    pub pulls: Pulls,
    /// Running pipelines.
    pub pipelines: Pipelines,
    /// Snapshots.
    pub pictures: Pictures,
    /// Browsers' connections.
    pub connections: Connections,
    /// What pages of other origins may do.
    pub cors: Arc<Cors>,
    /// The largest request body, bytes.
    pub max_body: u64,
    /// New work is refused.
    pub closing: Arc<AtomicBool>,
}

impl Api {
    /// Refuses new work from now on.
    pub fn close(&self) {
        self.closing.store(true, Ordering::Relaxed);
    }
}
