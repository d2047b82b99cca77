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
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::container::choose;
use super::finish::{Closing, Finisher, Patience};
use super::index::Entry;
use super::name::NameFacts;
use super::{Rules, Tools, files, flows};
use crate::config::Container;
use crate::event::{Event, epoch_ms};
use crate::hub::{Recorded, SessionView, StreamHandle, StreamView, Subscriber, Subscription};
use crate::media::{Codec, CutRule, Feed, FeedEvent, Kind, ORIGIN, Part, PartEvent, Track};
use crate::name::{MediaSessionId, StreamName};
use crate::retry::Backoff;

/// How long the halves of a feed may take to hand over what they hold.
const HAND_OVER: Duration = Duration::from_millis(250);
/// How often it is looked whether a source has fallen silent.
const SETTLE: Duration = Duration::from_millis(400);
/// How often the free space is looked at.
const SPACE_CHECK: Duration = Duration::from_secs(2);
/// When a recording that failed is tried again.
const RETRY: Backoff = Backoff { initial: Duration::from_secs(5), max: Duration::from_secs(20), attempts: 0 };

/// A recording as it is shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecorderView {
    /// The stream.
    pub stream: StreamName,
    /// Its publisher's media session.
    pub session: MediaSessionId,
    /// What it does.
    pub state: RecorderState,
}

/// What a recorder does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RecorderState {
    /// It waits for a stream that flows, or for its first keyframe.
    Waiting,
    /// It writes a file that is to have this name.
    Recording(String),
    /// It could not go on, for this reason, and tries again.
    Failed(String),
}

/// The recording of one stream.
pub(super) struct Recorder {
    tools: Tools,
    rules: Arc<Rules>,
    shown: watch::Sender<RecorderView>,
    stream: StreamName,
    session: MediaSessionId,
    connection: String,
    login: Option<String>,
    recorded: Recorded,
    subscription: Subscription,
    view: watch::Receiver<StreamView>,
    stop: CancellationToken,
    patience: Patience,
}

/// Why a feed has ended.
enum End {
    /// The stream has ended, or the server stops.
    Over,
    /// Its tracks are others now.
    Changed,
}

/// Why a recording cannot go on.
struct Broken {
    reason: String,
    /// The running part's pipeline is well, and only needs its end.
    whole: bool,
}

impl From<String> for Broken {
    fn from(reason: String) -> Self {
        Self { reason, whole: false }
    }
}

/// A file being written.
pub(super) struct Writing {
    pub(super) part: Part,
    /// Where it begins on the stream's time line.
    pub(super) start: Duration,
    pub(super) file: PathBuf,
    pub(super) facts: NameFacts,
}

impl Recorder {
    /// A recorder and what it shows, until its last file is in place; `None` when the stream has ended meanwhile.
    pub(super) fn new(
        tools: &Tools,
        rules: Arc<Rules>,
        stream: &StreamHandle,
        recorded: Recorded,
        publisher: &SessionView,
        stop: &CancellationToken,
        patience: &Patience,
    ) -> Option<(Self, watch::Receiver<RecorderView>)> {
        let subscription = stream.subscribe(Subscriber::Recorder).ok()?;
        let view = subscription.view();
        let name = view.borrow().name.clone();
        let (shown, state) = watch::channel(RecorderView {
            stream: name.clone(),
            session: publisher.id.clone(),
            state: RecorderState::Waiting,
        });
        let recorder = Self {
            tools: tools.clone(),
            rules,
            shown,
            stream: name,
            session: publisher.id.clone(),
            connection: publisher.connection.clone(),
            login: publisher.login.clone(),
            recorded,
            view,
            subscription,
            stop: stop.clone(),
            patience: patience.clone(),
        };
        Some((recorder, state))
    }

    fn show(&self, state: RecorderState) {
        let file = match &state {
            RecorderState::Recording(file) => Some(file.clone()),
            RecorderState::Waiting | RecorderState::Failed(_) => None,
        };
        self.subscription.note_recording(file);
        self.shown.send_modify(|view| view.state = state);
    }

    /// Records until the stream ends or the server stops.
    pub(super) async fn run(self) {
        let recorder = Arc::new(self);
        let mut failures = 0;
        let mut written = 0;
        let mut ending = JoinSet::new();
        // A recording that goes on with other tracks is ended where the next one begins: no frame is missed.
        let mut before: Option<Recording> = None;
        while let Some((container, tracks)) = recorder.tracks().await {
            let parts_before = written;
            let now = Recording::start(&recorder, container, tracks, written);
            let Some(mut now) = now else {
                if let Some(before) = before.take() {
                    ending.spawn(before.end(Closing::IN_ORDER));
                }
                recorder.failed("the stream has no track in a codec that weir records".into());
                if recorder.changed(&[]).await {
                    continue;
                }
                break;
            };
            now.session.before = before.take().map(Box::new);
            let end = now.session.run(&now.feed, &mut now.events).await;
            written = now.session.begun;
            match end {
                Ok(End::Over) => {
                    before = Some(now);
                    break;
                }
                // One that never began leaves the one before it in its place.
                Ok(End::Changed) => before = Some(now.session.before.take().map_or(now, |before| *before)),
                Err(Broken { reason, whole }) => {
                    recorder.failed(reason);
                    now.end(Closing { last: true, whole, ..Closing::IN_ORDER }).await;
                    failures = if written > parts_before { 1 } else { failures + 1 };
                    let wait = RETRY.wait(failures, rand::random()).unwrap_or(RETRY.max);
                    tokio::select! {
                        () = sleep(wait) => {}
                        () = recorder.stop.cancelled() => break,
                        () = ended(recorder.view.clone()) => break,
                    }
                }
            }
        }
        if let Some(last) = before {
            last.end(Closing { last: true, ..Closing::IN_ORDER }).await;
        }
        while ending.join_next().await.is_some() {}
        recorder.show(RecorderState::Waiting);
    }

    fn failed(&self, reason: String) {
        self.show(RecorderState::Failed(reason.clone()));
        self.tools.hub.events().tell(Event::RecordingFailed {
            stream: self.stream.clone(),
            session: self.session.clone(),
            reason,
        });
    }

    /// Waits for a stream that flows; `None` when none will come.
    async fn tracks(&self) -> Option<(Container, Vec<Track>)> {
        let mut view = self.view.clone();
        tokio::select! {
            () = self.stop.cancelled() => None,
            view = view.wait_for(|view| flows(view.phase)) => {
                Some(choose(&view.ok()?.tracks, self.recorded, self.rules.formats))
            }
        }
    }

    /// Resolves with true when the stream's tracks are of other kinds or codecs, with false when the recording is over.
    async fn changed(&self, tracks: &[Track]) -> bool {
        let codecs = |tracks: &[Track]| tracks.iter().map(|t| (t.kind, t.codec.clone())).collect::<Vec<_>>();
        let (before, recorded, formats) = (codecs(tracks), self.recorded, self.rules.formats);
        let now = |view: &StreamView| codecs(&choose(&view.tracks, recorded, formats).1);
        let mut view = self.view.clone();
        tokio::select! {
            () = self.stop.cancelled() => false,
            found = view.wait_for(|view| flows(view.phase) && now(view) != before) => found.is_ok(),
        }
    }
}

/// Waits until what a receiver shows is gone.
pub(super) async fn ended<T>(mut view: watch::Receiver<T>) {
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

/// A place in the stream, and what comes of it.
struct Recording {
    feed: Feed,
    events: mpsc::UnboundedReceiver<FeedEvent>,
    session: Session,
}

impl Recording {
    /// Takes a place; `None` where there is no track to record.
    fn start(recorder: &Arc<Recorder>, container: Container, tracks: Vec<Track>, first_number: u32) -> Option<Self> {
        if tracks.is_empty() {
            return None;
        }
        let kinds: Vec<Kind> = tracks.iter().map(|track| track.kind).collect();
        let (sender, events) = mpsc::unbounded_channel();
        let feed = Feed::attach(recorder.subscription.fanout(), &kinds, recorder.rules.cut, &sender);
        let session = Session {
            recorder: recorder.clone(),
            container,
            tracks,
            writing: None,
            finishing: JoinSet::new(),
            first_number,
            begun: first_number,
            clock: StreamClock::default(),
            before: None,
            over: CancellationToken::new(),
        };
        Some(Self { feed, events, session })
    }

    /// Leaves the stream, and waits until every file is in place.
    async fn end(self, closing: Closing) {
        let Self { feed, mut events, mut session } = self;
        match &closing.next {
            Some(_) => feed.make_way(),
            None => drop(feed),
        }
        if let Some(before) = session.before.take() {
            Box::pin(before.end(closing.clone())).await;
        }
        if closing.whole {
            session.hand_over(&mut events).await;
        }
        session.over.cancel();
        session.finish(closing).await;
    }
}

/// The files that come out of one feed.
struct Session {
    recorder: Arc<Recorder>,
    container: Container,
    /// Those that are still heard of.
    tracks: Vec<Track>,
    writing: Option<Writing>,
    finishing: JoinSet<()>,
    /// Parts that were written before this feed.
    first_number: u32,
    /// The number of the last part that was begun.
    begun: u32,
    clock: StreamClock,
    /// The recording that goes on until this one has its first frame.
    before: Option<Box<Recording>>,
    /// Cancelled once its feed has handed over everything.
    over: CancellationToken,
}

impl Session {
    async fn run(&mut self, feed: &Feed, events: &mut mpsc::UnboundedReceiver<FeedEvent>) -> Result<End, Broken> {
        let recorder = self.recorder.clone();
        let rules = &recorder.rules;
        let tracks = self.tracks.clone();
        let changed = recorder.changed(&tracks);
        tokio::pin!(changed);
        let mut space = interval(SPACE_CHECK);
        space.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut settling = interval(SETTLE);
        settling.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                event = events.recv() => match event {
                    Some(FeedEvent::NeedPart { number, start }) => {
                        self.next_part(feed, number, start).await?;
                    }
                    Some(FeedEvent::Overrun) => {
                        return Err("the disk, or what transcodes the sound, does not keep up with the stream".to_owned().into());
                    }
                    Some(FeedEvent::Changed) => return Ok(End::Changed),
                    Some(FeedEvent::Lost(kind)) => self.lost(kind),
                    Some(FeedEvent::Rest(rest)) => self.take(rest),
                    None => return Ok(End::Over),
                },
                failure = part_failure(&mut self.writing) => return Err(failure.into()),
                other = &mut changed => return Ok(if other { End::Changed } else { End::Over }),
                _ = space.tick() => self.look(rules)?,
                _ = settling.tick() => feed.settle(),
            }
        }
    }

    /// Ends a recording that would fill the disk, or that writes a file nobody can reach any more.
    fn look(&self, rules: &Rules) -> Result<(), Broken> {
        enough_space(rules).map_err(|reason| Broken { reason, whole: true })?;
        match &self.writing {
            Some(writing) if !writing.file.exists() => {
                Err(format!("{} has been removed while it was written", writing.file.display()).into())
            }
            _ => Ok(()),
        }
    }

    /// The parts to come are without a track that has gone silent.
    fn lost(&mut self, kind: Kind) {
        let (stream, session) = (&self.recorder.stream, &self.recorder.session);
        tracing::info!(%stream, %session, "{} has stopped: the recording goes on without it", kind.label());
        self.tracks.retain(|track| track.kind != kind);
    }

    fn take(&self, rest: crate::media::Rest) {
        if let Some(writing) = &self.writing {
            writing.part.take(rest);
        }
    }

    /// Supplies the part that the feed asks for, and finishes the one before it beside it.
    async fn next_part(&mut self, feed: &Feed, number: u32, start: Duration) -> Result<(), String> {
        if let Some(before) = self.writing.take() {
            self.finish_beside(before, Closing { followed: true, ..Closing::IN_ORDER });
        }
        if let Some(before) = self.before.take() {
            self.finishing.spawn(before.end(Closing { next: Some(feed.beginning()), ..Closing::IN_ORDER }));
        }
        let number = self.first_number + number;
        let facts = self.facts(number, start);
        let writing = self.open(number, facts, start).await?;
        feed.supply(&writing.part);
        self.begun = number;
        self.writing = Some(writing);
        Ok(())
    }

    fn facts(&mut self, number: u32, start: Duration) -> NameFacts {
        let recorder = self.recorder.clone();
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
            login: recorder.login.clone(),
            audio_codec: codec(Kind::Audio),
            video_codec: codec(Kind::Video),
            start_stream_ms: millis(start.saturating_sub(ORIGIN)),
            start_wall_ms: epoch_ms(self.clock.wall(start)),
            end: None,
            part: (recorder.rules.cut != CutRule::Never).then_some(number),
            last: false,
            extension: self.container.extension(),
        }
    }

    async fn open(&self, number: u32, facts: NameFacts, start: Duration) -> Result<Writing, String> {
        let recorder = self.recorder.clone();
        let rules = &recorder.rules;
        enough_space(rules)?;
        let cannot = |error: io::Error| format!("cannot write to {}: {error}", rules.dir.display());
        let file = off_thread(self.reserve(number, &facts)).await.map_err(cannot)?;
        let location = file.to_string_lossy();
        let elsewhere = format!("weir-part.{}", self.container.extension());
        let template = self.container.template(rules.webm_audio);
        let catalog = &recorder.tools.catalog;
        // An operator's own template may have no use for it.
        let resamples = catalog.get(template).is_ok_and(|template| template.holes().contains("audio_caps"));
        let launch = catalog.launch(template, |filling| {
            let filling = filling.value_for_shell("location", &location, &elsewhere);
            let filling = match resamples {
                true => filling.value("audio_caps", format!("audio/x-raw,rate={}", rules.sample_rate)),
                false => filling,
            };
            self.tracks.iter().fold(filling, |filling, track| filling.track_in(track.kind, &track.codec))
        });
        let launch = launch.map_err(|error| error.to_string())?;
        let part = Part::start(&recorder.tools.pipelines, launch, &recorder.stream, &self.tracks, start).await;
        let part = part.map_err(|error| {
            // The empty file of a part that never began.
            let _ = std::fs::remove_file(&file);
            recorder.tools.index.forget(&pending_name(&file));
            error.to_string()
        })?;
        recorder.show(RecorderState::Recording(pending_name(&file)));
        recorder.tools.hub.events().tell(Event::RecordingStarted {
            stream: recorder.stream.clone(),
            session: recorder.session.clone(),
            file: file.clone(),
        });
        Ok(Writing { part, start, file, facts })
    }

    /// What takes a name for a file and notes whose it is.
    fn reserve(&self, number: u32, facts: &NameFacts) -> impl FnOnce() -> io::Result<PathBuf> + Send + 'static {
        let (rules, facts) = (self.recorder.rules.clone(), facts.clone());
        let index = self.recorder.tools.index.clone();
        move || {
            let name = rules.names.file_name(&facts);
            let file = files::reserve(&rules.dir, &name).or_else(|error| match error.kind() {
                // Somebody has taken the directory away.
                io::ErrorKind::NotFound => {
                    std::fs::create_dir_all(&rules.dir).and_then(|()| files::reserve(&rules.dir, &name))
                }
                _ => Err(error),
            })?;
            let inode = std::fs::metadata(&file)?.ino();
            let entry = Entry {
                stream: Some(facts.stream_name.clone()),
                media_session_id: Some(facts.media_session_id.clone()),
                started: Some(facts.start_wall_ms),
                video_codec: facts.video_codec.clone(),
                audio_codec: facts.audio_codec.clone(),
                part: Some(number),
                ..Entry::being_written(inode, rules.names.clone(), facts)
            };
            index.note(&pending_name(&file), entry);
            Ok(file)
        }
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
        // The halves have left with their feed, or leave with the next frame; what those of a silent track hold is old by
        // then, and the next feed has it.
        let _ = timeout(HAND_OVER, rests).await;
    }

    /// Finishes the last part and waits for all.
    async fn finish(mut self, closing: Closing) {
        if let Some(last) = self.writing.take() {
            self.finish_beside(last, closing);
        }
        while self.finishing.join_next().await.is_some() {}
    }

    fn finish_beside(&mut self, writing: Writing, closing: Closing) {
        let recorder = self.recorder.clone();
        let finisher = Finisher {
            container: self.container,
            tools: recorder.tools.clone(),
            rules: recorder.rules.clone(),
            stream: recorder.stream.clone(),
            session: recorder.session.clone(),
            over: self.over.clone(),
            patience: recorder.patience.clone(),
        };
        self.finishing.spawn(finisher.finish(writing, closing));
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
    let free = files::free_space(&rules.dir)
        .or_else(absent)
        .map_err(|error| format!("cannot write to {}: {error}", rules.dir.display()))?;
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

/// A directory that is not there is made when a file is.
fn absent(error: io::Error) -> io::Result<u64> {
    if error.kind() == io::ErrorKind::NotFound { Ok(u64::MAX) } else { Err(error) }
}

/// The name that a temporary file is to have, as far as it is known.
pub(super) fn pending_name(file: &Path) -> String {
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    super::name::finished(&name).unwrap_or_default().to_owned()
}

pub(super) fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

pub(super) async fn off_thread<T: Send + 'static>(
    job: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    tokio::task::spawn_blocking(job).await.map_err(io::Error::other)?
}
