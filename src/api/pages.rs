//! weir's own pages: the files of `web/`, compiled in, each served under its name, `/` as `index.html`.

use std::hash::{DefaultHasher, Hasher};
use std::path::Path;
use std::sync::LazyLock;

use bytes::Bytes;
use warp::http::{HeaderName, HeaderValue, StatusCode, header};

use super::answer::{Answer, whole};
use super::error::ApiError;
use super::files::kind_of;
use super::request::Request;
use super::version::{Version, insert};

/// What a page may load and talk to: itself, and WebSockets of any port and host, as a person may name another server
/// in the form. No inline script or style, no text that becomes HTML, no frame around it.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; \
    media-src 'self' blob:; connect-src 'self' ws: wss:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
    require-trusted-types-for 'script'; trusted-types 'none'";

/// What every page and its parts are sent with.
const HEADERS: [(HeaderName, &str); 5] = [
    (header::CACHE_CONTROL, "no-cache"),
    (header::CONTENT_SECURITY_POLICY, POLICY),
    (header::REFERRER_POLICY, "no-referrer"),
    (HeaderName::from_static("permissions-policy"), "camera=(self), microphone=(self)"),
    (header::X_FRAME_OPTIONS, "DENY"),
];

macro_rules! files {
    ($($name:literal),* $(,)?) => { [$(($name, include_bytes!(concat!("../../web/", $name)) as &[u8])),*] };
}

const FILES: [(&str, &[u8]); 17] = files![
    "index.html",
    "two_way_streaming.html",
    "player.html",
    "stream_recording.html",
    "pipeline.html",
    "api.html",
    "weir.css",
    "weir.js",
    "page.js",
    "video.js",
    "overview.js",
    "two_way_streaming.js",
    "player.js",
    "stream_recording.js",
    "pipeline.js",
    "api.js",
    "icon.svg",
];

/// A version for each of [`FILES`].
static VERSIONS: LazyLock<Vec<Version>> = LazyLock::new(|| {
    let hash = |content: &[u8]| {
        let mut hasher = DefaultHasher::new();
        hasher.write(content);
        Version::of_content(hasher.finish())
    };
    FILES.iter().map(|(_, content)| hash(content)).collect()
});

/// Whether there is a page, or a part of one, of that name. The empty name is the first page's.
pub fn exists(name: &str) -> bool {
    place(name).is_some()
}

fn place(name: &str) -> Option<usize> {
    let name = if name.is_empty() { "index.html" } else { name };
    FILES.iter().position(|(file, _)| *file == name)
}

/// A page or a part of one.
pub fn page(request: &Request, name: &str) -> Result<Answer, ApiError> {
    let none = || ApiError::not_found("PageNotFound", "there is no page of that path");
    let place = place(name).ok_or_else(none)?;
    let ((file, content), version) = (FILES[place], &VERSIONS[place]);
    let had = version.is_had(request);
    let mut response = whole(if had { Bytes::new() } else { Bytes::from_static(content) });
    let headers = response.headers_mut();
    for (name, value) in HEADERS {
        headers.insert(name, HeaderValue::from_static(value));
    }
    version.tell(headers);
    if had {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
    } else {
        insert(headers, header::CONTENT_TYPE, &kind_of(Path::new(file)));
    }
    Ok(Answer::Whole(response))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_file_of_web_is_compiled_in() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("web");
        let there: BTreeSet<_> =
            folder.read_dir().unwrap().map(|file| file.unwrap().file_name().into_string().unwrap()).collect();
        assert_eq!(there, FILES.iter().map(|(name, _)| (*name).to_owned()).collect());
    }

    #[test]
    fn pages_load_nothing_from_elsewhere_and_have_no_inline_script_or_style() {
        for (name, content) in FILES {
            let text = std::str::from_utf8(content).unwrap();
            for link in ["src=\"http", "href=\"http", "import(\"http", "from \"http", "url("] {
                assert!(!text.contains(link), "{name} has {link}");
            }
            if name.ends_with(".html") {
                assert!(!text.contains("<script>") && !text.contains("style=") && !text.contains("<style"), "{name}");
                assert!(text.contains("<html lang=\"en\">") && text.contains("name=\"viewport\""), "{name}");
            }
            for sink in ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("] {
                assert!(!text.contains(sink), "{name} has {sink}");
            }
        }
    }
}
