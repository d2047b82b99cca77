//! Which version of a file a client has, and whether it is ours: ETag, Last-Modified and what asks for them. Pure but for
//! the headers' types. Source: RFC 9110, section 13.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use warp::http::{HeaderMap, HeaderName, HeaderValue, header};

use super::request::Request;

/// A version of something that is served.
#[derive(Debug, Clone)]
pub struct Version {
    /// The entity tag, with its quotes.
    tag: String,
    /// When it was written, in whole seconds as headers have them.
    modified: Option<SystemTime>,
}

impl Version {
    /// The version of compiled-in content by its hash.
    pub fn of_content(hash: u64) -> Self {
        Self { tag: format!("\"{hash:016x}\""), modified: None }
    }

    /// The version of a file.
    pub fn of_file(length: u64, modified: SystemTime) -> Self {
        let since = modified.duration_since(UNIX_EPOCH).unwrap_or_default();
        let seconds = UNIX_EPOCH + Duration::from_secs(since.as_secs());
        Self { tag: format!("\"{:x}-{length:x}\"", since.as_nanos()), modified: Some(seconds) }
    }

    /// Writes it into an answer's headers.
    pub fn tell(&self, headers: &mut HeaderMap) {
        insert(headers, header::ETAG, &self.tag);
        if let Some(modified) = self.modified {
            insert(headers, header::LAST_MODIFIED, &httpdate::fmt_http_date(modified));
        }
    }

    /// Whether the client has this version already.
    pub fn is_had(&self, request: &Request) -> bool {
        if let Some(tags) = request.header(header::IF_NONE_MATCH) {
            return tags.split(',').map(str::trim).any(|tag| tag == "*" || tag.trim_start_matches("W/") == self.tag);
        }
        let since = request.header(header::IF_MODIFIED_SINCE).and_then(|date| httpdate::parse_http_date(date).ok());
        since.zip(self.modified).is_some_and(|(since, modified)| modified <= since)
    }

    /// Whether a part of this version fits to what the client has.
    pub fn continues(&self, request: &Request) -> bool {
        match request.header(header::IF_RANGE) {
            None => !request.headers.contains_key(header::IF_RANGE),
            Some(tag) if tag.contains('"') => tag == self.tag,
            Some(date) => httpdate::parse_http_date(date).ok().is_some_and(|date| self.modified == Some(date)),
        }
    }
}

/// Sets a header whose value is ours to form; what no header can hold is left out.
pub fn insert(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use warp::http::Method;

    fn request(name: HeaderName, value: &str) -> Request {
        let headers = HeaderMap::from_iter([(name, HeaderValue::from_str(value).unwrap())]);
        Request { method: Method::GET, path: "/".into(), query: String::new(), headers, body: bytes::Bytes::new() }
    }

    #[test]
    fn versions_are_compared() {
        let written = UNIX_EPOCH + Duration::from_millis(1_000_500);
        let version = Version::of_file(16, written);
        let mut told = HeaderMap::new();
        version.tell(&mut told);
        let tag = told[header::ETAG].to_str().unwrap();
        assert_eq!(told[header::LAST_MODIFIED], "Thu, 01 Jan 1970 00:16:40 GMT");
        let (earlier, later) = ("Thu, 01 Jan 1970 00:16:39 GMT", "Thu, 01 Jan 1970 00:16:41 GMT");
        for (name, value, had, continues) in [
            (header::IF_NONE_MATCH, tag, true, true),
            (header::IF_NONE_MATCH, &format!("\"x\", W/{tag}"), true, true),
            (header::IF_NONE_MATCH, "*", true, true),
            (header::IF_NONE_MATCH, "\"x\"", false, true),
            (header::IF_MODIFIED_SINCE, "Thu, 01 Jan 1970 00:16:40 GMT", true, true),
            (header::IF_MODIFIED_SINCE, later, true, true),
            (header::IF_MODIFIED_SINCE, earlier, false, true),
            (header::IF_MODIFIED_SINCE, "yesterday", false, true),
            (header::IF_RANGE, tag, false, true),
            (header::IF_RANGE, &format!("W/{tag}"), false, false),
            (header::IF_RANGE, "\"x\"", false, false),
            (header::IF_RANGE, "Thu, 01 Jan 1970 00:16:40 GMT", false, true),
            (header::IF_RANGE, later, false, false),
            (header::IF_RANGE, "yesterday", false, false),
        ] {
            let asked = request(name.clone(), value);
            assert_eq!((version.is_had(&asked), version.continues(&asked)), (had, continues), "{name}: {value}");
        }
    }

    #[test]
    fn content_has_a_tag_and_no_date() {
        let mut told = HeaderMap::new();
        Version::of_content(0x1f).tell(&mut told);
        assert_eq!(told[header::ETAG], "\"000000000000001f\"");
        assert!(!told.contains_key(header::LAST_MODIFIED));
    }
}
