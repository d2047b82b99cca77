//! Settings of REST hooks and of the keep-alive of streams.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use super::browser::time_or_never;
use super::source::Layers;
use super::value::{self, Parsed};

/// Settings of the calls of hook servers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hooks {
    /// Hook servers are called at all (not `disable_rest_requests`).
    pub enabled: bool,
    /// How long a hook server may take to answer; `None` for ever (`rest_request_timeout`).
    pub timeout: Option<Duration>,
    /// How often a call is repeated that did not get through (`rest_client_request_retry_count`).
    pub retries: u32,
    /// Repeating is switched on (`rest_client_request_sent_retry_enabled`).
    pub retry_enabled: bool,
    /// Bodies are signed, where there is a key (`rest_hook_send_hash`).
    pub sign: bool,
    /// The key of the signature (`rest_hook_secret_key`).
    pub key: HookKey,
    /// A PEM file of certificates that are trusted beside the system's (`rest_hook_ca_file`).
    pub ca_file: Option<PathBuf>,
    /// Most events of an application that wait for their delivery, at least 1 (`rest_hook_queue`).
    pub queue: u64,
    /// The age at which an event that could not be delivered is given up (`rest_hook_queue_time`).
    pub queue_time: Duration,
    /// The keep-alive of streams.
    pub keep_alive: StreamKeepAlive,
}

/// Settings of the keep-alive of streams (wcs.md 4.7).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamKeepAlive {
    /// It is on (`keep_alive_streaming_sessions_enabled`).
    pub enabled: bool,
    /// The time between two beats of a stream (`streaming_sessions_keep_alive_interval`).
    pub interval: Duration,
    /// The applications whose streams have one (`streaming_sessions_keep_alive_app_keys`).
    pub app_keys: Vec<String>,
}

/// A secret: never shown.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct HookKey(String);

impl HookKey {
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The key, for the one place that signs.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for HookKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HookKey")
    }
}

impl Hooks {
    pub(super) fn read(layers: &mut Layers) -> Option<Self> {
        let disabled = layers.get("disable_rest_requests", value::switch);
        let timeout = layers.get("rest_request_timeout", seconds_or_never);
        let retries = layers.get("rest_client_request_retry_count", retries);
        let retry_enabled = layers.get("rest_client_request_sent_retry_enabled", value::switch);
        let sign = layers.get("rest_hook_send_hash", value::switch);
        let key = layers.get("rest_hook_secret_key", |text| Ok(HookKey(text.to_owned())));
        let ca_file = layers.get("rest_hook_ca_file", value::path);
        let queue = layers.get("rest_hook_queue", value::positive_size);
        let queue_time = layers.get("rest_hook_queue_time", value::time);
        let keep_alive = StreamKeepAlive::read(layers);
        Some(Self {
            enabled: !disabled?,
            timeout: timeout?,
            retries: retries?,
            retry_enabled: retry_enabled?,
            sign: sign?,
            key: key?,
            ca_file: ca_file?,
            queue: queue?,
            queue_time: queue_time?,
            keep_alive: keep_alive?,
        })
    }

    pub(super) fn settings(&self) -> Vec<(&'static str, String)> {
        let seconds = self.timeout.map(|time| match time.subsec_millis() {
            0 => time.as_secs().to_string(),
            _ => format!("{}ms", time.as_millis()),
        });
        vec![
            ("disable_rest_requests", (!self.enabled).to_string()),
            ("rest_request_timeout", seconds.unwrap_or_else(|| "0".to_owned())),
            ("rest_client_request_retry_count", self.retries.to_string()),
            ("rest_client_request_sent_retry_enabled", self.retry_enabled.to_string()),
            ("rest_hook_send_hash", self.sign.to_string()),
            ("rest_hook_secret_key", self.key.reveal().to_owned()),
            ("rest_hook_ca_file", self.ca_file.as_deref().map(|path| path.display().to_string()).unwrap_or_default()),
            ("rest_hook_queue", self.queue.to_string()),
            ("rest_hook_queue_time", value::show_time(self.queue_time)),
            ("keep_alive_streaming_sessions_enabled", self.keep_alive.enabled.to_string()),
            ("streaming_sessions_keep_alive_interval", value::show_time(self.keep_alive.interval)),
            ("streaming_sessions_keep_alive_app_keys", self.keep_alive.app_keys.join(",")),
        ]
    }
}

impl StreamKeepAlive {
    fn read(layers: &mut Layers) -> Option<Self> {
        let enabled = layers.get("keep_alive_streaming_sessions_enabled", value::switch);
        let interval = layers.get("streaming_sessions_keep_alive_interval", value::time);
        let app_keys = layers.get("streaming_sessions_keep_alive_app_keys", keys);
        Some(Self { enabled: enabled?, interval: interval?, app_keys: app_keys? })
    }
}

const SECONDS: &str = "seconds from 0 to 86400 (15, 15s or 1500ms; 0 for ever)";

/// Plain numbers are seconds here, as in WCS.
fn seconds_or_never(text: &str) -> Parsed<Option<Duration>> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit()) && text != "0";
    let time = if plain { time_or_never(&format!("{text}s")) } else { time_or_never(text) };
    time.or_else(|_| value::expected(SECONDS))
}

fn retries(text: &str) -> Parsed<u32> {
    match text.parse::<u8>() {
        Ok(count) if count <= 100 && !text.starts_with('+') => Ok(count.into()),
        _ => value::expected("a number from 0 to 100"),
    }
}

/// Application keys with commas between them; nothing is no application.
fn keys(text: &str) -> Parsed<Vec<String>> {
    if text.trim().is_empty() {
        return Ok(Vec::new());
    }
    let keys: Vec<String> = text.split(',').map(|key| key.trim().to_owned()).collect();
    if keys.iter().any(String::is_empty) {
        return value::expected("application keys with commas between them, for example defaultApp,flashStreamingApp");
    }
    Ok(keys)
}
