//! Bencode (BEP 3): a bounded scanner, a reader that copies nothing, a canonical writer, and typed
//! decoding.
//!
//! Everything from outside passes [`scan()`] first. KRPC, peer messages and torrents are read in
//! place with [`Value`]; state files are decoded with serde. Invariant: serde_bencode, which
//! recurses without a limit and forgives much, sees only bytes that the scanner accepted, and
//! nothing else in the crate names it.

pub mod kind;
pub mod read;
pub mod scan;
pub mod write;

pub use kind::Kind;
pub use read::{Dictionary, List, Value, read, read_prefix};
pub use scan::{Limits, ScanError, scan, scan_prefix};
pub use write::Writer;

/// Why bytes could not be decoded into a type.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum DecodeError {
    /// The bytes are not acceptable bencode.
    #[error(transparent)]
    Scan(#[from] ScanError),
    /// The root is not a dictionary. serde_bencode would take a list for a struct.
    #[error("the data is not a dictionary")]
    NotADictionary,
    /// The value under a key is not of its kind, such as a list in place of bytes.
    #[error("`{key}` is not of the expected kind")]
    Kind {
        /// The key at the root.
        key: &'static str,
    },
    /// The bytes are bencode, but do not have the shape of the type.
    #[error("the data does not have the expected shape: {0}")]
    Shape(String),
}

/// Bytes of an error message of serde_bencode that are kept: it repeats what it could not read.
const SHAPE_MESSAGE_MAX: usize = 200;

/// Decodes a dictionary into a type, after the scan.
///
/// For our own state files, whose fields are few and whose byte strings are marked as such; what
/// strangers send is read with [`read()`]. Below the root serde_bencode takes a list for a struct
/// or for bytes; where that matters, use [`from_bytes_with_kinds`].
///
/// # Errors
///
/// The bytes do not pass the scan, are no dictionary, or do not have the shape of `T`.
pub fn from_bytes<T: serde::de::DeserializeOwned>(
    input: &[u8],
    limits: &Limits,
) -> Result<T, DecodeError> {
    from_bytes_with_kinds(input, limits, &[])
}

/// Decodes a dictionary into a type, after the scan and a check of the kinds of known keys.
///
/// # Errors
///
/// The bytes do not pass the scan, are no dictionary, have a value of the wrong kind under one of
/// `keys`, or do not have the shape of `T`.
pub fn from_bytes_with_kinds<T: serde::de::DeserializeOwned>(
    input: &[u8],
    limits: &Limits,
    keys: &[(&'static str, Kind)],
) -> Result<T, DecodeError> {
    let root = read(input, limits)?;
    let root = root.as_dictionary().ok_or(DecodeError::NotADictionary)?;
    kind::keys_fit(keys, root).map_err(|key| DecodeError::Kind { key })?;
    serde_bencode::from_bytes(input).map_err(|error| {
        let mut message = error.to_string();
        let cut = (0..=SHAPE_MESSAGE_MAX)
            .rev()
            .find(|&end| message.is_char_boundary(end));
        message.truncate(cut.unwrap_or(0).min(message.len()));
        DecodeError::Shape(message)
    })
}

/// The canonical bencode of a value.
///
/// # Panics
///
/// If the type holds what bencode cannot say, such as a floating-point number: a mistake of ours
/// that the first test of such a type shows.
pub fn to_bytes<T: serde::Serialize>(value: &T) -> Vec<u8> {
    serde_bencode::to_bytes(value).expect("the type has a bencode form")
}

#[cfg(test)]
mod tests;
