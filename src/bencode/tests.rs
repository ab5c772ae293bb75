//! Reader, writer and scanner against each other and against serde_bencode.

use proptest::prelude::*;
use serde::{Deserialize, Serialize};

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
        if let Ok(value) = read(&input, &Limits::METAINFO) {
            let _ = Tree::from_value(value);
        }
    }

    #[test]
    fn a_value_cut_short_is_refused(tree in trees(), cut in any::<prop::sample::Index>()) {
        let mut bytes = Vec::new();
        tree.write(&mut Writer::new(&mut bytes));
        bytes.truncate(cut.index(bytes.len()));
        prop_assert!(scan(&bytes, &Limits::METAINFO).is_err());
    }
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
