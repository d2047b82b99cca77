//! Settings of what publishing and playing ask for.

use std::fmt;
use std::time::Duration;

use super::record::age;
use super::source::Layers;
use super::value::{self, InvalidValue, Parsed};

/// A shorter secret can be guessed from one token, bytes.
const SHORT: usize = 16;

/// What publishing and playing ask for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gate {
    /// What tokens are signed with; `None` asks for none (`stream_token_secret`).
    pub token_secret: Option<Secret>,
    /// Publishing asks for a token (`stream_token_publish`).
    pub token_publish: bool,
    /// Playing asks for a token (`stream_token_play`).
    pub token_play: bool,
    /// What publishing asks for instead; `None` for nothing (`publish_password`).
    pub publish_password: Option<Secret>,
    /// What playing asks for instead; `None` for nothing (`play_password`).
    pub play_password: Option<Secret>,
}

/// A secret: never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Keeps a text secret.
    pub fn new(text: &str) -> Self {
        Self(text.to_owned())
    }

    /// The text, for the one place that compares or signs with it.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("\"***\"")
    }
}

impl Gate {
    pub(super) fn read(layers: &mut Layers) -> Option<Self> {
        let token_secret = layers.get("stream_token_secret", secret);
        let token_publish = layers.get("stream_token_publish", value::switch);
        let token_play = layers.get("stream_token_play", value::switch);
        let publish_password = layers.get("publish_password", secret);
        let play_password = layers.get("play_password", secret);
        Some(Self {
            token_secret: token_secret?,
            token_publish: token_publish?,
            token_play: token_play?,
            publish_password: publish_password?,
            play_password: play_password?,
        })
    }

    /// Whether the secret is too short to be one.
    pub fn is_weak(&self) -> bool {
        self.token_secret.as_ref().is_some_and(|secret| secret.0.len() < SHORT)
    }

    pub(super) fn settings(&self) -> [(&'static str, String); 5] {
        let shown = |secret: &Option<Secret>| secret.as_ref().map(|secret| secret.0.clone()).unwrap_or_default();
        [
            ("stream_token_secret", shown(&self.token_secret)),
            ("stream_token_publish", self.token_publish.to_string()),
            ("stream_token_play", self.token_play.to_string()),
            ("publish_password", shown(&self.publish_password)),
            ("play_password", shown(&self.play_password)),
        ]
    }
}

fn secret(text: &str) -> Parsed<Option<Secret>> {
    Ok((!text.is_empty()).then(|| Secret::new(text)))
}

/// How long a token of `weir token` is to hold: seconds, or a number with m, h or d.
///
/// # Errors
/// What is allowed.
pub fn lifetime(text: &str) -> Result<Duration, InvalidValue> {
    match age(text)? {
        Some(time) => Ok(time),
        None => value::expected("a time over 0: seconds, or a number with m, h or d (1h)"),
    }
}
