//! A scripted seeder: serves at a chosen rate, remembers every block it served, and lies if told to.

use std::collections::VecDeque;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::bencode;
use crate::content::{BLOCK, Content};
use crate::wire::{Message, Wire, numbers};

/// Our own number for `ut_metadata` (BEP 10 lets each side choose).
const UT_METADATA: u8 = 3;

/// Bytes of a part of the metadata (BEP 9).
const METADATA_PART: usize = 1 << 14;

/// What a seeder does to the bytes of a block before it sends them: piece, offset, bytes.
pub(crate) type Alter = Box<dyn Fn(u32, u32, &mut Vec<u8>) + Send + Sync>;

/// What a seeder does when it is asked for metadata.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Metadata {
    /// Sends it.
    True,
    /// Sends parts of the right size with a wrong byte.
    Wrong,
    /// Claims another size and sends as much.
    OtherSize,
    /// Rejects every request.
    Reject,
}

/// How a seeder behaves.
pub(crate) struct Conduct {
    /// Its address; the port is a free one.
    pub(crate) address: Ipv4Addr,
    /// Bytes a second over all connections; `None` is as fast as it goes.
    pub(crate) rate: Option<u64>,
    /// What it does to blocks.
    pub(crate) alter: Option<Alter>,
    /// What it does when it is asked for metadata.
    pub(crate) metadata: Metadata,
}

impl Conduct {
    /// An honest one without limit.
    pub(crate) fn honest(address: Ipv4Addr) -> Self {
        Self {
            address,
            rate: None,
            alter: None,
            metadata: Metadata::True,
        }
    }

    /// An honest one with a limit.
    pub(crate) fn limited(address: Ipv4Addr, rate: u64) -> Self {
        Self {
            rate: Some(rate),
            ..Self::honest(address)
        }
    }
}

/// A block that was sent.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Served {
    /// Piece.
    pub(crate) piece: u32,
    /// Bytes from its start.
    pub(crate) offset: u32,
    /// Bytes.
    pub(crate) length: u32,
}

/// What several seeders served together, in order.
#[derive(Default)]
pub(crate) struct Ledger(Mutex<Vec<Served>>);

impl Ledger {
    /// Blocks sent so far.
    pub(crate) fn served(&self) -> Vec<Served> {
        self.lock().clone()
    }

    /// Bytes sent so far, those sent twice counted twice.
    pub(crate) fn bytes(&self) -> u64 {
        self.lock()
            .iter()
            .map(|block| u64::from(block.length))
            .sum()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Served>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A running seeder; ends when dropped.
pub(crate) struct Seeder {
    /// Where it listens.
    pub(crate) address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    content: Arc<Content>,
    conduct: Conduct,
    ledger: Arc<Ledger>,
    stopped: AtomicBool,
    /// Bytes a second, 0 for as many as possible.
    rate: AtomicU64,
    allowance: Mutex<Allowance>,
    /// Connections that came, and those of them that ended.
    connections: Mutex<(u32, u32)>,
    port: u16,
}

/// Bytes that may be sent.
struct Allowance {
    bytes: u64,
    since: Instant,
}

impl Seeder {
    /// Starts one that has all of the content.
    pub(crate) fn start(content: &Arc<Content>, conduct: Conduct, ledger: &Arc<Ledger>) -> Self {
        let listener = TcpListener::bind((conduct.address, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            content: Arc::clone(content),
            rate: AtomicU64::new(conduct.rate.unwrap_or(0)),
            conduct,
            ledger: Arc::clone(ledger),
            stopped: AtomicBool::new(false),
            allowance: Mutex::new(Allowance {
                bytes: 0,
                since: Instant::now(),
            }),
            connections: Mutex::new((0, 0)),
            port: address.port(),
        });
        let accepting = Arc::clone(&shared);
        std::thread::spawn(move || accept(&listener, &accepting));
        Self { address, shared }
    }

    /// Serves as fast as it goes from now on.
    pub(crate) fn lift_limit(&self) {
        self.shared.rate.store(0, Ordering::Relaxed);
    }

    /// Connections that came so far, and how many of them ended.
    pub(crate) fn connections(&self) -> (u32, u32) {
        *lock(&self.shared.connections)
    }
}

impl Drop for Seeder {
    fn drop(&mut self) {
        self.shared.stopped.store(true, Ordering::Relaxed);
        // Wakes the thread that accepts.
        let _ = TcpStream::connect_timeout(&self.address, Duration::from_secs(1));
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    for stream in listener.incoming().map_while(Result::ok) {
        if shared.stopped.load(Ordering::Relaxed) {
            return;
        }
        let shared = Arc::clone(shared);
        std::thread::spawn(move || {
            lock(&shared.connections).0 += 1;
            // However the stream ends is the other side's business.
            let _ = serve(&shared, Wire::new(stream));
            lock(&shared.connections).1 += 1;
        });
    }
}

/// Serves one peer until the stream or the seeder ends.
fn serve(shared: &Shared, mut wire: Wire) -> io::Result<()> {
    let content = &shared.content;
    if wire.receive_handshake()? != content.info_hash {
        return Ok(());
    }
    wire.send_handshake(&content.info_hash)?;
    let metadata = shared.metadata();
    let hello = extended_handshake(metadata.len(), shared.port);
    wire.send(20, &[&[0], &hello[..]].concat())?;
    wire.send(5, &content.full_bitfield())?;
    wire.send(1, &[])?;
    let mut requests: VecDeque<(u32, u32, u32)> = VecDeque::new();
    let mut their_metadata = 0;
    while !shared.stopped.load(Ordering::Relaxed) {
        let wait = if requests.is_empty() { 50 } else { 1 };
        match wire.receive(Duration::from_millis(wait))? {
            Some(Message::Request(piece, offset, length)) => {
                requests.push_back((piece, offset, length));
            }
            Some(Message::Cancel(piece, offset, length)) => {
                requests.retain(|&request| request != (piece, offset, length));
            }
            Some(Message::Extended(0, payload)) => {
                their_metadata = metadata_number(&payload).unwrap_or(0);
            }
            Some(Message::Extended(UT_METADATA, payload)) => {
                let conduct = shared.conduct.metadata;
                send_metadata(&mut wire, conduct, &metadata, their_metadata, &payload)?;
            }
            _ => {}
        }
        while let Some(&(piece, offset, length)) = requests.front()
            && shared.may_send(u64::from(length))
        {
            requests.pop_front();
            shared.send_block(&mut wire, piece, offset, length)?;
        }
    }
    Ok(())
}

impl Shared {
    /// What it gives out as metadata.
    fn metadata(&self) -> Vec<u8> {
        let mut info = self.content.info.clone();
        match self.conduct.metadata {
            Metadata::True | Metadata::Reject => {}
            Metadata::Wrong => info.chunks_mut(METADATA_PART).for_each(|part| part[5] ^= 1),
            Metadata::OtherSize => info.extend(vec![b'e'; 3 * METADATA_PART]),
        }
        info
    }

    /// Takes bytes from the allowance, if there are enough.
    fn may_send(&self, bytes: u64) -> bool {
        let rate = self.rate.load(Ordering::Relaxed);
        if rate == 0 {
            return true;
        }
        let mut allowance = lock(&self.allowance);
        let elapsed = u64::try_from(allowance.since.elapsed().as_micros()).unwrap();
        let earned = elapsed * rate / 1_000_000;
        if earned > 0 {
            allowance.since = Instant::now();
            // A fifth of a second may be caught up with.
            let most = (rate / 5).max(2 * u64::try_from(BLOCK).unwrap());
            allowance.bytes = (allowance.bytes + earned).min(most);
        }
        let enough = allowance.bytes >= bytes;
        if enough {
            allowance.bytes -= bytes;
        }
        enough
    }

    fn send_block(&self, wire: &mut Wire, piece: u32, offset: u32, length: u32) -> io::Result<()> {
        let Some(block) = self.content.block(piece, offset, length) else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        let mut block = block.to_vec();
        if let Some(alter) = &self.conduct.alter {
            alter(piece, offset, &mut block);
        }
        wire.send(7, &[&numbers(&[piece, offset])[..], &block].concat())?;
        self.ledger.lock().push(Served {
            piece,
            offset,
            length,
        });
        Ok(())
    }
}

/// The extension handshake (BEP 10) of somebody who has the metadata (BEP 9).
pub(crate) fn extended_handshake(metadata_size: usize, port: u16) -> Vec<u8> {
    format!(
        "d1:md11:ut_metadatai{UT_METADATA}ee13:metadata_sizei{metadata_size}e1:pi{port}e4:reqqi512ee"
    )
    .into_bytes()
}

/// The number that the other side gave `ut_metadata`.
pub(crate) fn metadata_number(handshake: &[u8]) -> Option<u8> {
    let (value, _) = bencode::decode(handshake)?;
    let number = value.get("m")?.get("ut_metadata")?.integer()?;
    u8::try_from(number).ok()
}

/// Answers a request for a part of the metadata.
fn send_metadata(
    wire: &mut Wire,
    conduct: Metadata,
    metadata: &[u8],
    number: u8,
    request: &[u8],
) -> io::Result<()> {
    let wanted = bencode::decode(request).and_then(|(value, _)| {
        let asks = value.get("msg_type")?.integer()? == 0;
        usize::try_from(value.get("piece")?.integer()?)
            .ok()
            .filter(|_| asks)
    });
    let Some(part) = wanted else { return Ok(()) };
    if conduct == Metadata::Reject {
        let header = format!("d8:msg_typei2e5:piecei{part}ee");
        return wire.send(20, &[&[number], header.as_bytes()].concat());
    }
    let Some(bytes) = metadata.chunks(METADATA_PART).nth(part) else {
        return Ok(());
    };
    let size = metadata.len();
    let header = format!("d8:msg_typei1e5:piecei{part}e10:total_sizei{size}ee");
    wire.send(20, &[&[number], header.as_bytes(), bytes].concat())
}
