//! Keys of mutable items as a user has them: public ones and salts on the command line, private
//! ones in files.
//!
//! Invariant: a private key is read and used, never printed; a file that exists is never written.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use data_encoding::{HEXLOWER, HEXLOWER_PERMISSIVE};

use crate::cli::print::{Exit, Failure, count, escape, note, number};
use crate::dht::SecretKey;
use crate::net::clock::entropy;

/// Bytes of a key file that are looked at; the longest form has 128 digits and a line break.
const FILE_MAX: u64 = 1024;

/// Bytes of a salt at most (BEP 44).
const SALT_MAX: usize = 64;

/// What a key file may hold.
const FORMS: &str = "a key file holds a seed of 32 bytes or an expanded key of 64, raw or as 64 or \
                     128 hexadecimal digits";

/// Reads a public key.
pub(in crate::cli) fn public(text: &str) -> Result<[u8; 32], String> {
    let digits = number(text.chars().count());
    let what = "a public key has 64 hexadecimal digits";
    if digits != 64 {
        return Err(format!("{what}, this has {}", count(digits, "character")));
    }
    let bytes = HEXLOWER_PERMISSIVE.decode(text.as_bytes());
    let bytes = bytes.map_err(|_| format!("{what}, this has another character"))?;
    bytes.try_into().map_err(|_| what.to_owned())
}

/// Reads a salt.
pub(in crate::cli) fn salt(text: &str) -> Result<String, String> {
    if text.len() > SALT_MAX {
        return Err(format!(
            "a salt has at most {SALT_MAX} bytes, this has {}",
            text.len()
        ));
    }
    Ok(text.to_owned())
}

/// Reads the private key in a file; if there is no file, makes a key and keeps it there.
///
/// # Errors
///
/// The file cannot be read or made, or holds no key.
pub(super) fn load_or_make(path: &Path) -> Result<SecretKey, Failure> {
    match File::open(path) {
        Ok(file) => load(path, file),
        Err(error) if error.kind() == ErrorKind::NotFound => make(path),
        Err(error) => Err(cannot("read", path, &error)),
    }
}

fn load(path: &Path, file: File) -> Result<SecretKey, Failure> {
    let mut bytes = Vec::new();
    let is_open_to_others = file
        .metadata()
        .is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o077 != 0);
    file.take(FILE_MAX)
        .read_to_end(&mut bytes)
        .map_err(|error| cannot("read", path, &error))?;
    let Some(key) = parse(&bytes) else {
        let message = format!("there is no private key in {}", path.display());
        return Err(Failure::new(message).hint(FORMS).exit(Exit::Usage));
    };
    if is_open_to_others {
        let path = path.display().to_string();
        note(&format!(
            "warning: other users can get at the key in {0}; `chmod 600 {0}` keeps them out",
            escape(&path)
        ));
    }
    Ok(key)
}

fn make(path: &Path) -> Result<SecretKey, Failure> {
    let seed = entropy();
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .map_err(|error| cannot("make", path, &error))?;
    let text = format!("{}\n", HEXLOWER.encode(&seed));
    let written = file
        .write_all(text.as_bytes())
        .and_then(|()| file.sync_all());
    if let Err(error) = written {
        // Half a key would stand in the way of the next attempt.
        let _ = std::fs::remove_file(path);
        return Err(cannot("write", path, &error));
    }
    let path = path.display().to_string();
    note(&format!(
        "a new key is in {}; whoever has it can change what it signs",
        escape(&path)
    ));
    Ok(SecretKey::from_seed(&seed))
}

fn cannot(what: &str, path: &Path, error: &std::io::Error) -> Failure {
    Failure::because(
        format!("cannot {what} the key file {}", path.display()),
        error,
    )
}

/// The key in a file's bytes.
fn parse(bytes: &[u8]) -> Option<SecretKey> {
    let text = bytes.trim_ascii();
    let decoded = HEXLOWER_PERMISSIVE.decode(text).ok();
    match decoded.as_deref() {
        Some(key) => of_bytes(key),
        None => of_bytes(bytes),
    }
}

fn of_bytes(bytes: &[u8]) -> Option<SecretKey> {
    if let Ok(seed) = bytes.try_into() {
        return Some(SecretKey::from_seed(seed));
    }
    let expanded: &[u8; 64] = bytes.try_into().ok()?;
    // Some programs keep the public key behind the seed. That is no expanded key, and taken for one
    // it would sign under another public key.
    let (seed, public) = expanded.split_first_chunk::<32>()?;
    let key = SecretKey::from_seed(seed);
    if key.public() == public {
        return Some(key);
    }
    Some(SecretKey::from_expanded(expanded))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The key pair of the examples in BEP 44.
    const EXPANDED: &str = "e06d3183d14159228433ed599221b80bd0a5ce8352e4bdf0262f76786ef1c74d\
                            b7e7a9fea2c0eb269d61e3b38e450a22e754941ac78479d6c54e1faf6037881d";
    const PUBLIC: &str = "77ff84905a91936367c01360803104f92432fcd904a43511876df5cdf3e7e548";

    fn public_of(bytes: &[u8]) -> Option<String> {
        parse(bytes).map(|key| HEXLOWER.encode(&key.public()))
    }

    #[test]
    fn seeds_and_expanded_keys_are_taken_raw_and_in_digits() {
        let expanded = HEXLOWER.decode(EXPANDED.as_bytes()).unwrap();
        assert_eq!(public_of(&expanded).as_deref(), Some(PUBLIC));
        assert_eq!(public_of(EXPANDED.as_bytes()).as_deref(), Some(PUBLIC));
        let text = format!("{}\r\n", EXPANDED.to_uppercase());
        assert_eq!(public_of(text.as_bytes()).as_deref(), Some(PUBLIC));

        let seed = [0xb0; 32];
        let public = SecretKey::from_seed(&seed).public();
        let expected = Some(HEXLOWER.encode(&public));
        assert_eq!(public_of(&seed), expected);
        assert_eq!(public_of("b0".repeat(32).as_bytes()), expected);
        assert_eq!(public_of(&[seed, public].concat()), expected, "both halves");
    }

    #[test]
    fn what_has_another_length_is_no_key() {
        for bytes in [
            &b""[..],
            b"abcd",
            &[0xb0; 33],
            &[0xb0; 65],
            b"no key at all\n",
        ] {
            assert!(parse(bytes).is_none(), "{bytes:?}");
        }
        assert!(
            parse("ab".repeat(16).as_bytes()).is_none(),
            "32 digits are half a seed"
        );
    }

    #[test]
    fn a_key_is_made_once_and_for_its_owner_only() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        let made = load_or_make(&path).unwrap().public();
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let text = std::fs::read(&path).unwrap();
        assert_eq!(load_or_make(&path).unwrap().public(), made);
        assert_eq!(std::fs::read(&path).unwrap(), text);
        std::fs::write(&path, "something else").unwrap();
        let failure = load_or_make(&path).unwrap_err();
        assert_eq!(failure.exit, Exit::Usage);
        assert_eq!(std::fs::read(&path).unwrap(), b"something else");
        let nowhere = folder.path().join("nothing/key");
        assert_eq!(load_or_make(&nowhere).unwrap_err().exit, Exit::Failed);
    }

    #[test]
    fn public_keys_and_salts_are_told_what_is_wrong() {
        assert!(public(PUBLIC).is_ok());
        let why = public("abc").unwrap_err();
        assert_eq!(
            why,
            "a public key has 64 hexadecimal digits, this has 3 characters"
        );
        assert!(public(&"xy".repeat(32)).is_err());
        assert!(salt(&"s".repeat(64)).is_ok() && salt(&"s".repeat(65)).is_err());
    }
}
