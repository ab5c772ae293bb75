//! One torrent: its peers, its pieces, its metadata, and the disk jobs it wants.
//!
//! [`Torrent`] routes what happens to the part that owns the matter: `PeerList` knows addresses,
//! `MetadataFetch` the info dictionary, `Pieces` and `Picker` what to ask whom, `Choker` whom to serve.
//! Each `peer::Connection` belongs to it. Everything it wants done comes out of one ordered queue of
//! [`Action`]s.
//!
//! Invariant: a block that was asked of somebody is, at any time, on its way, back in the pool, or on its
//! way to the disk.

mod choker;
mod config;
pub mod disk_job;
mod event;
mod host;
mod metadata;
mod peer_list;
mod picker;
mod pieces;
mod priority;
pub mod torrent;

pub use config::{Config, PieceOrder, Seeding};
pub use disk_job::{BlockDigest, Completion, DiskError, DiskErrorKind, Job, JobId};
pub use event::{
    Action, ConnectionId, DialError, Event, LostReason, PeerSource, Reason, Refusal, State, Stats,
    Transport, WakeReason,
};
pub use torrent::Torrent;

#[cfg(test)]
mod tests;
