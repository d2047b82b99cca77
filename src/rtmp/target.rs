//! Where a client wants to publish or play: application, instance, stream name, query.

/// The application part of a URL: `rtmp://host/live/inst?key=1` connects to `live`, instance `inst`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct App {
    pub(crate) name: String,
    pub(crate) instance: Option<String>,
    pub(crate) query: String,
}

/// Reads `connect`'s `app`, and `tcUrl` for what `app` leaves out.
///
/// Flash's default instance `_definst_` counts as none.
pub(crate) fn parse_app(app: &str, tc_url: &str) -> App {
    let (url_path, url_query) = split_query(url_path(tc_url));
    let (path, query) = split_query(app);
    let path = if path.is_empty() { url_path } else { path };
    let path = path.trim_matches('/');
    let (name, instance) = path.split_once('/').unwrap_or((path, ""));
    App {
        name: name.to_owned(),
        instance: Some(instance).filter(|i| !i.is_empty() && *i != "_definst_").map(str::to_owned),
        query: join_queries(query, url_query),
    }
}

/// Splits a stream name as `publish` and `play` carry it into name and query (without the `?`).
///
/// Flash's type prefixes (`mp4:name`) are dropped: they say in which file a recording is, not which stream is meant.
pub(crate) fn parse_name(raw: &str) -> (String, String) {
    let (name, query) = split_query(raw);
    let name =
        ["mp4:", "flv:", "mp3:", "f4v:", "id3:"].iter().find_map(|prefix| name.strip_prefix(prefix)).unwrap_or(name);
    (name.to_owned(), query.to_owned())
}

/// Both queries, the first one's parameters first; equal ones once (clients repeat `app`'s query in `tcUrl`).
pub(crate) fn join_queries(first: &str, second: &str) -> String {
    match (first, second) {
        (only, "") | ("", only) => only.to_owned(),
        (a, b) if a == b => a.to_owned(),
        (a, b) => format!("{a}&{b}"),
    }
}

fn split_query(text: &str) -> (&str, &str) {
    text.split_once('?').unwrap_or((text, ""))
}

/// What follows `scheme://host:port/`.
fn url_path(url: &str) -> &str {
    let rest = url.split_once("://").map_or("", |(_, rest)| rest);
    rest.split_once('/').map_or("", |(_, path)| path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn applications() {
        let app = |name: &str, instance: Option<&str>, query: &str| App {
            name: name.into(),
            instance: instance.map(str::to_owned),
            query: query.into(),
        };
        assert_eq!(parse_app("live", "rtmp://h:1935/live"), app("live", None, ""));
        assert_eq!(parse_app("live/", ""), app("live", None, ""));
        assert_eq!(parse_app("live/inst", ""), app("live", Some("inst"), ""));
        assert_eq!(parse_app("live/_definst_", ""), app("live", None, ""));
        assert_eq!(parse_app("a/b/c", ""), app("a", Some("b/c"), ""));
        assert_eq!(parse_app("live?k=1", "rtmp://h/live?k=1"), app("live", None, "k=1"));
        assert_eq!(parse_app("live", "rtmp://h/live?k=1"), app("live", None, "k=1"));
        assert_eq!(parse_app("", "rtmp://h/x/y?k=1"), app("x", Some("y"), "k=1"));
        assert_eq!(parse_app("", ""), app("", None, ""));
    }

    #[test]
    fn names() {
        let name = |raw| parse_name(raw);
        assert_eq!(name("a"), ("a".into(), "".into()));
        assert_eq!(name("a?token=x&b=?"), ("a".into(), "token=x&b=?".into()));
        assert_eq!(name("mp4:dir/a.mp4"), ("dir/a.mp4".into(), "".into()));
        assert_eq!(name("flv:a?k"), ("a".into(), "k".into()));
        assert_eq!(name("rtsp://c/1?x=1"), ("rtsp://c/1".into(), "x=1".into()));
    }

    #[test]
    fn queries() {
        assert_eq!(join_queries("a=1", "b=2"), "a=1&b=2");
        assert_eq!(join_queries("a=1", "a=1"), "a=1");
        assert_eq!(join_queries("", "b"), "b");
    }
}
