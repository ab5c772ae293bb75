//! What the files of a torrent looked like when we last saw or wrote them.
//!
//! Invariant: a file is taken for unchanged only if it has the device, inode, length and time it
//! had; where our own writes explain another time or more length, only if device and inode are the
//! same and it did not become shorter than our writes made it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::open::Status;
use super::resume::Stamp;

/// What is remembered of one file.
#[derive(Debug, Clone, Copy, Default)]
struct Mark {
    /// What it looked like; `None` if that is not known.
    known: Option<Known>,
    /// Writes of ours under way.
    writers: u32,
    /// We wrote since `known` was taken.
    touched: bool,
    /// Counts our writes, their beginnings and ends.
    writes: u64,
    /// The file was so long when it was seen last, or our writes made it so long since.
    reach: u64,
}

/// What a file looked like.
#[derive(Debug, Clone, Copy)]
struct Known {
    stamp: Stamp,
    /// Not kept across restarts: numbers of devices change.
    device: Option<u64>,
}

/// What a comparison says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It was not seen before; now it is remembered.
    New,
    /// It is as it was, our own writes apart.
    Same,
    /// Somebody changed, replaced or removed it.
    Changed,
}

/// What was known of a file before it was looked at.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Before {
    writes: u64,
    /// So long it was at least.
    length: u64,
    /// It was there.
    is_known: bool,
}

/// Marks of all files of one torrent.
#[derive(Debug)]
pub(super) struct Marks {
    marks: Mutex<BTreeMap<usize, Mark>>,
    /// Files that were changed and not checked since.
    doubted: Vec<AtomicBool>,
    /// Counts doubts: what was hashed in memory before one may not be what lies on disk.
    doubts: AtomicU64,
}

impl Marks {
    /// For so many files; what an earlier run saw of them is known.
    pub(super) fn new(files: usize, stamps: &BTreeMap<usize, Stamp>) -> Self {
        let known = |stamp| Known {
            stamp,
            device: None,
        };
        let mark = |stamp| Mark {
            known: Some(known(stamp)),
            ..Mark::default()
        };
        let marks = stamps.iter().map(|(&file, &stamp)| (file, mark(stamp)));
        Self {
            marks: Mutex::new(marks.collect()),
            doubted: (0..files).map(|_| AtomicBool::default()).collect(),
            doubts: AtomicU64::new(0),
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<usize, Mark>> {
        // Each change is made by one call that cannot panic half way.
        self.marks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// We are about to write to a file.
    pub(super) fn begin_write(&self, file: usize) {
        let mut marks = self.lock();
        let mark = marks.entry(file).or_default();
        mark.writers += 1;
        mark.writes += 1;
    }

    /// We have written to a file up to `end`, or failed to: then `end` is 0.
    pub(super) fn end_write(&self, file: usize, end: u64) {
        let mut marks = self.lock();
        let mark = marks.entry(file).or_default();
        mark.writers = mark.writers.saturating_sub(1);
        mark.writes += 1;
        mark.touched = true;
        mark.reach = mark.reach.max(end);
    }

    /// How long a file must be at least.
    pub(super) fn reach(&self, file: usize) -> u64 {
        self.lock().get(&file).map_or(0, |mark| mark.reach)
    }

    /// To be asked before looking at a file, for [`Self::compare`].
    pub(super) fn before_look(&self, file: usize) -> Before {
        let marks = self.lock();
        marks
            .get(&file)
            .map_or_else(Before::default, |mark| Before {
                writes: mark.writes,
                length: mark
                    .known
                    .map_or(0, |known| known.stamp.size)
                    .max(mark.reach),
                is_known: mark.known.is_some(),
            })
    }

    /// What is said by a look at a file, with what was known `before` it. `None`: it is not there.
    pub(super) fn compare(&self, file: usize, before: Before, now: Option<Status>) -> Verdict {
        let mut marks = self.lock();
        let mark = marks.entry(file).or_default();
        let (Some(known), Some(status)) = (mark.known, now) else {
            let Some(status) = now else {
                // Gone, unless it was never there.
                return if mark.known.is_some() && before.is_known {
                    Verdict::Changed
                } else {
                    Verdict::New
                };
            };
            mark.see(before, status);
            return Verdict::New;
        };
        let is_other = known.stamp.inode != status.stamp.inode
            || known.device.is_some_and(|device| device != status.device);
        let is_ours = mark.writers > 0 || mark.touched || mark.writes != before.writes;
        let is_same = if is_ours {
            // Others may have looked and written since this look began.
            status.stamp.size >= before.length
        } else {
            status.stamp == known.stamp
        };
        if is_other || !is_same {
            return Verdict::Changed;
        }
        mark.see(before, status);
        Verdict::Same
    }

    /// Takes a file as it is now for what it should be, because it is being checked.
    pub(super) fn remember(&self, file: usize, now: Option<Status>) {
        let mut marks = self.lock();
        let mark = marks.entry(file).or_default();
        match now {
            Some(status) => mark.remember(status),
            None => (mark.known, mark.reach) = (None, 0),
        }
    }

    /// What a file looked like.
    pub(super) fn stamp(&self, file: usize) -> Option<Stamp> {
        let marks = self.lock();
        Some(marks.get(&file)?.known?.stamp)
    }

    /// The device a file lies on, if it was seen in this run.
    pub(super) fn device(&self, file: usize) -> Option<u64> {
        self.lock().get(&file)?.known?.device
    }

    /// A file is not what it was.
    pub(super) fn doubt(&self, file: usize) {
        if let Some(doubted) = self.doubted.get(file)
            && !doubted.swap(true, Ordering::AcqRel)
        {
            self.doubts.fetch_add(1, Ordering::AcqRel);
        }
    }

    /// Whether a file was changed and not checked since.
    pub(super) fn is_doubted(&self, file: usize) -> bool {
        let doubted = self.doubted.get(file);
        doubted.is_some_and(|doubted| doubted.load(Ordering::Acquire))
    }

    /// A file was checked.
    pub(super) fn trust(&self, file: usize) {
        if let Some(doubted) = self.doubted.get(file) {
            doubted.store(false, Ordering::Release);
        }
    }

    /// Counts doubts and checks.
    pub(super) fn epoch(&self) -> u64 {
        self.doubts.load(Ordering::Acquire)
    }

    /// What was hashed in memory so far counts no more.
    pub(super) fn next_epoch(&self) {
        self.doubts.fetch_add(1, Ordering::AcqRel);
    }
}

impl Mark {
    /// Remembers what a look says, unless we wrote since it began: then the next look says more.
    fn see(&mut self, before: Before, status: Status) {
        if self.writes == before.writes {
            self.remember(status);
        }
    }

    fn remember(&mut self, status: Status) {
        self.known = Some(Known {
            stamp: status.stamp,
            device: Some(status.device),
        });
        self.touched = self.writers > 0;
        self.reach = status.stamp.size;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(size: u64, modified: i64, inode: u64) -> Option<Status> {
        let stamp = Stamp {
            size,
            modified,
            inode,
        };
        Some(Status {
            stamp,
            device: 1,
            links: 1,
        })
    }

    /// A file of ten bytes was seen.
    fn seen() -> Marks {
        let marks = Marks::new(1, &BTreeMap::new());
        let verdict = marks.compare(0, Before::default(), status(10, 5, 7));
        assert_eq!(verdict, Verdict::New);
        marks
    }

    #[test]
    fn a_file_is_the_same_only_if_nothing_of_it_changed() {
        for (now, verdict) in [
            (status(10, 5, 7), Verdict::Same),
            (status(11, 5, 7), Verdict::Changed),
            (status(10, 6, 7), Verdict::Changed),
            (status(10, 5, 8), Verdict::Changed),
            (None, Verdict::Changed),
        ] {
            let marks = Marks::new(1, &BTreeMap::new());
            assert_eq!(marks.compare(0, Before::default(), None), Verdict::New);
            assert_eq!(
                marks.compare(0, Before::default(), status(10, 5, 7)),
                Verdict::New
            );
            let before = marks.before_look(0);
            assert_eq!(marks.compare(0, before, now), verdict, "{now:?}");
        }
    }

    #[test]
    fn our_own_writes_explain_growth_and_time_but_no_other_file() {
        let marks = seen();
        let before = marks.before_look(0);
        marks.begin_write(0);
        assert_eq!(marks.compare(0, before, status(12, 6, 7)), Verdict::Same);
        assert_eq!(marks.compare(0, before, status(9, 6, 7)), Verdict::Changed);
        assert_eq!(marks.compare(0, before, status(13, 6, 8)), Verdict::Changed);
        marks.end_write(0, 12);
        let before = marks.before_look(0);
        assert_eq!(marks.compare(0, before, status(20, 8, 7)), Verdict::Same);
        // From here on nothing of ours explains anything.
        assert_eq!(marks.compare(0, before, status(20, 9, 7)), Verdict::Changed);
        // A write that began and ended during a look explains what was seen.
        marks.begin_write(0);
        marks.end_write(0, 20);
        assert_eq!(marks.compare(0, before, status(20, 9, 7)), Verdict::Same);
    }

    #[test]
    fn a_file_is_never_shorter_than_our_writes_made_it() {
        let marks = seen();
        assert_eq!(marks.reach(0), 10);
        for end in [30, 20] {
            marks.begin_write(0);
            marks.end_write(0, end);
        }
        let before = marks.before_look(0);
        assert_eq!(marks.reach(0), 30);
        assert_eq!(marks.compare(0, before, status(29, 6, 7)), Verdict::Changed);
        assert_eq!(marks.compare(0, before, status(30, 6, 7)), Verdict::Same);
        // Once it was checked it is as long as it is.
        marks.remember(0, status(12, 6, 7));
        assert_eq!(marks.reach(0), 12);
        marks.remember(0, None);
        assert_eq!(marks.reach(0), 0);
    }

    #[test]
    fn a_look_that_took_longer_than_a_write_and_another_look_is_no_change() {
        let marks = seen();
        let (before, seen) = (marks.before_look(0), status(10, 5, 7));
        marks.begin_write(0);
        marks.end_write(0, 30);
        let other = marks.before_look(0);
        assert_eq!(marks.compare(0, other, status(30, 6, 7)), Verdict::Same);
        assert_eq!(marks.compare(0, before, seen), Verdict::Same);
        // The next one sees the same as the other one.
        let before = marks.before_look(0);
        assert_eq!(marks.compare(0, before, status(30, 6, 7)), Verdict::Same);
        let before = marks.before_look(0);
        assert_eq!(marks.compare(0, before, status(29, 6, 7)), Verdict::Changed);
    }

    #[test]
    fn a_file_that_came_while_it_was_looked_for_did_not_go() {
        let marks = Marks::new(1, &BTreeMap::new());
        let before = marks.before_look(0);
        let other = marks.before_look(0);
        assert_eq!(marks.compare(0, other, status(0, 5, 7)), Verdict::New);
        assert_eq!(marks.compare(0, before, None), Verdict::New);
        let before = marks.before_look(0);
        assert_eq!(marks.compare(0, before, None), Verdict::Changed);
    }

    #[test]
    fn what_an_earlier_run_saw_is_known_whatever_the_number_of_the_device() {
        let stamp = status(10, 5, 7).unwrap().stamp;
        let marks = Marks::new(2, &BTreeMap::from([(1, stamp)]));
        assert_eq!(
            marks.compare(1, Before::default(), status(10, 5, 7)),
            Verdict::Same
        );
        let marks = Marks::new(2, &BTreeMap::from([(1, stamp)]));
        assert_eq!(
            marks.compare(1, Before::default(), status(10, 5, 8)),
            Verdict::Changed
        );
        assert_eq!(
            marks.compare(0, Before::default(), status(10, 5, 8)),
            Verdict::New
        );
    }

    #[test]
    fn a_doubt_ends_with_a_check_and_voids_what_was_hashed_before() {
        let marks = Marks::new(1, &BTreeMap::new());
        let before = marks.epoch();
        marks.doubt(0);
        assert!(marks.is_doubted(0) && marks.epoch() != before);
        marks.trust(0);
        assert!(!marks.is_doubted(0));
    }
}
