//! Which pieces are wanted, and what a change of that does to the torrent.

use super::super::Job;
use super::super::event::{ConnectionId, State};
use super::Torrent;
use crate::bitfield::Bitfield;
use crate::time::Instant;

impl Torrent {
    /// Has only these pieces fetched from now on; those that are there and not wanted are still served.
    ///
    /// May be called at any time once the metadata is known, also while the disk is checked. Shrinking
    /// drops what is under way; the torrent is complete when every wanted piece is there, and with
    /// more wanted pieces it goes back to [`State::Downloading`]. Before the metadata is known, and with
    /// another number of bits than there are pieces, nothing happens.
    pub fn set_wanted(&mut self, now: Instant, wanted: Bitfield) {
        self.advance(now);
        let Some(pieces) = &mut self.pieces else {
            return;
        };
        if wanted.len() != pieces.geometry().piece_count() {
            return;
        }
        let void = pieces.set_wanted(wanted);
        self.cancel_all(void);
        self.settle();
        self.refresh_peers();
        self.refill_all();
        self.dial();
        self.update_wants();
    }

    /// Goes on to fetch or to complete, as what is wanted and what is there demand.
    pub(super) fn settle(&mut self) {
        let complete = self
            .pieces
            .as_ref()
            .is_some_and(|pieces| pieces.is_complete());
        match self.state {
            State::Downloading if complete => {
                let job = self.submit(Job::Sync);
                self.ledger.last_sync = Some(job);
            }
            State::Seeding if !complete => self.state = State::Downloading,
            State::Metadata
            | State::Checking
            | State::Downloading
            | State::Stalled
            | State::Seeding
            | State::Failed => {}
        }
    }

    /// Counts anew what each peer has for us, and tells it.
    pub(super) fn refresh_peers(&mut self) {
        let ids: Vec<ConnectionId> = self.connections.keys().copied().collect();
        for id in ids {
            self.count_wanted(id);
            self.update_interest(id);
        }
    }

    /// Counts anew what a peer has and we lack.
    pub(super) fn count_wanted(&mut self, id: ConnectionId) {
        let (Some(pieces), Some(peer)) = (&self.pieces, self.connections.get_mut(&id)) else {
            return;
        };
        let wanted = peer.pieces.as_ref().map_or(0, |field| {
            field.ones().filter(|&piece| pieces.lacks(piece)).count()
        });
        peer.wanted = u32::try_from(wanted).unwrap_or(u32::MAX);
    }
}
