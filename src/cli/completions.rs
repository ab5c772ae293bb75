//! `trackless completions`: what a shell needs to complete our commands and flags.

use clap::CommandFactory;
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
    generate(shell, &mut Arguments::command(), "trackless", &mut script);
    String::from_utf8_lossy(&script).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::ValueEnum;

    /// Each command and each long flag stands in the script.
    #[track_caller]
    fn check(shell: Shell, command: &clap::Command, script: &str) {
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
