//! Peers from trackers, with the built command and the DHT off.

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::command::{PATIENCE, Running, finish, run, run_quick, stderr, stdout, text, trackless};

/// What a tracker knows.
#[derive(Default)]
struct Known {
    /// Peers of the one torrent that is announced.
    peers: Vec<SocketAddr>,
    /// The query of each request, in order.
    queries: Vec<String>,
    is_over: bool,
}

/// An HTTP tracker for one torrent on loopback; it ends with the test.
struct Tracker {
    address: SocketAddr,
    known: Arc<Mutex<Known>>,
    thread: Option<JoinHandle<()>>,
}

impl Tracker {
    fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let known = Arc::new(Mutex::new(Known::default()));
        let shared = Arc::clone(&known);
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if shared.lock().unwrap().is_over {
                    return;
                }
                // One that goes away in the middle is no concern of ours.
                let _ = answer(stream, &shared);
            }
        });
        Self {
            address,
            known,
            thread: Some(thread),
        }
    }

    fn url(&self) -> String {
        format!("http://{}/announce", self.address)
    }

    /// The events that the peer at a port told, in order.
    fn events(&self, port: u16) -> Vec<String> {
        let known = self.known.lock().unwrap();
        let of_port = |query: &&String| value(query, "port") == Some(port.to_string());
        let queries = known.queries.iter().filter(of_port);
        queries
            .map(|query| value(query, "event").unwrap_or_default())
            .collect()
    }
}

impl Drop for Tracker {
    fn drop(&mut self) {
        if let Ok(mut known) = self.known.lock() {
            known.is_over = true;
        }
        // Wakes the thread.
        let _ = TcpStream::connect(self.address);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A parameter of a query.
fn value(query: &str, name: &str) -> Option<String> {
    let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    pairs
        .find(|(key, _)| *key == name)
        .map(|(_, value)| value.to_owned())
}

/// Reads a request, and answers with everybody but the asker.
fn answer(mut stream: TcpStream, known: &Mutex<Known>) -> std::io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let path = head.split(' ').nth(1).unwrap_or_default();
    let query = path.split_once('?').map_or("", |(_, query)| query);
    let port: u16 = value(query, "port")
        .and_then(|port| port.parse().ok())
        .unwrap_or(0);
    let asker = SocketAddr::new(stream.peer_addr()?.ip(), port);
    let mut known = known.lock().unwrap();
    known.queries.push(query.to_owned());
    known.peers.retain(|&peer| peer != asker);
    let mut body = b"d8:completei1e8:intervali1800e5:peers".to_vec();
    body.extend(format!("{}:", known.peers.len() * 6).bytes());
    for peer in &known.peers {
        let SocketAddr::V4(peer) = peer else { continue };
        body.extend(peer.ip().octets());
        body.extend(peer.port().to_be_bytes());
    }
    body.extend(b"15:warning message15:soon\x1b[2J down!!e");
    if value(query, "event").as_deref() != Some("stopped") {
        known.peers.push(asker);
    }
    drop(known);
    write!(
        stream,
        "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n",
        body.len()
    )?;
    stream.write_all(&body)
}

/// A file, and a torrent of it that names a tracker; its magnet link has it too.
fn torrent(home: &Path, tracker: &str) -> (String, String) {
    torrent_of(home, 300_000, &[tracker])
}

/// The same with so many bytes and several tiers of one tracker each.
fn torrent_of(home: &Path, length: usize, trackers: &[&str]) -> (String, String) {
    torrent_with(home, length, trackers, &[])
}

/// The same with more flags.
fn torrent_with(
    home: &Path,
    length: usize,
    trackers: &[&str],
    more: &[&'static str],
) -> (String, String) {
    let content = home.join("content.bin");
    fs::write(&content, vec![5; length]).unwrap();
    let torrent = home.join("content.torrent");
    let (content, torrent) = (content.to_str().unwrap(), torrent.to_str().unwrap());
    let flags = trackers.iter().flat_map(|url| ["--tracker", *url]);
    let arguments = ["create", content, "-o", torrent, "--json"];
    let more = more.iter().copied();
    let arguments: Vec<&str> = arguments.into_iter().chain(flags).chain(more).collect();
    let made = run(home, &arguments);
    assert_eq!(made.status.code(), Some(0), "{}", stderr(&made));
    (torrent.to_owned(), text(stdout(&made).trim(), "magnet"))
}

/// Seeds the content of [`torrent`] without the DHT; gives the port too.
fn start_seeder(home: &Path, torrent: &str) -> (Running, u16) {
    start_seeder_with(home, torrent, &[])
}

/// The same with more flags.
fn start_seeder_with(home: &Path, torrent: &str, flags: &[&str]) -> (Running, u16) {
    let arguments = [
        "seed",
        torrent,
        "--data",
        home.to_str().unwrap(),
        "--no-dht",
    ];
    let arguments = [
        &arguments[..],
        &["--json", "--listen", "127.0.0.1:0"],
        flags,
    ]
    .concat();
    let mut seeder = Running::start(home, &arguments);
    let line: serde_json::Value = serde_json::from_str(&seeder.line()).unwrap();
    let address: SocketAddr = line["listen"][0].as_str().unwrap().parse().unwrap();
    (seeder, address.port())
}

/// Waits until a tracker is said to have answered, or not.
#[track_caller]
fn wait_for_answer(command: &mut Running, tracker: &Tracker) {
    let line = command.line_with(&["\"event\":\"tracker\"", &tracker.url()]);
    assert_eq!(text(&line, "answers"), "1", "{line}");
}

/// Starts to download without the DHT into a folder of its own.
fn start_get(home: &Path, magnet: &str) -> (Running, PathBuf) {
    start_get_with(home, magnet, &[])
}

/// The same with more flags.
fn start_get_with(home: &Path, magnet: &str, flags: &[&str]) -> (Running, PathBuf) {
    let target = home.join("target");
    let folder = target.to_str().unwrap();
    let arguments = ["get", magnet, "--no-dht", "--json", "--timeout", "50s"];
    let more = [
        "-o",
        folder,
        "--state-dir",
        folder,
        "--listen",
        "127.0.0.1:0",
    ];
    let getter = Running::start(home, &[&arguments[..], &more, flags].concat());
    (getter, target)
}

#[test]
fn trackers_that_are_silent_or_broken_hold_up_no_other() {
    let home = tempfile::tempdir().unwrap();
    let tracker = Tracker::start();
    // The system accepts for it, and nobody answers.
    let silent = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let broken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let url = |listener: &TcpListener| {
        let address = listener.local_addr().unwrap();
        format!("http://{address}/announce")
    };
    let (silent_url, broken_url) = (url(&silent), url(&broken));
    // The thread ends with the process of the tests.
    std::thread::spawn(move || {
        for mut stream in broken.incoming().map_while(Result::ok) {
            let _ = stream.read(&mut [0; 4_096]);
            let _ = stream.write_all(b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n");
        }
    });
    let trackers = [&silent_url[..], &broken_url, &tracker.url()];
    let (torrent, magnet) = torrent_of(home.path(), 300_000, &trackers);
    let (mut seeder, _) = start_seeder(home.path(), &torrent);
    wait_for_answer(&mut seeder, &tracker);
    let (mut getter, target) = start_get(home.path(), &magnet);
    let failed = getter.line_with(&["\"event\":\"tracker\"", "status 500"]);
    assert_eq!(text(&failed, "url"), broken_url);
    getter.line_with(&["\"event\":\"done\""]);
    assert_eq!(getter.finish().status.code(), Some(0));
    assert_eq!(
        fs::read(target.join("content.bin")).unwrap(),
        vec![5; 300_000]
    );
    drop(silent);
}

#[test]
fn a_transfer_goes_on_when_its_tracker_is_gone() {
    let home = tempfile::tempdir().unwrap();
    let tracker = Tracker::start();
    let length = 2 << 20;
    let (torrent, magnet) = torrent_of(home.path(), length, &[&tracker.url()]);
    let limit = ["--upload-limit", "512KiB/s"];
    let (mut seeder, _) = start_seeder_with(home.path(), &torrent, &limit);
    wait_for_answer(&mut seeder, &tracker);
    let (mut getter, target) = start_get(home.path(), &magnet);
    wait_for_answer(&mut getter, &tracker);
    drop(tracker);
    getter.line_with(&["\"event\":\"done\""]);
    assert_eq!(getter.finish().status.code(), Some(0));
    assert_eq!(
        fs::read(target.join("content.bin")).unwrap(),
        vec![5; length]
    );
}

#[test]
fn a_magnet_link_is_fetched_with_nothing_but_its_tracker() {
    let home = tempfile::tempdir().unwrap();
    let tracker = Tracker::start();
    let (torrent, magnet) = torrent(home.path(), &tracker.url());
    let (mut seeder, seeder_port) = start_seeder(home.path(), &torrent);
    let told = seeder.line_with(&["\"event\":\"tracker\""]);
    assert_eq!(text(&told, "answers"), "1", "{told}");
    assert_eq!(text(&told, "url"), tracker.url());
    assert!(!told.contains("\\u001b"), "{told}");
    assert!(text(&told, "warning").starts_with("soon"), "{told}");
    let target = home.path().join("target");
    let arguments = [
        "get",
        &magnet,
        "--no-dht",
        "--json",
        "-o",
        target.to_str().unwrap(),
    ];
    let state = ["--state-dir", target.to_str().unwrap(), "--timeout", "50s"];
    let got = run_quick(home.path(), &[&arguments[..], &state].concat());
    let printed = stdout(&got);
    assert_eq!(got.status.code(), Some(0), "{printed}{}", stderr(&got));
    assert_eq!(
        fs::read(target.join("content.bin")).unwrap(),
        vec![5; 300_000]
    );
    let said = printed
        .lines()
        .rfind(|line| line.contains("\"event\":\"tracker\""))
        .unwrap();
    assert_eq!(text(said, "url"), tracker.url());
    let ended = seeder.interrupt();
    assert_eq!(ended.status.code(), Some(130));

    let ports: Vec<String> = {
        let known = tracker.known.lock().unwrap();
        known
            .queries
            .iter()
            .filter_map(|query| value(query, "port"))
            .collect()
    };
    let port = ports
        .iter()
        .find(|port| **port != seeder_port.to_string())
        .unwrap();
    let events = tracker.events(port.parse().unwrap());
    assert_eq!(events, ["started", "completed", "stopped"]);
    // It had everything from the start.
    assert_eq!(tracker.events(seeder_port), ["started", "stopped"]);
}

#[test]
fn a_torrent_that_proves_to_be_private_leaves_all_trackers_but_one_at_once() {
    let home = tempfile::tempdir().unwrap();
    let trackers = [Tracker::start(), Tracker::start()];
    let urls = trackers.each_ref().map(Tracker::url);
    let urls = urls.each_ref().map(String::as_str);
    let (torrent, magnet) = torrent_with(home.path(), 300_000, &urls, &["--private"]);
    let (mut seeder, seeder_port) = start_seeder(home.path(), &torrent);
    wait_for_answer(&mut seeder, &trackers[0]);
    let (mut getter, target) = start_get_with(home.path(), &magnet, &["--seed"]);
    getter.line_with(&["\"event\":\"done\""]);
    assert_eq!(
        fs::read(target.join("content.bin")).unwrap(),
        vec![5; 300_000]
    );
    let told = |tracker: &Tracker| {
        let known = tracker.known.lock().unwrap();
        let of_getter = |query: &&String| {
            value(query, "port").is_some_and(|port| port != seeder_port.to_string())
        };
        let queries = known.queries.iter().filter(of_getter);
        let events = queries.filter_map(|query| value(query, "event"));
        events.collect::<Vec<_>>()
    };
    let deadline = std::time::Instant::now() + PATIENCE;
    let left = loop {
        let has_left = |tracker: &Tracker| told(tracker) == ["started", "stopped"];
        if let Some(left) = trackers.iter().position(has_left) {
            break left;
        }
        assert!(std::time::Instant::now() < deadline, "none was left");
        std::thread::sleep(Duration::from_millis(20));
    };
    assert_eq!(getter.interrupt().status.code(), Some(130));
    // It may hear it again at the end, if what it answered was not read yet.
    let mut heard = told(&trackers[left]);
    heard.dedup();
    assert_eq!(heard, ["started", "stopped"]);
    assert_eq!(
        told(&trackers[1 - left]),
        ["started", "completed", "stopped"]
    );
}

#[test]
fn with_no_trackers_none_is_asked() {
    let home = tempfile::tempdir().unwrap();
    let tracker = Tracker::start();
    let (_, magnet) = torrent(home.path(), &tracker.url());
    let got = run_quick(home.path(), &["get", &magnet, "--no-dht", "--no-trackers"]);
    assert_eq!(got.status.code(), Some(1), "{}", stderr(&got));
    assert!(tracker.known.lock().unwrap().queries.is_empty());
}

#[test]
fn a_tracker_that_refuses_is_quoted_without_its_escape_codes() {
    let home = tempfile::tempdir().unwrap();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let url = format!("http://{}/announce", listener.local_addr().unwrap());
    let refusing = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        // What is left unread when a stream is closed would make a reset of it.
        let _ = stream.read(&mut [0; 4_096]);
        let body = "d14:failure reason21:\x1b[31munknown torrent!e";
        let length = body.len();
        let _ = write!(
            stream,
            "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{body}"
        );
    });
    let (_, magnet) = torrent(home.path(), &url);
    let got = run_quick(
        home.path(),
        &["get", &magnet, "--no-dht", "--timeout", "8s"],
    );
    let said = stderr(&got);
    assert_eq!(got.status.code(), Some(3), "{said}");
    assert!(said.contains("it says: [31munknown torrent"), "{said}");
    assert!(!said.contains('\x1b'), "{said}");
    refusing.join().unwrap();
}

/// An HTTPS tracker on loopback that serves one connection after another and knows no peers. Its key is good
/// for nothing but tests.
fn https_tracker() -> SocketAddr {
    use rustls::pki_types::pem::PemObject;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer};
    let certificate = CertificateDer::from_pem_slice(include_bytes!("tls/server.pem")).unwrap();
    let key = PrivateKeyDer::from_pem_slice(include_bytes!("tls/server-key.pem")).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap();
    let config = Arc::new(config);
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    // The thread ends with the process of the tests.
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let connection = rustls::ServerConnection::new(Arc::clone(&config)).unwrap();
            let mut stream = rustls::StreamOwned::new(connection, stream);
            // Who does not trust us goes away.
            if stream.read(&mut [0; 4_096]).is_ok() {
                let body = "d8:intervali900e5:peers0:e";
                let length = body.len();
                let _ = write!(
                    stream,
                    "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{body}"
                );
                stream.conn.send_close_notify();
                let _ = stream.flush();
            }
        }
    });
    address
}

#[test]
fn an_https_tracker_is_asked_if_its_certificate_is_trusted() {
    let home = tempfile::tempdir().unwrap();
    let tracker = https_tracker();
    let authority = home.path().join("authority.pem");
    fs::write(&authority, include_bytes!("tls/authority.pem")).unwrap();
    let url = format!("https://localhost:{}/announce", tracker.port());
    let (_, magnet) = torrent(home.path(), &url);
    let arguments = ["get", &magnet, "--no-dht", "--json", "--timeout", "8s"];
    let arguments = [&arguments[..], &["--listen", "127.0.0.1:0"]].concat();
    let said = |authority: Option<&Path>| {
        let mut command = trackless(home.path(), &arguments);
        command.env_remove("SSL_CERT_DIR");
        match authority {
            Some(path) => command.env("SSL_CERT_FILE", path),
            None => command.env_remove("SSL_CERT_FILE"),
        };
        let ended = finish(command);
        assert_eq!(ended.status.code(), Some(3), "{}", stderr(&ended));
        let printed = stdout(&ended);
        let mut lines = printed.lines();
        let event = "\"event\":\"tracker\"";
        lines.find(|line| line.contains(event)).unwrap().to_owned()
    };
    let trusting = said(Some(&authority));
    assert_eq!(text(&trusting, "answers"), "1", "{trusting}");
    let distrustful = said(None);
    assert_eq!(text(&distrustful, "answers"), "0", "{distrustful}");
    assert!(
        text(&distrustful, "failure").contains("certificate"),
        "{distrustful}"
    );
}
