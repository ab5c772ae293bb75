//! How each program seeds and downloads.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::lab::{Lab, PATIENCE, Program};

/// The interpreter the distribution's libtorrent belongs to.
const PYTHON: &str = "/usr/bin/python3";

/// Steers libtorrent; the same as in the tests.
const SCRIPT: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/tests/interop/libtorrent_peer.py"
);

/// The host of each side.
const SEEDER: u8 = 20;
const DOWNLOADER: u8 = 21;

/// The content's name.
const NAME: &str = "content.bin";

/// A program that is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Client {
    Trackless,
    Libtorrent,
    Aria2,
}

impl Client {
    /// All of them, in the order of the table.
    pub(crate) const ALL: [Self; 3] = [Self::Trackless, Self::Libtorrent, Self::Aria2];

    /// Its name.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Trackless => "trackless",
            Self::Libtorrent => "libtorrent",
            Self::Aria2 => "aria2",
        }
    }
}

/// Where content lies, and what is moved.
pub(crate) struct Place<'a> {
    lab: &'a Lab,
    folder: tempfile::TempDir,
    torrent: String,
    magnet: String,
}

impl<'a> Place<'a> {
    /// Makes the content and its torrent.
    pub(crate) fn prepare(lab: &'a Lab, mebibytes: u64) -> Self {
        let memory = Path::new("/dev/shm");
        // Twice the content, and what the programs keep beside it.
        let has_room = fs::create_dir_all(memory).is_ok()
            && rustix::fs::statvfs(memory)
                .is_ok_and(|at| (at.f_bavail * at.f_frsize) >> 20 > 2 * mebibytes + 256);
        let folder = if has_room {
            tempfile::tempdir_in(memory).unwrap()
        } else {
            println!("/dev/shm has too little room: files are on disk");
            tempfile::tempdir().unwrap()
        };
        let content = folder.path().join("original").join(NAME);
        fs::create_dir(content.parent().unwrap()).unwrap();
        write_noise(&content, mebibytes);
        let torrent = folder.path().join("content.torrent");
        let torrent = torrent.to_str().unwrap().to_owned();
        let create = [
            "create",
            content.to_str().unwrap(),
            "--piece-length",
            "256KiB",
        ];
        let binary = Path::new(env!("CARGO_BIN_EXE_trackless"));
        let mut all = create.to_vec();
        all.extend(["-o", &torrent, "--json"]);
        let mut create = lab.start("create", binary, &all);
        let line = create.wait_for("the result", |line| line.contains("info_hash"));
        create.wait();
        let result: serde_json::Value = serde_json::from_str(&line).unwrap();
        let magnet = format!(
            "magnet:?xt=urn:btih:{}",
            result["info_hash"].as_str().unwrap()
        );
        Self {
            lab,
            folder,
            torrent,
            magnet,
        }
    }

    fn original(&self) -> PathBuf {
        self.folder.path().join("original")
    }

    fn fetched(&self) -> PathBuf {
        self.folder.path().join("fetched")
    }

    /// Starts a seeder and waits until it can be found.
    pub(crate) fn seed(&self, client: Client) -> Program {
        let original = self.original();
        let data = original.to_str().unwrap();
        let mut seeder = match client {
            Client::Trackless => {
                let arguments = ["seed", &self.torrent, "--data", data];
                self.trackless(SEEDER, &arguments)
            }
            Client::Libtorrent => self.libtorrent(
                SEEDER,
                &["seed", "--torrent", &self.torrent, "--output", data],
            ),
            Client::Aria2 => {
                let arguments = [
                    "--bt-seed-unverified=true",
                    "--check-integrity=false",
                    "--seed-ratio=0.0",
                ];
                self.aria2(SEEDER, &original, &arguments, &self.torrent)
            }
        };
        if matches!(client, Client::Trackless) {
            seeder.wait_for("the magnet link", |line| line.contains("magnet:"));
        }
        self.wait_until_announced();
        seeder
    }

    /// Asks the DHT until it names a peer.
    fn wait_until_announced(&self) {
        let hash = self.magnet.rsplit_once(':').unwrap().1;
        for _ in 0..300 {
            let arguments = [
                "dht",
                "get-peers",
                hash,
                "--json",
                "--bootstrap",
                &self.lab.entry(),
            ];
            let listen = self.lab.at(30, 0);
            let mut all = arguments.to_vec();
            all.extend(["--listen", &listen]);
            let binary = Path::new(env!("CARGO_BIN_EXE_trackless"));
            let mut ask = self.lab.start("get-peers", binary, &all);
            let line = ask.wait_for("the result", |line| line.contains("\"result\""));
            if line.contains(&self.lab.address(SEEDER)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        panic!("the seeder never announced itself");
    }

    /// Starts a downloader.
    pub(crate) fn download(&self, client: Client) -> Program {
        let _ = fs::remove_dir_all(self.fetched());
        fs::create_dir(self.fetched()).unwrap();
        let fetched = self.fetched();
        let output = fetched.to_str().unwrap();
        match client {
            Client::Trackless => self.trackless(DOWNLOADER, &["get", &self.magnet, "-o", output]),
            Client::Libtorrent => {
                let arguments = ["get", "--magnet", &self.magnet, "--output", output];
                self.libtorrent(DOWNLOADER, &arguments)
            }
            Client::Aria2 => self.aria2(DOWNLOADER, &fetched, &["--seed-time=0"], &self.magnet),
        }
    }

    /// Watches for the first MiB of content; gives the seconds that passed until then.
    pub(crate) fn watch_arrival(&self, started: Instant) -> JoinHandle<f64> {
        let folder = self.fetched();
        std::thread::spawn(move || {
            let is_there = |entry: fs::DirEntry| {
                // What is set aside is not there yet.
                entry
                    .metadata()
                    .is_ok_and(|file| file.blocks() * 512 >= 1 << 20)
            };
            let deadline = started + PATIENCE;
            while Instant::now() < deadline {
                let mut entries = fs::read_dir(&folder).unwrap().map_while(Result::ok);
                if entries.any(is_there) {
                    break;
                }
                std::thread::sleep(Duration::from_millis(5));
            }
            started.elapsed().as_secs_f64()
        })
    }

    /// Waits until the content is there, as the program itself says.
    pub(crate) fn wait_until_done(&self, client: Client, program: &mut Program) {
        match client {
            Client::Trackless | Client::Aria2 => program.wait(),
            Client::Libtorrent => {
                program.wait_for("the end of the download", |line| line.contains("\"done\""));
            }
        }
    }

    /// Ends a downloader that is done and goes on seeding.
    pub(crate) fn finish(&self, client: Client, program: &mut Program) {
        if matches!(client, Client::Libtorrent) {
            program.finish();
        }
    }

    /// Checks that what came is what was sent.
    pub(crate) fn compare(&self) {
        let mut pair =
            [self.original(), self.fetched()].map(|folder| File::open(folder.join(NAME)).unwrap());
        let mut buffers = [vec![0; 1 << 20], vec![0; 1 << 20]];
        loop {
            let read = read_full(&mut pair[0], &mut buffers[0]);
            assert_eq!(
                read,
                read_full(&mut pair[1], &mut buffers[1]),
                "other length"
            );
            assert!(buffers[0][..read] == buffers[1][..read], "other content");
            if read == 0 {
                return;
            }
        }
    }

    fn trackless(&self, host: u8, arguments: &[&str]) -> Program {
        let entry = self.lab.entry();
        let mut all = arguments.to_vec();
        all.extend(["--bootstrap", &entry]);
        // Each run is a first run.
        let _ = fs::remove_dir_all(self.lab.folder(&format!("state-{host}")));
        self.lab.trackless(host, &all)
    }

    fn libtorrent(&self, host: u8, arguments: &[&str]) -> Program {
        let (listen, entry) = (self.lab.at(host, 6881), self.lab.entry());
        let mut all = vec![SCRIPT, arguments[0], "--listen", &listen, "--dht", &entry];
        all.extend(&arguments[1..]);
        self.lab.start("libtorrent", Path::new(PYTHON), &all)
    }

    fn aria2(&self, host: u8, folder: &Path, arguments: &[&str], source: &str) -> Program {
        let address = self.lab.address(host);
        let table = self.folder.path().join(format!("dht-{host}.dat"));
        let own = [
            "--no-conf=true".to_owned(),
            format!("--interface={address}"),
            "--listen-port=6881".to_owned(),
            format!("--dir={}", folder.display()),
            "--bt-enable-lpd=false".to_owned(),
            "--enable-peer-exchange=false".to_owned(),
            "--enable-dht=true".to_owned(),
            "--enable-dht6=false".to_owned(),
            format!("--dht-entry-point={}", self.lab.entry()),
            "--dht-listen-port=6881".to_owned(),
            format!("--dht-listen-addr={address}"),
            format!("--dht-file-path={}", table.display()),
            "--disable-ipv6=true".to_owned(),
            "--async-dns=false".to_owned(),
            "--file-allocation=none".to_owned(),
            "--bt-min-crypto-level=plain".to_owned(),
        ];
        let mut all: Vec<&str> = own.iter().map(String::as_str).collect();
        all.extend(arguments);
        all.push(source);
        self.lab.start("aria2", Path::new("aria2c"), &all)
    }
}

/// Bytes that do not compress.
fn write_noise(path: &Path, mebibytes: u64) {
    let mut file = File::create(path).unwrap();
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut buffer = vec![0; 1 << 20];
    for _ in 0..mebibytes {
        for chunk in buffer.chunks_exact_mut(8) {
            // xorshift64: any non-zero state has a period of 2^64 - 1.
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            chunk.copy_from_slice(&state.to_le_bytes());
        }
        file.write_all(&buffer).unwrap();
    }
}

/// Reads until the buffer is full or the file ends.
fn read_full(file: &mut File, buffer: &mut [u8]) -> usize {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read(&mut buffer[filled..]).unwrap() {
            0 => break,
            read => filled += read,
        }
    }
    filled
}
