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

mod browser;
mod rtmp;
mod source;
mod value;

pub use browser::{KeepAlive, KeepAliveAlgorithm, Signal, WebRtc};
pub use rtmp::Rtmp;
pub use source::{Origin, Problem, Problems, is_secret};
pub use value::{InvalidValue, NameEncoding, RecordPolicy, Rotation};

use source::{Layers, mask};
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
    /// The browsers' WebSocket.
    pub signal: Signal,
    /// WebRTC.
    pub webrtc: WebRtc,
    /// The RTMP server.
    pub rtmp: Rtmp,
    /// Recordings.
    pub record: Record,
    /// Pulling from other servers.
    pub pull: Pull,
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
    /// What pages of other origins may do.
    pub cors: Cors,
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
}

/// Settings of recordings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// The directory of recordings, maybe relative to the working directory (`record_dir`).
    pub dir: PathBuf,
    /// When a new part starts (`record_rotation`).
    pub rotation: Rotation,
    /// Where a file's name comes from (`stream_record_policy`).
    pub policy: RecordPolicy,
    /// The template of file names, not empty, without an extension (`stream_record_policy_template`).
    pub template: String,
    /// How a file's name is encoded (`encode_record_name`).
    pub name_encoding: NameEncoding,
    /// The characters left out of file names (`exclude_record_name_characters`).
    pub excluded_characters: String,
    /// Whether browsers may have their streams recorded (`record_streams`).
    pub browsers: bool,
    /// Whether every stream that comes over RTMP, published or pulled, is recorded (`record_flash_published_streams`).
    pub every_rtmp: bool,
    /// The free bytes of the file system below which nothing is recorded; 0 never looks (`record_min_free_space`).
    pub min_free_space: u64,
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
    /// How long a source that players asked for by its address stays without them; `None` for ever
    /// (`rtmp_activity_timer_timeout`).
    pub idle_timeout: Option<Duration>,
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
        match Self::read(&mut layers) {
            Some(config) if layers.problems.is_empty() => Ok(Loaded { config, unknown: layers.unknown }),
            _ => Err(Problems(layers.problems)),
        }
    }

    /// The effective settings as (key, value), in the order of the settings file and in its notation, for display.
    /// Secrets are masked.
    pub fn settings(&self) -> Vec<(&'static str, String)> {
        let Self { ip_local, http, signal, webrtc, rtmp, record, pull, shutdown_timeout } = self;
        let optional = |text: &Option<String>| text.clone().unwrap_or_default();
        let path = |path: &Path| path.display().to_string();
        let mut settings = vec![
            ("ip_local", ip_local.to_string()),
            ("http.port", http.port.to_string()),
            ("rest_max_body", value::show_size(http.max_body)),
            ("rest_access_control_allow_origin", optional(&http.cors.allow_origin)),
            ("rest_access_control_allow_headers", optional(&http.cors.allow_headers)),
            ("rest_access_control_allow_methods", optional(&http.cors.allow_methods)),
        ];
        settings.extend(signal.settings());
        settings.extend(webrtc.settings());
        settings.extend(rtmp.settings());
        settings.extend([
            ("record_dir", path(&record.dir)),
            ("record_rotation", record.rotation.to_string()),
            ("stream_record_policy", record.policy.to_string()),
            ("stream_record_policy_template", record.template.clone()),
            ("encode_record_name", record.name_encoding.to_string()),
            ("exclude_record_name_characters", record.excluded_characters.clone()),
            ("record_streams", record.browsers.to_string()),
            ("record_flash_published_streams", record.every_rtmp.to_string()),
            ("record_min_free_space", value::show_size(record.min_free_space)),
            ("rtmp_agent_sdp", pull.rtmp_agent_sdp.as_deref().map(path).unwrap_or_default()),
            ("pull_connect_timeout", value::show_time(pull.connect_timeout)),
            ("pull_stall_timeout", value::show_time(pull.stall_timeout)),
            ("pull_reconnect_initial", value::show_time(pull.reconnect.initial)),
            ("pull_reconnect_max", value::show_time(pull.reconnect.max)),
            ("pull_reconnect_attempts", pull.reconnect.attempts.map_or(0, NonZeroU32::get).to_string()),
            ("rtmp_activity_timer_timeout", browser::show_time_or_never(pull.idle_timeout)),
            ("shutdown_timeout", value::show_time(*shutdown_timeout)),
        ]);
        for (key, value) in &mut settings {
            *value = mask(key, value).to_owned();
        }
        settings
    }

    /// Reads every section before it gives up on one, so that all problems are found.
    fn read(layers: &mut Layers) -> Option<Self> {
        let ip_local = layers.get("ip_local", value::ip);
        let http = Http::read(layers);
        let signal = Signal::read(layers);
        let webrtc = WebRtc::read(layers);
        let rtmp = Rtmp::read(layers);
        let record = Record::read(layers);
        let pull = Pull::read(layers);
        let shutdown_timeout = layers.get("shutdown_timeout", value::time);
        Some(Self {
            ip_local: ip_local?,
            http: http?,
            signal: signal?,
            webrtc: webrtc?,
            rtmp: rtmp?,
            record: record?,
            pull: pull?,
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
        let cors = Cors::read(layers);
        Some(Self { port: port?, max_body: max_body?, cors: cors? })
    }
}

impl Cors {
    fn read(layers: &mut Layers) -> Option<Self> {
        let origin = layers.get("rest_access_control_allow_origin", value::header);
        let headers = layers.get("rest_access_control_allow_headers", value::header);
        let methods = layers.get("rest_access_control_allow_methods", value::header);
        Some(Self { allow_origin: origin?, allow_headers: headers?, allow_methods: methods? })
    }
}

impl Record {
    fn read(layers: &mut Layers) -> Option<Self> {
        let dir = layers.get("record_dir", value::directory);
        let rotation = layers.get("record_rotation", str::parse);
        let policy = layers.get("stream_record_policy", str::parse);
        let template = layers.get("stream_record_policy_template", value::template);
        let name_encoding = layers.get("encode_record_name", str::parse);
        let excluded = layers.get_verbatim("exclude_record_name_characters", |text| Ok(text.to_owned()));
        let browsers = layers.get("record_streams", value::switch);
        let every_rtmp = layers.get("record_flash_published_streams", value::switch);
        let min_free_space = layers.get("record_min_free_space", value::size);
        Some(Self {
            dir: dir?,
            rotation: rotation?,
            policy: policy?,
            template: template?,
            name_encoding: name_encoding?,
            excluded_characters: excluded?,
            browsers: browsers?,
            every_rtmp: every_rtmp?,
            min_free_space: min_free_space?,
        })
    }
}

impl Pull {
    fn read(layers: &mut Layers) -> Option<Self> {
        let rtmp_agent_sdp = layers.get("rtmp_agent_sdp", value::path);
        let connect_timeout = layers.get("pull_connect_timeout", value::time);
        let stall_timeout = layers.get("pull_stall_timeout", value::time);
        let reconnect = Reconnect::read(layers);
        let idle_timeout = layers.get("rtmp_activity_timer_timeout", browser::time_or_never);
        Some(Self {
            rtmp_agent_sdp: rtmp_agent_sdp?,
            connect_timeout: connect_timeout?,
            stall_timeout: stall_timeout?,
            reconnect: reconnect?,
            idle_timeout: idle_timeout?,
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
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use proptest::prelude::*;
    use std::io::Write;

    /// Every setting with a value that is not its default, in the notation of [`Config::settings`].
    const OTHERS: [(&str, &str); 39] = [
        ("ip_local", "::1"),
        ("http.port", "0"),
        ("rest_max_body", "2K"),
        ("rest_access_control_allow_origin", "https://example.org"),
        ("rest_access_control_allow_headers", ""),
        ("rest_access_control_allow_methods", "GET,POST"),
        ("ws.port", "0"),
        ("keep_alive.algorithm", "INTERNAL"),
        ("keep_alive.server_interval", "100"),
        ("keep_alive.probes", "3"),
        ("ip", "203.0.113.7"),
        ("media_port_from", "31003"),
        ("media_port_to", "33000"),
        ("webrtc.port", "40000"),
        ("codecs", "vp8,opus"),
        ("rtp_activity_timeout", "0"),
        ("rtmp.port", "0"),
        ("rtmp_max_connections", "7"),
        ("rtmp_handshake_timeout", "6"),
        ("rtmp_idle_timeout", "8"),
        ("rtmp_max_message", "1M"),
        ("rtmp_max_chunk", "64K"),
        ("record_dir", "/srv/records"),
        ("record_rotation", "20M"),
        ("stream_record_policy", "streamName"),
        ("stream_record_policy_template", "{streamName}"),
        ("encode_record_name", "true,HEX"),
        ("exclude_record_name_characters", ":.,/ "),
        ("record_streams", "false"),
        ("record_flash_published_streams", "true"),
        ("record_min_free_space", "0"),
        ("rtmp_agent_sdp", "/etc/agent.sdp"),
        ("pull_connect_timeout", "1"),
        ("pull_stall_timeout", "2"),
        ("pull_reconnect_initial", "3"),
        ("pull_reconnect_max", "86400000"),
        ("pull_reconnect_attempts", "4"),
        ("rtmp_activity_timer_timeout", "0"),
        ("shutdown_timeout", "5"),
    ];

    fn sets(settings: &[&str]) -> Vec<String> {
        settings.iter().map(|&setting| setting.to_owned()).collect()
    }

    fn env(variables: &[(&str, &str)]) -> Vec<(String, String)> {
        variables.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect()
    }

    fn file(bytes: &[u8]) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(bytes).unwrap();
        file
    }

    fn load_file(bytes: &[u8]) -> Result<Loaded, Problems> {
        Config::load(Some(file(bytes).path()), [], &[])
    }

    /// The keys of the compiled-in file in its order, found without the parser under test.
    fn keys_of_defaults() -> Vec<&'static str> {
        DEFAULTS
            .lines()
            .filter(|line| !line.starts_with('#'))
            .filter_map(|line| line.split_once('='))
            .map(|(k, _)| k)
            .collect()
    }

    #[test]
    fn the_defaults() {
        let Loaded { config, unknown } = Config::load(None, [], &[]).unwrap();
        assert_eq!(unknown, [""; 0]);
        assert_eq!(config, Config::default());
        let Config { ip_local, http, signal, webrtc, rtmp, record, pull, shutdown_timeout } = config;
        assert_eq!(ip_local.to_string(), "0.0.0.0");
        assert_eq!((http.port, http.max_body), (8081, 1024 * 1024));
        assert_eq!(http.cors.allow_origin.as_deref(), Some("*"));
        assert_eq!(http.cors.allow_headers.as_deref(), Some("content-type,x-requested-with"));
        assert_eq!(http.cors.allow_methods.as_deref(), Some("POST"));
        assert_eq!((signal.port, signal.keep_alive.probes), (8080, 10));
        assert_eq!((webrtc.ip, webrtc.ports, webrtc.viewers_port()), (None, (31001, 32000), 31001));
        assert_eq!(
            record,
            Record {
                dir: "records".into(),
                rotation: Rotation::Off,
                policy: RecordPolicy::Template,
                template: "stream-{mediaSessionId}-{login}".to_owned(),
                name_encoding: NameEncoding::Plain,
                excluded_characters: "/".to_owned(),
                browsers: true,
                every_rtmp: false,
                min_free_space: 512 * 1024 * 1024,
            }
        );
        let ms = Duration::from_millis;
        assert_eq!(
            rtmp,
            Rtmp {
                port: 1935,
                max_connections: 1024,
                handshake_timeout: ms(10_000),
                idle_timeout: ms(20_000),
                max_message: 8 << 20,
                max_chunk: 16 << 20,
            }
        );
        assert_eq!(
            pull,
            Pull {
                rtmp_agent_sdp: None,
                connect_timeout: ms(10_000),
                stall_timeout: ms(10_000),
                reconnect: Reconnect { initial: ms(500), max: ms(30_000), attempts: None },
                idle_timeout: Some(ms(60_000)),
            }
        );
        assert_eq!(shutdown_timeout, ms(10_000));
    }

    #[test]
    fn every_key_of_the_file_is_read_and_shown_and_the_reverse() {
        let shown = Config::default().settings();
        assert_eq!(shown.iter().map(|(key, _)| *key).collect::<Vec<_>>(), keys_of_defaults());
        assert_eq!(OTHERS.map(|(key, _)| key).to_vec(), keys_of_defaults());
        for (key, value) in OTHERS {
            let loaded = Config::load(None, [], &sets(&[&format!("{key}={value}")])).unwrap();
            let changed: Vec<_> =
                loaded.config.settings().into_iter().zip(&shown).filter(|(now, then)| now != *then).collect();
            assert_eq!(changed.len(), 1, "{key} changes one setting: {changed:?}");
            assert_eq!(changed[0].0, (key, value.to_owned()));
        }
    }

    #[test]
    fn every_setting_of_the_file_has_a_comment_above_it() {
        let mut commented = false;
        for line in DEFAULTS.lines() {
            assert!(line.len() <= 120 && line.is_ascii(), "{line}");
            assert!(line.is_empty() || line.starts_with('#') || commented, "{line} has no comment");
            commented = line.starts_with("# ") && !line.starts_with("# --");
        }
    }

    #[test]
    fn what_is_shown_can_be_loaded() {
        let all: Vec<_> = OTHERS.iter().map(|(key, value)| format!("{key}={value}")).collect();
        let config = Config::load(None, [], &all).unwrap().config;
        let again: Vec<_> = config.settings().iter().map(|(key, value)| format!("{key}={value}")).collect();
        assert_eq!(Config::load(None, [], &again).unwrap().config, config);
    }

    #[test]
    fn later_sources_win() {
        let conf = file(b"http.port=1\nrecord_dir=f\npull_stall_timeout=7\nhttp.port=2\n");
        let variables = env(&[("WEIR_HTTP_PORT", "3"), ("WEIR_RECORD_DIR", "e"), ("HOME", "/"), ("WEIR_LOG", "info")]);
        let Loaded { config, unknown } =
            Config::load(Some(conf.path()), variables, &sets(&["http.port=4", "http.port=5"])).unwrap();
        assert_eq!(config.http.port, 5);
        assert_eq!(config.record.dir, Path::new("e"));
        assert_eq!(config.pull.stall_timeout, Duration::from_millis(7));
        assert_eq!(unknown, [""; 0]);
        assert_eq!(Config::load(Some(conf.path()), [], &[]).unwrap().config.http.port, 2);
    }

    #[test]
    fn a_file_of_wcs_works_as_it_is() {
        let wcs = b"ip=203.0.113.5\nip_local=0.0.0.0\nmedia_port_from=31001\nmedia_port_to=32000\n\
            codecs=opus,alaw,ulaw,g729,speex16,g722,mpeg4-generic,telephone-event,h264,vp8,flv,mpv\n\
            codecs_exclude_sip=mpeg4-generic,flv,mpv\nws.port=8080\nwss.port=8443\nhttp.port=9091\n\
            record_rotation=10M\nencode_record_name=true,BASE64\nexclude_record_name_characters=:.,/\n\
            keep_alive.algorithm=HIGH_LEVEL\n";
        let Loaded { config, unknown } = load_file(wcs).unwrap();
        assert_eq!(config.http.port, 9091);
        assert_eq!(config.record.rotation, Rotation::Size(10 * 1024 * 1024));
        assert_eq!(config.record.name_encoding, NameEncoding::Base64);
        assert_eq!(config.record.excluded_characters, ":.,/");
        assert_eq!(unknown, ["codecs_exclude_sip", "wss.port"]);
    }

    #[test]
    fn notations_of_the_file() {
        for (bytes, dir) in [
            (&b"record_dir: /a b \r\n"[..], "/a b"),
            (b"record_dir /a", "/a"),
            (b"\xef\xbb\xbfrecord_dir=/a", "/a"),
            (b"record_dir=/a\\\r\n   /b\r\n", "/a/b"),
            ("record_dir=/é/日本".as_bytes(), "/é/日本"),
            (b"record_dir=/\xe9", "/é"),
            (b"record_dir=/\\u00e9", "/é"),
        ] {
            assert_eq!(load_file(bytes).unwrap().config.record.dir, Path::new(dir), "{dir}");
        }
    }

    #[test]
    fn all_problems_at_once() {
        let conf = file(b"# comment\nhttp.port=http\nrecord_dir=\\u12\nrecord_rotation=20m\npull_reconnect_max=1\n");
        let variables = env(&[("WEIR_SHUTDOWN_TIMEOUT", "soon")]);
        let sets = sets(&["encode_record_name=true", "quiet", "rest_access_control_allow_origin=a\nb"]);
        let problems = Config::load(Some(conf.path()), variables, &sets).unwrap_err();
        let name = conf.path().display().to_string();
        let text = problems.to_string();
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines.len(), 9, "{text}");
        for (line, parts) in lines.iter().zip([
            &["cannot be used"][..],
            &[&name, "line 3", "hexadecimal"],
            &["--set \"quiet\"", "key=value"],
            &["http.port = \"http\"", &name, "line 2", "0 to 65535"],
            &["rest_access_control_allow_origin = \"a\\nb\"", "(--set)", "HTTP header"],
            &["record_rotation = \"20m\"", "line 4", "20M"],
            &["encode_record_name = \"true\"", "(--set)", "true,HEX"],
            &["pull_reconnect_max = \"1\"", "line 5", "pull_reconnect_initial"],
            &["shutdown_timeout = \"soon\"", "WEIR_SHUTDOWN_TIMEOUT", "milliseconds"],
        ]) {
            assert!(parts.iter().all(|part| line.contains(part)), "{line} has {parts:?}");
        }
    }

    #[test]
    fn a_bad_value_that_is_overridden_does_no_harm() {
        let conf = file(b"http.port=http\n");
        let loaded = Config::load(Some(conf.path()), [], &sets(&["http.port=1"])).unwrap();
        assert_eq!(loaded.config.http.port, 1);
    }

    #[test]
    fn a_file_that_cannot_be_read_is_a_problem_among_others() {
        let dir = tempfile::tempdir().unwrap();
        for path in [dir.path().to_owned(), dir.path().join("missing")] {
            let Problems(problems) = Config::load(Some(&path), [], &sets(&["http.port=x"])).unwrap_err();
            assert_eq!(problems.len(), 2);
            assert!(matches!(&problems[0], Problem::File { path: named, line: None, .. } if *named == path));
        }
    }

    #[test]
    fn unknown_names_are_listed_once_without_values() {
        let conf = file(b"a.secret=hunter2\na.secret=hunter3\n");
        let variables = env(&[("WEIR_Z", "1"), ("WEIR_HTP_PORT", "1"), ("WEIR_SERVICE_HOST", "10.0.0.1")]);
        let loaded = Config::load(Some(conf.path()), variables, &sets(&["htp.port=1"])).unwrap();
        assert_eq!(loaded.unknown, ["a.secret", "WEIR_HTP_PORT", "WEIR_Z", "--set htp.port"]);
    }

    proptest! {
        #[test]
        fn no_value_panics(index in 0..OTHERS.len(), value in "\\PC*") {
            let _ = Config::load(None, [], &[format!("{}={value}", OTHERS[index].0)]);
        }
    }
}
