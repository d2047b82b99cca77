//! `/rest-api/stream/*`. Source: wcs.md 1.4, 1.10, 14.

use std::time::Duration;

use data_encoding::BASE64;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use tokio::time::timeout;
use warp::http::StatusCode;

use super::Api;
use super::answer::Answer;
use super::call::Call;
use super::error::ApiError;
use super::request::{Request, flag, flag_schema};
use crate::hub::{Figures, Filter, Role, STOPPED_BY_REST, SessionView, Shown, StreamHandle};
use crate::media::{Kind, Track};
use crate::name::StreamName;

/// Longest time the sessions that `/stream/terminate` ends may take until the caller is told so.
const LEAVING: Duration = Duration::from_secs(20);

/// Every field that is present must fit.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "StreamFilter")]
struct Wanted {
    media_session_id: Option<String>,
    media_session_ids: Option<Vec<String>>,
    session_id: Option<String>,
    app_key: Option<String>,
    name: Option<String>,
    #[serde(default, deserialize_with = "flag")]
    #[schemars(schema_with = "flag_schema")]
    published: Option<bool>,
    status: Option<String>,
    media_provider: Option<String>,
    media_type: Option<String>,
    /// What else to show: `metrics`.
    #[serde(default)]
    display: Vec<String>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "SnapshotOf")]
struct Of {
    stream_name: Option<String>,
}

#[derive(Serialize, JsonSchema)]
struct Snapshot {
    /// PNG in BASE64.
    data: String,
}

/// The calls of this family, for the contract.
pub fn calls() -> Vec<Call> {
    let path = |call: &str| format!("/rest-api/stream/{call}");
    vec![
        Call::list(path("find_all"), "Every media session: publishers and players.").gives::<Vec<Shown>>(),
        Call::post(path("find"), "The media sessions that every given field fits.")
            .takes::<Wanted>()
            .gives::<Vec<Shown>>(),
        Call::post(path("terminate"), "Ends the media sessions that every given field fits.").takes::<Wanted>(),
        Call::post(path("snapshot"), "A picture of a stream.").takes::<Of>().gives::<Snapshot>(),
    ]
}

/// `/stream/find_all`: every media session.
pub fn find_all(api: &Api) -> Result<Answer, ApiError> {
    answered(&shown(api, &Filter::default(), false))
}

/// `/stream/find`: those that every given field fits.
pub fn find(api: &Api, request: &Request) -> Result<Answer, ApiError> {
    let wanted: Wanted = request.fields()?;
    let metrics = wanted.display.iter().any(|what| what == "metrics");
    answered(&shown(api, &wanted.filter()?, metrics))
}

fn answered(found: &[Shown]) -> Result<Answer, ApiError> {
    if found.is_empty() {
        return Err(none());
    }
    Answer::json(&found)
}

/// Sessions as callers see them.
fn shown(api: &Api, filter: &Filter, metrics: bool) -> Vec<Shown> {
    filter.each(&api.hub.streams(), |stream, view, session| {
        let mut body = Shown::of(view, session);
        body.name = view.name.to_string();
        body.metrics = metrics.then(|| figures(stream, &view.tracks, session));
        body
    })
}

/// `/stream/terminate`: ends those that every given field fits; answers when they are gone.
pub async fn terminate(api: &Api, request: &Request) -> Result<Answer, ApiError> {
    let found = request.fields::<Wanted>()?.filter()?.among(&api.hub);
    if found.is_empty() {
        return Err(none());
    }
    // They end all the same; each of their steps has a deadline of its own.
    let late = |_| ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "NotGone", "some of them take long to end");
    timeout(LEAVING, api.pulls.end(found, STOPPED_BY_REST)).await.map_err(late)?;
    Ok(Answer::Void)
}

/// `/stream/snapshot`: a picture of a stream, PNG in BASE64.
pub async fn snapshot(api: &Api, request: &Request) -> Result<Answer, ApiError> {
    let of: Of = request.fields()?;
    let name = of.stream_name.ok_or_else(|| ApiError::bad("FieldMissing", "the field streamName is missing"))?;
    let picture = api.pictures.take(&StreamName::new(&name)?).await?;
    Answer::json(&Snapshot { data: BASE64.encode(&picture) })
}

fn none() -> ApiError {
    ApiError::not_found("StreamNotFound", "there is no such stream")
}

impl Wanted {
    /// What is wanted; refuses a call that would mean everything.
    fn filter(self) -> Result<Filter, ApiError> {
        let role = |published| if published { Role::Publisher } else { Role::Player };
        let filter = Filter {
            id: self.media_session_id,
            ids: self.media_session_ids,
            connection: self.session_id,
            app_key: self.app_key,
            name: self.name,
            role: self.published.map(role),
            status: self.status,
            provider: self.media_provider,
            media_type: self.media_type,
        };
        let sentence = "say which: mediaSessionId, mediaSessionIds, sessionId, appKey, name, published, status, \
                        mediaProvider or mediaType";
        if filter.is_empty() { Err(ApiError::bad("FilterMissing", sentence)) } else { Ok(filter) }
    }
}

/// The metrics weir counts, under WCS's keys where it has them, and ours beside.
fn figures(stream: &StreamHandle, tracks: &[Track], session: &SessionView) -> Map<String, Value> {
    let mut metrics = session.figures.as_ref().map(Figures::read).unwrap_or_default();
    for track in tracks {
        let counted = stream.fanout().figures(track.kind);
        match track.kind {
            Kind::Video => {
                metrics.insert("VIDEO_WIDTH".into(), json!(track.width));
                metrics.insert("VIDEO_HEIGHT".into(), json!(track.height));
                metrics.insert("VIDEO_K_FRAMES".into(), json!(counted.keyframes));
                metrics.insert("VIDEO_FRAMES".into(), json!(counted.frames));
                metrics.insert("VIDEO_BYTES".into(), json!(counted.bytes));
            }
            Kind::Audio => {
                metrics.insert("AUDIO_FRAMES".into(), json!(counted.frames));
                metrics.insert("AUDIO_BYTES".into(), json!(counted.bytes));
            }
        }
    }
    metrics
}
