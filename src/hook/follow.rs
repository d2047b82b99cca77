//! Tells the statuses of sessions whose connection does not tell them itself: RTMP clients, pulled streams.

use std::sync::Arc;

use serde_json::Value;
use tokio::sync::broadcast::{self, error::RecvError};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::policy::MethodPolicy;
use super::{Hooks, Method, Session};
use crate::event::Event;
use crate::hub::is_last_word;
use crate::name::MediaSessionId;

/// Follows the feed until `stop`. What is in the feed when a connection leaves is told before that.
pub(super) async fn run(
    hooks: Hooks,
    mut events: broadcast::Receiver<Event>,
    mut left: mpsc::UnboundedReceiver<(Arc<Session>, String)>,
    stop: CancellationToken,
) {
    loop {
        let event = tokio::select! {
            biased;
            event = events.recv() => event,
            Some((session, info)) = left.recv() => {
                session.over(&info);
                continue;
            }
            () = stop.cancelled() => return,
        };
        match event {
            Ok(Event::SessionStatus { session: id, status, info, connection, app_key, shown, .. }) => {
                let session = hooks.session(&connection);
                if session.as_ref().is_some_and(|session| session.tells_statuses()) {
                    continue;
                }
                tell(&hooks, session.as_ref(), &id, info, (&connection, &app_key), &shown);
                if let Some(session) = session.filter(|_| is_last_word(status)) {
                    session.forget(&id);
                }
            }
            Ok(_) => {}
            Err(RecvError::Lagged(missed)) => {
                tracing::warn!(missed, "hook servers are not told of some statuses: more came at once than fit");
            }
            Err(RecvError::Closed) => return,
        }
    }
}

fn tell(
    hooks: &Hooks,
    session: Option<&Arc<Session>>,
    id: &MediaSessionId,
    info: Option<String>,
    (connection, app_key): (&str, &str),
    shown: &Value,
) {
    let Some(mut fields) = shown.as_object().cloned().filter(|_| hooks.calls(app_key, Method::StreamStatusEvent))
    else {
        return;
    };
    fields.remove("sdp");
    fields.extend(info.map(|info| ("info".to_owned(), info.into())));
    match session {
        Some(session) => {
            session.recall(id, &mut fields, false);
            session.tell(Method::StreamStatusEvent, fields);
        }
        None => {
            let policy = MethodPolicy::of(Method::StreamStatusEvent);
            hooks.sign(&mut fields, app_key, connection);
            hooks.tell(app_key, Method::StreamStatusEvent, id.as_str(), || policy.sent(fields));
        }
    }
}
