//! What is known of each recorded file, beside the file: in `record_dir/.weir/`, a small JSON of the same name.
//!
//! It outlives the process, so that the next start knows whose a file is that a killed one left, how it is to be named, and
//! whether its hook has run. A sidecar that is lost costs the knowledge and never the recording: what cannot be written is
//! logged, and the recording goes on.
//!
//! A process may die after a file has got its name and before its sidecar has: the sidecar of a file that is being
//! written holds the file's inode, which stays the same, and by which the next start finds it.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::name::{NameFacts, NameRules};

/// The folder of the sidecars in `record_dir`.
const FOLDER: &str = ".weir";
/// The longest sidecar that is read, bytes. A stream's name has 4,096 bytes and a template about as many.
const LONGEST: u64 = 256 << 10;

/// What is known of a recorded file. Times are epoch milliseconds, lengths milliseconds.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(rename = "RecordingFacts")]
pub struct Entry {
    /// The stream's name, secrets masked.
    pub stream: Option<String>,
    /// The publisher's media session.
    pub media_session_id: Option<String>,
    /// When its first frame came, by the server's clock.
    pub started: Option<u64>,
    /// When its last frame ended.
    pub ended: Option<u64>,
    /// How long it plays; `None` while it is written, and where it could not be found out.
    pub duration: Option<u64>,
    /// Short name, for example `H264`.
    pub video_codec: Option<String>,
    /// Short name of the source's codec, for example `AAC`.
    pub audio_codec: Option<String>,
    /// Its number among the parts of its recording, from 1.
    pub part: Option<u32>,
    /// No part follows it.
    pub last: bool,
    /// It was not finished in order: a process died, or the disk was full.
    pub recovered: bool,
    /// What became of its hook script.
    pub hook: HookState,
    /// How it is to be named, while it is being written.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(skip)]
    pub(super) writing: Option<Writing>,
}

/// What the name of a file being written is made of.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Writing {
    /// The file's inode.
    pub(super) inode: u64,
    /// A recorder of this process has the file in hand.
    #[serde(skip)]
    pub(super) in_hand: bool,
    pub(super) rules: NameRules,
    pub(super) facts: NameFacts,
}

/// Where a file's hook script is.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum HookState {
    /// There is none for this file.
    #[default]
    Off,
    /// It is still to run.
    Waiting,
    /// It runs.
    Running,
    /// It has ended with this exit code.
    Ended(i32),
    /// It could not be started, was ended at its time limit, or by a signal.
    Failed(String),
}

impl HookState {
    /// Whether the script has still to see the file.
    pub fn is_open(&self) -> bool {
        matches!(self, Self::Waiting | Self::Running)
    }
}

impl Entry {
    /// A file that is being written, and how it is to be named.
    pub(super) fn being_written(inode: u64, rules: NameRules, facts: NameFacts) -> Self {
        Self { writing: Some(Writing { inode, in_hand: true, rules, facts }), ..Self::default() }
    }

    /// Whether the file is being written.
    pub(super) fn is_written(&self) -> bool {
        self.writing.is_some()
    }

    /// Whether a recorder of this process has the file in hand.
    pub(super) fn is_in_hand(&self) -> bool {
        self.writing.as_ref().is_some_and(|writing| writing.in_hand)
    }

    /// What others are shown: everything but how the file is to be named.
    pub fn shown(&self) -> Self {
        Self { writing: None, ..self.clone() }
    }
}

/// What is known of the files, by their names without `.tmp`.
pub type Entries = BTreeMap<String, Arc<Entry>>;

/// The index of a directory. A cheap handle. What writes blocks: call it off the runtime's threads.
#[derive(Clone)]
pub struct Index {
    dir: Arc<Path>,
    scripted: bool,
    entries: watch::Sender<Entries>,
    drafts: Arc<AtomicU64>,
}

impl Index {
    /// Reads what an earlier process knew of `dir`. What cannot be read is as if it were not there. `scripted`: files that
    /// are placed from now on wait for the hook script.
    pub fn open(dir: &Path, scripted: bool) -> Self {
        let mut entries = Entries::new();
        for found in std::fs::read_dir(dir.join(FOLDER)).into_iter().flatten().flatten() {
            let name = found.file_name().into_string().ok().filter(|name| !name.starts_with('.'));
            if let Some((name, entry)) = name.and_then(|name| Some((name, read(&found.path())?))) {
                entries.insert(name, Arc::new(entry));
            }
        }
        let (entries, _) = watch::channel(entries);
        Self { dir: dir.into(), scripted, entries, drafts: Arc::default() }
    }

    /// The directory of the recordings.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// What is known.
    pub fn entries(&self) -> Entries {
        self.entries.borrow().clone()
    }

    /// What is known of one file.
    pub fn entry(&self, name: &str) -> Option<Arc<Entry>> {
        self.entries.borrow().get(name).cloned()
    }

    /// What is known, as it changes.
    pub fn watch(&self) -> watch::Receiver<Entries> {
        self.entries.subscribe()
    }

    /// Notes what is known of a file. Blocks.
    pub fn note(&self, name: &str, entry: Entry) {
        if let Err(error) = self.write(name, &entry) {
            tracing::warn!(name, "what is known of a recording cannot be kept beside it: {error}");
        }
        self.entries.send_modify(|entries| {
            entries.insert(name.to_owned(), Arc::new(entry));
        });
    }

    /// Changes what is known of a file; nothing happens where nothing is known. Blocks.
    pub fn change(&self, name: &str, change: impl FnOnce(&mut Entry)) {
        if let Some(entry) = self.entry(name) {
            let mut entry = Arc::unwrap_or_clone(entry);
            change(&mut entry);
            self.note_if_there(name, entry);
        }
    }

    /// Notes what is known of a file that somebody may delete meanwhile: whoever deletes it forgets it after that, so
    /// that either of the two finds it gone. Blocks.
    fn note_if_there(&self, name: &str, entry: Entry) {
        self.note(name, entry);
        let gone = |error: io::Error| error.kind() == io::ErrorKind::NotFound;
        if std::fs::symlink_metadata(self.dir.join(name)).is_err_and(gone) {
            self.forget(name);
        }
    }

    /// Its recorder could not finish a file: whoever finishes what was left may try. Only in memory: a process that died
    /// has no file in hand.
    pub(super) fn leave(&self, name: &str) {
        self.entries.send_modify(|entries| {
            if let Some(writing) = entries.get_mut(name).and_then(|entry| Arc::make_mut(entry).writing.as_mut()) {
                writing.in_hand = false;
            }
        });
    }

    /// Whether there are unfinished files that nobody has in hand.
    pub(super) fn has_left_files(&self) -> bool {
        self.entries.borrow().values().any(|entry| entry.is_written() && !entry.is_in_hand())
    }

    /// A file of the name `pending` is in place as `name`. Blocks.
    pub(super) fn placed(&self, pending: &str, name: &str, entry: Entry) {
        let hook = if self.scripted { HookState::Waiting } else { HookState::Off };
        self.note_if_there(name, Entry { hook, writing: None, ..entry });
        if pending != name {
            self.forget(pending);
        }
    }

    /// Forgets a file. Blocks.
    pub fn forget(&self, name: &str) {
        // One that is gone already is as good.
        let _ = std::fs::remove_file(self.sidecar(name));
        self.entries.send_modify(|entries| {
            entries.remove(name);
        });
    }

    /// Deletes a plain file of the directory, and forgets it. Blocks.
    ///
    /// # Errors
    /// The system's; `NotFound` also for what is no plain file.
    pub fn delete(&self, name: &str) -> io::Result<()> {
        let file = self.dir.join(name);
        if !std::fs::symlink_metadata(&file)?.is_file() {
            return Err(io::ErrorKind::NotFound.into());
        }
        std::fs::remove_file(&file)?;
        self.forget(name);
        Ok(())
    }

    fn sidecar(&self, name: &str) -> PathBuf {
        self.dir.join(FOLDER).join(name)
    }

    /// All or nothing: a reader never sees half of it.
    fn write(&self, name: &str, entry: &Entry) -> io::Result<()> {
        let folder = self.dir.join(FOLDER);
        let draft = folder.join(format!(".draft-{}", self.drafts.fetch_add(1, Relaxed)));
        let text = serde_json::to_vec(entry)?;
        let write = || std::fs::write(&draft, &text).and_then(|()| std::fs::rename(&draft, self.sidecar(name)));
        let written = match write() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                // Another recording may just be making it.
                std::fs::create_dir_all(&folder).and_then(|()| write())
            }
            other => other,
        };
        written.inspect_err(|_| {
            let _ = std::fs::remove_file(&draft);
        })
    }
}

fn read(path: &Path) -> Option<Entry> {
    let about = std::fs::symlink_metadata(path).ok()?;
    if !about.is_file() || about.len() > LONGEST {
        return None;
    }
    serde_json::from_slice(&std::fs::read(path).ok()?).ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn entry(stream: &str) -> Entry {
        Entry { stream: Some(stream.into()), hook: HookState::Ended(3), ..Entry::default() }
    }

    #[test]
    fn it_is_read_again_and_forgets() {
        let dir = tempfile::tempdir().unwrap();
        let index = Index::open(dir.path(), false);
        let longest = format!("{}.mp4", "n".repeat(247));
        ["b.mp4", "b-2.mp4"].iter().for_each(|name| std::fs::write(dir.path().join(name), "").unwrap());
        index.note(&longest, entry("a"));
        index.note("b.mp4", entry("b"));
        index.change("b.mp4", |entry| entry.hook = HookState::Waiting);
        index.change("c.mp4", |entry| entry.last = true);
        index.placed("b.mp4", "b-2.mp4", entry("b2"));
        let again = Index::open(dir.path(), false);
        assert_eq!(again.entries(), index.entries());
        assert_eq!(again.entries().keys().cloned().collect::<Vec<_>>(), ["b-2.mp4".to_owned(), longest.clone()]);
        again.forget(&longest);
        assert_eq!(Index::open(dir.path(), false).entries().len(), 1);
    }

    /// Somebody lists a recording the moment it has its name, and deletes it before what is known of it is noted.
    #[test]
    fn a_file_that_is_deleted_while_it_is_noted_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let index = Index::open(dir.path(), false);
        index.placed("a.mp4", "a.mp4", entry("a"));
        index.placed("b.mp4", "b-2.mp4", entry("b"));
        index.note("c.mp4", entry("c"));
        index.change("c.mp4", |entry| entry.hook = HookState::Running);
        assert!(index.entries().is_empty(), "{:?}", index.entries());
        assert_eq!(std::fs::read_dir(dir.path().join(FOLDER)).unwrap().count(), 0);
    }

    #[test]
    fn garbage_is_not_there() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join(FOLDER);
        std::fs::create_dir(&folder).unwrap();
        std::fs::write(folder.join("a.mp4"), "{").unwrap();
        std::fs::write(folder.join("b.mp4"), r#"{"part": "one"}"#).unwrap();
        std::fs::write(folder.join("c.mp4"), r#"{"stream": "c", "later": 1}"#).unwrap();
        std::os::unix::fs::symlink("/dev/zero", folder.join("d.mp4")).unwrap();
        let entries = Index::open(dir.path(), false).entries();
        assert_eq!(entries.keys().collect::<Vec<_>>(), ["c.mp4"]);
    }

    #[test]
    fn what_cannot_be_kept_is_known_all_the_same() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(FOLDER), "a file where the folder should be").unwrap();
        let index = Index::open(dir.path(), false);
        index.note("a.mp4", entry("a"));
        assert_eq!(index.entry("a.mp4").unwrap().stream.as_deref(), Some("a"));
    }
}
