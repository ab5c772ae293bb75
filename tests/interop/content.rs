//! Content to move, and the means to compare it.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::path::Path;

use sha2::{Digest, Sha256};

/// Bytes of the single-file content.
const FILE_LENGTH: usize = 200 << 20;

/// Files in the folder content.
const FOLDER_FILES: u32 = 1_000;

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

/// Writes one file of 200 MiB.
pub(crate) fn write_file(path: &Path) {
    let mut noise = Noise(0x9e37_79b9_7f4a_7c15);
    let mut buffer = vec![0; 1 << 20];
    let mut file = fs::File::create(path).unwrap();
    for _ in 0..FILE_LENGTH / buffer.len() {
        noise.fill(&mut buffer);
        file.write_all(&buffer).unwrap();
    }
}

/// Writes a folder of 1,000 small files: nested folders, an empty file, names in several scripts.
pub(crate) fn write_folder(root: &Path) {
    let mut noise = Noise(0x2545_f491_4f6c_dd1d);
    for number in 0..FOLDER_FILES {
        let name = NAMES[usize::try_from(number).unwrap() % NAMES.len()];
        let folder = match number % 5 {
            0 => root.to_path_buf(),
            1 => root.join("one"),
            2 => root.join("one/two/three"),
            3 => root.join(name),
            _ => root.join(format!("nested {}", number % 13)).join(name),
        };
        fs::create_dir_all(&folder).unwrap();
        let length = if number == 7 {
            0
        } else {
            usize::try_from(number * 37 % 9_000).unwrap() + 1
        };
        let mut bytes = vec![0; length];
        noise.fill(&mut bytes);
        fs::write(folder.join(format!("{name} {number}.dat")), bytes).unwrap();
    }
}

/// SHA-256 of every file below `root` (or of `root` itself, under its own name) by relative path.
/// Pad files, which some programs write, are left out.
pub(crate) fn hashes(root: &Path) -> BTreeMap<String, String> {
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
            return sha
                .finalize()
                .iter()
                .map(|byte| format!("{byte:02x}"))
                .collect();
        }
        sha.update(&buffer[..read]);
    }
}
