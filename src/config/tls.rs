//! Settings of the listeners with TLS.

use std::path::{Path, PathBuf};

use super::source::Layers;
use super::value::{self, Parsed};

/// Settings of the listeners with TLS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tls {
    /// The TCP port of REST and pages; 0 takes a free one, `None` is off (`https.port`).
    pub https: Option<u16>,
    /// The TCP port of browsers' signalling (`wss.port`).
    pub wss: Option<u16>,
    /// The TCP port of encoders and players (`rtmps.port`).
    pub rtmps: Option<u16>,
    /// The certificate, maybe with its chain (`tls_certificate_file`).
    pub certificate: Option<PathBuf>,
    /// Its key; `None` where the certificate's file holds it too (`tls_private_key_file`).
    pub key: Option<PathBuf>,
    /// The rest of its chain (`tls_ca_bundle_file`).
    pub bundle: Option<PathBuf>,
    /// The folder of the settings file, where WCS has its certificate; `None` without such a file.
    pub folder: Option<PathBuf>,
}

impl Tls {
    pub(super) fn read(layers: &mut Layers, conf: Option<&Path>) -> Option<Self> {
        let https = layers.get("https.port", port);
        let wss = layers.get("wss.port", port);
        let rtmps = layers.get("rtmps.port", port);
        let certificate = layers.get("tls_certificate_file", value::path);
        let key = layers.get("tls_private_key_file", value::path);
        let bundle = layers.get("tls_ca_bundle_file", value::path);
        let folder = conf.map(|file| file.parent().unwrap_or(Path::new(".")).to_owned());
        let (https, wss, rtmps) = (https?, wss?, rtmps?);
        Some(Self { https, wss, rtmps, certificate: certificate?, key: key?, bundle: bundle?, folder })
    }

    pub(super) fn settings(&self) -> [(&'static str, String); 6] {
        let port = |port: Option<u16>| port.map(|port| port.to_string()).unwrap_or_default();
        let path = |path: &Option<PathBuf>| path.as_ref().map(|path| path.display().to_string()).unwrap_or_default();
        [
            ("https.port", port(self.https)),
            ("wss.port", port(self.wss)),
            ("rtmps.port", port(self.rtmps)),
            ("tls_certificate_file", path(&self.certificate)),
            ("tls_private_key_file", path(&self.key)),
            ("tls_ca_bundle_file", path(&self.bundle)),
        ]
    }
}

/// A port, or nothing for no listener.
fn port(text: &str) -> Parsed<Option<u16>> {
    if text.trim().is_empty() { Ok(None) } else { value::port(text).map(Some) }
}
