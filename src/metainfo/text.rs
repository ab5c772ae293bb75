//! Text from strangers: what may be shown, and what may name a file.
//!
//! Invariant: nothing that leaves this module holds a control character or one that turns the
//! direction of writing, and a path component names one entry of a folder: no separator, no `.` or
//! `..`, 1 to [`COMPONENT_LENGTH_MAX`] bytes.

use std::borrow::Cow;
use std::fmt::Write;

use sha1::{Digest, Sha1};

/// Bytes in a path component at most: what Linux file systems allow.
pub(super) const COMPONENT_LENGTH_MAX: usize = 255;

/// Bytes in a URL at most. Ours: the length that browsers and servers agree on.
pub(super) const URL_LENGTH_MAX: usize = 2048;

/// Bytes of an extension, with its dot, that shortening keeps. Ours: `.torrent` and `.properties`
/// fit.
const EXTENSION_LENGTH_MAX: usize = 16;

/// What stands for a character that is not allowed.
const REPLACEMENT: char = '_';

/// Whether a character can deceive a reader or a terminal: controls, line separators and
/// bidirectional marks. Joiners stay, because some scripts and emoji need them.
pub(super) fn is_deceptive(character: char) -> bool {
    character.is_control()
        || matches!(
            character,
            '\u{061c}'
                | '\u{200e}'
                | '\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2066}'..='\u{2069}'
                | '\u{feff}'
        )
}

/// The front of a text, at most `length_max` bytes, cut between characters.
pub(super) fn truncated(text: &str, length_max: usize) -> &str {
    let mut end = text.len().min(length_max);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or_default()
}

/// Text for people: deceptive characters dropped, at most `length_max` bytes. `None` if nothing is
/// left.
///
/// A line break or tab becomes a space. Doing it twice changes nothing.
pub(crate) fn plain(bytes: &[u8], length_max: usize) -> Option<String> {
    let text: String = String::from_utf8_lossy(bytes)
        .chars()
        .map(|character| {
            if matches!(character, '\n' | '\r' | '\t') {
                ' '
            } else {
                character
            }
        })
        .filter(|character| !is_deceptive(*character))
        .collect();
    let text = truncated(text.trim(), length_max).trim_end();
    (!text.is_empty()).then(|| text.to_owned())
}

/// A URL as it stands, without white space around it; `None` if it cannot be one.
pub(super) fn url(bytes: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(bytes).ok()?.trim();
    let clean = !text.chars().any(|c| c.is_whitespace() || is_deceptive(c));
    (clean && text.len() <= URL_LENGTH_MAX && text.contains("://")).then(|| text.to_owned())
}

/// A safe path component for a name from a torrent; `None` for an empty name.
///
/// What is not allowed becomes `_`, bytes that are not UTF-8 become U+FFFD, and long names are cut.
/// Two names can become one: whoever collects them keeps them apart.
pub(super) fn component(raw: &[u8]) -> Option<String> {
    let text = match String::from_utf8_lossy(raw) {
        Cow::Borrowed("") => return None,
        Cow::Borrowed("." | "..") => return Some("_".repeat(raw.len())),
        text => text,
    };
    let mut name = String::with_capacity(text.len());
    if is_reserved(&text) {
        name.push(REPLACEMENT);
    }
    let drive = text.starts_with(|first: char| first.is_ascii_alphabetic());
    for (index, character) in text.char_indices() {
        let bad = matches!(character, '/' | '\\')
            || is_deceptive(character)
            || (drive && index == 1 && character == ':');
        name.push(if bad { REPLACEMENT } else { character });
    }
    if name.len() > COMPONENT_LENGTH_MAX {
        name = shortened(&name, raw, None);
    }
    Some(name)
}

/// Whether Windows keeps this name for a device, whatever extension follows it.
fn is_reserved(name: &str) -> bool {
    let stem = name.split('.').next().unwrap_or_default().trim_end();
    if ["CON", "PRN", "AUX", "NUL", "CONIN$", "CONOUT$", "CLOCK$"]
        .iter()
        .any(|device| stem.eq_ignore_ascii_case(device))
    {
        return true;
    }
    let mut characters = stem.chars();
    let port: String = characters.by_ref().take(3).collect();
    (port.eq_ignore_ascii_case("COM") || port.eq_ignore_ascii_case("LPT"))
        && matches!(characters.next(), Some('0'..='9' | '¹' | '²' | '³'))
        && characters.next().is_none()
}

/// The same name with a number in front of its extension, to tell it from its namesakes.
pub(super) fn numbered(name: &str, number: u32) -> String {
    shortened(name, name.as_bytes(), Some(number))
}

/// The name cut to [`COMPONENT_LENGTH_MAX`] bytes, its extension kept.
///
/// Where something is cut, part of the hash of the original keeps long names with one beginning
/// apart, the same way each time.
fn shortened(name: &str, original: &[u8], number: Option<u32>) -> String {
    let (stem, extension) = split_extension(name);
    let mut mark = String::new();
    if let Some(number) = number {
        write!(mark, "~{number}").expect("a String takes all that is written");
    }
    if stem.len() + mark.len() + extension.len() > COMPONENT_LENGTH_MAX {
        let hash = Sha1::digest(original);
        let short = hash.get(..4).unwrap_or_default();
        mark.insert_str(0, &format!("~{}", data_encoding::HEXLOWER.encode(short)));
    }
    let stem = truncated(stem, COMPONENT_LENGTH_MAX - mark.len() - extension.len());
    format!("{stem}{mark}{extension}")
}

/// The name before its extension, and the extension with its dot; empty if there is none worth
/// keeping.
fn split_extension(name: &str) -> (&str, &str) {
    match name.rfind('.') {
        Some(dot) if dot > 0 && name.len() - dot <= EXTENSION_LENGTH_MAX => name.split_at(dot),
        _ => (name, ""),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn check_component(raw: &[u8], expected: &str) {
        assert_eq!(
            component(raw).as_deref(),
            Some(expected),
            "{}",
            raw.escape_ascii()
        );
    }

    #[test]
    fn ordinary_names_stay_as_they_are() {
        for name in [
            "file.txt",
            "日本語.txt",
            "Ünï cödé",
            "...",
            ".hidden",
            "trailing. ",
            "ab:c",
            "12:30",
            "console",
            "com10",
            "community.txt",
            "👩‍👩‍👧.png",
            "~",
            "a~2.txt",
            "100% *?<>|\"",
        ] {
            check_component(name.as_bytes(), name);
        }
    }

    #[test]
    fn names_that_climb_or_start_at_the_root_are_replaced() {
        check_component(b".", "_");
        check_component(b"..", "__");
        check_component(b"/", "_");
        check_component(b"/etc/passwd", "_etc_passwd");
        check_component(b"../../x", ".._.._x");
        check_component(b"..\\x", ".._x");
        check_component(b"\\\\server\\share", "__server_share");
        check_component(b"C:", "C_");
        check_component(b"c:\\windows", "c__windows");
    }

    #[test]
    fn an_empty_name_is_none() {
        assert_eq!(component(b""), None);
    }

    #[test]
    fn names_of_windows_devices_are_marked() {
        check_component(b"CON", "_CON");
        check_component(b"nul.txt", "_nul.txt");
        check_component(b"Com1", "_Com1");
        check_component(b"lpt9.tar.gz", "_lpt9.tar.gz");
        check_component("COM²".as_bytes(), "_COM²");
        check_component(b"aux .c", "_aux .c");
    }

    #[test]
    fn control_and_bidirectional_characters_are_replaced() {
        check_component(b"a\0b\x1b[2Jc\x7f\n", "a_b_[2Jc__");
        check_component("exe.\u{202e}gpj".as_bytes(), "exe._gpj");
        check_component("\u{2066}x\u{2069}\u{200f}\u{85}".as_bytes(), "_x___");
    }

    #[test]
    fn bytes_that_are_not_utf8_are_replaced() {
        check_component(b"caf\xe9.txt", "caf\u{fffd}.txt");
    }

    #[test]
    fn long_names_are_cut_with_their_extension_kept_and_stay_different() {
        let name = |last: &str| format!("{}{last}.flac", "x".repeat(300));
        let first = component(name("1").as_bytes()).unwrap();
        let second = component(name("2").as_bytes()).unwrap();
        assert_eq!((first.len(), second.len()), (255, 255));
        assert!(first.ends_with(".flac") && second.ends_with(".flac"));
        assert_ne!(first, second);
        assert_eq!(Some(first), component(name("1").as_bytes()));
        assert_eq!(component(&[b'x'; 255]).unwrap(), "x".repeat(255));
        let wide = component("語".repeat(100).as_bytes()).unwrap();
        assert!(wide.len() <= 255 && wide.starts_with("語語"));
    }

    #[test]
    fn numbers_stand_before_the_extension() {
        assert_eq!(numbered("a.txt", 2), "a~2.txt");
        assert_eq!(numbered(".hidden", 3), ".hidden~3");
        assert_eq!(numbered(&"x".repeat(255), u32::MAX).len(), 255);
    }

    #[test]
    fn plain_text_has_a_limit_and_no_control_characters() {
        assert_eq!(plain(b" a\x1bb\0\tc\n", 10).as_deref(), Some("ab c"));
        assert_eq!(plain("ééé".as_bytes(), 5).as_deref(), Some("éé"));
        assert_eq!(plain(b"\x01 \n", 10), None);
    }

    #[test]
    fn only_what_can_be_a_url_is_one() {
        assert_eq!(url(b" udp://t:1/a ").as_deref(), Some("udp://t:1/a"));
        for bad in [
            &b"http://a b"[..],
            b"http://a\0",
            b"tracker",
            b"",
            b"http://\xff",
        ] {
            assert_eq!(url(bad), None);
        }
        let long = format!("http://{}", "a".repeat(URL_LENGTH_MAX));
        assert_eq!(url(long.as_bytes()), None);
    }

    proptest! {
        #[test]
        fn every_component_is_safe(raw: Vec<u8>) {
            if let Some(name) = component(&raw) {
                prop_assert!(!name.is_empty() && name.len() <= COMPONENT_LENGTH_MAX);
                prop_assert!(name != "." && name != "..");
                prop_assert!(!name.contains(['/', '\\']) && !name.contains(is_deceptive));
            } else {
                prop_assert!(raw.is_empty());
            }
        }

        #[test]
        fn plain_text_is_plain(text: String, length_max in 1usize..40) {
            if let Some(once) = plain(text.as_bytes(), length_max) {
                prop_assert!(once.len() <= length_max && !once.contains(is_deceptive));
                prop_assert_eq!(plain(once.as_bytes(), length_max), Some(once));
            }
        }
    }
}
