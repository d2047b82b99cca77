//! Ends media sessions from outside, pulls' among them.

use super::Pulls;
use crate::hub::Found;

impl Pulls {
    /// Tells these media sessions to leave, with what they are told; waits until all are gone. Who pulls or publishes the
    /// same again finds nobody in the way.
    pub async fn end(&self, found: Found, reason: &'static str) {
        found.iter().for_each(|(stream, session)| stream.terminate(session, reason));
        for (stream, session) in found {
            stream.left(&session).await;
            // An agent that is still on the list would be in the way of who pulls its source again.
            self.gone(session).await;
        }
    }
}
