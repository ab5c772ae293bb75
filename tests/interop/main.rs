//! Tests against programs that nobody here wrote.
//!
//! Each runs in a network namespace with a loopback interface and nothing else, so no packet can reach
//! a public address. They need root (for the namespace), iproute2 and the program in question; without
//! one of these they print why and pass, except under `CI`, where that is a failure.
//!
//! Every program has two directions (it seeds, it downloads), and in each it moves a large file and a
//! folder of 1,000 files, in pieces of 16 KiB and of 16 MiB, by nothing but the info hash. `mainline` is a
//! DHT node alone, a library that runs in the test's own process. With opentracker in place of the DHT the
//! same programs move the folder.
//!
//! A lab has addresses of one family. Over IPv6 a part of it all is done again, where no two programs have an
//! IPv4 address.

#![cfg(target_os = "linux")]
#![expect(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::print_stderr,
    clippy::unwrap_used,
    reason = "tests start programs, read files and say why they were skipped"
)]

mod aria2;
mod content;
mod daemon;
mod discovery;
mod lab;
mod libtorrent;
mod libtorrent_items;
mod libtorrent_node;
mod libtorrent_queries;
mod mainline;
mod matrix;
mod opentracker;
mod operation;
mod swarm;
mod trackers;
mod transmission;
