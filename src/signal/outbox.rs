//! Where messages for one browser go. Nobody waits for a browser that reads slowly: it is closed.

use std::time::Duration;

use futures_util::SinkExt;
use futures_util::stream::SplitSink;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use warp::ws::{Message, WebSocket};

/// Messages that may wait for a browser. One that reads slower is closed.
const OUTGOING: usize = 256;
/// Longest time a message may take to be sent.
const SENDING: Duration = Duration::from_secs(10);

/// Where messages for the browser go. Never waits.
#[derive(Clone)]
pub(super) struct Outbox {
    out: mpsc::Sender<Message>,
    overrun: CancellationToken,
}

impl Outbox {
    /// An outbox, and what waits in it.
    pub(super) fn new() -> (Self, mpsc::Receiver<Message>) {
        let (out, outgoing) = mpsc::channel(OUTGOING);
        (Self { out, overrun: CancellationToken::new() }, outgoing)
    }

    /// Cancelled when the browser reads too slowly.
    pub(super) fn overrun(&self) -> CancellationToken {
        self.overrun.clone()
    }

    pub(super) fn text(&self, text: String) {
        self.message(Message::text(text));
    }

    pub(super) fn message(&self, message: Message) {
        if let Err(mpsc::error::TrySendError::Full(_)) = self.out.try_send(message) {
            self.overrun.cancel();
        }
    }
}

/// Sends what waits, each message with a deadline.
pub(super) async fn write(mut sink: SplitSink<WebSocket, Message>, mut outgoing: mpsc::Receiver<Message>) {
    while let Some(message) = outgoing.recv().await {
        let closing = message.is_close();
        match timeout(SENDING, sink.send(message)).await {
            Ok(Ok(())) if !closing => {}
            _ => break,
        }
    }
    let _ = timeout(SENDING, sink.close()).await;
}
