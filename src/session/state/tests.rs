//! What is kept between runs comes back, whole or not at all.

use std::fmt;

use tracing::field::{Field, Visit};
use tracing::span;

use super::*;

fn snapshot() -> Snapshot {
    let contact = |byte, address: &str| ContactInfo {
        id: NodeId::new([byte; 20]),
        address: address.parse().unwrap(),
    };
    Snapshot {
        ids: vec![
            (Family::V4, NodeId::new([1; 20])),
            (Family::V6, NodeId::new([2; 20])),
        ],
        contacts: vec![contact(3, "10.0.0.1:6881"), contact(4, "[fd00::1]:6882")],
    }
}

#[test]
fn what_was_saved_comes_back() {
    let folder = tempfile::tempdir().unwrap();
    let state = StateDir::open(folder.path()).unwrap();
    assert_eq!(state.load_table(), None);
    let addresses = ["127.0.0.1:7".parse().unwrap(), "[::1]:7".parse().unwrap()];
    state.save_table(&snapshot(), &addresses).unwrap();
    let saved = state.load_table().unwrap();
    assert_eq!(saved.snapshot, snapshot());
    let ids = snapshot().ids.into_iter().map(|(_, id)| Some(id));
    assert_eq!(saved.ids_for(&addresses), ids.collect::<Vec<_>>());
    assert!(!folder.path().join("dht.state.tmp").exists());
}

/// Keeps the target and the message of what is logged as a warning.
#[derive(Debug, Clone, Default)]
struct Warnings(Arc<Mutex<Vec<(String, String)>>>);

impl tracing::Subscriber for Warnings {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        *metadata.level() <= tracing::Level::WARN
    }

    fn new_span(&self, _span: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _span: &span::Id, _values: &span::Record<'_>) {}

    fn record_follows_from(&self, _span: &span::Id, _follows: &span::Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        struct Message(String);
        impl Visit for Message {
            fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
                if field.name() == "message" {
                    self.0 = format!("{value:?}");
                }
            }
        }
        let mut message = Message(String::new());
        event.record(&mut message);
        let target = event.metadata().target().to_owned();
        self.0.lock().unwrap().push((target, message.0));
    }

    fn enter(&self, _span: &span::Id) {}

    fn exit(&self, _span: &span::Id) {}
}

#[test]
fn that_state_is_not_kept_is_said_once_and_so_is_that_it_is_kept_again() {
    let folder = tempfile::tempdir().unwrap();
    let state = StateDir::open(folder.path()).unwrap();
    let info_hash = InfoHash::new([1; 20]);
    let warnings = Warnings::default();
    let _guard = tracing::subscriber::set_default(warnings.clone());
    // The default filter of `get` lets pass what has this target.
    let expect = |messages: &[&str]| {
        let target = "trackless::session::state".to_owned();
        let told = messages.iter().map(|m| (target.clone(), (*m).to_owned()));
        let mut warnings = warnings.0.lock().unwrap();
        assert_eq!(std::mem::take(&mut *warnings), told.collect::<Vec<_>>());
    };
    let save = || {
        let table = state.save_table(&snapshot(), &[]).is_ok();
        (
            table,
            state.save_resume(info_hash, &Kept::default()).is_ok(),
        )
    };
    assert_eq!(save(), (true, true));
    expect(&[]);
    // In the way of both.
    let table = folder.path().join("dht.state.tmp");
    let resume = folder.path().join(format!("resume/{info_hash}.resume.tmp"));
    fs::create_dir(&table).unwrap();
    fs::create_dir(&resume).unwrap();
    assert_eq!(save(), (false, false));
    expect(&["state is not kept; it is tried again"]);
    assert_eq!(save(), (false, false));
    expect(&[]);
    fs::remove_dir(&table).unwrap();
    assert_eq!(save(), (true, false));
    expect(&[]);
    fs::remove_dir(&resume).unwrap();
    assert_eq!(save(), (true, true));
    expect(&["state is kept again"]);
    // What is over is not waited for.
    fs::create_dir(&resume).unwrap();
    assert_eq!(save(), (true, false));
    state.forget_failures(info_hash);
    fs::create_dir(&table).unwrap();
    assert!(state.save_table(&snapshot(), &[]).is_err());
    expect(&["state is not kept; it is tried again"; 2]);
}

#[test]
fn those_who_save_at_the_same_time_do_not_disturb_each_other() {
    let folder = tempfile::tempdir().unwrap();
    let state = StateDir::open(folder.path()).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..50 {
                    state.save_table(&snapshot(), &[]).unwrap();
                }
            });
        }
    });
    assert_eq!(state.load_snapshot(), Some(snapshot()));
}

#[test]
fn a_second_session_is_refused_until_the_first_is_gone() {
    let folder = tempfile::tempdir().unwrap();
    let first = StateDir::open(folder.path()).unwrap();
    let second = StateDir::open(folder.path());
    assert!(
        matches!(second, Err(StateError::Locked { .. })),
        "{second:?}"
    );
    drop(first);
    assert!(StateDir::open(folder.path()).is_ok());
}

#[test]
fn an_unreadable_file_is_moved_aside_and_never_deleted() {
    let folder = tempfile::tempdir().unwrap();
    let state = StateDir::open(folder.path()).unwrap();
    let path = folder.path().join(DHT_FILE);
    let cases: [&[u8]; 3] = [b"", b"garbage", b"d8:contactsi1ee"];
    for content in cases {
        fs::write(&path, content).unwrap();
        assert_eq!(state.load_table(), None, "{content:?}");
        assert!(!path.exists());
    }
    let kept = fs::read_dir(folder.path())
        .unwrap()
        .filter(|entry| {
            entry
                .as_ref()
                .unwrap()
                .file_name()
                .to_string_lossy()
                .contains(".bad")
        })
        .count();
    assert_eq!(kept, cases.len());
}

#[test]
fn a_file_of_a_newer_version_is_not_read() {
    let mut file = bencode::to_bytes(&DhtFile {
        contacts: ByteBuf::new(),
        contacts6: ByteBuf::new(),
        ids: Vec::new(),
        locals: Vec::new(),
        version: VERSION + 1,
    });
    assert!(decode(&file).unwrap_err().contains("version 2"));
    file.clear();
    assert!(decode(&file).is_err());
}

#[test]
fn nodes_of_one_family_get_back_the_ids_of_their_addresses() {
    let address = |text: &str| text.parse::<SocketAddr>().unwrap();
    let id = |byte| NodeId::new([byte; 20]);
    let two = Snapshot {
        ids: vec![
            (Family::V4, id(1)),
            (Family::V4, id(2)),
            (Family::V6, id(3)),
        ],
        contacts: Vec::new(),
    };
    let were = ["127.0.0.1:7", "127.0.0.2:7", "[::1]:7"].map(address);
    let saved = decode(&encode(&two, &were)).unwrap();
    for (now, ids) in [
        (vec!["127.0.0.2:7", "127.0.0.1:7"], vec![Some(2), Some(1)]),
        // Another port of the same host.
        (vec!["127.0.0.9:7", "127.0.0.2:8"], vec![Some(1), Some(2)]),
        (
            vec!["127.0.0.1:7", "127.0.0.1:8", "[::2]:1"],
            vec![Some(1), Some(2), Some(3)],
        ),
        (vec!["[::2]:1", "[::3]:1"], vec![Some(3), None]),
    ] {
        let now: Vec<_> = now.into_iter().map(address).collect();
        let ids: Vec<_> = ids.into_iter().map(|byte| byte.map(id)).collect();
        assert_eq!(saved.ids_for(&now), ids, "{now:?}");
    }
}

#[test]
fn a_file_that_names_no_addresses_gives_ids_by_family() {
    let saved = decode(&encode(&snapshot(), &[])).unwrap();
    let addresses: Vec<SocketAddr> = ["127.0.0.1:7", "127.0.0.2:7", "[::1]:7"]
        .iter()
        .map(|text| text.parse().unwrap())
        .collect();
    let id = |byte| Some(NodeId::new([byte; 20]));
    assert_eq!(saved.ids_for(&addresses), [id(1), None, id(2)]);
}

#[test]
fn metadata_is_kept_and_believed_only_if_its_hash_is_right() {
    let folder = tempfile::tempdir().unwrap();
    let state = StateDir::open(folder.path()).unwrap();
    let raw = b"d6:lengthi1e4:name1:a12:piece lengthi16384e6:pieces20:aaaaaaaaaaaaaaaaaaaae";
    let info = Info::parse(raw.as_slice().into()).unwrap();
    let info_hash = info.info_hash();
    assert!(state.load_info(info_hash).is_none());
    state.save_info(&info).unwrap();
    assert_eq!(state.load_info(info_hash).unwrap().raw(), info.raw());
    // A fuller file is not replaced.
    let full = [b"d7:comment2:hi4:info", &raw[..], b"e"].concat();
    let path = state.save_torrent(info_hash, &full).unwrap();
    state.save_info(&info).unwrap();
    assert_eq!(fs::read(&path).unwrap(), full);
    // One that is something else is moved aside.
    let other = String::from_utf8_lossy(&full).replace("4:name1:a", "4:name1:b");
    fs::write(&path, other).unwrap();
    assert!(state.load_info(info_hash).is_none() && !path.exists());
    state.save_info(&info).unwrap();
    assert!(state.load_info(info_hash).is_some());
}

#[test]
fn metadata_of_any_length_that_is_accepted_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    let state = StateDir::open(folder.path()).unwrap();
    let before = b"d6:lengthi1e4:name1:a12:piece lengthi16384e6:pieces20:aaaaaaaaaaaaaaaaaaaa1:x";
    // An unknown key makes it as long as it may be: eight digits, a colon, and the last `e`.
    let filler = Limits::METAINFO.length_max - before.len() - 8 - 2;
    let raw = [
        before,
        format!("{filler}:").as_bytes(),
        &vec![b'x'; filler],
        b"e",
    ]
    .concat();
    assert_eq!(raw.len(), Limits::METAINFO.length_max);
    let info = Info::parse(raw.into()).unwrap();
    state.save_info(&info).unwrap();
    let loaded = state.load_info(info.info_hash()).unwrap();
    assert!(loaded.raw() == info.raw());
}

#[test]
fn how_far_a_torrent_came_is_kept_and_a_file_that_is_too_long_is_moved_aside() {
    let folder = tempfile::tempdir().unwrap();
    let state = StateDir::open(folder.path()).unwrap();
    let info_hash = InfoHash::new([1; 20]);
    assert!(state.load_resume(info_hash).is_none());
    let mut kept = Kept::default();
    kept.resume.synced = true;
    kept.totals.uploaded = 9;
    state.save_resume(info_hash, &kept).unwrap();
    assert_eq!(state.load_resume(info_hash), Some(kept));
    let path = folder.path().join(format!("resume/{info_hash}.resume"));
    let long = OpenOptions::new().write(true).open(&path).unwrap();
    long.set_len(FILE_LENGTH_MAX + 1).unwrap();
    assert!(state.load_resume(info_hash).is_none());
    assert!(path.with_extension("resume.bad").exists() && !path.exists());
}

#[test]
fn torrents_are_kept_under_their_info_hash() {
    let folder = tempfile::tempdir().unwrap();
    let state = StateDir::open(folder.path()).unwrap();
    let path = state
        .save_torrent(InfoHash::new([0xab; 20]), b"de")
        .unwrap();
    assert!(path.ends_with(format!("torrents/{}.torrent", "ab".repeat(20))));
    assert_eq!(fs::read(path).unwrap(), b"de");
}
