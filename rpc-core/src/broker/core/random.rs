//! Random numbers and the names made of them. Pure: the seed is an argument.

use std::fmt;

use sha2::{Digest, Sha256};

/// The secret that all random numbers of a broker come from.
pub(crate) type Seed = [u8; 32];

/// A generator whose output tells nothing about its other output: SHA-256 of a secret seed and a counter.
///
/// Names of queues and addresses of direct replies protect messages from users who were not given them.
pub(crate) struct Random {
    seed: Seed,
    count: u64,
}

impl Random {
    pub(crate) const fn new(seed: Seed) -> Self {
        Self { seed, count: 0 }
    }

    fn block(&mut self) -> [u8; 32] {
        self.count += 1;
        Sha256::new().chain_update(self.seed).chain_update(self.count.to_be_bytes()).finalize().into()
    }

    /// A 128-bit number that tells a connection from later ones with the same id.
    pub(crate) fn nonce(&mut self) -> u128 {
        leading_bits(&self.block())
    }

    /// `prefix` followed by 22 characters of URL-safe base64.
    pub(crate) fn name(&mut self, prefix: &str) -> String {
        const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
        let mut name = String::with_capacity(prefix.len() + NAME_CHARACTERS);
        name.push_str(prefix);
        for byte in self.block().into_iter().take(NAME_CHARACTERS) {
            name.push(char::from(ALPHABET[usize::from(byte % 64)]));
        }
        name
    }
}

/// Shows no seed.
impl fmt::Debug for Random {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Random").finish_non_exhaustive()
    }
}

/// The first 128 bits of a hash.
pub(crate) fn leading_bits(hash: &[u8]) -> u128 {
    hash.iter().take(16).fold(0, |number, byte| number << 8 | u128::from(*byte))
}

const NAME_CHARACTERS: usize = 22;

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn a_nonce_does_not_give_away_the_next_numbers() {
        // xorshift64*, which older brokers used: its first output gives away its state, and so its second one.
        let predicted = |first: u64| {
            const MULTIPLIER: u64 = 0x2545_F491_4F6C_DD1D;
            let mut inverse = 1_u64;
            for _ in 0..6 {
                inverse = inverse.wrapping_mul(2_u64.wrapping_sub(MULTIPLIER.wrapping_mul(inverse)));
            }
            let mut state = first.wrapping_mul(inverse);
            state ^= state >> 12;
            state ^= state << 25;
            state ^= state >> 27;
            state.wrapping_mul(MULTIPLIER)
        };
        let mut random = Random::new([7; 32]);
        for _ in 0..1_000 {
            let nonce = random.nonce();
            assert_ne!(predicted((nonce >> 64) as u64), nonce as u64);
        }
    }

    #[test]
    fn names_depend_on_the_seed_alone_and_do_not_repeat() {
        let names = |seed| {
            let mut random = Random::new(seed);
            (0..1_000).map(|_| random.name("amq.gen-")).collect::<HashSet<_>>()
        };
        let (one, other) = (names([0; 32]), names([1; 32]));
        assert_eq!((one.len(), one.intersection(&other).count()), (1_000, 0));
        assert_eq!(one, names([0; 32]));
        assert!(one.iter().all(|name| name.len() == "amq.gen-".len() + 22));
        assert!(!format!("{:?}", Random::new([0xAB; 32])).contains("171"));
    }
}
