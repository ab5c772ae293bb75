//! The result, as tables.

use crate::load::Outcome;
use crate::meter::Usage;
use crate::servers::Program;

/// A count as a fraction.
pub(crate) fn float(count: u64) -> f64 {
    f64::from(u32::try_from(count).unwrap())
}

/// A part of a whole in percent.
pub(crate) fn share(part: u64, whole: u64) -> f64 {
    100.0 * float(part) / float(whole.max(1))
}

/// One run.
struct Run {
    cost: f64,
    user: f64,
    rate: f64,
    answered: f64,
}

/// All runs of one program with one kind of work.
pub(crate) struct Row {
    work: &'static str,
    program: Program,
    runs: Vec<Run>,
}

impl Row {
    pub(crate) const fn new(work: &'static str, program: Program) -> Self {
        Self {
            work,
            program,
            runs: Vec::new(),
        }
    }

    /// A run has ended.
    pub(crate) fn add(&mut self, outcome: &Outcome, usage: &Usage) {
        let millions = float(outcome.answered.max(1)) / 1e6;
        self.runs.push(Run {
            cost: usage.per_million(outcome),
            user: usage.user / millions,
            rate: float(outcome.answered) / outcome.seconds,
            answered: share(outcome.answered, outcome.sent),
        });
    }

    /// Least, median and most of one figure.
    fn spread(&self, figure: impl Fn(&Run) -> f64) -> [f64; 3] {
        let mut all: Vec<f64> = self.runs.iter().map(figure).collect();
        all.sort_by(f64::total_cmp);
        [all[0], all[all.len() / 2], all[all.len() - 1]]
    }
}

/// What storing costs.
pub(crate) struct Store {
    pub(crate) program: Program,
    /// Seconds for a million announces with few torrents in store.
    pub(crate) few: f64,
    /// The same with many.
    pub(crate) many: f64,
    /// Torrents that were added.
    pub(crate) stored: u64,
    /// Resident memory that they took.
    pub(crate) bytes: u64,
    /// Resident memory in all.
    pub(crate) resident: u64,
}

/// How it is at half of the highest rate.
pub(crate) struct Half {
    pub(crate) program: Program,
    pub(crate) rate: f64,
    pub(crate) answered: f64,
    /// Milliseconds.
    pub(crate) p50: f64,
    /// Milliseconds.
    pub(crate) p99: f64,
}

/// All that was measured.
#[derive(Default)]
pub(crate) struct Sheet {
    pub(crate) rows: Vec<Row>,
    pub(crate) stores: Vec<Store>,
    pub(crate) halves: Vec<Half>,
}

impl Sheet {
    fn find(&self, work: &str, program: Program) -> Option<&Row> {
        let is_it = |row: &&Row| row.work == work && row.program == program;
        self.rows
            .iter()
            .find(is_it)
            .filter(|row| !row.runs.is_empty())
    }

    /// Answers a second to the mix.
    pub(crate) fn highest_rate(&self, program: Program) -> Option<f64> {
        Some(self.find("mix", program)?.spread(|run| run.rate)[1])
    }

    pub(crate) fn print(&self) {
        println!(
            "\n| query | program | CPU s per million answers | of it user | to the floor | to \
             libtorrent | answers/s | answered % |"
        );
        println!("| --- | --- | --- | --- | --- | --- | --- | --- |");
        for row in self.rows.iter().filter(|row| !row.runs.is_empty()) {
            let cost = row.spread(|run| run.cost);
            let ratio = |program| {
                let other = self.find(row.work, program);
                other.map_or("-".to_owned(), |other| {
                    format!("{:.2}", cost[1] / other.spread(|run| run.cost)[1])
                })
            };
            println!(
                "| {} | {} | {:.2} ({:.2} to {:.2}) | {:.2} | {} | {} | {:.0} | {:.2} |",
                row.work,
                row.program.name(),
                cost[1],
                cost[0],
                cost[2],
                row.spread(|run| run.user)[1],
                ratio(Program::Echo),
                ratio(Program::Libtorrent),
                row.spread(|run| run.rate)[1],
                row.spread(|run| run.answered)[0],
            );
        }
        println!("\n| program | queries/s | answered % | p50 ms | p99 ms |");
        println!("| --- | --- | --- | --- | --- |");
        for half in &self.halves {
            println!(
                "| {} | {:.0} | {:.2} | {:.2} | {:.2} |",
                half.program.name(),
                half.rate,
                half.answered,
                half.p50,
                half.p99,
            );
        }
        println!(
            "\n| program | torrents added | bytes of memory each | memory in all, MiB | CPU s per \
             million announces at 1,000 | at 100,000 | ratio |"
        );
        println!("| --- | --- | --- | --- | --- | --- | --- |");
        for store in &self.stores {
            println!(
                "| {} | {} | {:.0} | {:.1} | {:.2} | {:.2} | {:.2} |",
                store.program.name(),
                store.stored,
                float(store.bytes) / float(store.stored.max(1)),
                float(store.resident) / f64::from(1 << 20),
                store.few,
                store.many,
                store.many / store.few,
            );
        }
    }
}
