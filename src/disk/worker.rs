//! A disk thread: does the jobs of the pieces that are its own, in their order.
//!
//! Blocks that follow one another are written with one call.
//!
//! Invariant: a thread hashes the contiguous front of a piece while its bytes are in memory; what
//! came out of order is read back once, when the piece is verified.

use std::collections::VecDeque;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, TryRecvError};

use bytes::Bytes;
use lru::LruCache;
use sha1::{Digest, Sha1};

use super::check::{Check, Step, Turn};
use super::lanes::Buffers;
use super::open::LastFolder;
use super::{Shared, Task, durable, error};
use crate::metainfo::{BlockRef, PieceIndex};
use crate::swarm::{BlockDigest, Completion, DiskError, Job, JobId};
use crate::wire::Payload;

/// Pieces whose hash a thread carries along. Each costs about 150 bytes; a piece that lost its
/// place is read back whole. Ours: more pieces than a torrent has in flight to one thread.
const RUNNING_MAX: NonZeroUsize = NonZeroUsize::new(256).expect("256 is not zero");

/// Bytes read back at a time.
pub(super) const READ_BACK: usize = 256 << 10;

/// Tasks that a thread looks ahead for blocks that follow one another.
const AHEAD_MAX: usize = 64;

/// Bytes written with one call.
const RUN_LENGTH_MAX: u32 = 256 << 10;

/// Blocks of one piece that lie one after the other.
struct Run {
    /// Where the first begins, with the length of all.
    whole: BlockRef,
    jobs: Vec<(JobId, BlockRef)>,
    slices: Vec<Bytes>,
}

/// The hash of the front of a piece.
#[derive(Debug, Default)]
struct Running {
    hash: Sha1,
    /// Bytes hashed.
    front: u32,
}

/// Which piece of which storage, since which check.
type RunningKey = (u64, u64, PieceIndex);

/// The state of a disk thread.
pub(super) struct Worker {
    tasks: Receiver<Task>,
    /// Taken from `tasks`, in order.
    ahead: VecDeque<Task>,
    running: LruCache<RunningKey, Running>,
    /// Checks this thread takes part in; some pieces of the first between two tasks.
    checks: VecDeque<Turn>,
    /// For checks. Thousands of small ones, each with its own, would leave holes in memory.
    check_buffers: Buffers,
    buffer: Vec<u8>,
}

impl Worker {
    pub(super) fn new(tasks: Receiver<Task>) -> Self {
        Self {
            tasks,
            ahead: VecDeque::new(),
            running: LruCache::new(RUNNING_MAX),
            checks: VecDeque::new(),
            check_buffers: Buffers::default(),
            buffer: Vec::new(),
        }
    }

    /// Works until told to stop, or nobody is left who could give a task.
    pub(super) fn run(mut self) {
        loop {
            let task = if let Some(task) = self.ahead.pop_front() {
                Some(task)
            } else if self.checks.is_empty() {
                self.tasks.recv().ok()
            } else {
                match self.tasks.try_recv() {
                    Ok(task) => Some(task),
                    Err(TryRecvError::Empty) => {
                        self.check();
                        continue;
                    }
                    Err(TryRecvError::Disconnected) => None,
                }
            };
            match task {
                Some(Task::Job { storage, id, job }) => self.on_job(&storage, id, job),
                Some(Task::Check(check)) => self.checks.push_back(Turn::new(check)),
                Some(Task::Sync { storage, reply }) => {
                    let synced = durable::sync(&storage).map(drop).map_err(Arc::new);
                    // Nobody may wait any more.
                    reply.send(synced).ok();
                }
                Some(Task::Wanted(storage)) => durable::on_wanted(&storage),
                Some(Task::Stop) | None => return,
            }
            // A stream of jobs must not hold up a check for ever.
            self.check();
        }
    }

    /// Some pieces of the first check.
    fn check(&mut self) {
        let Some(mut turn) = self.checks.pop_front() else {
            return;
        };
        match turn.step(&mut self.check_buffers) {
            Step::More => self.checks.push_back(turn),
            Step::Done => {}
        }
    }

    /// Takes what waits.
    fn look_ahead(&mut self) {
        while self.ahead.len() < AHEAD_MAX
            && let Ok(task) = self.tasks.try_recv()
        {
            self.ahead.push_back(task);
        }
    }

    fn on_job(&mut self, storage: &Arc<Shared>, id: JobId, job: Job) {
        if storage.is_abandoned() {
            return;
        }
        let done = match job {
            Job::Write { block, data } => return self.write(storage, id, block, &data),
            Job::Verify { piece, blocks } => self.verify(storage, piece, blocks),
            Job::Read {
                block,
                for_connection,
            } => match storage.files.read_block(block) {
                Ok(data) => Ok(Completion::Read {
                    block,
                    for_connection,
                    data,
                }),
                Err(error) => return storage.complete(id, Completion::Failed { error }),
            },
            Job::Sync => durable::sync(storage),
            Job::Inspect => Ok(Completion::Inspected {
                changed: durable::inspect(storage),
            }),
            // These complete themselves, when the last thread is done.
            Job::CheckAll => return Check::all(storage, id),
            Job::CheckFiles { files } => return Check::files(storage, id, files),
        };
        match done {
            Ok(completion) => storage.complete(id, completion),
            Err(error) => storage.fail(id, error),
        }
    }

    /// Writes a block, and those that wait and follow it.
    fn write(&mut self, storage: &Arc<Shared>, id: JobId, block: BlockRef, data: &Payload) {
        self.look_ahead();
        let mut run = Run {
            whole: block,
            jobs: vec![(id, block)],
            slices: data.slices().to_vec(),
        };
        while let Some((id, block, data)) = self.next_after(storage, run.whole) {
            run.whole.length += block.length;
            run.jobs.push((id, block));
            run.slices.extend_from_slice(data.slices());
        }
        match self.write_run(storage, run.whole, &run.slices) {
            Ok(()) => {
                // Before they are told, so that whoever is told finds the memory free.
                drop(run.slices);
                for (id, block) in run.jobs {
                    storage.complete(id, Completion::Written { block });
                }
            }
            Err(error) => {
                let error = Arc::new(error);
                for (id, _) in run.jobs {
                    storage.fail(id, Arc::clone(&error));
                }
            }
        }
    }

    /// Takes the block that is to be written next, if it follows these bytes.
    fn next_after(
        &mut self,
        storage: &Arc<Shared>,
        whole: BlockRef,
    ) -> Option<(JobId, BlockRef, Payload)> {
        let Task::Job {
            storage: of,
            job: Job::Write { block, .. },
            ..
        } = self.ahead.front()?
        else {
            return None;
        };
        let follows = Arc::ptr_eq(of, storage)
            && block.piece == whole.piece
            && block.offset == whole.offset + whole.length
            && block.length <= RUN_LENGTH_MAX.saturating_sub(whole.length);
        if !follows {
            return None;
        }
        match self.ahead.pop_front() {
            Some(Task::Job {
                id,
                job: Job::Write { block, data },
                ..
            }) => Some((id, block, data)),
            _ => None,
        }
    }

    fn write_run(
        &mut self,
        storage: &Shared,
        whole: BlockRef,
        slices: &[Bytes],
    ) -> Result<(), DiskError> {
        let key = running_key(storage, whole.piece);
        let written = storage
            .files
            .write(whole, slices, |file| storage.progress().on_written(file));
        if let Err(error) = written {
            self.running.pop(&key);
            return Err(error);
        }
        let running = self.running.get_or_insert_mut(key, Running::default);
        if running.front == whole.offset {
            for slice in slices {
                running.hash.update(slice);
            }
            running.front += whole.length;
        } else if running.front > whole.offset {
            // Written again: what was hashed is not what is there.
            self.running.pop(&key);
        }
        Ok(())
    }

    /// Whether a piece is right; if so, files that are complete by it get their own names. If it is
    /// not, or if `blocks` are wanted, each block is hashed by itself.
    fn verify(
        &mut self,
        storage: &Shared,
        piece: PieceIndex,
        blocks: bool,
    ) -> Result<Completion, DiskError> {
        let key = running_key(storage, piece);
        let Running { mut hash, front } = self.running.pop(&key).unwrap_or_default();
        self.buffer.resize(READ_BACK, 0);
        let length = storage.geometry().length_of(piece);
        let mut offset = front;
        while offset < length {
            let left = usize::try_from(length - offset).expect("a u32 fits usize");
            let count = left.min(self.buffer.len());
            let bytes = &mut self.buffer[..count];
            let read = storage.files.read(piece, offset, bytes);
            read.map_err(|(_, failed)| failed)?;
            hash.update(&*bytes);
            offset += u32::try_from(count).expect("a part of a piece fits 32 bits");
        }
        let valid = hash.finalize().as_slice() == storage.info.piece_hash(piece);
        if valid {
            let complete = storage.progress().on_verified(storage.geometry(), piece);
            storage.changed.notify_one();
            durable::finish(storage, &complete)?;
        } else {
            let mut progress = storage.progress();
            progress.on_invalid(storage.geometry(), piece);
            drop(progress);
            // Whoever sent the blocks is not to blame for what became of them here.
            unchanged(storage, piece)?;
        }
        let blocks = if valid && !blocks {
            Vec::new()
        } else {
            self.block_digests(storage, piece)?
        };
        Ok(Completion::Verified {
            piece,
            valid,
            blocks,
        })
    }

    /// The SHA-1 of each block of a piece as it lies on disk.
    fn block_digests(
        &mut self,
        storage: &Shared,
        piece: PieceIndex,
    ) -> Result<Vec<BlockDigest>, DiskError> {
        let mut digests = Vec::new();
        for block in storage.geometry().blocks(piece) {
            let length = usize::try_from(block.length).expect("a u32 fits usize");
            let bytes = &mut self.buffer[..length];
            let read = storage.files.read(piece, block.offset, bytes);
            read.map_err(|(_, failed)| failed)?;
            digests.push(Sha1::digest(&*bytes).into());
        }
        Ok(digests)
    }
}

fn running_key(storage: &Shared, piece: PieceIndex) -> RunningKey {
    (storage.number, storage.files.marks.epoch(), piece)
}

/// Fails if somebody changed a file that a piece lies in.
fn unchanged(storage: &Shared, piece: PieceIndex) -> Result<(), DiskError> {
    let files = &storage.files;
    let mut last = LastFolder::default();
    for slice in files.slices(piece) {
        if files.is_changed(&mut last, slice.file) {
            let place = files.place(slice.file);
            return Err(error::changed(&files.full_path(slice.file, place)));
        }
    }
    Ok(())
}
