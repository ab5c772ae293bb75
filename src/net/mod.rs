//! Sockets, the clock and the loops that carry bytes between the network and the cores.
//!
//! [`udp`] binds the datagram sockets and sorts what arrives, [`batch`] carries many datagrams with
//! one call; [`dht`] runs a [`crate::dht::Node`]
//! on a thread of its own; [`peer`] dials and accepts; [`stream`] moves the bytes of streams,
//! at most as fast as [`limit`] allows; [`page`] serves one text over HTTP; [`tracker`] and
//! [`udp_tracker`] ask trackers, whose [`names`] are looked up in threads; [`fetch`] gets a file by its URL; [`lsd`] finds peers in the local network; [`clock`] is the only place
//! that asks the operating system for time and randomness.
//!
//! Invariant: nothing here decides what to say to whom. A loop hands one input to a core, drains
//! what the core wants sent, and waits.

pub mod batch;
pub mod clock;
pub mod dht;
mod dht_loop;
pub mod fetch;
mod http;
pub mod limit;
pub mod lsd;
pub mod names;
pub mod page;
pub mod peer;
mod resolve;
pub mod stream;
pub mod tracker;
pub mod udp;
pub mod udp_tracker;

pub use clock::{Clock, entropy};
pub use dht::{DhtConfig, DhtHandle, DhtStatus, FamilyStatus, Keeping, Lookup, Resolution};
pub use limit::Limits;
pub use peer::{dial, listen_tcp, read_handshake};
pub use stream::{StreamHandle, StreamInput, spawn_stream};
pub use tracker::Trackers;
pub use udp::bind_udp;
pub use udp_tracker::UdpTrackers;

#[cfg(test)]
mod tests;
