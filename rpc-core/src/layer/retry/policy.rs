//! [`RetryPolicy`]: which calls are sent again, how often and when.

use std::time::Duration;

/// Which calls are sent again, how often and when. Made by [`default`](Self::default), changed by its setters:
///
/// ```
/// use std::time::Duration;
///
/// use rpc_core::RetryPolicy;
///
/// let policy = RetryPolicy::default().attempts(5).attempt_timeout(Duration::from_millis(500));
/// ```
///
/// Sent again are calls that end as `overloaded` or `no_such_service`, with an error that the [service](crate::ServiceError) or a layer
/// marks as retryable, and, with [`attempt_timeout`](Self::attempt_timeout), as `timeout`. A call that may have been executed is sent
/// again only if its method is `#[rpc(idempotent)]`. No attempt begins after the call's deadline. See the guide's chapter on
/// [retries](crate::guide::retries).
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct RetryPolicy {
    pub(super) attempts: u32,
    pub(super) backoff_initial: Duration,
    pub(super) backoff_max: Duration,
    pub(super) attempt_timeout: Option<Duration>,
    pub(super) within_retries: bool,
    pub(super) hedge: bool,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            attempts: 3,
            backoff_initial: Duration::from_millis(50),
            backoff_max: Duration::from_secs(1),
            attempt_timeout: None,
            within_retries: false,
            hedge: false,
        }
    }
}

impl RetryPolicy {
    /// The policy that sends nothing again: for a method or a call that is to be an exception.
    pub fn none() -> Self {
        Self::default().attempts(1)
    }

    /// How many attempts a call has at most, the first one included. The default is 3; 0 counts as 1. The client's own resends
    /// after the loss of a connection do not count.
    #[must_use]
    pub const fn attempts(mut self, attempts: u32) -> Self {
        self.attempts = attempts;
        self
    }

    /// The bound of the first pause between two attempts, and of the longest one. Each pause is drawn at random between nothing and
    /// its bound, which doubles. The defaults are 50 ms and 1 s; less than 10 ms counts as that.
    ///
    /// A time that the service asks for comes before this pause. An error whose pause would end after the deadline is final.
    #[must_use]
    pub const fn backoff(mut self, initial: Duration, max: Duration) -> Self {
        self.backoff_initial = initial;
        self.backoff_max = max;
        self
    }

    /// How long an attempt of an idempotent method may take before another one replaces it. The default is none: an attempt may take
    /// all of the call's time, and a timeout is final.
    ///
    /// The attempt is cancelled. It goes on where no other one could begin: when it is the last one, when the budget of retries is
    /// spent, or when the deadline is near.
    #[must_use]
    pub const fn attempt_timeout(mut self, attempt_timeout: Duration) -> Self {
        self.attempt_timeout = Some(attempt_timeout);
        self
    }

    /// Whether a handler's calls are sent again, too, when its own request is another attempt already. The default is no: else three
    /// tiers with three attempts each would send 27 requests.
    #[must_use]
    pub const fn within_retries(mut self, within_retries: bool) -> Self {
        self.within_retries = within_retries;
        self
    }

    /// Whether a call of a `#[rpc(idempotent, hedge)]` method that takes longer than 95 % of the earlier ones is sent a second time
    /// meanwhile. The first answer counts, and the other request is cancelled. The default is no.
    ///
    /// It begins once 100 calls of the method have been answered, for at most 5 % of the calls, and each draws on the budget of retries.
    /// Both requests have the same `message_id`, so it does not go together with a memory of answers, where the second one would wait for
    /// the first: a pool that remembers the answers of a `hedge` method does not start
    /// ([`WorkerPool::dedupe_except`](crate::WorkerPool::dedupe_except)). A method without `hedge` is never sent a second time.
    #[must_use]
    pub const fn hedge(mut self, hedge: bool) -> Self {
        self.hedge = hedge;
        self
    }
}
