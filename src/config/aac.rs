//! Settings of AAC.

use super::source::Layers;
use super::value;

/// Settings of AAC.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Aac {
    /// Decode with fdkaacdec where that is installed (`use_fdk_aac`).
    pub fdk: bool,
    /// Has no effect: no frame is dropped (`disable_drop_aac_frame`).
    pub disable_drop: bool,
}

impl Aac {
    pub(super) fn read(layers: &mut Layers) -> Option<Self> {
        let fdk = layers.get("use_fdk_aac", value::switch);
        let disable_drop = layers.get("disable_drop_aac_frame", value::switch);
        Some(Self { fdk: fdk?, disable_drop: disable_drop? })
    }

    pub(super) fn settings(&self) -> [(&'static str, String); 2] {
        [("use_fdk_aac", self.fdk.to_string()), ("disable_drop_aac_frame", self.disable_drop.to_string())]
    }
}
