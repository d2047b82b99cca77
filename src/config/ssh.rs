//! Settings of the command line over SSH.

use std::path::PathBuf;
use std::time::Duration;

use super::source::Layers;
use super::value;

/// Settings of the command line over SSH.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ssh {
    /// The TCP port; `Some(0)` takes a free one, `None` is no SSH at all (`ssh.port`).
    pub port: Option<u16>,
    /// The file of public keys that log in; `None` is `authorized_keys` in the data directory (`ssh_authorized_keys`).
    pub authorized_keys: Option<PathBuf>,
    /// How long a client may type nothing (`ssh_idle_timeout`).
    pub idle_timeout: Duration,
    /// Most clients that are logged in at once, at least 1 (`ssh_max_connections`).
    pub max_connections: u64,
}

impl Ssh {
    pub(super) fn read(layers: &mut Layers) -> Option<Self> {
        let port = layers.get("ssh.port", port);
        let authorized_keys = layers.get("ssh_authorized_keys", value::path);
        let idle_timeout = layers.get("ssh_idle_timeout", value::time);
        let max_connections = layers.get("ssh_max_connections", value::positive_size);
        Some(Self {
            port: port?,
            authorized_keys: authorized_keys?,
            idle_timeout: idle_timeout?,
            max_connections: max_connections?,
        })
    }

    pub(super) fn settings(&self) -> [(&'static str, String); 4] {
        let port = match self.port {
            None => "0".to_owned(),
            Some(0) => FREE.to_owned(),
            Some(port) => port.to_string(),
        };
        [
            ("ssh.port", port),
            ("ssh_authorized_keys", self.authorized_keys.as_ref().map(|p| p.display().to_string()).unwrap_or_default()),
            ("ssh_idle_timeout", value::show_time(self.idle_timeout)),
            ("ssh_max_connections", self.max_connections.to_string()),
        ]
    }
}

const FREE: &str = "free";

/// Unlike with other ports 0 is off: nobody wants a door to the controls where they do not expect it.
fn port(text: &str) -> value::Parsed<Option<u16>> {
    match text.trim() {
        "0" | "off" => Ok(None),
        FREE => Ok(Some(0)),
        number => match value::port(number) {
            Ok(port) => Ok(Some(port)),
            Err(_) => value::expected("a port from 1 to 65535, free for any free one, or 0 for no SSH"),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports() {
        for (text, port_is) in [
            ("2001", Some(Some(2001))),
            ("0", Some(None)),
            ("off", Some(None)),
            ("free", Some(Some(0))),
            ("", None),
            ("-1", None),
            ("65536", None),
            ("on", None),
        ] {
            assert_eq!(port(text).ok(), port_is, "{text:?}");
        }
    }
}
