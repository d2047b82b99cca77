//! One recording: a task that owns the feed and the parts.
//!
//! ```text
//!             stream is live           feed asks           cut, end, error
//!  (wait) ──────────────────► (feed) ───────────► (part) ─────────────────► file in place
//!    ▲                          │ ▲                 │ next part                  │
//!    │                          │ └─────────────────┘                            │
//!    └── tracks changed, or failed and time for another try ◄────────────────────┘
//! ```

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::container::{Container, choose};
use super::files;
use super::name::{NameEnd, NameFacts};
use super::repair::{RepairError, Repaired};
use super::{Rules, Tools, flows};
use crate::event::{Event, epoch_ms};
use crate::hub::{Recorded, SessionView, StreamHandle, StreamView, Subscriber, Subscription};
use crate::media::{Codec, CutRule, Feed, FeedEvent, Kind, ORIGIN, Part, PartEvent, Track};
use crate::name::{MediaSessionId, StreamName};
use crate::retry::Backoff;

/// How long the halves of a feed may take to hand over what they hold.
const HAND_OVER: Duration = Duration::from_millis(250);
/// How long a part whose successor runs may wait for its follower to end it.
const STRAGGLER: Duration = Duration::from_millis(1500);
/// How long a part may take from its last frame to a finished file.
const FINISHING: Duration = Duration::from_secs(8);
/// How often the free space is looked at.
const SPACE_CHECK: Duration = Duration::from_secs(2);
/// When a recording that failed is tried again.
const RETRY: Backoff = Backoff { initial: Duration::from_secs(5), max: Duration::from_secs(60), attempts: 0 };

/// The recording of one stream.
pub(super) struct Recorder {
    tools: Tools,
    stream: StreamName,
    session: MediaSessionId,
    connection: String,
    recorded: Recorded,
    subscription: Subscription,
    view: watch::Receiver<StreamView>,
    stop: CancellationToken,
}

/// Why a feed has ended.
enum End {
    /// The stream has ended, or the server stops.
    Over,
    /// Its tracks are others now.
    Changed,
    /// It could not go on; the reason has been told.
    Failed,
}

/// How a part is closed.
#[derive(Clone, Copy)]
struct Closing {
    /// No part follows it.
    last: bool,
    /// It has all its frames and only needs its end; otherwise its pipeline has failed.
    whole: bool,
}

/// A file being written.
struct Writing {
    part: Part,
    file: PathBuf,
    number: u32,
    facts: NameFacts,
}

impl Recorder {
    /// `None` when the stream has ended meanwhile.
    pub(super) fn new(
        tools: &Tools,
        stream: &StreamHandle,
        recorded: Recorded,
        publisher: &SessionView,
        stop: &CancellationToken,
    ) -> Option<Self> {
        let subscription = stream.subscribe(Subscriber::Recorder).ok()?;
        let view = subscription.view();
        let name = view.borrow().name.clone();
        Some(Self {
            tools: tools.clone(),
            stream: name,
            session: publisher.id.clone(),
            connection: publisher.connection.clone(),
            recorded,
            view,
            subscription,
            stop: stop.clone(),
        })
    }

    /// Records until the stream ends or the server stops.
    pub(super) async fn run(mut self) {
        let mut failures = 0;
        let mut written = 0;
        while let Some((container, tracks)) = self.tracks().await {
            let parts_before = written;
            match self.record(container, &tracks, &mut written).await {
                End::Over => break,
                End::Changed => {}
                End::Failed => {
                    failures = if written > parts_before { 1 } else { failures + 1 };
                    let wait = RETRY.wait(failures, rand::random()).unwrap_or(RETRY.max);
                    tokio::select! {
                        () = sleep(wait) => {}
                        () = self.stop.cancelled() => break,
                        () = ended(self.view.clone()) => break,
                    }
                }
            }
        }
        self.subscription.note_recording(None);
    }

    fn failed(&self, reason: String) {
        self.subscription.note_recording(None);
        self.tools.hub.events().tell(Event::RecordingFailed {
            stream: self.stream.clone(),
            session: self.session.clone(),
            reason,
        });
    }

    /// Waits for a stream that flows; `None` when none will come.
    async fn tracks(&mut self) -> Option<(Container, Vec<Track>)> {
        let (stop, recorded) = (self.stop.clone(), self.recorded);
        tokio::select! {
            () = stop.cancelled() => None,
            view = self.view.wait_for(|view| flows(view.phase)) => Some(choose(&view.ok()?.tracks, recorded)),
        }
    }

    async fn record(&mut self, container: Container, tracks: &[Track], written: &mut u32) -> End {
        if tracks.is_empty() {
            self.failed("the stream has no track in a codec that weir records".into());
            return match changed(self.view.clone(), tracks, self.recorded, &self.stop).await {
                true => End::Changed,
                false => End::Over,
            };
        }
        let kinds: Vec<Kind> = tracks.iter().map(|track| track.kind).collect();
        let (sender, mut events) = mpsc::unbounded_channel();
        let feed = Feed::attach(self.subscription.fanout(), &kinds, self.tools.rules.cut, &sender);
        drop(sender);
        let mut session = Session {
            recorder: self,
            container,
            tracks,
            writing: None,
            finishing: JoinSet::new(),
            first_number: *written,
            clock: StreamClock::default(),
        };
        let end = session.run(&feed, &mut events).await;
        drop(feed);
        match end {
            Ok(end) => {
                session.hand_over(&mut events).await;
                *written = session.finish(true).await.max(*written);
                end
            }
            Err(reason) => {
                self.failed(reason);
                *written = session.finish(false).await.max(*written);
                End::Failed
            }
        }
    }
}

/// Resolves with true when the stream's tracks are of other kinds or codecs, with false when the recording is over.
async fn changed(
    mut view: watch::Receiver<StreamView>,
    tracks: &[Track],
    recorded: Recorded,
    stop: &CancellationToken,
) -> bool {
    let codecs = |tracks: &[Track]| tracks.iter().map(|t| (t.kind, t.codec.clone())).collect::<Vec<_>>();
    let before = codecs(tracks);
    let other = |view: &StreamView| flows(view.phase) && codecs(&choose(&view.tracks, recorded).1) != before;
    tokio::select! {
        () = stop.cancelled() => false,
        found = view.wait_for(other) => found.is_ok(),
    }
}

async fn ended(mut view: watch::Receiver<StreamView>) {
    while view.changed().await.is_ok() {}
}

/// Translates the stream's time line to the server's clock.
#[derive(Default)]
struct StreamClock(Option<(Duration, SystemTime)>);

impl StreamClock {
    /// The wall clock at a time of the stream. The first question is asked at the time it asks for.
    fn wall(&mut self, at: Duration) -> SystemTime {
        let (stream, wall) = *self.0.get_or_insert_with(|| (at, SystemTime::now()));
        wall + at.saturating_sub(stream)
    }
}

/// One feed and the files that come out of it.
struct Session<'a> {
    recorder: &'a Recorder,
    container: Container,
    tracks: &'a [Track],
    writing: Option<Writing>,
    finishing: JoinSet<()>,
    /// Parts that were written before this feed.
    first_number: u32,
    clock: StreamClock,
}

impl Session<'_> {
    async fn run(&mut self, feed: &Feed, events: &mut mpsc::UnboundedReceiver<FeedEvent>) -> Result<End, String> {
        let recorder = self.recorder;
        let rules = &recorder.tools.rules;
        let changed = changed(recorder.view.clone(), self.tracks, recorder.recorded, &recorder.stop);
        tokio::pin!(changed);
        let mut space = interval(SPACE_CHECK);
        space.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                event = events.recv() => match event {
                    Some(FeedEvent::NeedPart { number, start }) => {
                        self.next_part(feed, number, start).await?;
                    }
                    Some(FeedEvent::Overrun) => return Err("the disk does not keep up with the stream".into()),
                    Some(FeedEvent::Changed) => return Ok(End::Changed),
                    Some(FeedEvent::Rest(rest)) => self.take(rest),
                    None => return Ok(End::Over),
                },
                failure = part_failure(&mut self.writing) => return Err(failure),
                other = &mut changed => return Ok(if other { End::Changed } else { End::Over }),
                _ = space.tick() => enough_space(rules)?,
            }
        }
    }

    fn take(&self, rest: crate::media::Rest) {
        if let Some(writing) = &self.writing {
            writing.part.take(rest);
        }
    }

    /// Supplies the part that the feed asks for, and finishes the one before it beside it.
    async fn next_part(&mut self, feed: &Feed, number: u32, start: Duration) -> Result<(), String> {
        if let Some(before) = self.writing.take() {
            let end = self.clock.wall(start);
            self.finish_beside(before, end, Closing { last: false, whole: true });
        }
        let number = self.first_number + number;
        let facts = self.facts(number, start);
        let writing = self.open(number, facts, start).await?;
        feed.supply(&writing.part);
        self.writing = Some(writing);
        Ok(())
    }

    fn facts(&mut self, number: u32, start: Duration) -> NameFacts {
        let recorder = self.recorder;
        let codec = |kind| {
            let track = self.tracks.iter().find(|track| track.kind == kind)?;
            Some(match &track.codec {
                Codec::Aac => "AAC".to_owned(),
                other => other.encoding_name().to_owned(),
            })
        };
        NameFacts {
            // Masked: a stream pulled by its URL is named by it, and files are shown and listed.
            stream_name: recorder.stream.to_string(),
            session_id: Some(recorder.connection.clone()),
            media_session_id: recorder.session.to_string(),
            login: None,
            audio_codec: codec(Kind::Audio),
            video_codec: codec(Kind::Video),
            start_stream_ms: millis(start.saturating_sub(ORIGIN)),
            start_wall_ms: epoch_ms(self.clock.wall(start)),
            end: None,
            part: (recorder.tools.rules.cut != CutRule::Never).then_some(number),
            last: false,
            extension: self.container.extension(),
        }
    }

    async fn open(&self, number: u32, facts: NameFacts, start: Duration) -> Result<Writing, String> {
        let recorder = self.recorder;
        let rules = &recorder.tools.rules;
        enough_space(rules)?;
        let cannot = |error: io::Error| format!("cannot write to {}: {error}", rules.dir.display());
        let name = rules.names.file_name(&facts);
        let dir = rules.dir.clone();
        let file = off_thread(move || files::reserve(&dir, &name)).await.map_err(cannot)?;
        let location = file.to_string_lossy();
        let elsewhere = format!("weir-part.{}", self.container.extension());
        let launch = recorder.tools.catalog.launch(self.container.template(), |filling| {
            let filling = filling.value_for_shell("location", &location, &elsewhere);
            self.tracks.iter().fold(filling, |filling, track| filling.track_in(track.kind, &track.codec))
        });
        let launch = launch.map_err(|error| error.to_string())?;
        let part = Part::start(&recorder.tools.pipelines, launch, &recorder.stream, start).await;
        let part = part.map_err(|error| {
            // The empty file of a part that never began.
            let _ = std::fs::remove_file(&file);
            error.to_string()
        })?;
        recorder.subscription.note_recording(pending_name(&file));
        recorder.tools.hub.events().tell(Event::RecordingStarted {
            stream: recorder.stream.clone(),
            session: recorder.session.clone(),
            file: file.clone(),
        });
        Ok(Writing { part, file, number, facts })
    }

    /// Lets the halves of a dropped feed end their part.
    async fn hand_over(&mut self, events: &mut mpsc::UnboundedReceiver<FeedEvent>) {
        let rests = async {
            while let Some(event) = events.recv().await {
                if let FeedEvent::Rest(rest) = event {
                    self.take(rest);
                }
            }
        };
        // A source that is silent drops its halves with its next frame only; what they hold is old by then.
        let _ = timeout(HAND_OVER, rests).await;
    }

    /// Finishes the last part and waits for all; gives the number of the last part that was begun.
    /// `whole`: the last part has all its frames and only needs its end.
    async fn finish(mut self, whole: bool) -> u32 {
        let mut number = self.first_number;
        if let Some(last) = self.writing.take() {
            number = last.number;
            self.finish_beside(last, SystemTime::now(), Closing { last: true, whole });
        }
        while self.finishing.join_next().await.is_some() {}
        number
    }

    fn finish_beside(&mut self, writing: Writing, end: SystemTime, closing: Closing) {
        let recorder = self.recorder;
        let finisher = Finisher {
            container: self.container,
            tools: recorder.tools.clone(),
            stream: recorder.stream.clone(),
            session: recorder.session.clone(),
        };
        self.finishing.spawn(finisher.finish(writing, end, closing));
    }
}

async fn part_failure(writing: &mut Option<Writing>) -> String {
    let Some(writing) = writing else { return std::future::pending().await };
    match writing.part.ended().await {
        PartEvent::Failed(failure) if failure.no_space => format!("the disk is full ({failure})"),
        PartEvent::Failed(failure) => failure.to_string(),
        // The stream's end: the feed tells it.
        PartEvent::Finished => std::future::pending().await,
    }
}

fn enough_space(rules: &Rules) -> Result<(), String> {
    if rules.min_free_space == 0 {
        return Ok(());
    }
    let free =
        files::free_space(&rules.dir).map_err(|error| format!("cannot write to {}: {error}", rules.dir.display()))?;
    if free >= rules.min_free_space {
        return Ok(());
    }
    Err(format!(
        "the file system of {} has {} MiB left, and record_min_free_space keeps {} MiB free",
        rules.dir.display(),
        free >> 20,
        rules.min_free_space >> 20
    ))
}

fn pending_name(file: &Path) -> Option<String> {
    let name = file.file_name()?.to_str()?;
    super::name::finished(name).map(str::to_owned)
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

async fn off_thread<T: Send + 'static>(job: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(job).await.map_err(io::Error::other)?
}

/// Turns a written part into a file in place.
struct Finisher {
    container: Container,
    tools: Tools,
    stream: StreamName,
    session: MediaSessionId,
}

impl Finisher {
    async fn finish(self, writing: Writing, end: SystemTime, closing: Closing) {
        let Writing { mut part, file, facts, .. } = writing;
        let Closing { last, whole } = closing;
        if last {
            part.finish();
        }
        let complete = whole && wait_for_end(&mut part).await;
        let written = part.duration();
        part.stop().await;
        let (rules, container) = (self.tools.rules.clone(), self.container);
        let path = file.clone();
        let mend = move |path: &Path| container.mend(path, written);
        let placed = off_thread(move || place(&rules, &path, mend, facts, end, last)).await;
        let event = match placed {
            Ok(Some((file, facts))) => Event::RecordingFinished {
                stream: Some(self.stream),
                session: Some(self.session),
                file,
                duration: facts.duration,
                bytes: facts.bytes_kept,
                last,
                recovered: !complete,
            },
            // No frame came: there is no recording.
            Ok(None) => return,
            Err(error) => Event::RecordingFailed {
                stream: self.stream,
                session: self.session,
                reason: format!("{} is kept as it is: {error}", file.display()),
            },
        };
        self.tools.hub.events().tell(event);
    }
}

/// False when the file was not finished in order.
async fn wait_for_end(part: &mut Part) -> bool {
    if let Ok(event) = timeout(STRAGGLER, part.ended()).await {
        return event == PartEvent::Finished;
    }
    part.finish();
    matches!(timeout(FINISHING, part.ended()).await, Ok(PartEvent::Finished))
}

/// Reads what is in the written file, mends it where it was not finished, and gives it its name.
fn place(
    rules: &Rules,
    file: &Path,
    mend: impl Fn(&Path) -> Result<Repaired, RepairError>,
    mut facts: NameFacts,
    end: SystemTime,
    last: bool,
) -> io::Result<Option<(PathBuf, Repaired)>> {
    if std::fs::metadata(file)?.len() == 0 {
        std::fs::remove_file(file)?;
        return Ok(None);
    }
    let found = mend(file).map_err(io::Error::other)?;
    facts.end = Some(NameEnd {
        stream_ms: facts.start_stream_ms + millis(found.duration),
        wall_ms: epoch_ms(end),
        duration_ms: millis(found.duration),
    });
    facts.last = last;
    let name = rules.names.file_name(&facts);
    Ok(Some((files::commit(file, &name)?, found)))
}
