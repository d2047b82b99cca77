//! weir: a media server that builds one GStreamer pipeline per job, driven by a REST API.
//!
//! # The rooms
//!
//! Calls go down this list, never up; `tests/tidy.rs` holds the imports to it.
//!
//! - [`server`] knows every part: it builds them in order and drains them in reverse.
//! - [`api`] is HTTP over warp: REST's calls in, snapshots and events out; weir's own pages (`web/`) and files beside.
//!   [`signal`] is the browsers' WebSocket, [`cli`] the command line.
//! - [`pull`] dials remote servers, [`rtmp`] is the server encoders publish to, [`record`] writes files, [`webrtc`]
//!   carries browsers' media, [`picture`] takes snapshots.
//! - [`hook`] asks the servers of applications what may happen, and tells them what does.
//! - [`hub`] has the streams by name: who publishes, who takes.
//! - [`media`] is the border to GStreamer: outside it no GStreamer type can be named.
//! - Leaves, which anybody may use: [`name`], [`event`], [`retry`], [`config`], [`message`], [`meter`], `tls`,
//!   [`admission`] (who is refused), [`gate`] (what publishing and playing ask for), [`store`] (what survives a restart),
//!   [`systemd`], [`trust`] and [`users`].
//!
//! # One request, one frame
//!
//! `POST /rest-api/pull/rtmp/pull` goes [`api`] → [`pull::Pulls`] → an agent's task, which has taken the stream's name
//! in the [`hub::Hub`] and answers at once. The agent fills the template `pull-rtmp` and starts a [`media::Source`]. Its
//! frames go from GStreamer's thread through the stream's [`media::Fanout`] to whoever has joined; no task of weir's
//! touches them. Once the tracks are known the agent says so to the hub, the stream is live, and the recorder it asked
//! for attaches a [`media::Feed`] and writes one [`media::Part`] after another.
//!
//! Commands go in through channels, state is read from snapshots, what happened is told once as an [`event::Event`].
//! Leaving is dropping.

pub mod admission;
pub mod api;
pub mod cli;
pub mod config;
pub mod event;
pub mod gate;
pub mod hook;
pub mod hub;
mod listen;
pub mod media;
pub mod message;
pub mod meter;
pub mod name;
pub mod picture;
pub mod pull;
pub mod record;
pub mod retry;
pub mod rtmp;
pub mod server;
pub mod signal;
pub mod store;
pub mod systemd;
mod tls;
pub mod trust;
pub mod users;
pub mod webrtc;
