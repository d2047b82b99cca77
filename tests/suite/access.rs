//! Who may call REST: everybody by default; with `disable_rest_auth=false` the users of the command line and whoever has
//! the token.

use std::process::Command;
use std::time::{Duration, Instant};

use crate::support::{Answer, Home, SOON, Setup, Weir, run};
use data_encoding::BASE64;

const PROGRAM: &str = env!("CARGO_BIN_EXE_weir");
const TOKEN: &str = "a-token-of-the-operator";

fn setup(home: &Home) -> Setup {
    let setup = home.setup().set("disable_rest_auth=false").set(&format!("rest_api_token={TOKEN}"));
    let setup = setup.set("rest_access_control_allow_headers=authorization");
    setup.set("rest_access_control_headers=Vary: Origin;X-Frame-Options: SAMEORIGIN")
}

/// A guarded server with the users admin (`hunter2`) and bob (`hunter3`).
fn start(home: &Home) -> Weir {
    let weir = setup(home).start();
    ctl(home, &["passwd", "admin", "hunter2"]);
    ctl(home, &["add", "user", "bob", "hunter3"]);
    weir
}

fn ctl(home: &Home, words: &[&str]) -> String {
    let output = run(Command::new(PROGRAM).arg("ctl").args(words).current_dir(home.path()), SOON);
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

fn basic(user: &str, password: &str) -> String {
    format!("Authorization: Basic {}\r\n", BASE64.encode(format!("{user}:{password}").as_bytes()))
}

fn bearer(token: &str) -> String {
    format!("Authorization: Bearer {token}\r\n")
}

fn call(weir: &Weir, method: &str, path: &str, headers: &str) -> Answer {
    let head = format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{headers}\r\n");
    weir.raw(head.as_bytes()).unwrap_or_else(|| panic!("{path}: no answer"))
}

#[test]
fn everybody_may_call_by_default() {
    let home = Home::new();
    let weir = home.start();
    for headers in ["", &basic("nobody", "x"), &bearer("x"), "Authorization: nonsense\r\n"] {
        assert_eq!(call(&weir, "GET", "/rest-api/pull/find_all", headers).status, 200, "{headers}");
    }
    weir.stop();
}

#[test]
fn users_and_the_token_may_and_others_are_asked_to_log_in() {
    let home = Home::new();
    let weir = start(&home);
    std::fs::write(home.records().join("film.mp4"), "its content").unwrap();
    let paths = ["/rest-api/pull/find_all", "/rest-api/recordings", "/client/records/film.mp4", "/", "/weir.js"];
    for path in paths {
        for headers in
            ["", "Authorization: nonsense\r\n", "Authorization: Basic ?\r\n", "Authorization: Digest a=b\r\n"]
        {
            let answer = call(&weir, "GET", path, headers);
            assert_eq!(answer.status, 401, "{path} {headers}");
            assert_eq!(answer.header("www-authenticate"), Some("Basic realm=\"weir\", charset=\"UTF-8\""));
            assert!(!answer.body.contains("its content"), "{answer:?}");
        }
        for headers in [basic("admin", "hunter2"), basic("bob", "hunter3"), bearer(TOKEN)] {
            assert_eq!(call(&weir, "GET", path, &headers).status, 200, "{path} {headers}");
        }
    }
    let answer = call(&weir, "GET", "/rest-api/pull/find_all", "");
    assert_eq!(weir.refused(&answer, "/rest-api/pull/find_all"), (401, "LoginRequired".to_owned()));
    assert_eq!(call(&weir, "POST", "/rest-api/stream/terminate", "Content-Length: 0\r\n").status, 401);
    assert_eq!(call(&weir, "GET", "/rest-api/no/such/call", "").status, 401, "not even that is told");
    assert_eq!(call(&weir, "GET", "/health/live", "").status, 200);
    for (path, headers, status) in [
        ("/rest-api/pull/find_all", String::new(), 401),
        ("/rest-api/stream/find_all", bearer(TOKEN), 404),
        ("/client/records/film.mp4", bearer(TOKEN), 200),
        ("/", bearer(TOKEN), 200),
        ("/health/live", String::new(), 200),
    ] {
        for method in ["GET", "OPTIONS"] {
            let answer = call(&weir, method, path, &headers);
            assert_eq!(answer.status, if method == "GET" { status } else { 200 }, "{path}");
            assert_eq!(answer.header("access-control-allow-origin"), Some("*"), "{path}");
            assert_eq!(answer.header("access-control-allow-headers"), Some("authorization"), "{path}");
            assert_eq!(answer.header("vary"), Some("Origin"), "{path}");
            assert_eq!(answer.header("x-frame-options"), Some("SAMEORIGIN"), "{path}");
        }
    }
    let preflight = call(&weir, "OPTIONS", "/rest-api/pull/find_all", "Origin: http://a\r\n");
    assert_eq!((preflight.status, preflight.header("access-control-allow-origin")), (200, Some("*")));
    assert_eq!(run(Command::new(PROGRAM).args(["health"]).current_dir(home.path()), SOON).status.code(), Some(0));
    weir.stop();
}

#[test]
fn wrong_ones_are_slow_logged_and_refused() {
    let home = Home::new();
    let mut weir = start(&home);
    weir.announce("REST: wrong credentials, for \"admin\"");
    weir.announce("REST: wrong credentials, for \"nobody\"");
    weir.announce("REST: wrong credentials, for \"a token\"");
    let path = "/rest-api/pull/find_all";
    let long = "x".repeat(2000);
    for headers in [
        basic("admin", "hunter3"),
        basic("admin", ""),
        basic("admin", &long),
        basic("nobody", "hunter2"),
        bearer("a-token-of-the-operatoR"),
        bearer(""),
    ] {
        let began = Instant::now();
        let answer = call(&weir, "GET", path, &headers);
        if headers != bearer("") {
            assert_eq!(weir.refused(&answer, path), (401, "LoginWrong".to_owned()), "{headers}");
            assert!(began.elapsed() >= Duration::from_secs(1), "{headers}");
        }
        assert_eq!(answer.status, 401);
    }
    // What was right before is so no longer once the password is another one, or the user gone.
    assert_eq!(call(&weir, "GET", path, &basic("bob", "hunter3")).status, 200);
    ctl(&home, &["passwd", "bob", "hunter4"]);
    weir.announce("REST: wrong credentials, for \"bob\"");
    assert_eq!(call(&weir, "GET", path, &basic("bob", "hunter3")).status, 401);
    assert_eq!(call(&weir, "GET", path, &basic("bob", "hunter4")).status, 200);
    ctl(&home, &["remove", "user", "bob"]);
    assert_eq!(call(&weir, "GET", path, &basic("bob", "hunter4")).status, 401);
    // What is no credentials at all is asked for some, and counts as no guess.
    let metrics = call(&weir, "GET", "/metrics", &bearer(TOKEN)).body;
    let count = |reason| Weir::denials(&metrics, "rest", reason);
    assert_eq!((count("password"), count("token"), count("busy")), (6, 1, 0), "{metrics}");
    assert!(!weir.logged("hunter") && !weir.logged(TOKEN));
    assert!(!ctl(&home, &["show", "node-settings"]).contains(TOKEN));
    weir.stop();
}

#[test]
fn who_guesses_does_not_hold_up_who_knows() {
    let home = Home::new();
    let mut weir = start(&home);
    weir.announce("REST: wrong credentials, for \"admin\"");
    let path = "/rest-api/pull/find_all";
    assert_eq!(call(&weir, "GET", path, &basic("admin", "hunter2")).status, 200);
    let statuses: Vec<u16> = std::thread::scope(|scope| {
        let guess = || call(&weir, "GET", path, &basic("admin", "wrong")).status;
        let guesses: Vec<_> = (0..64).map(|_| scope.spawn(guess)).collect();
        let began = Instant::now();
        for _ in 0..100 {
            assert_eq!(call(&weir, "GET", path, &basic("admin", "hunter2")).status, 200);
            assert_eq!(call(&weir, "GET", path, &bearer(TOKEN)).status, 200);
        }
        println!("200 calls beside 64 guesses: {:?}", began.elapsed());
        guesses.into_iter().map(|guess| guess.join().unwrap()).collect()
    });
    assert!(statuses.iter().all(|status| [401, 429].contains(status)), "{statuses:?}");
    assert!(statuses.contains(&429) && statuses.contains(&401), "{statuses:?}");
    let busy = statuses.iter().filter(|status| **status == 429).count() as u64;
    let metrics = call(&weir, "GET", "/metrics", &bearer(TOKEN)).body;
    assert_eq!(Weir::denials(&metrics, "rest", "busy"), busy);
    assert_eq!(Weir::denials(&metrics, "rest", "password"), 64 - busy);
    weir.stop();
}

#[test]
fn a_token_that_cannot_be_sent_stops_the_start() {
    let home = Home::new();
    let output = home.setup().set("rest_api_token=two words").run();
    let err = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.code() == Some(2) && err.contains("rest_api_token = \"***\""), "{err}");
}
