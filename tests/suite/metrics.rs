//! What an operator watches: `/metrics`, the dashboard made for it, WCS's page of statistics, readiness.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;

use crate::support;
use crate::support::{Clip, Home, HookServer, Process, Publisher, Reply, Signal, Weir, dead_port, wait, wait_until};
use serde_json::{Value, json};
use weir::hook::Method;

/// The series of an exposition by name and labels as they are written; every line has to be of the format.
fn series(text: &str) -> BTreeMap<String, f64> {
    assert!(text.ends_with("# EOF\n"), "{text}");
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let split = |line: &str| {
        let (name, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("{line}"));
        (name.to_owned(), value.parse().unwrap_or_else(|_| panic!("{line}")))
    };
    let all: Vec<(String, f64)> = lines.map(split).collect();
    let count = all.len();
    let found: BTreeMap<_, _> = all.into_iter().collect();
    assert_eq!(found.len(), count, "a series is there twice: {text}");
    found
}

fn metrics(weir: &Weir, query: &str) -> BTreeMap<String, f64> {
    let answer = weir.get(&format!("/metrics{query}"));
    assert_eq!(answer.status, 200);
    let kind = answer.header("content-type").unwrap();
    assert_eq!(kind, "application/openmetrics-text; version=1.0.0; charset=utf-8");
    series(&answer.body)
}

fn uri(weir: &Weir, name: &str) -> String {
    format!("rtmp://127.0.0.1:{}/live/{name}", weir.port_of("rtmp.port"))
}

fn player(weir: &Weir, name: &str) -> Process {
    Process::start("ffmpeg", |command| {
        command.args(["-v", "error", "-nostdin", "-i", &uri(weir, name), "-map", "0", "-c", "copy", "-f", "null", "-"]);
        command.stdout(Stdio::null()).stderr(Stdio::null());
    })
}

#[test]
fn a_life_in_figures() {
    let home = Home::new();
    let mut weir = home.setup().set("record_flash_published_streams=true").set("pull_reconnect_initial=50").start();
    let idle = metrics(&weir, "");
    assert_eq!(idle["weir_streams_started_total"], 0.0);
    assert_eq!(idle["weir_viewers{engine=\"Flash\"}"], 0.0);
    assert!(idle["process_resident_memory_bytes"] > 1e6 && idle["process_threads"] > 2.0, "{idle:?}");
    assert!(idle["process_open_fds"] > 5.0 && idle["process_max_fds"] > idle["process_open_fds"], "{idle:?}");

    let publisher = Publisher::start(Clip::LONG, &uri(&weir, "cam"));
    weir.wait_frames("cam", 30);
    let mut player = player(&weir, "cam");
    let sent = |all: &BTreeMap<String, f64>| all["weir_sent_bytes_total{engine=\"Flash\"}"];
    let playing =
        wait("bytes for a player", support::SOON, || Some(metrics(&weir, "")).filter(|all| sent(all) > 10_000.0));
    for (name, value) in [
        ("weir_streams{engine=\"Flash\",kind=\"publish\",state=\"live\"}", 1.0),
        ("weir_viewers{engine=\"Flash\"}", 1.0),
        ("weir_recorders", 1.0),
        ("weir_streams_started_total", 1.0),
        ("weir_first_frame_seconds_count", 1.0),
        ("weir_first_view_seconds_count{engine=\"Flash\"}", 1.0),
        ("weir_degraded_streams", 0.0),
        ("weir_dropped_total{engine=\"Flash\"}", 0.0),
    ] {
        assert_eq!(playing.get(name), Some(&value), "{name} in {playing:#?}");
    }
    assert!(playing["weir_received_frames_total{media=\"video\"}"] >= 30.0);
    assert!(playing["weir_received_keyframes_total{media=\"video\"}"] >= 1.0);
    assert!(playing["weir_received_bytes_total{media=\"audio\"}"] > 1000.0);
    assert!(playing["weir_pipelines{template=\"ingest-rtmp\"}"] == 1.0, "{playing:#?}");
    assert!(playing["process_cpu_seconds_total"] > 0.0);

    // Streams have series of their own only where somebody asks for them, whatever else is asked for.
    assert!(!playing.keys().any(|name| name.contains("cam")));
    let chosen = metrics(&weir, "?stream=cam&stream=nobody&stream=%22%0a");
    assert_eq!(chosen["weir_stream_viewers{stream=\"cam\"}"], 1.0);
    assert!(chosen["weir_stream_received_frames_total{stream=\"cam\",media=\"video\"}"] >= 30.0);
    assert_eq!(chosen.keys().filter(|name| name.contains("stream=\"")).count(), 8, "{chosen:#?}");
    let many = weir.get(&format!("/metrics?{}", "stream=a&".repeat(101)));
    assert_eq!(many.status, 400);

    let stat = weir.get("/?action=stat").body;
    for line in ["streams_rtmp_out=1", "streams_viewers=1", "streams_webrtc_in=0", "degraded_streams_percent=0"] {
        assert!(stat.lines().any(|shown| shown == line), "{line} in {stat}");
    }

    // Totals stay when the players and the stream are gone.
    player.signal(Signal::KILL);
    player.ended(support::SOON);
    wait_until("the player to leave", || metrics(&weir, "")["weir_viewers{engine=\"Flash\"}"] == 0.0);
    publisher.leave();
    wait_until("the stream to end", || weir.stream("cam").is_none());
    home.wait_finished(1);
    let after = wait("the finished recording", support::SOON, || {
        Some(metrics(&weir, "")).filter(|all| all["weir_recordings_finished_total"] == 1.0)
    });
    assert!(sent(&after) >= sent(&playing), "{after:#?}");
    let frames = "weir_received_frames_total{media=\"video\"}";
    assert!(after[frames] >= chosen[frames]);
    assert_eq!(after["weir_recorders"], 0.0);
    assert!(after["weir_recorded_bytes_total"] > 1000.0);
    assert!(!after.keys().any(|name| name.starts_with("weir_streams{")), "{after:#?}");

    weir.announce("pull has no source");
    weir.pull(&dead_port(), "gone", false);
    wait_until("a retry", || metrics(&weir, "")["weir_pull_retries_total"] >= 1.0);
    let pulling = metrics(&weir, "");
    assert_eq!(
        pulling.iter().filter(|(name, _)| name.starts_with("weir_pull_agents{")).map(|(_, n)| n).sum::<f64>(),
        1.0
    );
    weir.terminate("gone");
}

/// Hook servers and the script that sees recordings: how long they take, and what comes of it.
#[test]
fn helpers_are_timed_and_counted() {
    let home = Home::new();
    let hooks = HookServer::start();
    home.hooks("flashStreamingApp", &hooks, &[Method::Connect, Method::PublishStream, Method::StreamStatusEvent]);
    hooks.answers_to("publishStream", Reply::Status(403));
    let script = home.path().join("see.sh");
    std::fs::write(&script, "#!/bin/sh\ncase $1 in good) ;; *) exit 3 ;; esac\n").unwrap();
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
    let setup = home.setup().set("record_flash_published_streams=true").set("record_min_free_space=0");
    let mut weir = setup.set(&format!("on_record_hook_script={}", script.display())).start();
    let told = |method: &str, outcome: &str| {
        let series = format!("weir_hook_seconds_count{{method=\"{method}\",outcome=\"{outcome}\"}}");
        metrics(&weir, "").get(&series).copied().unwrap_or(0.0)
    };
    assert!(!metrics(&weir, "").keys().any(|name| name.starts_with("weir_hook_seconds")));

    // LOG is the default: what a hook server answers to a publisher changes nothing here, and is counted.
    for (count, (name, ending)) in [("good", "ok"), ("bad", "failed")].into_iter().enumerate() {
        let publisher = Publisher::start(Clip::LONG, &uri(&weir, name));
        weir.wait_frames(name, 30);
        publisher.leave();
        home.wait_finished(count + 1);
        let series = format!("weir_record_script_seconds_count{{result=\"{ending}\"}}");
        wait_until("the script", || metrics(&weir, "").get(&series) == Some(&1.0));
    }
    assert_eq!((told("connect", "ok"), told("publishStream", "refused")), (2.0, 2.0));
    wait_until("what is told", || told("StreamStatusEvent", "ok") >= 4.0);
    wait_until("nothing to wait", || metrics(&weir, "")["weir_hook_waiting"] == 0.0);
    // Each method and outcome has one histogram, whoever is called and for whatever stream.
    let all = metrics(&weir, "");
    assert!(!all.keys().any(|name| name.contains("good") || name.contains("flashStreamingApp")), "{all:#?}");
    assert_eq!(all["weir_hook_dropped_total"], 0.0);
    weir.announce("REST 403 Forbidden");
    weir.announce("hook script failed");
}

#[test]
fn calls_are_counted_under_words_of_ours() {
    let home = Home::new();
    let weir = home.start();
    weir.get("/rest-api/stream/find_all");
    for path in ["/rest-api/nonsense/x", "/rest-api/other-nonsense/x", "/also/nonsense", "/%22%0a"] {
        assert_eq!(weir.get(path).status, 404);
    }
    let all = metrics(&weir, "");
    assert_eq!(all["weir_call_seconds_count{family=\"stream\",status=\"404\"}"], 1.0, "{all:#?}");
    assert_eq!(all["weir_call_seconds_count{family=\"other\",status=\"404\"}"], 2.0);
    assert_eq!(all["weir_call_seconds_count{family=\"pages\",status=\"404\"}"], 2.0);
    assert!(!all.keys().any(|name| name.contains("nonsense")));
    assert_eq!(weir.call("POST", "/metrics", "").status, 405);
}

/// Every metric that the dashboard draws is one that the server has.
#[test]
fn the_dashboard_draws_what_there_is() {
    let home = Home::new();
    // Methods have series once they were called.
    let hooks = HookServer::start();
    home.hooks("flashStreamingApp", &hooks, &[Method::Connect]);
    let weir = home.start();
    weir.get("/rest-api/stream/find_all");
    let publisher = Publisher::start(Clip::LONG, &uri(&weir, "a"));
    weir.wait_frames("a", 1);
    let text = weir.get("/metrics?stream=a").body;
    publisher.leave();
    let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    let there: BTreeMap<&str, &str> = types.map(|line| line.split_once(' ').unwrap()).collect();
    let file = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/grafana/weir.json");
    let dashboard: Value = serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
    let mut drawn = 0;
    for panel in dashboard["panels"].as_array().unwrap() {
        for target in panel["targets"].as_array().unwrap() {
            let expression = target["expr"].as_str().unwrap();
            let words = expression.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
            for word in words.filter(|word| word.starts_with("weir_") || word.starts_with("process_")) {
                let plain = word.trim_end_matches("_total").trim_end_matches("_bucket").trim_end_matches("_count");
                let known = there.get(plain).unwrap_or_else(|| panic!("{word} of {expression} in {there:#?}"));
                assert_eq!(word.ends_with("_total"), *known == "counter", "{word}");
                drawn += 1;
            }
        }
    }
    assert!(drawn > 15);
}

#[test]
fn statistics_as_wcs_has_them() {
    let home = Home::new();
    let weir = home.start();
    let answer = weir.get("/?action=stat&preventCache=Sat%20Nov%2021");
    assert_eq!((answer.status, answer.header("content-type")), (200, Some("text/plain;charset=UTF-8")));
    // As the WebSDK reads it.
    let mut groups: BTreeMap<String, BTreeMap<&str, u64>> = BTreeMap::new();
    let mut group = String::new();
    for line in answer.body.lines() {
        if let Some(header) = line.strip_prefix('-') {
            let name = header.trim_start_matches('-');
            group = name.split(|c: char| !c.is_ascii_alphabetic() && c != '_').next().unwrap().to_lowercase();
        } else {
            let (key, value) = line.split_once('=').unwrap();
            groups.entry(group.clone()).or_default().insert(key, value.parse().unwrap());
        }
    }
    assert_eq!(
        groups["connections_stats"],
        BTreeMap::from([("connections", 0), ("connections_rtmfp", 0), ("connections_websocket", 0)])
    );
    assert_eq!(groups["port_stats"]["ports_media_free"], 1000);
    assert_eq!(groups["streams_stats"].len(), 10);
    assert!(groups["core_stats"]["core_threads"] > 2);
    assert!(groups["core_stats"]["core_java_freePhysicalMemorySize"] > 1 << 20);
    let json = weir.get("/?action=stat&format=json&groups=transcoding_stats,native_resources").json();
    assert_eq!(
        json,
        json!({
            "native_resources": {"native_resources": 0},
            "transcoding_stats": {"degraded_streams": 0, "degraded_streams_percent": 0},
        })
    );
    assert!(weir.get("/").body.contains("<html"));
}

#[test]
fn readiness_has_reasons() {
    let home = Home::new();
    let weir = home.start();
    assert_eq!(weir.get("/health/live").json(), json!({"status": "UP"}));
    assert_eq!(weir.get("/health/ready").json(), json!({"status": "UP", "reasons": []}));
    let verbose = weir.get("/health/ready?verbose").json();
    let verbose = &verbose["verbose"];
    assert!(verbose["gstreamer"].as_str().unwrap().starts_with("GStreamer 1."), "{verbose}");
    assert!(verbose["freeSpace"].as_u64().unwrap() > 0 && verbose["maxDescriptors"].as_u64().unwrap() > 0, "{verbose}");
    for defect in verbose["gstreamerDefects"].as_array().unwrap() {
        assert!(defect["part"].is_string() && defect["what"].is_string() && defect["mendedIn"].is_array(), "{defect}");
    }
    drop(weir);
    let full = home.setup().set("record_min_free_space=900000G").start();
    let answer = full.get("/health/ready");
    let body = answer.json();
    assert_eq!((answer.status, &body["status"]), (503, &json!("DOWN")));
    assert_eq!(body["reasons"][0]["code"], "diskFull");
    assert_eq!(full.get("/health/live").status, 200);
    std::fs::remove_dir_all(home.records()).unwrap();
    assert_eq!(full.get("/health/ready").json()["reasons"][0]["code"], "diskUnusable");
}
