//! What to ask a peer for.

use super::*;

impl Pieces {
    /// Chooses blocks to ask a peer for; they count as requested of it.
    pub(in crate::swarm) fn pick(
        &mut self,
        peer: &Picking<'_>,
        random: &mut Random,
        outlook: &impl Outlook,
    ) -> Picked {
        let mut picked = Picked::default();
        let blocks = &mut picked.blocks;
        while blocks.len() < peer.room {
            let piece = self
                .started(peer, self.shares_pieces())
                .or_else(|| self.start(peer, random, outlook))
                .or_else(|| self.started(peer, true))
                .or_else(|| self.refused_before(peer));
            let Some(piece) = piece else {
                break;
            };
            self.take_open(piece, peer, blocks);
        }
        if picked.blocks.len() < peer.room && !peer.on_parole {
            self.take_requested(peer, outlook, &mut picked);
        }
        picked
    }

    /// Whether peers help each other with what was started before something new is. Otherwise each works
    /// on a piece of its own, so that a seed gives pieces which nobody else has yet.
    pub(super) fn shares_pieces(&self) -> bool {
        match self.order {
            PieceOrder::RarestFirst => {
                self.have.count() < RANDOM_FIRST || self.partial.len() >= STARTED_MAX
            }
            PieceOrder::Sequential => true,
        }
    }

    /// A started piece with open blocks that this peer may work on: its own first, then, `with_others`,
    /// the fullest.
    pub(super) fn started(&self, peer: &Picking<'_>, with_others: bool) -> Option<PieceIndex> {
        if self.open == 0 {
            return None;
        }
        let open = self.partial.iter().filter(|(piece, partial)| {
            let free = partial.sole.map_or(!peer.on_parole, |sole| sole == peer.id);
            let is_meant = with_others || partial.last == peer.id;
            let gives = !partial.refused_by.contains(&peer.id);
            is_meant && partial.open > 0 && free && gives && peer.pieces.contains(piece.get())
        });
        let best = match self.order {
            PieceOrder::RarestFirst => {
                open.max_by_key(|(_, partial)| (partial.last == peer.id, partial.received))
            }
            PieceOrder::Sequential => open.min_by_key(|(piece, _)| **piece),
        };
        best.map(|(&piece, _)| piece)
    }

    /// A started piece that this peer refused to send: when there is nothing else to ask it for.
    fn refused_before(&self, peer: &Picking<'_>) -> Option<PieceIndex> {
        if self.open == 0 {
            return None;
        }
        let mut refused = self.partial.iter().filter(|(piece, partial)| {
            let free = partial.sole.map_or(!peer.on_parole, |sole| sole == peer.id);
            let refused = partial.refused_by.contains(&peer.id);
            refused && partial.open > 0 && free && peer.pieces.contains(piece.get())
        });
        refused.next().map(|(&piece, _)| piece)
    }

    /// Starts a piece for this peer.
    pub(super) fn start(
        &mut self,
        peer: &Picking<'_>,
        random: &mut Random,
        outlook: &impl Outlook,
    ) -> Option<PieceIndex> {
        if self.partial.len() >= PARTIAL_MAX && !self.abandon_one() {
            return None;
        }
        let blame = &self.blame;
        let geometry = self.info.geometry();
        let allowed = |piece: u32| {
            geometry.piece(piece).is_some_and(|piece| {
                blame.senders(piece).is_none_or(|senders| {
                    !senders.contains(&peer.id) || !outlook.is_elsewhere(piece, senders)
                })
            })
        };
        let choice = match self.order {
            PieceOrder::RarestFirst if self.have.count() < RANDOM_FIRST => {
                self.picker.random(peer.pieces, random, allowed)
            }
            PieceOrder::RarestFirst => self.picker.rarest(peer.pieces, allowed),
            PieceOrder::Sequential => self.picker.first(peer.pieces, allowed),
        };
        let piece = self.geometry().piece(choice?)?;
        self.picker.remove(piece.get());
        let count = self.geometry().block_count(piece);
        let alone = peer.on_parole || self.has_failed(piece);
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
                refused_by: SmallVec::new(),
            },
        );
        Some(piece)
    }

    /// Forgets the piece under way that nobody works on and of which the least is there; whether there
    /// was one.
    fn abandon_one(&mut self) -> bool {
        let idle = self.partial.iter().filter(|(_, partial)| {
            usize::try_from(partial.open + partial.received) == Ok(partial.blocks.len())
                && !partial.is_whole()
        });
        let least = idle.min_by_key(|(_, partial)| partial.received);
        let Some((&piece, _)) = least else {
            return false;
        };
        self.drop_partial(piece);
        self.offer(piece);
        true
    }

    /// Takes open blocks of a started piece, as many as there is room for.
    pub(super) fn take_open(
        &mut self,
        piece: PieceIndex,
        peer: &Picking<'_>,
        picked: &mut Vec<BlockRef>,
    ) {
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
}
