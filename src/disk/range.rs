//! Bytes of a file that a peer is sent, without a copy in this process.

use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;

use super::cache::OpenFile;

/// A part of an open file that lay in the system's memory when it was looked up, so that sending it
/// need not wait for a disk.
#[derive(Debug)]
pub struct FileRange {
    file: Arc<OpenFile>,
    offset: u64,
    length: usize,
}

impl FileRange {
    /// A part of `file`, if all of it is there and, as far as can be told, in memory.
    #[cfg(target_os = "linux")]
    pub(super) fn in_memory(file: Arc<OpenFile>, offset: u64, length: usize) -> Option<Self> {
        use rustix::io::{ReadWriteFlags, preadv2};
        // What is read ahead comes from the front to the back, and what is forgotten goes as a
        // whole most often, so the last byte stands for all.
        let last = offset + u64::try_from(length.checked_sub(1)?).ok()?;
        let mut byte = [0];
        let mut buffers = [io::IoSliceMut::new(&mut byte)];
        let flags = if file.is_memory {
            ReadWriteFlags::empty()
        } else {
            ReadWriteFlags::NOWAIT
        };
        let is_there = preadv2(&**file, &mut buffers, last, flags) == Ok(1);
        is_there.then_some(Self {
            file,
            offset,
            length,
        })
    }

    /// Only Linux can say whether a read would wait.
    #[cfg(not(target_os = "linux"))]
    pub(super) fn in_memory(_file: Arc<OpenFile>, _offset: u64, _length: usize) -> Option<Self> {
        None
    }

    /// Bytes that are not sent yet.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.length
    }

    /// Whether everything was sent.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Gives at most `most` of the next bytes to a stream; says how many it took.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::UnexpectedEof`] if the file has become too short, and what the system says of
    /// the stream or of the file; [`io::ErrorKind::WouldBlock`] if the stream takes nothing now.
    #[cfg(target_os = "linux")]
    pub fn send(&mut self, stream: impl AsFd, most: usize) -> io::Result<usize> {
        let count = self.length.min(most);
        let sent = rustix::fs::sendfile(stream, &**self.file, Some(&mut self.offset), count)?;
        if sent == 0 && count > 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.length -= sent;
        Ok(sent)
    }

    /// There are none such elsewhere.
    ///
    /// # Errors
    ///
    /// Always.
    #[cfg(not(target_os = "linux"))]
    pub fn send(&mut self, _stream: impl AsFd, _most: usize) -> io::Result<usize> {
        Err(io::ErrorKind::Unsupported.into())
    }
}
