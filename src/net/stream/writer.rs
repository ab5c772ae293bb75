//! The write task of a connection.
//!
//! Messages that wait are joined, blocks are read ahead, and what lies in the system's memory goes
//! from there to the stream without a copy in this process.
//!
//! Invariant: a block whose first byte was sent is sent whole, or the stream ends.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::{Buf, Bytes};
use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::net::tcp::OwnedWriteHalf;
use tokio::sync::{mpsc, watch};

use super::super::limit::Limiter;
use super::{End, Idleness, SEND_QUEUE_MAX, StreamInput};
use crate::disk::{Block, FileRange, PendingRead, Storage};
use crate::metainfo::BlockRef;
use crate::peer::Transmit;
use crate::swarm::{DiskError, DiskErrorKind, Reason};

/// Blocks read ahead of the one that is being written.
const READ_AHEAD_MAX: usize = 16;

/// Bytes written as one, reached by joining what is ready.
const WRITE_BYTES_MAX: usize = 256 << 10;

/// Slices given to one vectored write; the system takes 1,024.
const WRITE_SLICES_MAX: usize = 64;

/// Something to write, in order.
#[derive(Debug)]
pub(super) enum Pending {
    /// At hand.
    Bytes(Bytes),
    /// A block that is being read.
    Block {
        header: [u8; 13],
        block: BlockRef,
        read: PendingRead,
    },
}

/// Being written.
#[derive(Debug)]
pub(super) enum Out {
    Bytes(Bytes),
    /// The rest of a block.
    Range(BlockRef, FileRange),
}

impl Out {
    fn len(&self) -> usize {
        match self {
            Self::Bytes(bytes) => bytes.len(),
            Self::Range(_, range) => range.len(),
        }
    }
}

/// The write task.
pub(super) struct Writer {
    pub(super) stream: OwnedWriteHalf,
    pub(super) queue: mpsc::Receiver<Transmit>,
    pub(super) waits: Arc<AtomicBool>,
    pub(super) idleness: Arc<Idleness>,
    pub(super) storage: Option<watch::Receiver<Option<Storage>>>,
    pub(super) limiter: Limiter,
    pub(super) end: End,
    /// Taken from the queue, not yet ready or not yet chosen for writing.
    pub(super) window: VecDeque<Pending>,
    pub(super) out: VecDeque<Out>,
}

/// The torrent's task is gone, or the stream.
struct Ended;

impl Writer {
    pub(super) async fn run(mut self) {
        while self.step().await.is_ok() {}
    }

    /// Writes at least one transmit.
    async fn step(&mut self) -> Result<(), Ended> {
        if self.window.is_empty() {
            let transmit = self.next().await?;
            self.begin(transmit).await?;
        }
        self.fill().await?;
        self.gather().await?;
        // The blocks after those are read while these are written.
        self.fill().await?;
        self.write().await
    }

    /// Waits for something to write.
    async fn next(&mut self) -> Result<Transmit, Ended> {
        if let Ok(transmit) = self.queue.try_recv() {
            return Ok(transmit);
        }
        self.idleness.is_idle.store(true, Ordering::SeqCst);
        if self.idleness.is_awaited.swap(false, Ordering::SeqCst) {
            self.report(StreamInput::Writable(self.end.id)).await?;
        }
        let next = self.queue.recv().await;
        self.idleness.is_idle.store(false, Ordering::SeqCst);
        next.ok_or(Ended)
    }

    /// Takes what is queued, up to the read-ahead.
    async fn fill(&mut self) -> Result<(), Ended> {
        while self.window.len() < READ_AHEAD_MAX
            && let Ok(transmit) = self.queue.try_recv()
        {
            self.begin(transmit).await?;
        }
        let room = self.queue.capacity() >= SEND_QUEUE_MAX / 2;
        if room && self.waits.swap(false, Ordering::SeqCst) {
            self.report(StreamInput::Writable(self.end.id)).await?;
        }
        Ok(())
    }

    /// Takes one transmit; starts to read it if it is a block.
    async fn begin(&mut self, transmit: Transmit) -> Result<(), Ended> {
        let pending = match transmit {
            Transmit::Bytes(bytes) => Pending::Bytes(bytes),
            Transmit::Block { header, block } => {
                let storage = self.storage.as_ref().and_then(|now| now.borrow().clone());
                let Some(storage) = storage else {
                    return self.on_unreadable(block, Arc::new(no_storage())).await;
                };
                let read = storage.begin_read(block);
                Pending::Block {
                    header,
                    block,
                    read,
                }
            }
        };
        self.window.push_back(pending);
        Ok(())
    }

    /// Moves what is ready to `out`: waits for the first, takes the others as they are.
    async fn gather(&mut self) -> Result<(), Ended> {
        let mut bytes = 0;
        while bytes < WRITE_BYTES_MAX
            && self.out.len() + 2 <= WRITE_SLICES_MAX
            && let Some(pending) = self.window.pop_front()
        {
            match pending {
                Pending::Bytes(data) => {
                    bytes += data.len();
                    self.out.push_back(Out::Bytes(data));
                }
                Pending::Block {
                    header,
                    block,
                    read,
                } => {
                    if !self.out.is_empty() && !read.is_ready() {
                        self.window.push_front(Pending::Block {
                            header,
                            block,
                            read,
                        });
                        break;
                    }
                    match read.wait().await {
                        Ok(content) => {
                            let content = match content {
                                Block::Bytes(data) => Out::Bytes(data),
                                Block::Range(range) => Out::Range(block, range),
                            };
                            bytes += header.len() + content.len();
                            let header = Bytes::copy_from_slice(&header);
                            self.out.push_back(Out::Bytes(header));
                            self.out.push_back(content);
                        }
                        Err(error) => self.on_unreadable(block, error).await?,
                    }
                }
            }
        }
        Ok(())
    }

    /// Writes `out` to its end.
    async fn write(&mut self) -> Result<(), Ended> {
        let has_range = self.out.iter().any(|out| matches!(out, Out::Range(..)));
        // Headers and blocks are given to the system one by one; it shall send them as one.
        if has_range {
            self.cork(true);
        }
        while let Some(front) = self.out.front() {
            if front.len() == 0 {
                self.out.pop_front();
                continue;
            }
            match self.write_once().await {
                Ok(written) if written > 0 => {}
                Ok(_) => return self.lost(&io::ErrorKind::WriteZero.into()).await,
                Err(error) => return self.lost(&error).await,
            }
        }
        if has_range {
            self.cork(false);
        }
        Ok(())
    }

    /// Whether the system waits for more before it sends what does not fill a packet.
    fn cork(&self, cork: bool) {
        #[cfg(target_os = "linux")]
        if let Err(error) = socket2::SockRef::from(self.stream.as_ref()).set_tcp_cork(cork) {
            tracing::debug!(%error, cork, "TCP_CORK not set");
        }
        #[cfg(not(target_os = "linux"))]
        let _ = cork;
    }

    /// Writes some of `out`, as much as the limiter grants.
    async fn write_once(&mut self) -> io::Result<usize> {
        loop {
            self.stream.writable().await?;
            let written = if self.limiter.is_limited() {
                let length = self.out.iter().map(Out::len).sum();
                let granted = self.limiter.acquire(length).await;
                let written = self.try_write(granted);
                self.limiter
                    .refund(granted - *written.as_ref().unwrap_or(&0));
                written
            } else {
                self.try_write(usize::MAX)
            };
            match written {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                other => return other,
            }
        }
    }

    /// Gives at most `most` bytes of `out` to the system: what is at hand up to the next range, or
    /// some of a range.
    fn try_write(&mut self, most: usize) -> io::Result<usize> {
        if let Some(Out::Range(_, range)) = self.out.front_mut() {
            let stream: &TcpStream = self.stream.as_ref();
            return stream.try_io(Interest::WRITABLE, || range.send(stream, most));
        }
        let (slices, count) = slices(&self.out, most);
        let written = self.stream.try_write_vectored(&slices[..count])?;
        self.advance(written);
        Ok(written)
    }

    /// The first `written` bytes, all of them at hand, are on their way.
    fn advance(&mut self, mut written: usize) {
        while let Some(Out::Bytes(front)) = self.out.front_mut() {
            if front.len() > written {
                front.advance(written);
                return;
            }
            written -= front.len();
            self.out.pop_front();
        }
    }

    /// The stream cannot go on.
    async fn lost(&self, error: &io::Error) -> Result<(), Ended> {
        tracing::debug!(id = self.end.id.0, %error, "write failed");
        if let Some(Out::Range(block, _)) = self.out.front()
            && is_of_file(error)
        {
            self.on_unreadable(*block, Arc::new(cut_off(error))).await?;
        }
        self.end.tell(Reason::Reset).await;
        Err(Ended)
    }

    async fn on_unreadable(&self, block: BlockRef, error: Arc<DiskError>) -> Result<(), Ended> {
        self.report(StreamInput::UploadFailed(self.end.id, block, error))
            .await
    }

    async fn report(&self, input: StreamInput) -> Result<(), Ended> {
        self.end.inputs.send(input).await.map_err(|_| Ended)
    }
}

/// What is at hand of the first `length` bytes to be written, and the number of slices that it is in.
fn slices(out: &VecDeque<Out>, length: usize) -> ([IoSlice<'_>; WRITE_SLICES_MAX], usize) {
    let mut slices = [IoSlice::new(&[]); WRITE_SLICES_MAX];
    let mut left = length;
    let mut count = 0;
    for (slice, out) in slices.iter_mut().zip(out) {
        let Out::Bytes(bytes) = out else { break };
        if left == 0 {
            break;
        }
        let taken = bytes.len().min(left);
        *slice = IoSlice::new(&bytes[..taken]);
        left -= taken;
        count += 1;
    }
    (slices, count)
}

/// Whether a range could not be sent because of its file, not of its stream.
fn is_of_file(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::UnexpectedEof
        || error.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error())
}

/// A block that was there could not be sent to its end.
fn cut_off(error: &io::Error) -> DiskError {
    DiskError {
        path: std::path::PathBuf::new(),
        kind: DiskErrorKind::Truncated,
        message: format!("while it was sent: {error}"),
    }
}

/// A block was to be sent before the content has a place. The core does not ask for that.
fn no_storage() -> DiskError {
    DiskError {
        path: std::path::PathBuf::new(),
        kind: DiskErrorKind::Missing,
        message: "the content has no place on disk yet".to_owned(),
    }
}
