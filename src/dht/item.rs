//! Items: values that nodes store for others, immutable ones under their hash, mutable ones under
//! the key that signs them (BEP 44).
//!
//! Invariant: an [`Item`] that exists is within the limits of the BEP, its value is canonical
//! bencode, and its signature, if it is mutable, is right.

use ed25519_dalek::hazmat::{ExpandedSecretKey, raw_sign};
use ed25519_dalek::{Signature, VerifyingKey};
use sha1::{Digest, Sha1};
use sha2::Sha512;

use crate::bencode::{Limits, Writer, read};
use crate::id::NodeId;
use crate::krpc::{ItemView, KEY_LENGTH, Put, SALT_MAX, SIGNATURE_LENGTH, SignedPut, VALUE_MAX};

/// An item that may be stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    value: Box<[u8]>,
    signed: Option<Box<Signed>>,
}

/// What makes an item mutable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signed {
    /// The public key.
    pub key: [u8; KEY_LENGTH],
    /// What tells several items of one key apart.
    pub salt: Box<[u8]>,
    /// The number of this version.
    pub seq: i64,
    /// Over salt, number and value.
    pub signature: [u8; SIGNATURE_LENGTH],
}

/// Why something is no item.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ItemError {
    /// The value is longer than [`VALUE_MAX`] bytes.
    #[error("the value has {length} bytes, at most {VALUE_MAX} can be stored")]
    ValueLength {
        /// Bytes found.
        length: usize,
    },
    /// The value is not bencode in its one form.
    #[error("the value is not canonical bencode")]
    NotCanonical,
    /// The salt is longer than [`SALT_MAX`] bytes.
    #[error("the salt has {length} bytes, at most {SALT_MAX} are allowed")]
    SaltLength {
        /// Bytes found.
        length: usize,
    },
    /// The number is negative.
    #[error("the sequence number is negative")]
    NegativeSeq,
    /// The signature is not one of this key over this salt, number and value.
    #[error("the signature is wrong")]
    Signature,
}

/// A key that signs mutable items. It never leaves the program that holds it.
pub struct SecretKey {
    expanded: ExpandedSecretKey,
    public: VerifyingKey,
}

impl SecretKey {
    /// The key that follows from 32 random bytes, as most programs keep it.
    #[must_use]
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        Self::new(ExpandedSecretKey::from(seed))
    }

    /// The key in the expanded form that BEP 44's examples and libtorrent have.
    #[must_use]
    pub fn from_expanded(bytes: &[u8; 64]) -> Self {
        Self::new(ExpandedSecretKey::from_bytes(bytes))
    }

    fn new(expanded: ExpandedSecretKey) -> Self {
        let public = VerifyingKey::from(&expanded);
        Self { expanded, public }
    }

    /// The public key, under which others find what this one signs.
    #[must_use]
    pub fn public(&self) -> [u8; KEY_LENGTH] {
        self.public.to_bytes()
    }

    fn sign(&self, salt: &[u8], seq: i64, value: &[u8]) -> [u8; SIGNATURE_LENGTH] {
        let bytes = signed_bytes(salt, seq, value);
        raw_sign::<Sha512>(&self.expanded, &bytes, &self.public).to_bytes()
    }
}

impl std::fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SecretKey(..)")
    }
}

/// The target under which an immutable value is stored.
#[must_use]
pub fn immutable_target(value: &[u8]) -> NodeId {
    NodeId::new(Sha1::digest(value).into())
}

/// The target under which the items of a key with this salt are stored; no salt is an empty one.
#[must_use]
pub fn mutable_target(key: &[u8; KEY_LENGTH], salt: &[u8]) -> NodeId {
    let mut hash = Sha1::new();
    hash.update(key);
    hash.update(salt);
    NodeId::new(hash.finalize().into())
}

/// What a signature is over.
fn signed_bytes(salt: &[u8], seq: i64, value: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(salt.len() + value.len() + 48);
    let mut writer = Writer::new(&mut out);
    if !salt.is_empty() {
        writer.key("salt").bytes(salt);
    }
    writer.key("seq").integer(seq).key("v").raw(value);
    out
}

/// Whether a signature is right. Keys and signatures of small order, which are right for anything,
/// are not.
fn is_signed(
    key: &[u8; KEY_LENGTH],
    salt: &[u8],
    seq: i64,
    value: &[u8],
    signature: &[u8; SIGNATURE_LENGTH],
) -> bool {
    let Ok(key) = VerifyingKey::from_bytes(key) else {
        return false;
    };
    let signature = Signature::from_bytes(signature);
    key.verify_strict(&signed_bytes(salt, seq, value), &signature)
        .is_ok()
}

/// Checks what can be wrong with a value from the caller.
fn check_value(value: &[u8]) -> Result<(), ItemError> {
    if value.len() > VALUE_MAX {
        return Err(ItemError::ValueLength {
            length: value.len(),
        });
    }
    match read(value, &Limits::KRPC) {
        Ok(read) if read.is_canonical() => Ok(()),
        Ok(_) | Err(_) => Err(ItemError::NotCanonical),
    }
}

fn check_version(salt: &[u8], seq: i64) -> Result<(), ItemError> {
    if salt.len() > SALT_MAX {
        return Err(ItemError::SaltLength { length: salt.len() });
    }
    if seq < 0 {
        return Err(ItemError::NegativeSeq);
    }
    Ok(())
}

impl Item {
    /// An immutable item. `value` is bencode.
    ///
    /// # Errors
    ///
    /// The value is too long or not canonical.
    pub fn immutable(value: &[u8]) -> Result<Self, ItemError> {
        check_value(value)?;
        Ok(Self {
            value: value.into(),
            signed: None,
        })
    }

    /// A version of a mutable item, signed here. `value` is bencode.
    ///
    /// # Errors
    ///
    /// Value or salt are too long, the value is not canonical, or the number is negative.
    pub fn mutable(
        key: &SecretKey,
        salt: &[u8],
        seq: i64,
        value: &[u8],
    ) -> Result<Self, ItemError> {
        check_value(value)?;
        check_version(salt, seq)?;
        Ok(Self {
            signed: Some(Box::new(Signed {
                key: key.public(),
                salt: salt.into(),
                seq,
                signature: key.sign(salt, seq, value),
            })),
            value: value.into(),
        })
    }

    /// A version of a mutable item that somebody else signed. `value` is bencode.
    ///
    /// # Errors
    ///
    /// Those of [`Item::mutable`], or the signature is wrong.
    pub fn signed(signed: Signed, value: &[u8]) -> Result<Self, ItemError> {
        check_value(value)?;
        check_version(&signed.salt, signed.seq)?;
        if !is_signed(
            &signed.key,
            &signed.salt,
            signed.seq,
            value,
            &signed.signature,
        ) {
            return Err(ItemError::Signature);
        }
        Ok(Self {
            value: value.into(),
            signed: Some(Box::new(signed)),
        })
    }

    /// What an answer to a `get` of `target` holds, if that is the item: its hash or its key and
    /// signature are right.
    pub(super) fn from_answer(target: &NodeId, salt: &[u8], view: &ItemView<'_>) -> Option<Self> {
        let value = view.value?;
        let Some(key) = view.key else {
            let is_it = immutable_target(value) == *target;
            return is_it.then(|| Self::immutable(value).ok()).flatten();
        };
        if mutable_target(key, salt) != *target {
            return None;
        }
        let signed = Signed {
            key: *key,
            salt: salt.into(),
            seq: view.seq?,
            signature: *view.signature?,
        };
        Self::signed(signed, value).ok()
    }

    /// What a query wants to have stored; its lengths were checked when it was read.
    ///
    /// # Errors
    ///
    /// The signature is wrong.
    pub(super) fn from_put(put: &Put<'_>) -> Result<Self, ItemError> {
        let signed = match &put.signed {
            None => None,
            Some(SignedPut {
                key,
                salt,
                seq,
                signature,
                cas: _,
            }) => {
                if !is_signed(key, salt, *seq, put.value, signature) {
                    return Err(ItemError::Signature);
                }
                Some(Box::new(Signed {
                    key: **key,
                    salt: (*salt).into(),
                    seq: *seq,
                    signature: **signature,
                }))
            }
        };
        Ok(Self {
            value: put.value.into(),
            signed,
        })
    }

    /// Where it is stored.
    #[must_use]
    pub fn target(&self) -> NodeId {
        match &self.signed {
            None => immutable_target(&self.value),
            Some(signed) => mutable_target(&signed.key, &signed.salt),
        }
    }

    /// Its value, bencoded.
    #[must_use]
    pub fn value(&self) -> &[u8] {
        &self.value
    }

    /// Key, salt, number and signature of a mutable item; `None` for an immutable one.
    #[must_use]
    pub fn version(&self) -> Option<&Signed> {
        self.signed.as_deref()
    }

    /// Its number; `None` for an immutable item.
    #[must_use]
    pub fn seq(&self) -> Option<i64> {
        self.signed.as_ref().map(|signed| signed.seq)
    }

    /// As an answer tells it.
    pub(super) fn view(&self) -> ItemView<'_> {
        let signed = self.signed.as_deref();
        ItemView {
            value: Some(&self.value),
            key: signed.map(|signed| &signed.key),
            seq: self.seq(),
            signature: signed.map(|signed| &signed.signature),
        }
    }

    /// As a query stores it.
    #[must_use]
    pub fn put<'a>(&'a self, token: &'a [u8], cas: Option<i64>) -> Put<'a> {
        Put {
            target: Some(self.target()),
            token,
            value: &self.value,
            signed: self.signed.as_deref().map(|signed| SignedPut {
                key: &signed.key,
                salt: &signed.salt,
                seq: signed.seq,
                signature: &signed.signature,
                cas,
            }),
        }
    }

    /// Bytes on the heap.
    pub(super) fn memory_bytes(&self) -> usize {
        let signed = self.signed.as_deref();
        self.value.len() + signed.map_or(0, |signed| size_of::<Signed>() + signed.salt.len())
    }
}

#[cfg(test)]
mod tests;
