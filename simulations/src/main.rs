//! `trackless-sim`: lists, runs and replays the simulations.
#![expect(
    clippy::print_stderr,
    reason = "the command line is where printing belongs"
)]

mod progress;

use std::error::Error;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::rc::Rc;
use std::time::Duration;

use clap::{Parser, Subcommand};
use trackless_sim::host::HostId;
use trackless_sim::report::{Record, Report, process_cpu_time, write_results};
use trackless_sim::scenario::{self, Context, KINDS, Resolved, Scenario, Size};
use trackless_sim::time::QueueKind;

use progress::Printer;

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
    /// List the scenarios and the kinds of experiment.
    List {
        /// List the settings of each kind as well.
        #[arg(long)]
        settings: bool,
    },
    /// Print the file of a scenario, to start one's own from.
    Show {
        /// Name or code of a built-in scenario, or a TOML file.
        scenario: String,
    },
    /// Run a scenario; exit code 1 when a declared figure is missed.
    Run(RunArguments),
    /// Run again what a result file records and compare the trace hashes.
    Replay {
        /// A `result.jsonl` that `run --out` wrote.
        file: PathBuf,
        /// Tell what happens to this node, on standard error.
        #[arg(long, value_name = "NODE")]
        trace_node: Option<u32>,
    },
}

#[derive(Debug, clap::Args)]
struct RunArguments {
    /// Name or code of a built-in scenario, as `list` shows them, or a TOML file.
    scenario: String,
    /// The root of all random choices; the same seed gives the same run.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Run with this many seeds from `--seed` on; checks are about the 95 % interval of their mean.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=1000))]
    seeds: u64,
    /// Override a setting, of all runs or of one variant; may be given several times.
    #[arg(long = "set", value_name = "[VARIANT.]KEY=VALUE", value_parser = key_value)]
    overrides: Vec<(String, String)>,
    /// Run the version of a few seconds that the tests run.
    #[arg(long)]
    small: bool,
    /// Write results and charts into this folder.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// What keeps the happenings in order: `wheel` or `heap`, the slower reference. The results are
    /// the same.
    #[arg(long, value_name = "QUEUE", default_value = "wheel", value_parser = queue)]
    queue: QueueKind,
    /// Print JSON objects instead of a table.
    #[arg(long)]
    json: bool,
    /// Tell what happens to this node, on standard error.
    #[arg(long, value_name = "NODE")]
    trace_node: Option<u32>,
}

/// Splits `key=value`.
fn key_value(text: &str) -> Result<(String, String), &'static str> {
    let (key, value) = text.split_once('=').ok_or("expected KEY=VALUE")?;
    Ok((key.to_owned(), value.to_owned()))
}

/// Reads the name of a queue.
fn queue(text: &str) -> Result<QueueKind, &'static str> {
    match text {
        "wheel" => Ok(QueueKind::Wheel),
        "heap" => Ok(QueueKind::Heap),
        _ => Err("expected wheel or heap"),
    }
}

fn main() -> ExitCode {
    let done = match Arguments::parse().command {
        Command::List { settings } => Ok(print(&list(settings))),
        Command::Show { scenario } => find(&scenario).map(|found| print(&found.to_toml())),
        Command::Run(arguments) => run(&arguments),
        Command::Replay { file, trace_node } => replay(&file, trace_node),
    };
    done.unwrap_or_else(|refusal| refusal)
}

/// The scenarios, one line each, then the kinds.
fn list(with_settings: bool) -> String {
    let mut text = String::new();
    for Scenario {
        code, name, about, ..
    } in Scenario::built_in()
    {
        text.push_str(&format!("{code:<8}{name:<22}{about}\n"));
    }
    if !with_settings {
        text.push_str("\n`trackless-sim list --settings` shows what can be set\n");
        return text;
    }
    for kind in KINDS {
        text.push_str(&format!("\nkind {}: {}\n", kind.name, kind.about));
        for setting in kind.settings {
            let default = format!("{}={}", setting.key, setting.default);
            text.push_str(&format!("    {default:<26}{}\n", setting.about));
        }
    }
    text
}

/// A built-in scenario, or that of a file.
fn find(name: &str) -> Result<Scenario, ExitCode> {
    if let Some(scenario) = Scenario::find(name) {
        return Ok(scenario);
    }
    let is_file = Path::new(name).extension().is_some_and(|e| e == "toml");
    if !is_file && !Path::new(name).is_file() {
        let hint = "`trackless-sim list` names them; a file's name ends with .toml";
        return Err(refuse(&format!("there is no scenario {name:?}"), hint));
    }
    let text = fs::read_to_string(name)
        .map_err(|error| refuse(&format!("{name}: {error}"), "give the path of a TOML file"))?;
    let hint = "`trackless-sim show d1` prints a file to start from";
    Scenario::parse(&text).map_err(|error| refuse(&format!("{name}: {error}"), hint))
}

/// Says what is wrong with the arguments.
fn refuse(error: &str, hint: &str) -> ExitCode {
    eprintln!("error: {error}\n\nhint: {hint}");
    ExitCode::from(WRONG_ARGUMENTS)
}

/// Says why something failed, with its causes.
fn fail(error: &dyn Error) -> ExitCode {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    eprintln!("error: {text}");
    ExitCode::from(FAILED)
}

fn run(arguments: &RunArguments) -> Result<ExitCode, ExitCode> {
    let name = &arguments.scenario;
    let scenario = find(name)?;
    let size = if arguments.small {
        Size::Small
    } else {
        Size::Full
    };
    let hint = "`trackless-sim list --settings` shows the settings of each kind";
    let refused = |error| refuse(&format!("{name}: {error}"), hint);
    let resolved = scenario
        .resolve(size, &arguments.overrides)
        .map_err(refused)?;
    let Some(end) = arguments.seed.checked_add(arguments.seeds) else {
        let hint = "the last seed is 18446744073709551614";
        return Err(refuse("there are not so many seeds from there on", hint));
    };
    let seeds: Vec<u64> = (arguments.seed..end).collect();
    let before = process_cpu_time();
    let report =
        simulate(&resolved, &seeds, arguments.trace_node, arguments.queue).map_err(refused)?;
    let cpu = process_cpu_time()
        .zip(before)
        .map(|(now, before)| now - before);
    if let Some(folder) = &arguments.out {
        let written = write_results(&report, cpu, folder).map_err(|error| fail(&error))?;
        for path in written {
            eprintln!("wrote {}", path.display());
        }
    }
    let printed = print(&if arguments.json {
        format!("{}\n", report.summary(cpu))
    } else {
        table(&report, cpu)
    });
    Ok(match report.failing_seed() {
        None => printed,
        Some(seed) => {
            eprintln!("error: a declared figure was missed\n");
            eprintln!("hint: {}", again(arguments, seed));
            ExitCode::from(FAILED)
        }
    })
}

/// The command line that runs one seed again.
fn again(arguments: &RunArguments, seed: u64) -> String {
    let scenario = quoted(&arguments.scenario);
    let mut text = format!("trackless-sim run {scenario} --seed {seed}");
    if arguments.small {
        text.push_str(" --small");
    }
    for (key, value) in &arguments.overrides {
        text.push_str(&format!(" --set {}", quoted(&format!("{key}={value}"))));
    }
    text
}

/// A word as a shell takes it.
fn quoted(word: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./=%+:,".contains(c);
    if word.chars().all(is_plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// Runs with a progress line.
fn simulate(
    resolved: &Resolved,
    seeds: &[u64],
    trace_node: Option<u32>,
    queue: QueueKind,
) -> Result<Report, scenario::ScenarioError> {
    let name = &resolved.scenario.name;
    scenario::run(resolved, seeds, &mut |variant, seed| {
        let variant = match variant {
            "" => String::new(),
            variant => format!(" {variant}"),
        };
        let title = format!("{name}{variant}, seed {seed}");
        let mut context = Context::new(seed);
        context.watch = Some(Rc::new(Printer::new(title, trace_node.is_some())));
        context.traced = trace_node.map(HostId);
        context.queue = queue;
        context
    })
}

/// Runs a recorded result again.
fn replay(file: &Path, trace_node: Option<u32>) -> Result<ExitCode, ExitCode> {
    let record = Record::read(file).map_err(|error| {
        fail(&error);
        ExitCode::from(WRONG_ARGUMENTS)
    })?;
    let hint = "it was recorded by another version";
    let refused = |error| refuse(&format!("{}: {error}", file.display()), hint);
    let resolved = record.scenario.resolve(Size::Full, &[]).map_err(refused)?;
    let report =
        simulate(&resolved, &record.seeds(), trace_node, QueueKind::Wheel).map_err(refused)?;
    let printed = print(&table(&report, None));
    let differing = record.differing(&report);
    for (seed, variant) in &differing {
        let variant = match variant.as_str() {
            "" => String::new(),
            name => format!(" variant {name}"),
        };
        eprintln!("error: seed {seed}{variant}: another trace hash than recorded");
    }
    if differing.is_empty() {
        eprintln!("the trace hashes are the recorded ones");
        return Ok(printed);
    }
    eprintln!("\nhint: another version, or a run that is not a function of its seed");
    Ok(ExitCode::from(FAILED))
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
