//! One viewer at each server of a chain, for the benchmark `nodes`: notes when the same picture arrives at each, on one
//! clock. A JSON line for each picture goes to stdout, the milliseconds since the first server's viewer had it.
//!
//! `hops STREAM PICTURES ADDRESS ws://HOST:PORT...`: the viewers' sockets are bound to ADDRESS.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a benchmark ends by panicking")]

#[path = "../tests/suite/viewer/mod.rs"]
mod viewer;

mod signalling;

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::mpsc::{Sender, channel};
use std::time::{Duration, Instant};

use serde_json::json;
use signalling::{connect_weir, watch_weir};
use viewer::Client;

/// Longest wait for a datagram: a viewer has clocks of its own, too.
const WAIT: Duration = Duration::from_millis(2);
/// What is left out of the start of a viewer, whose pictures of the past say nothing.
const SETTLE: Duration = Duration::from_secs(3);
/// A picture that has not reached every server by then is not counted; a medium that repeats shows it again later.
const LOST: Duration = Duration::from_secs(5);
/// How many of its last bytes tell a picture from the others.
const TAIL: usize = 24;

/// The last bytes of a picture that has arrived at a server's viewer.
struct Arrival {
    place: usize,
    at: Instant,
    tail: Vec<u8>,
}

/// Steps a viewer for as long as somebody listens. It has a thread, so that a picture is noted when it comes and not when
/// another viewer has been looked at.
fn watch(place: usize, mut client: Client, arrivals: &Sender<Arrival>) {
    client.socket.set_nonblocking(false).unwrap();
    client.socket.set_read_timeout(Some(WAIT)).unwrap();
    loop {
        client.step();
        client.audio.packets.clear();
        for (at, packet) in std::mem::take(&mut client.video.packets).into_values() {
            if packet.header.marker {
                let tail = packet.payload[packet.payload.len().saturating_sub(TAIL)..].to_vec();
                if arrivals.send(Arrival { place, at, tail }).is_err() {
                    return;
                }
            }
        }
    }
}

/// Milliseconds from one instant to another, which may be before it.
fn between(from: Instant, to: Instant) -> f64 {
    let (after, before) = (to.saturating_duration_since(from), from.saturating_duration_since(to));
    (after.as_secs_f64() - before.as_secs_f64()) * 1000.0
}

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [stream, wanted, address, urls @ ..] = &words[..] else { panic!("see the head of hops.rs") };
    let (mut wanted, address): (usize, IpAddr) = (wanted.parse().unwrap(), address.parse().unwrap());
    let (sender, arrivals) = channel();
    // Their connections stay open.
    let mut servers: Vec<_> = urls.iter().map(|url| connect_weir(url)).collect();
    for (place, server) in servers.iter_mut().enumerate() {
        let (client, sender) = (watch_weir(server, stream, 0, address), sender.clone());
        std::thread::spawn(move || watch(place, client, &sender));
    }
    let begins = Instant::now() + SETTLE;
    let mut seen: HashMap<Vec<u8>, Vec<Option<Instant>>> = HashMap::new();
    while wanted > 0 {
        let Arrival { place, at, tail } = arrivals.recv().unwrap();
        if at < begins {
            continue;
        }
        seen.retain(|_, times| times.iter().flatten().all(|before| at.saturating_duration_since(*before) < LOST));
        let times = seen.entry(tail).or_insert_with(|| vec![None; urls.len()]);
        times[place].get_or_insert(at);
        if let Some(times) = times.iter().copied().collect::<Option<Vec<Instant>>>() {
            wanted -= 1;
            println!("{}", json!(times.iter().map(|at| between(times[0], *at)).collect::<Vec<f64>>()));
            seen.retain(|_, other| other.iter().any(Option::is_none));
        }
    }
}
