//! The command line over SSH (wcs.md section 5): `ssh -p 2001 admin@host`, with a password or a key.
//!
//! A connection is first a stranger's, of which there are few, and which has little time; once it has logged in it has a
//! place of its own. In each channel runs one line (`ssh host 'show apps'`) or a shell; nothing else is there: no
//! forwarding, no subsystem, no environment.

mod client;
mod guarded;
mod keys;
mod terminal;

use std::borrow::Cow;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use russh::keys::{Algorithm, EcdsaCurve, HashAlg};
use russh::{Disconnect, MethodKind, MethodSet, Preferred, SshId, server};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::console::Console;
use crate::meter::Meter;
use client::Client;
use guarded::Guarded;

pub use keys::HostKeyError;

/// Most clients at once that have not logged in; a further one is closed at once.
const STRANGERS: usize = 16;
/// How long a client may take to log in.
const LOGIN: Duration = Duration::from_secs(30);
/// How often a client may fail to log in.
const ATTEMPTS: usize = 6;
/// How long a failed login takes at least.
const REJECTION: Duration = Duration::from_secs(1);
/// How long a client may take to hear that the server stops.
const GOOD_BYE: Duration = Duration::from_millis(500);
/// What a client may send ahead in each channel, bytes.
const WINDOW: u32 = 64 << 10;

/// What clients may sign their logins with: no SHA-1.
const ALGORITHMS: &[Algorithm] = &[
    Algorithm::Ed25519,
    Algorithm::Ecdsa { curve: EcdsaCurve::NistP256 },
    Algorithm::Ecdsa { curve: EcdsaCurve::NistP384 },
    Algorithm::Ecdsa { curve: EcdsaCurve::NistP521 },
    Algorithm::Rsa { hash: Some(HashAlg::Sha512) },
    Algorithm::Rsa { hash: Some(HashAlg::Sha256) },
];

/// What SSH's connections work with. A cheap handle.
#[derive(Clone)]
pub struct Ssh {
    console: Console,
    meter: Meter,
    config: Arc<server::Config>,
    authorized_keys: Arc<Path>,
    strangers: Arc<Semaphore>,
    places: Arc<Semaphore>,
    login: Duration,
}

/// How SSH is to be served.
#[derive(Debug, Clone)]
pub struct Options {
    /// The file of public keys; `None` is `authorized_keys` in the data directory.
    pub authorized_keys: Option<PathBuf>,
    /// How long a client may type nothing.
    pub idle_timeout: Duration,
    /// Most clients that are logged in at once.
    pub max_connections: usize,
}

impl Ssh {
    /// Reads the host key under `data`, or makes one; warns of public keys that cannot be used. `meter` counts who cannot
    /// log in. Blocks.
    ///
    /// # Errors
    /// See [`HostKeyError`].
    pub fn new(data: &Path, options: Options, console: Console, meter: Meter) -> Result<Self, HostKeyError> {
        let authorized_keys = options.authorized_keys.unwrap_or_else(|| data.join(keys::AUTHORIZED_KEYS));
        for problem in keys::problems(&authorized_keys) {
            tracing::warn!("{}: {problem} that weir can use", authorized_keys.display());
        }
        let config = server::Config {
            server_id: SshId::Standard("SSH-2.0-weir".into()),
            methods: methods(),
            auth_rejection_time: REJECTION,
            // Asking which methods there are is no attempt.
            auth_rejection_time_initial: Some(Duration::ZERO),
            // The question which methods there are counts as one.
            max_auth_attempts: ATTEMPTS + 1,
            keys: vec![keys::host_key(data)?],
            inactivity_timeout: Some(options.idle_timeout),
            window_size: WINDOW,
            channel_buffer_size: 16,
            preferred: Preferred { key: Cow::Borrowed(ALGORITHMS), ..Preferred::default() },
            ..server::Config::default()
        };
        Ok(Self {
            console,
            meter,
            config: Arc::new(config),
            authorized_keys: authorized_keys.into(),
            strangers: Arc::new(Semaphore::new(STRANGERS)),
            places: Arc::new(Semaphore::new(options.max_connections.min(Semaphore::MAX_PERMITS))),
            login: LOGIN,
        })
    }
}

/// How clients may log in.
fn methods() -> MethodSet {
    MethodSet::from([MethodKind::PublicKey, MethodKind::Password].as_slice())
}

/// One connection, until it ends, is idle for too long, or `stop` asks it to.
pub async fn serve(ssh: Ssh, stream: TcpStream, peer: SocketAddr, stop: CancellationToken) {
    let Ok(stranger) = ssh.strangers.clone().try_acquire_owned() else {
        tracing::debug!(%peer, "command line: too many clients that have not logged in");
        return;
    };
    let (cut, entered) = (CancellationToken::new(), CancellationToken::new());
    let (config, login) = (ssh.config.clone(), ssh.login);
    let client = Client::new(ssh, peer.to_string(), stranger, entered.clone());
    let tasks = client.tasks.clone();
    let talk = converse(config, Guarded::new(stream, cut.clone()), client, &stop);
    tokio::pin!(talk);
    tokio::select! {
        () = &mut talk => {}
        () = too_late(login, &entered) => {
            tracing::debug!(%peer, "command line: not logged in in time");
            cut.cancel();
            talk.await;
        }
        () = overdue(&stop) => {
            cut.cancel();
            talk.await;
        }
    }
    tasks.close();
    tasks.wait().await;
}

/// The protocol, which has tasks of its own: they end with the stream.
async fn converse(config: Arc<server::Config>, stream: Guarded<TcpStream>, client: Client, stop: &CancellationToken) {
    let session = match server::run_stream(config, stream, client).await {
        Ok(session) => session,
        Err(error) => return tracing::debug!("command line: no SSH: {error}"),
    };
    let handle = session.handle();
    tokio::pin!(session);
    let ended = tokio::select! {
        ended = &mut session => ended,
        () = stop.cancelled() => {
            let reason = "weir is shutting down".to_owned();
            // One that does not listen any more is cut off.
            let _ = handle.disconnect(Disconnect::ByApplication, reason, String::new()).await;
            session.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!("command line: {error}");
    }
}

async fn too_late(limit: Duration, entered: &CancellationToken) {
    tokio::select! {
        () = entered.cancelled() => std::future::pending().await,
        () = tokio::time::sleep(limit) => {}
    }
}

/// Some time after the server is asked to stop.
async fn overdue(stop: &CancellationToken) {
    stop.cancelled().await;
    tokio::time::sleep(GOOD_BYE).await;
}
