//! Tests of the simulated disk.

use super::*;

/// Three pieces of two blocks, the last one short.
fn geometry() -> Geometry {
    Geometry::new(2 * BLOCK_LENGTH, [5 * u64::from(BLOCK_LENGTH) - 100]).unwrap()
}

fn disk() -> SimDisk {
    let mut disk = SimDisk::empty();
    disk.set_geometry(&geometry());
    disk
}

fn payload(block: BlockRef) -> Payload {
    let mut payload = Payload::default();
    content(block).for_each(|part| payload.push(part));
    payload
}

fn write(disk: &mut SimDisk, block: BlockRef, data: Payload) {
    disk.submit(Instant::ZERO, &Job::Write { block, data });
}

fn is_valid(disk: &mut SimDisk, piece: PieceIndex) -> bool {
    match disk
        .submit(
            Instant::ZERO,
            &Job::Verify {
                piece,
                blocks: false,
            },
        )
        .1
    {
        Completion::Verified { valid, .. } => valid,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_piece_is_valid_when_all_its_blocks_are_right() {
    let (mut disk, geometry) = (disk(), geometry());
    for piece in geometry.pieces() {
        for block in geometry.blocks(piece) {
            assert!(!is_valid(&mut disk, piece));
            write(&mut disk, block, payload(block));
        }
        assert!(is_valid(&mut disk, piece));
    }
}

#[test]
fn bytes_of_another_block_make_the_piece_invalid_until_it_is_written_again() {
    let (mut disk, geometry) = (disk(), geometry());
    let piece = geometry.piece(0).unwrap();
    let first = geometry.block(piece, 0).unwrap();
    let second = geometry.block(piece, 1).unwrap();
    write(&mut disk, first, payload(first));
    write(&mut disk, second, payload(first));
    assert!(!is_valid(&mut disk, piece));
    write(&mut disk, second, payload(second));
    assert!(is_valid(&mut disk, piece));
}

#[test]
fn slices_are_compared_however_they_are_cut() {
    let geometry = geometry();
    let block = geometry.block(geometry.piece(1).unwrap(), 1).unwrap();
    let whole = payload(block).to_vec();
    for cut in [1, 13, 16_383] {
        let mut data = Payload::from(Bytes::copy_from_slice(&whole[..cut]));
        data.push(Bytes::copy_from_slice(&whole[cut..]));
        assert!(is_content(block, &data), "cut at {cut}");
    }
    assert!(!is_content(
        block,
        &Payload::from(Bytes::copy_from_slice(&whole[1..]))
    ));
    assert!(!is_content(block, &Payload::default()));
    let longer = Bytes::from([&whole[..], b"x"].concat());
    assert!(!is_content(block, &Payload::from(longer)));
}

#[test]
fn an_unaligned_block_has_the_bytes_of_the_aligned_ones() {
    let geometry = geometry();
    let piece = geometry.piece(1).unwrap();
    let whole: Vec<u8> = geometry
        .blocks(piece)
        .flat_map(|block| payload(block).to_vec())
        .collect();
    let block = geometry.checked_block(piece.get(), 10_000, 10_000).unwrap();
    assert_eq!(payload(block).to_vec(), whole[10_000..20_000]);
}

#[test]
fn jobs_wait_for_those_before_them() {
    let mut disk = disk();
    let block = geometry().block(geometry().piece(0).unwrap(), 0).unwrap();
    let job = Job::Write {
        block,
        data: payload(block),
    };
    let first = disk.submit(Instant::ZERO, &job).0;
    let second = disk.submit(Instant::ZERO, &job).0;
    assert!(second > first && first > Instant::ZERO);
}

#[test]
fn a_full_disk_is_found_complete_and_an_empty_one_is_not() {
    for (mut disk, pieces) in [(SimDisk::full(), 3), (SimDisk::empty(), 0)] {
        disk.set_geometry(&geometry());
        match disk.submit(Instant::ZERO, &Job::CheckAll).1 {
            Completion::Checked { have } => assert_eq!(have.count(), pieces),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_sync_names_each_verified_piece_once() {
    let mut disk = SimDisk::full();
    disk.set_geometry(&geometry());
    let piece = geometry().piece(1).unwrap();
    assert!(is_valid(&mut disk, piece));
    for expected in [vec![piece], vec![]] {
        match disk.submit(Instant::ZERO, &Job::Sync).1 {
            Completion::Synced { pieces, .. } => assert_eq!(pieces, expected),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_disk_holds_the_pieces_it_was_given() {
    let geometry = Geometry::new(BLOCK_LENGTH, [u64::from(BLOCK_LENGTH) * 3]).unwrap();
    let mut held = Bitfield::new(3);
    held.insert(1);
    let mut disk = SimDisk::holding(&held);
    assert!(!disk.is_good(1), "nothing is known yet");
    disk.set_geometry(&geometry);
    let good = [0, 1, 2].map(|piece| disk.is_good(piece));
    assert_eq!(good, [false, true, false]);
    let (_, done) = disk.submit(Instant::ZERO, &Job::CheckAll);
    assert!(matches!(done, Completion::Checked { have } if have == held));
}
