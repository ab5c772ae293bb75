//! The kinds that values must have before serde_bencode sees them.
//!
//! serde_bencode takes a list for a struct or for a byte string. A [`Kind`] says beforehand which
//! is meant, to the depth that matters; it is a constant of ours, so checking it recurses no deeper
//! than we wrote it.

use super::{Dictionary, Value};

/// What a value must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// An integer.
    Integer,
    /// A byte string.
    Bytes,
    /// A list whose values are all of one kind.
    List(&'static Self),
    /// A dictionary in which these keys have these kinds. Keys may be missing; others may be there,
    /// and are not looked into.
    Dictionary(&'static [(&'static str, Self)]),
}

impl Kind {
    /// Whether the value is of this kind.
    #[must_use]
    pub fn fits(&self, value: Value<'_>) -> bool {
        match (self, value) {
            (Self::Integer, Value::Integer(_)) | (Self::Bytes, Value::Bytes(_)) => true,
            (Self::List(kind), Value::List(list)) => list.iter().all(|value| kind.fits(value)),
            (Self::Dictionary(keys), Value::Dictionary(dictionary)) => {
                keys_fit(keys, dictionary).is_ok()
            }
            (Self::Integer | Self::Bytes | Self::List(_) | Self::Dictionary(_), _) => false,
        }
    }
}

/// Checks the kinds of the values under known keys; the error is the first key that does not fit.
pub(super) fn keys_fit(
    keys: &[(&'static str, Kind)],
    dictionary: Dictionary<'_>,
) -> Result<(), &'static str> {
    for (key, value) in dictionary.iter() {
        let known = keys.iter().find(|(name, _)| name.as_bytes() == key);
        if let Some((name, kind)) = known
            && !kind.fits(value)
        {
            return Err(name);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bencode::{Limits, read};

    const KIND: Kind = Kind::Dictionary(&[
        ("ids", Kind::List(&Kind::Bytes)),
        ("port", Kind::Integer),
        ("inner", Kind::Dictionary(&[("name", Kind::Bytes)])),
    ]);

    #[track_caller]
    fn check_fits(input: &str, expected: bool) {
        let value = read(input.as_bytes(), &Limits::STATE).unwrap();
        assert_eq!(KIND.fits(value), expected, "{input}");
    }

    #[test]
    fn values_of_their_kind_fit() {
        check_fits("de", true);
        check_fits("d3:idsl1:a0:e5:innerd4:name1:xe4:porti1ee", true);
        check_fits("d7:unknownli1eee", true);
    }

    #[test]
    fn a_list_passes_neither_for_a_dictionary_nor_for_bytes() {
        check_fits("le", false);
        check_fits("d5:innerl1:xee", false);
        check_fits("d5:innerd4:nameli120eeee", false);
        check_fits("d3:idslli97eeee", false);
    }

    #[test]
    fn other_kinds_are_told_apart() {
        check_fits("d4:port1:1e", false);
        check_fits("d3:idsdee", false);
        check_fits("d3:ids1:ae", false);
        check_fits("d3:idsli1eee", false);
        check_fits("i1e", false);
    }
}
