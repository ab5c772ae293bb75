//! Reading scanned bytes in place.
//!
//! Values borrow from the input and are found by walking it; nothing is copied. A [`Value`] can
//! only come from bytes that a scan accepted, so walking needs no limits and cannot fail.

use super::scan::{self, Limits, ScanError, scan_prefix};

/// A value inside scanned bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Value<'a> {
    /// `i…e`
    Integer(i64),
    /// A byte string.
    Bytes(&'a [u8]),
    /// `l…e`
    List(List<'a>),
    /// `d…e`
    Dictionary(Dictionary<'a>),
}

impl<'a> Value<'a> {
    /// The integer, if it is one.
    #[must_use]
    pub const fn as_integer(&self) -> Option<i64> {
        match self {
            Self::Integer(value) => Some(*value),
            Self::Bytes(_) | Self::List(_) | Self::Dictionary(_) => None,
        }
    }

    /// The byte string, if it is one.
    #[must_use]
    pub const fn as_bytes(&self) -> Option<&'a [u8]> {
        match self {
            Self::Bytes(bytes) => Some(bytes),
            Self::Integer(_) | Self::List(_) | Self::Dictionary(_) => None,
        }
    }

    /// The list, if it is one.
    #[must_use]
    pub const fn as_list(&self) -> Option<List<'a>> {
        match self {
            Self::List(list) => Some(*list),
            Self::Integer(_) | Self::Bytes(_) | Self::Dictionary(_) => None,
        }
    }

    /// The dictionary, if it is one.
    #[must_use]
    pub const fn as_dictionary(&self) -> Option<Dictionary<'a>> {
        match self {
            Self::Dictionary(dictionary) => Some(*dictionary),
            Self::Integer(_) | Self::Bytes(_) | Self::List(_) => None,
        }
    }
}

impl Value<'_> {
    /// Whether this is the one form that bencode has for it: keys of dictionaries in ascending
    /// order, each once. Integers and lengths are canonical already, unless the scan was lenient.
    ///
    /// It calls itself once for each level, and the scan bounds the levels.
    #[must_use]
    pub fn is_canonical(&self) -> bool {
        match self {
            Self::Integer(_) | Self::Bytes(_) => true,
            Self::List(list) => list.iter().all(|value| value.is_canonical()),
            Self::Dictionary(dictionary) => {
                let mut last: Option<&[u8]> = None;
                dictionary.iter().all(|(key, value)| {
                    let ascends = last.is_none_or(|last| last < key);
                    last = Some(key);
                    ascends && value.is_canonical()
                })
            }
        }
    }
}

/// A dictionary, its entries in the order of the input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dictionary<'a> {
    raw: &'a [u8],
}

impl<'a> Dictionary<'a> {
    /// The span as received, from its `d` to its `e`: what hashes and signatures are made of.
    #[must_use]
    pub const fn raw(&self) -> &'a [u8] {
        self.raw
    }

    /// The first value under this key.
    #[must_use]
    pub fn get(&self, key: &[u8]) -> Option<Value<'a>> {
        self.get_raw(key).map(whole)
    }

    /// The span of the first value under this key.
    #[must_use]
    pub fn get_raw(&self, key: &[u8]) -> Option<&'a [u8]> {
        self.iter_raw()
            .find(|(found, _)| *found == key)
            .map(|(_, raw)| raw)
    }

    /// The entries in order.
    pub fn iter(&self) -> impl Iterator<Item = (&'a [u8], Value<'a>)> + use<'a> {
        let raw = self.raw;
        let mut at = 1;
        std::iter::from_fn(move || {
            if raw.get(at).is_none_or(|byte| *byte == b'e') {
                return None;
            }
            let (key, start) = bytes_at(raw, at);
            let (value, end) = value_at(raw, start);
            at = end;
            Some((key, value))
        })
    }

    /// The entries in order, each value as its span.
    pub fn iter_raw(&self) -> impl Iterator<Item = (&'a [u8], &'a [u8])> + use<'a> {
        let raw = self.raw;
        let mut at = 1;
        std::iter::from_fn(move || {
            if raw.get(at).is_none_or(|byte| *byte == b'e') {
                return None;
            }
            let (key, value) = bytes_at(raw, at);
            at = end_at(raw, value);
            Some((key, raw.get(value..at).unwrap_or_default()))
        })
    }
}

/// A list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct List<'a> {
    raw: &'a [u8],
}

impl<'a> List<'a> {
    /// The span as received, from its `l` to its `e`.
    #[must_use]
    pub const fn raw(&self) -> &'a [u8] {
        self.raw
    }

    /// The values in order.
    pub fn iter(&self) -> impl Iterator<Item = Value<'a>> + use<'a> {
        let raw = self.raw;
        let mut at = 1;
        std::iter::from_fn(move || {
            if raw.get(at).is_none_or(|byte| *byte == b'e') {
                return None;
            }
            let (value, end) = value_at(raw, at);
            at = end;
            Some(value)
        })
    }
}

/// Scans the whole input and returns the value it is.
///
/// # Errors
///
/// Those of [`scan`](super::scan()).
pub fn read<'a>(input: &'a [u8], limits: &Limits) -> Result<Value<'a>, ScanError> {
    scan::scan(input, limits)?;
    Ok(whole(input))
}

/// Scans one value at the front and returns it with the bytes behind it (BEP 9 appends data so).
///
/// # Errors
///
/// Those of [`scan_prefix`].
pub fn read_prefix<'a>(
    input: &'a [u8],
    limits: &Limits,
) -> Result<(Value<'a>, &'a [u8]), ScanError> {
    let end = scan_prefix(input, limits)?;
    let (value, rest) = input.split_at(end);
    Ok((whole(value), rest))
}

/// The value that takes all of `raw`.
fn whole(raw: &[u8]) -> Value<'_> {
    match raw.first() {
        // No need to look for its end.
        Some(b'd') => Value::Dictionary(Dictionary { raw }),
        Some(b'l') => Value::List(List { raw }),
        Some(_) | None => value_at(raw, 0).0,
    }
}

/// The byte string at `at`, and where it ends. Empty if there is none, which scanned bytes rule
/// out.
#[inline]
fn bytes_at(raw: &[u8], at: usize) -> (&[u8], usize) {
    let (start, length) = scan::string_start(raw, at).unwrap_or((raw.len(), 0));
    (
        raw.get(start..start + length).unwrap_or_default(),
        start + length,
    )
}

/// The value at `at`, and where it ends.
#[inline]
fn value_at(raw: &[u8], at: usize) -> (Value<'_>, usize) {
    match raw.get(at) {
        Some(b'i' | b'l' | b'd') => marked_value_at(raw, at),
        // Most values are strings.
        Some(_) | None => {
            let (bytes, end) = bytes_at(raw, at);
            (Value::Bytes(bytes), end)
        }
    }
}

/// The integer, list or dictionary at `at`, and where it ends.
fn marked_value_at(raw: &[u8], at: usize) -> (Value<'_>, usize) {
    if raw.get(at) == Some(&b'i') {
        // Leniency was decided by the scan; what passed it is read here.
        let (value, end) = scan::integer(raw, at, true).unwrap_or((0, raw.len()));
        return (Value::Integer(value), end);
    }
    let end = end_at(raw, at);
    let inner = raw.get(at..end).unwrap_or_default();
    let value = match inner.first() {
        Some(b'l') => Value::List(List { raw: inner }),
        Some(_) | None => Value::Dictionary(Dictionary { raw: inner }),
    };
    (value, end)
}

/// Where the value at `at` ends. Never before `at + 1`, so a walk always gets on.
fn end_at(raw: &[u8], mut at: usize) -> usize {
    let mut depth = 0usize;
    loop {
        match raw.get(at) {
            None => return raw.len(),
            Some(b'l' | b'd') => {
                depth += 1;
                at += 1;
            }
            Some(b'e') => {
                depth = depth.saturating_sub(1);
                at += 1;
            }
            Some(b'i') => at += raw.get(at..).and_then(integer_length).unwrap_or(raw.len()),
            Some(_) => {
                at = scan::string_start(raw, at).map_or(raw.len(), |(at, length)| at + length)
            }
        }
        if depth == 0 {
            return at;
        }
    }
}

/// Bytes from an `i` to its `e`.
fn integer_length(raw: &[u8]) -> Option<usize> {
    raw.iter().position(|&byte| byte == b'e').map(|end| end + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_found_where_they_stand() {
        let input = b"d1:ai-3e1:bl4:spami2ee1:cd1:x0:e1:b3:twoe";
        let root = read(input, &Limits::KRPC).unwrap().as_dictionary().unwrap();
        assert_eq!(root.get(b"a"), Some(Value::Integer(-3)));
        let list: Vec<_> = root.get(b"b").unwrap().as_list().unwrap().iter().collect();
        assert_eq!(list, [Value::Bytes(b"spam"), Value::Integer(2)]);
        assert_eq!(root.get_raw(b"c"), Some(&b"d1:x0:e"[..]));
        assert_eq!(
            root.get(b"c").unwrap().as_dictionary().unwrap().raw(),
            b"d1:x0:e"
        );
        assert_eq!(root.get(b"d"), None);
        assert_eq!(root.iter().count(), 4);
        assert_eq!(root.raw(), input);
    }

    #[test]
    fn what_follows_a_value_is_handed_back() {
        let (value, rest) = read_prefix(b"d1:ai1eetail", &Limits::KRPC).unwrap();
        assert_eq!(
            value.as_dictionary().unwrap().get(b"a"),
            Some(Value::Integer(1))
        );
        assert_eq!(rest, b"tail");
    }

    #[test]
    fn kinds_are_never_confused() {
        let value = read(b"l3:abce", &Limits::KRPC).unwrap();
        assert!(value.as_list().is_some());
        assert!(value.as_bytes().is_none());
        assert!(value.as_integer().is_none());
        assert!(value.as_dictionary().is_none());
    }

    #[test]
    fn a_dictionary_is_canonical_when_its_keys_ascend() {
        let is_canonical = |input: &[u8]| read(input, &Limits::KRPC).unwrap().is_canonical();
        assert!(is_canonical(b"i7e") && is_canonical(b"0:") && is_canonical(b"le"));
        assert!(is_canonical(b"d0:0:1:a0:1:bd1:xi1eee"));
        assert!(!is_canonical(b"d1:b0:1:a0:e"));
        assert!(!is_canonical(b"d1:a0:1:a0:e"));
        assert!(!is_canonical(b"ld1:a0:2:ab0:1:b0:ed2:ab0:1:a0:ee"));
    }

    #[test]
    fn lenient_integers_are_read_as_numbers() {
        assert_eq!(read(b"i007e", &Limits::METAINFO), Ok(Value::Integer(7)));
    }
}
