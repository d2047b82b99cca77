//! Certificates of the TLS listeners: found, made where there are none, and taken up again when their files change.
//!
//! A connection keeps the certificate it began with; the next handshake gets the newest. Files that cannot be used are
//! told once, and the certificate before them stays.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use tokio::net::TcpStream;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::{CryptoProvider, aws_lc_rs};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::{ClientHello, ResolvesServerCert};
use tokio_rustls::rustls::sign::CertifiedKey;
use tokio_rustls::rustls::version::{TLS12, TLS13};
use tokio_rustls::rustls::{Error as RustlsError, ServerConfig};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

mod own;

pub use tokio_rustls::server::TlsStream;

/// How often the files are looked at.
const LOOK: Duration = Duration::from_secs(2);
/// Longest time of a handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Names of the files in WCS's conf folder, and of those that weir makes.
const CERTIFICATE: &str = "cert.crt";
const KEY: &str = "private.key";
const BUNDLE: &str = "ca_bundle.crt";

/// Why there is no TLS.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file that cannot be read.
    #[error("cannot read {path}: {reason}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The system's reason, or the reader's.
        reason: String,
    },
    /// A file without what it is for.
    #[error("{path} holds no {what} in PEM")]
    Empty {
        /// The file.
        path: PathBuf,
        /// What it should hold.
        what: &'static str,
    },
    /// The certificate and the key cannot be used, or do not belong together.
    #[error("the certificate {certificate} and the key {key} cannot be used: {}", told(.reason))]
    Unusable {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
        /// Why.
        reason: RustlsError,
    },
    /// The certificate of a new installation cannot be made.
    #[error("cannot make a certificate in {path}: {reason}")]
    Unmakeable {
        /// The folder.
        path: PathBuf,
        /// Why.
        reason: String,
    },
}

/// Where a certificate lies, in PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Files {
    /// The certificate, maybe with its chain.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
    /// The rest of the chain; `None`, or a file that is not there: it is in `certificate`.
    pub bundle: Option<PathBuf>,
}

impl Files {
    /// Those in a folder, under WCS's names; `None` where it has neither certificate nor key: one without the other is a
    /// mistake that is to be told.
    pub fn in_folder(folder: &Path) -> Option<Self> {
        let files = Self::named_in(folder);
        (files.certificate.exists() || files.key.exists()).then_some(files)
    }

    /// Those that weir makes for itself in a folder, for browsers that ask for one of `names`. Makes them where they are
    /// missing or about to expire, and says so in the log.
    ///
    /// # Errors
    /// [`TlsError::Unmakeable`].
    pub fn own(folder: &Path, names: &[String]) -> Result<Self, TlsError> {
        let files = Self::named_in(folder);
        own::keep(&files, names)
            .map_err(|error| TlsError::Unmakeable { path: folder.to_owned(), reason: error.to_string() })?;
        Ok(files)
    }

    fn named_in(folder: &Path) -> Self {
        let file = |name| folder.join(name);
        Self { certificate: file(CERTIFICATE), key: file(KEY), bundle: Some(file(BUNDLE)) }
    }

    fn load(&self, provider: &CryptoProvider) -> Result<CertifiedKey, TlsError> {
        let mut chain = certificates(&self.certificate)?;
        if let Some(bundle) = self.bundle.as_deref().filter(|bundle| bundle.exists()) {
            chain.extend(certificates(bundle)?);
        }
        let key = PrivateKeyDer::from_pem_file(&self.key).map_err(|error| unreadable(&self.key, &error))?;
        CertifiedKey::from_der(chain, key, provider).map_err(|reason| TlsError::Unusable {
            certificate: self.certificate.clone(),
            key: self.key.clone(),
            reason,
        })
    }

    /// What changes when one of the files does.
    fn stamp(&self) -> Vec<Option<(SystemTime, u64)>> {
        let stamp = |path: &Path| -> io::Result<(SystemTime, u64)> {
            let facts = std::fs::metadata(path)?;
            Ok((facts.modified()?, facts.len()))
        };
        let files = [Some(&self.certificate), Some(&self.key), self.bundle.as_ref()];
        files.into_iter().map(|path| path.and_then(|path| stamp(path).ok())).collect()
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let found = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let found: Vec<CertificateDer<'static>> = found.map_err(|error| unreadable(path, &error))?;
    if found.is_empty() {
        return Err(TlsError::Empty { path: path.to_owned(), what: "certificate" });
    }
    Ok(found)
}

fn unreadable(path: &Path, error: &tokio_rustls::rustls::pki_types::pem::Error) -> TlsError {
    use tokio_rustls::rustls::pki_types::pem::Error;
    match error {
        Error::NoItemsFound => TlsError::Empty { path: path.to_owned(), what: "private key" },
        Error::Io(error) => TlsError::Unreadable { path: path.to_owned(), reason: error.to_string() },
        error => TlsError::Unreadable { path: path.to_owned(), reason: format!("it is no PEM: {error:?}") },
    }
}

/// The certificate that handshakes get.
#[derive(Debug)]
struct Current(ArcSwap<CertifiedKey>);

impl ResolvesServerCert for Current {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.load_full())
    }
}

/// TLS with one certificate. A cheap handle; the files are watched until the last of them is dropped.
#[derive(Clone)]
pub struct Tls {
    acceptor: TlsAcceptor,
    _watched: Arc<DropGuard>,
}

impl Tls {
    /// Loads the certificate and watches its files in `tasks`.
    ///
    /// # Errors
    /// See [`TlsError`].
    pub fn start(files: Files, tasks: &TaskTracker) -> Result<Self, TlsError> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let stamp = files.stamp();
        let current = Arc::new(Current(ArcSwap::from_pointee(files.load(&provider)?)));
        let versions = ServerConfig::builder_with_provider(provider.clone()).with_protocol_versions(&[&TLS13, &TLS12]);
        let versions = versions.map_err(|reason| TlsError::Unusable {
            certificate: files.certificate.clone(),
            key: files.key.clone(),
            reason,
        })?;
        let config = versions.with_no_client_auth().with_cert_resolver(current.clone());
        let end = CancellationToken::new();
        tasks.spawn(Watch { files, provider, current, loaded: stamp, tried: None, told: false }.run(end.clone()));
        Ok(Self { acceptor: TlsAcceptor::from(Arc::new(config)), _watched: Arc::new(end.drop_guard()) })
    }

    /// Makes a connection one with TLS. `None` when the client does not get through the handshake in time, or `stop` is
    /// cancelled: there is nobody to tell.
    pub async fn accept(&self, stream: TcpStream, stop: &CancellationToken) -> Option<TlsStream<TcpStream>> {
        let accepted = tokio::select! {
            accepted = timeout(HANDSHAKE, self.acceptor.accept(stream)) => accepted,
            () = stop.cancelled() => return None,
        };
        match accepted {
            Ok(Ok(stream)) => Some(stream),
            Ok(Err(error)) => {
                tracing::debug!("a TLS handshake failed: {error}");
                None
            }
            Err(_) => {
                tracing::debug!("a TLS handshake took too long");
                None
            }
        }
    }
}

type Stamp = Vec<Option<(SystemTime, u64)>>;

/// Takes the files up again when they change.
struct Watch {
    files: Files,
    provider: Arc<CryptoProvider>,
    current: Arc<Current>,
    loaded: Stamp,
    /// What could not be used at the last look. Certificate and key are two files: one is new before the other.
    tried: Option<Stamp>,
    told: bool,
}

impl Watch {
    async fn run(mut self, end: CancellationToken) {
        let mut time = interval(LOOK);
        time.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = end.cancelled() => return,
                _ = time.tick() => {}
            }
            let looked = tokio::task::spawn_blocking(move || {
                self.look();
                self
            });
            // A look does not panic; if it did, the certificate stays as it is.
            let Ok(watch) = looked.await else { return };
            self = watch;
        }
    }

    fn look(&mut self) {
        let now = self.files.stamp();
        if now == self.loaded {
            return;
        }
        match self.files.load(&self.provider) {
            Ok(key) => {
                self.current.0.store(Arc::new(key));
                tracing::info!(file = %self.files.certificate.display(), "the certificate has changed and is in use");
                (self.loaded, self.tried, self.told) = (now, None, false);
            }
            Err(error) => {
                if self.tried.as_ref() != Some(&now) {
                    (self.tried, self.told) = (Some(now), false);
                } else if !self.told {
                    self.told = true;
                    tracing::warn!("the certificate has changed and the one before stays in use: {error}");
                }
            }
        }
    }
}

/// Why a certificate and a key cannot be used, in a sentence for the operator.
fn told(reason: &RustlsError) -> String {
    match reason {
        RustlsError::InconsistentKeys(_) => "the key is not the one that the certificate was made for".to_owned(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn made(folder: &Path, name: &str) -> Files {
        let folder = folder.join(name);
        std::fs::create_dir_all(&folder).unwrap();
        Files::own(&folder, &[name.to_owned()]).unwrap()
    }

    #[test]
    fn half_of_a_pair_is_no_reason_for_a_pair_of_our_own() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(Files::in_folder(folder.path()), None);
        std::fs::write(folder.path().join(KEY), "a key").unwrap();
        let error = Files::in_folder(folder.path()).unwrap().load(&aws_lc_rs::default_provider()).unwrap_err();
        assert!(error.to_string().contains(CERTIFICATE), "{error}");
    }

    #[test]
    fn what_cannot_be_used_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let provider = aws_lc_rs::default_provider();
        let (good, other) = (made(folder.path(), "good"), made(folder.path(), "other"));
        good.load(&provider).unwrap();
        let empty = folder.path().join("empty");
        std::fs::write(&empty, "").unwrap();
        let said = |files: Files| files.load(&provider).map(|_| ()).unwrap_err().to_string();
        for (files, expected) in [
            (Files { certificate: "/nowhere".into(), ..good.clone() }, "cannot read /nowhere"),
            (Files { certificate: empty.clone(), ..good.clone() }, "no certificate"),
            (Files { key: empty.clone(), ..good.clone() }, "no private key"),
            (Files { key: "/nowhere".into(), ..good.clone() }, "cannot read /nowhere"),
            (Files { key: other.key.clone(), ..good.clone() }, "the key is not the one that"),
            (Files { bundle: Some(empty.clone()), ..good.clone() }, "no certificate"),
        ] {
            let said = said(files);
            assert!(said.contains(expected), "{expected} in {said}");
        }
        // A bundle that is not there is none.
        Files { bundle: Some("/nowhere".into()), ..good.clone() }.load(&provider).unwrap();
        assert_eq!(Files { bundle: Some(other.certificate.clone()), ..good }.load(&provider).unwrap().cert.len(), 2);
    }

    #[test]
    fn files_are_taken_up_once_they_fit() {
        let folder = tempfile::tempdir().unwrap();
        let provider = Arc::new(aws_lc_rs::default_provider());
        let (files, other) = (made(folder.path(), "one"), made(folder.path(), "two"));
        let first = files.load(&provider).unwrap();
        let der = first.cert[0].clone();
        let current = Arc::new(Current(ArcSwap::from_pointee(first)));
        let loaded = files.stamp();
        let mut watch =
            Watch { files: files.clone(), provider, current: current.clone(), loaded, tried: None, told: false };
        std::fs::copy(&other.certificate, &files.certificate).unwrap();
        std::fs::File::open(&files.certificate).unwrap().set_modified(SystemTime::now() + LOOK).unwrap();
        watch.look();
        assert!(!watch.told && current.0.load().cert[0] == der, "the key may come");
        watch.look();
        assert!(watch.told && current.0.load().cert[0] == der);
        std::fs::copy(&other.key, &files.key).unwrap();
        std::fs::File::open(&files.key).unwrap().set_modified(SystemTime::now() + LOOK).unwrap();
        watch.look();
        assert!(current.0.load().cert[0] != der);
    }
}
