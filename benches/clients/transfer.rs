//! One transfer from some programs to others, and what it costs.

use std::time::Instant;

use crate::content::Lot;
use crate::meter::{Cost, Meter};
use crate::programs::{self, Client};

/// The first host of each side.
const SEEDERS: u8 = 20;
const DOWNLOADERS: u8 = 30;

/// Who gives, who takes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan {
    pub(crate) seeder: Client,
    pub(crate) seeders: u8,
    pub(crate) downloader: Client,
    pub(crate) downloaders: u8,
}

impl Plan {
    /// One gives, one takes.
    pub(crate) const fn pair(seeder: Client, downloader: Client) -> Self {
        Self {
            seeder,
            seeders: 1,
            downloader,
            downloaders: 1,
        }
    }
}

/// What a transfer took.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Run {
    /// From the start of the downloaders to the last verified piece of the last of them.
    pub(crate) seconds: f64,
    /// Of these, from the first MiB on that reached the first downloader.
    pub(crate) moving: f64,
    /// Of all seeders together.
    pub(crate) seeding: Cost,
    /// Of all downloaders together.
    pub(crate) downloading: Cost,
}

/// Moves the content once.
pub(crate) fn measure(lot: &Lot<'_>, plan: Plan) -> Run {
    let tracker = programs::tracker(lot);
    let seeders: Vec<_> = (SEEDERS..SEEDERS + plan.seeders)
        .map(|host| programs::seed(lot, plan.seeder, host))
        .collect();
    programs::wait_for_seeds(lot, plan.seeders);
    let hosts = DOWNLOADERS..DOWNLOADERS + plan.downloaders;
    let alone = plan.downloaders == 1;
    for host in hosts.clone() {
        lot.clear(host);
    }
    let serving: Vec<Meter> = seeders
        .iter()
        .map(|program| Meter::start(program.id()))
        .collect();
    let started = Instant::now();
    let mut downloaders: Vec<_> = hosts
        .clone()
        .map(|host| programs::download(lot, plan.downloader, host, alone))
        .collect();
    let fetching: Vec<Meter> = downloaders
        .iter()
        .map(|program| Meter::start(program.id()))
        .collect();
    let arrival = programs::watch_arrival(lot, DOWNLOADERS, started);
    for program in &mut downloaders {
        programs::wait_until_done(plan.downloader, program, alone);
    }
    let seconds = started.elapsed().as_secs_f64();
    let moving = seconds - arrival.join().unwrap();
    for program in &mut downloaders {
        programs::finish(plan.downloader, program);
    }
    let seeding = sum(serving);
    let downloading = sum(fetching);
    drop((downloaders, seeders, tracker));
    for host in hosts {
        lot.compare(host);
    }
    Run {
        seconds,
        moving,
        seeding,
        downloading,
    }
}

/// Processor time of all, memory of the largest.
fn sum(meters: Vec<Meter>) -> Cost {
    let mut all = Cost::default();
    for meter in meters {
        let cost = meter.stop();
        all.cpu += cost.cpu;
        all.resident = all.resident.max(cost.resident);
        all.anonymous = all.anonymous.max(cost.anonymous);
    }
    all
}
