//! A private DHT of 300 nodes on loopback sockets, half of which leave at once.
//!
//! The nodes are those of the library, each on a socket and a thread of its own in this process. A
//! thousand torrents are announced by nodes that stay, and looked up by others: once when all is well,
//! once when half of the nodes have gone, and once after everybody has announced again, which is what a
//! session does every quarter of an hour.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use trackless::dht::{self, Event, LookupReport, PeerPort};
use trackless::id::{InfoHash, NodeId};
use trackless::net::{Clock, DhtConfig, DhtHandle, Lookup, bind_udp};
use trackless::random::Random;

/// Nodes in the network. The even ones stay.
const NODES: usize = 300;

/// Torrents that are announced.
const TORRENTS: usize = 1_000;

/// Lookups of anything that each node makes before torrents are announced, as one that runs for a while has made.
const FIRST_LOOKUPS: usize = 6;

/// Operations at once, all nodes together.
const AT_ONCE: usize = 24;

/// Searches for one torrent before it counts as not found: as a user who looks again.
const SEARCHES: usize = 3;

/// Longest time for one search, on a machine that is busy with other things.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running node.
#[derive(Clone)]
struct Member {
    handle: DhtHandle,
    address: SocketAddr,
}

impl Member {
    fn start(random: &mut Random, bootstrap: Option<SocketAddr>) -> Self {
        let socket = bind_udp("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = socket.local_addr().unwrap();
        let config = DhtConfig {
            node: dht::Config::default(),
            bootstrap: bootstrap.iter().map(ToString::to_string).collect(),
            snapshot: None,
        };
        let entropy = random.bytes();
        let handle = trackless::net::dht::spawn(vec![socket], config, Clock::start(), entropy);
        Self {
            handle: handle.unwrap(),
            address,
        }
    }

    /// Waits until a lookup of its own id finds as many nodes as a bucket holds, or all there are.
    async fn joined(&self, others: usize) {
        let started = Instant::now();
        loop {
            let (_, own) = self.handle.status().await.ids[0];
            let (_, report) = ended(self.handle.find_node(own).await).await;
            if report.closest.len() >= others.min(dht::BUCKET_SIZE) {
                return;
            }
            assert!(started.elapsed() < PATIENCE, "{} never joins", self.address);
        }
    }
}

/// Waits for the end of a lookup; gives the peers it found, and its report.
async fn ended(mut lookup: Lookup) -> (Vec<SocketAddr>, LookupReport) {
    let mut found = Vec::new();
    let end = async {
        loop {
            match lookup.next().await {
                Some(Event::PeersFound { peers, .. }) => found.extend(peers),
                Some(Event::LookupDone { report, .. }) => return report,
                Some(_) => {}
                None => panic!("the node is gone"),
            }
        }
    };
    let report = tokio::time::timeout(PATIENCE, end).await;
    (found, report.expect("a lookup ends"))
}

/// A torrent, the node that has it and the node that wants it.
#[derive(Clone)]
struct Torrent {
    info_hash: InfoHash,
    seeder: Member,
    port: u16,
    seeker: Member,
}

impl Torrent {
    fn peer(&self) -> SocketAddr {
        (self.seeder.address.ip(), self.port).into()
    }

    async fn announce(self) -> (bool, LookupReport) {
        let port = PeerPort::Explicit(self.port);
        let (_, report) = ended(self.seeder.handle.announce(self.info_hash, port).await).await;
        (report.stored > 0, report)
    }

    async fn search(self) -> (bool, LookupReport) {
        let mut last = LookupReport::default();
        for _ in 0..SEARCHES {
            let (found, report) = ended(self.seeker.handle.find_peers(self.info_hash).await).await;
            if found.contains(&self.peer()) {
                return (true, report);
            }
            last = report;
        }
        (false, last)
    }
}

/// Does something with every torrent, a few at once; prints the medians, and gives how many went well.
async fn each<F>(what: &str, torrents: &[Torrent], work: impl Fn(Torrent) -> F) -> usize
where
    F: Future<Output = (bool, LookupReport)> + Send + 'static,
{
    let turns = Arc::new(Semaphore::new(AT_ONCE));
    let mut running = JoinSet::new();
    for torrent in torrents {
        let work = work(torrent.clone());
        let turns = Arc::clone(&turns);
        running.spawn(async move {
            let _turn = turns.acquire().await.unwrap();
            work.await
        });
    }
    let (mut queries, mut times) = (Vec::new(), Vec::new());
    let mut well = 0;
    for (is_well, report) in running.join_all().await {
        well += usize::from(is_well);
        queries.push(report.queries);
        times.push(report.duration);
    }
    queries.sort_unstable();
    times.sort_unstable();
    let middle = torrents.len() / 2;
    eprintln!(
        "{what}: {well} of {}, median {} queries, {:?}, at worst {:?}",
        torrents.len(),
        queries[middle],
        times[middle],
        times[torrents.len() - 1]
    );
    well
}

/// A network in which everybody has joined through the first.
async fn network(random: &mut Random) -> Vec<Member> {
    let first = Member::start(random, None);
    let entry = first.address;
    let mut members = vec![first];
    while members.len() < NODES {
        let begun = members.len();
        let end = NODES.min(begun + AT_ONCE);
        members.extend((begun..end).map(|_| Member::start(random, Some(entry))));
        for member in &members[begun..] {
            member.joined(begun).await;
        }
    }
    // Who has just joined knows its own neighbourhood; the rest of the table comes with lookups.
    let mut running = JoinSet::new();
    for member in &members {
        let (handle, targets) = (
            member.handle.clone(),
            [(); FIRST_LOOKUPS].map(|()| random.bytes()),
        );
        running.spawn(async move {
            for target in targets {
                ended(handle.find_node(NodeId::new(target)).await).await;
            }
        });
    }
    running.join_all().await;
    members
}

/// Torrents of nodes that stay, wanted by other nodes that stay.
fn torrents(members: &[Member], random: &mut Random) -> Vec<Torrent> {
    let stays = members.len() / 2;
    (0..TORRENTS)
        .map(|number| {
            let seeder = random.index(stays).unwrap();
            let distance = 1 + random.index(stays - 1).unwrap();
            let seeker = (seeder + distance) % stays;
            Torrent {
                info_hash: InfoHash::new(random.bytes()),
                seeder: members[2 * seeder].clone(),
                port: u16::try_from(number + 1).unwrap(),
                seeker: members[2 * seeker].clone(),
            }
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_torrents_are_found_again_after_half_of_three_hundred_nodes_left() {
    // A node has a handful of open files.
    let limit = getrlimit(Resource::Nofile);
    let wanted = Rlimit {
        current: limit.maximum,
        ..limit
    };
    setrlimit(Resource::Nofile, wanted).unwrap();
    let started = Instant::now();
    let mut random = Random::from_seed(300);
    let members = network(&mut random).await;
    eprintln!("{NODES} nodes joined in {:?}", started.elapsed());
    let torrents = torrents(&members, &mut random);
    assert_eq!(
        each("announced", &torrents, Torrent::announce).await,
        TORRENTS
    );
    assert_eq!(each("found", &torrents, Torrent::search).await, TORRENTS);

    for leaving in members.iter().skip(1).step_by(2) {
        leaving.handle.stop().await;
    }
    // Those that stored a torrent and stayed still have it: eight did, so few torrents are lost.
    let left = each("found among the dead", &torrents, Torrent::search).await;
    assert!(left > TORRENTS * 9 / 10, "{left}");
    assert_eq!(
        each("announced again", &torrents, Torrent::announce).await,
        TORRENTS
    );
    assert_eq!(
        each("found again", &torrents, Torrent::search).await,
        TORRENTS
    );
    for member in members.iter().step_by(2) {
        member.handle.stop().await;
    }
    eprintln!("all of it took {:?}", started.elapsed());
}
