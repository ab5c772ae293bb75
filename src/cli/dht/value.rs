//! Values of items: what a user types to store one, and how one is shown.

use std::fs::File;
use std::io::Read;

use data_encoding::HEXLOWER;
use serde_json::{Map, Value as Json, json};

use crate::bencode::{Limits, Value, Writer, read};
use crate::cli::print::{Exit, Failure, escape};
use crate::dht::Item;

/// Bytes of a file that are looked at, far more than a value may have.
const FILE_MAX: u64 = 1 << 20;

/// What takes the place of a value that is withdrawn: an empty text.
pub(in crate::cli) const NOTHING: &[u8] = b"0:";

/// The bencoded value that a user means: a text, `@FILE`, or `-` for standard input.
///
/// # Errors
///
/// It cannot be read, is no bencode, or is too long.
pub(super) fn typed(text: &str) -> Result<Vec<u8>, Failure> {
    let value = match (text, text.strip_prefix('@')) {
        ("-", _) => from_reader(std::io::stdin().lock(), "standard input")?,
        (_, Some(path)) => {
            let file =
                File::open(path).map_err(|error| cannot_read(path, &error).exit(Exit::Usage))?;
            from_reader(file, path)?
        }
        (text, None) => {
            let mut value = Vec::new();
            Writer::new(&mut value).bytes(text.as_bytes());
            value
        }
    };
    if let Err(error) = Item::immutable(&value) {
        let failure = Failure::because("it cannot be stored", &error).exit(Exit::Usage);
        return Err(failure.hint(
            "@FILE and - take one bencoded value, with nothing before or after it; a text is \
             bencoded for you",
        ));
    }
    Ok(value)
}

fn from_reader(reader: impl Read, name: &str) -> Result<Vec<u8>, Failure> {
    let mut value = Vec::new();
    reader
        .take(FILE_MAX)
        .read_to_end(&mut value)
        .map_err(|error| cannot_read(name, &error))?;
    Ok(value)
}

fn cannot_read(name: &str, error: &std::io::Error) -> Failure {
    Failure::because(format!("cannot read {name}"), error)
}

/// A bencoded value as JSON: byte strings as text, or as `{"hex": …}` where they are none.
pub(super) fn to_json(value: &[u8]) -> Json {
    // An item's value was checked when the item was made.
    read(value, &Limits::KRPC).map_or(Json::Null, json_of)
}

fn json_of(value: Value<'_>) -> Json {
    match value {
        Value::Integer(number) => json!(number),
        Value::Bytes(bytes) => match std::str::from_utf8(bytes) {
            Ok(text) => json!(text),
            Err(_) => json!({"hex": HEXLOWER.encode(bytes)}),
        },
        Value::List(list) => list.iter().map(json_of).collect(),
        Value::Dictionary(dictionary) => {
            let named = |(key, value): (&[u8], _)| {
                let key = String::from_utf8(key.to_vec());
                let key = key.unwrap_or_else(|error| HEXLOWER.encode(error.as_bytes()));
                (key, json_of(value))
            };
            Json::Object(dictionary.iter().map(named).collect::<Map<_, _>>())
        }
    }
}

/// A bencoded value in one line that a terminal may show.
pub(super) fn to_text(value: &[u8]) -> String {
    match to_json(value) {
        Json::String(text) => escape(&text).into_owned(),
        other => escape(&other.to_string()).into_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_becomes_a_byte_string() {
        assert_eq!(typed("grüße").unwrap(), "7:grüße".as_bytes());
        assert_eq!(typed("").unwrap(), b"0:");
        assert_eq!(typed(&"x".repeat(997)).unwrap_err().exit, Exit::Usage);
        assert!(typed(&"x".repeat(996)).is_ok());
    }

    #[test]
    fn a_file_holds_bencode_and_nothing_else() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let name = format!("@{}", file.path().display());
        std::fs::write(file.path(), "d1:ai1ee").unwrap();
        assert_eq!(typed(&name).unwrap(), b"d1:ai1ee");
        for wrong in ["d1:ai1ee\n", "hello", "", "d1:bi1e1:ai1ee"] {
            std::fs::write(file.path(), wrong).unwrap();
            let failure = typed(&name).unwrap_err();
            assert_eq!(failure.exit, Exit::Usage, "{wrong}");
            assert!(failure.hint.is_some());
        }
        assert_eq!(typed("@/nothing/there").unwrap_err().exit, Exit::Usage);
    }

    #[test]
    fn values_are_shown_as_json_and_texts_as_they_are() {
        assert_eq!(to_text(b"5:hello"), "hello");
        assert_eq!(to_text(b"5:he\x1blo"), "he\\u{1b}lo");
        assert_eq!(to_text(b"li-3e2:\xff\x00e"), r#"[-3,{"hex":"ff00"}]"#);
        assert_eq!(
            to_json(b"d1:ai1e1:b2:xy2:\xff\xffi2ee"),
            json!({"a": 1, "b": "xy", "ffff": 2})
        );
        assert_eq!(to_text(b"i7e"), "7");
    }
}
