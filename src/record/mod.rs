//! Recordings: who is recorded, into which files, and what a crash leaves behind.
//!
//! The supervisor ([`supervisor`]) watches the hub for streams that want to be recorded, and takes REST's orders; each
//! recording is a task of its own ([`recorder`]), each file of it a pipeline ([`crate::media::Part`]), which [`finish`]
//! puts in place: [`mp4`], [`matroska`] and [`transport`] know the files. [`name`] gives them their names, [`index`] keeps
//! what is known of each, [`list`] shows it, [`retention`] deletes old ones, [`script`] has the operator's script see
//! each, and [`recover`] finishes what a killed process left.

mod container;
mod files;
mod finish;
mod index;
mod list;
mod matroska;
mod mp4;
pub mod name;
mod recorder;
pub mod recover;
pub mod repair;
mod retention;
mod script;
mod supervisor;
mod transport;
mod trim;

use std::path::PathBuf;
use std::sync::Arc;

use crate::admission::Admission;
use crate::config::{RecordFormats, Rotation, WebmAudio};
use crate::hook::application::ROOM_APP;
use crate::hub::{Hub, Phase};
use crate::media::{Catalog, CutRule, Pipelines};
pub use files::free_space;
use name::NameRules;

pub use index::{Entry, HookState, Index};
pub use list::{FileState, RecordedFile, recorded_files};
pub use recorder::{RecorderState, RecorderView};
pub use retention::Retention;
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
    /// Who is refused.
    pub admission: Admission,
    /// The rules of a recording that nobody gave others for.
    pub rules: Arc<Rules>,
    /// What is known of the files.
    pub index: Index,
    /// How long they are kept.
    pub retention: Retention,
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
    /// What files they are.
    pub formats: RecordFormats,
    /// What becomes of the sound in a WebM.
    pub webm_audio: WebmAudio,
    /// The sample rate of sound that is transcoded, Hz.
    pub sample_rate: u32,
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
    /// The rules of one recording of a stream that belongs to `app_key`. Streams of rooms are merged later, which parts are
    /// in the way of: rotation is off for them, unless the caller asks for it.
    fn with(&self, options: Options, app_key: &str) -> Self {
        let mut rules = self.clone();
        if app_key == ROOM_APP {
            rules.cut = CutRule::Never;
        }
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
