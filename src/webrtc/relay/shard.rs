//! A shard: one thread, its sockets, and the viewers whose packets arrive there.
//!
//! Each turn of its loop reads a bounded number of datagrams, then sends what the streams have pushed, then what late
//! viewers catch up with, then serves timers. Nothing in it waits for a viewer.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use mio::{Events, Interest, Poll, Token};

use super::feed::Feed;
use super::lobby::Lobby;
use super::mailbox::{Command, Inbox};
use super::session::Session;
use super::socket::Sockets;
use super::viewer::EndReason;
use super::waker::ShardWaker;

/// The token of a shard's waker; its sockets have the tokens from 0.
pub(super) const WAKER: Token = Token(usize::MAX);

/// Longest sleep: what bounds the delay should a wake-up be lost.
const MAX_SLEEP: Duration = Duration::from_millis(100);
/// How often deadlines are checked, and numbers published.
const CHECK: Duration = Duration::from_millis(100);
const REPORT: Duration = Duration::from_secs(1);
/// Most packets one viewer catches up with in one turn.
const CATCH_UP: usize = 32;

/// Where packets from an address go.
#[derive(Debug, Clone, Copy)]
pub(super) enum Route {
    Here(u64),
    There { shard: usize, id: u64 },
}

/// One shard's state, owned by its thread.
#[derive(Debug)]
pub(super) struct Shard {
    pub(super) index: usize,
    poll: Poll,
    pub(super) sockets: Sockets,
    /// Which sockets may have more to read.
    pub(super) readable: Vec<bool>,
    pub(super) lobby: Arc<Lobby>,
    wakers: Arc<[ShardWaker]>,
    pub(super) inbox: Inbox,
    pub(super) sessions: HashMap<u64, Box<Session>>,
    pub(super) routes: HashMap<SocketAddr, Route>,
    pub(super) feeds: HashMap<u64, Feed>,
    next_check: Instant,
    next_report: Instant,
    due: Vec<u64>,
}

impl Shard {
    pub fn new(
        index: usize,
        poll: Poll,
        mut sockets: Sockets,
        lobby: Arc<Lobby>,
        wakers: Arc<[ShardWaker]>,
        inbox: Inbox,
    ) -> io::Result<Self> {
        for (token, endpoint) in sockets.0.iter_mut().enumerate() {
            poll.registry().register(&mut endpoint.socket, Token(token), Interest::READABLE)?;
        }
        let now = Instant::now();
        Ok(Shard {
            index,
            poll,
            readable: vec![true; sockets.0.len()],
            sockets,
            lobby,
            wakers,
            inbox,
            sessions: HashMap::new(),
            routes: HashMap::new(),
            feeds: HashMap::new(),
            next_check: now + CHECK,
            next_report: now + REPORT,
            due: vec![],
        })
    }

    /// Runs until [`Command::Stop`].
    pub fn run(mut self) {
        let mut events = Events::with_capacity(64);
        while self.turn(&mut events) {}
        let ids: Vec<u64> = self.sessions.keys().copied().collect();
        for id in ids {
            self.remove(id, EndReason::RelayStopped, Instant::now());
        }
    }

    fn turn(&mut self, events: &mut Events) -> bool {
        let sleep = self.sleep(Instant::now());
        if let Err(error) = self.poll.poll(events, Some(sleep))
            && error.kind() != io::ErrorKind::Interrupted
        {
            tracing::error!(%error, "a relay shard cannot poll");
            std::thread::sleep(MAX_SLEEP);
        }
        for event in events.iter().filter(|event| event.token() != WAKER) {
            if let Some(readable) = self.readable.get_mut(event.token().0) {
                *readable = true;
            }
        }
        if let Some(waker) = self.wakers.get(self.index) {
            waker.clear();
        }
        if !self.commands() {
            return false;
        }
        self.read();
        self.fan_out();
        self.timers();
        true
    }

    fn sleep(&self, now: Instant) -> Duration {
        if self.readable.contains(&true) {
            return Duration::ZERO;
        }
        let first = self.sessions.values().map(|session| session.deadline()).min();
        let until = first.map_or(self.next_check, |first| first.min(self.next_check));
        until.saturating_duration_since(now).min(MAX_SLEEP)
    }

    /// False to stop.
    fn commands(&mut self) -> bool {
        while let Ok(command) = self.inbox.commands.try_recv() {
            match command {
                Command::Leave(id) => self.remove(id, EndReason::Left, Instant::now()),
                Command::Stop => return false,
            }
        }
        true
    }

    fn timers(&mut self) {
        let now = Instant::now();
        let mut due = std::mem::take(&mut self.due);
        due.extend(self.sessions.iter().filter(|(_, session)| session.deadline() <= now).map(|(id, _)| *id));
        for id in due.drain(..) {
            self.with(id, now, |session, sockets| {
                session.catch_up(CATCH_UP, now, sockets)?;
                session.drain(now, sockets)
            });
        }
        self.due = due;
        if now >= self.next_check {
            self.next_check = now + CHECK;
            self.check(now);
        }
    }

    fn check(&mut self, now: Instant) {
        let report = now >= self.next_report;
        if report {
            self.next_report = now + REPORT;
        }
        let ids: Vec<u64> = self.sessions.keys().copied().collect();
        for id in ids {
            self.with(id, now, |session, _| {
                session.check(now)?;
                if report {
                    session.report(now);
                }
                Ok(())
            });
        }
        self.feeds.retain(|_, feed| !feed.is_empty());
        self.check_waiting(now);
    }

    /// One shard looks after the sessions that nobody has taken yet.
    fn check_waiting(&self, now: Instant) {
        if self.index == 0 {
            for (session, reason) in self.lobby.take_waiting(|session| session.check(now).err()) {
                session.end(reason, now, &self.sockets);
            }
        }
    }

    /// Does something with a session, and removes it if that ends it. `None` when there is no such session (any more).
    ///
    /// What a peer sends is parsed by libraries: a panic in one of them costs the viewer that caused it, not the
    /// shard's other viewers.
    pub(super) fn with<T>(
        &mut self,
        id: u64,
        now: Instant,
        act: impl FnOnce(&mut Session, &Sockets) -> Result<T, EndReason>,
    ) -> Option<T> {
        let session = self.sessions.get_mut(&id)?;
        let sockets = &self.sockets;
        match catch_unwind(AssertUnwindSafe(|| act(session, sockets))) {
            Ok(Ok(value)) => return Some(value),
            Ok(Err(reason)) => self.remove(id, reason, now),
            Err(_) => {
                tracing::error!(viewer = id, "a viewer's session panicked");
                self.remove(id, EndReason::Internal, now);
            }
        }
        None
    }

    fn remove(&mut self, id: u64, reason: EndReason, now: Instant) {
        let Some(session) = self.sessions.remove(&id) else { return };
        for address in session.addresses() {
            if matches!(self.routes.get(address), Some(Route::Here(owner)) if *owner == id) {
                self.routes.remove(address);
            }
        }
        self.lobby.forget(session.ufrag());
        self.leave_feed(&session);
        session.end(reason, now, &self.sockets);
    }
}
