//! What a call answers, before it becomes a response.

use bytes::Bytes;
use serde::Serialize;
use warp::Reply;

use super::error::ApiError;

pub use warp::reply::Response;

/// What a call answers.
pub enum Answer {
    /// 200 and nothing: done.
    Void,
    /// 200 and JSON.
    Json(Bytes),
    /// 200 and something else.
    Data(&'static str, Bytes),
    /// A response as it is: a file, or a body that goes on.
    Whole(Response),
}

impl Answer {
    /// An answer in JSON.
    pub fn json(value: &impl Serialize) -> Result<Self, ApiError> {
        let text = serde_json::to_vec(value);
        let text = text.map_err(|error| ApiError::ours(error.to_string()))?;
        Ok(Self::Json(text.into()))
    }
}

/// 200 and a body.
pub fn whole(body: Bytes) -> Response {
    warp::http::Response::new(body).into_response()
}

/// 200 and nothing.
pub fn empty() -> Response {
    whole(Bytes::new())
}
