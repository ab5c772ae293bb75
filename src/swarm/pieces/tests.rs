//! Pieces against a naive model, and each rule of picking.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::metainfo::build::InfoDraft;

/// Blocks in a piece; the last piece has one and a half.
const BLOCKS: u32 = 3;

fn info(count: u32) -> Arc<Info> {
    let length = BLOCKS * BLOCK_LENGTH;
    let total = u64::from(count - 1) * u64::from(length) + u64::from(BLOCK_LENGTH + 100);
    let draft = InfoDraft {
        name: "a".to_owned(),
        piece_length: length,
        files: vec![(Vec::new(), total)],
        single: true,
        ..InfoDraft::default()
    };
    let hashes = vec![0; usize::try_from(count).unwrap() * 20];
    Arc::new(Info::parse(draft.encode(&hashes)).unwrap())
}

struct Bench {
    pieces: Pieces,
    random: Random,
    all: Bitfield,
    /// Seconds that a peer takes for a block; one if it is not named.
    waits: BTreeMap<u64, u64>,
}

/// Peers whose speed is known.
struct Fixed<'a, F> {
    elsewhere: F,
    waits: &'a BTreeMap<u64, u64>,
    /// Requests that are out.
    asked: Vec<(ConnectionId, BlockRef)>,
    outstanding: usize,
}

impl<F: Fn(&[ConnectionId]) -> bool> Outlook for Fixed<'_, F> {
    fn is_elsewhere(&self, _: PieceIndex, senders: &[ConnectionId]) -> bool {
        (self.elsewhere)(senders)
    }

    fn late_blocks(&self, least: Duration) -> Vec<(Duration, BlockRef)> {
        let late = self.asked.iter().map(|(id, block)| {
            let wait = self.waits.get(&id.0).copied().unwrap_or(1);
            (Duration::from_secs(wait), *block)
        });
        late.filter(|(wait, _)| *wait >= least).collect()
    }

    fn wait_for_next(&self, id: ConnectionId, more: usize) -> Duration {
        let before = u32::try_from(more + self.outstanding).unwrap();
        Duration::from_secs(self.waits.get(&id.0).copied().unwrap_or(1)) * (before + 1)
    }
}

impl Bench {
    fn new(count: u32) -> Self {
        let mut random = Random::from_seed(1);
        let pieces = Pieces::new(info(count), PieceOrder::RarestFirst, &mut random);
        let all = Bitfield::full(count);
        Self {
            pieces,
            random,
            all,
            waits: BTreeMap::new(),
        }
    }

    fn pick(&mut self, id: u64, room: usize) -> Vec<BlockRef> {
        self.pick_as(id, room, false, 0, |_| false)
    }

    fn pick_as(
        &mut self,
        id: u64,
        room: usize,
        on_parole: bool,
        outstanding: usize,
        elsewhere: impl Fn(&[ConnectionId]) -> bool,
    ) -> Vec<BlockRef> {
        let picking = Picking {
            id: ConnectionId(id),
            pieces: &self.all,
            on_parole,
            room,
            outstanding,
        };
        let mut asked = Vec::new();
        for (&piece, partial) in &self.pieces.partial {
            for (number, block) in (0u32..).zip(&partial.blocks) {
                if let Block::Requested(of) = block {
                    let block = self.pieces.geometry().block(piece, number).unwrap();
                    asked.extend(of.iter().map(|id| (*id, block)));
                }
            }
        }
        let random = &mut self.random;
        let outlook = Fixed {
            elsewhere,
            waits: &self.waits,
            asked,
            outstanding,
        };
        self.pieces.pick(&picking, random, &outlook).blocks
    }

    fn verified(&mut self, piece: PieceIndex, valid: bool) -> Option<Vec<ConnectionId>> {
        let verdict = self.pieces.verified(piece, valid, &[])?;
        Some(verdict.senders)
    }

    fn fetch(&mut self, id: u64, blocks: &[BlockRef]) -> bool {
        let arrivals = blocks
            .iter()
            .map(|block| self.pieces.receive(ConnectionId(id), block));
        arrivals
            .filter(|arrival| {
                matches!(
                    arrival,
                    Arrival::Fresh {
                        completes: true,
                        ..
                    }
                )
            })
            .count()
            > 0
    }

    /// Checks that every piece is in one place and all counts are right.
    fn check(&self) {
        let mut open = 0;
        for piece in self.pieces.geometry().pieces() {
            let partial = self.pieces.partial.get(&piece);
            let places = [
                self.pieces.picker.is_candidate(piece.get()),
                partial.is_some(),
                self.pieces.have.contains(piece.get()),
            ];
            assert_eq!(places.iter().filter(|place| **place).count(), 1, "{piece}");
            let Some(partial) = partial else { continue };
            let count = |wanted: fn(&Block) -> bool| {
                u32::try_from(partial.blocks.iter().filter(|block| wanted(block)).count()).unwrap()
            };
            assert_eq!(partial.open, count(|block| *block == Block::Open));
            assert_eq!(
                partial.received,
                count(|block| matches!(block, Block::Received(_)))
            );
            let first = partial
                .blocks
                .iter()
                .position(|block| *block == Block::Open);
            assert!(first.is_none_or(|first| first >= partial.first_open));
            for block in &partial.blocks {
                if let Block::Requested(of) = block {
                    assert!((1..=endgame::COPIES_MAX).contains(&of.len()));
                }
            }
            open += partial.open;
        }
        assert_eq!(self.pieces.open, open);
        let pieces = self.pieces.geometry().pieces();
        let done = pieces.filter(|piece| self.pieces.have.contains(piece.get()));
        let bytes: u64 = done
            .map(|piece| u64::from(self.pieces.geometry().length_of(piece)))
            .sum();
        assert_eq!(self.pieces.bytes_done, bytes);
    }
}

#[test]
fn one_peer_fetches_everything_in_whole_pieces() {
    let mut bench = Bench::new(4);
    let mut fetched = Vec::new();
    for _ in 0..4 {
        let blocks = bench.pick(1, 3.min(11 - fetched.len()));
        bench.check();
        fetched.extend(blocks);
    }
    fetched.sort_unstable();
    let geometry = bench.pieces.geometry().clone();
    let all: Vec<_> = geometry
        .pieces()
        .flat_map(|piece| geometry.blocks(piece))
        .collect();
    assert_eq!(fetched, all);
    assert!(bench.fetch(1, &fetched));
    for piece in geometry.pieces() {
        let senders = bench.verified(piece, true);
        assert_eq!(senders, Some(vec![ConnectionId(1)]));
        bench.check();
    }
    assert!(bench.pieces.is_complete());
    assert_eq!(bench.pieces.bytes().1, geometry.total_length());
}

#[test]
fn two_peers_share_a_piece_before_they_start_another() {
    let mut bench = Bench::new(9);
    let first = bench.pick(1, 1);
    let second = bench.pick(2, 1);
    assert_eq!(first[0].piece, second[0].piece);
    assert_ne!(first[0].offset, second[0].offset);
}

#[test]
fn released_blocks_are_picked_again() {
    let mut bench = Bench::new(2);
    let first = bench.pick(1, 3);
    bench.pieces.release(ConnectionId(1), &first[1]);
    // Somebody else's release changes nothing.
    bench.pieces.release(ConnectionId(2), &first[0]);
    bench.check();
    assert_eq!(bench.pick(2, 1), [first[1]]);
    bench.check();
}

#[test]
fn the_endgame_asks_few_peers_for_what_is_left() {
    let mut bench = Bench::new(1);
    bench.waits = BTreeMap::from([(1, 100), (2, 20), (3, 3), (4, 1)]);
    let first = bench.pick(1, 9);
    assert_eq!(first.len(), 2);
    for id in 2..=3 {
        let mut again = bench.pick(id, 9);
        again.sort_unstable();
        assert_eq!(again, first);
        bench.check();
    }
    assert_eq!(bench.pick(4, 9), []);
    assert_eq!(bench.pick(1, 9), []);
    let arrival = bench.pieces.receive(ConnectionId(2), &first[0]);
    let Arrival::Fresh { cancel, completes } = arrival else {
        panic!("{arrival:?}");
    };
    assert_eq!(cancel.as_slice(), [ConnectionId(1), ConnectionId(3)]);
    assert!(!completes);
    let again = bench.pieces.receive(ConnectionId(3), &first[0]);
    assert_eq!(again, Arrival::Duplicate);
    bench.check();
}

#[test]
fn a_block_that_comes_as_soon_from_whoever_was_asked_is_not_asked_for_twice() {
    let mut bench = Bench::new(1);
    bench.waits = BTreeMap::from([(1, 10), (2, 6), (3, 4)]);
    assert_eq!(bench.pick(1, 9).len(), 2);
    assert_eq!(bench.pick(2, 9), []);
    // The second block would take eight seconds.
    assert_eq!(bench.pick(3, 9).len(), 1);
    // Nor of somebody who has much to do.
    assert_eq!(bench.pick_as(4, 9, false, 20, |_| false), []);
    bench.check();
}

#[test]
fn whoever_owes_us_much_takes_over_nothing_and_others_take_over_little() {
    let mut bench = Bench::new(12);
    bench.waits = BTreeMap::from([(1, 10_000), (2, 1)]);
    assert_eq!(bench.pick(1, 100).len(), 35);
    // Its answers would come soon, as far as is known.
    assert_eq!(bench.pick_as(2, 100, false, 16, |_| false), []);
    assert_eq!(bench.pick_as(2, 100, false, 12, |_| false).len(), 4);
    assert_eq!(bench.pick(2, 100).len(), 16);
    bench.check();
}

#[test]
fn a_block_that_takes_very_long_is_asked_for_twice_although_there_is_other_work() {
    let mut bench = Bench::new(9);
    bench.waits = BTreeMap::from([(1, 9), (2, 60)]);
    let slow = bench.pick(2, 2);
    bench.pick(1, 1);
    bench.all = Bitfield::new(9);
    bench.all.insert(slow[0].piece.get());
    // Two blocks are with the slow peer; whoever has no other piece takes them over.
    assert_eq!(bench.pick(3, 9).len(), 2);
    bench.check();
}

#[test]
fn in_sequential_order_peers_work_on_the_first_piece_together() {
    let mut bench = Bench::new(9);
    bench.pieces.order = PieceOrder::Sequential;
    let mut asked = Vec::new();
    for id in [1, 2, 3, 1, 2] {
        asked.extend(bench.pick(id, 2));
    }
    let pieces: Vec<u32> = asked.iter().map(|block| block.piece.get()).collect();
    assert_eq!(pieces, [0, 0, 0, 1, 1, 1, 2, 2, 2, 3]);
    // A block that is given back is the next.
    bench.pieces.release(ConnectionId(1), &asked[1]);
    assert_eq!(bench.pick(3, 1), [asked[1]]);
    bench.check();
}

#[test]
fn a_peer_on_parole_works_alone() {
    let mut bench = Bench::new(9);
    let shared = bench.pick(1, 1);
    let alone = bench.pick_as(2, 1, true, 0, |_| false);
    assert_ne!(alone[0].piece, shared[0].piece);
    // The other blocks of that piece are for nobody else.
    let others = bench.pick(1, 50);
    assert!(others.iter().all(|block| block.piece != alone[0].piece));
    bench.check();
    let last = bench.pick_as(2, 1, true, 0, |_| false);
    assert_eq!(last[0].piece, alone[0].piece);
    bench.pieces.release(ConnectionId(2), &last[0]);
    bench.pieces.release_sole(ConnectionId(2));
    assert_eq!(bench.pick(3, 1), last);
}

#[test]
fn a_piece_that_failed_is_asked_of_others_first() {
    let mut bench = Bench::new(1);
    let blocks = bench.pick(1, 2);
    assert!(bench.fetch(1, &blocks));
    let piece = blocks[0].piece;
    let senders = bench.verified(piece, false);
    assert_eq!(senders, Some(vec![ConnectionId(1)]));
    bench.check();
    let sees_sender = |senders: &[ConnectionId]| {
        assert_eq!(senders, [ConnectionId(1)]);
        true
    };
    assert_eq!(bench.pick_as(1, 2, false, 0, sees_sender), []);
    assert_eq!(bench.pick(2, 2).len(), 2);
    // And one peer alone answers for it.
    for block in &blocks {
        bench.pieces.release(ConnectionId(2), block);
    }
    assert_eq!(bench.pick(3, 2), []);
}

#[test]
fn a_check_of_the_disk_forgets_what_was_under_way() {
    let mut bench = Bench::new(5);
    bench.pick(1, 4);
    let mut have = Bitfield::new(5);
    have.insert(0);
    have.insert(4);
    bench.pieces.set_have(have);
    bench.check();
    assert!(bench.pieces.partial.is_empty());
    assert_eq!(bench.pick(1, 50).len(), 9);
}

proptest! {
    #[test]
    fn the_invariants_hold_under_any_series_of_calls(
        steps in prop::collection::vec((0u8..7, 1u64..5, 0usize..40, any::<bool>()), 0..200),
    ) {
        let mut bench = Bench::new(5);
        // Who was asked for what, and what came: the model.
        let mut asked: Vec<(u64, BlockRef)> = Vec::new();
        let mut received: BTreeMap<BlockRef, u64> = BTreeMap::new();
        for (kind, id, number, flag) in steps {
            match kind {
                0 | 1 => {
                    let outstanding = asked.iter().filter(|(of, _)| *of == id).count();
                    let picked = bench.pick_as(id, number % 5, flag, outstanding, |_| flag);
                    prop_assert!(picked.len() <= number % 5);
                    for block in picked {
                        prop_assert!(!received.contains_key(&block));
                        prop_assert!(!asked.contains(&(id, block)));
                        asked.push((id, block));
                    }
                }
                2 if !asked.is_empty() => {
                    let (id, block) = asked.swap_remove(number % asked.len());
                    bench.pieces.release(ConnectionId(id), &block);
                }
                3 => bench.pieces.release_sole(ConnectionId(id)),
                4 | 5 if !asked.is_empty() => {
                    let (id, block) = asked.swap_remove(number % asked.len());
                    let mut others: Vec<_> = asked
                        .iter()
                        .filter(|(_, other)| *other == block)
                        .map(|(id, _)| ConnectionId(*id))
                        .collect();
                    others.sort_unstable();
                    asked.retain(|(_, other)| *other != block);
                    let fresh = received.insert(block, id).is_none();
                    prop_assert!(fresh);
                    match bench.pieces.receive(ConnectionId(id), &block) {
                        Arrival::Fresh { mut cancel, completes } => {
                            cancel.sort_unstable();
                            prop_assert_eq!(cancel.as_slice(), others.as_slice());
                            let there = received.keys().filter(|r| r.piece == block.piece);
                            let all = bench.pieces.geometry().block_count(block.piece);
                            prop_assert_eq!(completes, u32::try_from(there.count()) == Ok(all));
                        }
                        Arrival::Duplicate => prop_assert!(false, "{block:?} was missing"),
                    }
                }
                _ => {
                    let piece = bench.pieces.geometry().piece(
                        u32::try_from(number % 5).unwrap()).unwrap();
                    let all = bench.pieces.geometry().block_count(piece);
                    let there = received.keys().filter(|block| block.piece == piece).count();
                    if u32::try_from(there) == Ok(all) && !bench.pieces.have.contains(piece.get()) {
                        let mut senders: Vec<_> = received
                            .iter()
                            .filter(|(block, _)| block.piece == piece)
                            .map(|(_, id)| ConnectionId(*id))
                            .collect();
                        senders.sort_unstable();
                        senders.dedup();
                        prop_assert_eq!(bench.verified(piece, flag), Some(senders));
                        if !flag {
                            received.retain(|block, _| block.piece != piece);
                        }
                    }
                }
            }
            bench.check();
        }
    }
}

#[test]
fn after_the_first_pieces_each_peer_works_on_a_piece_of_its_own() {
    let mut bench = Bench::new(20);
    let mut have = Bitfield::new(20);
    (0..RANDOM_FIRST).for_each(|piece| {
        have.insert(piece);
    });
    bench.pieces.set_have(have);
    let first = bench.pick(1, 1);
    let second = bench.pick(2, 1);
    assert_ne!(first[0].piece, second[0].piece);
    let went_on = bench.pick(1, 1);
    assert_eq!(went_on[0].piece, first[0].piece, "it goes on with its own");
    // When nothing is left to be started, they help each other.
    let rest = bench.pick(1, 1_000);
    assert!(rest.iter().any(|block| block.piece == second[0].piece));
    bench.check();
}

#[test]
fn pieces_under_way_are_bounded_while_some_of_them_can_be_worked_on() {
    let count = u32::try_from(STARTED_MAX).unwrap() + 50;
    let mut bench = Bench::new(count);
    let mut have = Bitfield::new(count);
    (0..RANDOM_FIRST).for_each(|piece| {
        have.insert(piece);
    });
    bench.pieces.set_have(have);
    // Peers that come, take one block and go leave a piece behind each.
    for id in 0..u64::from(count) {
        for block in bench.pick(id, 1) {
            bench.pieces.release(ConnectionId(id), &block);
        }
    }
    assert_eq!(bench.pieces.partial.len(), STARTED_MAX);
    bench.check();
}

#[test]
fn pieces_that_only_peers_which_left_could_go_on_with_are_given_up_for_others() {
    let count = u32::try_from(PARTIAL_MAX).unwrap() * 2;
    let mut bench = Bench::new(count);
    for piece in 0..count {
        bench.all = Bitfield::new(count);
        bench.all.insert(piece);
        for block in bench.pick(u64::from(piece), 1) {
            bench.pieces.release(ConnectionId(u64::from(piece)), &block);
        }
    }
    assert_eq!(bench.pieces.partial.len(), PARTIAL_MAX);
    bench.check();
    // Nothing is given up while it is being worked on.
    let mut bench = Bench::new(count);
    for piece in 0..count {
        bench.all = Bitfield::new(count);
        bench.all.insert(piece);
        bench.pick(u64::from(piece), 1);
    }
    assert_eq!(bench.pieces.partial.len(), PARTIAL_MAX);
    bench.check();
}
