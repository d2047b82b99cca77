//! What the settings make of each part: the tools it is started with.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result};
use tokio_util::task::TaskTracker;

use super::unusable;
use crate::admission::Admission;
use crate::config::{self, Config, RecordPolicy};
use crate::gate::Gate;
use crate::hook::{Applications, Hooks};
use crate::hub::Hub;
use crate::media::{Catalog, PeerOptions, Pipelines, RtspTrust};
use crate::meter::Meter;
use crate::pull::policy::SourcePolicy;
use crate::pull::wcs::{Dial, Limits};
use crate::pull::{self, Pulls, Reach, RtspTransport, Rules, SourceUri};
use crate::record::name::{NameRules, STREAM_NAME_TEMPLATE};
use crate::record::{self, Script};
use crate::retry::Backoff;
use crate::rtmp;
use crate::store::Store;
use crate::trust::Trust;
use crate::webrtc::publish;
use crate::webrtc::relay::{Listen, RelayConfig};

/// How many pings in a row another server may leave without a sign of life.
const PROBES: u32 = 3;

/// The script that sees finished recordings, where there is one.
pub(super) fn script(config: &Config) -> Option<Script> {
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

/// How recordings are cut and named.
pub(super) fn rules(config: &Config, dir: PathBuf) -> record::Rules {
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

/// What publishing and playing ask for.
pub(super) fn gate(config: &Config, meter: Meter) -> Gate {
    if config.gate.is_weak() {
        tracing::warn!("stream_token_secret has fewer than 16 characters: it can be guessed from one token");
    }
    Gate::new(&config.gate, meter)
}

/// What pull agents work with.
pub(super) fn pulls(
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
        wcs: wcs(config, gate)?,
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

fn wcs(config: &Config, gate: Gate) -> Result<pull::wcs::Tools> {
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

/// Starts asking and telling hook servers.
pub(super) async fn start_hooks(
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

/// Where viewers' media goes over.
pub(super) fn relay(config: &Config) -> RelayConfig {
    let listen = media_addresses(config)
        .into_iter()
        .map(|bind| Listen { bind, advertise: config.webrtc.ip.filter(|ip| ip.is_ipv4() == bind.is_ipv4()) });
    RelayConfig { listen: listen.collect(), port: config.webrtc.viewers_port(), ..RelayConfig::default() }
}

/// What browsers that publish work with.
pub(super) fn publishers(config: &Config, catalog: Catalog, pipelines: Pipelines, hub: Hub) -> publish::Tools {
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

/// What RTMP works with.
pub(super) fn encoders(
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
