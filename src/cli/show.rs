//! `trackless show`: what a magnet link or .torrent file says.

use std::path::Path;

use data_encoding::HEXLOWER;
use serde_json::{Value, json};

use super::args::{Global, ShowArgs};
use super::print::{
    Exit, Failure, count, escape, note, number, print_json, print_line, shorten, size,
};
use crate::dht::item::mutable_target;
use crate::id::InfoHash;
use crate::metainfo::{File, Info, Magnet, MagnetError, Metainfo, MutableLink};

/// What a user named: a link, or a file that was read.
pub(super) enum Source {
    /// A magnet link or a bare info hash.
    Magnet(Magnet),
    /// A .torrent file.
    Metainfo(Box<Metainfo>),
}

/// What is accepted where a torrent is named.
pub(super) const ACCEPTED: &str = "give a magnet link in quotes (the shell takes & for itself), an \
    info hash of 40 hexadecimal or 32 base-32 digits, or the path of a .torrent file";

impl Source {
    /// Reads a magnet link, an info hash, or the .torrent file at a path.
    ///
    /// # Errors
    ///
    /// It is none of these, or the file cannot be read or is no acceptable torrent.
    pub(super) fn read(text: &str) -> Result<Self, Failure> {
        let path = Path::new(text);
        let is_link = begins_with(text, "magnet:");
        if !is_link && path.exists() {
            return read_torrent(path).map(|metainfo| Self::Metainfo(Box::new(metainfo)));
        }
        if is_web_address(text) {
            return Err(Failure::new(format!(
                "{} is on the web, and this command reads files only",
                shorten(text, 80)
            ))
            .hint("`trackless get --metadata-only URL` fetches a .torrent file")
            .exit(Exit::Usage));
        }
        Magnet::parse(text).map(Self::Magnet).map_err(|error| {
            if is_link {
                Failure::because("bad magnet link", &error)
            } else {
                Failure::new(format!("`{}` {}", shorten(text, 80), no_source(text)))
            }
            .hint(match error {
                MagnetError::V2Only => V2_ONLY,
                _ if names_torrent(text) => NO_SUCH_TORRENT,
                _ => ACCEPTED,
            })
            .exit(Exit::Usage)
        })
    }
}

/// Whether text is the address of something on the web.
pub(super) fn is_web_address(text: &str) -> bool {
    begins_with(text, "http://") || begins_with(text, "https://")
}

fn begins_with(text: &str, scheme: &str) -> bool {
    text.get(..scheme.len())
        .is_some_and(|start| start.eq_ignore_ascii_case(scheme))
}

/// What to do about a link to a torrent of version 2 alone.
const V2_ONLY: &str = "trackless knows torrents of version 1, which are found by their SHA-1 info hash; a hybrid torrent \
     has both, and a link to it that names `xt=urn:btih:` works";

/// What to do about a path of a .torrent file that is not there.
const NO_SUCH_TORRENT: &str = "look at the path again: it starts from the folder in which the command runs, unless it starts \
     with a slash";

/// Whether text is meant as the path of a .torrent file.
fn names_torrent(text: &str) -> bool {
    text.to_ascii_lowercase().ends_with(".torrent")
}

/// Why text that is no link and no file is no info hash either.
fn no_source(text: &str) -> String {
    let digits = text.chars().count();
    if text.contains(['/', '.']) || digits == 0 {
        "is no file that exists".to_owned()
    } else if text.chars().all(|c| c.is_ascii_hexdigit()) {
        format!("is no file that exists, and an info hash has 40 digits, not {digits}")
    } else {
        "is no magnet link, no info hash and no file that exists".to_owned()
    }
}

/// Reads an info hash, bare or in a magnet link, for an argument that takes no files.
pub(super) fn info_hash(text: &str) -> Result<InfoHash, String> {
    Magnet::parse(text)
        .map(|magnet| magnet.info_hash)
        .map_err(|error| {
            let what = "an info hash has 40 hexadecimal or 32 base-32 digits";
            match error {
                MagnetError::Scheme => {
                    format!(
                        "{what}, this has {}",
                        count(number(text.chars().count()), "character")
                    )
                }
                error => error.to_string(),
            }
        })
}

/// Reads a .torrent file.
///
/// # Errors
///
/// The file cannot be read, or is no acceptable torrent.
pub(super) fn read_torrent(path: &Path) -> Result<Metainfo, Failure> {
    let what = || format!("{} is no .torrent file", path.display());
    let metadata = std::fs::metadata(path).map_err(|error| cannot_read(path, &error))?;
    if metadata.is_dir() {
        return Err(
            Failure::new(format!("{} is a folder, no .torrent file", path.display()))
                .hint(
                    "`trackless seed` makes it available under a magnet link, `trackless create` \
                     makes a .torrent file for it",
                )
                .exit(Exit::Usage),
        );
    }
    let length = metadata.len();
    if length > u64::try_from(crate::bencode::Limits::METAINFO.length_max).unwrap_or(u64::MAX) {
        return Err(Failure::new(format!("{}: it is too large", what())));
    }
    let bytes = std::fs::read(path).map_err(|error| cannot_read(path, &error))?;
    Metainfo::parse(&bytes).map_err(|error| {
        Failure::because(what(), &error).hint(
            "content itself is shared with `trackless seed`, and compared with `trackless verify`",
        )
    })
}

fn cannot_read(path: &Path, error: &std::io::Error) -> Failure {
    Failure::because(format!("cannot read {}", path.display()), error)
}

/// Runs the command.
pub(super) fn run(args: &ShowArgs, global: &Global) -> Result<Exit, Failure> {
    let link = mutable_link(&args.source)?;
    if let Some(link) = link {
        if global.json {
            print_json(&link_json(&link));
        } else {
            link_text(&link);
        }
        return Ok(Exit::Done);
    }
    let source = Source::read(&args.source)?;
    match (&source, global.json) {
        (Source::Magnet(magnet), true) => print_json(&magnet_json(magnet)),
        (Source::Magnet(magnet), false) => magnet_text(magnet),
        (Source::Metainfo(metainfo), true) => print_json(&metainfo_json(metainfo)),
        (Source::Metainfo(metainfo), false) => metainfo_text(metainfo),
    }
    Ok(Exit::Done)
}

/// Reads a magnet link that names a key in place of a torrent (BEP 46); `None` for all other texts.
///
/// # Errors
///
/// It is such a link, and its key or salt is none.
pub(super) fn mutable_link(text: &str) -> Result<Option<MutableLink>, Failure> {
    MutableLink::parse(text)
        .map_err(|error| Failure::because("bad magnet link", &error).exit(Exit::Usage))
}

/// A link with a key says nothing of a torrent: which one it is stands in the DHT.
fn link_json(link: &MutableLink) -> Value {
    json!({
        "info_hash": null,
        "info_hash_v2": null,
        "name": link.name(),
        "total_length": null,
        "piece_length": null,
        "piece_count": null,
        "files": null,
        "private": null,
        "trackers": [],
        "web_seeds": [],
        "nodes": [],
        "key": HEXLOWER.encode(&link.key),
        "salt": String::from_utf8_lossy(&link.salt),
        "target": mutable_target(&link.key, &link.salt).to_string(),
        "magnet": link.to_string(),
    })
}

fn link_text(link: &MutableLink) {
    field("name", link.name().unwrap_or_default());
    field("public key", &HEXLOWER.encode(&link.key));
    field("salt", &String::from_utf8_lossy(&link.salt));
    let target = mutable_target(&link.key, &link.salt);
    field("target", &target.to_string());
    field("magnet", &link.to_string());
    note(
        "a link to whatever torrent the owner of the key names at the moment (BEP 46); `trackless \
         get` looks it up, `trackless dht get --key` shows it",
    );
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
    let all: Vec<usize> = info.files().wanted().map(|(index, _)| index).collect();
    let nodes: Vec<String> = metainfo
        .nodes
        .iter()
        .map(|(host, port)| host_port(host, *port))
        .collect();
    json!({
        "info_hash": info.info_hash().to_string(),
        "info_hash_v2": info.info_hash_v2().map(|hash| HEXLOWER.encode(&hash)),
        "name": info.name(),
        "total_length": info.files().wanted_length(),
        "piece_length": info.geometry().piece_length(),
        "piece_count": info.geometry().piece_count(),
        "files": files_json(info, &all),
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

/// Some of the files, each with the index by which `get --files` chooses it.
pub(super) fn files_json(info: &Info, files: &[usize]) -> Vec<Value> {
    chosen(info, files)
        .map(|(index, file)| {
            json!({"index": index, "path": file.joined_path(), "length": file.length})
        })
        .collect()
}

/// The same as a table: index, size, path.
pub(super) fn files_text(info: &Info, files: &[usize]) {
    for (index, file) in chosen(info, files) {
        print_line(&format!(
            "{index:>5} {:>11}  {}",
            size(file.length),
            escape(&file.joined_path())
        ));
    }
}

/// The files of these indexes, which are ascending.
fn chosen<'a>(info: &'a Info, files: &'a [usize]) -> impl Iterator<Item = (usize, &'a File)> {
    info.files()
        .wanted()
        .filter(|(index, _)| files.binary_search(index).is_ok())
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
        field("info hash v2", &HEXLOWER.encode(&hash));
    }
    let length = info.files().wanted_length();
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
    let all: Vec<usize> = info.files().wanted().map(|(index, _)| index).collect();
    files_text(info, &all);
}

#[cfg(test)]
mod tests {
    use super::*;
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
            {"index": 0, "path": "folder/a/b.txt", "length": 10_000},
            {"index": 1, "path": "folder/c.txt", "length": 10_000},
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
    fn a_link_with_a_key_is_shown_as_what_it_is() {
        let key = "8543d3e6115f0f98c944077a4493dcd543e49c739fd998550a1f614ab36ed63e";
        let text = format!("magnet:?xs=urn:btpk:{key}&s=6e&dn=news");
        let link = mutable_link(&text).unwrap().unwrap();
        let value = link_json(&link);
        check_keys(&value);
        assert!(value["info_hash"].is_null());
        assert_eq!(
            (&value["key"], &value["salt"], &value["name"]),
            (&json!(key), &json!("n"), &json!("news"))
        );
        let target = mutable_target(&link.key, b"n").to_string();
        assert_eq!(value["target"], json!(target));
        assert_eq!(mutable_link(HASH).unwrap(), None);
        let bad = mutable_link("magnet:?xs=urn:btpk:abcd").unwrap_err();
        assert_eq!(bad.exit, Exit::Usage);
    }

    #[test]
    fn a_bare_info_hash_is_a_source() {
        assert!(matches!(Source::read(HASH), Ok(Source::Magnet(magnet)) if magnet.name.is_none()));
    }

    #[track_caller]
    fn check_refused(text: &str, part: &str) {
        let Err(failure) = Source::read(text) else {
            panic!("`{text}` was read");
        };
        assert_eq!(failure.exit, Exit::Usage, "{text}");
        assert!(failure.message.contains(part), "{}", failure.message);
        assert!(failure.hint.is_some(), "{text}");
    }

    #[test]
    fn a_link_to_a_v2_only_torrent_is_refused_with_the_reason() {
        let link = format!("magnet:?xt=urn:btmh:1220{}", "ab".repeat(32));
        check_refused(&link, "v2-only torrent (BEP 52), which is not supported");
        let hint = Source::read(&link).err().and_then(|failure| failure.hint);
        assert_eq!(hint.as_deref(), Some(V2_ONLY));
    }

    #[test]
    fn what_is_no_source_is_refused_with_what_is_accepted() {
        check_refused("", "no file that exists");
        check_refused(
            "nowhere.torrent",
            "`nowhere.torrent` is no file that exists",
        );
        check_refused("abc", "an info hash has 40 digits, not 3");
        check_refused("who knows", "no magnet link, no info hash");
        check_refused("magnet:", "bad magnet link");
        check_refused("magnet:?dn=x", "bad magnet link");
        check_refused("HTTPS://x/y.torrent", "is on the web");
    }

    #[test]
    fn a_folder_and_content_are_called_what_they_are() {
        let folder = tempfile::tempdir().unwrap();
        check_refused(folder.path().to_str().unwrap(), "is a folder, no .torrent");
        let file = folder.path().join("a.bin");
        std::fs::write(&file, "content").unwrap();
        let Err(failure) = Source::read(file.to_str().unwrap()) else {
            panic!("content was read as a torrent");
        };
        assert_eq!(failure.exit, Exit::Failed);
        assert!(
            failure.message.contains("a.bin is no .torrent file: "),
            "{}",
            failure.message
        );
    }

    #[test]
    fn an_argument_that_is_no_info_hash_is_told_what_one_is() {
        assert!(info_hash(HASH).is_ok());
        let why = info_hash("abc").unwrap_err();
        assert_eq!(
            why,
            "an info hash has 40 hexadecimal or 32 base-32 digits, this has 3 characters"
        );
        assert!(
            info_hash("magnet:?dn=x")
                .unwrap_err()
                .contains("no info hash")
        );
    }
}
