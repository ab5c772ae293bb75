//! What happens next: a queue ordered by (time, sequence number).
//!
//! Invariant: the order is total. Two entries for the same moment come out in the order in which
//! they went in, in each implementation, so that exchanging the queue never changes a run.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use trackless::time::Instant;

use super::Wheel;

/// Something that will happen.
#[derive(Debug, Clone)]
pub struct Entry<T> {
    /// When.
    pub at: Instant,
    /// Number given when it was queued: orders what happens at the same moment.
    pub sequence: u64,
    /// What.
    pub happening: T,
}

/// A priority queue of entries, earliest first.
pub trait Queue<T>: std::fmt::Debug {
    /// Adds an entry.
    fn push(&mut self, entry: Entry<T>);
    /// Takes the entry with the smallest (time, sequence).
    fn pop(&mut self) -> Option<Entry<T>>;
    /// When the next entry is due; a queue may put itself in order to find out.
    fn next_at(&mut self) -> Option<Instant>;
    /// Entries waiting.
    fn len(&self) -> usize;
    /// Whether nothing waits.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Which queue a run uses. It changes the speed of a run and nothing else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum QueueKind {
    /// [`Heap`]: the reference.
    Heap,
    /// [`Wheel`]: two to nine times as fast from 100,000 entries on.
    #[default]
    Wheel,
}

impl QueueKind {
    /// An empty queue of this kind.
    #[must_use]
    pub fn build<T: std::fmt::Debug + 'static>(self) -> Box<dyn Queue<T>> {
        match self {
            Self::Heap => Box::<Heap<T>>::default(),
            Self::Wheel => Box::<Wheel<T>>::default(),
        }
    }
}

/// The standard library's binary heap: simple, and the reference for any other queue.
#[derive(Debug)]
pub struct Heap<T>(BinaryHeap<Earliest<T>>);

/// An entry that compares greater the earlier it is due, because the heap hands out its greatest.
#[derive(Debug)]
struct Earliest<T>(Entry<T>);

impl<T> Earliest<T> {
    const fn key(&self) -> (Instant, u64) {
        (self.0.at, self.0.sequence)
    }
}

impl<T> PartialEq for Earliest<T> {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl<T> Eq for Earliest<T> {}

impl<T> PartialOrd for Earliest<T> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> Ord for Earliest<T> {
    fn cmp(&self, other: &Self) -> Ordering {
        other.key().cmp(&self.key())
    }
}

impl<T> Default for Heap<T> {
    fn default() -> Self {
        Self(BinaryHeap::new())
    }
}

impl<T: std::fmt::Debug> Queue<T> for Heap<T> {
    fn push(&mut self, entry: Entry<T>) {
        self.0.push(Earliest(entry));
    }

    fn pop(&mut self) -> Option<Entry<T>> {
        self.0.pop().map(|Earliest(entry)| entry)
    }

    fn next_at(&mut self) -> Option<Instant> {
        self.0.peek().map(|Earliest(entry)| entry.at)
    }

    fn len(&self) -> usize {
        self.0.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use trackless::random::Random;

    fn entry(micros: u64, sequence: u64) -> Entry<()> {
        Entry {
            at: Instant::from_micros(micros),
            sequence,
            happening: (),
        }
    }

    fn drain<Q: Queue<()>>(queue: &mut Q) -> Vec<(u64, u64)> {
        std::iter::from_fn(|| queue.pop())
            .map(|entry| (entry.at.as_micros(), entry.sequence))
            .collect()
    }

    #[test]
    fn entries_come_out_by_time_and_then_in_the_order_they_went_in() {
        let mut queue = Heap::default();
        for (sequence, micros) in (0..).zip([5, 3, 5, 1, 3]) {
            queue.push(entry(micros, sequence));
        }
        assert_eq!(queue.next_at(), Some(Instant::from_micros(1)));
        assert_eq!(drain(&mut queue), [(1, 3), (3, 1), (3, 4), (5, 0), (5, 2)]);
        assert!(queue.is_empty());
        assert_eq!(queue.next_at(), None);
    }

    #[test]
    fn a_long_random_series_agrees_with_sorting() {
        let mut random = Random::from_seed(5);
        let mut queue = Heap::default();
        let mut model = Vec::new();
        for sequence in 0..5_000 {
            let micros = u64::from(random.below(400));
            queue.push(entry(micros, sequence));
            model.push((micros, sequence));
        }
        model.sort_unstable();
        assert_eq!(queue.len(), model.len());
        assert_eq!(drain(&mut queue), model);
    }
}
