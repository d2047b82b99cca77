//! What goes wrong with hook servers: counted always, logged so that a server that is away does not flood the log.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use schemars::JsonSchema;
use serde::Serialize;

/// How often one kind of trouble of one application is logged.
const EVERY: Duration = Duration::from_secs(60);

/// What was counted for an application since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Counts {
    /// Calls that were answered with 200.
    pub answered: u64,
    /// Calls that were not, each try counted.
    pub failed: u64,
    /// Events that wait for their delivery now.
    pub waiting: u64,
    /// Events that were given up.
    pub dropped: u64,
    /// Keep-alive beats.
    pub beats: u64,
    /// The most that a beat was behind its time, milliseconds.
    pub beat_lateness: u64,
    /// Keep-alive beats that were left out, because the one before had no answer yet or too many had none.
    pub beats_missed: u64,
    /// Streams that a keep-alive has ended.
    pub beats_ended: u64,
}

impl Counts {
    /// Adds another application's.
    pub fn add(&mut self, other: &Self) {
        self.answered += other.answered;
        self.failed += other.failed;
        self.waiting += other.waiting;
        self.dropped += other.dropped;
        self.beats += other.beats;
        self.beat_lateness = self.beat_lateness.max(other.beat_lateness);
        self.beats_missed += other.beats_missed;
        self.beats_ended += other.beats_ended;
    }
}

/// Counts and logs. A cheap handle.
#[derive(Clone, Default)]
pub struct Complaints(Arc<Mutex<Book>>);

#[derive(Default)]
struct Book {
    counts: BTreeMap<String, Counts>,
    said: HashMap<(String, &'static str), Said>,
}

struct Said {
    at: Instant,
    since: u64,
}

impl Complaints {
    /// Counts something for an application.
    pub fn count(&self, app_key: &str, count: impl FnOnce(&mut Counts)) {
        count(self.book().counts.entry(app_key.to_owned()).or_default());
    }

    /// What was counted.
    pub fn counts(&self) -> BTreeMap<String, Counts> {
        self.book().counts.clone()
    }

    /// Logs trouble with `what` of an application: at once when it is new, then once a minute with how often it came.
    pub fn warn(&self, app_key: &str, what: &'static str, reason: &str) {
        let now = Instant::now();
        let more = {
            let mut book = self.book();
            match book.said.get_mut(&(app_key.to_owned(), what)) {
                Some(said) if now.duration_since(said.at) < EVERY => {
                    said.since += 1;
                    return;
                }
                Some(said) => {
                    said.at = now;
                    std::mem::take(&mut said.since)
                }
                None => {
                    book.said.insert((app_key.to_owned(), what), Said { at: now, since: 0 });
                    0
                }
            }
        };
        match more {
            0 => tracing::warn!(app = %app_key, hook = %what, "{reason}"),
            more => tracing::warn!(app = %app_key, hook = %what, more, "{reason}"),
        }
    }

    fn book(&self) -> std::sync::MutexGuard<'_, Book> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
