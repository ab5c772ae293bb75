//! Tests against programs that nobody here wrote.
//!
//! Each runs in a network namespace with a loopback interface and nothing else, so no packet can reach
//! a public address. They need root (for the namespace), iproute2 and the program in question; without
//! one of these they print why and pass, except under `CI`, where that is a failure.

#![expect(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::print_stderr,
    clippy::unwrap_used,
    reason = "tests start programs, read files and say why they were skipped"
)]

mod aria2;
mod content;
mod lab;
mod libtorrent;
