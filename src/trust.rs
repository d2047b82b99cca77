//! Whom to trust behind `https://` and `wss://`: where weir calls somebody. One way for all of them.

use std::error::Error;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use tokio_rustls::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use tokio_rustls::rustls::crypto::{WebPkiSupportedAlgorithms, aws_lc_rs};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::rustls::{
    self, CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
};

/// Whose certificates are taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trust {
    /// PEM certificates that are trusted beside the system's.
    pub ca_file: Option<PathBuf>,
    /// The setting that names them, for people.
    pub setting: &'static str,
    /// Whatever certificate a server shows is taken.
    pub insecure: bool,
}

impl Trust {
    /// How TLS is made. A system that trusts nobody is no error: then every certificate is refused.
    ///
    /// # Errors
    /// A sentence for the operator: the file of certificates cannot be used.
    pub fn config(&self) -> Result<ClientConfig, String> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions();
        let config = config.map_err(|error| error.to_string())?;
        let config = if self.insecure {
            let anybody = Arc::new(Anybody(provider.signature_verification_algorithms));
            config.dangerous().with_custom_certificate_verifier(anybody)
        } else {
            config.with_root_certificates(self.roots()?)
        };
        Ok(config.with_no_client_auth())
    }

    /// The system's certificates and those of `ca_file`.
    fn roots(&self) -> Result<RootCertStore, String> {
        let mut roots = RootCertStore::empty();
        // One of the system's that cannot be read is no reason to trust no other.
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        if let Some(path) = &self.ca_file {
            let unusable = |reason: String| format!("{} {}: {reason}", self.setting, path.display());
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
        Ok(roots)
    }
}

/// What is wrong with the TLS that another server makes, for people; `None` where it is something else that failed.
/// `setting` names more certificates to trust. No host's name is in it: clients may be told.
pub fn complaint(error: &(dyn Error + 'static), setting: &str) -> Option<String> {
    match tls_error(error)? {
        rustls::Error::InvalidCertificate(wrong) => Some(format!("its certificate {}", refused(wrong, setting))),
        other => Some(format!("it does not speak TLS as it should: {other}")),
    }
}

fn refused(wrong: &CertificateError, setting: &str) -> String {
    match wrong {
        CertificateError::UnknownIssuer => format!("is from a CA that is not trusted ({setting} adds one)"),
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            "is for another host name".into()
        }
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => "has expired".into(),
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => "is not valid yet".into(),
        CertificateError::Other(other) if other.to_string().contains("CaUsedAsEndEntity") => {
            "is that of a CA: it needs one of its own, which the CA has signed".into()
        }
        other => format!("is not valid: {other}"),
    }
}

/// The error of TLS among the sources of another.
fn tls_error<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a rustls::Error> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        // What is inside of an I/O error is not its source; the source is that of what is inside.
        let inside = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        next = inside.map_or_else(|| error.source(), |inside| Some(inside));
    }
    None
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
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, cert, signed, &self.0)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, cert, signed, &self.0)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_schemes()
    }
}
