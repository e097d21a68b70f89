//! Notices the end of a burst of messages.

use std::time::Duration;

/// How often to look.
const LOOK_INTERVAL: Duration = Duration::from_secs(2);

/// This much less than there was at most is worth a walk through the allocator's pages.
const BURST_BYTES: usize = 16 << 20;

/// Calls `give_back` after each burst, for ever. `take_peak` returns the bytes that are held, and were at most since its
/// last call. Cancel safe.
pub(super) async fn give_back_after_each(take_peak: impl Fn() -> (usize, usize), give_back: fn()) {
    let mut highest_bytes = 0;
    loop {
        tokio::time::sleep(LOOK_INTERVAL).await;
        let (bytes, peak_bytes) = take_peak();
        highest_bytes = peak_bytes.max(highest_bytes);
        if highest_bytes - bytes >= BURST_BYTES {
            highest_bytes = bytes;
            give_back();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        cell::Cell,
        sync::atomic::{AtomicUsize, Ordering},
        time::Duration,
    };

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn memory_is_given_back_once_after_each_burst() {
        static GIVEN_BACK: AtomicUsize = AtomicUsize::new(0);
        let held = Cell::new((0, 0));
        let note = || {
            GIVEN_BACK.fetch_add(1, Ordering::Relaxed);
        };
        let watch = give_back_after_each(|| held.get(), note);
        let story = async {
            let few = BURST_BYTES - 1;
            for (bytes, peak_bytes, given_back) in [
                (0, 0, 0),
                (few, few, 0),
                (0, few, 0),
                (BURST_BYTES * 3, BURST_BYTES * 3, 0),
                (BURST_BYTES * 2 + 1, BURST_BYTES * 3, 0),
                (9, BURST_BYTES * 2 + 1, 1),
                (9, 9, 1),
                // It began and ended between two looks.
                (0, BURST_BYTES, 2),
                (0, 0, 2),
            ] {
                held.set((bytes, peak_bytes));
                tokio::time::sleep(LOOK_INTERVAL + Duration::from_millis(1)).await;
                assert_eq!(GIVEN_BACK.load(Ordering::Relaxed), given_back, "{bytes}");
            }
        };
        tokio::select! {
            () = watch => {}
            () = story => {}
        }
    }
}
