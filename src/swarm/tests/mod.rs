//! Several torrents joined in memory, with virtual time, and torrents against a scripted peer.

mod corruption;
mod disk;
mod exchange;
mod fast;
mod hostile;
mod lab;
mod metadata;
mod peer_exchange;
mod peers;
mod puppet;
mod seeding;
mod simulated_disk;
mod wanted;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use sha1::{Digest, Sha1};

use crate::id::PeerId;
use crate::metainfo::Info;
use crate::metainfo::build::InfoDraft;
use crate::random::Random;
use crate::swarm::Config;

/// What a torrent holds, and its info dictionary.
#[derive(Debug, Clone)]
struct Content {
    info: Arc<Info>,
    bytes: Bytes,
}

/// Random content in pieces of 32 KiB: two blocks each, the last piece as long as is left.
fn content(seed: u64, length: usize) -> Content {
    content_with_pieces(seed, length, 32 << 10)
}

fn content_with_pieces(seed: u64, length: usize, piece_length: u32) -> Content {
    let mut bytes = vec![0; length];
    Random::from_seed(seed).fill(&mut bytes);
    let pieces = bytes.chunks(usize::try_from(piece_length).unwrap());
    let hashes: Vec<u8> = pieces.flat_map(Sha1::digest).collect();
    let draft = InfoDraft {
        name: "content".to_owned(),
        piece_length,
        files: vec![(Vec::new(), u64::try_from(length).unwrap())],
        single: true,
        ..InfoDraft::default()
    };
    Content {
        info: Arc::new(Info::parse(draft.encode(&hashes)).unwrap()),
        bytes: bytes.into(),
    }
}

/// The defaults under a peer id made of one number.
fn config(number: u8) -> Config {
    Config {
        listen_port: Some(lab::PORT),
        ..Config::new(PeerId::new([number; 20]))
    }
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}
