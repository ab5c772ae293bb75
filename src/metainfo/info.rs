//! The info dictionary: what a torrent's content is.
//!
//! The same checks meet a dictionary from a file and one that peers sent (BEP 9). Invariant: an
//! [`Info`] describes between 0 and 2^53 bytes in at least one file, with exactly one hash for each
//! piece.

use bytes::Bytes;
use sha1::{Digest, Sha1};
use sha2::Sha256;

use super::files::{FileListBuilder, PATH_LENGTH_MAX, PATH_LEVELS_MAX};
use super::{FileList, Geometry, PieceIndex, text};
use crate::bencode::{self, Dictionary, Limits, ScanError, Value};
use crate::id::InfoHash;

/// Smallest piece that is accepted, in bytes: one block.
pub const PIECE_LENGTH_MIN: u32 = 16 << 10;

/// Largest piece that is accepted, in bytes. A piece is hashed as a whole, so this bounds what a
/// bad block costs.
pub const PIECE_LENGTH_MAX: u32 = 64 << 20;

/// Bytes in a torrent stay below this: JSON readers keep integers exactly up to here.
pub const TOTAL_LENGTH_END: u64 = 1 << 53;

/// Bytes in the hash of a piece (SHA-1).
const PIECE_HASH_LENGTH: usize = 20;

/// Bytes of `source` that are kept for display.
const SOURCE_LENGTH_MAX: usize = 255;

/// Why a torrent was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MetainfoError {
    /// It is not acceptable bencode.
    #[error(transparent)]
    Bencode(#[from] ScanError),
    /// It is bencode, but not a dictionary.
    #[error("a torrent is a dictionary, and this is none")]
    NotADictionary,
    /// A key that every torrent has is not there.
    #[error("`{key}` is missing")]
    Missing {
        /// The key.
        key: &'static str,
    },
    /// A key is there twice, and readers would disagree on which counts.
    #[error("`{key}` is there twice")]
    Duplicate {
        /// The key.
        key: &'static str,
    },
    /// A value is not of its kind: a string in place of a number, or the like.
    #[error("`{key}` is not what it should be")]
    Kind {
        /// The key.
        key: &'static str,
    },
    /// There is no v1 half (BEP 3), only a v2 one (BEP 52).
    #[error("this is a v2-only torrent (BEP 52), which trackless cannot download yet")]
    V2Only,
    /// The length of a piece is outside the limits.
    #[error("piece length is {length}, expected {PIECE_LENGTH_MIN} to {PIECE_LENGTH_MAX} bytes")]
    PieceLength {
        /// The length found.
        length: i64,
    },
    /// `pieces` is not made of whole hashes.
    #[error("`pieces` has {length} bytes, which is no multiple of 20")]
    PieceHashes {
        /// Bytes found.
        length: usize,
    },
    /// There are more or fewer hashes than pieces.
    #[error("{found} piece hashes for {expected} pieces")]
    PieceCount {
        /// Hashes found.
        found: usize,
        /// Pieces that the lengths make.
        expected: u64,
    },
    /// The length of a file is negative.
    #[error("a file has the length {length}")]
    FileLength {
        /// The length found.
        length: i64,
    },
    /// All files together have 2^53 bytes or more.
    #[error("the files together are longer than 2^53 bytes")]
    TotalLength,
    /// It is a single file and several files at once.
    #[error("`length` and `files` exclude each other, and both are there")]
    LengthAndFiles,
    /// The list of files is empty.
    #[error("there is no file in it")]
    NoFiles,
    /// A file lies too deep.
    #[error("a file lies deeper than {PATH_LEVELS_MAX} folders")]
    PathLevels,
    /// A path, or all paths together, are too long.
    #[error("file paths are too long, {PATH_LENGTH_MAX} bytes are the most for one")]
    PathLength,
}

/// An info dictionary that passed all checks.
///
/// Cloning shares the bytes, and copies the list of files.
#[derive(Debug, Clone)]
pub struct Info {
    raw: Bytes,
    info_hash: InfoHash,
    info_hash_v2: Option<[u8; 32]>,
    name: String,
    files: FileList,
    geometry: Geometry,
    private: bool,
    source: Option<String>,
    /// The SHA-1 of each piece, one after another: a part of `raw`.
    hashes: Bytes,
}

impl Info {
    /// Reads the bytes of an info dictionary as received.
    ///
    /// # Errors
    ///
    /// The first rule that it breaks.
    pub fn parse(raw: Bytes) -> Result<Self, MetainfoError> {
        let value = bencode::read(&raw, &Limits::METAINFO)?;
        let dictionary = value.as_dictionary().ok_or(MetainfoError::NotADictionary)?;
        Self::from_scanned(&raw, dictionary)
    }

    /// Reads a dictionary that is exactly `raw` and was scanned.
    fn from_scanned(raw: &Bytes, dictionary: Dictionary<'_>) -> Result<Self, MetainfoError> {
        let fields = Fields::collect(dictionary)?;
        let is_v2 = fields.file_tree || fields.meta_version.is_some_and(|version| version >= 2);
        if is_v2 && fields.pieces.is_none() {
            return Err(MetainfoError::V2Only);
        }
        let info_hash = InfoHash::new(Sha1::digest(raw).into());
        let name = fields.safe_name(info_hash)?;
        let piece_length = fields.piece_length()?;
        let hashes = fields
            .pieces
            .ok_or(MetainfoError::Missing { key: "pieces" })?;
        let files = fields.files(&name)?;
        let geometry = geometry(piece_length, &files, hashes)?;
        Ok(Self {
            raw: raw.clone(),
            info_hash,
            info_hash_v2: is_v2.then(|| Sha256::digest(raw).into()),
            name,
            files,
            geometry,
            private: fields.private.is_some_and(|private| private != 0),
            source: fields
                .source
                .and_then(|source| text::plain(source, SOURCE_LENGTH_MAX)),
            hashes: raw.slice_ref(hashes),
        })
    }

    /// The bytes as received; the info hash is theirs.
    #[must_use]
    pub const fn raw(&self) -> &Bytes {
        &self.raw
    }

    /// SHA-1 of [`raw`](Self::raw).
    #[must_use]
    pub const fn info_hash(&self) -> InfoHash {
        self.info_hash
    }

    /// SHA-256 of [`raw`](Self::raw) if the torrent is a hybrid (BEP 52); only its v1 half is used.
    #[must_use]
    pub const fn info_hash_v2(&self) -> Option<[u8; 32]> {
        self.info_hash_v2
    }

    /// The torrent's name, safe to show and to write: a single file or the folder of all files is
    /// called so.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The files, under safe paths.
    #[must_use]
    pub const fn files(&self) -> &FileList {
        &self.files
    }

    /// The arithmetic of pieces, blocks and files.
    #[must_use]
    pub const fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    /// Whether peers may only come from the torrent's trackers (BEP 27).
    #[must_use]
    pub const fn is_private(&self) -> bool {
        self.private
    }

    /// The text that gives a copy of a torrent an info hash of its own, made fit for display.
    #[must_use]
    pub fn source(&self) -> Option<&str> {
        self.source.as_deref()
    }

    /// The SHA-1 that a piece must have.
    ///
    /// # Panics
    ///
    /// If the piece is of a longer torrent.
    #[must_use]
    pub fn piece_hash(&self, piece: PieceIndex) -> [u8; PIECE_HASH_LENGTH] {
        self.hashes
            .chunks_exact(PIECE_HASH_LENGTH)
            .nth(piece.as_usize())
            .and_then(|hash| hash.try_into().ok())
            .expect("there is one hash for each piece of the geometry")
    }
}

/// The values of an info dictionary that count, each of its kind and there at most once.
#[derive(Default)]
struct Fields<'a> {
    name: Option<&'a [u8]>,
    name_utf8: Option<&'a [u8]>,
    piece_length: Option<i64>,
    pieces: Option<&'a [u8]>,
    length: Option<i64>,
    files: Option<bencode::List<'a>>,
    meta_version: Option<i64>,
    private: Option<i64>,
    source: Option<&'a [u8]>,
    file_tree: bool,
}

impl<'a> Fields<'a> {
    fn collect(dictionary: Dictionary<'a>) -> Result<Self, MetainfoError> {
        let mut fields = Self::default();
        for (key, value) in dictionary.iter() {
            match key {
                b"name" => once(&mut fields.name, "name", value.as_bytes())?,
                b"piece length" => {
                    once(&mut fields.piece_length, "piece length", value.as_integer())?;
                }
                b"pieces" => once(&mut fields.pieces, "pieces", value.as_bytes())?,
                b"length" => once(&mut fields.length, "length", value.as_integer())?,
                b"files" => once(&mut fields.files, "files", value.as_list())?,
                // The rest is optional, so a value of another kind is as good as none.
                b"name.utf-8" => fields.name_utf8 = fields.name_utf8.or(value.as_bytes()),
                b"meta version" => {
                    fields.meta_version = fields.meta_version.or(value.as_integer());
                }
                b"private" => fields.private = fields.private.or(value.as_integer()),
                b"source" => fields.source = fields.source.or(value.as_bytes()),
                b"file tree" => fields.file_tree = true,
                _ => {}
            }
        }
        Ok(fields)
    }

    /// The torrent's name as a path component. A torrent without one is called by its info hash.
    fn safe_name(&self, info_hash: InfoHash) -> Result<String, MetainfoError> {
        let name = self.name.ok_or(MetainfoError::Missing { key: "name" })?;
        let utf8 = self.name_utf8.filter(|name| is_utf8_name(name));
        Ok(text::component(utf8.unwrap_or(name)).unwrap_or_else(|| info_hash.to_string()))
    }

    fn piece_length(&self) -> Result<u32, MetainfoError> {
        let length = self.piece_length.ok_or(MetainfoError::Missing {
            key: "piece length",
        })?;
        u32::try_from(length)
            .ok()
            .filter(|length| (PIECE_LENGTH_MIN..=PIECE_LENGTH_MAX).contains(length))
            .ok_or(MetainfoError::PieceLength { length })
    }

    fn files(&self, name: &str) -> Result<FileList, MetainfoError> {
        match (self.length, self.files) {
            (Some(_), Some(_)) => Err(MetainfoError::LengthAndFiles),
            (None, None) => Err(MetainfoError::Missing { key: "length" }),
            (Some(length), None) => Ok(FileList::single(name.to_owned(), file_length(length)?)),
            (None, Some(list)) => {
                let mut builder = FileListBuilder::new(name.to_owned());
                for entry in list.iter() {
                    push_file(&mut builder, entry)?;
                }
                builder.finish().ok_or(MetainfoError::NoFiles)
            }
        }
    }
}

/// Fills the slot of a key that must be of its kind and come only once.
fn once<T>(slot: &mut Option<T>, key: &'static str, value: Option<T>) -> Result<(), MetainfoError> {
    if slot.is_some() {
        return Err(MetainfoError::Duplicate { key });
    }
    *slot = Some(value.ok_or(MetainfoError::Kind { key })?);
    Ok(())
}

/// Adds one entry of `files` to the list.
///
/// A symbolic link (BEP 47, attribute `l`) could lead anywhere, so none is ever made: an entry
/// without content is not written, one with content is an ordinary file.
fn push_file(builder: &mut FileListBuilder, entry: Value<'_>) -> Result<(), MetainfoError> {
    let entry = entry
        .as_dictionary()
        .ok_or(MetainfoError::Kind { key: "files" })?;
    let (mut length, mut path, mut path_utf8, mut attributes) = (None, None, None, None);
    for (key, value) in entry.iter() {
        match key {
            b"length" => once(&mut length, "length", value.as_integer())?,
            b"path" => once(&mut path, "path", value.as_list())?,
            b"path.utf-8" => path_utf8 = path_utf8.or(value.as_list()),
            b"attr" => attributes = attributes.or(value.as_bytes()),
            _ => {}
        }
    }
    let length = file_length(length.ok_or(MetainfoError::Missing { key: "length" })?)?;
    let path = path.ok_or(MetainfoError::Missing { key: "path" })?;
    if path.iter().any(|component| component.as_bytes().is_none()) {
        return Err(MetainfoError::Kind { key: "path" });
    }
    let usable = |path: &bencode::List<'_>| {
        let is_name = |value: Value<'_>| value.as_bytes().is_some_and(is_utf8_name);
        path.iter().all(is_name) && path.iter().next().is_some()
    };
    let path = path_utf8.filter(usable).unwrap_or(path);
    let attributes: &[u8] = attributes.unwrap_or_default();
    let is_pad = attributes.contains(&b'p') || (attributes.contains(&b'l') && length == 0);
    builder.push(
        path.iter().filter_map(|component| component.as_bytes()),
        length,
        is_pad,
    )
}

/// Whether a `.utf-8` name can be used in place of the plain one.
fn is_utf8_name(name: &[u8]) -> bool {
    !name.is_empty() && std::str::from_utf8(name).is_ok()
}

/// The length of a file, which is not negative.
fn file_length(length: i64) -> Result<u64, MetainfoError> {
    u64::try_from(length).map_err(|_| MetainfoError::FileLength { length })
}

/// The geometry of the files, if there is exactly one hash for each piece.
fn geometry(piece_length: u32, files: &FileList, hashes: &[u8]) -> Result<Geometry, MetainfoError> {
    let mut total: u64 = 0;
    for file in files.all() {
        total = total
            .checked_add(file.length)
            .filter(|&total| total < TOTAL_LENGTH_END)
            .ok_or(MetainfoError::TotalLength)?;
    }
    if !hashes.len().is_multiple_of(PIECE_HASH_LENGTH) {
        return Err(MetainfoError::PieceHashes {
            length: hashes.len(),
        });
    }
    let found = hashes.len() / PIECE_HASH_LENGTH;
    let expected = total.div_ceil(u64::from(piece_length));
    if u64::try_from(found) != Ok(expected) {
        return Err(MetainfoError::PieceCount { found, expected });
    }
    let lengths = files.all().iter().map(|file| file.length);
    Geometry::new(piece_length, lengths).ok_or(MetainfoError::TotalLength)
}
