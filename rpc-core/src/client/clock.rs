//! The clock by which this process states when its calls end.
//!
//! It does not follow later corrections of the system's clock: workers compare times of one caller with each other, and never with their own clock.

use std::{
    sync::OnceLock,
    time::{SystemTime, UNIX_EPOCH},
};

use tokio::time::Instant;

/// A time in Unix milliseconds.
pub(super) fn unix_ms(at: Instant) -> i64 {
    static BEGAN: OnceLock<(Instant, i64)> = OnceLock::new();
    let (began, began_ms) = *BEGAN.get_or_init(|| {
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        (Instant::now(), i64::try_from(since_1970.as_millis()).unwrap_or(0))
    });
    let since = at.saturating_duration_since(began);
    began_ms + since.as_secs().cast_signed() * 1_000 + i64::from(since.subsec_millis())
}
