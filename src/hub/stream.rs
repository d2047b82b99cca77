//! One stream: a task that owns who publishes it and who takes it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde_json::Value;
use tokio::sync::{broadcast, mpsc, watch};
use tokio_util::task::TaskTracker;

use super::doubt::{self, Doubt};
use super::figures::Figures;
use super::phase::{Phase, Step};
use super::shown::Shown;
use super::termination::Termination;
use super::view::{Publisher, Role, SessionView, StreamSignal, StreamView, Subscriber};
use crate::admission::{Place, Places, Refused};
use crate::event::{Event, Events};
use crate::media::{Fanout, Kind, Track};
use crate::name::{MediaSessionId, StreamName};

/// What a session that REST ends is told. Source: WebSDK `constants.js`.
pub const STOPPED_BY_REST: &str = "Stopped by rest /terminate";
/// What a session is told that a hook has ended at its keep-alive. Source: WebSDK `constants.js`.
pub const TERMINATED_BY_KEEP_ALIVE: &str = "Terminated by keep-alive";
/// What a session is told that has asked for its end. Source: WebSDK `constants.js`.
pub const STOPPED_BY_USER: &str = "Stopped by user";
/// What a session is told that ends with the server.
pub const STOPPED_BY_SHUTDOWN: &str = "Stopped by server shutdown";
/// What a subscriber is told when its publisher is gone. Source: WebSDK `constants.js`.
pub const STOPPED_BY_PUBLISHER: &str = "Stopped by publisher stop";

/// How many signals a subscriber may lag behind before it misses some.
const SIGNALS: usize = 64;

/// A cheap handle on a stream. Holding one does not keep the stream.
#[derive(Clone)]
pub struct StreamHandle {
    commands: mpsc::UnboundedSender<Command>,
    signals: broadcast::Sender<StreamSignal>,
    view: watch::Receiver<StreamView>,
    fanout: Fanout,
    doubts: doubt::Asked,
    viewers: Places,
}

/// The right to feed a stream. Dropped: the publisher has left.
pub struct Publication {
    name: StreamName,
    session: MediaSessionId,
    commands: mpsc::UnboundedSender<Command>,
    terminated: Termination,
    doubts: doubt::Heard,
    view: watch::Receiver<StreamView>,
    fanout: Fanout,
    /// Closes when the name is free again.
    freed: mpsc::Receiver<()>,
    farewell: Option<Farewell>,
}

/// How a session has left.
pub(super) struct Farewell {
    /// It did not ask for it: FAILED.
    failed: bool,
    /// WCS's text.
    info: String,
}

/// A subscriber's place in a stream. Dropped: it has left.
pub struct Subscription {
    id: MediaSessionId,
    terminated: Termination,
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

pub(super) enum Command {
    Step(Step, Option<Arc<[Track]>>, String),
    Record(Option<String>),
    Muted(Kind, bool),
    Upstream(Vec<String>),
    Rendition(String, bool),
    Figures(MediaSessionId, Figures),
    Subscribe(MediaSessionId, Subscriber, Termination),
    Status(MediaSessionId, &'static str),
    Unsubscribe(MediaSessionId),
    Terminate(MediaSessionId, &'static str),
    TakeOver(Box<Publisher>),
    Leave(Farewell),
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
    let terminated = Termination::default();
    let fanout = Fanout::default();
    let (view, snapshot) = watch::channel(first_view(&publisher));
    events.tell(Event::StreamStarted {
        stream: publisher.name.clone(),
        session: publisher.session.clone(),
        by: publisher.by.clone(),
    });
    let signals = broadcast::Sender::new(SIGNALS);
    let (doubts, heard) = doubt::channel();
    let handle =
        StreamHandle { commands: commands.clone(), signals, view: snapshot, fanout: fanout.clone(), doubts, viewers };
    let publication = Publication {
        name: publisher.name.clone(),
        session: publisher.session.clone(),
        commands,
        terminated: terminated.clone(),
        doubts: heard,
        view: handle.view.clone(),
        fanout,
        freed,
        farewell: None,
    };
    let stream = Stream {
        name: publisher.name,
        session: publisher.session,
        phase: Phase::Waiting,
        untold: true,
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
        login: publisher.login.clone(),
        provider: publisher.provider,
        media_type: publisher.media_type,
        transport: publisher.transport,
        since: SystemTime::now(),
        figures: None,
    }
}

pub(super) fn first_view(publisher: &Publisher) -> StreamView {
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
        upstream: Arc::from([]),
        sessions: vec![session],
        farewell: None,
    }
}

struct Stream {
    name: StreamName,
    session: MediaSessionId,
    phase: Phase,
    /// Of its publisher it was not told yet that media flows.
    untold: bool,
    /// Who takes it, and what ends each from outside.
    takers: BTreeMap<MediaSessionId, Termination>,
    events: Events,
    view: watch::Sender<StreamView>,
    terminated: Termination,
}

impl Stream {
    /// Runs until the publisher has left; gives the name back.
    async fn run(mut self, mut inbox: mpsc::UnboundedReceiver<Command>) -> (StreamName, watch::Sender<StreamView>) {
        let mut ending = Farewell { failed: true, info: STOPPED_BY_PUBLISHER.to_owned() };
        // The publication's handle is one of the senders, so the channel outlives the publisher.
        while let Some(command) = inbox.recv().await {
            match command {
                Command::Step(step, tracks, note) => self.step(step, tracks, note),
                Command::Record(name) => self.view.send_modify(|view| view.record_name = name),
                Command::Muted(kind, muted) => self.view.send_modify(|view| match kind {
                    Kind::Audio => view.audio_muted = muted,
                    Kind::Video => view.video_muted = muted,
                }),
                Command::Upstream(path) => self.view.send_modify(|view| view.upstream = path.into()),
                Command::Rendition(rendition, begins) => self.view.send_modify(|view| {
                    view.renditions.retain(|other| *other != rendition);
                    if begins {
                        view.renditions.push(rendition);
                    }
                }),
                Command::Figures(id, figures) => self.change(&id, |session| session.figures = Some(figures)),
                Command::Subscribe(id, subscriber, terminated) => self.enter(id, subscriber, terminated),
                Command::Status(id, status) => {
                    self.change(&id, |session| session.status = status);
                    self.tell(&id, status, None);
                }
                Command::Unsubscribe(id) => self.left(&id),
                Command::TakeOver(publisher) => self.take_over(&publisher),
                Command::Terminate(id, reason) if id == self.session => self.terminated.ask(reason),
                Command::Terminate(id, reason) => {
                    if let Some(terminated) = self.takers.get(&id) {
                        terminated.ask(reason);
                    }
                }
                Command::Leave(farewell) => {
                    ending = farewell;
                    break;
                }
            }
        }
        self.over(&ending);
        self.events.tell(Event::StreamEnded { stream: self.name.clone(), session: self.session, info: ending.info });
        (self.name, self.view)
    }

    /// Somebody goes on with the publisher's media session, by a connection of their own.
    fn take_over(&mut self, publisher: &Publisher) {
        self.untold = true;
        self.view.send_modify(|view| {
            if let Some(session) = view.sessions.first_mut() {
                let (id, since, status) = (session.id.clone(), session.since, session.status);
                *session = SessionView { id, since, status, ..publisher_view(publisher) };
            }
        });
    }

    /// A taker has left.
    fn left(&mut self, id: &MediaSessionId) {
        let terminated = self.takers.remove(id).and_then(|terminated| terminated.reason());
        match terminated {
            Some(reason) => self.tell(id, "FAILED", Some(reason)),
            None => self.tell(id, "STOPPED", Some(STOPPED_BY_USER)),
        }
        self.view.send_modify(|view| view.sessions.retain(|session| session.id != *id));
    }

    /// The stream ends with its publisher: what that means for each of its sessions.
    fn over(&self, ending: &Farewell) {
        let failed = ending.failed || self.terminated.reason().is_some();
        self.tell(&self.session, if failed { "FAILED" } else { "UNPUBLISHED" }, Some(&ending.info));
        for id in self.takers.keys() {
            self.tell(id, "FAILED", Some(STOPPED_BY_PUBLISHER));
        }
        self.view.send_modify(|view| view.farewell = Some(ending.info.clone()));
    }

    /// Tells what became of a session; a recorder is none.
    fn tell(&self, id: &MediaSessionId, status: &'static str, info: Option<&str>) {
        let view = self.view.borrow();
        let Some(session) = view.sessions.iter().find(|session| session.id == *id) else { return };
        let mut shown = Shown::of(&view, session);
        shown.status = status;
        self.events.tell(Event::SessionStatus {
            stream: self.name.clone(),
            session: id.clone(),
            status,
            info: info.map(str::to_owned),
            published: session.role == Role::Publisher,
            connection: session.connection.clone(),
            app_key: session.app_key.clone(),
            // Numbers and texts cannot fail to be JSON.
            shown: serde_json::to_value(shown).unwrap_or_default().into(),
        });
    }

    fn enter(&mut self, id: MediaSessionId, subscriber: Subscriber, terminated: Termination) {
        self.takers.insert(id, terminated);
        if let Subscriber::Player(player) = subscriber {
            let session = SessionView {
                id: player.session,
                role: Role::Player,
                status: "PENDING",
                app_key: player.app_key,
                connection: player.connection,
                login: None,
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
            (_, Phase::Live) => {
                // Who comes back for the source is told of once more; a source that comes back is not.
                if std::mem::take(&mut self.untold) {
                    self.tell(&session, phase.publisher_status(), None);
                }
                self.events.tell(Event::StreamLive { stream, session, tracks: note });
            }
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

    /// Looks at the stream as it is, without a copy. `look` must not wait.
    pub fn look<T>(&self, look: impl FnOnce(&StreamView) -> T) -> T {
        look(&self.view.borrow())
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
        let terminated = Termination::default();
        let asked = self.commands.send(Command::Subscribe(id.clone(), subscriber, terminated.clone()));
        asked.map_err(|_| SubscribeError::Gone)?;
        let (commands, view, fanout) = (self.commands.clone(), self.view.clone(), self.fanout.clone());
        Ok(Subscription { id, terminated, commands, view, fanout, _place: place })
    }

    /// Asks one of its sessions to leave; `reason` is what it is told: [`STOPPED_BY_REST`],
    /// [`TERMINATED_BY_KEEP_ALIVE`]. [`StreamHandle::left`] tells when it has.
    pub fn terminate(&self, session: &MediaSessionId, reason: &'static str) {
        // A stream that has ended needs no termination.
        let _ = self.commands.send(Command::Terminate(session.clone(), reason));
    }

    /// Asks the publisher to show that it is there, for somebody who wants its name. Waits until it has, until it has
    /// left, or at most for `patience`.
    pub async fn doubt(&self, patience: Duration) {
        self.doubts.ask(patience).await;
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

    /// Resolves when somebody outside ends the stream: with what its publisher is told.
    pub async fn terminated(&self) -> &'static str {
        self.terminated.asked().await
    }

    /// Resolves when somebody wants the name, and asks whether the publisher is still there ([`StreamHandle::doubt`]).
    pub async fn doubted(&self) -> Doubt {
        self.doubts.next().await
    }

    /// The publisher has left; the stream waits for it.
    pub(super) fn vacant(&self, reason: &str) {
        self.send(Command::Step(Step::Left, None, reason.to_owned()));
    }

    /// Somebody publishes on. The media session stays what it was, as it does for a source that comes back.
    pub(super) fn take_over(&self, publisher: Publisher) {
        self.send(Command::TakeOver(Box::new(publisher)));
    }

    /// Where doubts are heard.
    pub(super) fn doubts(&self) -> doubt::Heard {
        self.doubts.clone()
    }

    /// What ends the stream from outside.
    pub(super) fn end(&self) -> Termination {
        self.terminated.clone()
    }

    /// Leaves as its publisher wants it (UNPUBLISHED unless somebody outside ended it), and waits until the name is free.
    pub async fn leave(self, info: &str) {
        self.gone(false, info).await;
    }

    /// Leaves because it cannot go on (FAILED), and waits until the name is free.
    pub async fn fail(self, info: &str) {
        self.gone(true, info).await;
    }

    async fn gone(mut self, failed: bool, info: &str) {
        self.farewell = Some(Farewell { failed, info: info.to_owned() });
        let (_, never) = mpsc::channel(1);
        let mut freed = std::mem::replace(&mut self.freed, never);
        drop(self);
        freed.recv().await;
    }

    pub(super) fn send(&self, command: Command) {
        // The stream's task ends after this publication, never before.
        let _ = self.commands.send(command);
    }
}

impl Drop for Publication {
    fn drop(&mut self) {
        let unsaid = || Farewell { failed: true, info: STOPPED_BY_PUBLISHER.to_owned() };
        let farewell = self.farewell.take().unwrap_or_else(unsaid);
        self.send(Command::Leave(farewell));
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

    /// Resolves when somebody outside ends this subscriber: with what it is told.
    pub async fn terminated(&self) -> &'static str {
        self.terminated.asked().await
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
