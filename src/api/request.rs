//! A call as the handlers see it: method, path, and a body that is JSON or nothing.

use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer};
use warp::http::{HeaderMap, HeaderName, Method, StatusCode};

use super::error::ApiError;

/// How often a parameter of a query may be given.
pub const MAX_VALUES: usize = 100;

/// A call whose body has been read.
pub struct Request {
    /// The HTTP method.
    pub method: Method,
    /// The path, still percent-encoded.
    pub path: String,
    /// What follows the path's `?`, still percent-encoded; empty when there is none.
    pub query: String,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: bytes::Bytes,
}

impl Request {
    /// The body's fields. No body, and a `GET`, equal `{}`. Unknown fields are ignored.
    ///
    /// # Errors
    /// 400 for what is not a JSON object, and for a field that is missing or of the wrong type.
    pub fn fields<T: DeserializeOwned>(&self) -> Result<T, ApiError> {
        let body = match self.body.trim_ascii() {
            b"" => b"{}",
            text => text,
        };
        let value: serde_json::Value = serde_json::from_slice(body)
            .map_err(|error| ApiError::bad("MalformedJson", format!("the body is no JSON: {error}")))?;
        if !value.is_object() {
            return Err(ApiError::bad("MalformedJson", "the body must be a JSON object"));
        }
        serde_path_to_error::deserialize(value).map_err(|error| {
            let (field, wrong) = (error.path().to_string(), error.inner());
            let reason = if field == "." { wrong.to_string() } else { format!("the field {field}: {wrong}") };
            ApiError::bad("InvalidField", reason)
        })
    }

    /// A header that has text in it.
    pub fn header(&self, name: HeaderName) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// Whether the query names `parameter`, with a value or without.
    pub fn asks(&self, parameter: &str) -> bool {
        self.query.split('&').any(|pair| pair.split('=').next() == Some(parameter))
    }

    /// Whether it asks for WCS's page of statistics.
    pub fn is_stat(&self) -> bool {
        self.path.trim_end_matches('/').is_empty() && self.query.split('&').any(|pair| pair == "action=stat")
    }

    /// Whether it only asks how the server is.
    pub fn watches(&self) -> bool {
        self.is_stat() || ["/health/live", "/health/ready", "/metrics"].contains(&self.path.trim_end_matches('/'))
    }

    /// The values that the query gives a parameter, decoded, in their order.
    ///
    /// # Errors
    /// 400 for more than [`MAX_VALUES`].
    pub fn values(&self, parameter: &str) -> Result<Vec<String>, ApiError> {
        let pairs = url::form_urlencoded::parse(self.query.as_bytes());
        let values = pairs.filter(|(name, _)| name == parameter).map(|(_, value)| value.into_owned());
        let values: Vec<String> = values.take(MAX_VALUES + 1).collect();
        if values.len() > MAX_VALUES {
            let sentence = format!("{parameter} may be given {MAX_VALUES} times at most");
            return Err(ApiError::bad("TooManyValues", sentence));
        }
        Ok(values)
    }

    /// Refuses methods the call does not have.
    ///
    /// # Errors
    /// 405.
    pub fn allow(&self, methods: &[Method]) -> Result<(), ApiError> {
        // A HEAD is a GET whose body hyper leaves out.
        let method = if self.method == Method::HEAD { &Method::GET } else { &self.method };
        if methods.contains(method) {
            return Ok(());
        }
        let names = methods.iter().map(Method::as_str).collect::<Vec<_>>().join(" or ");
        Err(ApiError::new(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed", format!("this call takes {names}")))
    }
}

/// What [`flag`] reads, for the contract.
pub fn flag_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({"enum": [true, false, "true", "false", null]})
}

/// A flag as callers write it: `true`, `"true"`. Absent and `null` are `None`.
///
/// # Errors
/// For anything else.
pub fn flag<'de, D: Deserializer<'de>>(field: D) -> Result<Option<bool>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Flag {
        Bool(bool),
        Text(String),
        Other(serde::de::IgnoredAny),
    }
    match Option::<Flag>::deserialize(field)? {
        None => Ok(None),
        Some(Flag::Bool(flag)) => Ok(Some(flag)),
        Some(Flag::Text(text)) => match text.to_ascii_lowercase().as_str() {
            "true" => Ok(Some(true)),
            "false" => Ok(Some(false)),
            _ => Err(D::Error::custom("a flag is true or false")),
        },
        Some(Flag::Other(_)) => Err(D::Error::custom("a flag is true or false")),
    }
}
