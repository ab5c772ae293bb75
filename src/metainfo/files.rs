//! The files of a torrent, under paths that are safe to write.
//!
//! Names come from strangers. Invariant: the path of a [`File`] is relative, each component names
//! one entry of a folder, and of the files that are written no two have the same path and none is
//! another's folder.

use std::collections::BTreeMap;

use super::info::MetainfoError;
use super::text;

/// Components in a file's path at most, the torrent's own folder not counted. Ours: deeper trees
/// are attacks on whatever walks them.
pub const PATH_LEVELS_MAX: usize = 100;

/// Bytes in a file's joined path at most. Linux takes 4,096; this leaves 1,024 for the output
/// folder.
pub const PATH_LENGTH_MAX: usize = 3072;

/// Bytes in all paths of a torrent at most. Each file repeats its folders, so a small dictionary
/// could name gigabytes; 100,000 files of 600 bytes fit.
pub const PATHS_LENGTH_MAX: usize = 64 << 20;

/// What stands for a name that is empty.
const NAMELESS: &str = "unnamed";

/// One file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    /// Safe components relative to the output folder, never empty; with several files the first is
    /// the torrent's own folder.
    pub path: Vec<String>,
    /// Bytes.
    pub length: u64,
    /// A pad file, or a symbolic link without content (BEP 47): it is never written and reads as
    /// zeros.
    pub is_pad: bool,
}

impl File {
    /// The path with `/` between its components.
    #[must_use]
    pub fn joined_path(&self) -> String {
        self.path.join("/")
    }
}

/// All files, in the order of the torrent, pad files included.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileList {
    files: Vec<File>,
}

impl FileList {
    /// The only file of a single-file torrent, under a name made by [`text::component`].
    pub(super) fn single(name: String, length: u64) -> Self {
        Self {
            files: vec![File {
                path: vec![name],
                length,
                is_pad: false,
            }],
        }
    }

    /// All files, pad files included: the index is the one that [`Geometry`](super::Geometry) uses.
    #[must_use]
    pub fn all(&self) -> &[File] {
        &self.files
    }

    /// The files that are written, each with its index: all but pad files.
    pub fn wanted(&self) -> impl Iterator<Item = (usize, &File)> {
        self.files
            .iter()
            .enumerate()
            .filter(|(_, file)| !file.is_pad)
    }

    /// Bytes in the files that are written.
    #[must_use]
    pub fn wanted_length(&self) -> u64 {
        self.wanted().map(|(_, file)| file.length).sum()
    }

    /// Number of files, pad files included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.files.len()
    }

    /// Whether there is no file, which no torrent that was accepted shows.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.files.is_empty()
    }
}

/// Collects the files of a torrent and keeps their paths apart.
///
/// The first to come keeps its name; a later file or folder of the same name gets a number.
#[derive(Debug)]
pub(super) struct FileListBuilder {
    root: String,
    folders: Vec<Folder>,
    files: Vec<File>,
    /// Bytes in all paths so far.
    paths_length: usize,
}

/// Names met in one folder, and what became of each.
#[derive(Debug, Default)]
struct Folder(BTreeMap<String, Entry>);

/// What is known of a name in a folder.
#[derive(Debug, Default)]
struct Entry {
    /// A file or folder is written under exactly this name.
    taken: bool,
    /// The folder that torrents call by this name: where it is, and what it is called if renamed.
    folder: Option<(usize, Option<String>)>,
    /// Number to try next for a namesake, counted from the second.
    namesakes: u32,
}

impl Folder {
    /// A name for a file or folder that should be called `name`; from now on nobody else gets it.
    fn take(&mut self, name: &str) -> String {
        let entry = self.0.entry(name.to_owned()).or_default();
        if !entry.taken {
            entry.taken = true;
            return name.to_owned();
        }
        // The number is kept, so 100,000 namesakes cost 100,000 steps.
        let mut number = entry.namesakes.max(1);
        loop {
            number += 1;
            let candidate = text::numbered(name, number);
            let other = self.0.entry(candidate.clone()).or_default();
            if !other.taken {
                other.taken = true;
                break self.keep_count(name, number, candidate);
            }
        }
    }

    fn keep_count(&mut self, name: &str, number: u32, chosen: String) -> String {
        if let Some(entry) = self.0.get_mut(name) {
            entry.namesakes = number;
        }
        chosen
    }
}

impl FileListBuilder {
    /// No files yet, in a folder of this name, which [`text::component`] made.
    pub(super) fn new(root: String) -> Self {
        Self {
            root,
            folders: vec![Folder::default()],
            files: Vec::new(),
            paths_length: 0,
        }
    }

    /// Adds the next file; `components` are as received.
    ///
    /// # Errors
    ///
    /// The path, or all paths together, are too long.
    pub(super) fn push<'a>(
        &mut self,
        components: impl Iterator<Item = &'a [u8]>,
        length: u64,
        is_pad: bool,
    ) -> Result<(), MetainfoError> {
        let mut names = Vec::new();
        for (level, raw) in components.enumerate() {
            if level >= PATH_LEVELS_MAX {
                return Err(MetainfoError::PathLevels);
            }
            names.extend(text::component(raw));
        }
        let file_name = names.pop().unwrap_or_else(|| NAMELESS.to_owned());
        let mut path = Vec::with_capacity(names.len() + 2);
        path.push(self.root.clone());
        if is_pad {
            // Nothing is written for it, so it takes nobody's name.
            path.append(&mut names);
            path.push(file_name);
        } else {
            let mut at = 0;
            for name in &names {
                let (next, renamed) = self.enter(at, name);
                path.push(renamed);
                at = next;
            }
            path.push(self.folder(at).take(&file_name));
        }
        let path_length = path.iter().map(|name| name.len() + 1).sum::<usize>() - 1;
        self.paths_length += path_length;
        if path_length > PATH_LENGTH_MAX || self.paths_length > PATHS_LENGTH_MAX {
            return Err(MetainfoError::PathLength);
        }
        self.files.push(File {
            path,
            length,
            is_pad,
        });
        Ok(())
    }

    /// The folder that is called `name` inside folder `at`, and the name it goes by.
    fn enter(&mut self, at: usize, name: &str) -> (usize, String) {
        let known = self
            .folder(at)
            .0
            .get(name)
            .and_then(|entry| entry.folder.as_ref());
        if let Some((next, renamed)) = known {
            return (*next, renamed.as_deref().unwrap_or(name).to_owned());
        }
        let next = self.folders.len();
        self.folders.push(Folder::default());
        let folder = self.folder(at);
        let chosen = folder.take(name);
        let renamed = (chosen != name).then(|| chosen.clone());
        folder.0.entry(name.to_owned()).or_default().folder = Some((next, renamed));
        (next, chosen)
    }

    fn folder(&mut self, at: usize) -> &mut Folder {
        self.folders
            .get_mut(at)
            .expect("folders are numbered as they are made and never removed")
    }

    /// The list. `None` if nothing was added.
    pub(super) fn finish(self) -> Option<FileList> {
        (!self.files.is_empty()).then_some(FileList { files: self.files })
    }
}

#[cfg(test)]
mod tests;
