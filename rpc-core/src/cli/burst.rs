//! Notices the end of a burst of messages.

use std::time::Duration;

/// How often to look.
const LOOK_INTERVAL: Duration = Duration::from_secs(2);

/// This much less than there was at most is worth a walk through the allocator's pages.
const BURST_BYTES: usize = 16 << 20;

/// Calls `give_back` after each burst, for ever. `takes_fall` returns whether so many bytes less are held than at most since it
/// last was true. Cancel safe.
pub(super) async fn give_back_after_each(takes_fall: impl Fn(usize) -> bool, give_back: fn()) {
    loop {
        tokio::time::sleep(LOOK_INTERVAL).await;
        if takes_fall(BURST_BYTES) {
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
        let has_fallen = Cell::new(false);
        let takes_fall = |fall_bytes| {
            assert_eq!(fall_bytes, BURST_BYTES);
            has_fallen.take()
        };
        let note = || {
            GIVEN_BACK.fetch_add(1, Ordering::Relaxed);
        };
        let watch = give_back_after_each(takes_fall, note);
        let story = async {
            for (falls, given_back) in [(false, 0), (true, 1), (false, 1), (true, 2), (false, 2)] {
                has_fallen.set(falls);
                tokio::time::sleep(LOOK_INTERVAL + Duration::from_millis(1)).await;
                assert_eq!(GIVEN_BACK.load(Ordering::Relaxed), given_back, "{falls}");
            }
        };
        tokio::select! {
            () = watch => {}
            () = story => {}
        }
    }
}
