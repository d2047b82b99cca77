//! One HTTP connection.

use std::net::SocketAddr;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::sync::CancellationToken;

use super::{Api, routes};

/// How long a connection that is one too many may take to ask for something.
const REFUSING: Duration = Duration::from_secs(2);
/// How long the answer that is on its way when the server stops may take: a large file would take its time, and a client
/// that reads nothing for ever.
const LAST_ANSWER: Duration = Duration::from_secs(2);

/// Serves a connection until the client leaves or `stop` asks for an end; a running call still answers.
pub async fn serve<S>(api: Api, stream: S, peer: SocketAddr, stop: CancellationToken)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    // Answers that would go on for ever end with the connection.
    let place = api.admission.call();
    let refused = place.as_ref().err().copied();
    // One too many is told so, soon.
    let headers = api.admission.limits().headers;
    let headers = if refused.is_some() { headers.min(REFUSING) } else { headers };
    let api = Api { ending: stop.clone(), peer: peer.ip(), refused, ..api };
    let meter = api.meter.clone();
    let service = TowerToHyperService::new(warp::service(routes::all(api)));
    let mut builder = http1::Builder::new();
    builder.keep_alive(refused.is_none()).timer(TokioTimer::new()).header_read_timeout(headers);
    let connection = builder.serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            match tokio::time::timeout(LAST_ANSWER, connection).await {
                Ok(ended) => ended,
                Err(_) => return tracing::debug!("a connection was cut: it took too long to take its last answer"),
            }
        }
    };
    if let Err(error) = ended {
        if error.is_timeout() {
            meter.refused("rest_header_timeout");
        }
        tracing::debug!("a connection ended: {error}");
    }
}
