//! `trackless node` as others run it: its metrics, its limits, its end and its way back.

use std::io::{Read, Write};
use std::net::{TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use crate::command::{PATIENCE, Running, run, run_quick, start_node, start_node_with, stderr};

/// Sends a request to the address of the metrics; gives all that comes back.
fn fetch(address: &str, request: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

/// The number behind a name with its labels.
fn number(address: &str, sample: &str) -> f64 {
    let page = fetch(address, "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n");
    let line = page
        .lines()
        .find_map(|line| line.strip_prefix(sample)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {sample} in {page}"))
        .parse()
        .unwrap()
}

/// Waits until a sample has a number; the page is made anew after a while only.
#[track_caller]
fn wait_for(address: &str, sample: &str, expected: f64) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let found = number(address, sample);
        if (found - expected).abs() < 0.1 {
            return;
        }
        assert!(Instant::now() < deadline, "{sample}: {found}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// A node with metrics; gives the process, its address and that of the metrics.
fn start_measured(home: &std::path::Path, flags: &[&str]) -> (Running, String, String) {
    let metrics = ["--metrics", "127.0.0.1:0", "--json"];
    let listen = ["--listen", "127.0.0.1:0", "--bootstrap", "none"];
    let mut node = Running::start(home, &[&["node"], &metrics[..], &listen, flags].concat());
    let line = node.line_with(&["listening"]);
    let value: serde_json::Value = serde_json::from_str(&line).unwrap();
    let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
    let (address, metrics) = (text(&value["addresses"][0]), text(&value["metrics"]));
    (node, address, metrics)
}

#[test]
fn a_node_tells_what_it_did_to_whoever_gets_its_metrics() {
    let home = tempfile::tempdir().unwrap();
    let (_node, address, metrics) = start_measured(home.path(), &[]);
    let answered = "trackless_dht_queries_answered_total{method=\"ping\"}";
    assert!(number(&metrics, answered) < 0.1);
    for _ in 0..3 {
        let ended = run_quick(home.path(), &["dht", "ping", &address]);
        assert_eq!(ended.status.code(), Some(0), "{}", stderr(&ended));
    }
    wait_for(&metrics, answered, 3.0);
    let put = ["dht", "put", "x", "--bootstrap", &address];
    assert_eq!(run_quick(home.path(), &put).status.code(), Some(0));
    wait_for(&metrics, "trackless_dht_stored{kind=\"items\"}", 1.0);
    wait_for(
        &metrics,
        "trackless_dht_queries_answered_total{method=\"put\"}",
        1.0,
    );
    assert!(number(&metrics, "trackless_dht_received_bytes_total") > 300.0);
    assert!(number(&metrics, "process_resident_memory_bytes") > 1e5);
    assert!(number(&metrics, "process_open_fds") > 3.0);
    let good = "trackless_dht_contacts{family=\"ipv4\",state=\"good\"}";
    let (_other, _) = start_node(&home.path().join("other"), &address);
    wait_for(&metrics, good, 1.0);
}

#[test]
fn hostile_connections_to_the_metrics_do_not_disturb_the_node() {
    let home = tempfile::tempdir().unwrap();
    let (_node, address, metrics) = start_measured(home.path(), &[]);
    for (request, status) in [
        ("GET / HTTP/1.1\r\n\r\n", "404"),
        ("GET /metrics/ HTTP/1.1\r\n\r\n", "404"),
        ("POST /metrics HTTP/1.1\r\nContent-Length: 9\r\n\r\n", "405"),
        ("nonsense\r\n\r\n", "400"),
        ("\r\n\r\n", "400"),
    ] {
        let answer = fetch(&metrics, request);
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status} ")),
            "{answer}"
        );
    }
    // As many as hold a place and say nothing, and far more that come and go.
    let silent: Vec<_> = (0..40)
        .map(|_| TcpStream::connect(&metrics).unwrap())
        .collect();
    for _ in 0..200 {
        let mut stream = TcpStream::connect(&metrics).unwrap();
        let _ = stream.write_all(&[b'x'; 100_000]);
    }
    let ended = run_quick(home.path(), &["dht", "ping", &address]);
    assert_eq!(ended.status.code(), Some(0), "{}", stderr(&ended));
    drop(silent);
    let deadline = Instant::now() + PATIENCE;
    let is_served = || {
        let mut answer = String::new();
        let mut stream = TcpStream::connect(&metrics).unwrap();
        let _ = stream.write_all(b"GET /metrics HTTP/1.1\r\n\r\n");
        let _ = stream.read_to_string(&mut answer);
        answer.starts_with("HTTP/1.1 200")
    };
    while !is_served() {
        assert!(Instant::now() < deadline, "nobody is served any more");
    }
    assert!(number(&metrics, "process_open_fds") < 60.0);
    assert!(number(&metrics, "process_resident_memory_bytes") < 64e6);
}

#[test]
fn metrics_at_an_address_that_is_taken_end_the_start() {
    let home = tempfile::tempdir().unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let arguments = ["node", "--listen", "127.0.0.1:0", "--metrics", &address];
    let ended = run(home.path(), &arguments);
    let said = stderr(&ended);
    assert_eq!(ended.status.code(), Some(1), "{said}");
    assert!(
        said.contains(&address) && said.contains("--metrics"),
        "{said}"
    );
}

#[test]
fn a_node_keeps_no_more_torrents_and_peers_than_it_may() {
    let home = tempfile::tempdir().unwrap();
    let limits = ["--store-torrents", "2", "--store-peers", "3"];
    let (_node, address, metrics) = start_measured(home.path(), &limits);
    let announce = |hash: &str, port: u16| {
        let port = port.to_string();
        let way = ["--bootstrap", &address, "--port", &port];
        let ended = run_quick(
            home.path(),
            &[&["dht", "announce", hash], &way[..]].concat(),
        );
        assert_eq!(ended.status.code(), Some(0), "{}", stderr(&ended));
    };
    for digit in ["a", "b", "c", "d"] {
        announce(&digit.repeat(40), 7000);
    }
    for port in 7001..7006 {
        announce(&"d".repeat(40), port);
    }
    wait_for(
        &metrics,
        "trackless_dht_queries_answered_total{method=\"announce_peer\"}",
        9.0,
    );
    let stored = |kind: &str| {
        number(
            &metrics,
            &format!("trackless_dht_stored{{kind=\"{kind}\"}}"),
        )
    };
    assert!(stored("torrents") <= 2.0);
    assert!(
        (3.0..=4.0).contains(&stored("peers")),
        "{}",
        stored("peers")
    );
}

#[test]
fn a_node_that_is_told_to_end_comes_back_by_its_saved_table_alone() {
    let home = tempfile::tempdir().unwrap();
    let (_first, entry) = start_node(&home.path().join("first"), "none");
    let state = home.path().join("second");
    let flags = ["--stats-interval", "50ms"];
    let (mut second, _) = start_node_with(&state, &entry, &flags);
    second.line_with(&["\"contacts\":1,"]);
    let ended = second.terminate();
    assert_eq!(ended.status.code(), Some(130), "{}", stderr(&ended));
    assert!(state.join("state/trackless/dht.state").exists());

    let id = |output: &[u8]| {
        let printed = String::from_utf8_lossy(output).into_owned();
        let line: serde_json::Value =
            serde_json::from_str(printed.lines().next().unwrap()).unwrap();
        line["node_id"].as_str().unwrap().to_owned()
    };
    let before = id(&ended.stdout);
    // Every bootstrap address is dead: somebody has the port and says nothing.
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    let dead = silent.local_addr().unwrap().to_string();
    let (mut again, _) = start_node_with(&state, &dead, &flags);
    again.line_with(&["\"contacts\":1,"]);
    let ended = again.terminate();
    assert_eq!(id(&ended.stdout), before);
}
