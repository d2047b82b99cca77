//! What media sessions count.

use std::sync::Arc;

use serde_json::{Map, Value};

/// What a media session counts, asked for when somebody looks.
#[derive(Clone)]
pub struct Figures(Arc<dyn Fn() -> Map<String, Value> + Send + Sync>);

impl Figures {
    /// Figures that `read` gives. It must not wait.
    pub fn new(read: impl Fn() -> Map<String, Value> + Send + Sync + 'static) -> Self {
        Self(Arc::new(read))
    }

    /// The figures now.
    pub fn read(&self) -> Map<String, Value> {
        (self.0)()
    }
}

impl std::fmt::Debug for Figures {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Figures")
    }
}
