//! What other threads send to a shard.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender, SyncSender};

use super::waker::ShardWaker;

/// Most datagrams that may wait to be handed from one shard to another. More are lost, as UDP may lose them.
const DATAGRAMS: usize = 1024;

/// Something a shard must do.
#[derive(Debug)]
pub(super) enum Command {
    /// The viewer's handle was dropped.
    Leave(u64),
    /// End all viewers and the thread.
    Stop,
}

/// A datagram that the kernel gave to another shard than the one its viewer lives at. That happens when a browser
/// checks from several addresses.
#[derive(Debug)]
pub(super) struct Forwarded {
    pub id: u64,
    pub source: SocketAddr,
    /// The advertised address it was sent to.
    pub to: SocketAddr,
    pub bytes: Box<[u8]>,
}

/// The sending end.
#[derive(Debug, Clone)]
pub(super) struct Mailbox {
    commands: Sender<Command>,
    datagrams: SyncSender<Forwarded>,
    shard: usize,
    wakers: Arc<[ShardWaker]>,
}

/// The receiving end.
#[derive(Debug)]
pub(super) struct Inbox {
    pub commands: Receiver<Command>,
    pub datagrams: Receiver<Forwarded>,
}

/// A mailbox for shard number `shard`.
pub(super) fn mailbox(shard: usize, wakers: &Arc<[ShardWaker]>) -> (Mailbox, Inbox) {
    let (commands, commands_rx) = mpsc::channel();
    let (datagrams, datagrams_rx) = mpsc::sync_channel(DATAGRAMS);
    let mailbox = Mailbox { commands, datagrams, shard, wakers: Arc::clone(wakers) };
    (mailbox, Inbox { commands: commands_rx, datagrams: datagrams_rx })
}

impl Mailbox {
    /// Sends a command. Nothing happens when the shard has stopped: its viewers are gone.
    pub fn send(&self, command: Command) {
        if self.commands.send(command).is_ok() {
            self.wake();
        }
    }

    /// Hands a datagram over, if there is room.
    pub fn forward(&self, datagram: Forwarded) {
        if self.datagrams.try_send(datagram).is_ok() {
            self.wake();
        }
    }

    fn wake(&self) {
        if let Some(waker) = self.wakers.get(self.shard) {
            waker.wake();
        }
    }
}
