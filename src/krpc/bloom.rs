//! The Bloom filters in which scrapes are told (BEP 33).
//!
//! 2,048 bits, two for each IP address. The union of filters is the filter of the union, so what
//! several nodes store can be counted without counting anybody twice.
//!
//! Invariant: a filter depends on the set of addresses only, not on their order or number of times.

use std::net::IpAddr;

use sha1::{Digest, Sha1};

/// Bytes of a filter: `m` of BEP 33 is 256 * 8.
pub const BLOOM_LENGTH: usize = 256;

/// `m` of BEP 33.
const BITS: u16 = 2048;

/// A set of IP addresses.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct BloomFilter([u8; BLOOM_LENGTH]);

impl BloomFilter {
    /// The empty set.
    #[must_use]
    pub const fn new() -> Self {
        Self([0; BLOOM_LENGTH])
    }

    /// A filter from the network; `None` unless it has exactly 256 bytes.
    #[must_use]
    pub fn from_slice(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    /// Its bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; BLOOM_LENGTH] {
        &self.0
    }

    /// Adds an address. IPv4 mapped into IPv6 is IPv4.
    pub fn insert(&mut self, ip: IpAddr) {
        for (byte, bit) in places(ip) {
            self.0[byte] |= bit;
        }
    }

    /// Whether an address may be in the set; a wrong "yes" is possible, a wrong "no" is not.
    #[must_use]
    pub fn may_contain(&self, ip: IpAddr) -> bool {
        places(ip)
            .iter()
            .all(|(byte, bit)| self.0[*byte] & bit != 0)
    }

    /// Adds all of another set.
    pub fn unite(&mut self, other: &Self) {
        for (byte, other) in self.0.iter_mut().zip(other.0) {
            *byte |= other;
        }
    }

    /// How many addresses are in the set, estimated with the formula of BEP 33. It breaks down
    /// beyond 6,000.
    #[must_use]
    pub fn estimate(&self) -> f64 {
        let zeros: u32 = self.0.iter().map(|byte| byte.count_zeros()).sum();
        let bits = f64::from(BITS);
        let zeros = f64::from(zeros).min(bits - 1.0);
        if zeros < 1.0 {
            return f64::INFINITY;
        }
        ((zeros / bits).ln() / (2.0 * (1.0 - 1.0 / bits).ln())).max(0.0)
    }

    /// Whether nobody is in the set.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0 == [0; BLOOM_LENGTH]
    }
}

impl Default for BloomFilter {
    fn default() -> Self {
        Self::new()
    }
}

impl std::fmt::Debug for BloomFilter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "BloomFilter(about {:.0})", self.estimate())
    }
}

/// Byte and bit of the two places of an address.
fn places(ip: IpAddr) -> [(usize, u8); 2] {
    let hash = match ip.to_canonical() {
        IpAddr::V4(ip) => Sha1::digest(ip.octets()),
        IpAddr::V6(ip) => Sha1::digest(ip.octets()),
    };
    [[hash[0], hash[1]], [hash[2], hash[3]]].map(|pair| {
        let index = u16::from_le_bytes(pair) % BITS;
        (usize::from(index / 8), 1 << (index % 8))
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The filter of BEP 33's test vector.
    const VECTOR: &str = "\
        F6C3F5EAA07FFD91BDE89F777F26FB2BFF37BDB8FB2BBAA2FD3DDDE7BACFFF75EE7CCBAE\
        FE5EEDB1FBFAFF67F6ABFF5E43DDBCA3FD9B9FFDF4FFD3E9DFF12D1BDF59DB53DBE9FA5B\
        7FF3B8FDFCDE1AFB8BEDD7BE2F3EE71EBBBFE93BCDEEFE148246C2BC5DBFF7E7EFDCF24F\
        D8DC7ADFFD8FFFDFDDFFF7A4BBEEDF5CB95CE81FC7FCFF1FF4FFFFDFE5F7FDCBB7FD79B3\
        FA1FC77BFE07FFF905B7B7FFC7FEFEFFE0B8370BB0CD3F5B7F2BD93FEB4386CFDD6F7FD5\
        BFAF2E9EBFFFFEECD67ADBF7C67F17EFD5D75EBA6FFEBA7FFF47A91EB1BFBB53E8ABFB57\
        62ABE8FF237279BFEFBFEEF5FFC5FEBFDFE5ADFFADFEE1FB737FFFFBFD9F6AEFFEEE76B6\
        FD8F72EF";

    #[test]
    fn the_vector_of_bep_33_comes_out_byte_for_byte() {
        let mut filter = BloomFilter::new();
        for last in 0..=255 {
            filter.insert(IpAddr::from([192, 0, 2, last]));
        }
        for last in 0..=0x3e7 {
            filter.insert(IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, last]));
        }
        let hex = data_encoding::HEXUPPER.encode(filter.as_bytes());
        assert_eq!(hex, VECTOR);
        assert!((filter.estimate() - 1224.9308).abs() < 0.0001);
    }

    #[test]
    fn an_empty_filter_counts_nobody_and_a_full_one_says_nothing() {
        assert!(BloomFilter::new().estimate() < 1.0);
        let full = BloomFilter::from_slice(&[0xff; BLOOM_LENGTH]).unwrap();
        assert!(full.estimate().is_infinite());
        assert_eq!(BloomFilter::from_slice(&[0; 255]), None);
    }

    proptest! {
        #[test]
        fn the_union_of_filters_is_the_filter_of_the_union(
            a in prop::collection::vec(any::<[u8; 4]>(), 0..50),
            b in prop::collection::vec(any::<[u8; 16]>(), 0..50),
        ) {
            let (mut first, mut second, mut both) = Default::default();
            let mut add = |filter: &mut BloomFilter, ip: IpAddr| {
                filter.insert(ip);
                both = { let mut both: BloomFilter = both; both.insert(ip); both };
            };
            a.iter().for_each(|ip| add(&mut first, IpAddr::from(*ip)));
            b.iter().for_each(|ip| add(&mut second, IpAddr::from(*ip)));
            first.unite(&second);
            prop_assert_eq!(first, both);
            prop_assert!(a.iter().all(|ip| first.may_contain(IpAddr::from(*ip))));
        }
    }
}
