//! Which piece to start next: the rarest that a peer has.
//!
//! Candidates are kept in one list, sorted by how many connected peers have them and in random order among
//! equals. A peer that gains or loses a piece moves it across one border of that list, so each `have`
//! message costs the same however many pieces there are.
//!
//! Invariant: `order` holds exactly the candidates, `position` says where each one is, and the pieces
//! between two neighbouring borders have the same availability.

use crate::bitfield::Bitfield;
use crate::random::Random;

/// Stands for "no candidate" in `position`.
const NOWHERE: u32 = u32::MAX;

/// Rarest first, with random choice among equals.
#[derive(Debug)]
pub(super) struct Picker {
    /// Peers, other than those that have everything, that have each piece.
    availability: Vec<u16>,
    /// Peers that have everything.
    seeds: u16,
    /// Pieces that no peer has, other than those that have everything.
    unheld: u32,
    /// Candidates, rarest first.
    order: Vec<u32>,
    /// Where each piece is in `order`.
    position: Vec<u32>,
    /// `borders[n]` is where pieces with an availability above `n` begin.
    borders: Vec<u32>,
}

impl Picker {
    /// All pieces are candidates, nobody has any.
    pub(super) fn new(piece_count: u32, random: &mut Random) -> Self {
        let mut order: Vec<u32> = (0..piece_count).collect();
        random.shuffle(&mut order);
        let mut position = vec![0; order.len()];
        for (place, &piece) in (0..).zip(&order) {
            position[index(piece)] = place;
        }
        Self {
            availability: vec![0; order.len()],
            seeds: 0,
            unheld: piece_count,
            borders: vec![piece_count],
            order,
            position,
        }
    }

    /// Pieces that can be picked.
    pub(super) fn candidates(&self) -> usize {
        self.order.len()
    }

    /// Whether a piece can be picked.
    #[cfg(test)]
    pub(super) fn is_candidate(&self, piece: u32) -> bool {
        self.position[index(piece)] != NOWHERE
    }

    /// Connected peers that have this piece.
    pub(super) fn availability(&self, piece: u32) -> u16 {
        let others = self.availability.get(index(piece)).copied().unwrap_or(0);
        others.saturating_add(self.seeds)
    }

    /// Pieces that no connected peer has.
    pub(super) const fn unheld(&self) -> u32 {
        if self.seeds > 0 { 0 } else { self.unheld }
    }

    /// A peer came that has these pieces.
    pub(super) fn add_peer(&mut self, pieces: &Bitfield, random: &mut Random) {
        if pieces.is_full() {
            self.seeds = self.seeds.saturating_add(1);
        } else {
            for piece in pieces.ones() {
                self.raise(piece, random);
            }
        }
    }

    /// A peer went that had these pieces.
    pub(super) fn remove_peer(&mut self, pieces: &Bitfield) {
        if pieces.is_full() {
            self.seeds = self.seeds.saturating_sub(1);
        } else {
            for piece in pieces.ones() {
                self.lower(piece);
            }
        }
    }

    /// A peer gained a piece and now has `pieces`.
    pub(super) fn gain(&mut self, piece: u32, pieces: &Bitfield, random: &mut Random) {
        if pieces.is_full() {
            for other in pieces.ones().filter(|&other| other != piece) {
                self.lower(other);
            }
            self.seeds = self.seeds.saturating_add(1);
        } else {
            self.raise(piece, random);
        }
    }

    /// A peer lost a piece and now has `pieces`.
    pub(super) fn lose(&mut self, piece: u32, pieces: &Bitfield, random: &mut Random) {
        if pieces.count() + 1 == pieces.len() {
            self.seeds = self.seeds.saturating_sub(1);
            for other in pieces.ones() {
                self.raise(other, random);
            }
        } else {
            self.lower(piece);
        }
    }

    /// The piece is not to be picked: it was started, or is there.
    pub(super) fn remove(&mut self, piece: u32) {
        let Some(&place) = self.position.get(index(piece)) else {
            return;
        };
        if place == NOWHERE {
            return;
        }
        // Move the gap to the end of each level in turn, until it is at the end of the list.
        let mut gap = place;
        let level = usize::from(self.availability[index(piece)]);
        for border in &mut self.borders[level..] {
            *border -= 1;
            let last = *border;
            if gap != last {
                let moved = self.order[index(last)];
                self.order[index(gap)] = moved;
                self.position[index(moved)] = gap;
            }
            gap = last;
        }
        self.order.pop();
        self.position[index(piece)] = NOWHERE;
    }

    /// The piece may be picked again.
    pub(super) fn insert(&mut self, piece: u32) {
        if self
            .position
            .get(index(piece))
            .is_none_or(|&place| place != NOWHERE)
        {
            return;
        }
        let level = usize::from(self.availability[index(piece)]);
        self.reach(level);
        let mut gap = u32::try_from(self.order.len()).expect("there are fewer than 2^32 pieces");
        self.order.push(piece);
        // Move the first piece of each higher level to its end, until the gap is at the end of ours.
        for border in self.borders[level..].iter_mut().rev() {
            let first = *border;
            *border += 1;
            if first != gap {
                let moved = self.order[index(first)];
                self.order[index(gap)] = moved;
                self.position[index(moved)] = gap;
                gap = first;
            }
        }
        self.order[index(gap)] = piece;
        self.position[index(piece)] = gap;
    }

    /// The rarest candidate that the peer has and that `allowed` lets pass.
    pub(super) fn rarest(&self, pieces: &Bitfield, allowed: impl Fn(u32) -> bool) -> Option<u32> {
        // A peer with few pieces is cheaper to look through than the list.
        let few = usize::try_from(pieces.count()).unwrap_or(usize::MAX) < self.order.len() / 8;
        if few {
            return pieces
                .ones()
                .filter(|&piece| self.position[index(piece)] != NOWHERE && allowed(piece))
                .min_by_key(|&piece| self.position[index(piece)]);
        }
        self.order
            .iter()
            .copied()
            .find(|&piece| pieces.contains(piece) && allowed(piece))
    }

    /// The first candidate, in the order of the content, that the peer has and that `allowed` lets pass.
    pub(super) fn first(&self, pieces: &Bitfield, allowed: impl Fn(u32) -> bool) -> Option<u32> {
        if self.order.is_empty() {
            return None;
        }
        pieces
            .ones()
            .find(|&piece| self.position[index(piece)] != NOWHERE && allowed(piece))
    }

    /// A random candidate that the peer has and that `allowed` lets pass.
    pub(super) fn random(
        &self,
        pieces: &Bitfield,
        random: &mut Random,
        allowed: impl Fn(u32) -> bool,
    ) -> Option<u32> {
        let start = random.index(self.order.len())?;
        let (before, after) = self.order.split_at(start);
        let mut candidates = after.iter().chain(before).copied();
        candidates.find(|&piece| pieces.contains(piece) && allowed(piece))
    }

    /// One peer more has this piece.
    fn raise(&mut self, piece: u32, random: &mut Random) {
        let level = usize::from(self.availability[index(piece)]);
        if level == usize::from(u16::MAX) {
            return;
        }
        self.reach(level + 1);
        self.availability[index(piece)] += 1;
        self.unheld -= u32::from(level == 0);
        let place = self.position[index(piece)];
        if place == NOWHERE {
            return;
        }
        // To the end of its level, which becomes the beginning of the next; then to a random place there,
        // so that pieces do not keep the order in which peers named them.
        self.borders[level] -= 1;
        let start = self.borders[level];
        self.swap(place, start);
        let width = self.borders[level + 1] - start;
        self.swap(start, start + random.below(width));
    }

    /// One peer less has this piece.
    fn lower(&mut self, piece: u32) {
        let Some(level) = usize::from(self.availability[index(piece)]).checked_sub(1) else {
            return;
        };
        self.availability[index(piece)] -= 1;
        self.unheld += u32::from(level == 0);
        let place = self.position[index(piece)];
        if place != NOWHERE {
            let start = self.borders[level];
            self.swap(place, start);
            self.borders[level] += 1;
        }
    }

    /// Makes sure that there is a border for this level.
    fn reach(&mut self, level: usize) {
        let end = u32::try_from(self.order.len()).expect("there are fewer than 2^32 pieces");
        while self.borders.len() <= level {
            self.borders.push(end);
        }
    }

    fn swap(&mut self, a: u32, b: u32) {
        self.order.swap(index(a), index(b));
        self.position[index(self.order[index(a)])] = a;
        self.position[index(self.order[index(b)])] = b;
    }
}

/// A piece or place as an index.
fn index(number: u32) -> usize {
    usize::try_from(number).expect("a u32 fits usize on supported targets")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    impl Picker {
        /// Checks the invariant of the module.
        fn check(&self) {
            let mut start = 0;
            for (level, &end) in self.borders.iter().enumerate() {
                for place in start..end {
                    let piece = self.order[index(place)];
                    assert_eq!(usize::from(self.availability[index(piece)]), level);
                    assert_eq!(self.position[index(piece)], place);
                }
                start = end;
            }
            assert_eq!(index(start), self.order.len());
            let placed = self
                .position
                .iter()
                .filter(|&&place| place != NOWHERE)
                .count();
            assert_eq!(placed, self.order.len());
            let unheld = self.availability.iter().filter(|&&peers| peers == 0);
            assert_eq!(unheld.count(), index(self.unheld));
        }
    }

    fn pieces(length: u32, ones: &[u32]) -> Bitfield {
        let mut field = Bitfield::new(length);
        for &one in ones {
            field.insert(one);
        }
        field
    }

    #[test]
    fn the_rarest_piece_that_the_peer_has_comes_first() {
        let mut random = Random::from_seed(1);
        let mut picker = Picker::new(4, &mut random);
        picker.add_peer(&pieces(4, &[0, 1, 2]), &mut random);
        picker.add_peer(&pieces(4, &[0, 1]), &mut random);
        picker.add_peer(&pieces(4, &[0]), &mut random);
        assert_eq!(picker.rarest(&pieces(4, &[0, 1, 2]), |_| true), Some(2));
        assert_eq!(picker.rarest(&pieces(4, &[0, 1]), |_| true), Some(1));
        assert_eq!(
            picker.rarest(&pieces(4, &[0, 1, 2]), |piece| piece != 2),
            Some(1)
        );
        assert_eq!(picker.rarest(&pieces(4, &[]), |_| true), None);
        assert_eq!(picker.first(&Bitfield::full(4), |piece| piece > 0), Some(1));
        picker.remove(2);
        assert_eq!(picker.rarest(&Bitfield::full(4), |_| true), Some(3));
        picker.insert(2);
        picker.check();
    }

    #[test]
    fn equally_rare_pieces_are_picked_in_random_order() {
        let first = |seed| {
            let mut random = Random::from_seed(seed);
            let mut picker = Picker::new(100, &mut random);
            picker.add_peer(&pieces(100, &(0..50).collect::<Vec<_>>()), &mut random);
            picker.rarest(&pieces(100, &(0..50).collect::<Vec<_>>()), |_| true)
        };
        let distinct: std::collections::BTreeSet<_> = (0..20).map(first).collect();
        assert!(distinct.len() > 5, "{distinct:?}");
    }

    proptest! {
        #[test]
        fn the_order_holds_under_any_series_of_changes(
            steps in prop::collection::vec((0u8..6, 0u32..20, any::<u32>()), 0..200),
        ) {
            let mut random = Random::from_seed(1);
            let mut picker = Picker::new(20, &mut random);
            let mut peers: Vec<Bitfield> = Vec::new();
            for (kind, piece, bits) in steps {
                match kind {
                    0 => {
                        let ones: Vec<u32> = (0..20).filter(|bit| bits >> bit & 1 == 1).collect();
                        peers.push(pieces(20, &ones));
                        picker.add_peer(peers.last().unwrap(), &mut random);
                    }
                    1 if !peers.is_empty() => {
                        let gone = peers.swap_remove(bits as usize % peers.len());
                        picker.remove_peer(&gone);
                    }
                    2 if !peers.is_empty() => {
                        let number = bits as usize % peers.len();
                        if peers[number].insert(piece) {
                            picker.gain(piece, &peers[number], &mut random);
                        }
                    }
                    3 if !peers.is_empty() => {
                        let number = bits as usize % peers.len();
                        if peers[number].remove(piece) {
                            picker.lose(piece, &peers[number], &mut random);
                        }
                    }
                    4 => picker.remove(piece),
                    _ => picker.insert(piece),
                }
                picker.check();
                for piece in 0..20 {
                    let expected = peers.iter().filter(|peer| peer.contains(piece)).count();
                    prop_assert_eq!(usize::from(picker.availability(piece)), expected);
                }
            }
        }
    }
}
