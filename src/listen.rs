//! Accepting connections: a limit of them, a pause when descriptors run out, an orderly end.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Most connections at once, whatever the settings say; further ones wait in the system's queue.
const CONNECTIONS: usize = 1 << 16;
/// How long to wait when the system has no descriptor for a new connection.
const OUT_OF_DESCRIPTORS: Duration = Duration::from_millis(200);

/// A listening socket and the connections it has taken.
pub struct Listener {
    address: SocketAddr,
    stop: CancellationToken,
    connections: TaskTracker,
}

impl Listener {
    /// Listens on `address`. `serve` runs a task for each connection; the token asks it to end.
    ///
    /// # Errors
    /// The system's: the port is taken, or needs rights.
    pub async fn start<F>(
        address: SocketAddr,
        serve: impl Fn(TcpStream, SocketAddr, CancellationToken) -> F + Send + Sync + 'static,
    ) -> io::Result<Self>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let socket = TcpListener::bind(address).await?;
        let listener =
            Self { address: socket.local_addr()?, stop: CancellationToken::new(), connections: TaskTracker::new() };
        let (stop, connections) = (listener.stop.clone(), listener.connections.clone());
        listener.connections.spawn(accept(socket, serve, stop, connections));
        Ok(listener)
    }

    /// The address in use.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Stops listening, asks the connections to end, and waits for them until `deadline`.
    pub async fn stop(&self, deadline: Duration) -> bool {
        self.stop.cancel();
        self.connections.close();
        tokio::time::timeout(deadline, self.connections.wait()).await.is_ok()
    }
}

async fn accept<F>(
    socket: TcpListener,
    serve: impl Fn(TcpStream, SocketAddr, CancellationToken) -> F,
    stop: CancellationToken,
    connections: TaskTracker,
) where
    F: Future<Output = ()> + Send + 'static,
{
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let next = async {
            // The semaphore is never closed.
            let place = places.clone().acquire_owned().await;
            (place, socket.accept().await)
        };
        let (place, accepted) = tokio::select! {
            () = stop.cancelled() => return,
            next = next => next,
        };
        match accepted {
            Ok((stream, peer)) => {
                // Answers are small and whole; waiting for more to send only delays them.
                let _ = stream.set_nodelay(true);
                let connection = serve(stream, peer, stop.clone());
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
