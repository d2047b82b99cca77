//! Pulls over wss://: whose certificate is trusted, and whose is not. TLS is ended by a proxy of the test's, and by
//! weir itself.

use crate::support::{Clip, Home, Publisher, SOON, TlsProxy, Weir, wait};
use serde_json::{Value, json};

fn agent(weir: &Weir, fits: impl Fn(&Value) -> bool) -> Value {
    let agents = || weir.get("/rest-api/pull/find_all").json().as_array().unwrap().clone();
    wait(&format!("an agent: {:#?}", agents()), SOON, || agents().into_iter().find(&fits))
}

#[test]
fn certificates_are_verified() {
    let homes = [Home::new(), Home::new()];
    let origin = homes[0].start();
    let _publisher = Publisher::start(Clip::LONG, &origin.rtmp("cam"));
    origin.wait_frames("cam", 5);
    let proxy = TlsProxy::start(homes[0].path(), origin.port_of("ws.port"));
    let uri = format!("wss://localhost:{}", proxy.port);
    let call = json!({"uri": uri, "remoteStreamName": "cam"});
    let plays = |weir: &Weir| {
        weir.done("/rest-api/pull/pull", &call);
        weir.wait_frames("cam", 10);
        weir.done("/rest-api/pull/terminate", &json!({"uri": uri}));
    };

    let ca = format!("wcs_agent_ca_file={}", proxy.ca.display());
    plays(&homes[1].setup().set("wcs_agent_ssl=true").set(&ca).start());

    let mut careless = homes[1].setup().set("wcs_agent_ssl=true").set("wcs_agent_insecure=true").start();
    careless.announce("certificates of other servers are NOT verified");
    plays(&careless);
    drop(careless);

    let mut strict = homes[1].setup().set("wcs_agent_ssl=true").set("pull_reconnect_attempts=1").start();
    strict.announce("pull gave up");
    strict.done("/rest-api/pull/pull", &call);
    let refused = agent(&strict, |agent| agent["status"] == "FAILED");
    let untrusted = "no TLS: its certificate is from a CA that is not trusted (wcs_agent_ca_file adds one)";
    assert!(refused["lastError"].as_str().unwrap().contains(untrusted), "{refused}");
    let by_address = json!({"uri": format!("wss://127.0.0.1:{}", proxy.port), "remoteStreamName": "other"});
    drop(strict);

    let mut named = homes[1].setup().set("wcs_agent_ssl=true").set(&ca).set("pull_reconnect_attempts=1").start();
    named.announce("pull gave up");
    named.done("/rest-api/pull/pull", &by_address);
    let refused = agent(&named, |agent| agent["status"] == "FAILED");
    assert!(
        refused["lastError"].as_str().unwrap().contains("no TLS: its certificate is for another host name"),
        "{refused}"
    );
}

#[test]
fn a_server_may_have_an_ipv6_address() {
    let homes = [Home::new(), Home::new()];
    let origin = homes[0].start();
    let _publisher = Publisher::start(Clip::LONG, &origin.rtmp("cam"));
    origin.wait_frames("cam", 5);
    let proxy = TlsProxy::at_ipv6(homes[0].path(), origin.port_of("ws.port"));
    let ca = format!("wcs_agent_ca_file={}", proxy.ca.display());
    let edge = homes[1].setup().set("wcs_agent_ssl=true").set(&ca).start();
    let uri = format!("wss://[::1]:{}", proxy.port);
    edge.done("/rest-api/pull/pull", &json!({"uri": uri, "remoteStreamName": "cam"}));
    edge.wait_frames("cam", 10);
    assert_eq!(agent(&edge, |agent| agent["localStreamName"] == "cam")["uri"], format!("{uri}/websocket"));
    edge.done("/rest-api/pull/terminate", &json!({"uri": uri}));
}

#[test]
fn servers_speak_over_the_certificate_that_one_made_itself() {
    let homes = [Home::new(), Home::new()];
    let origin = homes[0].setup().set("wss.port=0").start();
    let _publisher = Publisher::start(Clip::LONG, &origin.rtmp("cam"));
    origin.wait_frames("cam", 5);
    // What the origin shows is all the edge trusts.
    let own = homes[0].path().join("data/tls/cert.crt");
    let trusted = format!("wcs_agent_ca_file={}", own.display());
    let edge = homes[1].setup().set("wcs_agent_ssl=true").set(&trusted).start();
    let uri = format!("wss://localhost:{}", origin.port_of("wss.port"));
    edge.done("/rest-api/pull/pull", &json!({"uri": uri, "remoteStreamName": "cam"}));
    edge.wait_frames("cam", 25);
    assert_eq!(edge.stream("cam").unwrap()["videoCodec"], "H264");
    // The edge ends first: its pull would look for an origin that is gone.
    edge.done("/rest-api/pull/terminate", &json!({"remoteStreamName": "cam"}));
}

#[test]
fn a_file_of_certificates_that_is_none_stops_the_start() {
    let home = Home::new();
    let file = home.path().join("ca.pem");
    std::fs::write(&file, "nothing").unwrap();
    let output = home.setup().set("wcs_agent_ssl=true").set(&format!("wcs_agent_ca_file={}", file.display())).run();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("wcs_agent_ca_file"), "{said}");
}
