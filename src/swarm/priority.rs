//! Which of two peers has the better claim to a place: the canonical peer priority (BEP 40).
//!
//! Both ends of a connection come to the same number, and nobody can choose it, so a swarm in which everybody is
//! full still lets newcomers in, and an attacker gets no more places than its share of addresses.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::crc32c::crc32c;

/// The priority of a connection between these two; the higher stays.
pub(super) fn priority(a: SocketAddr, b: SocketAddr) -> u32 {
    let (ip_a, ip_b) = (a.ip().to_canonical(), b.ip().to_canonical());
    if ip_a == ip_b {
        return sorted(a.port().to_be_bytes(), b.port().to_be_bytes());
    }
    match (ip_a, ip_b) {
        (IpAddr::V4(a), IpAddr::V4(b)) => {
            let mask = mask_v4(a, b);
            sorted(masked(a.octets(), mask), masked(b.octets(), mask))
        }
        (IpAddr::V6(a), IpAddr::V6(b)) => {
            let mask = mask_v6(a, b);
            sorted(masked(a.octets(), mask), masked(b.octets(), mask))
        }
        // Nobody is connected from one family to the other.
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => 0,
    }
}

fn sorted<const N: usize>(a: [u8; N], b: [u8; N]) -> u32 {
    crc32c(&[a.min(b), a.max(b)].concat())
}

fn masked<const N: usize>(address: [u8; N], mask: [u8; N]) -> [u8; N] {
    std::array::from_fn(|byte| address[byte] & mask[byte])
}

/// How many of their first bytes are the same.
fn shared(a: &[u8], b: &[u8]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

fn mask_v4(a: Ipv4Addr, b: Ipv4Addr) -> [u8; 4] {
    match shared(&a.octets(), &b.octets()) {
        0 | 1 => [0xff, 0xff, 0x55, 0x55],
        2 => [0xff, 0xff, 0xff, 0x55],
        _ => [0xff; 4],
    }
}

/// A byte more than what they share counts whole, and six bytes at least.
fn mask_v6(a: Ipv6Addr, b: Ipv6Addr) -> [u8; 16] {
    let whole = (shared(&a.octets(), &b.octets()) + 1).max(6);
    std::array::from_fn(|byte| if byte < whole { 0xff } else { 0x55 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(a: &str, b: &str, expected: u32) {
        let (a, b) = (a.parse().unwrap(), b.parse().unwrap());
        assert_eq!(priority(a, b), expected);
        assert_eq!(priority(b, a), expected);
    }

    #[test]
    fn the_vectors_of_the_bep_come_out() {
        check("123.213.32.10:1", "98.76.54.32:2", 0xec2d_7224);
        check("123.213.32.10:1", "123.213.32.234:2", 0x9956_8189);
    }

    #[test]
    fn networks_count_more_the_less_two_addresses_share() {
        let same = |a: &str, b: &str, c: &str| {
            let [a, b, c] = [a, b, c].map(|address| address.parse().unwrap());
            priority(a, b) == priority(a, c)
        };
        // Bits that the mask leaves out change nothing.
        assert!(same("1.2.3.4:1", "9.9.0.0:1", "9.9.170.170:1"));
        assert!(!same("1.2.3.4:1", "9.9.0.0:1", "9.9.1.0:1"));
        assert!(same("1.2.3.4:1", "1.2.9.0:1", "1.2.9.170:1"));
        assert!(!same("1.2.3.4:1", "1.2.3.0:1", "1.2.3.170:1"));
        let v6 = "[2001:db9:1::1]:1";
        assert!(same(v6, "[2001:db9:2::]:1", "[2001:db9:2:aaaa::]:1"));
        assert!(same(v6, "[2001:db9:1:100::]:1", "[2001:db9:1:1aa::]:1"));
        assert!(!same(v6, "[2001:db9:1:100::]:1", "[2001:db9:1:200::]:1"));
    }

    #[test]
    fn peers_of_one_address_are_told_apart_by_port() {
        check("10.0.0.1:258", "10.0.0.1:772", crc32c(&[1, 2, 3, 4]));
    }
}
