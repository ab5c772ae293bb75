//! The content of torrents on disk: worker threads, files, hashing.
//!
//! A [`Disk`] is a fixed set of threads. A [`Storage`] is the place of one torrent: jobs go in by
//! [`Storage::submit`], completions come out of the channel it was opened with, and blocks to be
//! sent are got by [`Storage::begin_read`]. Inside, `worker` does the jobs, `files` knows names and
//! descriptors, `progress` what is verified, and `check` looks at what already lies there. [`hash`]
//! serves those who make a torrent of their content, [`verify()`] those who compare content with one.
//!
//! A file that is not complete carries [`PART_SUFFIX`]; it gets its own name when the last piece it
//! has a part in is verified. So whatever lies under a file's own name is either verified, or was
//! not put there by this download.
//!
//! Invariant: content that is not ours is never written to, replaced or removed. A file under its
//! own name is repaired in place only if at least as much of it was found to be right as wrong.

pub use names::part_name;
pub use range::FileRange;
pub use resume::{Resume, Stamp, vouched};
pub use verify::{Verification, verify};

use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use bytes::Bytes;
use tokio::sync::{Notify, mpsc, oneshot};

use crate::bitfield::Bitfield;
use crate::metainfo::{BlockRef, Geometry, Info, PieceIndex};
use crate::swarm::{Completion, DiskError, DiskErrorKind, Job, JobId};
use cache::Cache;
use check::Check;
use files::Files;
use progress::Progress;
use worker::Worker;

mod blank;
mod cache;
mod check;
mod durable;
mod error;
mod files;
mod finish;
mod gather;
pub mod hash;
mod lanes;
mod look;
mod marks;
mod names;
mod open;
mod progress;
mod range;
mod reader;
mod resume;
mod space;
mod verify;
mod worker;

#[cfg(test)]
mod tests;

/// What the name of an incomplete file ends with. Ours alone, so that such a file is surely ours.
pub const PART_SUFFIX: &str = ".trackless-part";

/// Threads that read blocks to be sent: enough that one slow file does not hold up the others.
const READERS: usize = 4;

/// Unfinished jobs of one torrent beyond which its core has lost count.
const JOBS_MAX: usize = 1 << 16;

/// The threads that work for all torrents. Cheap to clone; they end when the last `Disk` and
/// [`Storage`] is gone, or by [`Disk::stop`].
#[derive(Debug, Clone)]
pub struct Disk {
    queues: Arc<Queues>,
    cache: Arc<Cache>,
    storages: Arc<AtomicU64>,
    threads: Arc<Mutex<Vec<JoinHandle<()>>>>,
}

/// The ways to the threads.
///
/// No sender ever waits, so these queues have no bound of their own; who puts something in keeps
/// it: a torrent counts its unfinished jobs and bytes (`swarm::Config::disk_jobs_max`,
/// `disk_bytes_max`), a connection reads at most 16 blocks ahead.
#[derive(Debug)]
struct Queues {
    workers: Vec<Sender<Task>>,
    reads: Sender<ReadTask>,
    syncs: Sender<Task>,
}

/// Something for a worker.
#[derive(Debug)]
enum Task {
    /// A job of a torrent.
    Job {
        storage: Arc<Shared>,
        id: JobId,
        job: Job,
    },
    /// Join in checking.
    Check(Arc<Check>),
    /// Make durable what is verified.
    Sync {
        storage: Arc<Shared>,
        reply: oneshot::Sender<Result<(), Arc<DiskError>>>,
    },
    /// Other files are wanted than before.
    Wanted(Arc<Shared>),
    /// Nothing follows.
    Stop,
}

/// Something for a reader.
#[derive(Debug)]
enum ReadTask {
    Read {
        storage: Arc<Shared>,
        block: BlockRef,
        reply: oneshot::Sender<Result<Bytes, Arc<DiskError>>>,
    },
    /// Nothing follows for one of the readers.
    Stop,
}

impl Disk {
    /// Starts `threads` worker threads (at least 1), some that read blocks to be sent, and one that
    /// makes data durable.
    ///
    /// # Errors
    ///
    /// When the system gives no thread.
    pub fn start(threads: usize) -> io::Result<Self> {
        let mut handles = Vec::new();
        let mut workers = Vec::new();
        for number in 0..threads.max(1) {
            let (sender, receiver) = channel();
            workers.push(sender);
            handles.push(spawn(format!("disk-{number}"), move || {
                Worker::new(receiver).run();
            })?);
        }
        let (syncs, receiver) = channel();
        handles.push(spawn("disk-sync".to_owned(), move || {
            Worker::new(receiver).run();
        })?);
        let (reads, receiver) = channel();
        let receiver = Arc::new(Mutex::new(receiver));
        for number in 0..READERS {
            let receiver = Arc::clone(&receiver);
            handles.push(spawn(format!("disk-read-{number}"), move || {
                serve_reads(&receiver);
            })?);
        }
        Ok(Self {
            queues: Arc::new(Queues {
                workers,
                reads,
                syncs,
            }),
            cache: Arc::default(),
            storages: Arc::default(),
            threads: Arc::new(Mutex::new(handles)),
        })
    }

    /// Opens the place of one torrent in the folder `root`. Nothing is touched or looked at yet.
    ///
    /// `completions` should hold as many entries as the torrent has unfinished jobs
    /// (`swarm::Config::disk_jobs_max`); a worker that finds it full waits.
    #[must_use]
    pub fn open(
        &self,
        info: Arc<Info>,
        root: PathBuf,
        completions: mpsc::Sender<(JobId, Completion)>,
    ) -> Storage {
        self.open_with(info, root, Options::default(), completions)
    }

    /// Like [`Self::open`], with files chosen or with what is known from before.
    #[must_use]
    pub fn open_with(
        &self,
        info: Arc<Info>,
        root: PathBuf,
        options: Options,
        completions: mpsc::Sender<(JobId, Completion)>,
    ) -> Storage {
        let number = self.storages.fetch_add(1, Ordering::Relaxed);
        let Options { wanted, resume } = options;
        let resume = resume.unwrap_or_default();
        let (copy, cache) = (Arc::clone(&info), Arc::clone(&self.cache));
        let files = Files::known(copy, root, number, cache, &resume);
        files.set_wanted(wanted.as_ref());
        Storage {
            shared: Arc::new(Shared {
                number,
                files,
                clean: AtomicBool::new(resume.clean),
                progress: Mutex::new(Progress::new(info.geometry(), resume)),
                info,
                queues: Arc::clone(&self.queues),
                completions,
                unfinished: AtomicUsize::new(0),
                stopped: AtomicBool::new(false),
                checked: AtomicU32::new(0),
                to_check: AtomicU32::new(0),
                inspected: AtomicUsize::new(0),
                root_synced: AtomicBool::new(false),
                changed: Notify::new(),
            }),
        }
    }

    /// Ends the threads when they have done what was submitted before; a check under way is left.
    /// Waits for that, so not to be called where tasks run, and somebody must take the completions
    /// (or have dropped the receivers). Other clones of the `Disk` get no answers any more.
    pub fn stop(self) {
        for worker in self.queues.workers.iter().chain([&self.queues.syncs]) {
            worker.send(Task::Stop).ok();
        }
        for _ in 0..READERS {
            self.queues.reads.send(ReadTask::Stop).ok();
        }
        let threads =
            std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
        for thread in threads {
            if thread.join().is_err() {
                tracing::error!("a disk thread ended by a panic");
            }
        }
    }
}

fn spawn(name: String, body: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
    std::thread::Builder::new().name(name).spawn(body)
}

/// The life of a reader thread.
fn serve_reads(tasks: &Mutex<Receiver<ReadTask>>) {
    loop {
        // Who holds the lock waits for the next task; the others wait for the lock.
        let task = tasks.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(ReadTask::Read {
            storage,
            block,
            reply,
        }) = task
        else {
            return;
        };
        // The connection may have gone meanwhile.
        if !reply.is_closed() {
            reply.send(storage.files.read_block(block)).ok();
        }
    }
}

/// How a torrent's place is opened. The default wants everything and knows nothing.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Files that shall be there under their own names, by their number in the torrent; `None` is
    /// all. Of the others only what pieces of wanted files bring along is kept, under the names of
    /// incomplete files.
    pub wanted: Option<Bitfield>,
    /// What an earlier run left. [`Job::CheckAll`] takes it as it is for files that did not change.
    pub resume: Option<Resume>,
}

/// The place of one torrent's content. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Storage {
    shared: Arc<Shared>,
}

impl Storage {
    /// Gives a job to the threads, without waiting. Its completion comes with the same number.
    ///
    /// Jobs of one piece are done in order. [`Job::Sync`] covers what was verified before it, and
    /// [`Job::CheckAll`] must be the only unfinished job. It hashes only what is not known: pieces
    /// verified before, in files that are as they were, are taken as they are.
    pub fn submit(&self, id: JobId, job: Job) {
        let shared = &self.shared;
        let unfinished = shared.unfinished.fetch_add(1, Ordering::Relaxed);
        debug_assert!(unfinished < JOBS_MAX, "a torrent bounds its disk jobs");
        let queue = match &job {
            Job::Write { block, .. } | Job::Read { block, .. } => shared.worker_of(block.piece),
            Job::Verify { piece, .. } => shared.worker_of(*piece),
            Job::CheckAll | Job::Inspect | Job::CheckFiles { .. } => shared.queues.workers.first(),
            Job::Sync => Some(&shared.queues.syncs),
        };
        let storage = Arc::clone(shared);
        let task = Task::Job { storage, id, job };
        if queue.is_none_or(|queue| queue.send(task).is_err()) {
            shared.unfinished.fetch_sub(1, Ordering::Relaxed);
            let error = error::stopped(shared.files.root());
            let failed = Completion::Failed { error };
            // Nobody waits for the disk once it was stopped.
            shared.completions.try_send((id, failed)).ok();
        }
    }

    /// Gets a block to be sent to a peer, without waiting. What is in the system's memory is only
    /// named; the rest is left to the reader threads.
    #[must_use]
    pub fn begin_read(&self, block: BlockRef) -> PendingRead {
        if let Some(range) = self.shared.files.find_in_memory(block) {
            return PendingRead::InMemory(range);
        }
        PendingRead::Waiting {
            answer: self.order_read(block),
            storage: self.clone(),
        }
    }

    /// Has a reader thread read a block.
    fn order_read(&self, block: BlockRef) -> oneshot::Receiver<Result<Bytes, Arc<DiskError>>> {
        let (reply, answer) = oneshot::channel();
        let storage = Arc::clone(&self.shared);
        let task = ReadTask::Read {
            storage,
            block,
            reply,
        };
        // When the disk was stopped the reply is dropped, and the answer says so.
        self.shared.queues.reads.send(task).ok();
        answer
    }

    /// Chooses the files that shall be there under their own names; see [`Options::wanted`]. Those
    /// that are complete already get them soon after.
    pub fn set_wanted(&self, wanted: Option<&Bitfield>) {
        self.shared.files.set_wanted(wanted);
        let task = Task::Wanted(Arc::clone(&self.shared));
        // Fails only once the disk was stopped.
        self.shared.queues.syncs.send(task).ok();
    }

    /// Pieces that the check under way has looked at, and those it has to look at in all; of the
    /// last check when none is under way.
    #[must_use]
    pub fn checked(&self) -> (u32, u32) {
        let total = self.shared.to_check.load(Ordering::Relaxed);
        let checked = self.shared.checked.load(Ordering::Relaxed);
        (checked.min(total), total)
    }

    /// What is durable, to be kept for the next run.
    #[must_use]
    pub fn resume(&self) -> Resume {
        let changed = self.shared.files.changed();
        self.shared.progress().resume(changed)
    }

    /// Whether something was verified, made or renamed that is not known to be durable.
    #[must_use]
    pub fn needs_sync(&self) -> bool {
        self.shared.progress().needs_sync()
    }

    /// Waits until [`Self::resume`] or [`Self::needs_sync`] may say something else than before. For
    /// one task only.
    pub async fn changed(&self) {
        self.shared.changed.notified().await;
    }

    /// Makes durable what is verified, apart from [`Job::Sync`].
    ///
    /// # Errors
    ///
    /// What the system says, or that the disk was stopped.
    pub async fn sync(&self) -> Result<(), Arc<DiskError>> {
        let (reply, answer) = oneshot::channel();
        let storage = Arc::clone(&self.shared);
        // When the disk was stopped the reply is dropped, and the answer says so.
        self.shared
            .queues
            .syncs
            .send(Task::Sync { storage, reply })
            .ok();
        answer
            .await
            .unwrap_or_else(|_| Err(error::stopped(self.shared.files.root())))
    }
}

/// A block that is being read.
#[derive(Debug)]
pub enum PendingRead {
    /// It is at hand.
    InMemory(FileRange),
    /// A thread reads it.
    Waiting {
        /// Where the bytes come.
        answer: oneshot::Receiver<Result<Bytes, Arc<DiskError>>>,
        /// Of which torrent, for the message if no answer comes.
        storage: Storage,
    },
}

/// The content of a block.
#[derive(Debug)]
pub enum Block {
    /// As it was read.
    Bytes(Bytes),
    /// Where it is.
    Range(FileRange),
}

impl PendingRead {
    /// Whether [`Self::wait`] will return at once.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        match self {
            Self::InMemory(_) => true,
            Self::Waiting { answer, .. } => !answer.is_empty(),
        }
    }

    /// The content of the block.
    ///
    /// # Errors
    ///
    /// [`DiskErrorKind::Truncated`] when the file is too short, [`DiskErrorKind::Missing`] when it
    /// is not there, and what else the system says. Bytes are never made up.
    pub async fn wait(self) -> Result<Block, Arc<DiskError>> {
        match self {
            Self::InMemory(range) => Ok(Block::Range(range)),
            Self::Waiting { answer, storage } => answer
                .await
                .unwrap_or_else(|_| Err(error::stopped(storage.shared.files.root())))
                .map(Block::Bytes),
        }
    }
}

/// What the threads share about one torrent.
#[derive(Debug)]
struct Shared {
    /// Number of the storage, never used twice by one disk.
    number: u64,
    info: Arc<Info>,
    files: Files,
    progress: Mutex<Progress>,
    queues: Arc<Queues>,
    completions: mpsc::Sender<(JobId, Completion)>,
    unfinished: AtomicUsize,
    /// The receiver of completions is gone.
    stopped: AtomicBool,
    /// What an earlier run left was all there was.
    clean: AtomicBool,
    /// Pieces that the check looked at.
    checked: AtomicU32,
    /// Pieces that the check has to look at.
    to_check: AtomicU32,
    /// The file the next inspection begins with.
    inspected: AtomicUsize,
    /// The folder that holds `root` was synced.
    root_synced: AtomicBool,
    /// Told when the resume data may have changed.
    changed: Notify,
}

impl Shared {
    fn geometry(&self) -> &Geometry {
        self.info.geometry()
    }

    fn progress(&self) -> std::sync::MutexGuard<'_, Progress> {
        // Each change is made by one call that cannot panic half way.
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The worker that does the jobs of a piece.
    fn worker_of(&self, piece: PieceIndex) -> Option<&Sender<Task>> {
        let workers = &self.queues.workers;
        workers.get(piece.as_usize() % workers.len())
    }

    /// Reports the end of a job. Waits if the torrent's task is behind with its completions.
    fn complete(&self, id: JobId, completion: Completion) {
        self.unfinished.fetch_sub(1, Ordering::Relaxed);
        if self.completions.blocking_send((id, completion)).is_err() {
            self.stopped.store(true, Ordering::Relaxed);
        }
    }

    fn fail(&self, id: JobId, error: impl Into<Arc<DiskError>>) {
        let error = error.into();
        tracing::debug!(%error, "disk job failed");
        self.complete(id, Completion::Failed { error });
    }

    /// Whether nobody waits for completions any more.
    fn is_abandoned(&self) -> bool {
        self.stopped.load(Ordering::Relaxed) || self.completions.is_closed()
    }
}
