//! One HTTP connection.

use std::time::Duration;

use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::sync::CancellationToken;

use super::{Api, routes};

/// Longest time a client may take to send a request's headers; an idle connection is closed after it too.
const HEADERS: Duration = Duration::from_secs(30);
/// How long the answer that is on its way when the server stops may take: a large file would take its time, and a client
/// that reads nothing for ever.
const LAST_ANSWER: Duration = Duration::from_secs(2);

/// Serves a connection until the client leaves or `stop` asks for an end; a running call still answers.
pub async fn serve<S>(api: Api, stream: S, stop: CancellationToken)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    // Answers that would go on for ever end with the connection.
    let api = Api { ending: stop.clone(), ..api };
    let service = TowerToHyperService::new(warp::service(routes::all(api)));
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(HEADERS);
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
        tracing::debug!("a connection ended: {error}");
    }
}
