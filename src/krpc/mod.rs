//! KRPC: the messages of the DHT (BEP 5, 32, 33, 42, 43, 44, 51), read and written without allocation.
//!
//! [`Message::decode`] runs the structural scan of [`crate::bencode`] over a datagram and gives
//! back a view into it: ids are copied, everything else borrows. [`compact`] reads and writes the
//! packed addresses inside. The writers append to a buffer that the caller reuses.
//!
//! Invariant: what `decode` returns has passed every length and range rule of BEP 5, so that the
//! code which answers looks at values only; and no reply written here is longer than [`REPLY_MAX`]
//! bytes, or [`VALUE_REPLY_MAX`] if it has an item's value.

mod arguments;
mod bloom;
pub mod compact;
mod encode;
pub mod message;
mod stored;
#[cfg(test)]
mod tests;

pub use bloom::{BLOOM_LENGTH, BloomFilter};
pub use compact::{CompactNodes, CompactPeers, ContactInfo, Family};
pub use encode::{ResponseWriter, write_error, write_query};
pub use message::{
    Body, Counted, DecodeError, ErrorCode, Garbage, Message, Method, Query, Response, Want,
};
pub use stored::{
    Extra, Filters, ItemView, KEY_LENGTH, Put, SALT_MAX, SAMPLE_INTERVAL_MAX_SECS,
    SIGNATURE_LENGTH, Samples, SignedPut, VALUE_MAX,
};

/// Longest datagram that is read, in bytes; anything longer is garbage. BEP 32 lets senders use
/// 1,024, BEP 44 values need about 1,400, and what is beyond twice the rule is not worth parsing.
pub const MAX_DATAGRAM: usize = 2048;

/// Longest reply with the value of an item (BEP 44), in bytes. Ours: a value of 1,000 bytes with key
/// and signature and some nodes, below what an Ethernet frame carries.
pub const VALUE_REPLY_MAX: usize = 1400;

/// Longest reply that is sent, in bytes. BEP 32: "must not send UDP datagrams with a payload
/// larger than 1024 octets".
pub const REPLY_MAX: usize = 1024;

/// Longest transaction id (`t`) that is read, in bytes. BEP 5 calls two typical and asks for short
/// ones; everything we answer carries it, so a long one would be a lever for reflection.
pub const TRANSACTION_MAX: usize = 32;

/// Longest `token` taken from a response, in bytes. BEP 5 wants "a short binary string", the
/// longest in use has 40. A lookup keeps it and an announce repeats it, so a longer one counts as
/// none.
pub const TOKEN_MAX: usize = 128;

/// Bytes of an error's text that are read and written: one line of a log.
pub const ERROR_TEXT_MAX: usize = 200;

/// Our `v`: two letters for the client and two bytes for its version (BEP 5).
pub const VERSION: [u8; 4] = [
    b'T',
    b'L',
    version_byte(env!("CARGO_PKG_VERSION_MAJOR")),
    version_byte(env!("CARGO_PKG_VERSION_MINOR")),
];

/// The low byte of a decimal number.
const fn version_byte(digits: &str) -> u8 {
    let digits = digits.as_bytes();
    let mut value = 0u8;
    let mut index = 0;
    while index < digits.len() {
        value = value.wrapping_mul(10).wrapping_add(digits[index] - b'0');
        index += 1;
    }
    value
}
