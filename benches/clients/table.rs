//! The result, as a table.

use crate::meter::Cost;
use crate::programs::Client;

/// One transfer, as one side saw it.
pub(crate) struct Run {
    /// From the start of the downloader to the last verified piece.
    seconds: f64,
    /// Of these, from the first MiB that arrived on.
    moving: f64,
    cost: Cost,
}

impl Run {
    pub(crate) const fn new(seconds: f64, moving: f64, cost: Cost) -> Self {
        Self {
            seconds,
            moving,
            cost,
        }
    }
}

/// All transfers of one program on one side.
pub(crate) struct Row {
    pub(crate) client: Client,
    pub(crate) runs: Vec<Run>,
}

impl Row {
    pub(crate) const fn new(client: Client) -> Self {
        Self {
            client,
            runs: Vec::new(),
        }
    }

    /// Least, median and most of one figure.
    fn spread(&self, figure: impl Fn(&Run) -> f64) -> [f64; 3] {
        let mut all: Vec<f64> = self.runs.iter().map(figure).collect();
        all.sort_by(f64::total_cmp);
        [all[0], all[all.len() / 2], all[all.len() - 1]]
    }
}

/// Prints one table; ratios are to the first row.
pub(crate) fn print(title: &str, rows: &[Row], mebibytes: u64) {
    let gibibytes = f64::from(u32::try_from(mebibytes).unwrap()) / 1_024.0;
    println!("\n{title}\n");
    println!(
        "| program | wall s | moving s | ratio | CPU s/GiB | ratio | peak MiB | of it no file's |"
    );
    println!("| --- | --- | --- | --- | --- | --- | --- | --- |");
    let cpu = |run: &Run| run.cost.cpu / gibibytes;
    let moving_first = rows[0].spread(|run| run.moving)[1];
    let cpu_first = rows[0].spread(cpu)[1];
    for row in rows {
        let wall = row.spread(|run| run.seconds);
        let moving = row.spread(|run| run.moving);
        let spent = row.spread(cpu);
        let mib = |of: fn(&Cost) -> u64| {
            let kibibytes = row.runs.iter().map(|run| of(&run.cost)).max().unwrap_or(0);
            kibibytes.div_ceil(1_024)
        };
        println!(
            "| {} | {:.2} ({:.2} to {:.2}) | {:.2} ({:.2} to {:.2}) | {:.2} | {:.2} ({:.2} to {:.2}) | {:.2} | {} | {} |",
            row.client.name(),
            wall[1],
            wall[0],
            wall[2],
            moving[1],
            moving[0],
            moving[2],
            moving[1] / moving_first,
            spent[1],
            spent[0],
            spent[2],
            spent[1] / cpu_first,
            mib(|cost| cost.resident),
            mib(|cost| cost.anonymous),
        );
    }
}
