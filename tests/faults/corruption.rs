//! One of four seeders sends bad blocks.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::content::{BLOCK, Content, to_usize};
use crate::lab::{Lab, address};
use crate::seeder::{Alter, Conduct, Ledger, Seeder};

/// Host of the seeder that lies.
const LIAR: u8 = 66;

/// Host of the download.
const GETTER: u8 = 10;

/// Bytes a second of each seeder: slow enough that all four take part.
const RATE: u64 = 3 << 20;

/// Addresses that the log calls banned.
fn banned(errors: &[String]) -> BTreeSet<String> {
    errors
        .iter()
        .filter(|line| line.contains("Banned"))
        .filter_map(|line| line.split("peer=").nth(1))
        .filter_map(|rest| rest.split_whitespace().next())
        .map(str::to_owned)
        .collect()
}

#[track_caller]
fn check_liar_is_banned(alter: Alter) {
    let Some(lab) = Lab::open() else { return };
    let content = Arc::new(Content::file(2, 32 << 20, 256 << 10));
    let (honest_ledger, liar_ledger) = (Arc::default(), Arc::<Ledger>::default());
    let honest: Vec<Seeder> = (1..=3)
        .map(|host| {
            Seeder::start(
                &content,
                Conduct::limited(address(host), RATE),
                &honest_ledger,
            )
        })
        .collect();
    let conduct = Conduct {
        alter: Some(alter),
        ..Conduct::limited(address(LIAR), RATE)
    };
    let liar = Seeder::start(&content, conduct, &liar_ledger);
    let output = lab.folder("output");
    let output_text = output.to_str().unwrap();
    let torrent = content.write_torrent(&lab.folder("torrents"));
    let mut arguments = vec![
        "get",
        &torrent,
        "--json",
        "-vv",
        "--bootstrap",
        "none",
        "--seed",
    ];
    let peers: Vec<String> = honest
        .iter()
        .chain([&liar])
        .map(|seeder| seeder.address.to_string())
        .collect();
    arguments.extend(["-o", output_text]);
    for peer in &peers {
        arguments.extend(["--peer", peer]);
    }
    let mut getter = lab.trackless(GETTER, &arguments);
    getter.wait_for_event("done");
    content.check(&output);
    let progress = getter.wait_for_event("progress");

    assert!(!liar_ledger.served().is_empty(), "the liar was asked");
    let (came, ended) = liar.connections();
    assert_eq!(
        (came, ended),
        (1, 1),
        "the liar is let go and not dialled again"
    );
    let banned = banned(&getter.errors());
    assert_eq!(banned, BTreeSet::from([liar.address.to_string()]));
    let wasted = honest_ledger.bytes() + liar_ledger.bytes() - content.bytes.len() as u64;
    eprintln!(
        "{} blocks came from the liar, {} KiB were fetched in vain",
        liar_ledger.served().len(),
        wasted >> 10
    );
    assert_eq!(progress["peers_banned"], 1, "{progress}");
}

#[test]
fn a_peer_that_corrupts_every_block_is_banned_and_nobody_else_is() {
    check_liar_is_banned(Box::new(|_, _, block| block[7] ^= 0x10));
}

#[test]
fn a_peer_that_corrupts_the_last_block_of_each_piece_is_banned_and_nobody_else_is() {
    check_liar_is_banned(Box::new(|_, offset, block| {
        if to_usize(offset) + BLOCK == 256 << 10 {
            block[BLOCK - 1] ^= 1;
        }
    }));
}
