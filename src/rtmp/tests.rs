//! The module as its peers see it: bytes into a session, events and bytes out.

#![allow(clippy::unwrap_used)]

mod attacks;
mod chunks;
mod client;
mod fuzz;
mod sessions;
