//! The addresses of sources: which of them weir can pull, and how they are written, compared and shown.

use std::net::IpAddr;
use std::sync::Arc;

use url::Url;

use super::wcs;
use crate::name::mask;

/// What a source speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    /// `rtmp://` and `rtmps://`.
    Rtmp,
    /// `rtsp://` and `rtsps://` (RFC 2326).
    Rtsp,
    /// `ws://` and `wss://`: another WCS server.
    Wcs,
}

impl Scheme {
    /// The scheme of an address; `None` for one weir cannot pull.
    pub fn of(address: &str) -> Option<Self> {
        match address.split_once("://")?.0 {
            "rtmp" | "rtmps" => Some(Self::Rtmp),
            "rtsp" | "rtsps" => Some(Self::Rtsp),
            "ws" | "wss" => Some(Self::Wcs),
            _ => None,
        }
    }
}

/// An address weir can pull.
#[derive(Clone, PartialEq, Eq)]
pub struct SourceUri {
    /// As its caller wrote it.
    text: Arc<str>,
    scheme: Scheme,
    /// The same, but for a WCS server's address without a path, which has WCS's.
    full: Arc<str>,
}

/// Why a text is no address to pull.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UriError {
    /// No URI at all, or one without a host.
    #[error("{0} is no usable URI: {1}")]
    Invalid(String, String),
    /// A URI of a scheme that cannot be pulled.
    #[error("{0} cannot be pulled: the scheme must be rtmp, rtmps, rtsp, rtsps, ws or wss")]
    Scheme(String),
    /// wss is not allowed.
    #[error("{0} cannot be pulled: set wcs_agent_ssl=true to allow wss")]
    NoTls(String),
    /// An RTMP URI needs an application and a stream.
    #[error("{0} names no stream: an RTMP address is rtmp://host[:port]/application/stream")]
    NoStream(String),
}

impl std::fmt::Debug for SourceUri {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&mask(&self.full))
    }
}

/// Shown with its secrets masked.
impl std::fmt::Display for SourceUri {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&mask(&self.full))
    }
}

impl SourceUri {
    /// Checks an address from outside.
    ///
    /// # Errors
    /// See [`UriError`].
    pub fn parse(text: &str) -> Result<Self, UriError> {
        let invalid = |reason: &str| UriError::Invalid(mask(text), reason.to_owned());
        if text.len() > crate::name::MAX_NAME {
            return Err(UriError::Invalid("the uri".into(), "it is too long".into()));
        }
        if text.chars().any(|c| c.is_control() || c == ' ') {
            return Err(invalid("it holds spaces or control characters"));
        }
        let uri = Url::parse(text).map_err(|error| invalid(&error.to_string()))?;
        let scheme = Scheme::of(text).ok_or_else(|| UriError::Scheme(mask(text)))?;
        if uri.host_str().is_none_or(str::is_empty) {
            return Err(invalid("it has no host"));
        }
        if uri.port() == Some(0) {
            return Err(invalid("port 0 is none"));
        }
        if scheme == Scheme::Rtmp && !names_a_stream(uri.path()) {
            return Err(UriError::NoStream(mask(text)));
        }
        let full = match scheme {
            Scheme::Wcs => wcs::full_uri(uri).map_err(invalid)?,
            Scheme::Rtmp | Scheme::Rtsp => text.to_owned(),
        };
        Ok(Self { text: text.into(), scheme, full: full.into() })
    }

    /// What the source speaks.
    pub fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// The host, without an IPv6 address's brackets, and the TCP port.
    pub fn endpoint(&self) -> Option<(String, u16)> {
        let uri = Url::parse(&self.text).ok()?;
        let host = uri.host_str()?.trim_start_matches('[').trim_end_matches(']').to_owned();
        // RFC 7826, 22.14.1; Adobe's RTMP specification, and the HTTPS port for RTMP over TLS.
        let usual = match uri.scheme() {
            "rtsp" => 554,
            "rtsps" => 322,
            "rtmps" | "wss" => 443,
            "ws" => 80,
            _ => 1935,
        };
        Some((host, uri.port().unwrap_or(usual)))
    }

    /// The address with its secrets: for comparing and naming, never for showing.
    pub fn secret(&self) -> &str {
        &self.full
    }

    /// Whether this is how somebody would write it: as the caller did, with its path, or masked as lists show it.
    pub(super) fn is_written(&self, text: &str) -> bool {
        [&self.text, &self.full].into_iter().any(|own| **own == *text || mask(own) == text)
    }

    /// The address with its secrets, for the element that dials it. An RTSP one has what is special in its user and
    /// password percent-encoded, for `user:p@ssword@host` too: a camera's password is written as it is.
    pub fn dialled(&self) -> String {
        match (self.scheme, Url::parse(&self.text)) {
            (Scheme::Rtsp, Ok(uri)) => uri.into(),
            _ => self.text.to_string(),
        }
    }

    /// The same with an address in place of the host's name.
    pub(super) fn dialled_at(&self, address: IpAddr) -> String {
        let named = Url::parse(&self.text).ok().and_then(|mut uri| uri.set_ip_host(address).ok().map(|()| uri));
        named.map_or_else(|| self.dialled(), Url::into)
    }
}

/// Whether an RTMP path has an application and a stream.
fn names_a_stream(path: &str) -> bool {
    let parts = path.trim_matches('/').split_once('/');
    parts.is_some_and(|(app, stream)| !app.is_empty() && !stream.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn addresses_are_checked() {
        for good in [
            "rtmp://h/live/a",
            "rtmp://u:p@h:1935/live/a/b?x=1",
            "rtmps://[::1]/app/s",
            "rtmp://h//live/a",
            "rtsp://camera",
            "rtsp://u:p@ss@h:554/Streaming/Channels/101?transportmode=unicast",
            "rtsps://[::1]:322/a",
            "ws://h:8080",
        ] {
            assert!(SourceUri::parse(good).is_ok(), "{good}");
        }
        for (bad, said) in [
            ("", "no usable URI"),
            ("live/a", "no usable URI"),
            ("http://h/a/b", "scheme"),
            ("rtmp:///live/a", "no host"),
            ("rtsp:///a", "no host"),
            ("rtmp://h:99999/live/a", "no usable URI"),
            ("rtsp://u:p/w@h/a", "no usable URI"),
            ("rtmp://h:0/live/a", "port 0"),
            ("rtmp://h/live", "names no stream"),
            ("rtmp://h/live/", "names no stream"),
            ("rtmp://h/live/a b", "spaces"),
            ("rtmp://h/live/a\n", "control"),
        ] {
            let reason = SourceUri::parse(bad).map_err(|e| e.to_string());
            assert!(reason.as_ref().is_err_and(|r| r.contains(said)), "{bad:?}: {reason:?}");
        }
        let masked = SourceUri::parse("http://u:secret@h/a/b").map_err(|e| e.to_string());
        assert!(masked.is_err_and(|reason| !reason.contains("secret")));
    }

    #[test]
    fn what_is_dialled_has_its_password_encoded() {
        for (written, dialled) in [
            ("rtsp://admin:p@ss@h/a", "rtsp://admin:p%40ss@h/a"),
            ("rtsp://admin:p%40ss%3A@h/a", "rtsp://admin:p%40ss%3A@h/a"),
            ("rtsp://h:8554/a?x=1", "rtsp://h:8554/a?x=1"),
            ("rtmp://u:p@ss@h/live/a", "rtmp://u:p@ss@h/live/a"),
        ] {
            assert_eq!(SourceUri::parse(written).map(|uri| uri.dialled()), Ok(dialled.to_owned()));
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "\\PC{0,200}") {
            let _ = SourceUri::parse(&text);
        }
    }
}
