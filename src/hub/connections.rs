//! The browsers' connections, as REST shows them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use arc_swap::ArcSwap;
use tokio_util::sync::CancellationToken;

/// The sockets that are open, as REST shows them. A cheap handle.
#[derive(Clone, Default)]
pub struct Connections(Arc<ArcSwap<BTreeMap<String, Arc<ConnectionView>>>>);

/// An established connection.
#[derive(Debug)]
pub struct ConnectionView {
    /// Its id (`sessionId`).
    pub id: String,
    /// The application.
    pub app_key: String,
    /// The SDK's version.
    pub client_version: String,
    /// The page's origin.
    pub origin: Option<String>,
    /// The browser's address.
    pub peer: String,
    /// When it was established.
    pub since: SystemTime,
    /// Ends it.
    pub stop: CancellationToken,
}

impl ConnectionView {
    /// Closes the connection; its streams end.
    pub fn terminate(&self) {
        self.stop.cancel();
    }
}

impl Connections {
    /// The connections as they are.
    pub fn list(&self) -> Vec<Arc<ConnectionView>> {
        self.0.load().values().cloned().collect()
    }

    /// An established connection.
    pub fn insert(&self, view: ConnectionView) {
        let view = Arc::new(view);
        self.0.rcu(|all| {
            let mut all = BTreeMap::clone(all);
            all.insert(view.id.clone(), view.clone());
            all
        });
    }

    /// It is gone.
    pub fn remove(&self, id: &str) {
        self.0.rcu(|all| {
            let mut all = BTreeMap::clone(all);
            all.remove(id);
            all
        });
    }
}
