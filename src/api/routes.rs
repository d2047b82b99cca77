//! Every call there is, on one screen.

use std::sync::atomic::Ordering;

use bytes::{Buf, Bytes, BytesMut};
use futures_util::{Stream, StreamExt};
use serde::Serialize;
use warp::http::{HeaderValue, Method, Response, StatusCode, header};
use warp::{Filter, Rejection};

use super::error::ApiError;
use super::request::Request;
use super::{Api, connection, pipelines, pull, stream};
use crate::pull::Family;

/// What a call answers.
pub enum Answer {
    /// 200 and nothing: done.
    Void,
    /// 200 and JSON.
    Json(Bytes),
    /// 200 and something else.
    Data(&'static str, Bytes),
}

impl Answer {
    /// An answer in JSON.
    pub fn json(value: &impl Serialize) -> Result<Self, ApiError> {
        let text = serde_json::to_vec(value);
        let text =
            text.map_err(|error| ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "Internal", error.to_string()))?;
        Ok(Self::Json(text.into()))
    }
}

const GET: &[Method] = &[Method::GET];
const POST: &[Method] = &[Method::POST];
const BOTH: &[Method] = &[Method::POST, Method::GET];

async fn route(api: &Api, request: &Request) -> Result<Answer, ApiError> {
    let path = request.path.trim_end_matches('/');
    let segments: Vec<&str> = path.split('/').skip(1).collect();
    let methods = match segments[..] {
        ["rest-api", "pull", "pull"] | ["rest-api", "pull", "rtmp", "pull"] => POST,
        ["rest-api", .., "terminate" | "snapshot"] => POST,
        ["rest-api", "pipelines", ..] | ["health", ..] => GET,
        _ => BOTH,
    };
    let call = async {
        request.allow(methods)?;
        match segments[..] {
            ["rest-api", "pull", "rtmp", call] => pull::call(api, Family::Rtmp, call, request).await,
            ["rest-api", "pull", call] => pull::call(api, Family::Pull, call, request).await,
            ["rest-api", "stream", "find_all"] => stream::find_all(api),
            ["rest-api", "stream", "find"] => stream::find(api, request),
            ["rest-api", "stream", "terminate"] => stream::terminate(api, request).await,
            ["rest-api", "stream", "snapshot"] => stream::snapshot(api, request).await,
            ["rest-api", "connection", "find_all"] => connection::find_all(api),
            ["rest-api", "connection", "find"] => connection::find(api, request),
            ["rest-api", "connection", "terminate"] => connection::terminate(api, request).await,
            ["rest-api", "pipelines"] => pipelines::list(api),
            ["rest-api", "pipelines", id] => pipelines::one(api, id).await,
            ["rest-api", "pipelines", id, "graph.dot"] => pipelines::dot(api, id).await,
            ["rest-api", "pipelines", id, "graph.svg"] => pipelines::svg(api, id).await,
            ["health", "live"] => Answer::json(&serde_json::json!({"status": "UP"})),
            _ => Err(no_such_call()),
        }
    };
    if known(&segments) { call.await } else { Err(no_such_call()) }
}

/// Whether there is a call of that path; asked before its method is looked at.
fn known(segments: &[&str]) -> bool {
    match segments {
        ["rest-api", "pull", "rtmp", call] | ["rest-api", "pull", call] => pull::CALLS.contains(call),
        ["rest-api", "stream", "snapshot"] => true,
        ["rest-api", "stream" | "connection", call] => ["find_all", "find", "terminate"].contains(call),
        ["rest-api", "pipelines"] | ["rest-api", "pipelines", _] | ["health", "live"] => true,
        ["rest-api", "pipelines", _, graph] => ["graph.dot", "graph.svg"].contains(graph),
        _ => false,
    }
}

fn no_such_call() -> ApiError {
    ApiError::not_found("NoSuchCall", "there is no call of that path")
}

/// The whole API as a filter that always answers.
pub(super) fn all(api: Api) -> impl Filter<Extract = (Response<Bytes>,), Error = Rejection> + Clone {
    warp::method().and(warp::path::full()).and(warp::body::stream()).then(
        move |method: Method, path: warp::path::FullPath, body| {
            let api = api.clone();
            async move { answer(&api, method, path.as_str(), body).await }
        },
    )
}

async fn answer<B: Buf>(
    api: &Api,
    method: Method,
    path: &str,
    body: impl Stream<Item = Result<B, warp::Error>>,
) -> Response<Bytes> {
    let mut response = if method == Method::OPTIONS {
        Response::new(Bytes::new())
    } else {
        match handled(api, method, path, body).await {
            Ok(answer) => success(answer),
            Err(error) => failure(&error, path),
        }
    };
    allow_origins(api, &mut response);
    response
}

async fn handled<B: Buf>(
    api: &Api,
    method: Method,
    path: &str,
    body: impl Stream<Item = Result<B, warp::Error>>,
) -> Result<Answer, ApiError> {
    if api.closing.load(Ordering::Relaxed) {
        let sentence = "the server is shutting down";
        return Err(ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "ShuttingDown", sentence));
    }
    let body = collected(body, api.max_body).await?;
    let path = path.to_owned();
    route(api, &Request { method, path, body }).await
}

/// Reads a body that may have any length on the wire and at most `limit` bytes here.
async fn collected<B: Buf>(body: impl Stream<Item = Result<B, warp::Error>>, limit: u64) -> Result<Bytes, ApiError> {
    let mut collected = BytesMut::new();
    let mut body = std::pin::pin!(body);
    while let Some(chunk) = body.next().await {
        let mut chunk = chunk.map_err(|error| ApiError::bad("BodyUnreadable", error.to_string()))?;
        while chunk.has_remaining() {
            let piece = chunk.chunk();
            if (collected.len() + piece.len()) as u64 > limit {
                let sentence = format!("a body has at most {limit} bytes (rest_max_body)");
                return Err(ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "BodyTooLarge", sentence));
            }
            collected.extend_from_slice(piece);
            let taken = piece.len();
            chunk.advance(taken);
        }
    }
    Ok(collected.freeze())
}

fn success(answer: Answer) -> Response<Bytes> {
    let (kind, body) = match answer {
        Answer::Void => return Response::new(Bytes::new()),
        Answer::Json(body) => ("application/json;charset=UTF-8", body),
        Answer::Data(kind, body) => (kind, body),
    };
    let mut response = Response::new(body);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

fn failure(error: &ApiError, path: &str) -> Response<Bytes> {
    if error.status.is_server_error() {
        tracing::warn!(path, code = error.code, "a call failed: {}", error.sentence);
    }
    let body = serde_json::to_vec(&error.body(path)).unwrap_or_default();
    let mut response = success(Answer::Json(body.into()));
    *response.status_mut() = error.status;
    response
}

fn allow_origins(api: &Api, response: &mut Response<Bytes>) {
    let headers = [
        (header::ACCESS_CONTROL_ALLOW_ORIGIN, &api.cors.allow_origin),
        (header::ACCESS_CONTROL_ALLOW_HEADERS, &api.cors.allow_headers),
        (header::ACCESS_CONTROL_ALLOW_METHODS, &api.cors.allow_methods),
    ];
    for (name, value) in headers {
        if let Some(value) = value.as_ref().and_then(|value| HeaderValue::from_str(value).ok()) {
            response.headers_mut().insert(name, value);
        }
    }
}
