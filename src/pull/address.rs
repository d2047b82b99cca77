//! Addresses of sources, checked: how each is pulled, and where it leads.

use std::sync::Arc;

use super::wcs;
use crate::name::mask;

/// An address weir can pull.
#[derive(Clone, PartialEq, Eq)]
pub struct SourceUri {
    /// As the caller wrote it.
    written: Arc<str>,
    scheme: Scheme,
    /// Where it leads; ws and wss have WCS's path appended where they have none.
    full: Arc<str>,
}

/// How a source is pulled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    /// rtmp and rtmps.
    Rtmp,
    /// ws and wss: another WCS server.
    Wcs,
}

/// Why a text is no address to pull.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UriError {
    /// No URI at all, or one without a host.
    #[error("{0} is no usable URI: {1}")]
    Invalid(String, String),
    /// A URI of a scheme that cannot be pulled.
    #[error("{0} cannot be pulled: the scheme must be {1}")]
    Scheme(String, &'static str),
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
    /// Checks an address of an RTMP source from outside.
    ///
    /// # Errors
    /// See [`UriError`].
    pub fn rtmp(text: &str) -> Result<Self, UriError> {
        let uri = Self::parse(text)?;
        match uri.scheme {
            Scheme::Rtmp => Ok(uri),
            Scheme::Wcs => Err(UriError::Scheme(uri.to_string(), "rtmp or rtmps; ws and wss are for /pull/pull")),
        }
    }

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
        let uri = url::Url::parse(text).map_err(|error| invalid(&error.to_string()))?;
        let scheme = match uri.scheme() {
            "rtmp" | "rtmps" => Scheme::Rtmp,
            "ws" | "wss" => Scheme::Wcs,
            _ => return Err(UriError::Scheme(mask(text), "rtmp, rtmps, ws or wss")),
        };
        if uri.host_str().is_none_or(str::is_empty) {
            return Err(invalid("it has no host"));
        }
        if uri.port() == Some(0) {
            return Err(invalid("port 0 is none"));
        }
        if scheme == Scheme::Wcs {
            let full = wcs::full_uri(uri).map_err(invalid)?;
            return Ok(Self { written: text.into(), scheme, full: full.into() });
        }
        let path = uri.path().trim_matches('/');
        if path.split_once('/').is_none_or(|(app, stream)| app.is_empty() || stream.is_empty()) {
            return Err(UriError::NoStream(mask(text)));
        }
        Ok(Self { written: text.into(), scheme, full: text.into() })
    }

    /// The address with its secrets: for the source element and for comparing, never for showing.
    pub fn secret(&self) -> &str {
        &self.full
    }

    /// Whether this is how somebody would write it: as the caller did, with its path, or masked as lists show it.
    pub(super) fn is_written(&self, text: &str) -> bool {
        [&self.written, &self.full].into_iter().any(|own| **own == *text || mask(own) == text)
    }

    /// How it is pulled.
    pub fn scheme(&self) -> Scheme {
        self.scheme
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn addresses_are_checked() {
        for good in ["rtmp://h/live/a", "rtmp://u:p@h:1935/live/a/b?x=1", "rtmps://[::1]/app/s", "rtmp://h//live/a"] {
            assert!(SourceUri::parse(good).is_ok(), "{good}");
        }
        for (bad, said) in [
            ("", "no usable URI"),
            ("live/a", "no usable URI"),
            ("http://h/a/b", "scheme must be"),
            ("rtmp:///live/a", "no host"),
            ("rtmp://h:99999/live/a", "no usable URI"),
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

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "\\PC{0,200}") {
            let _ = SourceUri::parse(&text);
        }
    }
}
