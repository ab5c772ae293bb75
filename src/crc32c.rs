//! The checksum from which ids and priorities follow from addresses (BEP 42, BEP 40).

/// CRC-32C of each half byte, reflected; the polynomial is Castagnoli's.
const CRC_TABLE: [u32; 16] = crc_table();

const fn crc_table() -> [u32; 16] {
    let mut table = [0; 16];
    let mut index = 0u32;
    while index < 16 {
        let mut crc = index;
        let mut bit = 0;
        while bit < 4 {
            crc = if crc & 1 == 1 {
                crc >> 1 ^ 0x82f6_3b78
            } else {
                crc >> 1
            };
            bit += 1;
        }
        table[index as usize] = crc;
        index += 1;
    }
    table
}

/// CRC-32C (RFC 3720, appendix B.4).
#[must_use]
pub fn crc32c(bytes: &[u8]) -> u32 {
    let step = |crc: u32, half: u8| {
        let index = usize::from(crc.to_le_bytes()[0] & 0x0f ^ half & 0x0f);
        crc >> 4 ^ CRC_TABLE[index]
    };
    let crc = bytes
        .iter()
        .fold(u32::MAX, |crc, byte| step(step(crc, *byte), byte >> 4));
    !crc
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_check_value_of_crc_32c_comes_out() {
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
        assert_eq!(crc32c(&[]), 0);
        assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa, "RFC 3720, B.4");
        assert_eq!(crc32c(&[0xff; 32]), 0x62a8_ab43, "RFC 3720, B.4");
    }

    proptest! {
        #[test]
        fn the_crc_is_that_of_a_bitwise_calculation(
            bytes in prop::collection::vec(any::<u8>(), 0..40),
        ) {
            let mut crc = u32::MAX;
            for byte in &bytes {
                crc ^= u32::from(*byte);
                for _ in 0..8 {
                    crc = if crc & 1 == 1 { crc >> 1 ^ 0x82f6_3b78 } else { crc >> 1 };
                }
            }
            prop_assert_eq!(crc32c(&bytes), !crc);
        }
    }
}
