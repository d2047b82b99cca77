//! The accept loop: one task a connection, a time limit for headers, a limit of connections, an orderly end.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::{Api, routes};

/// Longest time a client may take to send a request's headers; an idle connection is closed after it too.
const HEADERS: Duration = Duration::from_secs(30);
/// Most connections at once; further ones wait in the system's queue.
const CONNECTIONS: usize = 1024;
/// How long to wait when the system has no descriptor for a new connection.
const OUT_OF_DESCRIPTORS: Duration = Duration::from_millis(200);

/// The running HTTP server.
pub struct Server {
    address: SocketAddr,
    stop: CancellationToken,
    connections: TaskTracker,
}

impl Server {
    /// Listens on `address` and serves the API.
    ///
    /// # Errors
    /// The system's: the port is taken, or needs rights.
    pub async fn start(address: SocketAddr, api: Api) -> io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let server =
            Self { address: listener.local_addr()?, stop: CancellationToken::new(), connections: TaskTracker::new() };
        let (stop, connections) = (server.stop.clone(), server.connections.clone());
        server.connections.spawn(accept(listener, api, stop, connections));
        Ok(server)
    }

    /// The address in use.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Stops listening, lets running calls answer, and waits for them until `deadline`.
    pub async fn stop(&self, deadline: Duration) -> bool {
        self.stop.cancel();
        self.connections.close();
        tokio::time::timeout(deadline, self.connections.wait()).await.is_ok()
    }
}

async fn accept(listener: TcpListener, api: Api, stop: CancellationToken, connections: TaskTracker) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let next = async {
            // The semaphore is never closed.
            let place = places.clone().acquire_owned().await;
            (place, listener.accept().await)
        };
        let (place, accepted) = tokio::select! {
            () = stop.cancelled() => return,
            next = next => next,
        };
        match accepted {
            Ok((stream, _)) => {
                let connection = serve(stream, api.clone(), stop.clone());
                connections.spawn(async move {
                    let _place = place;
                    connection.await;
                });
            }
            Err(error) => {
                tracing::warn!("cannot accept a connection: {error}");
                tokio::time::sleep(OUT_OF_DESCRIPTORS).await;
            }
        }
    }
}

async fn serve(stream: TcpStream, api: Api, stop: CancellationToken) {
    // Answers are small and whole; waiting for more to send only delays them.
    let _ = stream.set_nodelay(true);
    let service = TowerToHyperService::new(warp::service(routes::all(api)));
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(HEADERS);
    let connection = builder.serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!("a connection ended: {error}");
    }
}
