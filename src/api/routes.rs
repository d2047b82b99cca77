//! Every call there is, on one screen.

use std::sync::atomic::Ordering;
use std::time::Instant;

use bytes::{Buf, Bytes, BytesMut};
use futures_util::{Stream, StreamExt};
use warp::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use warp::{Filter, Rejection};

use super::access::CHALLENGE;
use super::answer::{Answer, Response, empty, whole};
use super::error::ApiError;
use super::request::Request;
use super::{
    Api, connection, contract, events, files, health, hooks, metrics, pages, pipelines, ports, pull, recorder,
    recordings, stat, stream,
};
use crate::pull::Family;

/// The families of REST's calls.
const FAMILIES: [&str; 8] = ["pull", "rtsp", "stream", "connection", "pipelines", "recordings", "events", "ports"];
const GET: &[Method] = &[Method::GET];
const POST: &[Method] = &[Method::POST];
const DELETE: &[Method] = &[Method::DELETE];
const BOTH: &[Method] = &[Method::POST, Method::GET];

async fn route(api: &Api, request: &Request) -> Result<Answer, ApiError> {
    let path = request.path.trim_end_matches('/');
    let segments: Vec<&str> = path.split('/').skip(1).collect();
    let methods = match segments[..] {
        ["rest-api", "pull", "pull"] | ["rest-api", "pull", "rtmp", "pull"] | ["rest-api", "rtsp", "startup"] => POST,
        ["rest-api", .., "terminate" | "snapshot"] => POST,
        ["rest-api", "stream", "startRecording" | "stopRecording"] | ["rest-api", "recorder", "startup"] => POST,
        ["rest-api", "recordings", _] => DELETE,
        ["rest-api", "pipelines" | "events" | "recordings" | "ports" | "hooks" | "openapi.json", ..] => GET,
        ["health" | "client" | "client2", ..] | [] | [_] => GET,
        _ => BOTH,
    };
    let call = async {
        request.allow(methods)?;
        match segments[..] {
            ["rest-api", "pull", "rtmp", call] => pull::call(api, Family::Rtmp, call, request).await,
            ["rest-api", "pull", call] => pull::call(api, Family::Pull, call, request).await,
            ["rest-api", "rtsp", call] => pull::call(api, Family::Rtsp, call, request).await,
            ["rest-api", "stream", "find_all"] => stream::find_all(api),
            ["rest-api", "stream", "find"] => stream::find(api, request),
            ["rest-api", "stream", "terminate"] => stream::terminate(api, request).await,
            ["rest-api", "stream", "snapshot"] => stream::snapshot(api, request).await,
            ["rest-api", "stream", "startRecording"] | ["rest-api", "recorder", "startup"] => {
                recorder::start(api, request).await
            }
            ["rest-api", "stream", "stopRecording"] | ["rest-api", "recorder", "terminate"] => {
                recorder::stop(api, request).await
            }
            ["rest-api", "recorder", "find_all"] => recorder::find_all(api),
            ["rest-api", "connection", "find_all"] => connection::find_all(api),
            ["rest-api", "connection", "find"] => connection::find(api, request),
            ["rest-api", "connection", "terminate"] => connection::terminate(api, request).await,
            ["rest-api", "pipelines"] => pipelines::list(api),
            ["rest-api", "pipelines", id] => pipelines::one(api, id).await,
            ["rest-api", "pipelines", id, "graph.dot"] => pipelines::dot(api, id).await,
            ["rest-api", "pipelines", id, "graph.svg"] => pipelines::svg(api, id).await,
            ["rest-api", "recordings"] => recordings::list(api).await,
            ["rest-api", "recordings", name] => recordings::delete(api, name).await,
            ["rest-api", "events"] => Ok(events::follow(api)),
            ["rest-api", "ports"] => ports::all(api),
            ["rest-api", "openapi.json"] => contract::openapi(),
            ["rest-api", "hooks"] => hooks::counts(api),
            ["client", "records", name] => files::record(api, request, name).await,
            ["client2", ..] => files::operator(api, request).await,
            [] if request.is_stat() => stat::page(api, request).await,
            ["metrics"] => metrics::metrics(api, request).await,
            [] => pages::page(request, ""),
            [page] => pages::page(request, page),
            ["health", "live"] => health::live(),
            ["health", "ready"] => health::ready(api, request).await,
            _ => Err(no_such_call()),
        }
    };
    if known(&segments) { call.await } else { Err(no_such_call()) }
}

/// Whether there is a call of that path; asked before its method is looked at.
fn known(segments: &[&str]) -> bool {
    match segments {
        ["rest-api", "pull", "rtmp", call] => pull::has(Family::Rtmp, call),
        ["rest-api", "pull", call] => pull::has(Family::Pull, call),
        ["rest-api", "rtsp", call] => pull::has(Family::Rtsp, call),
        ["rest-api", "stream", "snapshot" | "startRecording" | "stopRecording"] => true,
        ["rest-api", "recorder", call] => ["startup", "terminate", "find_all"].contains(call),
        ["rest-api", "stream" | "connection", call] => ["find_all", "find", "terminate"].contains(call),
        ["rest-api", "pipelines" | "recordings" | "events" | "ports" | "hooks" | "openapi.json"] => true,
        ["rest-api", "pipelines" | "recordings", _] | ["health", "live" | "ready"] | ["metrics"] => true,
        ["client", "records", _] | ["client2", ..] | [] => true,
        [page] => pages::exists(page),
        ["rest-api", "pipelines", _, graph] => ["graph.dot", "graph.svg"].contains(graph),
        _ => false,
    }
}

fn no_such_call() -> ApiError {
    ApiError::not_found("NoSuchCall", "there is no call of that path")
}

/// The whole API as a filter that always answers.
pub(super) fn all(api: Api) -> impl Filter<Extract = (Response,), Error = Rejection> + Clone {
    let query = warp::query::raw().or(warp::any().map(String::new)).unify();
    let head = warp::method().and(warp::path::full()).and(query).and(warp::header::headers_cloned());
    let head = head.map(|method: Method, path: warp::path::FullPath, query: String, headers: HeaderMap| Request {
        method,
        path: path.as_str().to_owned(),
        query,
        headers,
        body: Bytes::new(),
    });
    head.and(warp::body::stream()).then(move |request, body| {
        let api = api.clone();
        async move { answer(&api, request, body).await }
    })
}

async fn answer<B: Buf>(api: &Api, mut request: Request, body: impl Stream<Item = Result<B, warp::Error>>) -> Response {
    let began = Instant::now();
    let mut response = if request.method == Method::OPTIONS {
        empty()
    } else {
        match handled(api, &mut request, body).await {
            Ok(answer) => success(answer),
            Err(error) => failure(&error, &request.path),
        }
    };
    api.meter.call(family(&request.path), response.status().as_u16(), began.elapsed());
    if response.status() == StatusCode::TOO_MANY_REQUESTS {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    }
    if response.status() == StatusCode::REQUEST_TIMEOUT {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    // A recording or a name in JSON is never anything but what its type says.
    response.headers_mut().insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    operators_headers(api, &mut response);
    response
}

/// What a call is counted under. The words are ours, whatever path a client asks for.
fn family(path: &str) -> &'static str {
    let mut segments = path.split('/').skip(1);
    match (segments.next(), segments.next()) {
        (Some("rest-api"), Some(second)) => {
            FAMILIES.iter().find(|family| **family == second).copied().unwrap_or("other")
        }
        (Some("health"), _) => "health",
        (Some("metrics"), _) => "metrics",
        (Some("client" | "client2"), _) => "files",
        _ => "pages",
    }
}

async fn handled<B: Buf>(
    api: &Api,
    request: &mut Request,
    body: impl Stream<Item = Result<B, warp::Error>>,
) -> Result<Answer, ApiError> {
    // Who watches the server sees it to its end.
    if api.closing.load(Ordering::Relaxed) && !request.watches() {
        let sentence = "the server is shutting down";
        return Err(ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "ShuttingDown", sentence));
    }
    if !request.watches() {
        if let Some(refused) = api.refused {
            return Err(refused.into());
        }
        api.admission.request(api.peer)?;
    }
    // Before anything of theirs is kept.
    api.access.check(request, api.peer).await?;
    let limit = api.admission.limits().body;
    let Ok(body) = tokio::time::timeout(limit, collected(body, api)).await else {
        api.meter.refused("rest_body_timeout");
        let sentence = format!("a body has {} ms to come (rest_body_timeout)", limit.as_millis());
        return Err(ApiError::new(StatusCode::REQUEST_TIMEOUT, "BodyTooSlow", sentence));
    };
    request.body = body?;
    route(api, request).await
}

/// Reads a body that may have any length on the wire and at most `rest_max_body` bytes here.
async fn collected<B: Buf>(body: impl Stream<Item = Result<B, warp::Error>>, api: &Api) -> Result<Bytes, ApiError> {
    let limit = api.max_body;
    let mut collected = BytesMut::new();
    let mut body = std::pin::pin!(body);
    while let Some(chunk) = body.next().await {
        let mut chunk = chunk.map_err(|error| ApiError::bad("BodyUnreadable", error.to_string()))?;
        while chunk.has_remaining() {
            let piece = chunk.chunk();
            if (collected.len() + piece.len()) as u64 > limit {
                let sentence = format!("a body has at most {limit} bytes (rest_max_body)");
                api.meter.refused("rest_max_body");
                return Err(ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "BodyTooLarge", sentence));
            }
            collected.extend_from_slice(piece);
            let taken = piece.len();
            chunk.advance(taken);
        }
    }
    Ok(collected.freeze())
}

fn success(answer: Answer) -> Response {
    let (kind, body) = match answer {
        Answer::Void => return empty(),
        Answer::Json(body) => ("application/json;charset=UTF-8", body),
        Answer::Data(kind, body) => (kind, body),
        Answer::Whole(response) => return response,
    };
    let mut response = whole(body);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    // A picture that is opened by itself shows itself, and runs and loads nothing.
    let policy = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'";
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(policy));
    response
}

fn failure(error: &ApiError, path: &str) -> Response {
    // Refusals are said once where they are made: a flood of them is no flood of the log.
    if error.status.is_server_error() && !error.is_refusal() {
        tracing::warn!(path, code = error.code, "a call failed: {}", error.sentence);
    }
    let mut response = if ["/client", "/rest-api", "/health"].iter().any(|api| path.starts_with(api)) {
        success(Answer::Json(serde_json::to_vec(&error.body(path)).unwrap_or_default().into()))
    } else {
        success(Answer::Data("text/plain;charset=UTF-8", format!("{}\n", error.sentence).into()))
    };
    *response.status_mut() = error.status;
    if error.status == StatusCode::UNAUTHORIZED {
        response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static(CHALLENGE));
    }
    response
}

fn operators_headers(api: &Api, response: &mut Response) {
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
    for (name, value) in &api.cors.more {
        if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_str(value)) {
            response.headers_mut().insert(name, value);
        }
    }
}
