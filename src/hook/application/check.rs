//! What the fields of an application may hold. Pure: text in, what is allowed out.

use url::Url;

use super::Application;

/// The longest name and key, in bytes.
const MAX_NAME: usize = 128;
/// The longest URL, in bytes.
const MAX_URL: usize = 2048;
/// The longest of the other texts, in bytes.
const MAX_TEXT: usize = 256;

/// A value that an application cannot have. Displays as what was expected; the value itself may be a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// No name.
    #[error(
        "expected a name of 1 to {MAX_NAME} bytes without control characters or space at its ends, that does not begin with -"
    )]
    Name,
    /// No key.
    #[error("expected a key of 1 to {MAX_NAME} bytes without spaces, commas, quotes and control characters")]
    Key,
    /// No URL of a hook server.
    #[error(
        "expected a URL as http://HOST/PATH or https://HOST/PATH without ? and #, at most {MAX_URL} bytes, or \"\" for none"
    )]
    Url,
    /// One of the other texts.
    #[error("expected a text of at most {MAX_TEXT} bytes without control characters")]
    Text,
    /// A user name that HTTP Basic cannot carry.
    #[error("expected a REST user name without a colon, at most {MAX_TEXT} bytes")]
    RestUsername,
    /// No method.
    #[error("expected a method: see show rest-methods")]
    Method,
}

pub(super) fn name(text: &str) -> Result<(), Invalid> {
    let plain = !text.chars().any(char::is_control) && text.trim() == text && !text.starts_with('-');
    let allowed = (1..=MAX_NAME).contains(&text.len()) && plain;
    if allowed { Ok(()) } else { Err(Invalid::Name) }
}

/// Keys are listed with commas between them (`streaming_sessions_keep_alive_app_keys`).
pub(super) fn key(text: &str) -> Result<(), Invalid> {
    let wrong = |c: char| c.is_control() || c.is_whitespace() || ",\"'".contains(c);
    let allowed = (1..=MAX_NAME).contains(&text.len()) && !text.contains(wrong) && !text.starts_with('-');
    if allowed { Ok(()) } else { Err(Invalid::Key) }
}

/// Gives the URL without slashes at its end: a method's name is put behind it. Empty is allowed, and stays empty.
pub(super) fn url(text: &str) -> Result<String, Invalid> {
    let text = text.trim();
    if text.is_empty() {
        return Ok(String::new());
    }
    // The parser drops tabs and line ends in silence, and takes any number of slashes.
    let wrong = |c: char| c.is_control() || c.is_whitespace() || "?#\\".contains(c);
    let (_, rest) = text.split_once("://").ok_or(Invalid::Url)?;
    let shape = text.len() <= MAX_URL && !text.contains(wrong) && !rest.starts_with('/');
    let parsed = Url::parse(text).map_err(|_| Invalid::Url)?;
    if shape && matches!(parsed.scheme(), "http" | "https") && parsed.has_host() {
        Ok(text.trim_end_matches('/').to_owned())
    } else {
        Err(Invalid::Url)
    }
}

pub(super) fn texts(application: &Application) -> Result<(), Invalid> {
    let good = |text: &str| text.len() <= MAX_TEXT && !text.chars().any(char::is_control);
    let Application { owner, rest_username, rest_password, main_class, callback_class, .. } = application;
    if !good(rest_username) || rest_username.contains(':') {
        return Err(Invalid::RestUsername);
    }
    let all = [owner.as_str(), rest_password.reveal(), main_class, callback_class];
    if all.into_iter().all(good) { Ok(()) } else { Err(Invalid::Text) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_keys() {
        let long = "x".repeat(MAX_NAME + 1);
        for (text, as_name, as_key) in [
            ("defaultApp", true, true),
            ("My shop", true, false),
            ("a,b", true, false),
            ("ä", true, true),
            (&long[1..], true, true),
            (&long, false, false),
            ("", false, false),
            ("-l", false, false),
            (" a", false, false),
            ("a\n", false, false),
            ("a\"b", true, false),
        ] {
            assert_eq!((name(text).is_ok(), key(text).is_ok()), (as_name, as_key), "{text:?}");
        }
    }

    #[test]
    fn urls() {
        let long = format!("http://h/{}", "x".repeat(MAX_URL));
        for (text, kept) in [
            ("", Some("")),
            ("  ", Some("")),
            ("http://localhost:9091/EchoApp", Some("http://localhost:9091/EchoApp")),
            ("https://u:p@h/", Some("https://u:p@h")),
            ("http://[::1]:80/a//", Some("http://[::1]:80/a")),
            ("HTTP://h", Some("HTTP://h")),
            ("http:h", None),
            ("http://", None),
            ("http:///a", None),
            ("ftp://h/a", None),
            ("h/a", None),
            ("/a", None),
            ("http://h/a?b", None),
            ("http://h/a#b", None),
            ("http://h/a b", None),
            ("http://h/\na", None),
            ("http://h:99999/", None),
            (&long, None),
        ] {
            assert_eq!(url(text).ok().as_deref(), kept, "{text:?}");
        }
    }

    #[test]
    fn other_texts() {
        let with = |name: &str, owner: &str| {
            texts(&Application { rest_username: name.into(), owner: owner.into(), ..Application::default() })
        };
        assert_eq!(with("rest", "admin"), Ok(()));
        assert_eq!(with("a:b", "admin"), Err(Invalid::RestUsername));
        assert_eq!(with("", "a\0"), Err(Invalid::Text));
        assert_eq!(with("", &"x".repeat(MAX_TEXT + 1)), Err(Invalid::Text));
    }
}
