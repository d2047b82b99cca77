//! `/rest-api/recorder/*`, and the older `/stream/startRecording` and `/stream/stopRecording`. Source: wcs.md 1.10, 1.13,
//! 6.9, 14.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Api;
use super::answer::Answer;
use super::call::Call;
use super::error::ApiError;
use super::request::Request;
use crate::config::Rotation;
use crate::media::CutRule;
use crate::name::MediaSessionId;
use crate::record::{self, Options, RecorderState, RecorderView};

/// The longest template a caller may give, bytes: a file's name has 255.
const LONGEST_TEMPLATE: usize = 4096;

#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "Recorded")]
struct Wanted {
    media_session_id: Option<String>,
    #[serde(default)]
    config: Option<Config>,
    /// The older form's name. Its `force` asks for what weir never does: writing over a file.
    file_name: Option<String>,
}

#[derive(Deserialize, JsonSchema, Default)]
#[serde(rename_all = "camelCase")]
#[serde(expecting = "an object with fileTemplate and rotation")]
#[schemars(rename = "RecorderConfig")]
struct Config {
    file_template: Option<String>,
    rotation: Option<Value>,
}

/// What `/recorder/find_all` shows of a recording: the documented fields, and ours behind them.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "Recorder")]
struct Body {
    /// As far as it is known: `{endTime}` stands in it as it is.
    file_name: Option<String>,
    media_session_id: String,
    stream_name: String,
    state: &'static str,
    /// Why the last file could not be written further.
    reason: Option<String>,
}

/// The calls of this family, for the contract.
pub fn calls() -> Vec<Call> {
    let start = "Records a stream from now on; one that is recorded already gets that recording finished first.";
    let stop = "Ends a recording; answers when its last file is in place.";
    vec![
        Call::post("/rest-api/recorder/startup", start).takes::<Wanted>(),
        Call::post("/rest-api/recorder/terminate", stop).takes::<Wanted>(),
        Call::list("/rest-api/recorder/find_all", "The recordings that run.").gives::<Vec<Body>>(),
        Call::post("/rest-api/stream/startRecording", start).takes::<Wanted>(),
        Call::post("/rest-api/stream/stopRecording", stop).takes::<Wanted>(),
    ]
}

/// `/recorder/startup`, `/stream/startRecording`.
pub async fn start(api: &Api, request: &Request) -> Result<Answer, ApiError> {
    let call: Wanted = request.fields()?;
    let session = call.session()?;
    api.recorders.record(&session, call.options()?).await?;
    Ok(Answer::Void)
}

/// `/recorder/terminate`, `/stream/stopRecording`: answers when the last file is in place.
pub async fn stop(api: &Api, request: &Request) -> Result<Answer, ApiError> {
    let call: Wanted = request.fields()?;
    api.recorders.end(&call.session()?).await?;
    Ok(Answer::Void)
}

/// `/recorder/find_all`: the recordings that run.
pub fn find_all(api: &Api) -> Result<Answer, ApiError> {
    let views = api.recorders.views();
    if views.is_empty() {
        return Err(ApiError::not_found("RecorderNotFound", "nothing is being recorded"));
    }
    Answer::json(&views.into_iter().map(body).collect::<Vec<_>>())
}

fn body(view: RecorderView) -> Body {
    let (state, file_name, reason) = match view.state {
        RecorderState::Waiting => ("WAITING", None, None),
        RecorderState::Recording(file) => ("RECORDING", Some(file), None),
        RecorderState::Failed(reason) => ("FAILED", None, Some(reason)),
    };
    let (media_session_id, stream_name) = (view.session.to_string(), view.stream.to_string());
    Body { file_name, media_session_id, stream_name, state, reason }
}

impl Wanted {
    fn session(&self) -> Result<MediaSessionId, ApiError> {
        let id = self.media_session_id.as_deref();
        let id = id.ok_or_else(|| ApiError::bad("FieldMissing", "the field mediaSessionId is missing"))?;
        Ok(MediaSessionId::new(id)?)
    }

    fn options(self) -> Result<Options, ApiError> {
        let config = self.config.unwrap_or_default();
        let template = config.file_template.or_else(|| Some(without_extension(&self.file_name?).to_owned()));
        if let Some(template) = &template
            && (template.is_empty() || template.len() > LONGEST_TEMPLATE || template.chars().any(char::is_control))
        {
            let sentence = format!("a file template has 1 to {LONGEST_TEMPLATE} bytes and no control character");
            return Err(ApiError::bad("TemplateInvalid", sentence));
        }
        Ok(Options { template, cut: config.rotation.as_ref().map(rotation).transpose()?.flatten() })
    }
}

/// `"20M"`, `20`, `"disabled"`; `false` switches it off, `true` and `null` leave it to the settings, as booleans or as text.
fn rotation(value: &Value) -> Result<Option<CutRule>, ApiError> {
    let text = match value {
        Value::Null | Value::Bool(true) => return Ok(None),
        Value::String(text) if text == "true" => return Ok(None),
        Value::Bool(false) => return Ok(Some(CutRule::Never)),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let rotation = text.parse::<Rotation>();
    let rotation = rotation.map_err(|error| ApiError::bad("RotationInvalid", format!("rotation: {error}")))?;
    Ok(Some(record::cut(rotation)))
}

/// The container decides the extension.
fn without_extension(name: &str) -> &str {
    let ending = [".mp4", ".webm", ".mkv", ".ts"].into_iter().find_map(|ending| name.strip_suffix(ending));
    ending.filter(|stem| !stem.is_empty()).unwrap_or(name)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;
    use std::time::Duration;

    fn options(call: Value) -> Result<Options, &'static str> {
        serde_json::from_value::<Wanted>(call).unwrap().options().map_err(|error| error.code)
    }

    #[test]
    fn what_a_caller_wants_otherwise() {
        let with = |template: Option<&str>, cut| Ok(Options { template: template.map(str::to_owned), cut });
        let rotation = |value: Value| options(json!({"config": {"rotation": value}}));
        assert_eq!(options(json!({})), with(None, None));
        assert_eq!(options(json!({"config": null})), with(None, None));
        assert_eq!(options(json!({"config": {"fileTemplate": "{login}-a"}})), with(Some("{login}-a"), None));
        assert_eq!(options(json!({"fileName": "a.mp4", "force": "true"})), with(Some("a"), None));
        assert_eq!(options(json!({"fileName": ".mp4"})), with(Some(".mp4"), None));
        assert_eq!(rotation(json!("20M")), with(None, Some(CutRule::Size(20 << 20))));
        for seconds in [json!(20), json!("20")] {
            assert_eq!(rotation(seconds), with(None, Some(CutRule::After(Duration::from_secs(20)))));
        }
        for off in [json!("disabled"), json!(""), json!(0), json!(false), json!("off"), json!("false")] {
            assert_eq!(rotation(off), with(None, Some(CutRule::Never)));
        }
        for same in [json!(true), json!("true"), json!(null)] {
            assert_eq!(rotation(same), with(None, None));
        }
        for wrong in [json!("20m"), json!(-1), json!(1.5), json!([20]), json!({"a": 1})] {
            assert_eq!(rotation(wrong.clone()), Err("RotationInvalid"), "{wrong}");
        }
        for wrong in ["", "a\nb", &"x".repeat(5000)] {
            assert_eq!(options(json!({"config": {"fileTemplate": wrong}})), Err("TemplateInvalid"));
        }
    }
}
