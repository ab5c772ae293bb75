//! Hosts that do not keep to the protocol.
//!
//! An adversary runs the shipping cores too, so that it joins, is verified and is believed like
//! anybody else. What makes it one stands between core and network: answers are dropped, replaced or
//! changed on their way.
//!
//! Invariant: an adversary uses what any host has: its own packets. It never looks into another host.

pub mod node;
pub mod peer;

pub use node::NodeConduct;
pub use peer::{PeerConduct, PeerMalice};
