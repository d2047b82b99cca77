//! `/rest-api/pipelines`: every running pipeline with its launch line, what is negotiated inside, and its graph.

use super::Api;
use super::answer::Answer;
use super::call::Call;
use super::error::ApiError;
use crate::media::{PipelineDetails, PipelineView, graph};

/// The calls of this family, for the contract.
pub fn calls() -> Vec<Call> {
    vec![
        Call::get("/rest-api/pipelines", "The running pipelines.").gives::<Vec<PipelineView>>(),
        Call::get("/rest-api/pipelines/{id}", "A pipeline with what is negotiated inside.").gives::<PipelineDetails>(),
        Call::get("/rest-api/pipelines/{id}/graph.dot", "Its graph in Graphviz's language.").text("text/vnd.graphviz"),
        Call::get("/rest-api/pipelines/{id}/graph.svg", "Its graph as a picture.").text("image/svg+xml"),
    ]
}

/// `/pipelines`.
pub fn list(api: &Api) -> Result<Answer, ApiError> {
    Answer::json(&api.pipelines.list())
}

/// `/pipelines/{id}`.
pub async fn one(api: &Api, id: &str) -> Result<Answer, ApiError> {
    let found = api.pipelines.details(id).await?;
    Answer::json(&found.ok_or_else(|| none(id))?)
}

/// `/pipelines/{id}/graph.dot`.
pub async fn dot(api: &Api, id: &str) -> Result<Answer, ApiError> {
    let dot = api.pipelines.dot(id).await?.ok_or_else(|| none(id))?;
    Ok(Answer::Data("text/vnd.graphviz;charset=UTF-8", dot.into()))
}

/// `/pipelines/{id}/graph.svg`.
pub async fn svg(api: &Api, id: &str) -> Result<Answer, ApiError> {
    let dot = api.pipelines.dot(id).await?.ok_or_else(|| none(id))?;
    let svg = graph::svg(&dot).await?;
    Ok(Answer::Data("image/svg+xml", svg.into()))
}

fn none(id: &str) -> ApiError {
    ApiError::not_found("PipelineNotFound", format!("there is no pipeline {id}; GET /rest-api/pipelines lists them"))
}
