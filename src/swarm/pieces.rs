//! The pieces of one torrent: which are there, which are under way, and which block is asked of whom.
//!
//! [`Picker`] knows what could be started; a [`Partial`] is a piece that was. Invariant: a piece is a
//! candidate of the picker, or partial, or verified, and exactly one of these.

use std::collections::BTreeMap;
use std::sync::Arc;

use smallvec::SmallVec;

use super::ConnectionId;
use super::picker::Picker;
use crate::bitfield::Bitfield;
use crate::metainfo::{BLOCK_LENGTH, BlockRef, Geometry, Info, PieceIndex};
use crate::random::Random;

/// Verified pieces from which on the rarest piece is picked. Before, a random one is: a newcomer needs
/// something to give, and rare pieces come slowly (BEP 3).
const RANDOM_FIRST: u32 = 4;

/// Pieces under way from which on they go first, whoever began them: the memory they take is bounded.
/// Ours: a few for each of 50 connections, because a peer that chokes us leaves one behind.
const STARTED_MAX: usize = 200;

/// Requests a peer must have fewer of to be asked for blocks that others were asked for already.
const ENDGAME_OUTSTANDING_MAX: usize = 2;

/// Peers that one block is asked of at most.
const ENDGAME_COPIES_MAX: usize = 3;

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
    /// Requests it has out.
    pub(super) outstanding: usize,
}

/// The pieces of one torrent.
#[derive(Debug)]
pub(super) struct Pieces {
    info: Arc<Info>,
    have: Bitfield,
    /// What was verified before the disk was checked again, and may have been told to peers.
    told: Bitfield,
    picker: Picker,
    partial: BTreeMap<PieceIndex, Partial>,
    /// Open blocks of all partial pieces.
    open: u32,
    /// Pieces that failed, and who had sent them: others are asked first.
    failed: BTreeMap<PieceIndex, Vec<ConnectionId>>,
    bytes_done: u64,
}

impl Pieces {
    /// Nothing is there.
    pub(super) fn new(info: Arc<Info>, random: &mut Random) -> Self {
        let count = info.geometry().piece_count();
        Self {
            have: Bitfield::new(count),
            told: Bitfield::new(count),
            picker: Picker::new(count, random),
            partial: BTreeMap::new(),
            open: 0,
            failed: BTreeMap::new(),
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

    /// Nothing is there as far as is known: the disk is looked at again. What peers were told is kept.
    pub(super) fn restarted(self, random: &mut Random) -> Self {
        let mut told = self.told;
        for piece in self.have.ones() {
            told.insert(piece);
        }
        Self {
            told,
            ..Self::new(self.info, random)
        }
    }

    /// What peers may have been told before the disk was looked at again.
    pub(super) const fn told(&self) -> &Bitfield {
        &self.told
    }

    /// Bytes of the verified pieces.
    pub(super) const fn bytes_done(&self) -> u64 {
        self.bytes_done
    }

    /// Whether every piece is verified.
    pub(super) const fn is_complete(&self) -> bool {
        self.have.is_full()
    }

    /// The availability of pieces, for peers that come, go and gain.
    pub(super) const fn picker_mut(&mut self) -> &mut Picker {
        &mut self.picker
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
        self.failed.clear();
        self.open = 0;
        self.bytes_done = 0;
        for piece in self.info.geometry().pieces() {
            if have.contains(piece.get()) {
                self.picker.remove(piece.get());
                self.bytes_done += u64::from(self.info.geometry().length_of(piece));
            } else {
                self.picker.insert(piece.get());
            }
        }
        self.have = have;
        self.told = Bitfield::new(self.have.len());
    }

    /// Chooses blocks to ask a peer for; they count as requested of it. `elsewhere` says whether
    /// a peer that can be asked has a piece and is none of those that sent it wrong.
    pub(super) fn pick(
        &mut self,
        peer: &Picking<'_>,
        random: &mut Random,
        elsewhere: impl Fn(PieceIndex, &[ConnectionId]) -> bool,
    ) -> Vec<BlockRef> {
        let mut picked = Vec::new();
        while picked.len() < peer.room {
            let piece = self
                .started(peer, self.shares_pieces())
                .or_else(|| self.start(peer, random, &elsewhere))
                .or_else(|| self.started(peer, true));
            let Some(piece) = piece else {
                break;
            };
            self.take_open(piece, peer, &mut picked);
        }
        let nothing_left = self.open == 0 && self.picker.candidates() == 0;
        let idle = peer.outstanding + picked.len() < ENDGAME_OUTSTANDING_MAX;
        if picked.len() < peer.room && nothing_left && idle && !peer.on_parole {
            self.take_requested(peer, random, &mut picked);
        }
        picked
    }

    /// Whether peers help each other with what was started before something new is. Otherwise each works
    /// on a piece of its own, so that a seed gives pieces which nobody else has yet.
    fn shares_pieces(&self) -> bool {
        self.have.count() < RANDOM_FIRST || self.partial.len() >= STARTED_MAX
    }

    /// A started piece with open blocks that this peer may work on: its own first, then, `with_others`,
    /// the fullest.
    fn started(&self, peer: &Picking<'_>, with_others: bool) -> Option<PieceIndex> {
        if self.open == 0 {
            return None;
        }
        let open = self.partial.iter().filter(|(piece, partial)| {
            let free = partial.sole.map_or(!peer.on_parole, |sole| sole == peer.id);
            let is_meant = with_others || partial.last == peer.id;
            is_meant && partial.open > 0 && free && peer.pieces.contains(piece.get())
        });
        let best = open.max_by_key(|(_, partial)| (partial.last == peer.id, partial.received));
        best.map(|(&piece, _)| piece)
    }

    /// Starts a piece for this peer.
    fn start(
        &mut self,
        peer: &Picking<'_>,
        random: &mut Random,
        elsewhere: &impl Fn(PieceIndex, &[ConnectionId]) -> bool,
    ) -> Option<PieceIndex> {
        let failed = &self.failed;
        let geometry = self.info.geometry();
        let allowed = |piece: u32| {
            geometry.piece(piece).is_some_and(|piece| {
                failed
                    .get(&piece)
                    .is_none_or(|senders| !senders.contains(&peer.id) || !elsewhere(piece, senders))
            })
        };
        let choice = if self.have.count() < RANDOM_FIRST {
            self.picker.random(peer.pieces, random, allowed)
        } else {
            self.picker.rarest(peer.pieces, allowed)
        };
        let piece = self.geometry().piece(choice?)?;
        self.picker.remove(piece.get());
        let count = self.geometry().block_count(piece);
        let alone = peer.on_parole || self.failed.contains_key(&piece);
        let blocks = vec![Block::Open; usize::try_from(count).unwrap_or(0)];
        self.open += count;
        self.partial.insert(
            piece,
            Partial {
                blocks,
                open: count,
                received: 0,
                first_open: 0,
                sole: alone.then_some(peer.id),
                last: peer.id,
            },
        );
        Some(piece)
    }

    /// Takes open blocks of a started piece, as many as there is room for.
    fn take_open(&mut self, piece: PieceIndex, peer: &Picking<'_>, picked: &mut Vec<BlockRef>) {
        let geometry = self.info.geometry();
        let Some(partial) = self.partial.get_mut(&piece) else {
            return;
        };
        partial.last = peer.id;
        while picked.len() < peer.room && partial.open > 0 {
            let Some(block) = partial.blocks.get_mut(partial.first_open) else {
                return;
            };
            if *block == Block::Open {
                *block = Block::Requested(SmallVec::from_elem(peer.id, 1));
                partial.open -= 1;
                self.open -= 1;
                let number = u32::try_from(partial.first_open).unwrap_or(u32::MAX);
                picked.extend(geometry.block(piece, number));
            }
            partial.first_open += 1;
        }
    }

    /// Takes blocks that others were asked for: nothing else is left (the endgame of BEP 3).
    fn take_requested(
        &mut self,
        peer: &Picking<'_>,
        random: &mut Random,
        picked: &mut Vec<BlockRef>,
    ) {
        let info = Arc::clone(&self.info);
        let mut candidates = Vec::new();
        for (&piece, partial) in &self.partial {
            if partial.sole.is_some() || !peer.pieces.contains(piece.get()) {
                continue;
            }
            for (number, block) in (0u32..).zip(&partial.blocks) {
                if let Block::Requested(of) = block
                    && of.len() < ENDGAME_COPIES_MAX
                    && !of.contains(&peer.id)
                {
                    candidates.push((of.len(), piece, number));
                }
            }
        }
        random.shuffle(&mut candidates);
        candidates.sort_by_key(|(copies, _, _)| *copies);
        let room = (ENDGAME_OUTSTANDING_MAX - peer.outstanding).min(peer.room - picked.len());
        for (_, piece, number) in candidates.into_iter().take(room) {
            let Some(block) = info.geometry().block(piece, number) else {
                continue;
            };
            if let Some(Block::Requested(of)) = self.block_mut(&block) {
                of.push(peer.id);
                picked.push(block);
            }
        }
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
        let completes = usize::try_from(partial.received) == Ok(partial.blocks.len());
        Arrival::Fresh { cancel, completes }
    }

    /// A piece was hashed. Returns who had sent its blocks, each once; empty if it was not under way.
    pub(super) fn verified(&mut self, piece: PieceIndex, valid: bool) -> Vec<ConnectionId> {
        let Some(partial) = self.partial.remove(&piece) else {
            return Vec::new();
        };
        self.open -= partial.open;
        let mut senders: Vec<ConnectionId> = partial
            .blocks
            .iter()
            .filter_map(|block| match block {
                Block::Received(from) => Some(*from),
                Block::Open | Block::Requested(_) => None,
            })
            .collect();
        senders.sort_unstable();
        senders.dedup();
        if valid {
            self.have.insert(piece.get());
            self.bytes_done += u64::from(self.geometry().length_of(piece));
            self.failed.remove(&piece);
        } else {
            self.picker.insert(piece.get());
            self.failed.insert(piece, senders.clone());
        }
        senders
    }
}

#[cfg(test)]
#[path = "pieces_tests.rs"]
mod tests;
