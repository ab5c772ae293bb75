//! Making an info dictionary from content.

use bytes::Bytes;

use crate::bencode::Writer;

/// Pieces that a torrent should roughly have: enough that peers can trade, few enough that their hashes
/// stay small (30 KiB).
const PIECE_COUNT_AIM: u64 = 1_500;

/// What goes into an info dictionary.
#[derive(Debug, Clone, Default)]
pub struct InfoDraft {
    /// Name of the file or folder.
    pub name: String,
    /// Bytes in a piece.
    pub piece_length: u32,
    /// Path below the folder and length in bytes of each file. A single file has one entry, whose path is
    /// not looked at.
    pub files: Vec<(Vec<String>, u64)>,
    /// The content is one file, not a folder.
    pub single: bool,
    /// Peers only from trackers (BEP 27).
    pub private: bool,
    /// Text that gives the torrent an info hash of its own.
    pub source: Option<String>,
}

impl InfoDraft {
    /// The canonical dictionary; `hashes` are the SHA-1 of the pieces, one after another.
    ///
    /// # Panics
    ///
    /// If a file has more than `i64::MAX` bytes.
    #[must_use]
    pub fn encode(&self, hashes: &[u8]) -> Bytes {
        let integer = |length: u64| i64::try_from(length).expect("no file has 2^63 bytes");
        let mut out = Vec::with_capacity(hashes.len() + 200 + 60 * self.files.len());
        let mut writer = Writer::new(&mut out);
        writer.begin_dictionary();
        if self.single {
            let length = self.files.first().map_or(0, |(_, length)| *length);
            writer.key("length").integer(integer(length));
        } else {
            writer.key("files").begin_list();
            for (path, length) in &self.files {
                writer
                    .begin_dictionary()
                    .key("length")
                    .integer(integer(*length));
                writer.key("path").begin_list();
                for part in path {
                    writer.bytes(part.as_bytes());
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
        Bytes::from(out)
    }
}

/// A good piece length for content of `total` bytes: the smallest power of two from 16 KiB to 16 MiB that
/// keeps the number of pieces at 1,500 or below.
#[must_use]
pub fn default_piece_length(total: u64) -> u32 {
    let mut length: u32 = 16 << 10;
    while length < 16 << 20 && total.div_ceil(u64::from(length)) > PIECE_COUNT_AIM {
        length *= 2;
    }
    length
}
