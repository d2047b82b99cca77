//! How long recordings are kept: `record_max_age` and `record_max_total_size`. Off unless set.
//!
//! Only files that weir has recorded and knows of are deleted, the oldest first; none that is being written, and none whose
//! hook script has still to run.

use std::time::{Duration, SystemTime};

use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::index::{Entry, Index};
use super::name::temporary;
use crate::event::epoch_ms;

/// How often it is looked at least: more often where recordings are kept for less.
const LOOK: Duration = Duration::from_secs(30);
const SOONEST: Duration = Duration::from_secs(1);

/// What is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Retention {
    /// A recording that ended longer ago is deleted.
    pub max_age: Option<Duration>,
    /// All recordings together have at most this many bytes, those being written included.
    pub max_total: Option<u64>,
}

/// A finished file that may be deleted.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Kept {
    name: String,
    /// When it ended, epoch milliseconds.
    ended: u64,
    size: u64,
}

impl Retention {
    /// Deletes what is too old or too much, now and again, until `stop`.
    pub(super) async fn keep(self, index: Index, stop: CancellationToken) {
        if self == Self::default() {
            return;
        }
        let mut looks = interval(self.max_age.map_or(LOOK, |age| age.clamp(SOONEST, LOOK)));
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = looks.tick() => {}
            }
            let index = index.clone();
            // It fails only when the runtime ends.
            let _ = tokio::task::spawn_blocking(move || self.look(&index)).await;
        }
    }

    /// Looks once. Blocks.
    fn look(self, index: &Index) {
        let (mut files, mut total) = (Vec::new(), 0);
        for (name, entry) in index.entries() {
            let path = index.dir().join(if entry.is_written() { temporary(&name) } else { name.clone() });
            let Ok(about) = std::fs::symlink_metadata(path) else { continue };
            total += about.len();
            if may_go(&entry) {
                let modified = about.modified().map_or(0, epoch_ms);
                files.push(Kept { name, ended: entry.ended.unwrap_or(modified), size: about.len() });
            }
        }
        for file in self.surplus(files, total, epoch_ms(SystemTime::now())) {
            match index.delete(&file.name) {
                Ok(()) => tracing::info!(name = file.name, bytes = file.size, "an old recording is deleted"),
                Err(error) => tracing::warn!(name = file.name, "an old recording cannot be deleted: {error}"),
            }
        }
    }

    /// The files that are too old, and the oldest of the others while all together are too much. `total` counts those that
    /// may not go as well.
    fn surplus(self, mut files: Vec<Kept>, mut total: u64, now: u64) -> Vec<Kept> {
        files.sort_by(|a, b| a.ended.cmp(&b.ended).then_with(|| a.name.cmp(&b.name)));
        let oldest = self.max_age.and_then(|age| now.checked_sub(u64::try_from(age.as_millis()).ok()?));
        files.retain(|file| {
            let old = oldest.is_some_and(|oldest| file.ended < oldest);
            let much = self.max_total.is_some_and(|most| total > most);
            if old || much {
                total = total.saturating_sub(file.size);
            }
            old || much
        });
        files
    }
}

fn may_go(entry: &Entry) -> bool {
    !entry.is_written() && !entry.hook.is_open()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::config::NameEncoding;
    use crate::record::HookState;
    use crate::record::name::{NameFacts, NameRules};
    use proptest::prelude::*;

    fn file(name: &str, ended: u64, size: u64) -> Kept {
        Kept { name: name.into(), ended, size }
    }

    fn gone(retention: Retention, files: &[Kept], others: u64, now: u64) -> Vec<String> {
        let total = files.iter().map(|file| file.size).sum::<u64>() + others;
        retention.surplus(files.to_vec(), total, now).into_iter().map(|file| file.name).collect()
    }

    #[test]
    fn the_old_go_and_then_the_oldest() {
        let files = [file("c", 3_000, 10), file("a", 1_000, 10), file("b", 2_000, 10)];
        let age = |ms| Retention { max_age: Some(Duration::from_millis(ms)), max_total: None };
        let most = |bytes| Retention { max_age: None, max_total: Some(bytes) };
        assert_eq!(gone(Retention::default(), &files, 1_000_000, u64::MAX), Vec::<String>::new());
        assert_eq!(gone(age(1_500), &files, 0, 4_000), ["a", "b"]);
        assert_eq!(gone(age(5_000), &files, 0, 4_000), Vec::<String>::new());
        assert_eq!(gone(most(30), &files, 0, 4_000), Vec::<String>::new());
        assert_eq!(gone(most(29), &files, 0, 4_000), ["a"]);
        assert_eq!(gone(most(15), &files, 0, 4_000), ["a", "b"]);
        // What is being written counts, and everything else goes before it.
        assert_eq!(gone(most(15), &files, 20, 4_000), ["a", "b", "c"]);
        let both = Retention { max_age: Some(Duration::from_millis(2_500)), max_total: Some(10) };
        assert_eq!(gone(both, &files, 0, 4_000), ["a", "b"]);
    }

    #[test]
    fn only_what_weir_knows_and_nobody_needs_is_deleted() {
        let dir = tempfile::tempdir().unwrap();
        let index = Index::open(dir.path(), false);
        let note = |name: &str, file: &str, entry: Entry| {
            std::fs::write(dir.path().join(file), "12345678").unwrap();
            index.note(name, Entry { ended: Some(1), ..entry });
        };
        let hooked = |hook| Entry { hook, ..Entry::default() };
        note("a.mp4", "a.mp4", hooked(HookState::Ended(0)));
        note("b.mp4", "b.mp4", hooked(HookState::Off));
        note("c.mp4", "c.mp4", hooked(HookState::Failed("no".into())));
        note("waits.mp4", "waits.mp4", hooked(HookState::Waiting));
        note("runs.mp4", "runs.mp4", hooked(HookState::Running));
        let facts = NameFacts {
            stream_name: "w".into(),
            session_id: None,
            media_session_id: "m".into(),
            login: None,
            audio_codec: None,
            video_codec: None,
            start_stream_ms: 0,
            start_wall_ms: 0,
            end: None,
            part: None,
            last: false,
            extension: "mp4",
        };
        let rules = NameRules { template: "w".into(), encoding: NameEncoding::Plain, exclude: String::new() };
        note("w.mp4", "w.mp4.tmp", Entry::being_written(1, rules, facts));
        std::fs::write(dir.path().join("of the operator.mp4"), "12345678").unwrap();
        Retention { max_age: Some(Duration::from_secs(1)), max_total: Some(1) }.look(&index);
        let names =
            std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut left: Vec<_> = names.filter(|name| !name.starts_with('.')).collect();
        left.sort();
        assert_eq!(left, ["of the operator.mp4", "runs.mp4", "w.mp4.tmp", "waits.mp4"]);
        assert_eq!(index.entries().len(), 3);
    }

    proptest! {
        #[test]
        fn what_is_left_fits_or_nothing_is_left(
            sizes in proptest::collection::vec((0..1000u64, 0..1000u64), 0..30), most in 0..10_000u64,
        ) {
            let named = |(n, (ended, size)): (usize, &(u64, u64))| file(&n.to_string(), *ended, *size);
            let files: Vec<_> = sizes.iter().enumerate().map(named).collect();
            let total: u64 = files.iter().map(|file| file.size).sum();
            let gone = Retention { max_age: None, max_total: Some(most) }.surplus(files.clone(), total, 5_000);
            let left = total - gone.iter().map(|file| file.size).sum::<u64>();
            prop_assert!(left <= most || gone.len() == files.len());
            let newest_gone = gone.iter().map(|file| file.ended).max().unwrap_or(0);
            let kept = files.iter().filter(|file| !gone.contains(file));
            prop_assert!(kept.map(|file| file.ended).min().unwrap_or(u64::MAX) >= newest_gone);
        }
    }
}
