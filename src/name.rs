//! Names of streams and media sessions, and the mask that keeps secrets out of what is shown.

use std::fmt;

/// The longest stream name, in bytes. WCS sets no limit; a name is also a URL and a file name's source.
pub const MAX_NAME: usize = 4096;

/// The name of a stream: any text without control characters, 1 to [`MAX_NAME`] bytes. URLs are names too.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StreamName(std::sync::Arc<str>);

/// Why a text is no stream name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// The text is empty.
    #[error("a name must not be empty")]
    Empty,
    /// The text is too long.
    #[error("a name has at most {MAX_NAME} bytes, a media session id {MAX_SESSION_ID}")]
    TooLong,
    /// The text has a control character.
    #[error("a name must not hold control characters")]
    Control,
}

impl StreamName {
    /// Checks a text from outside.
    ///
    /// # Errors
    /// See [`NameError`].
    pub fn new(text: &str) -> Result<Self, NameError> {
        match text {
            "" => Err(NameError::Empty),
            long if long.len() > MAX_NAME => Err(NameError::TooLong),
            bad if bad.chars().any(char::is_control) => Err(NameError::Control),
            good => Ok(Self(good.into())),
        }
    }

    /// The name as it was given.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for StreamName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", mask(&self.0))
    }
}

/// Shown masked: a stream pulled by its URL has the URL as its name.
impl fmt::Display for StreamName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&mask(&self.0))
    }
}

/// The longest media session id, in bytes; browsers' are UUIDs of 36.
const MAX_SESSION_ID: usize = 128;

/// The id of a media session (`mediaSessionId`). Browsers choose their own; the server's are random UUIDs.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MediaSessionId(std::sync::Arc<str>);

impl MediaSessionId {
    /// A new one.
    pub fn random() -> Self {
        Self(uuid::Uuid::new_v4().to_string().into())
    }

    /// Checks an id from outside.
    ///
    /// # Errors
    /// See [`NameError`].
    pub fn new(text: &str) -> Result<Self, NameError> {
        match text {
            "" => Err(NameError::Empty),
            long if long.len() > MAX_SESSION_ID => Err(NameError::TooLong),
            bad if bad.chars().any(char::is_control) => Err(NameError::Control),
            good => Ok(Self(good.into())),
        }
    }

    /// The id's text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for MediaSessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for MediaSessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What the name of a secret has in it. A name that is masked without need does less harm than one that is not.
const SECRET_WORDS: [&str; 6] = ["passw", "passphrase", "secret", "token", "credential", "license"];
/// What the name of a secret ends with: a `stream_key` is one, `keep_alive` and `key-int-max` are none.
const SECRET_ENDS: [&str; 9] = ["key", "pass", "pwd", "pw", "auth", "sign", "sig", "signature", "hash"];

/// Masks the secrets in a text: the password of `scheme://user:password@host`, and the values of query parameters
/// whose names speak of secrets, also where only the end of a URI is shown (`stream?token=…`). What is not a secret
/// stays as it is.
///
/// The text may be one that GStreamer has escaped (`stream\?token\=…`), once or several times.
pub fn mask(text: &str) -> String {
    let ends = |c: char| c.is_whitespace() || "\"'<>".contains(c);
    let mut out = String::with_capacity(text.len());
    for piece in text.split_inclusive(ends) {
        let word = piece.trim_end_matches(ends).trim_end_matches('\\');
        match word.split_once("://") {
            Some((scheme, uri)) => {
                out.push_str(scheme);
                out.push_str("://");
                mask_uri(uri, &mut out);
            }
            None => mask_query(word, &mut out),
        }
        out.push_str(&piece[word.len()..]);
    }
    out
}

/// `uri` starts after the scheme's `://`. A password may itself hold `@` and `/`: people paste them unescaped, so
/// everything between the user name and the last `@` before the query counts as the password.
fn mask_uri(uri: &str, out: &mut String) {
    let address = uri.split('?').next().unwrap_or("");
    let host_at = match address.rfind('@') {
        Some(at) => {
            let user = &address[..at];
            out.push_str(user.split(':').next().unwrap_or(""));
            if user.contains(':') {
                out.push_str(":***");
            }
            at
        }
        None => 0,
    };
    mask_query(&uri[host_at..], out);
}

/// Masks what stands behind a `?`.
fn mask_query(text: &str, out: &mut String) {
    let Some((before, query)) = text.split_once('?') else {
        out.push_str(text);
        return;
    };
    out.push_str(before);
    out.push('?');
    let pairs = query.split('&').map(mask_parameter).collect::<Vec<_>>();
    out.push_str(&pairs.join("&"));
}

fn mask_parameter(pair: &str) -> String {
    match pair.split_once('=') {
        Some((name, _)) if is_secret(name.trim_end_matches('\\')) => format!("{name}=***"),
        Some((name, uri)) if uri.contains("://") => format!("{name}={}", mask(uri)),
        _ => pair.to_owned(),
    }
}

/// Whether a parameter's or setting's name says that its value is a secret.
pub fn is_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    SECRET_WORDS.iter().any(|word| name.contains(word)) || SECRET_ENDS.iter().any(|end| name.ends_with(end))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn masks_what_is_secret_and_nothing_else() {
        for (text, shown) in [
            ("rtmp://h/live/a", "rtmp://h/live/a"),
            ("rtmp://u:pw@h:1935/live/a?x=1&token=abc", "rtmp://u:***@h:1935/live/a?x=1&token=***"),
            ("rtsp://admin:p@ss/w:rd@cam/1", "rtsp://admin:***@cam/1"),
            ("rtmp://u@h/a", "rtmp://u@h/a"),
            ("two: rtmp://a:b@c/d and rtmp://e:f@g/h.", "two: rtmp://a:***@c/d and rtmp://e:***@g/h."),
            (r#"location="rtmp://a:b@c/d" x"#, r#"location="rtmp://a:***@c/d" x"#),
            ("no uri: here", "no uri: here"),
            ("rtmp://h/app?sig=1&Auth_Key=2", "rtmp://h/app?sig=***&Auth_Key=***"),
            ("a stream? token=abc", "a stream? token=abc"),
            ("stream=a?token=abc&x=1", "stream=a?token=***&x=1"),
            (r#""a\?token\=ab\+c\&x\=1""#, r#""a\?token\=***&x\=1""#),
            (r#"l=\"rtmp://u:p\\@s@h/a\\?key\\=abc\" x"#, r#"l=\"rtmp://u:***@h/a\\?key\\=***\" x"#),
            ("rtmp://h/a?from=rtmp://u:pw@i/b&x=1", "rtmp://h/a?from=rtmp://u:***@i/b&x=1"),
        ] {
            assert_eq!(mask(text), shown);
        }
    }

    #[test]
    fn names_of_secrets() {
        for name in
            ["rest_hook_secret_key", "cli.password", "TOKEN", "license", "user-pw", "apikey", "wsSecret", "Auth"]
        {
            assert!(is_secret(name), "{name}");
        }
        for name in
            ["streaming_sessions_keep_alive_app_keys", "http.port", "keep_alive.probes", "key-int-max", "signal"]
        {
            assert!(!is_secret(name), "{name}");
        }
    }

    #[test]
    fn names_are_checked() {
        assert_eq!(StreamName::new(""), Err(NameError::Empty));
        assert_eq!(StreamName::new("a\nb"), Err(NameError::Control));
        assert_eq!(StreamName::new(&"x".repeat(MAX_NAME + 1)), Err(NameError::TooLong));
        assert_eq!(StreamName::new("käse 🧀").unwrap().as_str(), "käse 🧀");
    }

    proptest! {
        #[test]
        fn a_password_never_shows(user in "[a-z]{1,8}", password in "[A-Z0-9@:/]{6,12}", host in "[a-z]{1,9}") {
            let shown = mask(&format!("rtmp://{user}:{password}@{host}/live"));
            prop_assert_eq!(shown, format!("rtmp://{user}:***@{host}/live"));
        }

        #[test]
        fn any_text_is_masked_without_panic(text in "\\PC{0,300}") {
            let once = mask(&text);
            prop_assert_eq!(mask(&once), once);
        }
    }
}
