//! Who is recorded: one task that knows every recorder, starts those that streams ask for, and takes orders over REST.
//!
//! It waits for nobody: a recorder that follows another one waits for that one's end itself.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Weak};
use std::time::{Duration, SystemTime};

use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::finish::Patience;
use super::recorder::{Recorder, RecorderState, RecorderView, ended};
use super::recover::Owned;
use super::{Options, Tools};
use crate::admission::{Place, Refused};
use crate::event::Event;
use crate::hub::{Phase, Recorded, SessionView, StreamHandle, StreamView};
use crate::name::MediaSessionId;

/// How many orders may wait.
const QUEUE: usize = 64;
/// How long a caller waits for the first frame of a recording: a stream that is interrupted, or whose keyframes are far
/// apart, is recorded once it has one.
const FIRST_FRAME: Duration = Duration::from_secs(3);

/// Why an order cannot be carried out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// Nobody publishes with this media session.
    #[error("there is no media session {0} that is publishing")]
    NoSession(MediaSessionId),
    /// Somebody does, and is not recorded.
    #[error("the media session {0} is not being recorded")]
    NotRecorded(MediaSessionId),
    /// The recorder cannot start.
    #[error("the recording cannot start: {0}")]
    Failed(String),
    /// There are as many recordings as there may be.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// The server is shutting down.
    #[error("the server is shutting down")]
    Closing,
}

/// A publication: a browser may use an id again, and when it began tells the two apart.
type Key = (MediaSessionId, SystemTime);

enum Order {
    Start { session: MediaSessionId, options: Options, reply: oneshot::Sender<Result<Running, RecordError>> },
    Stop { session: MediaSessionId, reply: oneshot::Sender<Result<Running, RecordError>> },
}

/// A recorder as the supervisor and REST know it.
#[derive(Clone)]
struct Running {
    stop: CancellationToken,
    /// Closed when its files are in place.
    view: watch::Receiver<RecorderView>,
    /// The recorder's own; passed on to the one that takes over.
    place: Weak<Place>,
}

/// A cheap handle on the recordings of this server.
#[derive(Clone)]
pub struct Recorders {
    orders: mpsc::Sender<Order>,
    views: watch::Receiver<Arc<Vec<watch::Receiver<RecorderView>>>>,
    stop: CancellationToken,
    patience: Patience,
    running: TaskTracker,
}

impl Recorders {
    /// Starts the supervisor's task in `tasks`, and that of the directory.
    pub fn start(tools: Tools, owned: &Owned, tasks: &TaskTracker) -> Self {
        let (orders, inbox) = mpsc::channel(QUEUE);
        let (shown, views) = watch::channel(Arc::default());
        let recorders = Self {
            orders,
            views,
            stop: CancellationToken::new(),
            patience: Patience::default(),
            running: TaskTracker::new(),
        };
        tasks.spawn(tools.retention.keep(tools.index.clone(), recorders.stop.clone()));
        let events = tools.hub.events().clone();
        tasks.spawn(owned.clone().keep(tools.index.clone(), events, recorders.stop.clone()));
        let supervisor = Supervisor {
            tools,
            stop: recorders.stop.clone(),
            patience: recorders.patience.clone(),
            tasks: recorders.running.clone(),
            seen: HashSet::new(),
            running: HashMap::new(),
            shown,
        };
        tasks.spawn(supervisor.run(inbox));
        recorders
    }

    /// Records a publication from now on. One that is recorded already gets that recording finished first. Returns once
    /// the first file is open, or its stream has no frame to begin with yet.
    ///
    /// # Errors
    /// See [`RecordError`].
    pub async fn record(&self, session: &MediaSessionId, options: Options) -> Result<(), RecordError> {
        let (reply, answer) = oneshot::channel();
        let order = Order::Start { session: session.clone(), options, reply };
        self.orders.send(order).await.map_err(|_| RecordError::Closing)?;
        let mut begun = answer.await.map_err(|_| RecordError::Closing)??;
        let decided = begun.view.wait_for(|view| view.state != RecorderState::Waiting);
        let state = match tokio::time::timeout(FIRST_FRAME, decided).await {
            Ok(Ok(view)) => view.state.clone(),
            // Whoever follows it, or the stream's end, ended it before it began.
            Ok(Err(_)) => RecorderState::Failed("it has been ended meanwhile".into()),
            Err(_) => RecorderState::Waiting,
        };
        match state {
            RecorderState::Failed(reason) => {
                // The caller is told, and is the one to try again.
                begun.stop.cancel();
                ended(begun.view).await;
                Err(RecordError::Failed(reason))
            }
            RecorderState::Waiting | RecorderState::Recording(_) => Ok(()),
        }
    }

    /// Ends the recording of a publication; returns when its last file is in place.
    ///
    /// # Errors
    /// See [`RecordError`].
    pub async fn end(&self, session: &MediaSessionId) -> Result<(), RecordError> {
        let (reply, answer) = oneshot::channel();
        let order = Order::Stop { session: session.clone(), reply };
        self.orders.send(order).await.map_err(|_| RecordError::Closing)?;
        ended(answer.await.map_err(|_| RecordError::Closing)??.view).await;
        Ok(())
    }

    /// The recordings that run, by session.
    pub fn views(&self) -> Vec<RecorderView> {
        let all = self.views.borrow().clone();
        // One whose recorder has ended is still shown until the supervisor looks.
        let mut views: Vec<_> =
            all.iter().filter(|view| view.has_changed().is_ok()).map(|view| view.borrow().clone()).collect();
        views.sort_by(|a, b| a.session.cmp(&b.session));
        views
    }

    /// Finishes every recording; true when all files are in place within `deadline`.
    pub async fn finish(&self, deadline: Duration) -> bool {
        self.stop.cancel();
        self.running.close();
        tokio::select! {
            biased;
            () = self.running.wait() => true,
            () = self.patience.run_out(deadline) => false,
        }
    }
}

struct Supervisor {
    tools: Tools,
    stop: CancellationToken,
    patience: Patience,
    tasks: TaskTracker,
    /// The publications that are, or have been, looked at.
    seen: HashSet<Key>,
    running: HashMap<Key, Running>,
    shown: watch::Sender<Arc<Vec<watch::Receiver<RecorderView>>>>,
}

impl Supervisor {
    async fn run(mut self, mut inbox: mpsc::Receiver<Order>) {
        let mut streams = self.tools.hub.watch();
        loop {
            streams.mark_unchanged();
            self.follow();
            tokio::select! {
                () = self.stop.cancelled() => return,
                changed = streams.changed() => if changed.is_err() { return },
                order = inbox.recv() => match order {
                    Some(order) => self.obey(order),
                    None => return,
                },
            }
        }
    }

    /// Records every stream that asks for it and is new, and forgets those that are gone.
    fn follow(&mut self) {
        let streams = self.tools.hub.streams();
        let mut present = HashSet::new();
        for handle in streams.values() {
            let view = handle.view();
            let Some(publisher) = view.publisher() else { continue };
            let key = key(publisher);
            present.insert(key.clone());
            if let Some(recorded) = view.record
                && !self.seen.contains(&key)
            {
                self.begin_unasked(handle, publisher, recorded);
            }
        }
        self.seen.retain(|key| present.contains(key));
        self.running.retain(|_, running| running.view.has_changed().is_ok());
        self.show();
    }

    fn obey(&mut self, order: Order) {
        // A caller that has gone needs no answer.
        match order {
            Order::Start { session, options, reply } => {
                let _ = reply.send(self.start(&session, options));
            }
            Order::Stop { session, reply } => {
                let _ = reply.send(self.end(&session));
            }
        }
    }

    fn start(&mut self, session: &MediaSessionId, options: Options) -> Result<Running, RecordError> {
        let none = || RecordError::NoSession(session.clone());
        let (handle, view) = self.publication(session).ok_or_else(none)?;
        let publisher = view.publisher().ok_or_else(none)?;
        let recorded = view.record.unwrap_or(Recorded::Everything);
        self.begin(&handle, publisher, recorded, options)
    }

    fn end(&mut self, session: &MediaSessionId) -> Result<Running, RecordError> {
        let key = self.running.keys().find(|(id, _)| id == session).cloned();
        let running =
            key.and_then(|key| self.running.remove(&key)).filter(|running| running.view.has_changed().is_ok());
        let Some(running) = running else {
            return Err(match self.publication(session) {
                Some(_) => RecordError::NotRecorded(session.clone()),
                None => RecordError::NoSession(session.clone()),
            });
        };
        running.stop.cancel();
        Ok(running)
    }

    /// The stream whose publisher has this session and is publishing.
    fn publication(&self, session: &MediaSessionId) -> Option<(StreamHandle, StreamView)> {
        let streams = self.tools.hub.streams();
        streams.values().map(|handle| (handle, handle.view())).find_map(|(handle, view)| {
            let publishing = [Phase::Live, Phase::Interrupted].contains(&view.phase);
            let found = publishing && view.publisher().is_some_and(|publisher| publisher.id == *session);
            found.then(|| (handle.clone(), view))
        })
    }

    /// Nobody waits for what becomes of it: a recording there is no room for is told as an event.
    fn begin_unasked(&mut self, handle: &StreamHandle, publisher: &SessionView, recorded: Recorded) {
        if let Err(RecordError::Refused(refused)) = self.begin(handle, publisher, recorded, Options::default()) {
            let (stream, session) = (handle.view().name, publisher.id.clone());
            self.tools.hub.events().tell(Event::RecordingFailed { stream, session, reason: refused.to_string() });
        }
    }

    /// Starts a recorder, after the one before it if there is one, whose place it takes over.
    fn begin(
        &mut self,
        handle: &StreamHandle,
        publisher: &SessionView,
        recorded: Recorded,
        options: Options,
    ) -> Result<Running, RecordError> {
        let key = key(publisher);
        self.seen.insert(key.clone());
        let place = match self.running.get(&key).and_then(|before| before.place.upgrade()) {
            Some(place) => place,
            None => Arc::new(self.tools.admission.recording()?),
        };
        let stop = self.stop.child_token();
        let rules = Arc::new(self.tools.rules.with(options, &publisher.app_key));
        let (recorder, view) = Recorder::new(&self.tools, rules, handle, recorded, publisher, &stop, &self.patience)
            .ok_or_else(|| RecordError::NoSession(publisher.id.clone()))?;
        let running = Running { stop, view, place: Arc::downgrade(&place) };
        let before = self.running.insert(key, running.clone());
        self.tasks.spawn(async move {
            if let Some(before) = before {
                before.stop.cancel();
                ended(before.view).await;
            }
            recorder.run().await;
            drop(place);
        });
        self.show();
        Ok(running)
    }

    fn show(&self) {
        let views = self.running.values().map(|running| running.view.clone()).collect();
        self.shown.send_replace(Arc::new(views));
    }
}

fn key(publisher: &SessionView) -> Key {
    (publisher.id.clone(), publisher.since)
}
