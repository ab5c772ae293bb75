//! Metadata from peers.

use std::sync::Arc;

use bytes::Bytes;
use sha1::{Digest, Sha1};

use super::lab::{Lab, Manners};
use super::puppet::Puppet;
use super::{Content, config, content, seconds};
use crate::id::InfoHash;
use crate::metainfo::Info;
use crate::metainfo::build::InfoDraft;
use crate::swarm::{Event, Reason, State};
use crate::wire::metadata::METADATA_PART_LENGTH;
use crate::wire::{Message, MetadataMessage, UT_METADATA_ID};

/// A little content whose metadata has four parts: it names many empty files.
fn large() -> Content {
    let small = content(1, 10_000);
    let mut files = vec![(vec!["content".to_owned()], 10_000)];
    files.extend((0..1_000).map(|number| (vec![format!("an empty file, number {number}")], 0)));
    let draft = InfoDraft {
        name: "content".to_owned(),
        piece_length: 32 << 10,
        files,
        ..InfoDraft::default()
    };
    let hash = small
        .info
        .piece_hash(small.info.geometry().piece(0).unwrap());
    Content {
        info: Arc::new(Info::parse(draft.encode(&hash)).unwrap()),
        bytes: small.bytes,
    }
}

fn metadata(message: &MetadataMessage) -> Message {
    Message::Extended {
        id: UT_METADATA_ID,
        payload: Bytes::from(message.encode()),
    }
}

/// The parts that were asked for.
fn asked(heard: &[Message]) -> Vec<u32> {
    let payloads = heard.iter().filter_map(|message| match message {
        Message::Extended { id: 1, payload } => MetadataMessage::decode(payload).ok(),
        _ => None,
    });
    let parts = payloads.filter_map(|message| match message {
        MetadataMessage::Request { part } => Some(part),
        _ => None,
    });
    parts.collect()
}

fn part(raw: &Bytes, number: u32) -> Message {
    let start = usize::try_from(number * METADATA_PART_LENGTH).unwrap();
    let end = (start + usize::try_from(METADATA_PART_LENGTH).unwrap()).min(raw.len());
    metadata(&MetadataMessage::Data {
        part: number,
        total_size: u32::try_from(raw.len()).unwrap(),
        data: raw.slice(start..end),
    })
}

#[test]
fn one_liar_among_three_does_not_prevent_the_metadata() {
    let content = large();
    assert!(content.info.raw().len() > 2 * usize::try_from(METADATA_PART_LENGTH).unwrap());
    for seed in 0..6 {
        let mut lab = Lab::new(seed);
        let hosts: Vec<_> = (1..=3)
            .map(|number| lab.seed(config(number), &content))
            .collect();
        lab.hosts[usize::try_from(seed).unwrap() % 3].manners = Manners::CorruptsMetadata;
        let leech = lab.magnet(config(9), &content);
        lab.introduce(leech, hosts);
        let known = lab.run_until(seconds(60), |lab| lab.hosts[leech].torrent.info().is_some());
        assert!(
            known,
            "{seed}: {:?}",
            lab.hosts[leech].torrent.stats(lab.now)
        );
    }
}

#[test]
fn metadata_of_the_right_hash_with_hostile_content_is_refused_for_good() {
    let raw = Bytes::from_static(b"d4:name2:..12:piece lengthi0e6:pieces0:e");
    let hash = InfoHash::new(Sha1::digest(&raw).into());
    let magnet = crate::metainfo::Magnet::new(hash);
    let random = crate::random::Random::from_seed(1);
    let now = crate::time::Instant::ZERO;
    let mut puppet = Puppet::magnet(config(9), &large());
    puppet.torrent = crate::swarm::Torrent::from_magnet(config(9), &magnet, random, now);
    let mut peer = puppet.connect(1).unwrap();
    puppet.say_extended(&peer, u32::try_from(raw.len()).ok(), None);
    assert_eq!(asked(&puppet.hear(&mut peer)), [0]);
    puppet.say(&peer, &[part(&raw, 0)]);
    let refused = puppet
        .events
        .iter()
        .any(|e| matches!(e, Event::MetadataRefused(_)));
    assert!(refused, "{:?}", puppet.events);
    assert_eq!(puppet.torrent.state(), State::Failed);
    assert_eq!(puppet.closed(&peer), Some(Reason::Stopping));
    assert!(puppet.connect(2).is_none());
    puppet.torrent.retry_disk(now);
    assert_eq!(puppet.torrent.state(), State::Failed);
    assert!(puppet.torrent.poll_timeout().is_none());
}

#[test]
fn a_peer_that_rejected_too_often_is_asked_again_a_minute_later() {
    let content = large();
    let mut puppet = Puppet::magnet(config(9), &content);
    let mut peer = puppet.connect(1).unwrap();
    puppet.say_extended(&peer, u32::try_from(content.info.raw().len()).ok(), None);
    for _ in 0..3 {
        let parts = asked(&puppet.hear(&mut peer));
        assert!(!parts.is_empty());
        let rejects: Vec<_> = parts
            .iter()
            .map(|&part| metadata(&MetadataMessage::Reject { part }))
            .collect();
        puppet.say(&peer, &rejects);
        puppet.pass(seconds(6));
    }
    assert!(asked(&puppet.hear(&mut peer)).is_empty());
    puppet.pass(seconds(60));
    assert!(!asked(&puppet.hear(&mut peer)).is_empty());
}

#[test]
fn a_pause_after_a_reject_does_not_wake_the_torrent_again_and_again() {
    let content = large();
    let size = u32::try_from(content.info.raw().len()).ok();
    let mut puppet = Puppet::magnet(config(9), &content);
    let mut rejects = puppet.connect(1).unwrap();
    let mut silent = puppet.connect(2).unwrap();
    puppet.say_extended(&rejects, size, None);
    let parts = asked(&puppet.hear(&mut rejects));
    puppet.say_extended(&silent, size, None);
    puppet.hear(&mut silent);
    for part in parts {
        puppet.say(&rejects, &[metadata(&MetadataMessage::Reject { part })]);
    }
    // The silent one now owes everything, and the pause of the other is over before that is overdue.
    puppet.pass(seconds(30));
}

#[test]
fn honest_peers_count_although_four_liars_spoke_first() {
    let content = large();
    let mut puppet = Puppet::magnet(config(9), &content);
    let liars: Vec<_> = (1..=4)
        .map(|number| puppet.connect(number).unwrap())
        .collect();
    for (liar, size) in liars.iter().zip([20_000, 30_000, 40_000, 50_000]) {
        puppet.say_extended(liar, Some(size), None);
    }
    let mut honest = puppet.connect(50).unwrap();
    puppet.say_extended(&honest, u32::try_from(content.info.raw().len()).ok(), None);
    for _ in 0..60 {
        let parts = asked(&puppet.hear(&mut honest));
        let parts: Vec<_> = parts.iter().map(|&n| part(content.info.raw(), n)).collect();
        puppet.say(&honest, &parts);
        puppet.pass(seconds(1));
    }
    assert!(puppet.torrent.info().is_some());
}

#[test]
fn metadata_is_served_and_what_is_not_there_is_rejected() {
    let content = large();
    let mut puppet = Puppet::seed(&content);
    let mut peer = puppet.connect(1).unwrap();
    puppet.say_extended(&peer, None, None);
    puppet.hear(&mut peer);
    for (number, there) in [
        (0, true),
        (1, true),
        (2, true),
        (99, false),
        (u32::MAX, false),
    ] {
        puppet.say(
            &peer,
            &[metadata(&MetadataMessage::Request { part: number })],
        );
        let expected = if there {
            part(content.info.raw(), number)
        } else {
            metadata(&MetadataMessage::Reject { part: number })
        };
        assert_eq!(puppet.hear(&mut peer), [expected]);
    }
}
