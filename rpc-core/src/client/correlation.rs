//! The correlation_ids of a session: its call numbers, enciphered. Pure.
//!
//! A peer that has seen other ids cannot guess the next one: the ids of a session are a random permutation of all 64-bit numbers,
//! chosen by the session's key. An id is 16 ASCII digits (lapin takes no other bytes). They spell the enciphered number, by which
//! the call is known from then on, so that only those of replies that no call awaits are deciphered.
//!
//! The permutation is Speck64/128 (Beaulieu and others, "The SIMON and SPECK families of lightweight block ciphers", 2013): a
//! published cipher with blocks of 64 bits, whose 27 rounds are six instructions each. Ciphers of crates have blocks of 128 bits
//! (ids of 32 digits), or an interface that allocates.

/// The cipher of one session.
pub(super) struct Cipher {
    round_keys: [u32; ROUNDS],
}

/// A correlation_id as it travels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct CorrelationId([u8; DIGITS]);

impl CorrelationId {
    /// That of an enciphered number.
    pub(super) fn of(number: u64) -> Self {
        let mut digits = [0; DIGITS];
        digits[..8].copy_from_slice(&hexadecimal((number >> 32) as u32).to_be_bytes());
        digits[8..].copy_from_slice(&hexadecimal(number as u32).to_be_bytes());
        Self(digits)
    }

    /// The enciphered number of an id; `None` for what is no id of any session.
    pub(super) fn number(id: &[u8]) -> Option<u64> {
        let (high, low) = id.first_chunk().zip(id.last_chunk()).filter(|_| id.len() == DIGITS)?;
        let (high, low) = (binary(u64::from_be_bytes(*high))?, binary(u64::from_be_bytes(*low))?);
        Some(u64::from(high) << 32 | u64::from(low))
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    pub(super) fn as_str(&self) -> &str {
        // Digits are ASCII.
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl Cipher {
    /// The cipher of a random key.
    pub(super) fn new(key: u128) -> Self {
        let [mut low, a, b, c] = [0, 32, 64, 96].map(|shift| (key >> shift) as u32);
        let mut high = [a, b, c];
        let mut round_keys = [0; ROUNDS];
        for (round, round_key) in round_keys.iter_mut().enumerate() {
            *round_key = low;
            let word = &mut high[round % 3];
            (*word, low) = step(*word, low, round as u32);
        }
        Self { round_keys }
    }

    /// The same number for the same key, and another one for each other number.
    pub(super) fn encipher(&self, number: u64) -> u64 {
        let (mut x, mut y) = ((number >> 32) as u32, number as u32);
        for round_key in self.round_keys {
            (x, y) = step(x, y, round_key);
        }
        u64::from(x) << 32 | u64::from(y)
    }

    /// The number of an enciphered one.
    pub(super) fn decipher(&self, enciphered: u64) -> u64 {
        let (mut x, mut y) = ((enciphered >> 32) as u32, enciphered as u32);
        for round_key in self.round_keys.iter().rev() {
            (x, y) = step_back(x, y, *round_key);
        }
        u64::from(x) << 32 | u64::from(y)
    }
}

/// One round, backwards.
fn step_back(x: u32, y: u32, round_key: u32) -> (u32, u32) {
    let y = (y ^ x).rotate_right(3);
    ((x ^ round_key).wrapping_sub(y).rotate_left(8), y)
}

/// One round.
fn step(x: u32, y: u32, round_key: u32) -> (u32, u32) {
    let x = x.rotate_right(8).wrapping_add(y) ^ round_key;
    (x, y.rotate_left(3) ^ x)
}

/// Eight lower-case digits, the first in the highest byte. All at once: a byte holds one digit.
fn hexadecimal(number: u32) -> u64 {
    let mut digits = u64::from(number);
    digits = (digits | digits << 16) & 0x0000_FFFF_0000_FFFF;
    digits = (digits | digits << 8) & 0x00FF_00FF_00FF_00FF;
    digits = (digits | digits << 4) & 0x0F0F_0F0F_0F0F_0F0F;
    let is_letter = ((digits + 0x0606_0606_0606_0606) >> 4) & ONES;
    digits + ONES * u64::from(b'0') + is_letter * u64::from(b'a' - b'9' - 1)
}

/// The number of eight digits; `None` unless they are those of [`hexadecimal`].
fn binary(text: u64) -> Option<u32> {
    let is_letter = (text >> 6) & ONES;
    let mut digits = (text & 0x0F0F_0F0F_0F0F_0F0F) + is_letter * 9;
    digits &= 0x0F0F_0F0F_0F0F_0F0F;
    digits = (digits | digits >> 4) & 0x00FF_00FF_00FF_00FF;
    digits = (digits | digits >> 8) & 0x0000_FFFF_0000_FFFF;
    let number = (digits | digits >> 16) as u32;
    (hexadecimal(number) == text).then_some(number)
}

/// One in each byte.
const ONES: u64 = 0x0101_0101_0101_0101;
const DIGITS: usize = 16;
const ROUNDS: usize = 27;

impl std::fmt::Debug for Cipher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Not the key.
        f.debug_struct("Cipher").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_cipher_is_speck_64_128() {
        // The test vector of the authors' paper.
        let cipher = Cipher::new(0x1b1a_1918_1312_1110_0b0a_0908_0302_0100);
        assert_eq!(cipher.encipher(0x3b72_6574_7475_432d), 0x8c6f_a548_454e_028b);
        for number in [0, 1, 0x3b72_6574_7475_432d, u64::MAX] {
            assert_eq!(cipher.decipher(cipher.encipher(number)), number);
        }
    }

    #[test]
    fn what_is_no_id_has_no_number() {
        assert_eq!(CorrelationId::number(b"8c6fa548454e028b"), Some(0x8c6f_a548_454e_028b));
        for text in [
            "",
            "1",
            "8c6fa548454e028",
            "8c6fa548454e028b0",
            "8C6FA548454E028B",
            "8c6fa548454e028g",
            "/c6fa548454e028b",
        ] {
            assert_eq!(CorrelationId::number(text.as_bytes()), None, "{text}");
        }
        assert_eq!(CorrelationId::number(&[0xFF; 16]), None);
    }

    #[test]
    fn the_ids_of_one_number_differ_from_session_to_session() {
        let ids: HashSet<_> = (0..1_000).map(|key| Cipher::new(key).encipher(1)).collect();
        assert_eq!(ids.len(), 1_000);
    }

    #[test]
    fn the_ids_of_one_session_differ() {
        let cipher = Cipher::new(7);
        let ids: HashSet<_> = (0..100_000).map(|number| cipher.encipher(number)).collect();
        assert_eq!(ids.len(), 100_000);
    }

    proptest! {
        #[test]
        fn every_number_comes_back(number: u64) {
            prop_assert_eq!(CorrelationId::number(CorrelationId::of(number).as_bytes()), Some(number));
        }

        #[test]
        fn no_bytes_panic(id in proptest::collection::vec(any::<u8>(), 0..40)) {
            let _ = CorrelationId::number(&id);
        }
    }
}
