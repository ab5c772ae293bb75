use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::announce::{TrackerEvent, Transferred};
use crate::id::{InfoHash, PeerId};
use crate::net::clock::{Clock, entropy};

const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// An HTTP server on loopback that answers each connection as a test wants; it ends with the test's
/// runtime.
async fn serve<F>(answer: impl Fn(TcpStream, String) -> F + Send + 'static) -> SocketAddr
where
    F: Future<Output = io::Result<()>> + Send + 'static,
{
    serve_at(HERE, answer).await
}

/// The same at another address.
async fn serve_at<F>(
    address: IpAddr,
    answer: impl Fn(TcpStream, String) -> F + Send + 'static,
) -> SocketAddr
where
    F: Future<Output = io::Result<()>> + Send + 'static,
{
    let listener = TcpListener::bind((address, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                match stream.read(&mut byte).await {
                    Ok(1) => head.push(byte[0]),
                    _ => break,
                }
            }
            let head = String::from_utf8(head).unwrap();
            tokio::spawn(answer(stream, head));
        }
    });
    address
}

/// A server that always says the same and closes.
async fn saying(bytes: impl Into<Vec<u8>>) -> SocketAddr {
    let bytes: Vec<u8> = bytes.into();
    serve(move |mut stream, _| {
        let bytes = bytes.clone();
        async move { stream.write_all(&bytes).await }
    })
    .await
}

/// A whole response around a body.
fn response(status: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let mut bytes = format!(
        "HTTP/1.1 {status}\r\nContent-Length: {}\r\n{headers}\r\n",
        body.len()
    )
    .into_bytes();
    bytes.extend(body);
    bytes
}

fn request() -> Request {
    Request {
        info_hash: InfoHash::new([1; 20]),
        peer_id: PeerId::new([2; 20]),
        port: 6881,
        key: 3,
        transferred: Transferred::default(),
        event: TrackerEvent::Started,
        peers_wanted: 50,
        tracker_id: None,
    }
}

/// Announces to the tracker at a URL.
async fn ask_url(url: &str) -> Result<Answer, TrackerError> {
    let url = TrackerUrl::parse(url).unwrap();
    HttpTrackers::default()
        .announce(HERE, &url, &request())
        .await
}

/// Announces to the tracker at an address.
async fn ask(address: SocketAddr) -> Result<Answer, TrackerError> {
    ask_url(&format!("http://{address}/announce")).await
}

#[tokio::test]
async fn a_tracker_is_asked_from_the_address_that_is_announced_and_its_peers_come_back() {
    let tracker = serve(|mut stream, head| async move {
        assert!(
            head.starts_with("GET /announce?key=secret&info_hash=%01%01"),
            "{head}"
        );
        assert!(
            head.contains("&event=started") && head.contains("trackless/"),
            "{head}"
        );
        assert_eq!(stream.peer_addr()?.ip().to_string(), "127.0.0.5");
        let body = b"d8:intervali900e5:peers6:\x01\x02\x03\x04\x1a\xe1e";
        stream.write_all(&response("200 OK", "", body)).await
    })
    .await;
    let url = TrackerUrl::parse(&format!("http://{tracker}/announce?key=secret")).unwrap();
    let from = "127.0.0.5".parse().unwrap();
    let answer = HttpTrackers::default()
        .announce(from, &url, &request())
        .await
        .unwrap();
    assert_eq!(answer.peers, ["1.2.3.4:6881".parse().unwrap()]);
    assert_eq!(answer.interval, Duration::from_secs(900));
}

#[tokio::test]
async fn a_tracker_of_the_other_family_is_not_asked() {
    let asked = ask_url("http://[::1]:9/announce").await;
    assert_eq!(asked, Err(TrackerError::NoAddress));
}

#[tokio::test]
async fn names_are_resolved_within_a_family() {
    let tracker = saying(response("200 OK", "", b"de")).await;
    let url = format!("http://localhost:{}/announce", tracker.port());
    assert!(ask_url(&url).await.is_ok());
    let resolver = Resolver {
        names: Names::default(),
        wants_ipv4: true,
    };
    let mut found = resolver
        .resolve("localhost".parse().unwrap())
        .await
        .unwrap();
    assert!(found.all(|address| address.is_ipv4()));
}

#[tokio::test]
async fn nobody_there_is_said_in_words() {
    let listener = TcpListener::bind((HERE, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let error = ask(address).await.unwrap_err();
    assert!(matches!(error, TrackerError::Unreachable(_)), "{error:?}");
    assert!(error.to_string().contains("refused"), "{error}");
}

#[tokio::test]
async fn a_status_that_says_no_is_a_failure_and_a_reason_beside_it_is_told() {
    let broken = saying(response("500 Oh", "", b"<html>")).await;
    assert_eq!(ask(broken).await, Err(TrackerError::Status(500)));
    let reason = b"d14:failure reason12:unregisterede";
    let refusing = saying(response("403 No", "", reason)).await;
    assert_eq!(
        ask(refusing).await,
        Err(TrackerError::Refused("unregistered".to_owned()))
    );
}

#[tokio::test]
async fn an_answer_of_a_hundred_megabytes_is_given_up_after_one() {
    let sent = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&sent);
    let tracker = serve(move |mut stream, _| {
        let count = Arc::clone(&count);
        async move {
            stream
                .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 104857600\r\n\r\n")
                .await?;
            loop {
                count.fetch_add(stream.write(&[b'l'; 65_536]).await?, Ordering::Relaxed);
            }
        }
    })
    .await;
    assert_eq!(ask(tracker).await, Err(TrackerError::TooLong));
    // What is on the way in the buffers of both ends comes on top.
    assert!(sent.load(Ordering::Relaxed) < 32 << 20);
}

#[tokio::test]
async fn chunks_without_end_are_given_up() {
    let tracker = serve(|mut stream, _| async move {
        stream
            .write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
            .await?;
        loop {
            stream.write_all(b"8\r\nllllllll\r\n").await?;
        }
    })
    .await;
    assert_eq!(ask(tracker).await, Err(TrackerError::TooLong));
}

/// Gzip of `length` zero bytes, made by hand: one deflate block of stored bytes would not be a bomb, so the
/// bytes are the repetition that deflate's fixed codes allow: length 258, distance 1.
fn gzip_of_zeros(length: usize) -> Vec<u8> {
    let mut bits = Vec::new();
    let mut put = |value: u32, count: u32, from_top: bool| {
        for bit in 0..count {
            let at = if from_top { count - 1 - bit } else { bit };
            bits.push((value >> at) & 1 == 1);
        }
    };
    put(0b011, 3, false);
    // A literal 0, then as often as needed: length 258 (symbol 285), distance 1 (symbol 0).
    put(0b0011_0000, 8, true);
    for _ in 0..length / 258 {
        put(0b1100_0101, 8, true);
        put(0, 5, true);
    }
    put(0, 7, true);
    let mut bytes = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];
    bytes.extend(bits.chunks(8).map(|byte| {
        byte.iter()
            .enumerate()
            .fold(0, |sum, (at, &bit)| sum | u8::from(bit) << at)
    }));
    bytes.extend([0; 8]);
    bytes
}

#[tokio::test]
async fn a_gzip_bomb_is_given_up_after_a_megabyte_unpacked() {
    let bomb = gzip_of_zeros(200 << 20);
    assert!(bomb.len() < ANSWER_LENGTH_MAX + (1 << 19), "{}", bomb.len());
    let tracker = saying(response("200 OK", "Content-Encoding: gzip\r\n", &bomb)).await;
    assert_eq!(ask(tracker).await, Err(TrackerError::TooLong));
}

#[tokio::test]
async fn a_small_answer_in_gzip_is_unpacked() {
    // `d8:intervali900ee`, packed by gzip.
    let packed = data_encoding::HEXLOWER
        .decode(b"1f8b08000000000002034bb1b0cacc2b492d2a4bccc9b43430484d05004e5b7a6311000000")
        .unwrap();
    let tracker = saying(response("200 OK", "Content-Encoding: gzip\r\n", &packed)).await;
    assert_eq!(
        ask(tracker).await.unwrap().interval,
        Duration::from_secs(900)
    );
}

#[tokio::test(start_paused = true)]
async fn one_byte_a_second_is_given_up_after_half_a_minute() {
    let tracker = serve(|mut stream, _| async move {
        stream
            .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
            .await?;
        loop {
            stream.write_all(b"l").await?;
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    })
    .await;
    assert_eq!(ask(tracker).await, Err(TrackerError::TimedOut));
}

#[tokio::test(start_paused = true)]
async fn a_tracker_that_says_nothing_is_given_up() {
    let tracker = serve(|stream, _| async move {
        std::future::pending::<()>().await;
        drop(stream);
        Ok(())
    })
    .await;
    assert_eq!(ask(tracker).await, Err(TrackerError::TimedOut));
}

/// A server that redirects to what stands in the query of each request, or everywhere to `to`.
async fn redirecting(to: &str) -> SocketAddr {
    saying(response("302 Found", &format!("Location: {to}\r\n"), b"")).await
}

#[tokio::test]
async fn a_redirect_is_followed_to_where_an_announce_may_go() {
    let tracker = saying(response("200 OK", "", b"d8:intervali900ee")).await;
    let first = redirecting(&format!("http://{tracker}/announce/2?info_hash=x")).await;
    assert!(ask(first).await.is_ok());
    // On this machine nothing but announces is asked for, whoever sends us.
    let forging = redirecting(&format!("http://{tracker}/printers?delete=all")).await;
    assert_eq!(ask(forging).await, Err(UrlError::LocalPath.into()));
    let strange = redirecting("ftp://127.0.0.1/announce").await;
    assert_eq!(ask(strange).await, Err(UrlError::Unsupported.into()));
    let nowhere = saying(response("302 Found", "", b"")).await;
    assert_eq!(ask(nowhere).await, Err(TrackerError::Status(302)));
}

#[tokio::test]
async fn redirects_in_a_circle_end() {
    let tracker = redirecting("/announce").await;
    assert_eq!(ask(tracker).await, Err(TrackerError::Redirects));
}

#[tokio::test]
async fn escape_codes_and_nonsense_in_an_answer_reach_nobody() {
    let body = b"d14:failure reason9:\x1b[31mnoooe";
    let tracker = saying(response("200 OK", "", body)).await;
    let error = ask(tracker).await.unwrap_err().to_string();
    assert!(!error.contains('\x1b'), "{error}");
    for body in [&b"HTTP"[..], b"d8:intervali9223372036854775808ee"] {
        let tracker = saying(response("200 OK", "", body)).await;
        let error = ask(tracker).await.unwrap_err();
        assert!(matches!(error, TrackerError::Malformed(_)), "{error:?}");
    }
    let tracker = saying(b"SSH-2.0-nothing to see here\r\n".to_vec()).await;
    assert!(ask(tracker).await.is_err());
}

#[test]
fn each_address_that_is_listened_on_is_announced_once() {
    let of = |listen: &[&str]| {
        let listen: Vec<SocketAddr> = listen.iter().map(|a| a.parse().unwrap()).collect();
        paths(&listen)
    };
    assert_eq!(of(&["0.0.0.0:1", "[::]:1"]).len(), 2);
    assert_eq!(of(&["10.0.0.1:1", "10.0.0.1:2", "10.0.0.2:1"]).len(), 2);
    let many: Vec<String> = (1..20).map(|n| format!("10.0.0.{n}:1")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    assert_eq!(of(&many).len(), PATHS_MAX);
}

#[test]
fn what_the_client_would_change_in_a_path_is_refused() {
    for path in [
        "/announce/../apply.cgi?cmd=x",
        "/announce/%2e%2e/apply.cgi",
        "/announce/.%2E/apply.cgi",
        "/announce\\..\\apply.cgi",
        "/announce/./x",
    ] {
        let url = format!("http://127.0.0.1:8080{path}");
        let read = TrackerUrl::parse(&url).unwrap();
        assert!(parse(&url, &read).is_err(), "{url}");
    }
    for path in ["", "/", "/announce", "/announce.php?passkey=a/../b", "?x"] {
        let url = format!("http://tracker.example.org{path}");
        let read = TrackerUrl::parse(&url).unwrap();
        assert!(parse(&url, &read).is_ok(), "{url}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_resolver_that_hangs_ends_announces_in_time() {
    let (sender, receiver) = std::sync::mpsc::channel::<()>();
    let receiver = Mutex::new(receiver);
    let names = Names::new(move |_| {
        let _ = receiver.lock().unwrap().recv();
        Ok(vec![HERE])
    });
    let (udp, run) = UdpTrackers::new(None, Clock::start(), entropy());
    tokio::spawn(run);
    let trackers = Trackers::with_names(udp, names);
    for url in [
        "udp://tracker.example:9/announce",
        "http://tracker.example:9/announce",
    ] {
        let url = TrackerUrl::parse(url).unwrap();
        let error = trackers.announce(HERE, &url, &request()).await.unwrap_err();
        assert!(error.to_string().contains("time"), "{error}");
    }
    drop(sender);
}

#[tokio::test]
async fn a_tracker_is_asked_over_ipv6_and_names_peers_of_both_families() {
    let here = IpAddr::V6(Ipv6Addr::LOCALHOST);
    let tracker = serve_at(here, |mut stream, head| async move {
        assert!(head.contains("host: [::1]:"), "{head}");
        assert_eq!(stream.peer_addr()?.ip(), Ipv6Addr::LOCALHOST);
        let mut body = b"d5:peers6:\x01\x02\x03\x04\0\x506:peers618:".to_vec();
        body.extend("2001:2:0:9::1".parse::<Ipv6Addr>().unwrap().octets());
        body.extend(b"\x1a\xe1e");
        stream.write_all(&response("200 OK", "", &body)).await
    })
    .await;
    let url = TrackerUrl::parse(&format!("http://{tracker}/announce")).unwrap();
    let trackers = HttpTrackers::default();
    let answer = trackers.announce(here, &url, &request()).await.unwrap();
    let peers = ["1.2.3.4:80", "[2001:2:0:9::1]:6881"].map(|peer| peer.parse().unwrap());
    assert_eq!(answer.peers, peers);
    // From our IPv4 address it cannot be asked, and that is no word against it.
    let other = trackers.announce(HERE, &url, &request()).await;
    assert_eq!(other, Err(TrackerError::NoAddress));
}
