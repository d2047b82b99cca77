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
use crate::api::{self, Api};
use crate::config::{Config, RecordPolicy, Rotation};
use crate::event::{self, Events};
use crate::hub::{Connections, Hub};
use crate::media::{self, Catalog, CutRule, PeerOptions, Pipelines};
use crate::meter::Meter;
use crate::picture::Pictures;
use crate::pull::policy::SourcePolicy;
use crate::pull::{self, Pulls, RtspTransport, Rules};
use crate::record::name::{NameRules, STREAM_NAME_TEMPLATE};
use crate::record::recover::Owned;
use crate::record::{self, Recorders};
use crate::retry::Backoff;
use crate::rtmp;
use crate::signal::Signal;
use crate::store::Store;
use crate::webrtc::play::{self, Plays};
use crate::webrtc::publish;
use crate::webrtc::relay::{Listen, Relay, RelayConfig};

use listeners::Listeners;

/// The file under the data directory that names the ports in use.
pub const PORTS: &str = "ports.json";

/// A running server.
pub struct Server {
    config: Config,
    api: Api,
    listeners: Listeners,
    relay: Arc<Relay>,
    recorders: Recorders,
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
        let catalog = Catalog::load(pipelines).context("the launch templates cannot be used")?;
        let catalog = catalog.with_fdk_aac(config.aac.fdk);
        for (_, verdict) in catalog.check() {
            if let media::Verdict::Fails(problem) = verdict {
                tracing::warn!("{problem}");
            }
        }
        let tasks = TaskTracker::new();
        let events = Events::default();
        tasks.spawn(event::log(events.read()));
        let told = events.read();
        let meter = Meter::default();
        meter.follow(&events, &tasks);
        let data = directory(data, "--data")?;
        let place = data.clone();
        let store = tokio::task::spawn_blocking(move || Store::open(&place)).await??;
        let records = directory(&config.record.dir, "record_dir")?;

        let found = (records.clone(), events.clone());
        let owned = tokio::task::spawn_blocking(move || record::recover::own(&found.0, &found.1)).await?;
        let admission = Admission::new(config.limits.clone(), meter.clone());
        let hub = Hub::start(events, admission.clone(), &tasks);
        let running = Pipelines::default();
        let recordings = api::Recordings::follow(records.clone(), told, &tasks);
        let recorders = Recorders::start(
            record::Tools {
                catalog: catalog.clone(),
                pipelines: running.clone(),
                hub: hub.clone(),
                admission: admission.clone(),
                rules: Arc::new(rules(&config, records)),
            },
            &tasks,
        );
        let pulls = Pulls::start(
            pull_tools(&config, catalog.clone(), running.clone(), hub.clone(), admission.clone())?,
            &tasks,
        );
        let relay = Arc::new(Relay::start(relay_config(&config)).context("the viewers' port (webrtc.port)")?);
        let play_tools = play::Tools { catalog: catalog.clone(), pipelines: running.clone(), relay: relay.clone() };
        let connections = Connections::default();
        let parts = (catalog.clone(), running.clone(), hub.clone(), admission.clone());
        let encoders = rtmp_tools(&config, parts, &tasks);
        let pictures = Pictures::new(catalog.clone(), running.clone(), hub.clone());
        let signal = Signal {
            hub: hub.clone(),
            pulls: pulls.clone(),
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
            pulls,
            pipelines: running,
            pictures,
            connections,
            recordings,
            web_root: web_root(&config)?,
            min_free_space: config.record.min_free_space,
            media_ports: config.webrtc.ports,
            admission,
            peer: Ipv4Addr::UNSPECIFIED.into(),
            refused: None,
            meter,
            ledger,
            ports: api::Ports::default(),
            cors: Arc::new(config.http.cors.clone()),
            max_body: config.http.max_body,
            closing: Arc::new(AtomicBool::new(false)),
            ending: CancellationToken::new(),
        };
        let listeners = Listeners::start(&config, &data, &tasks, (api.clone(), signal, encoders)).await?;
        let ports = data.join(PORTS);
        let server = Self { config, api, listeners, relay, recorders, tasks, ports, _store: store, _records: owned };
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
        self.api.ports.announce(ports.clone());
        let draft = self.ports.with_extension("json.tmp");
        std::fs::write(&draft, serde_json::to_vec(&ports)?)
            .and_then(|()| std::fs::rename(&draft, &self.ports))
            .with_context(|| format!("cannot write {}", self.ports.display()))?;
        tracing::info!("weir {} with {}", env!("CARGO_PKG_VERSION"), media::version());
        self.listeners.announce();
        tracing::info!("listening: viewers' media on UDP {viewers} (webrtc.port)");
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
        complete &= step("REST is closed", self.listeners.stop_http(left())).await;
        drop((self.api, self.recorders, self.listeners));
        self.tasks.close();
        complete &= step("all is ended", within(left(), self.tasks.wait())).await;
        // A file that names ports nobody listens on misleads; one that is gone already does not.
        let _ = std::fs::remove_file(&self.ports);
        complete
    }
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

/// The operator's folder of pages, which is theirs to make.
fn web_root(config: &Config) -> Result<Option<Arc<Path>>> {
    let Some(folder) = &config.http.web_root else { return Ok(None) };
    let real =
        folder.canonicalize().with_context(|| format!("cannot use the folder {} (web_root)", folder.display()))?;
    if !real.is_dir() {
        bail!("{} is no folder (web_root)", folder.display());
    }
    Ok(Some(real.into()))
}

fn rules(config: &Config, dir: PathBuf) -> record::Rules {
    let record = &config.record;
    let template = match record.policy {
        RecordPolicy::StreamName => STREAM_NAME_TEMPLATE.to_owned(),
        RecordPolicy::Template => record.template.clone(),
    };
    record::Rules {
        dir,
        cut: match record.rotation {
            Rotation::Off => CutRule::Never,
            Rotation::Time(time) => CutRule::After(time),
            Rotation::Size(bytes) => CutRule::Size(bytes),
        },
        names: NameRules { template, encoding: record.name_encoding, exclude: record.excluded_characters.clone() },
        min_free_space: record.min_free_space,
    }
}

fn pull_tools(
    config: &Config,
    catalog: Catalog,
    pipelines: Pipelines,
    hub: Hub,
    admission: Admission,
) -> Result<pull::Tools> {
    let pull = &config.pull;
    let policy = match &pull.rtmp_agent_sdp {
        None => SourcePolicy::default(),
        Some(file) => {
            let text = std::fs::read_to_string(file);
            let text = text.with_context(|| format!("cannot read {} (rtmp_agent_sdp)", file.display()))?;
            SourcePolicy::parse(&text).with_context(|| format!("{} (rtmp_agent_sdp)", file.display()))?
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
        rtsp: Rules { record_all: config.record.every_rtsp, idle_timeout: pull.rtsp_idle_timeout },
        rtsp_transport: if pull.rtsp_interleaved { RtspTransport::Interleaved } else { RtspTransport::Udp },
    })
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
    (catalog, pipelines, hub, admission): (Catalog, Pipelines, Hub, Admission),
    tasks: &TaskTracker,
) -> rtmp::Tools {
    let settings = &config.rtmp;
    let number = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
    let defaults = rtmp::Limits::default();
    rtmp::Tools {
        sounds: rtmp::Sounds::start(catalog.clone(), pipelines.clone(), tasks),
        catalog,
        pipelines,
        hub,
        record: config.record.every_rtmp,
        linger: settings.publisher_linger,
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
        admission,
    }
}
