//! One stream: a task that owns who publishes it and who takes it.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;
use tokio::sync::{broadcast, mpsc, watch};
use tokio_util::task::TaskTracker;

use super::doubt;
use super::figures::Figures;
use super::handle::StreamHandle;
use super::info::{STOPPED_BY_PUBLISHER, STOPPED_BY_USER};
use super::phase::{Phase, Step};
use super::publication::{Farewell, Publication};
use super::shown::Shown;
use super::termination::Termination;
use super::view::{Publisher, Role, SessionView, StreamView, Subscriber, first_view, player_view, publisher_view};
use crate::admission::Places;
use crate::event::{Event, Events};
use crate::media::{Fanout, Kind, Track};
use crate::name::{MediaSessionId, StreamName};

/// How many signals a subscriber may lag behind before it misses some.
const SIGNALS: usize = 64;

pub(super) enum Command {
    Step(Step, Option<Arc<[Track]>>, String),
    Record(Option<String>),
    Recorded(MediaSessionId, String),
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
                Command::Recorded(of, file) if of == self.session => {
                    self.view.send_modify(|view| view.recorded = Some(file));
                }
                Command::Recorded(..) => {}
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
            shown: Value::Object(shown.fields()).into(),
        });
    }

    fn enter(&mut self, id: MediaSessionId, subscriber: Subscriber, terminated: Termination) {
        self.takers.insert(id, terminated);
        if let Subscriber::Player(player) = subscriber {
            self.view.send_modify(|view| view.sessions.push(player_view(player)));
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
