//! From streams to viewers: every shard reads each of its streams once and writes what it got to each viewer.

use std::sync::Arc;
use std::time::Instant;

use super::session::Session;
use super::shard::Shard;
use super::stream::Shared;

/// A stream, as a shard with viewers of it sees it.
#[derive(Debug)]
pub(super) struct Feed {
    stream: Arc<Shared>,
    cursor: u64,
    viewers: Vec<u64>,
}

impl Feed {
    pub fn is_empty(&self) -> bool {
        self.viewers.is_empty()
    }
}

impl Shard {
    /// A session's handshake is done: it starts, and from now on its stream is read for it.
    pub(super) fn join_feed(&mut self, id: u64, now: Instant) {
        let Some(stream) = self.sessions.get(&id).map(|session| Arc::clone(session.stream())) else { return };
        stream.attach(self.index);
        let feed =
            self.feeds.entry(stream.id).or_insert_with(|| Feed { cursor: stream.head(), stream, viewers: vec![] });
        feed.viewers.push(id);
        self.with(id, now, |session, _| {
            session.start(now);
            Ok(())
        });
    }

    /// Undoes [`Shard::join_feed`], if it was done.
    pub(super) fn leave_feed(&mut self, session: &Session) {
        if session.is_connected() {
            session.stream().detach(self.index);
        }
        if let Some(feed) = self.feeds.get_mut(&session.stream().id) {
            feed.viewers.retain(|id| *id != session.id());
        }
    }

    /// Hands every stream's new packets to its viewers.
    pub(super) fn fan_out(&mut self) {
        let behind = self.feeds.iter().filter(|(_, feed)| feed.stream.head() != feed.cursor);
        let behind: Vec<u64> = behind.map(|(id, _)| *id).collect();
        for stream in behind {
            self.serve(stream);
        }
    }

    fn serve(&mut self, stream: u64) {
        let Some(feed) = self.feeds.get_mut(&stream) else { return };
        let read = feed.stream.since(feed.cursor);
        feed.cursor = read.first + read.packets.len() as u64;
        // taken out, as a viewer may end while the list is walked
        let mut viewers = std::mem::take(&mut feed.viewers);
        for id in &viewers {
            // per viewer: with many of them the first one's "now" is old for the last
            let now = Instant::now();
            self.with(*id, now, |session, sockets| {
                if read.missed > 0 {
                    session.missed(read.missed);
                }
                for (number, packet) in (read.first..).zip(&read.packets) {
                    session.live(number, packet, now, sockets)?;
                }
                session.drain(now, sockets)
            });
        }
        viewers.retain(|id| self.sessions.contains_key(id));
        if let Some(feed) = self.feeds.get_mut(&stream) {
            viewers.append(&mut feed.viewers);
            feed.viewers = viewers;
        }
    }
}
