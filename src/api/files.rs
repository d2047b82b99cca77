//! Files of a folder over HTTP: recordings at `/client/records/<name>` (wcs.md 3.11), the operator's pages at `/client2/`.

use std::io;
use std::path::{Path, PathBuf};

use bytes::{Bytes, BytesMut};
use futures_util::{Stream, stream};
use percent_encoding::{NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use rustix::fs::OFlags;
use tokio::fs::{File, OpenOptions};
use tokio::io::{AsyncReadExt, AsyncSeekExt, SeekFrom};
use warp::Reply;
use warp::http::{HeaderValue, Method, StatusCode, header};

use super::Api;
use super::answer::{Answer, Response, empty};
use super::error::ApiError;
use super::range::{self, Wanted};
use super::request::Request;
use super::version::{Version, insert};
use crate::record::FileState;

/// How much of a file is in memory for one reader.
const PIECE: usize = 64 * 1024;
/// What has no type of its own.
const BYTES: &str = "application/octet-stream";

/// A file that is open, with what its headers say.
struct Found {
    file: File,
    length: u64,
    version: Version,
    kind: String,
}

/// `/client/records/{name}`: a finished recording, whole or in part.
pub async fn record(api: &Api, request: &Request, name: &str) -> Result<Answer, ApiError> {
    let none = || ApiError::not_found("RecordNotFound", "there is no finished recording of that name");
    let name = plain(name).filter(|name| FileState::of(name) == FileState::Finished).ok_or_else(none)?;
    let dir = api.recordings.dir();
    let mut found = found(dir, &dir.join(&name)).await.map_err(|_| none())?;
    // By its extension alone it could be TypeScript.
    if name.ends_with(".ts") {
        "video/mp2t".clone_into(&mut found.kind);
    }
    // A page that somebody left among the recordings must not run as one of ours.
    if !["video/", "audio/"].iter().any(|media| found.kind.starts_with(media)) {
        BYTES.clone_into(&mut found.kind);
    }
    let mut response = send(found, request).await?;
    if request.asks("download") {
        // The name of any language, after RFC 8187.
        let encoded = utf8_percent_encode(&name, NON_ALPHANUMERIC);
        insert(response.headers_mut(), header::CONTENT_DISPOSITION, &format!("attachment; filename*=UTF-8''{encoded}"));
    }
    Ok(Answer::Whole(response))
}

/// `/client2/…`: a file of the operator's folder, or a folder's `index.html`.
pub async fn operator(api: &Api, request: &Request) -> Result<Answer, ApiError> {
    let none = || ApiError::not_found("PageNotFound", "there is no page of that path");
    let root = api.web_root.as_deref().ok_or_else(none)?;
    let mut path = inside(root, request.path.trim_start_matches("/client2")).ok_or_else(none)?;
    let folder = tokio::fs::metadata(&path).await.is_ok_and(|about| about.is_dir());
    match (folder, request.path.ends_with('/')) {
        // The links of its page start at the folder.
        (true, false) => return Ok(Answer::Whole(moved(request))),
        (true, true) => path.push("index.html"),
        (false, true) => return Err(none()),
        (false, false) => {}
    }
    let found = found(root, &path).await.map_err(|_| none())?;
    Ok(Answer::Whole(send(found, request).await?))
}

/// The file that an encoded path below `root` names, before links are followed.
fn inside(root: &Path, path: &str) -> Option<PathBuf> {
    let mut file = root.to_owned();
    for segment in path.split('/').filter(|segment| !segment.is_empty()) {
        file.push(plain(segment)?);
    }
    Some(file)
}

/// One name in a folder, decoded; `None` for what is no such name, one that is too long, or a hidden one: `..`, `%2e%2e`, `a%2fb`, `.git`.
pub fn plain(segment: &str) -> Option<String> {
    let name = percent_decode_str(segment).decode_utf8().ok()?;
    // No Linux file system has a longer name.
    let bad = name.is_empty() || name.len() > 255 || name.starts_with('.') || name.contains(['/', '\\', '\0']);
    (!bad).then(|| name.into_owned())
}

/// Opens a plain file that is in `root` once all links are followed.
async fn found(root: &Path, path: &Path) -> io::Result<Found> {
    let real = tokio::fs::canonicalize(path).await?;
    if !real.starts_with(root) {
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    // A pipe in the folder would keep whoever opens it waiting.
    let flags = (OFlags::NONBLOCK | OFlags::NOFOLLOW).bits().cast_signed();
    let file = OpenOptions::new().read(true).custom_flags(flags).open(&real).await?;
    let about = file.metadata().await?;
    if !about.is_file() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let version = Version::of_file(about.len(), about.modified()?);
    Ok(Found { length: about.len(), version, kind: kind_of(path), file })
}

/// The content type for a file's name.
pub fn kind_of(path: &Path) -> String {
    let kind = mime_guess::from_path(path).first_raw().unwrap_or(BYTES);
    let text = kind.starts_with("text/") || ["application/json", "image/svg+xml"].contains(&kind);
    if text { format!("{kind}; charset=utf-8") } else { kind.to_owned() }
}

/// Answers with a file, a part of it, or that the client has it.
async fn send(found: Found, request: &Request) -> Result<Response, ApiError> {
    let (length, version) = (found.length, found.version.clone());
    let mut response = if version.is_had(request) {
        bare(StatusCode::NOT_MODIFIED)
    } else {
        match asked(request, &found) {
            Wanted::Whole => content(found, StatusCode::OK, 0, length, request).await?,
            Wanted::Part(first, last) => {
                let mut part = content(found, StatusCode::PARTIAL_CONTENT, first, last - first + 1, request).await?;
                insert(part.headers_mut(), header::CONTENT_RANGE, &format!("bytes {first}-{last}/{length}"));
                part
            }
            Wanted::Nothing => {
                let mut none = bare(StatusCode::RANGE_NOT_SATISFIABLE);
                insert(none.headers_mut(), header::CONTENT_RANGE, &format!("bytes */{length}"));
                none
            }
        }
    };
    let headers = response.headers_mut();
    headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    version.tell(headers);
    Ok(response)
}

/// Ranges are for `GET` alone, and for the version that the client began with.
fn asked(request: &Request, found: &Found) -> Wanted {
    if request.method == Method::GET && found.version.continues(request) {
        range::wanted(request.header(header::RANGE), found.length)
    } else {
        Wanted::Whole
    }
}

fn bare(status: StatusCode) -> Response {
    let mut response = empty();
    *response.status_mut() = status;
    response
}

/// `length` bytes of a file from `first` on.
async fn content(
    mut found: Found,
    status: StatusCode,
    first: u64,
    length: u64,
    request: &Request,
) -> Result<Response, ApiError> {
    let unreadable = |error: io::Error| {
        ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "FileUnreadable", format!("the file cannot be read: {error}"))
    };
    let mut response = if request.method == Method::HEAD || length == 0 {
        empty()
    } else {
        found.file.seek(SeekFrom::Start(first)).await.map_err(unreadable)?;
        warp::reply::stream(pieces(found.file, length)).into_response()
    };
    *response.status_mut() = status;
    let headers = response.headers_mut();
    insert(headers, header::CONTENT_LENGTH, &length.to_string());
    insert(headers, header::CONTENT_TYPE, &found.kind);
    Ok(response)
}

/// A file read piece by piece, each when the one before has left. One that got shorter meanwhile ends early, which the
/// client sees by the length it was told.
fn pieces(file: File, length: u64) -> impl Stream<Item = io::Result<Bytes>> {
    stream::unfold(file.take(length), |mut rest| async move {
        let mut piece = BytesMut::with_capacity(PIECE);
        match rest.read_buf(&mut piece).await {
            Ok(0) => None,
            Ok(_) => Some((Ok(piece.freeze()), rest)),
            Err(error) => Some((Err(error), rest)),
        }
    })
}

/// To the same path with a `/` behind it.
fn moved(request: &Request) -> Response {
    let mut response = bare(StatusCode::PERMANENT_REDIRECT);
    let query = if request.query.is_empty() { String::new() } else { format!("?{}", request.query) };
    insert(response.headers_mut(), header::LOCATION, &format!("{}/{query}", request.path));
    response
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_in_a_folder() {
        for (segment, name) in [
            ("a.mp4", Some("a.mp4")),
            ("a%20b.mp4", Some("a b.mp4")),
            ("k%C3%A4se", Some("käse")),
            ("a%252fb", Some("a%2fb")),
            ("", None),
            (".", None),
            ("..", None),
            ("%2e%2e", None),
            (".git", None),
            ("a%2fb", None),
            ("a%5cb", None),
            ("a%00b", None),
            ("%ff", None),
        ] {
            assert_eq!(plain(segment).as_deref(), name, "{segment}");
        }
    }

    #[test]
    fn types() {
        for (name, kind) in [
            ("a.mp4", "video/mp4"),
            ("a.webm", "video/webm"),
            ("a.html", "text/html; charset=utf-8"),
            ("a.js", "text/javascript; charset=utf-8"),
            ("a.css", "text/css; charset=utf-8"),
            ("a.svg", "image/svg+xml; charset=utf-8"),
            ("a.png", "image/png"),
            ("a", BYTES),
        ] {
            assert_eq!(kind_of(Path::new(name)), kind);
        }
    }

    proptest! {
        #[test]
        fn no_path_leaves_the_folder(path in "(/|\\.|%2[eEfF]|%00|a|\\\\|\\PC){0,40}") {
            if let Some(file) = inside(Path::new("/root"), &path) {
                prop_assert!(file.starts_with("/root"));
                prop_assert!(file.components().all(|part| matches!(
                    part, std::path::Component::RootDir | std::path::Component::Normal(_)
                )));
            }
        }
    }
}
