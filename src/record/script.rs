//! The hook script (`on_record_hook_script`): run once for every finished file, with the stream's name as `$1`, the file's
//! absolute name as `$2`, and the rest in `WEIR_*` variables. Source: wcs.md 6.8, 14.
//!
//! What is to run stands in the index ([`HookState`]), so that a file whose script did not run because the process died
//! is seen by the next start. The index is told before a script starts: it runs once, whatever happens. Nobody waits for
//! a script but the shutdown.
//!
//! ```text
//! Waiting ──► Running ──► Ended(exit code)
//!    ▲           ├──────► Failed(reason)
//!    └───────────┘ the server stops before it has ended
//! ```

use std::collections::HashSet;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::{Child, Command};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::index::{Entries, Entry, HookState, Index};
use crate::event::{Event, Events};
use crate::name::{MediaSessionId, StreamName, mask};

/// How many scripts run at a time.
const AT_ONCE: usize = 4;
/// How long a script that is told to end may take, before it is made to.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// How long after a script's end its output is read: what it left running in the background may keep it open.
const OUTPUT: Duration = Duration::from_millis(300);
/// The most of a script's output that goes to the log, bytes.
const MOST: usize = 64 << 10;
/// The longest line of it.
const LINE: usize = 1000;

/// The hook script.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Script {
    /// The program.
    pub path: PathBuf,
    /// How long it may run.
    pub limit: Duration,
}

/// A handle on the scripts that run.
pub struct Scripts {
    finish: CancellationToken,
    abort: CancellationToken,
    tasks: TaskTracker,
}

impl Scripts {
    /// Runs `script` for every file of `index` that waits for it, in a task of `tasks`; without a script nothing waits.
    pub fn start(script: Option<Script>, index: Index, events: Events, tasks: &TaskTracker) -> Self {
        let scripts =
            Self { finish: CancellationToken::new(), abort: CancellationToken::new(), tasks: TaskTracker::new() };
        let (finish, abort) = (scripts.finish.clone(), scripts.abort.clone());
        let runner = Runner { index, events, script: script.map(Arc::new), abort };
        // In both: the server waits for the one, and the shutdown's own step for the other.
        tasks.spawn(scripts.tasks.track_future(runner.run(finish)));
        scripts
    }

    /// Waits until no file waits for the script; true when that was within `deadline`. What still runs then is ended,
    /// and run again by the next start.
    pub async fn finish(&self, deadline: Duration) -> bool {
        self.finish.cancel();
        self.tasks.close();
        let complete = timeout(deadline.saturating_sub(LAST_WORDS), self.tasks.wait()).await.is_ok();
        self.abort.cancel();
        complete
    }
}

#[derive(Clone)]
struct Runner {
    index: Index,
    events: Events,
    script: Option<Arc<Script>>,
    abort: CancellationToken,
}

impl Runner {
    async fn run(self, finish: CancellationToken) {
        self.begin(&self.index.entries()).await;
        let mut entries = self.index.watch();
        let Some(script) = &self.script else { return };
        let places = Arc::new(Semaphore::new(AT_ONCE));
        let (mut jobs, mut taken) = (JoinSet::new(), HashSet::new());
        loop {
            for name in waiting(&mut entries, &mut taken) {
                let (runner, script, places) = (self.clone(), script.clone(), places.clone());
                jobs.spawn(async move {
                    tokio::select! {
                        biased;
                        () = runner.abort.cancelled() => {}
                        Ok(_place) = places.acquire() => runner.see(&script, &name).await,
                    }
                    name
                });
            }
            tokio::select! {
                biased;
                Some(done) = jobs.join_next() => if let Ok(name) = done { taken.remove(&name); },
                changed = entries.changed() => if changed.is_err() { return },
                () = finish.cancelled(), if jobs.is_empty() => return,
            }
            if self.abort.is_cancelled() {
                while jobs.join_next().await.is_some() {}
                return;
            }
        }
    }

    /// Sorts out what an earlier process left.
    async fn begin(&self, entries: &Entries) {
        for (name, entry) in entries {
            let state = match (&entry.hook, &self.script) {
                (HookState::Waiting, None) => HookState::Off,
                (HookState::Running, _) => HookState::Failed("the server died while it ran".into()),
                _ => continue,
            };
            self.set(name, state).await;
        }
    }

    async fn set(&self, name: &str, state: HookState) {
        let (index, name) = (self.index.clone(), name.to_owned());
        // It fails only when the runtime ends, and then the next start reads what was written before.
        let _ = tokio::task::spawn_blocking(move || index.change(&name, |entry| entry.hook = state)).await;
    }

    /// Has the script see one file.
    async fn see(&self, script: &Script, name: &str) {
        let Some(entry) = self.index.entry(name) else { return };
        self.set(name, HookState::Running).await;
        let began = Instant::now();
        let Some(outcome) = self.execute(script, name, &entry).await else {
            return self.set(name, HookState::Waiting).await;
        };
        let (state, exit, failure) = match outcome {
            Ok(status) => match status.code() {
                Some(code) => (HookState::Ended(code), Some(code), None),
                None => (HookState::Failed(status.to_string()), None, Some(status.to_string())),
            },
            Err(reason) => (HookState::Failed(reason.clone()), None, Some(reason)),
        };
        self.set(name, state).await;
        self.events.tell(Event::RecordingHooked {
            stream: entry.stream.as_deref().and_then(|stream| StreamName::new(stream).ok()),
            session: entry.media_session_id.as_deref().and_then(|id| MediaSessionId::new(id).ok()),
            file: self.index.dir().join(name),
            exit,
            failure,
            took: began.elapsed(),
        });
    }

    /// Runs the script to its end; `None` when the server stops first.
    async fn execute(&self, script: &Script, name: &str, entry: &Entry) -> Option<Result<ExitStatus, String>> {
        let mut command = command(script, &self.index, name, entry);
        let mut child = match command.spawn() {
            Ok(child) => child,
            Err(error) => return Some(Err(format!("{} cannot be started: {error}", script.path.display()))),
        };
        let mut readers = JoinSet::new();
        child.stdout.take().map(|out| readers.spawn(told(out, name.to_owned(), "stdout")));
        child.stderr.take().map(|err| readers.spawn(told(err, name.to_owned(), "stderr")));
        let ended = tokio::select! {
            biased;
            status = child.wait() => Some(status.map_err(|error| error.to_string())),
            () = tokio::time::sleep(script.limit) => {
                end(&mut child).await;
                let seconds = script.limit.as_secs_f32();
                Some(Err(format!("it was ended after {seconds} s (on_record_hook_timeout)")))
            }
            () = self.abort.cancelled() => {
                end(&mut child).await;
                None
            }
        };
        let _ = timeout(OUTPUT, async { while readers.join_next().await.is_some() {} }).await;
        ended
    }
}

/// The files that wait and that nobody has taken yet, taken.
fn waiting(entries: &mut watch::Receiver<Entries>, taken: &mut HashSet<String>) -> Vec<String> {
    let entries = entries.borrow_and_update();
    let waits = entries.iter().filter(|(_, entry)| entry.hook == HookState::Waiting).map(|(name, _)| name);
    waits.filter(|name| taken.insert((*name).clone())).cloned().collect()
}

/// No shell: what a stream is called is an argument and never a command.
fn command(script: &Script, index: &Index, name: &str, entry: &Entry) -> Command {
    let file = index.dir().join(name);
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    let number = |number: Option<u64>| number.map(|number| number.to_string()).unwrap_or_default();
    let size = std::fs::metadata(&file).map(|about| about.len()).ok();
    let mut command = Command::new(&script.path);
    // weir's own settings may hold secrets.
    for (key, _) in std::env::vars_os().filter(|(key, _)| key.to_string_lossy().starts_with("WEIR_")) {
        command.env_remove(key);
    }
    command.arg(text(&entry.stream)).arg(&file).current_dir(index.dir()).envs([
        ("WEIR_STREAM", text(&entry.stream)),
        ("WEIR_FILE", file.to_string_lossy().into_owned()),
        ("WEIR_MEDIA_SESSION_ID", text(&entry.media_session_id)),
        ("WEIR_STARTED", number(entry.started)),
        ("WEIR_ENDED", number(entry.ended)),
        ("WEIR_DURATION", number(entry.duration)),
        ("WEIR_SIZE", number(size)),
        ("WEIR_PART", number(entry.part.map(u64::from))),
        ("WEIR_LAST", entry.last.to_string()),
        ("WEIR_VIDEO_CODEC", text(&entry.video_codec)),
        ("WEIR_AUDIO_CODEC", text(&entry.audio_codec)),
        ("WEIR_RECOVERED", entry.recovered.to_string()),
    ]);
    // A group of its own: at its time limit, what it has started ends with it.
    command.process_group(0).kill_on_drop(true).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Ends a script and what it has started.
async fn end(child: &mut Child) {
    let group = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
    let signal = |signal| {
        if let Some(group) = group {
            // A group that has ended meanwhile needs no signal.
            let _ = kill_process_group(group, signal);
        }
    };
    signal(Signal::TERM);
    let _ = timeout(LAST_WORDS / 2, child.wait()).await;
    signal(Signal::KILL);
    let _ = child.wait().await;
}

/// Puts what a script writes into the log, and reads on where that is too much: a full pipe would stop the script.
async fn told(mut output: impl AsyncRead + Unpin, name: String, which: &'static str) {
    let (mut piece, mut line, mut told) = (vec![0; 4096], Vec::new(), 0);
    while let Ok(count @ 1..) = output.read(&mut piece).await {
        for byte in piece.iter().take(count).copied() {
            if byte == b'\n' || line.len() == LINE {
                tell(&mut line, &name, which, &mut told);
            }
            if byte != b'\n' {
                line.push(byte);
            }
        }
    }
    tell(&mut line, &name, which, &mut told);
}

fn tell(line: &mut Vec<u8>, name: &str, which: &str, told: &mut usize) {
    let text = mask(&String::from_utf8_lossy(&std::mem::take(line))).replace(char::is_control, " ");
    let before = *told;
    *told += text.len();
    if before < MOST && !text.trim().is_empty() {
        tracing::info!(name, "hook script, {which}: {}", text.trim_end());
    }
    if before < MOST && *told >= MOST {
        tracing::info!(name, "hook script, {which}: the rest is left out");
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_a_script_sees() {
        let dir = tempfile::tempdir().unwrap();
        let index = Index::open(dir.path(), true);
        std::fs::write(dir.path().join("a b.mp4"), "four").unwrap();
        let entry = Entry {
            stream: Some("$(rm -rf /) \"a\"".into()),
            duration: Some(10_000),
            part: Some(2),
            video_codec: Some("H264".into()),
            ..Entry::default()
        };
        let script = Script { path: "/bin/true".into(), limit: Duration::from_secs(1) };
        let command = command(&script, &index, "a b.mp4", &entry);
        let command = command.as_std();
        let file = dir.path().join("a b.mp4");
        let arguments: Vec<_> = command.get_args().collect();
        assert_eq!(arguments, ["$(rm -rf /) \"a\"".as_ref(), file.as_os_str()]);
        let get = |key: &str| {
            command.get_envs().find(|(name, _)| *name == key).unwrap().1.unwrap().to_str().unwrap().to_owned()
        };
        assert_eq!(
            (get("WEIR_DURATION"), get("WEIR_PART"), get("WEIR_SIZE")),
            ("10000".into(), "2".into(), "4".into())
        );
        assert_eq!((get("WEIR_AUDIO_CODEC"), get("WEIR_RECOVERED")), (String::new(), "false".into()));
    }
}
