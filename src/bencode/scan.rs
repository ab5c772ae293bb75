//! The structural check that every byte from outside passes first.
//!
//! One pass, without recursion and without allocation. What it accepts is one complete value within
//! the limits: the reader and serde behind it cannot be led astray by depth, lengths or missing
//! ends.

/// What a scan accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes at most.
    pub length_max: usize,
    /// Lists and dictionaries inside one another at most; never more than [`DEPTH_MAX`].
    pub depth_max: usize,
    /// Values and keys at most.
    pub tokens_max: usize,
    /// Whether integers may have leading zeros or read `-0`, as some makers of .torrent files write
    /// them. They still have to fit 64 bits.
    pub lenient: bool,
}

impl Limits {
    /// For KRPC datagrams.
    pub const KRPC: Self = Self {
        length_max: 2048,
        depth_max: 10,
        tokens_max: 500,
        lenient: false,
    };

    /// For extension messages between peers.
    pub const EXTENSION: Self = Self {
        length_max: 1 << 20,
        depth_max: 16,
        tokens_max: 100_000,
        lenient: false,
    };

    /// For .torrent files, and for metadata from peers. 2.5 million values are 400,000 files.
    pub const METAINFO: Self = Self {
        length_max: 32 << 20,
        depth_max: 100,
        tokens_max: 2_500_000,
        lenient: true,
    };

    /// For our own state files.
    pub const STATE: Self = Self {
        length_max: 64 << 20,
        depth_max: 16,
        tokens_max: 2_500_000,
        lenient: false,
    };
}

/// The deepest nesting that any limit can allow: the scanner keeps one bit for each level.
pub const DEPTH_MAX: usize = 128;

/// Characters in the longest integer: a sign and the 19 digits of 2^63, one more for leniency.
const INTEGER_LENGTH_MAX: usize = 20;

/// Why bytes are not acceptable bencode. Offsets count from the first byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ScanError {
    /// There are more bytes than the limit.
    #[error("{length} bytes are more than the {max} allowed")]
    TooLong {
        /// Bytes found.
        length: usize,
        /// Bytes allowed.
        max: usize,
    },
    /// The bytes end inside a value.
    #[error("the data ends in the middle of a value")]
    Truncated,
    /// A byte that starts no value, or ends none.
    #[error("unexpected byte {byte:#04x} at offset {offset}")]
    Unexpected {
        /// The byte.
        byte: u8,
        /// Where.
        offset: usize,
    },
    /// A length that is not canonical, or runs beyond the end.
    #[error("bad string length at offset {offset}")]
    StringLength {
        /// Where the length starts.
        offset: usize,
    },
    /// An integer that is not canonical, or does not fit 64 bits.
    #[error("bad integer at offset {offset}")]
    Integer {
        /// Where the `i` is.
        offset: usize,
    },
    /// A dictionary with a key that is not a byte string, or a key without a value.
    #[error("bad dictionary key at offset {offset}")]
    Key {
        /// Where the key should be.
        offset: usize,
    },
    /// Too many lists and dictionaries inside one another.
    #[error("nested deeper than {max} levels")]
    TooDeep {
        /// Levels allowed.
        max: usize,
    },
    /// Too many values.
    #[error("more than {max} values")]
    TooManyTokens {
        /// Values allowed.
        max: usize,
    },
    /// Something follows the value.
    #[error("data follows the value at offset {offset}")]
    Trailing {
        /// Where the value ended.
        offset: usize,
    },
}

/// Checks that the whole input is one value within the limits.
///
/// # Errors
///
/// The first rule that is broken.
pub fn scan(input: &[u8], limits: &Limits) -> Result<(), ScanError> {
    let offset = scan_prefix(input, limits)?;
    if offset < input.len() {
        return Err(ScanError::Trailing { offset });
    }
    Ok(())
}

/// Checks that the input starts with one value within the limits, and returns where it ends.
///
/// # Errors
///
/// The first rule that is broken. What follows the value is not looked at, but counts towards
/// [`Limits::length_max`].
pub fn scan_prefix(input: &[u8], limits: &Limits) -> Result<usize, ScanError> {
    if input.len() > limits.length_max {
        return Err(ScanError::TooLong {
            length: input.len(),
            max: limits.length_max,
        });
    }
    let mut nesting = Nesting::new(limits.depth_max.min(DEPTH_MAX));
    let mut offset = 0;
    let mut tokens = 0;
    loop {
        let byte = *input.get(offset).ok_or(ScanError::Truncated)?;
        if byte == b'e' {
            nesting.close(offset)?;
            offset += 1;
        } else {
            tokens += 1;
            if tokens > limits.tokens_max {
                return Err(ScanError::TooManyTokens {
                    max: limits.tokens_max,
                });
            }
            nesting.before_value(byte, offset)?;
            match byte {
                b'0'..=b'9' => offset = string_end(input, offset)?,
                b'i' => offset = integer(input, offset, limits.lenient)?.1,
                b'l' | b'd' => {
                    nesting.open(byte == b'd')?;
                    offset += 1;
                }
                _ => return Err(ScanError::Unexpected { byte, offset }),
            }
        }
        if nesting.depth == 0 {
            return Ok(offset);
        }
    }
}

/// What the scanner is inside of: one bit a level, and whether a key is due.
struct Nesting {
    depth: usize,
    depth_max: usize,
    /// Bit `n` is set if level `n` is a dictionary.
    dictionaries: u128,
    /// The innermost level is a dictionary that wants a key (or its end) next.
    key_due: bool,
}

impl Nesting {
    fn new(depth_max: usize) -> Self {
        Self {
            depth: 0,
            depth_max,
            dictionaries: 0,
            key_due: false,
        }
    }

    fn in_dictionary(&self) -> bool {
        self.depth > 0 && self.dictionaries >> (self.depth - 1) & 1 == 1
    }

    /// A value (or key) starts here.
    fn before_value(&mut self, byte: u8, offset: usize) -> Result<(), ScanError> {
        if self.in_dictionary() {
            if self.key_due && !byte.is_ascii_digit() {
                return Err(ScanError::Key { offset });
            }
            self.key_due = !self.key_due;
        }
        Ok(())
    }

    fn open(&mut self, dictionary: bool) -> Result<(), ScanError> {
        if self.depth >= self.depth_max {
            return Err(ScanError::TooDeep {
                max: self.depth_max,
            });
        }
        let bit = 1 << self.depth;
        self.dictionaries = if dictionary {
            self.dictionaries | bit
        } else {
            self.dictionaries & !bit
        };
        self.depth += 1;
        self.key_due = dictionary;
        Ok(())
    }

    fn close(&mut self, offset: usize) -> Result<(), ScanError> {
        if self.depth == 0 {
            return Err(ScanError::Unexpected { byte: b'e', offset });
        }
        if self.in_dictionary() && !self.key_due {
            return Err(ScanError::Key { offset });
        }
        self.depth -= 1;
        // Whatever was closed was the value of the level around it.
        self.key_due = self.in_dictionary();
        Ok(())
    }
}

/// The end of the byte string whose length starts at `offset`.
#[inline]
fn string_end(input: &[u8], offset: usize) -> Result<usize, ScanError> {
    let (start, length) = string_start(input, offset)?;
    Ok(start + length)
}

/// Where the bytes of a string start, and how many there are; both lie inside the input.
#[inline]
pub(super) fn string_start(input: &[u8], offset: usize) -> Result<(usize, usize), ScanError> {
    // Nearly all lengths have one digit or two.
    let (start, length) = match input.get(offset..) {
        Some([digit @ b'0'..=b'9', b':', ..]) => (offset + 2, usize::from(digit - b'0')),
        Some([ten @ b'1'..=b'9', one @ b'0'..=b'9', b':', ..]) => {
            let length = 10 * usize::from(ten - b'0') + usize::from(one - b'0');
            (offset + 3, length)
        }
        _ => long_string_start(input, offset)?,
    };
    if length > input.len() - start {
        return Err(ScanError::StringLength { offset });
    }
    Ok((start, length))
}

/// The same for a length of any number of digits, or none; the string may be longer than the input.
#[cold]
fn long_string_start(input: &[u8], offset: usize) -> Result<(usize, usize), ScanError> {
    let wrong = ScanError::StringLength { offset };
    let mut length: usize = 0;
    let mut at = offset;
    loop {
        match *input.get(at).ok_or(ScanError::Truncated)? {
            b':' if at > offset => break,
            digit @ b'0'..=b'9' => {
                // A length that starts with 0 is 0.
                if at > offset && length == 0 {
                    return Err(wrong);
                }
                length = length
                    .checked_mul(10)
                    .and_then(|length| length.checked_add(usize::from(digit - b'0')))
                    .ok_or(wrong)?;
            }
            _ => return Err(wrong),
        }
        at += 1;
    }
    Ok((at + 1, length))
}

/// The integer whose `i` is at `offset`, and where it ends.
pub(super) fn integer(
    input: &[u8],
    offset: usize,
    lenient: bool,
) -> Result<(i64, usize), ScanError> {
    let wrong = ScanError::Integer { offset };
    let rest = input.get(offset + 1..).ok_or(ScanError::Truncated)?;
    let window = rest.get(..=INTEGER_LENGTH_MAX).unwrap_or(rest);
    let Some(end) = window.iter().position(|&byte| byte == b'e') else {
        let cut_short = window
            .iter()
            .all(|byte| byte.is_ascii_digit() || *byte == b'-');
        let truncated = cut_short && rest.len() <= INTEGER_LENGTH_MAX;
        return Err(if truncated {
            ScanError::Truncated
        } else {
            wrong
        });
    };
    let text = window.get(..end).ok_or(wrong)?;
    let (negative, digits) = match text {
        [b'-', digits @ ..] => (true, digits),
        digits => (false, digits),
    };
    let canonical = match digits {
        [] => return Err(wrong),
        [b'0'] => !negative,
        [first, ..] => *first != b'0',
    };
    if !canonical && !lenient {
        return Err(wrong);
    }
    let mut value: i64 = 0;
    for &digit in digits {
        if !digit.is_ascii_digit() {
            return Err(wrong);
        }
        let digit = i64::from(digit - b'0');
        // Counted downwards, because there is one more negative number than positive ones.
        value = value
            .checked_mul(10)
            .and_then(|v| v.checked_sub(digit))
            .ok_or(wrong)?;
    }
    if !negative {
        value = value.checked_neg().ok_or(wrong)?;
    }
    Ok((value, offset + 1 + end + 1))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn check_scan(input: &str, expected: Result<(), ScanError>) {
        assert_eq!(scan(input.as_bytes(), &Limits::KRPC), expected, "{input}");
    }

    #[test]
    fn complete_values_are_accepted() {
        for input in [
            "0:",
            "4:spam",
            "i0e",
            "i-1e",
            "i9223372036854775807e",
            "i-9223372036854775808e",
            "le",
            "de",
            "l4:spami1eled1:ai1eee",
            "d1:ad1:bl1:ceee",
            "d1:b0:1:a0:e",
        ] {
            check_scan(input, Ok(()));
        }
    }

    #[test]
    fn integers_have_one_form() {
        for input in [
            "ie",
            "i-e",
            "i-0e",
            "i05e",
            "i007e",
            "i+5e",
            "i1",
            "i 1e",
            "i1.5e",
            "i9223372036854775808e",
            "i-9223372036854775809e",
            "i99999999999999999999e",
        ] {
            assert!(scan(input.as_bytes(), &Limits::KRPC).is_err(), "{input}");
        }
        let lenient = |input: &str| integer(input.as_bytes(), 0, true).map(|(value, _)| value);
        assert_eq!(lenient("i007e"), Ok(7));
        assert_eq!(lenient("i-0e"), Ok(0));
        assert!(lenient("i9223372036854775808e").is_err());
        assert!(lenient(&format!("i{}1e", "0".repeat(30))).is_err());
    }

    #[test]
    fn a_million_digit_integer_is_refused_at_once() {
        let input = format!("i{}e", "9".repeat(1_000_000));
        assert_eq!(
            scan(input.as_bytes(), &Limits::METAINFO),
            Err(ScanError::Integer { offset: 0 })
        );
    }

    #[test]
    fn string_lengths_are_canonical_and_inside_the_input() {
        check_scan("03:abc", Err(ScanError::StringLength { offset: 0 }));
        check_scan("00:", Err(ScanError::StringLength { offset: 0 }));
        check_scan("5:spam", Err(ScanError::StringLength { offset: 0 }));
        // 2^64 + 20 must not be read as 20.
        check_scan(
            "18446744073709551636:",
            Err(ScanError::StringLength { offset: 0 }),
        );
        check_scan("99999999999:", Err(ScanError::StringLength { offset: 0 }));
        check_scan("4", Err(ScanError::Truncated));
        check_scan("4x:spam", Err(ScanError::StringLength { offset: 0 }));
    }

    #[test]
    fn keys_are_strings_and_have_values() {
        check_scan("di1ei2ee", Err(ScanError::Key { offset: 1 }));
        check_scan("dlei1ee", Err(ScanError::Key { offset: 1 }));
        check_scan("d1:ae", Err(ScanError::Key { offset: 4 }));
        check_scan("d1:ai1e1:be", Err(ScanError::Key { offset: 10 }));
    }

    #[test]
    fn ends_and_beginnings_match() {
        check_scan(
            "e",
            Err(ScanError::Unexpected {
                byte: b'e',
                offset: 0,
            }),
        );
        check_scan(
            "x",
            Err(ScanError::Unexpected {
                byte: b'x',
                offset: 0,
            }),
        );
        check_scan("l", Err(ScanError::Truncated));
        check_scan("", Err(ScanError::Truncated));
        check_scan("lee", Err(ScanError::Trailing { offset: 2 }));
        assert_eq!(scan_prefix(b"letail", &Limits::KRPC), Ok(2));
    }

    #[test]
    fn nesting_bombs_are_refused() {
        let bomb = "l".repeat(60_000) + &"e".repeat(60_000);
        assert_eq!(
            scan(bomb.as_bytes(), &Limits::METAINFO),
            Err(ScanError::TooDeep { max: 100 })
        );
        let exact = "l".repeat(10) + &"e".repeat(10);
        check_scan(&exact, Ok(()));
        check_scan(
            &("l".repeat(11) + &"e".repeat(11)),
            Err(ScanError::TooDeep { max: 10 }),
        );
        let any_depth = Limits {
            depth_max: usize::MAX,
            ..Limits::METAINFO
        };
        assert_eq!(
            scan(bomb.as_bytes(), &any_depth),
            Err(ScanError::TooDeep { max: DEPTH_MAX })
        );
    }

    #[test]
    fn millions_of_empty_containers_are_refused() {
        let input = format!("l{}e", "le".repeat(2_500_000));
        assert_eq!(
            scan(input.as_bytes(), &Limits::METAINFO),
            Err(ScanError::TooManyTokens { max: 2_500_000 })
        );
    }

    #[test]
    fn size_is_checked_before_anything_else() {
        let input = vec![b'l'; 2049];
        assert_eq!(
            scan(&input, &Limits::KRPC),
            Err(ScanError::TooLong {
                length: 2049,
                max: 2048
            })
        );
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_are_accepted_or_refused(input: Vec<u8>) {
            let _ = scan(&input, &Limits::KRPC);
            if let Ok(end) = scan_prefix(&input, &Limits::METAINFO) {
                prop_assert!(end > 0 && end <= input.len());
            }
        }

        #[test]
        fn bytes_that_look_like_bencode_are_accepted_or_refused(input in "[dlei0-9:a-]{0,40}") {
            let input = input.as_bytes();
            let all = scan(input, &Limits::KRPC).is_ok();
            let first = scan_prefix(input, &Limits::KRPC);
            prop_assert_eq!(all, first.is_ok_and(|end| end == input.len()));
        }
    }
}
