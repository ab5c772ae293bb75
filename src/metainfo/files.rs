//! The files of a torrent, and names that are safe to write.
//!
//! Invariant: the path of a [`File`] has only components that stay inside the folder they are written to:
//! no separator, no `.` or `..`, nothing empty, at most 255 bytes each; and no two files of a list can
//! meet at one place.

use std::collections::{BTreeMap, BTreeSet};

use sha1::{Digest, Sha1};

/// Bytes in a file name that every common file system takes.
const NAME_LENGTH_MAX: usize = 255;

/// Bytes of an extension that survives when a name is shortened.
const EXTENSION_LENGTH_MAX: usize = 16;

/// One file of a torrent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    /// Safe path components relative to the output folder. In a torrent of several files the first one
    /// is the torrent's name.
    pub path: Vec<String>,
    /// Bytes.
    pub length: u64,
    /// Whether it only fills a piece (BEP 47), or is a symbolic link: never written. Its bytes are zeros.
    pub is_pad: bool,
}

/// All files in the torrent's order, pad files included: the index is that of `Geometry`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileList {
    files: Vec<File>,
}

impl FileList {
    /// Makes the paths safe and tells apart those that would meet at one place.
    pub(super) fn new(mut files: Vec<File>) -> Self {
        let mut places = Places::default();
        for file in files.iter_mut().filter(|file| !file.is_pad) {
            places.take(&mut file.path);
        }
        Self { files }
    }

    /// All files, pad files included.
    #[must_use]
    pub fn all(&self) -> &[File] {
        &self.files
    }

    /// The files that are written, each with its index in the torrent.
    pub fn wanted(&self) -> impl Iterator<Item = (usize, &File)> {
        self.files
            .iter()
            .enumerate()
            .filter(|(_, file)| !file.is_pad)
    }
}

/// Makes one path component safe. `None` if nothing is left of it: it was empty, `.` or `..`.
#[must_use]
pub fn clean_component(raw: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(raw);
    if matches!(&*text, "" | "." | "..") {
        return None;
    }
    let mut name: String = text
        .chars()
        .map(|c| if is_unsafe(c) { '_' } else { c })
        .collect();
    let drive = name.as_bytes().first().is_some_and(u8::is_ascii_alphabetic);
    if drive && name.as_bytes().get(1) == Some(&b':') {
        name.replace_range(1..2, "_");
    }
    if is_reserved(&name) {
        name.insert(0, '_');
    }
    if name.len() > NAME_LENGTH_MAX {
        name = shortened(&name, raw);
    }
    Some(name)
}

/// Separators, control characters, and characters that reorder or hide text.
fn is_unsafe(c: char) -> bool {
    c.is_control()
        || matches!(c, '/' | '\\' | '\u{061c}' | '\u{feff}')
        || matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Names that mean devices on Windows, with or without an extension.
fn is_reserved(name: &str) -> bool {
    let stem = name.split('.').next().unwrap_or_default().trim_end();
    let numbered = |prefix: &str| {
        stem.get(..3)
            .is_some_and(|start| start.eq_ignore_ascii_case(prefix))
            && matches!(stem.as_bytes().get(3..), Some([b'1'..=b'9']))
    };
    ["con", "prn", "aux", "nul"]
        .iter()
        .any(|device| stem.eq_ignore_ascii_case(device))
        || numbered("com")
        || numbered("lpt")
}

/// A name of at most 255 bytes: its beginning, a hash of the whole, its extension. The same each time.
fn shortened(name: &str, raw: &[u8]) -> String {
    let hash: String = Sha1::digest(raw)
        .iter()
        .take(4)
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let (_, extension) = split_extension(name);
    let room = NAME_LENGTH_MAX - hash.len() - 1 - extension.len();
    format!("{}~{hash}{extension}", prefix(name, room))
}

/// The longest beginning of `text` with at most `bytes` bytes that ends at a character.
fn prefix(text: &str, bytes: usize) -> &str {
    let end = (0..=bytes.min(text.len()))
        .rev()
        .find(|&end| text.is_char_boundary(end));
    text.get(..end.unwrap_or(0)).unwrap_or_default()
}

/// Splits `name.ext` into `name` and `.ext`; the extension is empty if there is none or it is long.
fn split_extension(name: &str) -> (&str, &str) {
    match name.rfind('.') {
        Some(dot) if dot > 0 && name.len() - dot <= EXTENSION_LENGTH_MAX => name.split_at(dot),
        _ => (name, ""),
    }
}

/// The places that are taken so far, by joined path.
#[derive(Default)]
struct Places {
    files: BTreeSet<String>,
    folders: BTreeSet<String>,
    /// For a path that was wanted more than once: the number to try next.
    next: BTreeMap<String, u32>,
    /// Folders that met a file, and where their content goes instead.
    moved: BTreeMap<String, String>,
}

impl Places {
    /// Takes a place for a file, under another name if its own is taken.
    fn take(&mut self, path: &mut [String]) {
        let mut place = String::new();
        let Some((name, folders)) = path.split_last_mut() else {
            return;
        };
        for folder in folders {
            let wanted = join(&place, folder);
            if self.files.contains(&wanted) {
                let instead = self.moved.get(&wanted).cloned().unwrap_or_else(|| {
                    let instead = self.free(&place, folder);
                    self.moved.insert(wanted, instead.clone());
                    instead
                });
                *folder = instead;
            }
            place = join(&place, folder);
            self.folders.insert(place.clone());
        }
        let wanted = join(&place, name);
        if self.files.contains(&wanted) || self.folders.contains(&wanted) {
            *name = self.free(&place, name);
        }
        self.files.insert(join(&place, name));
    }

    /// A name like `name` that nothing has in this folder: `name (2).ext`.
    fn free(&mut self, place: &str, name: &str) -> String {
        let wanted = join(place, name);
        let mut number = self.next.get(&wanted).copied().unwrap_or(2);
        loop {
            let candidate = numbered(name, number);
            number = number.saturating_add(1);
            let path = join(place, &candidate);
            if !self.files.contains(&path) && !self.folders.contains(&path) {
                self.next.insert(wanted, number);
                return candidate;
            }
        }
    }
}

fn join(place: &str, name: &str) -> String {
    if place.is_empty() {
        name.to_owned()
    } else {
        format!("{place}/{name}")
    }
}

/// `name (2).ext`, cut so that it fits.
fn numbered(name: &str, number: u32) -> String {
    let (stem, extension) = split_extension(name);
    let tail = format!(" ({number}){extension}");
    format!("{}{tail}", prefix(stem, NAME_LENGTH_MAX - tail.len()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn check_name(raw: &[u8], expected: &str) {
        assert_eq!(clean_component(raw).as_deref(), Some(expected));
    }

    fn list(paths: &[&[&str]]) -> Vec<String> {
        let files = paths.iter().map(|path| File {
            path: path.iter().map(|&part| part.to_owned()).collect(),
            length: 1,
            is_pad: false,
        });
        FileList::new(files.collect())
            .all()
            .iter()
            .map(|file| file.path.join("/"))
            .collect()
    }

    #[test]
    fn separators_control_and_bidi_characters_are_replaced() {
        check_name(b"a/b\\c", "a_b_c");
        check_name(b"/etc/passwd", "_etc_passwd");
        check_name(b"a\0b\x1b[2J\x7f", "a_b_[2J_");
        check_name("exe\u{202e}gpj.sh".as_bytes(), "exe_gpj.sh");
        check_name("données — 数据.txt".as_bytes(), "données — 数据.txt");
    }

    #[test]
    fn names_that_climb_or_say_nothing_disappear() {
        for raw in [&b""[..], b".", b".."] {
            assert_eq!(clean_component(raw), None);
        }
        check_name(b"...", "...");
        check_name(b"..a", "..a");
    }

    #[test]
    fn drive_letters_and_device_names_are_defused() {
        check_name(b"C:", "C_");
        check_name(b"c:windows", "c_windows");
        check_name(b"12:30.txt", "12:30.txt");
        check_name(b"NUL", "_NUL");
        check_name(b"com1.txt", "_com1.txt");
        check_name(b"lpt9", "_lpt9");
        check_name(b"com0", "com0");
        check_name(b"console", "console");
    }

    #[test]
    fn invalid_utf8_becomes_replacement_characters() {
        check_name(b"a\xffb", "a\u{fffd}b");
    }

    #[test]
    fn long_names_are_shortened_the_same_way_each_time_and_stay_apart() {
        let long = "é".repeat(200) + ".tar.gz";
        let other = "é".repeat(201) + ".tar.gz";
        let short = clean_component(long.as_bytes()).unwrap();
        assert!(short.len() <= 255 && short.ends_with(".gz"));
        assert_eq!(clean_component(long.as_bytes()).unwrap(), short);
        assert_ne!(clean_component(other.as_bytes()).unwrap(), short);
        assert!(clean_component(&[b'.'; 300]).unwrap().len() <= 255);
    }

    #[test]
    fn files_of_one_path_are_told_apart() {
        assert_eq!(
            list(&[&["a.txt"], &["a.txt"], &["a (2).txt"], &["a.txt"]]),
            ["a.txt", "a (2).txt", "a (2) (2).txt", "a (3).txt"]
        );
    }

    #[test]
    fn a_file_is_never_the_folder_of_another() {
        assert_eq!(
            list(&[&["a"], &["a", "b"], &["a", "c"]]),
            ["a", "a (2)/b", "a (2)/c"]
        );
        assert_eq!(list(&[&["a", "b"], &["a"]]), ["a/b", "a (2)"]);
    }

    #[test]
    fn a_hundred_thousand_files_of_one_path_take_no_quadratic_time() {
        let path: &[&str] = &["folder", "same"];
        let names = list(&vec![path; 100_000]);
        assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), 100_000);
    }

    proptest! {
        #[test]
        fn every_clean_name_stays_in_its_folder(raw: Vec<u8>) {
            if let Some(name) = clean_component(&raw) {
                prop_assert!(!name.is_empty() && name.len() <= 255);
                prop_assert!(name != "." && name != "..");
                prop_assert!(!name.contains(['/', '\\', '\0']));
                prop_assert_eq!(clean_component(name.as_bytes()), Some(name));
            }
        }

        #[test]
        fn no_two_files_meet(paths in prop::collection::vec(
            prop::collection::vec("[ab]|a \\(2\\)", 1..4), 1..20)
        ) {
            let borrowed: Vec<Vec<&str>> =
                paths.iter().map(|path| path.iter().map(String::as_str).collect()).collect();
            let slices: Vec<&[&str]> = borrowed.iter().map(Vec::as_slice).collect();
            let places = list(&slices);
            for (index, place) in places.iter().enumerate() {
                for (other_index, other) in places.iter().enumerate() {
                    let inside = other.starts_with(&format!("{place}/"));
                    prop_assert!(index == other_index || (place != other && !inside));
                }
            }
        }
    }
}
