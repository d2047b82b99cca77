//! What the hook server of `flashStreamingApp` is asked about a client, and told. Source: wcs.md 4.3, 4.6, 14.

use std::sync::Arc;

use serde_json::{Value, json};

use super::absent::Place;
use super::connection::Refusal;
use super::{APP_KEY, Connect, PROVIDER};
use crate::hook::{Caller, Hooks, Method, Object, Session, Verdict};
use crate::hub::Shown;
use crate::name::MediaSessionId;

pub(super) struct Asking {
    hooks: Hooks,
    /// As REST shows it.
    connection: String,
    remote: String,
    session: Option<Arc<Session>>,
}

/// A publisher or player, as the hook server left it.
pub(super) struct Wanted {
    pub(super) id: MediaSessionId,
    /// The name it asked for itself.
    pub(super) asked: String,
    pub(super) name: String,
    pub(super) record: bool,
}

impl Asking {
    pub(super) fn new(hooks: Hooks, connection: &str, remote: String) -> Self {
        Self { hooks, connection: connection.to_owned(), remote, session: None }
    }

    /// Asks whether a client may connect; `Err` is for the client.
    pub(super) async fn connect(&mut self, wanted: &Connect) -> Result<(), String> {
        let fields = json!({
            "mediaProviders": [PROVIDER],
            "clientVersion": wanted.flash_ver,
            "origin": "",
            "remoteAddress": self.remote,
            "keepAlive": false,
            "app": wanted.app,
            "tcUrl": wanted.tc_url,
            "custom": parameters(&wanted.query),
        });
        let caller = Caller {
            id: self.connection.clone(),
            app_key: APP_KEY.into(),
            fields: object(fields),
            // RTMP has no message for what changes nothing.
            warn: Box::new(|_, _| {}),
            tells_statuses: false,
        };
        self.session = Some(self.hooks.connect(caller).await.map_err(|refusal| refusal.to_string())?);
        Ok(())
    }

    /// Asks whether a client may publish or play `name`; `back` is what waits for it to come back.
    pub(super) async fn begin(
        &self,
        published: bool,
        name: &str,
        query: &str,
        back: Option<Place>,
    ) -> Result<Wanted, Refusal> {
        let id = back.as_ref().map_or_else(MediaSessionId::random, |place| place.session.clone());
        let asked = name.to_owned();
        let Some(session) = &self.session else {
            return Ok(Wanted { id, asked, name: name.to_owned(), record: false });
        };
        let mut said = Shown::wanted(published);
        said.extend(object(json!({
            "mediaSessionId": id.as_str(),
            "name": name,
            "hasVideo": true,
            "hasAudio": true,
            "transport": "TCP",
            "mediaProvider": PROVIDER,
            "custom": parameters(query),
        })));
        session.remember(&id, &said);
        let method = if published { Method::PublishStream } else { Method::PlayStream };
        let mut wanted = said.clone();
        match session.ask(method, said.clone()).await {
            Verdict::Go(replaced) => wanted.extend(replaced),
            Verdict::Refused(reason) => {
                let mut status = said;
                status.extend([("status".to_owned(), "FAILED".into()), ("info".to_owned(), reason.clone().into())]);
                session.tell(Method::StreamStatusEvent, status);
                session.forget(&id);
                let code = if published { "NetStream.Publish.Denied" } else { "NetStream.Play.Failed" };
                return Err(Refusal { code, reason });
            }
        }
        let name = wanted.get("name").and_then(Value::as_str).unwrap_or_default().to_owned();
        let record = wanted.get("record") == Some(&Value::Bool(true));
        // The hook server leads it elsewhere this time, and what waits keeps its media session.
        let id = match back.is_some_and(|place| place.stream.as_str() != name) {
            true => MediaSessionId::random(),
            false => id,
        };
        Ok(Wanted { id, asked, name, record })
    }

    /// The client itself has ended what it did.
    pub(super) fn stopped(&self, shown: Shown) {
        let Some(session) = &self.session else { return };
        let method = if shown.published { Method::UnPublishStream } else { Method::StopStream };
        let id = MediaSessionId::new(&shown.media_session_id);
        let mut fields = shown.fields();
        fields.remove("sdp");
        if let Ok(id) = id {
            session.recall(&id, &mut fields, false);
        }
        session.tell(method, fields);
    }

    /// The client has left.
    pub(super) fn left(&mut self, info: &str) {
        if let Some(session) = self.session.take() {
            session.left(info);
        }
    }
}

fn object(value: Value) -> Object {
    value.as_object().cloned().unwrap_or_default()
}

/// A query's parameters, for backends that look for a token there.
fn parameters(query: &str) -> Value {
    let pairs = url::form_urlencoded::parse(query.as_bytes());
    Value::Object(pairs.map(|(name, value)| (name.into_owned(), Value::String(value.into_owned()))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_an_object() {
        assert_eq!(parameters("token=a%20b&x=1&flag"), json!({"token": "a b", "x": "1", "flag": ""}));
        assert_eq!(parameters(""), json!({}));
    }
}
