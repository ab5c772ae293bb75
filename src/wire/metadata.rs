//! `ut_metadata`: the info dictionary, fetched from peers in parts (BEP 9).

use bytes::Bytes;

use super::ProtocolError;
use super::extended::LIMITS;
use crate::bencode::{self, Dictionary, Writer};

/// Bytes in a metadata part, except the last, which may be shorter (BEP 9).
pub const METADATA_PART_LENGTH: u32 = 1 << 14;

/// `msg_type` of a request.
const REQUEST: i64 = 0;
/// `msg_type` of a part.
const DATA: i64 = 1;
/// `msg_type` of a refusal.
const REJECT: i64 = 2;

/// A `ut_metadata` message. Part numbers are as sent: not checked against any size.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MetadataMessage {
    /// Asks for a part.
    Request {
        /// Which part, counted from 0.
        part: u32,
    },
    /// A part.
    Data {
        /// Which part, counted from 0.
        part: u32,
        /// Bytes in the whole info dictionary, as this message has it.
        total_size: u32,
        /// The part's bytes, at most [`METADATA_PART_LENGTH`].
        data: Bytes,
    },
    /// The peer does not have the part, or does not want to send it.
    Reject {
        /// Which part, counted from 0.
        part: u32,
    },
    /// Another `msg_type`; BEP 9 wants it ignored.
    Unknown,
}

impl MetadataMessage {
    /// The payload, which follows the extended message id; empty for `Unknown`.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Self::Request { part } => dictionary(REQUEST, *part, None),
            Self::Data {
                part,
                total_size,
                data,
            } => {
                let mut out = dictionary(DATA, *part, Some(*total_size));
                out.extend_from_slice(data);
                out
            }
            Self::Reject { part } => dictionary(REJECT, *part, None),
            Self::Unknown => Vec::new(),
        }
    }

    /// Reads a payload; `data` shares its memory.
    ///
    /// # Errors
    ///
    /// [`ProtocolError::Extension`] if it does not begin with an acceptable bencoded dictionary, if
    /// a number is missing or out of range, or if the data are longer than a part.
    pub fn decode(payload: &Bytes) -> Result<Self, ProtocolError> {
        let (root, rest) =
            bencode::read_prefix(payload, &LIMITS).map_err(|_| ProtocolError::Extension)?;
        let root = root.as_dictionary().ok_or(ProtocolError::Extension)?;
        let kind = root
            .get(b"msg_type")
            .and_then(|kind| kind.as_integer())
            .ok_or(ProtocolError::Extension)?;
        match kind {
            REQUEST => Ok(Self::Request {
                part: number(&root, b"piece")?,
            }),
            DATA => {
                let length = u32::try_from(rest.len()).map_err(|_| ProtocolError::Extension)?;
                if length > METADATA_PART_LENGTH {
                    return Err(ProtocolError::Extension);
                }
                Ok(Self::Data {
                    part: number(&root, b"piece")?,
                    total_size: number(&root, b"total_size")?,
                    data: payload.slice_ref(rest),
                })
            }
            REJECT => Ok(Self::Reject {
                part: number(&root, b"piece")?,
            }),
            _ => Ok(Self::Unknown),
        }
    }
}

/// The bencoded part of a message; `total_size` is in a data message only.
fn dictionary(kind: i64, part: u32, total_size: Option<u32>) -> Vec<u8> {
    let mut out = Vec::with_capacity(64);
    let mut writer = Writer::new(&mut out);
    writer.begin_dictionary();
    writer.key("msg_type").integer(kind);
    writer.key("piece").integer(i64::from(part));
    if let Some(size) = total_size {
        writer.key("total_size").integer(i64::from(size));
    }
    writer.end();
    out
}

/// The integer under `key`, which must be there and fit 32 bits.
fn number(root: &Dictionary<'_>, key: &[u8]) -> Result<u32, ProtocolError> {
    root.get(key)
        .and_then(|value| value.as_integer())
        .and_then(|value| u32::try_from(value).ok())
        .ok_or(ProtocolError::Extension)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn check(message: MetadataMessage, bytes: &'static [u8]) {
        assert_eq!(message.encode(), bytes);
        let decoded = MetadataMessage::decode(&Bytes::from_static(bytes));
        assert_eq!(decoded, Ok(message));
    }

    #[test]
    fn messages_are_those_of_bep_9() {
        check(
            MetadataMessage::Request { part: 0 },
            b"d8:msg_typei0e5:piecei0ee",
        );
        check(
            MetadataMessage::Data {
                part: 0,
                total_size: 3425,
                data: Bytes::from_static(b"xxxxxxxx"),
            },
            b"d8:msg_typei1e5:piecei0e10:total_sizei3425eexxxxxxxx",
        );
        check(
            MetadataMessage::Reject { part: 7 },
            b"d8:msg_typei2e5:piecei7ee",
        );
    }

    #[test]
    fn data_share_the_memory_of_the_payload() {
        let payload = Bytes::from_static(b"d8:msg_typei1e5:piecei0e10:total_sizei4ee1234");
        let Ok(MetadataMessage::Data { data, .. }) = MetadataMessage::decode(&payload) else {
            panic!("a data message");
        };
        assert_eq!(data.as_ptr(), payload[payload.len() - 4..].as_ptr());
    }

    #[test]
    fn unknown_kinds_are_not_an_error() {
        for kind in ["3", "-1", "255"] {
            let payload = Bytes::from(format!("d8:msg_typei{kind}e5:piecei0ee"));
            assert_eq!(
                MetadataMessage::decode(&payload),
                Ok(MetadataMessage::Unknown)
            );
        }
    }

    #[test]
    fn missing_and_impossible_numbers_are_refused() {
        let bad = [
            &b"de"[..],
            b"",
            b"le",
            b"d5:piecei0ee",
            b"d8:msg_typei0ee",
            b"d8:msg_typei0e5:piecei-1ee",
            b"d8:msg_typei0e5:piecei4294967296ee",
            b"d8:msg_typei1e5:piecei0eexx",
            b"d8:msg_typei1e5:piecei0e10:total_sizei-1eexx",
            b"d8:msg_type1:05:piecei0ee",
        ];
        for payload in bad {
            let decoded = MetadataMessage::decode(&Bytes::from_static(payload));
            assert_eq!(decoded, Err(ProtocolError::Extension), "{payload:?}");
        }
    }

    #[test]
    fn a_part_longer_than_16_kib_is_refused() {
        let mut payload = b"d8:msg_typei1e5:piecei0e10:total_sizei99999ee".to_vec();
        let dictionary = payload.len();
        payload.resize(dictionary + 16384, 0);
        assert!(MetadataMessage::decode(&Bytes::from(payload.clone())).is_ok());
        payload.push(0);
        assert!(MetadataMessage::decode(&Bytes::from(payload)).is_err());
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(
            part: u32,
            total_size: u32,
            data in prop::collection::vec(any::<u8>(), 0..500),
        ) {
            let data = Bytes::from(data);
            for message in [
                MetadataMessage::Request { part },
                MetadataMessage::Data { part, total_size, data },
                MetadataMessage::Reject { part },
            ] {
                let payload = Bytes::from(message.encode());
                prop_assert_eq!(MetadataMessage::decode(&payload), Ok(message));
            }
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes: Vec<u8>, text in "[dlei0-9:msg_type]{0,60}") {
            let _ = MetadataMessage::decode(&Bytes::from(bytes));
            let _ = MetadataMessage::decode(&Bytes::from(text));
        }
    }
}
