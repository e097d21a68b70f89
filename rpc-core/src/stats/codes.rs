//! The codes that calls are counted by: a fixed set, and those that a method's descriptor declares, so that no peer can make counts
//! grow.

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

/// How many places there are for the errors of a method whose own ones have these codes.
pub(crate) const fn places(own: &[&str]) -> usize {
    CODES.len() + own.len()
}

/// The place of a code in [`CODES`], or behind them among a method's own.
pub(crate) fn place_of(code: &str, own: &[&str]) -> usize {
    let at = |codes: &[&str]| codes.iter().position(|known| *known == code);
    at(&CODES).or_else(|| at(own).map(|at| CODES.len() + at)).unwrap_or(CODES.len() - 1)
}

/// The codes in the order of their places.
pub(crate) fn codes(own: &'static [&'static str]) -> impl Iterator<Item = &'static str> {
    CODES.into_iter().chain(own.iter().copied())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::call_error::is_code_of_framework;

    #[test]
    fn every_code_of_the_framework_is_counted_by_its_name_and_strangers_together() {
        assert!(CODES.iter().filter(|code| is_code_of_framework(code)).count() == 16);
        for code in CODES {
            assert_eq!(CODES[place_of(code, &[])], code);
        }
        assert_eq!(["ok", "sold_out", ""].map(|code| CODES[place_of(code, &[])]), [OTHER; 3]);
    }

    #[test]
    fn a_method_has_places_for_its_own_codes() {
        let own = &["sold_out", "closed"];
        let known: Vec<_> = codes(own).collect();
        assert_eq!(known.len(), places(own));
        assert_eq!(
            ["closed", "sold_out", "timeout", "made up"].map(|code| known[place_of(code, own)]),
            ["closed", "sold_out", "timeout", OTHER]
        );
    }
}
