//! Reader, writer and scanner against each other and against serde_bencode.

use proptest::prelude::*;
use serde::{Deserialize, Serialize};

use super::scan::DEPTH_MAX;
use super::*;

/// A value that owns what it holds, for comparison.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Tree {
    Integer(i64),
    Bytes(Vec<u8>),
    List(Vec<Self>),
    Dictionary(std::collections::BTreeMap<Vec<u8>, Self>),
}

impl Tree {
    fn write(&self, writer: &mut Writer<'_>) {
        match self {
            Self::Integer(value) => {
                writer.integer(*value);
            }
            Self::Bytes(bytes) => {
                writer.bytes(bytes);
            }
            Self::List(items) => {
                writer.begin_list();
                items.iter().for_each(|item| item.write(writer));
                writer.end();
            }
            Self::Dictionary(entries) => {
                writer.begin_dictionary();
                for (key, value) in entries {
                    writer.bytes(key);
                    value.write(writer);
                }
                writer.end();
            }
        }
    }

    fn from_value(value: Value<'_>) -> Self {
        match value {
            Value::Integer(value) => Self::Integer(value),
            Value::Bytes(bytes) => Self::Bytes(bytes.to_vec()),
            Value::List(list) => Self::List(list.iter().map(Self::from_value).collect()),
            Value::Dictionary(dictionary) => Self::Dictionary(
                dictionary
                    .iter()
                    .map(|(key, value)| (key.to_vec(), Self::from_value(value)))
                    .collect(),
            ),
        }
    }
}

fn trees() -> impl Strategy<Value = Tree> {
    let leaf = prop_oneof![
        any::<i64>().prop_map(Tree::Integer),
        prop::collection::vec(any::<u8>(), 0..20).prop_map(Tree::Bytes),
    ];
    leaf.prop_recursive(6, 60, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Tree::List),
            prop::collection::btree_map(prop::collection::vec(any::<u8>(), 0..6), inner, 0..6)
                .prop_map(Tree::Dictionary),
        ]
    })
}

proptest! {
    #[test]
    fn what_is_written_is_read_back(tree in trees()) {
        let mut bytes = Vec::new();
        tree.write(&mut Writer::new(&mut bytes));
        let value = read(&bytes, &Limits::METAINFO).unwrap();
        prop_assert_eq!(Tree::from_value(value), tree);
    }

    #[test]
    fn arbitrary_bytes_are_read_or_refused(input: Vec<u8>) {
        let value = read(&input, &Limits::METAINFO).ok();
        prop_assert_eq!(value.is_some(), scan(&input, &Limits::METAINFO).is_ok());
        let _ = value.map(Tree::from_value);
    }

    #[test]
    fn a_value_cut_short_is_refused(tree in trees(), cut in any::<prop::sample::Index>()) {
        let mut bytes = Vec::new();
        tree.write(&mut Writer::new(&mut bytes));
        bytes.truncate(cut.index(bytes.len()));
        prop_assert!(scan(&bytes, &Limits::METAINFO).is_err());
    }
}

/// The obvious decoder: recursive, copying, without limits, and strict. `None` for what is wrong.
fn naive(input: &[u8]) -> Option<(Tree, &[u8])> {
    match input.split_first()? {
        (b'i', rest) => {
            let end = rest.iter().position(|&byte| byte == b'e')?;
            let text = std::str::from_utf8(&rest[..end]).ok()?;
            let value: i64 = text.parse().ok()?;
            (value.to_string() == text).then(|| (Tree::Integer(value), &rest[end + 1..]))
        }
        (b'l', mut rest) => {
            let mut items = Vec::new();
            while *rest.first()? != b'e' {
                let (item, after) = naive(rest)?;
                items.push(item);
                rest = after;
            }
            Some((Tree::List(items), &rest[1..]))
        }
        (b'd', mut rest) => {
            let mut entries = std::collections::BTreeMap::new();
            while *rest.first()? != b'e' {
                let (Tree::Bytes(key), after) = naive(rest)? else {
                    return None;
                };
                let (value, after) = naive(after)?;
                entries.entry(key).or_insert(value);
                rest = after;
            }
            Some((Tree::Dictionary(entries), &rest[1..]))
        }
        _ => {
            let colon = input.iter().position(|&byte| byte == b':')?;
            let text = std::str::from_utf8(&input[..colon]).ok()?;
            let length: usize = text.parse().ok()?;
            let rest = &input[colon + 1..];
            let canonical = length.to_string() == text;
            (canonical && length <= rest.len())
                .then(|| (Tree::Bytes(rest[..length].to_vec()), &rest[length..]))
        }
    }
}

/// The reader and the naive decoder accept the same bytes and find the same in them.
#[track_caller]
fn check_against_naive(input: &[u8]) {
    let limits = Limits {
        lenient: false,
        ..Limits::METAINFO
    };
    let found = read_prefix(input, &limits)
        .ok()
        .map(|(value, rest)| (Tree::from_value(value), rest));
    assert_eq!(found, naive(input), "{}", input.escape_ascii());
}

proptest! {
    #[test]
    fn the_reader_agrees_with_a_naive_decoder_on_anything(input in "[dlei0-3:-]{0,24}") {
        check_against_naive(input.as_bytes());
    }

    #[test]
    fn the_reader_agrees_with_a_naive_decoder_on_damaged_values(
        tree in trees(),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..3),
    ) {
        let mut bytes = Vec::new();
        tree.write(&mut Writer::new(&mut bytes));
        for (at, byte) in damage {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        check_against_naive(&bytes);
    }

    #[test]
    fn keys_are_looked_up_as_in_a_map(tree in trees()) {
        let mut bytes = Vec::new();
        tree.write(&mut Writer::new(&mut bytes));
        let value = read(&bytes, &Limits::METAINFO).unwrap();
        if let (Some(dictionary), Tree::Dictionary(entries)) = (value.as_dictionary(), tree) {
            for (key, expected) in entries {
                let raw = dictionary.get_raw(&key).unwrap();
                prop_assert_eq!(naive(raw), Some((expected.clone(), &b""[..])));
                let found = dictionary.get(&key).map(Tree::from_value);
                prop_assert_eq!(found, Some(expected));
            }
            prop_assert_eq!(dictionary.get(b"a key that is not there"), None);
        }
    }

    #[test]
    fn the_scan_accepts_what_serde_bencode_writes(name: String, id: Vec<u8>, ports: Vec<u16>) {
        let state = State { name, id, ports };
        let bytes = to_bytes(&state);
        let limits = Limits { lenient: false, ..Limits::STATE };
        prop_assert_eq!(scan(&bytes, &limits), Ok(()));
        prop_assert_eq!(from_bytes::<State>(&bytes, &limits), Ok(state));
    }
}

#[test]
fn the_first_of_two_values_under_one_key_counts() {
    let root = read(b"d1:ai1e1:ai2ee", &Limits::KRPC)
        .unwrap()
        .as_dictionary()
        .unwrap();
    assert_eq!(root.get(b"a"), Some(Value::Integer(1)));
    assert_eq!(root.iter().count(), 2);
}

#[test]
fn the_deepest_accepted_nesting_is_read_without_recursion() {
    let input = format!("d1:a{}{}e", "l".repeat(127), "e".repeat(127));
    let limits = Limits {
        depth_max: DEPTH_MAX,
        ..Limits::METAINFO
    };
    let root = read(input.as_bytes(), &limits)
        .unwrap()
        .as_dictionary()
        .unwrap();
    assert_eq!(root.get_raw(b"a").map(<[u8]>::len), Some(254));
}

#[test]
fn typed_decoding_checks_kinds_first() {
    // Both pass for the type with serde_bencode alone: a list for bytes, here.
    let input = b"d2:idli97ee4:name1:n5:portslee";
    assert!(from_bytes::<State>(input, &Limits::STATE).is_ok());
    let kinds = [("id", Kind::Bytes), ("ports", Kind::List(&Kind::Integer))];
    let decoded = from_bytes_with_kinds::<State>(input, &Limits::STATE, &kinds);
    assert_eq!(decoded, Err(DecodeError::Kind { key: "id" }));
    let bytes = to_bytes(&state());
    let decoded = from_bytes_with_kinds::<State>(&bytes, &Limits::STATE, &kinds);
    assert_eq!(decoded, Ok(state()));
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct State {
    name: String,
    #[serde(with = "serde_bytes")]
    id: Vec<u8>,
    ports: Vec<u16>,
}

fn state() -> State {
    State {
        name: "n".to_owned(),
        id: vec![0xff; 20],
        ports: vec![1, 65_535],
    }
}

#[test]
fn typed_values_come_back() {
    let bytes = to_bytes(&state());
    assert_eq!(from_bytes::<State>(&bytes, &Limits::STATE), Ok(state()));
}

#[test]
fn typed_decoding_never_sees_what_the_scan_refuses() {
    for input in [
        &b"l"[..],
        b"d4:name03:abce",
        b"d4:namei-0ee",
        b"d4:name1:a",
        b"d4:name1:aetail",
    ] {
        let decoded = from_bytes::<State>(input, &Limits::STATE);
        assert!(matches!(decoded, Err(DecodeError::Scan(_))), "{decoded:?}");
    }
    let bomb = "l".repeat(60_000) + &"e".repeat(60_000);
    assert!(matches!(
        from_bytes::<State>(bomb.as_bytes(), &Limits::STATE),
        Err(DecodeError::Scan(ScanError::TooDeep { .. }))
    ));
}

#[test]
fn a_list_is_not_taken_for_a_struct() {
    let decoded = from_bytes::<State>(b"l1:n20:aaaaaaaaaaaaaaaaaaaalee", &Limits::STATE);
    assert_eq!(decoded, Err(DecodeError::NotADictionary));
}

#[test]
fn error_messages_stay_short() {
    let mut input = b"d4:name10000:".to_vec();
    input.extend(vec![0xff; 10_000]);
    input.extend(b"e");
    let Err(DecodeError::Shape(message)) = from_bytes::<State>(&input, &Limits::STATE) else {
        panic!("a name that is not UTF-8 was accepted");
    };
    assert!(message.len() <= SHAPE_MESSAGE_MAX);
}
