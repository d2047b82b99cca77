//! `/rest-api/hooks`: what became of the calls of hook servers, by application. weir's own.

use super::Api;
use super::answer::Answer;
use super::error::ApiError;

/// Counted since the start; an application that was never called is not in it.
pub fn counts(api: &Api) -> Result<Answer, ApiError> {
    Answer::json(&api.hooks.counts())
}
