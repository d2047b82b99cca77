//! Control from outside: hook servers are asked and told what happens (wcs.md section 4).
//!
//! | file | what |
//! |---|---|
//! | [`application`] | what hooks belong to: key, URL, enabled methods |
//! | [`policy`] | `restClientConfig`, and what an answer means; pure |
//! | [`session`] | one connection: what `connect` was answered, for its life |
//! | `client` | one call over HTTP |
//! | `line`, `delivery` | events in their order, until they are delivered |
//! | `journal` | what waits, as it survives a restart |
//! | `beats`, `keep_alive` | StreamKeepAliveEvent, spread over the interval |
//! | `complaint` | what goes wrong: counted, logged once a minute |
//!
//! Operations that a hook server may refuse wait for its verdict ([`Session::ask`]), each in the task of who asks. What
//! happened is told ([`Session::tell`]) and delivered by a task of its own. So a hook server that is slow or dead delays
//! its own verdicts and nothing else.

pub mod application;
mod beats;
mod client;
mod complaint;
mod delivery;
mod follow;
mod journal;
mod keep_alive;
mod line;
pub mod policy;
pub mod session;

use std::net::IpAddr;
use std::sync::Arc;

use data_encoding::BASE32_NOPAD;
use tokio::sync::{Mutex, mpsc};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use application::{Application, Applications, Method};
pub use complaint::Counts;
pub use policy::{Object, Verdict};
pub use session::{Caller, Session};

use crate::config;
use crate::hub::Hub;
use crate::meter::Meter;
use crate::store::{Change, Store, StoreError};
use client::Client;
use complaint::Complaints;
use delivery::Deliveries;
use policy::Outcome;
use session::Sessions;

/// Why hooks do not start.
#[derive(Debug, thiserror::Error)]
pub enum HookError {
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The file of events that wait.
    #[error("events for hook servers cannot be kept: {0}")]
    Journal(#[from] std::io::Error),
    /// The HTTP client.
    #[error("{0}")]
    Client(String),
}

/// Why somebody may not connect: the text for the client.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Nobody has named the application.
    #[error("there is no application with this appKey")]
    NoApplication,
    /// The hook server says so, or says nothing.
    #[error("{0}")]
    Declined(String),
}

/// Asks and tells hook servers. A cheap handle.
#[derive(Clone)]
pub struct Hooks(Arc<Shared>);

struct Shared {
    applications: Applications,
    client: Client,
    complaints: Complaints,
    sessions: Sessions,
    deliveries: Deliveries,
    enabled: bool,
    /// `nodeId`: which of an operator's servers this is.
    node: String,
    ending: CancellationToken,
    /// Connections that are over, for who tells the statuses of their streams.
    leavers: mpsc::UnboundedSender<(Arc<Session>, String)>,
    /// Who that is.
    follower: Mutex<Option<JoinHandle<()>>>,
}

impl Hooks {
    /// Starts delivering, and the keep-alive where it is switched on. `address` is a part of the node's id.
    ///
    /// # Errors
    /// See [`HookError`].
    pub async fn start(
        settings: &config::Hooks,
        applications: Applications,
        store: &Store,
        hub: &Hub,
        address: IpAddr,
        meter: Meter,
        tasks: &TaskTracker,
    ) -> Result<Self, HookError> {
        let client = Client::new(settings, meter).map_err(HookError::Client)?;
        let (complaints, sessions) = (Complaints::default(), Sessions::default());
        let tools = delivery::Tools {
            applications: applications.clone(),
            client: client.clone(),
            complaints: complaints.clone(),
            sessions: sessions.clone(),
            limit: usize::try_from(settings.queue).unwrap_or(usize::MAX),
            age: settings.queue_time,
        };
        let ending = CancellationToken::new();
        let (leavers, left) = mpsc::unbounded_channel();
        let hooks = Self(Arc::new(Shared {
            applications,
            client,
            complaints,
            sessions,
            deliveries: Deliveries::start(tools, store.directory(), tasks).await?,
            enabled: settings.enabled,
            node: format!("{}@{address}", node(store).await?),
            ending: ending.clone(),
            leavers,
            follower: Mutex::default(),
        }));
        let follower = tasks.spawn(follow::run(hooks.clone(), hub.events().read(), left, ending.clone()));
        *hooks.0.follower.lock().await = Some(follower);
        if settings.enabled && settings.keep_alive.enabled {
            tasks.spawn(keep_alive::run(hooks.clone(), hub.clone(), settings.keep_alive.clone(), ending));
        }
        Ok(hooks)
    }

    /// Asks whether somebody may connect; what is answered holds for the life of the session.
    ///
    /// # Errors
    /// See [`Refusal`].
    pub async fn connect(&self, caller: Caller) -> Result<Arc<Session>, Refusal> {
        // Otherwise a client would get round the hooks of an application by naming one that is not there.
        if self.0.applications.with_key(&caller.app_key).is_none() {
            return Err(Refusal::NoApplication);
        }
        let body = || {
            let mut fields = caller.fields.clone();
            self.sign(&mut fields, &caller.app_key, &caller.id);
            fields
        };
        let policies = match self.call(&caller.app_key, Method::Connect, body).await {
            Some(outcome) => session::admitted(&outcome).map_err(Refusal::Declined)?,
            None => policy::Policies::default(),
        };
        let session = Session::start(self.clone(), caller, policies);
        session.connection_status("ESTABLISHED", None);
        Ok(session)
    }

    /// What was counted for each application.
    pub fn counts(&self) -> std::collections::BTreeMap<String, Counts> {
        self.0.complaints.counts()
    }

    /// Ends: what can be delivered at once is, the rest is kept for the next start. Nothing is told after this.
    pub async fn finish(&self) {
        self.0.ending.cancel();
        if let Some(follower) = self.0.follower.lock().await.take() {
            let _ = follower.await;
        }
        self.0.deliveries.finish().await;
    }

    /// Whether a method of an application is called.
    fn calls(&self, app_key: &str, method: Method) -> bool {
        self.endpoint(app_key, method).is_some()
    }

    fn endpoint(&self, app_key: &str, method: Method) -> Option<(Arc<Application>, String)> {
        let application = self.0.applications.with_key(app_key).filter(|_| self.0.enabled)?;
        let url = application.endpoint(method)?;
        Some((application, url))
    }

    /// Calls a method and waits; `None` where it is not called.
    async fn call(&self, app_key: &str, method: Method, body: impl FnOnce() -> Object) -> Option<Outcome> {
        let (application, url) = self.endpoint(app_key, method)?;
        let outcome = self.0.client.call(&application, &url, method, &body()).await;
        match outcome.error() {
            Some(error) => {
                self.0.complaints.count(app_key, |counts| counts.failed += 1);
                self.0.complaints.warn(app_key, method.name(), &error);
            }
            None => self.0.complaints.count(app_key, |counts| counts.answered += 1),
        }
        Some(outcome)
    }

    /// Calls a method once, without counting; `None` where it is not called.
    async fn once(&self, app_key: &str, method: Method, body: String) -> Option<Outcome> {
        let (application, url) = self.endpoint(app_key, method)?;
        Some(self.0.client.once(&application, &url, method, body).await)
    }

    /// Tells an event, where anybody is to be told.
    fn tell(&self, app_key: &str, method: Method, lane: &str, body: impl FnOnce() -> Object) {
        if self.calls(app_key, method) {
            self.0.deliveries.tell(app_key, method, lane, &client::text(&body()));
        }
    }

    /// Waits until what was told of a connection has arrived.
    async fn in_turn(&self, app_key: &str, lane: &str) {
        self.0.deliveries.in_turn(app_key, lane).await;
    }

    fn over_after_statuses(&self, session: Arc<Session>, info: &str) {
        // The follower ends with the server, which has told all it had to by then.
        let _ = self.0.leavers.send((session, info.to_owned()));
    }

    /// Puts into a body whose it is.
    fn sign(&self, fields: &mut Object, app_key: &str, connection: &str) {
        fields.insert("nodeId".into(), self.0.node.clone().into());
        fields.insert("appKey".into(), app_key.into());
        fields.insert("sessionId".into(), connection.into());
    }

    fn session(&self, connection: &str) -> Option<Arc<Session>> {
        self.0.sessions.get(connection)
    }

    fn sessions(&self) -> &Sessions {
        &self.0.sessions
    }

    fn complaints(&self) -> &Complaints {
        &self.0.complaints
    }
}

/// The random part of the node's id, made at the first start.
async fn node(store: &Store) -> Result<String, StoreError> {
    let table = store.table::<String>("node");
    let work = move || {
        if let Some(id) = table.all()?.remove("id") {
            return Ok(id);
        }
        let id = BASE32_NOPAD.encode(&rand::random::<[u8; 20]>());
        table.write([Change::Put("id".to_owned(), id.clone())])?;
        Ok(id)
    };
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|_| Ok("node".to_owned()))
}
