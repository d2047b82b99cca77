//! Pull agents: our clients that dial remote servers and publish what they get.
//!
//! The supervisor's task owns the list of agents; each agent is a task of its own ([`agent`]). What differs between the
//! protocols of sources is in [`scheme`]; what a pulled RTMP stream may bring is decided by [`policy`]; [`wcs`] speaks to
//! other WCS servers.

mod address;
mod agent;
mod ending;
pub mod policy;
mod reach;
mod scheme;
pub mod wcs;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use address::{Scheme, SourceUri, UriError};
pub use agent::{AgentStatus, AgentView, Direction};
pub use reach::{Barred, Reach};
pub use scheme::{RtspTransport, Rules};

use crate::admission::{Admission, Place, Refused};
use crate::hub::{Hub, PublishError, Publisher, STOPPED_BY_SHUTDOWN, StreamHandle};
use crate::media::{Catalog, Pipelines, RtspTrust};
use crate::name::{MediaSessionId, NameError, StreamName};
use crate::retry::Backoff;
use policy::SourcePolicy;

/// What a player is told whose source is one too many.
const NO_ROOM: &str = "The server has no room for more";
/// How many commands may wait for the supervisor.
const QUEUE: usize = 256;

/// Which REST family started an agent. `/pull/rtmp/*` and `/rtsp/*` see every agent of their scheme; `/pull/*` sees its
/// own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// `/rest-api/pull/rtmp/*`.
    Rtmp,
    /// `/rest-api/rtsp/*`.
    Rtsp,
    /// `/rest-api/pull/*`.
    Pull,
}

impl Family {
    /// The family of a scheme's own.
    fn of(scheme: Scheme) -> Self {
        match scheme {
            Scheme::Rtmp => Self::Rtmp,
            Scheme::Rtsp => Self::Rtsp,
            Scheme::Wcs => Self::Pull,
        }
    }

    /// The scheme it is for; `None` for all.
    fn scheme(self) -> Option<Scheme> {
        match self {
            Self::Rtmp => Some(Scheme::Rtmp),
            Self::Rtsp => Some(Scheme::Rtsp),
            Self::Pull => None,
        }
    }
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

impl PullRequest {
    /// What a player asks for.
    fn on_demand(uri: SourceUri, remote_name: Option<StreamName>) -> Self {
        Self {
            family: Family::of(uri.scheme()),
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
    /// The server may not be dialled.
    #[error(transparent)]
    Barred(#[from] Barred),
    /// wss is not allowed.
    #[error(transparent)]
    Uri(#[from] UriError),
    /// The address does not say which stream, and nothing else does.
    #[error("the field remoteStreamName is missing: which stream of {0} is wanted?")]
    NoRemoteName(SourceUri),
    /// The local name is taken, or the server is closing.
    #[error(transparent)]
    Publish(#[from] PublishError),
    /// The URI cannot be a stream name.
    #[error("the local stream name: {0}")]
    Name(#[from] NameError),
    /// There are as many as there may be.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// The family pulls addresses of another scheme.
    #[error("{0} is not for this call: {1}")]
    OtherFamily(String, &'static str),
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
    /// Who is refused.
    pub admission: Admission,
    /// What a pulled RTMP stream may bring.
    pub policy: Arc<SourcePolicy>,
    /// Longest time from dialling to the server's answer.
    pub connect_timeout: Duration,
    /// Longest silence of a source.
    pub stall_timeout: Duration,
    /// When to dial again.
    pub backoff: Backoff,
    /// What holds for RTMP sources.
    pub rtmp: Rules,
    /// What holds for RTSP sources.
    pub rtsp: Rules,
    /// How RTSP sources send.
    pub rtsp_transport: RtspTransport,
    /// Which servers may be dialled.
    pub reach: Reach,
    /// Whose certificates RTSP sources may show.
    pub rtsp_trust: RtspTrust,
    /// What other WCS servers are called with.
    pub wcs: wcs::Tools,
}

/// A cheap handle on the supervisor.
#[derive(Clone)]
pub struct Pulls {
    hub: Hub,
    commands: mpsc::Sender<Command>,
    agents: watch::Receiver<Arc<Vec<Agent>>>,
    origins: wcs::Origins,
    reach: Reach,
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
        let (hub, reach) = (tools.hub.clone(), tools.reach.clone());
        let (goners, gone) = mpsc::unbounded_channel();
        let closing = CancellationToken::new();
        let origins = wcs::Origins::start(tools.wcs.origins.clone(), tools.wcs.dial.clone(), tasks);
        let supervisor = Supervisor { tools, list, tasks: tasks.clone(), goners, closing: closing.clone() };
        tasks.spawn(supervisor.run(inbox, gone));
        Self { hub, commands, agents, origins, reach, closing }
    }

    /// Starts an agent. It publishes its name at once and then dials.
    ///
    /// # Errors
    /// See [`PullError`].
    pub async fn pull(&self, request: PullRequest) -> Result<(), PullError> {
        // An edge's origins are its operator's choice.
        if !(request.on_demand && request.uri.scheme() == Scheme::Wcs) {
            self.may_be_dialled(&request.uri).await?;
        }
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
        self.may_be_dialled(&request.uri).await?;
        let (reply, answer) = oneshot::channel();
        let asked = self.commands.send(Command::Push(request, reply)).await;
        asked.map_err(|_| PublishError::Closing)?;
        answer.await.map_err(|_| PublishError::Closing)?
    }

    /// Where its streams are published.
    pub fn hub(&self) -> &Hub {
        &self.hub
    }

    /// Says so at once where a rule bars a server. A name that is not found now is looked for again by its agent.
    async fn may_be_dialled(&self, uri: &SourceUri) -> Result<(), Barred> {
        match self.reach.addresses(uri).await {
            Err(barred) if barred.by_rule() => {
                tracing::info!("{barred}");
                Err(barred)
            }
            _ => Ok(()),
        }
    }

    /// The stream a player asks for: one that exists, one that is pulled because its name is an address, or one that an
    /// origin of this edge has.
    ///
    /// # Errors
    /// WCS's `info`: "Stream not found", "Bad URI", "CDN stream not found", "Restricted access", "Requested stream
    /// shutdown".
    pub async fn stream_for(&self, name: &StreamName) -> Result<StreamHandle, &'static str> {
        if self.hub.streams().contains_key(name) || !name.as_str().contains("://") {
            return self.stream_named(name).await;
        }
        let scheme = Scheme::of(name.as_str()).filter(|scheme| *scheme != Scheme::Wcs);
        let scheme = scheme.ok_or("Failed to get agent storage")?;
        let uri = SourceUri::parse(name.as_str()).map_err(|_| scheme.malformed())?;
        self.pulled(name, PullRequest::on_demand(uri, None)).await
    }

    /// The same for players whose names are no addresses: a stream that exists, or one that an origin of this edge has.
    ///
    /// # Errors
    /// See [`Pulls::stream_for`].
    pub async fn stream_named(&self, name: &StreamName) -> Result<StreamHandle, &'static str> {
        if let Some(stream) = self.hub.streams().get(name) {
            return Ok(stream.clone());
        }
        if name.as_str().contains("://") {
            return Err("Stream not found");
        }
        let origin = self.origins.find(name).await.unwrap_or(Err("Stream not found"))?;
        self.pulled(name, PullRequest::on_demand(origin, Some(name.clone()))).await
    }

    /// The stream of a pull that a player of `name` starts, or has joined.
    async fn pulled(&self, name: &StreamName, request: PullRequest) -> Result<StreamHandle, &'static str> {
        let find = |name: &StreamName| self.hub.streams().get(name).cloned().ok_or("Stream not found");
        match self.pull(request).await {
            // Another player was faster, or a pull has it under another name.
            Ok(()) | Err(PullError::Publish(PublishError::NameTaken(_))) => find(name),
            Err(PullError::AlreadyPulled { uri: _, stream }) => find(&stream),
            Err(PullError::Publish(PublishError::Closing)) => Err(STOPPED_BY_SHUTDOWN),
            Err(PullError::Barred(_)) => Err("Restricted access"),
            Err(PullError::Publish(PublishError::Refused(_)) | PullError::Refused(_)) => Err(NO_ROOM),
            Err(_) => Err("Bad URI"),
        }
    }

    /// Every agent, whoever started it.
    pub fn all(&self) -> Vec<Agent> {
        self.agents.borrow().to_vec()
    }

    /// The agents a family sees.
    pub fn seen_by(&self, family: Family) -> Vec<Agent> {
        let sees = |agent: &&Agent| match family.scheme() {
            Some(scheme) => agent.uri.scheme() == scheme,
            None => agent.family == family,
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
    /// What it dials with.
    pub fn scheme(&self) -> Scheme {
        self.uri.scheme()
    }

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
        same && (self.uri.scheme() != Scheme::Wcs || same_name())
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
        let scheme = request.uri.scheme();
        if request.family.scheme().is_some_and(|own| own != scheme) {
            return Err(PullError::OtherFamily(request.uri.to_string(), scheme.calls()));
        }
        if scheme == Scheme::Wcs {
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
        let place = self.tools.admission.agent()?;
        let session = MediaSessionId::random();
        let publisher = self.publisher(&request, session.clone())?;
        let publication = self.tools.hub.publish(publisher).await?;
        let stop = CancellationToken::new();
        let ends = agent::Ends { stop: stop.clone(), closing: self.closing.clone() };
        let (job, view) = agent::new(request.clone(), publication, self.tools.clone(), ends);
        let PullRequest { uri, remote_name, family, .. } = request;
        self.run_agent(Agent { uri, remote_name, family, view, stop }, session, job.run(), place);
        Ok(())
    }

    fn push(&self, request: PushRequest) -> Result<(), PullError> {
        if request.uri.scheme() != Scheme::Wcs {
            return Err(PullError::OtherFamily(request.uri.to_string(), "streams are pushed to ws and wss addresses"));
        }
        self.tools.wcs.check(&request.uri)?;
        if self.list.borrow().iter().any(|agent| agent.pushes(&request)) {
            return Err(PullError::AlreadyPushed { uri: request.uri.to_string(), stream: request.remote_name });
        }
        if !self.tools.hub.streams().contains_key(&request.local_name) {
            return Err(PullError::NoStream(request.local_name));
        }
        let place = self.tools.admission.agent()?;
        let session = MediaSessionId::random();
        let stop = CancellationToken::new();
        let ends = agent::Ends { stop: stop.clone(), closing: self.closing.clone() };
        let (job, view) = wcs::Push::new(request.clone(), session.clone(), self.tools.clone(), ends);
        let PushRequest { uri, remote_name, .. } = request;
        let agent = Agent { uri, remote_name: Some(remote_name), family: Family::Pull, view, stop };
        self.run_agent(agent, session, job.run(), place);
        Ok(())
    }

    /// Lists an agent and runs it to its end.
    fn run_agent(
        &self,
        agent: Agent,
        session: MediaSessionId,
        run: impl Future<Output = watch::Sender<AgentView>> + Send + 'static,
        place: Place,
    ) {
        self.list.send_modify(|agents| Arc::make_mut(agents).push(agent));
        let goners = self.goners.clone();
        self.tasks.spawn(async move {
            let view = run.await;
            drop(place);
            // A supervisor that is gone has no list.
            let _ = goners.send(Ended { session, _view: view });
        });
    }

    fn publisher(&self, request: &PullRequest, session: MediaSessionId) -> Result<Publisher, NameError> {
        let name = match request.local_name.as_ref().or(request.remote_name.as_ref()) {
            Some(name) => name.clone(),
            None => StreamName::new(request.uri.secret())?,
        };
        let scheme = request.uri.scheme();
        let record = request.record || self.tools.rules(scheme).record_all;
        Ok(Publisher {
            name,
            session,
            app_key: "defaultApp".into(),
            connection: request.uri.to_string(),
            login: None,
            provider: scheme.provider(),
            media_type: scheme.media_type(),
            transport: self.tools.transport(&request.uri),
            record: record.then(|| self.tools.recorded(scheme)),
            by: format!("{} pull of {}", scheme.media_type(), request.uri),
        })
    }

    fn forget(&self, session: MediaSessionId) {
        self.list.send_modify(|agents| Arc::make_mut(agents).retain(|agent| agent.view().session != session));
    }
}
