//! As much bencode as the scripted peers and nodes need, written from BEP 3.

/// A decoded value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Value {
    /// `i42e`.
    Integer(i64),
    /// `4:spam`.
    Bytes(Vec<u8>),
    /// `l…e`.
    List(Vec<Self>),
    /// `d…e`, in the order of the text.
    Dictionary(Vec<(Vec<u8>, Self)>),
}

impl Value {
    /// The value of a key.
    pub(crate) fn get(&self, key: &str) -> Option<&Self> {
        match self {
            Self::Dictionary(entries) => entries
                .iter()
                .find(|(name, _)| name == key.as_bytes())
                .map(|(_, value)| value),
            Self::Integer(_) | Self::Bytes(_) | Self::List(_) => None,
        }
    }

    /// The bytes of a string.
    pub(crate) fn bytes(&self) -> Option<&[u8]> {
        match self {
            Self::Bytes(bytes) => Some(bytes),
            Self::Integer(_) | Self::List(_) | Self::Dictionary(_) => None,
        }
    }

    /// The number of an integer.
    pub(crate) fn integer(&self) -> Option<i64> {
        match self {
            Self::Integer(number) => Some(*number),
            Self::Bytes(_) | Self::List(_) | Self::Dictionary(_) => None,
        }
    }
}

/// Reads one value; gives it with the number of bytes it took.
pub(crate) fn decode(input: &[u8]) -> Option<(Value, usize)> {
    let mut at = 0;
    let value = value(input, &mut at)?;
    Some((value, at))
}

/// Whether the input is one value and nothing else.
pub(crate) fn is_whole(input: &[u8]) -> bool {
    decode(input).is_some_and(|(_, used)| used == input.len())
}

fn value(input: &[u8], at: &mut usize) -> Option<Value> {
    match *input.get(*at)? {
        b'i' => {
            *at += 1;
            number(input, at, b'e').map(Value::Integer)
        }
        b'l' => {
            *at += 1;
            let mut items = Vec::new();
            while *input.get(*at)? != b'e' {
                items.push(value(input, at)?);
            }
            *at += 1;
            Some(Value::List(items))
        }
        b'd' => {
            *at += 1;
            let mut entries = Vec::new();
            while *input.get(*at)? != b'e' {
                entries.push((string(input, at)?, value(input, at)?));
            }
            *at += 1;
            Some(Value::Dictionary(entries))
        }
        _ => string(input, at).map(Value::Bytes),
    }
}

fn number(input: &[u8], at: &mut usize, end: u8) -> Option<i64> {
    let length = input.get(*at..)?.iter().position(|&byte| byte == end)?;
    let digits = std::str::from_utf8(&input[*at..*at + length]).ok()?;
    *at += length + 1;
    digits.parse().ok()
}

fn string(input: &[u8], at: &mut usize) -> Option<Vec<u8>> {
    let length = usize::try_from(number(input, at, b':')?).ok()?;
    let bytes = input.get(*at..at.checked_add(length)?)?.to_vec();
    *at += length;
    Some(bytes)
}

/// `4:spam`.
pub(crate) fn string_of(bytes: &[u8]) -> Vec<u8> {
    let mut out = format!("{}:", bytes.len()).into_bytes();
    out.extend_from_slice(bytes);
    out
}

/// A dictionary of keys in their right order with values that are encoded already.
pub(crate) fn dictionary(entries: &[(&str, &[u8])]) -> Vec<u8> {
    let mut out = vec![b'd'];
    for (key, value) in entries {
        out.extend(string_of(key.as_bytes()));
        out.extend_from_slice(value);
    }
    out.push(b'e');
    out
}
