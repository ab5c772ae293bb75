//! Asking a second peer for a block (the endgame of BEP 3), where that gains time.
//!
//! A peer that has nothing else to do takes over blocks that will come later from whoever was asked than
//! they would from it. What would come about as soon either way is left alone: each block that is asked
//! twice may come twice.

use std::time::Duration;

use super::*;

/// Peers that one block is asked of at most.
pub(super) const COPIES_MAX: usize = 3;

/// How many times longer the wait for a block must be than it would be with another peer. Ours: rates
/// are measured over seconds and vary about so much.
const GAIN_MIN: u32 = 2;

/// A wait that is worth a second request while there is still other work. Ours: far more than a peer
/// that works needs for the second of work that it is given in advance.
const WAIT_LONG: Duration = Duration::from_secs(10);

/// Blocks that a peer may owe us while it takes over more. Ours: a peer that was measured as slow may send
/// fast in fact, and until its next blocks prove that, no more than these are asked for twice.
const OWED_MAX: usize = 16;

impl Pieces {
    /// Takes blocks that others were asked for, those that would take longest first.
    ///
    /// Costs a look at each connection and at the requests of those that are slow, because it is done for
    /// each input while a peer has nothing else to do.
    pub(super) fn take_requested(
        &mut self,
        peer: &Picking<'_>,
        outlook: &impl Outlook,
        picked: &mut Picked,
    ) {
        picked.waits = !self.partial.is_empty();
        let room = peer.room.min(OWED_MAX.saturating_sub(peer.outstanding));
        if picked.blocks.len() >= room {
            return;
        }
        let nothing_left = self.open == 0 && self.picker.candidates() == 0;
        let own = |more: usize| {
            outlook
                .wait_for_next(peer.id, more)
                .saturating_mul(GAIN_MIN)
        };
        let mut least = own(picked.blocks.len());
        if !nothing_left {
            least = least.max(WAIT_LONG);
        }
        for (wait, block) in self.slow_blocks(peer, outlook.late_blocks(least)) {
            let more = picked.blocks.len();
            if more >= room || wait < own(more) {
                return;
            }
            if let Some(Block::Requested(of)) = self.block_mut(&block) {
                of.push(peer.id);
                picked.blocks.push(block);
            }
        }
    }

    /// Those of the late blocks that this peer could take over, and how long they take with the fastest
    /// of those who were asked; the longest first.
    fn slow_blocks(
        &self,
        peer: &Picking<'_>,
        late: Vec<(Duration, BlockRef)>,
    ) -> Vec<(Duration, BlockRef)> {
        // How many are late with a block, and the shortest wait.
        let mut blocks: BTreeMap<BlockRef, (usize, Duration)> = BTreeMap::new();
        for (wait, block) in late {
            let known = blocks.entry(block).or_insert((0, wait));
            *known = (known.0 + 1, known.1.min(wait));
        }
        let mut candidates: Vec<(Duration, BlockRef)> = blocks
            .into_iter()
            .filter(|(block, (late, _))| {
                peer.pieces.contains(block.piece.get()) && self.may_be_taken(peer.id, block, *late)
            })
            .map(|(block, (_, wait))| (wait, block))
            .collect();
        candidates.sort_unstable_by_key(|(wait, _)| std::cmp::Reverse(*wait));
        candidates
    }

    /// Whether one more peer may be asked for a block with which so many are late: all who were asked.
    fn may_be_taken(&self, id: ConnectionId, block: &BlockRef, late: usize) -> bool {
        let number = usize::try_from(block.offset / BLOCK_LENGTH).ok();
        let Some((partial, number)) = self.partial.get(&block.piece).zip(number) else {
            return false;
        };
        match partial.blocks.get(number) {
            Some(Block::Requested(of)) => {
                let all_late = of.len() == late && of.len() < COPIES_MAX;
                partial.sole.is_none() && all_late && !of.contains(&id)
            }
            Some(Block::Open | Block::Received(_)) | None => false,
        }
    }
}
