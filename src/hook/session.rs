//! One connection as its hook server knows it: what `connect` was answered, for the life of the connection.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use serde_json::Value;

use super::policy::{MethodPolicy, Object, OnError, Outcome, Policies, RestPolicy, Verdict};
use super::{Hooks, Method};
use crate::name::MediaSessionId;

/// Tells a client of an error that changes nothing for it: the method and a text.
pub type Warn = Box<dyn Fn(Method, &str) + Send + Sync>;

/// Who wants to connect.
pub struct Caller {
    /// The connection (`sessionId`).
    pub id: String,
    /// The application it names.
    pub app_key: String,
    /// What it says of itself, and what is known of it: the body of `connect`.
    pub fields: Object,
    /// Where errors of events are told.
    pub warn: Warn,
    /// Tells its streams' statuses by itself (`StreamStatusEvent`); those of others are told for them.
    pub tells_statuses: bool,
}

/// An established connection. Cheap to share; the connection ends with [`Session::left`].
pub struct Session {
    hooks: Hooks,
    id: String,
    app_key: String,
    policies: Policies,
    fields: Object,
    /// What clients said of their media sessions, for later bodies: `sdp` and `custom`.
    media: Mutex<HashMap<MediaSessionId, Arc<Object>>>,
    warn: Warn,
    tells_statuses: bool,
}

/// The connections there are, by their ids. A cheap handle.
#[derive(Clone, Default)]
pub(super) struct Sessions(Arc<Mutex<HashMap<String, Weak<Session>>>>);

impl Sessions {
    pub(super) fn get(&self, id: &str) -> Option<Arc<Session>> {
        self.all().get(id).and_then(Weak::upgrade)
    }

    /// Tells a client of an error of an event, where its `restOnError` says so.
    pub(super) fn warn(&self, id: &str, method: Option<Method>, error: &str) {
        let (Some(session), Some(method)) = (self.get(id), method) else { return };
        if session.policy(method).on_error == OnError::Fail {
            (session.warn)(method, error);
        }
    }

    fn all(&self) -> MutexGuard<'_, HashMap<String, Weak<Session>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Session {
    pub(super) fn start(hooks: Hooks, caller: Caller, policies: Policies) -> Arc<Self> {
        let Caller { id, app_key, fields, warn, tells_statuses } = caller;
        let session = Self { hooks, id, app_key, policies, fields, media: Mutex::default(), warn, tells_statuses };
        let session = Arc::new(session);
        session.hooks.sessions().all().insert(session.id.clone(), Arc::downgrade(&session));
        session
    }

    /// The application.
    pub fn app_key(&self) -> &str {
        &self.app_key
    }

    /// How a method is treated.
    pub fn policy(&self, method: Method) -> MethodPolicy {
        self.policies.of(method)
    }

    pub(super) fn tells_statuses(&self) -> bool {
        self.tells_statuses
    }

    /// Asks whether an operation may take place. Where the method is not called, it may. What was told of the connection
    /// before is with the hook server first: ESTABLISHED comes before the first stream, the end of a stream before the
    /// next one of its name.
    pub async fn ask(&self, method: Method, fields: Object) -> Verdict {
        if !self.calls(method) {
            return Verdict::Go(Object::new());
        }
        self.hooks.in_turn(&self.app_key, &self.id).await;
        let policy = self.policies.of(method);
        let Some(outcome) = self.hooks.call(&self.app_key, method, || policy.sent(self.body(fields))).await else {
            return Verdict::Go(Object::new());
        };
        policy.judge(&outcome)
    }

    /// Whether a method is called at all.
    pub fn calls(&self, method: Method) -> bool {
        self.hooks.calls(&self.app_key, method) && self.policies.of(method).policy != RestPolicy::Disable
    }

    /// Tells what happened. Never waits; the hook server gets the connection's events in their order.
    pub fn tell(&self, method: Method, fields: Object) {
        let policy = self.policies.of(method);
        if policy.policy != RestPolicy::Disable {
            self.hooks.tell(&self.app_key, method, &self.id, || policy.sent(self.body(fields)));
        }
    }

    /// What a client said of a media session: kept for later bodies, until [`Session::forget`].
    pub fn remember(&self, session: &MediaSessionId, said: &Object) {
        let kept = ["sdp", "custom"].into_iter().filter_map(|key| Some((key.to_owned(), said.get(key)?.clone())));
        self.media().insert(session.clone(), Arc::new(kept.collect()));
    }

    /// The media session is over.
    pub fn forget(&self, session: &MediaSessionId) {
        self.media().remove(session);
    }

    /// The connection is over: nothing is told of it any more, once the statuses of its streams are.
    pub fn left(self: Arc<Self>, info: &str) {
        match self.tells_statuses {
            true => self.over(info),
            false => self.hooks.clone().over_after_statuses(self, info),
        }
    }

    pub(super) fn over(&self, info: &str) {
        self.connection_status("DISCONNECTED", Some(info));
        self.hooks.sessions().all().remove(&self.id);
    }

    pub(super) fn connection_status(&self, status: &str, info: Option<&str>) {
        let mut fields = self.fields.clone();
        fields.insert("status".into(), status.into());
        fields.extend(info.map(|info| ("info".to_owned(), info.into())));
        self.tell(Method::ConnectionStatusEvent, fields);
    }

    /// What the client said of a media session goes into a body where the body does not say it itself.
    pub fn recall(&self, session: &MediaSessionId, fields: &mut Object, with_sdp: bool) {
        let said = self.media().get(session).cloned();
        for (key, value) in said.iter().flat_map(|said| said.iter()) {
            if key != "sdp" || with_sdp {
                fields.insert(key.clone(), value.clone());
            }
        }
    }

    /// Fields with whose they are.
    pub(super) fn body(&self, mut fields: Object) -> Object {
        self.hooks.sign(&mut fields, &self.app_key, &self.id);
        if let (None | Some(Value::Null), Some(custom)) = (fields.get("custom"), self.fields.get("custom")) {
            fields.insert("custom".into(), custom.clone());
        }
        fields
    }

    fn media(&self) -> MutexGuard<'_, HashMap<MediaSessionId, Arc<Object>>> {
        self.media.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What `connect` comes to: only an answer of 200 lets somebody in, whatever `restOnError` says.
pub(super) fn admitted(outcome: &Outcome) -> Result<Policies, String> {
    match outcome {
        Outcome::Answered(answer) => Ok(Policies::read(answer)),
        other => Err(other.error().unwrap_or_default()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hook::policy::Unreachable;

    #[test]
    fn only_200_with_an_object_lets_in() {
        assert_eq!(admitted(&Outcome::Answered(Object::new())), Ok(Policies::default()));
        let gone = Unreachable { reason: "x".into(), sent: true };
        for outcome in
            [Outcome::Status(403), Outcome::Status(302), Outcome::Garbage("x".into()), Outcome::Unreachable(gone)]
        {
            assert!(admitted(&outcome).is_err(), "{outcome:?}");
        }
    }
}
