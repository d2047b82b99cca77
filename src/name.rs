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

const SECRET_PARAMETERS: [&str; 9] = ["token", "key", "pass", "pwd", "secret", "auth", "sign", "sig", "hash"];

/// Masks the secrets of every URI in a text: the password of `scheme://user:password@host`, and the values of query
/// parameters whose names speak of secrets. What is not a secret stays as it is.
pub fn mask(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("://") {
        let (before, after) = rest.split_at(at + 3);
        out.push_str(before);
        let end = after.find(|c: char| c.is_whitespace() || "\"'<>\\".contains(c)).unwrap_or(after.len());
        let (uri, tail) = after.split_at(end);
        mask_uri(uri, &mut out);
        rest = tail;
    }
    out.push_str(rest);
    out
}

/// `uri` starts after the scheme's `://`. A password may itself hold `@` and `/`: people paste them unescaped, so
/// everything between the user name and the last `@` before the query counts as the password.
fn mask_uri(uri: &str, out: &mut String) {
    let (address, query) = match uri.split_once('?') {
        Some((address, query)) => (address, Some(query)),
        None => (uri, None),
    };
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
    out.push_str(&address[host_at..]);
    if let Some(query) = query {
        out.push('?');
        let pairs = query.split('&').map(mask_parameter).collect::<Vec<_>>();
        out.push_str(&pairs.join("&"));
    }
}

fn mask_parameter(pair: &str) -> String {
    match pair.split_once('=') {
        Some((name, _)) if is_secret(name) => format!("{name}=***"),
        _ => pair.to_owned(),
    }
}

/// Whether a parameter's or setting's name says that its value is a secret.
pub fn is_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    SECRET_PARAMETERS.iter().any(|secret| name.contains(secret))
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
        ] {
            assert_eq!(mask(text), shown);
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
