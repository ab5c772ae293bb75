//! What is measured of a swarm.

use std::time::Duration;

use trackless::metainfo::BLOCK_LENGTH;
use trackless::time::Instant;

use super::Role;
use super::crowd::{Crowd, SEED};
use crate::adversary::PeerConduct;
use crate::host::HostId;
use crate::pipe::Side;
use crate::plot::{Chart, Shape};
use crate::report::Metrics;
use crate::statistics::{Series, count, float, share};

/// The rider's role.
const RIDER: Role = Role::Adversary(PeerConduct::FreeRider);

/// Names of the mean times of the three classes.
const CLASS_TIMES: [&str; 3] = ["t_mean_slow", "t_mean_middle", "t_mean_fast"];

impl Crowd {
    /// Times to completion of the peers that `chosen` picks, in seconds.
    fn times(&self, chosen: impl Fn(HostId) -> bool) -> Series {
        let mut series = Series::default();
        for (host, fate) in &self.fates {
            if chosen(*host)
                && let Some(completed) = fate.completed
            {
                series.add_duration(completed.saturating_since(fate.started));
            }
        }
        series
    }

    /// How many of the receivers `chosen` picks.
    fn number_of(&self, chosen: impl Fn(HostId) -> bool) -> usize {
        let hosts = (1..=self.plan.receivers).map(HostId);
        hosts.filter(|host| chosen(*host)).count()
    }

    /// The mean time of those that `chosen` picks; `None` unless each of them finished.
    fn mean_time(&self, chosen: impl Fn(HostId) -> bool + Copy) -> Option<f64> {
        let times = self.times(chosen);
        times
            .mean()
            .filter(|_| times.len() == self.number_of(chosen))
    }

    /// Everything that is measured; what an experiment is not about is left out.
    pub(super) fn measure(&self) -> Metrics {
        let mut metrics = Metrics::default();
        metrics.add("completed", self.completed_share());
        self.measure_times(&mut metrics);
        self.measure_traffic(&mut metrics);
        if self.plan.seed_leaves.is_some() {
            let uploaded = self.farewell.map(|farewell| farewell.uploaded);
            let copies = uploaded.and_then(|bytes| share(bytes, self.plan.size));
            metrics.add("seed_copies_at_farewell", copies);
            let lost = self.lost_pieces();
            metrics.add("lost_pieces", f64::from(lost));
            metrics.add("survived", if lost == 0 { 1.0 } else { 0.0 });
        }
        if self.plan.has_classes {
            self.measure_classes(&mut metrics);
        }
        if self.plan.riders.0 > 0 {
            let riders = |host: HostId| self.role(host) == RIDER;
            metrics.add("t_mean_compliant", self.mean_time(|host| !riders(host)));
            metrics.add("t_mean_riders", self.mean_time(riders));
        } else {
            metrics.add("t_mean_compliant", self.mean_time(|_| true));
        }
        if self.plan.corrupters.0 > 0 {
            self.measure_corruption(&mut metrics);
        }
        metrics
    }

    fn measure_times(&self, metrics: &mut Metrics) {
        let links = self.plan.links();
        let since_start = |at: Instant| at.saturating_since(Instant::ZERO);
        let (mut finished, mut metadata) = (Series::default(), Series::default());
        for fate in self.fates.values() {
            if let Some(at) = fate.completed {
                finished.add_duration(since_start(at));
            }
            if let Some(at) = fate.metadata {
                metadata.add_duration(since_start(at));
            }
        }
        let is_complete = self.finished() >= u64::from(self.plan.receivers);
        let t_last = finished.max().filter(|_| is_complete);
        let t_mean = finished.mean().filter(|_| is_complete);
        metrics.add("t_metadata", metadata.max());
        metrics.add("t_first", finished.min());
        metrics.add("t_mean", t_mean);
        metrics.add("t_last", t_last);
        // The bound holds for a seed that stays.
        if self.plan.seed_leaves.is_none() && !self.plan.finished_leave {
            let least = self.least_time().as_secs_f64();
            metrics.add("least_time", least);
            metrics.add("t_mean_over_bound", t_mean.map(|time| time / least));
            metrics.add("t_last_over_bound", t_last.map(|time| time / least));
        }
        let uploaded: u64 = (0..=self.plan.receivers)
            .map(|number| self.world.network().uploaded(HostId(number)))
            .sum();
        let end = t_last.unwrap_or_else(|| since_start(self.world.now()).as_secs_f64());
        let offered = float(links.uplinks()) * end;
        metrics.add("uplink_utilisation", float(uploaded) / offered);
    }

    /// The greater of the bounds that hold here.
    fn least_time(&self) -> Duration {
        let links = self.plan.links();
        let is_equal =
            !self.plan.has_classes && self.plan.riders.0 == 0 && self.plan.seed_up == self.plan.up;
        let pieces = u64::from(self.info.geometry().piece_count());
        let fluid = links.least_time();
        if is_equal {
            fluid.max(links.least_time_in_parts(pieces))
        } else {
            fluid
        }
    }

    fn measure_traffic(&self, metrics: &mut Metrics) {
        let now = self.world.now();
        let (mut downloaded, mut wasted, mut sent) = (0, 0, 0);
        for host in &self.present {
            let stats = self.world.torrent_of(*host).stats(now);
            downloaded += stats.downloaded;
            wasted += stats.wasted;
            sent += stats.uploaded;
        }
        let from_seed = self.world.network().uploaded(SEED);
        metrics.add("seed_copies", share(from_seed, self.plan.size));
        let blocks = share(downloaded, u64::from(BLOCK_LENGTH));
        metrics.add("blocks_received", blocks);
        metrics.add("duplicate_blocks", share(wasted, downloaded));
        let failed: u64 = self.pieces_failed.values().sum();
        metrics.add("pieces_failed", float(failed));
        // Who left took its numbers along.
        let everybody = u32::try_from(self.present.len()).ok() == Some(self.plan.receivers + 1);
        let is_whole = everybody && failed == 0 && self.completed_share() >= 1.0;
        if is_whole {
            let needed = self.plan.size * u64::from(self.plan.receivers);
            metrics.add("useful_over_needed", share(downloaded - wasted, needed));
            metrics.add("received_over_sent", share(downloaded, sent));
        }
    }

    fn measure_classes(&self, metrics: &mut Metrics) {
        let class = |host: HostId| Self::receiver(host).and_then(|n| self.plan.class(n));
        for (number, name) in CLASS_TIMES.into_iter().enumerate() {
            metrics.add(name, self.mean_time(|host| class(host) == Some(number)));
        }
        let (mut among_fast, mut from_fast) = (0, 0);
        for pipe in self.world.network().pipes() {
            for side in [Side::Dialler, Side::Acceptor] {
                if class(pipe.host(side)) == Some(2) {
                    from_fast += pipe.written(side);
                    if class(pipe.host(side.other())) == Some(2) {
                        among_fast += pipe.written(side);
                    }
                }
            }
        }
        metrics.add("fast_to_fast", share(among_fast, from_fast));
    }

    fn measure_corruption(&self, metrics: &mut Metrics) {
        let is_bad = |host: HostId| !matches!(self.role(host), Role::Seed | Role::Compliant);
        let victims = (0..=self.plan.receivers).map(HostId);
        let victims: Vec<HostId> = victims.filter(|host| !is_bad(*host)).collect();
        let bad = self.number_of(is_bad);
        let mut to_ban = Series::default();
        let mut false_bans = 0;
        for ((by, banned), at) in &self.bans {
            if is_bad(*banned) {
                let met = self
                    .fates
                    .get(by)
                    .map_or(Instant::ZERO, |fate| fate.started);
                to_ban.add_duration(at.saturating_since(met));
            } else {
                false_bans += u32::from(!is_bad(*by));
            }
        }
        let now = self.world.now();
        // What the seed got is nothing, and what came twice has another cause.
        let (mut received, mut wasted, mut failed) = (0, 0, 0);
        for host in victims.iter().filter(|host| **host != SEED) {
            let stats = self.world.torrent_of(*host).stats(now);
            received += stats.downloaded.saturating_sub(stats.bytes_done);
            wasted += stats.wasted;
            failed += self.pieces_failed.get(host).copied().unwrap_or(0);
        }
        let bad_bytes = failed * u64::from(self.plan.piece_length);
        let duplicates = wasted.saturating_sub(bad_bytes);
        let spoilt = received.saturating_sub(duplicates);
        let pairs = count(victims.len() - 1) * count(bad);
        let pieces = float(spoilt) / f64::from(self.plan.piece_length);
        metrics.add("bad_peers", count(bad));
        metrics.add("t_last_honest", self.times(|host| !is_bad(host)).max());
        // A share may round down to nobody.
        let pairs = (pairs > 0.0).then_some(pairs);
        let per_pair = |number: f64| pairs.map(|pairs| number / pairs);
        metrics.add("bans_per_pair", per_pair(count(to_ban.len())));
        metrics.add("time_to_ban", to_ban.mean());
        metrics.add("wasted_pieces_per_pair", per_pair(pieces));
        metrics.add("false_bans", f64::from(false_bans));
        metrics.add("bad_pieces_accepted", count(self.bad_pieces()));
    }

    /// Pieces that a compliant peer counts as verified and whose bytes are wrong on its disk.
    fn bad_pieces(&self) -> usize {
        self.world.bad_pieces(self.present.iter().copied())
    }

    /// How many have everything, over time.
    pub(super) fn completion_chart(&self) -> Chart {
        let mut finished = Series::default();
        for fate in self.fates.values() {
            if let Some(at) = fate.completed {
                finished.add_duration(at.saturating_since(Instant::ZERO));
            }
        }
        // Of all that should finish: a line that does not reach the top shows who did not.
        let share = self.completed_share();
        let mut points = vec![(0.0, 0.0)];
        let finished = finished.distribution().into_iter();
        points.extend(finished.map(|(at, of_finished)| (at, of_finished * share)));
        Chart::new(
            "completion",
            "Peers that have everything",
            "seconds",
            "share of the peers",
        )
        .with("", Shape::Steps, points)
        .with_mark("fluid bound", self.least_time().as_secs_f64())
    }
}
