//! Which pieces a peer may fetch while it is choked (BEP 6).

use std::net::Ipv4Addr;

use sha1::{Digest, Sha1};

use crate::id::InfoHash;

/// Hashes that are made for one piece of the set at most. Ours: a set that is a small part of the torrent
/// needs about one for five pieces; this bound only ends the search when nearly all pieces are asked for.
const ROUNDS_PER_PIECE: usize = 64;

/// The allowed fast set of the peer at this address: up to `count` different pieces of a torrent that
/// has `piece_count`. Whoever computes it gets the same one, and a longer one begins with a shorter.
///
/// There are fewer only if the torrent has hardly more pieces. All addresses of a /24 have the same
/// set, and BEP 6 has none for IPv6.
#[must_use]
pub fn allowed_set(ip: Ipv4Addr, info_hash: InfoHash, piece_count: u32, count: usize) -> Vec<u32> {
    let [a, b, c, _] = ip.octets();
    let mut hash = Sha1::new()
        .chain_update([a, b, c, 0])
        .chain_update(info_hash.as_bytes())
        .finalize();
    let mut set = Vec::with_capacity(count);
    for _ in 0..count.saturating_mul(ROUNDS_PER_PIECE) {
        for bytes in hash.chunks_exact(4) {
            let number = bytes
                .iter()
                .fold(0, |sum, &byte| sum << 8 | u32::from(byte));
            let Some(index) = number.checked_rem(piece_count) else {
                return set;
            };
            if set.len() >= count {
                return set;
            }
            if !set.contains(&index) {
                set.push(index);
            }
        }
        hash = Sha1::digest(hash);
    }
    set
}

#[cfg(test)]
mod tests {
    use super::*;

    const HASH: InfoHash = InfoHash::new([0xaa; 20]);

    #[test]
    fn the_sets_of_the_bep_come_out() {
        let ip = Ipv4Addr::new(80, 4, 4, 200);
        let seven = [1059, 431, 808, 1217, 287, 376, 1188];
        assert_eq!(allowed_set(ip, HASH, 1313, 7), seven);
        let nine = [1059, 431, 808, 1217, 287, 376, 1188, 353, 508];
        assert_eq!(allowed_set(ip, HASH, 1313, 9), nine);
    }

    #[test]
    fn a_network_of_256_addresses_has_one_set() {
        let set = |ip: [u8; 4]| allowed_set(ip.into(), HASH, 1313, 9);
        assert_eq!(set([80, 4, 4, 200]), set([80, 4, 4, 1]));
        assert_ne!(set([80, 4, 4, 200]), set([80, 4, 5, 200]));
    }

    #[test]
    fn a_torrent_of_few_pieces_ends_the_search() {
        let ip = Ipv4Addr::LOCALHOST;
        assert!(allowed_set(ip, HASH, 0, 10).is_empty());
        let mut all = allowed_set(ip, HASH, 4, 10);
        all.sort_unstable();
        assert_eq!(all, [0, 1, 2, 3]);
        assert!(allowed_set(ip, HASH, 4, 0).is_empty());
    }
}
