//! What a browser asks for besides media: snapshots, events of its streams, data for its application, logs.

use data_encoding::BASE64;
use serde_json::{Value, json};

use super::connection::{Connection, Wish};
use crate::gate::Action;
use crate::hook::application::ROOM_APP;
use crate::hook::{Method, Object, Verdict};
use crate::hub::{Phase, Shown, StreamHandle};
use crate::message::{self, DataCall, Incoming, StreamEventCall};
use crate::name::StreamName;
use crate::picture::PictureError;

/// What who wants to enter a room is told.
const NO_ROOMS: &str = "there are no rooms on this server";

impl Connection {
    pub(super) fn available(&self, wish: &Wish) -> Result<(), String> {
        let info = self.unavailable(wish).err();
        let session = wish.call.media_session_id.as_deref().unwrap_or_default();
        self.outbox.text(message::available(session, info.as_deref()));
        Ok(())
    }

    fn unavailable(&self, wish: &Wish) -> Result<(), String> {
        if self.hook.is_none() {
            return Err("Session not ready".into());
        }
        self.admit(Action::Play, wish)?;
        let streams = self.signal.hub.streams();
        let name = wish.call.name.as_deref().and_then(|name| StreamName::new(name).ok());
        match name.and_then(|name| streams.get(&name).map(StreamHandle::view)) {
            None => Err("Stream not found".into()),
            Some(view) if view.phase == Phase::Waiting => Err("Publish stream is not ready".into()),
            Some(_) => Ok(()),
        }
    }

    /// Takes a picture beside the connection; the browser is told under the id it chose for it.
    pub(super) fn snapshot(&self, wish: Wish) -> Result<(), String> {
        let admitted = self.admit(Action::Play, &wish);
        let Wish { said, call, .. } = wish;
        let session = call.media_session_id.clone().unwrap_or_default();
        let (pictures, outbox, hook) = (self.signal.pictures.clone(), self.outbox.clone(), self.hook.clone());
        let failed = move |info: String| message::stream_event(&session, "snapshotFailed", &json!({"info": info}));
        let Some(hook) = hook else {
            self.outbox.text(failed(PictureError::NotFound.to_string()));
            return Ok(());
        };
        if let Err(info) = admitted {
            self.outbox.text(failed(info));
            return Ok(());
        }
        let session = call.media_session_id.clone().unwrap_or_default();
        self.errand(async move {
            let mut shown = Shown::wanted(false);
            shown.extend(said.clone());
            let taken = match hook.ask(Method::Snapshot, said).await {
                Verdict::Refused(info) => Err(info),
                Verdict::Go(replaced) => {
                    shown.extend(replaced);
                    let name = shown.get("name").and_then(Value::as_str).and_then(|name| StreamName::new(name).ok());
                    let taken = match name {
                        Some(name) => pictures.take(&name).await,
                        None => Err(PictureError::NotFound),
                    };
                    taken.map_err(|error| error.to_string())
                }
            };
            // The picture itself is too much for what waits for a hook server; REST has it.
            let (status, info) = match &taken {
                Ok(_) => ("SNAPSHOT_COMPLETE", None),
                Err(info) => ("FAILED", Some(info.clone())),
            };
            outbox.text(match taken {
                Ok(png) => {
                    let payload = json!({"snapshot": BASE64.encode(&png)});
                    message::stream_event(&session, "snapshotCompleted", &payload)
                }
                Err(info) => failed(info),
            });
            shown.extend([("status".to_owned(), status.into()), ("info".to_owned(), info.into())]);
            hook.tell(Method::StreamStatusEvent, shown);
        })
    }

    pub(super) fn stream_event(&self, said: Object, call: StreamEventCall) -> Result<(), String> {
        let streams = self.signal.hub.streams();
        let id = call.media_session_id.unwrap_or_default();
        let mine = |stream: &&StreamHandle| {
            let publisher =
                |session: &crate::hub::SessionView| session.id.as_str() == id && session.connection == self.id;
            stream.look(|view| view.publisher().is_some_and(publisher))
        };
        let stream = streams.values().find(mine).ok_or("Stream not found")?;
        stream.signal(&call.kind, call.payload.unwrap_or_else(|| json!({})));
        if let Some(hook) = &self.hook {
            hook.tell(Method::StreamEvent, said);
        }
        Ok(())
    }

    /// Data for the application's own server. WCS has two names for this call: a hook server is asked by those it enables.
    pub(super) fn data(&self, said: Object, call: &DataCall) -> Result<(), String> {
        let operation = call.operation_id.clone().ok_or("sendData has no operationId")?;
        let Some(hook) = self.hook.clone() else {
            self.outbox.text(message::data_status(&operation, "FAILED", Some("Session not ready")));
            return Ok(());
        };
        let asked = [Method::SendData, Method::OnDataEvent];
        // The SDK's room has nothing else that says so, and would wait for its others for ever.
        if hook.app_key() == ROOM_APP && !asked.iter().any(|method| hook.calls(*method)) {
            self.outbox.text(message::data_status(&operation, "FAILED", Some(NO_ROOMS)));
            return Ok(());
        }
        let outbox = self.outbox.clone();
        self.errand(async move {
            let mut refused = None;
            for method in asked {
                if let Verdict::Refused(info) = hook.ask(method, said.clone()).await {
                    refused = Some(info);
                    break;
                }
            }
            let status = if refused.is_none() { "ACCEPTED" } else { "FAILED" };
            outbox.text(message::data_status(&operation, status, refused.as_deref()));
            let event = json!({"operationId": operation, "status": status, "info": refused});
            hook.tell(Method::DataStatusEvent, event.as_object().cloned().unwrap_or_default());
        })
    }

    /// Logs and reports of bugs go to the hook server.
    pub(super) fn report(&self, method: Method, incoming: &Incoming) -> Result<(), String> {
        tracing::debug!(connection = %self.id, "{method}: {} bytes", incoming.data.to_string().len());
        let Some(hook) = self.hook.clone() else { return Ok(()) };
        let (said, outbox) = (incoming.data.as_object().cloned().unwrap_or_default(), self.outbox.clone());
        self.errand(async move {
            if let Verdict::Refused(info) = hook.ask(method, said).await {
                outbox.text(message::fail(method.name(), "", &info));
            }
        })
    }
}
