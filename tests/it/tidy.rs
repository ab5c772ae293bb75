//! Holds the layers of `ARCHITECTURE.md` and the rules of `STYLE.md` that no lint knows.
//!
//! The sources are read as text with comments and literals blanked out. Invariant: each rule below
//! has a small bad sample in the tests, so a rule that finds nothing has been seen to find
//! something.

use std::fs;
use std::path::{Path, PathBuf};

use text::{blank, climbs, macros, paths, without_tests, words};

mod text;

/// Values: what may be used by every layer above.
const VALUES: [&str; 8] = [
    "address", "bencode", "bitfield", "crc32c", "id", "metainfo", "random", "time",
];
/// Codecs.
const CODECS: [&str; 2] = ["krpc", "wire"];
/// Cores.
const CORES: [&str; 5] = ["announce", "dht", "peer", "swarm", "utp"];
/// Drivers.
const DRIVERS: [&str; 2] = ["disk", "net"];

/// What a module may use: the table of `ARCHITECTURE.md`. A name with `::` allows that item only.
const LAYERS: [(&str, &[&[&str]]); 20] = [
    ("time", &[]),
    ("id", &[]),
    ("bitfield", &[]),
    ("crc32c", &[]),
    ("random", &[]),
    ("address", &[]),
    ("bencode", &[]),
    ("metainfo", &[&["bencode", "bitfield", "id"]]),
    ("krpc", &[&VALUES]),
    ("wire", &[&VALUES]),
    ("dht", &[&VALUES, &["krpc"]]),
    ("peer", &[&VALUES, &["wire"]]),
    ("utp", &[&VALUES]),
    ("announce", &[&VALUES]),
    ("swarm", &[&VALUES, &["wire", "peer"]]),
    ("net", &[&VALUES, &CODECS, &CORES, &BLOCK_READS]),
    ("disk", &[&VALUES, &DISK_JOBS]),
    ("session", &[&VALUES, &CODECS, &CORES, &DRIVERS]),
    ("api", &[&VALUES, &["session"]]),
    ("cli", &[&VALUES, &["session", "api"], &COMMANDS]),
];

/// The values of `swarm::disk_job` under their short names, and what they are made of.
const DISK_JOBS: [&str; 9] = [
    "swarm::BlockDigest",
    "swarm::Completion",
    "swarm::ConnectionId",
    "swarm::DiskError",
    "swarm::DiskErrorKind",
    "swarm::Job",
    "swarm::JobId",
    "swarm::disk_job",
    "wire::Payload",
];

/// The write task of a connection reads the blocks that it sends.
const BLOCK_READS: [&str; 4] = [
    "disk::Block",
    "disk::FileRange",
    "disk::PendingRead",
    "disk::Storage",
];

/// What commands use that need no session (`create` hashes files, `node` and `dht` run a DHT loop
/// alone), and the plain values in which a session reports. No core is among them: a command drives
/// none.
const COMMANDS: [&str; 30] = [
    "announce::TrackerUrl",
    "announce::UrlError",
    "disk::Resume",
    "disk::Verification",
    "disk::hash",
    "disk::verify",
    "disk::vouched",
    "dht::Config",
    "dht::Counters",
    "dht::Event",
    "dht::Item",
    "dht::Local",
    "dht::LookupReport",
    "dht::PeerKind",
    "dht::PeerPort",
    "dht::PutOptions",
    "dht::SecretKey",
    "dht::Snapshot",
    "dht::Step",
    "dht::item",
    "krpc::ContactInfo",
    "net::clock",
    "net::fetch",
    "net::dht",
    "net::page",
    "net::udp",
    "swarm::DiskError",
    "swarm::DiskErrorKind",
    "swarm::State",
    "swarm::Stats",
];

/// Lines of a file with its tests.
const LINES_MAX: usize = 600;

/// Names that say nothing about what is inside.
const EMPTY_NAMES: [&str; 9] = [
    "common",
    "helper",
    "helpers",
    "manager",
    "misc",
    "types",
    "util",
    "utilities",
    "utils",
];

/// Macros of unfinished work.
const UNFINISHED: [&str; 3] = ["dbg", "todo", "unimplemented"];

/// Macros that print.
const PRINTING: [&str; 4] = ["eprint", "eprintln", "print", "println"];

/// Words that a core has no use for: they reach for the world, or differ between runs.
const WORLDLY: [&str; 13] = [
    "HashMap",
    "HashSet",
    "OsRng",
    "SysRng",
    "SystemTime",
    "TcpListener",
    "TcpStream",
    "ThreadRng",
    "UdpSocket",
    "async",
    "await",
    "socket2",
    "tokio",
];

/// Parts of the standard library that a core has no use for.
const WORLDLY_STD: [&str; 6] = ["env", "fs", "process", "thread", "os", "time::Instant"];

/// A source file, blanked.
struct Source {
    /// From the top of the repository, with `/`.
    path: String,
    lines: usize,
    /// Without comments and literals.
    code: String,
    /// The same without blocks that only tests see; empty for a file of tests.
    shipped: String,
}

impl Source {
    fn new(path: &str, text: &str) -> Self {
        let code = blank(text);
        let is_test = !["src/", "fuzz/src/", "simulations/src/"]
            .iter()
            .any(|folder| path.starts_with(folder))
            || path.ends_with("/tests.rs")
            || path.ends_with("_tests.rs")
            || path.contains("/tests/");
        Self {
            path: path.to_owned(),
            lines: text.lines().count(),
            shipped: if is_test {
                String::new()
            } else {
                without_tests(&code)
            },
            code,
        }
    }

    /// The modules around the code of this file, outermost first; empty outside the library.
    fn modules(&self) -> Vec<&str> {
        let Some(path) = self.path.strip_prefix("src/") else {
            return Vec::new();
        };
        let path = path.trim_end_matches(".rs").trim_end_matches("/mod");
        match path {
            "lib" | "main" => Vec::new(),
            path => path.split('/').collect(),
        }
    }

    /// Everything wrong with this file.
    fn findings(&self) -> Vec<String> {
        let mut findings = Vec::new();
        self.find_layer_breaks(&mut findings);
        self.find_worldly_cores(&mut findings);
        self.find_words(&mut findings);
        if self.lines > LINES_MAX {
            findings.push(format!("{} lines, at most {LINES_MAX}", self.lines));
        }
        for name in self.path.trim_end_matches(".rs").split('/') {
            if EMPTY_NAMES.contains(&name) {
                findings.push(format!("the name {name:?} says nothing"));
            }
        }
        findings
            .into_iter()
            .map(|finding| format!("{}: {finding}", self.path))
            .collect()
    }

    fn find_layer_breaks(&self, findings: &mut Vec<String>) {
        let modules = self.modules();
        let Some(&module) = modules.first() else {
            return;
        };
        let Some((_, allowed)) = LAYERS.iter().find(|(name, _)| *name == module) else {
            findings.push(format!("module `{module}` is not in the table of layers"));
            return;
        };
        for path in paths(&self.code, "crate") {
            let Some(used) = path.first().filter(|used| *used != module) else {
                continue;
            };
            // A macro or an item of the crate root that is no module has no layer.
            if used == "self" || !LAYERS.iter().any(|(name, _)| name == used) {
                findings.push(format!("`crate::{used}` is not in the table of layers"));
                continue;
            }
            let item = path.get(1).map(|item| format!("{used}::{item}"));
            let is_allowed = allowed
                .iter()
                .flat_map(|names| names.iter())
                .any(|name| name == used || item.as_deref() == Some(*name));
            // Tests of a driver may set up the other one.
            let is_test = self.shipped.is_empty() && !self.code.trim().is_empty();
            let between_drivers = DRIVERS.contains(&module) && DRIVERS.contains(&used.as_str());
            if !(is_allowed || is_test && between_drivers) {
                let item = item.as_ref().unwrap_or(used);
                findings.push(format!("`{module}` may not use `{item}`"));
            }
        }
        if climbs(&self.shipped) >= modules.len().max(1) {
            findings.push("`super` climbs to the crate root; write `crate`".to_owned());
        }
    }

    fn find_worldly_cores(&self, findings: &mut Vec<String>) {
        let modules = self.modules();
        let is_core = modules.first().is_some_and(|module| {
            [&VALUES[..], &CODECS, &CORES]
                .iter()
                .any(|layer| layer.contains(module))
        });
        if !is_core {
            return;
        }
        for word in words(&self.shipped).filter(|word| WORLDLY.contains(word)) {
            findings.push(format!("`{word}` below the line of the cores"));
        }
        for path in paths(&self.shipped, "std") {
            let path = path.join("::");
            let is_worldly = |part: &&&str| {
                path.strip_prefix(**part)
                    .is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
            };
            if let Some(part) = WORLDLY_STD.iter().find(is_worldly) {
                findings.push(format!("`std::{part}` below the line of the cores"));
            }
        }
    }

    fn find_words(&self, findings: &mut Vec<String>) {
        for name in macros(&self.code).filter(|name| UNFINISHED.contains(name)) {
            findings.push(format!("`{name}!` is unfinished work"));
        }
        let may_print = self.path.starts_with("src/cli/")
            || self.path == "src/main.rs"
            || self.path == "fuzz/src/main.rs"
            || self.path == "simulations/src/main.rs"
            || self.path == "simulations/src/progress.rs";
        if !may_print {
            for name in macros(&self.shipped).filter(|name| PRINTING.contains(name)) {
                findings.push(format!("`{name}!` outside the command line"));
            }
        }
        let may_name_it = self.modules().first() == Some(&"bencode");
        if !may_name_it && words(&self.code).any(|word| word == "serde_bencode") {
            findings.push("`serde_bencode` outside `bencode`".to_owned());
        }
    }
}

/// All Rust files below a folder, in a fixed order.
fn rust_files(folder: &Path, files: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(folder) else {
        return;
    };
    let mut entries: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
    entries.sort();
    for path in entries {
        if path.is_dir() {
            rust_files(&path, files);
        } else if path.extension().is_some_and(|end| end == "rs") {
            files.push(path);
        }
    }
}

#[test]
fn the_sources_follow_the_layers_and_the_style() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    for folder in [
        "src",
        "tests",
        "fuzz/src",
        "fuzz/tests",
        "simulations/src",
        "simulations/tests",
    ] {
        rust_files(&root.join(folder), &mut files);
    }
    assert!(files.len() > 30, "the sources are where they should be");
    let mut findings = Vec::new();
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        let path = file.strip_prefix(root).unwrap().to_str().unwrap();
        findings.extend(Source::new(&path.replace('\\', "/"), &text).findings());
    }
    assert!(findings.is_empty(), "\n{}", findings.join("\n"));
}

/// Compares what is found in a file with what should be; an empty text stands for nothing.
#[track_caller]
fn check_finding(path: &str, text: &str, expected: &str) {
    let findings = Source::new(path, text).findings().join("; ");
    let is_right = if expected.is_empty() {
        findings.is_empty()
    } else {
        findings.contains(expected)
    };
    assert!(is_right, "{text:?} in {path}: found {findings:?}");
}

#[test]
fn a_use_that_points_up_or_sideways_is_found() {
    let sideways = "`dht` may not use `swarm::Torrent`";
    check_finding("src/dht/node.rs", "use crate::swarm::Torrent;", sideways);
    check_finding(
        "src/dht/node.rs",
        "fn a(b: crate::swarm::Torrent) {}",
        sideways,
    );
    check_finding(
        "src/dht/mod.rs",
        "use crate::{id, swarm::{self, Torrent}};",
        sideways,
    );
    check_finding(
        "src/dht/mod.rs",
        "use crate\n  ::{\n swarm as s};",
        "`dht` may not use `swarm`",
    );
    check_finding("src/id.rs", "use crate::krpc;", "`id` may not use `krpc`");
    check_finding(
        "src/swarm/tests.rs",
        "use crate::dht::Node;",
        "may not use `dht::Node`",
    );
    check_finding(
        "src/peer/a/b.rs",
        "use super::super::super::dht;",
        "climbs to the crate root",
    );
    check_finding("src/gossip.rs", "", "`gossip` is not in the table");
    check_finding(
        "src/cli/mod.rs",
        "use crate::dht::Node;",
        "`cli` may not use `dht::Node`",
    );
}

#[test]
fn a_use_that_points_down_is_fine() {
    check_finding(
        "src/dht/node.rs",
        "use crate::{id::NodeId, krpc::{self, Message}};",
        "",
    );
    check_finding(
        "src/dht/node.rs",
        "use crate::dht::Config; use super::Event;",
        "",
    );
    check_finding("src/dht/a/b.rs", "use super::super::Event;", "");
    check_finding("src/dht.rs", "#[cfg(test)] mod tests { use super::*; }", "");
    check_finding(
        "src/disk/mod.rs",
        "use crate::swarm::{Job, disk_job::DiskError};",
        "",
    );
    check_finding("src/net/tests.rs", "use crate::disk::Disk;", "");
    check_finding(
        "src/net/peer.rs",
        "use crate::disk::Disk;",
        "not use `disk::Disk`",
    );
    check_finding(
        "src/disk/mod.rs",
        "use crate::swarm::Torrent;",
        "may not use `swarm::Torrent`",
    );
    check_finding("simulations/src/world.rs", "use crate::anything;", "");
    check_finding("src/lib.rs", "pub use crate::swarm::Torrent;", "");
}

#[test]
fn a_core_that_reaches_for_the_world_is_found() {
    for text in [
        "use tokio::time;",
        "use std::net::UdpSocket;",
        "use std::{io, fs};",
        "fn a() { std::thread::spawn(b); }",
        "use std::time::SystemTime;",
        "use std::{time::{Duration, Instant}};",
        "async fn a() {}",
        "use std::collections::HashMap;",
    ] {
        check_finding("src/peer/rate.rs", text, "below the line of the cores");
        check_finding("src/net/peer.rs", text, "");
    }
    check_finding("src/peer/rate.rs", "use std::time::Duration;", "");
    let in_a_test = "fn a() {} #[cfg(test)] mod tests { use std::fs; } fn b() {}";
    check_finding("src/peer/rate.rs", in_a_test, "");
    let after_a_test = "#[cfg(test)] mod tests { mod x { } } use std::fs;";
    check_finding("src/peer/rate.rs", after_a_test, "`std::fs` below");
}

#[test]
fn unfinished_work_printing_and_foreign_bencode_are_found() {
    check_finding("src/id.rs", "fn a() { todo!() }", "`todo!` is unfinished");
    check_finding(
        "tests/it/a.rs",
        "fn a() { dbg!(1); }",
        "`dbg!` is unfinished",
    );
    check_finding("simulations/src/a.rs", "unimplemented!()", "unfinished");
    check_finding(
        "src/net/udp.rs",
        "println!(\"x\")",
        "outside the command line",
    );
    check_finding(
        "simulations/src/world.rs",
        "eprint!(\"x\")",
        "outside the command line",
    );
    check_finding("src/cli/print.rs", "println!(\"x\")", "");
    check_finding(
        "src/krpc/mod.rs",
        "use serde_bencode as b;",
        "outside `bencode`",
    );
    check_finding("src/bencode/mod.rs", "use serde_bencode as b;", "");
}

#[test]
fn long_files_and_empty_names_are_found() {
    check_finding("src/id.rs", &"\n".repeat(LINES_MAX), "");
    check_finding("src/id.rs", &"\n".repeat(LINES_MAX + 1), "601 lines");
    check_finding("src/dht/utils.rs", "", "\"utils\" says nothing");
    check_finding("src/net/common/mod.rs", "", "\"common\" says nothing");
}

#[test]
fn words_in_comments_and_literals_are_not_code() {
    for text in [
        "// todo!(x)",
        "/// use crate::swarm;\nfn a() {}",
        "/* a /* todo!() */ tokio */ fn a() {}",
        r#"const A: &str = "todo!() \" tokio";"#,
        r##"const A: &str = r#"todo!() " tokio"#;"##,
        r#"const A: &[u8] = b"tokio"; const B: char = '"'; const C: u8 = b'\''; // tokio"#,
        "fn a<'a>(b: &'a str) -> &'a str { b } // 'tokio'",
    ] {
        check_finding("src/id.rs", text, "");
    }
    let after_a_lifetime = "fn a<'a>(b: &'a str) -> &'a str { todo!() }";
    check_finding("src/id.rs", after_a_lifetime, "unfinished");
    let after_a_string = r##"fn a() { b(r#"x"#, "y\\", '\\', 'z'); todo!() }"##;
    check_finding("src/id.rs", after_a_string, "unfinished");
}
