//! What is sent to a hook server, and what its answer means. Pure. Source: wcs.md 4.2, 4.4, 14.
//!
//! `connect`'s answer may carry `restClientConfig`: for each method what is left out of what is sent and shown, whether
//! an error counts, and which fields of an answer replace the client's. It holds for the life of the session.

use std::collections::HashMap;

use serde_json::{Map, Value};

use super::Method;

/// A JSON object.
pub type Object = Map<String, Value>;

/// What the SDK cannot do without; no `clientExclude` takes it away.
const ESSENTIAL: [&str; 5] = ["mediaSessionId", "status", "operationId", "authToken", "published"];

/// What an error means (`restOnError`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnError {
    /// It is logged; the operation goes on.
    #[default]
    Log,
    /// The operation does not take place.
    Fail,
}

/// What an answer means (`restPolicy`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RestPolicy {
    /// Its fields have no effect.
    #[default]
    Notify,
    /// The fields of `restOverwrite` replace the client's.
    Overwrite,
    /// The method is not called.
    Disable,
}

/// How one method is treated.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MethodPolicy {
    /// Fields that the client is not shown.
    pub client_exclude: Vec<String>,
    /// Fields that are not sent.
    pub rest_exclude: Vec<String>,
    /// What an error means.
    pub on_error: OnError,
    /// What an answer means.
    pub policy: RestPolicy,
    /// Fields that an answer may replace.
    pub overwrite: Vec<String>,
}

/// The `restClientConfig` of a session.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Policies(HashMap<Method, MethodPolicy>);

/// How a call went.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// 200 and an object, or nothing at all, which is an object without fields.
    Answered(Object),
    /// Another status.
    Status(u16),
    /// 200, and what is no JSON object.
    Garbage(String),
    /// No answer came: why, and whether the call may have arrived.
    Unreachable(Unreachable),
}

impl Outcome {
    /// The word that it is counted under.
    pub(super) fn word(&self) -> &'static str {
        match self {
            Self::Answered(_) => "ok",
            Self::Status(_) => "refused",
            Self::Garbage(_) => "garbage",
            Self::Unreachable(_) => "unreachable",
        }
    }
}

/// Why no answer came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unreachable {
    /// For people.
    pub reason: String,
    /// The call was sent, so the hook server may have taken it.
    pub sent: bool,
}

/// What a call comes to.
#[derive(Debug, Clone, PartialEq)]
pub enum Verdict {
    /// The operation takes place, with these fields instead of the client's.
    Go(Object),
    /// It does not: the text for the client.
    Refused(String),
}

impl Outcome {
    /// What went wrong, for people; `None` where nothing did.
    pub fn error(&self) -> Option<String> {
        match self {
            Self::Answered(_) => None,
            Self::Status(status) => Some(format!("REST {status}{}", reason_phrase(*status))),
            Self::Garbage(what) => Some(format!("REST answer cannot be used: {what}")),
            Self::Unreachable(Unreachable { reason, .. }) => Some(format!("REST hook is not reached: {reason}")),
        }
    }

    /// Whether a later try may succeed where this one failed: nobody was there, or nobody behind a proxy.
    pub fn away(&self) -> bool {
        match self {
            Self::Answered(_) | Self::Garbage(_) => false,
            Self::Status(status) => matches!(status, 429 | 502..=504),
            Self::Unreachable(_) => true,
        }
    }
}

/// The phrases that backends use.
fn reason_phrase(status: u16) -> &'static str {
    match status {
        300..400 => " (redirects are not followed)",
        400 => " Bad Request",
        401 => " Unauthorized",
        403 => " Forbidden",
        404 => " Not Found",
        429 => " Too Many Requests",
        500 => " Internal Server Error",
        502 => " Bad Gateway",
        503 => " Service Unavailable",
        504 => " Gateway Timeout",
        _ => "",
    }
}

impl Policies {
    /// Reads `restClientConfig` of `connect`'s answer. What cannot be read is as if it were not there.
    pub fn read(answer: &Object) -> Self {
        let entries = answer.get("restClientConfig").and_then(Value::as_object);
        let known = entries.into_iter().flatten().filter_map(|(name, entry)| {
            let method: Method = name.parse().ok()?;
            Some((method, MethodPolicy::read(method, entry.as_object()?)))
        });
        Self(known.collect())
    }

    /// How a method is treated.
    pub fn of(&self, method: Method) -> MethodPolicy {
        self.0.get(&method).cloned().unwrap_or_else(|| MethodPolicy::of(method))
    }
}

impl MethodPolicy {
    /// How a method is treated that `restClientConfig` does not name.
    pub fn of(method: Method) -> Self {
        // Ending the stream is all that a keep-alive is for.
        let on_error = if method == Method::StreamKeepAliveEvent { OnError::Fail } else { OnError::Log };
        Self { on_error, ..Self::default() }
    }

    fn read(method: Method, entry: &Object) -> Self {
        let word = |key: &str| entry.get(key).and_then(Value::as_str).map(str::to_ascii_uppercase);
        let default = Self::of(method);
        Self {
            client_exclude: fields(entry.get("clientExclude")),
            rest_exclude: fields(entry.get("restExclude")),
            on_error: match word("restOnError").as_deref() {
                Some("FAIL") => OnError::Fail,
                Some("LOG") => OnError::Log,
                _ => default.on_error,
            },
            policy: match word("restPolicy").as_deref() {
                Some("OVERWRITE") => RestPolicy::Overwrite,
                Some("DISABLE" | "DISABLED") => RestPolicy::Disable,
                _ => RestPolicy::Notify,
            },
            overwrite: fields(entry.get("restOverwrite")),
        }
    }

    /// A body without what is not sent.
    pub fn sent(&self, mut body: Object) -> Object {
        body.retain(|field, value| !value.is_null() && !self.rest_exclude.contains(field));
        body
    }

    /// What the client is shown.
    pub fn told(&self, shown: &mut Object) {
        shown.retain(|field, _| ESSENTIAL.contains(&field.as_str()) || !self.client_exclude.contains(field));
    }

    /// What a call comes to for an operation that waits for it.
    pub fn judge(&self, outcome: &Outcome) -> Verdict {
        match (outcome, outcome.error()) {
            (_, Some(error)) if self.on_error == OnError::Fail => Verdict::Refused(error),
            (Outcome::Answered(answer), _) if self.policy == RestPolicy::Overwrite => {
                let replaced =
                    self.overwrite.iter().filter_map(|field| Some((field.clone(), answer.get(field)?.clone())));
                Verdict::Go(replaced.collect())
            }
            _ => Verdict::Go(Object::new()),
        }
    }

    /// Whether a keep-alive's outcome ends its stream: no error but 403 does.
    pub fn ends_stream(&self, outcome: &Outcome) -> bool {
        self.on_error == OnError::Fail && *outcome == Outcome::Status(403)
    }
}

/// Field names with commas between them, or a list of them.
fn fields(value: Option<&Value>) -> Vec<String> {
    let names = |text: &str| -> Vec<String> {
        text.split(',').map(str::trim).filter(|name| !name.is_empty()).map(str::to_owned).collect()
    };
    match value {
        Some(Value::String(text)) => names(text),
        Some(Value::Array(list)) => list.iter().filter_map(Value::as_str).flat_map(names).collect(),
        _ => Vec::new(),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn object(value: Value) -> Object {
        value.as_object().unwrap().clone()
    }

    fn policies(config: Value) -> Policies {
        Policies::read(&object(json!({"appKey": "a", "restClientConfig": config})))
    }

    fn unreachable() -> Outcome {
        Outcome::Unreachable(Unreachable { reason: "nobody listens".into(), sent: false })
    }

    #[test]
    fn a_method_that_is_not_named_is_notified_and_errors_are_logged() {
        let policy = policies(json!({})).of(Method::PublishStream);
        for outcome in [Outcome::Status(403), Outcome::Status(500), Outcome::Garbage("x".into()), unreachable()] {
            assert_eq!(policy.judge(&outcome), Verdict::Go(Object::new()), "{outcome:?}");
        }
        let answer = Outcome::Answered(object(json!({"name": "other"})));
        assert_eq!(policy.judge(&answer), Verdict::Go(Object::new()));
        assert_eq!(policies(json!(7)), Policies::default());
    }

    #[test]
    fn fail_refuses_whatever_goes_wrong() {
        let policies = policies(json!({"publishStream": {"restOnError": "FAIL"}, "nonsense": {}, "playStream": 7}));
        let policy = policies.of(Method::PublishStream);
        for (outcome, text) in [
            (Outcome::Status(403), "REST 403 Forbidden"),
            (Outcome::Status(302), "REST 302 (redirects are not followed)"),
            (Outcome::Garbage("no JSON".into()), "REST answer cannot be used: no JSON"),
            (unreachable(), "REST hook is not reached: nobody listens"),
        ] {
            assert_eq!(policy.judge(&outcome), Verdict::Refused(text.into()));
        }
        assert_eq!(policy.judge(&Outcome::Answered(Object::new())), Verdict::Go(Object::new()));
        assert_eq!(policies.of(Method::PlayStream).on_error, OnError::Log);
    }

    #[test]
    fn overwrite_takes_the_listed_fields_that_are_answered() {
        let policies =
            policies(json!({"playStream": {"restPolicy": "OVERWRITE", "restOverwrite": "name, record,none"}}));
        let answer = object(json!({"name": "real", "record": null, "mediaSessionId": "other"}));
        let verdict = policies.of(Method::PlayStream).judge(&Outcome::Answered(answer));
        assert_eq!(verdict, Verdict::Go(object(json!({"name": "real", "record": null}))));
    }

    #[test]
    fn what_is_excluded_is_neither_sent_nor_shown() {
        let config = json!({"StreamStatusEvent": {"restExclude": "sdp", "clientExclude": "name,status"}});
        let policy = policies(config).of(Method::StreamStatusEvent);
        let body = object(json!({"name": "a", "sdp": "v=0", "info": null, "status": "PLAYING"}));
        assert_eq!(policy.sent(body.clone()), object(json!({"name": "a", "status": "PLAYING"})));
        let mut shown = body;
        policy.told(&mut shown);
        assert_eq!(shown, object(json!({"sdp": "v=0", "info": null, "status": "PLAYING"})));
    }

    #[test]
    fn keep_alive_fails_unless_told_otherwise_and_only_403_ends_a_stream() {
        let keep_alive = |config| policies(config).of(Method::StreamKeepAliveEvent);
        let seed = json!({"StreamKeepAliveEvent": {"clientExclude": "", "restExclude": "sdp", "restOnError": "FAIL",
            "restPolicy": "NOTIFY", "restOverwrite": ""}});
        for config in [json!({}), seed, json!({"StreamKeepAliveEvent": {"restExclude": "sdp"}})] {
            let policy = keep_alive(config);
            assert!(policy.ends_stream(&Outcome::Status(403)));
            for other in [Outcome::Status(401), Outcome::Status(500), Outcome::Answered(Object::new()), unreachable()] {
                assert!(!policy.ends_stream(&other), "{other:?}");
            }
        }
        let logged = keep_alive(json!({"StreamKeepAliveEvent": {"restOnError": "LOG"}}));
        assert!(!logged.ends_stream(&Outcome::Status(403)));
        let off = keep_alive(json!({"StreamKeepAliveEvent": {"restPolicy": "DISABLED"}}));
        assert_eq!(off.policy, RestPolicy::Disable);
    }

    #[test]
    fn what_may_succeed_later() {
        for (outcome, away) in [
            (unreachable(), true),
            (Outcome::Status(503), true),
            (Outcome::Status(500), false),
            (Outcome::Status(403), false),
            (Outcome::Garbage(String::new()), false),
        ] {
            assert_eq!(outcome.away(), away, "{outcome:?}");
        }
    }

    proptest! {
        #[test]
        fn no_config_panics(text in "\\PC{0,40}", list in proptest::collection::vec("[a-z,]{0,8}", 0..4)) {
            let config = json!({"playStream": {"restPolicy": text, "restOverwrite": list, "restExclude": text}});
            let policy = policies(config).of(Method::PlayStream);
            prop_assert!(policy.overwrite.iter().all(|field| !field.is_empty() && !field.contains(',')));
        }
    }
}
