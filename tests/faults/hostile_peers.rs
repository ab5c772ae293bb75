//! Hostile peers beside a download: they connect to the downloader and to a seeder, and the downloader
//! dials them.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use sha1::{Digest, Sha1};

use crate::content::Content;
use crate::hostile_streams::{Attack, Fate, attacks};
use crate::lab::{Lab, PATIENCE, PORT, address, eventually};
use crate::leecher::{Answer, Leecher};
use crate::scene::{GETTER, MEMORY_MAX, SEEDER, Scene, wanted};
use crate::seeder::{Conduct, Ledger, Metadata, Seeder};
use crate::wire::Wire;

/// Connections at a time; more than a torrent takes would be refused before they could do harm.
const AT_ONCE: usize = 12;

/// A connection that broke a rule ends within this time. A handshake may take 10 s.
const ENDS_WITHIN: Duration = Duration::from_secs(20);

/// Dials a victim and attacks; whether the stream ended.
fn attack(from: Ipv4Addr, to: SocketAddr, info_hash: &[u8; 20], attack: &Attack) -> bool {
    let joined = Wire::dial(from.into(), to).and_then(|mut wire| {
        wire.send_handshake_with(info_hash, attack.fast)?;
        wire.receive_handshake()?;
        Ok(wire)
    });
    let Ok(mut wire) = joined else {
        return true;
    };
    // A write that does not get through in time is no end.
    if let Err(error) = wire.raw(&attack.bytes)
        && error.kind() != ErrorKind::WouldBlock
    {
        return true;
    }
    let wait = if attack.fate != Fate::Borne {
        ENDS_WITHIN
    } else {
        Duration::from_millis(200)
    };
    wire.is_closed(wait)
}

/// Attacks a victim in every way, from one address after another; gives the names of attacks that
/// should have ended the stream and did not.
fn attack_all(to: SocketAddr, content: &Content) -> Vec<String> {
    let all = attacks(content);
    let survived = Mutex::new(Vec::new());
    for (round, some) in all.chunks(AT_ONCE).enumerate() {
        std::thread::scope(|scope| {
            for (number, one) in some.iter().enumerate() {
                let host = u8::try_from(round * AT_ONCE + number + 1).unwrap();
                let survived = &survived;
                scope.spawn(move || {
                    let ended = attack(Ipv4Addr::new(127, 0, 4, host), to, &content.info_hash, one);
                    if one.fate != Fate::Borne && !ended {
                        survived.lock().unwrap().push(one.name.clone());
                    }
                });
            }
        });
    }
    survived.into_inner().unwrap()
}

/// What became of an attack on whoever dialled.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Outcome {
    /// Nobody came.
    NotDialled,
    /// The stream is open.
    Open,
    /// The stream ended.
    Ended,
}

/// Peers that wait to be dialled, each with an attack of its own.
struct Ambush {
    attacks: Vec<Attack>,
    addresses: Vec<SocketAddr>,
    outcomes: Arc<Mutex<Vec<Outcome>>>,
    stopped: Arc<AtomicBool>,
}

impl Ambush {
    /// Opens the listeners; their threads end with the test.
    fn lay(content: &Arc<Content>) -> Self {
        let attacks = attacks(content);
        let outcomes = Arc::new(Mutex::new(vec![Outcome::NotDialled; attacks.len()]));
        let stopped = Arc::<AtomicBool>::default();
        let mut addresses = Vec::new();
        for (number, attack) in attacks.iter().enumerate() {
            let host = u8::try_from(number + 1).unwrap();
            let listener = TcpListener::bind((Ipv4Addr::new(127, 0, 5, host), 0)).unwrap();
            addresses.push(listener.local_addr().unwrap());
            let (bytes, info_hash) = (attack.bytes.clone(), content.info_hash);
            let fast = attack.fast;
            let (outcomes, stopped) = (Arc::clone(&outcomes), Arc::clone(&stopped));
            std::thread::spawn(move || {
                for stream in listener.incoming().map_while(Result::ok) {
                    if stopped.load(Ordering::Relaxed) {
                        return;
                    }
                    let set = |outcome| {
                        outcomes.lock().unwrap_or_else(PoisonError::into_inner)[number] = outcome
                    };
                    set(Outcome::Open);
                    let mut wire = Wire::new(stream);
                    let spoken = wire
                        .receive_handshake()
                        .and_then(|_| wire.send_handshake_with(&info_hash, fast))
                        .and_then(|()| wire.raw(&bytes));
                    if spoken.is_err() || wire.is_closed(ENDS_WITHIN) {
                        set(Outcome::Ended);
                    }
                }
            });
        }
        Self {
            attacks,
            addresses,
            outcomes,
            stopped,
        }
    }

    /// Names of the attacks with this outcome that should have ended the stream.
    fn fatal_with(&self, wanted: Outcome) -> Vec<&str> {
        let outcomes = self.outcomes.lock().unwrap_or_else(PoisonError::into_inner);
        let pairs = self.attacks.iter().zip(outcomes.iter());
        pairs
            .filter(|(attack, outcome)| attack.fate == Fate::Ends && **outcome == wanted)
            .map(|(attack, _)| attack.name.as_str())
            .collect()
    }
}

impl Drop for Ambush {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::Relaxed);
        for address in &self.addresses {
            // Wakes the thread that accepts.
            let _ = std::net::TcpStream::connect_timeout(address, Duration::from_secs(1));
        }
    }
}

/// The reasons for which peers were let go are counted and told.
#[track_caller]
fn check_counted(scene: &mut Scene) {
    let progress = scene.getter.wait_for_news("progress");
    let lost = &progress["peers_lost"];
    eprintln!("peers lost: {lost}");
    for reason in [
        "bad bitfield",
        "a block or piece that the torrent does not have",
        "a message of an extension that was not agreed on",
        "bad extension message",
        "too many requests",
        "message",
    ] {
        let keys = lost.as_object().unwrap().iter();
        let of_reason = keys.filter(|(key, _)| key.contains(reason));
        let count: u64 = of_reason.filter_map(|(_, number)| number.as_u64()).sum();
        assert!(count > 0, "{reason:?} in {lost}");
    }
}

#[test]
fn peers_that_break_the_protocol_are_let_go_and_a_download_beside_them_completes() {
    let Some(lab) = Lab::open() else { return };
    let content = wanted();
    let ambush = Ambush::lay(&content);
    let mut scene = Scene::open(lab, &[], &ambush.addresses);
    let survived = attack_all((address(GETTER), PORT).into(), &content);
    assert_eq!(
        survived, [""; 0],
        "the downloader keeps peers that broke a rule"
    );
    scene.check_alive("attacks on the downloader");
    check_counted(&mut scene);
    let survived = attack_all((address(SEEDER), PORT).into(), &scene.other);
    assert_eq!(
        survived, [""; 0],
        "the seeder keeps peers that broke a rule"
    );
    scene.check_alive("attacks on the seeder");
    eventually("all listeners were dialled", PATIENCE, || {
        ambush.fatal_with(Outcome::NotDialled).is_empty()
    });
    let deadline = Instant::now() + ENDS_WITHIN;
    while !ambush.fatal_with(Outcome::Open).is_empty() && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(20));
    }
    let open = ambush.fatal_with(Outcome::Open);
    assert_eq!(open, [""; 0], "the downloader keeps peers that it dialled");
    scene.check_unharmed();
}

#[test]
fn metadata_comes_from_the_honest_one_of_four_peers() {
    let Some(lab) = Lab::open() else { return };
    // Three parts of metadata.
    let content = Arc::new(Content::file(50, 32 << 20, 16 << 10));
    let ledger = Arc::default();
    let lies = [
        Metadata::Wrong,
        Metadata::OtherSize,
        Metadata::Reject,
        Metadata::True,
    ];
    let seeders: Vec<Seeder> = (1u8..)
        .zip(lies)
        .map(|(host, metadata)| {
            let conduct = Conduct {
                metadata,
                ..Conduct::honest(address(host))
            };
            Seeder::start(&content, conduct, &ledger)
        })
        .collect();
    let (magnet, output) = (content.magnet(), lab.folder("output"));
    let peers: Vec<String> = seeders
        .iter()
        .map(|seeder| seeder.address.to_string())
        .collect();
    let mut get = vec!["get", &magnet, "--json", "--bootstrap", "none"];
    get.extend(["-o", output.to_str().unwrap()]);
    get.extend(peers.iter().flat_map(|peer| ["--peer", peer.as_str()]));
    let mut getter = lab.trackless(GETTER, &get);
    getter.wait_for_event("metadata");
    getter.wait_done();
    content.check(&output);
}

/// The same sentence for metadata that peers send and for a file.
#[test]
fn metadata_of_the_right_hash_that_no_torrent_may_have_is_refused_in_the_words_for_a_file() {
    let Some(lab) = Lab::open() else { return };
    let mut content = Content::file(53, 100_000, 32 << 10);
    let (right, wrong) = (&b"12:piece lengthi32768e"[..], b"12:piece lengthi-1e");
    let at = content
        .info
        .windows(right.len())
        .position(|part| part == right);
    let at = at.unwrap();
    content
        .info
        .splice(at..at + right.len(), wrong.iter().copied());
    content.info_hash = Sha1::digest(&content.info).into();
    let content = Arc::new(content);
    let seeder = Seeder::start(&content, Conduct::honest(address(1)), &Arc::default());
    let torrent = content.write_torrent(&lab.folder("torrents"));
    let (magnet, peer) = (content.magnet(), seeder.address.to_string());
    let output = lab.folder("output");
    let sentence = |what: &str| {
        let to = ["-o", output.to_str().unwrap(), "--peer", &peer];
        let get = ["get", what, "--bootstrap", "none"];
        let mut getter = lab.trackless(GETTER, &[&get[..], &to].concat());
        assert_eq!(getter.wait(PATIENCE), Some(1), "{}", getter.tail());
        let mut errors = getter.errors();
        errors.retain(|line| line.contains("piece length"));
        assert_eq!(errors.len(), 1, "{}", getter.tail());
        errors.remove(0)
    };
    let (of_file, of_peers) = (sentence(&torrent), sentence(&magnet));
    let reason = |text: &str| text.rsplit(": ").next().unwrap().to_owned();
    assert_eq!(reason(&of_peers), reason(&of_file), "{of_peers}, {of_file}");
    let made = std::fs::read_dir(&output).unwrap().count();
    assert_eq!(made, 0, "nothing was made");
}

#[test]
fn peers_that_stall_after_they_let_us_ask_do_not_hold_a_download_up() {
    let Some(lab) = Lab::open() else { return };
    let content = Arc::new(Content::file(52, 16 << 20, 256 << 10));
    let (ledger, stalled) = (Arc::<Ledger>::default(), Arc::<Ledger>::default());
    // Two send a block every 64 seconds, two are slow and two are fast enough.
    let seeders: Vec<Seeder> = (1u8..)
        .zip([256, 256, 512 << 10, 512 << 10, 1 << 20, 1 << 20])
        .map(|(host, rate)| {
            let ledger = if rate == 256 { &stalled } else { &ledger };
            Seeder::start(&content, Conduct::limited(address(host), rate), ledger)
        })
        .collect();
    let (torrent, output) = (
        content.write_torrent(&lab.folder("torrents")),
        lab.folder("output"),
    );
    let peers: Vec<String> = seeders
        .iter()
        .map(|seeder| seeder.address.to_string())
        .collect();
    let mut get = vec!["get", &torrent, "--json", "--bootstrap", "none"];
    get.extend(["-o", output.to_str().unwrap()]);
    get.extend(peers.iter().flat_map(|peer| ["--peer", peer.as_str()]));
    let start = Instant::now();
    lab.trackless(GETTER, &get).wait_done();
    content.check(&output);
    eprintln!(
        "done after {:?}; the rates of the others allow {:.1} s; {} KiB came from those that stall",
        start.elapsed(),
        16.0 / 3.0,
        stalled.bytes() >> 10
    );
    let twice = (ledger.bytes() + stalled.bytes()).saturating_sub(16 << 20);
    assert!(twice < 2 << 20, "{twice} bytes fetched twice");
}

/// A seeder of something.
fn seeder(lab: &Lab) -> (Content, crate::program::Program, SocketAddr) {
    let content = Content::file(51, 4 << 20, 64 << 10);
    let data = lab.folder("data");
    content.write(&data);
    let torrent = content.write_torrent(&lab.folder("torrents"));
    let seed = ["seed", &torrent, "--data", data.to_str().unwrap(), "--json"];
    let mut seeder = lab.trackless(SEEDER, &[&seed[..], &["--bootstrap", "none"]].concat());
    seeder.wait_for_event("seeding");
    (content, seeder, (address(SEEDER), PORT).into())
}

#[test]
fn silent_sockets_from_one_address_do_not_keep_an_honest_peer_out() {
    let Some(lab) = Lab::open() else { return };
    let (content, seeder, to) = seeder(&lab);
    let stopped = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            // Each keeps 75 open, and opens another for each that is closed.
            scope.spawn(|| {
                let mut open: Vec<Wire> = Vec::new();
                while !stopped.load(Ordering::Relaxed) {
                    open.retain_mut(|wire| !wire.is_closed(Duration::from_millis(1)));
                    while open.len() < 75
                        && let Ok(wire) = Wire::dial(address(66).into(), to)
                    {
                        open.push(wire);
                    }
                }
            });
        }
        std::thread::sleep(Duration::from_secs(1));
        let mut leecher = Leecher::new(&content, address(20), to);
        let served = (0..4).any(|_| leecher.fetch(0, 0, Duration::from_secs(5)) == Answer::Right);
        stopped.store(true, Ordering::Relaxed);
        assert!(served, "{}", seeder.tail());
    });
    seeder.check_memory("seeder", MEMORY_MAX);
}

#[test]
fn idle_peers_that_are_interested_do_not_keep_an_honest_peer_out() {
    let Some(lab) = Lab::open() else { return };
    let (content, seeder, to) = seeder(&lab);
    let mut idle: Vec<Wire> = (100..150)
        .map(|host| Wire::join(address(host).into(), to, &content.info_hash).unwrap())
        .collect();
    for wire in &mut idle {
        wire.send(2, &[]).unwrap();
    }
    let mut leecher = Leecher::new(&content, address(20), to);
    let start = Instant::now();
    let mut served = false;
    while !served && start.elapsed() < PATIENCE {
        // They are idle, but by no means gone.
        for wire in &mut idle {
            let _ = wire.raw(&[0; 4]);
        }
        served = (0..10).any(|_| {
            std::thread::sleep(Duration::from_millis(100));
            leecher.fetch(0, 0, Duration::from_secs(2)) == Answer::Right
        });
    }
    eprintln!("the honest one waited {:?}", start.elapsed());
    assert!(served, "{}", seeder.tail());
    seeder.check_memory("seeder", MEMORY_MAX);
}

#[test]
fn handshakes_that_are_missing_slow_or_wrong_end_in_time() {
    let Some(lab) = Lab::open() else { return };
    let (content, mut seeder, to) = seeder(&lab);
    let dial = |host| Wire::dial(address(host).into(), to).unwrap();
    let mut silent = dial(30);
    let mut half = dial(31);
    half.raw(b"\x13BitTorrent proto").unwrap();
    let mut wrong_name = dial(32);
    wrong_name
        .raw(&[b"\x13BitTorrant protocol"[..].to_vec(), vec![0; 48]].concat())
        .unwrap();
    let mut long_name = dial(33);
    long_name.raw(&[0xff; 300]).unwrap();
    let mut web = dial(34);
    web.raw(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        .unwrap();
    let mut unknown = dial(35);
    unknown.send_handshake(&[9; 20]).unwrap();
    let mut slow = dial(36);
    let mut bytes = b"\x13BitTorrent protocol".iter().cycle();
    let slow_ends = || {
        slow.raw(&[*bytes.next().unwrap()]).is_err() || slow.is_closed(Duration::from_millis(900))
    };
    eventually("a byte a second is too slow", ENDS_WITHIN, slow_ends);
    for (name, wire) in [
        ("silent", &mut silent),
        ("half", &mut half),
        ("wrong name", &mut wrong_name),
        ("long name", &mut long_name),
        ("web", &mut web),
        ("unknown", &mut unknown),
    ] {
        assert!(wire.is_closed(ENDS_WITHIN), "{name}");
    }
    // Ourselves: the seeder's own handshake comes back to it.
    let mut mirror = Wire::dial(address(37).into(), to).unwrap();
    mirror.send_handshake(&content.info_hash).unwrap();
    let theirs = mirror.receive_handshake_bytes().unwrap();
    let mut mirror = Wire::dial(address(37).into(), to).unwrap();
    mirror.raw(&theirs).unwrap();
    assert!(mirror.is_closed(ENDS_WITHIN), "ourselves");
    let mut leecher = Leecher::new(&content, address(20), to);
    leecher.fetch_until(0, 0, Answer::Right);
    assert!(seeder.is_running());
}
