//! The results, as tables.

use crate::meter::Cost;
use crate::transfer::{Plan, Run};

/// All transfers of one plan.
pub(crate) struct Row {
    pub(crate) plan: Plan,
    pub(crate) runs: Vec<Run>,
}

/// Least, median and most.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Spread([f64; 3]);

impl Spread {
    /// Of at least one figure.
    pub(crate) fn of(mut all: Vec<f64>) -> Self {
        all.sort_by(f64::total_cmp);
        Self([all[0], all[all.len() / 2], all[all.len() - 1]])
    }

    pub(crate) const fn median(self) -> f64 {
        self.0[1]
    }
}

impl std::fmt::Display for Spread {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [least, median, most] = self.0;
        write!(formatter, "{median:.2} ({least:.2} to {most:.2})")
    }
}

impl Row {
    pub(crate) const fn new(plan: Plan) -> Self {
        Self {
            plan,
            runs: Vec::new(),
        }
    }

    fn spread(&self, figure: impl Fn(&Run) -> f64) -> Spread {
        Spread::of(self.runs.iter().map(figure).collect())
    }

    /// MiB at the peak of any run, and how much of it belongs to no file.
    fn peak(&self, cost: fn(&Run) -> Cost) -> String {
        let mib = |of: fn(&Cost) -> u64| {
            let kibibytes = self.runs.iter().map(|run| of(&cost(run))).max();
            kibibytes.unwrap_or(0).div_ceil(1_024)
        };
        format!(
            "{} ({})",
            mib(|cost| cost.resident),
            mib(|cost| cost.anonymous)
        )
    }
}

/// Prints one table; ratios are to the first row, processor time is for each GiB that arrives.
pub(crate) fn print(title: &str, rows: &[Row], gibibytes: f64) {
    println!("\n{title}\n");
    println!(
        "| from | to | wall s | ratio | moving s | to: CPU s/GiB | ratio | from: CPU s/GiB | ratio | both | to: peak MiB | from: peak MiB |"
    );
    println!("|{}", " --- |".repeat(12));
    let taken = |row: &Row| {
        let amount = gibibytes * f64::from(row.plan.downloaders);
        row.spread(|run| run.downloading.cpu / amount)
    };
    let given = |row: &Row| {
        let amount = gibibytes * f64::from(row.plan.downloaders);
        row.spread(|run| run.seeding.cpu / amount)
    };
    let wall = |row: &Row| row.spread(|run| run.seconds);
    for row in rows {
        let ratio = |of: &dyn Fn(&Row) -> Spread| of(row).median() / of(&rows[0]).median();
        println!(
            "| {} | {} | {} | {:.2} | {} | {} | {:.2} | {} | {:.2} | {:.2} | {} | {} |",
            count(row.plan.seeders, row.plan.seeder.name()),
            count(row.plan.downloaders, row.plan.downloader.name()),
            wall(row),
            ratio(&wall),
            row.spread(|run| run.moving),
            taken(row),
            ratio(&taken),
            given(row),
            ratio(&given),
            taken(row).median() + given(row).median(),
            row.peak(|run| run.downloading),
            row.peak(|run| run.seeding),
        );
    }
}

fn count(count: u8, name: &str) -> String {
    if count == 1 {
        name.to_owned()
    } else {
        format!("{count} {name}")
    }
}
