//! `trackless man`: manual pages, made from the same definitions as `--help`.

use std::path::Path;

use clap::{ArgAction, Command, CommandFactory};
use clap_mangen::Man;
use clap_mangen::roff::{Inline, Roff, bold, italic, roman};
use serde_json::json;

use super::args::{Arguments, Global, ManArgs};
use super::print::{Exit, Failure, print_json, print_line, print_text};
use super::settings::{nearest, variables};

/// Exit codes and what they say.
const EXIT_CODES: [(&str, &str); 5] = [
    ("0", "Done."),
    (
        "1",
        "It could not be done; the message says why and what to do about it.",
    ),
    (
        "2",
        "The arguments, the environment or the configuration file make no sense.",
    ),
    ("3", "The time given with --timeout ran out."),
    ("130", "Interrupted (SIGINT) or asked to stop (SIGTERM)."),
];

/// Runs the command.
pub(super) fn run(args: &ManArgs, global: &Global) -> Result<Exit, Failure> {
    let root = root();
    if let Some(folder) = &args.out {
        let paths = write_all(&root, folder).map_err(|error| {
            Failure::because(format!("cannot write to {}", folder.display()), &error)
        })?;
        if global.json {
            print_json(&json!({"paths": paths}));
        } else {
            paths.iter().for_each(|path| print_line(path));
        }
        return Ok(Exit::Done);
    }
    let mut command = &root;
    for name in &args.command {
        command = command.find_subcommand(name).ok_or_else(|| {
            let known: Vec<_> = command.get_subcommands().map(Command::get_name).collect();
            let unknown = Failure::new(format!("there is no command `{}`", args.command.join(" ")));
            let hint = match (known.as_slice(), nearest(name, known.iter().copied())) {
                ([], _) => format!("`{}` has no commands", command.get_name()),
                (_, Some(meant)) => format!("did you mean `{meant}`?"),
                _ => format!("known here: {}", known.join(", ")),
            };
            unknown.hint(hint).exit(Exit::Usage)
        })?;
    }
    print_text(&page(command));
    Ok(Exit::Done)
}

/// All commands, with what each takes over from those above it.
fn root() -> Command {
    let mut root = Arguments::command().disable_help_subcommand(true);
    root.build();
    root
}

/// Writes the page of a command, and those of the commands below it; gives their paths.
fn write_all(command: &Command, folder: &Path) -> std::io::Result<Vec<String>> {
    std::fs::create_dir_all(folder)?;
    let path = folder.join(Man::new(command.clone()).get_filename());
    std::fs::write(&path, page(command))?;
    let mut paths = vec![path.to_string_lossy().into_owned()];
    for below in command.get_subcommands() {
        paths.extend(write_all(below, folder)?);
    }
    Ok(paths)
}

/// The page of one command.
fn page(command: &Command) -> String {
    let version = concat!("trackless ", env!("CARGO_PKG_VERSION"));
    let man = Man::new(command.clone());
    let mut page = Vec::new();
    let is_main = command.get_name() == "trackless";
    // Writing to memory does not fail.
    let _ = man.render(&mut page);
    let _ = closing_sections(is_main).to_writer(&mut page);
    let page = String::from_utf8_lossy(&page);
    // The empty date is lost on the way, and what follows it would take its place.
    let name = command.get_display_name().unwrap_or("trackless");
    let title = format!(
        ".TH {} 1 \"\" \"{version}\" \"User Commands\"",
        name.to_uppercase()
    );
    let synopsis = synopsis(command).to_roff();
    let mut is_synopsis = false;
    let mut lines = Vec::new();
    for line in page.lines() {
        if line.starts_with(".SH ") {
            is_synopsis = line == ".SH SYNOPSIS";
            lines.push(line);
            if is_synopsis {
                lines.push(synopsis.trim_end());
            }
        } else if line.starts_with(".TH ") {
            lines.push(title.as_str());
        } else if !is_synopsis {
            lines.push(line.trim_end());
        }
    }
    lines.into_iter().flat_map(|line| [line, "\n"]).collect()
}

/// How the command is typed. Ours, because that of clap_mangen leaves out what the values of flags
/// are called.
fn synopsis(command: &Command) -> Roff {
    let name = command.get_bin_name().unwrap_or(command.get_name());
    let mut line = vec![bold(name)];
    for arg in command.get_arguments().filter(|arg| !arg.is_hide_set()) {
        let (open, close) = if arg.is_required_set() {
            (" ", "")
        } else {
            (" [", "]")
        };
        line.push(roman(open));
        if let Some(long) = arg.get_long() {
            if let Some(short) = arg.get_short() {
                line.extend([bold(format!("-{short}")), roman("|")]);
            }
            line.push(bold(format!("--{long}")));
        }
        if arg.is_positional() || arg.get_action().takes_values() {
            let values = arg.get_value_names().unwrap_or_default();
            let space = if arg.is_positional() { "" } else { " " };
            line.extend([roman(space), italic(values.join(" "))]);
        }
        line.push(roman(close));
        let is_repeatable = matches!(arg.get_action(), ArgAction::Append | ArgAction::Count);
        if is_repeatable {
            line.push(roman("..."));
        }
    }
    if command.has_subcommands() {
        line.extend([roman(" "), italic("COMMAND")]);
    }
    let mut roff = Roff::new();
    roff.text(line);
    roff
}

/// What `--help` does not say.
fn closing_sections(is_main: bool) -> Roff {
    let mut roff = Roff::new();
    if is_main {
        roff.control("SH", ["ENVIRONMENT"]);
        roff.text([roman(
            "A flag on the command line beats the environment, which beats the configuration file. \
             Several values are separated by commas, switches take true and false.",
        )]);
        for (variable, flag) in variables(&Arguments::command()) {
            entry(&mut roff, &variable, [roman("as "), bold(flag)]);
        }
        entry(
            &mut roff,
            "TRACKLESS_CONFIG",
            [roman("as "), bold("--config")],
        );
        let log = "filter of log lines, in place of -v and -q";
        entry(&mut roff, "RUST_LOG", [roman(log), roman("")]);
        let colour = "if it is set and not empty, nothing is coloured";
        entry(&mut roff, "NO_COLOR", [roman(colour), roman("")]);
        roff.control("SH", ["FILES"]);
        let config = "$XDG_CONFIG_HOME/trackless/config.toml";
        let what = "configuration: keys are long flags, at the top or in a table named after the \
                    command";
        entry(&mut roff, config, [roman(what), roman("")]);
        let state = "node ids, routing table, resume data, made torrents (--state-dir)";
        entry(
            &mut roff,
            "$XDG_STATE_HOME/trackless",
            [roman(state), roman("")],
        );
    }
    roff.control("SH", ["EXIT STATUS"]);
    for (code, meaning) in EXIT_CODES {
        entry(&mut roff, code, [roman(meaning), roman("")]);
    }
    if !is_main {
        roff.control("SH", ["SEE ALSO"]);
        roff.text([italic("trackless"), roman("(1)")]);
    }
    roff
}

/// One term with its meaning.
fn entry(roff: &mut Roff, term: &str, meaning: [Inline; 2]) {
    roff.control("TP", []);
    roff.text([bold(term)]);
    roff.text(meaning);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A page names its flags, those of the commands below, and these commands; so do their pages.
    fn check(command: &Command) {
        // A hyphen is written with a backslash, so that it can be searched for and copied.
        let page = page(command).replace("\\-", "-");
        for long in command.get_arguments().filter_map(clap::Arg::get_long) {
            assert!(page.contains(&format!("--{long}")), "{command} --{long}");
        }
        for below in command.get_subcommands() {
            let name = below.get_display_name().unwrap_or_default();
            assert!(page.contains(name), "{command}: {name}");
            check(below);
        }
    }

    #[test]
    fn every_command_and_flag_has_its_place_in_the_manual() {
        check(&root());
    }

    #[test]
    fn the_synopsis_names_the_values() {
        let root = root();
        let page = |name: &str| {
            let command = root.find_subcommand(name).unwrap();
            let page = page(command).replace("\\-", "-");
            let plain = page
                .replace("\\fB", "")
                .replace("\\fI", "")
                .replace("\\fR", "");
            let start = plain.find(".SH SYNOPSIS\n").unwrap();
            let end = plain[start..].find(".SH DESCRIPTION").unwrap();
            plain[start..start + end].to_owned()
        };
        let get = page("get");
        for part in [
            "trackless get SOURCE...",
            " [-o|--output DIR]",
            " [--listen IP:PORT]...",
            " [--sequential]",
            " [-v|--verbose]...",
        ] {
            assert!(get.contains(part), "{part}: {get}");
        }
        assert!(
            page("dht").trim_end().ends_with(" COMMAND"),
            "{}",
            page("dht")
        );
    }

    #[test]
    fn the_main_page_lists_the_environment_and_the_exit_codes() {
        let page = page(&root());
        for part in [
            ".TH TRACKLESS 1 \"\" \"trackless ",
            "TRACKLESS_STATE_DIR",
            "TRACKLESS_GET_OUTPUT",
            "SIGTERM",
            "config.toml",
        ] {
            assert!(page.contains(part), "{part}");
        }
    }

    #[test]
    fn all_pages_are_written_into_a_folder() {
        let folder = tempfile::tempdir().unwrap();
        let paths = write_all(&root(), &folder.path().join("man")).unwrap();
        assert!(
            folder
                .path()
                .join("man/trackless-dht-get-peers.1")
                .is_file()
        );
        assert_eq!(
            paths.len(),
            std::fs::read_dir(folder.path().join("man"))
                .unwrap()
                .count()
        );
    }
}
