//! Links that follow a torrent through its versions (BEP 46).

use std::fs;

use crate::command::{Running, run_quick, start_node, start_seeder_with, stderr, stdout, text};

#[test]
fn a_link_with_a_key_downloads_what_was_named_last() {
    let home = tempfile::tempdir().unwrap();
    let (_node, entry) = start_node(&home.path().join("node"), "none");
    let key = home.path().join("key");
    let mut link = String::new();
    let mut seeders: Vec<Running> = Vec::new();
    for (name, byte) in [("first.bin", 1), ("second.bin", 2)] {
        let content = home.path().join(name);
        fs::write(&content, vec![byte; 100_000]).unwrap();
        let state = home.path().join(format!("state-{name}"));
        let flags = [
            "--bootstrap",
            &entry,
            "--state-dir",
            state.to_str().unwrap(),
        ];
        let (mut seeder, magnet) = start_seeder_with(home.path(), &content, &flags);
        while matches!(text(&seeder.line(), "stored").as_str(), "0" | "null") {}
        seeders.push(seeder);
        let arguments = ["dht", "put", "--info-hash", &magnet, "--salt", "news"];
        let more = ["--key-file", key.to_str().unwrap(), "--bootstrap", &entry];
        let put = run_quick(home.path(), &[&arguments[..], &more].concat());
        assert_eq!(put.status.code(), Some(0), "{}", stderr(&put));
        let printed = stdout(&put);
        assert!(printed.starts_with("magnet:?xs=urn:btpk:"), "{printed}");
        assert!(printed.trim().ends_with("&s=6e657773"), "{printed}");
        // The link stays the same.
        assert!(link.is_empty() || link == printed.trim(), "{printed}");
        printed.trim().clone_into(&mut link);

        let output = home.path().join("fetched");
        let arguments = ["get", &link, "--json", "-o", output.to_str().unwrap()];
        let more = ["--bootstrap", &entry, "--timeout", "50s"];
        let got = run_quick(home.path(), &[&arguments[..], &more].concat());
        let printed = stdout(&got);
        assert_eq!(got.status.code(), Some(0), "{printed}{}", stderr(&got));
        let first = printed.lines().next().unwrap();
        assert_eq!(text(first, "event"), "item", "{first}");
        assert_eq!(text(first, "seq"), byte.to_string());
        assert!(magnet.contains(&text(first, "info_hash")), "{first}");
        assert_eq!(fs::read(output.join(name)).unwrap(), vec![byte; 100_000]);
    }
}

#[test]
fn a_link_nothing_is_stored_for_fails_with_a_hint() {
    let home = tempfile::tempdir().unwrap();
    let (_node, entry) = start_node(&home.path().join("node"), "none");
    let link = format!("magnet:?xs=urn:btpk:{}", "ab".repeat(32));
    let ended = run_quick(home.path(), &["get", &link, "--bootstrap", &entry]);
    let said = stderr(&ended);
    assert_eq!(ended.status.code(), Some(1), "{said}");
    assert!(said.contains("nothing is stored for magnet:?xs="), "{said}");
    assert!(said.contains("hint: "), "{said}");
    // Nobody answers there, and nobody is remembered.
    let home = tempfile::tempdir().unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let entry = taken.local_addr().unwrap().to_string();
    let ended = run_quick(
        home.path(),
        &["get", &link, "--bootstrap", &entry, "--timeout", "1s"],
    );
    let said = stderr(&ended);
    assert_eq!(ended.status.code(), Some(3), "{said}");
    for wrong in ["magnet:?xs=urn:btpk:abc", &format!("{link}&s=x")] {
        let ended = run_quick(home.path(), &["get", wrong, "--bootstrap", &entry]);
        assert_eq!(ended.status.code(), Some(2), "{}", stderr(&ended));
    }
    let ended = run_quick(
        home.path(),
        &["get", &link, "--no-dht", "--bootstrap", "none"],
    );
    assert_eq!(ended.status.code(), Some(1), "{}", stderr(&ended));
}
