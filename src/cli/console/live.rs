//! Commands about what runs: streams, agents, recordings, the settings.

use std::time::Duration;

use serde_json::{Value, json};

use super::{Console, Done, Output, Refused, line};
use crate::cli::grammar::Call;
use crate::cli::table::{List, Shown};
use crate::event::epoch_ms;
use crate::hub::{Role, STOPPED_BY_REST, SessionView, StreamHandle, StreamView};
use crate::media::Track;
use crate::name::MediaSessionId;
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
        let wanted = Wanted::read(call)?;
        let mut found: Vec<(StreamHandle, MediaSessionId)> = Vec::new();
        for stream in self.hub.streams().values() {
            let view = stream.view();
            let sessions = view.sessions.iter().filter(|session| wanted.fits(&view, session));
            found.extend(sessions.map(|session| (stream.clone(), session.id.clone())));
        }
        if found.is_empty() {
            return Err(Refused::Other("there is no such media session: see show streams".to_owned()));
        }
        let count = found.len();
        found.iter().for_each(|(stream, session)| stream.terminate(session, STOPPED_BY_REST));
        let gone = async {
            for (stream, session) in found {
                stream.left(&session).await;
                // An agent that is still on the list would be in the way of who pulls its source again.
                self.pulls.gone(session).await;
            }
        };
        match tokio::time::timeout(ENDING, gone).await {
            Ok(()) => line(format!("{count} ended")),
            Err(_) => Err(Refused::Other(format!("{count} told to end, not all gone within {} s", ENDING.as_secs()))),
        }
    }
}

/// Which media sessions a command means: those that everything given fits.
struct Wanted<'a> {
    name: Option<&'a str>,
    id: Option<&'a str>,
    session: Option<&'a str>,
    key: Option<&'a str>,
    role: Option<Role>,
}

impl<'a> Wanted<'a> {
    fn read(call: &'a Call) -> Result<Self, Refused> {
        let role = match call.option("role") {
            None => None,
            Some("publisher") => Some(Role::Publisher),
            Some("player") => Some(Role::Player),
            Some(_) => return Ok(call.command.expected("publisher or player behind -r")?),
        };
        let (name, id) = (call.argument(0), call.option("id"));
        let (session, key) = (call.option("session"), call.option("key"));
        // Nothing at all would mean everything.
        if name.is_none() && id.is_none() && session.is_none() && key.is_none() && role.is_none() {
            return Ok(call.command.expected("a stream name or an option that says which")?);
        }
        Ok(Self { name, id, session, key, role })
    }

    fn fits(&self, view: &StreamView, session: &SessionView) -> bool {
        let same = |wanted: Option<&str>, is: &str| wanted.is_none_or(|wanted| wanted == is);
        // A name may be written as it is, or as lists show it.
        (same(self.name, view.name.as_str()) || same(self.name, &view.name.to_string()))
            && same(self.id, session.id.as_str())
            && same(self.session, &session.connection)
            && same(self.key, &session.app_key)
            && self.role.is_none_or(|role| role == session.role)
    }
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
