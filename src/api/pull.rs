//! `/rest-api/pull/rtmp/*` and `/rest-api/pull/*`. Source: wcs.md 1.5, 1.7, 1.8, 14.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;

use super::Api;
use super::contract::Call;
use super::error::ApiError;
use super::request::{Request, flag, flag_schema};
use super::routes::Answer;
use crate::event::epoch_ms;
use crate::name::StreamName;
use crate::pull::{Agent, AgentStatus, AgentView, Family, PullRequest, SourceUri};

/// The calls of either family.
pub const CALLS: [&str; 4] = ["pull", "find_all", "find", "terminate"];

#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "Pull")]
struct PullFields {
    uri: Option<String>,
    local_stream_name: Option<String>,
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
    local_stream_name: Option<String>,
    remote_stream_name: Option<String>,
    local_media_session_id: Option<String>,
    status: Option<String>,
}

#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "PullAgent")]
struct AgentBody {
    local_media_session_id: String,
    remote_media_session_id: Option<String>,
    local_stream_name: String,
    remote_stream_name: Option<String>,
    uri: String,
    #[schemars(with = "String")]
    status: AgentStatus,
    has_audio: bool,
    has_video: bool,
    record: bool,
    since: u64,
    attempts: u32,
    last_error: Option<String>,
}

/// The calls of both families, for the contract.
pub fn calls() -> Vec<Call> {
    let of = |family: &str| {
        let path = |call: &str| format!("/rest-api/{family}/{call}");
        [
            Call::post(path("pull"), "Pulls a stream from another server; its agent says how it goes.")
                .takes::<PullFields>(),
            Call::list(path("find_all"), "The pull agents.").gives::<Vec<AgentBody>>(),
            Call::post(path("find"), "The pull agents that every given field fits.")
                .takes::<Wanted>()
                .gives::<Vec<AgentBody>>(),
            Call::post(path("terminate"), "Ends the pull agents that every given field fits, and their streams.")
                .takes::<Wanted>(),
        ]
    };
    of("pull/rtmp").into_iter().chain(of("pull")).collect()
}

/// One of [`CALLS`].
pub async fn call(api: &Api, family: Family, call: &str, request: &Request) -> Result<Answer, ApiError> {
    match call {
        "pull" => pull(api, family, request).await,
        "find_all" => find_all(api, family),
        "find" => find(api, family, request),
        _ => terminate(api, family, request).await,
    }
}

async fn pull(api: &Api, family: Family, request: &Request) -> Result<Answer, ApiError> {
    let fields: PullFields = request.fields()?;
    let uri = fields.uri.ok_or_else(|| ApiError::bad("FieldMissing", "the field uri is missing"))?;
    let local_name = fields.local_stream_name.as_deref().filter(|name| !name.is_empty());
    let request = PullRequest {
        family,
        uri: SourceUri::parse(&uri)?,
        local_name: local_name.map(StreamName::new).transpose()?,
        record: fields.record.unwrap_or(false),
        has_audio: fields.has_audio.unwrap_or(true),
        has_video: fields.has_video.unwrap_or(true),
        on_demand: false,
    };
    api.pulls.pull(request).await?;
    Ok(Answer::Void)
}

fn find_all(api: &Api, family: Family) -> Result<Answer, ApiError> {
    let agents = api.pulls.seen_by(family);
    if agents.is_empty() && family == Family::Rtmp {
        return Err(none());
    }
    listed(&agents)
}

fn find(api: &Api, family: Family, request: &Request) -> Result<Answer, ApiError> {
    let wanted: Wanted = request.fields()?;
    let found = wanted.among(api.pulls.seen_by(family));
    if found.is_empty() {
        return Err(none());
    }
    listed(&found)
}

async fn terminate(api: &Api, family: Family, request: &Request) -> Result<Answer, ApiError> {
    let wanted: Wanted = request.fields()?;
    if wanted.is_empty() {
        let sentence = "say which: uri, localStreamName, remoteStreamName, localMediaSessionId or status";
        return Err(ApiError::bad("FieldMissing", sentence));
    }
    let found = wanted.among(api.pulls.seen_by(family));
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

fn listed(agents: &[Agent]) -> Result<Answer, ApiError> {
    Answer::json(&agents.iter().map(|agent| AgentBody::from(agent.view())).collect::<Vec<_>>())
}

impl Wanted {
    fn is_empty(&self) -> bool {
        self.uri.is_none()
            && self.local_stream_name.is_none()
            && self.remote_stream_name.is_none()
            && self.local_media_session_id.is_none()
            && self.status.is_none()
    }

    fn among(&self, agents: Vec<Agent>) -> Vec<Agent> {
        agents.into_iter().filter(|agent| self.fits(agent)).collect()
    }

    fn fits(&self, agent: &Agent) -> bool {
        let body = AgentBody::from(agent.view());
        let same = |wanted: &Option<String>, is: &str| wanted.as_deref().is_none_or(|wanted| wanted == is);
        let name = agent.view().local_name;
        self.uri.as_deref().is_none_or(|uri| agent.pulls(uri))
            && (same(&self.local_stream_name, name.as_str()) || same(&self.local_stream_name, &name.to_string()))
            && (self.remote_stream_name.is_none() || self.remote_stream_name == body.remote_stream_name)
            && same(&self.local_media_session_id, &body.local_media_session_id)
            && same(&self.status, status_word(body.status))
    }
}

fn status_word(status: AgentStatus) -> &'static str {
    match status {
        AgentStatus::New => "NEW",
        AgentStatus::ProcessedLocal => "PROCESSED_LOCAL",
        AgentStatus::ProcessedRemote => "PROCESSED_REMOTE",
        AgentStatus::Reconnecting => "RECONNECTING",
        AgentStatus::Failed => "FAILED",
    }
}

impl From<AgentView> for AgentBody {
    fn from(view: AgentView) -> Self {
        Self {
            local_media_session_id: view.session.to_string(),
            remote_media_session_id: None,
            local_stream_name: view.local_name.to_string(),
            remote_stream_name: None,
            uri: view.uri.to_string(),
            status: view.status,
            has_audio: view.has_audio,
            has_video: view.has_video,
            record: view.record,
            since: epoch_ms(view.since),
            attempts: view.attempts,
            last_error: view.last_error,
        }
    }
}
