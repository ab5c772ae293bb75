//! The pieces of one torrent: which are there, which are under way, and which block is asked of whom.
//!
//! [`Picker`] knows what could be started; a [`Partial`] is a piece that was. Invariant: a piece is a
//! candidate of the picker, or partial, or verified, or in doubt, and no two of these; or it is none of
//! them, because it is not wanted.

mod blame;
mod endgame;
mod pick;
mod wanted;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use smallvec::SmallVec;

use self::blame::Blame;
use super::picker::Picker;
use super::{BlockDigest, ConnectionId, PieceOrder};
use crate::bitfield::Bitfield;
use crate::metainfo::{BLOCK_LENGTH, BlockRef, Geometry, Info, PieceIndex};
use crate::random::Random;

/// Verified pieces from which on the rarest piece is picked. Before, a random one is: a newcomer needs
/// something to give, and rare pieces come slowly (BEP 3).
const RANDOM_FIRST: u32 = 4;

/// Pieces under way from which on they go first, whoever began them: the memory they take is bounded.
/// Ours: a few for each of 50 connections, because a peer that chokes us leaves one behind.
const STARTED_MAX: usize = 200;

/// Pieces under way at most. Beyond it one that nobody works on is given up, or nothing is started.
const PARTIAL_MAX: usize = 2 * STARTED_MAX;

/// The blocks of a piece that was started.
#[derive(Debug)]
struct Partial {
    blocks: Vec<Block>,
    /// Blocks in state `Open`.
    open: u32,
    /// Blocks in state `Received`.
    received: u32,
    /// No block before this one is open.
    first_open: usize,
    /// The one peer that may be asked for this piece: it is on parole, or the piece failed before.
    sole: Option<ConnectionId>,
    /// The peer that took blocks of it last; it goes on with it.
    last: ConnectionId,
    /// Peers that refused to send blocks of it: they are asked for other pieces first.
    refused_by: SmallVec<[ConnectionId; 2]>,
}

impl Partial {
    /// Whether every block came.
    fn is_whole(&self) -> bool {
        usize::try_from(self.received) == Ok(self.blocks.len())
    }
}

/// One block of a partial piece.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Block {
    /// Nobody was asked.
    Open,
    /// These were; several only in the endgame.
    Requested(SmallVec<[ConnectionId; 2]>),
    /// It came from this peer.
    Received(ConnectionId),
}

/// What became of a block that came.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Arrival {
    /// It was missing.
    Fresh {
        /// Others that were asked for it as well: they need not send it any more.
        cancel: SmallVec<[ConnectionId; 2]>,
        /// It was the last one of its piece.
        completes: bool,
    },
    /// It is there already, or the piece is not wanted.
    Duplicate,
}

/// What the hash of a piece says about those who sent it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Verdict {
    /// Who sent its blocks, each once.
    pub(super) senders: Vec<ConnectionId>,
    /// Who sent wrong ones, now or when the piece failed before.
    pub(super) culprits: Vec<ConnectionId>,
    /// Who took part when the piece failed and sent nothing wrong.
    pub(super) cleared: Vec<ConnectionId>,
}

/// Who asks for work, and what it may get.
pub(super) struct Picking<'a> {
    /// The connection.
    pub(super) id: ConnectionId,
    /// What the peer has.
    pub(super) pieces: &'a Bitfield,
    /// The peer took part in a bad piece: it works alone until it delivered a good one.
    pub(super) on_parole: bool,
    /// Blocks wanted.
    pub(super) room: usize,
    /// Blocks it was asked for that did not come yet.
    pub(super) outstanding: usize,
}

/// What is to be asked of a peer.
#[derive(Debug, Default)]
pub(super) struct Picked {
    pub(super) blocks: Vec<BlockRef>,
    /// It could take more, but only what others were asked for and will send soon. It should be asked
    /// again in a while, if they do not.
    pub(super) waits: bool,
}

/// What the picker must know of the peers as they are now.
pub(super) trait Outlook {
    /// Whether a peer that can be asked has a piece and is none of those that sent it wrong.
    fn is_elsewhere(&self, piece: PieceIndex, senders: &[ConnectionId]) -> bool;

    /// Requests of all peers that will take so long or longer.
    fn late_blocks(&self, least: Duration) -> Vec<(Duration, BlockRef)>;

    /// How long a block would take that this peer is asked for next, after so many others.
    fn wait_for_next(&self, id: ConnectionId, more: usize) -> Duration;
}

/// The pieces of one torrent.
#[derive(Debug)]
pub(super) struct Pieces {
    info: Arc<Info>,
    have: Bitfield,
    /// The pieces that are to be fetched; the others are served if they are there.
    wanted: Bitfield,
    /// Wanted pieces that are not verified.
    missing: u32,
    /// Pieces that are looked at again: neither served nor fetched.
    doubted: Bitfield,
    /// Of these, those that were verified before.
    doubted_held: Bitfield,
    picker: Picker,
    order: PieceOrder,
    partial: BTreeMap<PieceIndex, Partial>,
    /// Open blocks of all partial pieces.
    open: u32,
    /// Pieces that failed, and who had sent them: others are asked first.
    blame: Blame,
    /// Bytes of wanted pieces, and of those that are verified.
    bytes_wanted: u64,
    bytes_done: u64,
}

impl Pieces {
    /// Nothing is there, everything is wanted.
    pub(super) fn new(info: Arc<Info>, order: PieceOrder, random: &mut Random) -> Self {
        let count = info.geometry().piece_count();
        Self {
            have: Bitfield::new(count),
            wanted: Bitfield::full(count),
            missing: count,
            doubted: Bitfield::new(count),
            doubted_held: Bitfield::new(count),
            picker: Picker::new(count, random),
            order,
            partial: BTreeMap::new(),
            open: 0,
            blame: Blame::default(),
            bytes_wanted: info.geometry().total_length(),
            bytes_done: 0,
            info,
        }
    }

    pub(super) fn geometry(&self) -> &Geometry {
        self.info.geometry()
    }

    /// The verified pieces.
    pub(super) const fn have(&self) -> &Bitfield {
        &self.have
    }

    /// Whether a piece is to be fetched: wanted, not there, and not being looked at.
    pub(super) fn lacks(&self, piece: u32) -> bool {
        self.wanted.contains(piece) && !self.have.contains(piece) && !self.doubted.contains(piece)
    }

    /// Whether a piece is wanted.
    pub(super) fn is_wanted(&self, piece: PieceIndex) -> bool {
        self.wanted.contains(piece.get())
    }

    /// Wanted pieces, and those of them that are verified.
    pub(super) const fn progress(&self) -> (u32, u32) {
        let wanted = self.wanted.count();
        (wanted, wanted - self.missing)
    }

    /// Bytes of wanted pieces, and of those of them that are verified.
    pub(super) const fn bytes(&self) -> (u64, u64) {
        (self.bytes_wanted, self.bytes_done)
    }

    /// Whether every wanted piece is verified.
    pub(super) const fn is_complete(&self) -> bool {
        self.missing == 0
    }

    /// The availability of pieces, for peers that come, go and gain.
    pub(super) const fn picker_mut(&mut self) -> &mut Picker {
        &mut self.picker
    }

    /// Connected peers that have this piece.
    pub(super) fn holders(&self, piece: PieceIndex) -> u16 {
        self.picker.availability(piece.get())
    }

    /// Whether there is a piece that no connected peer has.
    pub(super) const fn has_unheld(&self) -> bool {
        self.picker.unheld() > 0
    }

    /// Copies of the rarest piece among connected peers, in thousandths (see `Stats`).
    pub(super) fn availability_permille(&self) -> u32 {
        let count = self.geometry().piece_count();
        let Some(least) = (0..count)
            .map(|piece| self.picker.availability(piece))
            .min()
        else {
            return 0;
        };
        let above = (0..count)
            .filter(|&piece| self.picker.availability(piece) > least)
            .count();
        let share = u64::try_from(above).unwrap_or(0) * 1_000 / u64::from(count);
        u32::from(least) * 1_000 + u32::try_from(share).unwrap_or(0)
    }

    /// What lies on disk was checked: exactly these pieces are there. Everything under way is forgotten.
    pub(super) fn set_have(&mut self, have: Bitfield) {
        self.partial.clear();
        self.doubted = Bitfield::new(have.len());
        self.doubted_held = Bitfield::new(have.len());
        self.blame = Blame::default();
        self.open = 0;
        self.have = have;
        for piece in self.info.geometry().pieces() {
            self.offer(piece);
        }
        self.count();
    }

    fn block_mut(&mut self, block: &BlockRef) -> Option<&mut Block> {
        let number = usize::try_from(block.offset / BLOCK_LENGTH).ok()?;
        self.partial.get_mut(&block.piece)?.blocks.get_mut(number)
    }

    /// A request was lost: the peer choked, went, or took too long. The block can be asked of others.
    pub(super) fn release(&mut self, id: ConnectionId, block: &BlockRef) {
        let Some(Block::Requested(of)) = self.block_mut(block) else {
            return;
        };
        of.retain(|asked| *asked != id);
        if !of.is_empty() {
            return;
        }
        let number = usize::try_from(block.offset / BLOCK_LENGTH).unwrap_or(0);
        if let Some(partial) = self.partial.get_mut(&block.piece) {
            partial.blocks[number] = Block::Open;
            partial.open += 1;
            partial.first_open = partial.first_open.min(number);
            self.open += 1;
        }
    }

    /// A peer refused to send a block of this piece, though it lets us ask.
    pub(super) fn refused(&mut self, id: ConnectionId, piece: PieceIndex) {
        if let Some(partial) = self.partial.get_mut(&piece)
            && !partial.refused_by.contains(&id)
        {
            partial.refused_by.push(id);
        }
    }

    /// A peer stopped working: pieces that only it might be asked for are free again.
    pub(super) fn release_sole(&mut self, id: ConnectionId) {
        for partial in self
            .partial
            .values_mut()
            .filter(|partial| partial.sole == Some(id))
        {
            partial.sole = None;
        }
    }

    /// A block came.
    pub(super) fn receive(&mut self, id: ConnectionId, block: &BlockRef) -> Arrival {
        let Some(slot) = self.block_mut(block) else {
            return Arrival::Duplicate;
        };
        let cancel = match slot {
            Block::Received(_) => return Arrival::Duplicate,
            Block::Requested(of) => of.iter().copied().filter(|asked| *asked != id).collect(),
            Block::Open => SmallVec::new(),
        };
        let was_open = *slot == Block::Open;
        *slot = Block::Received(id);
        let partial = self
            .partial
            .get_mut(&block.piece)
            .expect("its block was just changed");
        if was_open {
            partial.open -= 1;
            self.open -= 1;
        }
        partial.received += 1;
        partial.refused_by.retain(|refused| *refused != id);
        let completes = partial.is_whole();
        Arrival::Fresh { cancel, completes }
    }

    /// Whether a piece failed and has not been right since: the digests of its blocks tell who is to blame.
    pub(super) fn has_failed(&self, piece: PieceIndex) -> bool {
        self.blame.senders(piece).is_some()
    }

    /// A piece was hashed, and so were its blocks if it is wrong or was before. `None` if it was not under
    /// way.
    pub(super) fn verified(
        &mut self,
        piece: PieceIndex,
        valid: bool,
        digests: &[BlockDigest],
    ) -> Option<Verdict> {
        let partial = self.partial.remove(&piece)?;
        self.open -= partial.open;
        let mut sent = Vec::new();
        for (number, block) in (0u32..).zip(&partial.blocks) {
            if let Block::Received(from) = block {
                sent.push((number, *from));
            }
        }
        let mut senders: Vec<ConnectionId> = sent.iter().map(|(_, from)| *from).collect();
        senders.sort_unstable();
        senders.dedup();
        let mut verdict = Verdict::default();
        if valid {
            self.have.insert(piece.get());
            self.count_piece(piece, true);
            verdict = self.blame.resolve(piece, digests);
        } else {
            self.offer(piece);
            if let [culprit] = senders[..] {
                verdict.culprits.push(culprit);
            }
            self.blame.note(piece, &senders, &sent, digests);
        }
        verdict.senders = senders;
        Some(verdict)
    }

    /// Blocks of a peer that sends bad ones are not waited for to fail: those of pieces under way are
    /// asked of others.
    pub(super) fn distrust(&mut self, id: ConnectionId) {
        for partial in self
            .partial
            .values_mut()
            .filter(|partial| !partial.is_whole())
        {
            for (number, block) in partial.blocks.iter_mut().enumerate() {
                if *block == Block::Received(id) {
                    *block = Block::Open;
                    partial.received -= 1;
                    partial.open += 1;
                    partial.first_open = partial.first_open.min(number);
                    self.open += 1;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
