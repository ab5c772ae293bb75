//! What a user may type: the commands and their flags.
//!
//! Invariant: a flag is described here and nowhere else. Its name in the environment and in the
//! configuration file follows from its long name (see [`settings`](super::settings)).

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::ValueHint;
use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

use super::bounds::Bounds;
use super::units;
use crate::metainfo::FileSelection;
pub(crate) use dht::{DhtCommand, PutArgs};

mod dht;

/// The whole command line.
#[derive(Debug, Parser)]
#[command(
    name = "trackless",
    version,
    about = "A BitTorrent node that needs no tracker: the DHT comes first",
    after_help = "Each long flag can also be set in the environment (--state-dir as \
                  TRACKLESS_STATE_DIR) and in a configuration file; `trackless man` lists the \
                  names.",
    propagate_version = true,
    max_term_width = 100
)]
pub(crate) struct Arguments {
    /// Flags of every command.
    #[command(flatten)]
    pub(crate) global: Global,
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Flags of every command.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Every command")]
pub(crate) struct Global {
    /// Print the result as JSON, one object a line
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Log more; repeat for more still
    #[arg(short, long, global = true, action = ArgAction::Count)]
    pub(crate) verbose: u8,
    /// Log less, and show no progress
    #[arg(short, long, global = true, action = ArgAction::Count)]
    pub(crate) quiet: u8,
    /// Form of the log lines on standard error
    #[arg(long, global = true, value_enum, default_value_t, value_name = "FORM")]
    pub(crate) log_format: LogFormat,
    /// Configuration file, `none` for none [default: $XDG_CONFIG_HOME/trackless/config.toml, if it
    /// is there]
    #[arg(long, global = true, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) config: Option<PathBuf>,
}

/// Form of log lines.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Download what magnet links, info hashes or .torrent files name
    Get(Box<GetArgs>),
    /// Make files or folders available under a magnet link, without a tracker
    Seed(SeedArgs),
    /// Print what a magnet link or .torrent file says
    Show(ShowArgs),
    /// Write a .torrent file for a file or folder
    Create(CreateArgs),
    /// Compare files with a .torrent file, without changing anything
    Verify(VerifyArgs),
    /// Run a DHT node, one that others can bootstrap from
    Node(NodeArgs),
    /// Do one DHT operation by hand
    #[command(subcommand)]
    Dht(DhtCommand),
    /// Show the whole way from magnet link to verified files, inside this one process
    Demo(DemoArgs),
    /// Print completions for a shell
    Completions(CompletionsArgs),
    /// Print the manual, or the page of one command
    Man(ManArgs),
}

/// Where a node is, and how it gets into the DHT.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Node")]
pub(crate) struct WayIn {
    /// UDP and TCP address; port 0 takes a free one. Repeatable [default: port 6881 of all
    /// addresses, or the next free one; `dht` takes any free port]
    #[arg(long, value_name = "IP:PORT", value_delimiter = ',')]
    pub(crate) listen: Vec<SocketAddr>,
    /// DHT node to start from, instead of the built-in public routers; `none` for no such node:
    /// only contacts saved in the state directory are asked then, and peers' nodes. Repeatable
    #[arg(
        long,
        value_name = "HOST:PORT",
        value_delimiter = ',',
        value_hint = ValueHint::Hostname
    )]
    pub(crate) bootstrap: Vec<String>,
    /// Where the routing table, the node ids, resume data and made torrents are kept [default:
    /// $XDG_STATE_HOME/trackless]; `dht` only reads contacts there, if it is named
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub(crate) state_dir: Option<PathBuf>,
}

/// Flags of every command that starts a node.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Node")]
pub(crate) struct NodeFlags {
    /// Where the node is.
    #[command(flatten)]
    pub(crate) way_in: WayIn,
    /// Receive at most so much from all peers together: 512KiB, 10MiB/s
    #[arg(long, value_name = "RATE", value_parser = units::rate, allow_negative_numbers = true)]
    pub(crate) download_limit: Option<u64>,
    /// Send at most so much to all peers together: 512KiB, 10MiB/s
    #[arg(long, value_name = "RATE", value_parser = units::rate, allow_negative_numbers = true)]
    pub(crate) upload_limit: Option<u64>,
}

/// Flags of every command that moves torrents.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Node")]
pub(crate) struct PeerFlags {
    /// Peer to try at once. Repeatable
    #[arg(long, value_name = "IP:PORT", value_delimiter = ',')]
    pub(crate) peer: Vec<SocketAddr>,
    /// Do not use the DHT
    #[arg(long)]
    pub(crate) no_dht: bool,
    /// Do not look for peers in the local network
    #[arg(long)]
    pub(crate) no_lsd: bool,
    /// Do not exchange peers with peers
    #[arg(long)]
    pub(crate) no_pex: bool,
    /// Do not ask the trackers that a torrent names
    #[arg(long)]
    pub(crate) no_trackers: bool,
}

/// `trackless get`.
#[derive(Debug, Args)]
pub(crate) struct GetArgs {
    /// Magnet link (in quotes), info hash (40 hexadecimal or 32 base-32 digits), or path or web
    /// address of a .torrent file
    #[arg(required = true, value_name = "SOURCE", value_hint = ValueHint::FilePath)]
    pub(crate) sources: Vec<String>,
    /// Folder to download into
    #[arg(
        short,
        long,
        value_name = "DIR",
        default_value = ".",
        value_hint = ValueHint::DirPath
    )]
    pub(crate) output: PathBuf,
    /// Print index, size and path of each file, and stop
    #[arg(long)]
    pub(crate) list: bool,
    /// Fetch these files only: indexes as --list prints them (0,3-5) or patterns (*.mkv, sub/**)
    #[arg(long, value_name = "SPEC", value_parser = FileSelection::parse)]
    pub(crate) files: Option<FileSelection>,
    /// Fetch the metadata only, save it as NAME.torrent, and stop
    #[arg(long)]
    pub(crate) metadata_only: bool,
    /// Fetch pieces in order, to look at a file before it is complete
    #[arg(long)]
    pub(crate) sequential: bool,
    /// Go on seeding after the download, until interrupted
    #[arg(long)]
    pub(crate) seed: bool,
    /// Go on seeding until so many times the wanted content was sent, in earlier runs and this one;
    /// 1.0 gives back as much as was taken. Above 0: to seed without end, use --seed
    #[arg(long, value_name = "N", value_parser = units::ratio, allow_negative_numbers = true)]
    pub(crate) seed_ratio: Option<f64>,
    /// Go on seeding for so long in this run: 90s, 15m, 2h. With --seed-ratio, what comes first ends
    /// it
    #[arg(long, value_name = "DURATION", value_parser = units::duration)]
    pub(crate) seed_time: Option<Duration>,
    /// Give up after so long (exit code 3): 90s, 15m, 2h
    #[arg(long, value_name = "DURATION", value_parser = units::duration)]
    pub(crate) timeout: Option<Duration>,
    /// Flags of the node.
    #[command(flatten)]
    pub(crate) node: NodeFlags,
    /// Flags of the transfer.
    #[command(flatten)]
    pub(crate) peers: PeerFlags,
}

impl GetArgs {
    /// Until when torrents go on after their download.
    pub(crate) fn bounds(&self) -> Bounds {
        Bounds {
            ratio: self.seed_ratio,
            time: self.seed_time,
        }
    }

    /// Whether torrents go on after their download.
    pub(crate) fn is_seeding(&self) -> bool {
        self.seed || self.seed_ratio.is_some() || self.seed_time.is_some()
    }
}

/// `trackless seed`.
#[derive(Debug, Args)]
pub(crate) struct SeedArgs {
    /// Files or folders to seed, or .torrent files of content that is already there; with --data also
    /// folders of .torrent files
    #[arg(required = true, value_name = "PATH", value_hint = ValueHint::AnyPath)]
    pub(crate) paths: Vec<PathBuf>,
    /// For .torrent files: the folder that holds the content under its own name
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub(crate) data: Option<PathBuf>,
    /// Also write the .torrent file here (one PATH only)
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) torrent_out: Option<PathBuf>,
    /// Show each peer only what it is to fetch, until a whole copy is with others (super-seeding,
    /// BEP 16): for content that nobody else has, over a slow line
    #[arg(long)]
    pub(crate) super_seed: bool,
    /// Stop when so many times the content was sent, in earlier runs and this one. Above 0
    #[arg(long, value_name = "N", value_parser = units::ratio, allow_negative_numbers = true)]
    pub(crate) seed_ratio: Option<f64>,
    /// Stop after so long in this run: 90s, 15m, 2h. With --seed-ratio, what comes first ends it
    #[arg(long, value_name = "DURATION", value_parser = units::duration)]
    pub(crate) seed_time: Option<Duration>,
    /// Flags of the node.
    #[command(flatten)]
    pub(crate) node: NodeFlags,
    /// Flags of the transfer.
    #[command(flatten)]
    pub(crate) peers: PeerFlags,
}

impl SeedArgs {
    /// Until when torrents are seeded.
    pub(crate) fn bounds(&self) -> Bounds {
        Bounds {
            ratio: self.seed_ratio,
            time: self.seed_time,
        }
    }
}

/// `trackless node`.
#[derive(Debug, Args)]
pub(crate) struct NodeArgs {
    /// Answer nobody and tell others not to list this node (BEP 43)
    #[arg(long)]
    pub(crate) read_only: bool,
    /// Answer every source without limit: for measuring and for private networks
    #[arg(long)]
    pub(crate) no_throttle: bool,
    /// Time between two lines of statistics: 90s, 15m, 2h
    #[arg(long, value_name = "DURATION", value_parser = units::duration, default_value = "60s")]
    pub(crate) stats_interval: Duration,
    /// Serve numbers for Prometheus over HTTP at this address, under /metrics; port 0 takes a free
    /// one. Nobody is asked for a password: 127.0.0.1 keeps them on this machine
    #[arg(long, value_name = "IP:PORT")]
    pub(crate) metrics: Option<SocketAddr>,
    /// Info hashes whose peers are kept; 0 for none
    #[arg(long, value_name = "N", default_value_t = 2_000)]
    pub(crate) store_torrents: usize,
    /// Peers kept for one info hash, of each address family
    #[arg(long, value_name = "N", default_value_t = 500)]
    pub(crate) store_peers: usize,
    /// Items of others that are kept (BEP 44), up to 1.5 KB of memory each; 0 for none
    #[arg(long, value_name = "N", default_value_t = 700)]
    pub(crate) store_items: usize,
    /// Flags of the node.
    #[command(flatten)]
    pub(crate) node: NodeFlags,
}

/// `trackless create`.
#[derive(Debug, Args)]
pub(crate) struct CreateArgs {
    /// File or folder
    #[arg(value_name = "PATH", value_hint = ValueHint::AnyPath)]
    pub(crate) path: PathBuf,
    /// Where to write it [default: NAME.torrent in the current folder]
    #[arg(short, long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) output: Option<PathBuf>,
    /// Replace an existing file
    #[arg(long)]
    pub(crate) force: bool,
    /// Bytes in a piece, a power of two from 16KiB to 64MiB [default: chosen by size]
    #[arg(long, value_name = "SIZE", value_parser = units::size)]
    pub(crate) piece_length: Option<u64>,
    /// Tracker URL; each flag is a tier, commas separate trackers of one tier
    #[arg(long, value_name = "URL", value_parser = units::tracker_tier)]
    pub(crate) tracker: Vec<String>,
    /// Web seed URL (BEP 19). Repeatable
    #[arg(long, value_name = "URL", value_delimiter = ',')]
    pub(crate) web_seed: Vec<String>,
    /// DHT node named in the file (BEP 5). Repeatable
    #[arg(long, value_name = "HOST:PORT", value_delimiter = ',',
          value_parser = units::host_and_port)]
    pub(crate) node: Vec<(String, u16)>,
    /// Peers only from the trackers named (BEP 27)
    #[arg(long)]
    pub(crate) private: bool,
    /// Free text
    #[arg(long, value_name = "TEXT")]
    pub(crate) comment: Option<String>,
    /// Text inside the info dictionary, which gives the torrent an info hash of its own
    #[arg(long, value_name = "TEXT")]
    pub(crate) source: Option<String>,
    /// Leave the creation date out
    #[arg(long)]
    pub(crate) no_date: bool,
}

/// `trackless show`.
#[derive(Debug, Args)]
pub(crate) struct ShowArgs {
    /// Magnet link (in quotes), info hash, or path of a .torrent file
    #[arg(value_name = "SOURCE", value_hint = ValueHint::FilePath)]
    pub(crate) source: String,
}

/// `trackless verify`.
#[derive(Debug, Args)]
pub(crate) struct VerifyArgs {
    /// The .torrent file
    #[arg(value_name = "TORRENT", value_hint = ValueHint::FilePath)]
    pub(crate) torrent: PathBuf,
    /// The folder that holds the content under its own name, as `get -o DIR` makes it
    #[arg(value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub(crate) folder: PathBuf,
}

/// `trackless demo`.
#[derive(Debug, Args)]
pub(crate) struct DemoArgs {
    /// DHT nodes to start
    #[arg(long, value_name = "N", default_value_t = 8,
          value_parser = clap::value_parser!(u16).range(1..=64))]
    pub(crate) nodes: u16,
    /// Bytes of the largest file; five small ones come on top, 56 KiB together
    #[arg(long, value_name = "SIZE", value_parser = units::size, default_value = "64MiB")]
    pub(crate) size: u64,
}

/// `trackless completions`.
#[derive(Debug, Args)]
#[command(after_help = "\
To try them:  source <(trackless completions bash)
To keep them:
  bash  trackless completions bash > ~/.local/share/bash-completion/completions/trackless
  zsh   trackless completions zsh > ~/.zfunc/_trackless    (~/.zfunc being in $fpath)
  fish  trackless completions fish > ~/.config/fish/completions/trackless.fish")]
pub(crate) struct CompletionsArgs {
    /// The shell
    #[arg(value_enum, value_name = "SHELL")]
    pub(crate) shell: Shell,
}

/// `trackless man`.
#[derive(Debug, Args)]
#[command(after_help = "To read a page:  trackless man get | man -l -")]
pub(crate) struct ManArgs {
    /// The command whose page is wanted, as it is typed: `get`, `dht ping` [default: the main
    /// page]
    #[arg(value_name = "COMMAND")]
    pub(crate) command: Vec<String>,
    /// Write all pages into this folder instead
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub(crate) out: Option<PathBuf>,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn parse(line: &str) -> Result<Arguments, clap::Error> {
        Arguments::try_parse_from(line.split_whitespace())
    }

    #[test]
    fn the_command_tree_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn flags_stand_anywhere_and_lists_take_commas() {
        let arguments = parse(
            "trackless get --listen 127.0.0.1:0,[::1]:0 --bootstrap a:1 --bootstrap b:2 \
             0123456789abcdef0123456789abcdef01234567 --json --timeout 2m",
        );
        let Ok(Arguments {
            global,
            command: Command::Get(get),
        }) = arguments
        else {
            panic!("{arguments:?}");
        };
        assert!(global.json);
        assert_eq!(get.node.way_in.listen.len(), 2);
        assert_eq!(get.node.way_in.bootstrap, ["a:1", "b:2"]);
        assert_eq!(get.timeout, Some(Duration::from_secs(120)));
        assert!(!get.is_seeding());
    }

    #[test]
    fn a_bound_on_seeding_means_to_seed() {
        for flag in ["--seed", "--seed-ratio 1.5", "--seed-time 2h"] {
            let Ok(Arguments {
                command: Command::Get(get),
                ..
            }) = parse(&format!("trackless get x {flag}"))
            else {
                panic!("{flag} is refused");
            };
            assert!(get.is_seeding(), "{flag}");
        }
    }

    #[test]
    fn bad_values_are_refused() {
        for line in [
            "trackless get",
            "trackless get x --timeout soon",
            "trackless get x --listen nowhere",
            "trackless get x --files 3-1",
            "trackless get x --seed-ratio -1",
            "trackless get x --upload-limit 0",
            "trackless dht announce 0123456789abcdef0123456789abcdef01234567 --port 0",
            "trackless dht find-node 0123",
            "trackless create x --piece-length big",
            "trackless completions cmd",
            "trackless",
        ] {
            assert!(parse(line).is_err(), "{line}");
        }
    }
}
