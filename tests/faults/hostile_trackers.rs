//! Trackers that do their worst beside a download.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::content::Content;
use crate::lab::{Lab, PATIENCE, PORT, address, eventually};
use crate::scene::MEMORY_MAX;
use crate::seeder::{Conduct, Seeder};
use crate::tracker::Tracker;

/// An address of the Internet, where the trackers are.
const ABROAD: Ipv4Addr = Ipv4Addr::new(9, 1, 1, 1);

/// Requests that a tracker may get in the time of a test. One that fails is asked again a minute later.
const ASKED_MAX: usize = 3;

/// A tracker that answers each request in its way. Its threads end with the test program.
struct Liar {
    name: String,
    url: String,
    asked: Arc<AtomicUsize>,
}

impl Liar {
    fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }

    /// One that speaks HTTP. `answer` writes all after the request was read.
    fn over_http(
        name: &str,
        answer: impl Fn(&mut TcpStream) -> io::Result<()> + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind((ABROAD, 0)).unwrap();
        let url = format!("http://{}/announce", listener.local_addr().unwrap());
        let asked = Arc::<AtomicUsize>::default();
        let (count, answer) = (Arc::clone(&asked), Arc::new(answer));
        std::thread::spawn(move || {
            for mut stream in listener.incoming().map_while(Result::ok) {
                count.fetch_add(1, Ordering::Relaxed);
                let answer = Arc::clone(&answer);
                std::thread::spawn(move || {
                    let _ = stream.read(&mut [0; 4_096]);
                    // It is the other side that ends most of this.
                    let _ = answer(&mut stream);
                });
            }
        });
        Self {
            name: name.to_owned(),
            url,
            asked,
        }
    }

    /// One that says the same to everybody, as a whole response.
    fn saying(name: &str, body: &[u8]) -> Self {
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
        let bytes = [head.as_bytes(), body].concat();
        Self::over_http(name, move |stream| stream.write_all(&bytes))
    }

    /// One that sends everybody elsewhere.
    fn redirecting(name: &str, to: &str) -> Self {
        let response = format!("HTTP/1.1 302 Found\r\nLocation: {to}\r\nContent-Length: 0\r\n\r\n");
        Self::over_http(name, move |stream| stream.write_all(response.as_bytes()))
    }

    /// One that speaks UDP, and everything but BEP 15.
    fn over_udp() -> Self {
        let socket = UdpSocket::bind((ABROAD, 0)).unwrap();
        let url = format!("udp://{}/announce", socket.local_addr().unwrap());
        let asked = Arc::<AtomicUsize>::default();
        let count = Arc::clone(&asked);
        std::thread::spawn(move || {
            let mut bytes = [0; 2_048];
            while let Ok((length, from)) = socket.recv_from(&mut bytes) {
                count.fetch_add(1, Ordering::Relaxed);
                if length < 16 {
                    continue;
                }
                let transaction: [u8; 4] = bytes[12..16].try_into().unwrap();
                let mut other = transaction;
                other[0] ^= 1;
                let connect = |transaction: &[u8]| [&[0; 4], transaction, &[7; 8]].concat();
                let error = [&[0, 0, 0, 3], &transaction[..], b"\x1b[2Jgone\r\n"].concat();
                let all = [
                    connect(&other),
                    connect(&transaction)[..7].to_vec(),
                    Vec::new(),
                    vec![0xff; 1_400],
                    // An announce where a connection was asked for.
                    [&[0, 0, 0, 1], &transaction[..], &[0xff; 30]].concat(),
                    error,
                ];
                for datagram in all {
                    let _ = socket.send_to(&datagram, from);
                }
            }
        });
        Self {
            name: "UDP".to_owned(),
            url,
            asked,
        }
    }
}

/// A listener that nobody should come to; counts who does.
fn trap() -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    let came = Arc::<AtomicUsize>::default();
    let count = Arc::clone(&came);
    std::thread::spawn(move || {
        for _ in listener.incoming().map_while(Result::ok) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    });
    (address, came)
}

/// Gzip (RFC 1952) of zeros: a literal zero, and then copies of 258 bytes from one byte before, in the fixed
/// codes of RFC 1951.
fn bomb(length: usize) -> Vec<u8> {
    let mut bits = Vec::new();
    let mut put = |code: u32, count: u32| {
        bits.extend((0..count).rev().map(|bit| (code >> bit) & 1 == 1));
    };
    // The last block, with fixed codes: 1, then 01 from its lowest bit.
    put(0b110, 3);
    put(0b0011_0000, 8);
    for _ in 0..length / 258 {
        put(0b1100_0101, 8);
        put(0, 5);
    }
    put(0, 7);
    let mut bytes = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];
    let byte = |byte: &[bool]| {
        (0..)
            .zip(byte)
            .fold(0, |sum, (at, &bit)| sum | u8::from(bit) << at)
    };
    bytes.extend(bits.chunks(8).map(byte));
    bytes.extend([0; 8]);
    bytes
}

/// Answers without end or nearly so.
fn endless() -> Vec<Liar> {
    let packed = bomb(200 << 20);
    vec![
        Liar::over_http("100 MB", |stream| {
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 104857600\r\n\r\n")?;
            (0..1_600).try_for_each(|_| stream.write_all(&[b'l'; 65_536]))
        }),
        Liar::over_http("a head without end", |stream| {
            stream.write_all(b"HTTP/1.1 200 OK\r\n")?;
            loop {
                stream.write_all(b"X-More: and more and more and more\r\n")?;
            }
        }),
        Liar::over_http("endless chunks", |stream| {
            stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")?;
            loop {
                stream.write_all(b"8\r\nllllllll\r\n")?;
            }
        }),
        Liar::over_http("a gzip bomb", move |stream| {
            let length = packed.len();
            let head = "HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length:";
            write!(stream, "{head} {length}\r\n\r\n")?;
            stream.write_all(&packed)
        }),
        Liar::over_http("a byte a second", |stream| {
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")?;
            loop {
                stream.write_all(b"l")?;
                std::thread::sleep(Duration::from_secs(1));
            }
        }),
        Liar::redirecting("a redirect to itself", "/announce"),
    ]
}

/// Answers that are short and wrong. `trap` is on this machine, the trackers are not.
fn short(trap: SocketAddr) -> Vec<Liar> {
    let mut all: Vec<Liar> = [
        "d8:intervali-1e5:peers0:e",
        "d8:intervali0e12:min intervali0e5:peers0:e",
        "d8:intervali9223372036854775807e5:peers0:e",
        "d8:intervali9223372036854775808e5:peers0:e",
        "d5:peers7:abcdefge",
        "d14:failure reason19:\x1b[2J\x1b]0;gone\x07\r\ngonee",
        "d15:warning message10:\x1b[31mready5:peers0:e",
        "i1e",
    ]
    .iter()
    .map(|body| Liar::saying(body, body.as_bytes()))
    .collect();
    all.push(Liar::saying("nested lists", &[b'l'; 500_000]));
    let SocketAddr::V4(peer) = trap else {
        panic!("the trap is an IPv4 address");
    };
    let mut named = b"d5:peers6:".to_vec();
    named.extend(peer.ip().octets());
    named.extend(peer.port().to_be_bytes());
    named.push(b'e');
    all.push(Liar::saying("a peer on this machine", &named));
    let forged = format!("http://{trap}/announce");
    all.push(Liar::redirecting("a redirect to this machine", &forged));
    all.push(Liar::over_http("500", |stream| {
        stream.write_all(b"HTTP/1.1 500 \x1b[2J\r\nContent-Length: 0\r\n\r\n")
    }));
    all
}

#[test]
fn trackers_that_do_their_worst_cost_little_and_lead_nowhere_beside_a_download() {
    let Some(lab) = Lab::open() else { return };
    lab.widen();
    let content = Arc::new(Content::file(80, 8 << 20, 64 << 10));
    let conduct = Conduct::limited(address(1), 512 << 10);
    let seeder = Seeder::start(&content, conduct, &Arc::default());
    let honest = Tracker::start(address(3), vec![seeder.address]);
    let (trap, came) = trap();
    let mut liars = endless();
    liars.extend(short(trap));
    liars.push(Liar::over_udp());
    let mut urls: Vec<String> = liars.iter().map(|liar| liar.url.clone()).collect();
    urls.push(honest.url());
    let torrent = content.write_torrent_with_all(&lab.folder("torrents"), &urls);
    let (output, state) = (lab.folder("output"), lab.folder("state"));
    // It listens everywhere, so that what is on this machine could be reached.
    let listen = format!("0.0.0.0:{PORT}");
    let arguments = [
        &["get", &torrent, "--json", "--no-dht", "--seed", "-vv"][..],
        &["-o", output.to_str().unwrap(), "--listen", &listen],
        &["--state-dir", state.to_str().unwrap()],
    ]
    .concat();
    let mut getter = lab.start(&[], &arguments);
    eventually("every tracker is asked", PATIENCE, || {
        liars.iter().all(|liar| liar.asked() > 0)
    });
    seeder.lift_limit();
    getter.wait_for_event("done");
    content.check(&output);
    // Those that are silent or slow are given up after half a minute, the others at once.
    let busy = getter.processor_time();
    std::thread::sleep(Duration::from_secs(5));
    let busy = getter.processor_time() - busy;
    assert!(
        busy < Duration::from_secs(1),
        "a busy loop: {busy:?} in 5 s"
    );
    assert!(getter.is_running(), "{}", getter.tail());
    getter.check_memory("download", MEMORY_MAX);
    assert_eq!(came.load(Ordering::Relaxed), 0, "this machine was asked");
    for liar in &liars {
        // A datagram is sent again when it is lost; what is redirected follows five times.
        let bound = match liar.name.as_str() {
            "a redirect to itself" => 6 * ASKED_MAX,
            "UDP" => 8 * ASKED_MAX,
            _ => ASKED_MAX,
        };
        let asked = liar.asked();
        eprintln!("{:?} was asked {asked} times", liar.name);
        assert!(asked <= bound, "{:?} was asked {asked} times", liar.name);
    }
    let said = getter.said();
    assert!(said.contains("gone"), "a reason is told");
    for escaped in ["\x1b", "\\u001b", "\\u0007", "\x07"] {
        assert!(!said.contains(escaped), "{escaped:?} in {}", getter.tail());
    }
    let longest = getter.errors().iter().map(String::len).max();
    assert!(longest <= Some(1_200), "{longest:?}");
}
