//! opentracker, over HTTP and UDP at one port, for one torrent.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::lab::{Lab, Need, PATIENCE, Program};

/// Where the distribution installs it. It has no option that does nothing.
const PROGRAM: &str = "/usr/bin/opentracker";

/// Its port.
pub(crate) const PORT: u16 = 6969;

/// Time between two questions.
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// Whether it is here.
pub(crate) const NEED: Need = ("opentracker", || Path::new(PROGRAM).exists());

/// Starts it at a host, and waits until it answers.
pub(crate) fn start(lab: &Lab, host: u8, info_hash: &str) -> Program {
    let folder = lab.folder("tracker");
    // The distribution's build serves what it is told only, and reads that in its root folder.
    std::fs::write(folder.join("whitelist"), format!("{info_hash}\n")).unwrap();
    let (ip, port) = (lab.address(host), PORT.to_string());
    let mut all = vec!["-i", &ip, "-p", &port, "-P", &port];
    all.extend(["-d", folder.to_str().unwrap(), "-w", "whitelist"]);
    let tracker = lab.start("opentracker", Path::new(PROGRAM), &all);
    wait_until(lab, host, "/scrape", "d5:files");
    tracker
}

/// Waits until it knows so many seeds.
pub(crate) fn wait_for_seeds(lab: &Lab, host: u8, info_hash: &str, count: u8) {
    let bytes: Vec<&str> = (0..20).map(|at| &info_hash[2 * at..2 * at + 2]).collect();
    let path = format!("/scrape?info_hash=%{}", bytes.join("%"));
    wait_until(lab, host, &path, &format!("8:completei{count}e"));
}

fn wait_until(lab: &Lab, host: u8, path: &str, part: &str) {
    let deadline = Instant::now() + PATIENCE;
    lab.inside(|| {
        loop {
            let answer = ask(&lab.at(host, PORT), path).unwrap_or_default();
            if answer.contains(part) {
                return;
            }
            assert!(
                Instant::now() < deadline,
                "no {part} at {path}, but {answer:?}"
            );
            std::thread::sleep(POLL_INTERVAL);
        }
    });
}

/// What it answers to a request.
fn ask(address: &str, path: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    write!(stream, "GET {path} HTTP/1.0\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}
