//! Where hook servers may be: behind TLS, at an IPv6 address, behind a password in the URL, behind a redirect.

use std::net::TcpListener;

use crate::page::Page;
use crate::support::{Home, HookServer, Reply, Setup, TlsProxy, Weir};
use data_encoding::BASE64;
use rcgen::CertificateParams;
use serde_json::json;
use weir::hook::Method;
use weir::hook::application::{Secret, Update};

const APP: &str = "defaultApp";

/// `defaultApp` has its hook server at `url`.
fn at(home: &Home, url: &str) {
    home.application(APP, Update { url: Some(url.to_owned()), ..Update::default() }, &[Method::Connect]);
}

fn trusting(home: &Home, proxy: &TlsProxy) -> Setup {
    home.setup().set(&format!("rest_hook_ca_file={}", proxy.ca.display()))
}

/// What a page is told that may not connect.
fn refused(weir: &Weir) -> String {
    let mut page = Page::open(weir);
    page.say("connection", &json!({"appKey": APP}));
    page.hears("fail")["info"].as_str().unwrap().to_owned()
}

#[test]
fn a_hook_server_behind_tls_is_called_when_its_ca_is_trusted() {
    let (home, hooks) = (Home::new(), HookServer::start());
    let proxy = TlsProxy::start(home.path(), hooks.port());
    at(&home, &format!("https://localhost:{}/MyAPI", proxy.port));
    let weir = trusting(&home, &proxy).start();
    Page::established(&weir);
    assert!(hooks.wait("connect", |_| true).head.starts_with("POST /MyAPI/connect HTTP/1.1\r\n"));
    let shown = home.ctl("show node-settings");
    assert!(shown.contains("rest_hook_ca_file"), "{shown}");
}

/// Each certificate that is refused is told as what is wrong with it, and nothing is sent.
#[test]
fn a_certificate_that_cannot_be_trusted_says_why() {
    let expired = |params: &mut CertificateParams| params.not_after = rcgen::date_time_ymd(2001, 2, 3);
    let early = |params: &mut CertificateParams| params.not_before = rcgen::date_time_ymd(2999, 1, 1);
    let other = |params: &mut CertificateParams| {
        params.subject_alt_names = vec![rcgen::SanType::DnsName("example.org".try_into().unwrap())];
    };
    let ca = |params: &mut CertificateParams| {
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    };
    let hooks = HookServer::start();
    type Change<'a> = &'a dyn Fn(&mut CertificateParams);
    let changes: [(Change<'_>, &str); 4] = [
        (&expired, "its certificate has expired"),
        (&early, "its certificate is not valid yet"),
        (&other, "its certificate is for another host name"),
        (&ca, "its certificate is that of a CA"),
    ];
    for (change, said) in changes {
        let home = Home::new();
        let proxy = TlsProxy::with(home.path(), hooks.port(), change);
        at(&home, &format!("https://localhost:{}", proxy.port));
        let mut weir = trusting(&home, &proxy).start();
        weir.announce(said);
        let told = refused(&weir);
        assert!(told.contains(said) && !told.contains("example.org"), "{told}");
    }
    let home = Home::new();
    let proxy = TlsProxy::start(home.path(), hooks.port());
    at(&home, &format!("https://localhost:{}", proxy.port));
    let mut weir = home.start();
    let said = "its certificate is from a CA that is not trusted (rest_hook_ca_file adds one)";
    weir.announce(said);
    assert_eq!(refused(&weir), format!("REST hook is not reached: {said}"));
    // A server without TLS: weir's own.
    home.ctl(&format!("update app -l https://127.0.0.1:{}/ {APP}", weir.port()));
    let told = refused(&weir);
    assert!(told.contains("it does not speak TLS as it should"), "{told}");
    assert!(hooks.calls().is_empty());
}

#[test]
fn a_file_of_certificates_that_is_none_stops_the_start() {
    let home = Home::new();
    let file = home.path().join("ca.pem");
    for (text, why) in [("nothing", "it has no certificate"), ("", "it has no certificate")] {
        std::fs::write(&file, text).unwrap();
        let output = home.setup().set(&format!("rest_hook_ca_file={}", file.display())).run();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && said.contains("rest_hook_ca_file") && said.contains(why), "{said}");
    }
    std::fs::remove_file(&file).unwrap();
    let output = home.setup().set(&format!("rest_hook_ca_file={}", file.display())).run();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("rest_hook_ca_file"), "{said}");
}

#[test]
fn a_hook_server_may_have_an_ipv6_address() {
    let Ok(listener) = TcpListener::bind("[::1]:0") else { panic!("this machine has no IPv6 loopback") };
    let (home, hooks) = (Home::new(), HookServer::on(listener));
    at(&home, &format!("http://[::1]:{}/MyAPI", hooks.port()));
    let weir = home.start();
    Page::established(&weir);
    let call = hooks.wait("connect", |_| true);
    assert_eq!(call.header("host").unwrap(), format!("[::1]:{}", hooks.port()));
}

#[test]
fn the_password_of_a_url_is_sent_and_never_shown() {
    let (home, hooks) = (Home::new(), HookServer::start());
    let url = format!("http://caller:s3cr%65t@127.0.0.1:{}/MyAPI", hooks.port());
    at(&home, &url);
    let mut weir = home.start();
    weir.announce("hook=connect");
    Page::established(&weir);
    let basic = |who: &str| format!("Basic {}", BASE64.encode(who.as_bytes()));
    let who = |hooks: &HookServer| hooks.wait("connect", |_| true).headers("authorization");
    assert_eq!(who(&hooks), [basic("caller:s3cret")]);
    // Where it is shown, and where it fails.
    assert!(home.ctl("show apps").contains("http://caller:***@127.0.0.1"), "{}", home.ctl("show apps"));
    home.ctl(&format!("update app -l {url}/v2 {APP}"));
    hooks.answers(|_| Reply::Status(401));
    let mut told = vec![refused(&weir)];
    hooks.answers(|_| Reply::Redirect("http://caller:s3cret@127.0.0.1:1/".into()));
    told.push(refused(&weir));
    assert_eq!(told[1], "REST 302 (redirects are not followed)");
    home.ctl(&format!("update app -l http://caller:s3cret@127.0.0.1:1 {APP}"));
    told.push(refused(&weir));
    told.push(home.ctl("show apps --detail"));
    told.push(home.ctl("show apps --json"));
    told.push(weir.get("/rest-api/hooks").body.clone());
    told.extend(weir.log());
    assert!(!told.iter().any(|text| text.contains("s3cr")), "{told:#?}");

    // Where the application has a user of its own, it is that one alone.
    weir.stop();
    hooks.forget();
    hooks.answers(|_| Reply::Mirror);
    let update = Update {
        url: Some(url),
        rest_username: Some("other".into()),
        rest_password: Some(Secret::new("p".into())),
        ..Update::default()
    };
    home.application(APP, update, &[Method::Connect]);
    Page::established(&home.start());
    assert_eq!(who(&hooks), [basic("other:p")]);
}
