//! One stream: a task that owns who publishes it and who takes it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use serde_json::Value;
use tokio::sync::{broadcast, mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::figures::Figures;
use super::phase::{Phase, Step};
use crate::admission::{Place, Places, Refused};
use crate::event::{Event, Events};
use crate::media::{Fanout, Kind, Track};
use crate::name::{MediaSessionId, StreamName};

/// What a session that REST ends is told. Source: WebSDK `constants.js`.
pub const STOPPED_BY_REST: &str = "Stopped by rest /terminate";
/// What a session is told that ends with the server.
pub const STOPPED_BY_SHUTDOWN: &str = "Stopped by server shutdown";
/// What a subscriber is told when its publisher is gone. Source: WebSDK `constants.js`.
pub const STOPPED_BY_PUBLISHER: &str = "Stopped by publisher stop";

/// How many signals a subscriber may lag behind before it misses some.
const SIGNALS: usize = 64;

/// Who wants to publish what.
#[derive(Debug, Clone)]
pub struct Publisher {
    /// The stream's name.
    pub name: StreamName,
    /// The publisher's media session.
    pub session: MediaSessionId,
    /// The application its hooks belong to.
    pub app_key: String,
    /// The connection it came by, as REST shows it.
    pub connection: String,
    /// WCS's word for the engine, for example `Flash` for RTMP.
    pub provider: &'static str,
    /// WCS's word for the kind of stream, for example `rtmp`.
    pub media_type: &'static str,
    /// `UDP` or `TCP`.
    pub transport: &'static str,
    /// Which of its tracks to record as soon as it is live; `None`: do not record it.
    pub record: Option<Recorded>,
    /// For the log: `rtmp pull of rtmp://…`.
    pub by: String,
}

/// Which tracks a recording takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recorded {
    /// All.
    Everything,
    /// Sound only: what the source's SDP file asks for.
    SoundOnly,
}

/// Publisher or subscriber.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Feeds the stream.
    Publisher,
    /// Takes from it.
    Player,
}

/// One media session as REST shows it.
#[derive(Debug, Clone)]
pub struct SessionView {
    /// Its id.
    pub id: MediaSessionId,
    /// Publisher or player.
    pub role: Role,
    /// WCS's status word.
    pub status: &'static str,
    /// The application.
    pub app_key: String,
    /// The connection.
    pub connection: String,
    /// WCS's word for the engine.
    pub provider: &'static str,
    /// WCS's word for the kind of stream.
    pub media_type: &'static str,
    /// `UDP` or `TCP`.
    pub transport: &'static str,
    /// When it began.
    pub since: SystemTime,
    /// What it counts by itself, beside what its stream counts.
    pub figures: Option<Figures>,
}

/// A stream as it is.
#[derive(Debug, Clone)]
pub struct StreamView {
    /// Its name.
    pub name: StreamName,
    /// Where it is in its life.
    pub phase: Phase,
    /// Its tracks; empty while unknown.
    pub tracks: Arc<[Track]>,
    /// What its publisher wants recorded.
    pub record: Option<Recorded>,
    /// The file a recorder writes now.
    pub record_name: Option<String>,
    /// Its publisher has switched the sound off.
    pub audio_muted: bool,
    /// Its publisher has switched the picture off.
    pub video_muted: bool,
    /// What is transcoded for its subscribers now, for people: `mpeg4-generic to opus`.
    pub renditions: Vec<String>,
    /// Its publisher, then its players in the order they came.
    pub sessions: Vec<SessionView>,
}

impl StreamView {
    /// The publisher's session.
    pub fn publisher(&self) -> Option<&SessionView> {
        self.sessions.iter().find(|session| session.role == Role::Publisher)
    }
}

/// Something a publisher tells its subscribers: `audioMuted`, or `data` of its own.
#[derive(Debug, Clone)]
pub struct StreamSignal {
    /// WCS's word for it.
    pub kind: String,
    /// What it carries.
    pub payload: Value,
}

/// A cheap handle on a stream. Holding one does not keep the stream.
#[derive(Clone)]
pub struct StreamHandle {
    commands: mpsc::UnboundedSender<Command>,
    signals: broadcast::Sender<StreamSignal>,
    view: watch::Receiver<StreamView>,
    fanout: Fanout,
    viewers: Places,
}

/// Who wants to take a stream.
#[derive(Debug, Clone)]
pub enum Subscriber {
    /// A recorder: not a media session of its own.
    Recorder,
    /// A player, shown as a media session.
    Player(Player),
}

/// A player of a stream.
#[derive(Debug, Clone)]
pub struct Player {
    /// Its media session.
    pub session: MediaSessionId,
    /// The application its hooks belong to.
    pub app_key: String,
    /// The connection it came by, as REST shows it.
    pub connection: String,
    /// WCS's word for the engine, for example `WebRTC`.
    pub provider: &'static str,
    /// `UDP` or `TCP`.
    pub transport: &'static str,
}

/// The right to feed a stream. Dropped: the publisher has left.
pub struct Publication {
    name: StreamName,
    session: MediaSessionId,
    commands: mpsc::UnboundedSender<Command>,
    terminated: CancellationToken,
    view: watch::Receiver<StreamView>,
    fanout: Fanout,
    /// Closes when the name is free again.
    freed: mpsc::Receiver<()>,
    info: Option<String>,
}

/// A subscriber's place in a stream. Dropped: it has left.
pub struct Subscription {
    id: MediaSessionId,
    terminated: CancellationToken,
    commands: mpsc::UnboundedSender<Command>,
    view: watch::Receiver<StreamView>,
    fanout: Fanout,
    _place: Option<Place>,
}

/// Why a stream cannot be subscribed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SubscribeError {
    /// It has ended meanwhile.
    #[error("the stream has ended")]
    Gone,
    /// It has as many players as it may have.
    #[error(transparent)]
    Refused(#[from] Refused),
}

enum Command {
    Step(Step, Option<Arc<[Track]>>, String),
    Record(Option<String>),
    Muted(Kind, bool),
    Rendition(String, bool),
    Figures(MediaSessionId, Figures),
    Subscribe(MediaSessionId, Subscriber, CancellationToken),
    Status(MediaSessionId, &'static str),
    Unsubscribe(MediaSessionId),
    Terminate(MediaSessionId),
    TakeOver(Box<Publisher>),
    Leave(String),
}

/// Tells the registry that a name is free. What it holds is dropped once the registry has forgotten the name: then
/// whoever waits for the stream's end or for its name goes on.
pub(super) struct Gone {
    pub(super) name: StreamName,
    pub(super) _done: mpsc::Sender<()>,
    pub(super) _view: watch::Sender<StreamView>,
}

/// Starts a stream's task.
pub(super) fn start(
    publisher: Publisher,
    events: Events,
    gone: mpsc::UnboundedSender<Gone>,
    viewers: Places,
    tasks: &TaskTracker,
) -> (StreamHandle, Publication) {
    let (commands, inbox) = mpsc::unbounded_channel();
    let (done, freed) = mpsc::channel(1);
    let terminated = CancellationToken::new();
    let fanout = Fanout::default();
    let (view, snapshot) = watch::channel(first_view(&publisher));
    events.tell(Event::StreamStarted {
        stream: publisher.name.clone(),
        session: publisher.session.clone(),
        by: publisher.by.clone(),
    });
    let signals = broadcast::Sender::new(SIGNALS);
    let handle = StreamHandle { commands: commands.clone(), signals, view: snapshot, fanout: fanout.clone(), viewers };
    let publication = Publication {
        name: publisher.name.clone(),
        session: publisher.session.clone(),
        commands,
        terminated: terminated.clone(),
        view: handle.view.clone(),
        fanout,
        freed,
        info: None,
    };
    let stream = Stream {
        name: publisher.name,
        session: publisher.session,
        phase: Phase::Waiting,
        takers: BTreeMap::new(),
        events,
        view,
        terminated,
    };
    tasks.spawn(async move {
        let (name, _view) = stream.run(inbox).await;
        // A registry that is gone has no names to free.
        let _ = gone.send(Gone { name, _done: done, _view });
    });
    (handle, publication)
}

fn publisher_view(publisher: &Publisher) -> SessionView {
    SessionView {
        id: publisher.session.clone(),
        role: Role::Publisher,
        status: Phase::Waiting.publisher_status(),
        app_key: publisher.app_key.clone(),
        connection: publisher.connection.clone(),
        provider: publisher.provider,
        media_type: publisher.media_type,
        transport: publisher.transport,
        since: SystemTime::now(),
        figures: None,
    }
}

fn first_view(publisher: &Publisher) -> StreamView {
    let session = publisher_view(publisher);
    StreamView {
        name: publisher.name.clone(),
        phase: Phase::Waiting,
        tracks: Arc::from([]),
        record: publisher.record,
        record_name: None,
        audio_muted: false,
        video_muted: false,
        renditions: Vec::new(),
        sessions: vec![session],
    }
}

struct Stream {
    name: StreamName,
    session: MediaSessionId,
    phase: Phase,
    /// Who takes it, and what ends each from outside.
    takers: BTreeMap<MediaSessionId, CancellationToken>,
    events: Events,
    view: watch::Sender<StreamView>,
    terminated: CancellationToken,
}

impl Stream {
    /// Runs until the publisher has left; gives the name back.
    async fn run(mut self, mut inbox: mpsc::UnboundedReceiver<Command>) -> (StreamName, watch::Sender<StreamView>) {
        let mut ending = STOPPED_BY_PUBLISHER.to_owned();
        // The publication's handle is one of the senders, so the channel outlives the publisher.
        while let Some(command) = inbox.recv().await {
            match command {
                Command::Step(step, tracks, note) => self.step(step, tracks, note),
                Command::Record(name) => self.view.send_modify(|view| view.record_name = name),
                Command::Muted(kind, muted) => self.view.send_modify(|view| match kind {
                    Kind::Audio => view.audio_muted = muted,
                    Kind::Video => view.video_muted = muted,
                }),
                Command::Rendition(rendition, begins) => self.view.send_modify(|view| {
                    view.renditions.retain(|other| *other != rendition);
                    if begins {
                        view.renditions.push(rendition);
                    }
                }),
                Command::Figures(id, figures) => self.change(&id, |session| session.figures = Some(figures)),
                Command::Subscribe(id, subscriber, terminated) => self.enter(id, subscriber, terminated),
                Command::Status(id, status) => self.change(&id, |session| session.status = status),
                Command::Unsubscribe(id) => {
                    self.takers.remove(&id);
                    self.view.send_modify(|view| view.sessions.retain(|session| session.id != id));
                }
                Command::TakeOver(publisher) => self.view.send_modify(|view| {
                    if let Some(session) = view.sessions.first_mut() {
                        let (id, since, status) = (session.id.clone(), session.since, session.status);
                        *session = SessionView { id, since, status, ..publisher_view(&publisher) };
                    }
                }),
                Command::Terminate(id) if id == self.session => self.terminated.cancel(),
                Command::Terminate(id) => {
                    if let Some(terminated) = self.takers.get(&id) {
                        terminated.cancel();
                    }
                }
                Command::Leave(info) => {
                    ending = info;
                    break;
                }
            }
        }
        self.events.tell(Event::StreamEnded { stream: self.name.clone(), session: self.session, info: ending });
        (self.name, self.view)
    }

    fn enter(&mut self, id: MediaSessionId, subscriber: Subscriber, terminated: CancellationToken) {
        self.takers.insert(id, terminated);
        if let Subscriber::Player(player) = subscriber {
            let session = SessionView {
                id: player.session,
                role: Role::Player,
                status: "PENDING",
                app_key: player.app_key,
                connection: player.connection,
                provider: player.provider,
                media_type: "play",
                transport: player.transport,
                since: SystemTime::now(),
                figures: None,
            };
            self.view.send_modify(|view| view.sessions.push(session));
        }
    }

    fn change(&self, id: &MediaSessionId, change: impl FnOnce(&mut SessionView)) {
        self.view.send_modify(|view| {
            if let Some(session) = view.sessions.iter_mut().find(|session| session.id == *id) {
                change(session);
            }
        });
    }

    fn step(&mut self, step: Step, tracks: Option<Arc<[Track]>>, note: String) {
        let before = self.phase;
        self.phase = before.after(step);
        let phase = self.phase;
        self.view.send_modify(|view| {
            view.phase = phase;
            view.tracks = tracks.unwrap_or_else(|| view.tracks.clone());
            if let Some(publisher) = view.sessions.first_mut() {
                publisher.status = phase.publisher_status();
            }
        });
        let (stream, session) = (self.name.clone(), self.session.clone());
        match (before, phase) {
            (Phase::Live, Phase::Interrupted) if step == Step::Left => {
                self.events.tell(Event::StreamWaits { stream, session, reason: note });
            }
            (_, Phase::Live) => self.events.tell(Event::StreamLive { stream, session, tracks: note }),
            (Phase::Live, Phase::Interrupted) => {
                self.events.tell(Event::StreamInterrupted { stream, session, reason: note });
            }
            _ => {}
        }
    }
}

impl StreamHandle {
    /// The stream as it is.
    pub fn view(&self) -> StreamView {
        self.view.borrow().clone()
    }

    /// The stream as it is and as it changes; closed when it has ended.
    pub fn watch(&self) -> watch::Receiver<StreamView> {
        self.view.clone()
    }

    /// What its fan-out has counted.
    pub fn fanout(&self) -> &Fanout {
        &self.fanout
    }

    /// Tells every subscriber something of the publisher's.
    pub fn signal(&self, kind: &str, payload: Value) {
        let muted = match kind {
            "audioMuted" => Some((Kind::Audio, true)),
            "audioUnmuted" => Some((Kind::Audio, false)),
            "videoMuted" => Some((Kind::Video, true)),
            "videoUnmuted" => Some((Kind::Video, false)),
            _ => None,
        };
        if let Some((kind, muted)) = muted {
            let _ = self.commands.send(Command::Muted(kind, muted));
        }
        // Nobody listening is no failure.
        let _ = self.signals.send(StreamSignal { kind: kind.to_owned(), payload });
    }

    /// A transcode for its subscribers has begun, or has ended.
    pub fn rendition(&self, what: &str, begins: bool) {
        let _ = self.commands.send(Command::Rendition(what.to_owned(), begins));
    }

    /// What the publisher tells, from now on.
    pub fn signals(&self) -> broadcast::Receiver<StreamSignal> {
        self.signals.subscribe()
    }

    /// Takes a place.
    ///
    /// # Errors
    /// See [`SubscribeError`].
    pub fn subscribe(&self, subscriber: Subscriber) -> Result<Subscription, SubscribeError> {
        let (id, place) = match &subscriber {
            Subscriber::Player(player) => (player.session.clone(), Some(self.viewers.take()?)),
            Subscriber::Recorder => (MediaSessionId::random(), None),
        };
        let terminated = CancellationToken::new();
        let asked = self.commands.send(Command::Subscribe(id.clone(), subscriber, terminated.clone()));
        asked.map_err(|_| SubscribeError::Gone)?;
        let (commands, view, fanout) = (self.commands.clone(), self.view.clone(), self.fanout.clone());
        Ok(Subscription { id, terminated, commands, view, fanout, _place: place })
    }

    /// Asks one of its sessions to leave ([`STOPPED_BY_REST`]). [`StreamHandle::left`] tells when it has.
    pub fn terminate(&self, session: &MediaSessionId) {
        // A stream that has ended needs no termination.
        let _ = self.commands.send(Command::Terminate(session.clone()));
    }

    /// Waits until a session has left, the stream's end included.
    pub async fn left(&self, session: &MediaSessionId) {
        let mut view = self.view.clone();
        // An error is the stream's end.
        let _ = view.wait_for(|view| view.sessions.iter().all(|other| other.id != *session)).await;
    }
}

impl Publication {
    /// Where the source's frames go.
    pub fn fanout(&self) -> &Fanout {
        &self.fanout
    }

    /// The publisher's media session.
    pub fn session(&self) -> MediaSessionId {
        self.session.clone()
    }

    /// The stream's name.
    pub fn name(&self) -> &StreamName {
        &self.name
    }

    /// The stream as it is.
    pub fn view(&self) -> StreamView {
        self.view.borrow().clone()
    }

    /// Media flows, with these tracks.
    pub fn live(&self, tracks: Vec<Track>) {
        self.fanout.settle();
        let note = tracks.iter().map(describe).collect::<Vec<_>>().join(", ");
        self.send(Command::Step(Step::Flows, Some(tracks.into()), note));
    }

    /// The source is lost; the stream waits for it.
    pub fn interrupted(&self, reason: &str) {
        self.send(Command::Step(Step::Lost, None, reason.to_owned()));
    }

    /// Resolves when somebody outside ends the stream.
    pub async fn terminated(&self) {
        self.terminated.cancelled().await;
    }

    /// The publisher has left; the stream waits for it.
    pub(super) fn vacant(&self, reason: &str) {
        self.send(Command::Step(Step::Left, None, reason.to_owned()));
    }

    /// Somebody publishes on. The media session stays what it was, as it does for a source that comes back.
    pub(super) fn take_over(&self, publisher: Publisher) {
        self.send(Command::TakeOver(Box::new(publisher)));
    }

    /// What ends the stream from outside.
    pub(super) fn end(&self) -> CancellationToken {
        self.terminated.clone()
    }

    /// Leaves, and waits until the name is free.
    pub async fn leave(mut self, info: &str) {
        self.info = Some(info.to_owned());
        let (_, never) = mpsc::channel(1);
        let mut freed = std::mem::replace(&mut self.freed, never);
        drop(self);
        freed.recv().await;
    }

    fn send(&self, command: Command) {
        // The stream's task ends after this publication, never before.
        let _ = self.commands.send(command);
    }
}

impl Drop for Publication {
    fn drop(&mut self) {
        let info = self.info.take().unwrap_or_else(|| STOPPED_BY_PUBLISHER.to_owned());
        self.send(Command::Leave(info));
    }
}

fn describe(track: &Track) -> String {
    match (track.width, track.height) {
        (0, 0) => track.wcs_codec(),
        (width, height) => format!("{} {width}x{height}", track.wcs_codec()),
    }
}

impl Subscription {
    /// Where the frames come from.
    pub fn fanout(&self) -> &Fanout {
        &self.fanout
    }

    /// The stream as it is and as it changes; closed when the stream has ended.
    pub fn view(&self) -> watch::Receiver<StreamView> {
        self.view.clone()
    }

    /// Resolves when somebody outside ends this subscriber.
    pub async fn terminated(&self) {
        self.terminated.cancelled().await;
    }

    /// Shows what a player counts.
    pub fn set_figures(&self, figures: Figures) {
        let _ = self.commands.send(Command::Figures(self.id.clone(), figures));
    }

    /// Shows a player's status: WCS's word.
    pub fn set_status(&self, status: &'static str) {
        let _ = self.commands.send(Command::Status(self.id.clone(), status));
    }

    /// Shows which file is being written.
    pub fn note_recording(&self, name: Option<String>) {
        let _ = self.commands.send(Command::Record(name));
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let _ = self.commands.send(Command::Unsubscribe(self.id.clone()));
    }
}
