//! From sockets to viewers: by source address, and by ICE user name where the address is new.

use std::io;
use std::net::SocketAddr;
use std::time::Instant;

use str0m::Input;
use str0m::net::{Protocol, Receive};

use super::lobby::{Lookup, local_ufrag};
use super::mailbox::Forwarded;
use super::shard::{Route, Shard};

/// Most datagrams read from a socket in one turn: a flood must not keep the shard from its viewers.
const READS: usize = 64;
/// Larger datagrams are cut: nothing that is valid here comes near.
const DATAGRAM: usize = 2048;
/// Most addresses remembered for viewers of other shards; anybody can make one up.
const MAX_FOREIGN: usize = 4096;

impl Shard {
    /// Reads what has arrived, up to a bound.
    pub(super) fn read(&mut self) {
        for _ in 0..READS {
            let Ok(Forwarded { id, source, to, bytes }) = self.inbox.datagrams.try_recv() else { break };
            if self.hand(id, source, to, &bytes) {
                self.route(source, id);
            }
        }
        for socket in 0..self.sockets.0.len() {
            self.read_socket(socket);
        }
    }

    fn read_socket(&mut self, index: usize) {
        let mut buffer = [0; DATAGRAM];
        for _ in 0..READS {
            let Some(endpoint) = self.sockets.0.get(index).filter(|_| self.readable[index]) else { return };
            match endpoint.socket.recv_from(&mut buffer) {
                Ok((len, source)) => {
                    let to = endpoint.advertised;
                    self.datagram(source, to, &buffer[..len]);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => self.readable[index] = false,
            }
        }
    }

    fn datagram(&mut self, source: SocketAddr, to: SocketAddr, bytes: &[u8]) {
        let ufrag = local_ufrag(bytes);
        match self.routes.get(&source).copied() {
            Some(Route::Here(id)) if self.hand(id, source, to, bytes) => return,
            Some(Route::There { shard, id }) if ufrag.is_none() => {
                return self.lobby.forward(shard, Forwarded { id, source, to, bytes: bytes.into() });
            }
            _ => {}
        }
        // of a stranger only a check says who it is for
        if let Some(ufrag) = ufrag {
            self.check_from_stranger(ufrag, source, to, bytes);
        }
    }

    fn check_from_stranger(&mut self, ufrag: &str, source: SocketAddr, to: SocketAddr, bytes: &[u8]) {
        let accepts = |session: &super::session::Session| {
            let receive = Receive::new(Protocol::Udp, source, to, bytes);
            receive.is_ok_and(|receive| session.accepts(&Input::Receive(Instant::now(), receive)))
        };
        match self.lobby.find(ufrag, self.index, accepts) {
            Lookup::Taken(session) => {
                let id = session.id();
                self.sessions.insert(id, session);
                self.route(source, id);
                self.hand(id, source, to, bytes);
            }
            Lookup::At { shard, id } if shard == self.index => {
                if self.hand(id, source, to, bytes) {
                    self.route(source, id);
                }
            }
            Lookup::At { shard, id } => {
                self.route_away(source, shard, id);
                self.lobby.forward(shard, Forwarded { id, source, to, bytes: bytes.into() });
            }
            Lookup::Unknown => {}
        }
    }

    /// Gives a datagram to a session. False when it is not that viewer's.
    fn hand(&mut self, id: u64, source: SocketAddr, to: SocketAddr, bytes: &[u8]) -> bool {
        let now = Instant::now();
        let taken = self.with(id, now, |session, sockets| {
            let taken = session.receive(now, source, to, bytes)?;
            if taken {
                session.drain(now, sockets)?;
            }
            Ok((taken, session.take_ready()))
        });
        if let Some((_, true)) = taken {
            self.join_feed(id, now);
        }
        taken.is_some_and(|(taken, _)| taken)
    }

    /// Remembers that packets from `source`, which a session has accepted, are that session's.
    fn route(&mut self, source: SocketAddr, id: u64) {
        if matches!(self.routes.get(&source), Some(Route::Here(owner)) if *owner == id) {
            return;
        }
        if self.sessions.get_mut(&id).is_some_and(|session| session.add_address(source)) {
            self.routes.insert(source, Route::Here(id));
        }
    }

    /// Remembers that packets from `source` are for another shard. Nobody has verified that yet, so it never takes
    /// the place of a route of this shard.
    fn route_away(&mut self, source: SocketAddr, shard: usize, id: u64) {
        if matches!(self.routes.get(&source), Some(Route::Here(_))) {
            return;
        }
        let foreign = self.routes.values().filter(|route| matches!(route, Route::There { .. })).count();
        if foreign >= MAX_FOREIGN {
            self.routes.retain(|_, route| matches!(route, Route::Here(_)));
        }
        self.routes.insert(source, Route::There { shard, id });
    }
}
