//! Changes of scripts and of the datagrams in them.
//!
//! A datagram that is bencode is mostly changed as such: values swapped, repeated, dropped, nested,
//! given other lengths and numbers; the rest of the time its bytes are.

use trackless::random::Random;

use crate::profile::Profile;
use crate::script::{Call, STEPS_MAX, Script, Step, Style};
use crate::template::{self, SLOTS};
use crate::tree::Tree;

/// Digits of integers and lengths that are known to hurt.
const NUMBERS: [&[u8]; 20] = [
    b"0",
    b"1",
    b"-1",
    b"-0",
    b"",
    b"007",
    b"2",
    b"19",
    b"21",
    b"255",
    b"1000",
    b"1001",
    b"65535",
    b"65536",
    b"4294967296",
    b"9223372036854775807",
    b"-9223372036854775808",
    b"18446744073709551636",
    b"99999999999999999999",
    b"+5",
];

/// Words of the protocol.
const WORDS: [&[u8]; 40] = [
    b"a",
    b"q",
    b"r",
    b"e",
    b"t",
    b"y",
    b"v",
    b"ro",
    b"ip",
    b"id",
    b"target",
    b"info_hash",
    b"token",
    b"port",
    b"implied_port",
    b"seed",
    b"noseed",
    b"scrape",
    b"want",
    b"n4",
    b"n6",
    b"nodes",
    b"nodes6",
    b"values",
    b"k",
    b"salt",
    b"seq",
    b"cas",
    b"sig",
    b"samples",
    b"num",
    b"interval",
    b"BFsd",
    b"BFpe",
    b"ping",
    b"find_node",
    b"get_peers",
    b"announce_peer",
    b"get",
    b"put",
];

/// Lengths that strings are given.
const LENGTHS: [usize; 16] = [
    0, 1, 5, 6, 7, 18, 19, 20, 21, 26, 32, 33, 64, 255, 256, 1001,
];

/// Picks one of several; the tables here are not empty.
fn pick<T: Copy>(random: &mut Random, among: &[T]) -> T {
    among[random.index(among.len()).expect("something to pick from")]
}

/// A number below `bound` as an index.
fn below(random: &mut Random, bound: usize) -> usize {
    random.index(bound).unwrap_or(0)
}

/// Changes a value of a tree in place.
fn change_value(tree: &mut Tree, random: &mut Random) {
    let number = below(random, tree.count());
    let copy = {
        let other = below(random, tree.count());
        tree.nth(other).cloned()
    };
    let Some(value) = tree.nth(number) else {
        return;
    };
    match (random.below(8), value) {
        (0, value) => *value = copy.unwrap_or(Tree::List(Vec::new())),
        (1, value) => *value = Tree::Raw(template::slot(pick(random, SLOTS)).to_vec()),
        (2, value) => *value = Tree::Integer(pick(random, &NUMBERS).to_vec()),
        (3, value) => *value = Tree::text(pick(random, &WORDS)),
        (4, value) => {
            let depth = pick(random, &[1, 2, 9, 10, 11, 500]);
            let shell = pick(random, b"ld");
            let mut nested = vec![shell; depth];
            value.write(&mut nested);
            nested.extend(vec![b'e'; depth]);
            *value = Tree::Raw(nested);
        }
        (_, Tree::Integer(digits)) => *digits = pick(random, &NUMBERS).to_vec(),
        (5, Tree::Text(length, _)) => *length = Some(pick(random, &NUMBERS).to_vec()),
        (6, Tree::Text(_, bytes)) => bytes.resize(pick(random, &LENGTHS), b'z'),
        (_, Tree::Text(_, bytes)) => change_bytes(bytes, random),
        (_, Tree::List(values)) => change_order(values, random, Tree::text(b"n6")),
        (_, Tree::Dictionary(entries)) => {
            let key = Tree::text(pick(random, &WORDS));
            let entry = (key, copy.unwrap_or(Tree::Raw(b"i1e".to_vec())));
            change_order(entries, random, entry);
        }
        (_, Tree::Raw(bytes)) => change_bytes(bytes, random),
    }
}

/// Swaps, repeats, drops or adds entries of a list.
fn change_order<T: Clone>(entries: &mut Vec<T>, random: &mut Random, fresh: T) {
    let at = below(random, entries.len());
    match random.below(5) {
        0 if !entries.is_empty() => drop(entries.remove(at)),
        1 if !entries.is_empty() => {
            let other = below(random, entries.len());
            entries.swap(at, other);
        }
        2 if !entries.is_empty() => entries.insert(at, entries[at].clone()),
        3 if !entries.is_empty() && entries.len() < 40 => {
            let many = vec![entries[at].clone(); 30];
            entries.extend(many);
        }
        _ => entries.insert(at, fresh),
    }
}

/// Changes bytes in place.
fn change_bytes(bytes: &mut Vec<u8>, random: &mut Random) {
    let at = below(random, bytes.len());
    match random.below(6) {
        0 if !bytes.is_empty() => bytes[at] ^= 1 << random.below(8),
        1 if !bytes.is_empty() => bytes[at] = pick(random, b"dlie0123456789:-\0\xff\x01"),
        2 if !bytes.is_empty() => drop(bytes.remove(at)),
        3 => bytes.truncate(at),
        4 if !bytes.is_empty() => {
            let end = at + below(random, bytes.len() - at).min(64);
            let part = bytes[at..end].to_vec();
            let copies = pick(random, &[1, 2, 30]);
            let part = part.repeat(copies);
            bytes.splice(at..at, part);
        }
        _ => bytes.insert(at, random.bytes::<1>()[0]),
    }
}

/// Changes a datagram.
pub fn change_template(template: &mut Vec<u8>, random: &mut Random) {
    match Tree::parse(template) {
        Some(mut tree) if random.below(5) > 0 => {
            for _ in 0..=random.below(3) {
                change_value(&mut tree, random);
            }
            template.clear();
            tree.write(template);
        }
        _ => change_bytes(template, random),
    }
    template.truncate(template::LENGTH_MAX);
}

/// A speaker, a time, or a number of something.
fn small_number(random: &mut Random) -> u8 {
    random.bytes::<1>()[0] % 48
}

/// A step of any kind; datagrams are some of `templates`, changed or not.
fn any_step(random: &mut Random, templates: &[Vec<u8>]) -> Step {
    match random.below(10) {
        0 => Step::Pass(pick(
            random,
            &[
                1, 50, 300, 1_000, 3_000, 60_000, 310_000, 601_000, 1_801_000, 7_300_000,
            ],
        )),
        1 | 2 => Step::Answer(pick(random, &Style::ALL).0),
        3 | 4 => Step::Call(pick(random, &Call::ALL).0, small_number(random)),
        _ => {
            let mut template = templates[below(random, templates.len())].clone();
            if random.below(2) == 0 {
                change_template(&mut template, random);
            }
            Step::Receive {
                from: small_number(random),
                times: pick(random, &[1, 1, 1, 1, 1, 1, 2, 60]),
                template,
            }
        }
    }
}

/// Changes one step in place.
fn change_step(step: &mut Step, random: &mut Random) {
    match step {
        Step::Receive {
            from,
            times,
            template,
        } => match random.below(8) {
            0 => *from = small_number(random),
            1 => *times = pick(random, &[1, 2, 10, 60]),
            _ => change_template(template, random),
        },
        Step::Answer(style) => *style = pick(random, &Style::ALL).0,
        Step::Call(call, number) => {
            if random.below(2) == 0 {
                *call = pick(random, &Call::ALL).0;
            } else {
                *number = small_number(random);
            }
        }
        Step::Pass(millis) => {
            *millis = match random.below(3) {
                0 => *millis / 2 + random.below(10),
                1 => millis.saturating_mul(2).min(20_000_000),
                _ => random.below(20_000),
            }
        }
    }
}

/// Changes a script; `other` is one that it may be joined with.
pub fn change(script: &mut Script, other: &Script, templates: &[Vec<u8>], random: &mut Random) {
    for _ in 0..=random.below(4) {
        let at = below(random, script.steps.len());
        match random.below(12) {
            0 => script.profile = pick(random, &Profile::ALL),
            1 if !script.steps.is_empty() => drop(script.steps.remove(at)),
            2 if !script.steps.is_empty() => {
                let step = script.steps[at].clone();
                script.steps.insert(at, step);
            }
            3 if !script.steps.is_empty() => {
                let with = below(random, script.steps.len());
                script.steps.swap(at, with);
            }
            4 => {
                script.steps.truncate(at);
                let from = below(random, other.steps.len());
                script.steps.extend_from_slice(&other.steps[from..]);
            }
            5..=7 => script.steps.insert(at, any_step(random, templates)),
            8 => script.steps.push(any_step(random, templates)),
            _ => {
                if let Some(step) = script.steps.get_mut(at) {
                    change_step(step, random);
                }
            }
        }
    }
    script.steps.truncate(STEPS_MAX);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::script::parse;
    use crate::seeds;

    #[test]
    fn whatever_is_changed_stays_a_script_within_its_bounds() {
        let mut random = Random::from_seed(5);
        let scripts = seeds::scripts();
        let templates = seeds::templates();
        let mut script = scripts[0].clone();
        let mut changed = 0;
        for round in 0..3_000 {
            let before = script.clone();
            change(
                &mut script,
                &scripts[round % scripts.len()],
                &templates,
                &mut random,
            );
            changed += usize::from(before != script);
            assert!(script.steps.len() <= STEPS_MAX);
            let text = script.to_string();
            assert_eq!(parse(&text), Ok(vec![script.clone()]), "{text}");
        }
        assert!(changed > 2_000, "{changed}");
    }
}
