//! A download beside which strangers do their worst, with a DHT node and a seeder.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::content::Content;
use crate::lab::{Lab, PORT, address, socket};
use crate::program::Program;
use crate::seeder::{Conduct, Seeder};
use crate::stranger::Stranger;

/// Hosts of the node, of the seeder, of the download, and of a second download.
pub(crate) const NODE: u8 = 2;
/// See [`NODE`].
pub(crate) const SEEDER: u8 = 3;
/// See [`NODE`].
pub(crate) const GETTER: u8 = 10;
/// See [`NODE`].
pub(crate) const LATER: u8 = 11;

/// Memory that no process here may exceed. Undisturbed, a node takes 7 MiB and a download 20 MiB.
pub(crate) const MEMORY_MAX: u64 = 64 << 20;

/// How long is looked whether they are busy.
const SPAN: Duration = Duration::from_secs(4);

/// A node, a seeder and a download that goes on until told otherwise, all known to each other.
pub(crate) struct Scene {
    /// Where all this is.
    pub(crate) lab: Lab,
    /// The node.
    pub(crate) node: Program,
    /// The seeder.
    pub(crate) seeder: Program,
    /// The download.
    pub(crate) getter: Program,
    /// What the download fetches.
    pub(crate) content: Arc<Content>,
    /// From whom: slowly until the limit is lifted.
    pub(crate) source: Seeder,
    /// What the seeder has.
    pub(crate) other: Content,
}

/// What the download of a scene fetches. Its bitfield has spare bits.
pub(crate) fn wanted() -> Arc<Content> {
    Arc::new(Content::file(40, (24 << 20) + 100_000, 32 << 10))
}

impl Scene {
    /// `known` are nodes that everybody is told of, besides the node; `peers` are announced as peers of
    /// the download before it begins.
    pub(crate) fn open(lab: Lab, known: &[SocketAddr], peers: &[SocketAddr]) -> Self {
        let content = wanted();
        let other = Content::file(41, (4 << 20) + 100_000, 128 << 10);
        let source = Seeder::start(
            &content,
            Conduct::limited(address(1), 512 << 10),
            &Arc::default(),
        );
        let entry = socket(NODE);
        let known: Vec<String> = known.iter().map(ToString::to_string).collect();
        let ways: Vec<&str> = known
            .iter()
            .flat_map(|node| ["--bootstrap", node])
            .collect();
        let node_ways = if known.is_empty() {
            &["--bootstrap", "none"][..]
        } else {
            &ways
        };
        let node = ["node", "--json", "--stats-interval", "100ms"];
        let mut node = lab.trackless(NODE, &[&node[..], node_ways].concat());
        node.wait_for_event("listening");
        let data = lab.folder("data");
        other.write(&data);
        let torrent = other.write_torrent(&lab.folder("torrents"));
        let seed = ["seed", &torrent, "--data", data.to_str().unwrap(), "--json"];
        let seed = [&seed[..], &["--bootstrap", &entry], &ways].concat();
        let mut seeder = lab.trackless(SEEDER, &seed);
        seeder.wait_for("the announce", |event| event["stored"].as_u64() > Some(0));
        for peer in [source.address].iter().chain(peers) {
            let SocketAddr::V4(peer) = peer else { continue };
            let mut stranger = Stranger::at(*peer.ip());
            let took = stranger.announce(node_address(), &content.info_hash, peer.port());
            assert!(took, "{}", node.tail());
        }
        let magnet = content.magnet();
        let output = lab.folder("output");
        let get = [
            "get",
            &magnet,
            "--json",
            "--seed",
            "-o",
            output.to_str().unwrap(),
        ];
        let get = [&get[..], &["--bootstrap", &entry], &ways].concat();
        let mut getter = lab.trackless(GETTER, &get);
        getter.wait_for_bytes(1);
        Self {
            lab,
            node,
            seeder,
            getter,
            content,
            source,
            other,
        }
    }

    /// All three are there and answer strangers.
    #[track_caller]
    pub(crate) fn check_alive(&mut self, after: &str) {
        for (program, host) in [
            (&mut self.node, NODE),
            (&mut self.seeder, SEEDER),
            (&mut self.getter, GETTER),
        ] {
            assert!(program.is_running(), "after {after}: {}", program.tail());
            let mut stranger = Stranger::at(address(200));
            let answers = (0..3).any(|_| stranger.ping((address(host), PORT).into()));
            assert!(
                answers,
                "host {host} is silent after {after}: {}",
                program.tail()
            );
        }
    }

    /// Nobody is busy with what is over. The download goes on meanwhile, half a megabyte a second.
    #[track_caller]
    fn check_idle(&self) {
        let all = [&self.node, &self.seeder, &self.getter];
        let before = all.map(Program::processor_time);
        std::thread::sleep(SPAN);
        for (program, before) in all.iter().zip(before) {
            let busy = program.processor_time() - before;
            assert!(busy < SPAN / 4, "{busy:?} in {SPAN:?}: {}", program.tail());
        }
    }

    /// The download completes, another one finds what the seeder has, and memory is bounded.
    #[track_caller]
    pub(crate) fn check_unharmed(mut self) {
        self.check_alive("everything");
        self.check_idle();
        self.source.lift_limit();
        self.getter.wait_for_event("done");
        self.content.check(&self.lab.folder("output"));
        let later = self.lab.folder("later");
        let (magnet, entry) = (self.other.magnet(), socket(NODE));
        let get = [
            "get",
            &magnet,
            "--json",
            "-o",
            later.to_str().unwrap(),
            "--bootstrap",
            &entry,
        ];
        self.lab.trackless(LATER, &get).wait_done();
        self.other.check(&later);
        self.node.check_memory("node", MEMORY_MAX);
        self.seeder.check_memory("seeder", MEMORY_MAX);
        self.getter.check_memory("downloader", MEMORY_MAX);
    }

    /// A number of the node's latest statistics.
    pub(crate) fn node_number(&mut self, key: &str) -> u64 {
        let stats = self.node.wait_for_news("stats");
        stats[key]
            .as_u64()
            .unwrap_or_else(|| panic!("no {key} in {stats}"))
    }
}

/// Where the node is.
pub(crate) fn node_address() -> SocketAddr {
    (address(NODE), PORT).into()
}
