//! The settings: one struct a section, read once at the start.
//!
//! `conf/flashphoner.properties` is compiled in; it holds every setting with its default and its meaning, and its
//! keys are the keys there are. Over it lie, the later the stronger: the file of `--conf`, the `WEIR_*` environment,
//! `--set key=value`. A file of Flashphoner WCS works as it is: keys nobody knows here come back in
//! [`Loaded::unknown`], for one warning. Values that cannot be used come back all at once in [`Problems`]; only the
//! value that wins is looked at.
//!
//! A new setting is an entry in that file, a field, a line in the section's `read` and a line in
//! [`Config::settings`]; tests fail until all four agree.

mod aac;
mod browser;
mod gate;
mod hooks;
mod limits;
mod record;
mod reference;
mod rtmp;
mod rtsp;
mod source;
mod ssh;
mod targets;
mod tls;
mod value;
mod wcs;

pub use aac::Aac;
pub use browser::{KeepAlive, KeepAliveAlgorithm, Signal, WebRtc};
pub use gate::{Gate, Secret, lifetime};
pub use hooks::{HookKey, Hooks, StreamKeepAlive};
pub use limits::Limits;
pub use record::{Container, Record, RecordFormats, WebmAudio};
pub use rtmp::Rtmp;
pub use rtsp::Rtsp;
pub use source::{Origin, Problem, Problems, Unusable};
pub use ssh::Ssh;
pub use targets::TargetRule;
pub use tls::Tls;
pub use value::{InvalidValue, NameEncoding, RecordPolicy, Rotation};
pub use wcs::Wcs;

use source::{Layers, mask};
use std::fmt;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The compiled-in settings file.
const DEFAULTS: &str = include_str!("../conf/flashphoner.properties");

/// The settings in effect. What each means in full stands in `conf/flashphoner.properties`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The address servers listen on (`ip_local`).
    pub ip_local: IpAddr,
    /// The REST API.
    pub http: Http,
    /// The listeners with TLS.
    pub tls: Tls,
    /// The browsers' WebSocket.
    pub signal: Signal,
    /// WebRTC.
    pub webrtc: WebRtc,
    /// The RTMP server.
    pub rtmp: Rtmp,
    /// What publishing and playing ask for.
    pub gate: Gate,
    /// AAC.
    pub aac: Aac,
    /// The command line over SSH.
    pub ssh: Ssh,
    /// Recordings.
    pub record: Record,
    /// Pulling from other servers.
    pub pull: Pull,
    /// The same from WCS servers, and an edge.
    pub wcs: Wcs,
    /// Calling hook servers.
    pub hooks: Hooks,
    /// How much there may be at once.
    pub limits: Limits,
    /// How long an orderly stop may take (`shutdown_timeout`).
    pub shutdown_timeout: Duration,
}

/// Settings of the REST API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Http {
    /// The TCP port; 0 takes a free one (`http.port`).
    pub port: u16,
    /// The largest request body in bytes, at least 1 (`rest_max_body`).
    pub max_body: u64,
    /// Whether who calls has to log in (`disable_rest_auth=false`).
    pub auth: bool,
    /// A token that logs in beside the users; `None` for none (`rest_api_token`).
    pub api_token: Option<ApiToken>,
    /// What pages of other origins may do.
    pub cors: Cors,
    /// The operator's folder of pages, served at `/client2/`; `None` for no such folder (`web_root`).
    pub web_root: Option<PathBuf>,
}

/// A token that is never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct ApiToken(pub String);

impl fmt::Debug for ApiToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("\"***\"")
    }
}

/// The `Access-Control-Allow-*` headers of REST answers: printable ASCII, sent as they are; `None` sends no header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cors {
    /// `Access-Control-Allow-Origin` (`rest_access_control_allow_origin`).
    pub allow_origin: Option<String>,
    /// `Access-Control-Allow-Headers` (`rest_access_control_allow_headers`).
    pub allow_headers: Option<String>,
    /// `Access-Control-Allow-Methods` (`rest_access_control_allow_methods`).
    pub allow_methods: Option<String>,
    /// Headers of the operator's own, name and value, for every answer (`rest_access_control_headers`).
    pub more: Vec<(String, String)>,
}

/// Settings of pull agents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pull {
    /// The file of what an RTMP source may bring; `None` for the one compiled in (`rtmp_agent_sdp`).
    pub rtmp_agent_sdp: Option<PathBuf>,
    /// How long a source may take to answer (`pull_connect_timeout`).
    pub connect_timeout: Duration,
    /// How long a source may send nothing before it counts as gone (`pull_stall_timeout`).
    pub stall_timeout: Duration,
    /// How a lost source is tried again.
    pub reconnect: Reconnect,
    /// Which servers may be dialled; empty for all (`pull_allow`).
    pub allow: Vec<TargetRule>,
    /// Which servers may not (`pull_deny`).
    pub deny: Vec<TargetRule>,
    /// How long an RTMP source that players asked for by its address stays without them; `None` for ever
    /// (`rtmp_activity_timer_timeout`).
    pub rtmp_idle_timeout: Option<Duration>,
    /// RTSP capture.
    pub rtsp: Rtsp,
}

/// How a pull agent tries a lost source again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reconnect {
    /// The first pause, over zero (`pull_reconnect_initial`).
    pub initial: Duration,
    /// The longest pause, not under the first (`pull_reconnect_max`).
    pub max: Duration,
    /// How many tries in a row may fail; `None` for ever (`pull_reconnect_attempts`).
    pub attempts: Option<NonZeroU32>,
}

/// Settings that can be used, and what was passed over on the way to them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loaded {
    /// The settings.
    pub config: Config,
    /// What weir does not know, each once, for one warning: keys of the file (`media_port_from`), variables
    /// (`WEIR_HTP_PORT`), arguments (`--set htp.port`). Values are not in it.
    pub unknown: Vec<String>,
}

impl Config {
    /// Reads the settings: the compiled-in file, then the file `conf`, then the variables of `env` that begin with
    /// `WEIR_`, then the `key=value` of `sets` in their order.
    ///
    /// `env` is the environment as the caller has it; a variable that is no Unicode is the caller's to leave out.
    ///
    /// # Errors
    /// All problems together: a file or a line that cannot be read, an argument without `=`, and each effective value
    /// that is not allowed, with its key, its value (masked if the key names a secret), where it was written and
    /// what is allowed.
    pub fn load(
        conf: Option<&Path>,
        env: impl IntoIterator<Item = (String, String)>,
        sets: &[String],
    ) -> Result<Loaded, Problems> {
        let mut layers = Layers::new(DEFAULTS);
        if let Some(path) = conf {
            layers.file(path);
        }
        layers.environment(env);
        for set in sets {
            layers.argument(set);
        }
        match Self::read(&mut layers, conf) {
            Some(config) if layers.problems.is_empty() => Ok(Loaded { config, unknown: layers.unknown }),
            _ => Err(Problems(layers.problems)),
        }
    }

    /// Every setting with its default and its meaning, as a page in Markdown.
    pub fn reference() -> String {
        reference::page(DEFAULTS)
    }

    /// The effective settings as (key, value), in the order of the settings file and in its notation, for display.
    /// Secrets are masked.
    pub fn settings(&self) -> Vec<(&'static str, String)> {
        let Self {
            ip_local,
            http,
            tls,
            signal,
            webrtc,
            rtmp,
            gate,
            aac,
            ssh,
            record,
            pull,
            wcs,
            hooks,
            limits,
            shutdown_timeout,
        } = self;
        let optional = |text: &Option<String>| text.clone().unwrap_or_default();
        let path = |path: &Path| path.display().to_string();
        let mut settings = vec![
            ("ip_local", ip_local.to_string()),
            ("http.port", http.port.to_string()),
            ("rest_max_body", value::show_size(http.max_body)),
            ("disable_rest_auth", (!http.auth).to_string()),
            ("rest_api_token", http.api_token.as_ref().map(|token| token.0.clone()).unwrap_or_default()),
            ("rest_access_control_allow_origin", optional(&http.cors.allow_origin)),
            ("rest_access_control_allow_headers", optional(&http.cors.allow_headers)),
            ("rest_access_control_allow_methods", optional(&http.cors.allow_methods)),
            ("rest_access_control_headers", value::show_headers(&http.cors.more)),
            ("web_root", http.web_root.as_deref().map(path).unwrap_or_default()),
        ];
        settings.extend(tls.settings());
        settings.extend(signal.settings());
        settings.extend(webrtc.settings());
        settings.extend(rtmp.settings());
        settings.extend(gate.settings());
        settings.extend(aac.settings());
        settings.extend(ssh.settings());
        settings.extend(record.settings());
        settings.extend([
            ("rtmp_agent_sdp", pull.rtmp_agent_sdp.as_deref().map(path).unwrap_or_default()),
            ("pull_connect_timeout", value::show_time(pull.connect_timeout)),
            ("pull_stall_timeout", value::show_time(pull.stall_timeout)),
            ("pull_reconnect_initial", value::show_time(pull.reconnect.initial)),
            ("pull_reconnect_max", value::show_time(pull.reconnect.max)),
            ("pull_reconnect_attempts", pull.reconnect.attempts.map_or(0, NonZeroU32::get).to_string()),
            ("pull_allow", targets::show(&pull.allow)),
            ("pull_deny", targets::show(&pull.deny)),
            ("rtmp_activity_timer_timeout", browser::show_time_or_never(pull.rtmp_idle_timeout)),
        ]);
        settings.extend(pull.rtsp.settings());
        settings.extend(wcs.settings());
        settings.extend(hooks.settings());
        settings.extend(limits.settings());
        settings.push(("shutdown_timeout", value::show_time(*shutdown_timeout)));
        for (key, value) in &mut settings {
            *value = mask(key, value).to_owned();
        }
        settings
    }

    /// Reads every section before it gives up on one, so that all problems are found.
    fn read(layers: &mut Layers, conf: Option<&Path>) -> Option<Self> {
        let ip_local = layers.get("ip_local", value::ip);
        let http = Http::read(layers);
        let tls = Tls::read(layers, conf);
        let signal = Signal::read(layers);
        let webrtc = WebRtc::read(layers);
        let rtmp = Rtmp::read(layers);
        let gate = Gate::read(layers);
        let aac = Aac::read(layers);
        let ssh = Ssh::read(layers);
        let record = Record::read(layers);
        let pull = Pull::read(layers);
        let wcs = Wcs::read(layers);
        let hooks = Hooks::read(layers);
        let limits = Limits::read(layers);
        let shutdown_timeout = layers.get("shutdown_timeout", value::time);
        Some(Self {
            ip_local: ip_local?,
            http: http?,
            tls: tls?,
            signal: signal?,
            webrtc: webrtc?,
            rtmp: rtmp?,
            gate: gate?,
            aac: aac?,
            ssh: ssh?,
            record: record?,
            pull: pull?,
            wcs: wcs?,
            hooks: hooks?,
            limits: limits?,
            shutdown_timeout: shutdown_timeout?,
        })
    }
}

impl Default for Config {
    /// The settings of the compiled-in file.
    ///
    /// # Panics
    /// If the compiled-in file cannot be used, which depends on nothing but the build; a test reads it.
    fn default() -> Self {
        match Self::load(None, [], &[]) {
            Ok(loaded) => loaded.config,
            Err(problems) => panic!("{problems}"),
        }
    }
}

impl Http {
    fn read(layers: &mut Layers) -> Option<Self> {
        let port = layers.get("http.port", value::port);
        let max_body = layers.get("rest_max_body", value::positive_size);
        let open = layers.get("disable_rest_auth", value::switch);
        let api_token = layers.get("rest_api_token", value::token);
        let cors = Cors::read(layers);
        let web_root = layers.get("web_root", value::path);
        Some(Self {
            port: port?,
            max_body: max_body?,
            auth: !open?,
            api_token: api_token?.map(ApiToken),
            cors: cors?,
            web_root: web_root?,
        })
    }
}

impl Cors {
    fn read(layers: &mut Layers) -> Option<Self> {
        let origin = layers.get("rest_access_control_allow_origin", value::header);
        let headers = layers.get("rest_access_control_allow_headers", value::header);
        let methods = layers.get("rest_access_control_allow_methods", value::header);
        let more = layers.get("rest_access_control_headers", value::headers);
        Some(Self { allow_origin: origin?, allow_headers: headers?, allow_methods: methods?, more: more? })
    }
}

impl Pull {
    fn read(layers: &mut Layers) -> Option<Self> {
        let rtmp_agent_sdp = layers.get("rtmp_agent_sdp", value::path);
        let connect_timeout = layers.get("pull_connect_timeout", value::time);
        let stall_timeout = layers.get("pull_stall_timeout", value::time);
        let reconnect = Reconnect::read(layers);
        let allow = layers.get("pull_allow", targets::rules);
        let deny = layers.get("pull_deny", targets::rules);
        let rtmp_idle_timeout = layers.get("rtmp_activity_timer_timeout", browser::time_or_never);
        let rtsp = Rtsp::read(layers);
        Some(Self {
            rtmp_agent_sdp: rtmp_agent_sdp?,
            connect_timeout: connect_timeout?,
            stall_timeout: stall_timeout?,
            reconnect: reconnect?,
            allow: allow?,
            deny: deny?,
            rtmp_idle_timeout: rtmp_idle_timeout?,
            rtsp: rtsp?,
        })
    }
}

impl Reconnect {
    fn read(layers: &mut Layers) -> Option<Self> {
        let initial = layers.get("pull_reconnect_initial", value::time);
        let max = layers.get("pull_reconnect_max", |text| match (value::time(text)?, initial) {
            (max, Some(initial)) if max < initial => value::expected("no less than pull_reconnect_initial"),
            (max, _) => Ok(max),
        });
        let attempts = layers.get("pull_reconnect_attempts", value::attempts);
        Some(Self { initial: initial?, max: max?, attempts: attempts? })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests;
