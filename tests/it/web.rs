//! SOURCEs that are addresses on the web.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};

use crate::command::{run, stderr, stdout, text};

/// Gives this answer to whoever connects, one after another, until the process ends.
fn serve(status: &'static str, body: Vec<u8>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut request = [0; 4_096];
            let _ = stream.read(&mut request);
            let head = format!(
                "HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
                body.len()
            );
            let _ = stream.write_all(&[head.as_bytes(), &body].concat());
        }
    });
    address
}

#[test]
fn a_torrent_file_is_fetched_from_the_web() {
    let home = tempfile::tempdir().unwrap();
    let content = home.path().join("a file");
    fs::write(&content, vec![7; 40_000]).unwrap();
    let torrent = home.path().join("made.torrent");
    let (content, torrent) = (content.to_str().unwrap(), torrent.to_str().unwrap());
    let made = run(home.path(), &["create", content, "-o", torrent]);
    assert_eq!(made.status.code(), Some(0), "{}", stderr(&made));
    let address = serve("200 OK", fs::read(torrent).unwrap());
    let url = format!("http://{address}/some/path?id=1");

    let listed = run(home.path(), &["get", "--list", &url]);
    assert_eq!(listed.status.code(), Some(0), "{}", stderr(&listed));
    assert!(stdout(&listed).contains("a file"), "{}", stdout(&listed));

    let output = home.path().join("output");
    let output = output.to_str().unwrap();
    let arguments = ["get", "--metadata-only", "--json", "-o", output, &url];
    let kept = run(home.path(), &arguments);
    assert_eq!(kept.status.code(), Some(0), "{}", stderr(&kept));
    let said = stdout(&kept);
    assert_eq!(text(said.lines().last().unwrap(), "event"), "done");
    assert!(home.path().join("output/a file.torrent").is_file());
}

#[test]
fn an_address_that_leads_to_no_torrent_is_refused_in_words() {
    let home = tempfile::tempdir().unwrap();
    for (status, body, words) in [
        ("404 Not Found", "", "the server says 404"),
        ("200 OK", "<html>a page</html>", "is no .torrent file"),
    ] {
        let address = serve(status, body.as_bytes().to_vec());
        let url = format!("http://{address}/a.torrent");
        let ended = run(home.path(), &["get", &url]);
        assert_eq!(ended.status.code(), Some(1));
        let said = stderr(&ended);
        assert!(said.contains(words) && said.contains("hint: "), "{said}");
    }
    let ended = run(home.path(), &["show", "https://127.0.0.1:1/a.torrent"]);
    assert_eq!(ended.status.code(), Some(2));
    assert!(
        stderr(&ended).contains("--metadata-only"),
        "{}",
        stderr(&ended)
    );
}
