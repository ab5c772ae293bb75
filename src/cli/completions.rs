//! `trackless completions`: what a shell needs to complete our commands and flags.

use std::collections::BTreeSet;

use clap::builder::PossibleValuesParser;
use clap::{Command, CommandFactory};
use clap_complete::{Shell, generate};

use super::args::{Arguments, CompletionsArgs};
use super::print::{Exit, print_text};

/// Runs the command.
pub(super) fn run(args: &CompletionsArgs) -> Exit {
    print_text(&script(args.shell));
    Exit::Done
}

/// The script for one shell.
fn script(shell: Shell) -> String {
    let mut script = Vec::new();
    let mut command = with_names_of_commands(Arguments::command());
    generate(shell, &mut command, "trackless", &mut script);
    String::from_utf8_lossy(&script).into_owned()
}

/// Lets shells know what `man` takes: the names of commands. Its own parser does not say so, because
/// what may follow `dht` is different from what may come first.
fn with_names_of_commands(command: Command) -> Command {
    let mut names: Vec<String> = Vec::new();
    for below in command.get_subcommands() {
        names.push(below.get_name().to_owned());
        names.extend(below.get_subcommands().map(|one| one.get_name().to_owned()));
    }
    // `get` and `dht get` are one word here.
    let mut seen = BTreeSet::new();
    names.retain(|name| seen.insert(name.clone()));
    command.mut_subcommand("man", |man| {
        man.mut_arg("command", |arg| {
            arg.value_parser(PossibleValuesParser::new(names))
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::ValueEnum;

    /// Each command and each long flag stands in the script.
    #[track_caller]
    fn check(shell: Shell, command: &Command, script: &str) {
        for below in command.get_subcommands() {
            assert!(script.contains(below.get_name()), "{shell}: {below}");
            check(shell, below, script);
        }
        for long in command.get_arguments().filter_map(clap::Arg::get_long) {
            assert!(script.contains(long), "{shell}: {command} --{long}");
        }
    }

    #[test]
    fn every_shell_learns_every_command_and_flag() {
        for &shell in Shell::value_variants() {
            check(shell, &Arguments::command(), &script(shell));
        }
    }
}
