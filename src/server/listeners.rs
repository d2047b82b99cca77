//! What listens: REST and pages, signalling, RTMP; each as it is and, where a port is set, with TLS.

use std::collections::BTreeMap;
use std::future::Future;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::api::{self, Api};
use crate::config::{self, Config, Unusable};
use crate::listen::Listener;
use crate::rtmp;
use crate::signal::{self, Signal};
use crate::tls::{Files, Tls, TlsStream};

/// Everything that listens on TCP.
pub(super) struct Listeners {
    /// The first of each kind has no TLS.
    http: Vec<Named>,
    ws: Vec<Named>,
    rtmp: Vec<Named>,
}

/// A listener and the setting of its port.
struct Named(&'static str, Listener);

impl Listeners {
    /// Listens on every port that is set. A certificate is only looked for where one is needed.
    pub async fn start(
        config: &Config,
        data: &Path,
        tasks: &TaskTracker,
        (api, signal, encoders): (Api, Signal, rtmp::Tools),
    ) -> Result<Self> {
        let settings = &config.tls;
        let needed = settings.https.or(settings.wss).or(settings.rtmps).is_some();
        let tls = if needed { Some(certificate(config, data, tasks)?) } else { None };
        let start = Start { config, tls };

        let of = api.clone();
        let plain = move |stream, peer, stop| api::serve(of.clone(), stream, peer, stop);
        let mut http = vec![start.plain("http.port", config.http.port, plain).await?];
        let secure = move |stream, peer, stop| api::serve(api.clone(), stream, peer, stop);
        http.extend(start.secure("https.port", settings.https, secure).await?);

        let of = signal.clone();
        let plain = move |stream, peer, stop| signal::serve(of.clone(), stream, peer, stop);
        let mut ws = vec![start.plain("ws.port", config.signal.port, plain).await?];
        let secure = move |stream, peer, stop| signal::serve(signal.clone(), stream, peer, stop);
        ws.extend(start.secure("wss.port", settings.wss, secure).await?);

        let of = encoders.clone();
        let plain = move |stream: TcpStream, peer, stop| {
            let local = stream.local_addr();
            rtmp::serve(of.clone(), stream, (peer, local.ok()), stop)
        };
        let mut rtmp = vec![start.plain("rtmp.port", config.rtmp.port, plain).await?];
        let secure = move |stream: TlsStream<TcpStream>, peer, stop| {
            let local = stream.get_ref().0.local_addr();
            rtmp::serve(encoders.clone(), stream, (peer, local.ok()), stop)
        };
        rtmp.extend(start.secure("rtmps.port", settings.rtmps, secure).await?);
        Ok(Self { http, ws, rtmp })
    }

    /// The address REST listens on.
    pub fn http(&self) -> SocketAddr {
        self.http[0].1.address()
    }

    /// The ports in use by the names of their settings.
    pub fn ports(&self) -> BTreeMap<&'static str, u16> {
        let all = self.http.iter().chain(&self.ws).chain(&self.rtmp);
        all.map(|Named(setting, listener)| (*setting, listener.address().port())).collect()
    }

    /// Says in the log who may come where.
    pub fn announce(&self) {
        for (what, listeners) in
            [("REST and pages", &self.http), ("browsers", &self.ws), ("encoders and players", &self.rtmp)]
        {
            for Named(setting, listener) in listeners {
                let (scheme, address) = (setting.trim_end_matches(".port"), listener.address());
                tracing::info!("listening: {what} on {scheme}://{address} ({setting})");
            }
        }
    }

    /// Ends signalling. Each of these waits until `deadline`.
    pub async fn stop_ws(&self, deadline: Duration) -> bool {
        stop(&self.ws, deadline).await
    }

    /// Ends RTMP.
    pub async fn stop_rtmp(&self, deadline: Duration) -> bool {
        stop(&self.rtmp, deadline).await
    }

    /// Ends REST.
    pub async fn stop_http(&self, deadline: Duration) -> bool {
        stop(&self.http, deadline).await
    }
}

async fn stop(listeners: &[Named], deadline: Duration) -> bool {
    let all = listeners.iter().map(|Named(_, listener)| listener.stop(deadline));
    futures_util::future::join_all(all).await.into_iter().all(|stopped| stopped)
}

/// What listeners are started with.
struct Start<'a> {
    config: &'a Config,
    tls: Option<Tls>,
}

impl Start<'_> {
    async fn plain<F>(
        &self,
        setting: &'static str,
        port: u16,
        serve: impl Fn(TcpStream, SocketAddr, CancellationToken) -> F + Send + Sync + 'static,
    ) -> Result<Named>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let address = SocketAddr::new(self.config.ip_local, port);
        let listener = Listener::start(address, serve).await;
        Ok(Named(setting, listener.with_context(|| format!("cannot listen on {address} ({setting})"))?))
    }

    /// `None` where the port is off.
    async fn secure<F>(
        &self,
        setting: &'static str,
        port: Option<u16>,
        serve: impl Fn(TlsStream<TcpStream>, SocketAddr, CancellationToken) -> F + Clone + Send + Sync + 'static,
    ) -> Result<Option<Named>>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let (Some(port), Some(tls)) = (port, self.tls.clone()) else { return Ok(None) };
        let shaken = move |stream, peer, stop: CancellationToken| {
            let (tls, serve) = (tls.clone(), serve.clone());
            async move {
                if let Some(stream) = tls.accept(stream, &stop).await {
                    serve(stream, peer, stop).await;
                }
            }
        };
        self.plain(setting, port, shaken).await.map(Some)
    }
}

/// The certificate that the settings name, else WCS's in the folder of the settings file, else one of weir's own.
fn certificate(config: &Config, data: &Path, tasks: &TaskTracker) -> Result<Tls> {
    let settings = &config.tls;
    let beside = settings.folder.as_deref().and_then(Files::in_folder);
    let files = match (&settings.certificate, beside) {
        (Some(certificate), _) => {
            // One file may hold both.
            let key = settings.key.as_ref().unwrap_or(certificate).clone();
            Files { certificate: certificate.clone(), key, bundle: settings.bundle.clone() }
        }
        (None, _) if settings.key.is_some() || settings.bundle.is_some() => {
            let sentence = "tls_private_key_file and tls_ca_bundle_file are of use only with tls_certificate_file";
            bail!(Unusable(sentence.into()));
        }
        (None, Some(files)) => files,
        (None, None) => Files::own(&data.join("tls"), &names(config))?,
    };
    // Only the operator's files can be wrong here: weir's own have just been read, or made.
    Tls::start(files, tasks).map_err(|error| Unusable(error.to_string()).into())
}

/// The names and addresses that browsers may know this host by.
fn names(config: &config::Config) -> Vec<String> {
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let valid = |name: &String| !name.is_empty() && name.is_ascii() && name != "(none)";
    let mut names = vec!["localhost".to_owned()];
    names.extend(Some(host).filter(valid));
    let addresses = if_addrs::get_if_addrs().unwrap_or_default().into_iter().map(|one| one.ip());
    names.extend(config.webrtc.ip.into_iter().chain(addresses).map(|ip| ip.to_string()));
    let mut seen = std::collections::HashSet::new();
    names.retain(|name| seen.insert(name.clone()));
    names
}
