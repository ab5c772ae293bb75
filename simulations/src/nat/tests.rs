//! Tests of gateways: what comes in after what went out.

use super::*;

const INSIDE: HostId = HostId(5);
const GUEST: HostId = HostId(6);
const ALICE: HostId = HostId(1);
const BOB: HostId = HostId(2);

fn at(seconds: u64) -> Instant {
    Instant::ZERO + Duration::from_secs(seconds)
}

fn endpoint(host: HostId, port: u16) -> SocketAddrV4 {
    SocketAddrV4::new(host.ip(), port)
}

fn behind(config: NatConfig) -> Gateways {
    let mut gateways = Gateways::new(Seeds::new(1));
    gateways.add(INSIDE, config);
    gateways.share(GUEST, INSIDE);
    gateways
}

/// After the inner host has sent to Alice's port 10: who comes in by the endpoint she saw? Alice
/// from there, Alice from another port, Bob.
#[track_caller]
fn check_filter(kind: NatKind, wanted: [bool; 3]) {
    let mut gateways = behind(NatConfig::of(kind));
    let seen = gateways.outbound(at(0), INSIDE, endpoint(ALICE, 10));
    assert_eq!(seen.ip(), &INSIDE.ip());
    let senders = [endpoint(ALICE, 10), endpoint(ALICE, 11), endpoint(BOB, 10)];
    let comes_in = senders.map(|from| gateways.inbound(at(1), from, seen) == Some(INSIDE));
    assert_eq!(comes_in, wanted, "{kind:?}");
}

#[test]
fn each_kind_lets_in_whom_its_filter_allows() {
    check_filter(NatKind::Open, [true, true, true]);
    check_filter(NatKind::FullCone, [true, true, true]);
    check_filter(NatKind::AddressRestricted, [true, true, false]);
    check_filter(NatKind::PortRestricted, [true, false, false]);
    check_filter(NatKind::Firewalled, [true, false, false]);
    check_filter(NatKind::Symmetric, [true, false, false]);
}

#[test]
fn nothing_comes_in_before_something_went_out_except_to_an_open_host() {
    for kind in [
        NatKind::FullCone,
        NatKind::AddressRestricted,
        NatKind::PortRestricted,
        NatKind::Symmetric,
        NatKind::Firewalled,
    ] {
        let gateways = behind(NatConfig::of(kind));
        let to = endpoint(INSIDE, DATAGRAM_PORT);
        assert_eq!(gateways.inbound(at(0), endpoint(ALICE, 10), to), None);
        assert_eq!(gateways.kind(INSIDE), kind);
        assert_eq!(gateways.kind(GUEST), kind);
    }
    let open = Gateways::new(Seeds::new(1));
    let to = endpoint(INSIDE, DATAGRAM_PORT);
    assert_eq!(open.inbound(at(0), endpoint(ALICE, 10), to), Some(INSIDE));
    let elsewhere = endpoint(INSIDE, 9);
    assert_eq!(open.inbound(at(0), endpoint(ALICE, 10), elsewhere), None);
}

#[test]
fn a_mapping_ends_after_its_timeout_and_what_comes_in_does_not_prolong_it() {
    let mut gateways = behind(NatConfig::of(NatKind::PortRestricted));
    let alice = endpoint(ALICE, 10);
    let seen = gateways.outbound(at(0), INSIDE, alice);
    assert_eq!(gateways.inbound(at(119), alice, seen), Some(INSIDE));
    assert_eq!(gateways.inbound(at(120), alice, seen), None);
    let seen = gateways.outbound(at(200), INSIDE, alice);
    let _ = gateways.outbound(at(300), INSIDE, endpoint(BOB, 10));
    assert_eq!(gateways.inbound(at(330), alice, seen), None, "not for her");
    assert_eq!(
        gateways.inbound(at(330), endpoint(BOB, 10), seen),
        Some(INSIDE)
    );
}

#[test]
fn a_cone_keeps_its_port_and_a_symmetric_one_has_a_port_for_each_endpoint() {
    let mut cone = behind(NatConfig::of(NatKind::FullCone));
    let ports = [ALICE, BOB].map(|to| cone.outbound(at(0), INSIDE, endpoint(to, 10)).port());
    assert_eq!(ports, [DATAGRAM_PORT; 2]);
    let mut symmetric = behind(NatConfig::of(NatKind::Symmetric));
    let mut port = |to| symmetric.outbound(at(0), INSIDE, endpoint(to, 10)).port();
    let (first, second, again) = (port(ALICE), port(BOB), port(ALICE));
    assert_eq!(first, DATAGRAM_PORT);
    assert!(second >= PORT_FIRST);
    assert_eq!(again, first);
}

#[test]
fn ports_are_rewritten_where_the_rule_says_so_and_the_same_for_the_same_seed() {
    let port = || {
        let mut gateways = behind(NatConfig {
            ports: PortRule::Random,
            ..NatConfig::of(NatKind::PortRestricted)
        });
        gateways.outbound(at(0), INSIDE, endpoint(ALICE, 10)).port()
    };
    assert!(port() >= PORT_FIRST);
    assert_eq!(port(), port());
}

#[test]
fn hosts_behind_one_gateway_share_its_address_and_have_ports_of_their_own() {
    for (hairpin, reaches) in [(Hairpin::Forwarded, true), (Hairpin::Dropped, false)] {
        let mut gateways = behind(NatConfig {
            hairpin,
            ..NatConfig::of(NatKind::FullCone)
        });
        let first = gateways.outbound(at(0), INSIDE, endpoint(ALICE, 10));
        let second = gateways.outbound(at(0), GUEST, endpoint(ALICE, 10));
        assert_eq!(first.ip(), second.ip());
        assert_ne!(first.port(), second.port());
        let from = endpoint(BOB, 1);
        assert_eq!(gateways.inbound(at(1), from, first), Some(INSIDE));
        assert_eq!(gateways.inbound(at(1), from, second), Some(GUEST));
        let neighbour = gateways.inbound(at(1), first, second);
        assert_eq!(neighbour.is_some(), reaches);
    }
}

#[test]
fn a_port_goes_to_another_host_once_its_mapping_has_expired() {
    let mut gateways = behind(NatConfig::of(NatKind::FullCone));
    let to = endpoint(ALICE, 10);
    let first = gateways.outbound(at(0), INSIDE, to);
    let second = gateways.outbound(at(500), GUEST, to);
    assert_eq!(first, second);
    assert_eq!(gateways.inbound(at(501), to, second), Some(GUEST));
    assert_ne!(gateways.outbound(at(502), INSIDE, to), first);
}

#[test]
fn expired_entries_are_forgotten() {
    let mut gateways = behind(NatConfig::of(NatKind::Symmetric));
    for number in 0..10_000 {
        let to = endpoint(HostId(100 + number), 10);
        let _ = gateways.outbound(at(u64::from(number)), INSIDE, to);
    }
    let gateway = gateways.gateway(INSIDE).unwrap();
    assert!(gateway.mappings.len() < 400, "{}", gateway.mappings.len());
    assert_eq!(gateway.ports.len(), gateway.mappings.len());
}

#[test]
fn streams_reach_open_hosts_and_forwarded_ports_only() {
    let to = endpoint(INSIDE, STREAM_PORT);
    let elsewhere = endpoint(INSIDE, 9);
    let open = Gateways::new(Seeds::new(1));
    assert_eq!(open.dialled(to), Dialled::Host(INSIDE));
    assert_eq!(open.dialled(elsewhere), Dialled::Refusal(INSIDE));
    let nobody = "60.0.0.1:6881".parse().unwrap();
    assert_eq!(open.dialled(nobody), Dialled::Silence);
    for (streams, wanted) in [
        (StreamPort::Closed, Dialled::Silence),
        (StreamPort::Forwarded, Dialled::Host(INSIDE)),
    ] {
        let gateways = behind(NatConfig {
            streams,
            ..NatConfig::of(NatKind::FullCone)
        });
        assert_eq!(gateways.dialled(to), wanted);
        assert_eq!(gateways.dialled(elsewhere), Dialled::Silence);
    }
}
