//! `/rest-api/ports`: where the other listeners are. A page asks, as the WebSocket's port is not the page's own.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use super::Api;
use super::answer::Answer;
use super::error::ApiError;

/// The ports in use by the names of their settings; empty until everything listens. A cheap handle.
#[derive(Debug, Clone, Default)]
pub struct Ports(Arc<OnceLock<BTreeMap<&'static str, u16>>>);

impl Ports {
    /// Makes the ports known, once.
    pub fn announce(&self, ports: BTreeMap<&'static str, u16>) {
        // The second of two would be a mistake in the server's start, and no caller's concern.
        let _ = self.0.set(ports);
    }
}

/// `/ports`.
pub fn all(api: &Api) -> Result<Answer, ApiError> {
    Answer::json(&api.ports.0.get().cloned().unwrap_or_default())
}
