//! The command line over a local socket, which is under the data directory and open to the owner alone: who may write
//! there is the operator.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio_util::codec::{Framed, LinesCodec};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::console::{Console, Turn, Who};
use super::wire::{MAX_REQUEST, Request, Response, SOCKET, near};

/// Most clients at once; further ones wait.
const CLIENTS: usize = 32;
/// How long a client may say nothing.
const IDLE: Duration = Duration::from_secs(3600);
/// How long a client may take to read an answer.
const WRITE: Duration = Duration::from_secs(30);
/// How long to wait when the system has no descriptor for a new client.
const OUT_OF_DESCRIPTORS: Duration = Duration::from_millis(200);

/// The listening socket and its clients.
pub struct Local {
    path: PathBuf,
    stop: CancellationToken,
    clients: TaskTracker,
}

impl Local {
    /// Listens on the socket under `data`, which no other weir uses: one that lies there is left from an earlier run.
    ///
    /// # Errors
    /// The system's.
    pub fn start(data: &Path, console: Console) -> io::Result<Self> {
        let path = data.join(SOCKET);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = near(data, |near| {
            let listener = UnixListener::bind(near)?;
            std::fs::set_permissions(near, std::fs::Permissions::from_mode(0o600))?;
            Ok(listener)
        })?;
        let local = Self { path, stop: CancellationToken::new(), clients: TaskTracker::new() };
        local.clients.spawn(accept(listener, console, local.stop.clone(), local.clients.clone()));
        Ok(local)
    }

    /// Takes no more clients and ends those there are; true when all are gone within `deadline`.
    pub async fn stop(self, deadline: Duration) -> bool {
        self.stop.cancel();
        self.clients.close();
        let gone = tokio::time::timeout(deadline, self.clients.wait()).await.is_ok();
        // One that is gone already misleads nobody.
        let _ = std::fs::remove_file(&self.path);
        gone
    }
}

async fn accept(listener: UnixListener, console: Console, stop: CancellationToken, clients: TaskTracker) {
    let places = Arc::new(Semaphore::new(CLIENTS));
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
            Ok((stream, _)) if is_ours(&stream) => {
                let (console, stop) = (console.clone(), stop.clone());
                clients.spawn(async move {
                    let _place = place;
                    tokio::select! {
                        () = stop.cancelled() => {}
                        () = serve(stream, &console) => {}
                    }
                });
            }
            // Somebody was faster than the file's mode; they are told nothing.
            Ok(_) => tracing::warn!("a client of {SOCKET} that is neither root nor weir's own user is turned away"),
            Err(error) => {
                tracing::warn!("cannot accept a client of {SOCKET}: {error}");
                tokio::time::sleep(OUT_OF_DESCRIPTORS).await;
            }
        }
    }
}

/// Whether the other end is run by root or by weir's own user. The file's mode says so too, but from a moment later on.
fn is_ours(stream: &UnixStream) -> bool {
    let own = rustix::process::geteuid().as_raw();
    stream.peer_cred().is_ok_and(|peer| peer.uid() == 0 || peer.uid() == own)
}

/// One client, until it leaves, errs or says nothing for too long.
async fn serve(stream: UnixStream, console: &Console) {
    let who = Who::local();
    let mut lines = Framed::new(stream, LinesCodec::new_with_max_length(MAX_REQUEST));
    let mut question = None;
    while let Ok(Some(Ok(line))) = tokio::time::timeout(IDLE, lines.next()).await {
        let turn = match (serde_json::from_str(&line), question.take()) {
            (Ok(Request::Line(line)), _) => console.run(&who, &line).await,
            (Ok(Request::Answer(answer)), Some(question)) => Turn::Done(console.answer(&who, question, &answer).await),
            _ => return,
        };
        let response = match turn {
            Turn::Done(reply) => Response::Done { text: reply.text, code: reply.code },
            Turn::Leave => Response::Leave,
            Turn::Ask(asked) => {
                let prompt = asked.prompt.clone();
                question = Some(asked);
                Response::Ask(prompt)
            }
        };
        let Ok(json) = serde_json::to_string(&response) else { return };
        if !matches!(tokio::time::timeout(WRITE, lines.send(json)).await, Ok(Ok(()))) {
            return;
        }
    }
}
