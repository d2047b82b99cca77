//! `/rest-api/openapi.json`: what REST takes and gives, as OpenAPI 3.1. Each family describes its calls beside its
//! handlers ([`Call`]); the schemas come from the types that are read and written there.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use bytes::Bytes;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

use super::answer::Answer;
use super::call::Call;
use super::error::ApiError;
use super::{connection, pipelines, pull, recorder, recordings, stream};
use crate::hook;

/// The document, which is the same as long as the program runs.
static DOCUMENT: LazyLock<Bytes> = LazyLock::new(|| {
    let mut text = serde_json::to_vec_pretty(&document()).unwrap_or_default();
    text.push(b'\n');
    text.into()
});

/// The OpenAPI document.
pub fn openapi_document() -> &'static [u8] {
    &DOCUMENT
}

/// `/openapi.json`.
pub fn openapi() -> Result<Answer, ApiError> {
    Ok(Answer::Json(DOCUMENT.clone()))
}

fn calls() -> Vec<Call> {
    let mut calls = pull::calls();
    calls.extend(stream::calls());
    calls.extend(connection::calls());
    calls.extend(pipelines::calls());
    calls.extend(recorder::calls());
    calls.extend(recordings::calls());
    calls.extend([
        Call::get("/rest-api/ports", "The ports of the listeners, by the names of their settings.")
            .gives::<BTreeMap<String, u16>>(),
        Call::get("/rest-api/hooks", "What became of the calls of hook servers, by application.")
            .gives::<BTreeMap<String, hook::Counts>>(),
        Call::get("/rest-api/openapi.json", "This document.").gives::<Map<String, Value>>(),
        Call::get("/health/live", "Whether the process answers.").gives::<Map<String, Value>>(),
        Call::get("/health/ready", "Whether the server takes work: 200, or 503 with the reasons.")
            .gives::<Map<String, Value>>(),
        Call::get("/metrics", "Figures for Prometheus.").text("application/openmetrics-text"),
    ]);
    calls
}

fn document() -> Value {
    let settings = SchemaSettings::draft2020_12().with(|settings| {
        settings.definitions_path = "/components/schemas".into();
        settings.meta_schema = None;
    });
    let mut schemas = settings.into_generator();
    let mut paths: BTreeMap<String, Map<String, Value>> = BTreeMap::new();
    for call in calls() {
        for method in call.methods {
            let operation = call.operation(method, &mut schemas);
            paths.entry(call.path.clone()).or_default().insert((*method).to_owned(), operation);
        }
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "weir",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Streams, pulls, recordings and pipelines of a media server. The calls are those of \
                Flashphoner Web Call Server where it has them.",
            "license": {"name": "MIT OR Apache-2.0", "identifier": "MIT OR Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "paths": paths,
        "components": {"schemas": schemas.take_definitions(true)},
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn every_reference_leads_somewhere_and_every_operation_has_its_own_name() {
        let document = document();
        let text = document.to_string();
        for reference in text.split(r##""$ref":"#"##).skip(1).map(|rest| rest.split('"').next().unwrap()) {
            assert!(document.pointer(reference).is_some(), "{reference}");
        }
        let paths = document["paths"].as_object().unwrap();
        let ids = paths.values().flat_map(|path| path.as_object().unwrap().values()).map(|one| &one["operationId"]);
        let (count, names): (usize, HashSet<_>) = (ids.clone().count(), ids.collect());
        assert!(count > 25 && names.len() == count, "{count}");
    }
}
