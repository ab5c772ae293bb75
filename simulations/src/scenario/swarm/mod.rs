//! `swarm`: one seed and many peers that want what it has.
//!
//! Every peer runs the shipping torrent core; handshakes, metadata, requests and blocks are the
//! real bytes. Addresses come from a discovery that names others, as a DHT would after their
//! announces. The settings make different experiments of it: a flash crowd, peers with different
//! lines, a seed that leaves, free riders, peers that send bad blocks.
//!
//! Invariant: a time below the fluid bound of Kumar and Ross is an error of the simulation.

pub(super) mod crowd;
mod measure;

use std::time::Duration;

use trackless::swarm::{PieceOrder, Seeding};

use self::crowd::Crowd;
use super::{Context, Kind, Outcome, Setting, SettingError, Settings, Unit};
use crate::adversary::PeerConduct;
use crate::link::PartsPerMillion;
use crate::oracle::SwarmLinks;

/// The experiment.
pub(super) const KIND: Kind = Kind {
    name: "swarm",
    about: "one seed, many peers that start by magnet link; time against a fluid bound",
    settings: &SETTINGS,
    simulate,
};

/// The greatest rate of a line: 10 Gbit/s in bytes.
pub(super) const RATE_MAX: u64 = 1_250_000_000;

/// A day in microseconds: the longest any duration may be.
pub(super) const DAY: u64 = 86_400_000_000;

/// Uplinks of the three classes, in tenths of `up`: slow, middle, fast.
const CLASSES: [u64; 3] = [4, 10, 40];

/// A setting; `about` says what it is.
pub(super) const fn setting(
    key: &'static str,
    default: &'static str,
    unit: Unit,
    (min, max): (u64, u64),
    about: &'static str,
) -> Setting {
    Setting {
        key,
        default,
        unit,
        min,
        max,
        about,
    }
}

static SETTINGS: [Setting; 20] = [
    setting(
        "peers",
        "20",
        Unit::Count,
        (2, 10_000),
        "peers in all, the seed included",
    ),
    setting(
        "size",
        "64MiB",
        Unit::Bytes,
        (1, 1 << 40),
        "bytes of content",
    ),
    setting(
        "piece_length",
        "256KiB",
        Unit::Bytes,
        (16 << 10, 64 << 20),
        "bytes of a piece",
    ),
    setting(
        "up",
        "1MiB/s",
        Unit::Rate,
        (1_000, RATE_MAX),
        "uplink of each downloading peer",
    ),
    setting(
        "down",
        "8MiB/s",
        Unit::Rate,
        (1_000, RATE_MAX),
        "downlink of each peer",
    ),
    setting(
        "seed_up",
        "4MiB/s",
        Unit::Rate,
        (1_000, RATE_MAX),
        "uplink of the seed",
    ),
    setting(
        "lines",
        "equal",
        Unit::Choice(&["equal", "three-classes"]),
        (0, 1),
        "equal uplinks, or a third each of 0.4, 1 and 4 times `up`",
    ),
    setting(
        "arrival",
        "1s",
        Unit::Duration,
        (0, DAY),
        "all peers start within this time",
    ),
    setting(
        "duration",
        "1h",
        Unit::Duration,
        (1, DAY),
        "virtual time after which the run ends, complete or not",
    ),
    setting(
        "connections",
        "50",
        Unit::Count,
        (1, 1_000),
        "connections of a peer at most",
    ),
    setting(
        "slots",
        "8",
        Unit::Count,
        (1, 100),
        "peers that a peer serves at once, besides the optimistic one",
    ),
    setting(
        "order",
        "rarest",
        Unit::Choice(&["rarest", "sequential"]),
        (0, 1),
        "which pieces go first; sequential is the control",
    ),
    setting(
        "seeding",
        "each-once",
        Unit::Choice(&["each-once", "as-asked", "super"]),
        (0, 2),
        "what a seed gives first: each piece once (what ships), what is asked for, or BEP 16",
    ),
    setting(
        "seed_leaves",
        "0",
        Unit::Decimal,
        (0, 100_000_000),
        "copies after which the seed goes; 0: it stays",
    ),
    setting(
        "finished",
        "stay",
        Unit::Choice(&["stay", "leave"]),
        (0, 1),
        "what peers do that have everything",
    ),
    setting(
        "riders",
        "0",
        Unit::Share,
        (0, 900_000),
        "share of the peers that upload nothing",
    ),
    setting(
        "rider_connections",
        "50",
        Unit::Count,
        (1, 10_000),
        "connections of a free rider at most; above `connections` it has a large view",
    ),
    setting(
        "corrupters",
        "0",
        Unit::Share,
        (0, 900_000),
        "share of the peers that send bad blocks",
    ),
    setting(
        "corrupt_blocks",
        "100%",
        Unit::Share,
        (0, 1_000_000),
        "share of the blocks that such a peer spoils",
    ),
    setting(
        "patience",
        "10m",
        Unit::Duration,
        (1_000_000, DAY),
        "the run ends when no piece was verified for this long",
    ),
];

/// What a peer does in an experiment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// It has everything from the beginning.
    Seed,
    /// It downloads and uploads.
    Compliant,
    /// It misbehaves.
    Adversary(PeerConduct),
}

/// What the settings ask for.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    /// Peers without the seed.
    pub(super) receivers: u32,
    pub(super) size: u64,
    pub(super) piece_length: u32,
    pub(super) up: u64,
    pub(super) down: u64,
    pub(super) seed_up: u64,
    pub(super) has_classes: bool,
    pub(super) arrival: Duration,
    pub(super) duration: Duration,
    pub(super) connections: u32,
    pub(super) slots: u32,
    pub(super) order: PieceOrder,
    pub(super) seeding: Seeding,
    /// Copies after which the seed goes.
    pub(super) seed_leaves: Option<f64>,
    pub(super) finished_leave: bool,
    pub(super) riders: PartsPerMillion,
    pub(super) rider_connections: u32,
    pub(super) corrupters: PartsPerMillion,
    pub(super) corrupt_blocks: PartsPerMillion,
    pub(super) patience: Duration,
}

impl Plan {
    fn new(settings: &Settings) -> Self {
        let leaves = settings.decimal("seed_leaves");
        Self {
            receivers: settings.count("peers") - 1,
            size: settings.value("size"),
            piece_length: settings.count("piece_length"),
            up: settings.value("up"),
            down: settings.value("down"),
            seed_up: settings.value("seed_up"),
            has_classes: settings.is_on("lines"),
            arrival: settings.duration("arrival"),
            duration: settings.duration("duration"),
            connections: settings.count("connections"),
            slots: settings.count("slots"),
            order: if settings.is_on("order") {
                PieceOrder::Sequential
            } else {
                PieceOrder::RarestFirst
            },
            seeding: match settings.value("seeding") {
                0 => Seeding::EachOnce,
                1 => Seeding::AsAsked,
                _ => Seeding::Super,
            },
            seed_leaves: (leaves > 0.0).then_some(leaves),
            finished_leave: settings.is_on("finished"),
            riders: settings.share("riders"),
            rider_connections: settings.count("rider_connections"),
            corrupters: settings.share("corrupters"),
            corrupt_blocks: settings.share("corrupt_blocks"),
            patience: settings.duration("patience"),
        }
    }

    /// How many of the receivers a share is, rounded down.
    fn count_of(&self, share: PartsPerMillion) -> u32 {
        let count = u64::from(self.receivers) * u64::from(share.0) / 1_000_000;
        u32::try_from(count).expect("a part of a 32-bit number")
    }

    /// What the receiver of this number, counted from 0, does. Free riders and corrupters come
    /// first; who starts when is drawn.
    pub(super) fn role(&self, number: u32) -> Role {
        let riders = self.count_of(self.riders);
        let corrupters = self.count_of(self.corrupters);
        if number < riders {
            Role::Adversary(PeerConduct::FreeRider)
        } else if number < riders + corrupters {
            Role::Adversary(PeerConduct::Corrupt(self.corrupt_blocks))
        } else {
            Role::Compliant
        }
    }

    /// Class of the receiver of this number: 0 slow, 1 middle, 2 fast; `None` with equal lines.
    pub(super) fn class(&self, number: u32) -> Option<usize> {
        let class = usize::try_from(number % 3).expect("below 3");
        self.has_classes.then_some(class)
    }

    /// Uplink of the receiver of this number.
    pub(super) fn uplink(&self, number: u32) -> u64 {
        self.class(number)
            .map_or(self.up, |class| self.up * CLASSES[class] / 10)
    }

    /// The lines as the bounds see them: a free rider's uplink is none.
    pub(super) fn links(&self) -> SwarmLinks {
        let gives = |number: &u32| self.role(*number) != Role::Adversary(PeerConduct::FreeRider);
        let given: u64 = (0..self.receivers)
            .filter(gives)
            .map(|number| self.uplink(number))
            .sum();
        let receivers = u64::from(self.receivers);
        SwarmLinks {
            content_bytes: self.size,
            receivers,
            seed_up: self.seed_up,
            up: given / receivers,
            down: self.down,
        }
    }
}

fn simulate(settings: &Settings, context: &Context) -> Result<Outcome, SettingError> {
    let plan = Plan::new(settings);
    let mut crowd = Crowd::new(plan, context)?;
    crowd.populate();
    crowd.run();
    let mut outcome = Outcome::of(&crowd.world, crowd.measure());
    outcome.charts.push(crowd.completion_chart());
    Ok(outcome)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(overrides: &[(&str, &str)]) -> Plan {
        let owned: Vec<(String, String)> = overrides
            .iter()
            .map(|(key, text)| ((*key).to_owned(), (*text).to_owned()))
            .collect();
        Plan::new(&Settings::resolve(&SETTINGS, &owned).unwrap())
    }

    #[test]
    fn shares_become_roles() {
        let plan = plan(&[("peers", "11"), ("riders", "20%"), ("corrupters", "10%")]);
        let rider = Role::Adversary(PeerConduct::FreeRider);
        let corrupter = Role::Adversary(PeerConduct::Corrupt(PartsPerMillion(1_000_000)));
        let roles: Vec<Role> = (0..4).map(|number| plan.role(number)).collect();
        assert_eq!(roles, [rider, rider, corrupter, Role::Compliant]);
        assert_eq!(plan.links().up, 8 * (1 << 20) / 10, "riders give nothing");
    }

    #[test]
    fn three_classes_have_their_uplinks() {
        let plan = plan(&[("lines", "three-classes"), ("up", "1000000B/s")]);
        let uplinks: Vec<u64> = (0..3).map(|number| plan.uplink(number)).collect();
        assert_eq!(uplinks, [400_000, 1_000_000, 4_000_000]);
        assert_eq!(plan.class(5), Some(2));
    }
}
