//! Recordings: who is recorded, into which files, and what a crash leaves behind.
//!
//! The supervisor ([`supervisor`]) watches the hub for streams that want to be recorded, and takes REST's orders; each
//! recording is a task of its own ([`recorder`]), each file of it a pipeline ([`crate::media::Part`]), which [`finish`]
//! puts in place. [`name`] gives files their names, [`index`] keeps what is known of each, [`script`] has the operator's
//! script see each, [`repair`] and [`recover`] finish what a killed process left.

mod container;
mod empty;
mod files;
mod finish;
mod index;
mod mp4;
pub mod name;
mod recorder;
pub mod recover;
pub mod repair;
mod script;
mod supervisor;

use std::path::PathBuf;
use std::sync::Arc;

use crate::config::Rotation;
use crate::hub::{Hub, Phase};
use crate::media::{Catalog, CutRule, Pipelines};
use name::NameRules;

pub use index::{Entry, HookState, Index};
pub use recorder::{RecorderState, RecorderView};
pub use script::{Script, Scripts};
pub use supervisor::{RecordError, Recorders};

/// What every recorder works with.
#[derive(Clone)]
pub struct Tools {
    /// The launch templates.
    pub catalog: Catalog,
    /// The list of running pipelines.
    pub pipelines: Pipelines,
    /// Where streams are.
    pub hub: Hub,
    /// The rules of a recording that nobody gave others for.
    pub rules: Arc<Rules>,
    /// What is known of the files.
    pub index: Index,
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

/// What a caller wants otherwise than the settings have it, for one recording.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Options {
    /// The template of its files' names.
    pub template: Option<String>,
    /// When a part ends.
    pub cut: Option<CutRule>,
}

impl Rules {
    /// The rules of one recording.
    fn with(&self, options: Options) -> Self {
        let mut rules = self.clone();
        if let Some(template) = options.template {
            rules.names.template = template;
        }
        rules.cut = options.cut.unwrap_or(rules.cut);
        rules
    }
}

/// What `record_rotation` asks for.
pub fn cut(rotation: Rotation) -> CutRule {
    match rotation {
        Rotation::Off => CutRule::Never,
        Rotation::Time(time) => CutRule::After(time),
        Rotation::Size(bytes) => CutRule::Size(bytes),
    }
}

/// Whether a stream in this phase has media to record.
fn flows(phase: Phase) -> bool {
    phase == Phase::Live
}
