//! Variables of the environment that look like settings and are none.

use clap::{Command, CommandFactory};

use super::nearest::nearest;
use super::{PREFIX, variables};
use crate::cli::args::Arguments;

/// Variables that are told at most; more are not typing errors.
const TOLD_MAX: usize = 5;

/// What to say about each variable that looks like a setting and is none, in order. Other programs
/// may have set it, so that it is no error.
pub(in crate::cli) fn unknown_variables(names: impl Iterator<Item = String>) -> Vec<String> {
    let known = known(&Arguments::command());
    let mut unknown: Vec<String> = names
        .filter(|name| name.starts_with(PREFIX) && !known.contains(name))
        .collect();
    unknown.sort_unstable();
    unknown
        .iter()
        .take(TOLD_MAX)
        .map(|name| {
            let meant = meant(name, &known);
            if meant.is_empty() {
                format!("{name} is not read: no flag has that name")
            } else {
                format!("{name} is not read, did you mean {}?", meant.join(" or "))
            }
        })
        .collect()
}

/// Every variable that is read.
fn known(command: &Command) -> Vec<String> {
    let of_flags = variables(command).into_iter().map(|(name, _)| name);
    of_flags.chain([format!("{PREFIX}CONFIG")]).collect()
}

/// What may have been meant: the flag of several commands that needs the command's name, or the
/// nearest name.
fn meant(name: &str, known: &[String]) -> Vec<String> {
    let short = |name: &str| name.strip_prefix(PREFIX).unwrap_or(name).to_owned();
    let typed = short(name);
    let of_commands: Vec<String> = known
        .iter()
        .filter(|known| short(known).ends_with(&format!("_{typed}")))
        .filter(|_| super::ambiguous_flags(&Arguments::command()).contains(&flag(&typed)))
        .cloned()
        .collect();
    if !of_commands.is_empty() {
        return of_commands;
    }
    let words: Vec<String> = known.iter().map(|name| short(name)).collect();
    nearest(&typed, words.iter().map(String::as_str))
        .map(|word| format!("{PREFIX}{word}"))
        .into_iter()
        .collect()
}

/// The long flag that a name in the environment stands for.
fn flag(name: &str) -> String {
    name.replace('_', "-").to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(names: &[&str]) -> Vec<String> {
        unknown_variables(names.iter().map(ToString::to_string))
    }

    #[test]
    fn mistyped_variables_are_told_with_the_nearest_name() {
        assert_eq!(
            told(&[
                "TRACKLESS_UPLAOD_LIMIT",
                "PATH",
                "TRACKLESS_SEED",
                "TRACKLESS_CONFIG"
            ]),
            ["TRACKLESS_UPLAOD_LIMIT is not read, did you mean TRACKLESS_UPLOAD_LIMIT?"]
        );
        assert_eq!(
            told(&["TRACKLESS_OUTPUT"]),
            [
                "TRACKLESS_OUTPUT is not read, did you mean TRACKLESS_CREATE_OUTPUT or \
              TRACKLESS_GET_OUTPUT?"
            ]
        );
        assert_eq!(
            told(&["TRACKLESS_COLOUR"]),
            ["TRACKLESS_COLOUR is not read: no flag has that name"]
        );
    }

    #[test]
    fn only_some_of_many_are_told() {
        let many: Vec<String> = (0..100).map(|i| format!("{PREFIX}OTHER_{i:03}")).collect();
        assert_eq!(unknown_variables(many.into_iter()).len(), TOLD_MAX);
    }
}
