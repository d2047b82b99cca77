//! Which servers weir dials: `pull_allow` and `pull_deny`, for REST, for players, and for sources that lead on.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::{Arc, Mutex};

use serde_json::json;

use crate::page::Page;
use crate::support::{Camera, Home, SOON, Weir, camera, wait, wait_until};

fn rtsp(weir: &Weir, uri: &str) {
    weir.done("/rest-api/rtsp/startup", &json!({"uri": uri, "toStream": "cam"}));
}

fn last_error(weir: &Weir) -> String {
    let answer = weir.get("/rest-api/rtsp/find_all");
    answer.json()[0]["lastError"].as_str().unwrap_or_default().to_owned()
}

#[test]
fn servers_that_rules_bar_are_refused_at_once() {
    let home = Home::new();
    let weir = home.start();
    let stream = "s";
    for (path, uri) in [
        ("/rest-api/pull/rtmp/pull", "rtmp://169.254.169.254/latest/meta-data"),
        ("/rest-api/pull/rtmp/pull", "rtmp://2852039166/live/a"),
        ("/rest-api/pull/rtmp/pull", "rtmps://[::ffff:169.254.1.1]/live/a"),
        ("/rest-api/rtsp/startup", "rtsp://admin:secret@0251.0376.0251.0376/a"),
        ("/rest-api/rtsp/startup", "rtsp://[fe80::1]/a"),
        ("/rest-api/pull/pull", "ws://metadata.google.internal:80"),
        ("/rest-api/pull/push", "ws://100.100.100.200:80"),
    ] {
        let answer = weir.post(path, &json!({"uri": uri, "remoteStreamName": stream, "localStreamName": stream}));
        assert_eq!(weir.refused(&answer, path), (403, "PullDenied".to_owned()), "{uri}");
        assert!(answer.body.contains("pull_deny") && !answer.body.contains("secret"), "{answer:?}");
    }
    let mut page = Page::established(&weir);
    page.play("P", "rtsp://169.254.169.254/a", "v=0");
    assert_eq!(page.status(), ("FAILED".into(), "Restricted access".into()));
    assert_eq!(weir.get("/rest-api/pull/find_all").body, "[]");
    assert_eq!(weir.get("/rest-api/rtsp/find_all").status, 404);
    assert!(weir.logged("is denied by the rule 169.254.0.0/16 of pull_deny") && !weir.logged("secret"));
    weir.stop();
}

#[test]
fn what_is_allowed_is_pulled_and_nothing_else() {
    let home = Home::new();
    let camera = Camera::start(&[camera::h264()]);
    let weir = home.setup().set("pull_allow=rtsp://127.0.0.0/8").start();
    let answer = weir.post("/rest-api/pull/rtmp/pull", &json!({"uri": "rtmp://127.0.0.1/live/a"}));
    assert_eq!(weir.refused(&answer, "/rest-api/pull/rtmp/pull"), (403, "PullDenied".to_owned()));
    assert!(answer.body.contains("no rule of pull_allow allows 127.0.0.1"), "{answer:?}");
    rtsp(&weir, &camera.uri().replace("127.0.0.1", "localhost"));
    weir.wait_frames("cam", 25);
    // What was looked at is what is dialled; what is shown is what was asked for.
    let line = weir.pipelines("pull-rtsp")[0]["line"].as_str().unwrap().to_owned();
    assert!(line.contains("rtsp://127.0.0.1:"), "{line}");
    assert!(weir.get("/rest-api/rtsp/find_all").body.contains("rtsp://localhost:"));
    weir.stop();
}

/// An RTSP server that leads every client on to `target`, once a connection.
fn leading_to(target: String) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for mut client in listener.incoming().flatten() {
            let mut request = [0; 4096];
            while let Ok(len @ 1..) = client.read(&mut request) {
                let text = String::from_utf8_lossy(&request[..len]).into_owned();
                let number = text.lines().find_map(|line| line.strip_prefix("CSeq: ")).unwrap_or("1").to_owned();
                let answer = match text.starts_with("OPTIONS") {
                    true => {
                        format!("RTSP/1.0 200 OK\r\nCSeq: {number}\r\nPublic: OPTIONS, DESCRIBE, SETUP, PLAY\r\n\r\n")
                    }
                    false => format!("RTSP/1.0 302 Found\r\nCSeq: {number}\r\nLocation: {target}\r\n\r\n"),
                };
                let _ = client.write_all(answer.as_bytes());
            }
        }
    });
    port
}

#[test]
fn a_source_leads_on_to_what_may_be_dialled_only() {
    let home = Home::new();
    let camera = Camera::start(&[camera::h264()]);
    let inner = TcpListener::bind("127.0.0.2:0").unwrap();
    let secret = format!("rtsp://127.0.0.2:{}/inner", inner.local_addr().unwrap().port());
    let heard = Arc::new(Mutex::new(Vec::new()));
    let ear = heard.clone();
    std::thread::spawn(move || {
        for mut client in inner.incoming().flatten() {
            let mut said = [0; 4096];
            let len = client.read(&mut said).unwrap_or(0);
            ear.lock().unwrap().extend_from_slice(&said[..len]);
        }
    });
    let mut weir = home.setup().set("pull_deny=127.0.0.2").start();
    weir.announce("127.0.0.2 is denied by the rule 127.0.0.2 of pull_deny");
    rtsp(&weir, &format!("rtsp://127.0.0.1:{}/a", leading_to(secret)));
    wait_until("the source to be left", || last_error(&weir).contains("of pull_deny"));
    assert_eq!(String::from_utf8_lossy(&heard.lock().unwrap()), "", "nothing is said to who may not be dialled");
    weir.done("/rest-api/rtsp/terminate", &json!({"toStream": "cam"}));
    rtsp(&weir, &format!("rtsp://127.0.0.1:{}/a", leading_to(camera.uri())));
    wait("frames from where it leads", SOON, || (weir.frames("cam").0 > 25).then_some(()));
    weir.stop();
}
