//! One peer connection: handshake, choke state, request pipeline, uploads.
//!
//! [`Incoming`] reads the handshake of an accepted stream, until its torrent is known. A
//! [`Connection`] is everything after that, and a dialled stream from its first byte on. It decides
//! what concerns one peer alone; what to ask, whom to unchoke and what to do with a block is
//! decided by `swarm`, which owns the connections of a torrent.
//!
//! Inside a connection, `requests` owns what we asked for, `uploads` what the peer asked for,
//! `remote` what the peer has, `outbox` what waits to be sent.
//!
//! Invariant: whatever a peer sends, a connection holds at most one incomplete message, one
//! bitfield, [`Config::upload_queue_max`] requests and a bounded number of control bytes.

pub mod connection;
pub mod event;
pub mod incoming;
mod outbox;
pub mod rate;
mod remote;
mod requests;
mod uploads;

use std::time::Duration;

pub use connection::{Connection, LocalPeer, Role};
pub use event::{Event, Transmit, WakeReason};
pub use incoming::{Accepted, Incoming};
pub use rate::Rate;

/// Limits of one connection.
#[derive(Debug, Clone)]
pub struct Config {
    /// How long the peer's handshake may take. Default 10 s.
    pub handshake_timeout: Duration,
    /// How long a request may stay unanswered before it is given back. Default 60 s.
    pub request_timeout: Duration,
    /// How long the peer may send nothing at all before the connection is closed. Default 120 s, as
    /// BEP 3 has keep-alives sent about every two minutes.
    pub idle_timeout: Duration,
    /// How long we send nothing before a keep-alive. Default 60 s, so that two fit the idle timeout
    /// of peers that count like us.
    pub keep_alive: Duration,
    /// Requests that a peer may queue with us; told as `reqq` (BEP 10). Default 512, which is 8 MiB
    /// of blocks at 12 bytes of memory a request.
    pub upload_queue_max: usize,
    /// Requests that we keep in flight at most; the peer's own `reqq` counts if it is lower.
    /// Default 512.
    pub pipeline_max: usize,
    /// Requests that we keep in flight at least, while the peer answers in time. Default 4.
    pub pipeline_min: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            handshake_timeout: Duration::from_secs(10),
            request_timeout: Duration::from_secs(60),
            idle_timeout: Duration::from_secs(120),
            keep_alive: Duration::from_secs(60),
            upload_queue_max: 512,
            pipeline_max: 512,
            pipeline_min: 4,
        }
    }
}
