//! Contacts that were lost, because they may come back.
//!
//! When the network was cut in two for an hour, nobody of one side is left in the tables of the other, and
//! nothing that either side does leads to the other again. So some lost contacts are remembered, and one of them
//! is asked now and then. What it answers shows whether there is somebody close to us whom we do not know.
//!
//! When there are as many as are remembered, only every fourth takes the place of another: those of the last
//! minutes and of the last hours are both among them, whatever comes and goes in between.
//!
//! Invariant: no more than [`LOST_MAX`] are remembered, and without any there is no memory on the heap.

use std::net::IpAddr;
use std::time::Duration;

use super::config::LocalId;
use super::contact::Contact;
use super::exchange::Ask;
use super::local_table::Joining;
use super::node::Node;
use super::routing_table::Choice;
use super::rpc::Purpose;
use crate::address;
use crate::krpc::{CompactNodes, ContactInfo, Method, Want};
use crate::random::Random;
use crate::time::Instant;

/// Lost contacts of a table that are remembered, 32 or 44 bytes each. Ours: with half an hour as median of a
/// stay, some of those lost two hours ago are still there.
const LOST_MAX: usize = 32;

/// Of so many that are lost, one takes the place of another.
const ONE_OF: u8 = 4;

/// Shortest pause between two questions to lost contacts, in seconds. Ours: two sides meet again within minutes,
/// for one datagram in five minutes.
const PAUSE_SECS: u32 = 4 * 60;

/// The pause is up to this much longer, so that not all nodes ask at once.
const PAUSE_SPREAD_SECS: u32 = 2 * 60;

/// So many nodes close to us, none of which we knew, are another part of the network. Ours: half a bucket; a few
/// have just come.
const STRANGERS_MANY: usize = 4;

/// Our id is looked up so many seconds later, when those that were named have answered.
const REJOIN_AFTER_SECS: u32 = 3;

/// Lost contacts of a table.
#[derive(Debug)]
pub(super) struct Lost<const N: usize>(Option<Box<Remembered<N>>>);

/// What is remembered of them.
#[derive(Debug)]
struct Remembered<const N: usize> {
    contacts: Vec<Contact<N>>,
    /// How many were lost since one took the place of another.
    passed: u8,
    /// When one is asked, in seconds since the node started.
    ask_at_secs: u32,
}

impl<const N: usize> Default for Lost<N> {
    fn default() -> Self {
        Self(None)
    }
}

impl<const N: usize> Lost<N>
where
    IpAddr: From<[u8; N]>,
{
    /// A contact was lost.
    pub(super) fn push(&mut self, now_secs: u32, contact: Contact<N>) {
        let lost = self.0.get_or_insert_with(|| {
            Box::new(Remembered {
                contacts: Vec::new(),
                passed: 0,
                ask_at_secs: now_secs.saturating_add(PAUSE_SECS),
            })
        });
        if lost.contacts.len() < LOST_MAX {
            lost.contacts.push(contact);
            return;
        }
        lost.passed += 1;
        if lost.passed >= ONE_OF {
            lost.passed = 0;
            // As good as one by chance: nothing depends on the last bits of an id.
            let [.., last] = contact.id().as_bytes();
            lost.contacts[usize::from(*last) % LOST_MAX] = contact;
        }
    }

    /// A node with this id, or at this address, answered.
    pub(super) fn remove(&mut self, found: &ContactInfo) {
        let Some(lost) = &mut self.0 else { return };
        lost.contacts
            .retain(|known| *known.id() != found.id && known.address() != found.address);
        if lost.contacts.is_empty() {
            self.0 = None;
        }
    }

    /// Somebody asked us.
    pub(super) fn on_query(&mut self, now_secs: u32, info: &ContactInfo) {
        let contacts = self.0.iter_mut().flat_map(|lost| &mut lost.contacts);
        for known in contacts.filter(|known| known.info() == *info) {
            known.on_query(now_secs);
        }
    }

    /// Whether a node that asks us is not worth a ping now: it was a contact, nobody has found out whether
    /// others can reach it, and while it asks a gateway would let our ping in.
    pub(super) fn defers(&self, info: &ContactInfo) -> bool {
        let mut contacts = self.0.iter().flat_map(|lost| &lost.contacts);
        contacts.any(|known| known.info() == *info && known.is_doubtful())
    }

    /// One that is asked now, if it is time for that.
    pub(super) fn due(&mut self, now_secs: u32, random: &mut Random) -> Option<ContactInfo> {
        let lost = self
            .0
            .as_mut()
            .filter(|lost| lost.ask_at_secs <= now_secs)?;
        let pause = PAUSE_SECS + random.below(PAUSE_SPREAD_SECS);
        lost.ask_at_secs = now_secs.saturating_add(pause);
        let index = random.index(lost.contacts.len())?;
        let (before, from) = lost.contacts.split_at(index);
        let mut contacts = from.iter().chain(before);
        contacts
            .find(|known| known.is_out_of_the_blue(now_secs))
            .map(Contact::info)
    }

    /// When [`Lost::due`] next has one, in seconds.
    pub(super) fn next(&self) -> Option<u32> {
        self.0.as_ref().map(|lost| lost.ask_at_secs)
    }

    /// Bytes on the heap.
    pub(super) fn memory_bytes(&self) -> usize {
        let lost = self.0.as_ref();
        lost.map_or(0, |lost| {
            size_of::<Remembered<N>>() + lost.contacts.capacity() * size_of::<Contact<N>>()
        })
    }
}

impl Node {
    /// Asks a lost contact of each table for the nodes around our id, when it is time for that.
    pub(super) fn ask_lost(&mut self, now: Instant) {
        let secs = now.as_secs();
        for index in 0..self.tables.len() {
            let table = &mut self.tables[index];
            if table.joining != Joining::Joined {
                continue;
            }
            // Without a good contact everybody is asked who ever was one.
            let due = table.due_lost(secs, &mut self.exchange.random);
            let Some(lost) = due.filter(|_| table.has_good(secs)) else {
                continue;
            };
            let ask = Ask {
                to: lost.address,
                id: Some(lost.id),
                method: Method::FindNode {
                    target: table.own(),
                },
                want: Want::default(),
                purpose: Purpose::Reunite,
            };
            self.exchange.query(now, &self.tables[index], &ask);
        }
    }

    /// A lost contact is there again, and named nodes around our id. Those that are closer than the closest we
    /// know are pinged; if they are many, it comes from another part of the network, and our id is looked up.
    pub(super) fn on_lost_answer(
        &mut self,
        now: Instant,
        local: LocalId,
        from: ContactInfo,
        nodes: CompactNodes<'_>,
    ) {
        let (secs, wanted) = (now.as_secs(), self.config.bucket_size);
        let Some(table) = self.tables.get(usize::from(local.0)) else {
            return;
        };
        let own = table.own();
        let mut known = Vec::new();
        table.closest(secs, &own, wanted, Choice::NotBad, None, &mut known);
        let farthest = known
            .last()
            .filter(|_| known.len() >= wanted)
            .map(|last| own.distance(&last.id));
        let is_close =
            |info: &ContactInfo| farthest.is_none_or(|most| own.distance(&info.id) < most);
        let strangers: Vec<_> = nodes
            .iter()
            .take(wanted)
            .filter(|info| address::is_usable(info.address, from.address.ip()))
            .filter(|info| is_close(info) && table.wants(info))
            .collect();
        for stranger in &strangers {
            self.suspect(local, stranger.address, Some(stranger.id));
        }
        self.verify(now);
        if strangers.len() >= STRANGERS_MANY
            && let Some(table) = self.tables.get_mut(usize::from(local.0))
        {
            table.rejoin(secs.saturating_add(REJOIN_AFTER_SECS));
            self.wake_maintenance(now + Duration::from_secs(REJOIN_AFTER_SECS.into()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::NodeId;

    /// The contact with this number.
    fn info(number: u8) -> ContactInfo {
        ContactInfo {
            id: NodeId::new([number; 20]),
            address: ([10, 0, 0, number], 6881).into(),
        }
    }

    fn lost(numbers: impl IntoIterator<Item = u8>) -> Lost<4> {
        let mut lost = Lost::default();
        for number in numbers {
            lost.push(0, Contact::new(&info(number), 0, None).unwrap());
        }
        lost
    }

    /// The numbers of those that are remembered.
    fn remembered(lost: &Lost<4>) -> Vec<u8> {
        let contacts = lost.0.iter().flat_map(|lost| &lost.contacts);
        contacts.map(|contact| contact.id().as_bytes()[0]).collect()
    }

    #[test]
    fn a_lost_contact_is_asked_every_few_minutes_until_it_is_found() {
        let mut lost = lost([7]);
        let mut random = Random::from_seed(1);
        assert_eq!(lost.due(239, &mut random), None);
        assert_eq!(lost.next(), Some(240));
        assert_eq!(lost.due(240, &mut random), Some(info(7)));
        assert_eq!(lost.due(240 + 239, &mut random), None, "only one");
        assert_eq!(lost.due(240 + 360, &mut random), Some(info(7)));
        lost.remove(&info(7));
        assert_eq!((lost.next(), lost.memory_bytes()), (None, 0));
    }

    #[test]
    fn whoever_has_its_address_now_takes_it_from_the_lost() {
        let mut lost = lost([7, 8]);
        let id = NodeId::new([9; 20]);
        lost.remove(&ContactInfo { id, ..info(8) });
        assert_eq!(remembered(&lost), [7]);
    }

    #[test]
    fn of_many_that_are_lost_old_ones_and_new_ones_are_remembered() {
        let lost = lost(0..200);
        let remembered = remembered(&lost);
        assert_eq!(remembered.len(), LOST_MAX);
        let first = remembered.iter().filter(|number| **number < 32).count();
        assert!((8..LOST_MAX - 4).contains(&first), "{remembered:?}");
        assert!(
            remembered.iter().any(|number| *number >= 190),
            "{remembered:?}"
        );
    }
}
