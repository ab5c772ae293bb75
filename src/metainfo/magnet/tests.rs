//! The rows "magnet" of the hostile inputs, and each parameter.

use std::fmt::Write;

use proptest::prelude::*;

use super::*;

const HEX: &str = "0123456789abcdef0123456789abcdef01234567";
const BASE_32: &str = "AERUKZ4JVPG66AJDIVTYTK6N54ASGRLH";

fn info_hash() -> InfoHash {
    HEX.parse().unwrap()
}

/// The link with these parameters behind its info hash.
fn link(parameters: &str) -> Magnet {
    Magnet::parse(&format!("magnet:?xt=urn:btih:{HEX}&{parameters}")).unwrap()
}

#[track_caller]
fn check_refused(text: &str, expected: MagnetError) {
    assert_eq!(Magnet::parse(text), Err(expected), "{text}");
}

#[test]
fn info_hashes_are_read_in_hexadecimal_and_base_32_in_any_case() {
    for digits in [HEX, BASE_32] {
        for digits in [digits.to_uppercase(), digits.to_lowercase()] {
            for text in [
                format!("magnet:?xt=urn:btih:{digits}"),
                format!("MAGNET:?XT=URN:BTIH:{digits}"),
                format!("magnet:?xt.1=urn:btih:{digits}"),
                format!("magnet:?dn=x&xt=urn%3Abtih%3a{digits}"),
                format!("  magnet:?xt=urn:btih:{digits}\n"),
                digits.clone(),
            ] {
                let magnet = Magnet::parse(&text).unwrap();
                assert_eq!(magnet.info_hash, info_hash(), "{text}");
            }
        }
    }
}

#[test]
fn text_that_is_no_link_is_refused() {
    for text in [
        "",
        "magnet",
        "magnet:",
        "http://example.org/?xt=urn:btih:",
        "xt=urn:btih:",
        "é",
    ] {
        check_refused(text, MagnetError::Scheme);
    }
    check_refused(&"z".repeat(40), MagnetError::Scheme);
    check_refused(&"é".repeat(20), MagnetError::Scheme);
}

#[test]
fn a_link_without_an_info_hash_is_refused() {
    for parameters in [
        "",
        "dn=name",
        "xt",
        "xt=",
        "xt=urn:sha1:abc",
        "&&=&",
        "xt=urn:btih",
    ] {
        check_refused(&format!("magnet:?{parameters}"), MagnetError::NoInfoHash);
    }
}

#[test]
fn info_hashes_of_another_length_are_refused() {
    let refused = |digits: &str| Magnet::parse(&format!("magnet:?xt=urn:btih:{digits}"));
    for length in [0, 1, 31, 33, 39, 41, 64, 1_000_000] {
        let expected = MagnetError::InfoHashLength { digits: length };
        assert_eq!(refused(&"a".repeat(length)), Err(expected));
    }
}

#[test]
fn bad_digits_are_refused() {
    for digits in [
        "g".repeat(40),
        "1".repeat(32),
        "=".repeat(32),
        "0%00".repeat(20),
    ] {
        check_refused(
            &format!("magnet:?xt=urn:btih:{digits}"),
            MagnetError::InfoHashDigit,
        );
    }
    let padded = format!("{}========", &BASE_32[..24]);
    check_refused(
        &format!("magnet:?xt=urn:btih:{padded}"),
        MagnetError::InfoHashDigit,
    );
}

#[test]
fn a_v2_only_link_is_refused_in_words() {
    let multihash = format!("1220{}", "ab".repeat(32));
    let v2 = format!("magnet:?xt=urn:btmh:{multihash}");
    check_refused(&v2, MagnetError::V2Only);
    assert!(MagnetError::V2Only.to_string().contains("v2-only"));
    let hybrid = Magnet::parse(&format!("{v2}&xt=urn:btih:{HEX}")).unwrap();
    assert_eq!(hybrid.info_hash, info_hash());
}

#[test]
fn several_torrents_in_one_link_are_refused() {
    let other = "f".repeat(40);
    check_refused(
        &format!("magnet:?xt.1=urn:btih:{HEX}&xt.2=urn:btih:{other}"),
        MagnetError::SeveralInfoHashes,
    );
    // The same one twice is no question.
    let twice = format!("magnet:?xt=urn:btih:{HEX}&xt=urn:btih:{BASE_32}");
    assert_eq!(Magnet::parse(&twice), Ok(Magnet::new(info_hash())));
}

#[test]
fn ten_thousand_trackers_are_capped() {
    let mut parameters = String::new();
    for index in 0..10_000 {
        write!(
            parameters,
            "tr=udp://tracker{index}.example:80&ws=http://w/{index}&"
        )
        .unwrap();
        write!(parameters, "x.pe=1.2.3.4:{}&x.pe=h{index}:1&", index + 1).unwrap();
    }
    let magnet = link(&parameters);
    assert_eq!(
        (magnet.trackers.len(), magnet.web_seeds.len()),
        (TRACKERS_MAX, WEB_SEEDS_MAX)
    );
    assert_eq!(
        (magnet.peers.len(), magnet.peer_hosts.len()),
        (PEERS_MAX, PEERS_MAX)
    );
    assert_eq!(magnet.trackers[0], "udp://tracker0.example:80");
}

#[test]
fn a_million_selections_are_capped() {
    let list = "1,".repeat(1_000_000);
    assert_eq!(
        link(&format!("so={list}")).select_only.len(),
        SELECT_ONLY_MAX
    );
}

#[test]
fn a_name_of_a_megabyte_is_cut() {
    let magnet = link(&format!("dn={}", "n".repeat(1 << 20)));
    assert_eq!(magnet.name, Some("n".repeat(255)));
    let magnet = link(&format!("dn={}", "%C3%A9".repeat(100_000)));
    assert_eq!(magnet.name, Some("é".repeat(127)));
}

#[test]
fn links_over_the_limit_are_refused() {
    let text = format!(
        "magnet:?xt=urn:btih:{HEX}&dn={}",
        "n".repeat(LINK_LENGTH_MAX)
    );
    check_refused(&text, MagnetError::TooLong { length: text.len() });
}

#[test]
fn nul_and_control_characters_reach_nobody() {
    let magnet = link("dn=a%00b%1B[31m%E2%80%AEc&tr=http://t/%00&tr=http://t/%0ax&ws=http://w%09");
    assert_eq!(magnet.name.as_deref(), Some("ab[31mc"));
    assert!(magnet.trackers.is_empty());
    // White space around a URL is dropped, inside it is not taken.
    assert_eq!(magnet.web_seeds, ["http://w"]);
    assert_eq!(link("dn=%00%00").name, None);
    assert!(link("x.pe=h%00:1&x.pe=%00&so=%00").peer_hosts.is_empty());
}

#[test]
fn names_are_unescaped_and_a_plus_is_a_space_there() {
    assert_eq!(link("dn=A+%2B+B%20%C3%A9").name.as_deref(), Some("A + B é"));
    assert_eq!(link("DN=x&dn=y").name.as_deref(), Some("x"));
    assert_eq!(link("dn=%FF%zz%4").name.as_deref(), Some("\u{fffd}%zz%4"));
    assert_eq!(link("tr=http://t/a+b").trackers, ["http://t/a+b"]);
}

#[test]
fn trackers_come_in_order_once_each() {
    let magnet = link("tr=udp%3A%2F%2Fa%3A1&tr.1=http://b/&TR.22=udp://a:1&tr=nonsense&tr=&tr");
    assert_eq!(magnet.trackers, ["udp://a:1", "http://b/"]);
    let long = format!("tr=http://{}", "a".repeat(10_000));
    assert!(link(&long).trackers.is_empty());
}

#[test]
fn links_copied_out_of_a_web_page_work() {
    let magnet = link("amp;dn=x&amp;tr=udp://a:1");
    assert_eq!(
        (magnet.name.as_deref(), magnet.trackers.len()),
        (Some("x"), 1)
    );
}

#[test]
fn peers_are_addresses_or_host_names_with_a_port() {
    let magnet = link(
        "x.pe=1.2.3.4:5&x.pe=[2001:db8::1]:6881&x.pe=%5B::1%5D:7\
         &x.pe=host.example:80&X.PE=1.2.3.4:5",
    );
    let expected = ["1.2.3.4:5", "[2001:db8::1]:6881", "[::1]:7"];
    assert_eq!(
        magnet.peers,
        expected.map(|address| address.parse().unwrap())
    );
    assert_eq!(magnet.peer_hosts, [("host.example".to_owned(), 80)]);
    for bad in [
        "",
        ":",
        ":80",
        "host",
        "host:",
        "host:0",
        "host:+1",
        "host:65536",
        "host:-1",
        "1.2.3.4:0",
        "[::1]:0",
        "[::1]",
        "::1:80",
        "a/b:80",
        "a b:80",
        "%FF:80",
        "[host]:80",
    ] {
        let magnet = link(&format!("x.pe={bad}"));
        assert!(
            magnet.peers.is_empty() && magnet.peer_hosts.is_empty(),
            "{bad}"
        );
    }
}

#[test]
fn selected_files_are_numbers_and_ranges() {
    assert_eq!(link("so=0,2,4-7").select_only, [(0, 0), (2, 2), (4, 7)]);
    assert_eq!(link("so=0&so=%31").select_only, [(0, 0), (1, 1)]);
    assert_eq!(link("so=4294967295").select_only, [(u32::MAX, u32::MAX)]);
    for bad in [
        "",
        "-",
        "1-",
        "-1",
        "7-4",
        "a",
        "+1",
        "4294967296",
        "1-2-3",
        "1.5",
    ] {
        assert!(link(&format!("so={bad}")).select_only.is_empty(), "{bad}");
    }
    // What makes sense is kept.
    assert_eq!(link("so=x,3,,9-1").select_only, [(3, 3)]);
}

#[test]
fn unknown_parameters_are_ignored() {
    let magnet = link("xl=1&xs=http://x&as=y&kt=a&mt=b&=&==&x.unknown=1&%64n=x");
    assert_eq!(magnet, Magnet::new(info_hash()));
}

#[test]
fn links_are_written_in_one_form() {
    let mut magnet = Magnet::new(info_hash());
    assert_eq!(magnet.to_string(), format!("magnet:?xt=urn:btih:{HEX}"));
    magnet.name = Some("A & B+é".to_owned());
    magnet.trackers = vec!["http://t/a?b=c&d".to_owned()];
    magnet.web_seeds = vec!["http://w/".to_owned()];
    magnet.peers = vec!["[::1]:7".parse().unwrap(), "1.2.3.4:5".parse().unwrap()];
    magnet.peer_hosts = vec![("host".to_owned(), 80)];
    magnet.select_only = vec![(0, 0), (4, 7)];
    assert_eq!(
        magnet.to_string(),
        format!(
            "magnet:?xt=urn:btih:{HEX}&dn=A%20%26%20B%2B%C3%A9&tr=http%3A%2F%2Ft%2Fa%3Fb%3Dc%26d\
             &ws=http%3A%2F%2Fw%2F&x.pe=[::1]:7&x.pe=1.2.3.4:5&x.pe=host:80&so=0,4-7"
        )
    );
    assert_eq!(magnet.to_string().parse(), Ok(magnet));
}

proptest! {
    #[test]
    fn arbitrary_text_is_a_link_or_refused(text: String) {
        let _ = Magnet::parse(&text);
        let _ = Magnet::parse(&format!("magnet:?{text}"));
    }

    #[test]
    fn what_was_read_is_written_and_read_back(
        parameters in prop::collection::vec(
            (
                prop::sample::select(vec!["dn", "tr", "ws", "x.pe", "so", "tr.1"]),
                prop_oneof![
                    any::<String>(),
                    "(%[0-9a-fA-F]{2}|[ -~]){0,300}",
                    "(udp|http)://[a-z0-9%+&=/ é]{1,20}",
                    "[a-z0-9.]{1,6}:[0-9]{1,5}",
                    "\\[[0-9a-f:]{2,9}(%[0-9]{1,2})?\\]:[0-9]{1,5}",
                    "[0-9,-]{0,12}",
                ],
            ),
            0..8,
        ),
    ) {
        let mut text = format!("magnet:?xt=urn:btih:{HEX}");
        for (name, value) in parameters {
            write!(text, "&{name}={value}").unwrap();
        }
        let magnet = Magnet::parse(&text).unwrap();
        prop_assert_eq!(Magnet::parse(&magnet.to_string()), Ok(magnet));
    }
}
