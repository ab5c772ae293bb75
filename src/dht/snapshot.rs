//! What a node keeps across a restart.
//!
//! Invariant: nothing of a snapshot is believed. Its contacts are pinged before they enter a table.

use crate::id::NodeId;
use crate::krpc::{ContactInfo, Family};

/// Contacts of one family in a snapshot. Ours: a table among ten million nodes has about 170.
pub const SNAPSHOT_CONTACTS_MAX: usize = 200;

/// Ids and good contacts to come back with after a restart.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Snapshot {
    /// Our ids, in the order of [`Config::locals`](super::Config::locals).
    pub ids: Vec<(Family, NodeId)>,
    /// Good contacts, at most [`SNAPSHOT_CONTACTS_MAX`] of each local address.
    pub contacts: Vec<ContactInfo>,
}
