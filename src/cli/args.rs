//! What a user may type: the commands and their flags.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::BoolishValueParser;
use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};

use super::units;
use crate::id::{InfoHash, NodeId};

/// The whole command line.
#[derive(Debug, Parser)]
#[command(
    name = "trackless",
    version,
    about = "A BitTorrent node that needs no tracker: the DHT comes first",
    after_help = "Every long flag can also be set in the environment: --listen as \
                  TRACKLESS_LISTEN, and so on; several values are separated by commas.",
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
pub(crate) struct Global {
    /// Print the result as JSON, one object a line
    #[arg(long, global = true, env = "TRACKLESS_JSON",
          value_parser = BoolishValueParser::new(), action = ArgAction::SetTrue)]
    pub(crate) json: bool,
    /// Log more; repeat for more still
    #[arg(short, long, global = true, env = "TRACKLESS_VERBOSE", action = ArgAction::Count)]
    pub(crate) verbose: u8,
    /// Log less, and show no progress
    #[arg(short, long, global = true, env = "TRACKLESS_QUIET", action = ArgAction::Count)]
    pub(crate) quiet: u8,
    /// Form of the log lines on standard error
    #[arg(
        long,
        global = true,
        env = "TRACKLESS_LOG_FORMAT",
        value_enum,
        default_value_t,
        value_name = "FORM"
    )]
    pub(crate) log_format: LogFormat,
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
    Get(GetArgs),
    /// Make files or folders available under a magnet link, without a tracker
    Seed(SeedArgs),
    /// Run a DHT node, one that others can bootstrap from
    Node(NodeArgs),
    /// Do one DHT operation by hand
    #[command(subcommand)]
    Dht(DhtCommand),
    /// Write a .torrent file for a file or folder
    Create(CreateArgs),
    /// Print what a magnet link or .torrent file says
    Show(ShowArgs),
    /// Show the whole way from magnet link to verified files, inside this one process
    Demo(DemoArgs),
}

/// Flags of every command that starts a node.
#[derive(Debug, Clone, Args)]
pub(crate) struct NodeFlags {
    /// UDP and TCP address; port 0 takes a free one. Repeatable [default: port 6881 of all
    /// addresses, or the next free one]
    #[arg(
        long,
        env = "TRACKLESS_LISTEN",
        value_name = "IP:PORT",
        value_delimiter = ','
    )]
    pub(crate) listen: Vec<SocketAddr>,
    /// DHT node to start from, instead of the built-in public routers; `none` for no way in.
    /// Repeatable
    #[arg(
        long,
        env = "TRACKLESS_BOOTSTRAP",
        value_name = "HOST:PORT",
        value_delimiter = ','
    )]
    pub(crate) bootstrap: Vec<String>,
    /// Where the routing table, the node ids and made torrents are kept [default:
    /// $XDG_STATE_HOME/trackless]
    #[arg(long, env = "TRACKLESS_STATE_DIR", value_name = "DIR")]
    pub(crate) state_dir: Option<PathBuf>,
}

/// Flags of every command that moves torrents.
#[derive(Debug, Clone, Args)]
pub(crate) struct PeerFlags {
    /// Peer to try at once. Repeatable
    #[arg(
        long,
        env = "TRACKLESS_PEER",
        value_name = "IP:PORT",
        value_delimiter = ','
    )]
    pub(crate) peer: Vec<SocketAddr>,
    /// Do not use the DHT
    #[arg(long, env = "TRACKLESS_NO_DHT",
          value_parser = BoolishValueParser::new(), action = ArgAction::SetTrue)]
    pub(crate) no_dht: bool,
}

/// `trackless get`.
#[derive(Debug, Args)]
pub(crate) struct GetArgs {
    /// Magnet link, info hash (hexadecimal or base 32), or path of a .torrent file
    #[arg(required = true, value_name = "SOURCE")]
    pub(crate) sources: Vec<String>,
    /// Folder to download into
    #[arg(
        short,
        long,
        env = "TRACKLESS_OUTPUT",
        value_name = "DIR",
        default_value = "."
    )]
    pub(crate) output: PathBuf,
    /// Go on seeding after the download, until interrupted
    #[arg(long, env = "TRACKLESS_SEED",
          value_parser = BoolishValueParser::new(), action = ArgAction::SetTrue)]
    pub(crate) seed: bool,
    /// Give up after so long (exit code 3): 90s, 15m, 2h
    #[arg(long, env = "TRACKLESS_TIMEOUT", value_name = "DURATION", value_parser = units::duration)]
    pub(crate) timeout: Option<Duration>,
    /// Flags of the node.
    #[command(flatten)]
    pub(crate) node: NodeFlags,
    /// Flags of the transfer.
    #[command(flatten)]
    pub(crate) peers: PeerFlags,
}

/// `trackless seed`.
#[derive(Debug, Args)]
pub(crate) struct SeedArgs {
    /// Files or folders to seed, or .torrent files of content that is already there
    #[arg(required = true, value_name = "PATH")]
    pub(crate) paths: Vec<PathBuf>,
    /// For .torrent files: the folder that holds the content under its own name
    #[arg(long, env = "TRACKLESS_DATA", value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
    /// Also write the .torrent file here (one PATH only)
    #[arg(long, env = "TRACKLESS_TORRENT_OUT", value_name = "FILE")]
    pub(crate) torrent_out: Option<PathBuf>,
    /// Flags of the node.
    #[command(flatten)]
    pub(crate) node: NodeFlags,
    /// Flags of the transfer.
    #[command(flatten)]
    pub(crate) peers: PeerFlags,
}

/// `trackless node`.
#[derive(Debug, Args)]
pub(crate) struct NodeArgs {
    /// Answer nobody and tell others not to list this node (BEP 43)
    #[arg(long, env = "TRACKLESS_READ_ONLY",
          value_parser = BoolishValueParser::new(), action = ArgAction::SetTrue)]
    pub(crate) read_only: bool,
    /// Time between two lines of statistics: 90s, 15m, 2h
    #[arg(long, env = "TRACKLESS_STATS_INTERVAL", value_name = "DURATION",
          value_parser = units::duration, default_value = "60s")]
    pub(crate) stats_interval: Duration,
    /// Info hashes whose peers are kept
    #[arg(
        long,
        env = "TRACKLESS_STORE_TORRENTS",
        value_name = "N",
        default_value_t = 2_000
    )]
    pub(crate) store_torrents: usize,
    /// Peers kept for one info hash
    #[arg(
        long,
        env = "TRACKLESS_STORE_PEERS",
        value_name = "N",
        default_value_t = 500
    )]
    pub(crate) store_peers: usize,
    /// Flags of the node.
    #[command(flatten)]
    pub(crate) node: NodeFlags,
}

/// `trackless dht …`.
#[derive(Debug, Subcommand)]
pub(crate) enum DhtCommand {
    /// Ask one node whether it is there
    Ping {
        /// Its address
        #[arg(value_name = "IP:PORT")]
        address: SocketAddr,
        /// Flags of the operation.
        #[command(flatten)]
        flags: DhtFlags,
    },
    /// Find the nodes closest to an id
    FindNode {
        /// 40 hexadecimal digits
        #[arg(value_name = "ID")]
        target: NodeId,
        /// Flags of the operation.
        #[command(flatten)]
        flags: DhtFlags,
    },
    /// Find the peers of a torrent
    GetPeers {
        /// Info hash (hexadecimal or base 32) or magnet link
        #[arg(value_name = "HASH", value_parser = info_hash)]
        info_hash: InfoHash,
        /// Flags of the operation.
        #[command(flatten)]
        flags: DhtFlags,
    },
    /// Announce a peer of a torrent at this machine's address
    Announce {
        /// Info hash (hexadecimal or base 32) or magnet link
        #[arg(value_name = "HASH", value_parser = info_hash)]
        info_hash: InfoHash,
        /// The TCP port at which that peer listens
        #[arg(long, env = "TRACKLESS_PORT", value_name = "P",
              value_parser = clap::value_parser!(u16).range(1..))]
        port: u16,
        /// Flags of the operation.
        #[command(flatten)]
        flags: DhtFlags,
    },
}

/// Flags of every DHT operation.
#[derive(Debug, Clone, Args)]
pub(crate) struct DhtFlags {
    /// UDP address to ask from. Repeatable [default: a free port]
    #[arg(
        long,
        env = "TRACKLESS_LISTEN",
        value_name = "IP:PORT",
        value_delimiter = ','
    )]
    pub(crate) listen: Vec<SocketAddr>,
    /// DHT node to start from, instead of the built-in public routers. Repeatable
    #[arg(
        long,
        env = "TRACKLESS_BOOTSTRAP",
        value_name = "HOST:PORT",
        value_delimiter = ','
    )]
    pub(crate) bootstrap: Vec<String>,
    /// Start also from the contacts that a node kept here; nothing is written
    #[arg(long, env = "TRACKLESS_STATE_DIR", value_name = "DIR")]
    pub(crate) state_dir: Option<PathBuf>,
    /// Give up after so long (exit code 3): 90s, 15m
    #[arg(long, env = "TRACKLESS_TIMEOUT", value_name = "DURATION",
          value_parser = units::duration, default_value = "30s")]
    pub(crate) timeout: Duration,
}

/// `trackless create`.
#[derive(Debug, Args)]
pub(crate) struct CreateArgs {
    /// File or folder
    #[arg(value_name = "PATH")]
    pub(crate) path: PathBuf,
    /// Where to write it [default: NAME.torrent in the current folder]
    #[arg(short, long, env = "TRACKLESS_OUTPUT", value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    /// Bytes in a piece, 16KiB to 64MiB [default: chosen by size]
    #[arg(long, env = "TRACKLESS_PIECE_LENGTH", value_name = "SIZE", value_parser = units::size)]
    pub(crate) piece_length: Option<u64>,
    /// Tracker URL; each flag is a tier, commas separate trackers of one tier
    #[arg(long, env = "TRACKLESS_TRACKER", value_name = "URL")]
    pub(crate) tracker: Vec<String>,
    /// Web seed URL (BEP 19). Repeatable
    #[arg(
        long,
        env = "TRACKLESS_WEB_SEED",
        value_name = "URL",
        value_delimiter = ','
    )]
    pub(crate) web_seed: Vec<String>,
    /// DHT node named in the file (BEP 5). Repeatable
    #[arg(long, env = "TRACKLESS_NODE", value_name = "HOST:PORT", value_delimiter = ',',
          value_parser = units::host_and_port)]
    pub(crate) node: Vec<(String, u16)>,
    /// Peers only from the trackers named (BEP 27)
    #[arg(long, env = "TRACKLESS_PRIVATE",
          value_parser = BoolishValueParser::new(), action = ArgAction::SetTrue)]
    pub(crate) private: bool,
    /// Free text
    #[arg(long, env = "TRACKLESS_COMMENT", value_name = "TEXT")]
    pub(crate) comment: Option<String>,
    /// Text inside the info dictionary, which gives the torrent an info hash of its own
    #[arg(long, env = "TRACKLESS_SOURCE", value_name = "TEXT")]
    pub(crate) source: Option<String>,
    /// Leave the creation date out
    #[arg(long, env = "TRACKLESS_NO_DATE",
          value_parser = BoolishValueParser::new(), action = ArgAction::SetTrue)]
    pub(crate) no_date: bool,
    /// Replace an existing file
    #[arg(long, env = "TRACKLESS_FORCE",
          value_parser = BoolishValueParser::new(), action = ArgAction::SetTrue)]
    pub(crate) force: bool,
}

/// `trackless show`.
#[derive(Debug, Args)]
pub(crate) struct ShowArgs {
    /// Magnet link, info hash, or path of a .torrent file
    #[arg(value_name = "SOURCE")]
    pub(crate) source: String,
}

/// `trackless demo`.
#[derive(Debug, Args)]
pub(crate) struct DemoArgs {
    /// DHT nodes to start
    #[arg(long, env = "TRACKLESS_NODES", value_name = "N", default_value_t = 8,
          value_parser = clap::value_parser!(u16).range(1..=64))]
    pub(crate) nodes: u16,
    /// Bytes to move
    #[arg(long, env = "TRACKLESS_SIZE", value_name = "SIZE",
          value_parser = units::size, default_value = "64MiB")]
    pub(crate) size: u64,
}

/// Reads an info hash, bare or in a magnet link.
fn info_hash(text: &str) -> Result<InfoHash, String> {
    crate::metainfo::Magnet::parse(text)
        .map(|magnet| magnet.info_hash)
        .map_err(|error| error.to_string())
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
    fn every_long_flag_can_be_set_in_the_environment() {
        fn check(command: &clap::Command) {
            for argument in command.get_arguments() {
                let Some(long) = argument.get_long() else {
                    continue;
                };
                if ["help", "version"].contains(&long) {
                    continue;
                }
                let expected = format!("TRACKLESS_{}", long.replace('-', "_").to_uppercase());
                let found = argument.get_env().and_then(|name| name.to_str());
                assert_eq!(
                    found,
                    Some(expected.as_str()),
                    "{} --{long}",
                    command.get_name()
                );
            }
            command.get_subcommands().for_each(check);
        }
        check(&Arguments::command());
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
        assert_eq!(get.node.listen.len(), 2);
        assert_eq!(get.node.bootstrap, ["a:1", "b:2"]);
        assert_eq!(get.timeout, Some(Duration::from_secs(120)));
    }

    #[test]
    fn bad_values_are_refused() {
        for line in [
            "trackless get",
            "trackless get x --timeout soon",
            "trackless get x --listen nowhere",
            "trackless dht announce 0123456789abcdef0123456789abcdef01234567 --port 0",
            "trackless dht find-node 0123",
            "trackless create x --piece-length big",
            "trackless",
        ] {
            assert!(parse(line).is_err(), "{line}");
        }
    }
}
