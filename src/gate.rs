//! What publishing and playing ask for where no hook server is asked: a password, or a signed token that expires.
//!
//! Who publishes or plays shows it in the query of the stream's name (`cam?token=…`, from encoders and pages alike), or
//! as a page's `custom` (`{token: "…"}`). Both are read here, and the name goes on without it. It is looked at once, when
//! the publisher or player begins: who is in stays in when a token expires.

pub mod token;

use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use serde_json::{Map, Value, json};
use url::form_urlencoded;

use crate::config;
use crate::config::Secret;
use crate::meter::Meter;

/// How long an address waits after a wrong password until its next one is looked at.
const WAIT: Duration = Duration::from_secs(1);
/// Most addresses that are made to wait at once. While as many do, every password has to wait.
const WAITING: usize = 4096;
/// How long a token holds that this server signs for itself, to use at once.
const OWN: Duration = Duration::from_secs(300);

/// What somebody wants to do with a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Feed it.
    Publish,
    /// Take from it, look at its picture, or ask whether it is there.
    Play,
}

impl Refusal {
    /// One word for the counters.
    fn word(self) -> &'static str {
        match self {
            Self::Missing(..) => "missing",
            Self::Expired => "expired",
            Self::Token(_) => "token",
            Self::Password => "password",
            Self::Wait => "wait",
        }
    }
}

impl Action {
    /// As tokens and settings name it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Publish => "publish",
            Self::Play => "play",
        }
    }
}

/// What a client shows.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Credentials {
    token: Option<String>,
    password: Option<String>,
}

/// Never shown.
impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credentials")
    }
}

/// Why somebody may not publish or play. Begins with WCS's word for it; the rest says what to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Nothing is shown.
    #[error("Restricted access: to {} this stream takes {}", .0.word(), .1)]
    Missing(Action, &'static str),
    /// The token is signed, for a time that is over.
    #[error("Restricted access: the token has expired")]
    Expired,
    /// The token is none of ours, or one for another stream or action.
    #[error("Restricted access: the token is not one to {} this stream", .0.word())]
    Token(Action),
    /// The password is wrong.
    #[error("Restricted access: the password is wrong")]
    Password,
    /// A wrong password came from there a moment ago.
    #[error("Restricted access: too many wrong passwords; wait a second")]
    Wait,
}

/// Who may publish and play. A cheap handle.
#[derive(Clone, Default)]
pub struct Gate(Option<Arc<Bolts>>);

struct Bolts {
    secret: Option<Secret>,
    /// What tokens are asked for.
    signed: Vec<Action>,
    publish: Option<Secret>,
    play: Option<Secret>,
    guessers: Mutex<HashMap<IpAddr, Instant>>,
    meter: Meter,
}

impl Gate {
    /// What the settings ask for; nothing where they say nothing. `meter` counts who is refused.
    pub fn new(settings: &config::Gate, meter: Meter) -> Self {
        let config::Gate { token_secret: secret, token_publish, token_play, publish_password, play_password } =
            settings;
        if secret.is_none() && publish_password.is_none() && play_password.is_none() {
            return Self(None);
        }
        let signed = [(Action::Publish, *token_publish), (Action::Play, *token_play)];
        let signed = signed.into_iter().filter(|(_, asked)| *asked).map(|(action, _)| action).collect();
        Self(Some(Arc::new(Bolts {
            secret: secret.clone(),
            signed,
            publish: publish_password.clone(),
            play: play_password.clone(),
            guessers: Mutex::default(),
            meter,
        })))
    }

    /// Splits a name as a page gives it into the stream's and what is shown. A URL keeps its query, which is its
    /// source's; without a gate every name is taken as it is.
    pub fn split(&self, name: &str) -> (String, Credentials) {
        match name.split_once('?').filter(|_| self.0.is_some() && !name.contains("://")) {
            Some((stream, query)) => without_credentials(stream, query),
            None => (name.to_owned(), Credentials::default()),
        }
    }

    /// Whether somebody may do it.
    ///
    /// # Errors
    /// See [`Refusal`]; it is logged.
    pub fn check(&self, action: Action, name: &str, shown: &Credentials, peer: IpAddr) -> Result<(), Refusal> {
        let Some(bolts) = &self.0 else { return Ok(()) };
        let refusal = match bolts.check(action, name, shown, peer) {
            Ok(()) => return Ok(()),
            Err(refusal) => refusal,
        };
        let (stream, action) = (crate::name::mask(name), action.word());
        bolts.meter.denied(action, refusal.word());
        match refusal {
            Refusal::Password => tracing::warn!(%peer, %stream, action, "{refusal}"),
            _ => tracing::info!(%peer, %stream, action, "{refusal}"),
        }
        Err(refusal)
    }

    /// What this server itself shows another one with the same settings, as `custom`.
    pub fn own(&self, action: Action, name: &str) -> Option<Value> {
        let bolts = self.0.as_ref()?;
        if let Some(secret) = bolts.secret.as_ref().filter(|_| bolts.signed.contains(&action)) {
            return Some(json!({"token": token::sign(secret.reveal(), action, name, SystemTime::now() + OWN)}));
        }
        bolts.password(action).map(|password| json!({"password": password.reveal()}))
    }
}

impl Bolts {
    fn password(&self, action: Action) -> Option<&Secret> {
        match action {
            Action::Publish => self.publish.as_ref(),
            Action::Play => self.play.as_ref(),
        }
    }

    fn check(&self, action: Action, name: &str, shown: &Credentials, peer: IpAddr) -> Result<(), Refusal> {
        let secret = self.secret.as_ref().filter(|_| self.signed.contains(&action));
        let password = self.password(action);
        let asked = match (secret, password) {
            (None, None) => return Ok(()),
            (Some(_), None) => "a token (NAME?token=…)",
            (None, Some(_)) => "a password (NAME?password=…)",
            (Some(_), Some(_)) => "a token (NAME?token=…) or a password (NAME?password=…)",
        };
        match (secret.zip(shown.token.as_ref()), password.zip(shown.password.as_ref())) {
            (Some((secret, token)), _) => token::check(secret.reveal(), action, name, token, SystemTime::now()),
            (None, Some((password, given))) => self.guess(password, given, peer, Instant::now()),
            (None, None) => Err(Refusal::Missing(action, asked)),
        }
    }

    /// Looks at a password. Whoever guesses does so once a second, however many connections they have.
    fn guess(&self, password: &Secret, given: &str, peer: IpAddr, now: Instant) -> Result<(), Refusal> {
        let place = place(peer);
        let mut guessers = self.guessers.lock().unwrap_or_else(PoisonError::into_inner);
        if guessers.len() >= WAITING {
            guessers.retain(|_, until| *until > now);
        }
        if guessers.len() >= WAITING || guessers.get(&place).is_some_and(|until| *until > now) {
            return Err(Refusal::Wait);
        }
        if token::same(password.reveal(), given) {
            return Ok(());
        }
        guessers.insert(place, now + WAIT);
        Err(Refusal::Password)
    }
}

/// What counts as one guesser: an IPv4 address, or the /64 that a customer has of IPv6.
fn place(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V6(ip) => {
            let [a, b, c, d, ..] = ip.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
        ip => ip,
    }
}

impl Credentials {
    /// Those of an encoder's query.
    pub fn of_query(query: &str) -> Self {
        without_credentials("", query).1
    }

    /// Those of a page's `custom`.
    pub fn of_custom(custom: Option<&Value>) -> Self {
        let text = |key: &str| custom.and_then(|custom| custom.get(key)?.as_str()).map(str::to_owned);
        Self { token: text("token"), password: text("password") }
    }

    /// These, and of others what these lack.
    pub fn or(self, others: Self) -> Self {
        Self { token: self.token.or(others.token), password: self.password.or(others.password) }
    }
}

/// A name without the credentials in its query, and those. Other parameters stay as they are.
fn without_credentials(stream: &str, query: &str) -> (String, Credentials) {
    let mut credentials = Credentials::default();
    let mut rest = String::new();
    for pair in query.split('&') {
        let read = form_urlencoded::parse(pair.as_bytes()).next();
        match read {
            Some((key, value)) if key == "token" => credentials.token = Some(value.into_owned()),
            Some((key, value)) if key == "password" => credentials.password = Some(value.into_owned()),
            _ => {
                rest.push(if rest.is_empty() { '?' } else { '&' });
                rest.push_str(pair);
            }
        }
    }
    (format!("{stream}{rest}"), credentials)
}

/// A stream's name on another server without what is shown there: what the stream may be called here.
pub fn bare_name(name: &str) -> String {
    match name.split_once('?').filter(|_| !name.contains("://")) {
        Some((stream, query)) => without_credentials(stream, query).0,
        None => name.to_owned(),
    }
}

/// A page's wish with its name cleaned, and what it shows: in the name, in the wish's `custom`, or since it connected.
pub fn take(gate: &Gate, said: &mut Map<String, Value>, connected: &Credentials) -> Credentials {
    if gate.0.is_none() {
        return Credentials::default();
    }
    let mut shown = Credentials::default();
    if let Some(Value::String(name)) = said.get_mut("name") {
        (*name, shown) = gate.split(name);
    }
    shown.or(Credentials::of_custom(said.get("custom"))).or(connected.clone())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use proptest::prelude::*;

    const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    fn secret(text: &str) -> Option<Secret> {
        Some(Secret::new(text))
    }

    fn settings() -> config::Gate {
        config::Gate {
            token_secret: None,
            token_publish: true,
            token_play: true,
            publish_password: None,
            play_password: None,
        }
    }

    fn gate_of(settings: &config::Gate) -> Gate {
        Gate::new(settings, Meter::default())
    }

    fn refused(gate: &Gate, action: Action, name: &str) -> Result<(), String> {
        let (stream, shown) = gate.split(name);
        gate.check(action, &stream, &shown, HERE).map_err(|refusal| refusal.to_string())
    }

    #[test]
    fn nothing_is_asked_for_by_default_and_names_stay() {
        let gate = gate_of(&settings());
        assert_eq!(gate.split("cam?token=x"), ("cam?token=x".into(), Credentials::default()));
        assert_eq!(refused(&gate, Action::Publish, "cam"), Ok(()));
        assert_eq!(gate.own(Action::Play, "cam"), None);
    }

    #[test]
    fn credentials_leave_the_name() {
        let gate = gate_of(&config::Gate { play_password: secret("p"), ..settings() });
        for (given, name) in [
            ("cam", "cam"),
            ("cam?token=1.a", "cam"),
            ("cam?password=x&token=y", "cam"),
            ("cam?x=1&token=y&z", "cam?x=1&z"),
            ("cam?x=1", "cam?x=1"),
            ("cam?", "cam?"),
            ("rtsp://h/1?token=camera", "rtsp://h/1?token=camera"),
        ] {
            assert_eq!(gate.split(given).0, name, "{given}");
        }
        let shown = Credentials::of_query("password=a%20b%26&token=t");
        assert_eq!((shown.password.as_deref(), shown.token.as_deref()), (Some("a b&"), Some("t")));
        assert_eq!(format!("{shown:?}"), "Credentials");
        assert_eq!(bare_name("cam?token=1"), "cam");
        let mut said =
            json!({"name": "cam?token=n", "custom": {"token": "c", "password": "p"}}).as_object().unwrap().clone();
        let shown = take(&gate, &mut said, &Credentials::default());
        assert_eq!((shown.token.as_deref(), shown.password.as_deref()), (Some("n"), Some("p")));
        assert_eq!(said["name"], "cam");
    }

    #[test]
    fn tokens_open_what_they_name() {
        let gate = gate_of(&config::Gate { token_secret: secret("0123456789abcdef"), ..settings() });
        let token = |action, name: &str| {
            let custom = gate.own(action, name).unwrap();
            custom["token"].as_str().unwrap().to_owned()
        };
        let play = token(Action::Play, "cam");
        assert_eq!(refused(&gate, Action::Play, &format!("cam?token={play}")), Ok(()));
        let other = "Restricted access: the token is not one to publish this stream";
        assert_eq!(refused(&gate, Action::Publish, &format!("cam?token={play}")), Err(other.into()));
        assert!(refused(&gate, Action::Play, &format!("cam2?token={play}")).is_err());
        let missing = refused(&gate, Action::Publish, "cam").unwrap_err();
        assert_eq!(missing, "Restricted access: to publish this stream takes a token (NAME?token=…)");
        // A URL's query is its source's: its token is shown beside it.
        let url = "rtsp://h/1?token=camera";
        let shown = Credentials::of_custom(Some(&json!({"token": token(Action::Play, url)})));
        assert_eq!(gate.check(Action::Play, url, &shown, HERE), Ok(()));
        let only_publishers =
            config::Gate { token_secret: secret("0123456789abcdef"), token_play: false, ..settings() };
        let gate = gate_of(&only_publishers);
        assert_eq!(refused(&gate, Action::Play, "cam"), Ok(()));
        assert!(refused(&gate, Action::Publish, "cam").is_err());
    }

    #[test]
    fn either_of_both_will_do() {
        let both =
            config::Gate { token_secret: secret("0123456789abcdef"), publish_password: secret("s3cret"), ..settings() };
        let gate = gate_of(&both);
        assert_eq!(refused(&gate, Action::Publish, "cam?password=s3cret"), Ok(()));
        assert!(refused(&gate, Action::Play, "cam?password=s3cret").unwrap_err().contains("takes a token"));
    }

    #[test]
    fn who_guesses_waits_and_others_do_not() {
        let gate = gate_of(&config::Gate { play_password: secret("right"), ..settings() });
        let bolts = gate.0.as_ref().unwrap();
        let right = Secret::new("right");
        let now = Instant::now();
        let at = |peer: &str, given: &str, now| bolts.guess(&right, given, peer.parse().unwrap(), now);
        assert_eq!(at("192.0.2.1", "wrong", now), Err(Refusal::Password));
        assert_eq!(at("192.0.2.1", "right", now), Err(Refusal::Wait));
        assert_eq!(at("::ffff:192.0.2.1", "right", now), Err(Refusal::Wait));
        assert_eq!(at("192.0.2.2", "right", now), Ok(()));
        assert_eq!(at("2001:db8::1", "wrong", now), Err(Refusal::Password));
        assert_eq!(at("2001:db8::2", "right", now), Err(Refusal::Wait));
        assert_eq!(at("192.0.2.1", "right", now + WAIT), Ok(()));
        for guesser in 0..2 * WAITING as u32 {
            let _ = bolts.guess(&right, "wrong", IpAddr::V4(Ipv4Addr::from(guesser)), now + WAIT);
        }
        assert!(bolts.guessers.lock().unwrap().len() <= WAITING);
    }

    proptest! {
        #[test]
        fn no_name_makes_it_panic(name in "\\PC{0,80}") {
            let gate = gate_of(&config::Gate { play_password: secret("p"), ..settings() });
            let (stream, _) = gate.split(&name);
            prop_assert!(gate.split(&stream).1 == Credentials::default());
        }
    }
}
