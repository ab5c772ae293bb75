//! Tests of the drivers: real sockets on the loopback interface, real files, the built command.

#![expect(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::unwrap_used,
    reason = "tests wait for processes, with a bound, and hold ports"
)]

mod choose;
mod cli;
mod command;
mod dht;
mod follow;
mod hostile_files;
mod krpc;
mod magnet;
mod node;
mod seed;
mod tidy;
mod tracker;
mod web;
