//! Real files in temporary folders.

use std::fs;
use std::ops::Range;
use std::path::Path;
use std::sync::atomic::AtomicI32;
use std::time::Duration;

use sha1::{Digest, Sha1};
use tempfile::TempDir;
use tokio::runtime::Runtime;

use super::*;
use crate::wire::Payload;

mod adopt;
mod changes;
mod choice;
mod faults;
mod hashing;
mod jobs;
mod resuming;
mod verifying;

/// What the system shall say instead of doing what it is asked.
#[derive(Debug, Default)]
pub(super) struct Faults {
    /// To a write; 0 lets it pass.
    pub(super) write: AtomicI32,
    /// To a sync; 0 lets it pass.
    pub(super) sync: AtomicI32,
    /// Bytes of a file that cannot be read.
    pub(super) unreadable: Mutex<Option<(usize, Range<u64>)>>,
    /// Free bytes on the disk; `None` for what the system says.
    pub(super) room: Mutex<Option<u64>>,
    /// Once space was set aside; 0 lets it pass.
    pub(super) allocate: AtomicI32,
}

impl Faults {
    pub(super) fn on_write(&self, path: &Path) -> Result<(), DiskError> {
        fault(&self.write, path)
    }

    /// To a check that reads these bytes of a file.
    pub(super) fn on_read(
        &self,
        path: &Path,
        file: usize,
        offset: u64,
        bytes: &[u8],
    ) -> Result<(), DiskError> {
        let end = offset + u64::try_from(bytes.len()).unwrap();
        match &*self.unreadable.lock().unwrap() {
            Some((bad, at)) if *bad == file && at.start < end && offset < at.end => {
                let failed = io::Error::from_raw_os_error(rustix::io::Errno::IO.raw_os_error());
                Err(error::system(path, failed))
            }
            _ => Ok(()),
        }
    }

    pub(super) fn room(&self) -> Option<u64> {
        *self.room.lock().unwrap()
    }

    pub(super) fn on_allocate(&self) -> rustix::io::Result<()> {
        match self.allocate.load(Ordering::Relaxed) {
            0 => Ok(()),
            code => Err(rustix::io::Errno::from_raw_os_error(code)),
        }
    }

    pub(super) fn on_sync(&self, path: &Path) -> Result<(), DiskError> {
        fault(&self.sync, path)
    }
}

fn fault(code: &AtomicI32, path: &Path) -> Result<(), DiskError> {
    match code.load(Ordering::Relaxed) {
        0 => Ok(()),
        code => Err(error::system(path, io::Error::from_raw_os_error(code))),
    }
}

/// Bytes in a piece of the test torrents: two blocks.
const PIECE_LENGTH: usize = 32 << 10;

/// Longer than any job here takes; ends a test that hangs.
const PATIENCE: Duration = Duration::from_secs(60);

/// Bytes that look like nothing else and differ by position and by `seed`.
fn content(length: usize, seed: u8) -> Vec<u8> {
    let mut block = Sha1::digest([seed]);
    let mut bytes = Vec::with_capacity(length + 20);
    while bytes.len() < length {
        block = Sha1::digest(block);
        bytes.extend_from_slice(&block);
    }
    bytes.truncate(length);
    bytes
}

/// A file of a test torrent; a pad file when `path` is empty.
struct TestFile {
    path: &'static str,
    content: Vec<u8>,
}

fn file(path: &'static str, length: usize) -> TestFile {
    let seed = path.bytes().fold(7, u8::wrapping_add);
    TestFile {
        path,
        content: content(length, seed),
    }
}

fn pad(length: usize) -> TestFile {
    TestFile {
        path: "",
        content: vec![0; length],
    }
}

/// The folder torrent `t` with these files, written by hand because drafts have no pad files.
fn info(files: &[TestFile]) -> Arc<Info> {
    let all: Vec<u8> = files.iter().flat_map(|f| f.content.clone()).collect();
    let mut out = b"d5:filesl".to_vec();
    for file in files {
        let attribute = if file.path.is_empty() {
            "4:attr1:p"
        } else {
            ""
        };
        let path = if file.path.is_empty() {
            ".pad/1"
        } else {
            file.path
        };
        let parts: String = path
            .split('/')
            .map(|part| format!("{}:{part}", part.len()))
            .collect();
        let length = file.content.len();
        out.extend(format!("d{attribute}6:lengthi{length}e4:pathl{parts}ee").into_bytes());
    }
    let hashes: Vec<u8> = all
        .chunks(PIECE_LENGTH)
        .flat_map(|piece| Sha1::digest(piece).to_vec())
        .collect();
    let header = format!(
        "e4:name1:t12:piece lengthi{PIECE_LENGTH}e6:pieces{}:",
        hashes.len()
    );
    out.extend(header.into_bytes());
    out.extend(hashes);
    out.push(b'e');
    Arc::new(Info::parse(out.into()).unwrap())
}

/// A disk, one torrent on it, and the folder it goes to.
struct Bench {
    runtime: Runtime,
    folder: TempDir,
    disk: Disk,
    storage: Storage,
    completions: mpsc::Receiver<(JobId, Completion)>,
    info: Arc<Info>,
    /// Everything in the torrent, pad bytes included.
    all: Vec<u8>,
    jobs: u64,
}

impl Bench {
    fn new(files: &[TestFile]) -> Self {
        Self::in_folder(files, TempDir::new().unwrap())
    }

    fn in_folder(files: &[TestFile], folder: TempDir) -> Self {
        Self::with(files, folder, Options::default())
    }

    fn with(files: &[TestFile], folder: TempDir, options: Options) -> Self {
        let info = info(files);
        let disk = Disk::start(2).unwrap();
        let (sender, completions) = mpsc::channel(1_000);
        let storage = disk.open_with(Arc::clone(&info), folder.path().to_owned(), options, sender);
        Self {
            runtime: tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap(),
            folder,
            disk,
            storage,
            completions,
            info,
            all: files.iter().flat_map(|f| f.content.clone()).collect(),
            jobs: 0,
        }
    }

    /// The same folder, as a process that starts anew sees it.
    fn restart(self, files: &[TestFile]) -> Self {
        self.restart_with(files, Options::default())
    }

    fn restart_with(self, files: &[TestFile], options: Options) -> Self {
        let Self { folder, disk, .. } = self;
        disk.stop();
        Self::with(files, folder, options)
    }

    fn path(&self, path: &str) -> PathBuf {
        self.folder.path().join("t").join(path)
    }

    fn part(&self, path: &str) -> PathBuf {
        let path = self.path(path);
        let name = path.file_name().unwrap().to_str().unwrap();
        path.with_file_name(part_name(name, self.info.info_hash()))
    }

    fn place(&self, path: &str, bytes: &[u8]) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }

    fn submit(&mut self, job: Job) -> JobId {
        self.jobs += 1;
        self.storage.submit(JobId(self.jobs), job);
        JobId(self.jobs)
    }

    fn wait(&mut self, id: JobId) -> Completion {
        let wait = async { tokio::time::timeout(PATIENCE, self.completions.recv()).await };
        let (done, completion) = self.runtime.block_on(wait).unwrap().unwrap();
        assert_eq!(done, id);
        completion
    }

    fn run(&mut self, job: Job) -> Completion {
        let id = self.submit(job);
        self.wait(id)
    }

    fn piece(&self, index: u32) -> PieceIndex {
        self.info.geometry().piece(index).unwrap()
    }

    fn block(&self, piece: u32, number: u32) -> BlockRef {
        self.info
            .geometry()
            .block(self.piece(piece), number)
            .unwrap()
    }

    fn bytes_of(&self, block: BlockRef) -> &[u8] {
        let start = self.info.geometry().start_of(block.piece) + u64::from(block.offset);
        let start = usize::try_from(start).unwrap();
        &self.all[start..start + usize::try_from(block.length).unwrap()]
    }

    /// Writes a block, in three slices, as a stream would bring it.
    fn write(&mut self, block: BlockRef, bytes: &[u8]) -> Completion {
        let mut data = Payload::default();
        for slice in bytes.chunks(bytes.len() / 2 - 1) {
            data.push(Bytes::copy_from_slice(slice));
        }
        self.run(Job::Write { block, data })
    }

    /// Writes a piece as it should be, in the order of these block numbers.
    fn write_piece(&mut self, piece: u32, order: impl IntoIterator<Item = u32>) {
        for number in order {
            let block = self.block(piece, number);
            let bytes = self.bytes_of(block).to_vec();
            let done = self.write(block, &bytes);
            assert!(matches!(done, Completion::Written { .. }), "{done:?}");
        }
    }

    fn write_blocks(&mut self, piece: u32) {
        let count = self.info.geometry().block_count(self.piece(piece));
        self.write_piece(piece, 0..count);
    }

    fn verify(&mut self, piece: u32) -> bool {
        let piece = self.piece(piece);
        match self.run(Job::Verify {
            piece,
            blocks: false,
        }) {
            Completion::Verified { valid, .. } => valid,
            other => panic!("{other:?}"),
        }
    }

    fn download(&mut self) {
        for piece in 0..self.info.geometry().piece_count() {
            self.write_blocks(piece);
            assert!(self.verify(piece), "piece {piece}");
        }
    }

    fn check(&mut self) -> Result<Vec<u32>, Arc<DiskError>> {
        match self.run(Job::CheckAll) {
            Completion::Checked { have } => Ok(have.ones().collect()),
            Completion::Failed { error } => Err(error),
            other => panic!("{other:?}"),
        }
    }

    /// Numbers of the pieces that a sync makes durable.
    fn sync(&mut self) -> Result<Vec<u32>, Arc<DiskError>> {
        match self.run(Job::Sync) {
            Completion::Synced { pieces, changed } if changed.is_empty() => {
                Ok(pieces.iter().map(|p| p.get()).collect())
            }
            Completion::Failed { error } => Err(error),
            other => panic!("{other:?}"),
        }
    }

    fn inspect(&mut self) -> Vec<usize> {
        match self.run(Job::Inspect) {
            Completion::Inspected { changed } => changed,
            other => panic!("{other:?}"),
        }
    }

    /// Checks files; gives the pieces that were looked at and those that are good.
    fn check_files(&mut self, files: &[usize]) -> (Vec<u32>, Vec<u32>) {
        let files = files.to_vec();
        match self.run(Job::CheckFiles { files }) {
            Completion::FilesChecked { checked, have } => {
                (checked.ones().collect(), have.ones().collect())
            }
            other => panic!("{other:?}"),
        }
    }

    fn read(&self, block: BlockRef) -> Result<Bytes, Arc<DiskError>> {
        let answer = self.runtime.block_on(self.storage.order_read(block));
        answer.unwrap_or_else(|_| Err(error::stopped(self.storage.shared.files.root())))
    }

    #[track_caller]
    fn check_occupied(&mut self, path: &str) {
        let error = self.check().unwrap_err();
        assert_eq!(error.kind, DiskErrorKind::Occupied, "{error}");
        assert_eq!(error.path, self.path(path));
    }

    #[track_caller]
    fn assert_complete(&self, files: &[TestFile]) {
        for file in files.iter().filter(|file| !file.path.is_empty()) {
            let found = fs::read(self.path(file.path)).unwrap();
            assert!(found == file.content, "{} differs", file.path);
            assert!(!self.part(file.path).exists(), "{} is left", file.path);
        }
    }
}
