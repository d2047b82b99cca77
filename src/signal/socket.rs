//! From a TCP connection to a WebSocket of any path.

use std::net::SocketAddr;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::sync::CancellationToken;
use warp::{Filter, Rejection, Reply};

use super::{Signal, connection};

/// Longest time a browser may take to send the request's headers.
const HEADERS: Duration = Duration::from_secs(10);

/// Serves a connection until the browser leaves or `stop` asks for an end.
pub async fn serve<S>(signal: Signal, stream: S, peer: SocketAddr, stop: CancellationToken)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    // A WebSocket outlives the HTTP connection that carried its request; this token tells when it is over.
    let over = CancellationToken::new();
    let filter = filter(signal, peer, stop.clone(), over.clone());
    let service = TowerToHyperService::new(warp::service(filter));
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(HEADERS);
    let connection = builder.serve_connection(TokioIo::new(stream), service).with_upgrades();
    let served = tokio::select! {
        served = connection => served,
        () = stop.cancelled() => Ok(()),
    };
    if let Err(error) = served {
        tracing::debug!("a connection ended before it was a WebSocket: {error}");
        return;
    }
    over.cancelled().await;
}

/// Cancels its token when it is dropped: whatever way the socket's task ends.
struct Over(CancellationToken);

impl Drop for Over {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

fn filter(
    signal: Signal,
    peer: SocketAddr,
    stop: CancellationToken,
    over: CancellationToken,
) -> impl Filter<Extract = (impl Reply,), Error = Rejection> + Clone {
    let over = std::sync::Arc::new(Over(over));
    warp::ws().and(warp::header::optional::<String>("origin")).map(move |ws: warp::ws::Ws, origin| {
        let (signal, stop, over) = (signal.clone(), stop.clone(), over.clone());
        let most = usize::try_from(signal.admission.limits().message).unwrap_or(usize::MAX);
        ws.max_message_size(most).max_frame_size(most).on_upgrade(move |socket| async move {
            match signal.admission.browser() {
                Ok(_place) => connection::run(signal, socket, peer, origin, stop).await,
                Err(refused) => connection::refuse(socket, refused).await,
            }
            drop(over);
        })
    })
}
