//! The peer protocol, written from BEP 3, 9 and 10.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use socket2::{Domain, Socket, Type};

use crate::content::to_usize;

/// Bytes of a handshake.
const HANDSHAKE: usize = 68;

/// A message of a peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Message {
    /// Length 0.
    KeepAlive,
    /// 0.
    Choke,
    /// 1.
    Unchoke,
    /// 2.
    Interested,
    /// 4, piece.
    Have(u32),
    /// 5.
    Bitfield(Vec<u8>),
    /// 6: piece, offset, length.
    Request(u32, u32, u32),
    /// 7: piece, offset, bytes.
    Piece(u32, u32, Vec<u8>),
    /// 8: piece, offset, length.
    Cancel(u32, u32, u32),
    /// 20: extended id and payload.
    Extended(u8, Vec<u8>),
    /// Any other.
    Other(u8),
}

/// A stream to a peer.
pub(crate) struct Wire {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Wire {
    /// Around a stream that was accepted.
    pub(crate) fn new(stream: TcpStream) -> Self {
        stream.set_nodelay(true).unwrap();
        stream
            .set_write_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        Self {
            stream,
            buffer: Vec::new(),
        }
    }

    /// Dials, from an address of its own.
    pub(crate) fn dial(from: IpAddr, to: SocketAddr) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(to), Type::STREAM, None)?;
        socket.bind(&SocketAddr::new(from, 0).into())?;
        socket.connect_timeout(&to.into(), Duration::from_secs(10))?;
        Ok(Self::new(socket.into()))
    }

    /// Dials and exchanges handshakes.
    pub(crate) fn join(from: IpAddr, to: SocketAddr, info_hash: &[u8; 20]) -> io::Result<Self> {
        let mut wire = Self::dial(from, to)?;
        wire.send_handshake(info_hash)?;
        wire.receive_handshake()?;
        Ok(wire)
    }

    /// Sends a handshake with the bit of BEP 10.
    pub(crate) fn send_handshake(&mut self, info_hash: &[u8; 20]) -> io::Result<()> {
        self.send_handshake_with(info_hash, false)
    }

    /// The same, and with the bit of BEP 6 if wanted.
    pub(crate) fn send_handshake_with(
        &mut self,
        info_hash: &[u8; 20],
        fast: bool,
    ) -> io::Result<()> {
        let local = self.stream.local_addr()?;
        let ip = match local.ip() {
            IpAddr::V4(ip) => u32::from(ip) & 0x0fff_ffff,
            IpAddr::V6(_) => 0,
        };
        let mut bytes = b"\x13BitTorrent protocol\0\0\0\0\0\x10\0".to_vec();
        bytes.push(if fast { 4 } else { 0 });
        bytes.extend_from_slice(info_hash);
        bytes.extend_from_slice(format!("-SC0001-{ip:07x}{:05}", local.port()).as_bytes());
        self.raw(&bytes)
    }

    /// Reads a handshake; gives its info hash.
    pub(crate) fn receive_handshake(&mut self) -> io::Result<[u8; 20]> {
        let bytes = self.receive_handshake_bytes()?;
        Ok(bytes[28..48].try_into().unwrap())
    }

    /// Reads a handshake; gives all of it.
    pub(crate) fn receive_handshake_bytes(&mut self) -> io::Result<Vec<u8>> {
        let deadline = Instant::now() + Duration::from_secs(20);
        while self.buffer.len() < HANDSHAKE {
            if !self.fill(Duration::from_millis(100))? && Instant::now() > deadline {
                return Err(ErrorKind::TimedOut.into());
            }
        }
        Ok(self.buffer.drain(..HANDSHAKE).collect())
    }

    /// Sends bytes as they are.
    pub(crate) fn raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// Sends a message: length, id, payload.
    pub(crate) fn send(&mut self, id: u8, payload: &[u8]) -> io::Result<()> {
        self.raw(&frame(id, payload))
    }

    /// Sends a request.
    pub(crate) fn request(&mut self, piece: u32, offset: u32, length: u32) -> io::Result<()> {
        self.send(6, &numbers(&[piece, offset, length]))
    }

    /// The next message, `None` when none came in time.
    ///
    /// # Errors
    ///
    /// The stream ended.
    pub(crate) fn receive(&mut self, wait: Duration) -> io::Result<Option<Message>> {
        let deadline = Instant::now() + wait;
        loop {
            if let Some(message) = self.parse() {
                return Ok(Some(message));
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if !self.fill(left.max(Duration::from_millis(1)))? && left.is_zero() {
                return Ok(None);
            }
        }
    }

    /// Whether the far end closes the stream in time; reads and throws away what comes before.
    pub(crate) fn is_closed(&mut self, wait: Duration) -> bool {
        let deadline = Instant::now() + wait;
        while Instant::now() < deadline {
            self.buffer.clear();
            if self.fill(wait.min(Duration::from_millis(50))).is_err() {
                return true;
            }
        }
        false
    }

    /// Reads once; whether anything came.
    fn fill(&mut self, wait: Duration) -> io::Result<bool> {
        self.stream.set_read_timeout(Some(wait))?;
        let mut bytes = [0; 1 << 16];
        match self.stream.read(&mut bytes) {
            Ok(0) => Err(ErrorKind::UnexpectedEof.into()),
            Ok(count) => {
                self.buffer.extend_from_slice(&bytes[..count]);
                Ok(true)
            }
            Err(error) if [ErrorKind::WouldBlock, ErrorKind::TimedOut].contains(&error.kind()) => {
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    fn parse(&mut self) -> Option<Message> {
        let length = to_usize(u32::from_be_bytes(
            self.buffer.get(..4)?.try_into().unwrap(),
        ));
        if length == 0 {
            self.buffer.drain(..4);
            return Some(Message::KeepAlive);
        }
        let body = self.buffer.get(4..4 + length)?;
        let number = |at: usize| {
            let bytes = body.get(1 + at * 4..5 + at * 4);
            bytes.map_or(0, |bytes| u32::from_be_bytes(bytes.try_into().unwrap()))
        };
        let message = match body[0] {
            0 => Message::Choke,
            1 => Message::Unchoke,
            2 => Message::Interested,
            4 => Message::Have(number(0)),
            5 => Message::Bitfield(body[1..].to_vec()),
            6 => Message::Request(number(0), number(1), number(2)),
            7 => Message::Piece(number(0), number(1), body[9..].to_vec()),
            8 => Message::Cancel(number(0), number(1), number(2)),
            20 => Message::Extended(body[1], body[2..].to_vec()),
            id => Message::Other(id),
        };
        self.buffer.drain(..4 + length);
        Some(message)
    }
}

/// A message as it is sent: length, id, payload.
pub(crate) fn frame(id: u8, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len() + 1).unwrap();
    let mut bytes = length.to_be_bytes().to_vec();
    bytes.push(id);
    bytes.extend_from_slice(payload);
    bytes
}

/// Numbers one after another, as they are in payloads.
pub(crate) fn numbers(numbers: &[u32]) -> Vec<u8> {
    numbers
        .iter()
        .flat_map(|number| number.to_be_bytes())
        .collect()
}
