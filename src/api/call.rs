//! A call of REST as its family describes it: for the contract, which is made of all of them.

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde_json::{Value, json};

use super::error::ErrorBody;

/// A call as the contract has it.
pub struct Call {
    pub(super) path: String,
    pub(super) methods: &'static [&'static str],
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

    /// What the document has for one of its methods.
    pub(super) fn operation(&self, method: &str, schemas: &mut SchemaGenerator) -> Value {
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
