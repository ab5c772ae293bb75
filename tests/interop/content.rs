//! Content to move, and the means to compare it.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use data_encoding::HEXLOWER;
use sha2::{Digest, Sha256};

/// Bytes of the single-file content.
const FILE_LENGTH: usize = 200 << 20;

/// Files in the folder content.
const FOLDER_FILES: usize = 1_000;

/// One in so many files of the folder is large, so that the folder is longer than two pieces of
/// 16 MiB and has files that are longer than many small ones together.
const LARGE_EVERY: usize = 50;

/// One in so many files of the folder is empty.
const EMPTY_EVERY: usize = 91;

/// Names in several scripts, one of them right to left, one composed, one beyond the basic plane.
const NAMES: [&str; 8] = [
    "plain",
    "Übergrößen",
    "данные",
    "数据文件",
    "ملف",
    "データ",
    "नमस्ते",
    "🎈 party",
];

/// What is moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Content {
    /// One file of 200 MiB.
    File,
    /// 1,000 files in nested folders, some of them empty.
    Folder,
}

impl Content {
    /// The name of the file or folder.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::File => "file of 200 MiB.bin",
            Self::Folder => "folder mit Ümläuten",
        }
    }

    /// Writes it into a folder, unless it is there from before.
    pub(crate) fn write(self, folder: &Path) -> PathBuf {
        let path = folder.join(self.name());
        if !path.exists() {
            match self {
                Self::File => write_file(&path, FILE_LENGTH),
                Self::Folder => write_folder(&path),
            }
        }
        path
    }
}

/// Bytes that do not compress, the same for the same seed.
struct Noise(u64);

impl Noise {
    fn fill(&mut self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            // xorshift64: any non-zero state has a period of 2^64 - 1.
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            chunk.copy_from_slice(&self.0.to_le_bytes()[..chunk.len()]);
        }
    }
}

/// Writes one file of whole MiB.
pub(crate) fn write_file(path: &Path, length: usize) {
    let mut noise = Noise(0x9e37_79b9_7f4a_7c15);
    let mut buffer = vec![0; 1 << 20];
    let mut file = fs::File::create(path).unwrap();
    for _ in 0..length / buffer.len() {
        noise.fill(&mut buffer);
        file.write_all(&buffer).unwrap();
    }
}

/// Writes 1,000 files: nested folders, odd lengths, some empty, some large, names in several
/// scripts.
fn write_folder(root: &Path) {
    let mut noise = Noise(0x2545_f491_4f6c_dd1d);
    for number in 0..FOLDER_FILES {
        let name = NAMES[number % NAMES.len()];
        let folder = match number % 5 {
            0 => root.to_path_buf(),
            1 => root.join("one"),
            2 => root.join("one/two/three"),
            3 => root.join(name),
            _ => root.join(format!("nested {}", number % 13)).join(name),
        };
        fs::create_dir_all(&folder).unwrap();
        let length = if number % EMPTY_EVERY == 7 {
            0
        } else if number % LARGE_EVERY == 11 {
            (2 << 20) + number
        } else {
            number * 37 % 9_000 + 1
        };
        let mut bytes = vec![0; length];
        noise.fill(&mut bytes);
        fs::write(folder.join(format!("{name} {number}.dat")), bytes).unwrap();
    }
}

/// What becomes of empty files in a copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EmptyFiles {
    /// They are there like all others.
    Made,
    /// Whoever made the copy may have left them out.
    Optional,
}

/// Asserts that two files or folders of one name have the same files with the same SHA-256.
#[track_caller]
pub(crate) fn check_equal(original: &Path, copy: &Path, empty_files: EmptyFiles) {
    let expected = hashes(original);
    assert!(!expected.is_empty());
    let mut found = hashes(copy);
    let nothing = hex(Sha256::new());
    // Named one by one: a thousand hashes say nothing to whoever reads the failure.
    for (path, hash) in expected {
        let copied = found.remove(&path);
        let is_left_out =
            empty_files == EmptyFiles::Optional && hash == nothing && copied.is_none();
        assert!(
            is_left_out || copied.as_ref() == Some(&hash),
            "{path}: {copied:?}, not {hash}"
        );
    }
    assert!(found.is_empty(), "more than was there: {:?}", found.keys());
}

/// SHA-256 of every file below `root` (or of `root` itself, under its own name) by relative path.
/// Pad files, which some programs write, are left out.
fn hashes(root: &Path) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut pending = vec![root.to_path_buf()];
    while let Some(path) = pending.pop() {
        if path.is_dir() {
            pending.extend(
                fs::read_dir(&path)
                    .unwrap()
                    .map(|entry| entry.unwrap().path()),
            );
            continue;
        }
        let relative = path.strip_prefix(root.parent().unwrap()).unwrap();
        if !relative.components().any(|part| part.as_os_str() == ".pad") {
            found.insert(relative.to_str().unwrap().to_owned(), hash(&path));
        }
    }
    found
}

fn hash(path: &Path) -> String {
    let mut sha = Sha256::new();
    let mut file = fs::File::open(path).unwrap();
    let mut buffer = vec![0; 1 << 20];
    loop {
        let read = file.read(&mut buffer).unwrap();
        if read == 0 {
            return hex(sha);
        }
        sha.update(&buffer[..read]);
    }
}

/// A digest in hexadecimal.
fn hex(sha: Sha256) -> String {
    HEXLOWER.encode(&sha.finalize())
}
