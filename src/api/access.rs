//! Who may call: everybody, or the users of the command line and whoever has the token (`disable_rest_auth`,
//! `rest_api_token`; wcs.md 1.1).

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use data_encoding::BASE64;
use tokio::sync::Semaphore;
use warp::http::{StatusCode, header};

use super::error::ApiError;
use super::request::Request;
use crate::meter::Meter;
use crate::users::{MAX_NAME, Users};

/// How long a wrong guess takes at least.
const REJECTION: Duration = Duration::from_secs(1);
/// How many calls with credentials that were not right before are looked at at a time; further ones are told to wait.
const GUESSES: usize = 16;
/// What a client is told to log in with. A browser asks its user for a name and a password, once for all pages.
pub const CHALLENGE: &str = "Basic realm=\"weir\", charset=\"UTF-8\"";

/// What counters call this place.
const DOOR: &str = "rest";

/// Who may call. A cheap handle.
#[derive(Clone)]
pub struct Access(Option<Arc<Door>>);

struct Door {
    users: Users,
    token: Option<String>,
    guesses: Semaphore,
    meter: Meter,
}

/// What a call says about who makes it.
#[derive(Debug, PartialEq, Eq)]
enum Credentials {
    Basic { user: String, password: String },
    Bearer(String),
}

impl Access {
    /// Everybody may call.
    pub fn open() -> Self {
        Self(None)
    }

    /// The users with their passwords may, and whoever has the token, where there is one. `meter` counts who may not.
    pub fn guarded(users: Users, token: Option<String>, meter: Meter) -> Self {
        Self(Some(Arc::new(Door { users, token, guesses: Semaphore::new(GUESSES), meter })))
    }

    /// Lets a call in or not. Whether weir lives may be asked by everybody.
    ///
    /// # Errors
    /// 401 without credentials and, after a while, for wrong ones; 429 while too many are tried.
    pub async fn check(&self, request: &Request, peer: IpAddr) -> Result<(), ApiError> {
        match &self.0 {
            Some(door) if !request.path.starts_with("/health/") => door.check(request, peer).await,
            _ => Ok(()),
        }
    }
}

impl Door {
    async fn check(&self, request: &Request, peer: IpAddr) -> Result<(), ApiError> {
        let given = request.header(header::AUTHORIZATION).and_then(credentials);
        let Some(given) = given else {
            let sentence = "log in with the name and password of a user, or with the token of rest_api_token";
            return Err(ApiError::new(StatusCode::UNAUTHORIZED, "LoginRequired", sentence));
        };
        if self.is_known(&given) {
            return Ok(());
        }
        let Ok(_guess) = self.guesses.try_acquire() else {
            self.meter.denied(DOOR, "busy");
            let sentence = "too many calls try to log in: try again later";
            return Err(ApiError::new(StatusCode::TOO_MANY_REQUESTS, "TooManyLogins", sentence));
        };
        let (named, wrong) = match given {
            Credentials::Basic { user, password } => match self.users.check(&user, &password).await {
                Some(_) => return Ok(()),
                None => (user.chars().take(MAX_NAME).collect(), "password"),
            },
            Credentials::Bearer(_) => ("a token".to_owned(), "token"),
        };
        self.meter.denied(DOOR, wrong);
        tracing::warn!(%peer, "REST: wrong credentials, for {named:?}");
        tokio::time::sleep(REJECTION).await;
        Err(ApiError::new(StatusCode::UNAUTHORIZED, "LoginWrong", "the user name, password or token is wrong"))
    }

    /// Whether these were right before, or need no time to look at.
    fn is_known(&self, given: &Credentials) -> bool {
        match given {
            Credentials::Basic { user, password } => self.users.is_known(user, password),
            Credentials::Bearer(given) => self.token.as_ref().is_some_and(|token| same(token, given)),
        }
    }
}

/// Reads the header `Authorization`.
fn credentials(text: &str) -> Option<Credentials> {
    let (scheme, rest) = text.trim().split_once(' ')?;
    let rest = rest.trim();
    if scheme.eq_ignore_ascii_case("bearer") {
        return Some(Credentials::Bearer(rest.to_owned()));
    }
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let decoded = String::from_utf8(BASE64.decode(rest.as_bytes()).ok()?).ok()?;
    let (user, password) = decoded.split_once(':')?;
    Some(Credentials::Basic { user: user.to_owned(), password: password.to_owned() })
}

/// Compares in a time that says nothing of where two texts differ.
fn same(one: &str, other: &str) -> bool {
    let differences = one.bytes().zip(other.bytes()).fold(0, |all, (a, b)| all | (a ^ b));
    one.len() == other.len() && differences == 0
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_header_is_read() {
        let basic = |user: &str, password: &str| {
            Some(Credentials::Basic { user: user.to_owned(), password: password.to_owned() })
        };
        for (text, read) in [
            ("Basic YWRtaW46aHVudGVyMg==", basic("admin", "hunter2")),
            ("basic  YWRtaW46YTpi", basic("admin", "a:b")),
            ("BASIC Og==", basic("", "")),
            ("Basic w7w6w6Q=", basic("ü", "ä")),
            ("Bearer abc", Some(Credentials::Bearer("abc".to_owned()))),
            ("Basic", None),
            ("Basic ", None),
            ("Basic YWRtaW4=", None),
            ("Basic ?", None),
            ("Basic //79", None),
            ("Digest username=admin", None),
            ("", None),
        ] {
            assert_eq!(credentials(text), read, "{text:?}");
        }
    }

    #[test]
    fn texts_are_the_same_or_not() {
        for (one, other, are) in
            [("", "", true), ("a", "a", true), ("a", "b", false), ("a", "ab", false), ("ab", "a", false)]
        {
            assert_eq!(same(one, other), are);
        }
    }

    proptest! {
        #[test]
        fn any_header_is_read_or_refused(text in any::<String>()) {
            let _ = credentials(&text);
        }
    }
}
