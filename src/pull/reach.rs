//! Which servers may be dialled (`pull_allow`, `pull_deny`), by what their names lead to.
//!
//! A name is resolved here, and every address it leads to is judged. What is dialled then is one of these addresses where
//! that changes nothing for the server: RTSP without TLS, and WebSockets. Over TLS the name stays, and the certificate
//! tells a server that has been put in its place. RTMP without TLS keeps the name too, as servers tell their customers
//! apart by it; such a name is resolved once more by GStreamer.

use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;

use super::{Scheme, SourceUri};
use crate::config::TargetRule;

/// Longest time for a name to be resolved; who waits for longer is not told at once.
const RESOLVE: Duration = Duration::from_secs(5);
/// Longest time for one of several addresses to be connected to.
const CONNECT: Duration = Duration::from_secs(2);

/// Who may be dialled. A cheap handle.
#[derive(Clone, Default)]
pub struct Reach(Arc<Rules>);

#[derive(Default)]
struct Rules {
    /// Nothing means everybody.
    allow: Vec<TargetRule>,
    deny: Vec<TargetRule>,
}

/// Why a server is not dialled.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Barred {
    /// A rule says so.
    #[error("{server} may not be dialled: {what} is denied by the rule {rule} of pull_deny")]
    Denied {
        /// The address as it is written, masked.
        server: String,
        /// Its host, or an address that leads to.
        what: String,
        /// The rule.
        rule: String,
    },
    /// No rule lets it through.
    #[error("{server} may not be dialled: no rule of pull_allow allows {what}")]
    NotAllowed {
        /// The address as it is written, masked.
        server: String,
        /// Its host, or an address that leads to.
        what: String,
    },
    /// There is no such host, or nobody who knows.
    #[error("the host {host} cannot be resolved: {reason}")]
    Unresolved {
        /// The host.
        host: String,
        /// Why.
        reason: String,
    },
}

impl Barred {
    /// Whether a rule bars it; a host that is not found today may be found tomorrow.
    pub fn by_rule(&self) -> bool {
        !matches!(self, Self::Unresolved { .. })
    }
}

/// A server as its address names it.
struct Server {
    shown: String,
    scheme: String,
    host: String,
    port: u16,
}

impl Server {
    fn of(uri: &SourceUri) -> Result<Self, Barred> {
        let unusable = || Barred::Unresolved { host: uri.to_string(), reason: "it has no host".into() };
        let (host, port) = uri.endpoint().ok_or_else(unusable)?;
        let scheme = uri.secret().split_once("://").map_or("", |(scheme, _)| scheme).to_ascii_lowercase();
        Ok(Self { shown: uri.to_string(), scheme, host, port })
    }

    fn unresolved(&self, reason: impl ToString) -> Barred {
        Barred::Unresolved { host: self.host.clone(), reason: reason.to_string() }
    }
}

impl Reach {
    /// With the operator's rules.
    pub fn new(allow: &[TargetRule], deny: &[TargetRule]) -> Self {
        Self(Arc::new(Rules { allow: allow.to_vec(), deny: deny.to_vec() }))
    }

    /// The addresses of a server that may be dialled, at least one.
    ///
    /// # Errors
    /// See [`Barred`]. Where what is dialled is not chosen here, one address that is barred bars the server.
    pub(super) async fn addresses(&self, uri: &SourceUri) -> Result<Vec<SocketAddr>, Barred> {
        let server = Server::of(uri)?;
        self.judge_host(&server)?;
        let found = timeout(RESOLVE, lookup_host((server.host.as_str(), server.port))).await;
        let found = found.map_err(|_| server.unresolved(format!("no answer within {} s", RESOLVE.as_secs())))?;
        let found: Vec<SocketAddr> = found.map_err(|error| server.unresolved(error))?.collect();
        self.judge(&server, found, pins(uri))
    }

    /// An address for the element that dials, with the server's address in place of its name where that is possible.
    ///
    /// # Errors
    /// See [`Barred`].
    pub(super) async fn dialled(&self, uri: &SourceUri) -> Result<String, Barred> {
        let addresses = self.addresses(uri).await?;
        match addresses.as_slice() {
            _ if !pins(uri) => Ok(uri.dialled()),
            [only] => Ok(uri.dialled_at(only.ip())),
            several => Ok(uri.dialled_at(first_open(several).await)),
        }
    }

    /// Whether an address that a source names of its own accord may be dialled. Waits for the name to be resolved.
    ///
    /// # Errors
    /// See [`Barred`], as a sentence.
    pub(super) fn follows(&self, address: &str) -> Result<(), String> {
        let uri = SourceUri::parse(address).map_err(|error| error.to_string())?;
        let judged = || {
            let server = Server::of(&uri)?;
            self.judge_host(&server)?;
            let found = (server.host.as_str(), server.port).to_socket_addrs();
            let found = found.map_err(|error| server.unresolved(error))?.collect();
            self.judge(&server, found, false)
        };
        judged().map(|_| ()).map_err(|barred: Barred| barred.to_string())
    }

    fn judge_host(&self, server: &Server) -> Result<(), Barred> {
        match self.0.deny.iter().find(|rule| rule.fits_host(&server.scheme, &server.host)) {
            Some(rule) => Err(denied(server, server.host.clone(), rule)),
            None => Ok(()),
        }
    }

    /// Of the addresses a name leads to, those that may be dialled; all of them where one of them will be, whichever.
    fn judge(&self, server: &Server, found: Vec<SocketAddr>, pins: bool) -> Result<Vec<SocketAddr>, Barred> {
        let verdicts: Vec<_> = found.iter().map(|address| self.judge_address(server, address.ip())).collect();
        let barred = verdicts.iter().find_map(|verdict| verdict.clone().err());
        let open: Vec<SocketAddr> =
            found.into_iter().zip(&verdicts).filter(|(_, verdict)| verdict.is_ok()).map(|(open, _)| open).collect();
        match barred {
            Some(barred) if !pins || open.is_empty() => Err(barred),
            _ if open.is_empty() => Err(server.unresolved("it has no address")),
            _ => Ok(open),
        }
    }

    fn judge_address(&self, server: &Server, address: IpAddr) -> Result<(), Barred> {
        let Server { shown, scheme, host, .. } = server;
        let what = || match host.parse::<IpAddr>() {
            Ok(_) => host.clone(),
            Err(_) => format!("{host} ({address})"),
        };
        if let Some(rule) = self.0.deny.iter().find(|rule| rule.fits_any_form(scheme, address)) {
            return Err(denied(server, what(), rule));
        }
        let allows = |rule: &TargetRule| rule.fits_host(scheme, host) || rule.fits_address(scheme, address);
        match self.0.allow.is_empty() || self.0.allow.iter().any(allows) {
            true => Ok(()),
            false => Err(Barred::NotAllowed { server: shown.clone(), what: what() }),
        }
    }
}

fn denied(server: &Server, what: String, rule: &TargetRule) -> Barred {
    Barred::Denied { server: server.shown.clone(), what, rule: rule.to_string() }
}

/// Whether what is dialled is chosen here.
fn pins(uri: &SourceUri) -> bool {
    match uri.scheme() {
        Scheme::Rtmp => false,
        Scheme::Rtsp => uri.secret().to_ascii_lowercase().starts_with("rtsp:"),
        Scheme::Wcs => true,
    }
}

/// The first that takes a connection: a host may have addresses of a family that leads nowhere from here.
async fn first_open(addresses: &[SocketAddr]) -> IpAddr {
    for address in addresses {
        if let Ok(Ok(_)) = timeout(CONNECT, TcpStream::connect(address)).await {
            return address.ip();
        }
    }
    // None does; whoever dials finds out why.
    addresses[0].ip()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use crate::config::Config;

    fn rules(list: &[&str]) -> Vec<TargetRule> {
        list.iter().map(|rule| rule.parse().unwrap()).collect()
    }

    async fn verdict(reach: &Reach, uri: &str) -> Result<usize, String> {
        let addresses = reach.addresses(&SourceUri::parse(uri).unwrap()).await;
        addresses.map(|found| found.len()).map_err(|barred| barred.to_string())
    }

    #[tokio::test]
    async fn the_default_denies_metadata_and_link_local_however_they_are_written() {
        let pull = Config::default().pull;
        let reach = Reach::new(&pull.allow, &pull.deny);
        for host in [
            "169.254.169.254",
            "[::ffff:169.254.169.254]",
            "[64:ff9b::a9fe:a9fe]",
            "2852039166",
            "0xa9fea9fe",
            "0xa9.0xfe.0xa9.0xfe",
            "0251.0376.0251.0376",
            "169.254.43518",
            "[fe80::1]",
            "[fd00:ec2::254]",
            "100.100.100.200",
            "metadata.google.internal",
            "METADATA.google.internal.",
        ] {
            for scheme in ["rtsp", "rtmp", "rtmps", "ws"] {
                let said = verdict(&reach, &format!("{scheme}://{host}/live/a")).await;
                assert!(said.as_ref().is_err_and(|said| said.contains("of pull_deny")), "{scheme}://{host}: {said:?}");
            }
        }
        for host in ["127.0.0.1", "10.0.0.1", "192.168.1.64", "[fd12::1]", "[2001:db8::1]"] {
            assert_eq!(verdict(&reach, &format!("rtsp://{host}/a")).await, Ok(1), "{host}");
        }
        let said = verdict(&reach, "rtsp://u:secret@[fe80::1]/a").await.unwrap_err();
        assert_eq!(
            said,
            "rtsp://u:***@[fe80::1]/a may not be dialled: fe80::1 is denied by the rule fe80::/10 of pull_deny"
        );
    }

    #[tokio::test]
    async fn names_are_judged_by_where_they_lead() {
        let reach = Reach::new(&[], &rules(&["127.0.0.0/8", "::1"]));
        for uri in ["rtsp://localhost/a", "rtmp://localhost/live/a", "rtsp://0/a", "rtsp://127.1/a"] {
            let said = verdict(&reach, uri).await.unwrap_err();
            assert!(said.contains("pull_deny"), "{uri}: {said}");
        }
        let said = verdict(&reach, "rtsp://nobody.invalid/a").await.unwrap_err();
        assert!(said.starts_with("the host nobody.invalid cannot be resolved"), "{said}");
        let only_four = Reach::new(&rules(&["rtsp://127.0.0.0/8"]), &[]);
        let uri = SourceUri::parse("rtsp://u:p@localhost:8554/a?x").unwrap();
        assert_eq!(only_four.dialled(&uri).await.unwrap(), "rtsp://u:p@127.0.0.1:8554/a?x");
        let said = verdict(&only_four, "rtmp://127.0.0.1/live/a").await.unwrap_err();
        assert_eq!(said, "rtmp://127.0.0.1/live/a may not be dialled: no rule of pull_allow allows 127.0.0.1");
    }

    #[tokio::test]
    async fn denying_is_stronger_and_hosts_may_be_allowed_by_name() {
        let reach = Reach::new(&rules(&["localhost", "rtmps://*"]), &rules(&["rtmp://*", "*.bad.example"]));
        assert!(verdict(&reach, "rtsp://LOCALHOST/a").await.is_ok());
        assert!(verdict(&reach, "rtsp://127.0.0.1/a").await.is_err());
        assert!(verdict(&reach, "rtmps://127.0.0.1/live/a").await.is_ok());
        assert!(verdict(&reach, "rtmp://localhost/live/a").await.unwrap_err().contains("the rule rtmp://*"));
        assert!(verdict(&reach, "rtsp://a.bad.example/a").await.unwrap_err().contains("the rule *.bad.example"));
        assert!(reach.follows("rtsp://localhost/b").is_ok());
        assert!(reach.follows("rtsp://127.0.0.1/b").is_err() && reach.follows("http://localhost").is_err());
    }

    #[test]
    fn of_several_addresses_some_may_do() {
        let reach = Reach::new(&[], &rules(&["10.0.0.0/8"]));
        let server = Server { shown: "x".into(), scheme: "rtsp".into(), host: "h".into(), port: 1 };
        let both: Vec<SocketAddr> = ["10.0.0.1:1", "192.0.2.1:1"].map(|address| address.parse().unwrap()).into();
        assert_eq!(reach.judge(&server, both.clone(), true).unwrap(), both[1..]);
        assert!(reach.judge(&server, both, false).unwrap_err().by_rule());
        assert!(!reach.judge(&server, Vec::new(), true).unwrap_err().by_rule());
    }
}
