//! `/rest-api/pull/rtmp/*`, `/rest-api/rtsp/*` and `/rest-api/pull/*`. Source: wcs.md 1.5, 1.7 to 1.9, 14.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;

use super::Api;
use super::answer::Answer;
use super::call::Call;
use super::error::ApiError;
use super::request::{Request, flag, flag_schema};
use crate::event::epoch_ms;
use crate::gate::bare_name;
use crate::name::{StreamName, mask};
use crate::pull::{Agent, AgentStatus, AgentView, Direction, Family, PullRequest, PushRequest, Scheme, SourceUri};

/// Publishes a stream of ours on another server.
const PUSH: &str = "push";

/// Whether a family has a call.
pub fn has(family: Family, call: &str) -> bool {
    let pushes = family == Family::Pull && call == PUSH;
    pushes || call == starts(family) || ["find_all", "find", "terminate"].contains(&call)
}

/// The call that starts an agent.
fn starts(family: Family) -> &'static str {
    match family {
        Family::Rtmp | Family::Pull => "pull",
        Family::Rtsp => "startup",
    }
}

#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "Pull")]
struct PullFields {
    uri: Option<String>,
    local_stream_name: Option<String>,
    /// What RTSP calls the same.
    to_stream: Option<String>,
    remote_stream_name: Option<String>,
    #[serde(default, deserialize_with = "flag")]
    #[schemars(schema_with = "flag_schema")]
    record: Option<bool>,
    #[serde(default, deserialize_with = "flag")]
    #[schemars(schema_with = "flag_schema")]
    has_audio: Option<bool>,
    #[serde(default, deserialize_with = "flag")]
    #[schemars(schema_with = "flag_schema")]
    has_video: Option<bool>,
}

/// Every field that is present must fit.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "PullFilter")]
struct Wanted {
    uri: Option<String>,
    #[serde(alias = "toStream")]
    local_stream_name: Option<String>,
    remote_stream_name: Option<String>,
    local_media_session_id: Option<String>,
    status: Option<String>,
}

#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "PullAgent")]
struct AgentBody {
    direction: Direction,
    local_media_session_id: String,
    remote_media_session_id: Option<String>,
    local_stream_name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    to_stream: Option<String>,
    remote_stream_name: Option<String>,
    uri: String,
    status: &'static str,
    has_audio: bool,
    has_video: bool,
    record: bool,
    since: u64,
    attempts: u32,
    last_error: Option<String>,
}

/// The calls of the families, for the contract.
pub fn calls() -> Vec<Call> {
    let of = |place: &str, family: Family| {
        let path = |call: &str| format!("/rest-api/{place}/{call}");
        [
            Call::post(path(starts(family)), "Pulls a stream from another server; its agent says how it goes.")
                .takes::<PullFields>(),
            Call::list(path("find_all"), "The pull agents.").gives::<Vec<AgentBody>>(),
            Call::post(path("find"), "The pull agents that every given field fits.")
                .takes::<Wanted>()
                .gives::<Vec<AgentBody>>(),
            Call::post(path("terminate"), "Ends the pull agents that every given field fits, and their streams.")
                .takes::<Wanted>(),
        ]
    };
    let push = Call::post(format!("/rest-api/pull/{PUSH}"), "Publishes a stream of ours on another server.");
    let families = [of("pull/rtmp", Family::Rtmp), of("rtsp", Family::Rtsp), of("pull", Family::Pull)];
    families.into_iter().flatten().chain([push.takes::<PullFields>()]).collect()
}

/// A call that the family [`has`].
pub async fn call(api: &Api, family: Family, call: &str, request: &Request) -> Result<Answer, ApiError> {
    match call {
        "find_all" => find_all(api, family),
        "find" => find(api, family, request),
        "terminate" => terminate(api, family, request).await,
        PUSH => push(api, request).await,
        _ => pull(api, family, request).await,
    }
}

async fn pull(api: &Api, family: Family, request: &Request) -> Result<Answer, ApiError> {
    let fields: PullFields = request.fields()?;
    let uri = fields.uri.ok_or_else(|| ApiError::bad("FieldMissing", "the field uri is missing"))?;
    let names = [&fields.local_stream_name, &fields.to_stream];
    let mut names = names.into_iter().flatten().filter(|name| !name.is_empty());
    let local_name = names.next();
    if names.any(|other| Some(other) != local_name) {
        let sentence = "localStreamName and toStream are one thing: give one of them";
        return Err(ApiError::bad("InvalidField", sentence));
    }
    let uri = SourceUri::parse(&uri)?;
    // Other addresses name the stream themselves.
    let remote_name = fields.remote_stream_name.filter(|name| !name.is_empty() && uri.scheme() == Scheme::Wcs);
    // What is shown there is no part of the name here.
    let bare = remote_name.as_deref().map(bare_name);
    let local_name = local_name.or(bare.as_ref());
    let request = PullRequest {
        family,
        uri,
        remote_name: remote_name.map(|name| StreamName::new(&name)).transpose()?,
        local_name: local_name.map(|name| StreamName::new(name)).transpose()?,
        record: fields.record.unwrap_or(false),
        has_audio: fields.has_audio.unwrap_or(true),
        has_video: fields.has_video.unwrap_or(true),
        on_demand: false,
    };
    api.pulls.pull(request).await?;
    Ok(Answer::Void)
}

async fn push(api: &Api, request: &Request) -> Result<Answer, ApiError> {
    let fields: PullFields = request.fields()?;
    let missing = |field: &str| ApiError::bad("FieldMissing", format!("the field {field} is missing"));
    let local = fields.local_stream_name.filter(|name| !name.is_empty()).ok_or_else(|| missing("localStreamName"))?;
    let remote = fields.remote_stream_name.filter(|name| !name.is_empty()).unwrap_or_else(|| local.clone());
    let uri = fields.uri.ok_or_else(|| missing("uri"))?;
    let request = PushRequest {
        uri: SourceUri::parse(&uri)?,
        local_name: StreamName::new(&local)?,
        remote_name: StreamName::new(&remote)?,
    };
    api.pulls.push(request).await?;
    Ok(Answer::Void)
}

fn find_all(api: &Api, family: Family) -> Result<Answer, ApiError> {
    let agents = api.pulls.seen_by(family);
    if agents.is_empty() && family != Family::Pull {
        return Err(none());
    }
    listed(family, &agents)
}

fn find(api: &Api, family: Family, request: &Request) -> Result<Answer, ApiError> {
    let wanted: Wanted = request.fields()?;
    let found = wanted.among(family, api.pulls.seen_by(family));
    if found.is_empty() {
        return Err(none());
    }
    listed(family, &found)
}

async fn terminate(api: &Api, family: Family, request: &Request) -> Result<Answer, ApiError> {
    let wanted: Wanted = request.fields()?;
    if wanted.is_empty() {
        let sentence = "say which: uri, localStreamName, remoteStreamName, localMediaSessionId or status";
        return Err(ApiError::bad("FieldMissing", sentence));
    }
    let found = wanted.among(family, api.pulls.seen_by(family));
    if found.is_empty() {
        return Err(none());
    }
    let mut ending: JoinSet<()> = found.into_iter().map(|agent| async move { agent.terminate().await }).collect();
    while ending.join_next().await.is_some() {}
    Ok(Answer::Void)
}

fn none() -> ApiError {
    ApiError::not_found("AgentNotFound", "there is no such pull agent")
}

fn listed(family: Family, agents: &[Agent]) -> Result<Answer, ApiError> {
    Answer::json(&agents.iter().map(|agent| AgentBody::of(family, agent.view())).collect::<Vec<_>>())
}

impl Wanted {
    fn is_empty(&self) -> bool {
        self.uri.is_none()
            && self.local_stream_name.is_none()
            && self.remote_stream_name.is_none()
            && self.local_media_session_id.is_none()
            && self.status.is_none()
    }

    fn among(&self, family: Family, agents: Vec<Agent>) -> Vec<Agent> {
        agents.into_iter().filter(|agent| self.fits(family, agent)).collect()
    }

    fn fits(&self, family: Family, agent: &Agent) -> bool {
        let body = AgentBody::of(family, agent.view());
        let same = |wanted: &Option<String>, is: &str| wanted.as_deref().is_none_or(|wanted| wanted == is);
        let name = agent.view().local_name;
        self.uri.as_deref().is_none_or(|uri| agent.pulls(uri))
            && (same(&self.local_stream_name, name.as_str()) || same(&self.local_stream_name, &name.to_string()))
            && (self.remote_stream_name.is_none()
                || self.remote_stream_name.as_deref().map(mask) == body.remote_stream_name)
            && same(&self.local_media_session_id, &body.local_media_session_id)
            && same(&self.status, body.status)
    }
}

fn status_word(family: Family, status: AgentStatus) -> &'static str {
    match status {
        // The documents have one word for an RTSP agent, and another for the rest.
        AgentStatus::ProcessedRemote if family == Family::Rtsp => "PLAYING",
        AgentStatus::New => "NEW",
        AgentStatus::ProcessedLocal => "PROCESSED_LOCAL",
        AgentStatus::ProcessedRemote => "PROCESSED_REMOTE",
        AgentStatus::Reconnecting => "RECONNECTING",
        AgentStatus::Failed => "FAILED",
    }
}

impl AgentBody {
    fn of(family: Family, view: AgentView) -> Self {
        let name = view.local_name.to_string();
        Self {
            direction: view.direction,
            local_media_session_id: view.session.to_string(),
            remote_media_session_id: view.remote_session.map(|session| session.to_string()),
            to_stream: (family == Family::Rtsp).then(|| name.clone()),
            local_stream_name: name,
            remote_stream_name: view.remote_name.map(|name| name.to_string()),
            uri: view.uri.to_string(),
            status: status_word(family, view.status),
            has_audio: view.has_audio,
            has_video: view.has_video,
            record: view.record,
            since: epoch_ms(view.since),
            attempts: view.attempts,
            last_error: view.last_error,
        }
    }
}
