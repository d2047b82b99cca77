//! Totals that do not go back when a stream or a player leaves.
//!
//! Streams and players count for themselves, in atomics that GStreamer's threads and the relay write. The ledger keeps a
//! handle on each while it is there, and adds its last figures to the totals when it has left. It looks when the list of
//! streams changes, every two seconds, and when somebody asks; a player that came and went between two looks is not in it.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use serde_json::Value;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::task::TaskTracker;

use crate::hub::{Figures, Hub, Role, StreamHandle, Streams};
use crate::media::{Kind, TrackFigures};
use crate::name::{MediaSessionId, StreamName};

/// How often the ledger looks by itself.
const LOOK: Duration = Duration::from_secs(2);
/// Engines of players; a word that is none of them counts as the last.
pub const ENGINES: [&str; 3] = ["WebRTC", "Flash", "other"];

/// What came in and went out since the start.
#[derive(Debug, Clone, Default)]
pub struct Totals {
    /// What came in, video and sound.
    pub received: [TrackFigures; 2],
    /// Bytes sent to players, by [`ENGINES`].
    pub sent: [u64; 3],
    /// Frames or packets that players lost here because they could not keep up, by [`ENGINES`].
    pub dropped: [u64; 3],
}

/// The totals. A cheap handle.
#[derive(Clone, Default)]
pub struct Ledger(Arc<Mutex<Book>>);

#[derive(Default)]
struct Book {
    left: Totals,
    streams: HashMap<(StreamName, SystemTime), StreamHandle>,
    players: HashMap<(MediaSessionId, SystemTime), (StreamName, usize, Figures)>,
    /// What each stream's players had lost at the last look of the ledger's own, and those that lost something since.
    lost: HashMap<StreamName, u64>,
    degraded: HashSet<StreamName>,
}

impl Ledger {
    /// Looks at the streams for as long as there is a hub.
    pub fn follow(&self, hub: &Hub, tasks: &TaskTracker) {
        let (ledger, mut streams) = (self.clone(), hub.watch());
        tasks.spawn(async move {
            let mut time = interval(LOOK);
            time.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                tokio::select! {
                    changed = streams.changed() => {
                        if changed.is_err() {
                            return;
                        }
                        ledger.look(&streams.borrow_and_update().clone());
                    }
                    _ = time.tick() => {
                        let now = streams.borrow().clone();
                        ledger.look(&now);
                        ledger.book(Book::judge);
                    }
                }
            }
        });
    }

    /// The totals with what is there now.
    pub fn totals(&self, streams: &Streams) -> Totals {
        self.look(streams);
        self.book(|book| {
            let mut totals = book.left.clone();
            book.streams.values().for_each(|stream| totals.received(stream));
            book.players.values().for_each(|(_, engine, figures)| totals.player(*engine, figures));
            totals
        })
    }

    /// The streams that have players who lost something within the last two seconds.
    pub fn degraded(&self) -> usize {
        self.book(|book| book.degraded.len())
    }

    fn look(&self, streams: &Streams) {
        self.book(|book| book.look(streams));
    }

    fn book<T>(&self, work: impl FnOnce(&mut Book) -> T) -> T {
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Book {
    fn look(&mut self, streams: &Streams) {
        let (mut live, mut playing) = (HashSet::new(), HashSet::new());
        for (name, handle) in streams {
            let view = handle.view();
            let Some(publisher) = view.publisher() else { continue };
            let key = (name.clone(), publisher.since);
            live.insert(key.clone());
            self.streams.entry(key).or_insert_with(|| handle.clone());
            for player in view.sessions.iter().filter(|session| session.role == Role::Player) {
                let Some(figures) = &player.figures else { continue };
                let key = (player.id.clone(), player.since);
                playing.insert(key.clone());
                let entry = || (name.clone(), engine(player.provider), figures.clone());
                self.players.entry(key).or_insert_with(entry);
            }
        }
        let left = &mut self.left;
        self.streams.retain(|key, stream| {
            let stays = live.contains(key);
            if !stays {
                left.received(stream);
            }
            stays
        });
        self.players.retain(|key, (_, engine, figures)| {
            let stays = playing.contains(key);
            if !stays {
                left.player(*engine, figures);
            }
            stays
        });
    }

    /// Which streams have players that lost something since the last time.
    fn judge(&mut self) {
        let mut lost = HashMap::new();
        for (stream, _, figures) in self.players.values() {
            *lost.entry(stream.clone()).or_insert(0) += dropped(figures);
        }
        let more = |stream: &StreamName, now: u64| self.lost.get(stream).is_some_and(|before| now > *before);
        self.degraded =
            lost.iter().filter(|(stream, now)| more(stream, **now)).map(|(stream, _)| stream.clone()).collect();
        self.lost = lost;
    }
}

impl Totals {
    fn received(&mut self, stream: &StreamHandle) {
        for (total, kind) in self.received.iter_mut().zip([Kind::Video, Kind::Audio]) {
            let figures = stream.fanout().figures(kind);
            total.frames += figures.frames;
            total.keyframes += figures.keyframes;
            total.bytes += figures.bytes;
        }
    }

    fn player(&mut self, engine: usize, figures: &Figures) {
        self.sent[engine] += sent(figures);
        self.dropped[engine] += dropped(figures);
    }
}

/// The place of an engine in [`ENGINES`].
pub fn engine(provider: &str) -> usize {
    ENGINES.iter().position(|engine| *engine == provider).unwrap_or(ENGINES.len() - 1)
}

/// Bytes sent to a player.
pub fn sent(figures: &Figures) -> u64 {
    figure(figures, &["SENT_BYTES"])
}

/// What a player lost because it could not keep up.
pub fn dropped(figures: &Figures) -> u64 {
    figure(figures, &["DROPPED_PACKETS", "FRAMES_DROPPED"])
}

fn figure(figures: &Figures, keys: &[&str]) -> u64 {
    let figures = figures.read();
    keys.iter().filter_map(|key| figures.get(*key).and_then(Value::as_u64)).sum()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

    use serde_json::json;

    use super::*;
    use crate::event::Events;
    use crate::hub::{Player, Publisher, Subscriber};

    #[tokio::test]
    async fn who_leaves_stays_in_the_totals() {
        let hub = Hub::start(Events::default(), crate::admission::Admission::default(), &TaskTracker::new());
        let ledger = Ledger::default();
        let name = StreamName::new("a").unwrap();
        let publisher = Publisher {
            name: name.clone(),
            session: MediaSessionId::random(),
            app_key: "defaultApp".into(),
            connection: "c".into(),
            login: None,
            provider: "WebRTC",
            media_type: "publish",
            transport: "UDP",
            record: None,
            by: "a test".into(),
        };
        let publication = hub.publish(publisher).await.unwrap();
        let stream = hub.streams()[&name].clone();
        let player = Player {
            session: MediaSessionId::random(),
            app_key: "defaultApp".into(),
            connection: "c".into(),
            provider: "WebRTC",
            transport: "UDP",
        };
        let subscription = stream.subscribe(Subscriber::Player(player.clone())).unwrap();
        let counted = Arc::new(AtomicU64::new(100));
        let shared = counted.clone();
        subscription.set_figures(Figures::new(move || {
            let now = shared.load(Relaxed);
            json!({"SENT_BYTES": now, "DROPPED_PACKETS": now / 100}).as_object().unwrap().clone()
        }));
        let mut view = subscription.view();
        let is_shown = |view: &crate::hub::StreamView| view.sessions.iter().any(|session| session.figures.is_some());
        view.wait_for(is_shown).await.unwrap();
        assert_eq!(ledger.totals(&hub.streams()).sent, [100, 0, 0]);
        ledger.book(Book::judge);
        counted.store(250, Relaxed);
        ledger.book(Book::judge);
        assert_eq!(ledger.degraded(), 1);
        ledger.book(Book::judge);
        assert_eq!(ledger.degraded(), 0);

        drop(subscription);
        stream.left(&player.session).await;
        let totals = ledger.totals(&hub.streams());
        assert_eq!((totals.sent, totals.dropped), ([250, 0, 0], [2, 0, 0]));
        publication.leave("over").await;
        let totals = ledger.totals(&hub.streams());
        assert_eq!((totals.sent, totals.dropped), ([250, 0, 0], [2, 0, 0]));
        assert!(ledger.book(|book| book.streams.is_empty() && book.players.is_empty()));
    }
}
