//! Random numbers and the names made of them. Pure: the seed is an argument.

/// A generator of numbers that need to differ, but not to be secret: xorshift64*.
#[derive(Debug)]
pub(crate) struct Random(u64);

impl Random {
    /// A generator from a seed, which must not be 0.
    pub(crate) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) const fn number(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    /// A 128-bit number that tells a connection from later ones with the same id.
    pub(crate) fn nonce(&mut self) -> u128 {
        u128::from(self.number()) << 64 | u128::from(self.number())
    }

    /// `prefix` followed by 22 characters of URL-safe base64.
    pub(crate) fn name(&mut self, prefix: &str) -> String {
        const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
        let mut name = String::with_capacity(prefix.len() + 22);
        name.push_str(prefix);
        for _ in 0..3 {
            let mut bits = self.number();
            // Eight characters of six bits from each number, 22 in all.
            for _ in 0..8.min(prefix.len() + 22 - name.len()) {
                name.push(char::from(ALPHABET[(bits >> 58) as usize]));
                bits <<= 6;
            }
        }
        name
    }
}
