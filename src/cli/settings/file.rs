//! The configuration file: TOML, with keys that are long flags.
//!
//! The top of the file is for flags that several commands share, a table for the flags of the
//! command it is named after, `[dht.ping]` for one below another. Invariant: a file that was read
//! has only keys of flags that exist, each with values that its flag takes.

use std::any::TypeId;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use clap::error::{ContextKind, ContextValue};
use clap::{Arg, ArgAction, Command};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::nearest::nearest;
use super::{long_of, settings, value_name, wrong};
use crate::cli::print::Failure;

/// Bytes in a configuration file at most. Ours: a thousand times what one needs; it keeps somebody
/// who names a film from waiting for it to be read.
const LENGTH_MAX: u64 = 1 << 20;

/// Mistakes in one file that are told. Ours: as many as fit a screen with what stands around them.
const MISTAKES_MAX: usize = 10;

/// What a configuration file says: values by table and key.
#[derive(Debug, Default)]
pub(super) struct ConfigFile {
    values: BTreeMap<(Vec<String>, String), Vec<String>>,
}

impl ConfigFile {
    /// Reads a file for the flags of `command`. One that is not there says nothing, unless it must
    /// exist.
    ///
    /// # Errors
    ///
    /// It cannot be read, is no TOML, or has a key or a value that makes no sense.
    pub(super) fn read(
        path: &Path,
        must_exist: bool,
        command: &Command,
        ambiguous: &BTreeSet<String>,
    ) -> Result<Self, Failure> {
        let cannot = |why: String| wrong(format!("cannot read {}: {why}", path.display()));
        let length = match std::fs::metadata(path) {
            Ok(metadata) => metadata.len(),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && !must_exist => {
                return Ok(Self::default());
            }
            Err(error) => return Err(cannot(error.to_string())),
        };
        if length > LENGTH_MAX {
            return Err(cannot("too large for a configuration file".to_owned()));
        }
        let text = std::fs::read_to_string(path).map_err(|error| cannot(error.to_string()))?;
        Self::parse(path, &text, command, ambiguous)
    }

    /// Reads the text of a file.
    ///
    /// # Errors
    ///
    /// As [`read`](Self::read).
    pub(super) fn parse(
        path: &Path,
        text: &str,
        command: &Command,
        ambiguous: &BTreeSet<String>,
    ) -> Result<Self, Failure> {
        let mut reader = Reader {
            path,
            text,
            root: command,
            ambiguous,
            file: Self::default(),
            mistakes: Vec::new(),
        };
        let table = DeTable::parse(text).map_err(|error| {
            let at = error.span().map_or(0, |span| span.start);
            wrong(format!("{}: {}", reader.place(at), error.message()))
        })?;
        reader.table(table.get_ref(), command, &mut Vec::new());
        reader.conclude()
    }

    /// What the file says about a flag of the command at `path`: in the innermost table that says
    /// anything.
    pub(super) fn values_of(&self, path: &[String], long: &str) -> Option<&[String]> {
        (0..=path.len()).rev().find_map(|length| {
            let key = (path.get(..length)?.to_vec(), long.to_owned());
            self.values.get(&key).map(Vec::as_slice)
        })
    }

    /// Whether exactly the table of the command at `path` says something about a flag.
    pub(super) fn is_in_table(&self, path: &[String], long: &str) -> bool {
        self.values.contains_key(&(path.to_vec(), long.to_owned()))
    }
}

/// Reads one file.
struct Reader<'a> {
    path: &'a Path,
    text: &'a str,
    root: &'a Command,
    ambiguous: &'a BTreeSet<String>,
    file: ConfigFile,
    /// What is wrong, with its place in the text.
    mistakes: Vec<(usize, String)>,
}

impl Reader<'_> {
    /// `FILE:LINE` of a byte of the text.
    fn place(&self, at: usize) -> String {
        let before = self.text.get(..at).unwrap_or_default();
        let line = before.matches('\n').count() + 1;
        format!("{}:{line}", self.path.display())
    }

    /// What was read, or everything that is wrong with it, in the order of the file.
    fn conclude(mut self) -> Result<ConfigFile, Failure> {
        self.mistakes.sort();
        let count = self.mistakes.len();
        let told = self.mistakes.iter().take(MISTAKES_MAX);
        let mut told: Vec<String> = told
            .map(|(at, why)| format!("{}: {why}", self.place(*at)))
            .collect();
        if count > MISTAKES_MAX {
            told.push(format!("{} more like these", count - MISTAKES_MAX));
        }
        if told.is_empty() {
            return Ok(self.file);
        }
        let first = told.remove(0);
        Err(wrong(first).also(told))
    }

    /// Reads the table of the command at `path`.
    fn table(&mut self, table: &DeTable<'_>, command: &Command, path: &mut Vec<String>) {
        for (key, value) in table {
            let (at, key) = (key.span().start, key.get_ref().as_ref());
            if let Some(below) = command.find_subcommand(key) {
                if let DeValue::Table(table) = value.get_ref() {
                    path.push(below.get_name().to_owned());
                    self.table(table, below, path);
                    path.pop();
                } else {
                    let why = format!("`{key}` is a command: write [{key}]");
                    self.mistakes.push((at, why));
                }
                continue;
            }
            let read = self.flag(key, command, path).and_then(|arg| {
                values(arg, value)
                    .and_then(|values| check(arg, &values).map(|()| values))
                    .map_err(|why| format!("`{key}` {why}"))
            });
            match read {
                Ok(values) => {
                    let key = (path.clone(), key.to_owned());
                    self.file.values.insert(key, values);
                }
                Err(why) => self.mistakes.push((at, why)),
            }
        }
    }

    /// The flag that a key in the table of `command` means, or why it means none there.
    fn flag<'c>(
        &'c self,
        key: &str,
        command: &'c Command,
        path: &[String],
    ) -> Result<&'c Arg, String> {
        let mut own =
            settings(command).chain(settings(self.root).filter(|arg| arg.is_global_set()));
        if let Some(arg) = own.find(|arg| long_of(arg) == key) {
            return Ok(arg);
        }
        let below = flags_below(command, path);
        let owners: Vec<&(String, &Arg)> = below
            .iter()
            .filter(|(_, arg)| long_of(arg) == key)
            .collect();
        match owners.as_slice() {
            [] => Err(self.unknown(key, command, path)),
            [(owner, _)] => Err(format!("`{key}` belongs into the table [{owner}]")),
            _ if self.ambiguous.contains(key) => {
                let tables: Vec<String> = owners
                    .iter()
                    .map(|(owner, _)| format!("[{owner}]"))
                    .collect();
                Err(format!(
                    "`{key}` means different things in different commands: put it into {}",
                    tables.join(" or ")
                ))
            }
            [(_, arg), ..] => Ok(arg),
        }
    }

    /// What to say about a key that nobody knows: the nearest one that is known.
    fn unknown(&self, key: &str, command: &Command, path: &[String]) -> String {
        let here = match path {
            [] => "at the top of the file".to_owned(),
            path => format!("in [{}]", path.join(".")),
        };
        let below = flags_below(command, path);
        let names = settings(command)
            .chain(settings(self.root).filter(|arg| arg.is_global_set()))
            .chain(below.iter().map(|(_, arg)| *arg))
            .map(long_of)
            .chain(command.get_subcommands().map(Command::get_name));
        if let Some(name) = nearest(key, names) {
            return format!("unknown key `{key}` {here}, did you mean `{name}`?");
        }
        let everywhere = flags_below(self.root, &[]);
        let names = everywhere.iter().map(|(_, arg)| long_of(arg));
        match nearest(key, names) {
            Some(name) => {
                let owner = everywhere
                    .iter()
                    .find(|(_, arg)| long_of(arg) == name)
                    .map_or("", |(owner, _)| owner.as_str());
                format!("unknown key `{key}` {here}, did you mean `{name}` in [{owner}]?")
            }
            None => format!("unknown key `{key}` {here}; keys are long flags, see --help"),
        }
    }
}

/// The flags of the commands below one, each with the name of its table.
fn flags_below<'c>(command: &'c Command, path: &[String]) -> Vec<(String, &'c Arg)> {
    let mut all = Vec::new();
    for below in command.get_subcommands() {
        let mut path = path.to_vec();
        path.push(below.get_name().to_owned());
        all.extend(settings(below).map(|arg| (path.join("."), arg)));
        all.extend(flags_below(below, &path));
    }
    all
}

/// The value of a key as texts that clap reads, or what was expected instead.
fn values(arg: &Arg, value: &Spanned<DeValue<'_>>) -> Result<Vec<String>, String> {
    let kind = Kind::of(arg);
    let expected = || {
        format!(
            "is {}, expected {}",
            described(value.get_ref()),
            kind.expected(arg)
        )
    };
    let one = |value: &DeValue<'_>| kind.text(value).ok_or_else(expected);
    match value.get_ref() {
        DeValue::Array(list) if kind == Kind::List => {
            list.iter().map(|value| one(value.get_ref())).collect()
        }
        value => one(value).map(|text| vec![text]),
    }
}

/// What a TOML value is, in words.
fn described(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "text",
        DeValue::Integer(_) => "a whole number",
        DeValue::Float(_) => "a fraction",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

/// What a flag takes in TOML.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// `true` or `false`.
    Switch,
    /// How often it would be typed, or a whole number.
    Number,
    /// A number, or text with a unit.
    Quantity,
    /// Text.
    Text,
    /// Text, or a list of texts.
    List,
}

impl Kind {
    fn of(arg: &Arg) -> Self {
        match arg.get_action() {
            ArgAction::SetTrue => return Self::Switch,
            ArgAction::Count => return Self::Number,
            ArgAction::Append => return Self::List,
            _ => {}
        }
        let value = arg.get_value_parser().type_id();
        let is = |types: &[TypeId]| types.iter().any(|&id| value == id);
        if is(&[TypeId::of::<bool>()]) {
            Self::Switch
        } else if is(&[
            TypeId::of::<u16>(),
            TypeId::of::<usize>(),
            TypeId::of::<i64>(),
        ]) {
            Self::Number
        } else if is(&[
            TypeId::of::<u64>(),
            TypeId::of::<f64>(),
            TypeId::of::<Duration>(),
        ]) {
            Self::Quantity
        } else {
            Self::Text
        }
    }

    fn expected(self, arg: &Arg) -> String {
        let what = value_name(arg).unwrap_or_default();
        match self {
            Self::Switch => "true or false".to_owned(),
            Self::Number => "a whole number".to_owned(),
            Self::Quantity => format!("a number or text ({what})"),
            Self::Text => format!("text ({what})"),
            Self::List => format!("text or a list of texts ({what})"),
        }
    }

    /// One value as it would be typed; `None` if it is of another kind.
    fn text(self, value: &DeValue<'_>) -> Option<String> {
        match (self, value) {
            (Self::Switch, DeValue::Boolean(value)) => Some(value.to_string()),
            (Self::Number | Self::Quantity, DeValue::Integer(number)) => {
                i128::from_str_radix(number.as_str(), number.radix())
                    .ok()
                    .map(|number| number.to_string())
            }
            (Self::Quantity, DeValue::Float(number)) => Some(number.as_str().to_owned()),
            (Self::Quantity | Self::Text | Self::List, DeValue::String(text)) => {
                Some(text.clone().into_owned())
            }
            _ => None,
        }
    }
}

/// Whether a flag takes these values, by asking its own parser; otherwise what that says.
fn check(arg: &Arg, values: &[String]) -> Result<(), String> {
    if matches!(arg.get_action(), ArgAction::Count) {
        let fits = values.iter().all(|value| value.parse::<u8>().is_ok());
        return fits
            .then_some(())
            .ok_or_else(|| "is out of range, expected 0 to 255".to_owned());
    }
    let switch = matches!(arg.get_action(), ArgAction::SetTrue);
    let words = values
        .iter()
        .filter(|_| !switch)
        .map(|value| format!("--{}={value}", long_of(arg)));
    let probe = Command::new("probe")
        .no_binary_name(true)
        .disable_help_flag(true)
        .arg(arg.clone().required(false));
    let Err(error) = probe.try_get_matches_from(words) else {
        return Ok(());
    };
    Err(
        match (
            std::error::Error::source(&error),
            error.get(ContextKind::ValidValue),
        ) {
            (Some(why), _) => format!("is refused: {why}"),
            (None, Some(ContextValue::Strings(known))) => {
                format!("is none of {}", known.join(", "))
            }
            (None, _) => format!("is refused: {}", error.kind()),
        },
    )
}
