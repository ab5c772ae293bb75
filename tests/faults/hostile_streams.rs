//! What hostile peers send after the handshake.

use crate::bencode::string_of;
use crate::content::{BLOCK, Content};
use crate::wire::{frame, numbers};

/// What must become of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It ends.
    Ends,
    /// It ends if the number of pieces was known when the bytes came: what is out of range cannot be said
    /// before.
    EndsIfKnown,
    /// It may go on.
    Borne,
}

/// Bytes that a peer sends after its handshake.
pub(crate) struct Attack {
    /// What it is.
    pub(crate) name: String,
    /// The bytes.
    pub(crate) bytes: Vec<u8>,
    /// What must come of it.
    pub(crate) fate: Fate,
    /// Whether the handshake offers the fast extension (BEP 6).
    pub(crate) fast: bool,
}

impl Attack {
    fn fatal(name: impl Into<String>, bytes: Vec<u8>) -> Self {
        Self {
            name: name.into(),
            bytes,
            fate: Fate::Ends,
            fast: false,
        }
    }

    /// The same after the fast extension was agreed on.
    fn fast(self) -> Self {
        let name = format!("fast: {}", self.name);
        Self {
            name,
            fast: true,
            ..self
        }
    }

    fn borne(name: impl Into<String>, bytes: Vec<u8>) -> Self {
        Self {
            fate: Fate::Borne,
            ..Self::fatal(name, bytes)
        }
    }
}

impl Attack {
    fn out_of_range(name: &str, bytes: Vec<u8>) -> Self {
        Self {
            fate: Fate::EndsIfKnown,
            ..Self::fatal(name, bytes)
        }
    }
}

/// Every attack, against a peer of this torrent.
pub(crate) fn attacks(content: &Content) -> Vec<Attack> {
    let mut all = wrong_lengths();
    all.extend(wrong_pieces(content));
    all.extend(floods(content));
    all.extend(wrong_extensions());
    all.extend(wrong_fast_messages(content));
    all
}

/// Messages whose length cannot be right.
fn wrong_lengths() -> Vec<Attack> {
    // Id and length of the payload of every message of a fixed length (BEP 3 and 5).
    let fixed = [
        (0, 0),
        (1, 0),
        (2, 0),
        (3, 0),
        (4, 4),
        (6, 12),
        (8, 12),
        (9, 2),
    ];
    let mut all = Vec::new();
    for (id, length) in fixed {
        all.push(Attack::fatal(
            format!("message {id} a byte long"),
            frame(id, &vec![0; length + 1]),
        ));
        if length > 0 {
            let short = frame(id, &vec![0; length - 1]);
            all.push(Attack::fatal(format!("message {id} a byte short"), short));
        }
    }
    all.push(Attack::fatal(
        "a block without its numbers",
        frame(7, &[0; 7]),
    ));
    all.push(Attack::fatal(
        "a block of 17 KiB",
        frame(7, &vec![0; 8 + BLOCK + 1024]),
    ));
    for id in [5, 7, 20, 99] {
        let bytes = [&u32::MAX.to_be_bytes()[..], &[id], &[0; 64]].concat();
        all.push(Attack::fatal(
            format!("message {id} of 2^32 - 1 bytes"),
            bytes,
        ));
    }
    all.push(Attack::fatal(
        "a second handshake",
        b"\x13BitTorrent protocol".repeat(4),
    ));
    all
}

/// Pieces, blocks and bitfields that the torrent does not have.
fn wrong_pieces(content: &Content) -> Vec<Attack> {
    let pieces = u32::try_from(content.pieces()).unwrap();
    let piece_length = u32::try_from(content.piece_length).unwrap();
    let full = content.full_bitfield();
    let mut long = full.clone();
    long.push(0);
    let mut spare = full.clone();
    let unused = full.len() * 8 - content.pieces();
    assert!(unused > 0, "the torrent leaves spare bits");
    *spare.last_mut().unwrap() |= 1;
    let block = u32::try_from(BLOCK).unwrap();
    let request = |piece, offset, length| frame(6, &numbers(&[piece, offset, length]));
    vec![
        Attack::fatal("a short bitfield", frame(5, &full[1..])),
        Attack::fatal("a long bitfield", frame(5, &long)),
        Attack::fatal("a bitfield with a spare bit", frame(5, &spare)),
        Attack::fatal("an empty bitfield", frame(5, &[])),
        Attack::fatal(
            "a bitfield that is taken back",
            [frame(5, &full), frame(5, &vec![0; full.len()])].concat(),
        ),
        Attack::fatal(
            "a bitfield that takes a have back",
            [frame(4, &numbers(&[0])), frame(5, &vec![0; full.len()])].concat(),
        ),
        Attack::fatal("a have out of range", frame(4, &numbers(&[pieces]))),
        Attack::fatal("a have far out of range", frame(4, &numbers(&[u32::MAX]))),
        Attack::out_of_range(
            "a request of a piece out of range",
            request(pieces, 0, block),
        ),
        Attack::out_of_range(
            "a request of a late offset",
            request(0, piece_length, block),
        ),
        Attack::out_of_range(
            "a request of an offset that overflows",
            request(0, u32::MAX, block),
        ),
        Attack::out_of_range("a request of too much", request(0, 0, block + 1)),
        Attack::out_of_range("a request of 2^32 - 1 bytes", request(0, 0, u32::MAX)),
    ]
}

/// Right messages, but too many of them.
fn floods(content: &Content) -> Vec<Attack> {
    let block = u32::try_from(BLOCK).unwrap();
    let full = frame(5, &content.full_bitfield());
    let request = frame(6, &numbers(&[0, 0, block]));
    let full_pieces = u32::try_from(content.pieces()).unwrap() - 1;
    let unasked = |number: u32| {
        let (piece, offset) = (number % full_pieces, number / full_pieces * block);
        let data = content.block(piece, offset, block).unwrap();
        frame(7, &[&numbers(&[piece, offset])[..], data].concat())
    };
    let many_blocks: Vec<u8> = (0..200).flat_map(unasked).collect();
    let haves: Vec<u8> = (0..u32::try_from(content.pieces()).unwrap())
        .flat_map(|piece| frame(4, &numbers(&[piece])))
        .collect();
    vec![
        Attack::fatal("a million requests never read", request.repeat(1_000_000)),
        Attack::fatal(
            "a million requests with interest, never read",
            [frame(2, &[]), request.repeat(1_000_000)].concat(),
        ),
        Attack::fatal(
            "blocks never asked for",
            [full.clone(), many_blocks].concat(),
        ),
        Attack::fatal(
            "one block 200 times",
            [full.clone(), unasked(0).repeat(200)].concat(),
        ),
        Attack::fatal(
            "choke flapping",
            [full, [frame(1, &[]), frame(0, &[])].concat().repeat(1_000)].concat(),
        ),
        Attack::fatal(
            "interest flapping",
            [frame(2, &[]), frame(3, &[])].concat().repeat(1_000),
        ),
        Attack::borne("keep-alives", vec![0; 400_000]),
        Attack::borne("haves again and again", haves.repeat(30)),
        Attack::borne("cancels", frame(8, &numbers(&[0, 0, block])).repeat(10_000)),
        Attack::borne("unknown messages", frame(77, &[7; 1_000]).repeat(1_000)),
        Attack::borne(
            "ports",
            (0..=u16::MAX)
                .flat_map(|port| frame(9, &port.to_be_bytes()))
                .collect(),
        ),
    ]
}

/// Lies in the extension protocol (BEP 9, 10, 11).
fn wrong_extensions() -> Vec<Attack> {
    let extended = |number: u8, payload: &[u8]| frame(20, &[&[number], payload].concat());
    let hello = |text: &str| extended(0, text.as_bytes());
    let mut all = Vec::new();
    for size in [
        "0",
        "-1",
        "2147483648",
        "9223372036854775807",
        "99999999999999999999",
    ] {
        let text = format!("d1:md11:ut_metadatai3ee13:metadata_sizei{size}ee");
        let bytes = [hello(&text), extended(1, b"d8:msg_typei1e5:piecei0eexxxx")].concat();
        all.push(Attack::borne(format!("metadata_size {size}"), bytes));
    }
    let names: String = (0..10_000)
        .map(|n| format!("8:name{n:04}i{}e", n % 300))
        .collect();
    all.push(Attack::borne(
        "10,000 names",
        hello(&format!("d1:md{names}ee")),
    ));
    all.push(Attack::borne(
        "numbers over 255",
        hello("d1:md11:ut_metadatai256e6:ut_pexi-1eee"),
    ));
    all.push(Attack::borne(
        "a handshake without end",
        extended(0, &b"d1:m".repeat(100_000)),
    ));
    all.push(Attack::borne(
        "a handshake that is a list",
        extended(0, &b"l".repeat(1_000)),
    ));
    all.push(Attack::borne(
        "handshake after handshake",
        hello("d1:mdee").repeat(10_000),
    ));
    all.push(Attack::borne("an empty extended message", frame(20, &[])));
    let peers = string_of(&[127, 0, 9, 9, 0x1a, 0xe1].repeat(10_000));
    let gossip = [&b"d5:added"[..], &peers, b"7:added.f0:7:dropped0:e"].concat();
    for number in 1..=4 {
        let parts: Vec<u8> = ["0", "-1", "2147483648", "1"]
            .iter()
            .flat_map(|part| extended(number, format!("d8:msg_typei0e5:piecei{part}ee").as_bytes()))
            .collect();
        all.push(Attack::borne(
            format!("extension {number}: metadata requests"),
            parts.repeat(2_000),
        ));
        let answers = [
            &b"d8:msg_typei1e5:piecei0e10:total_sizei9eexxxxxxxxx"[..],
            b"d8:msg_typei2e5:piecei0ee",
        ];
        let answers: Vec<u8> = answers
            .iter()
            .flat_map(|text| extended(number, text))
            .collect();
        all.push(Attack::borne(
            format!("extension {number}: answers unasked"),
            answers.repeat(500),
        ));
        all.push(Attack::borne(
            format!("extension {number}: 10,000 peers"),
            extended(number, &gossip).repeat(20),
        ));
    }
    all
}

/// Lies in the fast extension (BEP 6), and its messages where it was not agreed on.
fn wrong_fast_messages(content: &Content) -> Vec<Attack> {
    let pieces = u32::try_from(content.pieces()).unwrap();
    let block = u32::try_from(BLOCK).unwrap();
    // Id and payload of a right message of each kind.
    let right = [
        (13, numbers(&[0])),
        (14, Vec::new()),
        (15, Vec::new()),
        (16, numbers(&[0, 0, block])),
        (17, numbers(&[0])),
    ];
    let mut all = Vec::new();
    for (id, payload) in right {
        let name = format!("message {id} that was not agreed on");
        all.push(Attack::fatal(name, frame(id, &payload)));
        let long = frame(id, &[&payload[..], &[0]].concat());
        all.push(Attack::fatal(format!("message {id} a byte long"), long).fast());
        if !payload.is_empty() {
            let short = frame(id, &payload[1..]);
            all.push(Attack::fatal(format!("message {id} a byte short"), short).fast());
        }
    }
    let (have_all, have_none) = (frame(14, &[]), frame(15, &[]));
    let have = frame(4, &numbers(&[0]));
    let none = frame(5, &vec![0; content.full_bitfield().len()]);
    for (name, bytes) in [
        ("all and then none", [&have_all[..], &have_none].concat()),
        (
            "all and then a bitfield of none",
            [&have_all[..], &none].concat(),
        ),
        ("a have and then none", [&have[..], &have_none].concat()),
        (
            // As many as an earlier request could explain are borne.
            "rejects of what was never asked for",
            [
                &have_none[..],
                &frame(16, &numbers(&[0, 0, block])).repeat(51),
            ]
            .concat(),
        ),
    ] {
        all.push(Attack::fatal(name, bytes).fast());
    }
    for (name, id, payload) in [
        ("a suggested piece out of range", 13, numbers(&[pieces])),
        ("an allowed piece out of range", 17, numbers(&[u32::MAX])),
    ] {
        all.push(Attack::out_of_range(name, frame(id, &payload)).fast());
    }
    let allowed: Vec<u8> = (0..50_000)
        .flat_map(|number| frame(17, &numbers(&[number % pieces])))
        .collect();
    all.push(Attack::borne("50,000 allowed pieces", allowed).fast());
    all
}
