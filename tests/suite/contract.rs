//! What is promised to people and programs: the OpenAPI document and the page of settings are those of this program, and
//! the server answers as the document says.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::support::{Clip, Home, Publisher, run};
use serde_json::{Value, json};

fn checked_in(file: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(file)).unwrap_or_default()
}

fn printed(page: &str) -> String {
    let output = run(Command::new(env!("CARGO_BIN_EXE_weir")).args(["print", page]), Duration::from_secs(20));
    assert!(output.status.success());
    String::from_utf8(output.stdout).unwrap()
}

/// A change of the contract is seen in the change that makes it.
#[test]
fn what_is_checked_in_is_what_the_program_says() {
    for (page, file) in [("openapi", "tests/openapi.json"), ("settings", "docs/settings.md")] {
        assert!(printed(page) == checked_in(file), "{file} is old: cargo run -- print {page} > {file}");
    }
}

#[test]
fn every_promised_call_is_there_with_its_methods() {
    let home = Home::new();
    let weir = home.start();
    let answer = weir.get("/rest-api/openapi.json");
    assert_eq!(answer.header("content-type"), Some("application/json;charset=UTF-8"));
    assert_eq!(answer.body, checked_in("tests/openapi.json"));
    let document = answer.json();
    assert_eq!(document["openapi"], "3.1.0");
    for (path, operations) in document["paths"].as_object().unwrap() {
        for method in ["GET", "POST", "DELETE"] {
            let there = operations.get(method.to_lowercase()).is_some();
            let answer = weir.call(method, &path.replace("{id}", "none"), "");
            let found = !answer.body.contains("NoSuchCall") && answer.status != 405;
            // A call with a body takes none by GET as well: it equals {}.
            let lenient = method == "GET" && operations["post"]["requestBody"].is_object();
            assert!(found == there || (lenient && found), "{method} {path}: {answer:?}");
            assert!(answer.status < 500, "{method} {path}: {answer:?}");
        }
    }
}

/// Whether a value is as a schema of the document wants it: the words of JSON Schema that the document uses.
fn fits(value: &Value, schema: &Value, document: &Value) -> Result<(), String> {
    if let Some(reference) = schema["$ref"].as_str() {
        let target = document.pointer(reference.trim_start_matches('#')).ok_or(format!("{reference} is nowhere"))?;
        return fits(value, target, document);
    }
    for words in ["anyOf", "oneOf"] {
        if let Some(any) = schema[words].as_array() {
            let fitting = any.iter().any(|one| fits(value, one, document).is_ok());
            return if fitting { Ok(()) } else { Err(format!("{value} fits none of {any:?}")) };
        }
    }
    if let Some(constant) = schema.get("const")
        && constant != value
    {
        return Err(format!("{value} is not {constant}"));
    }
    if let Some(allowed) = schema["enum"].as_array()
        && !allowed.contains(value)
    {
        return Err(format!("{value} is not among {allowed:?}"));
    }
    let kind = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_u64() || number.is_i64() => "integer",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    let named = |wanted: &Value| wanted == kind || (wanted == "number" && kind == "integer");
    let right = match &schema["type"] {
        Value::Null => true,
        Value::Array(kinds) => kinds.iter().any(named),
        wanted => named(wanted),
    };
    if !right {
        return Err(format!("{value} is {kind} and not {}", schema["type"]));
    }
    for item in value.as_array().into_iter().flatten() {
        fits(item, &schema["items"], document)?;
    }
    let required = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str);
    for field in required {
        value.get(field).ok_or(format!("{field} is missing in {value}"))?;
    }
    for (field, value) in value.as_object().into_iter().flatten() {
        match (schema["properties"].get(field), schema.get("additionalProperties")) {
            (Some(schema), _) => fits(value, schema, document).map_err(|error| format!("{field}: {error}"))?,
            (None, Some(more)) if more.is_object() => fits(value, more, document)?,
            (None, Some(_)) => {}
            (None, None) if schema.get("properties").is_some() => {
                return Err(format!("{field} is not in the contract"));
            }
            (None, None) => {}
        }
    }
    Ok(())
}

#[test]
fn answers_are_as_the_schemas_say() {
    let home = Home::new();
    let weir = home.setup().set("record_flash_published_streams=true").start();
    let uri = format!("rtmp://127.0.0.1:{}/live/cam", weir.port_of("rtmp.port"));
    let _publisher = Publisher::start(Clip::LONG, &uri);
    weir.wait_frames("cam", 30);
    weir.pull(&uri, "again", false);
    weir.wait_frames("again", 10);
    let document = weir.get("/rest-api/openapi.json").json();
    let pipeline = weir.get("/rest-api/pipelines").json()[0]["id"].as_str().unwrap().to_owned();
    let metrics = json!({"published": true, "display": ["metrics"]});
    for (method, path, at, body) in [
        ("post", "/rest-api/stream/find", "", metrics),
        ("get", "/rest-api/stream/find_all", "", Value::Null),
        ("post", "/rest-api/stream/snapshot", "", json!({"streamName": "cam"})),
        ("post", "/rest-api/stream/snapshot", "", json!({"streamName": "none"})),
        ("get", "/rest-api/pull/rtmp/find_all", "", Value::Null),
        ("get", "/rest-api/connection/find_all", "", Value::Null),
        ("get", "/rest-api/pipelines", "", Value::Null),
        ("get", "/rest-api/pipelines/{id}", pipeline.as_str(), Value::Null),
        ("get", "/rest-api/recordings", "", Value::Null),
        ("get", "/rest-api/ports", "", Value::Null),
        ("post", "/rest-api/pull/rtmp/pull", "", json!({"uri": "no"})),
    ] {
        let text = if body.is_null() { String::new() } else { body.to_string() };
        let answer = weir.call(&method.to_uppercase(), &path.replace("{id}", at), &text);
        let responses = &document["paths"][path][method]["responses"];
        let response = if answer.status == 200 { &responses["200"] } else { &responses["default"] };
        let schema = &response["content"]["application/json"]["schema"];
        assert!(schema.is_object(), "{path}");
        fits(&answer.json(), schema, &document).unwrap_or_else(|error| panic!("{method} {path}: {error}"));
    }
    weir.terminate("again");
}
