//! The settings as a whole: layers, defaults, and the manual they come from.

use super::*;
use proptest::prelude::*;
use std::io::Write;

/// Every setting with a value that is not its default, in the notation of [`Config::settings`].
const OTHERS: &[(&str, &str)] = &[
    ("ip_local", "::1"),
    ("http.port", "0"),
    ("rest_max_body", "2K"),
    ("disable_rest_auth", "false"),
    // What a secret is shown as.
    ("rest_api_token", "***"),
    ("rest_access_control_allow_origin", "https://example.org"),
    ("rest_access_control_allow_headers", ""),
    ("rest_access_control_allow_methods", "GET,POST"),
    ("rest_access_control_headers", "X-A: b;Strict-Transport-Security: max-age=1; preload"),
    ("web_root", "/srv/client2"),
    ("https.port", "0"),
    ("wss.port", ""),
    ("rtmps.port", "0"),
    ("tls_certificate_file", "/etc/cert.crt"),
    ("tls_private_key_file", "/etc/private.key"),
    ("tls_ca_bundle_file", "/etc/ca_bundle.crt"),
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
    ("publisher_linger", "0"),
    ("rtmp_max_message", "1M"),
    ("rtmp_max_chunk", "64K"),
    ("stream_token_secret", "***"),
    ("stream_token_publish", "false"),
    ("stream_token_play", "false"),
    ("publish_password", "***"),
    ("play_password", "***"),
    ("use_fdk_aac", "true"),
    ("disable_drop_aac_frame", "true"),
    ("ssh.port", "free"),
    ("ssh_authorized_keys", "/etc/weir/keys"),
    ("ssh_idle_timeout", "9"),
    ("ssh_max_connections", "5"),
    ("record_dir", "/srv/records"),
    ("record_rotation", "20M"),
    ("stream_record_policy", "streamName"),
    ("stream_record_policy_template", "{streamName}"),
    ("encode_record_name", "true,HEX"),
    ("exclude_record_name_characters", ":.,/ "),
    ("record_streams", "false"),
    ("record_flash_published_streams", "true"),
    ("record_rtsp_streams", "true"),
    ("record_formats", "h264-ts,vp8-mkv"),
    ("record_webm_audio", "opus"),
    ("record_audio_codec_sample_rate", "48000"),
    ("on_record_hook_script", "/srv/hook"),
    ("on_record_hook_timeout", "7"),
    ("record_max_age", "30d"),
    ("record_max_total_size", "100G"),
    ("record_min_free_space", "0"),
    ("rtmp_agent_sdp", "/etc/agent.sdp"),
    ("pull_connect_timeout", "1"),
    ("pull_stall_timeout", "2"),
    ("pull_reconnect_initial", "3"),
    ("pull_reconnect_max", "86400000"),
    ("pull_reconnect_attempts", "4"),
    ("pull_allow", "rtsp://10.0.0.0/8,*.example.org"),
    ("pull_deny", ""),
    ("rtmp_activity_timer_timeout", "0"),
    ("rtsp_activity_timer_timeout", "0"),
    ("rtsp_interleaved_mode", "false"),
    ("wcs_agent_ssl", "true"),
    ("wcs_agent_ca_file", "/etc/ca.pem"),
    ("rest_hook_ca_file", "/etc/hooks.pem"),
    ("wcs_agent_insecure", "true"),
    ("wcs_agent_connect_timeout", "11"),
    ("wcs_agent_answer_timeout", "12"),
    ("wcs_agent_media_timeout", "13"),
    ("wcs_agent_ping_interval", "14"),
    ("wcs_activity_timer_timeout", "0"),
    ("cdn_origins", "ws://a:8080,wss://b"),
    ("disable_rest_requests", "true"),
    ("rest_request_timeout", "1500ms"),
    ("rest_client_request_retry_count", "5"),
    ("rest_client_request_sent_retry_enabled", "false"),
    ("rest_hook_send_hash", "true"),
    // What a secret is shown as.
    ("rest_hook_secret_key", "***"),
    ("rest_hook_queue", "20"),
    ("rest_hook_queue_time", "7"),
    ("keep_alive_streaming_sessions_enabled", "true"),
    ("streaming_sessions_keep_alive_interval", "9"),
    ("streaming_sessions_keep_alive_app_keys", "a,b"),
    ("max_streams", "0"),
    ("max_viewers_per_stream", "1"),
    ("max_pull_agents", "2"),
    ("max_recordings", "3"),
    ("ws_max_connections", "4"),
    ("ws_max_sessions", "5"),
    ("ws_max_message", "64K"),
    ("rest_max_connections", "6"),
    ("rest_max_requests", "7"),
    ("rest_header_timeout", "8"),
    ("rest_body_timeout", "9"),
    ("reserved_descriptors", "10"),
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
    let Config {
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
    } = config;
    assert_eq!(ip_local.to_string(), "0.0.0.0");
    assert_eq!((http.port, http.max_body), (8081, 1024 * 1024));
    assert_eq!(http.cors.allow_origin.as_deref(), Some("*"));
    assert_eq!(http.cors.allow_headers.as_deref(), Some("content-type,x-requested-with"));
    assert_eq!(http.cors.allow_methods.as_deref(), Some("POST"));
    assert_eq!(http.web_root, None);
    assert_eq!((tls.https, tls.wss, tls.rtmps), (Some(8444), Some(8443), None));
    assert_eq!((tls.certificate, tls.key, tls.bundle, tls.folder), (None, None, None, None));
    assert_eq!((http.auth, http.api_token), (false, None));
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
            every_rtsp: false,
            formats: RecordFormats { h264: Container::Mp4, vp8: Container::WebM },
            webm_audio: WebmAudio::Vorbis,
            sample_rate: 44_100,
            hook_script: None,
            hook_timeout: Duration::from_secs(60),
            max_age: None,
            max_total: None,
            min_free_space: 512 * 1024 * 1024,
        }
    );
    let ms = Duration::from_millis;
    let deny =
        "169.254.0.0/16,fe80::/10,fd00:ec2::254,fd20:ce::254,100.100.100.200,168.63.129.16,metadata.google.internal";
    let deny: Vec<TargetRule> = deny.split(',').map(|rule| rule.parse().unwrap()).collect();
    assert_eq!((wcs.ssl, wcs.insecure, wcs.ca_file, wcs.origins), (false, false, None, vec![]));
    assert_eq!((wcs.connect_timeout, wcs.idle_timeout), (ms(5_000), Some(ms(60_000))));
    assert_eq!(aac, Aac { fdk: false, disable_drop: false });
    assert_eq!(
        rtmp,
        Rtmp {
            port: 1935,
            max_connections: 1024,
            handshake_timeout: ms(10_000),
            idle_timeout: ms(20_000),
            publisher_linger: Some(ms(10_000)),
            max_message: 8 << 20,
            max_chunk: 16 << 20,
        }
    );
    assert_eq!((hooks.enabled, hooks.timeout, hooks.retries, hooks.retry_enabled), (true, Some(ms(15_000)), 3, true));
    assert_eq!((hooks.sign, hooks.key.reveal(), hooks.queue, hooks.queue_time), (false, "", 10_000, ms(86_400_000)));
    let keep_alive = hooks.keep_alive;
    assert_eq!((keep_alive.enabled, keep_alive.interval), (false, ms(10_000)));
    assert_eq!(keep_alive.app_keys, ["defaultApp"]);
    assert_eq!(ssh, Ssh { port: Some(2001), authorized_keys: None, idle_timeout: ms(600_000), max_connections: 32 });
    assert_eq!(
        pull,
        Pull {
            rtmp_agent_sdp: None,
            connect_timeout: ms(10_000),
            stall_timeout: ms(10_000),
            reconnect: Reconnect { initial: ms(500), max: ms(30_000), attempts: None },
            allow: vec![],
            deny,
            rtmp_idle_timeout: Some(ms(60_000)),
            rtsp_idle_timeout: Some(ms(60_000)),
            rtsp_interleaved: true,
        }
    );
    let Gate { token_secret, token_publish, token_play, publish_password, play_password } = gate;
    assert_eq!((token_secret, token_publish, token_play), (None, true, true));
    assert_eq!((publish_password, play_password), (None, None));
    assert_eq!(
        limits,
        Limits {
            streams: 2000,
            viewers: 5000,
            agents: 2000,
            recordings: 1000,
            browsers: 4096,
            sessions: 256,
            message: 1 << 20,
            calls: 1024,
            requests: 1000,
            headers: ms(30_000),
            body: ms(30_000),
            descriptors: 64,
        }
    );
    assert_eq!(shutdown_timeout, ms(10_000));
}

#[test]
fn every_key_of_the_file_is_read_and_shown_and_the_reverse() {
    let shown = Config::default().settings();
    assert_eq!(shown.iter().map(|(key, _)| *key).collect::<Vec<_>>(), keys_of_defaults());
    assert_eq!(OTHERS.iter().map(|(key, _)| *key).collect::<Vec<_>>(), keys_of_defaults());
    for &(key, value) in OTHERS {
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
    assert_eq!((config.tls.wss, unknown), (Some(8443), vec!["codecs_exclude_sip".to_owned()]));
    assert!(config.tls.folder.is_some());
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

#[test]
fn the_servers_an_edge_asks() {
    let origins =
        |text: &str| Config::load(None, [], &[format!("cdn_origins={text}")]).map(|loaded| loaded.config.wcs.origins);
    assert_eq!(origins(" ws://a:8080 , wss://b ,").unwrap(), ["ws://a:8080", "wss://b"]);
    for bad in ["a:8080", "http://a", "ws://", "ws://a ws://b"] {
        assert!(origins(bad).is_err(), "{bad}");
    }
    assert!(origins(&"ws://a,".repeat(65)).is_err());
}
