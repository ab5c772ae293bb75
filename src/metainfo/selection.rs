//! Which files of a torrent are wanted, as a user says it.
//!
//! A selection is text that is read before the torrent is known (`0,3-5` or `*.mkv`) and resolved
//! once its files are. Invariant: what [`FileSelection::resolve`] gives is never empty, ascending,
//! and names no file twice and no pad file.

use std::fmt;

use glob::{MatchOptions, Pattern};

use super::{File, Info};

/// How patterns match: `*` and `?` stay inside one folder, `**` does not, case counts, and a
/// leading dot is a character like others.
const MATCHING: MatchOptions = MatchOptions {
    case_sensitive: true,
    require_literal_separator: true,
    require_literal_leading_dot: false,
};

/// Why a selection makes no sense, or not for this torrent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SelectionError {
    /// There is nothing between two commas, or nothing at all.
    #[error("a part of the file selection is empty, expected indexes like 0,3-5 or patterns")]
    Empty,
    /// It looks like an index or a range, and is none.
    #[error("`{part}` is no file index and no range like 3-5")]
    Index {
        /// The part.
        part: String,
    },
    /// The end of a range comes before its start.
    #[error("the range `{part}` ends before it begins")]
    Backwards {
        /// The part.
        part: String,
    },
    /// It is no glob pattern.
    #[error("`{pattern}` is no file pattern: {reason}")]
    Pattern {
        /// The pattern.
        pattern: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// There is no file of that index.
    #[error("there is no file {index}: the torrent has {}, counted from 0", files(*count))]
    OutOfRange {
        /// The index.
        index: usize,
        /// Files in the torrent, pad files included.
        count: usize,
    },
    /// The indexes name pad files only (BEP 47), which are never written.
    #[error("file {index} only fills a gap and cannot be chosen")]
    Padding {
        /// The first index named.
        index: usize,
    },
    /// No file has a name that matches.
    #[error("no file of the torrent matches `{pattern}`")]
    NoMatch {
        /// The pattern.
        pattern: String,
    },
}

/// `1 file`, `5 files`.
fn files(count: usize) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} file{plural}")
}

/// The files somebody wants.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum FileSelection {
    /// Every file that is written.
    #[default]
    All,
    /// Files that at least one of these names; never empty.
    Of(Vec<FileRule>),
}

/// One part of a selection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FileRule {
    /// Indexes in the order of the torrent, both ends included.
    Indexes {
        /// The first.
        first: usize,
        /// The last, not before the first.
        last: usize,
    },
    /// A glob pattern. Without `/` it is compared with a file's own name, in whichever folder it
    /// lies; with `/` with its whole path, which may begin with the torrent's own folder or below
    /// it.
    Pattern(Pattern),
}

impl FileSelection {
    /// Reads indexes, ranges and patterns between commas: `0,3-5`, `*.mkv`, `sub/**`.
    ///
    /// A part that begins with a digit and has only digits and `-` is an index or a range; a file
    /// that is called so is reached by its index, or as `[3]`. A comma in a name is matched by `?`.
    ///
    /// # Errors
    ///
    /// The first part that is neither.
    pub fn parse(text: &str) -> Result<Self, SelectionError> {
        text.split(',')
            .map(|part| FileRule::parse(part.trim()))
            .collect::<Result<Vec<_>, _>>()
            .map(Self::Of)
    }

    /// The indexes of the chosen files in [`FileList::all`](super::FileList::all), ascending.
    ///
    /// # Errors
    ///
    /// A part that names no file of this torrent.
    pub fn resolve(&self, info: &Info) -> Result<Vec<usize>, SelectionError> {
        let files = info.files().all();
        let mut chosen: Vec<bool> = files.iter().map(|_| false).collect();
        match self {
            Self::All => chosen.fill(true),
            Self::Of(rules) => {
                for rule in rules {
                    rule.mark(files, &mut chosen)?;
                }
            }
        }
        Ok(info
            .files()
            .wanted()
            .map(|(index, _)| index)
            .filter(|&index| chosen.get(index).copied().unwrap_or_default())
            .collect())
    }
}

impl FileRule {
    fn parse(part: &str) -> Result<Self, SelectionError> {
        if part.is_empty() {
            return Err(SelectionError::Empty);
        }
        let numeric = |c: char| c.is_ascii_digit() || c == '-';
        if part.starts_with(numeric) && part.chars().all(numeric) {
            return Self::parse_indexes(part);
        }
        Pattern::new(part)
            .map(Self::Pattern)
            .map_err(|error| SelectionError::Pattern {
                pattern: part.to_owned(),
                reason: error.msg,
            })
    }

    fn parse_indexes(part: &str) -> Result<Self, SelectionError> {
        let wrong = || SelectionError::Index {
            part: part.to_owned(),
        };
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let first: usize = first.parse().map_err(|_| wrong())?;
        let last: usize = last.parse().map_err(|_| wrong())?;
        if last < first {
            return Err(SelectionError::Backwards {
                part: part.to_owned(),
            });
        }
        Ok(Self::Indexes { first, last })
    }

    /// Marks the files that this names; at least one that is written.
    fn mark(&self, files: &[File], chosen: &mut [bool]) -> Result<(), SelectionError> {
        let mut found = false;
        match self {
            Self::Indexes { first, last } => {
                let count = files.len();
                let index = if *first < count { *last } else { *first };
                let (Some(files), Some(chosen)) =
                    (files.get(*first..=*last), chosen.get_mut(*first..=*last))
                else {
                    return Err(SelectionError::OutOfRange { index, count });
                };
                for (file, chosen) in files.iter().zip(chosen) {
                    *chosen = true;
                    found |= !file.is_pad;
                }
            }
            Self::Pattern(pattern) => {
                for (file, chosen) in files.iter().zip(chosen) {
                    if !file.is_pad && matches(pattern, &file.path) {
                        *chosen = true;
                        found = true;
                    }
                }
            }
        }
        match self {
            _ if found => Ok(()),
            Self::Indexes { first, .. } => Err(SelectionError::Padding { index: *first }),
            Self::Pattern(pattern) => Err(SelectionError::NoMatch {
                pattern: pattern.to_string(),
            }),
        }
    }
}

impl fmt::Display for FileRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Indexes { first, last } if first == last => write!(f, "{first}"),
            Self::Indexes { first, last } => write!(f, "{first}-{last}"),
            Self::Pattern(pattern) => write!(f, "{pattern}"),
        }
    }
}

/// Whether a file is meant, under its own name or its path.
fn matches(pattern: &Pattern, path: &[String]) -> bool {
    let matches = |path: &[String]| pattern.matches_with(&path.join("/"), MATCHING);
    if pattern.as_str().contains('/') {
        return matches(path) || path.len() > 1 && matches(&path[1..]);
    }
    // `**` alone means everything, as it does behind a folder.
    pattern.as_str() == "**"
        || path
            .last()
            .is_some_and(|name| matches(std::slice::from_ref(name)))
}

#[cfg(test)]
mod tests {
    use super::super::build::InfoDraft;
    use super::*;

    const PATHS: [&str; 6] = [
        "film.mkv",
        "sub/one.srt",
        "sub/deep/two.srt",
        ".hidden",
        "notes, old.txt",
        "other/film.mkv",
    ];

    fn folder() -> Info {
        let path = |path: &str| path.split('/').map(ToOwned::to_owned).collect();
        let draft = InfoDraft {
            name: "folder".to_owned(),
            piece_length: 16_384,
            files: PATHS.iter().map(|&p| (path(p), 100)).collect(),
            ..InfoDraft::default()
        };
        Info::parse(draft.encode(&[7; 20])).unwrap()
    }

    /// A torrent whose second file fills the gap after the first.
    fn padded() -> Info {
        let text = b"d5:filesl\
            d6:lengthi1e4:pathl1:aee\
            d4:attr1:p6:lengthi16383e4:pathl4:.pad5:16383ee\
            d6:lengthi1e4:pathl1:beee\
            4:name1:n12:piece lengthi16384e6:pieces40:0123456789012345678901234567890123456789e";
        Info::parse(text.to_vec().into()).unwrap()
    }

    #[track_caller]
    fn check(info: &Info, text: &str, expected: Result<&[usize], &str>) {
        let resolved = FileSelection::parse(text).and_then(|selection| selection.resolve(info));
        match (resolved, expected) {
            (Ok(found), Ok(expected)) => assert_eq!(found, expected, "{text}"),
            (Err(error), Err(part)) => assert!(error.to_string().contains(part), "{error}"),
            (found, _) => panic!("{text}: {found:?}"),
        }
    }

    #[test]
    fn indexes_and_ranges_count_from_0_and_name_a_file_once() {
        let info = folder();
        check(&info, "0", Ok(&[0]));
        check(&info, "5, 1-3 ,2", Ok(&[1, 2, 3, 5]));
        check(&info, "3-3", Ok(&[3]));
        assert_eq!(FileSelection::All.resolve(&info).unwrap().len(), 6);
        assert_eq!(FileSelection::default(), FileSelection::All);
    }

    #[test]
    fn a_pattern_without_a_folder_matches_names_in_every_folder() {
        let info = folder();
        check(&info, "*.mkv", Ok(&[0, 5]));
        check(&info, "*.srt,0", Ok(&[0, 1, 2]));
        check(&info, ".*", Ok(&[3]));
        check(&info, "notes?*", Ok(&[4]));
        check(&info, "**", Ok(&[0, 1, 2, 3, 4, 5]));
    }

    #[test]
    fn a_pattern_with_a_folder_respects_separators() {
        let info = folder();
        check(&info, "sub/*", Ok(&[1]));
        check(&info, "sub/**", Ok(&[1, 2]));
        check(&info, "folder/sub/**", Ok(&[1, 2]));
        check(&info, "folder/*", Ok(&[0, 3, 4]));
        check(&info, "**/*.srt", Ok(&[1, 2]));
        check(&info, "*/film.mkv", Ok(&[0, 5]));
    }

    #[test]
    fn what_names_no_file_is_an_error_that_says_so() {
        let info = folder();
        check(&info, "6", Err("no file 6: the torrent has 6 files"));
        check(&info, "4-9", Err("no file 9: the torrent has 6 files"));
        check(&info, "7-9", Err("no file 7"));
        let largest = usize::MAX.to_string();
        check(&info, &largest, Err("the torrent has 6 files"));
        check(
            &info,
            "0,*.avi",
            Err("no file of the torrent matches `*.avi`"),
        );
        check(&info, "FILM.mkv", Err("matches `FILM.mkv`"));
    }

    #[test]
    fn text_that_is_no_selection_is_refused_before_the_torrent_is_known() {
        for (text, part) in [
            ("", "empty"),
            ("1,,2", "empty"),
            ("1-", "`1-` is no file index"),
            ("-1", "`-1` is no file index"),
            ("1-2-3", "no range like 3-5"),
            ("5-3", "ends before it begins"),
            ("99999999999999999999999", "is no file index"),
            ("[a", "`[a` is no file pattern"),
            ("a***b", "is no file pattern"),
        ] {
            let error = FileSelection::parse(text).unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
    }

    #[test]
    fn pad_files_are_counted_and_never_chosen() {
        let info = padded();
        check(&info, "0-2", Ok(&[0, 2]));
        check(&info, "*", Ok(&[0, 2]));
        check(&info, "1", Err("only fills a gap"));
        assert_eq!(FileSelection::All.resolve(&info), Ok(vec![0, 2]));
    }

    #[test]
    fn rules_are_shown_as_they_are_typed() {
        let FileSelection::Of(rules) = FileSelection::parse("0,3-5,*.mkv").unwrap() else {
            panic!("no rules");
        };
        let shown: Vec<String> = rules.iter().map(ToString::to_string).collect();
        assert_eq!(shown, ["0", "3-5", "*.mkv"]);
    }
}
