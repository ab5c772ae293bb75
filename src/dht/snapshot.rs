//! What a node keeps across a restart.
//!
//! Invariant: nothing of a snapshot is believed. Its contacts are pinged before they enter a table.

use super::node::Node;
use super::upkeep::Suspect;
use crate::id::NodeId;
use crate::krpc::{ContactInfo, Family};
use crate::time::Instant;

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

impl Node {
    /// Takes up an earlier run: its ids, where the configuration names none and there is no contact
    /// yet, and its contacts, which are pinged before they are used.
    pub fn restore(&mut self, now: Instant, snapshot: &Snapshot) {
        let now = self.advance(now);
        for family in [Family::V4, Family::V6] {
            let ids = snapshot.ids.iter().filter(|(of, _)| *of == family);
            let tables = self
                .tables
                .iter_mut()
                .filter(|table| table.family == family);
            for (table, (_, id)) in tables.zip(ids) {
                let local = self.config.locals.get(usize::from(table.id.0));
                if local.is_some_and(|local| local.id.is_none()) {
                    table.set_own(*id, &self.config);
                }
            }
        }
        self.bind_ids();
        for table in &self.tables {
            let contacts = snapshot.contacts.iter();
            let reachable = contacts.filter(|contact| table.reaches(&contact.address));
            let suspects = reachable
                .take(SNAPSHOT_CONTACTS_MAX)
                .map(|contact| Suspect {
                    local: table.id,
                    address: contact.address,
                    id: Some(contact.id),
                });
            let max = SNAPSHOT_CONTACTS_MAX * self.tables.len();
            self.verification.restore(suspects, max);
        }
        self.drive(now);
    }

    /// Our ids and good contacts, for the state file.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        let secs = self.now.as_secs();
        let ids = self.tables.iter().map(|table| (table.family, table.own()));
        let contacts = self.tables.iter().flat_map(|table| {
            let mut good = table.good(secs);
            good.truncate(SNAPSHOT_CONTACTS_MAX);
            good
        });
        Snapshot {
            ids: ids.collect(),
            contacts: contacts.collect(),
        }
    }
}
