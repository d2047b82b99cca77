//! What one SSH client may do: log in, open channels, have a line or a shell in each.

use std::collections::HashMap;
use std::sync::Arc;

use russh::keys::{Algorithm, HashAlg, PublicKey};
use russh::server::{Auth, ChannelOpenHandle, Handler, Msg, PublicKeyOffer, Session, VerifiedPublicKey};
use russh::{Channel, ChannelId, ChannelOpenFailure, Disconnect, Pty};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::terminal::Terminal;
use super::{Ssh, keys};
use crate::cli::console::Who;
use crate::users::{MAX_NAME, User};

/// Most channels of a client at once.
const CHANNELS: usize = 8;

/// A client, from its first byte on.
pub(super) struct Client {
    pub(super) ssh: Ssh,
    pub(super) peer: String,
    /// Its place among those that have not logged in.
    pub(super) stranger: Option<OwnedSemaphorePermit>,
    /// Cancelled once it has logged in.
    pub(super) entered: CancellationToken,
    /// What it has running.
    pub(super) tasks: TaskTracker,
    who: Option<Who>,
    /// Its place among those that have.
    place: Option<OwnedSemaphorePermit>,
    channels: Arc<Semaphore>,
    waiting: HashMap<ChannelId, Waiting>,
    columns: HashMap<ChannelId, watch::Sender<u32>>,
}

/// A channel that nothing runs in yet.
struct Waiting {
    channel: Channel<Msg>,
    pty: bool,
    place: OwnedSemaphorePermit,
}

impl Client {
    pub(super) fn new(ssh: Ssh, peer: String, stranger: OwnedSemaphorePermit, entered: CancellationToken) -> Self {
        Self {
            ssh,
            peer,
            stranger: Some(stranger),
            entered,
            tasks: TaskTracker::new(),
            who: None,
            place: None,
            channels: Arc::new(Semaphore::new(CHANNELS)),
            waiting: HashMap::new(),
            columns: HashMap::new(),
        }
    }

    fn enters(&mut self, user: User, by: &str) -> Auth {
        tracing::info!(user = user.name, from = self.peer, "command line: logged in by {by}");
        self.who = Some(Who { name: user.name, role: user.role, from: self.peer.clone() });
        Auth::Accept
    }

    /// A user there is, whose key this may be.
    async fn owner(&self, user: &str, key: &PublicKey) -> Option<User> {
        let user = self.ssh.console.users.find(user)?;
        let (file, key) = (self.ssh.authorized_keys.clone(), key.clone());
        let listed = tokio::task::spawn_blocking(move || keys::lists(&file, &key)).await;
        listed.unwrap_or(false).then_some(user)
    }

    /// Runs in a channel what the client asked for; only once, and only in a channel that it has opened.
    fn runs(&mut self, id: ChannelId, session: &mut Session, line: Option<String>) -> Result<(), russh::Error> {
        let (Some(who), Some(waiting)) = (self.who.clone(), self.waiting.remove(&id)) else {
            return session.channel_failure(id);
        };
        let console = self.ssh.console.clone();
        let columns = self.columns.entry(id).or_default().subscribe();
        let Waiting { channel, pty, place } = waiting;
        self.tasks.spawn(async move {
            let _place = place;
            let terminal = Terminal::new(channel, pty, columns);
            match line {
                Some(line) => terminal.exec(&console, &who, &line).await,
                None => terminal.shell(&console, &who).await,
            }
        });
        session.channel_success(id)
    }
}

/// Another attempt may be made by any method, as long as there are attempts.
fn rejected() -> Auth {
    Auth::Reject { proceed_with_methods: Some(super::methods()), partial_success: false }
}

/// SHA-1 is broken.
fn is_sound(algorithm: &Algorithm) -> bool {
    !matches!(algorithm, Algorithm::Rsa { hash: None } | Algorithm::Dsa)
}

impl Handler for Client {
    type Error = russh::Error;

    async fn auth_password(&mut self, user: &str, password: &str) -> Result<Auth, Self::Error> {
        if let Some(user) = self.ssh.console.users.check(user, password).await {
            return Ok(self.enters(user, "password"));
        }
        self.ssh.meter.denied("ssh", "password");
        let named: String = user.chars().take(MAX_NAME).collect();
        tracing::warn!(from = self.peer, "command line: a wrong user name or password, for {named:?}");
        Ok(rejected())
    }

    async fn auth_publickey_offered(&mut self, user: &str, offer: PublicKeyOffer<'_>) -> Result<Auth, Self::Error> {
        let known = is_sound(offer.algorithm) && self.owner(user, offer.public_key).await.is_some();
        Ok(if known { Auth::Accept } else { rejected() })
    }

    async fn auth_publickey(&mut self, user: &str, key: VerifiedPublicKey<'_>) -> Result<Auth, Self::Error> {
        match self.owner(user, key.public_key).await.filter(|_| is_sound(key.algorithm)) {
            Some(user) => Ok(self.enters(user, &format!("the key {}", key.public_key.fingerprint(HashAlg::Sha256)))),
            None => Ok(rejected()),
        }
    }

    async fn auth_succeeded(&mut self, session: &mut Session) -> Result<(), Self::Error> {
        self.entered.cancel();
        self.stranger = None;
        match self.ssh.places.clone().try_acquire_owned() {
            Ok(place) => self.place = Some(place),
            Err(_) => {
                tracing::warn!(from = self.peer, "command line: too many clients (ssh_max_connections)");
                session.disconnect(Disconnect::TooManyConnections, "too many clients are logged in", "")?;
            }
        }
        Ok(())
    }

    async fn channel_open_session(
        &mut self,
        channel: Channel<Msg>,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Self::Error> {
        match self.channels.clone().try_acquire_owned() {
            Ok(place) => {
                self.columns.retain(|_, columns| columns.receiver_count() > 0);
                self.waiting.insert(channel.id(), Waiting { channel, pty: false, place });
                reply.accept().await;
            }
            Err(_) => reply.reject(ChannelOpenFailure::ResourceShortage).await,
        }
        Ok(())
    }

    async fn channel_close(&mut self, id: ChannelId, _: &mut Session) -> Result<(), Self::Error> {
        self.waiting.remove(&id);
        self.columns.remove(&id);
        Ok(())
    }

    async fn pty_request(
        &mut self,
        id: ChannelId,
        _: &str,
        columns: u32,
        _: u32,
        _: u32,
        _: u32,
        _: &[(Pty, u32)],
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        let Some(waiting) = self.waiting.get_mut(&id) else { return session.channel_failure(id) };
        waiting.pty = true;
        self.columns.insert(id, watch::Sender::new(columns));
        session.channel_success(id)
    }

    async fn window_change_request(
        &mut self,
        id: ChannelId,
        columns: u32,
        _: u32,
        _: u32,
        _: u32,
        _: &mut Session,
    ) -> Result<(), Self::Error> {
        if let Some(size) = self.columns.get(&id) {
            size.send_replace(columns);
        }
        Ok(())
    }

    async fn shell_request(&mut self, id: ChannelId, session: &mut Session) -> Result<(), Self::Error> {
        self.runs(id, session, None)
    }

    async fn exec_request(&mut self, id: ChannelId, line: &[u8], session: &mut Session) -> Result<(), Self::Error> {
        self.runs(id, session, Some(String::from_utf8_lossy(line).into_owned()))
    }

    async fn subsystem_request(&mut self, id: ChannelId, _: &str, session: &mut Session) -> Result<(), Self::Error> {
        session.channel_failure(id)
    }

    async fn env_request(&mut self, id: ChannelId, _: &str, _: &str, session: &mut Session) -> Result<(), Self::Error> {
        session.channel_failure(id)
    }

    async fn x11_request(
        &mut self,
        id: ChannelId,
        _: bool,
        _: &str,
        _: &str,
        _: u32,
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        session.channel_failure(id)
    }
}
