//! Commands about what runs: streams, agents, recordings, the settings.

use std::time::Duration;

use serde_json::{Value, json};

use super::{Console, Done, Output, Refused, line};
use crate::cli::grammar::Call;
use crate::cli::table::{List, Shown};
use crate::event::epoch_ms;
use crate::hub::{Filter, Role, STOPPED_BY_REST, SessionView, StreamHandle, StreamView};
use crate::media::Track;
use crate::record;

/// How long a command waits for sessions to be gone.
const ENDING: Duration = Duration::from_secs(10);

impl Console {
    pub(super) fn show_streams(&self) -> Output {
        let streams = self.hub.streams();
        let views = streams.values().map(StreamHandle::view);
        let rows = views.flat_map(|view| view.sessions.iter().map(|session| row(&view, session)).collect::<Vec<_>>());
        let columns = vec![
            ("NAME", "name", Shown::Plain),
            ("STATUS", "status", Shown::Plain),
            ("ROLE", "role", Shown::Plain),
            ("APP KEY", "appKey", Shown::Plain),
            ("MEDIA SESSION", "mediaSessionId", Shown::Plain),
            ("TRACKS", "tracks", Shown::Plain),
            ("SINCE", "createDate", Shown::Ago),
        ];
        Output::List(List { rows: rows.collect(), columns })
    }

    pub(super) fn show_agents(&self) -> Output {
        let agents = self.pulls.all();
        let rows = agents.iter().map(|agent| agent.view()).map(|view| {
            json!({
                "localStreamName": view.local_name.to_string(),
                "localMediaSessionId": view.session.to_string(),
                "uri": view.uri.to_string(),
                "status": view.status,
                "since": epoch_ms(view.since),
                "attempts": view.attempts,
                "lastError": view.last_error,
            })
        });
        let columns = vec![
            ("STREAM", "localStreamName", Shown::Plain),
            ("STATUS", "status", Shown::Plain),
            ("URI", "uri", Shown::Plain),
            ("SINCE", "since", Shown::Ago),
            ("TRIES", "attempts", Shown::Plain),
            ("LAST ERROR", "lastError", Shown::Plain),
        ];
        Output::List(List { rows: rows.collect(), columns })
    }

    pub(super) async fn show_recordings(&self) -> Done {
        let failed = |why: String| Refused::Other(format!("record_dir cannot be read: {why}"));
        let files = record::recorded_files(&self.recordings).await.map_err(|error| failed(error.to_string()))?;
        let rows = files.iter().map(|file| serde_json::to_value(file).unwrap_or_default()).collect();
        let columns = vec![
            ("FILE", "name", Shown::Plain),
            ("STATE", "state", Shown::Plain),
            ("SIZE", "size", Shown::Size),
            ("LENGTH, MS", "duration", Shown::Plain),
            ("CHANGED", "modified", Shown::Ago),
            ("STREAM", "stream", Shown::Plain),
        ];
        Ok(Output::List(List { rows, columns }))
    }

    pub(super) fn show_node_settings(&self) -> Output {
        let rows = self.settings.iter().map(|(key, value)| json!({"key": key, "value": value})).collect();
        Output::List(List { rows, columns: vec![("KEY", "key", Shown::Plain), ("VALUE", "value", Shown::Plain)] })
    }

    pub(super) async fn terminate(&self, call: &Call) -> Done {
        let found = meant(call)?.among(&self.hub);
        if found.is_empty() {
            return Err(Refused::Other("there is no such media session: see show streams".to_owned()));
        }
        let count = found.len();
        match tokio::time::timeout(ENDING, self.pulls.end(found, STOPPED_BY_REST)).await {
            Ok(()) => line(format!("{count} ended")),
            Err(_) => Err(Refused::Other(format!("{count} told to end, not all gone within {} s", ENDING.as_secs()))),
        }
    }
}

/// Which media sessions a command means.
fn meant(call: &Call) -> Result<Filter, Refused> {
    let role = match call.option("role") {
        None => None,
        Some("publisher") => Some(Role::Publisher),
        Some("player") => Some(Role::Player),
        Some(_) => return Ok(call.command.expected("publisher or player behind -r")?),
    };
    let text = |text: Option<&str>| text.map(str::to_owned);
    let filter = Filter {
        name: text(call.argument(0)),
        id: text(call.option("id")),
        connection: text(call.option("session")),
        app_key: text(call.option("key")),
        role,
        ..Filter::default()
    };
    if filter.is_empty() {
        return Ok(call.command.expected("a stream name or an option that says which")?);
    }
    Ok(filter)
}

fn row(view: &StreamView, session: &SessionView) -> Value {
    json!({
        "name": view.name.to_string(),
        "mediaSessionId": session.id.to_string(),
        "status": session.status,
        "role": if session.role == Role::Publisher { "publisher" } else { "player" },
        "appKey": session.app_key,
        "sessionId": session.connection,
        "mediaProvider": session.provider,
        "tracks": view.tracks.iter().map(Track::wcs_codec).collect::<Vec<_>>(),
        "recordName": view.record_name,
        "createDate": epoch_ms(session.since),
    })
}
