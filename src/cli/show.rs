//! `trackless show`: what a magnet link or .torrent file says.

use std::path::Path;

use serde_json::{Value, json};

use super::args::{Global, ShowArgs};
use super::print::{Exit, Failure, count, escape, print_json, print_line, size};
use crate::metainfo::{Magnet, Metainfo};

/// What a user named: a link, or a file that was read.
pub(super) enum Source {
    /// A magnet link or a bare info hash.
    Magnet(Magnet),
    /// A .torrent file.
    Metainfo(Box<Metainfo>),
}

impl Source {
    /// Reads a magnet link, an info hash, or the .torrent file at a path.
    ///
    /// # Errors
    ///
    /// It is none of these, or the file cannot be read or is no acceptable torrent.
    pub(super) fn read(text: &str) -> Result<Self, Failure> {
        let path = Path::new(text);
        let looks_like_link = text
            .get(..7)
            .is_some_and(|s| s.eq_ignore_ascii_case("magnet:"));
        if !looks_like_link && path.exists() {
            return read_torrent(path).map(|metainfo| Self::Metainfo(Box::new(metainfo)));
        }
        match Magnet::parse(text) {
            Ok(magnet) => Ok(Self::Magnet(magnet)),
            Err(error) if looks_like_link => Err(Failure::because("bad magnet link", &error)),
            Err(_) if text.starts_with("http://") || text.starts_with("https://") => Err(
                Failure::new(format!("`{text}`: web addresses are not supported"))
                    .hint("download the .torrent file first, then name the file"),
            ),
            Err(_) => Err(Failure::new(format!(
                "`{text}` is no magnet link, no info hash and no file that exists"
            ))
            .hint("put a magnet link in quotes: the shell takes & for itself")),
        }
    }
}

/// Reads a .torrent file.
///
/// # Errors
///
/// The file cannot be read, or is no acceptable torrent.
pub(super) fn read_torrent(path: &Path) -> Result<Metainfo, Failure> {
    let what = || format!("cannot use {}", path.display());
    let length = std::fs::metadata(path)
        .map_err(|error| Failure::because(what(), &error))?
        .len();
    if length > u64::try_from(crate::bencode::Limits::METAINFO.length_max).unwrap_or(u64::MAX) {
        return Err(Failure::new(format!(
            "{}: too large for a .torrent file",
            what()
        )));
    }
    let bytes = std::fs::read(path).map_err(|error| Failure::because(what(), &error))?;
    Metainfo::parse(&bytes).map_err(|error| Failure::because(what(), &error))
}

/// Runs the command.
pub(super) fn run(args: &ShowArgs, global: &Global) -> Result<Exit, Failure> {
    let source = Source::read(&args.source)?;
    match (&source, global.json) {
        (Source::Magnet(magnet), true) => print_json(&magnet_json(magnet)),
        (Source::Magnet(magnet), false) => magnet_text(magnet),
        (Source::Metainfo(metainfo), true) => print_json(&metainfo_json(metainfo)),
        (Source::Metainfo(metainfo), false) => metainfo_text(metainfo),
    }
    Ok(Exit::Done)
}

fn magnet_json(magnet: &Magnet) -> Value {
    // Each `tr` of a magnet link is a tier of its own: the link says nothing of tiers.
    let tiers: Vec<[&String; 1]> = magnet.trackers.iter().map(|tracker| [tracker]).collect();
    json!({
        "info_hash": magnet.info_hash.to_string(),
        "info_hash_v2": null,
        "name": magnet.name,
        "total_length": null,
        "piece_length": null,
        "piece_count": null,
        "files": null,
        "private": null,
        "trackers": tiers,
        "web_seeds": magnet.web_seeds,
        "nodes": [],
        "peers": peers(magnet),
        "magnet": magnet.to_string(),
    })
}

fn metainfo_json(metainfo: &Metainfo) -> Value {
    let info = &metainfo.info;
    let files: Vec<Value> = info
        .files()
        .all()
        .iter()
        .filter(|file| !file.is_pad)
        .map(|file| json!({"path": file.path.join("/"), "length": file.length}))
        .collect();
    let nodes: Vec<String> = metainfo
        .nodes
        .iter()
        .map(|(host, port)| host_port(host, *port))
        .collect();
    json!({
        "info_hash": info.info_hash().to_string(),
        "info_hash_v2": info.info_hash_v2().map(|hash| data_encoding::HEXLOWER.encode(&hash)),
        "name": info.name(),
        "total_length": wanted_length(metainfo),
        "piece_length": info.geometry().piece_length(),
        "piece_count": info.geometry().piece_count(),
        "files": files,
        "private": info.is_private(),
        "trackers": metainfo.trackers,
        "web_seeds": metainfo.web_seeds,
        "nodes": nodes,
        "comment": metainfo.comment,
        "created_by": metainfo.created_by,
        "creation_date": metainfo.creation_date,
        "source": info.source(),
        "magnet": metainfo.magnet().to_string(),
    })
}

/// Bytes in all files that would be written: pad files are not.
fn wanted_length(metainfo: &Metainfo) -> u64 {
    metainfo
        .info
        .files()
        .all()
        .iter()
        .filter(|file| !file.is_pad)
        .map(|file| file.length)
        .sum()
}

fn host_port(host: &str, port: u16) -> String {
    if host.contains(':') {
        format!("[{host}]:{port}")
    } else {
        format!("{host}:{port}")
    }
}

fn peers(magnet: &Magnet) -> Vec<String> {
    let named = magnet
        .peer_hosts
        .iter()
        .map(|(host, port)| host_port(host, *port));
    magnet
        .peers
        .iter()
        .map(ToString::to_string)
        .chain(named)
        .collect()
}

/// Prints one labelled line, unless there is nothing to say.
fn field(label: &str, value: &str) {
    if !value.is_empty() {
        print_line(&format!("{label:<13} {}", escape(value)));
    }
}

fn magnet_text(magnet: &Magnet) {
    field(
        "name",
        magnet
            .name
            .as_deref()
            .unwrap_or("(comes with the metadata)"),
    );
    field("info hash", &magnet.info_hash.to_string());
    for tracker in &magnet.trackers {
        field("tracker", tracker);
    }
    for web_seed in &magnet.web_seeds {
        field("web seed", web_seed);
    }
    for peer in peers(magnet) {
        field("peer", &peer);
    }
    field("magnet", &magnet.to_string());
}

fn metainfo_text(metainfo: &Metainfo) {
    let info = &metainfo.info;
    let geometry = info.geometry();
    field("name", info.name());
    field("info hash", &info.info_hash().to_string());
    if let Some(hash) = info.info_hash_v2() {
        field("info hash v2", &data_encoding::HEXLOWER.encode(&hash));
    }
    let length = wanted_length(metainfo);
    field(
        "size",
        &format!("{} ({})", size(length), count(length, "byte")),
    );
    field(
        "pieces",
        &format!(
            "{} of {}",
            geometry.piece_count(),
            size(u64::from(geometry.piece_length()))
        ),
    );
    if info.is_private() {
        field("private", "yes: peers come from its trackers only");
    }
    for (tier, trackers) in metainfo.trackers.iter().enumerate() {
        for tracker in trackers {
            field(&format!("tracker {tier}"), tracker);
        }
    }
    for web_seed in &metainfo.web_seeds {
        field("web seed", web_seed);
    }
    for (host, port) in &metainfo.nodes {
        field("DHT node", &host_port(host, *port));
    }
    field("comment", metainfo.comment.as_deref().unwrap_or_default());
    field(
        "created by",
        metainfo.created_by.as_deref().unwrap_or_default(),
    );
    field("source", info.source().unwrap_or_default());
    field("magnet", &metainfo.magnet().to_string());
    print_line("");
    for file in info.files().all().iter().filter(|file| !file.is_pad) {
        print_line(&format!(
            "{:>12}  {}",
            size(file.length),
            escape(&file.path.join("/"))
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metainfo::Info;
    use crate::metainfo::build::InfoDraft;

    const HASH: &str = "0123456789abcdef0123456789abcdef01234567";

    /// The keys of `show --json` that CLI.md promises.
    const KEYS: [&str; 11] = [
        "info_hash",
        "info_hash_v2",
        "name",
        "total_length",
        "piece_length",
        "piece_count",
        "files",
        "private",
        "trackers",
        "web_seeds",
        "nodes",
    ];

    #[track_caller]
    fn check_keys(value: &Value) {
        for key in KEYS.into_iter().chain(["magnet"]) {
            assert!(value.get(key).is_some(), "{key} in {value}");
        }
    }

    fn torrent() -> Metainfo {
        let draft = InfoDraft {
            name: "folder".to_owned(),
            piece_length: 16_384,
            files: vec![
                (vec!["a".to_owned(), "b.txt".to_owned()], 10_000),
                (vec!["c.txt".to_owned()], 10_000),
            ],
            ..InfoDraft::default()
        };
        let info = Info::parse(draft.encode(&[7; 40])).unwrap();
        let mut metainfo = Metainfo::new(std::sync::Arc::new(info));
        metainfo.nodes = vec![("::1".to_owned(), 1), ("a.example".to_owned(), 2)];
        metainfo
    }

    #[test]
    fn a_torrent_is_shown_with_the_keys_that_programs_rely_on() {
        let value = metainfo_json(&torrent());
        check_keys(&value);
        let files = json!([
            {"path": "folder/a/b.txt", "length": 10_000},
            {"path": "folder/c.txt", "length": 10_000},
        ]);
        assert_eq!(value["files"], files);
        assert_eq!(
            (&value["total_length"], &value["piece_count"]),
            (&json!(20_000), &json!(2))
        );
        assert_eq!(value["nodes"], json!(["[::1]:1", "a.example:2"]));
        let hash = value["info_hash"].as_str().unwrap();
        assert!(value["magnet"].as_str().unwrap().contains(hash));
    }

    #[test]
    fn a_magnet_link_is_shown_with_the_same_keys() {
        let link = format!(
            "magnet:?xt=urn:btih:{}&dn=some+name&tr=http://t/",
            HASH.to_uppercase()
        );
        let Ok(Source::Magnet(magnet)) = Source::read(&link) else {
            panic!("not read as a magnet link");
        };
        let value = magnet_json(&magnet);
        check_keys(&value);
        assert_eq!(
            (&value["info_hash"], &value["name"]),
            (&json!(HASH), &json!("some name"))
        );
        assert_eq!(value["trackers"], json!([["http://t/"]]));
    }

    #[test]
    fn a_bare_info_hash_is_a_source() {
        assert!(matches!(Source::read(HASH), Ok(Source::Magnet(magnet)) if magnet.name.is_none()));
    }

    #[test]
    fn what_is_no_source_is_refused_with_a_hint() {
        for text in [
            "",
            "nowhere.torrent",
            "magnet:",
            "magnet:?dn=x",
            "http://x/y.torrent",
        ] {
            let Err(failure) = Source::read(text) else {
                panic!("`{text}` was read");
            };
            assert_eq!(failure.exit, Exit::Failed);
            assert_eq!(
                failure.hint.is_some(),
                !text.starts_with("magnet:"),
                "{text}"
            );
        }
    }
}
