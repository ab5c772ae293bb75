//! The arguments of a query: found in one pass, then checked for the method.

use super::message::{as_id, is_true, keep_first};
use super::stored::{Put, SALT_MAX, SignedPut, VALUE_MAX};
use super::{ErrorCode, Method, Want};
use crate::bencode::{Dictionary, Value};
use crate::id::InfoHash;

/// Why a query is refused: the error that answers it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Refusal {
    pub(super) code: ErrorCode,
    pub(super) text: &'static str,
}

impl Refusal {
    /// Error 203: an argument breaks the rules of its BEP.
    pub(super) const fn protocol(text: &'static str) -> Self {
        Self {
            code: ErrorCode::Protocol,
            text,
        }
    }
}

/// The arguments of a query, not yet checked. A key that comes twice counts once, the first time.
#[derive(Default)]
pub(super) struct Arguments<'a> {
    pub(super) id: Option<Value<'a>>,
    pub(super) want: Want,
    target: Option<Value<'a>>,
    info_hash: Option<Value<'a>>,
    port: Option<Value<'a>>,
    implied_port: Option<Value<'a>>,
    token: Option<Value<'a>>,
    seed: bool,
    /// BEP 44.
    item: ItemArguments<'a>,
}

/// The arguments of `get` and `put`.
#[derive(Default)]
struct ItemArguments<'a> {
    /// The value, and its bytes as received.
    value: Option<(Value<'a>, &'a [u8])>,
    key: Option<Value<'a>>,
    salt: Option<Value<'a>>,
    seq: Option<Value<'a>>,
    signature: Option<Value<'a>>,
    cas: Option<Value<'a>>,
}

impl<'a> Arguments<'a> {
    pub(super) fn collect(arguments: Dictionary<'a>) -> Self {
        let mut found = Self::default();
        for (key, value) in arguments.iter() {
            match key {
                b"id" => keep_first(&mut found.id, Some(value)),
                b"target" => keep_first(&mut found.target, Some(value)),
                b"info_hash" => keep_first(&mut found.info_hash, Some(value)),
                b"port" => keep_first(&mut found.port, Some(value)),
                b"implied_port" => keep_first(&mut found.implied_port, Some(value)),
                b"token" => keep_first(&mut found.token, Some(value)),
                b"want" => found.want.read_families(value),
                b"scrape" => found.want.scrape |= value.as_integer() == Some(1),
                b"noseed" => found.want.no_seeds |= value.as_integer() == Some(1),
                // BEP 33: anything but 1 is no seed.
                b"seed" => found.seed |= value.as_integer() == Some(1),
                b"v" => {
                    let raw = arguments.get_raw(b"v");
                    keep_first(&mut found.item.value, raw.map(|raw| (value, raw)));
                }
                b"k" => keep_first(&mut found.item.key, Some(value)),
                b"salt" => keep_first(&mut found.item.salt, Some(value)),
                b"seq" => keep_first(&mut found.item.seq, Some(value)),
                b"sig" => keep_first(&mut found.item.signature, Some(value)),
                b"cas" => keep_first(&mut found.item.cas, Some(value)),
                _ => {}
            }
        }
        found
    }

    pub(super) fn method(&self, name: &'a [u8]) -> Result<Method<'a>, Refusal> {
        let target = self.target.and_then(as_id);
        let needed = || target.ok_or(Refusal::protocol("invalid or missing target"));
        match name {
            b"ping" => Ok(Method::Ping),
            b"find_node" => Ok(Method::FindNode { target: needed()? }),
            b"get_peers" => Ok(Method::GetPeers {
                info_hash: self.info_hash()?,
            }),
            b"announce_peer" => self.announce(),
            b"get" => Ok(Method::Get {
                target: needed()?,
                seq: integer(self.item.seq, "invalid seq")?,
            }),
            b"put" => self.put(),
            b"sample_infohashes" => Ok(Method::SampleInfohashes { target: needed()? }),
            _ => Ok(Method::Unknown {
                name,
                target: self.target.or(self.info_hash).and_then(as_id),
            }),
        }
    }

    fn info_hash(&self) -> Result<InfoHash, Refusal> {
        self.info_hash
            .and_then(|value| InfoHash::from_slice(value.as_bytes()?))
            .ok_or(Refusal::protocol("invalid or missing info_hash"))
    }

    fn token(&self) -> Result<&'a [u8], Refusal> {
        self.token
            .and_then(|value| value.as_bytes())
            .ok_or(Refusal::protocol("invalid or missing token"))
    }

    fn announce(&self) -> Result<Method<'a>, Refusal> {
        // BEP 5 names 0 and 1; every other number than 0 is meant as "yes" by those who send it.
        let implied_port = match self.implied_port {
            Some(value) if value.as_integer().is_none() => {
                return Err(Refusal::protocol("invalid implied_port"));
            }
            Some(value) => is_true(value),
            None => false,
        };
        let port = self
            .port
            .and_then(|value| u16::try_from(value.as_integer()?).ok());
        let port = match port {
            Some(port) if port != 0 || implied_port => port,
            None if implied_port => 0,
            Some(_) | None => return Err(Refusal::protocol("invalid or missing port")),
        };
        Ok(Method::AnnouncePeer {
            info_hash: self.info_hash()?,
            port,
            implied_port,
            seed: self.seed,
            token: self.token()?,
        })
    }

    /// BEP 44. What has a signature but no key, or a key but not all that belongs to it, was meant
    /// to be mutable: as an immutable item it would be stored under a name it does not have.
    fn put(&self) -> Result<Method<'a>, Refusal> {
        let Some((value, raw)) = self.item.value else {
            return Err(Refusal::protocol("missing v"));
        };
        if raw.len() > VALUE_MAX {
            return Err(Refusal {
                code: ErrorCode::ValueTooBig,
                text: "v is too big",
            });
        }
        if !value.is_canonical() {
            return Err(Refusal::protocol("v is not canonical bencode"));
        }
        let signed = match self.item.key {
            Some(key) => Some(self.item.signed(key)?),
            None if self.item.signature.is_some() => {
                return Err(Refusal::protocol("sig without k"));
            }
            None => None,
        };
        Ok(Method::Put(Put {
            target: self.target.and_then(as_id),
            token: self.token()?,
            value: raw,
            signed,
        }))
    }
}

impl<'a> ItemArguments<'a> {
    /// What a `put` with a key has to have.
    fn signed(&self, key: Value<'a>) -> Result<SignedPut<'a>, Refusal> {
        let salt = match self.salt {
            None => &[],
            Some(salt) => salt
                .as_bytes()
                .ok_or(Refusal::protocol("salt is not a string"))?,
        };
        if salt.len() > SALT_MAX {
            return Err(Refusal {
                code: ErrorCode::SaltTooBig,
                text: "salt is too big",
            });
        }
        let signature = self.signature.and_then(|value| value.as_bytes());
        Ok(SignedPut {
            key: key
                .as_bytes()
                .and_then(|key| key.try_into().ok())
                .ok_or(Refusal::protocol("invalid k"))?,
            salt,
            seq: integer(self.seq, "invalid seq")?
                .filter(|seq| *seq >= 0)
                .ok_or(Refusal::protocol("missing or negative seq"))?,
            signature: signature
                .and_then(|signature| signature.try_into().ok())
                .ok_or(Refusal::protocol("invalid or missing sig"))?,
            cas: integer(self.cas, "invalid cas")?,
        })
    }
}

/// An argument that is an integer if it is there.
fn integer(value: Option<Value<'_>>, text: &'static str) -> Result<Option<i64>, Refusal> {
    match value.map(|value| value.as_integer()) {
        None => Ok(None),
        Some(Some(number)) => Ok(Some(number)),
        Some(None) => Err(Refusal::protocol(text)),
    }
}
