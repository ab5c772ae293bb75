//! Names of incomplete files.

use std::collections::BTreeSet;
use std::path::PathBuf;

use sha1::{Digest, Sha1};

use super::PART_SUFFIX;
use crate::id::InfoHash;
use crate::metainfo;

/// Bytes in a file name that every common file system takes.
const NAME_LENGTH_MAX: usize = 255;

/// The name of an incomplete file: `NAME.HASH.trackless-part` with the first digits of the info
/// hash, so that two torrents with a file of one name do not write into each other. A name that
/// would get too long is shortened, and told apart from others by a hash.
#[must_use]
pub fn part_name(name: &str, info_hash: InfoHash) -> String {
    /// Bytes kept of a long name.
    const KEPT: usize = 180;
    /// Hexadecimal digits of a hash: 64 bits tell all files and torrents of a folder apart.
    const DIGITS: usize = 16;
    let torrent = &info_hash.to_string()[..DIGITS];
    let part = format!("{name}.{torrent}{PART_SUFFIX}");
    if part.len() <= NAME_LENGTH_MAX {
        return part;
    }
    let hash = data_encoding::HEXLOWER.encode(&Sha1::digest(name.as_bytes()));
    let boundary = (0..=KEPT).rev().find(|&at| name.is_char_boundary(at));
    let kept = &name[..boundary.unwrap_or(0)];
    format!("{kept}~{}.{torrent}{PART_SUFFIX}", &hash[..DIGITS])
}

/// All paths, if any name in the torrent looks like that of an incomplete file.
pub(super) fn taken_paths(files: &[metainfo::File]) -> BTreeSet<PathBuf> {
    let is_part = |name: &String| name.ends_with(PART_SUFFIX);
    if !files.iter().any(|file| file.path.iter().any(is_part)) {
        return BTreeSet::new();
    }
    let mut taken = BTreeSet::new();
    for file in files.iter().filter(|file| !file.is_pad) {
        let mut path = PathBuf::new();
        for component in &file.path {
            path.push(component);
            taken.insert(path.clone());
        }
    }
    taken
}
