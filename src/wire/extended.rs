//! The extension handshake (BEP 10), with what BEP 9 and BEP 21 put into it.

use std::net::IpAddr;

use super::{METADATA_LENGTH_MAX, ProtocolError};
use crate::bencode::{self, Dictionary, Limits, Value, Writer};

/// The id under which peers send us `ut_metadata` messages (BEP 9): what our extension handshake
/// names.
pub const UT_METADATA_ID: u8 = 1;

/// The same for `ut_pex` messages (BEP 11).
pub const UT_PEX_ID: u8 = 2;

/// The same for `lt_donthave` messages (BEP 54).
pub const LT_DONTHAVE_ID: u8 = 3;

/// Most characters kept of a peer's client name; it goes into logs and tables.
const CLIENT_LENGTH_MAX: usize = 64;

/// What is accepted as the bencode of an extension message. Unsorted keys do not end a connection,
/// because clients in use send them; the length is bounded by the decoder of messages already.
pub(super) const LIMITS: Limits = Limits {
    lenient: true,
    ..Limits::EXTENSION
};

/// An extension handshake: what we use of it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ExtensionHandshake {
    /// The sender's id for `ut_metadata`; `None` = not supported, or switched off with 0.
    pub ut_metadata: Option<u8>,
    /// The sender's id for `ut_pex`; `None` as above. Written as it is, 0 included, to switch it off.
    pub ut_pex: Option<u8>,
    /// The sender's id for `lt_donthave` (BEP 54); `None` as above.
    pub lt_donthave: Option<u8>,
    /// Bytes in the info dictionary (BEP 9); `None` when absent or absurd: 0, negative, over 32
    /// MiB.
    pub metadata_size: Option<u32>,
    /// `v`: the client's name and version, at most 64 characters, control characters escaped.
    pub client: Option<String>,
    /// `p`: TCP port on which the sender listens; `None` also for 0.
    pub listen_port: Option<u16>,
    /// `reqq`: requests that the sender queues without dropping any; `None` also for 0.
    pub request_queue: Option<u32>,
    /// `yourip`: the address at which the sender sees us.
    pub your_ip: Option<IpAddr>,
    /// `upload_only` (BEP 21): the sender will not download anything more.
    pub upload_only: bool,
}

impl ExtensionHandshake {
    /// The payload, which follows the extended message id 0.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(128);
        let mut writer = Writer::new(&mut out);
        writer.begin_dictionary().key("m").begin_dictionary();
        if let Some(id) = self.lt_donthave {
            writer.key("lt_donthave").integer(i64::from(id));
        }
        if let Some(id) = self.ut_metadata {
            writer.key("ut_metadata").integer(i64::from(id));
        }
        if let Some(id) = self.ut_pex {
            writer.key("ut_pex").integer(i64::from(id));
        }
        writer.end();
        if let Some(size) = self.metadata_size {
            writer.key("metadata_size").integer(i64::from(size));
        }
        if let Some(port) = self.listen_port {
            writer.key("p").integer(i64::from(port));
        }
        if let Some(requests) = self.request_queue {
            writer.key("reqq").integer(i64::from(requests));
        }
        // A later handshake names only what changed, so "no" has to be said.
        writer
            .key("upload_only")
            .integer(i64::from(self.upload_only));
        if let Some(client) = &self.client {
            writer.key("v").bytes(client.as_bytes());
        }
        match self.your_ip {
            Some(IpAddr::V4(ip)) => {
                writer.key("yourip").bytes(&ip.octets());
            }
            Some(IpAddr::V6(ip)) => {
                writer.key("yourip").bytes(&ip.octets());
            }
            None => {}
        }
        writer.end();
        out
    }

    /// Reads the payload of a first extension handshake.
    ///
    /// # Errors
    ///
    /// [`ProtocolError::Extension`] if it is not an acceptable bencoded dictionary. Values of the
    /// wrong kind or out of range are ignored.
    pub fn decode(payload: &[u8]) -> Result<Self, ProtocolError> {
        let mut handshake = Self::default();
        handshake.update(payload)?;
        Ok(handshake)
    }

    /// Reads the payload of a later extension handshake onto what is known: it names only what
    /// changed (BEP 10), and an id of 0 switches an extension off.
    ///
    /// # Errors
    ///
    /// As [`Self::decode`]; nothing is changed then.
    pub fn update(&mut self, payload: &[u8]) -> Result<(), ProtocolError> {
        let root = bencode::read(payload, &LIMITS).map_err(|_| ProtocolError::Extension)?;
        let root = root.as_dictionary().ok_or(ProtocolError::Extension)?;
        if let Some(names) = root.get(b"m").and_then(|m| m.as_dictionary()) {
            update_id(&mut self.lt_donthave, &names, b"lt_donthave");
            update_id(&mut self.ut_metadata, &names, b"ut_metadata");
            update_id(&mut self.ut_pex, &names, b"ut_pex");
        }
        if let Some(size) = root.get(b"metadata_size") {
            self.metadata_size =
                positive(&size).filter(|size| (1..=METADATA_LENGTH_MAX).contains(size));
        }
        if let Some(client) = root.get(b"v").and_then(|v| v.as_bytes()) {
            self.client = Some(printable(client)).filter(|client| !client.is_empty());
        }
        if let Some(port) = root.get(b"p") {
            self.listen_port = positive(&port).and_then(|port| u16::try_from(port).ok());
        }
        if let Some(requests) = root.get(b"reqq") {
            self.request_queue = positive(&requests);
        }
        if let Some(ip) = root.get(b"yourip").and_then(|ip| ip.as_bytes()) {
            self.your_ip = ip_address(ip);
        }
        if let Some(flag) = root.get(b"upload_only").and_then(|flag| flag.as_integer()) {
            self.upload_only = flag != 0;
        }
        Ok(())
    }
}

/// Takes over the id under `name`, if there is one that an id can be; 0 switches the extension off.
fn update_id(id: &mut Option<u8>, names: &Dictionary<'_>, name: &[u8]) {
    let value = names.get(name).and_then(|value| value.as_integer());
    if let Some(value) = value.and_then(|value| u8::try_from(value).ok()) {
        *id = Some(value).filter(|&value| value != 0);
    }
}

/// An integer of at least 1 that fits 32 bits.
fn positive(value: &Value<'_>) -> Option<u32> {
    let number = u32::try_from(value.as_integer()?).ok()?;
    (number > 0).then_some(number)
}

/// An address from its 4 or 16 bytes.
fn ip_address(bytes: &[u8]) -> Option<IpAddr> {
    if let Ok(octets) = <[u8; 4]>::try_from(bytes) {
        return Some(IpAddr::from(octets));
    }
    <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from)
}

/// A stranger's text made fit for a log: at most [`CLIENT_LENGTH_MAX`] characters, and those that
/// control a terminal or the direction of writing escaped.
fn printable(bytes: &[u8]) -> String {
    // Characters have at most four bytes, so these hold as many as are kept.
    let front = &bytes[..bytes.len().min(4 * CLIENT_LENGTH_MAX)];
    let mut text = String::new();
    let mut length = 0;
    for character in String::from_utf8_lossy(front).chars() {
        let escaped: String = if character.is_control() || is_direction(character) {
            character.escape_unicode().collect()
        } else {
            character.into()
        };
        length += escaped.chars().count();
        if length > CLIENT_LENGTH_MAX {
            break;
        }
        text.push_str(&escaped);
    }
    text
}

/// Whether a character changes the direction of writing, or is an invisible line separator.
const fn is_direction(character: char) -> bool {
    matches!(character, '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn check(payload: &[u8], expected: ExtensionHandshake) {
        assert_eq!(ExtensionHandshake::decode(payload), Ok(expected));
    }

    #[test]
    fn the_examples_of_the_beps_are_read() {
        check(
            b"d1:md11:LT_metadatai1e7:\xc2\xb5T_PEXi2ee1:pi6881e1:v13:\xc2\xb5Torrent 1.2e",
            ExtensionHandshake {
                client: Some("µTorrent 1.2".to_owned()),
                listen_port: Some(6881),
                ..Default::default()
            },
        );
        check(
            b"d1:md11:ut_metadatai3ee13:metadata_sizei31235e11:upload_onlyi1ee",
            ExtensionHandshake {
                ut_metadata: Some(3),
                metadata_size: Some(31235),
                upload_only: true,
                ..Default::default()
            },
        );
        check(b"de", ExtensionHandshake::default());
    }

    #[test]
    fn absurd_metadata_sizes_are_ignored() {
        let absurd = [0, -1, 1 << 31, i64::MAX, i64::MIN, (32 << 20) + 1];
        for size in absurd {
            let payload = format!("d13:metadata_sizei{size}ee");
            check(payload.as_bytes(), ExtensionHandshake::default());
        }
        let largest = ExtensionHandshake {
            metadata_size: Some(32 << 20),
            ..Default::default()
        };
        check(b"d13:metadata_sizei33554432ee", largest);
    }

    #[test]
    fn ids_over_255_and_below_0_are_ignored_and_0_is_off() {
        for id in ["256", "-1", "0", "9223372036854775807"] {
            let payload = format!("d1:md11:ut_metadatai{id}e6:ut_pexi{id}eee");
            check(payload.as_bytes(), ExtensionHandshake::default());
        }
    }

    #[test]
    fn ten_thousand_names_are_read_past() {
        let mut payload = b"d1:md".to_vec();
        for name in 0..10_000 {
            payload.extend(format!("6:a{name:05}i{}e", name % 256).bytes());
        }
        payload.extend(b"11:ut_metadatai7eee");
        let expected = ExtensionHandshake {
            ut_metadata: Some(7),
            ..Default::default()
        };
        check(&payload, expected);
    }

    #[test]
    fn values_of_the_wrong_kind_are_ignored() {
        check(
            b"d1:mi1e13:metadata_size1:x1:pi-5e4:reqqi0e11:upload_onlyle1:vi3e6:yourip3:abce",
            ExtensionHandshake::default(),
        );
        check(b"d1:pi65536ee", ExtensionHandshake::default());
    }

    #[test]
    fn what_is_no_dictionary_is_refused() {
        for payload in [&b""[..], b"le", b"i1e", b"d", b"de0:", b"d1:m", b"4:spam"] {
            let refused = Err(ProtocolError::Extension);
            assert_eq!(ExtensionHandshake::decode(payload), refused, "{payload:?}");
        }
        let bomb = vec![b'l'; 100_000];
        assert!(ExtensionHandshake::decode(&bomb).is_err());
    }

    #[test]
    fn a_later_handshake_names_only_what_changes() {
        let mut known = ExtensionHandshake::decode(
            b"d1:md11:ut_metadatai3e6:ut_pexi1ee13:metadata_sizei9e4:reqqi500ee",
        )
        .unwrap();
        known.update(b"d1:md11:ut_metadatai0eee").unwrap();
        assert_eq!((known.ut_metadata, known.ut_pex), (None, Some(1)));
        assert_eq!(known.metadata_size, Some(9));
        assert_eq!(known.request_queue, Some(500));
    }

    #[test]
    fn a_client_name_cannot_control_a_terminal_or_fill_a_log() {
        let mut payload = b"d1:v300:\x1b[2J\xe2\x80\xae\xff".to_vec();
        payload.resize(payload.len() + 300 - 8, b'x');
        payload.push(b'e');
        let client = ExtensionHandshake::decode(&payload)
            .unwrap()
            .client
            .unwrap();
        assert!(client.starts_with("\\u{1b}[2J\\u{202e}\u{fffd}xxx"));
        assert_eq!(client.chars().count(), 64);
    }

    fn any_handshake() -> impl Strategy<Value = ExtensionHandshake> {
        let optional = prop::option::of::<std::ops::RangeInclusive<u8>>;
        (
            (
                optional(1..=255),
                optional(1..=255),
                optional(1..=255),
                any::<bool>(),
            ),
            prop::option::of(1..=METADATA_LENGTH_MAX),
            prop::option::of("[a-zA-Zµ0-9 /.-]{1,64}"),
            prop::option::of(1..=u16::MAX),
            prop::option::of(1..=u32::MAX),
            prop::option::of(any::<IpAddr>()),
        )
            .prop_map(
                |(
                    (lt_donthave, ut_metadata, ut_pex, upload_only),
                    size,
                    client,
                    port,
                    reqq,
                    ip,
                )| {
                    ExtensionHandshake {
                        lt_donthave,
                        ut_metadata,
                        ut_pex,
                        metadata_size: size,
                        client,
                        listen_port: port,
                        request_queue: reqq,
                        your_ip: ip,
                        upload_only,
                    }
                },
            )
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(handshake in any_handshake()) {
            let bytes = handshake.encode();
            prop_assert_eq!(ExtensionHandshake::decode(&bytes), Ok(handshake));
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes: Vec<u8>, text in "[dlei0-9:mvp]{0,60}") {
            let _ = ExtensionHandshake::decode(&bytes);
            let _ = ExtensionHandshake::decode(text.as_bytes());
        }
    }
}
