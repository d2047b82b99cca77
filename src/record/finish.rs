//! Turns a written part into a file in place.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::index::{Entry, Index};
use super::name::{NameEnd, NameFacts};
use super::recorder::{Writing, millis, off_thread, pending_name};
use super::repair::{RepairError, Repaired};
use super::trim::Until;
use super::{Rules, Tools, files};
use crate::config::Container;
use crate::event::Event;
use crate::media::{Beginning, Kind, Part, PartEvent};
use crate::name::{MediaSessionId, StreamName};

/// How long a part whose successor runs may wait for its follower to end it: longer than it takes to tell that sound is
/// lost, as what has come of it until then belongs to the part.
const STRAGGLER: Duration = Duration::from_secs(5);
/// How long a part that has all its frames may write nothing before it counts as hung. One that goes on writing is waited
/// for: transcoding the sound of many recordings on a machine that is busy takes its time.
const HUNG: Duration = Duration::from_secs(30);

/// How a part is closed.
#[derive(Clone)]
pub(super) struct Closing {
    /// No part follows it.
    pub(super) last: bool,
    /// The next part comes from the same feed.
    pub(super) followed: bool,
    /// It has all its frames and only needs its end; otherwise its pipeline has failed.
    pub(super) whole: bool,
    /// Where a feed begins that has joined meanwhile and has all frames from there on.
    pub(super) next: Option<Beginning>,
}

impl Closing {
    /// A part with another behind it.
    pub(super) const IN_ORDER: Self = Self { last: false, followed: false, whole: true, next: None };

    /// Where a part that began at `start` is to end: what the next feed has begins there.
    fn until(&self, start: Duration) -> Option<Until> {
        let next = self.next.as_ref()?;
        let place = |kind| next.of(kind).map(|time: Duration| time.saturating_sub(start));
        Some(Until { video: place(Kind::Video), audio: place(Kind::Audio) })
    }
}

/// How long the finishing of all recordings is waited for, when the server stops.
#[derive(Clone, Default)]
pub(super) struct Patience {
    sound: CancellationToken,
    files: CancellationToken,
}

impl Patience {
    /// Resolves at the deadline. First sound that has still to be transcoded is given up, then what is not finished is
    /// mended as it is, so that the files are in place when the server ends.
    pub(super) async fn run_out(&self, deadline: Duration) {
        sleep(deadline * 2 / 3).await;
        self.sound.cancel();
        sleep(deadline / 6).await;
        self.files.cancel();
        sleep(deadline / 6).await;
    }
}

/// What finishes a part.
pub(super) struct Finisher {
    pub(super) container: Container,
    pub(super) tools: Tools,
    pub(super) rules: Arc<Rules>,
    pub(super) stream: StreamName,
    pub(super) session: MediaSessionId,
    /// The feed has ended: nobody else ends the part any more.
    pub(super) over: CancellationToken,
    pub(super) patience: Patience,
}

impl Finisher {
    pub(super) async fn finish(self, writing: Writing, closing: Closing) {
        let Writing { mut part, file, facts, start } = writing;
        let Closing { last, whole, followed, .. } = closing;
        // The halves of a feed that goes on end the part themselves, each when it gets there.
        if !followed {
            part.finish();
        }
        let complete = whole && self.wait_for_end(&mut part, &file).await;
        part.stop().await;
        let (rules, container, index) = (self.rules.clone(), self.container, self.tools.index.clone());
        let until = closing.until(start).filter(|_| complete);
        let path = file.clone();
        let place_it = move || {
            let found = finished(&index, &path, container, until).map_err(io::Error::other)?;
            let Some(found) = found else { return Ok(None) };
            let facts = measured(NameFacts { last, ..facts }, &found);
            let placed = place(&index, &path, &rules.names.file_name(&facts), |entry| {
                entry.ended = facts.end.map(|end| end.wall_ms);
                entry.duration = Some(millis(found.duration));
                entry.last = last;
                entry.recovered = !complete;
            })?;
            Ok(Some((placed, found)))
        };
        let event = match off_thread(place_it).await {
            Ok(Some((file, found))) => {
                if last {
                    self.note(&file);
                }
                Event::RecordingFinished {
                    stream: Some(self.stream),
                    session: Some(self.session),
                    file,
                    duration: found.duration,
                    bytes: found.bytes_kept,
                    last,
                    recovered: !complete,
                }
            }
            // No frame came: there is no recording.
            Ok(None) => return,
            Err(error) => {
                self.tools.index.leave(&pending_name(&file));
                Event::RecordingFailed {
                    stream: self.stream,
                    session: self.session,
                    reason: format!("{} is kept as it is, and finished when that works: {error}", file.display()),
                }
            }
        };
        self.tools.hub.events().tell(event);
    }

    /// A stream that goes on without its recording knows where that is: its publisher is told with its last word.
    fn note(&self, file: &Path) {
        if let (Some(stream), Some(name)) = (self.tools.hub.streams().get(&self.stream), file.file_name()) {
            stream.recorded(self.session.clone(), name.to_string_lossy().into_owned());
        }
    }

    /// False when the file was not finished in order.
    async fn wait_for_end(&self, part: &mut Part, file: &Path) -> bool {
        tokio::select! {
            biased;
            event = part.ended() => return event == PartEvent::Finished,
            () = self.over.cancelled() => {}
            () = sleep(STRAGGLER) => {}
        }
        part.finish();
        let mut before = progress(part, file).await;
        loop {
            tokio::select! {
                biased;
                event = part.ended() => return event == PartEvent::Finished,
                () = self.patience.sound.cancelled() => return self.hurry(part, file).await,
                () = sleep(HUNG) => {}
            }
            let now = progress(part, file).await;
            if now == before {
                tracing::warn!(file = %file.display(), "a recording cannot be finished in order: nothing was written for {} s", HUNG.as_secs());
                return false;
            }
            before = now;
        }
    }

    /// Ends a part whose sound does not get transcoded in time.
    async fn hurry(&self, part: &mut Part, file: &Path) -> bool {
        let incomplete = part.leave_sound_out();
        if incomplete {
            tracing::warn!(file = %file.display(), "the end of the sound is missing: it could not be transcoded before shutdown_timeout");
        }
        tokio::select! {
            biased;
            event = part.ended() => event == PartEvent::Finished && !incomplete,
            () = self.patience.files.cancelled() => false,
        }
    }
}

/// What changes while a part gets on: the bytes in front of it, and those behind it.
async fn progress(part: &Part, file: &Path) -> (u64, Option<u64>) {
    let written = tokio::fs::metadata(file).await.map(|about| about.len()).ok();
    (part.queued(), written)
}

/// Finishes a written file; `None` for one that has no frame and is gone. Blocks.
///
/// # Errors
/// See [`RepairError`].
pub(super) fn finished(
    index: &Index,
    file: &Path,
    container: Container,
    until: Option<Until>,
) -> Result<Option<Repaired>, RepairError> {
    let empty = std::fs::metadata(file)?.len() == 0;
    let found = if empty { None } else { container.finish(file, until)? };
    if found.is_none() {
        std::fs::remove_file(file)?;
        index.forget(&pending_name(file));
    }
    Ok(found)
}

/// The facts of a part whose file has been measured. Its end counts from its start: a clock that is set back meanwhile
/// makes no recording end before it began.
pub(super) fn measured(facts: NameFacts, found: &Repaired) -> NameFacts {
    let duration_ms = millis(found.duration);
    let (stream_ms, wall_ms) = (facts.start_stream_ms + duration_ms, facts.start_wall_ms + duration_ms);
    NameFacts { end: Some(NameEnd { stream_ms, wall_ms, duration_ms }), ..facts }
}

/// Gives a mended file its name, or one close to it that is free, and notes what `note` knows of it. Blocks.
pub(super) fn place(index: &Index, file: &Path, name: &str, note: impl FnOnce(&mut Entry)) -> io::Result<PathBuf> {
    let placed = files::commit(file, name)?;
    let pending = pending_name(file);
    let mut entry = index.entry(&pending).map(Arc::unwrap_or_clone).unwrap_or_default();
    note(&mut entry);
    let name = placed.file_name().unwrap_or_default().to_string_lossy();
    index.placed(&pending, &name, entry);
    Ok(placed)
}
