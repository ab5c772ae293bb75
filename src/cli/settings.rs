//! What a flag is when the command line does not give it: what the environment says, else the
//! configuration file, else its default.
//!
//! Everything follows from clap's own definitions: names are made from long flags, and values of
//! the layers below become defaults of the [`Command`] before it parses. Invariant: there is no
//! second list of flags, so a new flag can be set everywhere the day it is added.

mod file;
mod nearest;
#[cfg(test)]
mod tests;
mod unknown;

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, ArgAction, Command, CommandFactory, FromArgMatches};
use etcetera::BaseStrategy;

use super::args::Arguments;
use super::print::{Exit, Failure};
use super::units;
use file::ConfigFile;
pub(super) use nearest::nearest;
pub(super) use unknown::unknown_variables;

/// What stands before each name in the environment.
const PREFIX: &str = "TRACKLESS_";

/// Long flags that belong to the moment and have no setting.
const MOMENTARY: [&str; 3] = ["help", "version", "config"];

/// A look at one variable of the environment.
pub(super) type Environment<'a> = &'a dyn Fn(&str) -> Option<OsString>;

/// Why there are no arguments to work with.
#[derive(Debug)]
pub(super) enum Refusal {
    /// clap has something to print: help, the version, or what is wrong.
    Clap {
        /// What to print.
        error: clap::Error,
        /// Where the wrong value was set, when the command line did not.
        hint: Option<String>,
    },
    /// A layer below the command line is wrong.
    Failure(Failure),
}

/// Reads a command line, with what is below it filled in.
///
/// # Errors
///
/// There is something to print instead.
pub(super) fn arguments(
    words: &[OsString],
    environment: Environment<'_>,
) -> Result<Arguments, Refusal> {
    let command = switches_with_values(Arguments::command(), words);
    let layers = match Layers::read(&command, words, environment) {
        Ok(layers) => layers,
        Err(failure) => return without_file(command, words, failure),
    };
    let global: Vec<Arg> = settings(&command)
        .filter(|arg| arg.is_global_set())
        .cloned()
        .collect();
    let command = layers.fill(command, &mut Vec::new(), &global);
    command
        .clone()
        .try_get_matches_from(words)
        .and_then(|matches| Arguments::from_arg_matches(&matches))
        .map_err(|error| Refusal::Clap {
            hint: layers.source_of(&command, &error, words),
            error: with_nearest_command(error.with_cmd(&command), &command, words),
        })
}

/// Adds what may have been meant by a command that does not exist, when clap has no idea: it finds
/// words that share most letters, and not those of which two were swapped.
fn with_nearest_command(
    mut error: clap::Error,
    command: &Command,
    words: &[OsString],
) -> clap::Error {
    let Some(ContextValue::String(typed)) = error.get(ContextKind::InvalidSubcommand) else {
        return error;
    };
    if error.get(ContextKind::SuggestedSubcommand).is_some() {
        return error;
    }
    let below = called(command, words, |_| {});
    let names = below.get_subcommands().map(Command::get_name);
    if let Some(name) = nearest(typed, names) {
        let name = ContextValue::Strings(vec![name.to_owned()]);
        error.insert(ContextKind::SuggestedSubcommand, name);
    }
    error
}

/// The command that these words call; `passed` is told each word that leads there.
fn called<'c>(
    command: &'c Command,
    words: &[OsString],
    mut passed: impl FnMut(&str),
) -> &'c Command {
    let mut innermost = command;
    for word in words.iter().skip(1).filter_map(|word| word.to_str()) {
        if let Some(below) = innermost.find_subcommand(word) {
            passed(word);
            innermost = below;
        }
    }
    innermost
}

/// What can be done although the configuration file is wrong: help, manuals and completions are.
fn without_file(
    command: Command,
    words: &[OsString],
    failure: Failure,
) -> Result<Arguments, Refusal> {
    use super::args::Command as Kind;
    let parsed = command
        .try_get_matches_from(words)
        .and_then(|matches| Arguments::from_arg_matches(&matches));
    match parsed {
        Ok(arguments) if matches!(arguments.command, Kind::Man(_) | Kind::Completions(_)) => {
            Ok(arguments)
        }
        Err(error) if !error.use_stderr() => Err(Refusal::Clap { error, hint: None }),
        Ok(_) | Err(_) => Err(Refusal::Failure(failure)),
    }
}

/// The layers below the command line.
struct Layers<'a> {
    environment: Environment<'a>,
    file: ConfigFile,
    ambiguous: BTreeSet<String>,
}

impl<'a> Layers<'a> {
    /// Reads the configuration file, if there is one.
    fn read(
        command: &Command,
        words: &[OsString],
        environment: Environment<'a>,
    ) -> Result<Self, Failure> {
        let ambiguous = ambiguous_flags(command);
        let file = match config_path(words, environment) {
            Some((path, must_exist)) => ConfigFile::read(&path, must_exist, command, &ambiguous)?,
            None => ConfigFile::default(),
        };
        Ok(Self {
            environment,
            file,
            ambiguous,
        })
    }

    /// Gives each flag of the command at `path`, and of those below it, the value it has when the
    /// command line says nothing.
    fn fill(&self, command: Command, path: &mut Vec<String>, global: &[Arg]) -> Command {
        let mut command = command.mut_args(|arg| self.preset(arg, path));
        let names: Vec<String> = command
            .get_subcommands()
            .map(|below| below.get_name().to_owned())
            .collect();
        for name in names {
            path.push(name.clone());
            command = command.mut_subcommand(name, |mut below| {
                // A flag of every command is given to one of them only if its table names it.
                for arg in global {
                    if self.file.is_in_table(path, long_of(arg)) {
                        below = below.arg(arg.clone());
                    }
                }
                self.fill(below, path, global)
            });
            path.pop();
        }
        command
    }

    /// A flag with its value from the layers below as its default.
    fn preset(&self, arg: Arg, path: &[String]) -> Arg {
        let Some(values) = self.values_of(&arg, path) else {
            return arg;
        };
        // What has a value is there, so nobody needs to type it.
        arg.default_values(values).required(false)
    }

    /// What the layers below the command line say about a flag.
    fn values_of(&self, arg: &Arg, path: &[String]) -> Option<Vec<OsString>> {
        let long = arg.get_long().filter(|long| !MOMENTARY.contains(long))?;
        if let Some(value) = self.variable(long, path) {
            return Some(split(arg, value));
        }
        self.file
            .values_of(path, long)
            .map(|values| values.iter().map(OsString::from).collect())
    }

    /// What the environment says about a flag; an empty variable says nothing.
    fn variable(&self, long: &str, path: &[String]) -> Option<OsString> {
        let name = variable_name(long, path, &self.ambiguous);
        (self.environment)(&name).filter(|value| !value.is_empty())
    }

    /// Says which variable holds the value that clap refused; `None` when it was typed.
    fn source_of(
        &self,
        command: &Command,
        error: &clap::Error,
        words: &[OsString],
    ) -> Option<String> {
        if !matches!(
            error.kind(),
            ErrorKind::ValueValidation | ErrorKind::InvalidValue
        ) {
            return None;
        }
        let Some(ContextValue::String(shown)) = error.get(ContextKind::InvalidArg) else {
            return None;
        };
        let long = shown.strip_prefix("--")?;
        let long = long
            .split(|c: char| !c.is_ascii_alphanumeric() && c != '-')
            .next()?;
        let mut path = Vec::new();
        called(command, words, |word| path.push(word.to_owned()));
        let typed = format!("--{long}");
        if words
            .iter()
            .any(|word| word.to_string_lossy().starts_with(&typed))
        {
            return None;
        }
        self.variable(long, &path)?;
        let name = variable_name(long, &path, &self.ambiguous);
        Some(format!(
            "--{long} has this value from the environment: {name}"
        ))
    }
}

/// Splits the text of a repeatable flag at its commas.
fn split(arg: &Arg, value: OsString) -> Vec<OsString> {
    match (arg.get_value_delimiter(), value.to_str()) {
        (Some(delimiter), Some(text)) => text.split(delimiter).map(OsString::from).collect(),
        _ => vec![value],
    }
}

/// The flags of a command that can be set elsewhere.
pub(super) fn settings(command: &Command) -> impl Iterator<Item = &Arg> {
    command.get_arguments().filter(|arg| {
        arg.get_long()
            .is_some_and(|long| !MOMENTARY.contains(&long))
    })
}

/// The long name of a flag that has one.
fn long_of(arg: &Arg) -> &str {
    arg.get_long().unwrap_or_default()
}

/// The name of a flag in the environment: `TRACKLESS_STATE_DIR`, or `TRACKLESS_GET_OUTPUT` when it
/// means something else in another command.
fn variable_name(long: &str, path: &[String], ambiguous: &BTreeSet<String>) -> String {
    let mut name = String::from(PREFIX);
    if ambiguous.contains(long) {
        for part in path {
            name.push_str(part);
            name.push('_');
        }
    }
    name.push_str(long);
    name.replace('-', "_").to_uppercase()
}

/// Every flag of every command with its name in the environment, in order and without repetition.
pub(super) fn variables(command: &Command) -> Vec<(String, String)> {
    let ambiguous = ambiguous_flags(command);
    let mut all = BTreeSet::new();
    each_flag(command, &mut Vec::new(), &mut |path, arg| {
        let long = long_of(arg);
        let flag = if ambiguous.contains(long) {
            format!("{} --{long}", path.join(" "))
        } else {
            format!("--{long}")
        };
        all.insert((variable_name(long, path, &ambiguous), flag));
    });
    all.into_iter().collect()
}

/// Calls `found` with every flag that can be set elsewhere, and the command it belongs to.
fn each_flag(command: &Command, path: &mut Vec<String>, found: &mut impl FnMut(&[String], &Arg)) {
    settings(command).for_each(|arg| found(path, arg));
    for below in command.get_subcommands() {
        path.push(below.get_name().to_owned());
        each_flag(below, path, found);
        path.pop();
    }
}

/// Flags that take different values in different commands, and so mean different things.
fn ambiguous_flags(command: &Command) -> BTreeSet<String> {
    let mut known: Vec<(String, Option<String>)> = Vec::new();
    let mut ambiguous = BTreeSet::new();
    each_flag(command, &mut Vec::new(), &mut |_, arg| {
        let (long, value) = (long_of(arg).to_owned(), value_name(arg));
        match known.iter().find(|(name, _)| *name == long) {
            Some((_, first)) if *first != value => drop(ambiguous.insert(long)),
            Some(_) => {}
            None => known.push((long, value)),
        }
    });
    ambiguous
}

/// What a flag's value is called; `None` for a switch.
fn value_name(arg: &Arg) -> Option<String> {
    let takes_value = matches!(arg.get_action(), ArgAction::Set | ArgAction::Append);
    let name = arg.get_value_names().and_then(|names| names.first());
    name.filter(|_| takes_value).map(ToString::to_string)
}

/// Makes switches take the values of [`units::switch`] from the layers below, and from the
/// command line where it has one: what a lower layer switched on, `--seed=false` switches off.
fn switches_with_values(command: Command, words: &[OsString]) -> Command {
    let names: Vec<String> = command
        .get_subcommands()
        .map(|below| below.get_name().to_owned())
        .collect();
    let command = command.mut_args(|arg| {
        if !matches!(arg.get_action(), ArgAction::SetTrue) {
            return arg;
        }
        let given = format!("--{}=", long_of(&arg));
        let is_given = |word: &OsString| word.to_string_lossy().starts_with(&given);
        let arg = arg.value_parser(units::switch);
        if !words.iter().any(is_given) {
            return arg;
        }
        arg.action(ArgAction::Set)
            .num_args(0..=1)
            .value_name("true|false")
            .require_equals(true)
            .default_value("false")
            .default_missing_value("true")
    });
    names.into_iter().fold(command, |command, name| {
        command.mut_subcommand(name, |below| switches_with_values(below, words))
    })
}

/// The configuration file, and whether it must be there: named by `--config` or the environment,
/// else at its usual place. `None` when there shall be none.
fn config_path(words: &[OsString], environment: Environment<'_>) -> Option<(PathBuf, bool)> {
    let named = typed_config(words)
        .map(OsStr::to_owned)
        .or_else(|| environment("TRACKLESS_CONFIG").filter(|value| !value.is_empty()));
    if let Some(path) = named {
        return (path != "none").then(|| (path.into(), true));
    }
    let folder = match environment("XDG_CONFIG_HOME").filter(|value| !value.is_empty()) {
        Some(folder) => PathBuf::from(folder),
        // Without a home folder there is no file in it.
        None => etcetera::base_strategy::Xdg::new().ok()?.config_dir(),
    };
    Some((folder.join("trackless").join("config.toml"), false))
}

/// The value of the last `--config` on the command line. clap cannot be asked yet: whether the rest
/// makes sense may depend on that file.
fn typed_config(words: &[OsString]) -> Option<&OsStr> {
    let mut found = None;
    let mut words = words.iter().skip(1);
    while let Some(word) = words.next() {
        if word == "--" {
            break;
        }
        if word == "--config" {
            found = words.next().map(OsString::as_os_str);
        } else if let Some(path) = word
            .to_str()
            .and_then(|word| word.strip_prefix("--config="))
        {
            found = Some(OsStr::new(path));
        }
    }
    found
}

/// A setting that makes no sense: wrong arguments, as if they had been typed.
fn wrong(message: String) -> Failure {
    Failure::new(message).exit(Exit::Usage)
}
