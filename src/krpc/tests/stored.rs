//! Items, scrapes and samples: BEP 44, BEP 33, BEP 51.

use proptest::prelude::*;

use super::*;

const KEY: [u8; KEY_LENGTH] = [b'k'; KEY_LENGTH];
const SIGNATURE: [u8; SIGNATURE_LENGTH] = [b's'; SIGNATURE_LENGTH];

/// What is written is read, and is what the bytes are.
#[track_caller]
fn check_written(method: Method<'_>, want: Want, arguments: &str) {
    let query = Query {
        id: ALICE,
        want,
        method,
    };
    let mut out = Vec::new();
    write_query(&mut out, b"aa", false, &query);
    let name = String::from_utf8(method.name().to_vec()).unwrap();
    let length = name.len();
    let expected = format!("d1:ad{arguments}e1:q{length}:{name}1:t2:aa1:v4:TL\0\u{1}1:y1:qe");
    assert_eq!(String::from_utf8(out.clone()).unwrap(), expected);
    assert_eq!(Message::decode(&out).unwrap().body, Body::Query(query));
}

fn signed() -> SignedPut<'static> {
    SignedPut {
        key: &KEY,
        salt: b"salt",
        seq: 4,
        signature: &SIGNATURE,
        cas: Some(3),
    }
}

#[test]
fn queries_are_written_in_the_form_of_their_beps() {
    let id = "2:id20:abcdefghij0123456789";
    let target = "6:target20:mnopqrstuvwxyz123456";
    let plain = Want::default();
    let get = |seq| Method::Get { target: BOB, seq };
    check_written(get(None), plain, &format!("{id}{target}"));
    check_written(get(Some(7)), plain, &format!("{id}3:seqi7e{target}"));
    let sample = Method::SampleInfohashes { target: BOB };
    check_written(sample, plain, &format!("{id}{target}"));
    let put = |signed, target| {
        Method::Put(Put {
            target,
            token: b"tok",
            value: b"12:Hello World!",
            signed,
        })
    };
    let end = "5:token3:tok1:v12:Hello World!";
    check_written(put(None, None), plain, &format!("{id}{end}"));
    let named = put(None, Some(BOB));
    check_written(named, plain, &format!("{id}{target}{end}"));
    let (k, s) = ("k".repeat(32), "s".repeat(64));
    check_written(
        put(Some(signed()), Some(BOB)),
        plain,
        &format!("3:casi3e{id}1:k32:{k}4:salt4:salt3:seqi4e3:sig64:{s}{target}{end}"),
    );
    let want = Want {
        v6: true,
        scrape: true,
        no_seeds: true,
        ..plain
    };
    check_written(
        Method::GetPeers { info_hash: TORRENT },
        want,
        &format!("{id}9:info_hash20:mnopqrstuvwxyz1234566:noseedi1e6:scrapei1e4:wantl2:n6e"),
    );
    let announce = Method::AnnouncePeer {
        info_hash: TORRENT,
        port: 7,
        implied_port: false,
        seed: true,
        token: b"tok",
    };
    let end = "9:info_hash20:mnopqrstuvwxyz1234564:porti7e4:seedi1e5:token3:tok";
    check_written(announce, plain, &format!("{id}{end}"));
}

#[test]
fn the_longest_put_fits_into_what_a_reply_with_a_value_may_have() {
    let put = Put {
        target: Some(BOB),
        // The longest in use.
        token: &[b't'; 40],
        value: &[b'v'; VALUE_MAX],
        signed: Some(SignedPut {
            salt: &[b'x'; SALT_MAX],
            seq: i64::MAX,
            cas: Some(i64::MAX),
            ..signed()
        }),
    };
    let query = Query {
        id: ALICE,
        want: Want::default(),
        method: Method::Put(put),
    };
    let mut out = Vec::new();
    write_query(&mut out, b"aaaa", true, &query);
    assert!(out.len() <= VALUE_REPLY_MAX, "{}", out.len());
}

#[test]
fn the_target_of_a_put_is_what_it_says_or_nothing() {
    let target = |argument: &str| {
        let bytes = query_bytes("put", &format!("{argument}5:token3:tok1:v0:"));
        let Body::Query(query) = Message::decode(bytes.as_bytes()).unwrap().body else {
            panic!("no query");
        };
        let Method::Put(put) = query.method else {
            panic!("no put");
        };
        put.target
    };
    assert_eq!(target(""), None);
    assert_eq!(target("6:target20:mnopqrstuvwxyz123456"), Some(BOB));
    assert_eq!(target("6:target19:mnopqrstuvwxyz12345"), None);
    assert_eq!(target("6:targeti1e"), None);
}

#[test]
fn a_put_that_is_not_whole_is_refused_and_never_taken_for_an_immutable_one() {
    let (k, s) = (
        format!("1:k32:{}", "k".repeat(32)),
        format!("3:sig64:{}", "s".repeat(64)),
    );
    let (seq, end) = ("3:seqi4e", "5:token3:tok1:v0:");
    let refused = |arguments: String, code| check_refused("put", &arguments, code);
    let protocol = ErrorCode::Protocol;
    refused(format!("{k}{s}{end}"), protocol);
    refused(format!("{k}{seq}{end}"), protocol);
    refused(format!("{k}{end}"), protocol);
    refused(format!("{seq}{s}{end}"), protocol);
    refused(format!("{k}{seq}3:sig63:{}{end}", "s".repeat(63)), protocol);
    refused(format!("{k}{seq}3:sigi1e{end}"), protocol);
    refused(format!("1:k31:{}{seq}{s}{end}", "k".repeat(31)), protocol);
    refused(format!("1:k0:{seq}{s}{end}"), protocol);
    refused(format!("{k}3:seqi-1e{s}{end}"), protocol);
    refused(format!("{k}3:seq1:4{s}{end}"), protocol);
    refused(format!("3:cas1:3{k}{seq}{s}{end}"), protocol);
    refused(format!("{k}4:saltle{seq}{s}{end}"), protocol);
    refused("1:v0:".into(), protocol);
    refused("5:token3:tok".into(), protocol);
    refused("5:token3:tok1:vd1:b0:1:a0:e".into(), protocol);
    refused("5:token3:tok1:vd1:a0:1:a0:e".into(), protocol);
    let salt = "x".repeat(65);
    refused(
        format!("{k}4:salt65:{salt}{seq}{s}{end}"),
        ErrorCode::SaltTooBig,
    );
    let value = "x".repeat(997);
    refused(
        format!("5:token3:tok1:v997:{value}"),
        ErrorCode::ValueTooBig,
    );
    let value = "x".repeat(996);
    let bytes = query_bytes("put", &format!("5:token3:tok1:v996:{value}"));
    assert!(Message::decode(bytes.as_bytes()).is_ok());
    check_refused("get", "", protocol);
    check_refused("get", "6:target19:mnopqrstuvwxyz12345", protocol);
    check_refused("get", "3:seq1:16:target20:mnopqrstuvwxyz123456", protocol);
    check_refused("sample_infohashes", "", protocol);
}

#[test]
fn values_are_taken_as_received() {
    let bytes = b"d1:rd2:id20:mnopqrstuvwxyz1234561:vd1:bi1e1:ai2eee1:t2:aa1:y1:re";
    assert_eq!(response(bytes).item.value, Some(&b"d1:bi1e1:ai2ee"[..]));
}

#[test]
fn what_has_the_wrong_length_in_a_response_is_not_there() {
    let bytes = b"d1:rd4:BFpe3:abc4:BFsd3:abc2:id20:mnopqrstuvwxyz1234568:intervali-5e1:k3:abc3:numi-1e7:samples19:abcdefghij0123456783:sig3:abce1:t2:aa1:y1:re";
    let found = response(bytes);
    assert_eq!(found.item, ItemView::default());
    assert_eq!(found.filters.read(), None);
    assert_eq!(
        (found.samples, found.interval_secs, found.num),
        (None, 0, 0)
    );
    let long = b"d1:rd2:id20:mnopqrstuvwxyz1234568:intervali99999999999ee1:t2:aa1:y1:re";
    assert_eq!(response(long).interval_secs, 21_600);
}

fn contacts(family: Family, count: u8) -> Vec<ContactInfo> {
    (0..count)
        .map(|number| ContactInfo {
            id: NodeId::new([number; 20]),
            address: match family {
                Family::V4 => ([9, 9, number, 9], 6881).into(),
                Family::V6 => ([0x2a00, number.into(), 0, 0, 0, 0, 0, 1], 1).into(),
            },
        })
        .collect()
}

proptest! {
    #[test]
    fn responses_come_back_as_they_went_and_stay_within_their_bytes(
        kind in 0..4u8,
        length in 0..=996usize,
        seq in any::<i64>(),
        has_value: bool,
        samples in 0..21usize,
        num in any::<u32>(),
        interval in 0..=21_600u32,
        (v4, v6) in (prop::option::of(0..20u8), prop::option::of(0..20u8)),
        transaction in prop::collection::vec(any::<u8>(), 1..=32),
    ) {
        let mut value = format!("{length}:").into_bytes();
        value.resize(value.len() + length, b'x');
        let (mut seeds, peers) = (BloomFilter::new(), BloomFilter::new());
        seeds.insert([1, 2, 3, 4].into());
        let hashes = vec![7; samples * 20];
        let extra = match kind {
            0 => Extra::None,
            1 => Extra::Scrape(Filters { seeds: &seeds, peers: &peers }),
            2 => Extra::Samples(Samples {
                interval_secs: interval,
                num: num.into(),
                hashes: &hashes,
            }),
            _ => Extra::Item(ItemView {
                value: has_value.then_some(&value[..]),
                key: has_value.then_some(&KEY),
                seq: Some(seq),
                signature: has_value.then_some(&SIGNATURE),
            }),
        };
        let nodes = v4.map(|count| contacts(Family::V4, count));
        let nodes6 = v6.map(|count| contacts(Family::V6, count));
        let peers: Vec<_> = contacts(Family::V4, 30).iter().map(|c| c.address).collect();
        let mut out = Vec::new();
        ResponseWriter {
            transaction: &transaction,
            id: BOB,
            asker: "[2a00::1]:5".parse().unwrap(),
            nodes: nodes.as_deref(),
            nodes6: nodes6.as_deref(),
            token: Some(b"aoeusnth"),
            values: &peers,
            extra,
        }
        .write(&mut out);
        let with_value = kind == 3 && has_value;
        let length_max = if with_value { VALUE_REPLY_MAX } else { REPLY_MAX };
        prop_assert!(out.len() <= length_max);
        let root = crate::bencode::read(&out, &crate::bencode::Limits::KRPC).unwrap();
        prop_assert!(root.is_canonical());
        let read = response(&out);
        match extra {
            Extra::None => prop_assert_eq!(read.samples, None),
            Extra::Scrape(filters) => {
                prop_assert_eq!(read.filters.read(), Some((*filters.seeds, *filters.peers)));
            }
            Extra::Samples(samples) => {
                prop_assert_eq!(read.samples, Some(samples.hashes));
                prop_assert_eq!(read.interval_secs, samples.interval_secs);
                prop_assert_eq!(read.num, samples.num);
            }
            Extra::Item(item) => prop_assert_eq!(read.item, item),
        }
        let named = nodes.as_ref().map_or(0, Vec::len).min(8);
        if v6.is_none() && !with_value {
            prop_assert!(read.nodes.len() >= named, "eight nodes of one family fit beside all");
        }
    }
}
