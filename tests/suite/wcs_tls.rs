//! Pulls over wss://: whose certificate is trusted, and whose is not. TLS is ended by a proxy of the test's.

use std::path::PathBuf;
use std::sync::Arc;

use crate::support::tls::Certificate;
use crate::support::{Clip, Home, Publisher, SOON, Weir, wait};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// Takes TLS for `localhost` on a port of its own and passes the rest on.
struct Proxy {
    port: u16,
    /// The certificate of the CA that signed its own.
    ca: PathBuf,
    _runtime: tokio::runtime::Runtime,
}

impl Proxy {
    fn start(home: &Home, to: u16) -> Self {
        let Certificate { ca, chain, key } = Certificate::make(home);
        let own = CertificateDer::from_pem_file(chain).unwrap();
        let key = PrivateKeyDer::from_pem_file(key).unwrap();
        let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
        let config = config.with_safe_default_protocol_versions().unwrap().with_no_client_auth();
        let config = config.with_single_cert(vec![own], key).unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let port = listener.local_addr().unwrap().port();
        runtime.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let acceptor = acceptor.clone();
                tokio::spawn(async move {
                    // Who does not like the certificate leaves in the handshake.
                    let Ok(mut inside) = acceptor.accept(stream).await else { return };
                    let mut outside = TcpStream::connect(("127.0.0.1", to)).await.unwrap();
                    let _ = tokio::io::copy_bidirectional(&mut inside, &mut outside).await;
                });
            }
        });
        Self { port, ca, _runtime: runtime }
    }

    fn uri(&self) -> String {
        format!("wss://localhost:{}", self.port)
    }
}

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
    let proxy = Proxy::start(&homes[0], origin.port_of("ws.port"));
    let call = json!({"uri": proxy.uri(), "remoteStreamName": "cam"});
    let plays = |weir: &Weir| {
        weir.done("/rest-api/pull/pull", &call);
        weir.wait_frames("cam", 10);
        weir.done("/rest-api/pull/terminate", &json!({"uri": proxy.uri()}));
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
    assert!(refused["lastError"].as_str().unwrap().contains("no TLS"), "{refused}");
    let by_address = json!({"uri": format!("wss://127.0.0.1:{}", proxy.port), "remoteStreamName": "other"});
    drop(strict);

    let mut named = homes[1].setup().set("wcs_agent_ssl=true").set(&ca).set("pull_reconnect_attempts=1").start();
    named.announce("pull gave up");
    named.done("/rest-api/pull/pull", &by_address);
    let refused = agent(&named, |agent| agent["status"] == "FAILED");
    assert!(
        refused["lastError"].as_str().unwrap().contains("no TLS"),
        "another name than the certificate's: {refused}"
    );
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
