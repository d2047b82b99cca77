//! Certificates for servers of the tests, and TLS in front of a server that has none.

use std::net::Ipv6Addr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, SanType};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// A certificate for `localhost`, and the CA that signed it.
pub struct Certificate {
    /// The CA's certificate, PEM.
    pub ca: PathBuf,
    /// The server's certificate, PEM.
    pub chain: PathBuf,
    /// Its key, PEM.
    pub key: PathBuf,
}

impl Certificate {
    /// A new one, in files in `dir`.
    pub fn make(dir: &Path) -> Self {
        Self::with(dir, |_| {})
    }

    /// One that is changed before it is signed.
    pub fn with(dir: &Path, change: impl FnOnce(&mut CertificateParams)) -> Self {
        static MADE: AtomicUsize = AtomicUsize::new(0);
        let number = MADE.fetch_add(1, Relaxed);
        let mut params = CertificateParams::new(vec![]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let own_key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        change(&mut params);
        let own = params.signed_by(&own_key, &issuer).unwrap();
        let file = |name: &str, pem: String| {
            let path = dir.join(format!("{name}-{number}.pem"));
            std::fs::write(&path, pem).unwrap();
            path
        };
        Self {
            ca: file("ca", issuer.pem()),
            chain: file("server", own.pem()),
            key: file("key", own_key.serialize_pem()),
        }
    }
}

/// Takes TLS for `localhost` on a port of its own and passes the rest on.
pub struct TlsProxy {
    pub port: u16,
    /// The certificate of the CA that signed its own.
    pub ca: PathBuf,
    _runtime: tokio::runtime::Runtime,
}

impl TlsProxy {
    /// One that leads `to` a port of loopback; its CA's certificate is a file in `dir`.
    pub fn start(dir: &Path, to: u16) -> Self {
        Self::with(dir, to, |_| {})
    }

    /// One whose certificate is changed before it is signed.
    pub fn with(dir: &Path, to: u16, change: impl FnOnce(&mut CertificateParams)) -> Self {
        Self::at("127.0.0.1:0", dir, to, change)
    }

    /// One that is at the IPv6 loopback, and has a certificate for its address.
    pub fn at_ipv6(dir: &Path, to: u16) -> Self {
        let address = SanType::IpAddress(Ipv6Addr::LOCALHOST.into());
        Self::at("[::1]:0", dir, to, |params| params.subject_alt_names.push(address))
    }

    fn at(own: &str, dir: &Path, to: u16, change: impl FnOnce(&mut CertificateParams)) -> Self {
        let Certificate { ca, chain, key } = Certificate::with(dir, change);
        let certificate = CertificateDer::from_pem_file(chain).unwrap();
        let key = PrivateKeyDer::from_pem_file(key).unwrap();
        let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
        let config = config.with_safe_default_protocol_versions().unwrap().with_no_client_auth();
        let config = config.with_single_cert(vec![certificate], key).unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = runtime.block_on(TcpListener::bind(own)).unwrap();
        let port = listener.local_addr().unwrap().port();
        runtime.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let acceptor = acceptor.clone();
                tokio::spawn(async move {
                    // Who does not like the certificate leaves in the handshake.
                    let Ok(mut inside) = acceptor.accept(stream).await else { return };
                    let Ok(mut outside) = TcpStream::connect(("127.0.0.1", to)).await else { return };
                    let _ = tokio::io::copy_bidirectional(&mut inside, &mut outside).await;
                });
            }
        });
        Self { port, ca, _runtime: runtime }
    }
}
