//! The info dictionary: what a torrent is made of (BEP 3, 27, 47, 52).

use bytes::Bytes;
use sha1::{Digest, Sha1};
use sha2::Sha256;

use super::files::{File, FileList, clean_component};
use super::{Geometry, PieceIndex};
use crate::bencode::{self, Dictionary, Limits, ScanError, Value};
use crate::id::InfoHash;

/// Bytes in the SHA-1 of a piece.
const HASH_LENGTH: usize = 20;

/// Shortest and longest piece that is accepted, in bytes. Shorter ones would make more hashes than
/// content is worth, longer ones more memory than a peer is worth; a power of two is not required.
pub const PIECE_LENGTHS: std::ops::RangeInclusive<i64> = (16 << 10)..=(64 << 20);

/// Bytes of content below which a torrent must stay: 2^53, so that every program can count them.
pub const TOTAL_LENGTH_MAX: u64 = 1 << 53;

/// Folders inside one another that a torrent may have.
pub const FOLDER_LEVELS_MAX: usize = 100;

/// Why a .torrent file or an info dictionary was not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MetainfoError {
    /// It is not acceptable bencode.
    #[error("not a torrent: {0}")]
    Bencode(#[from] ScanError),
    /// The root or the info value is not a dictionary.
    #[error("not a torrent: {what} is not a dictionary")]
    NotADictionary {
        /// What should be one.
        what: &'static str,
    },
    /// A key that must be there is not, or holds something else.
    #[error("the torrent has no usable `{key}`")]
    Missing {
        /// The key.
        key: &'static str,
    },
    /// A key that decides about the content stands there twice: readers would disagree on it.
    #[error("the torrent has `{key}` twice")]
    Twice {
        /// The key.
        key: &'static str,
    },
    /// A v2 torrent without a v1 half (BEP 52).
    #[error(
        "this is a version 2 torrent (BEP 52) without a version 1 half, which is not supported"
    )]
    V2Only,
    /// The piece length is out of range.
    #[error("piece length {length} is not between 16 KiB and 64 MiB")]
    PieceLength {
        /// The length found.
        length: i64,
    },
    /// A file's length is negative.
    #[error("a file has the length {length}")]
    FileLength {
        /// The length found.
        length: i64,
    },
    /// The lengths add up to too much.
    #[error("the files together are larger than 2^53 bytes")]
    TooLarge,
    /// The number of piece hashes does not fit the content.
    #[error("{found} bytes of piece hashes do not fit {expected} pieces")]
    PieceCount {
        /// Bytes of hashes found.
        found: usize,
        /// Pieces that the lengths make.
        expected: u32,
    },
    /// Both `length` and `files` are there: it cannot be told which one counts.
    #[error("the torrent has both `length` and `files`")]
    LengthAndFiles,
    /// A file lies in too many folders.
    #[error("a file lies more than {FOLDER_LEVELS_MAX} folders deep")]
    TooDeep,
}

/// An info dictionary that was checked.
///
/// Everything a torrent decides is in here; [`raw`](Self::raw) is what others get as metadata (BEP 9).
#[derive(Debug, Clone)]
pub struct Info {
    raw: Bytes,
    info_hash: InfoHash,
    info_hash_v2: Option<[u8; 32]>,
    name: String,
    source: Option<String>,
    private: bool,
    files: FileList,
    geometry: Geometry,
    /// The SHA-1 of each piece, one after another; part of `raw`.
    hashes: Bytes,
}

impl Info {
    /// Checks the bytes of an info dictionary, exactly as they were received: the info hash is theirs.
    ///
    /// # Errors
    ///
    /// The first rule that is broken.
    pub fn parse(raw: Bytes) -> Result<Self, MetainfoError> {
        let root = bencode::read(&raw, &Limits::METAINFO)?;
        let dictionary = root.as_dictionary().ok_or(MetainfoError::NotADictionary {
            what: "the info value",
        })?;
        let fields = Fields::read(dictionary)?;
        let info_hash = InfoHash::new(Sha1::digest(&raw).into());
        let name = fields
            .name
            .and_then(|name| clean_component(name.as_bytes()?))
            .unwrap_or_else(|| info_hash.to_string());
        let Some(pieces) = fields.pieces else {
            let v2 = fields.meta_version == Some(2);
            return Err(if v2 {
                MetainfoError::V2Only
            } else {
                MetainfoError::Missing { key: "pieces" }
            });
        };
        let pieces = pieces
            .as_bytes()
            .ok_or(MetainfoError::Missing { key: "pieces" })?;
        let piece_length = fields.piece_length()?;
        let files = fields.files(&name)?;
        let geometry = geometry(piece_length, &files, pieces.len())?;
        let hashes = raw.slice_ref(pieces);
        Ok(Self {
            info_hash,
            info_hash_v2: (fields.meta_version == Some(2)).then(|| Sha256::digest(&raw).into()),
            name,
            source: fields
                .source
                .map(|text| String::from_utf8_lossy(text).into_owned()),
            private: fields.private,
            files: FileList::new(files),
            geometry,
            hashes,
            raw,
        })
    }

    /// The dictionary as it was received.
    #[must_use]
    pub const fn raw(&self) -> &Bytes {
        &self.raw
    }

    /// SHA-1 of [`raw`](Self::raw).
    #[must_use]
    pub const fn info_hash(&self) -> InfoHash {
        self.info_hash
    }

    /// SHA-256 of [`raw`](Self::raw) if the torrent has a v2 half as well (BEP 52).
    #[must_use]
    pub const fn info_hash_v2(&self) -> Option<[u8; 32]> {
        self.info_hash_v2
    }

    /// The torrent's name, safe as a file name. The info hash if it has none.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The text that gives some torrents an info hash of their own, as found.
    #[must_use]
    pub fn source(&self) -> Option<&str> {
        self.source.as_deref()
    }

    /// Whether peers may come from its trackers only (BEP 27).
    #[must_use]
    pub const fn is_private(&self) -> bool {
        self.private
    }

    /// The files.
    #[must_use]
    pub const fn files(&self) -> &FileList {
        &self.files
    }

    /// Pieces, blocks and where they lie in the files.
    #[must_use]
    pub const fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    /// The SHA-1 a piece must have.
    ///
    /// # Panics
    ///
    /// If the piece is of another torrent with more pieces.
    #[must_use]
    pub fn piece_hash(&self, piece: PieceIndex) -> [u8; HASH_LENGTH] {
        let start = piece.as_usize() * HASH_LENGTH;
        let hash = self.hashes.get(start..start + HASH_LENGTH);
        hash.and_then(|hash| hash.try_into().ok())
            .expect("there is a hash for each piece")
    }
}

/// The geometry of the files, which must make as many pieces as there are hashes.
fn geometry(
    piece_length: u32,
    files: &[File],
    hash_bytes: usize,
) -> Result<Geometry, MetainfoError> {
    let geometry = Geometry::new(piece_length, files.iter().map(|file| file.length))
        .filter(|geometry| geometry.total_length() < TOTAL_LENGTH_MAX)
        .ok_or(MetainfoError::TooLarge)?;
    let expected = geometry.piece_count();
    let expected_bytes = usize::try_from(expected)
        .ok()
        .and_then(|pieces| pieces.checked_mul(HASH_LENGTH));
    if expected_bytes != Some(hash_bytes) {
        return Err(MetainfoError::PieceCount {
            found: hash_bytes,
            expected,
        });
    }
    Ok(geometry)
}

/// The keys of an info dictionary that mean something to us. The rest stays in the raw bytes.
#[derive(Default)]
struct Fields<'a> {
    name: Option<Value<'a>>,
    piece_length: Option<Value<'a>>,
    pieces: Option<Value<'a>>,
    length: Option<Value<'a>>,
    files: Option<Value<'a>>,
    attributes: Option<Value<'a>>,
    source: Option<&'a [u8]>,
    meta_version: Option<i64>,
    private: bool,
}

impl<'a> Fields<'a> {
    fn read(dictionary: Dictionary<'a>) -> Result<Self, MetainfoError> {
        let mut fields = Self::default();
        let mut name_utf8 = None;
        for (key, value) in dictionary.iter() {
            match key {
                b"name" => once(&mut fields.name, value, "name")?,
                b"name.utf-8" => name_utf8 = Some(value),
                b"piece length" => once(&mut fields.piece_length, value, "piece length")?,
                b"pieces" => once(&mut fields.pieces, value, "pieces")?,
                b"length" => once(&mut fields.length, value, "length")?,
                b"files" => once(&mut fields.files, value, "files")?,
                b"attr" => fields.attributes = Some(value),
                b"source" => fields.source = value.as_bytes(),
                b"meta version" => fields.meta_version = value.as_integer(),
                b"private" => fields.private = value.as_integer() == Some(1),
                _ => {}
            }
        }
        if name_utf8.as_ref().and_then(utf8).is_some() {
            fields.name = name_utf8;
        }
        Ok(fields)
    }

    fn piece_length(&self) -> Result<u32, MetainfoError> {
        let length = self
            .piece_length
            .and_then(|value| value.as_integer())
            .ok_or(MetainfoError::Missing {
                key: "piece length",
            })?;
        u32::try_from(length)
            .ok()
            .filter(|_| PIECE_LENGTHS.contains(&length))
            .ok_or(MetainfoError::PieceLength { length })
    }

    /// The files with clean paths, not yet told apart.
    fn files(&self, name: &str) -> Result<Vec<File>, MetainfoError> {
        match (&self.length, &self.files) {
            (Some(_), Some(_)) => Err(MetainfoError::LengthAndFiles),
            (Some(length), None) => {
                let is_pad = is_pad(self.attributes.as_ref(), 1);
                Ok(vec![File {
                    path: vec![name.to_owned()],
                    length: file_length(length)?,
                    is_pad,
                }])
            }
            (None, Some(files)) => {
                let list = files
                    .as_list()
                    .ok_or(MetainfoError::Missing { key: "files" })?;
                list.iter()
                    .enumerate()
                    .map(|(index, file)| self::file(&file, index, name))
                    .collect()
            }
            (None, None) => Err(MetainfoError::Missing { key: "length" }),
        }
    }
}

/// Fills a slot that may be filled only once.
fn once<'a>(
    slot: &mut Option<Value<'a>>,
    value: Value<'a>,
    key: &'static str,
) -> Result<(), MetainfoError> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(MetainfoError::Twice { key }),
    }
}

/// One entry of `files`.
fn file(value: &Value<'_>, index: usize, name: &str) -> Result<File, MetainfoError> {
    let entry = value.as_dictionary().ok_or(MetainfoError::NotADictionary {
        what: "a file entry",
    })?;
    let (mut length, mut path, mut path_utf8, mut attributes) = (None, None, None, None);
    for (key, value) in entry.iter() {
        match key {
            b"length" => once(&mut length, value, "length")?,
            b"path" => once(&mut path, value, "path")?,
            b"path.utf-8" => path_utf8 = Some(value),
            b"attr" => attributes = Some(value),
            _ => {}
        }
    }
    let length = file_length(&length.ok_or(MetainfoError::Missing { key: "length" })?)?;
    let path = path_utf8.filter(is_utf8_path).or(path);
    let parts = path
        .and_then(|path| path.as_list())
        .ok_or(MetainfoError::Missing { key: "path" })?;
    let mut clean = vec![name.to_owned()];
    for part in parts.iter() {
        let part = part
            .as_bytes()
            .ok_or(MetainfoError::Missing { key: "path" })?;
        clean.extend(clean_component(part));
        if clean.len() > FOLDER_LEVELS_MAX + 1 {
            return Err(MetainfoError::TooDeep);
        }
    }
    if clean.len() == 1 {
        clean.push(format!("file {index}"));
    }
    Ok(File {
        path: clean,
        length,
        is_pad: is_pad(attributes.as_ref(), length),
    })
}

fn file_length(value: &Value<'_>) -> Result<u64, MetainfoError> {
    let length = value
        .as_integer()
        .ok_or(MetainfoError::Missing { key: "length" })?;
    u64::try_from(length).map_err(|_| MetainfoError::FileLength { length })
}

/// Whether the attributes (BEP 47) say that this is no file to be written: padding, or a symbolic link,
/// which has no content and is not made.
fn is_pad(attributes: Option<&Value<'_>>, length: u64) -> bool {
    let attributes = attributes.and_then(Value::as_bytes).unwrap_or_default();
    attributes.contains(&b'p') || (attributes.contains(&b'l') && length == 0)
}

fn utf8<'a>(value: &Value<'a>) -> Option<&'a str> {
    std::str::from_utf8(value.as_bytes()?).ok()
}

fn is_utf8_path(value: &Value<'_>) -> bool {
    value
        .as_list()
        .is_some_and(|list| list.iter().all(|part| utf8(&part).is_some()))
}
