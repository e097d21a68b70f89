//! The options of a client.

use std::{sync::Arc, time::Duration};

use super::grace::Graces;
use crate::layer::{RetryBudget, RetryLayer, RetryPolicy};

/// How a client makes its calls. Made by [`default`](Self::default), changed by its setters:
///
/// ```
/// # use std::time::Duration;
/// use rpc_core::{ClientOptions, WhenFull};
///
/// let options = ClientOptions::default().timeout(Duration::from_secs(2)).when_full(WhenFull::Refuse);
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ClientOptions {
    pub(crate) timeout: Duration,
    pub(crate) max_in_flight: usize,
    pub(crate) when_full: WhenFull,
    pub(crate) max_body_bytes: usize,
    pub(crate) sends_user_id: bool,
    pub(crate) reply_users: Option<Arc<[String]>>,
    pub(crate) retry: Option<RetryLayer>,
    pub(crate) stats: bool,
    pub(super) graces: Graces,
}

/// How a client treats a call while `max_in_flight` others wait for their answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[cfg_attr(feature = "config", derive(serde::Deserialize), serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum WhenFull {
    /// It waits for a place, within its budget. The default.
    #[default]
    Wait,
    /// It ends at once with [`CallError::Overloaded`](crate::CallError::Overloaded).
    Refuse,
}

impl Default for ClientOptions {
    fn default() -> Self {
        Self {
            timeout: Duration::from_secs(10),
            max_in_flight: 1_024,
            when_full: WhenFull::default(),
            max_body_bytes: 16 << 20,
            sends_user_id: false,
            reply_users: None,
            retry: None,
            stats: false,
            graces: Graces::default(),
        }
    }
}

impl ClientOptions {
    /// The budget of a call whose method and caller set none. The default is 10 s. A call made inside a handler never
    /// outlives the call that handler serves.
    #[must_use]
    pub const fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// The number of calls in flight at once. The default is 1 024; 0 counts as 1.
    #[must_use]
    pub const fn max_in_flight(mut self, max_in_flight: usize) -> Self {
        self.max_in_flight = max_in_flight;
        self
    }

    /// How the client treats a call beyond [`max_in_flight`](Self::max_in_flight). The default is to wait.
    #[must_use]
    pub const fn when_full(mut self, when_full: WhenFull) -> Self {
        self.when_full = when_full;
        self
    }

    /// The largest encoded request. The default is 16 MiB; RabbitMQ 3.10 and the bundled broker accept 128 MiB.
    #[must_use]
    pub const fn max_body_bytes(mut self, max_body_bytes: usize) -> Self {
        self.max_body_bytes = max_body_bytes;
        self
    }

    /// Sends the user of the connection's login as the `user_id` of requests and cancels. The broker refuses any other name, so
    /// workers can rely on it: [`WorkerPool::users`](crate::WorkerPool::users), [`Context::user_id`](crate::Context::user_id).
    ///
    /// The default is false. Nothing is sent, and a warning logged, where the URIs of the connection name several users, or where
    /// the broker takes the user from a certificate.
    #[must_use]
    pub const fn send_user_id(mut self, sends_user_id: bool) -> Self {
        self.sends_user_id = sends_user_id;
        self
    }

    /// Takes the replies of these users alone, from workers that send their name
    /// ([`WorkerPool::send_user_id`](crate::WorkerPool::send_user_id)). Other replies are logged and dropped, and their calls wait
    /// on. The default is to take every reply that names a call.
    #[must_use]
    pub fn reply_users(mut self, users: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.reply_users = Some(users.into_iter().map(Into::into).collect());
        self
    }

    /// Whether [`Client::stats`](crate::Client::stats) has the median and the 99th percentile of the time that the calls of each method
    /// take ([`LatencyStats`](crate::LatencyStats)). The default is false: a look at the clock for each call, and 4 KiB for each method.
    #[must_use]
    pub const fn stats(mut self, has_times: bool) -> Self {
        self.stats = has_times;
        self
    }

    /// Ends calls before their deadlines when no worker has been there for this long, with
    /// [`NoSuchService`](crate::CallError::NoSuchService). The default is that they wait for one until their deadlines.
    ///
    /// While a call waits longer than its method's calls usually do, the client looks whether anybody consumes the queue that the
    /// request is in. It also looks before it sends one to a service that it has not heard for a second: then the call is not executed if
    /// nobody is there. A worker that is away for less than this, for a restart, ends no call. One-way methods are not concerned: their
    /// requests are to wait. See the guide's chapter on [deadlines](crate::guide::deadlines).
    #[must_use]
    pub fn grace(mut self, grace: Duration) -> Self {
        self.graces = self.graces.all(grace);
        self
    }

    /// The same for the calls of one service, in place of the grace of all. A call whose timeout is no longer than its grace has none.
    #[must_use]
    pub fn service_grace(mut self, service: impl Into<Box<str>>, grace: Duration) -> Self {
        self.graces = self.graces.service(service.into(), grace);
        self
    }

    /// Sends calls again under this policy, inside of the client's [layers](crate::Client::layer), which see each call once. The
    /// default is to send no call again that had an answer.
    ///
    /// A [method](Self::retry_method) or a [call](crate::Call::retry) may have another policy. See the guide's chapter on
    /// [retries](crate::guide::retries).
    #[must_use]
    pub fn retry(mut self, policy: RetryPolicy) -> Self {
        self.retry = Some(self.retry.unwrap_or_default().all(policy));
        self
    }

    /// Sends the calls of the method of that name, `service.method`, again under this policy. The default is that of all methods. A
    /// name that no method has is no error: a client does not know all services that use it.
    #[must_use]
    pub fn retry_method(mut self, method: impl Into<String>, policy: RetryPolicy) -> Self {
        self.retry = Some(self.retry.unwrap_or_default().method(method, policy));
        self
    }

    /// The budget of all retries of the client, whatever their policy. The default is 10 % of the calls that have a policy, and one
    /// retry a second.
    ///
    /// Clients with clones of these options share it, as they share one that is set here.
    #[must_use]
    pub fn retry_budget(mut self, budget: RetryBudget) -> Self {
        self.retry = Some(self.retry.unwrap_or_default().budget(budget));
        self
    }
}
