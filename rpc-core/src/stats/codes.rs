//! The codes that calls are counted by: a fixed set, so that no peer can make counts grow.

use crate::call_error::FRAMEWORK_CODES;

/// Those of this crate and its layers, those of calls without an answer, and [`OTHER`] for the rest, which is the last.
pub(crate) const CODES: [&str; OF_CALLS.len() + BESIDE.len()] = {
    let mut codes = [OTHER; OF_CALLS.len() + BESIDE.len()];
    let (of_calls, beside) = codes.split_at_mut(OF_CALLS.len());
    of_calls.copy_from_slice(OF_CALLS);
    beside.copy_from_slice(&BESIDE);
    codes
};

/// Without `ok`, which is no error.
const OF_CALLS: &[&str] = FRAMEWORK_CODES.split_at(1).1;
const BESIDE: [&str; 6] = ["unauthenticated", "permission_denied", "rate_limited", "circuit_open", CANCELLED, OTHER];

/// The code of a call whose caller has given up.
pub(crate) const CANCELLED: &str = "cancelled";
/// That of every code which is not in the set, by OpenTelemetry's convention.
pub(crate) const OTHER: &str = "_OTHER";

/// The place of a code in [`CODES`].
pub(crate) fn index_of(code: &str) -> usize {
    CODES.iter().position(|known| *known == code).unwrap_or(CODES.len() - 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::call_error::is_code_of_framework;

    #[test]
    fn every_code_of_the_framework_is_counted_by_its_name_and_strangers_together() {
        assert!(CODES.iter().filter(|code| is_code_of_framework(code)).count() == 16);
        for code in CODES {
            assert_eq!(CODES[index_of(code)], code);
        }
        assert_eq!(["ok", "sold_out", ""].map(|code| CODES[index_of(code)]), [OTHER; 3]);
    }
}
