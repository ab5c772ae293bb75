//! Deterministic simulations of DHTs and swarms that drive the shipping cores of trackless.
//!
//! A [`World`] holds [hosts](host) with real `dht::Node`s and `swarm::Torrent`s, joins them by a
//! [`network`] of [links](link) and [pipes](pipe), and moves virtual [`time`].
//! [Scenarios](scenario) build a world, give it work and grade the outcome; a [`report`] prints it.
//!
//! Invariant: a run is a function of scenario, settings and seed. The same three give the same
//! [trace hash](trace), byte for byte, on every machine.

pub mod adversary;
pub mod churn;
pub mod control;
pub mod disk;
pub mod faults;
pub mod host;
pub mod lifetime;
pub mod line;
pub mod link;
pub mod nat;
pub mod network;
pub mod oracle;
pub mod pipe;
pub mod plot;
pub mod report;
pub mod scenario;
pub mod seeds;
pub mod statistics;
pub mod time;
pub mod trace;
pub mod tracker;
pub mod watch;
pub mod world;

pub use world::{Notice, World};
