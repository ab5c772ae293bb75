//! What a hunt starts from: every message of the protocol once, and scripts in which each does
//! something.

use std::net::SocketAddr;
use std::sync::LazyLock;

use trackless::dht::{Item, SecretKey};
use trackless::id::{InfoHash, NodeId};
use trackless::krpc::{
    BloomFilter, ErrorCode, Extra, Filters, ItemView, Method, Put, Query, ResponseWriter, Samples,
    SignedPut, VERSION, Want, write_error, write_query,
};

use crate::answers::bare;
use crate::profile::Profile;
use crate::script::{Call, Script, Step, Style};
use crate::template::slot;

/// Torrents that scripts speak of.
pub const TORRENTS: u8 = 6;

/// The item that is as large as one may be, or nearly so.
const LARGE_ITEM: u8 = 20;

/// Items that scripts speak of.
pub const ITEMS_MAX: u8 = 24;

/// A torrent by its number, taken round [`TORRENTS`].
#[must_use]
pub const fn torrent(number: u8) -> InfoHash {
    InfoHash::new([b'a' + number % TORRENTS; 20])
}

/// An item by its number, taken round [`ITEMS_MAX`]: one in four is immutable, the others are versions of one
/// mutable item.
///
/// # Panics
///
/// Never: the values are short.
#[must_use]
pub fn item(number: u8) -> &'static Item {
    static ITEMS: LazyLock<Vec<Item>> = LazyLock::new(|| (0..ITEMS_MAX).map(made_item).collect());
    &ITEMS[usize::from(number % ITEMS_MAX)]
}

fn made_item(number: u8) -> Item {
    let item = if number == LARGE_ITEM {
        Item::immutable(&[b"990:", &[b'x'; 990][..]].concat())
    } else if number.is_multiple_of(4) {
        Item::immutable(format!("i{number}e").as_bytes())
    } else {
        let key = SecretKey::from_seed(&[7; 32]);
        let seq = i64::from(number);
        Item::mutable(&key, b"salt", seq, format!("i{}e", number / 2).as_bytes())
    };
    item.expect("short values can be stored")
}

/// A token, an id and a transaction that stand for slots: an id that begins with the slot of its
/// speaker.
const TOKEN: [u8; 2] = slot(b'K');

fn id_slot() -> NodeId {
    let mut id = [0; 20];
    id[..2].copy_from_slice(&slot(b'I'));
    NodeId::new(id)
}

/// Replaces strings that stand for slots by the slots.
fn with_slots(message: &[u8]) -> Vec<u8> {
    let id = [&b"20:"[..], id_slot().as_bytes()].concat();
    let mut template = Vec::new();
    let mut rest = message;
    while let Some((first, behind)) = rest.split_first() {
        let is_short = rest.starts_with(b"2:") && behind.get(1) == Some(&1);
        if rest.starts_with(&id) {
            template.extend(slot(b'I'));
            rest = &rest[id.len()..];
        } else if is_short && rest.len() > 3 {
            template.extend(&rest[2..4]);
            rest = &rest[4..];
        } else {
            template.push(*first);
            rest = behind;
        }
    }
    template
}

fn query(method: Method<'_>, want: Want) -> Vec<u8> {
    let query = Query {
        id: id_slot(),
        want,
        method,
    };
    let mut out = Vec::new();
    write_query(&mut out, b"a", false, &query);
    // The shortest query gets the most for its bytes.
    let version = [b"1:v4:", &VERSION[..]].concat();
    let at = out.windows(version.len()).position(|part| part == version);
    out.drain(at.map_or(0..0, |at| at..at + version.len()));
    with_slots(&out)
}

fn announce(number: u8, port: u16, implied_port: bool, seed: bool) -> Vec<u8> {
    let method = Method::AnnouncePeer {
        info_hash: torrent(number),
        port,
        implied_port,
        seed,
        token: &TOKEN,
    };
    query(method, Want::default())
}

fn queries() -> Vec<Vec<u8>> {
    let target = torrent(0).as_target();
    let plain = Want::default();
    let all = Want {
        v4: true,
        v6: true,
        scrape: true,
        no_seeds: true,
    };
    let mut queries = vec![
        query(Method::Ping, plain),
        query(Method::FindNode { target }, plain),
        query(Method::FindNode { target }, all),
        query(Method::SampleInfohashes { target }, plain),
        query(
            Method::Unknown {
                name: b"vote",
                target: Some(target),
            },
            plain,
        ),
        query(
            Method::Unknown {
                name: b"vote",
                target: None,
            },
            plain,
        ),
    ];
    for number in 0..TORRENTS {
        let info_hash = torrent(number);
        queries.push(query(Method::GetPeers { info_hash }, plain));
        queries.push(announce(number, 7000, false, number % 2 == 0));
    }
    let info_hash = torrent(0);
    queries.push(query(Method::GetPeers { info_hash }, all));
    queries.push(announce(0, 1, true, false));
    for number in [0, 1, 2, 3, 4, 8, 12, 16] {
        let item = item(number);
        let target = item.target();
        queries.push(query(Method::Get { target, seq: None }, plain));
        let seq = item.seq();
        queries.push(query(Method::Get { target, seq }, all));
        for cas in [None, Some(1)] {
            queries.push(query(Method::Put(item.put(&TOKEN, cas)), plain));
        }
    }
    queries.extend(bad_puts());
    queries
}

/// Items that break BEP 44 in ways that a change of bytes does not find.
fn bad_puts() -> Vec<Vec<u8>> {
    let long = [b"997:", &[b'x'; 997][..]].concat();
    let right = item(1);
    let right = right.put(&TOKEN, None);
    let signed = right.signed.expect("it is signed");
    let with = |value, signed| {
        let put = Put {
            target: None,
            token: &TOKEN,
            value,
            signed,
        };
        query(Method::Put(put), Want::default())
    };
    let long_salt = SignedPut {
        salt: &[b's'; 65],
        ..signed
    };
    vec![
        with(&long, None),
        with(right.value, Some(long_salt)),
        with(b"i99e", Some(signed)),
    ]
}

fn responses() -> Vec<Vec<u8>> {
    let asker: SocketAddr = ([10, 0, 0, 1], 6881).into();
    let transaction = slot(b'T');
    let bare = bare(&transaction, id_slot(), asker);
    let mut filter = BloomFilter::new();
    filter.insert(asker.ip());
    let item = item(1);
    let put = item.put(b"", None);
    let signed = put.signed.expect("it is signed");
    let view = ItemView {
        value: Some(put.value),
        key: Some(signed.key),
        seq: Some(signed.seq),
        signature: Some(signed.signature),
    };
    let samples = Samples {
        interval_secs: 60,
        num: 3,
        hashes: &[b'h'; 60],
    };
    let filters = Filters {
        seeds: &filter,
        peers: &filter,
    };
    let values = [asker, ([8, 8, 8, 8], 80).into()];
    let written = [
        bare,
        ResponseWriter {
            token: Some(b"token"),
            values: &values,
            ..bare
        },
        ResponseWriter {
            extra: Extra::Scrape(filters),
            ..bare
        },
        ResponseWriter {
            extra: Extra::Item(view),
            ..bare
        },
        ResponseWriter {
            extra: Extra::Samples(samples),
            ..bare
        },
    ]
    .map(|response| {
        let mut out = Vec::new();
        response.write(&mut out);
        with_slots(&out)
    });
    let mut all = written.to_vec();
    all.push(
        b"d1:rd2:id\x01I5:nodes\x01N6:nodes6\x01n5:token1:x6:values\x01Ve1:t\x01T1:y1:re".to_vec(),
    );
    all.push(b"d1:rd2:id\x01Ie1:t\x01t1:y1:re".to_vec());
    let mut error = Vec::new();
    write_error(&mut error, &slot(b'T'), ErrorCode::Server, "no");
    all.push(with_slots(&error));
    all
}

/// Every message, and a few that are none.
#[must_use]
pub fn templates() -> Vec<Vec<u8>> {
    let mut all = queries();
    all.extend(responses());
    all.extend(
        [
            &b"d1:ad2:id\x01I9:info_hash20:aaaaaaaaaaaaaaaaaaaa4:porti9e5:token\x01ke1:q13:announce_peer1:t2:aa1:y1:qe"[..],
            b"d1:q4:ping1:t2:aa1:y1:qe",
            b"d1:ad2:id19:abcdefghij012345678e1:q4:ping1:t2:aa1:y1:qe",
            b"d1:ad2:id\x01Oe1:q4:ping2:roi1e1:t2:aa1:y1:qe",
            b"d1:ade1:t0:1:y1:qe",
            b"d1:t2:aa1:y1:xe",
            b"le",
            b"",
        ]
        .map(<[u8]>::to_vec),
    );
    all
}

/// Scripts to begin with, for each profile: nodes get known, strangers ask and store, the owner does
/// everything once.
#[must_use]
pub fn scripts() -> Vec<Script> {
    let mut scripts = Vec::new();
    for profile in Profile::ALL {
        let known = vec![
            Step::Call(Call::Bootstrap, 0),
            Step::Call(Call::Bootstrap, 12),
            Step::Answer(Style::Full),
            Step::Pass(1_000),
            Step::Answer(Style::Full),
        ];
        for (part, from) in templates()
            .chunks(12)
            .zip([2, 14, 22, 30, 33, 3, 15].into_iter().cycle())
        {
            let mut steps = known.clone();
            steps.extend(part.iter().map(|template| received(from, template.clone())));
            scripts.push(Script { profile, steps });
        }
        for (call, _) in Call::ALL {
            let mut steps = known.clone();
            for style in [Style::Full, Style::Lies] {
                steps.push(Step::Call(call, 1));
                steps.push(Step::Answer(style));
                steps.push(Step::Pass(3_700_000));
                steps.push(Step::Answer(style));
            }
            scripts.push(Script { profile, steps });
        }
    }
    scripts.push(crowd());
    scripts.push(hoard());
    scripts.push(hurry());
    scripts
}

/// A node of the cast says something once.
const fn received(from: u8, template: Vec<u8>) -> Step {
    Step::Receive {
        from,
        times: 1,
        template,
    }
}

/// What a small node lives through.
const fn small(steps: Vec<Step>) -> Script {
    Script {
        profile: Profile::Small,
        steps,
    }
}

/// Many nodes announce the same torrent to a small node.
fn crowd() -> Script {
    let info_hash = torrent(0);
    let ask = query(Method::GetPeers { info_hash }, Want::default());
    let messages = [ask, announce(0, 7000, false, false)];
    let steps = (0..7).flat_map(|from| messages.clone().map(|template| received(from, template)));
    small(steps.collect())
}

/// Many nodes store items at a small node, the last of which it has no room for.
fn hoard() -> Script {
    let steps = [0, 4, 8, 12, 16, LARGE_ITEM].into_iter().flat_map(|from| {
        let item = item(from);
        let target = item.target();
        let get = query(Method::Get { target, seq: None }, Want::default());
        let put = query(Method::Put(item.put(&TOKEN, None)), Want::default());
        [get, put].map(|template| received(from, template))
    });
    small(steps.collect())
}

/// More lookups at once than a small node has room for.
fn hurry() -> Script {
    let mut steps = vec![Step::Call(Call::Bootstrap, 0), Step::Answer(Style::Full)];
    steps.extend((0..9).map(|number| Step::Call(Call::FindPeers, number)));
    steps.push(Step::Answer(Style::Full));
    small(steps)
}
