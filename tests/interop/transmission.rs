//! Transmission's daemon, steered over its RPC.
//!
//! Over IPv6 it enters the DHT only with an address that it would send from to a public one, so there is a
//! route that leads nowhere; and its RPC listens only where there is an IPv4 address beside loopback, so it
//! has one, alone.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::time::{Duration, Instant};

use data_encoding::BASE64;
use serde_json::{Value, json};

use crate::lab::{Family, Lab, Program, run};
use crate::matrix::Original;

/// Where Transmission is, whichever side it takes.
const TRANSMISSION: u8 = 40;

/// The port at which it takes peers.
pub(crate) const PEER_PORT: u16 = 51_413;

/// Where its RPC is, which knows IPv4 only.
const RPC_HOST: &str = "127.0.0.1";

/// The port of its RPC.
const RPC_PORT: u16 = 9091;

/// How long a test waits for everything to be moved: three minutes for the DHT at the very worst,
/// one until the torrents are found, and two for the content.
pub(crate) const TRANSFER_PATIENCE: Duration = Duration::from_secs(360);

/// How long one RPC may take.
const RPC_TIMEOUT: Duration = Duration::from_secs(20);

/// Pause between two looks at the torrents.
const POLL_INTERVAL: Duration = Duration::from_millis(250);

/// `status` of a torrent that is complete and served.
const SEEDING: u64 = 6;

pub(crate) fn open(family: Family) -> Option<Lab> {
    Lab::open_over(
        family,
        &[("transmission-daemon", || {
            run("transmission-daemon", &["--version"])
        })],
    )
}

/// A daemon, and the way to talk to it.
pub(crate) struct Transmission<'a> {
    lab: &'a Lab,
    program: Program,
    /// What it wants to see in every request: its protection against other people's web pages.
    session_id: RefCell<String>,
}

impl<'a> Transmission<'a> {
    /// Starts the daemon with one DHT node to start from, and nothing else that finds peers.
    pub(crate) fn start(lab: &'a Lab) -> Self {
        Self::start_with(lab, false)
    }

    /// The same, and whether peers tell it of others.
    pub(crate) fn start_with(lab: &'a Lab, pex: bool) -> Self {
        let folder = lab.folder("transmission");
        let (address, entry) = (lab.address(TRANSMISSION), lab.address(1));
        std::fs::write(folder.join("dht.bootstrap"), format!("{entry} 6881\n")).unwrap();
        let bind = match lab.family() {
            Family::V4 => "bind-address-ipv4",
            Family::V6 => {
                lab.pretend_way_out(TRANSMISSION);
                "bind-address-ipv6"
            }
        };
        let settings = json!({
            (bind): address,
            "dht-enabled": true,
            "download-dir": lab.folder("fetched"),
            "encryption": 0,
            "lpd-enabled": false,
            "peer-port": PEER_PORT,
            "pex-enabled": pex,
            "port-forwarding-enabled": false,
            "rpc-authentication-required": false,
            "rpc-bind-address": RPC_HOST,
            "rpc-host-whitelist-enabled": false,
            "rpc-port": RPC_PORT,
            "rpc-whitelist-enabled": false,
            "utp-enabled": false,
        });
        std::fs::write(folder.join("settings.json"), settings.to_string()).unwrap();
        let arguments = ["--foreground", "--config-dir", folder.to_str().unwrap()];
        let name = format!("transmission at {address}");
        let program = lab.start(&name, Path::new("transmission-daemon"), &arguments);
        let transmission = Self {
            lab,
            program,
            session_id: RefCell::default(),
        };
        transmission.wait_until("it listens", || transmission.post("{}").is_ok());
        transmission
    }

    /// Adds a torrent from its file, with its content in place.
    pub(crate) fn add_seed(&self, original: &Original) {
        self.add_torrent(original, original.folder());
    }

    /// Adds a torrent from its file.
    pub(crate) fn add_torrent(&self, original: &Original, folder: &Path) {
        self.call(
            "torrent-add",
            &json!({
                "metainfo": BASE64.encode(&std::fs::read(&original.torrent).unwrap()),
                "download-dir": folder,
            }),
        );
    }

    /// Adds a torrent by magnet link.
    pub(crate) fn add_magnet(&self, original: &Original, folder: &Path) {
        self.add_link(&original.magnet(), folder);
    }

    /// Adds a torrent by any link.
    pub(crate) fn add_link(&self, link: &str, folder: &Path) {
        let arguments = json!({"filename": link, "download-dir": folder});
        self.call("torrent-add", &arguments);
    }

    /// Its torrents by info hash.
    fn torrents(&self) -> BTreeMap<String, Value> {
        let fields = [
            "hashString",
            "errorString",
            "leftUntilDone",
            "metadataPercentComplete",
            "peersConnected",
            "percentDone",
            "status",
        ];
        let answer = self.call("torrent-get", &json!({ "fields": fields }));
        let torrents = answer["torrents"].as_array().unwrap();
        torrents
            .iter()
            .map(|torrent| {
                let info_hash = torrent["hashString"].as_str().unwrap();
                (info_hash.to_owned(), torrent.clone())
            })
            .collect()
    }

    /// Whether it has everything of a torrent.
    pub(crate) fn has(&self, original: &Original) -> bool {
        let torrents = self.torrents();
        let torrent = &torrents[&original.info_hash];
        assert_eq!(torrent["errorString"], "", "{torrent}");
        torrent["status"] == SEEDING
            && torrent["metadataPercentComplete"].as_f64() == Some(1.0)
            && torrent["leftUntilDone"] == 0
    }

    /// Tells it to end, and waits until what it holds in memory is on disk.
    pub(crate) fn finish(mut self) {
        self.call("session-close", &json!({}));
        self.program.wait();
    }

    /// Looks again and again until something is so.
    ///
    /// # Panics
    ///
    /// When [`TRANSFER_PATIENCE`] has run out.
    pub(crate) fn wait_until(&self, what: &str, is_so: impl Fn() -> bool) {
        let deadline = Instant::now() + TRANSFER_PATIENCE;
        while !is_so() {
            assert!(
                Instant::now() < deadline,
                "transmission: waited until {what}; its torrents: {:#?}",
                self.torrents()
            );
            std::thread::sleep(POLL_INTERVAL);
        }
    }

    /// One call; its arguments out.
    fn call(&self, method: &str, arguments: &Value) -> Value {
        let body = json!({"method": method, "arguments": arguments}).to_string();
        let answer = self.post(&body).unwrap();
        let mut answer: Value = serde_json::from_str(&answer).unwrap();
        assert_eq!(answer["result"], "success", "{method}");
        answer["arguments"].take()
    }

    /// Sends a request to its RPC, a second time if it wants another session id.
    fn post(&self, body: &str) -> std::io::Result<String> {
        for _ in 0..2 {
            let session_id = self.session_id.borrow().clone();
            let answer = self.lab.inside(|| {
                let mut stream = TcpStream::connect((RPC_HOST, RPC_PORT))?;
                stream.set_read_timeout(Some(RPC_TIMEOUT))?;
                write!(
                    stream,
                    "POST /transmission/rpc HTTP/1.1\r\nHost: {RPC_HOST}\r\nConnection: close\r\n\
                     X-Transmission-Session-Id: {session_id}\r\nContent-Length: {}\r\n\r\n{body}",
                    body.len()
                )?;
                let mut answer = String::new();
                stream.read_to_string(&mut answer)?;
                std::io::Result::Ok(answer)
            })?;
            let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_default();
            if head.starts_with("HTTP/1.1 200") {
                return Ok(body.to_owned());
            }
            let id = head
                .lines()
                .find_map(|line| line.strip_prefix("X-Transmission-Session-Id: "));
            let id = id.unwrap_or_else(|| panic!("transmission: {answer}"));
            self.session_id.replace(id.to_owned());
        }
        Err(std::io::Error::other("no session id was good enough"))
    }
}
