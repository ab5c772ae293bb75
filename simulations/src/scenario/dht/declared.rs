//! Settings that several experiments with DHTs declare, and what they make of them.

use std::time::Duration;

use trackless::dht::secure_id::IdBinding;
use trackless::dht::{BUCKET_SIZE, Config, LOOKUP_PARALLELISM};
use trackless::random::Random;

use crate::churn::Churn;
use crate::lifetime::Lifetime;
use crate::link::{PartsPerMillion, Spread};
use crate::nat::NatKind;
use crate::scenario::settings::SWITCH;
use crate::scenario::{Setting, Settings, Unit};

/// An hour in microseconds.
pub(crate) const HOUR: u64 = 3_600_000_000;

/// Setting: nodes in all.
pub(crate) const NODES: Setting = Setting {
    key: "nodes",
    default: "200",
    unit: Unit::Count,
    min: 2,
    max: 1_000_000,
    about: "nodes in all",
};

/// Setting: the time of joining.
pub(crate) const JOIN: Setting = Setting {
    key: "join",
    default: "5m",
    unit: Unit::Duration,
    min: 1,
    max: 24 * HOUR,
    about: "all nodes start within this time",
};

/// Setting: the time before anything is graded.
pub(crate) const DURATION: Setting = Setting {
    key: "duration",
    default: "30m",
    unit: Unit::Duration,
    min: 1,
    max: 24 * HOUR,
    about: "virtual time before the lookups, joining included",
};

/// Setting: loss of datagrams.
pub(crate) const LOSS: Setting = Setting {
    key: "loss",
    default: "0",
    unit: Unit::Share,
    min: 0,
    max: 1_000_000,
    about: "share of the datagrams that get lost",
};

/// Setting: how far hosts are from each other.
pub(crate) const LATENCY: Setting = Setting {
    key: "latency",
    default: "even",
    unit: Unit::Choice(&["even", "long-tail"]),
    min: 0,
    max: 1,
    about: "round trips: median 135 ms and 90 % below 200, or median 120 ms and 90 % below 300",
};

/// Setting: graded lookups.
pub(crate) const LOOKUPS: Setting = Setting {
    key: "lookups",
    default: "200",
    unit: Unit::Count,
    min: 1,
    max: 1_000_000,
    about: "graded lookups of random targets by random nodes",
};

/// Setting: time between lookups.
pub(crate) const PACE: Setting = Setting {
    key: "pace",
    default: "250ms",
    unit: Unit::Duration,
    min: 100,
    max: HOUR,
    about: "between two graded lookups",
};

/// Setting: announced torrents.
pub(crate) const ANNOUNCES: Setting = Setting {
    key: "announces",
    default: "20",
    unit: Unit::Count,
    min: 0,
    max: 1_000_000,
    about: "torrents that one node announces and another looks for",
};

/// Setting: contacts in a bucket.
pub(crate) const BUCKET: Setting = Setting {
    key: "k",
    default: "8",
    unit: Unit::Count,
    min: 1,
    max: 20,
    about: "contacts in a bucket and nodes in an answer",
};

/// Setting: queries in flight.
pub(crate) const PARALLELISM: Setting = Setting {
    key: "alpha",
    default: "4",
    unit: Unit::Count,
    min: 1,
    max: 64,
    about: "queries in flight per lookup",
};

/// Setting: what ids that do not follow from their address mean.
pub(crate) const BEP42: Setting = Setting {
    key: "bep42",
    default: "prefer",
    unit: Unit::Choice(&["off", "prefer", "enforce"]),
    min: 0,
    max: 2,
    about: "ids bound to addresses: not at all, preferred (what ships), or the only ones that store",
};

/// What a node runs with: the shipping defaults, except for what is set.
pub(crate) fn config(settings: &Settings) -> Config {
    let number = |key: &str, default: usize| {
        let set = settings
            .find(key)
            .and_then(|value| usize::try_from(value).ok());
        set.unwrap_or(default)
    };
    let id_binding = match settings.find("bep42") {
        None | Some(1) => IdBinding::Prefer,
        Some(0) => IdBinding::Off,
        Some(_) => IdBinding::Enforce,
    };
    Config {
        id_binding,
        bucket_size: number("k", BUCKET_SIZE),
        lookup_parallelism: number("alpha", LOOKUP_PARALLELISM),
        ..Config::default()
    }
}

/// Setting: which node runs.
pub(crate) const POLICY: Setting = Setting {
    key: "policy",
    default: "shipping",
    unit: Unit::Choice(&["shipping", "naive"]),
    min: 0,
    max: 1,
    about: "the node that ships, or a first draft as a control",
};

/// Setting: how long sessions are.
pub(crate) const SESSION: Setting = Setting {
    key: "session",
    default: "0s",
    unit: Unit::Duration,
    min: 0,
    max: 1000 * HOUR,
    about: "median of a Weibull session; 0s: nobody leaves",
};

/// Setting: how sessions differ.
pub(crate) const SHAPE: Setting = Setting {
    key: "shape",
    default: "0.5",
    unit: Unit::Decimal,
    min: 200_000,
    max: 5_000_000,
    about: "shape of the Weibull sessions; below 1 the old live longer",
};

/// Setting: who is there.
pub(crate) const AVAILABILITY: Setting = Setting {
    key: "availability",
    default: "0.8",
    unit: Unit::Share,
    min: 10_000,
    max: 999_000,
    about: "share of its time that a host is there",
};

/// Setting: who keeps its id.
pub(crate) const SAME_ID: Setting = Setting {
    key: "same_id",
    default: "0.5",
    unit: Unit::Share,
    min: 0,
    max: 1_000_000,
    about: "share of those that come back with the id they had",
};

/// Setting: who takes leave.
pub(crate) const GRACEFUL: Setting = Setting {
    key: "graceful",
    default: "0.5",
    unit: Unit::Share,
    min: 0,
    max: 1_000_000,
    about: "share that keeps its contacts for its return",
};

/// Setting: what stands in front of hosts.
pub(crate) const NAT: Setting = Setting {
    key: "nat",
    default: "none",
    unit: Unit::Choice(&["none", "measured"]),
    min: 0,
    max: 1,
    about: "gateways in front of hosts: none, or the mix that was measured in the live DHT",
};

/// Setting: what those behind gateways say.
pub(crate) const READ_ONLY: Setting = Setting {
    key: "read_only",
    default: "off",
    unit: SWITCH,
    min: 0,
    max: 1,
    about: "nodes that strangers cannot reach say so in their queries (BEP 43)",
};

/// Setting: sudden deaths.
pub(crate) const DEAD: Setting = Setting {
    key: "dead",
    default: "0",
    unit: Unit::Share,
    min: 0,
    max: 900_000,
    about: "share of the nodes that falls silent just before the lookups",
};

/// How far hosts are from each other.
pub(crate) fn spread(settings: &Settings) -> Spread {
    match settings.find("latency") {
        Some(1) => Spread::LongTail,
        _ => Spread::Even,
    }
}

/// What stands in front of a host in the mix that was measured: 36 % of the nodes of the live DHT
/// were well connected, 10.6 % behind a firewall, 31.3 % behind a port-restricted or symmetric
/// translator (Jimenez, Osmani and Knutsson, 2009); the rest counts as full cone. Of the restricted
/// ones we take two thirds as port-restricted.
pub(crate) fn draw_nat(random: &mut Random) -> NatKind {
    match random.below(1_000) {
        0..360 => NatKind::Open,
        360..466 => NatKind::Firewalled,
        466..674 => NatKind::PortRestricted,
        674..779 => NatKind::Symmetric,
        _ => NatKind::FullCone,
    }
}

/// How hosts come and go; `None` when nobody leaves.
pub(crate) fn churn(settings: &Settings) -> Option<Churn> {
    let median = settings.duration("session");
    if median == Duration::ZERO {
        return None;
    }
    let session = Lifetime::weibull(settings.decimal("shape"), median);
    let availability = settings.decimal("availability");
    let absence = session.mean() * (1.0 - availability) / availability;
    Some(Churn {
        session,
        absence: Lifetime::exponential(Duration::from_secs_f64(absence)),
        same_id: PartsPerMillion(settings.count("same_id")),
        graceful: PartsPerMillion(settings.count("graceful")),
    })
}
