//! The programs that are asked.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddrV4, UdpSocket};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::Value;
use trackless::net::batch::{BATCH, Inbound, Outbound};

use crate::queries::HASHES;

/// The interpreter the distribution's libtorrent belongs to.
const PYTHON: &str = "/usr/bin/python3";

/// Steers libtorrent.
const SCRIPT: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/benches/answering/libtorrent_node.py"
);

/// Items that a server stores.
const ITEMS: u32 = 2_000;

/// A program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Program {
    /// Sends back what it gets: what the system alone costs.
    Echo,
    Trackless,
    Libtorrent,
}

impl Program {
    /// All of them, in the order of the table.
    pub(crate) const ALL: [Self; 3] = [Self::Echo, Self::Trackless, Self::Libtorrent];

    /// Its name.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Echo => "floor",
            Self::Trackless => "trackless",
            Self::Libtorrent => "libtorrent",
        }
    }
}

/// A running program; killed when dropped.
pub(crate) struct Server {
    child: Child,
    pub(crate) address: SocketAddrV4,
    _folder: tempfile::TempDir,
}

impl Server {
    /// Starts a program without limits that finds its way into the DHT at `entry`; `None` when it is
    /// not there.
    pub(crate) fn start(program: Program, entry: &str) -> Option<Self> {
        let hashes = HASHES.to_string();
        let items = ITEMS.to_string();
        match program {
            Program::Echo => Self::spawn(&std::env::current_exe().unwrap(), &["--echo"]),
            Program::Trackless => Self::trackless(
                entry,
                &[
                    "--no-throttle",
                    "--store-torrents",
                    &hashes,
                    "--store-items",
                    &items,
                ],
            ),
            Program::Libtorrent => {
                let found = Command::new(PYTHON)
                    .args(["-c", "import libtorrent"])
                    .stderr(Stdio::null())
                    .status();
                if !found.is_ok_and(|status| status.success()) {
                    println!("libtorrent is left out: python3-libtorrent is not installed");
                    return None;
                }
                let torrents = (2 * HASHES).to_string();
                Self::spawn(Path::new(PYTHON), &[SCRIPT, entry, &torrents, &items])
            }
        }
    }

    /// Starts `trackless node` with these flags.
    pub(crate) fn trackless(entry: &str, flags: &[&str]) -> Option<Self> {
        let mut all = vec![
            "node",
            "--json",
            "--listen",
            "127.0.0.1:0",
            "--bootstrap",
            entry,
        ];
        all.extend(flags);
        Self::spawn(Path::new(env!("CARGO_BIN_EXE_trackless")), &all)
    }

    fn spawn(program: &Path, arguments: &[&str]) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let mut child = Command::new(program)
            .args(arguments)
            .env("TRACKLESS_STATE_DIR", folder.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        output.read_line(&mut line).unwrap();
        // What else it says is of no interest, but must not fill the pipe.
        std::thread::spawn(move || std::io::copy(&mut output, &mut std::io::sink()));
        let first: Value = serde_json::from_str(&line).unwrap();
        let address = match first["port"].as_u64() {
            Some(port) => format!("127.0.0.1:{port}"),
            None => first["addresses"][0].as_str().unwrap().to_owned(),
        };
        Some(Self {
            child,
            address: address.parse().unwrap(),
            _folder: folder,
        })
    }

    /// Its process id.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Sends back what arrives, in the batches that the node uses, for ever.
pub(crate) fn echo() -> ! {
    let socket = trackless::net::bind_udp("127.0.0.1:0".parse().unwrap()).unwrap();
    socket.set_nonblocking(false).unwrap();
    let port = socket.local_addr().unwrap().port();
    println!("{{\"port\": {port}}}");
    std::io::stdout().flush().unwrap();
    forward(&socket)
}

fn forward(socket: &UdpSocket) -> ! {
    let (mut inbound, mut outbound) = (Inbound::default(), Outbound::new(BATCH));
    loop {
        inbound.receive(socket).unwrap();
        for (from, payload) in inbound.datagrams() {
            assert!(outbound.push(from, payload));
        }
        outbound.flush(socket, |_, _| {});
    }
}
