//! A datagram as a script holds it: bytes, and slots for what the node alone knows.
//!
//! A slot is the byte 1 and a letter; it is filled in with a whole bencoded value, so that lengths
//! fit. In text a slot is written `<T>`, and what is not printable `\xNN`.

use std::fmt::Write;

/// The byte that begins a slot.
pub const SLOT: u8 = 1;

/// Longest template, in bytes: longer than any datagram that is read.
pub const LENGTH_MAX: usize = 2_500;

/// Letters of the slots: transaction id of the last query to the speaker (`T`), of one to somebody
/// else (`t`); token given to the speaker (`K`), to somebody else (`k`); id of the speaker (`I`), of
/// the node (`O`); IPv4 contacts (`N`), IPv6 contacts (`n`); a list of peers (`V`).
pub const SLOTS: &[u8] = b"TtKkIONnV";

/// A slot as bytes.
#[must_use]
pub const fn slot(letter: u8) -> [u8; 2] {
    [SLOT, letter]
}

/// Fills in the slots.
#[must_use]
pub fn fill(template: &[u8], mut value: impl FnMut(u8, &mut Vec<u8>)) -> Vec<u8> {
    let mut filled = Vec::with_capacity(template.len() + 64);
    let mut rest = template;
    while let Some((first, behind)) = rest.split_first() {
        if let (SLOT, Some(letter)) = (*first, behind.first())
            && SLOTS.contains(letter)
        {
            value(*letter, &mut filled);
            rest = &behind[1..];
        } else {
            filled.push(*first);
            rest = behind;
        }
    }
    filled
}

/// The text of a template, without spaces.
#[must_use]
pub fn to_text(template: &[u8]) -> String {
    let mut text = String::new();
    let mut rest = template;
    while let Some((first, behind)) = rest.split_first() {
        rest = behind;
        match (*first, behind.first()) {
            (SLOT, Some(letter)) if SLOTS.contains(letter) => {
                text.extend(['<', char::from(*letter), '>']);
                rest = &behind[1..];
            }
            (byte, _) if byte.is_ascii_graphic() && byte != b'<' && byte != b'\\' => {
                text.push(char::from(byte));
            }
            (byte, _) => write!(text, "\\x{byte:02x}").expect("a string takes what is written"),
        }
    }
    text
}

/// The template of a text; `None` when it is none.
#[must_use]
pub fn from_text(text: &str) -> Option<Vec<u8>> {
    let mut template = Vec::new();
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'<' => {
                let letter = bytes.next().filter(|letter| SLOTS.contains(letter))?;
                bytes.next().filter(|byte| *byte == b'>')?;
                template.extend(slot(letter));
            }
            b'\\' => {
                bytes.next().filter(|byte| *byte == b'x')?;
                let digits = [bytes.next()?, bytes.next()?];
                let digits = str::from_utf8(&digits).ok()?;
                template.push(u8::from_str_radix(digits, 16).ok()?);
            }
            byte if byte.is_ascii_graphic() => template.push(byte),
            _ => return None,
        }
    }
    Some(template)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_bytes_come_back_from_their_text() {
        let all: Vec<u8> = (0..=255)
            .chain(SLOTS.iter().flat_map(|s| slot(*s)))
            .collect();
        let text = to_text(&all);
        assert!(text.bytes().all(|byte| byte.is_ascii_graphic()), "{text}");
        assert_eq!(from_text(&text), Some(all));
        assert_eq!(to_text(b"d1:t\x01T1:y1:qe"), "d1:t<T>1:y1:qe");
        for wrong in ["<Z>", "<T", "\\x0", "\\n", "a b", "<"] {
            assert_eq!(from_text(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn slots_are_filled_with_whole_values() {
        let filled = fill(b"d1:t\x01T\x01\x01Ke\x01", |letter, out| {
            out.extend([b'1', b':', letter]);
        });
        assert_eq!(filled, b"d1:t1:T\x011:Ke\x01");
    }
}
