//! Tests of what goes wrong: crashes, bad disks, bad networks and bad strangers, over the built command.
//!
//! Each runs in a network namespace of its own with a loopback interface and nothing else, so no packet
//! can reach a public address and every port is free. They need root (for namespaces and mounts) and
//! util-linux; where that is missing they print why and pass, except under `CI`, where that is a
//! failure. `departure` needs none of that: its nodes are in this process, on 127.0.0.1.
//!
//! The peers and DHT nodes of these tests are written from the BEPs, without the codecs under test.

#![expect(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::print_stderr,
    clippy::unwrap_used,
    reason = "tests start programs and threads, hold sockets, read files and print what they measured"
)]

mod bad_disk;
mod bencode;
mod broken_streams;
mod clock;
mod content;
mod corruption;
mod departure;
mod disk;
mod files;
mod frozen;
mod hostile_exchange;
mod hostile_nodes;
mod hostile_peers;
mod hostile_streams;
mod hostile_trackers;
mod huge_torrents;
mod kill;
mod lab;
mod leecher;
mod lossy;
mod private;
mod program;
mod scarcity;
mod scene;
mod seeder;
mod start;
mod stop;
mod stranger;
mod tracker;
mod wide_network;
mod wire;
