//! Passwords as salted hashes. Pure: the salt is an argument.

use std::fmt;

use sha2::{Digest, Sha256};

/// A random number that makes equal passwords have different hashes.
pub(crate) type Salt = [u8; 16];

/// A password that can be compared, but not read.
///
/// It is SHA-256 of salt and password, RabbitMQ's `rabbit_password_hashing_sha256`. A hash that takes long to compute
/// protects passwords in a stolen file. These are in the memory of the broker only, where a slow hash would let a client
/// that guesses passwords stop all others: the broker slows down guesses by their number instead (`limits/logins.rs`).
#[derive(Clone)]
pub(crate) struct PasswordHash {
    salt: Salt,
    digest: [u8; 32],
}

impl PasswordHash {
    pub(crate) fn new(password: &str, salt: Salt) -> Self {
        Self { salt, digest: digest(&salt, password) }
    }

    /// Whether this is the password's hash. The time that this takes does not depend on the hash.
    pub(crate) fn is_of(&self, password: &str) -> bool {
        let digest = digest(&self.salt, password);
        let difference = self.digest.iter().zip(digest).fold(0, |difference, (one, other)| difference | (one ^ other));
        std::hint::black_box(difference) == 0
    }
}

/// Shows neither salt nor hash.
impl fmt::Debug for PasswordHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PasswordHash").finish_non_exhaustive()
    }
}

fn digest(salt: &Salt, password: &str) -> [u8; 32] {
    Sha256::new().chain_update(salt).chain_update(password).finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_password_itself_has_its_hash() {
        let hash = PasswordHash::new("pass", [1; 16]);
        assert!(hash.is_of("pass"));
        for other in ["", "pas", "pass ", "Pass", "\u{1}pass"] {
            assert!(!hash.is_of(other), "{other:?}");
        }
        assert_ne!(hash.digest, PasswordHash::new("pass", [2; 16]).digest, "salts make a difference");
        let mut nearly = hash.clone();
        nearly.digest[31] ^= 1;
        assert!(!nearly.is_of("pass"));
        assert_eq!(format!("{hash:?}"), "PasswordHash { .. }");
    }
}
