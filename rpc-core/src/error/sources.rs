//! No error type prints its source: a report prints the whole chain, and would show that text twice.

use super::Error;
use crate::{CallError, PoolStats, ShutdownError, ShutdownReport, dedupe::StoreError};

/// One of each error type that has a source: `tests/tidy` looks for those that are missing.
fn samples() -> Vec<(&'static str, Box<dyn std::error::Error>)> {
    let reason = || Error::Closed { reason: "THE SOURCE".to_owned() };
    let report = ShutdownReport { aborted: 1, stats: PoolStats::default() };
    vec![
        #[cfg(feature = "broker")]
        (
            "BrokerError",
            Box::new(crate::broker::BrokerError::Bind {
                address: ([127, 0, 0, 1], 5_672).into(),
                source: std::io::Error::other("THE SOURCE"),
            }),
        ),
        ("CallError", Box::new(CallError::<Error>::service("stock", "take", reason()))),
        ("CallError", Box::new(CallError::<Error>::topology("stock", "take", reason()))),
        ("StoreError", Box::new(StoreError::new("THE SOURCE"))),
        ("ShutdownError", Box::new(ShutdownError { report, error: reason() })),
    ]
}

#[test]
fn no_error_repeats_its_source() {
    for (name, error) in samples() {
        let source = error.source().unwrap_or_else(|| panic!("{name} has no source"));
        assert!(source.to_string().contains("THE SOURCE"), "{name}: {source}");
        assert!(!error.to_string().contains("THE SOURCE"), "{name}: {error}");
    }
}
