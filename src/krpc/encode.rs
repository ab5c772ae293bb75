//! Writing messages in canonical form: dictionary keys in order, nothing superfluous.
//!
//! Invariant: what is written here, [`Message::decode`](super::Message::decode) reads, and no
//! response is longer than [`REPLY_MAX`] bytes, or [`VALUE_REPLY_MAX`] with the value of an item.

use std::net::SocketAddr;

use super::compact::{write_node, write_peer};
use super::{
    BLOOM_LENGTH, ContactInfo, ERROR_TEXT_MAX, ErrorCode, Extra, Family, KEY_LENGTH, Method, Put,
    Query, REPLY_MAX, SIGNATURE_LENGTH, VALUE_REPLY_MAX, VERSION,
};
use crate::bencode::Writer;
use crate::id::{ID_LENGTH, NodeId};

#[cfg(test)]
mod tests;

/// Appends a query. `read_only` adds `ro` (BEP 43); `want` is added unless both are `false`.
///
/// `transaction` has 1 to [`TRANSACTION_MAX`](super::TRANSACTION_MAX) bytes.
pub fn write_query(out: &mut Vec<u8>, transaction: &[u8], read_only: bool, query: &Query<'_>) {
    let mut writer = Writer::new(out);
    writer.begin_dictionary().key("a").begin_dictionary();
    if let Method::Put(Put {
        signed: Some(signed),
        ..
    }) = &query.method
        && let Some(cas) = signed.cas
    {
        writer.key("cas").integer(cas);
    }
    writer.key("id").bytes(query.id.as_bytes());
    write_arguments(&mut writer, &query.method);
    if query.want.no_seeds {
        writer.key("noseed").integer(1);
    }
    if query.want.scrape {
        writer.key("scrape").integer(1);
    }
    if query.want.v4 || query.want.v6 {
        writer.key("want").begin_list();
        if query.want.v4 {
            writer.bytes(b"n4");
        }
        if query.want.v6 {
            writer.bytes(b"n6");
        }
        writer.end();
    }
    writer.end();
    writer.key("q").bytes(query.method.name());
    if read_only {
        writer.key("ro").integer(1);
    }
    write_end(&mut writer, transaction, b"q");
}

/// Appends the arguments between `id` and `want`.
fn write_arguments(writer: &mut Writer<'_>, method: &Method<'_>) {
    match *method {
        Method::Ping => {}
        Method::Get { target, seq } => {
            if let Some(seq) = seq {
                writer.key("seq").integer(seq);
            }
            writer.key("target").bytes(target.as_bytes());
        }
        Method::Put(put) => write_put(writer, &put),
        Method::FindNode { target } | Method::SampleInfohashes { target } => {
            writer.key("target").bytes(target.as_bytes());
        }
        Method::GetPeers { info_hash } => {
            writer.key("info_hash").bytes(info_hash.as_bytes());
        }
        Method::AnnouncePeer {
            info_hash,
            port,
            implied_port,
            seed,
            token,
        } => {
            if implied_port {
                writer.key("implied_port").integer(1);
            }
            writer.key("info_hash").bytes(info_hash.as_bytes());
            writer.key("port").integer(i64::from(port));
            if seed {
                writer.key("seed").integer(1);
            }
            writer.key("token").bytes(token);
        }
        Method::Unknown { target, .. } => {
            if let Some(target) = target {
                writer.key("target").bytes(target.as_bytes());
            }
        }
    }
}

/// Appends the arguments of a `put` behind `id`.
fn write_put(writer: &mut Writer<'_>, put: &Put<'_>) {
    if let Some(signed) = put.signed {
        writer.key("k").bytes(signed.key);
        if !signed.salt.is_empty() {
            writer.key("salt").bytes(signed.salt);
        }
        writer.key("seq").integer(signed.seq);
        writer.key("sig").bytes(signed.signature);
    }
    if let Some(target) = put.target {
        writer.key("target").bytes(target.as_bytes());
    }
    writer.key("token").bytes(put.token);
    writer.key("v").raw(put.value);
}

/// Appends an error message; of `text` at most [`ERROR_TEXT_MAX`] bytes, cut between characters.
pub fn write_error(out: &mut Vec<u8>, transaction: &[u8], code: ErrorCode, text: &str) {
    let mut end = text.len().min(ERROR_TEXT_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    let mut writer = Writer::new(out);
    writer.begin_dictionary().key("e").begin_list();
    writer
        .integer(code.number())
        .bytes(&text.as_bytes()[..end])
        .end();
    write_end(&mut writer, transaction, b"e");
}

/// Appends what ends every query and error: `t`, `v`, `y`.
fn write_end(writer: &mut Writer<'_>, transaction: &[u8], kind: &[u8]) {
    writer.key("t").bytes(transaction);
    writer.key("v").bytes(&VERSION);
    writer.key("y").bytes(kind).end();
}

/// What a response holds; [`ResponseWriter::write`] puts it into canonical order.
#[derive(Debug, Clone, Copy)]
pub struct ResponseWriter<'a> {
    /// `t` of the query that is answered, 1 to [`TRANSACTION_MAX`](super::TRANSACTION_MAX) bytes.
    pub transaction: &'a [u8],
    /// Our id.
    pub id: NodeId,
    /// The asker's address, told back as `ip` (BEP 42).
    pub asker: SocketAddr,
    /// IPv4 contacts; `None` leaves the key out, `Some(&[])` gives an empty string.
    pub nodes: Option<&'a [ContactInfo]>,
    /// IPv6 contacts, likewise.
    pub nodes6: Option<&'a [ContactInfo]>,
    /// Token for a later announce, at most [`TOKEN_MAX`](super::TOKEN_MAX) bytes.
    pub token: Option<&'a [u8]>,
    /// Peers; the key is left out when there are none.
    pub values: &'a [SocketAddr],
    /// What only some methods are answered with.
    pub extra: Extra<'a>,
}

/// `6:valuesl` and `e`: what a list of peers costs beside its entries.
const VALUES_OVERHEAD: usize = 10;

impl<'a> ResponseWriter<'a> {
    /// How many peers of a family fit into [`REPLY_MAX`] bytes beside everything else. What
    /// `values` holds now does not count: a server asks first and draws so many from its store.
    #[must_use]
    pub fn values_max(&self, family: Family) -> usize {
        let (_, _, room) = self.fitting_nodes();
        room.saturating_sub(VALUES_OVERHEAD) / string_length(family.peer_length())
    }

    /// Appends the response. It has at most [`REPLY_MAX`] bytes, or
    /// [`VALUE_REPLY_MAX`] with the value of an item: peers that do not fit are left
    /// out, then contacts, each from the end of its list.
    pub fn write(&self, out: &mut Vec<u8>) {
        // Written without `Writer`, which needs each string in one piece: nodes are packed on the
        // way.
        let start = out.len();
        let (nodes, nodes6, room) = self.fitting_nodes();
        out.extend_from_slice(b"d2:ip");
        write_peer_string(out, &self.asker);
        out.extend_from_slice(b"1:rd");
        if let Extra::Scrape(filters) = self.extra {
            out.extend_from_slice(b"4:BFpe");
            write_string(out, filters.peers.as_bytes());
            out.extend_from_slice(b"4:BFsd");
            write_string(out, filters.seeds.as_bytes());
        }
        out.extend_from_slice(b"2:id");
        write_string(out, self.id.as_bytes());
        match self.extra {
            Extra::Samples(samples) => {
                let secs = i64::from(samples.interval_secs);
                Writer::new(out).key("interval").integer(secs);
            }
            Extra::Item(item) => {
                if let Some(key) = item.key {
                    Writer::new(out).key("k").bytes(key);
                }
            }
            Extra::None | Extra::Scrape(_) => {}
        }
        if let Some(nodes) = nodes {
            out.extend_from_slice(b"5:nodes");
            write_nodes(out, nodes, Family::V4);
        }
        if let Some(nodes) = nodes6 {
            out.extend_from_slice(b"6:nodes6");
            write_nodes(out, nodes, Family::V6);
        }
        self.write_stored(out);
        if let Some(token) = self.token {
            out.extend_from_slice(b"5:token");
            write_string(out, token);
        }
        if let Some(value) = self.value() {
            Writer::new(out).key("v").raw(value);
        }
        self.write_values(out, room);
        out.extend_from_slice(b"e1:t");
        write_string(out, self.transaction);
        out.extend_from_slice(b"1:v");
        write_string(out, &VERSION);
        out.extend_from_slice(b"1:y1:re");
        debug_assert!(out.len() - start <= self.length_max());
    }

    /// Appends what stands between the contacts and the token.
    fn write_stored(&self, out: &mut Vec<u8>) {
        let mut writer = Writer::new(out);
        match self.extra {
            Extra::Samples(samples) => {
                let num = i64::try_from(samples.num).unwrap_or(i64::MAX);
                writer.key("num").integer(num);
                writer.key("samples").bytes(samples.hashes);
            }
            Extra::Item(item) => {
                if let Some(seq) = item.seq {
                    writer.key("seq").integer(seq);
                }
                if let Some(signature) = item.signature {
                    writer.key("sig").bytes(signature);
                }
            }
            Extra::None | Extra::Scrape(_) => {}
        }
    }

    /// The value of an item, bencoded.
    const fn value(&self) -> Option<&'a [u8]> {
        match self.extra {
            Extra::Item(item) => item.value,
            Extra::None | Extra::Scrape(_) | Extra::Samples(_) => None,
        }
    }

    /// Bytes this response may have.
    const fn length_max(&self) -> usize {
        match self.value() {
            Some(_) => VALUE_REPLY_MAX,
            None => REPLY_MAX,
        }
    }

    /// Appends as many peers as fit into `room` bytes, and nothing if that is none.
    fn write_values(&self, out: &mut Vec<u8>, room: usize) {
        let Some(mut room) = room.checked_sub(VALUES_OVERHEAD) else {
            return;
        };
        let fitting = self.values.iter().take_while(|value| {
            let length = string_length(Family::of(value).peer_length());
            let fits = length <= room;
            room = room.saturating_sub(length);
            fits
        });
        let mut fitting = fitting.peekable();
        if fitting.peek().is_none() {
            return;
        }
        out.extend_from_slice(b"6:valuesl");
        for value in fitting {
            write_peer_string(out, value);
        }
        out.push(b'e');
    }

    /// The contacts of each family that fit, and the bytes that stay free for peers.
    fn fitting_nodes(&self) -> (Option<&'a [ContactInfo]>, Option<&'a [ContactInfo]>, usize) {
        let mut room = self.length_max().saturating_sub(self.bare_length());
        let nodes = fitting(self.nodes, Family::V4, b"5:nodes".len(), &mut room);
        let nodes6 = fitting(self.nodes6, Family::V6, b"6:nodes6".len(), &mut room);
        (nodes, nodes6, room)
    }

    /// Bytes of the response without contacts and peers.
    fn bare_length(&self) -> usize {
        let fixed = b"d2:ip1:rd2:ide1:t1:v1:y1:re".len() + string_length(VERSION.len());
        let token = self
            .token
            .map_or(0, |token| b"5:token".len() + string_length(token.len()));
        fixed
            + string_length(Family::of(&self.asker).peer_length())
            + string_length(ID_LENGTH)
            + string_length(self.transaction.len())
            + token
            + extra_length(&self.extra)
    }
}

/// The contacts of `family` among `contacts` that fit, key included, into `room`, which shrinks by
/// what they take. A list that begins with another family's contact, or for whose key there is no
/// room, is treated as if it were not there.
fn fitting<'a>(
    contacts: Option<&'a [ContactInfo]>,
    family: Family,
    key_length: usize,
    room: &mut usize,
) -> Option<&'a [ContactInfo]> {
    let contacts = contacts?;
    debug_assert!(
        contacts
            .iter()
            .all(|contact| Family::of(&contact.address) == family),
        "contacts are sorted by family before they are written"
    );
    // Four digits at most, because REPLY_MAX has no more, and the colon.
    let free = room.checked_sub(key_length + 5)?;
    let count = contacts.len().min(free / family.node_length());
    let contacts = &contacts[..count];
    *room -= key_length + string_length(count * family.node_length());
    Some(contacts)
}

/// Bytes of what only some methods are answered with, keys included.
fn extra_length(extra: &Extra<'_>) -> usize {
    match extra {
        Extra::None => 0,
        Extra::Scrape(_) => 2 * (b"4:BFpe".len() + string_length(BLOOM_LENGTH)),
        Extra::Samples(samples) => {
            let keys = b"8:interval3:num7:samples".len();
            let num = i64::try_from(samples.num).unwrap_or(i64::MAX);
            keys + integer_length(samples.interval_secs.into())
                + integer_length(num)
                + string_length(samples.hashes.len())
        }
        Extra::Item(item) => {
            let key = item.key.map_or(0, |_| 3 + string_length(KEY_LENGTH));
            let seq = item.seq.map_or(0, |seq| 5 + integer_length(seq));
            let signature = item
                .signature
                .map_or(0, |_| 5 + string_length(SIGNATURE_LENGTH));
            let value = item.value.map_or(0, |value| 3 + value.len());
            key + seq + signature + value
        }
    }
}

/// Bytes of a bencoded integer.
fn integer_length(value: i64) -> usize {
    let digits = value.unsigned_abs().checked_ilog10().unwrap_or(0) + 1;
    let digits = usize::try_from(digits).expect("an integer has at most 19 digits");
    2 + digits + usize::from(value < 0)
}

/// Bytes of a bencoded string of `length` bytes.
fn string_length(length: usize) -> usize {
    let digits = length.checked_ilog10().unwrap_or(0) + 1;
    let digits = usize::try_from(digits).expect("a usize has at most 20 digits");
    digits + 1 + length
}

/// Appends the length and colon of a bencoded string of fewer than 10,000 bytes.
fn write_length(out: &mut Vec<u8>, length: usize) {
    debug_assert!(length < 10_000);
    for power in [1000, 100, 10] {
        if length >= power {
            out.push(digit(length / power));
        }
    }
    out.extend_from_slice(&[digit(length), b':']);
}

/// The last decimal digit of a number.
fn digit(number: usize) -> u8 {
    b"0123456789"[number % 10]
}

/// Appends a bencoded string.
fn write_string(out: &mut Vec<u8>, bytes: &[u8]) {
    write_length(out, bytes.len());
    out.extend_from_slice(bytes);
}

/// Appends an address as a bencoded string of 6 or 18 bytes.
fn write_peer_string(out: &mut Vec<u8>, address: &SocketAddr) {
    write_length(out, Family::of(address).peer_length());
    write_peer(out, address);
}

/// Appends contacts of one family as one bencoded string.
fn write_nodes(out: &mut Vec<u8>, contacts: &[ContactInfo], family: Family) {
    write_length(out, contacts.len() * family.node_length());
    for contact in contacts {
        write_node(out, contact);
    }
}
