//! Where viewers are: those that no packet has arrived from yet, and the shard of each other one.
//!
//! All shards listen on the same port and the kernel decides, by the viewer's address, which of them gets its packets.
//! That address is unknown until the browser's first check arrives, so a new session waits here, and the shard that
//! gets the check takes it.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::mailbox::{Command, Forwarded, Mailbox};
use super::session::Session;
use super::viewer::EndReason;

/// Finds the session of an ICE user name.
#[derive(Debug)]
pub(super) struct Lobby {
    places: Mutex<HashMap<String, Place>>,
    mailboxes: Box<[Mailbox]>,
}

#[derive(Debug)]
enum Place {
    Waiting(Box<Session>),
    At { shard: usize, id: u64 },
}

/// Who a packet with an ICE user name is for.
#[derive(Debug)]
pub(super) enum Lookup {
    /// A session that has just become the caller's.
    Taken(Box<Session>),
    /// The session lives at this shard under this id.
    At { shard: usize, id: u64 },
    /// Nobody.
    Unknown,
}

impl Lobby {
    pub fn new(mailboxes: Box<[Mailbox]>) -> Self {
        Lobby { places: Mutex::default(), mailboxes }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Place>> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Leaves a new session here. Gives it back when its user name is taken.
    pub fn enter(&self, ufrag: String, session: Box<Session>) -> Result<(), Box<Session>> {
        match self.lock().entry(ufrag) {
            std::collections::hash_map::Entry::Occupied(_) => Err(session),
            std::collections::hash_map::Entry::Vacant(place) => {
                place.insert(Place::Waiting(session));
                Ok(())
            }
        }
    }

    /// Finds the session of a user name for shard `shard`, which takes a waiting one if `accepts` says that the
    /// packet is really its viewer's.
    pub fn find(&self, ufrag: &str, shard: usize, accepts: impl FnOnce(&Session) -> bool) -> Lookup {
        let mut places = self.lock();
        let Some(place) = places.get_mut(ufrag) else { return Lookup::Unknown };
        match place {
            Place::At { shard, id } => Lookup::At { shard: *shard, id: *id },
            Place::Waiting(session) if accepts(session) => {
                let id = session.id();
                match std::mem::replace(place, Place::At { shard, id }) {
                    Place::Waiting(session) => Lookup::Taken(session),
                    Place::At { .. } => Lookup::Unknown,
                }
            }
            Place::Waiting(_) => Lookup::Unknown,
        }
    }

    /// Takes out the waiting sessions that `over` gives a reason to end.
    pub fn take_waiting(
        &self,
        mut over: impl FnMut(&mut Session) -> Option<EndReason>,
    ) -> Vec<(Box<Session>, EndReason)> {
        let mut taken = vec![];
        let mut places = self.lock();
        let ended = places.extract_if(|_, place| match place {
            Place::Waiting(session) => over(session).inspect(|reason| taken.push(*reason)).is_some(),
            Place::At { .. } => false,
        });
        let sessions: Vec<_> = ended
            .filter_map(|(_, place)| match place {
                Place::Waiting(session) => Some(session),
                Place::At { .. } => None,
            })
            .collect();
        sessions.into_iter().zip(taken).collect()
    }

    /// Forgets a session that has ended at its shard.
    pub fn forget(&self, ufrag: &str) {
        self.lock().remove(ufrag);
    }

    /// The viewer of a user name leaves: a waiting session ends here, another one is told.
    pub fn leave(&self, ufrag: &str) {
        let place = {
            let mut places = self.lock();
            match places.get(ufrag) {
                Some(Place::At { shard, id }) => Err((*shard, *id)),
                Some(Place::Waiting(_)) => Ok(places.remove(ufrag)),
                None => return,
            }
        };
        match place {
            Err((shard, id)) => self.send(shard, Command::Leave(id)),
            // outside the lock: a session is a large thing to take down
            Ok(waiting) => drop(waiting),
        }
    }

    /// Hands a datagram to a shard.
    pub fn forward(&self, shard: usize, datagram: Forwarded) {
        if let Some(mailbox) = self.mailboxes.get(shard) {
            mailbox.forward(datagram);
        }
    }

    /// Sends a command to a shard.
    pub fn send(&self, shard: usize, command: Command) {
        if let Some(mailbox) = self.mailboxes.get(shard) {
            mailbox.send(command);
        }
    }
}

/// The part of a STUN binding request's user name before the colon (RFC 8445, 7.2.2): the one of this side.
///
/// Looks at no more than it needs, as anybody can send anything here; who the packet is really from is decided by its
/// integrity, once a session is found.
pub(super) fn local_ufrag(datagram: &[u8]) -> Option<&str> {
    const BINDING_REQUEST: [u8; 2] = [0, 1];
    const MAGIC: [u8; 4] = [0x21, 0x12, 0xa4, 0x42];
    const USERNAME: u16 = 6;
    if datagram.get(..2)? != BINDING_REQUEST || datagram.get(4..8)? != MAGIC {
        return None;
    }
    let mut rest = datagram.get(20..)?;
    loop {
        let kind = u16::from_be_bytes(rest.get(..2)?.try_into().ok()?);
        let len = usize::from(u16::from_be_bytes(rest.get(2..4)?.try_into().ok()?));
        if kind == USERNAME {
            let name = std::str::from_utf8(rest.get(4..4 + len)?).ok()?;
            return name.split_once(':').map(|(local, _)| local);
        }
        rest = rest.get(4 + len.next_multiple_of(4)..)?;
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn request(attributes: &[(u16, &[u8])]) -> Vec<u8> {
        let mut out = vec![0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42];
        out.extend([7; 12]);
        for (kind, value) in attributes {
            out.extend(kind.to_be_bytes());
            out.extend((value.len() as u16).to_be_bytes());
            out.extend(*value);
            out.resize(out.len().next_multiple_of(4), 0);
        }
        out
    }

    #[test]
    fn finds_the_user_name() {
        assert_eq!(local_ufrag(&request(&[(6, b"mine:theirs")])), Some("mine"));
        assert_eq!(local_ufrag(&request(&[(0x8022, b"abc"), (6, b"mine:t")])), Some("mine"));
        assert_eq!(local_ufrag(&request(&[(6, b"mine")])), None);
        assert_eq!(local_ufrag(&request(&[(0x8022, b"abc")])), None);
        assert_eq!(local_ufrag(&request(&[(6, b"\xff:\xff")])), None);
    }

    #[test]
    fn survives_every_cut_and_change() {
        let good = request(&[(0x8022, b"abc"), (6, b"mine:theirs")]);
        for cut in 0..good.len() {
            let _ = local_ufrag(&good[..cut]);
            for value in [0, 1, 0x7f, 0xff] {
                let mut bad = good.clone();
                bad[cut] = value;
                let _ = local_ufrag(&bad);
            }
        }
    }
}
