//! `/rest-api/connection/*`. Source: wcs.md 1.12.

use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Api;
use super::answer::Answer;
use super::call::Call;
use super::error::ApiError;
use super::request::Request;
use crate::event::epoch_ms;
use crate::hub::ConnectionView;

/// Every field that is present must fit.
#[derive(Deserialize, JsonSchema, Default)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "ConnectionFilter")]
struct Wanted {
    session_id: Option<String>,
    app_key: Option<String>,
    client_version: Option<String>,
}

#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "Connection")]
struct ConnectionBody<'a> {
    session_id: &'a str,
    app_key: &'a str,
    client_version: &'a str,
    origin: Option<&'a str>,
    remote_address: &'a str,
    create_date: u64,
}

/// The calls of this family, for the contract.
pub fn calls() -> Vec<Call> {
    let path = |call: &str| format!("/rest-api/connection/{call}");
    vec![
        Call::list(path("find_all"), "The browsers that are connected.").gives::<Vec<ConnectionBody<'static>>>(),
        Call::post(path("find"), "The connections that every given field fits.")
            .takes::<Wanted>()
            .gives::<Vec<ConnectionBody<'static>>>(),
        Call::post(path("terminate"), "Closes the connections that every given field fits.").takes::<Wanted>(),
    ]
}

/// `/connection/find_all`.
pub fn find_all(api: &Api) -> Result<Answer, ApiError> {
    answered(&Wanted::default().among(api))
}

/// `/connection/find`: those that every given field fits.
pub fn find(api: &Api, request: &Request) -> Result<Answer, ApiError> {
    let wanted: Wanted = request.fields()?;
    answered(&wanted.filters()?.among(api))
}

/// `/connection/terminate`: closes the sockets; their streams end.
pub async fn terminate(api: &Api, request: &Request) -> Result<Answer, ApiError> {
    let wanted: Wanted = request.fields()?;
    let found = wanted.filters()?.among(api);
    if found.is_empty() {
        return Err(none());
    }
    found.iter().for_each(|connection| connection.terminate());
    Ok(Answer::Void)
}

fn answered(found: &[Arc<ConnectionView>]) -> Result<Answer, ApiError> {
    if found.is_empty() {
        return Err(none());
    }
    Answer::json(&found.iter().map(|view| body(view)).collect::<Vec<_>>())
}

fn none() -> ApiError {
    ApiError::not_found("ConnectionNotFound", "there is no such connection")
}

fn body(view: &ConnectionView) -> ConnectionBody<'_> {
    ConnectionBody {
        session_id: &view.id,
        app_key: &view.app_key,
        client_version: &view.client_version,
        origin: view.origin.as_deref(),
        remote_address: &view.peer,
        create_date: epoch_ms(view.since),
    }
}

impl Wanted {
    /// Refuses a call that would mean everything.
    fn filters(self) -> Result<Self, ApiError> {
        if self.session_id.is_none() && self.app_key.is_none() && self.client_version.is_none() {
            return Err(ApiError::bad("FilterMissing", "say which: sessionId, appKey or clientVersion"));
        }
        Ok(self)
    }

    fn among(&self, api: &Api) -> Vec<Arc<ConnectionView>> {
        let same = |wanted: &Option<String>, is: &str| wanted.as_deref().is_none_or(|wanted| wanted == is);
        let fits = |view: &Arc<ConnectionView>| {
            same(&self.session_id, &view.id)
                && same(&self.app_key, &view.app_key)
                && same(&self.client_version, &view.client_version)
        };
        api.connections.list().into_iter().filter(fits).collect()
    }
}
