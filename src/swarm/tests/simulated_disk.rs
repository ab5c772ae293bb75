//! A disk in memory that completes jobs after a delay, and can stop and fail.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use sha1::{Digest, Sha1};

use super::Content;
use crate::bitfield::Bitfield;
use crate::metainfo::{BlockRef, Info, PieceIndex};
use crate::swarm::{BlockDigest, Completion, DiskError, DiskErrorKind, Job, JobId};

/// The content of one torrent on one host.
#[derive(Debug)]
pub(super) struct SimulatedDisk {
    info: Option<Arc<Info>>,
    pub(super) bytes: Vec<u8>,
    /// What was found right and not overwritten since.
    good: Bitfield,
    /// Time from a job to its completion.
    pub(super) delay: Duration,
    /// Jobs are kept, none is done.
    pub(super) stopped: bool,
    /// Writes and syncs fail.
    pub(super) failing: bool,
    /// Syncs fail.
    pub(super) failing_syncs: bool,
    /// Checks of everything fail.
    pub(super) failing_checks: bool,
    /// Pieces cannot be hashed.
    pub(super) failing_reads: bool,
    /// The files were removed.
    is_gone: bool,
    /// Jobs that failed.
    pub(super) refused: usize,
    /// Jobs that came while it stood still.
    pub(super) held: VecDeque<(JobId, Job)>,
    /// Unfinished jobs and the bytes in them, and the most there ever were.
    pub(super) jobs: usize,
    pub(super) bytes_waiting: usize,
    pub(super) jobs_peak: usize,
    pub(super) bytes_peak: usize,
    /// Blocks written, those written twice included.
    pub(super) writes: usize,
    pub(super) checks: usize,
    /// Files that an inspection finds changed, until they are checked.
    pub(super) changed: Vec<usize>,
    /// Inspections done.
    pub(super) inspections: usize,
}

impl SimulatedDisk {
    pub(super) fn empty() -> Self {
        Self {
            info: None,
            bytes: Vec::new(),
            good: Bitfield::new(0),
            delay: Duration::from_millis(5),
            stopped: false,
            failing: false,
            failing_syncs: false,
            failing_checks: false,
            failing_reads: false,
            is_gone: false,
            refused: 0,
            held: VecDeque::new(),
            jobs: 0,
            bytes_waiting: 0,
            jobs_peak: 0,
            bytes_peak: 0,
            writes: 0,
            checks: 0,
            changed: Vec::new(),
            inspections: 0,
        }
    }

    pub(super) fn holding(content: &Content) -> Self {
        let mut disk = Self::empty();
        disk.know(&content.info);
        disk.bytes.copy_from_slice(&content.bytes);
        disk
    }

    /// The torrent's metadata came.
    pub(super) fn know(&mut self, info: &Arc<Info>) {
        if self.info.is_none() {
            let length = usize::try_from(info.geometry().total_length()).unwrap();
            self.bytes = vec![0; length];
            self.good = Bitfield::new(info.geometry().piece_count());
            self.info = Some(Arc::clone(info));
        }
    }

    pub(super) fn contents(&self) -> &[u8] {
        &self.bytes
    }

    /// Damages a piece as if somebody had changed the file.
    pub(super) fn damage(&mut self, piece: PieceIndex) {
        let start = self.range(piece, 0, 1).start;
        self.bytes[start] ^= 0xff;
    }

    /// Counts a job that comes in.
    pub(super) fn accept(&mut self, job: &Job) {
        self.jobs += 1;
        self.bytes_waiting += bytes_of(job);
        self.jobs_peak = self.jobs_peak.max(self.jobs);
        self.bytes_peak = self.bytes_peak.max(self.bytes_waiting);
    }

    /// Does a job.
    pub(super) fn perform(&mut self, job: Job) -> Completion {
        self.jobs -= 1;
        self.bytes_waiting -= bytes_of(&job);
        match job {
            Job::Write { .. } | Job::Sync if self.failing => self.refuse(DiskErrorKind::Full),
            Job::Sync if self.failing_syncs => self.refuse(DiskErrorKind::Other),
            Job::CheckAll if self.failing_checks => self.refuse(DiskErrorKind::Denied),
            Job::Verify { .. } if self.failing_reads => self.refuse(DiskErrorKind::Other),
            Job::Write { .. } if self.is_gone => self.refuse(DiskErrorKind::Missing),
            Job::Write { block, data } => {
                self.writes += 1;
                self.good.remove(block.piece.get());
                let range = self.range(block.piece, block.offset, block.length);
                self.bytes[range].copy_from_slice(&data.into_bytes());
                Completion::Written { block }
            }
            Job::Verify { piece, blocks } => {
                let valid = self.check(piece);
                let blocks = if valid && !blocks {
                    Vec::new()
                } else {
                    self.digests(piece)
                };
                Completion::Verified {
                    piece,
                    valid,
                    blocks,
                }
            }
            Job::Read {
                block,
                for_connection,
            } => Completion::Read {
                block,
                for_connection,
                data: self.read(block),
            },
            Job::Sync => Completion::Synced {
                pieces: Vec::new(),
                changed: self.changed.clone(),
            },
            Job::CheckAll => {
                self.checks += 1;
                let info = self.info.clone().expect("a check follows the metadata");
                for piece in info.geometry().pieces() {
                    self.check(piece);
                }
                let have = self.good.clone();
                Completion::Checked { have }
            }
            Job::Inspect => {
                self.inspections += 1;
                Completion::Inspected {
                    changed: self.changed.clone(),
                }
            }
            Job::CheckFiles { files } => {
                self.changed.clear();
                self.is_gone = false;
                self.check_files(&files)
            }
        }
    }

    fn refuse(&mut self, kind: DiskErrorKind) -> Completion {
        self.refused += 1;
        let error = DiskError {
            kind,
            ..DiskError::clone(&error())
        };
        Completion::Failed {
            error: Arc::new(error),
        }
    }

    /// Somebody removed the files: writes find that out, until they were checked.
    pub(super) fn lose_everything(&mut self) {
        self.bytes.fill(0);
        self.is_gone = true;
    }

    fn check_files(&mut self, files: &[usize]) -> Completion {
        let info = self.info.clone().expect("a check follows the metadata");
        let geometry = info.geometry();
        let mut checked = Bitfield::new(geometry.piece_count());
        let mut have = checked.clone();
        for piece in files.iter().flat_map(|&file| geometry.pieces_of_file(file)) {
            checked.insert(piece);
            if self.check(geometry.piece(piece).unwrap()) {
                have.insert(piece);
            }
        }
        Completion::FilesChecked { checked, have }
    }

    fn digests(&self, piece: PieceIndex) -> Vec<BlockDigest> {
        let info = self.info.clone().expect("pieces exist after the metadata");
        let blocks = info.geometry().blocks(piece);
        blocks
            .map(|block| {
                let range = self.range(piece, block.offset, block.length);
                Sha1::digest(&self.bytes[range]).into()
            })
            .collect()
    }

    fn check(&mut self, piece: PieceIndex) -> bool {
        let info = self.info.clone().expect("pieces exist after the metadata");
        let range = self.range(piece, 0, info.geometry().length_of(piece));
        let valid = Sha1::digest(&self.bytes[range]).as_slice() == info.piece_hash(piece);
        if valid {
            self.good.insert(piece.get());
        } else {
            self.good.remove(piece.get());
        }
        valid
    }

    /// The bytes of a block that is to be sent: only what was verified may be.
    pub(super) fn read(&self, block: BlockRef) -> Bytes {
        assert!(
            self.good.contains(block.piece.get()),
            "piece {} was served before it was verified",
            block.piece
        );
        Bytes::copy_from_slice(&self.bytes[self.range(block.piece, block.offset, block.length)])
    }

    fn range(&self, piece: PieceIndex, offset: u32, length: u32) -> std::ops::Range<usize> {
        let info = self.info.as_ref().expect("blocks exist after the metadata");
        let start = info.geometry().start_of(piece) + u64::from(offset);
        let start = usize::try_from(start).unwrap();
        start..start + usize::try_from(length).unwrap()
    }
}

fn bytes_of(job: &Job) -> usize {
    match job {
        Job::Write { data, .. } => data.len(),
        Job::Verify { .. }
        | Job::Read { .. }
        | Job::Sync
        | Job::CheckAll
        | Job::Inspect
        | Job::CheckFiles { .. } => 0,
    }
}

pub(super) fn error() -> Arc<DiskError> {
    Arc::new(DiskError {
        path: "content".into(),
        kind: DiskErrorKind::Full,
        message: "no space left".to_owned(),
    })
}
