//! A torrent's place on disk: opening it, giving it jobs, and what happens when it fails.

use std::collections::BTreeSet;
use std::sync::Arc;

use tokio::sync::{mpsc, watch};

use super::super::handle::Problem;
use super::super::resume::{Keeping, ResumeKeeper};
use super::Task;
use crate::bitfield::Bitfield;
use crate::disk::{Options, Storage};
use crate::swarm::{Completion, DiskError, DiskErrorKind, Job, JobId};
use crate::time::Instant;

/// A torrent's place on disk and what it was given to do.
pub(super) struct Store {
    storage: watch::Sender<Option<Storage>>,
    completions: mpsc::Sender<(JobId, Completion)>,
    /// Blocks on their way to the disk, and pieces being hashed; bounded by the core's
    /// `disk_jobs_max`.
    pending: BTreeSet<JobId>,
    /// Keeps what is durable; `None` without a state directory.
    keeper: Option<ResumeKeeper>,
}

impl Store {
    /// Not opened yet. What the disk has done goes to `completions`.
    pub(super) fn new(completions: mpsc::Sender<(JobId, Completion)>) -> Self {
        Self {
            storage: watch::Sender::new(None),
            completions,
            pending: BTreeSet::new(),
            keeper: None,
        }
    }

    /// Where writers of connections learn of the place once it is opened.
    pub(super) fn subscribe(&self) -> watch::Receiver<Option<Storage>> {
        self.storage.subscribe()
    }

    /// A job is done.
    pub(super) fn on_done(&mut self, id: JobId) {
        self.pending.remove(&id);
    }

    /// Gives a job to the disk.
    fn submit(&mut self, id: JobId, job: Job) {
        if matches!(job, Job::Write { .. } | Job::Verify { .. }) {
            self.pending.insert(id);
        }
        let storage = self.storage.borrow();
        let storage = storage.as_ref();
        storage
            .expect("the core has disk jobs only once the metadata is known")
            .submit(id, job);
    }

    /// How many pieces the check of what lies on disk has looked at, and of how many.
    pub(super) fn checked(&self) -> Option<(u32, u32)> {
        Some(self.storage.borrow().as_ref()?.checked())
    }

    /// Says which files shall be there under their own names.
    pub(super) fn set_wanted(&self, wanted: &Bitfield) {
        if let Some(storage) = &*self.storage.borrow() {
            storage.set_wanted(Some(wanted));
        }
    }

    /// Waits until all blocks that the disk was given are written, pieces that are whole by them are
    /// verified, and what is durable is kept.
    pub(super) async fn finish(&mut self, completions: &mut mpsc::Receiver<(JobId, Completion)>) {
        while !self.pending.is_empty()
            && let Some((id, _)) = completions.recv().await
        {
            self.pending.remove(&id);
        }
        if let Some(keeper) = self.keeper.take() {
            keeper.finish().await;
        }
    }
}

impl Task {
    /// Opens the torrent's files once, when the metadata is known. Writers of connections that
    /// began before learn of it through their channel.
    pub(super) fn open_storage(&mut self) {
        if self.store.storage.borrow().is_some() {
            return;
        }
        let Some(info) = self.core.info() else {
            return;
        };
        let context = &mut self.context;
        let options = Options {
            wanted: None,
            resume: context.resume.take(),
        };
        let completions = self.store.completions.clone();
        let (copy, output) = (Arc::clone(info), context.output.clone());
        let storage = context.disk.open_with(copy, output, options, completions);
        if let Some(state) = context.state.clone() {
            self.store.keeper = Some(ResumeKeeper::start(Keeping {
                state,
                info: Arc::clone(info),
                storage: storage.clone(),
                output: context.output.clone(),
                earlier: context.earlier,
                status: self.outputs.status.subscribe(),
            }));
        }
        self.store.storage.send_replace(Some(storage));
    }

    /// Gives a job to the disk.
    pub(super) fn start_job(&mut self, id: JobId, job: Job) {
        // It ends as soon as the metadata is there: nothing may be made on disk.
        if self.context.metadata_only {
            return;
        }
        self.open_storage();
        self.store.submit(id, job);
    }

    /// A job ended.
    pub(super) fn on_completion(&mut self, now: Instant, id: JobId, done: Completion) {
        self.store.on_done(id);
        self.core.handle_disk(now, id, done);
    }

    /// The disk failed. The core says so once, and tries it again by itself; at a place that can
    /// never work there is nothing to try.
    pub(super) fn on_disk_failed(&mut self, error: &Arc<DiskError>) {
        // Whoever shows the status tells it as a problem.
        tracing::info!(info_hash = %self.info_hash, %error, "the disk failed");
        if error.kind == DiskErrorKind::Unusable {
            return self.end_failed(Problem::Disk(Arc::clone(error)));
        }
        self.problem = Some(Problem::Disk(Arc::clone(error)));
        self.published.urgent = true;
    }

    /// The disk works again.
    pub(super) fn on_disk_recovered(&mut self) {
        if let Some(Problem::Disk(_)) = self.problem {
            tracing::info!(info_hash = %self.info_hash, "the disk works again");
            self.problem = None;
            self.published.urgent = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use sha1::{Digest, Sha1};

    use super::*;
    use crate::disk::Disk;
    use crate::metainfo::build::InfoDraft;
    use crate::metainfo::{BLOCK_LENGTH, Info};

    #[tokio::test]
    async fn the_end_waits_for_pieces_that_are_being_hashed() {
        let folder = tempfile::tempdir().unwrap();
        let length: u32 = 16 << 20;
        let content = vec![7; usize::try_from(length).unwrap()];
        let draft = InfoDraft {
            name: "file".to_owned(),
            piece_length: length,
            files: vec![(Vec::new(), length.into())],
            single: true,
            ..InfoDraft::default()
        };
        let info = Arc::new(Info::parse(draft.encode(&Sha1::digest(&content))).unwrap());
        let piece = info.geometry().piece(0).unwrap();
        let blocks = info.geometry().block_count(piece);
        let room = usize::try_from(blocks).unwrap() + 1;
        let (sender, mut completions) = mpsc::channel(room);
        let disk = Disk::start(1).unwrap();
        let root = folder.path().to_owned();
        let storage = disk.open(Arc::clone(&info), root, sender.clone());
        let mut store = Store::new(sender);
        store.storage.send_replace(Some(storage.clone()));
        // The first block comes last, so all others have to be read back.
        for number in (0..blocks).rev() {
            let block = info.geometry().block(piece, number).unwrap();
            let data = vec![7; usize::try_from(BLOCK_LENGTH).unwrap()];
            let data = Bytes::from(data).into();
            store.submit(JobId(number.into()), Job::Write { block, data });
        }
        let job = Job::Verify {
            piece,
            blocks: false,
        };
        store.submit(JobId(blocks.into()), job);
        store.finish(&mut completions).await;
        storage.sync().await.unwrap();
        assert!(storage.resume().pieces.is_full());
        disk.stop();
    }
}
