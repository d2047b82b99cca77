//! The server as a whole: the only place that knows every part. It builds them in order and drains them in reverse.

mod listeners;
mod tools;

use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::admission::Admission;
use crate::api::{self, Access, Api};
use crate::cli::console::Console;
use crate::cli::local::Local;
use crate::cli::ssh::{self, Ssh};
use crate::config::{Config, Unusable};
use crate::event::{self, Events};
use crate::hook::{Applications, Hooks};
use crate::hub::{Connections, Hub};
use crate::listen::Listener;
use crate::media::{self, Catalog, Pipelines};
use crate::meter::Meter;
use crate::picture::Pictures;
use crate::pull::Pulls;
use crate::record::recover::Owned;
use crate::record::{self, Index, Recorders, Retention, Scripts};
use crate::signal::Signal;
use crate::store::Store;
use crate::users::{ADMIN, Users};
use crate::webrtc::play::{self, Plays};
use crate::webrtc::relay::Relay;

use listeners::Listeners;

/// The file under the data directory that names the ports in use.
pub const PORTS: &str = "ports.json";

/// A running server.
pub struct Server {
    config: Config,
    api: Api,
    listeners: Listeners,
    local: Local,
    ssh: Option<Listener>,
    relay: Arc<Relay>,
    recorders: Recorders,
    scripts: Scripts,
    hooks: Hooks,
    tasks: TaskTracker,
    ports: PathBuf,
    /// Held until the end: it keeps a second weir from the data directory.
    _store: Store,
    /// Held until all recordings are finished.
    _records: Owned,
}

impl Server {
    /// Builds every part; everything listens when this returns.
    ///
    /// # Errors
    /// A directory that cannot be made, a template or an SDP file that cannot be used, a port that is taken: in a
    /// sentence for the operator.
    pub async fn start(config: Config, data: &Path, pipelines: Option<&Path>) -> Result<Self> {
        media::init().map_err(anyhow::Error::msg).context("GStreamer does not start")?;
        let catalog = Catalog::load(pipelines).context(unusable("the launch templates cannot be used"))?;
        let catalog = catalog.with_fdk_aac(config.aac.fdk);
        for (_, verdict) in catalog.check() {
            if let media::Verdict::Fails(problem) = verdict {
                tracing::warn!("{problem}");
            }
        }
        let tasks = TaskTracker::new();
        let events = Events::default();
        tasks.spawn(event::log(events.read()));
        let meter = Meter::default();
        meter.follow(&events, &tasks);
        let data = directory(data, "--data")?;
        let place = data.clone();
        let store = tokio::task::spawn_blocking(move || Store::open(&place)).await??;
        let applications = Applications::open(&store).await?;
        let users = users(&store).await?;
        let records = directory(&config.record.dir, "record_dir")?;

        let (dir, found) = (records.clone(), events.clone());
        let script = tools::script(&config);
        let scripted = script.is_some();
        let recovery = move || {
            let index = Index::open(&dir, scripted);
            (record::recover::own(&index, &found), index)
        };
        let (owned, index) = tokio::task::spawn_blocking(recovery).await?;
        let admission = Admission::new(config.limits.clone(), meter.clone());
        let hub = Hub::start(events, admission.clone(), &tasks);
        let hooks = tools::start_hooks(&config, applications.clone(), (&store, &hub), meter.clone(), &tasks).await?;
        let running = Pipelines::default();
        let gate = tools::gate(&config, meter.clone());
        let scripts = Scripts::start(script, index.clone(), hub.events().clone(), &tasks);
        let recorders = Recorders::start(
            record::Tools {
                catalog: catalog.clone(),
                pipelines: running.clone(),
                hub: hub.clone(),
                admission: admission.clone(),
                rules: Arc::new(tools::rules(&config, records)),
                index: index.clone(),
                retention: Retention { max_age: config.record.max_age, max_total: config.record.max_total },
            },
            &owned,
            &tasks,
        );
        let pulls = Pulls::start(
            tools::pulls(&config, catalog.clone(), running.clone(), (hub.clone(), admission.clone()), gate.clone())?,
            &tasks,
        );
        let relay = Arc::new(Relay::start(tools::relay(&config)).context("the viewers' port (webrtc.port)")?);
        let play_tools = play::Tools {
            catalog: catalog.clone(),
            pipelines: running.clone(),
            relay: relay.clone(),
            meter: meter.clone(),
        };
        let connections = Connections::default();
        let parts = (catalog.clone(), running.clone(), pulls.clone(), hooks.clone(), admission.clone());
        let encoders = tools::encoders(&config, parts, (gate.clone(), meter.clone()), &tasks);
        let pictures = Pictures::new(catalog.clone(), running.clone(), hub.clone());
        let console = Console {
            applications,
            users,
            hub: hub.clone(),
            pulls: pulls.clone(),
            recordings: index.clone(),
            settings: config.settings().into(),
        };
        let access = match config.http.auth {
            true => {
                let token = config.http.api_token.clone().map(|token| token.0);
                Access::guarded(console.users.clone(), token, meter.clone())
            }
            false => Access::open(),
        };
        let signal = Signal {
            hub: hub.clone(),
            pulls: pulls.clone(),
            gate: gate.clone(),
            hooks: hooks.clone(),
            publish: tools::publishers(&config, catalog, running.clone(), hub.clone()),
            plays: Plays::start(play_tools, &tasks),
            pictures: pictures.clone(),
            record: config.record.browsers,
            keep_alive: config.signal.keep_alive.clone(),
            connections: connections.clone(),
            admission: admission.clone(),
            tasks: tasks.clone(),
        };
        let ledger = api::Ledger::default();
        ledger.follow(&hub, &tasks);
        let api = Api {
            hub,
            hooks: hooks.clone(),
            pulls,
            pipelines: running,
            pictures,
            connections,
            recorders: recorders.clone(),
            recordings: index,
            web_root: web_root(&config)?,
            min_free_space: config.record.min_free_space,
            media_ports: config.webrtc.ports,
            admission,
            peer: Ipv4Addr::UNSPECIFIED.into(),
            refused: None,
            meter: meter.clone(),
            ledger,
            ports: api::Ports::default(),
            access,
            cors: Arc::new(config.http.cors.clone()),
            max_body: config.http.max_body,
            closing: Arc::new(AtomicBool::new(false)),
            ending: CancellationToken::new(),
        };
        let listeners = Listeners::start(&config, &data, &tasks, (api.clone(), signal, encoders)).await?;
        let ssh = start_ssh(&config, &data, console.clone(), meter).await?;
        let local = Local::start(&data, console).with_context(|| format!("no command line in {}", data.display()))?;
        let ports = data.join(PORTS);
        let server = Self {
            config,
            api,
            listeners,
            local,
            ssh,
            relay,
            recorders,
            scripts,
            hooks,
            tasks,
            ports,
            _store: store,
            _records: owned,
        };
        server.announce()?;
        Ok(server)
    }

    /// The address REST listens on.
    pub fn http(&self) -> SocketAddr {
        self.listeners.http()
    }

    /// Writes the ports in use, in one piece: a reader sees all or nothing.
    fn announce(&self) -> Result<()> {
        let viewers = self.relay.candidates().first().map_or(0, SocketAddr::port);
        let mut ports = self.listeners.ports();
        ports.insert("webrtc.port", viewers);
        let ssh = self.ssh.as_ref().map(Listener::address);
        ports.extend(ssh.map(|ssh| ("ssh.port", ssh.port())));
        self.api.ports.announce(ports.clone());
        let draft = self.ports.with_extension("json.tmp");
        std::fs::write(&draft, serde_json::to_vec(&ports)?)
            .and_then(|()| std::fs::rename(&draft, &self.ports))
            .with_context(|| format!("cannot write {}", self.ports.display()))?;
        tracing::info!("weir {} with {}", env!("CARGO_PKG_VERSION"), media::version());
        self.listeners.announce();
        tracing::info!("listening: viewers' media on UDP {viewers} (webrtc.port)");
        if let Some(ssh) = ssh {
            tracing::info!("listening: command line on ssh://{ssh} (ssh.port)");
        }
        Ok(())
    }

    /// Ends everything in order: no new work, recordings finished, pulls stopped, listeners closed. True when all of it
    /// was done within `shutdown_timeout`.
    pub async fn stop(self) -> bool {
        let until = Instant::now() + self.config.shutdown_timeout;
        tracing::info!("shutting down");
        self.api.close();
        let left = || until.saturating_duration_since(Instant::now());
        let mut complete = step("recordings are finished", self.recorders.finish(left())).await;
        complete &= step("browsers are gone", self.listeners.stop_ws(left())).await;
        complete &= step("pulls are stopped", within(left(), self.api.pulls.stop_all())).await;
        // After the pulls: one may have this server as its source.
        complete &= step("RTMP clients are gone", self.listeners.stop_rtmp(left())).await;
        // After all that it tells of.
        complete &= step("hook servers are told", within(left(), self.hooks.finish())).await;
        complete &= step("REST is closed", self.listeners.stop_http(left())).await;
        let (local, ssh) = (self.local.stop(left()), async {
            match self.ssh {
                Some(ssh) => ssh.stop(left()).await,
                None => true,
            }
        });
        complete &= step("the command line is closed", async { tokio::join!(local, ssh) == (true, true) }).await;
        // One that hangs is the operator's: its file is in place, and seen again by the next start.
        step("hook scripts have ended", self.scripts.finish(left())).await;
        drop((self.api, self.recorders, self.scripts, self.hooks, self.listeners));
        self.tasks.close();
        complete &= step("all is ended", within(left(), self.tasks.wait())).await;
        // A file that names ports nobody listens on misleads; one that is gone already does not.
        let _ = std::fs::remove_file(&self.ports);
        complete
    }
}

/// What the operator has to mend before another start is of use.
fn unusable(what: impl Into<String>) -> Unusable {
    Unusable(what.into())
}

async fn within(deadline: Duration, job: impl Future<Output = ()>) -> bool {
    tokio::time::timeout(deadline, job).await.is_ok()
}

async fn step(done: &str, job: impl Future<Output = bool>) -> bool {
    let began = Instant::now();
    let complete = job.await;
    let ms = began.elapsed().as_millis() as u64;
    if complete {
        tracing::info!(ms, "shutdown: {done}");
    } else {
        tracing::warn!(ms, "shutdown: gave up waiting until {done}");
    }
    complete
}

/// Makes a directory where it is missing; gives its absolute path.
fn directory(path: &Path, setting: &str) -> Result<PathBuf> {
    std::fs::create_dir_all(path)
        .and_then(|()| path.canonicalize())
        .with_context(|| format!("cannot make the directory {} ({setting})", path.display()))
}

/// The command line over SSH, where it is switched on.
async fn start_ssh(config: &Config, data: &Path, console: Console, meter: Meter) -> Result<Option<Listener>> {
    let settings = &config.ssh;
    let Some(port) = settings.port else { return Ok(None) };
    let options = ssh::Options {
        authorized_keys: settings.authorized_keys.clone(),
        idle_timeout: settings.idle_timeout,
        max_connections: usize::try_from(settings.max_connections).unwrap_or(usize::MAX),
    };
    let data = data.to_owned();
    let ssh = tokio::task::spawn_blocking(move || Ssh::new(&data, options, console, meter)).await??;
    let serve = move |stream, peer, stop| ssh::serve(ssh.clone(), stream, peer, stop);
    let address = SocketAddr::new(config.ip_local, port);
    let listener = Listener::start(address, serve).await;
    listener.with_context(|| format!("cannot listen on {address} (ssh.port)")).map(Some)
}

/// The users there are. The password of a new installation is told here, and nowhere else.
async fn users(store: &Store) -> Result<Users> {
    let (users, first) = Users::open(store).await?;
    if let Some(first) = first {
        let change = "change it with `weir ctl passwd`";
        tracing::info!("the command line's user {ADMIN} is new, with the password {} ({change})", first.0);
    }
    Ok(users)
}

/// The operator's folder of pages, which is theirs to make.
fn web_root(config: &Config) -> Result<Option<Arc<Path>>> {
    let Some(folder) = &config.http.web_root else { return Ok(None) };
    let real = folder
        .canonicalize()
        .with_context(|| unusable(format!("cannot use the folder {} (web_root)", folder.display())))?;
    if !real.is_dir() {
        bail!(unusable(format!("{} is no folder (web_root)", folder.display())));
    }
    Ok(Some(real.into()))
}
