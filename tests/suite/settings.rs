//! Settings, directories, ports and exit codes, seen from outside.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::process::Output;

use crate::support::{Home, Setup};

/// Runs a start that must fail, and gives its exit code and what it says.
fn refused(setup: Setup) -> (Option<i32>, String) {
    let Output { status, stderr, .. } = setup.run();
    (status.code(), String::from_utf8(stderr).unwrap())
}

#[test]
fn a_start_makes_its_directories_and_says_its_ports_and_a_stop_takes_them_back() {
    let home = Home::new();
    let data = home.path().join("deep/data");
    let records = home.path().join("deep/er/records");
    let setup = home.bare("serve").set("http.port=0").set("ws.port=0").set("webrtc.port=0").set("rtmp.port=0");
    let setup = setup.set("https.port=0").set("wss.port=0");
    let setup = setup.set("ssh.port=free");
    let setup =
        setup.set("ip_local=127.0.0.1").arg("--data").arg("data").set(&format!("record_dir={}", records.display()));
    let weir = setup.start();
    assert!(records.is_dir());
    assert_eq!(weir.get("/health/live").json()["status"], "UP");
    weir.wait_log(&format!("http://127.0.0.1:{} (http.port)", weir.port()));
    let ports = std::fs::read_to_string(home.path().join("data/ports.json")).unwrap();
    let ports: BTreeMap<String, u16> = serde_json::from_str(&ports).unwrap();
    let names: Vec<&str> = ports.keys().map(String::as_str).collect();
    let wanted = ["http.port", "https.port", "rtmp.port", "ssh.port", "webrtc.port", "ws.port", "wss.port"];
    assert_eq!(names, wanted);
    assert!(ports.values().all(|port| *port != 0) && ports["http.port"] == weir.port(), "{ports:?}");
    let (status, _) = weir.stop();
    assert_eq!(status.code(), Some(0));
    assert!(!home.path().join("data/ports.json").exists(), "ports of a server that is gone");
    assert!(!data.exists());
}

#[test]
fn without_arguments_the_directories_are_where_the_manual_says() {
    let home = Home::new();
    let setup = home.bare("serve").env("WEIR_HTTP_PORT", "0").env("WEIR_IP_LOCAL", "::1");
    let setup = setup.env("WEIR_WS_PORT", "0").env("WEIR_WEBRTC_PORT", "0").env("WEIR_RTMP_PORT", "0");
    let setup = setup.env("WEIR_HTTPS_PORT", "0").env("WEIR_WSS_PORT", "");
    let setup = setup.env("WEIR_SSH_PORT", "0");
    let Ok(_) = TcpListener::bind("[::1]:0") else { panic!("this machine has no IPv6 loopback") };
    let weir = setup.start();
    assert!(home.path().join("records").is_dir() && home.path().join("data").is_dir());
    weir.wait_log("listening: REST and pages on http://[::1]:");
}

#[test]
fn the_file_the_environment_and_the_command_line_in_this_order() {
    let home = Home::new();
    let conf = home.path().join("flashphoner.properties");
    let text = "http.port=1\nip_local=127.0.0.1\nrest_access_control_allow_origin=https://file.example\n\
                rest_access_control_allow_headers=from-file\nrest_access_control_allow_methods=FILE\n\
                https.port=8444\nwss.port=8443\nws.port=8080\nclient_mode=false\n";
    std::fs::write(&conf, text).unwrap();
    let setup = home.bare("serve").arg("--conf").arg(&conf.to_string_lossy());
    let setup = setup.env("WEIR_REST_ACCESS_CONTROL_ALLOW_HEADERS", "from-environment").env("WEIR_HTTP_PORT", "2");
    let setup = setup.env("WEIR_REST_ACCESS_CONTROL_ALLOW_METHODS", "ENVIRONMENT").env("WEIR_HTP_PORT", "3");
    let setup = setup.set("rest_access_control_allow_methods=SET").set("http.port=0").set("ws.port=0");
    let setup = setup.set("https.port=0").set("wss.port=0").set("webrtc.port=0").set("rtmp.port=0").set("ssh.port=off");
    let setup = setup.set("codecs_exclude_sip=mpv");
    let mut weir = setup.start();
    weir.announce("settings that weir does not know have no effect");
    let answer = weir.get("/rest-api/pull/find_all");
    assert_eq!(answer.header("access-control-allow-origin"), Some("https://file.example"));
    assert_eq!(answer.header("access-control-allow-headers"), Some("from-environment"));
    assert_eq!(answer.header("access-control-allow-methods"), Some("SET"));
    let lines = weir.log();
    let warnings: Vec<_> = lines.iter().filter(|line| line.contains(" WARN ")).collect();
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert!(warnings[0].ends_with("client_mode, WEIR_HTP_PORT, --set codecs_exclude_sip"), "{warnings:?}");
}

#[test]
fn everything_that_is_wrong_is_said_at_once_with_exit_code_2() {
    let home = Home::new();
    let conf = home.path().join("bad.properties");
    std::fs::write(&conf, "record_rotation=20m\nshutdown_timeout=soon\n").unwrap();
    let setup = home.setup().arg("--conf").arg(&conf.to_string_lossy()).env("WEIR_PULL_STALL_TIMEOUT", "-1");
    let (code, said) = refused(setup.set("http.port=99999").set("stray").set("rest_max_body=0"));
    assert_eq!(code, Some(2), "{said}");
    for part in [
        "record_rotation = \"20m\"",
        "line 1",
        "20M",
        "shutdown_timeout = \"soon\"",
        "WEIR_PULL_STALL_TIMEOUT",
        "http.port = \"99999\"",
        "--set \"stray\": expected key=value",
        "rest_max_body = \"0\"",
    ] {
        assert!(said.contains(part), "{part:?} is missing in {said}");
    }
    assert_eq!(said.lines().count(), 7, "a heading and a line a problem: {said}");
    assert!(!home.records().exists() && !home.path().join("data").exists(), "nothing is made for a start that fails");
}

#[test]
fn a_settings_file_that_is_not_there_is_named() {
    let home = Home::new();
    let (code, said) = refused(home.setup().arg("--conf").arg("/nowhere/at/all.properties"));
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("/nowhere/at/all.properties"), "{said}");
}

#[test]
fn a_directory_that_cannot_be_made_is_named_with_its_setting() {
    let home = Home::new();
    std::fs::write(home.records(), "a file").unwrap();
    let (code, said) = refused(home.setup());
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("record_dir") && said.contains("records"), "{said}");
    let (code, said) = refused(home.bare("serve").arg("--data").arg("/proc/weir"));
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("/proc/weir (--data)"), "{said}");
}

#[test]
fn a_port_that_is_taken_is_named_with_its_setting() {
    let home = Home::new();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let (code, said) = refused(home.setup().set(&format!("http.port={port}")));
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains(&format!("127.0.0.1:{port} (http.port)")) && said.contains("in use"), "{said}");
}

#[test]
fn an_sdp_file_that_cannot_be_used_is_named_with_its_line() {
    let home = Home::new();
    let sdp = home.path().join("agent.sdp");
    std::fs::write(&sdp, "v=0\nm=video\n").unwrap();
    let (code, said) = refused(home.setup().set(&format!("rtmp_agent_sdp={}", sdp.display())));
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("agent.sdp (rtmp_agent_sdp)") && said.contains("line 2"), "{said}");
    let (code, said) = refused(home.setup().set("rtmp_agent_sdp=/nowhere/agent.sdp"));
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("/nowhere/agent.sdp (rtmp_agent_sdp)"), "{said}");
}

#[test]
fn a_secret_in_a_bad_setting_is_not_said() {
    let home = Home::new();
    let (code, said) = refused(home.setup().set("http.port=x").set("rest_password"));
    assert_eq!(code, Some(2), "{said}");
    assert!(!said.contains("rest_password"), "{said}");
}

#[test]
fn health_answers_for_a_container() {
    let home = Home::new();
    let health = || home.bare("health").arg("--data").arg("data").run();
    let before = health();
    assert_eq!(before.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&before.stderr).contains("no server: cannot read data/ports.json"));
    let weir = home.start();
    assert_eq!(health().status.code(), Some(0));
    weir.kill();
    let after = health();
    assert_eq!(after.status.code(), Some(1), "{after:?}");
    std::fs::write(home.path().join("data/ports.json"), "no json").unwrap();
    assert_eq!(health().status.code(), Some(1));
}

#[test]
fn wrong_arguments_are_explained() {
    let home = Home::new();
    let version = home.bare("--version").run();
    assert_eq!(String::from_utf8_lossy(&version.stdout), format!("weir {}\n", env!("CARGO_PKG_VERSION")));
    for arguments in ["sing", "--help-me"] {
        let (code, said) = refused(home.bare(arguments));
        assert_eq!(code, Some(2), "{said}");
        assert!(said.contains("Usage: weir"), "{said}");
    }
    let (code, said) = refused(home.setup().arg("--log-format").arg("xml"));
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("human") && said.contains("json"), "{said}");
}
