//! What stands around a server in production: systemd is told how the service is, and the files that run weir in a
//! container, a cluster or as a service say what the settings and the image say.

use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use crate::support::{Home, SOON, Signal, wait, wait_until};

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn read(file: &str) -> String {
    std::fs::read_to_string(root().join(file)).unwrap_or_else(|e| panic!("{file}: {e}"))
}

/// The default of a setting.
fn default(key: &str) -> String {
    let settings = read("conf/flashphoner.properties");
    let lines = settings.lines().filter(|line| !line.starts_with(['#', '!'])).filter_map(|line| line.split_once('='));
    let found = lines.map(|(name, value)| (name.trim(), value.trim())).find(|(name, _)| *name == key);
    found.unwrap_or_else(|| panic!("{key} has a default")).1.to_owned()
}

fn number(key: &str) -> u64 {
    default(key).parse().unwrap()
}

/// The arguments of the only such instruction in the Dockerfile, JSON or plain.
fn dockerfile(instruction: &str) -> String {
    let text = read("Dockerfile");
    let mut found = text.lines().filter_map(|line| line.strip_prefix(instruction)?.strip_prefix(' '));
    let rest = found.next().unwrap_or_else(|| panic!("{instruction} in the Dockerfile"));
    assert_eq!(found.next(), None);
    rest.trim().to_owned()
}

/// The documents of a YAML file.
fn yaml(file: &str) -> Vec<Value> {
    let program = "import json, sys, yaml; print(json.dumps(list(yaml.safe_load_all(open(sys.argv[1])))))";
    let output = Command::new("/usr/bin/python3").args(["-c", program]).arg(root().join(file)).output().unwrap();
    assert!(output.status.success(), "{file}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn texts(value: &Value) -> Vec<&str> {
    list(value).iter().map(|text| text.as_str().unwrap_or_else(|| panic!("{text} is text"))).collect()
}

/// The setting of an environment variable of weir's has to exist, and its value has to be one that the settings take.
fn is_setting(name: &str, value: Option<&str>) {
    let home = Home::new();
    // Without a port to listen on it goes no further than the settings.
    let output = home.bare("serve").env(name, value.unwrap_or("192.0.2.1")).set("ws.port=none").run();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("ws.port"), "{said}");
    let key = name.strip_prefix("WEIR_").unwrap().to_lowercase();
    assert!(!said.contains(&key), "{name}: {said}");
    let settings = read("conf/flashphoner.properties");
    let mut keys = settings.lines().filter_map(|line| line.split_once('=')).map(|(name, _)| name.trim());
    assert!(keys.any(|setting| setting.replace('.', "_").to_lowercase() == key), "{name} is a setting");
}

/// An image is named with a version, so that it is known what runs.
fn is_pinned(image: &Value) {
    let image = image.as_str().unwrap();
    let (name, tag) = image.rsplit_once(':').unwrap_or_else(|| panic!("{image} names a version"));
    assert_ne!(tag, "latest", "{image}");
    assert!(name != "weir" || tag == env!("CARGO_PKG_VERSION"), "{image} is this version");
}

/// systemd's messages until one holds `last`.
fn told(socket: &UnixDatagram, last: &str) -> Vec<String> {
    let mut messages = Vec::new();
    wait(&format!("{last} for systemd"), SOON, || {
        let mut text = [0; 4096];
        let length = socket.recv(&mut text).ok()?;
        messages.push(String::from_utf8(text[..length].to_vec()).unwrap());
        messages.last()?.lines().any(|line| line == last).then_some(())
    });
    messages
}

#[test]
fn systemd_is_told_how_the_service_is() {
    let home = Home::new();
    let path = home.path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    let setup = home.setup().env("NOTIFY_SOCKET", &path.to_string_lossy()).env("WATCHDOG_USEC", "200000");
    let weir = setup.set("shutdown_timeout=12000").start();

    let first = told(&socket, "READY=1").pop().unwrap();
    assert!(first.contains(&format!("STATUS=REST on 127.0.0.1:{}", weir.port())), "{first}");
    // Not before: who is told to go on finds somebody who listens.
    assert_eq!(weir.get("/health/ready").status, 200);
    for _ in 0..3 {
        assert!(told(&socket, "WATCHDOG=1").len() < 3);
    }
    weir.signal(Signal::TERM);
    let last = told(&socket, "STOPPING=1").pop().unwrap();
    let extension = last.lines().find_map(|line| line.strip_prefix("EXTEND_TIMEOUT_USEC=")).unwrap();
    assert!(extension.parse::<u64>().unwrap() > 12_000_000, "{last}");
    assert!(weir.ended().0.success());
}

#[test]
fn a_service_manager_that_is_not_there_is_no_reason_to_end() {
    let home = Home::new();
    let mut weir = home.setup().env("NOTIFY_SOCKET", "/nonexistent/notify").start();
    weir.announce("systemd cannot be told");
    weir.wait_log("systemd cannot be told");
    assert_eq!(weir.get("/health/ready").status, 200);
}

/// The keys of a unit's section, in their order.
fn unit() -> Vec<(String, String)> {
    let text = read("deploy/weir.service");
    let lines = text.lines().filter(|line| !line.starts_with(['#', '[']));
    lines.filter_map(|line| line.split_once('=')).map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}

#[test]
fn the_unit_fits_the_server() {
    let keys = unit();
    let all = |key: &str| keys.iter().filter(|(name, _)| name == key).map(|(_, v)| v.as_str()).collect::<Vec<_>>();
    let one = |key: &str| {
        let found = all(key);
        assert_eq!(found.len(), 1, "one {key}");
        found[0]
    };
    assert_eq!((one("Type"), one("WatchdogSec"), one("User")), ("notify", "30", "weir"));
    assert!(one("TimeoutStopSec").parse::<u64>().unwrap() * 1000 > number("shutdown_timeout"));
    assert_eq!(one("RestartPreventExitStatus"), "2", "the exit code of settings that cannot be used");
    // Below the working directory, where all that weir writes comes to lie.
    let home = one("WorkingDirectory");
    let state: Vec<String> = one("StateDirectory").split(' ').map(|name| format!("/var/lib/{name}")).collect();
    for folder in [home.to_owned(), format!("{home}/data"), format!("{home}/{}", default("record_dir"))] {
        assert!(state.contains(&folder), "{folder} of {state:?} can be written");
    }
    let command: Vec<&str> = one("ExecStart").split(' ').collect();
    assert_eq!(command[1], "serve");
    assert!(command.windows(2).any(|pair| pair == ["--data", &format!("{home}/data")]), "{command:?}");
    for (key, value) in [
        ("NoNewPrivileges", "yes"),
        ("ProtectSystem", "strict"),
        ("ProtectHome", "yes"),
        ("PrivateTmp", "yes"),
        ("PrivateDevices", "yes"),
        ("CapabilityBoundingSet", ""),
        ("RestrictNamespaces", "yes"),
        ("RestrictSUIDSGID", "yes"),
        ("LockPersonality", "yes"),
    ] {
        assert_eq!(one(key), value, "{key}");
    }
    assert!(all("SystemCallFilter").contains(&"@system-service"));
}

/// systemd knows every key, and finds little that the service could do to its host.
#[test]
fn systemd_takes_the_unit() {
    let run = |arguments: &[&str], unit: &Path| Command::new("systemd-analyze").args(arguments).arg(unit).output();
    let home = Home::new();
    // The program is not installed here, so the unit names this one.
    let file = home.path().join("weir.service");
    let text = read("deploy/weir.service").replace("/usr/local/bin/weir", env!("CARGO_BIN_EXE_weir"));
    std::fs::write(&file, text).unwrap();
    let Ok(verified) = run(&["verify", "--man=no"], &file) else {
        return println!("not looked at: there is no systemd here");
    };
    let said = String::from_utf8_lossy(&verified.stderr);
    assert!(!said.contains("weir.service:"), "{said}");
    let judged = run(&["security", "--offline=true", "--threshold=20", "--no-pager"], &file).unwrap();
    assert!(judged.status.success(), "{}", String::from_utf8_lossy(&judged.stdout));
}

#[test]
fn the_cluster_runs_what_the_image_is() {
    let documents = yaml("deploy/kubernetes.yaml");
    let of_kind = |kind: &str| documents.iter().filter(|d| d["kind"] == kind).collect::<Vec<_>>();
    let deployment = of_kind("Deployment")[0];
    // Two of them would write the same recordings.
    assert_eq!(
        (&deployment["spec"]["replicas"], &deployment["spec"]["strategy"]["type"]),
        (&1.into(), &"Recreate".into())
    );
    let pod = &deployment["spec"]["template"]["spec"];
    assert!(pod["terminationGracePeriodSeconds"].as_u64().unwrap() * 1000 > number("shutdown_timeout"));
    let user = format!("{}:{}", pod["securityContext"]["runAsUser"], pod["securityContext"]["runAsGroup"]);
    assert_eq!(user, dockerfile("USER"));
    assert_eq!(pod["securityContext"]["runAsNonRoot"], true);
    assert_eq!(pod["securityContext"]["fsGroup"], pod["securityContext"]["runAsGroup"], "so that it can write");
    let container = &pod["containers"][0];
    is_pinned(&container["image"]);
    let may = &container["securityContext"];
    assert_eq!((&may["readOnlyRootFilesystem"], &may["allowPrivilegeEscalation"]), (&true.into(), &false.into()));
    assert_eq!(texts(&may["capabilities"]["drop"]), ["ALL"]);

    let udp = |port: &&Value| port["protocol"] == "UDP";
    let ports = |which: bool| {
        let some = list(&container["ports"]).iter().filter(|port| udp(port) == which);
        some.map(|port| port["containerPort"].as_u64().unwrap()).collect::<Vec<_>>()
    };
    let listeners = ["http.port", "https.port", "ws.port", "wss.port", "rtmp.port", "ssh.port"];
    assert_eq!(ports(false), listeners.map(number));
    assert_eq!(ports(true), [number("media_port_from")], "one port has all viewers");
    let range = format!("{} to {}", number("media_port_from") + 1, number("media_port_to"));
    assert!(read("deploy/kubernetes.yaml").contains(&range), "the range for publishers, {range}, is explained");
    for variable in list(&container["env"]) {
        is_setting(variable["name"].as_str().unwrap(), variable["value"].as_str());
    }

    let names: Vec<&Value> = list(&container["ports"]).iter().map(|port| &port["name"]).collect();
    let home = Home::new();
    let weir = home.start();
    for (probe, path) in
        [("startupProbe", "/health/live"), ("livenessProbe", "/health/live"), ("readinessProbe", "/health/ready")]
    {
        let get = &container[probe]["httpGet"];
        assert_eq!((get["path"].as_str(), get["port"].as_str()), (Some(path), Some("rest")), "{probe}");
        assert_eq!(weir.get(path).status, 200);
    }
    for port in list(&of_kind("Service")[0]["spec"]["ports"]) {
        assert!(names.contains(&&port["targetPort"]), "{port} is a port of the container");
    }
    let labels = &deployment["spec"]["template"]["metadata"]["labels"];
    assert_eq!(&of_kind("Service")[0]["spec"]["selector"], labels);
    assert_eq!(&deployment["spec"]["selector"]["matchLabels"], labels);

    // Each mount is a volume of the pod, each claim is made here, and what the image keeps is kept.
    let claims: Vec<&Value> = of_kind("PersistentVolumeClaim").iter().map(|d| &d["metadata"]["name"]).collect();
    let kept: Vec<&str> = list(&container["volumeMounts"])
        .iter()
        .filter(|mount| {
            let volume = list(&pod["volumes"]).iter().find(|volume| volume["name"] == mount["name"]);
            let claim = &volume.unwrap_or_else(|| panic!("{mount}"))["persistentVolumeClaim"]["claimName"];
            assert!(claim.is_null() || claims.contains(&claim), "{claim}");
            !claim.is_null()
        })
        .map(|mount| mount["mountPath"].as_str().unwrap())
        .collect();
    let volumes: Value = serde_json::from_str(&dockerfile("VOLUME")).unwrap();
    assert_eq!(kept, texts(&volumes).into_iter().filter(|place| place.starts_with("/var")).collect::<Vec<_>>());
}

#[test]
fn compose_runs_what_the_image_is() {
    let compose = &yaml("compose.yaml")[0];
    let services = compose["services"].as_object().unwrap();
    for service in services.values() {
        is_pinned(&service["image"]);
        for volume in texts(&service["volumes"]) {
            let source = volume.split(':').next().unwrap();
            match source.strip_prefix("./") {
                Some(file) => assert!(root().join(file).is_file(), "{file}"),
                None => assert!(compose["volumes"].as_object().unwrap().contains_key(source), "{source}"),
            }
        }
    }
    let weir = &services["weir"];
    assert_eq!((&weir["read_only"], texts(&weir["cap_drop"])), (&true.into(), vec!["ALL"]));
    let grace = weir["stop_grace_period"].as_str().unwrap().strip_suffix('s').unwrap().parse::<u64>().unwrap();
    assert!(grace * 1000 > number("shutdown_timeout"));

    let last = weir["environment"]["WEIR_MEDIA_PORT_TO"].as_str().unwrap();
    let media = format!("{}-{last}", default("media_port_from"));
    let rest = |port: &str| format!("${{REST_ADDRESS:-127.0.0.1}}:{0}:{0}", default(port));
    let open = |port: &str| format!("{0}:{0}", default(port));
    let expected = [
        rest("http.port"),
        rest("https.port"),
        open("ws.port"),
        open("wss.port"),
        open("rtmp.port"),
        format!("{media}:{media}/udp"),
    ];
    assert_eq!(texts(&weir["ports"]), expected);
    for (name, value) in weir["environment"].as_object().unwrap() {
        is_setting(name, value.as_str().filter(|value| !value.starts_with('$')));
    }
    let volumes = texts(&weir["volumes"]);
    let places: Vec<&str> = volumes.iter().filter_map(|volume| volume.split(':').nth(1)).collect();
    let image: Value = serde_json::from_str(&dockerfile("VOLUME")).unwrap();
    assert!(places.iter().all(|place| texts(&image).contains(place)) && places.len() == 2, "{places:?}");

    // Prometheus asks weir, and Grafana asks Prometheus.
    let scrape = &yaml("deploy/prometheus.yml")[0]["scrape_configs"][0];
    assert_eq!(texts(&scrape["static_configs"][0]["targets"]), [format!("weir:{}", default("http.port"))]);
    assert_eq!(scrape["metrics_path"].as_str().unwrap_or("/metrics"), "/metrics");
    assert_eq!(yaml("deploy/grafana/datasource.yml")[0]["datasources"][0]["url"], "http://prometheus:9090");
    let folder = yaml("deploy/grafana/provider.yml")[0]["providers"][0]["options"]["path"].clone();
    let dashboards = folder.as_str().unwrap();
    let mounted = texts(&services["grafana"]["volumes"]);
    assert!(mounted.iter().any(|volume| volume.contains(&format!(":{dashboards}/weir.json"))), "{mounted:?}");
}

/// `weir health` is the image's check: it finds the server by its data directory alone.
#[test]
fn health_is_asked_without_a_port() {
    let home = Home::new();
    let weir = home.start();
    let data = home.path().join("data");
    let ask = || home.bare("health").arg("--data").arg(&data.to_string_lossy()).run().status.code();
    assert_eq!(ask(), Some(0));
    drop(weir);
    wait_until("the server to be gone", || ask() == Some(1));
}
