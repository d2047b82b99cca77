//! `/health/live`: the process answers. `/health/ready`: it takes work, or why not; `?verbose` adds what it stands on, the
//! known defects of the GStreamer in use among it.

use serde::Serialize;
use serde_json::json;
use std::sync::atomic::Ordering;
use warp::Reply;
use warp::http::StatusCode;

use super::Api;
use super::answer::Answer;
use super::error::ApiError;
use super::metrics::{self, Snapshot};
use super::request::Request;
use crate::{media, record};

/// Why the server takes no work.
#[derive(Debug, Serialize, PartialEq, Eq)]
struct Reason {
    /// Stable, for programs.
    code: &'static str,
    /// For people.
    reason: String,
}

/// `/health/live`.
pub fn live() -> Result<Answer, ApiError> {
    Answer::json(&json!({"status": "UP"}))
}

/// `/health/ready`: 200, or 503 with the reasons.
pub async fn ready(api: &Api, request: &Request) -> Result<Answer, ApiError> {
    let now = metrics::snapshot(api, &[]).await?;
    let dir = api.recordings.dir().to_owned();
    let free = tokio::task::spawn_blocking(move || record::free_space(&dir).map_err(|error| error.to_string()));
    let free = free.await.map_err(|error| ApiError::ours(error.to_string()))?;
    let mut reasons: Vec<Reason> = disk(free.as_ref(), api.min_free_space).into_iter().collect();
    if api.closing.load(Ordering::Relaxed) {
        reasons.push(Reason { code: "draining", reason: "the server is shutting down".into() });
    }
    if let Err(refused) = api.admission.descriptors() {
        reasons.push(Reason { code: "descriptors", reason: refused.to_string() });
    }
    let status = if reasons.is_empty() { "UP" } else { "DOWN" };
    let mut body = json!({"status": status, "reasons": reasons});
    if request.asks("verbose") {
        body["verbose"] = verbose(&now, free.ok());
    }
    let mut response = warp::reply::json(&body).into_response();
    if !reasons.is_empty() {
        *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    }
    Ok(Answer::Whole(response))
}

fn verbose(now: &Snapshot, free: Option<u64>) -> serde_json::Value {
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "gstreamer": now.gstreamer,
        "gstreamerDefects": media::defects(),
        "freeSpace": free,
        "descriptors": now.process.descriptors,
        "maxDescriptors": now.process.max_descriptors,
    })
}

/// `free` bytes, of which `least` have to stay; 0 for no limit.
fn disk(free: Result<&u64, &String>, least: u64) -> Option<Reason> {
    match free {
        Err(error) => Some(Reason { code: "diskUnusable", reason: format!("record_dir cannot be used: {error}") }),
        Ok(free) if *free < least => {
            let sentence = format!(
                "the file system of record_dir has {} MiB left, and record_min_free_space keeps {} MiB free",
                free >> 20,
                least >> 20
            );
            Some(Reason { code: "diskFull", reason: sentence })
        }
        Ok(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_is_judged() {
        let code = |free: Result<&u64, &String>, least| disk(free, least).map(|reason| reason.code);
        assert_eq!(code(Ok(&10), 10), None);
        assert_eq!(code(Ok(&9), 10), Some("diskFull"));
        assert_eq!(code(Ok(&0), 0), None);
        assert_eq!(code(Err(&"no such folder".to_owned()), 0), Some("diskUnusable"));
    }
}
