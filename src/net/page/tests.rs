//! Requests, right and wrong ones, over loopback.

use std::sync::atomic::{AtomicU32, Ordering};

use super::*;

/// Longer than anything here takes; ends a test that hangs.
const PATIENCE: Duration = Duration::from_secs(30);

/// A server whose page counts how often it was made.
async fn server() -> (SocketAddr, Arc<AtomicU32>, JoinSet<()>) {
    let listener = bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let address = listener.local_addr().unwrap();
    let made = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&made);
    let mut tasks = JoinSet::new();
    tasks.spawn(serve(listener, "/metrics", move || {
        let number = counted.fetch_add(1, Ordering::Relaxed);
        async move { format!("page {number}\n") }
    }));
    (address, made, tasks)
}

/// Sends bytes and reads until the other side closes.
async fn ask(address: SocketAddr, request: &[u8]) -> String {
    let converse = async {
        let mut stream = TcpStream::connect(address).await.unwrap();
        // The other side may have closed already.
        let _ = stream.write_all(request).await;
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        String::from_utf8(answer).unwrap()
    };
    timeout(PATIENCE, converse).await.unwrap()
}

#[tokio::test]
async fn the_page_is_served_to_those_who_get_it() {
    let (address, _, _tasks) = server().await;
    for request in [
        "GET /metrics HTTP/1.1\r\nHost: x\r\nAccept: */*\r\n\r\n",
        "GET /metrics?a=b HTTP/1.0\r\n\r\n",
        "GET /metrics HTTP/1.1\n\n",
    ] {
        let answer = ask(address, request.as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        assert!(answer.contains("version=0.0.4") && answer.contains("Content-Length: 7\r\n"));
        assert!(answer.ends_with("\r\n\r\npage 0\n"), "{answer}");
    }
}

#[test]
fn everything_else_is_refused_by_its_first_line() {
    for (request, status) in [
        ("GET / HTTP/1.1\r\n\r\n", "404"),
        ("GET /metrics/../etc HTTP/1.1\r\n\r\n", "404"),
        ("GET http://x/metrics HTTP/1.1\r\n\r\n", "404"),
        ("POST /metrics HTTP/1.1\r\n\r\n", "405"),
        ("HEAD /metrics HTTP/1.1\r\n\r\n", "405"),
        ("GET /metrics HTTP/2.0\r\n\r\n", "400"),
        ("GET /metrics\r\n\r\n", "400"),
        ("GET  /metrics HTTP/1.1\r\n\r\n", "400"),
        ("GET /metrics HTTP/1.1 x\r\n\r\n", "400"),
        ("\r\n\r\n", "400"),
        ("get /metrics HTTP/1.1\r\n\r\n", "405"),
        ("\u{16}\u{3}\u{1}\n\n", "400"),
        ("GET /metrics HTTP/1.1\r\nHost: x\r\n", "431"),
    ] {
        match judge(request.as_bytes(), "/metrics") {
            Verdict::Refuse(why) => assert!(why.starts_with(status), "{request:?}: {why}"),
            Verdict::Page => panic!("{request:?} gets the page"),
        }
    }
    assert!(matches!(
        judge(b"\xff\xfe / HTTP/1.1\n\n", "/"),
        Verdict::Refuse(_)
    ));
}

#[tokio::test]
async fn a_request_without_end_is_cut_and_others_are_served_beside_it() {
    let (address, _, _tasks) = server().await;
    let endless = [&b"GET /metrics HTTP/1.1\r\nX: "[..], &vec![b'a'; 1 << 20]].concat();
    for _ in 0..4 {
        // An answer may be lost behind the bytes that nobody reads.
        let answer = ask(address, &endless).await;
        assert!(
            answer.is_empty() || answer.starts_with("HTTP/1.1 431"),
            "{answer}"
        );
    }
    let answer = ask(address, b"GET /metrics HTTP/1.1\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

#[tokio::test]
async fn connections_are_bounded() {
    let (address, _, _tasks) = server().await;
    let mut silent = Vec::new();
    for _ in 0..CONNECTIONS_MAX {
        silent.push(TcpStream::connect(address).await.unwrap());
    }
    // One more finds no place, which it learns at once.
    let mut more = TcpStream::connect(address).await.unwrap();
    let mut part = [0; 9];
    let learned = timeout(PATIENCE, more.read(&mut part)).await.unwrap();
    assert!(matches!(learned, Ok(0) | Err(_)));
    drop(silent);
    let freed = async {
        while !ask(address, b"GET /metrics HTTP/1.1\r\n\r\n")
            .await
            .starts_with("HTTP/1.1 200")
        {}
    };
    timeout(PATIENCE, freed).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_silent_connection_is_ended() {
    let (address, _, _tasks) = server().await;
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream
        .write_all(b"GET /metrics HTTP/1.1\r\n")
        .await
        .unwrap();
    // Time passes when everybody waits.
    let start = Instant::now();
    assert!(matches!(stream.read(&mut [0; 9]).await, Ok(0) | Err(_)));
    assert!(start.elapsed() < RESPONSE_TIMEOUT);
}

#[tokio::test]
async fn however_many_ask_the_page_is_made_a_few_times_a_second() {
    let (address, made, _tasks) = server().await;
    let start = Instant::now();
    for _ in 0..200 {
        ask(address, b"GET /metrics HTTP/1.1\r\n\r\n").await;
    }
    let periods = start.elapsed().as_millis() / PAGE_AGE_MAX.as_millis() + 1;
    let made = made.load(Ordering::Relaxed);
    assert!(u128::from(made) <= periods, "{made} in {periods}");
}
