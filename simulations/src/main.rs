//! `trackless-sim`: lists and runs the simulations.
#![expect(
    clippy::print_stderr,
    reason = "the command line is where printing belongs"
)]

use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};
use trackless_sim::report::{Report, process_cpu_time};
use trackless_sim::scenario::{self, Scenario, SettingError};

/// Exit code of a run that missed a declared figure.
const FAILED: u8 = 1;
/// Exit code of arguments that make no sense; clap's own is the same.
const WRONG_ARGUMENTS: u8 = 2;

/// Deterministic simulations that drive the shipping cores of trackless.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List the scenarios, with their settings.
    List,
    /// Run a scenario; exit code 1 when a declared figure is missed.
    Run {
        /// Name of the scenario, as `list` shows it.
        scenario: String,
        /// The root of all random choices; the same seed gives the same run.
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// Override a setting of the scenario; may be given several times.
        #[arg(long = "set", value_name = "KEY=VALUE", value_parser = key_value)]
        overrides: Vec<(String, String)>,
        /// Print one JSON object instead of a table.
        #[arg(long)]
        json: bool,
    },
}

/// Splits `key=value`.
fn key_value(text: &str) -> Result<(String, String), &'static str> {
    let (key, value) = text.split_once('=').ok_or("expected KEY=VALUE")?;
    Ok((key.to_owned(), value.to_owned()))
}

fn main() -> ExitCode {
    match Arguments::parse().command {
        Command::List => print(&list()),
        Command::Run {
            scenario,
            seed,
            overrides,
            json,
        } => run(&scenario, seed, &overrides, json),
    }
}

/// The scenarios, one line each, with their settings below.
fn list() -> String {
    let mut text = String::new();
    for scenario in scenario::ALL {
        text.push_str(&format!("{:<14}{}\n", scenario.name, scenario.about));
        for setting in scenario.settings {
            let default = format!("{}={}", setting.key, setting.default);
            text.push_str(&format!("    {default:<24}{}\n", setting.about));
        }
    }
    text
}

fn run(name: &str, seed: u64, overrides: &[(String, String)], json: bool) -> ExitCode {
    let Some(scenario) = Scenario::find(name) else {
        eprintln!("error: there is no scenario {name:?}\n\nhint: `trackless-sim list` names them");
        return ExitCode::from(WRONG_ARGUMENTS);
    };
    let before = process_cpu_time();
    let report = match scenario.run(seed, overrides) {
        Ok(report) => report,
        Err(error) => return refuse(&scenario, &error),
    };
    let cpu = process_cpu_time()
        .zip(before)
        .map(|(now, before)| now - before);
    let printed = print(&if json {
        format!("{}\n", report.summary(cpu))
    } else {
        table(&report, cpu)
    });
    if report.passes() {
        printed
    } else {
        eprintln!("error: a declared figure was missed");
        ExitCode::from(FAILED)
    }
}

fn refuse(scenario: &Scenario, error: &SettingError) -> ExitCode {
    eprintln!("error: {}: {error}", scenario.name);
    eprintln!("\nhint: `trackless-sim list` shows the settings of each scenario");
    ExitCode::from(WRONG_ARGUMENTS)
}

/// The table, and what it cost, which differs from run to run.
fn table(report: &Report, cpu: Option<Duration>) -> String {
    let cpu = cpu.map_or_else(String::new, |cpu| {
        format!("\ncpu time    {:.2}s\n", cpu.as_secs_f64())
    });
    report.table() + &cpu
}

/// Prints a result. A closed pipe is no error.
fn print(text: &str) -> ExitCode {
    match io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            eprintln!("error: cannot write the result: {error}");
            ExitCode::from(FAILED)
        }
        Ok(()) | Err(_) => ExitCode::SUCCESS,
    }
}
