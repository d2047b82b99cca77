//! Events that are not delivered yet, as they survive a restart: a file to which is added what comes and what is done
//! with.
//!
//! What is added is in the system's hands as soon as it is written, so the death of the process costs what happened
//! since the last write began: less than a millisecond on a machine that has time. A power cut or a crash of the system
//! costs what was not yet on the disk: it is told to put it there [`SYNC`] after the first write that waits for it, and
//! only where events wait still. So a hook server that answers costs no disk.
//!
//! ```text
//! +17 {"appKey":…,"body":…}      event 17 came
//! -17                            event 17 is done with
//! ```

use std::collections::{BTreeMap, HashSet};
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::Instant;

use super::line::Item;

/// The file's name in the data directory.
const FILE: &str = "hook_events.log";
/// Bodies hold what clients say: for the owner alone.
const MODE: u32 = 0o600;
/// The time from a write to the disk's.
const SYNC: Duration = Duration::from_millis(50);
/// The size at which a file is written anew without what is done with; more where more waits.
const SHRINK: u64 = 1 << 20;

/// Writes down what waits. One batch at a time is on its way to the file; meanwhile the next one gathers.
pub(super) struct Journal {
    log: Arc<Mutex<Log>>,
    puts: BTreeMap<u64, Item>,
    strikes: Vec<u64>,
    /// Written, or being written.
    kept: HashSet<u64>,
    writes: JoinSet<io::Result<()>>,
    syncs: JoinSet<io::Result<()>>,
    /// When the disk is told.
    sync: Option<Instant>,
}

impl Journal {
    /// Opens the file under `data`, which nobody else may have open, and gives what an earlier run has left. Blocks.
    pub(super) fn open(data: &Path) -> io::Result<(Self, BTreeMap<u64, Item>)> {
        let (log, left) = Log::open(data.join(FILE))?;
        let journal = Self {
            log: Arc::new(Mutex::new(log)),
            puts: BTreeMap::new(),
            strikes: Vec::new(),
            kept: left.keys().copied().collect(),
            writes: JoinSet::new(),
            syncs: JoinSet::new(),
            sync: None,
        };
        Ok((journal, left))
    }

    /// An event has come.
    pub(super) fn keep(&mut self, item: &Item) {
        self.puts.insert(item.place, item.clone());
    }

    /// An event is done with.
    pub(super) fn strike(&mut self, place: u64) {
        self.puts.remove(&place);
        if self.kept.remove(&place) {
            self.strikes.push(place);
        }
    }

    /// How many are written down.
    pub(super) fn len(&self) -> usize {
        self.kept.len()
    }

    /// Begins to write what has gathered, unless a write is under way.
    pub(super) fn flush(&mut self) {
        if !self.writes.is_empty() || (self.puts.is_empty() && self.strikes.is_empty()) {
            return;
        }
        let mut text = Vec::new();
        for place in std::mem::take(&mut self.strikes) {
            text.extend_from_slice(format!("-{place}\n").as_bytes());
        }
        for (place, item) in std::mem::take(&mut self.puts) {
            self.kept.insert(place);
            text.extend_from_slice(&put(place, &item));
        }
        let log = self.log.clone();
        self.writes.spawn_blocking(move || lock(&log).append(&text));
    }

    /// When [`Journal::sync`] is to be called.
    pub(super) fn due(&self) -> Option<Instant> {
        self.sync.filter(|_| self.syncs.is_empty())
    }

    /// Has the disk take what is written, where it is still of use.
    pub(super) fn sync(&mut self) {
        self.sync = None;
        if !self.kept.is_empty() {
            // Writes go on meanwhile.
            let file = lock(&self.log).file.try_clone();
            self.syncs.spawn_blocking(move || file?.sync_data());
        }
    }

    /// Resolves when a write has ended, with how; never where none is under way.
    pub(super) async fn ended(&mut self) -> io::Result<()> {
        let ended = tokio::select! {
            Some(ended) = self.writes.join_next() => {
                self.sync.get_or_insert_with(|| Instant::now() + SYNC);
                ended
            }
            Some(ended) = self.syncs.join_next() => ended,
            else => std::future::pending().await,
        };
        ended.unwrap_or_else(|error| Err(io::Error::other(error)))
    }

    /// Writes all there is, to the disk.
    pub(super) async fn close(&mut self) -> io::Result<()> {
        while !(self.writes.is_empty() && self.syncs.is_empty()) {
            self.ended().await?;
        }
        self.flush();
        self.sync();
        while !(self.writes.is_empty() && self.syncs.is_empty()) {
            self.ended().await?;
        }
        Ok(())
    }
}

fn lock(log: &Mutex<Log>) -> std::sync::MutexGuard<'_, Log> {
    log.lock().unwrap_or_else(PoisonError::into_inner)
}

fn put(place: u64, item: &Item) -> Vec<u8> {
    // Texts and numbers cannot fail to be JSON, and JSON has no line ends in it.
    format!("+{place} {}\n", serde_json::to_string(item).unwrap_or_default()).into_bytes()
}

/// The file.
struct Log {
    file: File,
    path: PathBuf,
    bytes: u64,
    /// The size at which it is written anew.
    shrink: u64,
}

impl Log {
    fn open(path: PathBuf) -> io::Result<(Self, BTreeMap<u64, Item>)> {
        let text = match File::open(&path) {
            Ok(mut file) => {
                let mut text = Vec::new();
                file.read_to_end(&mut text)?;
                text
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(error),
        };
        let (left, damaged) = replay(&text);
        if damaged > 0 {
            tracing::warn!(damaged, "{} has lines that weir did not write: they are left out", path.display());
        }
        let (file, bytes) = rewrite(&path, &left)?;
        Ok((Self { file, path, bytes, shrink: SHRINK.max(bytes * 2) }, left))
    }

    fn append(&mut self, text: &[u8]) -> io::Result<()> {
        if let Err(error) = self.file.write_all(text) {
            // The half of a line would spoil the next one.
            self.file.set_len(self.bytes)?;
            return Err(error);
        }
        self.bytes += text.len() as u64;
        if self.bytes > self.shrink {
            let (left, _) = replay(&std::fs::read(&self.path)?);
            (self.file, self.bytes) = rewrite(&self.path, &left)?;
            self.shrink = SHRINK.max(self.bytes * 2);
        }
        Ok(())
    }
}

/// Puts a file with these events into the place of the old one; open for more.
fn rewrite(path: &Path, left: &BTreeMap<u64, Item>) -> io::Result<(File, u64)> {
    let new = path.with_extension("new");
    // Rights are given to files that are made; one that is left over may have others.
    let _ = std::fs::remove_file(&new);
    let mut file = OpenOptions::new().append(true).create_new(true).mode(MODE).open(&new)?;
    let text: Vec<u8> = left.iter().flat_map(|(place, item)| put(*place, item)).collect();
    file.write_all(&text)?;
    file.sync_data()?;
    std::fs::rename(&new, path)?;
    Ok((file, text.len() as u64))
}

/// What is left of what was written, and how many lines cannot be read. The last one may lack its end.
fn replay(text: &[u8]) -> (BTreeMap<u64, Item>, usize) {
    let (mut left, mut damaged) = (BTreeMap::new(), 0);
    let whole = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
    for line in text[..whole].split_inclusive(|byte| *byte == b'\n') {
        match change(line) {
            Some((place, Some(item))) => drop(left.insert(place, item)),
            Some((place, None)) => drop(left.remove(&place)),
            None => damaged += 1,
        }
    }
    (left, damaged)
}

/// A line: the event that came, or none for one that is done with.
fn change(line: &[u8]) -> Option<(u64, Option<Item>)> {
    let line = std::str::from_utf8(line).ok()?.trim_end();
    if let Some(place) = line.strip_prefix('-') {
        return Some((place.parse().ok()?, None));
    }
    let (place, json) = line.strip_prefix('+')?.split_once(' ')?;
    let place = place.parse().ok()?;
    Some((place, Some(Item { place, ..serde_json::from_str(json).ok()? })))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::os::unix::fs::PermissionsExt;

    fn item(place: u64) -> Item {
        Item {
            place,
            app_key: "a".into(),
            method: "StreamStatusEvent".into(),
            lane: "l".into(),
            body: format!("{{\"n\":{place},\"text\":\"ä\\n\"}}").into(),
            at: 7,
            tries: 0,
        }
    }

    async fn until_written(journal: &mut Journal) {
        journal.flush();
        while !journal.writes.is_empty() {
            journal.ended().await.unwrap();
        }
    }

    #[tokio::test]
    async fn what_was_not_done_with_is_left() {
        let data = tempfile::tempdir().unwrap();
        let (mut journal, left) = Journal::open(data.path()).unwrap();
        assert!(left.is_empty());
        (0..5).for_each(|place| journal.keep(&item(place)));
        journal.strike(1);
        until_written(&mut journal).await;
        journal.strike(3);
        journal.keep(&item(5));
        until_written(&mut journal).await;
        // As it is, nothing being closed: the process is killed.
        let (_, left) = Journal::open(data.path()).unwrap();
        assert_eq!(left.into_values().collect::<Vec<_>>(), [0, 2, 4, 5].map(item));
        let mode = data.path().join(FILE).metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[tokio::test]
    async fn a_close_writes_what_gathered() {
        let data = tempfile::tempdir().unwrap();
        let (mut journal, _) = Journal::open(data.path()).unwrap();
        journal.keep(&item(1));
        journal.flush();
        journal.keep(&item(2));
        journal.close().await.unwrap();
        assert_eq!(Journal::open(data.path()).unwrap().1.len(), 2);
    }

    #[tokio::test]
    async fn the_file_does_not_grow_with_what_is_done_with() {
        let data = tempfile::tempdir().unwrap();
        let (mut journal, _) = Journal::open(data.path()).unwrap();
        let large = |place| Item { body: "x".repeat(50_000).into(), ..item(place) };
        journal.keep(&item(0));
        for place in 1..100 {
            journal.keep(&large(place));
            until_written(&mut journal).await;
            journal.strike(place);
        }
        until_written(&mut journal).await;
        let size = data.path().join(FILE).metadata().unwrap().len();
        assert!(size <= SHRINK, "{size} bytes");
        assert_eq!(Journal::open(data.path()).unwrap().1.into_values().collect::<Vec<_>>(), [item(0)]);
    }

    #[test]
    fn a_line_that_is_none_costs_itself_alone() {
        let mut text = put(1, &item(1));
        text.extend_from_slice(b"rubbish\n\xff\xfe\n+x {}\n+4 {}\n-1x\n");
        text.extend(put(2, &item(2)));
        let torn = put(3, &item(3));
        text.extend_from_slice(&torn[..torn.len() - 1]);
        let (left, damaged) = replay(&text);
        assert_eq!((left.into_values().collect::<Vec<_>>(), damaged), (vec![item(1), item(2)], 5));
    }

    proptest! {
        /// However far a write got: what came before the cut is there, and nothing that never was.
        #[test]
        fn any_cut_leaves_what_was_written_before_it(strikes in proptest::collection::vec(any::<bool>(), 1..20), cut in 0usize..4000) {
            let mut lines = Vec::new();
            for (place, strike) in (0..).zip(&strikes) {
                lines.push((place, put(place, &item(place)), true));
                if *strike {
                    lines.push((place, format!("-{place}\n").into_bytes(), false));
                }
            }
            let text: Vec<u8> = lines.iter().flat_map(|(_, line, _)| line.clone()).collect();
            let cut = cut.min(text.len());
            let (mut wanted, mut end) = (BTreeMap::new(), 0);
            for (place, line, came) in &lines {
                end += line.len();
                match came {
                    _ if end > cut => break,
                    true => drop(wanted.insert(*place, item(*place))),
                    false => drop(wanted.remove(place)),
                }
            }
            prop_assert_eq!(replay(&text[..cut]), (wanted, 0));
        }
    }
}
