//! The command line (wcs.md section 5): one grammar, reached over a local socket (`weir ctl`) and over SSH.
//!
//! [`grammar`] reads lines by the table in [`commands`], and prints help from it. [`console`] does what a line says; it
//! knows nothing of sockets. [`local`] is the server's end of the local socket, [`ctl`] the client's.

pub mod commands;
pub mod complete;
pub mod console;
pub mod ctl;
pub mod edit;
pub mod grammar;
pub mod local;
pub mod ssh;
pub mod table;
pub mod wire;
pub mod words;
