//! The REST API over warp: [`routes`] is the table, a file a family, [`error`] the one place where an error becomes a
//! status.

mod access;
mod answer;
mod call;
mod connection;
mod contract;
pub mod error;
mod events;
mod files;
mod health;
mod hooks;
mod metrics;
mod pages;
mod pipelines;
mod ports;
mod pull;
mod range;
mod recorder;
mod recordings;
mod request;
mod routes;
mod serve;
mod stat;
mod stream;
mod version;

use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio_util::sync::CancellationToken;

use crate::admission::{Admission, Refused};
use crate::config::Cors;
use crate::hook::Hooks;
use crate::hub::{Connections, Hub};
use crate::media::Pipelines;
use crate::meter::Meter;
use crate::picture::Pictures;
use crate::pull::Pulls;
use crate::record::{Index, Recorders};

pub use access::Access;
pub use contract::openapi_document;
pub use metrics::Ledger;
pub use ports::Ports;
pub use serve::serve;

/// What the handlers work with. A cheap handle.
#[derive(Clone)]
pub struct Api {
    /// Streams.
    pub hub: Hub,
    /// Hook servers.
    pub hooks: Hooks,
    /// Pull agents.
    pub pulls: Pulls,
    /// Running pipelines.
    pub pipelines: Pipelines,
    /// Snapshots.
    pub pictures: Pictures,
    /// Browsers' connections.
    pub connections: Connections,
    /// Running recordings.
    pub recorders: Recorders,
    /// Recorded files.
    pub recordings: Index,
    /// The operator's folder of pages, absolute.
    pub web_root: Option<Arc<Path>>,
    /// The free bytes that recordings leave; 0 for no limit.
    pub min_free_space: u64,
    /// First and last UDP port of publishers.
    pub media_ports: (u16, u16),
    /// Who is refused.
    pub admission: Admission,
    /// The client of this connection.
    pub peer: IpAddr,
    /// Why this connection gets nothing, if it is one too many.
    pub refused: Option<Refused>,
    /// What is counted as it happens.
    pub meter: Meter,
    /// Totals of what came in and went out.
    pub ledger: Ledger,
    /// The ports in use.
    pub ports: Ports,
    /// Who may call.
    pub access: Access,
    /// What pages of other origins may do.
    pub cors: Arc<Cors>,
    /// The largest request body, bytes.
    pub max_body: u64,
    /// New work is refused.
    pub closing: Arc<AtomicBool>,
    /// Connections come to an end: answers that would go on for ever end now.
    pub ending: CancellationToken,
}

impl Api {
    /// Refuses new work from now on.
    pub fn close(&self) {
        self.closing.store(true, Ordering::Relaxed);
    }
}
