//! A scripted HTTP tracker (BEP 3).

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// A tracker that names the same peers to everybody, until it falls silent. Ends when dropped.
pub(crate) struct Tracker {
    address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    peers: Vec<SocketAddr>,
    /// The query of each request, in order.
    queries: Mutex<Vec<String>>,
    is_silent: AtomicBool,
    is_over: AtomicBool,
}

impl Tracker {
    /// Starts one at a free port of this address.
    pub(crate) fn start(address: Ipv4Addr, peers: Vec<SocketAddr>) -> Self {
        let listener = TcpListener::bind((address, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            peers,
            queries: Mutex::default(),
            is_silent: AtomicBool::new(false),
            is_over: AtomicBool::new(false),
        });
        let accepting = Arc::clone(&shared);
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if accepting.is_over.load(Ordering::Relaxed) {
                    return;
                }
                let shared = Arc::clone(&accepting);
                // One that goes away in the middle is no concern of ours.
                std::thread::spawn(move || drop(answer(stream, &shared)));
            }
        });
        Self { address, shared }
    }

    /// Where it is asked.
    pub(crate) fn url(&self) -> String {
        format!("http://{}/announce", self.address)
    }

    /// It takes requests and answers none any more.
    pub(crate) fn fall_silent(&self) {
        self.shared.is_silent.store(true, Ordering::Relaxed);
    }

    /// The event of each announce, in order; empty for a regular one.
    pub(crate) fn events(&self) -> Vec<String> {
        let queries = self.shared.queries.lock();
        let queries = queries.unwrap_or_else(PoisonError::into_inner);
        let event = |query: &String| {
            let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
            let event = pairs.find(|(key, _)| *key == "event");
            event.map_or_else(String::new, |(_, value)| value.to_owned())
        };
        queries.iter().map(event).collect()
    }
}

impl Drop for Tracker {
    fn drop(&mut self) {
        self.shared.is_over.store(true, Ordering::Relaxed);
        // Wakes the thread that accepts.
        let _ = TcpStream::connect_timeout(&self.address, Duration::from_secs(1));
    }
}

fn answer(mut stream: TcpStream, shared: &Shared) -> io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(60)))?;
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let path = head.split(' ').nth(1).unwrap_or_default();
    let query = path.split_once('?').map_or("", |(_, query)| query);
    let queries = shared.queries.lock();
    let mut queries = queries.unwrap_or_else(PoisonError::into_inner);
    queries.push(query.to_owned());
    drop(queries);
    if shared.is_silent.load(Ordering::Relaxed) {
        // Until the other side has enough of it.
        return stream.read_exact(&mut byte);
    }
    let mut peers = Vec::new();
    for peer in &shared.peers {
        let SocketAddr::V4(peer) = peer else { continue };
        peers.extend(peer.ip().octets());
        peers.extend(peer.port().to_be_bytes());
    }
    let mut body = format!("d8:intervali1800e5:peers{}:", peers.len()).into_bytes();
    body.extend(peers);
    body.push(b'e');
    let length = body.len();
    write!(
        stream,
        "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n"
    )?;
    stream.write_all(&body)
}
