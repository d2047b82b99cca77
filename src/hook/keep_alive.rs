//! The keep-alive of streams (wcs.md 4.7): one task that asks hook servers about each publisher and each player, beat by
//! beat, and ends the streams they answer 403 for.
//!
//! Who is there is read from the hub's snapshots, so every kind of stream has its beats: browsers', encoders', pulled
//! ones. A beat that has no answer when the next one is due makes that one wait for its turn: a hook server that is slow
//! is asked less often, and delays nobody else.

use std::collections::HashSet;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};
use tokio_util::sync::CancellationToken;

use super::beats::Beats;
use super::client;
use super::policy::{MethodPolicy, RestPolicy};
use super::{Hooks, Method};
use crate::config::StreamKeepAlive;
use crate::hub::{Hub, StreamHandle, TERMINATED_BY_KEEP_ALIVE};
use crate::name::{MediaSessionId, StreamName};

/// How often is looked who has come and gone.
const LOOK: Duration = Duration::from_millis(500);
/// Most beats without an answer at once; what a slow hook server makes weir hold.
const FLYING: usize = 1024;

type Key = (StreamName, MediaSessionId);

/// Asks until `stop`.
pub(super) async fn run(hooks: Hooks, hub: Hub, settings: StreamKeepAlive, stop: CancellationToken) {
    let mut heart = Heart {
        beats: Beats::new(settings.interval),
        app_keys: settings.app_keys.into_iter().collect(),
        hooks,
        hub,
        flying: JoinSet::new(),
        asked: HashSet::new(),
    };
    let mut look = interval(LOOK.min(settings.interval));
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let next = heart.beats.next();
        tokio::select! {
            () = stop.cancelled() => return,
            _ = look.tick() => heart.look(),
            Some(answered) = heart.flying.join_next() => {
                if let Ok(key) = answered {
                    heart.asked.remove(&key);
                }
            }
            () = due(next) => heart.beat(),
        }
    }
}

async fn due(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}

struct Heart {
    beats: Beats<Key>,
    app_keys: HashSet<String>,
    hooks: Hooks,
    hub: Hub,
    flying: JoinSet<Key>,
    /// Whose beats have no answer yet.
    asked: HashSet<Key>,
}

impl Heart {
    fn look(&mut self) {
        let called: HashSet<&String> =
            self.app_keys.iter().filter(|key| self.hooks.calls(key, Method::StreamKeepAliveEvent)).collect();
        let mut there = Vec::new();
        if !called.is_empty() {
            for (name, stream) in self.hub.streams().iter() {
                stream.look(|view| {
                    let sessions = view.sessions.iter().filter(|session| called.contains(&session.app_key));
                    there.extend(sessions.map(|session| (name.clone(), session.id.clone())));
                });
            }
        }
        self.beats.see(Instant::now(), there);
    }

    fn beat(&mut self) {
        let now = Instant::now();
        let streams = self.hub.streams();
        while let Some((key, at)) = self.beats.due(now) {
            let Some(stream) = streams.get(&key.0) else { continue };
            let Some(call) = Call::of(&self.hooks, stream, &key.1) else { continue };
            let late = u64::try_from(now.duration_since(at).as_millis()).unwrap_or(u64::MAX);
            self.hooks.complaints().count(&call.app_key, |counts| {
                counts.beats += 1;
                counts.beat_lateness = counts.beat_lateness.max(late);
            });
            if self.asked.contains(&key) || self.flying.len() >= FLYING {
                self.hooks.complaints().count(&call.app_key, |counts| counts.beats_missed += 1);
                self.hooks.complaints().warn(
                    &call.app_key,
                    "keep-alive",
                    "beats are left out: the answers take too long",
                );
                continue;
            }
            self.asked.insert(key.clone());
            let (hooks, stream) = (self.hooks.clone(), stream.clone());
            self.flying.spawn(async move {
                call.ask(&hooks, &stream, &key.1).await;
                key
            });
        }
    }
}

/// A beat of one media session.
struct Call {
    app_key: String,
    policy: MethodPolicy,
    body: String,
}

impl Call {
    fn of(hooks: &Hooks, stream: &StreamHandle, id: &MediaSessionId) -> Option<Self> {
        let shown = stream.look(|view| view.shown(id))?;
        let (app_key, connection) = (shown.app_key.clone(), shown.session_id.clone());
        let mut fields = shown.fields();
        let session = hooks.session(&connection);
        let method = Method::StreamKeepAliveEvent;
        let policy = session.as_ref().map_or_else(|| MethodPolicy::of(method), |session| session.policy(method));
        if policy.policy == RestPolicy::Disable {
            return None;
        }
        let body = match session {
            Some(session) => {
                session.recall(id, &mut fields, true);
                session.body(fields)
            }
            None => {
                hooks.sign(&mut fields, &app_key, &connection);
                fields
            }
        };
        Some(Self { app_key, body: client::text(&policy.sent(body)), policy })
    }

    async fn ask(self, hooks: &Hooks, stream: &StreamHandle, id: &MediaSessionId) {
        let Some(outcome) = hooks.once(&self.app_key, Method::StreamKeepAliveEvent, self.body).await else { return };
        if self.policy.ends_stream(&outcome) {
            hooks.complaints().count(&self.app_key, |counts| counts.beats_ended += 1);
            stream.terminate(id, TERMINATED_BY_KEEP_ALIVE);
        } else if let Some(error) = outcome.error() {
            hooks.complaints().count(&self.app_key, |counts| counts.failed += 1);
            hooks.complaints().warn(&self.app_key, "keep-alive", &format!("StreamKeepAliveEvent: {error}"));
        } else {
            hooks.complaints().count(&self.app_key, |counts| counts.answered += 1);
        }
    }
}
