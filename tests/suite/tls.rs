//! The listeners with TLS, by curl, openssl and ffmpeg: certificates made, given, changed and wrong.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use crate::support;
use crate::support::{Clip, Home, Process, Publisher, Weir, decodes, probe, run, wait_until};

const LIMIT: Duration = Duration::from_secs(20);

fn curl(arguments: &[&str]) -> Output {
    run(Command::new("curl").args(["-q", "-sS", "--noproxy", "*", "--max-time", "10"]).args(arguments), LIMIT)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A certificate for localhost, signed by `issuer` or by itself, under WCS's names in `folder`.
fn make(folder: &Path, subject: &str, issuer: Option<&Path>) {
    std::fs::create_dir_all(folder).unwrap();
    let mut command = Command::new("openssl");
    command.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]);
    command.args(["-subj", &format!("/CN={subject}")]);
    let names =
        if subject.ends_with("CA") { "basicConstraints=critical,CA:TRUE" } else { "subjectAltName=DNS:localhost" };
    command.args(["-addext", names]);
    if let Some(issuer) = issuer {
        command.arg("-CA").arg(issuer.join("cert.crt")).arg("-CAkey").arg(issuer.join("private.key"));
    }
    command.arg("-out").arg(folder.join("cert.crt")).arg("-keyout").arg(folder.join("private.key"));
    let made = run(&mut command, LIMIT);
    assert!(made.status.success(), "{}", text(&made.stderr));
}

/// What a client of openssl sees of a listener.
fn handshake(port: u16, arguments: &[&str]) -> (bool, String) {
    let mut command = Command::new("openssl");
    let address = format!("127.0.0.1:{port}");
    command.args(["s_client", "-connect", &address, "-servername", "localhost", "-showcerts"]).args(arguments);
    let done = run(&mut command, LIMIT);
    (done.status.success(), text(&done.stdout) + &text(&done.stderr))
}

/// Who the certificate is for that a listener shows.
fn subject(weir: &Weir, setting: &str) -> String {
    let (_, said) = handshake(weir.port_of(setting), &[]);
    let line = said.lines().find(|line| line.starts_with("subject="));
    line.unwrap_or_else(|| panic!("{said}")).replace("subject=CN = ", "")
}

/// A server with a settings file, beside which its certificate may lie.
fn with_conf(home: &Home) -> (support::Setup, PathBuf) {
    let folder = home.path().join("conf");
    std::fs::create_dir_all(&folder).unwrap();
    let file = folder.join("flashphoner.properties");
    std::fs::write(&file, "").unwrap();
    (home.setup().arg("--conf").arg(&file.to_string_lossy()), folder)
}

#[test]
fn a_new_installation_makes_its_certificate_and_keeps_it() {
    let home = Home::new();
    let weir = home.start();
    let file = home.path().join("data/tls/cert.crt");
    let line = weir.wait_log("weir has made one, signed by itself");
    assert!(line.contains("localhost") && line.contains("data/tls/cert.crt"), "{line}");
    let https = format!("https://localhost:{}", weir.port_of("https.port"));
    let ca = file.to_string_lossy().into_owned();
    let resolve = format!("localhost:{}:127.0.0.1", weir.port_of("https.port"));
    for path in ["/health/live", "/rest-api/ports", "/", "/metrics"] {
        let answer = curl(&["--cacert", &ca, "--resolve", &resolve, "-f", &format!("{https}{path}")]);
        assert!(answer.status.success() && !answer.stdout.is_empty(), "{path}: {}", text(&answer.stderr));
    }
    let unknown = curl(&[&format!("{https}/health/live")]);
    assert_eq!(unknown.status.code(), Some(60), "nobody trusts it unasked: {}", text(&unknown.stderr));
    for (version, works) in [("-tls1_3", true), ("-tls1_2", true), ("-tls1_1", false)] {
        for setting in ["https.port", "wss.port"] {
            let (done, said) = handshake(weir.port_of(setting), &[version, "-cipher", "ALL:@SECLEVEL=0"]);
            assert_eq!(done, works, "{version} to {setting}: {said}");
        }
    }
    let first = std::fs::read(&file).unwrap();
    drop(weir);
    let again = home.start();
    assert_eq!(std::fs::read(&file).unwrap(), first);
    assert!(!again.logged("weir has made one"));
}

#[test]
fn ports_can_be_off_and_then_nothing_is_made() {
    let home = Home::new();
    let weir = home.setup().set("https.port=").set("wss.port=").start();
    assert!(!home.path().join("data/tls").exists());
    assert_eq!(weir.get("/rest-api/ports").json().as_object().unwrap().len(), 4);
}

/// The files of WCS beside the settings file, a chain among them; changed while a connection lives.
#[test]
fn files_beside_the_settings_are_used_and_taken_up_again() {
    let home = Home::new();
    let ca = home.path().join("ca");
    make(&ca, "our CA", None);
    let (setup, folder) = with_conf(&home);
    make(&folder, "first", Some(&ca));
    std::fs::copy(ca.join("cert.crt"), folder.join("ca_bundle.crt")).unwrap();
    let mut weir = setup.start();
    assert_eq!((subject(&weir, "https.port"), subject(&weir, "wss.port")), ("first".into(), "first".into()));
    assert!(!home.path().join("data/tls").exists());
    let (_, said) = handshake(weir.port_of("https.port"), &[]);
    assert_eq!(said.matches("BEGIN CERTIFICATE").count(), 2, "the chain is shown: {said}");

    // Somebody listens to the events.
    let heard = home.path().join("events");
    let events = format!("https://localhost:{}/rest-api/events", weir.port_of("https.port"));
    let resolve = format!("localhost:{}:127.0.0.1", weir.port_of("https.port"));
    let mut listener = Process::start("curl", |command| {
        command.args(["-q", "-sS", "-N", "--noproxy", "*", "--resolve", &resolve, "--cacert"]).arg(ca.join("cert.crt"));
        command.arg("-o").arg(&heard).arg(&events).stderr(Stdio::null());
    });
    let read = || std::fs::read_to_string(&heard).unwrap_or_default();
    wait_until("the first of the events", || read().contains("retry"));

    make(&folder, "second", Some(&ca));
    wait_until("the second certificate", || subject(&weir, "https.port") == "second");
    assert_eq!(subject(&weir, "wss.port"), "second");
    weir.wait_log("the certificate has changed and is in use");
    // Half of a pair changes nothing, and is said once.
    weir.announce("the certificate has changed and the one before stays in use");
    std::fs::copy(ca.join("private.key"), folder.join("private.key")).unwrap();
    weir.wait_log("the one before stays in use");
    assert_eq!(subject(&weir, "https.port"), "second");

    let publisher = Publisher::start(Clip::LONG, &format!("rtmp://127.0.0.1:{}/live/a", weir.port_of("rtmp.port")));
    wait_until("an event on the old connection", || read().contains("streamLive"));
    assert!(listener.runs());
    publisher.leave();
}

#[test]
fn rtmps_publishes_and_plays() {
    let home = Home::new();
    let (setup, folder) = with_conf(&home);
    make(&folder, "media", None);
    let pem = home.path().join("both.pem");
    let both = ["cert.crt", "private.key"].map(|name| std::fs::read_to_string(folder.join(name)).unwrap()).concat();
    std::fs::write(&pem, both).unwrap();
    let weir = setup.set("rtmps.port=0").set(&format!("tls_certificate_file={}", pem.display())).start();
    let uri = format!("rtmps://127.0.0.1:{}/live/cam", weir.port_of("rtmps.port"));
    let _publisher = Publisher::start(Clip::LONG, &uri);
    weir.wait_frames("cam", 30);
    let file = home.path().join("played.flv");
    let mut player = Process::start("ffmpeg", |command| {
        command.args(["-v", "error", "-nostdin", "-i", &uri, "-map", "0", "-c", "copy", "-t", "4", "-y"]).arg(&file);
        command.stdout(Stdio::null()).stderr(Stdio::null());
    });
    assert!(player.ended(LIMIT).success());
    let played = probe(&file);
    assert!(played.video.len() >= 90 && played.video[0].key && played.audio.len() > 100, "{}", played.video.len());
    decodes(&file);
    let connection = weir.stream("cam").unwrap()["sessionId"].as_str().unwrap().to_owned();
    assert!(connection.ends_with(&format!("/127.0.0.1:{}", weir.port_of("rtmps.port"))), "{connection}");
}

#[test]
fn what_is_no_tls_is_closed_and_harms_nobody() {
    let home = Home::new();
    let weir = home.setup().set("rtmps.port=0").start();
    for setting in ["https.port", "wss.port", "rtmps.port"] {
        for bytes in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0; 4096], b"\x16\x03\x01\xff\xff\x01"] {
            let mut socket = TcpStream::connect(("127.0.0.1", weir.port_of(setting))).unwrap();
            socket.set_read_timeout(Some(LIMIT)).unwrap();
            let _ = socket.write_all(bytes);
            let mut answer = Vec::new();
            // At most an alert comes back.
            let _ = socket.read_to_end(&mut answer);
            assert!(answer.len() < 16, "{setting}: {answer:?}");
        }
        assert!(handshake(weir.port_of(setting), &[]).0, "{setting}");
    }
}

#[test]
fn a_certificate_that_cannot_be_used_stops_the_start() {
    let home = Home::new();
    let (one, other) = (home.path().join("one"), home.path().join("other"));
    make(&one, "one", None);
    make(&other, "other", None);
    let path = |folder: &Path, name: &str| folder.join(name).display().to_string();
    for (settings, said) in [
        (vec![format!("tls_certificate_file={}", path(&one, "nothing"))], "cannot read"),
        (vec![format!("tls_certificate_file={}", path(&one, "cert.crt"))], "holds no private key"),
        (vec![format!("tls_private_key_file={}", path(&one, "private.key"))], "only with tls_certificate_file"),
        (
            vec![
                format!("tls_certificate_file={}", path(&one, "cert.crt")),
                format!("tls_private_key_file={}", path(&other, "private.key")),
            ],
            "cannot be used",
        ),
    ] {
        let setup = settings.iter().fold(home.setup(), |setup, setting| setup.set(setting));
        let ended = setup.run();
        let log = text(&ended.stderr);
        assert!(ended.status.code() == Some(2) && log.contains(said), "{settings:?}: {log}");
        assert!(!log.contains("PRIVATE KEY"), "{log}");
    }
}
