//! Delivers events: one task owns what waits for every application, on disk too.
//!
//! An event is written down as it comes, and struck out when it is done with ([`journal`](super::journal)). After a crash
//! what is written is sent again, in its order: an event whose strike was not yet written arrives once more, and no event
//! arrives a third time for that.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::task::TaskTracker;

use super::client::Client;
use super::complaint::Complaints;
use super::journal::Journal;
use super::line::{Item, Landing, Line};
use super::policy::Outcome;
use super::session::Sessions;
use super::{Applications, Method};
use crate::event::epoch_ms;

/// The longest time the last events may take when the server ends; what is left is sent after the next start.
const FAREWELL: Duration = Duration::from_secs(3);
/// The longest time that a question waits for the events before it: far longer than they take to arrive, if not to be
/// answered.
const ORDER: Duration = Duration::from_secs(5);
/// What a rate-limited complaint calls this part.
const EVENTS: &str = "events";

/// What deliveries work with.
pub(super) struct Tools {
    pub(super) applications: Applications,
    pub(super) client: Client,
    pub(super) complaints: Complaints,
    pub(super) sessions: Sessions,
    /// Most events of one application that wait.
    pub(super) limit: usize,
    /// The age at which one is given up.
    pub(super) age: Duration,
}

/// Where events go. A cheap handle; never waits.
#[derive(Clone)]
pub(super) struct Deliveries(mpsc::UnboundedSender<Command>);

enum Command {
    Event(Item),
    Ask(Asker),
    Finish(oneshot::Sender<()>),
}

/// Somebody who asks what is in order with a lane.
struct Asker {
    app_key: String,
    lane: String,
    /// What came before this is waited for.
    place: u64,
    go: oneshot::Sender<()>,
}

impl Deliveries {
    /// Reads what an earlier run has left, and starts the task in `tasks`.
    pub(super) async fn start(tools: Tools, data: &Path, tasks: &TaskTracker) -> io::Result<Self> {
        let data = data.to_owned();
        let opened = tokio::task::spawn_blocking(move || Journal::open(&data)).await;
        let (journal, left) = opened.unwrap_or_else(|error| Err(io::Error::other(error)))?;
        let (commands, inbox) = mpsc::unbounded_channel();
        let mut deliverer = Deliverer {
            tools: Arc::new(tools),
            lines: HashMap::new(),
            next: 0,
            journal,
            sends: JoinSet::new(),
            askers: Vec::new(),
            leaving: None,
        };
        deliverer.take_up(left);
        tasks.spawn(deliverer.run(inbox));
        Ok(Self(commands))
    }

    /// Tells an event of an application; it is in order with the others of its lane.
    pub(super) fn tell(&self, app_key: &str, method: Method, lane: &str, body: &str) {
        let item = Item {
            place: 0,
            app_key: app_key.to_owned(),
            method: method.name().to_owned(),
            lane: lane.into(),
            body: body.into(),
            at: epoch_ms(SystemTime::now()),
            tries: 0,
        };
        // After the end of the task there is nobody to tell.
        let _ = self.0.send(Command::Event(item));
    }

    /// Waits until what was told of a lane has landed, so that a question does not overtake it: at most [`ORDER`], and not
    /// for a hook server that is away.
    pub(super) async fn in_turn(&self, app_key: &str, lane: &str) {
        let (go, gone) = oneshot::channel();
        let asker = Asker { app_key: app_key.to_owned(), lane: lane.to_owned(), place: 0, go };
        let _ = self.0.send(Command::Ask(asker));
        // A task that has ended keeps nobody waiting.
        let _ = timeout(ORDER, gone).await;
    }

    /// Delivers what can be delivered soon, writes down the rest, and ends.
    pub(super) async fn finish(&self) {
        let (done, finished) = oneshot::channel();
        let _ = self.0.send(Command::Finish(done));
        let _ = finished.await;
    }
}

struct Deliverer {
    tools: Arc<Tools>,
    lines: HashMap<String, Line>,
    /// The place of the next event.
    next: u64,
    journal: Journal,
    sends: JoinSet<(Item, Option<Outcome>)>,
    /// Who waits for their turn.
    askers: Vec<Asker>,
    /// Set when the server ends: until when, and whom to tell.
    leaving: Option<(Instant, oneshot::Sender<()>)>,
}

impl Deliverer {
    fn take_up(&mut self, left: BTreeMap<u64, Item>) {
        if !left.is_empty() {
            tracing::info!("{} events for hook servers are left from an earlier run", left.len());
        }
        for item in left.into_values() {
            self.next = self.next.max(item.place + 1);
            self.wait(item);
        }
    }

    async fn run(mut self, mut inbox: mpsc::UnboundedReceiver<Command>) {
        loop {
            self.journal.flush();
            self.dispatch();
            self.let_ask();
            if self.may_leave() {
                break;
            }
            let resume = self.lines.values().filter_map(Line::resume).filter(|at| *at > Instant::now()).min();
            let until = self.leaving.as_ref().map(|(until, _)| *until);
            let sync = self.journal.due();
            tokio::select! {
                biased;
                Some(landed) = self.sends.join_next() => self.landed(landed),
                written = self.journal.ended() => self.written(written),
                command = inbox.recv(), if self.leaving.is_none() => match command {
                    Some(Command::Event(item)) => self.event(item),
                    Some(Command::Ask(asker)) => self.askers.push(Asker { place: self.next, ..asker }),
                    Some(Command::Finish(done)) => self.leaving = Some((Instant::now() + FAREWELL, done)),
                    None => break,
                },
                () = at(sync) => self.journal.sync(),
                () = at(resume) => {}
                () = at(until) => {}
            }
        }
        self.end().await;
    }

    fn event(&mut self, mut item: Item) {
        item.place = self.next;
        self.next += 1;
        self.journal.keep(&item);
        self.wait(item);
    }

    /// Lets those ask whose turn it is.
    fn let_ask(&mut self) {
        let clear = |asker: &mut Asker| {
            let line = self.lines.get(&asker.app_key);
            asker.go.is_closed() || line.is_none_or(|line| line.clear(&asker.lane, asker.place))
        };
        for asker in self.askers.extract_if(.., clear) {
            let _ = asker.go.send(());
        }
    }

    fn wait(&mut self, item: Item) {
        let line = self.lines.entry(item.app_key.clone()).or_default();
        for dropped in line.push(item, self.tools.limit) {
            self.give_up(&dropped, "more events wait for it than rest_hook_queue allows: the oldest are dropped");
        }
    }

    fn give_up(&mut self, item: &Item, reason: &str) {
        self.journal.strike(item.place);
        self.tools.complaints.count(&item.app_key, |counts| counts.dropped += 1);
        self.tools.complaints.warn(&item.app_key, "dropped events", reason);
    }

    /// Sends what may be sent now.
    fn dispatch(&mut self) {
        let now = Instant::now();
        let mut items = Vec::new();
        for (app_key, line) in &mut self.lines {
            items.extend(std::iter::from_fn(|| line.next(now)));
            let waiting = line.len() as u64;
            self.tools.complaints.count(app_key, |counts| counts.waiting = waiting);
        }
        self.lines.retain(|_, line| line.len() > 0 || !line.rests(now));
        for item in items {
            let tools = self.tools.clone();
            self.sends.spawn(async move {
                let outcome = tools.send(&item).await;
                (item, outcome)
            });
        }
    }

    fn landed(&mut self, landed: Result<(Item, Option<Outcome>), tokio::task::JoinError>) {
        // A send neither panics nor is cancelled before the end.
        let Ok((item, outcome)) = landed else { return };
        let landing = self.judge(&item, outcome);
        if landing == Landing::Done {
            self.journal.strike(item.place);
        }
        if let Some(line) = self.lines.get_mut(&item.app_key) {
            line.landed(item, landing, Instant::now(), rand::random());
        }
    }

    fn judge(&mut self, item: &Item, outcome: Option<Outcome>) -> Landing {
        // Nobody is to be told any more: the application has no URL, or not this method.
        let Some(outcome) = outcome else { return Landing::Done };
        let complaints = self.tools.complaints.clone();
        let Some(error) = outcome.error() else {
            complaints.count(&item.app_key, |counts| counts.answered += 1);
            return Landing::Done;
        };
        complaints.count(&item.app_key, |counts| counts.failed += 1);
        complaints.warn(&item.app_key, EVENTS, &format!("{}: {error}", item.method));
        if !outcome.away() {
            self.tools.sessions.warn(&item.lane, item.method(), &error);
            return Landing::Done;
        }
        let sent = matches!(&outcome, Outcome::Unreachable(unreachable) if unreachable.sent);
        if sent && item.tries >= self.tools.client.retries() {
            self.give_up(item, "it takes events without an answer: they are dropped");
            return Landing::Done;
        }
        let age = Duration::from_millis(epoch_ms(SystemTime::now()).saturating_sub(item.at));
        if age > self.tools.age {
            self.give_up(item, "it is away for longer than rest_hook_queue_time: events are dropped");
            return Landing::Done;
        }
        Landing::Away { sent }
    }

    fn written(&self, written: io::Result<()>) {
        if let Err(error) = written {
            self.tools.complaints.warn("", "events on disk", &format!("events would not survive a restart: {error}"));
        }
    }

    /// Whether all is sent that can be, or the time for it is over.
    fn may_leave(&self) -> bool {
        let Some((until, _)) = &self.leaving else { return false };
        let now = Instant::now();
        now >= *until || (self.sends.is_empty() && self.lines.values().all(|line| line.rests(now)))
    }

    async fn end(mut self) {
        // What is on its way stays written down.
        self.sends.shutdown().await;
        let written = self.journal.close().await;
        self.written(written);
        let waiting = self.journal.len();
        if waiting > 0 {
            tracing::info!("{waiting} events for hook servers are sent after the next start");
        }
        if let Some((_, done)) = self.leaving.take() {
            let _ = done.send(());
        }
    }
}

impl Tools {
    /// Sends an event to where its application is now; `None` where nobody is to be told.
    async fn send(&self, item: &Item) -> Option<Outcome> {
        let method = item.method()?;
        let application = self.applications.with_key(&item.app_key)?;
        let url = application.endpoint(method)?;
        Some(self.client.once(&application, &url, method, item.body.to_string()).await)
    }
}

async fn at(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
    }
}
