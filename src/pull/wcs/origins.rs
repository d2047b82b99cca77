//! An edge: which of the configured servers has a stream.
//!
//! One task owns the questions under way: however many players ask for a name at once, each server is asked once.

use std::collections::HashMap;
use std::sync::Arc;

use futures_util::future::join_all;
use tokio::sync::{mpsc, oneshot};
use tokio_util::task::TaskTracker;

use super::call::{Dial, News, Subject};
use super::dialogue::{End, Way};
use crate::gate::Action;
use crate::name::{MediaSessionId, StreamName};
use crate::pull::SourceUri;

/// Most names that are asked for at once: what players ask for must not become a flood of connections.
const NAMES: usize = 64;
/// How many questions may wait for the task.
const QUEUE: usize = 256;

/// Who has a stream, or WCS's `info` for a player.
pub type Found = Result<SourceUri, &'static str>;

/// No origin could be asked.
const UNREACHABLE: &str = "Failed to connect to origin stream";
/// None of them has it.
const NOWHERE: &str = "CDN stream not found";

enum Command {
    Ask(StreamName, oneshot::Sender<Found>),
    Answered(StreamName, Found),
}

/// A cheap handle on the questions.
#[derive(Clone)]
pub struct Origins(Option<mpsc::Sender<Command>>);

impl Origins {
    /// Starts the task in `tasks`; none where there are no origins. It ends with the last handle.
    pub fn start(origins: Vec<SourceUri>, dial: Dial, tasks: &TaskTracker) -> Self {
        if origins.is_empty() {
            return Self(None);
        }
        let (commands, inbox) = mpsc::channel(QUEUE);
        let desk = Desk {
            origins: origins.into(),
            dial,
            waiting: HashMap::new(),
            answers: commands.downgrade(),
            tasks: tasks.clone(),
        };
        tasks.spawn(desk.run(inbox));
        Self(Some(commands))
    }

    /// The first origin that has `name`; `None` where this is no edge.
    pub async fn find(&self, name: &StreamName) -> Option<Found> {
        let commands = self.0.as_ref()?;
        let (reply, answer) = oneshot::channel();
        if commands.send(Command::Ask(name.clone(), reply)).await.is_err() {
            return Some(Err(UNREACHABLE));
        }
        Some(answer.await.unwrap_or(Err(UNREACHABLE)))
    }
}

struct Desk {
    origins: Arc<[SourceUri]>,
    dial: Dial,
    waiting: HashMap<StreamName, Vec<oneshot::Sender<Found>>>,
    answers: mpsc::WeakSender<Command>,
    tasks: TaskTracker,
}

impl Desk {
    async fn run(mut self, mut inbox: mpsc::Receiver<Command>) {
        while let Some(command) = inbox.recv().await {
            match command {
                Command::Ask(name, reply) => self.ask(name, reply),
                Command::Answered(name, found) => {
                    for reply in self.waiting.remove(&name).unwrap_or_default() {
                        // A player that has left needs no answer.
                        let _ = reply.send(found.clone());
                    }
                }
            }
        }
    }

    fn ask(&mut self, name: StreamName, reply: oneshot::Sender<Found>) {
        if let Some(waiting) = self.waiting.get_mut(&name) {
            waiting.push(reply);
            return;
        }
        if self.waiting.len() >= NAMES {
            let _ = reply.send(Err(UNREACHABLE));
            return;
        }
        self.waiting.insert(name.clone(), vec![reply]);
        let (origins, dial, answers) = (self.origins.clone(), self.dial.clone(), self.answers.clone());
        self.tasks.spawn(async move {
            let found = first(&origins, &dial, &name).await;
            if let Some(answers) = answers.upgrade() {
                let _ = answers.send(Command::Answered(name, found)).await;
            }
        });
    }
}

/// Asks all at once; of those that have it the first in the operator's order.
async fn first(origins: &[SourceUri], dial: &Dial, name: &StreamName) -> Found {
    let asked = join_all(origins.iter().map(|origin| has(origin, dial, name))).await;
    let mut reached = false;
    for (origin, answer) in origins.iter().zip(asked) {
        match answer {
            Ok(true) => return Ok(origin.clone()),
            Ok(false) => reached = true,
            Err(End::Lost(reason) | End::NoStream(reason) | End::Loop(reason)) => {
                tracing::warn!(%origin, stream = %name, "an origin cannot be asked: {reason}");
            }
        }
    }
    Err(if reached { NOWHERE } else { UNREACHABLE })
}

async fn has(origin: &SourceUri, dial: &Dial, name: &StreamName) -> Result<bool, End> {
    let subject = Subject {
        way: Way::Play,
        name: name.clone(),
        ours: MediaSessionId::random(),
        custom: dial.gate.own(Action::Play, name.as_str()),
        trusted: true,
    };
    let mut call = dial.open(origin, subject).await?;
    loop {
        match call.next().await? {
            News::Ready => call.ask(),
            News::Available(yes) => {
                call.hang_up().await;
                return Ok(yes);
            }
            _ => {}
        }
    }
}
