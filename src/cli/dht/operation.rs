//! The operations: what is typed becomes what the DHT is asked.

use std::net::SocketAddr;

use super::key::load_or_make;
use super::value;
use crate::cli::args::{DhtCommand, PutArgs};
use crate::cli::print::{Exit, Failure, escape};
use crate::dht::item::{immutable_target, mutable_target};
use crate::dht::{Config, Item, PeerKind, PeerPort, PutOptions, SecretKey};
use crate::id::{ID_LENGTH, InfoHash, NodeId};
use crate::metainfo::mutable_link::{MutableLink, named_torrent, naming};
use crate::net::clock::entropy;
use crate::net::dht::{DhtHandle, Lookup};

/// One operation in the DHT.
#[derive(Debug)]
pub(super) enum Operation {
    /// Asks one node whether it is there.
    Ping(SocketAddr),
    /// Finds the nodes closest to an id.
    FindNode(NodeId),
    /// Finds the peers of a torrent.
    GetPeers(InfoHash),
    /// Announces a peer of a torrent.
    Announce(InfoHash, u16, PeerKind),
    /// Counts the peers of a torrent.
    Scrape(InfoHash),
    /// Asks nodes on the way to an id which torrents they know.
    Sample(NodeId),
    /// Fetches an item.
    Get(Sought),
    /// Stores an item.
    Put(Box<Put>),
}

/// The item that is looked for.
#[derive(Debug)]
pub(super) struct Sought {
    pub(super) target: NodeId,
    /// Its public key; `None` when only the target is known.
    pub(super) key: Option<[u8; 32]>,
    pub(super) salt: String,
}

/// The item that is stored.
#[derive(Debug)]
pub(super) struct Put {
    /// Bencoded.
    pub(super) value: Vec<u8>,
    /// `None` for an immutable item.
    pub(super) signing: Option<Signing>,
    /// What is stored is to be replaced by nothing.
    pub(super) is_withdrawal: bool,
}

/// What a mutable item is signed with.
#[derive(Debug)]
pub(super) struct Signing {
    key: SecretKey,
    pub(super) salt: String,
    /// The number the user wants it to have.
    seq: Option<i64>,
    /// The version it replaces.
    pub(super) cas: Option<i64>,
}

impl Signing {
    /// What one signs with.
    pub(super) fn new(key: SecretKey, salt: &str, seq: Option<i64>, cas: Option<i64>) -> Self {
        let salt = salt.to_owned();
        Self {
            key,
            salt,
            seq,
            cas,
        }
    }

    /// The public key.
    pub(super) fn public(&self) -> [u8; 32] {
        self.key.public()
    }
}

/// The address of a host: an IPv4 address if it has one, as most nodes have.
async fn address_of((host, port): &(String, u16)) -> Result<SocketAddr, Failure> {
    let hint = "is the name right, and does this machine have a name server?";
    let found = tokio::net::lookup_host((host.as_str(), *port)).await;
    let found: Vec<SocketAddr> = found
        .map_err(|error| {
            let what = format!("cannot find the address of {}", escape(host));
            Failure::because(what, &error).hint(hint)
        })?
        .collect();
    let ipv4 = found.iter().find(|address| address.is_ipv4());
    let unknown = || Failure::new(format!("{} has no address", escape(host))).hint(hint);
    ipv4.or(found.first()).copied().ok_or_else(unknown)
}

impl Operation {
    /// What a command means. Reads the value and the key that it names, and finds the address of a host.
    ///
    /// # Errors
    ///
    /// The flags make no sense together, or value, key or address cannot be had.
    pub(super) async fn of(command: DhtCommand) -> Result<Self, Failure> {
        Ok(match command {
            DhtCommand::Ping { node, .. } => Self::Ping(address_of(&node).await?),
            DhtCommand::FindNode { target, .. } => Self::FindNode(target),
            DhtCommand::GetPeers { info_hash, .. } => Self::GetPeers(info_hash),
            DhtCommand::Announce {
                info_hash,
                port,
                as_seed,
                ..
            } => {
                let kind = if as_seed {
                    PeerKind::Seed
                } else {
                    PeerKind::Peer
                };
                Self::Announce(info_hash, port, kind)
            }
            DhtCommand::Scrape { info_hash, .. } => Self::Scrape(info_hash),
            DhtCommand::Sample { target, .. } => Self::Sample(target.unwrap_or_else(random_id)),
            DhtCommand::Get {
                target, key, salt, ..
            } => Self::Get(Sought::new(target, key, salt.unwrap_or_default())?),
            DhtCommand::Put(args) => Self::Put(Box::new(Put::of(*args)?)),
        })
    }

    /// What to do when nobody answers.
    pub(super) const fn hint_on_silence(&self) -> &'static str {
        match self {
            Self::Ping(_) => "is a DHT node listening there, and is UDP let through?",
            _ => "is the bootstrap node up, and is UDP let through? try `trackless dht ping` on it",
        }
    }

    /// Starts the lookup. `newest` is the version of a mutable item that is stored now.
    ///
    /// # Errors
    ///
    /// The item that is to be stored is none.
    pub(super) async fn start(
        &self,
        node: &DhtHandle,
        newest: Option<&Item>,
    ) -> Result<Lookup, Failure> {
        Ok(match self {
            Self::Ping(address) => node.ping(*address).await,
            Self::FindNode(target) => node.find_node(*target).await,
            Self::GetPeers(info_hash) => node.find_peers(*info_hash).await,
            Self::Announce(info_hash, port, kind) => {
                let port = PeerPort::Explicit(*port);
                node.announce_as(*info_hash, port, *kind).await
            }
            Self::Scrape(info_hash) => node.scrape(*info_hash).await,
            Self::Sample(target) => node.sample_infohashes(*target).await,
            Self::Get(sought) => node.get_item(sought.target, sought.salt.as_bytes()).await,
            Self::Put(put) => {
                let options = PutOptions {
                    cas: put.signing.as_ref().and_then(|signing| signing.cas),
                    keep: false,
                };
                node.put_item(put.item(newest)?, options).await
            }
        })
    }
}

/// An id nobody chose.
fn random_id() -> NodeId {
    let mut id = [0; ID_LENGTH];
    id.copy_from_slice(&entropy()[..ID_LENGTH]);
    NodeId::new(id)
}

impl Sought {
    fn new(target: Option<NodeId>, key: Option<[u8; 32]>, salt: String) -> Result<Self, Failure> {
        let target = match (target, key) {
            // A typed target counts more than a key from a lower layer; clap refuses two typed ones.
            (Some(target), _) => target,
            (None, Some(key)) => mutable_target(&key, salt.as_bytes()),
            (None, None) => {
                return Err(Failure::new("there is nothing to look for")
                    .hint("give the target that `put` printed, or a public key with --key HEX")
                    .exit(Exit::Usage));
            }
        };
        Ok(Self { target, key, salt })
    }
}

impl Put {
    /// What `put` means. The value is looked at first: no key is made for one that cannot be stored.
    fn of(args: PutArgs) -> Result<Self, Failure> {
        let PutArgs {
            value,
            info_hash,
            key_file,
            salt,
            seq,
            cas,
            withdraw,
            keep,
            every,
            flags: _,
        } = args;
        if keep && every >= Config::default().item_lifetime {
            return Err(
                Failure::new("with such an --every it would be gone between two puts")
                    .hint("nodes forget what was not put for two hours; 1h is usual")
                    .exit(Exit::Usage),
            );
        }
        let is_withdrawal = withdraw && value.is_none();
        let is_for_signed = salt.is_some() || seq.is_some() || cas.is_some();
        let names_torrent = info_hash.is_some() && value.is_none();
        if key_file.is_none() && (is_for_signed || is_withdrawal || names_torrent) {
            return Err(Failure::new(
                "--salt, --seq, --cas, --withdraw and --info-hash are for values that are signed",
            )
            .hint("name a file for the private key with --key-file FILE")
            .exit(Exit::Usage));
        }
        if is_withdrawal && names_torrent {
            return Err(
                Failure::new("--withdraw and --info-hash exclude each other")
                    .hint("name another torrent, or none")
                    .exit(Exit::Usage),
            );
        }
        let value = match (value, info_hash) {
            // A typed value counts more than an info hash from a lower layer.
            (Some(text), _) => value::typed(&text)?,
            (None, _) if is_withdrawal => value::NOTHING.to_vec(),
            (None, Some(info_hash)) => naming(&info_hash),
            (None, None) => {
                return Err(Failure::new("there is nothing to store")
                    .hint("give a text, @FILE, - for standard input, or --info-hash HASH")
                    .exit(Exit::Usage));
            }
        };
        let signing = match key_file {
            None => None,
            Some(path) => {
                if is_withdrawal && !path.exists() {
                    return Err(
                        Failure::new(format!("there is no key in {}", path.display()))
                            .hint("withdrawing needs the key that the item was put with")
                            .exit(Exit::Usage),
                    );
                }
                let key = load_or_make(&path)?;
                Some(Signing::new(key, &salt.unwrap_or_default(), seq, cas))
            }
        };
        Ok(Self {
            value,
            signing,
            is_withdrawal,
        })
    }

    /// From now on it is put under the number that it has got, and whatever is stored. Counting on
    /// would replace what another holder of the key has put meanwhile.
    pub(super) fn settle(&mut self, seq: Option<i64>) {
        if let Some(signing) = &mut self.signing {
            signing.seq = seq;
            signing.cas = None;
        }
    }

    /// The magnet link that follows what is stored, if it names a torrent (BEP 46).
    pub(super) fn magnet(&self) -> Option<MutableLink> {
        let signing = self.signing.as_ref()?;
        named_torrent(&self.value)?;
        let salt = signing.salt.as_bytes().to_vec();
        Some(MutableLink::new(signing.public(), salt))
    }

    /// Where it is stored.
    pub(super) fn target(&self) -> NodeId {
        match &self.signing {
            None => immutable_target(&self.value),
            Some(signing) => mutable_target(&signing.public(), signing.salt.as_bytes()),
        }
    }

    /// Whether the version that is stored now must be known first, to count on from it.
    pub(super) fn counts_on(&self) -> bool {
        let signing = self.signing.as_ref();
        signing.is_some_and(|signing| signing.seq.is_none())
    }

    /// The number of the new version: the next one, or the same if only the life of the value is
    /// prolonged. `None` for an immutable item, and after the last number there is.
    pub(super) fn seq(&self, newest: Option<&Item>) -> Option<i64> {
        let signing = self.signing.as_ref()?;
        if signing.seq.is_some() {
            return signing.seq;
        }
        match newest {
            Some(item) if item.value() == self.value => item.seq(),
            Some(item) => item.seq()?.checked_add(1),
            None => Some(1),
        }
    }

    /// The item, signed.
    fn item(&self, newest: Option<&Item>) -> Result<Item, Failure> {
        let made = match &self.signing {
            None => Item::immutable(&self.value),
            Some(signing) => {
                let seq = self.seq(newest).ok_or_else(|| {
                    Failure::new("the stored version has the last number there is")
                        .hint("no newer one is possible under this key and salt; use another salt")
                })?;
                Item::mutable(&signing.key, signing.salt.as_bytes(), seq, &self.value)
            }
        };
        made.map_err(|error| {
            Failure::because("the value cannot be stored", &error).exit(Exit::Usage)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(seq: Option<i64>) -> Put {
        Put {
            value: b"1:b".to_vec(),
            signing: Some(Signing::new(SecretKey::from_seed(&[7; 32]), "s", seq, None)),
            is_withdrawal: false,
        }
    }

    fn stored(seq: i64, value: &[u8]) -> Item {
        Item::mutable(&SecretKey::from_seed(&[7; 32]), b"s", seq, value).unwrap()
    }

    #[test]
    fn versions_count_on_from_the_newest_unless_the_user_counts() {
        assert_eq!(put(None).seq(None), Some(1));
        assert_eq!(put(None).seq(Some(&stored(4, b"1:a"))), Some(5));
        assert_eq!(put(None).seq(Some(&stored(4, b"1:b"))), Some(4), "the same");
        assert_eq!(put(Some(2)).seq(Some(&stored(4, b"1:a"))), Some(2));
        assert!(put(None).counts_on() && !put(Some(2)).counts_on());
        let last = stored(i64::MAX, b"1:a");
        assert_eq!(put(None).item(Some(&last)).unwrap_err().exit, Exit::Failed);
    }

    #[test]
    fn what_is_put_again_keeps_its_number_and_compares_nothing() {
        let mut put = put(None);
        put.signing.as_mut().unwrap().cas = Some(3);
        put.settle(Some(4));
        assert_eq!(put.seq(Some(&stored(9, b"1:a"))), Some(4));
        assert_eq!(put.signing.unwrap().cas, None);
    }

    #[test]
    fn an_item_is_found_where_it_was_put() {
        let item = put(None).item(None).unwrap();
        assert_eq!(item.target(), put(None).target());
        let key = put(None).signing.map(|signing| signing.public());
        let sought = Sought::new(None, key, "s".to_owned()).unwrap();
        assert_eq!(sought.target, item.target());
        let nothing = Sought::new(None, None, String::new()).unwrap_err();
        assert_eq!(nothing.exit, Exit::Usage);
    }
}
