//! Where a stream comes from, over several servers: what keeps one from feeding itself.
//!
//! A publisher's media session is one of a kind on all servers. A stream pulled from another weir carries the publishers it
//! has come by, and a server that finds its own among them refuses it.

use super::stream::Command;
use super::{Publication, StreamView};

impl StreamView {
    /// Its publisher here and those before it, by their media sessions. Who is among them must not be fed by it.
    pub fn path(&self) -> Vec<String> {
        let here = self.publisher().map(|publisher| publisher.id.to_string());
        here.into_iter().chain(self.upstream.iter().cloned()).collect()
    }
}

impl Publication {
    /// The publishers on other servers that the source comes from, the nearest first.
    pub fn comes_from(&self, path: Vec<String>) {
        self.send(Command::Upstream(path));
    }
}
