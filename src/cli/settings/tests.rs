//! Each layer, and that every flag of every command can be set in each.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use clap::ArgMatches;

use super::*;
use crate::cli::args::{Command as Kind, GetArgs};

/// A configuration file, and what is in the environment.
struct Place {
    home: tempfile::TempDir,
    variables: BTreeMap<String, String>,
}

impl Place {
    fn new(config: &str) -> Self {
        let home = tempfile::tempdir().unwrap();
        let folder = home.path().join("trackless");
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join("config.toml"), config).unwrap();
        let path = home.path().to_str().unwrap().to_owned();
        let variables = BTreeMap::from([("XDG_CONFIG_HOME".to_owned(), path)]);
        Self { home, variables }
    }

    fn with(mut self, name: &str, value: &str) -> Self {
        self.variables.insert(name.to_owned(), value.to_owned());
        self
    }

    fn read(&self, line: &str) -> Result<Arguments, Refusal> {
        let words: Vec<OsString> = line.split_whitespace().map(OsString::from).collect();
        arguments(&words, &|name| self.variables.get(name).map(OsString::from))
    }

    #[track_caller]
    fn get(&self, line: &str) -> GetArgs {
        match self.read(line) {
            Ok(Arguments {
                command: Kind::Get(args),
                ..
            }) => *args,
            other => panic!("{other:?}"),
        }
    }

    /// What is wrong with the file.
    #[track_caller]
    fn check_wrong(&self, line: &str, part: &str) {
        match self.read(line) {
            Err(Refusal::Failure(failure)) => {
                assert_eq!(failure.exit, Exit::Usage);
                assert!(failure.message.contains(part), "{}", failure.message);
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_flag_beats_the_environment_which_beats_the_file_which_beats_the_default() {
    let bare = Place::new("");
    assert_eq!(bare.get("trackless get x").timeout, None);
    let file = Place::new("timeout = \"1m\"\n[get]\ntimeout = \"2m\"\noutput = \"from file\"");
    let args = file.get("trackless get x");
    assert_eq!(args.timeout, Some(Duration::from_secs(120)));
    assert_eq!(args.output, PathBuf::from("from file"));
    let both = file.with("TRACKLESS_TIMEOUT", "3m");
    let args = both.get("trackless get x");
    assert_eq!(args.timeout, Some(Duration::from_secs(180)));
    let args = both.get("trackless get x --timeout 4m");
    assert_eq!(args.timeout, Some(Duration::from_secs(240)));
}

#[test]
fn the_top_of_the_file_is_for_every_command_that_has_the_flag() {
    let place = Place::new(
        "listen = [\"127.0.0.1:0\", \"[::1]:0\"]\nbootstrap = \"a:1,b:2\"\njson = true\n\
         [dht]\ntimeout = 5\n[dht.ping]\ntimeout = 1.5\n[show]\njson = false\n",
    );
    let get = place.get("trackless get x");
    assert_eq!(get.node.way_in.listen.len(), 2);
    assert_eq!(get.node.way_in.bootstrap, ["a:1", "b:2"]);
    let timeout = |line: &str| match place.read(line) {
        Ok(Arguments {
            global,
            command: Kind::Dht(command),
        }) => {
            use crate::cli::args::DhtCommand;
            assert!(global.json);
            match command {
                DhtCommand::Ping { flags, .. } | DhtCommand::FindNode { flags, .. } => {
                    flags.timeout
                }
                other => panic!("{other:?}"),
            }
        }
        other => panic!("{other:?}"),
    };
    let id = "0123456789abcdef0123456789abcdef01234567";
    assert_eq!(
        timeout("trackless dht ping 127.0.0.1:1"),
        Duration::from_millis(1_500)
    );
    assert_eq!(
        timeout(&format!("trackless dht find-node {id}")),
        Duration::from_secs(5)
    );
    // A table may set what belongs to every command, and the command line overrules it.
    assert!(!place.read("trackless show x").unwrap().global.json);
    assert!(place.read("trackless --json show x").unwrap().global.json);
    assert!(place.read("trackless show x --json").unwrap().global.json);
}

#[test]
fn what_a_lower_layer_switched_on_can_be_switched_off() {
    let place = Place::new("quiet = 2\n[get]\nseed = true\nno-dht = true")
        .with("TRACKLESS_SEQUENTIAL", "yes");
    let args = place.get("trackless get x");
    assert!(args.seed && args.peers.no_dht && args.sequential);
    let args = place.get("trackless get x --seed=false --sequential=no --no-dht=true");
    assert!(!args.seed && args.peers.no_dht && !args.sequential);
    assert_eq!(place.read("trackless get x").unwrap().global.quiet, 2);
    assert_eq!(place.read("trackless get x -q").unwrap().global.quiet, 1);
    let off = place.with("TRACKLESS_SEED", "0");
    assert!(!off.get("trackless get x").seed);
}

#[test]
fn what_is_required_may_come_from_below() {
    let hash = "0123456789abcdef0123456789abcdef01234567";
    let line = format!("trackless dht announce {hash}");
    assert!(Place::new("").read(&line).is_err());
    assert!(
        Place::new("[dht.announce]\nport = 7000")
            .read(&line)
            .is_ok()
    );
    assert!(
        Place::new("")
            .with("TRACKLESS_PORT", "7000")
            .read(&line)
            .is_ok()
    );
}

#[test]
fn an_unknown_key_names_the_nearest_one() {
    let check = |config: &str, part: &str| Place::new(config).check_wrong("trackless get x", part);
    check(
        "\nlisen = \"127.0.0.1:0\"",
        "config.toml:2: unknown key `lisen` at the top of the file, did you mean `listen`?",
    );
    check(
        "[get]\nstate_dir = \"x\"",
        "in [get], did you mean `state-dir`?",
    );
    check(
        "[dht.ping]\ntime = 1",
        "in [dht.ping], did you mean `timeout`?",
    );
    check(
        "[got]\n",
        "unknown key `got` at the top of the file, did you mean `get`?",
    );
    check(
        "[node]\nsequentail = true",
        "did you mean `sequential` in [get]?",
    );
    check("colour = 1", "keys are long flags");
    check("config = \"x\"", "unknown key `config`");
    check("get = 1", "`get` is a command: write [get]");
}

#[test]
fn all_mistakes_of_a_file_are_told_in_its_order() {
    let config = "zzz = 1\nuplaod-limit = \"1MiB\"\n[get]\nsequentail = true\nfiles = [1]\n\
                  [dht.ping]\ntime = 1\n";
    let Err(Refusal::Failure(failure)) = Place::new(config).read("trackless get x") else {
        panic!("wrong keys were taken");
    };
    let told: Vec<&String> = std::iter::once(&failure.message)
        .chain(&failure.also)
        .collect();
    let parts = [
        (":1: ", "`zzz`"),
        (":2: ", "did you mean `upload-limit`?"),
        (":4: ", "did you mean `sequential`?"),
        (":5: ", "`files` is a list"),
        (":7: ", "did you mean `timeout`?"),
    ];
    assert_eq!(told.len(), parts.len(), "{told:?}");
    for (told, (line, part)) in told.into_iter().zip(parts) {
        assert!(told.contains(line) && told.contains(part), "{told}");
    }

    let many: String = (0..100).map(|i| format!("unknown-{i} = 1\n")).collect();
    let Err(Refusal::Failure(failure)) = Place::new(&many).read("trackless get x") else {
        panic!("wrong keys were taken");
    };
    assert_eq!(failure.also.len(), 10);
    assert_eq!(failure.also.last().unwrap(), "90 more like these");
}

#[test]
fn a_command_that_does_not_exist_names_the_nearest_one() {
    let tip = |line: &str| match Place::new("").read(line) {
        Err(Refusal::Clap { error, .. }) => error.to_string(),
        other => panic!("{other:?}"),
    };
    assert!(
        tip("trackless gte x").contains("'get'"),
        "{}",
        tip("trackless gte x")
    );
    assert!(tip("trackless -v sede x").contains("'seed'"));
    assert!(tip("trackless dht pign 127.0.0.1:1").contains("'ping'"));
    assert!(!tip("trackless qqqqqq").contains("similar"));
}

#[test]
fn what_no_flag_takes_is_refused_in_a_sentence() {
    let said = |line: &str, variable: (&str, &str)| match Place::new("")
        .with(variable.0, variable.1)
        .read(line)
    {
        Err(Refusal::Clap { error, hint }) => format!("{error}{}", hint.unwrap_or_default()),
        other => panic!("{other:?}"),
    };
    let none = ("TRACKLESS_NOTHING", "");
    let negative = said("trackless get x --seed-ratio -1", none);
    assert!(negative.contains("`-1` is no ratio above 0"), "{negative}");
    let zero = said("trackless get x --seed-ratio 0", none);
    assert!(zero.contains("use --seed to seed without end"), "{zero}");
    let part = said("trackless get x", ("TRACKLESS_UPLOAD_LIMIT", "2.5"));
    assert!(part.contains("a fraction of a byte"), "{part}");
    let maybe = said("trackless get x", ("TRACKLESS_SEED", "maybe"));
    assert!(maybe.contains("neither true nor false"), "{maybe}");
    assert!(maybe.contains("TRACKLESS_SEED"), "{maybe}");
    Place::new("upload-limit = 2.5").check_wrong("trackless get x", "a fraction of a byte");
}

#[test]
fn a_key_at_the_wrong_place_is_told_where_it_belongs() {
    let check = |config: &str, part: &str| Place::new(config).check_wrong("trackless get x", part);
    check(
        "sequential = true",
        "`sequential` belongs into the table [get]",
    );
    check(
        "[dht]\nport = 1",
        "`port` belongs into the table [dht.announce]",
    );
    check(
        "output = \".\"",
        "different commands: put it into [get] or [create]",
    );
}

#[test]
fn a_wrong_value_names_file_key_and_what_was_expected() {
    let check = |config: &str, part: &str| Place::new(config).check_wrong("trackless get x", part);
    check(
        "json = \"yes\"",
        "config.toml:1: `json` is text, expected true or false",
    );
    check(
        "verbose = true",
        "`verbose` is true or false, expected a whole number",
    );
    check("verbose = 300", "out of range, expected 0 to 255");
    check("timeout = true", "expected a number or text (DURATION)");
    check(
        "timeout = \"soon\"",
        "`timeout` is refused: `soon` is no duration",
    );
    check("listen = [1]", "expected text or a list of texts (IP:PORT)");
    check("listen = \"nowhere\"", "`listen` is refused: ");
    check("log-format = \"xml\"", "`log-format` is none of text, json");
    check("[node]\nstore-peers = \"many\"", "expected a whole number");
    check("[create]\ncomment = 5", "expected text (TEXT)");
    check(
        "[get]\nfiles = [\"1\"]",
        "`files` is a list, expected text (SPEC)",
    );
    check("listen = ", "config.toml:1: ");
}

#[test]
fn a_wrong_variable_is_named_and_disturbs_only_the_commands_that_read_it() {
    let place = Place::new("").with("TRACKLESS_TIMEOUT", "soon");
    let Err(Refusal::Clap { error, hint }) = place.read("trackless get x") else {
        panic!("a wrong variable was taken");
    };
    assert_eq!(error.exit_code(), 2);
    let hint = hint.unwrap();
    assert!(
        hint.contains("from the environment: TRACKLESS_TIMEOUT"),
        "{hint}"
    );
    assert!(place.read("trackless show x").is_ok());
    assert!(place.read("trackless get x --timeout 5").is_ok());
    let Err(Refusal::Clap { hint, .. }) = place.read("trackless get x --timeout never") else {
        panic!("a wrong flag was taken");
    };
    assert!(hint.is_none(), "{hint:?}");
    // An empty variable is none.
    assert!(
        Place::new("")
            .with("TRACKLESS_TIMEOUT", "")
            .read("trackless get x")
            .is_ok()
    );
}

#[test]
fn the_file_is_where_it_is_said_to_be() {
    let place = Place::new("timeout = 1");
    let other = place.home.path().join("other.toml");
    let other = other.to_str().unwrap();
    let get = |words: &str| place.get(&format!("trackless get x {words}")).timeout;
    assert_eq!(get(""), Some(Duration::from_secs(1)));
    assert_eq!(get("--config none"), None);
    place.check_wrong(&format!("trackless get x --config {other}"), "other.toml");
    fs::write(other, "timeout = 2").unwrap();
    assert_eq!(
        get(&format!("--config {other}")),
        Some(Duration::from_secs(2))
    );
    assert_eq!(
        get(&format!("--config={other}")),
        Some(Duration::from_secs(2))
    );
    let set = Place::new("timeout = 1").with("TRACKLESS_CONFIG", other);
    assert_eq!(
        set.get("trackless get x").timeout,
        Some(Duration::from_secs(2))
    );
    assert_eq!(set.get("trackless get x --config none").timeout, None);
}

#[test]
fn help_and_completions_work_beside_a_broken_file() {
    let place = Place::new("broken");
    for line in [
        "trackless --help",
        "trackless get --help",
        "trackless --version",
    ] {
        let Err(Refusal::Clap { error, .. }) = place.read(line) else {
            panic!("{line} printed nothing");
        };
        assert_eq!(error.exit_code(), 0, "{line}");
    }
    assert!(place.read("trackless completions bash").is_ok());
    assert!(place.read("trackless man get").is_ok());
    place.check_wrong("trackless show x", "config.toml:1: ");
}

/// A value that a flag takes: as TOML, as a variable, and as clap then shows it.
fn sample(arg: &Arg) -> (&'static str, &'static str, &'static str) {
    match (arg.get_action(), value_name(arg).as_deref()) {
        (ArgAction::SetTrue, _) => ("true", "1", "true"),
        (ArgAction::Count, _) => ("3", "3", "3"),
        (_, Some("FORM")) => ("\"json\"", "json", "json"),
        (ArgAction::Set, Some("IP:PORT")) => ("\"127.0.0.1:7\"", "127.0.0.1:7", "127.0.0.1:7"),
        (_, Some("IP:PORT")) => ("[\"127.0.0.1:7\"]", "127.0.0.1:7", "127.0.0.1:7"),
        (_, Some("URL")) => (
            "[\"udp://a.example:7\"]",
            "udp://a.example:7",
            "udp://a.example:7",
        ),
        (_, Some("HOST:PORT")) => ("[\"a.example:7\"]", "a.example:7", "a.example:7"),
        (_, Some("DURATION")) => ("\"7m\"", "7m", "7m"),
        (_, Some("RATE" | "SIZE")) => ("\"32KiB\"", "32KiB", "32KiB"),
        (_, Some("N" | "P")) => ("7", "7", "7"),
        (_, Some("HEX")) => {
            const QUOTED: &str =
                "\"77ff84905a91936367c01360803104f92432fcd904a43511876df5cdf3e7e548\"";
            let key = QUOTED.trim_matches('"');
            (QUOTED, key, key)
        }
        (_, Some("HASH")) => {
            const QUOTED: &str = "\"0123456789abcdef0123456789abcdef01234567\"";
            let hash = QUOTED.trim_matches('"');
            (QUOTED, hash, hash)
        }
        (_, Some("SPEC")) => ("\"0,3-5\"", "0,3-5", "0,3-5"),
        (_, Some("DIR" | "FILE" | "TEXT")) => ("\"x\"", "x", "x"),
        (action, name) => panic!("no sample for {action:?} {name:?} of {arg}"),
    }
}

/// Words that call the command at `path`, with what it needs beside flags.
fn words_for(command: &Command, path: &[String]) -> Vec<OsString> {
    let mut words = vec![OsString::from("trackless")];
    words.extend(path.iter().map(OsString::from));
    for arg in command
        .get_positionals()
        .filter(|arg| arg.is_required_set())
    {
        words.push(
            match value_name_of_positional(arg) {
                "HASH" | "ID" => "0123456789abcdef0123456789abcdef01234567",
                "IP:PORT" | "HOST:PORT" => "127.0.0.1:1",
                "SHELL" => "bash",
                _ => "x",
            }
            .into(),
        );
    }
    words
}

fn value_name_of_positional(arg: &Arg) -> &str {
    arg.get_value_names()
        .and_then(|names| names.first())
        .map_or("", |name| name)
}

/// The matches of the innermost command.
fn innermost(mut matches: &ArgMatches) -> &ArgMatches {
    while let Some((_, below)) = matches.subcommand() {
        matches = below;
    }
    matches
}

/// What a flag of the command at `path` is, with these layers below it.
fn effective(
    command: &Command,
    path: &[String],
    long: &str,
    layers: &Layers<'_>,
) -> Option<String> {
    let root = switches_with_values(Arguments::command(), &[]);
    let global: Vec<Arg> = settings(&root)
        .filter(|arg| arg.is_global_set())
        .cloned()
        .collect();
    let filled = layers.fill(root, &mut Vec::new(), &global);
    let matches = filled
        .try_get_matches_from(words_for(command, path))
        .unwrap_or_else(|error| panic!("{path:?} --{long}: {error}"));
    let id = long.replace('-', "_");
    let raw = innermost(&matches).get_raw(&id)?;
    Some(
        raw.map(|value| value.to_string_lossy())
            .collect::<Vec<_>>()
            .join(","),
    )
}

#[test]
fn every_long_flag_of_every_command_can_be_set_in_the_file_and_in_the_environment() {
    let root = Arguments::command();
    let ambiguous = ambiguous_flags(&root);
    let global: Vec<Arg> = settings(&root)
        .filter(|arg| arg.is_global_set())
        .cloned()
        .collect();
    let mut checked = 0;
    let mut leaves = Vec::new();
    find_leaves(&root, &mut Vec::new(), &mut leaves);
    for (path, leaf) in &leaves {
        for arg in settings(leaf).chain(&global) {
            let long = long_of(arg);
            let (toml, variable, expected) = sample(arg);
            // Required flags are given by the environment when another one is looked at.
            let required: BTreeMap<String, String> = settings(leaf)
                .filter(|other| other.is_required_set() && long_of(other) != long)
                .map(|other| {
                    let name = variable_name(long_of(other), path, &ambiguous);
                    (name, sample(other).1.to_owned())
                })
                .collect();

            let text = format!("[{}]\n{long} = {toml}\n", path.join("."));
            let file = ConfigFile::parse("config.toml".as_ref(), &text, &root, &ambiguous)
                .unwrap_or_else(|failure| panic!("{text}: {}", failure.message));
            let layers = Layers {
                environment: &|name| required.get(name).map(OsString::from),
                file,
                ambiguous: ambiguous.clone(),
            };
            let found = effective(leaf, path, long, &layers);
            assert_eq!(found.as_deref(), Some(expected), "{text}");

            let asked = RefCell::new(Vec::new());
            let wanted = variable_name(long, path, &ambiguous);
            let layers = Layers {
                environment: &|name| {
                    asked.borrow_mut().push(name.to_owned());
                    let set = (name == wanted).then(|| variable.into());
                    set.or_else(|| required.get(name).map(OsString::from))
                },
                file: ConfigFile::default(),
                ambiguous: ambiguous.clone(),
            };
            let found = effective(leaf, path, long, &layers);
            let found = found.map(|value| {
                if value == "1" {
                    "true".to_owned()
                } else {
                    value
                }
            });
            assert_eq!(found.as_deref(), Some(expected), "{wanted} of {path:?}");
            assert!(asked.borrow().iter().all(|name| name.starts_with(PREFIX)));
            checked += 1;
        }
    }
    assert!(checked > 100, "only {checked} flags were found");
}

/// Every command that has none below it.
fn find_leaves<'c>(
    command: &'c Command,
    path: &mut Vec<String>,
    leaves: &mut Vec<(Vec<String>, &'c Command)>,
) {
    for below in command.get_subcommands() {
        path.push(below.get_name().to_owned());
        if below.has_subcommands() {
            find_leaves(below, path, leaves);
        } else {
            leaves.push((path.clone(), below));
        }
        path.pop();
    }
}

#[test]
fn names_in_the_environment_follow_one_rule() {
    let all = variables(&Arguments::command());
    let name_of = |flag: &str| {
        let found = all.iter().find(|(_, known)| known == flag);
        found.map(|(name, _)| name.as_str())
    };
    assert_eq!(name_of("--state-dir"), Some("TRACKLESS_STATE_DIR"));
    assert_eq!(name_of("get --output"), Some("TRACKLESS_GET_OUTPUT"));
    assert_eq!(name_of("create --output"), Some("TRACKLESS_CREATE_OUTPUT"));
    // A new flag with two meanings should be renamed, or be added here with its documents.
    let ambiguous = ambiguous_flags(&Arguments::command());
    assert_eq!(ambiguous.into_iter().collect::<Vec<_>>(), ["output"]);
}

#[test]
fn the_document_names_every_key_and_every_variable() {
    let document = include_str!("../../../docs/CONFIGURATION.md");
    each_flag(&Arguments::command(), &mut Vec::new(), &mut |path, arg| {
        let key = format!("`{}`", long_of(arg));
        assert!(document.contains(&key), "{key} of {path:?}");
    });
    for (variable, _) in variables(&Arguments::command()) {
        assert!(document.contains(&format!("`{variable}`")), "{variable}");
    }
}
