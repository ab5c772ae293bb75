//! Who is there when: sessions and absences of hosts.
//!
//! Invariant: the sessions of a host depend on the root seed, its number and the number of the
//! session only. They can be asked for in any order, and a host more changes nobody else's.

use std::time::Duration;

use trackless::random::Random;

use crate::host::HostId;
use crate::lifetime::{Lifetime, Running};
use crate::link::PartsPerMillion;
use crate::seeds::Seeds;

/// How hosts come and go.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Churn {
    /// How long a session lasts.
    pub session: Lifetime,
    /// How long a host is away between two sessions.
    pub absence: Lifetime,
    /// Share of the hosts that come back with the id they had; the others draw a new one.
    pub same_id: PartsPerMillion,
    /// Share of the sessions that end in an orderly way ([`Departure::Graceful`]).
    pub graceful: PartsPerMillion,
}

/// How a host leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Departure {
    /// It falls silent: nobody is told, nothing is kept, what it had not sent is lost.
    Crash,
    /// It closes its streams and keeps what a node keeps across a restart.
    Graceful,
}

/// As whom a host comes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Identity {
    /// With the id it had.
    Same,
    /// With a new one.
    New,
}

/// A session and what follows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Session {
    /// How long the host is there.
    pub up: Duration,
    /// How it leaves.
    pub departure: Departure,
    /// How long it is away.
    pub down: Duration,
    /// As whom it comes back.
    pub identity: Identity,
}

/// In what state a host is met when a run begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// It is there, for as long as the rest of its session.
    Up(Running),
    /// It is away, and will be for this long.
    Down(Duration),
}

impl Churn {
    /// The share of its time that a host is there.
    #[must_use]
    pub fn availability(&self) -> f64 {
        let (up, down) = (self.session.mean(), self.absence.mean());
        up / (up + down)
    }

    /// How a host is met at the beginning: in the steady state of its coming and going.
    #[must_use]
    pub fn start(&self, seeds: Seeds, host: HostId) -> Start {
        let mut random = seeds.stream("churn start", u64::from(host.0));
        if random.unit() < self.availability() {
            Start::Up(self.session.draw_running(&mut random))
        } else {
            Start::Down(self.absence.draw_running(&mut random).rest)
        }
    }

    /// A host's session of this number, counted from 0. Of session 0 of a host that was met
    /// [up](Start::Up) only the end counts: the rest of it was drawn with the start.
    #[must_use]
    pub fn session(&self, seeds: Seeds, host: HostId, number: u32) -> Session {
        let index = u64::from(host.0) << 32 | u64::from(number);
        let mut random = seeds.stream("churn session", index);
        Session {
            up: self.session.draw(&mut random),
            down: self.absence.draw(&mut random),
            departure: if happens(&mut random, self.graceful) {
                Departure::Graceful
            } else {
                Departure::Crash
            },
            identity: if happens(&mut random, self.same_id) {
                Identity::Same
            } else {
                Identity::New
            },
        }
    }
}

/// Draws whether something of this probability happens.
fn happens(random: &mut Random, share: PartsPerMillion) -> bool {
    random.below(1_000_000) < share.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn churn() -> Churn {
        Churn {
            session: Lifetime::weibull(0.5, Duration::from_secs(900)),
            absence: Lifetime::exponential(Duration::from_secs(3_600)),
            same_id: PartsPerMillion(250_000),
            graceful: PartsPerMillion(1_000_000),
        }
    }

    #[test]
    fn a_session_does_not_depend_on_which_others_were_asked_for() {
        let (churn, seeds) = (churn(), Seeds::new(1));
        let later = churn.session(seeds, HostId(3), 5);
        let _ = churn.session(seeds, HostId(3), 4);
        assert_eq!(churn.session(seeds, HostId(3), 5), later);
        assert_ne!(churn.session(seeds, HostId(4), 5), later);
        assert_ne!(churn.session(Seeds::new(2), HostId(3), 5), later);
    }

    #[test]
    fn the_wanted_share_of_hosts_is_there_at_the_start_and_an_hour_later() {
        let (churn, seeds) = (churn(), Seeds::new(1));
        let hosts = 20_000;
        let hour = Duration::from_secs(3_600);
        let (mut first, mut later) = (0, 0);
        for host in (0..hosts).map(HostId) {
            let (mut is_up, mut left) = match churn.start(seeds, host) {
                Start::Up(running) => (true, running.rest),
                Start::Down(rest) => (false, rest),
            };
            first += u32::from(is_up);
            let mut number = 0;
            while left < hour {
                let session = churn.session(seeds, host, number);
                left += if is_up { session.down } else { session.up };
                number += u32::from(is_up);
                is_up = !is_up;
            }
            later += u32::from(is_up);
        }
        let wanted = churn.availability();
        for share in [first, later].map(|up| f64::from(up) / f64::from(hosts)) {
            assert!(
                (share - wanted).abs() < 0.015,
                "{share} instead of {wanted}"
            );
        }
    }

    #[test]
    fn departures_and_identities_have_their_shares() {
        let (churn, seeds) = (churn(), Seeds::new(1));
        let sessions: Vec<Session> = (0..10_000)
            .map(|number| churn.session(seeds, HostId(0), number))
            .collect();
        let graceful = |session: &&Session| session.departure == Departure::Graceful;
        assert_eq!(sessions.iter().filter(graceful).count(), 10_000);
        let same = sessions
            .iter()
            .filter(|session| session.identity == Identity::Same)
            .count();
        assert!((2_300..2_700).contains(&same), "{same}");
    }
}
