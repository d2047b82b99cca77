//! Certificates for servers of the tests.

use std::path::PathBuf;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};

use super::Home;

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
    /// New ones in a home's folder.
    pub fn make(home: &Home) -> Self {
        let mut params = CertificateParams::new(vec![]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let own_key = KeyPair::generate().unwrap();
        let own = CertificateParams::new(vec!["localhost".to_owned()]).unwrap().signed_by(&own_key, &issuer).unwrap();
        let file = |name: &str, pem: String| {
            let path = home.path().join(name);
            std::fs::write(&path, pem).unwrap();
            path
        };
        Self {
            ca: file("ca.pem", issuer.pem()),
            chain: file("server.pem", own.pem()),
            key: file("server.key", own_key.serialize_pem()),
        }
    }
}
