//! A timing wheel: what happens next, in constant time however much waits.
//!
//! Time is cut into ticks of 1.024 ms, and 4,096 ticks make a turn of 4.2 s. Entries of the current
//! tick lie in a heap, those of the current turn in a slot for each tick, those of the current
//! revolution of 4,096 turns (4.8 h) in a slot for each turn, and all later ones in another heap.
//! When a turn begins, its slot is dealt out to the ticks.
//!
//! What waits lies in one pool and stays at its place there until it is taken: slots are chains
//! through the pool, the heaps hold numbers of places. The place that became free last is the next
//! to be filled, because it is still in the processor's cache.
//!
//! Invariant: entries up to the cursor's tick are in the heap of the current ones, so that the
//! smallest (time, sequence) of all is found there, or nowhere when the wheel is empty.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use trackless::time::Instant;

use super::queue::{Entry, Queue};

/// Microseconds of a tick, as a power of two. Ours: with 100,000 DHT nodes some sixty entries fall
/// into one, which a small heap puts in order within the processor's first cache.
const TICK_BITS: u32 = 10;

/// Slots of a level, as a power of two.
const SLOT_BITS: u32 = 12;

/// Slots of a level.
const SLOTS: usize = 1 << SLOT_BITS;

/// Bits of a word of [`Level::occupied`].
const WORD_BITS: usize = 64;

/// The end of a chain.
const END: u32 = u32::MAX;

/// A place in the pool.
#[derive(Debug)]
struct Place<T> {
    /// `None` while it is free.
    entry: Option<Entry<T>>,
    /// The next place of the same slot, or the next free one.
    next: u32,
}

/// Everything that waits.
#[derive(Debug)]
struct Pool<T> {
    places: Vec<Place<T>>,
    /// The place that became free last.
    free: u32,
}

impl<T> Pool<T> {
    fn insert(&mut self, entry: Entry<T>) -> u32 {
        let place = self.free;
        if place == END {
            self.places.push(Place {
                entry: Some(entry),
                next: END,
            });
            let last = u32::try_from(self.places.len() - 1);
            return last.expect("fewer than 2^32 entries wait");
        }
        let found = &mut self.places[index(place)];
        self.free = found.next;
        found.entry = Some(entry);
        place
    }

    fn take(&mut self, place: u32) -> Option<Entry<T>> {
        let found = &mut self.places[index(place)];
        let entry = found.entry.take();
        found.next = self.free;
        self.free = place;
        entry
    }

    /// When what waits at a place is due.
    fn due(&self, place: u32) -> Due {
        let entry = self.places[index(place)].entry.as_ref();
        let entry = entry.expect("slots and heaps name places that are taken");
        Due {
            at: entry.at,
            sequence: entry.sequence,
            place,
        }
    }
}

/// A place as an index.
fn index(place: u32) -> usize {
    usize::try_from(place).expect("a u32 fits usize")
}

/// What a heap holds of an entry, ordered by (time, sequence).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Due {
    at: Instant,
    sequence: u64,
    place: u32,
}

/// Slots that come one after the other, and which of them hold something.
#[derive(Debug)]
struct Level {
    /// The first place of each slot's chain.
    heads: Vec<u32>,
    /// One bit for each slot.
    occupied: [u64; SLOTS / WORD_BITS],
}

impl Default for Level {
    fn default() -> Self {
        Self {
            heads: vec![END; SLOTS],
            occupied: [0; SLOTS / WORD_BITS],
        }
    }
}

impl Level {
    /// Puts a place in front of a slot's chain; `next` is its link.
    fn push(&mut self, slot: usize, place: u32, next: &mut u32) {
        self.occupied[slot / WORD_BITS] |= 1 << (slot % WORD_BITS);
        *next = std::mem::replace(&mut self.heads[slot], place);
    }

    /// The first slot behind this one that holds something.
    fn first_after(&self, slot: usize) -> Option<usize> {
        let from = slot + 1;
        let mut mask = u64::MAX << (from % WORD_BITS);
        for word in from / WORD_BITS..self.occupied.len() {
            let found = self.occupied[word] & mask;
            if found != 0 {
                let bit = usize::try_from(found.trailing_zeros()).expect("below 64");
                return Some(word * WORD_BITS + bit);
            }
            mask = u64::MAX;
        }
        None
    }

    /// Empties a slot: the first place of its chain.
    fn take(&mut self, slot: usize) -> u32 {
        self.occupied[slot / WORD_BITS] &= !(1 << (slot % WORD_BITS));
        std::mem::replace(&mut self.heads[slot], END)
    }
}

/// A queue in two levels of 4,096 slots, with a heap for what comes later.
#[derive(Debug)]
pub struct Wheel<T> {
    pool: Pool<T>,
    /// The tick up to which everything is in `current`.
    cursor: u64,
    current: BinaryHeap<Reverse<Due>>,
    /// Later ticks of the cursor's turn.
    ticks: Level,
    /// Later turns of the cursor's revolution.
    turns: Level,
    /// Later revolutions.
    later: BinaryHeap<Reverse<Due>>,
    length: usize,
}

impl<T> Default for Wheel<T> {
    fn default() -> Self {
        Self {
            pool: Pool {
                places: Vec::new(),
                free: END,
            },
            cursor: 0,
            current: BinaryHeap::new(),
            ticks: Level::default(),
            turns: Level::default(),
            later: BinaryHeap::new(),
            length: 0,
        }
    }
}

/// The tick of a moment.
const fn tick(at: Instant) -> u64 {
    at.as_micros() >> TICK_BITS
}

/// The lowest [`SLOT_BITS`] of a tick or turn: its slot.
fn slot(number: u64) -> usize {
    let low = number & ((1 << SLOT_BITS) - 1);
    usize::try_from(low).expect("twelve bits fit usize")
}

impl<T> Wheel<T> {
    /// Puts a place where it belongs, seen from the cursor.
    fn place(&mut self, due: Due) {
        let (tick, place) = (tick(due.at), due.place);
        let next = &mut self.pool.places[index(place)].next;
        if tick <= self.cursor {
            self.current.push(Reverse(due));
        } else if tick >> SLOT_BITS == self.cursor >> SLOT_BITS {
            self.ticks.push(slot(tick), place, next);
        } else if tick >> (2 * SLOT_BITS) == self.cursor >> (2 * SLOT_BITS) {
            self.turns.push(slot(tick >> SLOT_BITS), place, next);
        } else {
            self.later.push(Reverse(due));
        }
    }

    /// Places everything in a chain.
    fn deal_out(&mut self, mut place: u32) {
        while place != END {
            let next = self.pool.places[index(place)].next;
            self.place(self.pool.due(place));
            place = next;
        }
    }

    /// Moves the cursor to the next entry, if nothing is left at or before it.
    fn advance(&mut self) {
        while self.current.is_empty() {
            if let Some(next) = self.ticks.first_after(slot(self.cursor)) {
                self.cursor = with_slot(self.cursor, next);
                let due = self.ticks.take(next);
                self.deal_out(due);
            } else if let Some(next) = self.turns.first_after(slot(self.cursor >> SLOT_BITS)) {
                self.cursor = with_slot(self.cursor >> SLOT_BITS, next) << SLOT_BITS;
                let due = self.turns.take(next);
                self.deal_out(due);
            } else if let Some(Reverse(first)) = self.later.peek() {
                let revolution = tick(first.at) >> (2 * SLOT_BITS);
                self.cursor = revolution << (2 * SLOT_BITS);
                self.begin_revolution(revolution);
            } else {
                return;
            }
        }
    }

    /// Deals out the entries of a revolution.
    fn begin_revolution(&mut self, revolution: u64) {
        while let Some(Reverse(first)) = self.later.peek().copied() {
            if tick(first.at) >> (2 * SLOT_BITS) != revolution {
                return;
            }
            self.later.pop();
            self.place(first);
        }
    }
}

/// A number with its lowest [`SLOT_BITS`] replaced.
fn with_slot(number: u64, slot: usize) -> u64 {
    let slot = u64::try_from(slot).expect("a slot has twelve bits");
    number >> SLOT_BITS << SLOT_BITS | slot
}

impl<T: std::fmt::Debug> Queue<T> for Wheel<T> {
    fn push(&mut self, entry: Entry<T>) {
        self.length += 1;
        let (at, sequence) = (entry.at, entry.sequence);
        let place = self.pool.insert(entry);
        self.place(Due {
            at,
            sequence,
            place,
        });
    }

    fn pop(&mut self) -> Option<Entry<T>> {
        self.advance();
        let Reverse(due) = self.current.pop()?;
        self.length -= 1;
        self.pool.take(due.place)
    }

    fn next_at(&mut self) -> Option<Instant> {
        self.advance();
        self.current.peek().map(|Reverse(due)| due.at)
    }

    fn len(&self) -> usize {
        self.length
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::time::Heap;

    /// Microseconds of a turn and of a revolution.
    const TURN: u64 = 1 << (TICK_BITS + SLOT_BITS);
    const REVOLUTION: u64 = TURN << SLOT_BITS;

    fn entry(micros: u64, sequence: u64) -> Entry<u64> {
        Entry {
            at: Instant::from_micros(micros),
            sequence,
            happening: sequence,
        }
    }

    /// Does the same to a wheel and to a heap: each step pushes an entry so much after the last one
    /// taken, or takes one.
    #[track_caller]
    fn check_against_heap(steps: impl IntoIterator<Item = Option<u64>>) {
        let (mut wheel, mut heap) = (Wheel::default(), Heap::default());
        let mut now = 0;
        let take = |wheel: &mut Wheel<u64>, heap: &mut Heap<u64>| {
            assert_eq!(wheel.next_at(), heap.next_at());
            let (got, wanted) = (wheel.pop(), heap.pop());
            let key = |entry: &Entry<u64>| (entry.at, entry.sequence, entry.happening);
            assert_eq!(got.as_ref().map(key), wanted.as_ref().map(key));
            wanted.map(|entry| entry.at.as_micros())
        };
        for (sequence, step) in (0..).zip(steps) {
            match step {
                Some(after) => {
                    wheel.push(entry(now + after, sequence));
                    heap.push(entry(now + after, sequence));
                }
                None => now = take(&mut wheel, &mut heap).unwrap_or(now),
            }
            assert_eq!(wheel.len(), heap.len());
        }
        while take(&mut wheel, &mut heap).is_some() {}
        assert!(wheel.is_empty());
    }

    #[test]
    fn entries_at_the_borders_of_ticks_turns_and_revolutions_come_out_in_order() {
        let mut times = Vec::new();
        for border in [
            0,
            1 << TICK_BITS,
            TURN,
            3 * TURN,
            REVOLUTION,
            5 * REVOLUTION,
        ] {
            for around in [border, border + 1, border.saturating_sub(1)] {
                times.push(around);
            }
        }
        check_against_heap(times.iter().rev().chain(&times).copied().map(Some));
    }

    #[test]
    fn a_queue_that_keeps_its_length_takes_no_more_memory() {
        let mut wheel = Wheel::default();
        for sequence in 0..10_000 {
            wheel.push(entry(sequence * 700, sequence));
            if sequence >= 10 {
                wheel.pop();
            }
        }
        assert_eq!(wheel.len(), 10);
        assert_eq!(wheel.pool.places.len(), 11);
    }

    #[test]
    fn an_entry_before_the_one_that_was_looked_at_still_comes_first() {
        let mut wheel = Wheel::default();
        wheel.push(entry(10 * TURN, 0));
        assert_eq!(wheel.next_at(), Some(Instant::from_micros(10 * TURN)));
        wheel.push(entry(7, 1));
        assert_eq!(wheel.next_at(), Some(Instant::from_micros(7)));
        let order: Vec<u64> = std::iter::from_fn(|| wheel.pop().map(|e| e.sequence)).collect();
        assert_eq!(order, [1, 0]);
    }

    proptest! {
        #[test]
        fn any_series_of_pushes_and_pops_comes_out_as_from_the_heap(
            steps in prop::collection::vec(
                prop_oneof![
                    3 => Just(None),
                    2 => (0..3u64).prop_map(Some),
                    2 => (0..200_000u64).prop_map(Some),
                    2 => (0..3 * TURN).prop_map(Some),
                    1 => (0..3 * REVOLUTION).prop_map(Some),
                ],
                0..400,
            ),
        ) {
            check_against_heap(steps);
        }
    }
}
