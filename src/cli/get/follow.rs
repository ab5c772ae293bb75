//! Links that follow a torrent through its versions (BEP 46): which one the item in the DHT names
//! now.

use std::time::Duration;

use data_encoding::HEXLOWER;
use serde_json::json;

use crate::cli::args::Global;
use crate::cli::dht::value::NOTHING;
use crate::cli::print::{Failure, note, print_json};
use crate::dht::item::mutable_target;
use crate::dht::{Event, Item, LookupReport};
use crate::metainfo::Magnet;
use crate::metainfo::mutable_link::{MutableLink, named_torrent};
use crate::net::dht::{DhtHandle, Lookup};

/// Time between two lookups while no node answers.
const RETRY: Duration = Duration::from_secs(2);

/// The link to the torrent that a mutable link names now. Looks as long as no node answers.
///
/// # Errors
///
/// There is no DHT, nothing is stored under the key, or it names no torrent.
pub(super) async fn current(
    link: &MutableLink,
    dht: Option<&DhtHandle>,
    global: &Global,
) -> Result<Magnet, Failure> {
    let Some(dht) = dht else {
        return Err(
            Failure::new(format!("cannot look up {link} without the DHT"))
                .hint("leave --no-dht away, or give the info hash itself"),
        );
    };
    let target = mutable_target(&link.key, &link.salt);
    if !global.json && global.quiet == 0 {
        note(&format!("looking up which torrent {link} names"));
    }
    let item = loop {
        let lookup = dht.get_item(target, &link.salt).await;
        let (item, report) = newest(lookup).await;
        match item {
            Some(item) => break item,
            None if report.answered > 0 => {
                return Err(Failure::new(format!("nothing is stored for {link}")).hint(
                    "such items are gone two hours after their publisher put them last; try again \
                     later",
                ));
            }
            None => tokio::time::sleep(RETRY).await,
        }
    };
    let seq = item.seq();
    let Some(info_hash) = named_torrent(item.value()) else {
        if item.value() == NOTHING {
            return Err(
                Failure::new(format!("{link} was withdrawn by its publisher"))
                    .hint("it names no torrent any more; ask for another link"),
            );
        }
        let key = HEXLOWER.encode(&link.key);
        return Err(
            Failure::new(format!("what is stored for {link} names no torrent"))
                .hint(format!("look at it with `trackless dht get --key {key}`")),
        );
    };
    if global.json {
        print_json(&json!({
            "event": "item",
            "key": HEXLOWER.encode(&link.key),
            "salt": String::from_utf8_lossy(&link.salt),
            "seq": seq,
            "info_hash": info_hash.to_string(),
        }));
    } else if global.quiet == 0 {
        note(&format!(
            "it names {info_hash}, version {}",
            seq.unwrap_or_default()
        ));
    }
    Ok(link.magnet(info_hash))
}

/// The newest version that a lookup found, at its end.
async fn newest(mut lookup: Lookup) -> (Option<std::sync::Arc<Item>>, LookupReport) {
    let mut newest: Option<std::sync::Arc<Item>> = None;
    let mut report = LookupReport::default();
    while let Some(event) = lookup.next().await {
        match event {
            Event::ItemFound { item, .. } => {
                if newest.as_ref().is_none_or(|known| item.seq() > known.seq()) {
                    newest = Some(item);
                }
            }
            Event::LookupDone { report: ended, .. } => report = ended,
            Event::PeersFound { .. }
            | Event::SamplesFound { .. }
            | Event::Step { .. }
            | Event::Announced { .. }
            | Event::AddressChanged { .. }
            | Event::TableChanged { .. } => {}
        }
    }
    (newest, report)
}
