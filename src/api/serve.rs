//! One HTTP connection.

use std::net::SocketAddr;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use super::{Api, routes};

/// Longest time a client may take to send a request's headers; an idle connection is closed after it too.
const HEADERS: Duration = Duration::from_secs(30);

/// Serves a connection until the client leaves or `stop` asks for an end; a running call still answers.
pub async fn serve(api: Api, stream: TcpStream, _peer: SocketAddr, stop: CancellationToken) {
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
