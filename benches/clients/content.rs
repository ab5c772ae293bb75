//! What is moved: files, and the torrent that names them.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use crate::lab::Lab;

/// The name of a file or folder that is moved.
const NAME: &str = "content";

/// How many files of which length.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shape {
    /// One file lies alone, more lie in a folder.
    pub(crate) files: u64,
    /// Bytes of each.
    pub(crate) length: u64,
    /// As `create` takes it.
    pub(crate) piece_length: &'static str,
}

impl Shape {
    /// GiB of it all.
    pub(crate) fn gibibytes(self) -> f64 {
        let mebibytes = (self.files * self.length) >> 20;
        f64::from(u32::try_from(mebibytes).unwrap()) / 1_024.0
    }
}

/// Content, its torrent, and where it comes to lie.
pub(crate) struct Lot<'a> {
    pub(crate) lab: &'a Lab,
    folder: tempfile::TempDir,
    /// Path of the torrent.
    pub(crate) torrent: String,
    /// 40 hexadecimal digits.
    pub(crate) info_hash: String,
    /// The link that `create` printed.
    pub(crate) magnet: String,
}

impl<'a> Lot<'a> {
    /// Makes content for as many copies as will lie beside one another.
    pub(crate) fn prepare(lab: &'a Lab, shape: Shape, copies: u64, tracker: Option<&str>) -> Self {
        let folder = roomy_folder(shape.files * shape.length * (copies + 1));
        let original = folder.path().join("original");
        fs::create_dir(&original).unwrap();
        write(&original.join(NAME), shape);
        let torrent = folder.path().join("content.torrent");
        let torrent = torrent.to_str().unwrap().to_owned();
        let path = original.join(NAME);
        let mut all = vec!["create", path.to_str().unwrap(), "-o", &torrent, "--json"];
        all.extend(["--piece-length", shape.piece_length]);
        if let Some(tracker) = tracker {
            all.extend(["--tracker", tracker]);
        }
        let binary = Path::new(env!("CARGO_BIN_EXE_trackless"));
        let mut create = lab.start("create", binary, &all);
        let line = create.wait_for("the result", |line| line.contains("info_hash"));
        create.wait();
        let result: serde_json::Value = serde_json::from_str(&line).unwrap();
        let text = |key: &str| result[key].as_str().unwrap().to_owned();
        Self {
            lab,
            folder,
            torrent,
            info_hash: text("info_hash"),
            magnet: text("magnet"),
        }
    }

    /// The folder that holds the content under its own name.
    pub(crate) fn original(&self) -> PathBuf {
        self.folder.path().join("original")
    }

    /// The folder that a host downloads into.
    pub(crate) fn fetched(&self, host: u8) -> PathBuf {
        self.folder.path().join(format!("fetched-{host}"))
    }

    /// A folder for what a program keeps beside the content, empty.
    pub(crate) fn kept(&self, host: u8) -> PathBuf {
        let folder = self.folder.path().join(format!("kept-{host}"));
        empty(&folder);
        folder
    }

    /// Makes the folder of a host anew.
    pub(crate) fn clear(&self, host: u8) {
        empty(&self.fetched(host));
    }

    /// Checks that what a host got is what there is, and takes it away.
    pub(crate) fn compare(&self, host: u8) {
        let fetched = self.fetched(host);
        let original = self.original();
        let files = files_in(&original);
        assert!(!files.is_empty(), "nothing was made");
        for file in &files {
            let path = file.strip_prefix(&original).unwrap();
            compare(file, &fetched.join(path));
        }
        fs::remove_dir_all(fetched).unwrap();
    }
}

/// Bytes on disk of all files in a folder, up to `enough`.
pub(crate) fn bytes_in(folder: &Path, enough: u64) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let mut sum = 0;
    for file in files_in(folder) {
        // What is set aside, or a hole, is not there yet.
        sum += fs::metadata(file).map_or(0, |file| file.blocks() * 512);
        if sum >= enough {
            break;
        }
    }
    sum
}

/// A folder in memory if it has room for so many bytes, else on disk.
pub(crate) fn roomy_folder(bytes: u64) -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    let has_room = fs::create_dir_all(memory).is_ok()
        && rustix::fs::statvfs(memory)
            .is_ok_and(|at| at.f_bavail * at.f_frsize > bytes + (256 << 20));
    if has_room {
        tempfile::tempdir_in(memory).unwrap()
    } else {
        println!("/dev/shm has too little room: files are on disk");
        tempfile::tempdir().unwrap()
    }
}

fn empty(folder: &Path) {
    let _ = fs::remove_dir_all(folder);
    fs::create_dir(folder).unwrap();
}

fn write(path: &Path, shape: Shape) {
    // Any state but zero will do.
    let mut state = 0x9e37_79b9_7f4a_7c15;
    if shape.files == 1 {
        write_noise(path, shape.length, &mut state);
        return;
    }
    for number in 0..shape.files {
        let folder = path.join(format!("{:02}", number / 100));
        fs::create_dir_all(&folder).unwrap();
        let name = format!("{number:05}.bin");
        write_noise(&folder.join(name), shape.length, &mut state);
    }
}

/// Writes bytes that do not compress.
pub(crate) fn write_noise(path: &Path, length: u64, state: &mut u64) {
    let mut file = File::create(path).unwrap();
    let mut buffer = vec![0; 1 << 16];
    let mut left = usize::try_from(length).unwrap();
    while left > 0 {
        for chunk in buffer.chunks_exact_mut(8) {
            // xorshift64: any non-zero state has a period of 2^64 - 1.
            *state ^= *state << 13;
            *state ^= *state >> 7;
            *state ^= *state << 17;
            chunk.copy_from_slice(&state.to_le_bytes());
        }
        let count = left.min(buffer.len());
        file.write_all(&buffer[..count]).unwrap();
        left -= count;
    }
}

/// All files in a folder and the folders inside, as they come.
fn files_in(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        let Ok(entries) = fs::read_dir(folder) else {
            continue;
        };
        for entry in entries.map_while(Result::ok) {
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => folders.push(entry.path()),
                Ok(_) => files.push(entry.path()),
                Err(_) => {}
            }
        }
    }
    files
}

fn compare(original: &Path, fetched: &Path) {
    let mut pair = [original, fetched].map(|path| File::open(path).unwrap());
    let mut buffers = [vec![0; 1 << 18], vec![0; 1 << 18]];
    loop {
        let read = read_full(&mut pair[0], &mut buffers[0]);
        let other = read_full(&mut pair[1], &mut buffers[1]);
        assert_eq!(read, other, "other length: {}", fetched.display());
        assert!(buffers[0][..read] == buffers[1][..read], "other content");
        if read == 0 {
            return;
        }
    }
}

/// Reads until the buffer is full or the file ends.
fn read_full(file: &mut File, buffer: &mut [u8]) -> usize {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read(&mut buffer[filled..]).unwrap() {
            0 => break,
            read => filled += read,
        }
    }
    filled
}
