//! A datagram taken apart, to be changed and put together again, right or wrong.
//!
//! Invariant: what was parsed and not changed is written as it was.

use crate::template::{SLOT, SLOTS};

/// Levels that are taken apart; what is deeper stays raw.
const DEPTH_MAX: u32 = 24;

/// A value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Tree {
    /// The digits of an integer, sign and all.
    Integer(Vec<u8>),
    /// A string, and the digits of its length if they are to be others.
    Text(Option<Vec<u8>>, Vec<u8>),
    /// A list.
    List(Vec<Self>),
    /// Keys and values in the order in which they are written.
    Dictionary(Vec<(Self, Self)>),
    /// Bytes as they are.
    Raw(Vec<u8>),
}

impl Tree {
    /// A string whose length is right.
    pub(crate) fn text(bytes: &[u8]) -> Self {
        Self::Text(None, bytes.to_vec())
    }

    /// Takes a template apart; `None` when it is no value, or more than one.
    pub(crate) fn parse(template: &[u8]) -> Option<Self> {
        let mut rest = template;
        let tree = parse_value(&mut rest, 0)?;
        rest.is_empty().then_some(tree)
    }

    /// Puts it together.
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Integer(digits) => {
                out.push(b'i');
                out.extend(digits);
                out.push(b'e');
            }
            Self::Text(length, bytes) => {
                match length {
                    Some(length) => out.extend(length),
                    None => out.extend(bytes.len().to_string().bytes()),
                }
                out.push(b':');
                out.extend(bytes);
            }
            Self::List(values) => {
                out.push(b'l');
                values.iter().for_each(|value| value.write(out));
                out.push(b'e');
            }
            Self::Dictionary(entries) => {
                out.push(b'd');
                for (key, value) in entries {
                    key.write(out);
                    value.write(out);
                }
                out.push(b'e');
            }
            Self::Raw(bytes) => out.extend(bytes),
        }
    }

    /// How many values it holds, itself and keys among them.
    pub(crate) fn count(&self) -> usize {
        1 + match self {
            Self::Integer(_) | Self::Text(..) | Self::Raw(_) => 0,
            Self::List(values) => values.iter().map(Self::count).sum(),
            Self::Dictionary(entries) => entries
                .iter()
                .map(|(key, value)| key.count() + value.count())
                .sum(),
        }
    }

    /// The value with this number, counted from the root in the order of the text.
    pub(crate) fn nth(&mut self, number: usize) -> Option<&mut Self> {
        let mut left = number;
        self.find(&mut left)
    }

    fn find(&mut self, left: &mut usize) -> Option<&mut Self> {
        if *left == 0 {
            return Some(self);
        }
        *left -= 1;
        match self {
            Self::Integer(_) | Self::Text(..) | Self::Raw(_) => None,
            Self::List(values) => values.iter_mut().find_map(|value| value.find(left)),
            Self::Dictionary(entries) => entries
                .iter_mut()
                .flat_map(|(key, value)| [key, value])
                .find_map(|value| value.find(left)),
        }
    }
}

/// Takes the next value off the front.
fn parse_value(rest: &mut &[u8], depth: u32) -> Option<Tree> {
    let text = *rest;
    let (first, behind) = text.split_first()?;
    if depth > DEPTH_MAX {
        return None;
    }
    match first {
        b'i' => {
            let end = behind.iter().position(|byte| *byte == b'e')?;
            *rest = &behind[end + 1..];
            Some(Tree::Integer(behind[..end].to_vec()))
        }
        b'l' => {
            *rest = behind;
            let mut values = Vec::new();
            while rest.first()? != &b'e' {
                values.push(parse_value(rest, depth + 1)?);
            }
            *rest = &rest[1..];
            Some(Tree::List(values))
        }
        b'd' => {
            *rest = behind;
            let mut entries = Vec::new();
            while rest.first()? != &b'e' {
                let key = parse_value(rest, depth + 1)?;
                entries.push((key, parse_value(rest, depth + 1)?));
            }
            *rest = &rest[1..];
            Some(Tree::Dictionary(entries))
        }
        b'0'..=b'9' => {
            let colon = text.iter().take(6).position(|byte| *byte == b':')?;
            let digits = &text[..colon];
            let length: usize = str::from_utf8(digits).ok()?.parse().ok()?;
            let bytes = text[colon + 1..].get(..length)?;
            *rest = &text[colon + 1 + length..];
            let is_plain = digits == length.to_string().as_bytes();
            let digits = (!is_plain).then(|| digits.to_vec());
            Some(Tree::Text(digits, bytes.to_vec()))
        }
        &SLOT if behind.first().is_some_and(|letter| SLOTS.contains(letter)) => {
            *rest = &text[2..];
            Some(Tree::Raw(text[..2].to_vec()))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_changed_is_written_as_it_was() {
        for text in [
            &b"d1:ad2:id\x01Ie1:q4:ping1:t\x01T1:y1:qe"[..],
            b"i-007e",
            b"03:abc",
            b"l0:lleei9edee",
        ] {
            let mut tree = Tree::parse(text).unwrap();
            let mut out = Vec::new();
            tree.write(&mut out);
            assert_eq!(out, text);
            for number in 0..tree.count() {
                assert!(tree.nth(number).is_some());
            }
            assert_eq!(tree.nth(tree.count()), None);
        }
        for broken in [&b""[..], b"d1:a", b"9:abc", b"i1", b"lel", b"x"] {
            assert_eq!(Tree::parse(broken), None);
        }
        assert_eq!(Tree::parse(&[b'l'; 1000]), None);
    }
}
