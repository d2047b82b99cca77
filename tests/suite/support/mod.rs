//! What the black-box tests share: the server as a process, a remote RTMP server with publishers, and judges of files.
//!
//! Every process is owned by a guard that ends it by its id, ports are free ones of loopback, and waiting means looking
//! at a snapshot until it is as wanted ([`wait`]).

pub mod camera;
mod disk;
mod hooks;
mod judge;
mod process;
mod rest;
mod server;
mod source;
pub mod tls;

use std::time::{Duration, Instant};

pub use camera::Camera;
pub use disk::{FailingDisk, SmallDisk, where_mounting_works};
pub use hooks::{Call, HookServer, Reply};
pub use judge::{Media, Packet, decodes, probe};
pub use process::{Process, Signal, run};
pub use rest::Answer;
pub use server::{Home, Setup, Weir};
pub use source::{Clip, Dumb, Nginx, Publisher, dead_port};
pub use tls::TlsProxy;

/// How long a condition may take to come true on a machine that is busy with other tests.
pub const SOON: Duration = Duration::from_secs(60);

/// Looks until there is something to see; a test whose `limit` passes fails with `what`.
pub fn wait<T>(what: &str, limit: Duration, mut look: impl FnMut() -> Option<T>) -> T {
    let until = Instant::now() + limit;
    loop {
        if let Some(seen) = look() {
            return seen;
        }
        assert!(Instant::now() < until, "{what}: not within {} s", limit.as_secs_f32());
        std::thread::sleep(Duration::from_millis(25));
    }
}

/// Looks until it is true.
pub fn wait_until(what: &str, mut look: impl FnMut() -> bool) {
    wait(what, SOON, || look().then_some(()));
}
