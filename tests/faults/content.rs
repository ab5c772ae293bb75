//! Content to move, its .torrent file, and the means to compare it.

use std::fs;
use std::io::Read;
use std::ops::Range;
use std::path::{Path, PathBuf};

use sha1::{Digest, Sha1};
use sha2::Sha256;

use crate::bencode::{dictionary, string_of};

/// Bytes of a block, as everybody asks for them.
pub(crate) const BLOCK: usize = 1 << 14;

/// A torrent with its bytes in memory.
pub(crate) struct Content {
    /// Name of the file or folder.
    pub(crate) name: String,
    /// Names below the folder and lengths; for a single file its own name.
    files: Vec<(String, usize)>,
    single: bool,
    /// All files, one after another.
    pub(crate) bytes: Vec<u8>,
    /// Bytes in a piece.
    pub(crate) piece_length: usize,
    /// The info dictionary.
    pub(crate) info: Vec<u8>,
    /// Its SHA-1.
    pub(crate) info_hash: [u8; 20],
}

impl Content {
    /// One file of bytes that do not compress, the same for the same seed.
    pub(crate) fn file(seed: u64, length: usize, piece_length: usize) -> Self {
        let name = format!("content {seed}.bin");
        let files = vec![(name.clone(), length)];
        Self::new(seed, name, files, true, piece_length)
    }

    /// The same as a private torrent (BEP 27).
    pub(crate) fn private_file(seed: u64, length: usize, piece_length: usize) -> Self {
        let mut content = Self::file(seed, length, piece_length);
        content.info.pop();
        content.info.extend(b"7:privatei1ee");
        content.info_hash = Sha1::digest(&content.info).into();
        content
    }

    /// A folder of `count` files of this length.
    pub(crate) fn folder(seed: u64, count: usize, length: usize, piece_length: usize) -> Self {
        let files = (0..count)
            .map(|number| (format!("{number:05}.dat"), length))
            .collect();
        Self::new(seed, format!("folder {seed}"), files, false, piece_length)
    }

    fn new(
        seed: u64,
        name: String,
        files: Vec<(String, usize)>,
        single: bool,
        piece_length: usize,
    ) -> Self {
        let mut bytes = vec![0; files.iter().map(|(_, length)| length).sum()];
        Noise::new(seed).fill(&mut bytes);
        let hashes: Vec<u8> = bytes
            .chunks(piece_length)
            .flat_map(|piece| Sha1::digest(piece).to_vec())
            .collect();
        let integer = |number: usize| format!("i{number}e").into_bytes();
        let name_value = string_of(name.as_bytes());
        let (piece_value, hash_value) = (integer(piece_length), string_of(&hashes));
        let rest: [(&str, &[u8]); 3] = [
            ("name", &name_value),
            ("piece length", &piece_value),
            ("pieces", &hash_value),
        ];
        let mut list = vec![b'l'];
        for (path, length) in &files {
            let path = [b"l", &string_of(path.as_bytes())[..], b"e"].concat();
            list.extend(dictionary(&[
                ("length", &integer(*length)),
                ("path", &path),
            ]));
        }
        list.push(b'e');
        let length = integer(bytes.len());
        let first: (&str, &[u8]) = if single {
            ("length", &length)
        } else {
            ("files", &list)
        };
        let info = dictionary(&[first, rest[0], rest[1], rest[2]]);
        Self {
            info_hash: Sha1::digest(&info).into(),
            name,
            files,
            single,
            bytes,
            piece_length,
            info,
        }
    }

    /// Pieces of the torrent.
    pub(crate) fn pieces(&self) -> usize {
        self.bytes.len().div_ceil(self.piece_length)
    }

    /// The bitfield of somebody who has everything.
    pub(crate) fn full_bitfield(&self) -> Vec<u8> {
        let mut bits = vec![0; self.pieces().div_ceil(8)];
        for piece in 0..self.pieces() {
            bits[piece / 8] |= 0x80 >> (piece % 8);
        }
        bits
    }

    /// The bytes of a block; `None` if the torrent has no such block.
    pub(crate) fn block(&self, piece: u32, offset: u32, length: u32) -> Option<&[u8]> {
        let start = to_usize(piece) * self.piece_length + to_usize(offset);
        let end = start.checked_add(to_usize(length))?;
        let piece_end = (to_usize(piece) + 1) * self.piece_length;
        self.bytes.get(start..end).filter(|_| end <= piece_end)
    }

    /// The info hash in hexadecimal.
    pub(crate) fn hash_text(&self) -> String {
        hexadecimal(&self.info_hash)
    }

    /// A magnet link with the info hash and nothing else.
    pub(crate) fn magnet(&self) -> String {
        format!("magnet:?xt=urn:btih:{}", self.hash_text())
    }

    /// Writes a .torrent file into a folder and gives its path.
    pub(crate) fn write_torrent(&self, folder: &Path) -> String {
        let path = folder.join(format!("{}.torrent", self.hash_text()));
        fs::write(&path, dictionary(&[("info", &self.info)])).unwrap();
        path.to_str().unwrap().to_owned()
    }

    /// The same with a tracker.
    pub(crate) fn write_torrent_with(&self, folder: &Path, tracker: &str) -> String {
        let path = folder.join(format!("{}.torrent", self.hash_text()));
        let announce = string_of(tracker.as_bytes());
        let torrent = dictionary(&[("announce", &announce), ("info", &self.info)]);
        fs::write(&path, torrent).unwrap();
        path.to_str().unwrap().to_owned()
    }

    /// The same with several trackers, each in a tier of its own (BEP 12).
    pub(crate) fn write_torrent_with_all(&self, folder: &Path, trackers: &[String]) -> String {
        let path = folder.join(format!("{}.torrent", self.hash_text()));
        let tier = |tracker: &String| [b"l", &string_of(tracker.as_bytes())[..], b"e"].concat();
        let tiers: Vec<u8> = trackers.iter().flat_map(tier).collect();
        let tiers = [b"l", &tiers[..], b"e"].concat();
        let torrent = dictionary(&[("announce-list", &tiers), ("info", &self.info)]);
        fs::write(&path, torrent).unwrap();
        path.to_str().unwrap().to_owned()
    }

    /// The paths of the files when the torrent lies in `root`, with the place of their bytes.
    pub(crate) fn paths(&self, root: &Path) -> Vec<(PathBuf, &[u8])> {
        let mut start = 0;
        let mut paths = Vec::new();
        for (name, length) in &self.files {
            let mut path = root.to_owned();
            if !self.single {
                path.push(&self.name);
            }
            path.push(name);
            paths.push((path, &self.bytes[start..start + length]));
            start += length;
        }
        paths
    }

    /// Writes all files below `root`.
    pub(crate) fn write(&self, root: &Path) {
        for (path, bytes) in self.paths(root) {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, bytes).unwrap();
        }
    }

    /// Compares the SHA-256 of every file below `root`.
    #[track_caller]
    pub(crate) fn check(&self, root: &Path) {
        for (path, bytes) in self.paths(root) {
            let expected = hexadecimal(&Sha256::digest(bytes));
            if sha256(&path) != expected {
                let wrong = differences(&fs::read(&path).unwrap(), bytes);
                panic!("{}: wrong at {wrong:?}", path.display());
            }
        }
    }
}

/// Where two files differ, in ranges of whole KiB; a missing end is one too.
fn differences(found: &[u8], expected: &[u8]) -> Vec<Range<usize>> {
    const STEP: usize = 1 << 10;
    let mut ranges: Vec<Range<usize>> = Vec::new();
    for start in (0..found.len().max(expected.len())).step_by(STEP) {
        let part = |bytes: &[u8]| {
            let end = bytes.len().min(start + STEP);
            bytes.get(start..end).map(<[u8]>::to_vec)
        };
        if part(found) == part(expected) {
            continue;
        }
        match ranges.last_mut() {
            Some(last) if last.end == start => last.end += STEP,
            _ => ranges.push(start..start + STEP),
        }
    }
    ranges
}

/// SHA-256 of a file.
#[track_caller]
pub(crate) fn sha256(path: &Path) -> String {
    let mut sha = Sha256::new();
    let mut file =
        fs::File::open(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let mut buffer = vec![0; 1 << 20];
    loop {
        let read = file.read(&mut buffer).unwrap();
        if read == 0 {
            return hexadecimal(&sha.finalize());
        }
        sha.update(&buffer[..read]);
    }
}

/// Two digits a byte.
pub(crate) fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A number from the wire as an index.
pub(crate) fn to_usize(number: u32) -> usize {
    usize::try_from(number).unwrap()
}

/// Numbers that look random, the same for the same seed.
pub(crate) struct Noise(u64);

impl Noise {
    /// A generator for a seed.
    pub(crate) fn new(seed: u64) -> Self {
        // Any state but zero is good for xorshift.
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// The next number.
    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// A number below `end`.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        // The upper bits of xorshift are the better ones.
        (self.next() >> 16) % end
    }

    /// Fills a buffer.
    pub(crate) fn fill(&mut self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            let number = self.next().to_le_bytes();
            chunk.copy_from_slice(&number[..chunk.len()]);
        }
    }
}
