//! The two tasks of each connection, which move bytes and know no message.
//!
//! The read task fills a buffer to its end before it takes the next one, and passes each segment on
//! without copying. The write task (`writer`) takes [`Transmit`] values, joins what is small, and
//! reads blocks ahead from the disk. Both keep to the session's [`Limits`].
//!
//! Invariant: everything is bounded. A slow torrent task stops the reads, so that TCP stops the
//! peer; a slow peer fills the writer's queue, so that the torrent stops asking for more.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::{BufMut, Bytes, BytesMut};
use socket2::SockRef;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::net::tcp::OwnedReadHalf;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use super::limit::{Limiter, Limits};
use crate::disk::Storage;
use crate::metainfo::BlockRef;
use crate::peer::Transmit;
use crate::swarm::{ConnectionId, DiskError, Reason};
use writer::Writer;

mod writer;

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

/// Full receive buffers of a fast connection that are kept until nobody holds a slice of them any more: as
/// much as is on its way to the disk when the disk keeps up. Fresh memory would be cleared by the system
/// first, again and again.
const SPENT_MAX: usize = 8;

/// Transmits that wait in a writer: 512 KiB if all are blocks. What waits here cannot be cancelled
/// any more, so it is short; with a reader ahead of the writer it is enough for a local network.
const SEND_QUEUE_MAX: usize = 32;

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

/// Receive buffers of a connection, as large as the speed of the last ones makes useful.
#[derive(Debug)]
struct Buffers {
    size: usize,
    /// Reads into the buffer in use.
    reads: u32,
    /// Buffers that are full, the oldest first; none unless the connection is fast.
    spent: VecDeque<BytesMut>,
}

impl Buffers {
    const fn new() -> Self {
        Self {
            size: READ_BUFFER_MIN,
            reads: 0,
            spent: VecDeque::new(),
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

    /// An empty buffer, in place of one that is full.
    fn next(&mut self, full: BytesMut) -> BytesMut {
        if self.reads > READS_PER_BUFFER_MAX && self.size > READ_BUFFER_MIN {
            self.size /= 2;
        }
        self.reads = 0;
        if self.size < READ_BUFFER_MAX {
            self.spent.clear();
            return BytesMut::with_capacity(self.size);
        }
        self.spent.push_back(full);
        let size = self.size;
        let is_free = |oldest: &mut BytesMut| oldest.try_reclaim(size);
        if self.spent.front_mut().is_some_and(is_free)
            && let Some(oldest) = self.spent.pop_front()
        {
            return oldest;
        }
        if self.spent.len() > SPENT_MAX {
            self.spent.pop_front();
        }
        BytesMut::with_capacity(size)
    }
}

/// The read task.
async fn read(
    mut stream: OwnedReadHalf,
    mut paused: watch::Receiver<bool>,
    limiter: Limiter,
    end: End,
) {
    let mut buffers = Buffers::new();
    let mut buffer = BytesMut::with_capacity(READ_BUFFER_MIN);
    loop {
        if paused.wait_for(|paused| !paused).await.is_err() {
            return; // The torrent's task has ended.
        }
        if buffer.capacity() < READ_ROOM_MIN {
            buffer = buffers.next(buffer);
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
                buffers.on_read(read, room);
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Fills buffers with reads of this many bytes each until `count` of them are full.
    fn fill(
        buffers: &mut Buffers,
        buffer: &mut BytesMut,
        count: usize,
        bytes: usize,
    ) -> Vec<Bytes> {
        let mut slices = Vec::new();
        for _ in 0..count {
            while buffer.capacity() >= READ_ROOM_MIN {
                let room = buffer.capacity();
                let read = room.min(bytes);
                buffer.put_bytes(1, read);
                slices.push(buffer.split().freeze());
                buffers.on_read(read, room);
            }
            *buffer = buffers.next(std::mem::take(buffer));
        }
        slices
    }

    #[test]
    fn receive_buffers_grow_with_a_fast_stream_and_shrink_with_a_slow_one() {
        let mut buffers = Buffers::new();
        let mut buffer = BytesMut::with_capacity(READ_BUFFER_MIN);
        fill(&mut buffers, &mut buffer, 10, usize::MAX);
        assert_eq!(buffer.capacity(), READ_BUFFER_MAX);
        fill(&mut buffers, &mut buffer, 10, 100);
        assert_eq!(buffer.capacity(), READ_BUFFER_MIN);
        assert!(buffers.spent.is_empty());
    }

    #[test]
    fn the_memory_of_a_buffer_is_used_again_once_nobody_holds_a_slice_of_it() {
        let mut buffers = Buffers::new();
        let mut buffer = BytesMut::with_capacity(READ_BUFFER_MIN);
        fill(&mut buffers, &mut buffer, 10, usize::MAX);
        let first = buffer.as_ptr();
        let held = fill(&mut buffers, &mut buffer, 1, usize::MAX);
        assert_ne!(buffer.as_ptr(), first);
        let others = fill(&mut buffers, &mut buffer, 3, usize::MAX);
        // Whatever is held stays as it came.
        assert!(held.iter().flatten().all(|&byte| byte == 1));
        drop((held, others));
        let mut seen = Vec::new();
        for _ in 0..SPENT_MAX {
            drop(fill(&mut buffers, &mut buffer, 1, usize::MAX));
            seen.push(buffer.as_ptr());
        }
        assert!(seen.contains(&first));
        // Those that are held for ever are not waited for.
        let held = fill(&mut buffers, &mut buffer, 3 * SPENT_MAX, usize::MAX);
        assert!(buffers.spent.len() <= SPENT_MAX);
        drop(held);
    }
}
