//! `trackless-fuzz`: hunts for datagrams that a DHT node does not bear, and replays what was found.
#![expect(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::print_stderr,
    clippy::print_stdout,
    reason = "the command line is where printing and the clock belong"
)]

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::{Parser, Subcommand};
use trackless::dht::Counters;
use trackless_fuzz::hunt::{Hunt, play_thoroughly, shorten};
use trackless_fuzz::profile::Profile;
use trackless_fuzz::run::Finding;
use trackless_fuzz::script::{Script, parse};

/// Where the corpus is.
const CORPUS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/corpus.txt");

/// Scripts and bytes of the corpus at most.
const CORPUS_SCRIPTS_MAX: usize = 200;
const CORPUS_BYTES_MAX: usize = 150_000;

/// Scripts between two looks at the clock.
const BATCH: u32 = 200;

/// Hostile datagrams for the DHT node of trackless.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Change and play scripts for a while; exit code 1 when a promise is broken.
    Hunt {
        /// How long, in seconds.
        #[arg(long, default_value_t = 60)]
        seconds: u64,
        /// The same seed, corpus and number of scripts give the same hunt.
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// Scripts to begin with.
        #[arg(long, default_value = CORPUS)]
        corpus: PathBuf,
        /// Write the scripts that reach most back into the corpus.
        #[arg(long)]
        save: bool,
        /// Where a script that breaks a promise is written to.
        #[arg(long, default_value = "finding.txt")]
        finding: PathBuf,
    },
    /// Play the scripts of a file; exit code 1 when a promise is broken.
    Replay {
        /// The file.
        #[arg(default_value = CORPUS)]
        file: PathBuf,
    },
}

fn main() -> ExitCode {
    match start(&Arguments::parse().command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn start(command: &Command) -> Result<ExitCode, Box<dyn Error>> {
    match command {
        Command::Hunt {
            seconds,
            seed,
            corpus,
            save,
            finding,
        } => {
            let scripts = match fs::read_to_string(corpus) {
                Ok(text) => parse(&text)?,
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
                Err(error) => return Err(error.into()),
            };
            match hunt(*seed, scripts, Duration::from_secs(*seconds)) {
                Ok(hunt) if *save => {
                    write_corpus(corpus, &hunt)?;
                    Ok(ExitCode::SUCCESS)
                }
                Ok(_) => Ok(ExitCode::SUCCESS),
                Err(found) => report(&found.0, &found.1, finding),
            }
        }
        Command::Replay { file } => {
            let scripts = parse(&fs::read_to_string(file)?)?;
            for (number, script) in (1..).zip(&scripts) {
                if let Err(finding) = play_thoroughly(script) {
                    println!("script {number} breaks a promise\n{finding}\n\n{script}");
                    return Ok(ExitCode::FAILURE);
                }
            }
            println!("{} scripts, no finding", scripts.len());
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// Plays changed scripts until the time is over, and prints how it goes.
fn hunt(seed: u64, corpus: Vec<Script>, time: Duration) -> Result<Hunt, Box<(Script, Finding)>> {
    let started = Instant::now();
    let mut told = Duration::ZERO;
    let mut hunt = Hunt::new(seed, corpus)?;
    loop {
        for _ in 0..BATCH {
            hunt.step()?;
        }
        let passed = started.elapsed();
        if passed >= told + Duration::from_secs(10) || passed >= time {
            told = passed;
            let totals = hunt.totals();
            println!(
                "{:>5} s  {} scripts  {} datagrams in  {} out  {} different steps",
                passed.as_secs(),
                totals.scripts,
                totals.received,
                totals.sent,
                hunt.feature_count()
            );
        }
        if passed >= time {
            print_reached(&hunt);
            return Ok(hunt);
        }
    }
}

/// Prints which counters of the node were reached, and how much memory it took.
fn print_reached(hunt: &Hunt) {
    let totals = hunt.totals();
    let names: Vec<_> = Counters::default().named().map(|(name, _)| name).collect();
    let is_reached = |bit: usize| totals.reached >> bit & 1 == 1;
    let count = (0..names.len()).filter(|bit| is_reached(*bit)).count();
    println!("{count} of {} counters reached", names.len());
    for (bit, name) in names.iter().enumerate() {
        if !is_reached(bit) {
            println!("not reached: {name}");
        }
    }
    for (profile, memory) in Profile::ALL.iter().zip(totals.memory) {
        println!(
            "most memory of a {} node: {memory} of {} bytes",
            profile.name(),
            profile.memory_max()
        );
    }
    println!("no finding");
}

fn write_corpus(file: &Path, hunt: &Hunt) -> std::io::Result<()> {
    let scripts = hunt.best(CORPUS_SCRIPTS_MAX, CORPUS_BYTES_MAX);
    let texts: Vec<_> = scripts.iter().map(ToString::to_string).collect();
    let head = "# Scripts for the DHT node, each of which reaches something that the others do not.\n\
                # Written by `trackless-fuzz hunt --save`; the form is described in `src/script.rs`.\n\n";
    fs::write(file, format!("{head}{}", texts.join("\n")))?;
    println!("{} scripts in {}", scripts.len(), file.display());
    Ok(())
}

/// Writes down what was found, as short as it gets.
fn report(script: &Script, finding: &Finding, file: &Path) -> Result<ExitCode, Box<dyn Error>> {
    println!("a promise is broken\n{finding}");
    let quiet = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let short = shorten(script, finding);
    std::panic::set_hook(quiet);
    fs::write(file, format!("# {}\n{short}", finding.rule))?;
    println!(
        "replay it with: cargo run -p trackless-fuzz -- replay {}",
        file.display()
    );
    Ok(ExitCode::FAILURE)
}
