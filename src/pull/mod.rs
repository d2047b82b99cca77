//! Pull agents: our clients that dial remote servers and publish what they get.
//!
//! The supervisor's task owns the list of agents; each agent is a task of its own ([`agent`]). What a pulled RTMP
//! stream may bring is decided by [`policy`]; [`wcs`] speaks to other WCS servers.

mod address;
mod agent;
pub mod policy;
pub mod wcs;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use address::{Scheme, SourceUri, UriError};
pub use agent::{AgentStatus, AgentView, Direction};

use crate::hub::{Hub, PublishError, Publisher, Recorded, StreamHandle};
use crate::media::{Catalog, Pipelines};
use crate::name::{MediaSessionId, NameError, StreamName};
use crate::retry::Backoff;
use policy::SourcePolicy;

/// How many commands may wait for the supervisor.
const QUEUE: usize = 256;

/// Which REST family started an agent. `/pull/rtmp/*` sees RTMP agents of either; `/pull/*` sees its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// `/rest-api/pull/rtmp/*`.
    Rtmp,
    /// `/rest-api/pull/*`.
    Pull,
}

/// A source to pull.
#[derive(Debug, Clone)]
pub struct PullRequest {
    /// The REST family that asks.
    pub family: Family,
    /// The source's address, as the caller wrote it.
    pub uri: SourceUri,
    /// The stream's name there, where the address does not say it (ws and wss).
    pub remote_name: Option<StreamName>,
    /// The stream's name here; where absent its name there, or the URI itself.
    pub local_name: Option<StreamName>,
    /// Record it.
    pub record: bool,
    /// Bring its sound.
    pub has_audio: bool,
    /// Bring its pictures.
    pub has_video: bool,
    /// A player asked for it by its address: it goes some time after the last player, and at the first failure.
    pub on_demand: bool,
}

/// A stream to publish on another server.
#[derive(Debug, Clone)]
pub struct PushRequest {
    /// The server's address.
    pub uri: SourceUri,
    /// The stream's name here.
    pub local_name: StreamName,
    /// Its name there.
    pub remote_name: StreamName,
}

impl PullRequest {
    /// What a player asks for.
    fn on_demand(family: Family, uri: SourceUri, remote_name: Option<StreamName>) -> Self {
        Self {
            family,
            uri,
            remote_name,
            local_name: None,
            record: false,
            has_audio: true,
            has_video: true,
            on_demand: true,
        }
    }
}

/// Why a pull is not started.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PullError {
    /// The same source is pulled already.
    #[error("{uri} is already being pulled as {stream}: subscribe to that stream")]
    AlreadyPulled {
        /// The source, masked.
        uri: String,
        /// The stream it is published as.
        stream: StreamName,
    },
    /// The same stream is published there already.
    #[error("{stream} is already being pushed to {uri}")]
    AlreadyPushed {
        /// The server, masked.
        uri: String,
        /// The stream's name there.
        stream: StreamName,
    },
    /// There is nothing to push.
    #[error("there is no stream {0} to push")]
    NoStream(StreamName),
    /// The local name is taken, or the server is closing.
    #[error(transparent)]
    Publish(#[from] PublishError),
    /// The URI cannot be a stream name.
    #[error("the local stream name: {0}")]
    Name(#[from] NameError),
    /// wss is not allowed.
    #[error(transparent)]
    Uri(#[from] UriError),
    /// The address does not say which stream, and nothing else does.
    #[error("the field remoteStreamName is missing: which stream of {0} is wanted?")]
    NoRemoteName(SourceUri),
    /// Neither sound nor pictures are asked for.
    #[error("hasAudio and hasVideo are both false: there would be nothing to pull")]
    NoTracks,
}

/// What every agent works with.
#[derive(Clone)]
pub struct Tools {
    /// The launch templates.
    pub catalog: Catalog,
    /// The list of running pipelines.
    pub pipelines: Pipelines,
    /// Where streams are published.
    pub hub: Hub,
    /// What a pulled RTMP stream may bring.
    pub policy: Arc<SourcePolicy>,
    /// Longest time from dialling to the server's answer.
    pub connect_timeout: Duration,
    /// Longest silence of a source.
    pub stall_timeout: Duration,
    /// When to dial again.
    pub backoff: Backoff,
    /// Record every pulled RTMP stream, asked for or not.
    pub record_all: bool,
    /// How long a source that players asked for stays without them; `None` for ever.
    pub idle_timeout: Option<Duration>,
    /// What other WCS servers are called with.
    pub wcs: wcs::Tools,
}

impl Tools {
    /// The same for a source of this scheme.
    fn idle_timeout(&self, scheme: Scheme) -> Option<Duration> {
        match scheme {
            Scheme::Rtmp => self.idle_timeout,
            Scheme::Wcs => self.wcs.idle_timeout,
        }
    }
}

/// A cheap handle on the supervisor.
#[derive(Clone)]
pub struct Pulls {
    hub: Hub,
    commands: mpsc::Sender<Command>,
    agents: watch::Receiver<Arc<Vec<Agent>>>,
    origins: wcs::Origins,
    closing: CancellationToken,
}

/// An agent's handle.
#[derive(Clone)]
pub struct Agent {
    uri: SourceUri,
    remote_name: Option<StreamName>,
    family: Family,
    view: watch::Receiver<AgentView>,
    stop: CancellationToken,
}

enum Command {
    Pull(PullRequest, oneshot::Sender<Result<(), PullError>>),
    Push(PushRequest, oneshot::Sender<Result<(), PullError>>),
}

/// Tells the supervisor that an agent has ended. The view closes once the agent is off the list: then whoever waits for
/// its end goes on.
struct Ended {
    session: MediaSessionId,
    _view: watch::Sender<AgentView>,
}

impl Pulls {
    /// Starts the supervisor's task in `tasks`. It ends with the last handle.
    pub fn start(tools: Tools, tasks: &TaskTracker) -> Self {
        let (commands, inbox) = mpsc::channel(QUEUE);
        let (list, agents) = watch::channel(Arc::new(Vec::new()));
        let hub = tools.hub.clone();
        let (goners, gone) = mpsc::unbounded_channel();
        let closing = CancellationToken::new();
        let origins = wcs::Origins::start(tools.wcs.origins.clone(), tools.wcs.dial.clone(), tasks);
        let supervisor = Supervisor { tools, list, tasks: tasks.clone(), goners, closing: closing.clone() };
        tasks.spawn(supervisor.run(inbox, gone));
        Self { hub, commands, agents, origins, closing }
    }

    /// Starts an agent. It publishes its name at once and then dials.
    ///
    /// # Errors
    /// See [`PullError`].
    pub async fn pull(&self, request: PullRequest) -> Result<(), PullError> {
        let (reply, answer) = oneshot::channel();
        let asked = self.commands.send(Command::Pull(request, reply)).await;
        asked.map_err(|_| PublishError::Closing)?;
        answer.await.map_err(|_| PublishError::Closing)?
    }

    /// Starts an agent that publishes a stream of ours on another server.
    ///
    /// # Errors
    /// See [`PullError`].
    pub async fn push(&self, request: PushRequest) -> Result<(), PullError> {
        let (reply, answer) = oneshot::channel();
        let asked = self.commands.send(Command::Push(request, reply)).await;
        asked.map_err(|_| PublishError::Closing)?;
        answer.await.map_err(|_| PublishError::Closing)?
    }

    /// The stream a player asks for: one that exists, one that is pulled because its name is an address, or one that an
    /// origin of this edge has.
    ///
    /// # Errors
    /// WCS's `info`: "Stream not found", "Bad URI", "CDN stream not found", "Requested stream shutdown".
    pub async fn stream_for(&self, name: &StreamName) -> Result<StreamHandle, &'static str> {
        let find = || self.hub.streams().get(name).cloned();
        if let Some(stream) = find() {
            return Ok(stream);
        }
        let request = match name.as_str().split_once("://") {
            Some(("rtmp" | "rtmps", _)) => {
                let uri = SourceUri::rtmp(name.as_str()).map_err(|_| "Bad URI")?;
                PullRequest::on_demand(Family::Rtmp, uri, None)
            }
            Some(_) => return Err("Failed to get agent storage"),
            None => {
                let origin = self.origins.find(name).await.unwrap_or(Err("Stream not found"))?;
                PullRequest::on_demand(Family::Pull, origin, Some(name.clone()))
            }
        };
        match self.pull(request).await {
            // Another player was faster, or a pull has it under another name.
            Ok(()) | Err(PullError::Publish(PublishError::NameTaken(_))) => find().ok_or("Stream not found"),
            Err(PullError::AlreadyPulled { uri: _, stream }) => {
                self.hub.streams().get(&stream).cloned().ok_or("Stream not found")
            }
            Err(PullError::Publish(PublishError::Closing)) => Err("Requested stream shutdown"),
            Err(_) => Err("Bad URI"),
        }
    }

    /// The agents a family sees.
    pub fn seen_by(&self, family: Family) -> Vec<Agent> {
        // `/pull/rtmp/*` sees its own kind, however it was started; `/pull/*` sees what it started.
        let sees = |agent: &&Agent| match family {
            Family::Rtmp => agent.uri.scheme() == Scheme::Rtmp,
            Family::Pull => agent.family == family,
        };
        self.agents.borrow().iter().filter(sees).cloned().collect()
    }

    /// Waits until no agent with this media session is on the list.
    pub async fn gone(&self, session: MediaSessionId) {
        let agent = self.agents.borrow().iter().find(|agent| agent.view().session == session).cloned();
        if let Some(agent) = agent {
            agent.gone().await;
        }
    }

    /// Stops every agent, as the server shuts down; one that is started now ends at once. Waits until all are gone.
    pub async fn stop_all(&self) {
        self.closing.cancel();
        let agents = self.agents.borrow().clone();
        for agent in agents.iter() {
            agent.gone().await;
        }
    }
}

impl Agent {
    /// The agent as it is.
    pub fn view(&self) -> AgentView {
        self.view.borrow().clone()
    }

    /// Whether it pulls this address, written as the caller wrote it or as lists show it.
    pub fn pulls(&self, uri: &str) -> bool {
        self.uri.is_written(uri)
    }

    /// Whether it does what `request` asks for: nobody publishes twice under one name of a server.
    fn pushes(&self, request: &PushRequest) -> bool {
        let same = self.view().direction == Direction::Push && self.uri.secret() == request.uri.secret();
        same && self.remote_name.as_ref() == Some(&request.remote_name)
    }

    /// Whether it does what `request` asks for: of WCS servers, the same stream under the same name.
    fn is_for(&self, request: &PullRequest) -> bool {
        let same_name = || {
            let wanted = request.local_name.as_ref().or(request.remote_name.as_ref());
            self.remote_name == request.remote_name && wanted == Some(&self.view().local_name)
        };
        let pulls = self.view().direction == Direction::Pull;
        let same = pulls && self.family == request.family && self.uri.secret() == request.uri.secret();
        same && (self.uri.scheme() == Scheme::Rtmp || same_name())
    }

    /// Ends the agent and its stream; waits until both are gone.
    pub async fn terminate(&self) {
        self.stop.cancel();
        self.gone().await;
    }

    async fn gone(&self) {
        let mut view = self.view.clone();
        while view.changed().await.is_ok() {}
    }
}

struct Supervisor {
    tools: Tools,
    list: watch::Sender<Arc<Vec<Agent>>>,
    tasks: TaskTracker,
    goners: mpsc::UnboundedSender<Ended>,
    closing: CancellationToken,
}

impl Supervisor {
    async fn run(self, mut inbox: mpsc::Receiver<Command>, mut gone: mpsc::UnboundedReceiver<Ended>) {
        loop {
            tokio::select! {
                biased;
                // First who has ended: whoever waits for that may pull the same source at once.
                Some(ended) = gone.recv() => self.forget(ended.session),
                command = inbox.recv() => match command {
                    Some(Command::Pull(request, reply)) => {
                        // A caller that no longer waits has its agent all the same: it asked for it.
                        let _ = reply.send(self.pull(request).await);
                    }
                    Some(Command::Push(request, reply)) => {
                        let _ = reply.send(self.push(request));
                    }
                    None => return,
                },
            }
        }
    }

    async fn pull(&self, request: PullRequest) -> Result<(), PullError> {
        if !request.has_audio && !request.has_video {
            return Err(PullError::NoTracks);
        }
        if request.uri.scheme() == Scheme::Wcs {
            self.tools.wcs.check(&request.uri)?;
            if request.remote_name.is_none() {
                return Err(PullError::NoRemoteName(request.uri));
            }
        }
        let running = self.list.borrow().clone();
        let same = running.iter().find(|agent| agent.is_for(&request));
        if let Some(agent) = same {
            if agent.view().status != AgentStatus::Failed {
                return Err(PullError::AlreadyPulled { uri: request.uri.to_string(), stream: agent.view().local_name });
            }
            // It has left its stream already; only its place on the list is taken.
            agent.stop.cancel();
            self.forget(agent.view().session);
        }
        self.start(request).await
    }

    async fn start(&self, request: PullRequest) -> Result<(), PullError> {
        let session = MediaSessionId::random();
        let publisher = self.publisher(&request, session.clone())?;
        let publication = self.tools.hub.publish(publisher).await?;
        let stop = CancellationToken::new();
        let ends = agent::Ends { stop: stop.clone(), closing: self.closing.clone() };
        let (job, view) = agent::new(request.clone(), publication, self.tools.clone(), ends);
        let agent = Agent { uri: request.uri, remote_name: request.remote_name, family: request.family, view, stop };
        self.list.send_modify(|agents| Arc::make_mut(agents).push(agent));
        let goners = self.goners.clone();
        self.tasks.spawn(async move {
            let view = job.run().await;
            // A supervisor that is gone has no list.
            let _ = goners.send(Ended { session, _view: view });
        });
        Ok(())
    }

    fn push(&self, request: PushRequest) -> Result<(), PullError> {
        if request.uri.scheme() != Scheme::Wcs {
            return Err(UriError::Scheme(request.uri.to_string(), "ws or wss, to push to").into());
        }
        self.tools.wcs.check(&request.uri)?;
        let running = self.list.borrow().clone();
        if running.iter().any(|agent| agent.pushes(&request)) {
            return Err(PullError::AlreadyPushed { uri: request.uri.to_string(), stream: request.remote_name });
        }
        if !self.tools.hub.streams().contains_key(&request.local_name) {
            return Err(PullError::NoStream(request.local_name));
        }
        let session = MediaSessionId::random();
        let stop = CancellationToken::new();
        let ends = agent::Ends { stop: stop.clone(), closing: self.closing.clone() };
        let (job, view) = wcs::Push::new(request.clone(), session.clone(), self.tools.clone(), ends);
        let PushRequest { uri, remote_name, .. } = request;
        let agent = Agent { uri, remote_name: Some(remote_name), family: Family::Pull, view, stop };
        self.list.send_modify(|agents| Arc::make_mut(agents).push(agent));
        let goners = self.goners.clone();
        self.tasks.spawn(async move {
            let view = job.run().await;
            // A supervisor that is gone has no list.
            let _ = goners.send(Ended { session, _view: view });
        });
        Ok(())
    }

    fn publisher(&self, request: &PullRequest, session: MediaSessionId) -> Result<Publisher, NameError> {
        let name = match request.local_name.as_ref().or(request.remote_name.as_ref()) {
            Some(name) => name.clone(),
            None => StreamName::new(request.uri.secret())?,
        };
        if request.uri.scheme() == Scheme::Wcs {
            return Ok(wcs::publisher(request, name, session));
        }
        let recorded = if self.tools.policy.records_video() { Recorded::Everything } else { Recorded::SoundOnly };
        Ok(Publisher {
            name,
            session,
            app_key: "defaultApp".into(),
            connection: request.uri.to_string(),
            provider: "Flash",
            media_type: "rtmp",
            transport: "TCP",
            record: (request.record || self.tools.record_all).then_some(recorded),
            by: format!("rtmp pull of {}", request.uri),
        })
    }

    fn forget(&self, session: MediaSessionId) {
        self.list.send_modify(|agents| Arc::make_mut(agents).retain(|agent| agent.view().session != session));
    }
}
