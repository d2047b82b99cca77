//! Whom to trust behind `wss://`.

use std::path::PathBuf;
use std::sync::Arc;

use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use tokio_rustls::rustls::crypto::{WebPkiSupportedAlgorithms, aws_lc_rs};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::rustls::{ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};

/// How TLS to other servers is made.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Trust {
    /// PEM certificates that are trusted beside the system's.
    pub ca_file: Option<PathBuf>,
    /// Whatever certificate a server shows is taken.
    pub insecure: bool,
}

impl Trust {
    /// What makes the connections.
    ///
    /// # Errors
    /// A sentence for the operator: the file of certificates cannot be used, or the system has none.
    pub fn connector(&self) -> Result<TlsConnector, String> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions();
        let config = config.map_err(|error| error.to_string())?;
        let config = if self.insecure {
            let anybody = Arc::new(Anybody(provider.signature_verification_algorithms));
            config.dangerous().with_custom_certificate_verifier(anybody)
        } else {
            config.with_root_certificates(self.roots()?)
        };
        Ok(TlsConnector::from(Arc::new(config.with_no_client_auth())))
    }

    /// The system's certificates and those of `ca_file`.
    fn roots(&self) -> Result<RootCertStore, String> {
        let mut roots = RootCertStore::empty();
        // One of the system's that cannot be read is no reason to trust no other.
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        if let Some(path) = &self.ca_file {
            let unusable = |reason: String| format!("wcs_agent_ca_file {}: {reason}", path.display());
            let found = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
            let extra = found.map_err(|error| unusable(error.to_string()))?;
            if extra.is_empty() {
                return Err(unusable("it has no certificate".into()));
            }
            extra
                .into_iter()
                .try_for_each(|certificate| roots.add(certificate))
                .map_err(|e| unusable(e.to_string()))?;
        }
        match roots.is_empty() {
            true => {
                Err("the system has no certificates it trusts; install ca-certificates or set wcs_agent_ca_file".into())
            }
            false => Ok(roots),
        }
    }
}

/// Takes whatever certificate is shown; the handshake must be signed with it all the same.
#[derive(Debug)]
struct Anybody(WebPkiSupportedAlgorithms);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        tokio_rustls::rustls::crypto::verify_tls12_signature(message, cert, signed, &self.0)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        tokio_rustls::rustls::crypto::verify_tls13_signature(message, cert, signed, &self.0)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_schemes()
    }
}
