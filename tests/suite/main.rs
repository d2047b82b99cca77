//! The black-box tests: weir as a program, and what its users and sources do to it.
//!
//! One program, so that the suites link once and run side by side: a test must not assume that it is alone, and what it
//! counts it counts of the processes it started. `cargo test --test suite rest::` runs one suite.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod access;
mod cli;
mod contract;
mod crash;
mod deadlines;
mod docs;
mod encoders;
mod faults;
mod film;
mod gate;
mod hook_address;
mod hooks;
mod host;
mod hostile;
mod leaks;
mod limits;
mod messages;
mod metrics;
mod packages;
mod page;
mod pipelines;
mod reach;
mod record_browser;
mod record_faults;
mod record_formats;
mod record_hook;
mod record_readonly;
mod record_rest;
mod record_slow;
mod recording;
mod rest;
mod rtmp;
mod rtmp_wire;
mod rtsp;
mod sender;
mod settings;
mod shutdown;
mod signal;
mod soak;
mod ssh;
mod support;
mod terminate;
mod tidy;
mod tls;
mod viewer;
mod wcs;
mod wcs_media;
mod wcs_tls;
mod web;
