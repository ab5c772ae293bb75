//! Making an info dictionary from content.
//!
//! Whoever has the content hashes its pieces; here is the form it gets. Invariant: the dictionary
//! is canonical, so the same content, name and options give the same info hash everywhere.

use bytes::Bytes;

use crate::bencode::Writer;

/// Pieces that [`default_piece_length`] makes at most, while pieces are not too long. Ours: the
/// hashes are 30 KB then, which a magnet link's user fetches in two blocks.
const PIECES_AIM: u64 = 1500;

/// The shortest piece that is chosen by size: one block.
const DEFAULT_PIECE_LENGTH_MIN: u32 = 16 << 10;

/// The longest piece that is chosen by size. Longer ones make a bad block cost more than they save.
const DEFAULT_PIECE_LENGTH_MAX: u32 = 16 << 20;

/// What goes into an info dictionary beside the hashes.
#[derive(Debug, Clone, Default)]
pub struct InfoDraft {
    /// Name of the file, or of the folder that holds the files.
    pub name: String,
    /// Bytes in each piece but the last.
    pub piece_length: u32,
    /// Path components inside the folder and bytes, in the order in which the files were hashed.
    pub files: Vec<(Vec<String>, u64)>,
    /// The content is a single file: `files` has one entry, whose path is not used.
    pub single: bool,
    /// Peers may only come from the trackers (BEP 27).
    pub private: bool,
    /// Text that gives the torrent an info hash of its own.
    pub source: Option<String>,
}

impl InfoDraft {
    /// The canonical dictionary; `hashes` are the SHA-1 of the pieces, one after another.
    ///
    /// # Panics
    ///
    /// If a file is longer than 2^63 bytes, which no file system has.
    #[must_use]
    pub fn encode(&self, hashes: &[u8]) -> Bytes {
        let mut out = Vec::with_capacity(hashes.len() + 256 + self.files.len() * 64);
        let mut writer = Writer::new(&mut out);
        writer.begin_dictionary();
        if self.single {
            let length = self.files.first().map_or(0, |(_, length)| *length);
            write_length(&mut writer, length);
        } else {
            writer.key("files").begin_list();
            for (path, length) in &self.files {
                writer.begin_dictionary();
                write_length(&mut writer, *length);
                writer.key("path").begin_list();
                for component in path {
                    writer.bytes(component.as_bytes());
                }
                writer.end().end();
            }
            writer.end();
        }
        writer.key("name").bytes(self.name.as_bytes());
        writer
            .key("piece length")
            .integer(i64::from(self.piece_length));
        writer.key("pieces").bytes(hashes);
        if self.private {
            writer.key("private").integer(1);
        }
        if let Some(source) = &self.source {
            writer.key("source").bytes(source.as_bytes());
        }
        writer.end();
        out.into()
    }
}

/// Writes the length of a file under its key.
fn write_length(writer: &mut Writer<'_>, length: u64) {
    writer
        .key("length")
        .integer(i64::try_from(length).expect("no file has 2^63 bytes"));
}

/// A good piece length for content of this many bytes: a power of two from 16 KiB to 16 MiB that
/// makes 750 to 1,500 pieces where that is possible.
#[must_use]
pub fn default_piece_length(total: u64) -> u32 {
    u32::try_from(total.div_ceil(PIECES_AIM))
        .ok()
        .and_then(u32::checked_next_power_of_two)
        .unwrap_or(u32::MAX)
        .clamp(DEFAULT_PIECE_LENGTH_MIN, DEFAULT_PIECE_LENGTH_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metainfo::Info;

    #[test]
    fn a_single_file_has_the_form_of_bep_3() {
        let draft = InfoDraft {
            name: "a.txt".to_owned(),
            piece_length: 16384,
            files: vec![(vec![], 3)],
            single: true,
            ..InfoDraft::default()
        };
        let expected =
            b"d6:lengthi3e4:name5:a.txt12:piece lengthi16384e6:pieces20:aaaaaaaaaaaaaaaaaaaae";
        assert_eq!(draft.encode(&[b'a'; 20]), &expected[..]);
    }

    #[test]
    fn a_folder_comes_back_as_it_was_drafted() {
        let draft = InfoDraft {
            name: "folder".to_owned(),
            piece_length: 32768,
            files: vec![
                (vec!["b".to_owned(), "ü.bin".to_owned()], 40_000),
                (vec!["a".to_owned()], 0),
            ],
            single: false,
            private: true,
            source: Some("here".to_owned()),
        };
        let info = Info::parse(draft.encode(&[7; 40])).unwrap();
        let paths: Vec<_> = info
            .files()
            .all()
            .iter()
            .map(|file| file.joined_path())
            .collect();
        assert_eq!(paths, ["folder/b/ü.bin", "folder/a"]);
        assert_eq!(info.files().wanted_length(), 40_000);
        assert_eq!((info.name(), info.source()), ("folder", Some("here")));
        assert!(info.is_private());
        assert_eq!(info.geometry().piece_count(), 2);
    }

    #[test]
    fn a_folder_of_one_file_stays_a_folder() {
        let draft = InfoDraft {
            name: "d".to_owned(),
            piece_length: 16384,
            files: vec![(vec!["f".to_owned()], 1)],
            ..InfoDraft::default()
        };
        let info = Info::parse(draft.encode(&[0; 20])).unwrap();
        assert_eq!(info.files().all()[0].path, ["d", "f"]);
    }

    #[test]
    fn piece_lengths_are_powers_of_two_that_make_about_1500_pieces() {
        for (total, expected) in [
            (0, 16 << 10),
            (1, 16 << 10),
            (1500 * (16 << 10), 16 << 10),
            (1500 * (16 << 10) + 1, 32 << 10),
            (200 << 20, 256 << 10),
            (4 << 30, 4 << 20),
            (1 << 40, 16 << 20),
            (u64::MAX, 16 << 20),
        ] {
            assert_eq!(default_piece_length(total), expected, "{total}");
        }
    }
}
