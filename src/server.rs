//! The server as a whole: the only place that knows every part. It builds them in order and drains them in reverse.

mod listeners;

use std::future::Future;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
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
use crate::config::{self, Config, RecordPolicy};
use crate::event::{self, Events};
use crate::gate::Gate;
use crate::hook::{Applications, Hooks};
use crate::hub::{Connections, Hub};
use crate::listen::Listener;
use crate::media::{self, Catalog, PeerOptions, Pipelines, RtspTrust};
use crate::meter::Meter;
use crate::picture::Pictures;
use crate::pull::policy::SourcePolicy;
use crate::pull::wcs::{Dial, Limits};
use crate::pull::{self, Pulls, Reach, RtspTransport, Rules, SourceUri};
use crate::record::name::{NameRules, STREAM_NAME_TEMPLATE};
use crate::record::recover::Owned;
use crate::record::{self, Index, Recorders, Retention, Script, Scripts};
use crate::retry::Backoff;
use crate::rtmp;
use crate::signal::Signal;
use crate::store::Store;
use crate::trust::Trust;
use crate::users::{ADMIN, Users};
use crate::webrtc::play::{self, Plays};
use crate::webrtc::publish;
use crate::webrtc::relay::{Listen, Relay, RelayConfig};

use listeners::Listeners;

/// The file under the data directory that names the ports in use.
pub const PORTS: &str = "ports.json";

/// How many pings in a row another server may leave without a sign of life.
const PROBES: u32 = 3;

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
        let script = script(&config);
        let scripted = script.is_some();
        let recovery = move || {
            let index = Index::open(&dir, scripted);
            (record::recover::own(&index, &found), index)
        };
        let (owned, index) = tokio::task::spawn_blocking(recovery).await?;
        let admission = Admission::new(config.limits.clone(), meter.clone());
        let hub = Hub::start(events, admission.clone(), &tasks);
        let hooks = start_hooks(&config, applications.clone(), (&store, &hub), meter.clone(), &tasks).await?;
        let running = Pipelines::default();
        let gate = gate(&config, meter.clone());
        let scripts = Scripts::start(script, index.clone(), hub.events().clone(), &tasks);
        let recorders = Recorders::start(
            record::Tools {
                catalog: catalog.clone(),
                pipelines: running.clone(),
                hub: hub.clone(),
                admission: admission.clone(),
                rules: Arc::new(rules(&config, records)),
                index: index.clone(),
                retention: Retention { max_age: config.record.max_age, max_total: config.record.max_total },
            },
            &owned,
            &tasks,
        );
        let pulls = Pulls::start(
            pull_tools(&config, catalog.clone(), running.clone(), (hub.clone(), admission.clone()), gate.clone())?,
            &tasks,
        );
        let relay = Arc::new(Relay::start(relay_config(&config)).context("the viewers' port (webrtc.port)")?);
        let play_tools = play::Tools {
            catalog: catalog.clone(),
            pipelines: running.clone(),
            relay: relay.clone(),
            meter: meter.clone(),
        };
        let connections = Connections::default();
        let parts = (catalog.clone(), running.clone(), pulls.clone(), hooks.clone(), admission.clone());
        let encoders = rtmp_tools(&config, parts, (gate.clone(), meter.clone()), &tasks);
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
            publish: publish_tools(&config, catalog, running.clone(), hub.clone()),
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
fn unusable(what: impl Into<String>) -> config::Unusable {
    config::Unusable(what.into())
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

fn script(config: &Config) -> Option<Script> {
    let record = &config.record;
    let path = record.hook_script.clone()?;
    if !path.is_file() {
        tracing::warn!(
            "there is no file {} (on_record_hook_script): recordings are kept, and nothing sees them",
            path.display()
        );
    }
    // The script's working directory is another one.
    Some(Script { path: std::path::absolute(&path).unwrap_or(path), limit: record.hook_timeout })
}

fn rules(config: &Config, dir: PathBuf) -> record::Rules {
    let record = &config.record;
    let template = match record.policy {
        RecordPolicy::StreamName => STREAM_NAME_TEMPLATE.to_owned(),
        RecordPolicy::Template => record.template.clone(),
    };
    record::Rules {
        dir,
        cut: record::cut(record.rotation),
        names: NameRules { template, encoding: record.name_encoding, exclude: record.excluded_characters.clone() },
        formats: record.formats,
        webm_audio: record.webm_audio,
        sample_rate: record.sample_rate,
        min_free_space: record.min_free_space,
    }
}

fn gate(config: &Config, meter: Meter) -> Gate {
    if config.gate.is_weak() {
        tracing::warn!("stream_token_secret has fewer than 16 characters: it can be guessed from one token");
    }
    Gate::new(&config.gate, meter)
}

fn pull_tools(
    config: &Config,
    catalog: Catalog,
    pipelines: Pipelines,
    (hub, admission): (Hub, Admission),
    gate: Gate,
) -> Result<pull::Tools> {
    let pull = &config.pull;
    let policy = match &pull.rtmp_agent_sdp {
        None => SourcePolicy::default(),
        Some(file) => {
            let text = std::fs::read_to_string(file);
            let text = text.with_context(|| unusable(format!("cannot read {} (rtmp_agent_sdp)", file.display())))?;
            SourcePolicy::parse(&text).with_context(|| unusable(format!("{} (rtmp_agent_sdp)", file.display())))?
        }
    };
    Ok(pull::Tools {
        catalog,
        pipelines,
        hub,
        admission,
        policy: Arc::new(policy),
        connect_timeout: pull.connect_timeout,
        stall_timeout: pull.stall_timeout,
        backoff: Backoff {
            initial: pull.reconnect.initial,
            max: pull.reconnect.max,
            attempts: pull.reconnect.attempts.map_or(0, |attempts| attempts.get()),
        },
        rtmp: Rules { record_all: config.record.every_rtmp, idle_timeout: pull.rtmp_idle_timeout },
        rtsp: Rules { record_all: config.record.every_rtsp, idle_timeout: pull.rtsp.idle_timeout },
        reach: reach(config),
        rtsp_transport: if pull.rtsp.interleaved { RtspTransport::Interleaved } else { RtspTransport::Udp },
        rtsp_trust: rtsp_trust(&pull.rtsp)?,
        wcs: wcs_tools(config, gate)?,
    })
}

fn reach(config: &Config) -> Reach {
    Reach::new(&config.pull.allow, &config.pull.deny)
}

fn rtsp_trust(rtsp: &config::Rtsp) -> Result<RtspTrust> {
    if let Some(address) = rtsp.client_address {
        tracing::warn!(
            "rtsp_client_address={address} has no effect: the system's routes choose the address that cameras are dialled \
             from (ip route add NETWORK via GATEWAY src {address})"
        );
    }
    if rtsp.insecure {
        tracing::warn!("rtsp_insecure=true: certificates of cameras are NOT verified; anybody may listen in");
    }
    RtspTrust::new(rtsp.ca_file.clone(), rtsp.insecure).map_err(|reason| unusable(reason).into())
}

fn wcs_tools(config: &Config, gate: Gate) -> Result<pull::wcs::Tools> {
    let wcs = &config.wcs;
    if wcs.insecure {
        tracing::warn!(
            "wcs_agent_insecure=true: certificates of other servers are NOT verified; anybody may listen in"
        );
    }
    let trust = Trust { ca_file: wcs.ca_file.clone(), setting: "wcs_agent_ca_file", insecure: wcs.insecure };
    let tls = wcs.ssl.then(|| trust.connector()).transpose();
    let limits =
        Limits { greeting: wcs.connect_timeout, answer: wcs.answer_timeout, ping: wcs.ping_interval, probes: PROBES };
    let tls = tls.map_err(|reason| unusable(format!("wss cannot be made (wcs_agent_ssl): {reason}")))?;
    let origins = wcs.origins.iter().map(|origin| SourceUri::parse(origin)).collect::<Result<Vec<_>, _>>();
    let tools = pull::wcs::Tools {
        dial: Dial { limits, connect: wcs.connect_timeout, tls, reach: reach(config), gate },
        options: PeerOptions { addresses: media_addresses(config), ports: config.webrtc.ports },
        media_timeout: wcs.media_timeout,
        origins: origins.context(unusable("an address of cdn_origins cannot be used"))?,
        rules: Rules { record_all: false, idle_timeout: wcs.idle_timeout },
    };
    tools.origins.iter().try_for_each(|origin| tools.check(origin)).context(unusable("an address of cdn_origins"))?;
    Ok(tools)
}

/// The addresses media goes over: `ip_local` where it is one, else every address of the host; its loopback only where it
/// has nothing else.
fn media_addresses(config: &Config) -> Vec<IpAddr> {
    if !config.ip_local.is_unspecified() {
        return vec![config.ip_local];
    }
    let all = if_addrs::get_if_addrs().unwrap_or_else(|error| {
        tracing::warn!("the addresses of this host cannot be listed: {error}");
        Vec::new()
    });
    let link_local = |ip: &IpAddr| matches!(ip, IpAddr::V6(ip) if ip.is_unicast_link_local());
    let addresses: Vec<IpAddr> =
        all.iter().filter(|one| !one.is_loopback()).map(|one| one.ip()).filter(|ip| !link_local(ip)).collect();
    if addresses.is_empty() { vec![Ipv4Addr::LOCALHOST.into()] } else { addresses }
}

async fn start_hooks(
    config: &Config,
    applications: Applications,
    (store, hub): (&Store, &Hub),
    meter: Meter,
    tasks: &TaskTracker,
) -> Result<Hooks> {
    let address = config.webrtc.ip.or_else(|| media_addresses(config).first().copied());
    let address = address.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST));
    Ok(Hooks::start(&config.hooks, applications, store, hub, address, meter, tasks).await?)
}

fn relay_config(config: &Config) -> RelayConfig {
    let listen = media_addresses(config)
        .into_iter()
        .map(|bind| Listen { bind, advertise: config.webrtc.ip.filter(|ip| ip.is_ipv4() == bind.is_ipv4()) });
    RelayConfig { listen: listen.collect(), port: config.webrtc.viewers_port(), ..RelayConfig::default() }
}

fn publish_tools(config: &Config, catalog: Catalog, pipelines: Pipelines, hub: Hub) -> publish::Tools {
    publish::Tools {
        catalog,
        pipelines,
        hub,
        codecs: publish::codecs(&config.webrtc.codecs),
        options: PeerOptions { addresses: media_addresses(config), ports: config.webrtc.ports },
        ip: config.webrtc.ip,
        activity_timeout: config.webrtc.activity_timeout,
    }
}

fn rtmp_tools(
    config: &Config,
    (catalog, pipelines, pulls, hooks, admission): (Catalog, Pipelines, Pulls, Hooks, Admission),
    (gate, meter): (Gate, Meter),
    tasks: &TaskTracker,
) -> rtmp::Tools {
    let settings = &config.rtmp;
    let number = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
    let defaults = rtmp::Limits::default();
    rtmp::Tools {
        sounds: rtmp::Sounds::start(catalog.clone(), pipelines.clone(), tasks),
        catalog,
        pipelines,
        hub: pulls.hub().clone(),
        find: Arc::new(move |name| {
            let pulls = pulls.clone();
            Box::pin(async move { pulls.stream_named(&name).await })
        }),
        gate,
        hooks,
        record: config.record.every_rtmp,
        linger: settings.publisher_linger,
        absent: rtmp::Absent::default(),
        limits: rtmp::Limits {
            // A larger one is read as this (RTMP 1.0 section 5.4.1).
            max_chunk_size: u32::try_from(settings.max_chunk).unwrap_or(u32::MAX).min(0xff_ffff),
            max_media: number(settings.max_message),
            max_partial_bytes: number(settings.max_message.saturating_mul(2)),
            ..defaults
        },
        handshake_timeout: settings.handshake_timeout,
        idle_timeout: settings.idle_timeout,
        places: admission.rtmp(settings.max_connections),
        meter,
        admission,
    }
}
