//! The 160-bit identifiers of the protocol, and the XOR distance between them.

use std::fmt;
use std::str::FromStr;

use data_encoding::HEXLOWER_PERMISSIVE;

/// Bytes in an identifier.
pub const ID_LENGTH: usize = 20;

/// Why a text is not an identifier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ParseIdError {
    /// The text does not have 40 characters.
    #[error("identifier has {digits} characters, expected 40 hexadecimal digits")]
    Length {
        /// Characters found.
        digits: usize,
    },
    /// A character is not a hexadecimal digit.
    #[error("identifier contains a character that is not a hexadecimal digit")]
    Digit,
}

macro_rules! identifier {
    ($(#[$meta:meta])* $name:ident) => {
        $(#[$meta])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; ID_LENGTH]);

        impl $name {
            /// An identifier made of these bytes, most significant first.
            #[must_use]
            pub const fn new(bytes: [u8; ID_LENGTH]) -> Self {
                Self(bytes)
            }

            /// Its bytes, most significant first.
            #[must_use]
            pub const fn as_bytes(&self) -> &[u8; ID_LENGTH] {
                &self.0
            }

            /// An identifier from a slice; `None` unless it has exactly 20 bytes.
            #[must_use]
            pub fn from_slice(bytes: &[u8]) -> Option<Self> {
                bytes.try_into().ok().map(Self)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&HEXLOWER_PERMISSIVE.encode(&self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }

        impl FromStr for $name {
            type Err = ParseIdError;

            fn from_str(text: &str) -> Result<Self, ParseIdError> {
                if text.len() != 2 * ID_LENGTH {
                    return Err(ParseIdError::Length { digits: text.chars().count() });
                }
                let bytes = HEXLOWER_PERMISSIVE
                    .decode(text.as_bytes())
                    .map_err(|_| ParseIdError::Digit)?;
                Self::from_slice(&bytes).ok_or(ParseIdError::Digit)
            }
        }
    };
}

identifier! {
    /// SHA-1 of a torrent's info dictionary, as received (BEP 3).
    InfoHash
}
identifier! {
    /// Identifier of a DHT node (BEP 5).
    NodeId
}
identifier! {
    /// Identifier a peer chose for itself (BEP 3, BEP 20).
    PeerId
}

impl InfoHash {
    /// The point of the DHT's key space at which this torrent's peers are stored (BEP 5).
    #[must_use]
    pub const fn as_target(&self) -> NodeId {
        NodeId(self.0)
    }
}

impl NodeId {
    /// XOR distance to another node or target (BEP 5).
    #[must_use]
    pub fn distance(&self, other: &Self) -> Distance {
        let (ours, theirs) = (self.words(), other.words());
        Distance(ours.0 ^ theirs.0, ours.1 ^ theirs.1, ours.2 ^ theirs.2)
    }

    /// The id as numbers, most significant first.
    fn words(&self) -> (u64, u64, u32) {
        let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p, last @ ..] = self.0;
        (
            u64::from_be_bytes([a, b, c, d, e, f, g, h]),
            u64::from_be_bytes([i, j, k, l, m, n, o, p]),
            u32::from_be_bytes(last),
        )
    }

    /// Number of leading bits that both have, 0 to 160.
    #[must_use]
    pub fn common_prefix(&self, other: &Self) -> u32 {
        self.distance(other).leading_zeros()
    }

    /// The bit at `index`, counted from the most significant; `false` from 160 on.
    #[must_use]
    pub fn bit(&self, index: u32) -> bool {
        usize::try_from(index / 8)
            .ok()
            .and_then(|byte| self.0.get(byte))
            .is_some_and(|byte| byte >> (7 - index % 8) & 1 == 1)
    }

    /// The same id with the bit at `index` replaced; unchanged from 160 on.
    #[must_use]
    pub fn with_bit(mut self, index: u32, bit: bool) -> Self {
        if let Some(byte) = usize::try_from(index / 8)
            .ok()
            .and_then(|byte| self.0.get_mut(byte))
        {
            let mask = 1 << (7 - index % 8);
            if bit {
                *byte |= mask;
            } else {
                *byte &= !mask;
            }
        }
        self
    }
}

/// How far apart two points of the key space are; smaller is closer. In numbers, the most significant
/// first: they are compared more often than anything else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Distance(u64, u64, u32);

impl Distance {
    /// Zero bits in front, 0 to 160: how many leading bits the two ids share.
    #[must_use]
    pub const fn leading_zeros(&self) -> u32 {
        match (self.0, self.1) {
            (0, 0) => 128 + self.2.leading_zeros(),
            (0, second) => 64 + second.leading_zeros(),
            (first, _) => first.leading_zeros(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL_ONES: NodeId = NodeId::new([0xff; 20]);
    const ZERO: NodeId = NodeId::new([0; 20]);

    #[test]
    fn hexadecimal_text_is_read_in_any_case_and_written_in_lower_case() {
        let upper = "0123456789ABCDEF0123456789ABCDEF01234567";
        let id: InfoHash = upper.parse().unwrap();
        assert_eq!(id.to_string(), upper.to_lowercase());
    }

    #[test]
    fn text_of_another_length_or_with_other_characters_is_refused() {
        assert_eq!(
            "00".parse::<NodeId>(),
            Err(ParseIdError::Length { digits: 2 })
        );
        assert_eq!("g".repeat(40).parse::<NodeId>(), Err(ParseIdError::Digit));
        assert!("é".repeat(20).parse::<NodeId>().is_err());
    }

    #[test]
    fn distance_is_symmetric_and_zero_only_to_itself() {
        let id = NodeId::new([7; 20]);
        assert_eq!(id.distance(&id), ZERO.distance(&ZERO));
        assert_eq!(id.distance(&ALL_ONES), ALL_ONES.distance(&id));
        assert!(id.distance(&ZERO) > id.distance(&id));
    }

    #[test]
    fn common_prefix_counts_leading_bits() {
        assert_eq!(ZERO.common_prefix(&ZERO), 160);
        assert_eq!(ZERO.common_prefix(&ALL_ONES), 0);
        assert_eq!(ZERO.common_prefix(&ZERO.with_bit(13, true)), 13);
    }

    #[test]
    fn bits_are_set_and_read_from_the_front() {
        let id = ZERO
            .with_bit(0, true)
            .with_bit(159, true)
            .with_bit(160, true);
        assert!(id.bit(0) && id.bit(159) && !id.bit(1) && !id.bit(160));
        assert_eq!(id.with_bit(0, false).with_bit(159, false), ZERO);
    }
}
