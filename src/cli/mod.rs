//! The command line: arguments in, results, progress and exit codes out.
//!
//! Each command is a file of its own that translates between what was typed and the rooms below. No
//! protocol decision is made here. Results go to standard output, everything else to standard
//! error.

mod args;
mod bounds;
mod completions;
mod create;
mod demo;
mod dht;
mod get;
mod log;
mod manual;
mod node;
mod print;
mod progress;
mod seed;
mod settings;
mod show;
mod start;
mod trackers;
mod units;
mod verify;

use std::ffi::OsString;
use std::process::ExitCode;

use args::{Arguments, Command};
use print::{Exit, Failure, note};
use settings::Refusal;

/// Public DHT routers that are asked when the user names none. None of them is essential: saved
/// contacts and peers lead into the DHT as well.
const PUBLIC_ROUTERS: [&str; 5] = [
    "router.bittorrent.com:6881",
    "dht.transmissionbt.com:6881",
    "router.utorrent.com:6881",
    "dht.libtorrent.org:25401",
    "dht.aelitis.com:6881",
];

/// Runs the command that the process was started with.
#[must_use]
pub fn main() -> ExitCode {
    let words: Vec<OsString> = std::env::args_os().collect();
    let arguments = settings::arguments(&words, &|name| std::env::var_os(name));
    warn_of_variables(&arguments);
    let exit = match arguments {
        Ok(arguments) => start(arguments),
        Err(Refusal::Clap { error, hint }) => explain(&error, hint),
        Err(Refusal::Failure(failure)) => {
            failure.report(words.iter().any(|word| word == "--json"));
            failure.exit
        }
    };
    let exit = print::output_failure().map_or(exit, |failure| {
        failure.report(false);
        failure.exit
    });
    ExitCode::from(match exit {
        Exit::Done => 0,
        Exit::Failed => 1,
        Exit::Usage => 2,
        Exit::TimedOut => 3,
        Exit::Interrupted => 130,
    })
}

/// Tells variables that look like settings and are none, unless nothing but results are wanted.
fn warn_of_variables(arguments: &Result<Arguments, Refusal>) {
    let is_silent = match arguments {
        Ok(arguments) => arguments.global.quiet > 0,
        Err(Refusal::Clap { error, .. }) => !error.use_stderr(),
        Err(Refusal::Failure(_)) => false,
    };
    if !is_silent {
        let names = std::env::vars_os().map(|(name, _)| name.to_string_lossy().into_owned());
        for text in settings::unknown_variables(names) {
            note(&format!("warning: {}", print::escape(&text)));
        }
    }
}

/// Prints help or the version, or says what is wrong with the arguments.
fn explain(error: &clap::Error, hint: Option<String>) -> Exit {
    if let Err(error) = error.print() {
        print::on_output_error(error);
    }
    if let Some(hint) = hint {
        note(&format!("\nhint: {hint}"));
    }
    if error.use_stderr() {
        Exit::Usage
    } else {
        Exit::Done
    }
}

/// Runs a command, and reports why it failed if so.
fn start(arguments: Arguments) -> Exit {
    log::start(&arguments);
    let json = arguments.global.json;
    run(arguments).unwrap_or_else(|failure| {
        failure.report(json);
        failure.exit
    })
}

/// Runs one command to its end.
fn run(arguments: Arguments) -> Result<Exit, Failure> {
    let Arguments { global, command } = arguments;
    match command {
        Command::Show(args) => show::run(&args, &global),
        Command::Create(args) => block_on(interruptible(move || create::run(&args, &global))),
        Command::Verify(args) => block_on(interruptible(move || verify::run(&args, &global))),
        Command::Get(args) => block_on(get::run(*args, global)),
        Command::Seed(args) => block_on(seed::run(args, global)),
        Command::Node(args) => block_on(node::run(args, global)),
        Command::Dht(command) => block_on(dht::run(command, global)),
        Command::Demo(args) => block_on(demo::run(args, global)),
        Command::Completions(args) => Ok(completions::run(&args)),
        Command::Man(args) => manual::run(&args, &global),
    }
}

/// Runs a command that only computes, on a thread of its own, until it ends or the user interrupts.
async fn interruptible(
    command: impl FnOnce() -> Result<Exit, Failure> + Send + 'static,
) -> Result<Exit, Failure> {
    let stop = interrupted();
    tokio::select! {
        ended = tokio::task::spawn_blocking(command) => ended
            .map_err(|error| Failure::because("the command broke off", &error))?,
        () = stop => Err(Failure::interrupted("nothing was changed")),
    }
}

/// Threads of a runtime at most. Disks and the DHT have threads of their own, and a machine with a hundred
/// cores needs no hundred more of ours.
const WORKERS_MAX: usize = 8;

/// Runs an asynchronous command on a runtime of its own.
fn block_on(command: impl Future<Output = Result<Exit, Failure>>) -> Result<Exit, Failure> {
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(workers.min(WORKERS_MAX))
        .enable_all()
        .build()
        .map_err(|error| Failure::because("cannot start the runtime", &error))?;
    let ended = runtime.block_on(command);
    // A name that is still being resolved must not keep the process from ending.
    runtime.shutdown_background();
    ended
}

/// Ends when the user interrupts the program (SIGINT) or the system asks it to stop (SIGTERM). Both
/// are listened for from the call on, not only once somebody waits.
fn interrupted() -> impl Future<Output = ()> {
    use tokio::signal::unix::{Signal, SignalKind, signal};
    /// A signal that cannot be listened for never comes; the system then ends the process itself.
    async fn next(signal: std::io::Result<Signal>) {
        match signal {
            Ok(mut signal) => drop(signal.recv().await),
            Err(_) => std::future::pending().await,
        }
    }
    let interrupt = signal(SignalKind::interrupt());
    let terminate = signal(SignalKind::terminate());
    async {
        tokio::select! {
            () = next(interrupt) => {}
            () = next(terminate) => {}
        }
    }
}

/// The bootstrap addresses a user's flags mean: the built-in routers when there are none, nothing
/// for `none`.
///
/// # Errors
///
/// One of them is not HOST:PORT, or `none` stands beside others.
fn bootstrap_list(given: &[String]) -> Result<Vec<String>, Failure> {
    if given.is_empty() {
        return Ok(PUBLIC_ROUTERS
            .iter()
            .map(|&router| router.to_owned())
            .collect());
    }
    if given.iter().any(|entry| entry == "none") {
        return if given.len() == 1 {
            Ok(Vec::new())
        } else {
            Err(
                Failure::new("--bootstrap none stands beside another --bootstrap")
                    .exit(Exit::Usage),
            )
        };
    }
    for entry in given {
        units::host_and_port(entry)
            .map_err(|error| Failure::new(format!("--bootstrap: {error}")).exit(Exit::Usage))?;
    }
    Ok(given.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bootstrap_list_is_built_in_given_or_empty() {
        let list = |given: &[&str]| {
            bootstrap_list(
                &given
                    .iter()
                    .map(|&entry| entry.to_owned())
                    .collect::<Vec<_>>(),
            )
        };
        assert_eq!(list(&[]).unwrap().len(), PUBLIC_ROUTERS.len());
        assert!(list(&["none"]).unwrap().is_empty());
        assert_eq!(list(&["127.0.0.1:1"]).unwrap(), ["127.0.0.1:1"]);
        assert_eq!(list(&["none", "a:1"]).unwrap_err().exit, Exit::Usage);
        assert_eq!(list(&["nonsense"]).unwrap_err().exit, Exit::Usage);
    }
}
