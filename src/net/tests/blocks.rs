//! Blocks on their way from the disk to a stream.

use std::sync::Arc;

use bytes::Bytes;
use sha1::{Digest, Sha1};
use tokio::sync::mpsc;

use super::{Peer, connect, noise};
use crate::disk::{Disk, Storage};
use crate::metainfo::build::InfoDraft;
use crate::metainfo::{BlockRef, Info};
use crate::net::StreamInput;
use crate::peer::Transmit;
use crate::swarm::DiskErrorKind;
use crate::wire::Message;

/// A single-file torrent of `length` bytes on a disk, in a folder that lives as long as the guard.
fn stored(length: usize) -> (tempfile::TempDir, Disk, Storage, Arc<Info>, Vec<u8>) {
    let all = noise(length);
    let hashes: Vec<u8> = all.chunks(65_536).flat_map(Sha1::digest).collect();
    let draft = InfoDraft {
        name: "file".to_owned(),
        piece_length: 65_536,
        files: vec![(Vec::new(), u64::try_from(length).unwrap())],
        single: true,
        ..InfoDraft::default()
    };
    let info = Arc::new(Info::parse(draft.encode(&hashes)).unwrap());
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("file"), &all).unwrap();
    let disk = Disk::start(1).unwrap();
    let (completions, _) = mpsc::channel(8);
    let storage = disk.open(Arc::clone(&info), folder.path().to_owned(), completions);
    (folder, disk, storage, info, all)
}

fn block_message(block: BlockRef) -> Transmit {
    let header = Message::piece_header(block.piece.get(), block.offset, block.length);
    Transmit::Block { header, block }
}

#[tokio::test]
async fn blocks_go_from_disk_to_stream_in_order_between_other_messages() {
    let (_folder, _disk, storage, info, all) = stored(1_000_000);
    let (near, far) = connect(None).await;
    let mut near = Peer::new(near, Some(storage), 8);
    let mut far = Peer::new(far, None, 8);
    let geometry = info.geometry().clone();
    let send = async {
        for block in geometry.pieces().flat_map(|piece| geometry.blocks(piece)) {
            for transmit in [
                block_message(block),
                Transmit::Bytes(Bytes::from_static(b"!")),
            ] {
                while near.handle.room() == 0 {
                    assert!(matches!(near.next().await, StreamInput::Writable(_)));
                }
                assert!(near.handle.send(transmit));
            }
        }
    };
    let count: usize = geometry.pieces().map(|p| geometry.blocks(p).count()).sum();
    let length = all.len() + count * 14;
    let ((), received) = tokio::join!(send, far.read(length));
    let mut rest = &received[..];
    for block in geometry.pieces().flat_map(|piece| geometry.blocks(piece)) {
        let start = geometry.start_of(block.piece) + u64::from(block.offset);
        let start = usize::try_from(start).unwrap();
        let length = usize::try_from(block.length).unwrap();
        let header = Message::piece_header(block.piece.get(), block.offset, block.length);
        assert_eq!(rest[..13], header);
        assert!(rest[13..13 + length] == all[start..start + length]);
        assert_eq!(rest[13 + length], b'!');
        rest = &rest[14 + length..];
    }
}

#[tokio::test]
async fn nothing_is_sent_for_a_block_that_cannot_be_read() {
    let (folder, _disk, storage, info, all) = stored(200_000);
    let file = std::fs::File::options()
        .write(true)
        .open(folder.path().join("file"));
    file.unwrap().set_len(100_000).unwrap();
    let (near, far) = connect(None).await;
    let mut near = Peer::new(near, Some(storage), 8);
    let mut far = Peer::new(far, None, 8);
    let geometry = info.geometry();
    let good = geometry.block(geometry.piece(0).unwrap(), 1).unwrap();
    let bad = geometry.block(geometry.piece(2).unwrap(), 0).unwrap();
    assert!(near.handle.send(block_message(good)));
    let received = far.read(13 + 16_384).await;
    assert!(received[13..] == all[16_384..32_768]);
    // After the first one nothing of the file is sent until it was checked.
    let failures = [DiskErrorKind::Truncated, DiskErrorKind::Changed];
    for (wanted, kind) in [bad, good].into_iter().zip(failures) {
        assert!(near.handle.send(block_message(wanted)));
        match near.next().await {
            StreamInput::UploadFailed(_, block, error) => {
                assert_eq!((block, error.kind), (wanted, kind));
            }
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn a_stream_ends_when_its_file_is_cut_within_what_it_was_promised() {
    let (folder, _disk, storage, info, all) = stored(32 << 20);
    let (near, far) = connect(None).await;
    let mut near = Peer::new(near, Some(storage), 8);
    let geometry = info.geometry();
    // The other end does not read, so that at last the system takes nothing any more.
    let mut blocks = geometry.pieces().flat_map(|piece| geometry.blocks(piece));
    loop {
        let patience = std::time::Duration::from_millis(500);
        if near.handle.room() > 0 {
            let block = blocks.next().expect("more than any socket takes");
            assert!(near.handle.send(block_message(block)));
        } else if tokio::time::timeout(patience, near.next()).await.is_err() {
            break;
        }
    }
    let file = std::fs::File::options()
        .write(true)
        .open(folder.path().join("file"));
    file.unwrap().set_len(0).unwrap();
    let mut far = Peer::new(far, None, 8);
    let mut received = Vec::new();
    loop {
        match far.next().await {
            StreamInput::Bytes(_, bytes) => received.extend_from_slice(&bytes),
            StreamInput::Closed(..) => break,
            other => panic!("{other:?}"),
        }
    }
    // What came is what was there, or nothing of a block that was there no more.
    let mut blocks = geometry.pieces().flat_map(|piece| geometry.blocks(piece));
    for message in received.chunks(13 + 16_384) {
        let block = blocks.next().unwrap();
        let start = geometry.start_of(block.piece) + u64::from(block.offset);
        let start = usize::try_from(start).unwrap();
        if let Some(came) = message.get(13..) {
            assert!(came == &all[start..start + came.len()]);
        }
    }
    let failed = loop {
        match near.next().await {
            StreamInput::UploadFailed(_, _, error) => break error,
            StreamInput::Writable(_) => {}
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(failed.kind, DiskErrorKind::Truncated);
}
