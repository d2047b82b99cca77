//! Commands about what runs: streams, agents, recordings, the settings.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};

use super::{Console, Done, Output, Refused, line};
use crate::cli::grammar::Call;
use crate::cli::table::{List, Shown};
use crate::event::epoch_ms;
use crate::hub::{Filter, Role, STOPPED_BY_REST, SessionView, StreamHandle, StreamView};
use crate::media::Track;
use crate::record::name::finished;

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
        let dir = self.records.clone();
        let recorded: BTreeMap<String, String> =
            self.hub.streams().values().map(StreamHandle::view).fold(BTreeMap::new(), |mut names, view| {
                names.extend(view.record_name.map(|file| (file, view.name.to_string())));
                names
            });
        let failed = |why: String| Refused::Other(format!("record_dir cannot be read: {why}"));
        let listed = tokio::task::spawn_blocking(move || files(&dir, &recorded)).await;
        let rows = listed.map_err(|error| failed(error.to_string()))?.map_err(|error| failed(error.to_string()))?;
        let columns = vec![
            ("FILE", "name", Shown::Plain),
            ("STATE", "state", Shown::Plain),
            ("SIZE", "size", Shown::Size),
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

/// The plain files of a directory that are not hidden, the newest first; `recorded` has the streams by the files that
/// are being written for them.
fn files(dir: &Path, recorded: &BTreeMap<String, String>) -> std::io::Result<Vec<Value>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        let Some(name) = entry.file_name().to_str().filter(|name| !name.starts_with('.')).map(str::to_owned) else {
            continue;
        };
        // A file that got its final name since the directory was read is seen under that name next time.
        let Ok(about) = entry.metadata() else { continue };
        if about.is_file() {
            let modified = about.modified().unwrap_or(SystemTime::UNIX_EPOCH);
            found.push((modified, name, about.len()));
        }
    }
    found.sort_by(|a, b| b.cmp(a));
    let row = |(modified, name, size): (SystemTime, String, u64)| {
        let state = match finished(&name) {
            Some(_) => "writing",
            None if name.ends_with(".broken") => "broken",
            None => "finished",
        };
        let stream = recorded.get(finished(&name).unwrap_or(&name));
        json!({"name": name, "state": state, "size": size, "modified": epoch_ms(modified), "stream": stream})
    };
    Ok(found.into_iter().map(row).collect())
}
