//! The browsers' WebSocket: [`crate::message`] has the wire types, [`connection`] is one task a socket, with its media sessions
//! in [`streams`] and what else a browser asks for in [`calls`]; [`outbox`] is the way back, [`socket`] the upgrade.

mod calls;
mod connection;
mod outbox;
mod socket;
mod streams;

use tokio_util::task::TaskTracker;

pub use socket::serve;

use crate::admission::Admission;
use crate::config::KeepAlive;
use crate::gate::Gate;
use crate::hook::Hooks;
use crate::hub::{Connections, Hub};
use crate::picture::Pictures;
use crate::pull::Pulls;
use crate::webrtc::play::Plays;
use crate::webrtc::publish;

/// What every connection works with. A cheap handle.
#[derive(Clone)]
pub struct Signal {
    /// Streams.
    pub hub: Hub,
    /// Sources that players ask for by their address.
    pub pulls: Pulls,
    /// Publishers.
    pub publish: publish::Tools,
    /// Viewers.
    pub plays: Plays,
    /// What publishing and playing ask for.
    pub gate: Gate,
    /// Who is asked whether browsers may do what they want.
    pub hooks: Hooks,
    /// Snapshots.
    pub pictures: Pictures,
    /// Browsers may have their streams recorded.
    pub record: bool,
    /// How a dead connection is noticed.
    pub keep_alive: KeepAlive,
    /// The sockets that are open.
    pub connections: Connections,
    /// Who is refused.
    pub admission: Admission,
    /// Where media sessions run.
    pub tasks: TaskTracker,
}
