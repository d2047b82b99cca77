//! Pull agents: our clients that dial remote servers and publish what they get.
//!
//! The supervisor's task owns the list of agents; each agent is a task of its own ([`agent`]). What differs between the
//! protocols of sources is in [`scheme`]; what a pulled RTMP stream may bring is decided by [`policy`].

mod address;
mod agent;
pub mod policy;
mod scheme;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use address::{Scheme, SourceUri, UriError};
pub use agent::{AgentStatus, AgentView};
pub use scheme::{RtspTransport, Rules};

use crate::admission::{Admission, Refused};
use crate::hub::{Hub, PublishError, Publisher, StreamHandle};
use crate::media::{Catalog, Pipelines};
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
    /// The stream's name here; the URI itself where absent.
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
}

/// A cheap handle on the supervisor.
#[derive(Clone)]
pub struct Pulls {
    hub: Hub,
    commands: mpsc::Sender<Command>,
    agents: watch::Receiver<Arc<Vec<Agent>>>,
    closing: CancellationToken,
}

/// An agent's handle.
#[derive(Clone)]
pub struct Agent {
    uri: SourceUri,
    family: Family,
    view: watch::Receiver<AgentView>,
    stop: CancellationToken,
}

enum Command {
    Pull(PullRequest, oneshot::Sender<Result<(), PullError>>),
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
        let supervisor = Supervisor { tools, list, tasks: tasks.clone(), goners, closing: closing.clone() };
        tasks.spawn(supervisor.run(inbox, gone));
        Self { hub, commands, agents, closing }
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

    /// The stream a player asks for: one that exists, or one that is pulled because its name is an address.
    ///
    /// # Errors
    /// WCS's `info`: "Stream not found", "Bad URI", "Requested stream shutdown".
    pub async fn stream_for(&self, name: &StreamName) -> Result<StreamHandle, &'static str> {
        let find = || self.hub.streams().get(name).cloned();
        if let Some(stream) = find() {
            return Ok(stream);
        }
        if !name.as_str().contains("://") {
            return Err("Stream not found");
        }
        let scheme = Scheme::of(name.as_str()).ok_or("Failed to get agent storage")?;
        let uri = SourceUri::parse(name.as_str()).map_err(|_| scheme.malformed())?;
        let request = PullRequest {
            family: Family::of(scheme),
            uri,
            local_name: None,
            record: false,
            has_audio: true,
            has_video: true,
            on_demand: true,
        };
        match self.pull(request).await {
            // Another player was faster, or a pull has it under another name.
            Ok(()) | Err(PullError::Publish(PublishError::NameTaken(_))) => find().ok_or("Stream not found"),
            Err(PullError::AlreadyPulled { uri: _, stream }) => {
                self.hub.streams().get(&stream).cloned().ok_or("Stream not found")
            }
            Err(PullError::Publish(PublishError::Closing)) => Err("Requested stream shutdown"),
            Err(PullError::Publish(PublishError::Refused(_)) | PullError::Refused(_)) => Err(NO_ROOM),
            Err(PullError::Name(_) | PullError::NoTracks | PullError::OtherFamily(..)) => Err("Bad URI"),
        }
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
    /// The agent as it is.
    pub fn view(&self) -> AgentView {
        self.view.borrow().clone()
    }

    /// Whether it pulls this address, written as the caller wrote it or as lists show it.
    pub fn pulls(&self, uri: &str) -> bool {
        self.uri.secret() == uri || self.uri.to_string() == uri
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
        let running = self.list.borrow().clone();
        let same = running.iter().find(|agent| agent.family == request.family && agent.uri == request.uri);
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
        let agent = Agent { uri: request.uri, family: request.family, view, stop };
        self.list.send_modify(|agents| Arc::make_mut(agents).push(agent));
        let goners = self.goners.clone();
        self.tasks.spawn(async move {
            let view = job.run().await;
            drop(place);
            // A supervisor that is gone has no list.
            let _ = goners.send(Ended { session, _view: view });
        });
        Ok(())
    }

    fn publisher(&self, request: &PullRequest, session: MediaSessionId) -> Result<Publisher, NameError> {
        let name = match &request.local_name {
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
            provider: scheme.provider(),
            media_type: scheme.media_type(),
            transport: self.tools.transport(scheme),
            record: record.then(|| self.tools.recorded(scheme)),
            by: format!("{} pull of {}", scheme.media_type(), request.uri),
        })
    }

    fn forget(&self, session: MediaSessionId) {
        self.list.send_modify(|agents| Arc::make_mut(agents).retain(|agent| agent.view().session != session));
    }
}
