//! Pulls from another WCS server: weir connects to its WebSocket as a player and receives over WebRTC.
//!
//! [`dialogue`] is what is said, without a socket or a clock; [`call`] has the socket;
//! [`source`] is one try of a pull, [`push`] a stream of ours published there; [`origins`] makes this server an edge of others.

mod call;
mod dialogue;
mod origins;
mod push;
mod source;

use std::time::Duration;

use url::Url;

pub use call::Dial;
pub use dialogue::Limits;
pub use origins::Origins;
pub(super) use push::Push;
pub(super) use source::one_try;

use super::{Rules, SourceUri, UriError};
use crate::media::PeerOptions;
use call::Address;

/// What a WCS listens at, where an address does not say it.
const PATH: &str = "/websocket";

/// What other WCS servers are called with.
#[derive(Clone)]
pub struct Tools {
    /// Opens connections.
    pub dial: Dial,
    /// Where peers listen.
    pub options: PeerOptions,
    /// Longest time from a server's answer to the first media.
    pub media_timeout: Duration,
    /// The servers that are asked for what nobody publishes here.
    pub origins: Vec<SourceUri>,
    /// What holds for streams that are pulled.
    pub rules: Rules,
}

impl Tools {
    /// Whether the address may be called.
    ///
    /// # Errors
    /// [`UriError::NoTls`].
    pub fn check(&self, uri: &SourceUri) -> Result<(), UriError> {
        match uri.secret().starts_with("wss:") && self.dial.tls.is_none() {
            true => Err(UriError::NoTls(uri.to_string())),
            false => Ok(()),
        }
    }
}

/// The address with WCS's path where it has none.
pub(super) fn full_uri(mut uri: Url) -> Result<String, &'static str> {
    if !uri.username().is_empty() || uri.password().is_some() {
        return Err("a WCS server takes no user and password in its address");
    }
    if uri.fragment().is_some() {
        return Err("a WebSocket's address has no fragment (#)");
    }
    if uri.path() == "/" {
        uri.set_path(PATH);
    }
    Ok(uri.into())
}

/// Where a checked address leads.
fn address(uri: &SourceUri) -> Result<Address, String> {
    let url = Url::parse(uri.secret()).map_err(|error| error.to_string())?;
    let host = url.host_str().ok_or("it has no host")?.trim_matches(['[', ']']).to_owned();
    let port = url.port_or_known_default().ok_or("it has no port")?;
    Ok(Address { host, port, tls: url.scheme() == "wss", uri: url.into() })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn addresses_lead_to_the_websocket() {
        for (written, full, host, port, tls) in [
            ("ws://h:8080", "ws://h:8080/websocket", "h", 8080, false),
            ("ws://h:8080/", "ws://h:8080/websocket", "h", 8080, false),
            ("wss://h:8443/websocket", "wss://h:8443/websocket", "h", 8443, true),
            ("ws://[::1]:8080/x?y=1", "ws://[::1]:8080/x?y=1", "::1", 8080, false),
            ("wss://h", "wss://h/websocket", "h", 443, true),
        ] {
            let uri = SourceUri::parse(written).unwrap();
            let wanted = Address { uri: full.into(), host: host.into(), port, tls };
            assert_eq!(address(&uri).unwrap(), wanted, "{written}");
            assert_eq!(uri.to_string(), full);
        }
        for bad in ["ws://", "ws://u:p@h:1", "ws://h:0", "ws://h/#x", "ws://h:99999"] {
            let reason = SourceUri::parse(bad).unwrap_err().to_string();
            assert!(!reason.contains(":p@"), "{reason}");
        }
    }
}
