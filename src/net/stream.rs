//! The two tasks of each connection, which move bytes and know no message.
//!
//! The read task fills a buffer to its end before it takes the next one, and passes each segment on
//! without copying. The write task takes [`Transmit`] values, joins what is small, reads blocks
//! ahead from the disk, and writes several slices with one call. Both keep to the session's
//! [`Limits`].
//!
//! Invariant: everything is bounded. A slow torrent task stops the reads, so that TCP stops the
//! peer; a slow peer fills the writer's queue, so that the torrent stops asking for more.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use super::limit::{Limiter, Limits};
use crate::disk::{PendingRead, Storage};
use crate::metainfo::BlockRef;
use crate::peer::Transmit;
use crate::swarm::{ConnectionId, DiskError, DiskErrorKind, Reason};

/// First receive buffer of a connection, in bytes: what an idle connection costs. Room for one
/// block.
const READ_BUFFER_MIN: usize = 32 << 10;

/// Receive buffer of a fast connection, in bytes: 16 blocks a system call.
const READ_BUFFER_MAX: usize = 256 << 10;

/// A buffer with less room than this is given up. A read into the rest would cost a system call and
/// a slice for a few bytes.
const READ_ROOM_MIN: usize = 1 << 10;

/// Reads after which a buffer that is still not full is too big for its connection.
const READS_PER_BUFFER_MAX: u32 = 64;

/// Transmits that wait in a writer: 512 KiB if all are blocks. What waits here cannot be cancelled
/// any more, so it is short; with a reader ahead of the writer it is enough for a local network.
const SEND_QUEUE_MAX: usize = 32;

/// Blocks read ahead of the one that is being written.
const READ_AHEAD_MAX: usize = 8;

/// Bytes given to one vectored write, reached by joining what is ready.
const WRITE_BYTES_MAX: usize = 128 << 10;

/// Slices given to one vectored write; the system takes 1,024.
const WRITE_SLICES_MAX: usize = 64;

/// What a connection's tasks tell the torrent's task.
#[derive(Debug)]
pub enum StreamInput {
    /// The next bytes of the stream.
    Bytes(ConnectionId, Bytes),
    /// The writer, once full, has room again; or, once busy, has nothing to write.
    Writable(ConnectionId),
    /// The stream ended; comes once, and is the last input that the connection sends.
    Closed(ConnectionId, Reason),
    /// A block could not be read; nothing of its message was sent.
    UploadFailed(ConnectionId, BlockRef, Arc<DiskError>),
}

/// A connection's writer, and the owner of both its tasks: dropping it ends them and closes the
/// stream.
#[derive(Debug)]
pub struct StreamHandle {
    queue: mpsc::Sender<Transmit>,
    /// The torrent was told that there is no room, and waits for [`StreamInput::Writable`].
    waits: Arc<AtomicBool>,
    idleness: Arc<Idleness>,
    tasks: [JoinHandle<()>; 2],
}

/// Whether a writer has nothing to write.
#[derive(Debug, Default)]
struct Idleness {
    is_idle: AtomicBool,
    /// The torrent waits for that.
    is_awaited: AtomicBool,
}

impl StreamHandle {
    /// How many more transmits the writer takes now. After a 0 follows [`StreamInput::Writable`].
    #[must_use]
    pub fn room(&self) -> usize {
        let room = self.queue.capacity();
        if room > 0 {
            return room;
        }
        self.waits.store(true, Ordering::SeqCst);
        // Looked at again: the writer may have emptied its queue just before it could see the wish.
        self.queue.capacity()
    }

    /// Whether the system has taken everything that the writer was given. If not,
    /// [`StreamInput::Writable`] follows.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        let is_idle = || {
            self.queue.capacity() == SEND_QUEUE_MAX && self.idleness.is_idle.load(Ordering::SeqCst)
        };
        if is_idle() {
            return true;
        }
        self.idleness.is_awaited.store(true, Ordering::SeqCst);
        // Looked at again: the writer may have become idle just before it could see the wish.
        is_idle()
    }

    /// Gives one transmit to the writer; `false` if it has no room (never after `room() > 0`), or
    /// has ended.
    pub fn send(&mut self, transmit: Transmit) -> bool {
        match self.queue.try_send(transmit) {
            Ok(()) => true,
            Err(mpsc::error::TrySendError::Full(_)) => {
                self.waits.store(true, Ordering::SeqCst);
                false
            }
            Err(mpsc::error::TrySendError::Closed(_)) => false,
        }
    }
}

impl Drop for StreamHandle {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

/// Starts the two tasks of a connection.
///
/// `storage` says where blocks are read from once the metadata is known; with `None` none can be
/// sent. While `paused` is true nothing is read, beyond one segment that may be under way. Bytes
/// pass as `limits` allow.
#[must_use]
pub fn spawn_stream(
    id: ConnectionId,
    stream: TcpStream,
    inputs: mpsc::Sender<StreamInput>,
    storage: Option<watch::Receiver<Option<Storage>>>,
    paused: watch::Receiver<bool>,
    limits: &Limits,
) -> StreamHandle {
    // Small messages must not wait for more; what belongs together is written with one call.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "TCP_NODELAY not set");
    }
    // Bytes the kernel holds unsent cannot be replaced by something more urgent.
    if let Err(error) = SockRef::from(&stream).set_tcp_notsent_lowat(256 << 10) {
        tracing::debug!(%error, "TCP_NOTSENT_LOWAT not set");
    }
    let (queue, receiver) = mpsc::channel(SEND_QUEUE_MAX);
    let waits = Arc::new(AtomicBool::new(false));
    let idleness = Arc::new(Idleness::default());
    let (reader, writer) = stream.into_split();
    let end = End {
        id,
        inputs,
        told: Arc::default(),
    };
    let writer = Writer {
        stream: writer,
        queue: receiver,
        waits: Arc::clone(&waits),
        idleness: Arc::clone(&idleness),
        storage,
        limiter: limits.upload.clone(),
        end: end.clone(),
        window: VecDeque::new(),
        out: VecDeque::new(),
    };
    let tasks = [
        tokio::spawn(read(reader, paused, limits.download.clone(), end)),
        tokio::spawn(writer.run()),
    ];
    StreamHandle {
        queue,
        waits,
        idleness,
        tasks,
    }
}

/// Where a connection's two tasks report, and that its end is reported once.
#[derive(Debug, Clone)]
struct End {
    id: ConnectionId,
    inputs: mpsc::Sender<StreamInput>,
    told: Arc<AtomicBool>,
}

impl End {
    async fn tell(&self, reason: Reason) {
        if !self.told.swap(true, Ordering::SeqCst) {
            // Nobody there to tell: the torrent has ended.
            let closed = StreamInput::Closed(self.id, reason);
            self.inputs.send(closed).await.ok();
        }
    }
}

/// Chooses the size of the next receive buffer by how fast the last one filled.
#[derive(Debug)]
struct BufferSize {
    size: usize,
    /// Reads into the buffer in use.
    reads: u32,
}

impl BufferSize {
    const fn new() -> Self {
        Self {
            size: READ_BUFFER_MIN,
            reads: 0,
        }
    }

    /// `read` bytes came into a buffer that had room for `room`.
    const fn on_read(&mut self, read: usize, room: usize) {
        self.reads = self.reads.saturating_add(1);
        let doubled = self.size * 2;
        if read == room && doubled <= READ_BUFFER_MAX {
            self.size = doubled;
        }
    }

    /// The size of a new buffer, now that the last one is used up.
    const fn next(&mut self) -> usize {
        if self.reads > READS_PER_BUFFER_MAX && self.size > READ_BUFFER_MIN {
            self.size /= 2;
        }
        self.reads = 0;
        self.size
    }
}

/// The read task.
async fn read(
    mut stream: OwnedReadHalf,
    mut paused: watch::Receiver<bool>,
    limiter: Limiter,
    end: End,
) {
    let mut size = BufferSize::new();
    let mut buffer = BytesMut::with_capacity(size.next());
    loop {
        if paused.wait_for(|paused| !paused).await.is_err() {
            return; // The torrent's task has ended.
        }
        if buffer.capacity() < READ_ROOM_MIN {
            // Takes the old memory again if nobody holds a slice of it any more.
            buffer.reserve(size.next());
        }
        let room = buffer.capacity();
        let read = if limiter.is_limited() {
            read_limited(&stream, &mut buffer, &limiter).await
        } else {
            let read = stream.read_buf(&mut buffer).await;
            // There may be a limit since.
            limiter.charge(*read.as_ref().unwrap_or(&0));
            read
        };
        let reason = match read {
            Ok(0) => Reason::Closed,
            Ok(read) => {
                size.on_read(read, room);
                let segment = StreamInput::Bytes(end.id, buffer.split().freeze());
                if end.inputs.send(segment).await.is_err() {
                    return;
                }
                continue;
            }
            Err(error) => {
                tracing::debug!(id = end.id.0, %error, "read failed");
                Reason::Reset
            }
        };
        return end.tell(reason).await;
    }
}

/// Reads at most as much as the limiter grants once there is something to read. What waits for its
/// turn stays in the system's buffer, so that TCP slows the peer down.
async fn read_limited(
    stream: &OwnedReadHalf,
    buffer: &mut BytesMut,
    limiter: &Limiter,
) -> io::Result<usize> {
    loop {
        stream.readable().await?;
        let granted = limiter.acquire(buffer.capacity() - buffer.len()).await;
        let read = stream.try_read_buf(&mut (&mut *buffer).limit(granted));
        limiter.refund(granted - *read.as_ref().unwrap_or(&0));
        match read {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            other => return other,
        }
    }
}

/// Something to write, in order.
#[derive(Debug)]
enum Pending {
    /// At hand.
    Bytes(Bytes),
    /// A block that is being read.
    Block {
        header: [u8; 13],
        block: BlockRef,
        read: PendingRead,
    },
}

/// The write task.
struct Writer {
    stream: OwnedWriteHalf,
    queue: mpsc::Receiver<Transmit>,
    waits: Arc<AtomicBool>,
    idleness: Arc<Idleness>,
    storage: Option<watch::Receiver<Option<Storage>>>,
    limiter: Limiter,
    end: End,
    /// Taken from the queue, not yet ready or not yet chosen for writing.
    window: VecDeque<Pending>,
    /// Being written.
    out: VecDeque<Bytes>,
}

/// The torrent's task is gone, or the stream.
struct Ended;

impl Writer {
    async fn run(mut self) {
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
                    self.out.push_back(data);
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
                        Ok(data) => {
                            bytes += header.len() + data.len();
                            self.out.push_back(Bytes::copy_from_slice(&header));
                            self.out.push_back(data);
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
        while let Some(front) = self.out.front_mut() {
            if front.is_empty() {
                self.out.pop_front();
                continue;
            }
            let written = match self.write_once().await {
                Ok(written) if written > 0 => written,
                Ok(_) => return self.lost(&io::ErrorKind::WriteZero.into()).await,
                Err(error) => return self.lost(&error).await,
            };
            self.advance(written);
        }
        Ok(())
    }

    /// Writes some of `out`, as much as the limiter grants.
    async fn write_once(&mut self) -> io::Result<usize> {
        if !self.limiter.is_limited() {
            let (slices, count) = slices(&self.out, usize::MAX);
            return self.stream.write_vectored(&slices[..count]).await;
        }
        loop {
            self.stream.writable().await?;
            let length: usize = self.out.iter().map(Bytes::len).sum();
            let granted = self.limiter.acquire(length).await;
            let (slices, count) = slices(&self.out, granted);
            let written = self.stream.try_write_vectored(&slices[..count]);
            self.limiter
                .refund(granted - *written.as_ref().unwrap_or(&0));
            match written {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                other => return other,
            }
        }
    }

    /// The first `written` bytes of `out` are on their way.
    fn advance(&mut self, mut written: usize) {
        while let Some(front) = self.out.front_mut() {
            if front.len() > written {
                front.advance(written);
                return;
            }
            written -= front.len();
            self.out.pop_front();
        }
    }

    async fn lost(&self, error: &io::Error) -> Result<(), Ended> {
        tracing::debug!(id = self.end.id.0, %error, "write failed");
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

/// The first `length` bytes of what is to be written, and the number of slices that they are in.
fn slices(out: &VecDeque<Bytes>, length: usize) -> ([IoSlice<'_>; WRITE_SLICES_MAX], usize) {
    let mut slices = [IoSlice::new(&[]); WRITE_SLICES_MAX];
    let mut left = length;
    let mut count = 0;
    for (slice, bytes) in slices.iter_mut().zip(out) {
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

/// A block was to be sent before the content has a place. The core does not ask for that.
fn no_storage() -> DiskError {
    DiskError {
        path: std::path::PathBuf::new(),
        kind: DiskErrorKind::Missing,
        message: "the content has no place on disk yet".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn receive_buffers_grow_with_a_fast_stream_and_shrink_with_a_slow_one() {
        let mut size = BufferSize::new();
        assert_eq!(size.next(), READ_BUFFER_MIN);
        for _ in 0..10 {
            let room = size.next();
            size.on_read(room, room);
        }
        assert_eq!(size.next(), READ_BUFFER_MAX);
        for _ in 0..10 {
            for _ in 0..1_000 {
                size.on_read(100, READ_BUFFER_MAX);
            }
            size.next();
        }
        assert_eq!(size.next(), READ_BUFFER_MIN);
    }
}
