//! Settings of recordings.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::source::Layers;
use super::value::{self, NameEncoding, RecordPolicy, Rotation};

/// Settings of recordings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// The directory of recordings, maybe relative to the working directory (`record_dir`).
    pub dir: PathBuf,
    /// When a new part starts (`record_rotation`).
    pub rotation: Rotation,
    /// Where a file's name comes from (`stream_record_policy`).
    pub policy: RecordPolicy,
    /// The template of file names, not empty, without an extension (`stream_record_policy_template`).
    pub template: String,
    /// How a file's name is encoded (`encode_record_name`).
    pub name_encoding: NameEncoding,
    /// The characters left out of file names (`exclude_record_name_characters`).
    pub excluded_characters: String,
    /// Whether browsers may have their streams recorded (`record_streams`).
    pub browsers: bool,
    /// Whether every stream that comes over RTMP, published or pulled, is recorded (`record_flash_published_streams`).
    pub every_rtmp: bool,
    /// The program that sees every finished file; `None` for none (`on_record_hook_script`).
    pub hook_script: Option<PathBuf>,
    /// How long it may run (`on_record_hook_timeout`).
    pub hook_timeout: Duration,
    /// The free bytes of the file system below which nothing is recorded; 0 never looks (`record_min_free_space`).
    pub min_free_space: u64,
}

impl Record {
    pub(super) fn read(layers: &mut Layers) -> Option<Self> {
        let dir = layers.get("record_dir", value::directory);
        let rotation = layers.get("record_rotation", str::parse);
        let policy = layers.get("stream_record_policy", str::parse);
        let template = layers.get("stream_record_policy_template", value::template);
        let name_encoding = layers.get("encode_record_name", str::parse);
        let excluded = layers.get_verbatim("exclude_record_name_characters", |text| Ok(text.to_owned()));
        let browsers = layers.get("record_streams", value::switch);
        let every_rtmp = layers.get("record_flash_published_streams", value::switch);
        let hook_script = layers.get("on_record_hook_script", value::path);
        let hook_timeout = layers.get("on_record_hook_timeout", value::time);
        let min_free_space = layers.get("record_min_free_space", value::size);
        Some(Self {
            dir: dir?,
            rotation: rotation?,
            policy: policy?,
            template: template?,
            name_encoding: name_encoding?,
            excluded_characters: excluded?,
            browsers: browsers?,
            every_rtmp: every_rtmp?,
            hook_script: hook_script?,
            hook_timeout: hook_timeout?,
            min_free_space: min_free_space?,
        })
    }

    pub(super) fn settings(&self) -> Vec<(&'static str, String)> {
        let path = |path: &Path| path.display().to_string();
        vec![
            ("record_dir", path(&self.dir)),
            ("record_rotation", self.rotation.to_string()),
            ("stream_record_policy", self.policy.to_string()),
            ("stream_record_policy_template", self.template.clone()),
            ("encode_record_name", self.name_encoding.to_string()),
            ("exclude_record_name_characters", self.excluded_characters.clone()),
            ("record_streams", self.browsers.to_string()),
            ("record_flash_published_streams", self.every_rtmp.to_string()),
            ("on_record_hook_script", self.hook_script.as_deref().map(path).unwrap_or_default()),
            ("on_record_hook_timeout", value::show_time(self.hook_timeout)),
            ("record_min_free_space", value::show_size(self.min_free_space)),
        ]
    }
}
