//! The HTTP client: one call of a hook server, and what came of it. Source: wcs.md 4.1.

use std::error::Error;
use std::time::Duration;

use data_encoding::{BASE64, HEXLOWER};
use hmac::{Hmac, KeyInit, Mac};
use md5::Md5;
use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue};
use reqwest::redirect;
use serde_json::Value;
use tokio::time::{sleep, timeout};

use super::policy::{Object, Outcome, Unreachable};
use super::{Application, Method};
use crate::config;
use crate::meter::Meter;
use crate::trust::{self, Trust};

/// The setting with more certificates to trust.
const CA_FILE: &str = "rest_hook_ca_file";
/// The largest answer, bytes. Answers mirror what was sent, an SDP included.
const MAX_ANSWER: usize = 1 << 20;
/// Longest time to a connection, whatever an answer may take.
const CONNECT: Duration = Duration::from_secs(5);
/// The pause before a call is repeated; it grows with each.
const AGAIN: Duration = Duration::from_millis(100);
/// How many idle connections to one hook server are kept.
const IDLE: usize = 128;
/// How long they are kept: shorter than servers keep theirs, so that none is used that the server has just closed.
const IDLE_TIME: Duration = Duration::from_secs(4);

/// Calls hook servers. A cheap handle.
#[derive(Clone)]
pub struct Client {
    http: reqwest::Client,
    timeout: Option<Duration>,
    retries: u32,
    key: Option<config::HookKey>,
    meter: Meter,
}

impl Client {
    /// A client with these settings.
    ///
    /// # Errors
    /// The file of certificates cannot be used: in a sentence for the operator.
    pub fn new(settings: &config::Hooks, meter: Meter) -> Result<Self, String> {
        if settings.sign && settings.key.is_empty() {
            tracing::warn!("hooks are not signed: rest_hook_send_hash is true, and rest_hook_secret_key is empty");
        }
        let trust = Trust { ca_file: settings.ca_file.clone(), setting: CA_FILE, insecure: false };
        let http = reqwest::Client::builder()
            .tls_backend_preconfigured(trust.config()?)
            // Another address would get what was meant for this one, its password included.
            .redirect(redirect::Policy::none())
            .retry(reqwest::retry::never())
            .connect_timeout(settings.timeout.map_or(CONNECT, |timeout| timeout.min(CONNECT)))
            .pool_max_idle_per_host(IDLE)
            .pool_idle_timeout(IDLE_TIME)
            .tcp_nodelay(true)
            .user_agent(concat!("weir/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| format!("hook servers cannot be called: {}", told(&error)))?;
        Ok(Self {
            http,
            timeout: settings.timeout,
            retries: if settings.retry_enabled { settings.retries } else { 0 },
            key: Some(settings.key.clone()).filter(|key| settings.sign && !key.is_empty()),
            meter,
        })
    }

    /// How often a call is repeated that did not get through.
    pub fn retries(&self) -> u32 {
        self.retries
    }

    /// Calls a method, again where it did not get through. `rest_request_timeout` is for all tries together.
    pub async fn call(&self, application: &Application, url: &str, method: Method, body: &Object) -> Outcome {
        let body = text(body);
        let tries = async {
            let mut failed = 0;
            loop {
                let outcome = self.send(application, url, method, body.clone()).await;
                if !matches!(outcome, Outcome::Unreachable(_)) || failed >= self.retries {
                    return outcome;
                }
                failed += 1;
                sleep(AGAIN * failed).await;
            }
        };
        self.in_time(method, tries).await
    }

    /// Calls a method once.
    pub async fn once(&self, application: &Application, url: &str, method: Method, body: String) -> Outcome {
        self.in_time(method, self.send(application, url, method, body)).await
    }

    async fn in_time(&self, method: Method, call: impl Future<Output = Outcome>) -> Outcome {
        let Some(limit) = self.timeout else { return call.await };
        timeout(limit, call).await.unwrap_or_else(|_| {
            let reason = format!("no answer within {} s", limit.as_secs_f32());
            let outcome = Outcome::Unreachable(Unreachable { reason, sent: true });
            self.meter.hooked(method.name(), outcome.word(), limit);
            outcome
        })
    }

    async fn send(&self, application: &Application, url: &str, method: Method, body: String) -> Outcome {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json;charset=UTF-8"));
        headers.insert(ACCEPT, HeaderValue::from_static("application/json, application/*+json"));
        if let Some(who) = self.authorization(application, &body) {
            headers.insert(AUTHORIZATION, who);
        }
        // They take the place of what the request has by then: the user and the password of the URL.
        let request = self.http.post(url).headers(headers);
        let began = std::time::Instant::now();
        let outcome = match request.body(body).send().await {
            Ok(response) => answered(response).await,
            Err(error) => Outcome::Unreachable(Unreachable { sent: !error.is_connect(), reason: told(&error) }),
        };
        let took = began.elapsed();
        self.meter.hooked(method.name(), outcome.word(), took);
        let ms = took.as_millis() as u64;
        tracing::debug!(app = %application.key, %method, ms, error = outcome.error(), "hook called");
        outcome
    }

    /// Who is calling: a signature, else the application's user and password; `None` leaves those of the URL, if any.
    fn authorization(&self, application: &Application, body: &str) -> Option<HeaderValue> {
        let who = match &self.key {
            Some(key) => signature(key.reveal(), body),
            None if application.rest_username.is_empty() => return None,
            None => basic(&application.rest_username, application.rest_password.reveal()),
        };
        // Hexadecimal digits and BASE64 are what a header may hold.
        let mut who = HeaderValue::from_str(&who).ok()?;
        who.set_sensitive(true);
        Some(who)
    }
}

/// A body as it is sent.
pub fn text(body: &Object) -> String {
    // A map of JSON values cannot fail to be JSON.
    serde_json::to_string(body).unwrap_or_default()
}

async fn answered(mut response: reqwest::Response) -> Outcome {
    let status = response.status().as_u16();
    let mut text = Vec::new();
    loop {
        match response.chunk().await {
            Ok(Some(chunk)) if text.len() + chunk.len() <= MAX_ANSWER => text.extend_from_slice(&chunk),
            Ok(Some(_)) => return Outcome::Garbage(format!("it is longer than {MAX_ANSWER} bytes")),
            Ok(None) => break,
            // The status is an answer, however the rest of it fares.
            Err(_) if status != 200 => break,
            Err(error) => return Outcome::Unreachable(Unreachable { reason: told(&error), sent: true }),
        }
    }
    if status != 200 {
        return Outcome::Status(status);
    }
    if text.iter().all(u8::is_ascii_whitespace) {
        return Outcome::Answered(Object::new());
    }
    match serde_json::from_slice(&text) {
        Ok(Value::Object(answer)) => Outcome::Answered(answer),
        Ok(_) => Outcome::Garbage("it is no JSON object".into()),
        // The error's own text may quote the answer.
        Err(error) => Outcome::Garbage(format!("it is no JSON, line {} column {}", error.line(), error.column())),
    }
}

/// `WCS` and the HMAC-MD5 of the body.
fn signature(key: &str, body: &str) -> String {
    // HMAC takes keys of any length.
    let Ok(mut mac) = Hmac::<Md5>::new_from_slice(key.as_bytes()) else { return String::new() };
    mac.update(body.as_bytes());
    format!("WCS {}", HEXLOWER.encode(&mac.finalize().into_bytes()))
}

/// HTTP Basic: RFC 7617, in UTF-8.
fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", BASE64.encode(format!("{user}:{password}").as_bytes()))
}

/// An error's innermost reason, without the URL, which may hold a password.
fn told(error: &reqwest::Error) -> String {
    if let Some(complaint) = trust::complaint(error, CA_FILE) {
        return complaint;
    }
    let mut innermost: &dyn Error = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    if error.source().is_none() {
        return if error.is_timeout() { "it timed out".into() } else { "the connection failed".into() };
    }
    innermost.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 2202, section 2, test case 2.
    #[test]
    fn the_signature_is_that_of_the_rfc() {
        let signed = signature("Jefe", "what do ya want for nothing?");
        assert_eq!(signed, "WCS 750c783e6ab0b503eaa86e310a5db738");
    }
}
