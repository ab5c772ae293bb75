//! Content that an earlier run hashed, and that nobody touched since.

use std::path::Path;

use super::{Prepared, is_torrent};
use crate::cli::create::{Options, draft, wrap};
use crate::disk::hash::{Collected, collect};
use crate::disk::vouched;
use crate::metainfo::Info;
use crate::session::StateDir;

/// What there is to seed at a path, if the state directory vouches for all of it. Otherwise it has
/// to be hashed, which also finds out what is wrong with it.
pub(super) fn prepared(path: &Path, state: Option<&StateDir>) -> Option<Prepared> {
    if is_torrent(path) {
        // The session believes the same of its content by itself.
        return None;
    }
    let content = collect(path).ok()?;
    let info = info_of(&content, state?)?;
    tracing::info!(path = %path.display(), "known from an earlier run, not hashed again");
    Some(Prepared {
        metainfo: wrap(info, false),
        root: content.root,
        fresh: None,
    })
}

/// The info dictionary that hashing the content would make: the same files under the same names,
/// each with the size and times that it had when it was hashed.
fn info_of(content: &Collected, state: &StateDir) -> Option<Info> {
    let draft = draft(content, Options::default());
    let mut kept = state.kept_in(&content.root).into_iter();
    kept.find_map(|(info_hash, kept)| {
        let info = state.load_info(info_hash)?;
        let hashes: Vec<u8> = info
            .geometry()
            .pieces()
            .flat_map(|piece| info.piece_hash(piece))
            .collect();
        // The same bytes are the same names, lengths, order and pieces.
        let is_same = info.name() == content.name && draft.encode(&hashes) == *info.raw();
        if !is_same {
            return None;
        }
        let have = vouched(&info, &content.root, &kept.resume).ok()?;
        have.is_full().then(|| Info::clone(&info))
    })
}
