//! Writing canonical bencode into a buffer that can be used again.

/// Appends bencode to a buffer.
///
/// The caller writes the keys of a dictionary in ascending order and closes what it opened; that is
/// what makes the result canonical.
#[derive(Debug)]
pub struct Writer<'a> {
    out: &'a mut Vec<u8>,
}

impl<'a> Writer<'a> {
    /// A writer that appends to `out`.
    pub const fn new(out: &'a mut Vec<u8>) -> Self {
        Self { out }
    }

    /// Opens a dictionary.
    pub fn begin_dictionary(&mut self) -> &mut Self {
        self.out.push(b'd');
        self
    }

    /// Opens a list.
    pub fn begin_list(&mut self) -> &mut Self {
        self.out.push(b'l');
        self
    }

    /// Closes the innermost list or dictionary.
    pub fn end(&mut self) -> &mut Self {
        self.out.push(b'e');
        self
    }

    /// Writes a byte string.
    pub fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.decimal(u64::try_from(bytes.len()).expect("a length fits 64 bits"));
        self.out.push(b':');
        self.out.extend_from_slice(bytes);
        self
    }

    /// Writes the key of the next value.
    pub fn key(&mut self, key: &str) -> &mut Self {
        self.bytes(key.as_bytes())
    }

    /// Writes an integer.
    pub fn integer(&mut self, value: i64) -> &mut Self {
        self.out.push(b'i');
        if value < 0 {
            self.out.push(b'-');
        }
        self.decimal(value.unsigned_abs());
        self.out.push(b'e');
        self
    }

    /// Writes bytes that are bencode already.
    pub fn raw(&mut self, raw: &[u8]) -> &mut Self {
        self.out.extend_from_slice(raw);
        self
    }

    /// Decimal digits, without going through a formatter: replies are made of these.
    fn decimal(&mut self, mut value: u64) {
        let mut digits = [0; 20];
        let mut start = digits.len();
        loop {
            start -= 1;
            digits[start] = b'0' + u8::try_from(value % 10).expect("a digit is below 10");
            value /= 10;
            if value == 0 {
                break;
            }
        }
        self.out.extend_from_slice(&digits[start..]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_have_their_one_form() {
        let mut out = Vec::new();
        Writer::new(&mut out)
            .begin_dictionary()
            .key("a")
            .integer(i64::MIN)
            .key("b")
            .begin_list()
            .integer(0)
            .bytes(b"spam")
            .end()
            .key("c")
            .raw(b"le")
            .end();
        assert_eq!(out, b"d1:ai-9223372036854775808e1:bli0e4:spame1:clee");
    }
}
