//! Streams that break in the middle of a piece: reset, or half-open.

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use socket2::SockRef;

use crate::content::{Content, to_usize};
use crate::lab::{Lab, address, get};
use crate::seeder::{Conduct, Ledger, Seeder};
use crate::wire::{Message, Wire, frame, numbers};

/// Hosts of the peer whose streams break, of the honest one, and of the download.
const BROKEN: u8 = 66;
/// See [`BROKEN`].
const HONEST: u8 = 1;
/// See [`BROKEN`].
const GETTER: u8 = 10;

/// A request that is not answered is asked of others after this time.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);

/// How a stream breaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Break {
    /// With a reset.
    Reset,
    /// It stays open, and nothing comes any more.
    HalfOpen,
}

/// A peer that has everything, sends two blocks and a half, and then its stream breaks.
struct BrokenPeer {
    address: SocketAddr,
    /// Streams that came.
    came: Arc<AtomicU32>,
    /// Requests that it took and did not answer.
    owed: Arc<AtomicU32>,
}

impl BrokenPeer {
    fn start(content: &Arc<Content>, how: Break) -> Self {
        let listener = TcpListener::bind((address(BROKEN), 0)).unwrap();
        let peer = Self {
            address: listener.local_addr().unwrap(),
            came: Arc::default(),
            owed: Arc::default(),
        };
        let (came, owed) = (Arc::clone(&peer.came), Arc::clone(&peer.owed));
        let content = Arc::clone(content);
        // The threads end with the test program.
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                came.fetch_add(1, Ordering::Relaxed);
                let (content, owed) = (Arc::clone(&content), Arc::clone(&owed));
                std::thread::spawn(move || serve(stream, &content, how, &owed));
            }
        });
        peer
    }
}

fn serve(stream: TcpStream, content: &Content, how: Break, owed: &AtomicU32) -> io::Result<()> {
    if how == Break::Reset {
        SockRef::from(&stream).set_linger(Some(Duration::ZERO))?;
    }
    let mut wire = Wire::new(stream);
    wire.receive_handshake()?;
    wire.send_handshake(&content.info_hash)?;
    wire.send(5, &content.full_bitfield())?;
    wire.send(1, &[])?;
    let mut taken = 0;
    loop {
        let Some(message) = wire.receive(Duration::from_secs(1))? else {
            continue;
        };
        let Message::Request(piece, offset, length) = message else {
            continue;
        };
        taken += 1;
        let block = content.block(piece, offset, length).unwrap();
        let message = frame(7, &[&numbers(&[piece, offset])[..], block].concat());
        match taken {
            1 | 2 => wire.raw(&message)?,
            3 => wire.raw(&message[..message.len() / 2])?,
            _ => {
                owed.fetch_add(1, Ordering::Relaxed);
            }
        }
        // A few more are on their way then.
        if taken == 6 && how == Break::Reset {
            return Ok(());
        }
    }
}

/// Downloads from a peer whose stream breaks and from an honest one, which has to give the rest.
#[track_caller]
fn check_blocks_go_back(how: Break) {
    let Some(lab) = Lab::open() else { return };
    let content = Arc::new(Content::file(91, 4 << 20, 256 << 10));
    let broken = BrokenPeer::start(&content, how);
    let ledger = Arc::<Ledger>::default();
    // Slow enough that both are asked.
    let honest = Seeder::start(
        &content,
        Conduct::limited(address(HONEST), 1 << 20),
        &ledger,
    );
    let torrent = content.write_torrent(&lab.folder("torrents"));
    let output = lab.folder("output");
    let (first, second) = (broken.address.to_string(), honest.address.to_string());
    let get = ["get", &torrent, "--json", "--bootstrap", "none"];
    let from = ["--peer", &first, "--peer", &second];
    let to = ["-o", output.to_str().unwrap()];
    let start = Instant::now();
    let mut getter = lab.trackless(GETTER, &[&get[..], &from, &to].concat());
    getter.wait_done();
    content.check(&output);
    let owed = broken.owed.load(Ordering::Relaxed);
    eprintln!(
        "{how:?}: {owed} blocks owed, done after {:?}",
        start.elapsed()
    );
    assert!(owed > 0, "it was asked for more than it gave");
    assert!(start.elapsed() < REQUEST_TIMEOUT + Duration::from_secs(15));
    // What it gave, and what it owed, came from the other one; hardly anything came twice.
    let twice =
        to_usize(u32::try_from(ledger.bytes()).unwrap()).saturating_sub(content.bytes.len());
    assert!(twice <= 64 << 10, "{twice} bytes came twice");
    assert_eq!(
        broken.came.load(Ordering::Relaxed),
        1,
        "it is not dialled again at once"
    );
}

#[test]
fn blocks_of_a_stream_that_is_reset_in_mid_piece_come_from_others() {
    check_blocks_go_back(Break::Reset);
}

#[test]
fn blocks_of_a_stream_that_is_half_open_come_from_others() {
    check_blocks_go_back(Break::HalfOpen);
}

/// A download whose only peer resets its stream again and again.
#[test]
fn a_peer_whose_streams_are_reset_is_dialled_seldom() {
    let Some(lab) = Lab::open() else { return };
    let content = Arc::new(Content::file(92, 4 << 20, 256 << 10));
    let broken = BrokenPeer::start(&content, Break::Reset);
    let torrent = content.write_torrent(&lab.folder("torrents"));
    let peer = broken.address.to_string();
    let output = lab.folder("output");
    let mut getter = lab.trackless(GETTER, &get(&torrent, &peer, &output));
    getter.wait_for("the reset", |event| {
        event["peers_lost"] != serde_json::json!({})
    });
    std::thread::sleep(Duration::from_secs(20));
    let came = broken.came.load(Ordering::Relaxed);
    assert_eq!(came, 1, "the first pause is a minute");
    assert!(getter.is_running(), "{}", getter.tail());
    let lost = getter.progress().unwrap()["peers_lost"].clone();
    assert!(lost["reset"].as_u64() == Some(1), "{lost}");
}
