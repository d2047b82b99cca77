//! The only place where an error becomes an HTTP status, a code and a sentence. Shape: wcs.md 14.

use std::time::SystemTime;

use schemars::JsonSchema;
use serde::Serialize;
use warp::http::StatusCode;

use crate::admission::Refused;
use crate::event::epoch_ms;
use crate::hub::PublishError;
use crate::media::MediaError;
use crate::media::graph::GraphError;
use crate::name::{NameError, mask};
use crate::picture::PictureError;
use crate::pull::{PullError, UriError};
use crate::record::RecordError;

/// What a caller is told when a call fails.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiError {
    /// The HTTP status.
    pub status: StatusCode,
    /// Stable, for programs: `StreamNotFound`.
    pub code: &'static str,
    /// For people, secrets masked.
    pub sentence: String,
}

impl ApiError {
    /// An error of the caller's unless the status says otherwise.
    pub fn new(status: StatusCode, code: &'static str, sentence: impl Into<String>) -> Self {
        Self { status, code, sentence: mask(&sentence.into()) }
    }

    /// 400 with a code.
    pub fn bad(code: &'static str, sentence: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code, sentence)
    }

    /// 500: weir's own fault.
    pub fn ours(sentence: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "Internal", sentence)
    }

    /// Whether there was no room for what was asked.
    pub fn is_refusal(&self) -> bool {
        ["LimitReached", "NoDescriptors"].contains(&self.code)
    }

    /// 404 with a code.
    pub fn not_found(code: &'static str, sentence: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, code, sentence)
    }

    /// The JSON body for a call to `path`.
    pub fn body(&self, path: &str) -> ErrorBody<'_> {
        ErrorBody {
            exception: self.code,
            reason: &self.sentence,
            path: mask(path),
            error: self.status.canonical_reason().unwrap_or("Error"),
            message: &self.sentence,
            timestamp: epoch_ms(SystemTime::now()),
            status: self.status.as_u16(),
        }
    }
}

/// The error body of wcs.md 14.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Error")]
pub struct ErrorBody<'a> {
    exception: &'static str,
    reason: &'a str,
    path: String,
    error: &'static str,
    message: &'a str,
    timestamp: u64,
    status: u16,
}

impl From<UriError> for ApiError {
    fn from(error: UriError) -> Self {
        Self::bad("UriInvalid", error.to_string())
    }
}

impl From<NameError> for ApiError {
    fn from(error: NameError) -> Self {
        Self::bad("NameInvalid", error.to_string())
    }
}

impl From<PullError> for ApiError {
    fn from(error: PullError) -> Self {
        match error {
            PullError::AlreadyPulled { .. } => Self::new(StatusCode::CONFLICT, "AlreadyPulled", error.to_string()),
            PullError::AlreadyPushed { .. } => Self::new(StatusCode::CONFLICT, "AlreadyPushed", error.to_string()),
            PullError::NoStream(_) => Self::not_found("StreamNotFound", error.to_string()),
            PullError::NoTracks => Self::bad("NoTracks", error.to_string()),
            PullError::Refused(refused) => refused.into(),
            PullError::NoRemoteName(_) => Self::bad("FieldMissing", error.to_string()),
            PullError::Barred(_) => Self::new(StatusCode::FORBIDDEN, "PullDenied", error.to_string()),
            PullError::Uri(error) => error.into(),
            PullError::OtherFamily(..) => Self::bad("UriInvalid", error.to_string()),
            PullError::Name(error) => error.into(),
            PullError::Publish(error) => error.into(),
        }
    }
}

impl From<Refused> for ApiError {
    fn from(refused: Refused) -> Self {
        let (status, code) = match refused.limit {
            "rest_max_requests" => (StatusCode::TOO_MANY_REQUESTS, "TooManyRequests"),
            "reserved_descriptors" => (StatusCode::SERVICE_UNAVAILABLE, "NoDescriptors"),
            _ => (StatusCode::SERVICE_UNAVAILABLE, "LimitReached"),
        };
        Self::new(status, code, refused.to_string())
    }
}

impl From<PublishError> for ApiError {
    fn from(error: PublishError) -> Self {
        match error {
            PublishError::NameTaken(_) => Self::new(StatusCode::CONFLICT, "NameInUse", error.to_string()),
            PublishError::Refused(refused) => refused.into(),
            PublishError::Closing => Self::new(StatusCode::SERVICE_UNAVAILABLE, "ShuttingDown", error.to_string()),
        }
    }
}

impl From<MediaError> for ApiError {
    fn from(error: MediaError) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "PipelineFailed", error.to_string())
    }
}

impl From<PictureError> for ApiError {
    fn from(error: PictureError) -> Self {
        match error {
            PictureError::NotFound | PictureError::NotReady => Self::not_found("StreamNotFound", error.to_string()),
            PictureError::NoVideo => Self::new(StatusCode::CONFLICT, "NoVideo", error.to_string()),
            PictureError::Failed(_) => {
                Self::new(StatusCode::INTERNAL_SERVER_ERROR, "SnapshotFailed", error.to_string())
            }
        }
    }
}

impl From<RecordError> for ApiError {
    fn from(error: RecordError) -> Self {
        match error {
            RecordError::NoSession(_) => Self::not_found("StreamNotFound", error.to_string()),
            RecordError::NotRecorded(_) => Self::not_found("RecorderNotFound", error.to_string()),
            RecordError::Failed(_) => {
                Self::new(StatusCode::INTERNAL_SERVER_ERROR, "RecordingFailed", error.to_string())
            }
            RecordError::Refused(refused) => refused.into(),
            RecordError::Closing => Self::new(StatusCode::SERVICE_UNAVAILABLE, "ShuttingDown", error.to_string()),
        }
    }
}

impl From<GraphError> for ApiError {
    fn from(error: GraphError) -> Self {
        match error {
            GraphError::NoDot => Self::new(StatusCode::NOT_IMPLEMENTED, "GraphvizMissing", error.to_string()),
            GraphError::Failed(_) => Self::new(StatusCode::INTERNAL_SERVER_ERROR, "GraphFailed", error.to_string()),
        }
    }
}
