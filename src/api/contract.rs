//! `/rest-api/openapi.json`: what REST takes and gives, as OpenAPI 3.1. Each family describes its calls beside its
//! handlers ([`Call`]); the schemas come from the types that are read and written there.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use bytes::Bytes;
use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde_json::{Map, Value, json};

use super::answer::Answer;
use super::error::{ApiError, ErrorBody};
use super::{connection, pipelines, pull, recorder, recordings, stream};
use crate::hook;

/// A call as the contract has it.
pub struct Call {
    path: String,
    methods: &'static [&'static str],
    summary: &'static str,
    takes: Option<fn(&mut SchemaGenerator) -> Schema>,
    gives: Gives,
}

enum Gives {
    Nothing,
    Json(fn(&mut SchemaGenerator) -> Schema),
    Text(&'static str),
}

impl Call {
    /// A call that takes a body.
    pub fn post(path: impl Into<String>, summary: &'static str) -> Self {
        Self { path: path.into(), methods: &["post"], summary, takes: None, gives: Gives::Nothing }
    }

    /// A call of the WCS API that takes no body, by either method.
    pub fn list(path: impl Into<String>, summary: &'static str) -> Self {
        Self { methods: &["get", "post"], ..Self::post(path, summary) }
    }

    /// A call that only reads.
    pub fn get(path: impl Into<String>, summary: &'static str) -> Self {
        Self { methods: &["get"], ..Self::post(path, summary) }
    }

    /// A call that takes something away.
    pub fn delete(path: impl Into<String>, summary: &'static str) -> Self {
        Self { methods: &["delete"], ..Self::post(path, summary) }
    }

    /// What its body holds.
    pub fn takes<T: JsonSchema>(mut self) -> Self {
        self.takes = Some(|schemas| schemas.subschema_for::<T>());
        self
    }

    /// What its answer holds; without this it answers 200 and nothing.
    pub fn gives<T: JsonSchema>(mut self) -> Self {
        self.gives = Gives::Json(|schemas| schemas.subschema_for::<T>());
        self
    }

    /// It answers something that is no JSON.
    pub fn text(mut self, kind: &'static str) -> Self {
        self.gives = Gives::Text(kind);
        self
    }

    fn operation(&self, method: &str, schemas: &mut SchemaGenerator) -> Value {
        let segments = self.path.split('/').filter(|segment| !segment.is_empty());
        let family = segments.clone().find(|segment| *segment != "rest-api").unwrap_or("rest-api");
        let words: Vec<&str> = segments.map(|segment| segment.trim_matches(['{', '}'])).collect();
        let content = match &self.gives {
            Gives::Nothing => json!({}),
            Gives::Json(schema) => json!({"application/json": {"schema": schema(schemas)}}),
            Gives::Text(kind) => json!({*kind: {"schema": {"type": "string"}}}),
        };
        let error = schemas.subschema_for::<ErrorBody<'static>>();
        let mut operation = json!({
            "operationId": format!("{method}_{}", words.join("_").replace(['-', '.'], "_")),
            "tags": [family],
            "summary": self.summary,
            "responses": {
                "200": {"description": "Done.", "content": content},
                "default": {
                    "description": "Refused or failed; `exception` is a stable code, `reason` a sentence.",
                    "content": {"application/json": {"schema": error}},
                },
            },
        });
        if let Some(schema) = self.takes {
            let content = json!({"application/json": {"schema": schema(schemas)}});
            operation["requestBody"] = json!({"required": false, "content": content});
        }
        let holes = words_in_braces(&self.path);
        if !holes.is_empty() {
            let hole = |name: &str| json!({"name": name, "in": "path", "required": true, "schema": {"type": "string"}});
            operation["parameters"] = holes.into_iter().map(hole).collect();
        }
        operation
    }
}

fn words_in_braces(path: &str) -> Vec<&str> {
    path.split('{').skip(1).filter_map(|rest| rest.split('}').next()).collect()
}

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
