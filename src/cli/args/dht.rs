//! What a user may type after `trackless dht`.

use std::path::PathBuf;
use std::time::Duration;

use clap::builder::ValueHint;
use clap::{Args, Subcommand};

use super::WayIn;
use crate::cli::dht::key;
use crate::cli::{show, units};
use crate::id::{InfoHash, NodeId};

/// `trackless dht …`.
#[derive(Debug, Subcommand)]
pub(crate) enum DhtCommand {
    /// Ask one node whether it is there
    Ping {
        /// Its address; of a name that has several, an IPv4 address if there is one
        #[arg(value_name = "HOST:PORT", value_parser = units::host_and_port)]
        node: (String, u16),
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
        /// Info hash (40 hexadecimal or 32 base-32 digits) or magnet link
        #[arg(value_name = "HASH", value_parser = show::info_hash)]
        info_hash: InfoHash,
        /// Flags of the operation.
        #[command(flatten)]
        flags: DhtFlags,
    },
    /// Announce a peer of a torrent at this machine's address
    Announce {
        /// Info hash (40 hexadecimal or 32 base-32 digits) or magnet link
        #[arg(value_name = "HASH", value_parser = show::info_hash)]
        info_hash: InfoHash,
        /// The TCP port at which that peer listens
        #[arg(long, value_name = "P", value_parser = clap::value_parser!(u16).range(1..))]
        port: u16,
        /// It has all of the torrent (BEP 33), and looks for peers that do not
        #[arg(long)]
        as_seed: bool,
        /// Flags of the operation.
        #[command(flatten)]
        flags: DhtFlags,
    },
    /// Count the seeds and peers of a torrent, without asking any of them (BEP 33)
    Scrape {
        /// Info hash (40 hexadecimal or 32 base-32 digits) or magnet link
        #[arg(value_name = "HASH", value_parser = show::info_hash)]
        info_hash: InfoHash,
        /// Flags of the operation.
        #[command(flatten)]
        flags: DhtFlags,
    },
    /// Ask nodes which torrents they know peers of (BEP 51)
    Sample {
        /// Nodes on the way to this id are asked, 40 hexadecimal digits [default: a random one]
        #[arg(value_name = "ID")]
        target: Option<NodeId>,
        /// Flags of the operation.
        #[command(flatten)]
        flags: DhtFlags,
    },
    /// Fetch what was put: by its target, or by the key that signed it (BEP 44)
    Get {
        /// Where it is stored, 40 hexadecimal digits, as `put` prints it
        #[arg(value_name = "TARGET", conflicts_with = "key")]
        target: Option<NodeId>,
        /// Public key of a mutable item, 64 hexadecimal digits
        #[arg(long, value_name = "HEX", value_parser = key::public)]
        key: Option<[u8; 32]>,
        /// What tells several items of one key apart, up to 64 bytes
        #[arg(long, value_name = "TEXT", value_parser = key::salt)]
        salt: Option<String>,
        /// Flags of the operation.
        #[command(flatten)]
        flags: DhtFlags,
    },
    /// Store a value in the DHT, where it stays for two hours (BEP 44)
    Put(Box<PutArgs>),
}

impl DhtCommand {
    /// After which time it is done again; `None` if it is done once.
    pub(crate) fn repeats_after(&self) -> Option<Duration> {
        match self {
            Self::Put(args) if args.keep => Some(args.every),
            _ => None,
        }
    }

    /// The flags that all operations have.
    pub(crate) fn flags(&self) -> &DhtFlags {
        match self {
            Self::Ping { flags, .. }
            | Self::FindNode { flags, .. }
            | Self::GetPeers { flags, .. }
            | Self::Announce { flags, .. }
            | Self::Scrape { flags, .. }
            | Self::Sample { flags, .. }
            | Self::Get { flags, .. } => flags,
            Self::Put(args) => &args.flags,
        }
    }
}

/// `trackless dht put`.
#[derive(Debug, Args)]
pub(crate) struct PutArgs {
    /// A text; or @FILE, or - for standard input, either with a bencoded value. At most 1,000
    /// bytes with bencoding
    #[arg(value_name = "VALUE", value_hint = ValueHint::FilePath,
          conflicts_with_all = ["info_hash", "withdraw"])]
    pub(crate) value: Option<String>,
    /// In place of a value: name a torrent, so that `get` finds it by the magnet link that is
    /// printed, now and after it was replaced (BEP 46). Needs --key-file
    #[arg(long, value_name = "HASH", value_parser = show::info_hash)]
    pub(crate) info_hash: Option<InfoHash>,
    /// Sign the value, so that it can be changed later: file with a private key, made if it is
    /// not there. A seed of 32 bytes or an expanded key of 64, hexadecimal or raw
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) key_file: Option<PathBuf>,
    /// What tells several items of one key apart, up to 64 bytes
    #[arg(long, value_name = "TEXT", value_parser = key::salt)]
    pub(crate) salt: Option<String>,
    /// Number of this version [default: one more than the newest that is stored]
    #[arg(long, value_name = "N", allow_negative_numbers = true,
          value_parser = clap::value_parser!(i64).range(0..))]
    pub(crate) seq: Option<i64>,
    /// Replace only this version
    #[arg(long, value_name = "N", allow_negative_numbers = true,
          value_parser = clap::value_parser!(i64).range(0..))]
    pub(crate) cas: Option<i64>,
    /// In place of a value: replace what is stored under the key by an empty text, so that nobody
    /// finds what it was any more. Needs --key-file; a value without a key is gone after two hours
    #[arg(long)]
    pub(crate) withdraw: bool,
    /// Put it again and again, until interrupted or until somebody puts a newer version
    #[arg(long)]
    pub(crate) keep: bool,
    /// Time between two puts with --keep. Nodes forget what was not put for two hours
    #[arg(long, value_name = "DURATION", value_parser = units::duration, default_value = "1h")]
    pub(crate) every: Duration,
    /// Flags of the operation.
    #[command(flatten)]
    pub(crate) flags: DhtFlags,
}

/// Flags of every DHT operation.
#[derive(Debug, Clone, Args)]
pub(crate) struct DhtFlags {
    /// Give up after so long (exit code 3): 90s, 15m
    #[arg(long, value_name = "DURATION", value_parser = units::duration, default_value = "30s")]
    pub(crate) timeout: Duration,
    /// Where to ask from, and whom first.
    #[command(flatten)]
    pub(crate) way_in: WayIn,
}
