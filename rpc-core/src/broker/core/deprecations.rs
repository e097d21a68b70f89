//! Uses of what another RabbitMQ refuses or does otherwise, counted for the owner of the broker. Pure.
//!
//! It decides nothing: the broker goes on as its own profile says.

use std::{collections::BTreeMap, fmt};

use crate::{broker::core::profile::Facts, printable::printable};

/// A feature that RabbitMQ 4.3 refuses, or that works otherwise there than in 3.10. Displayed as the change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum DeprecatedFeature {
    /// A queue that is neither durable nor exclusive.
    TransientQueue,
    /// `basic.qos` with `global`.
    GlobalQos,
    /// The queue argument `x-queue-mode`.
    QueueMode,
    /// The queue argument `x-queue-version` with the value 1.
    QueueVersion1,
    /// The queue argument `x-max-priority` of a quorum queue.
    MaxPriorityOfQuorumQueue,
    /// The queue argument `x-consumer-timeout` of a queue that is no quorum queue.
    ConsumerTimeoutOfClassicQueue,
    /// A message above the default size of 16 MiB.
    LargeMessage,
    /// A binding key of a topic exchange with more than two `#`.
    ManyHashes,
    /// A message that a client published with the header `x-death`.
    DeathsOfClient,
    /// A binding to the name of direct replies, or to an address of them.
    BindingToDirectReplies,
    /// A routing key in CC or BCC that the user's topic permissions do not allow.
    CopyBeyondTopicPermissions,
    /// A message in a transaction whose queue was deleted before the commit.
    QueueDeletedInTransaction,
    /// A delivery of a quorum queue that was requeued by `basic.nack` or `basic.recover`.
    CountedNack,
}

impl fmt::Display for DeprecatedFeature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TransientQueue => {
                "a transient queue that is not exclusive is deprecated, and closes the connection where it is denied: \
                 declare it durable or exclusive"
            }
            Self::GlobalQos => "basic.qos with global counts per consumer: no window is shared by a channel",
            Self::QueueMode => "x-queue-mode is ignored, whatever its value: remove it",
            Self::QueueVersion1 => "x-queue-version 1 is refused: remove it, or set 2",
            Self::MaxPriorityOfQuorumQueue => {
                "x-max-priority on a quorum queue is refused: it has priorities from 0 to 31 without it"
            }
            Self::ConsumerTimeoutOfClassicQueue => {
                "x-consumer-timeout is refused but on quorum queues: only these have a consumer timeout"
            }
            Self::LargeMessage => "a message above 16 MiB is refused unless max_message_size is raised",
            Self::ManyHashes => "a topic binding key with more than two '#' is refused",
            Self::DeathsOfClient => "the x-death of a client is replaced when its message is dead-lettered",
            Self::BindingToDirectReplies => "a binding to direct replies is refused",
            Self::CopyBeyondTopicPermissions => "CC and BCC need the topic permission, too",
            Self::QueueDeletedInTransaction => {
                "a commit of a message whose queue was deleted closes the connection with 506"
            }
            Self::CountedNack => {
                "a requeue by basic.nack or basic.recover does not count for x-delivery-limit, nor in x-delivery-count: \
                 read x-acquired-count, or requeue with basic.reject"
            }
        })
    }
}

/// The uses of a deprecated feature by the same client and user, of the same queue.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Deprecation {
    /// The feature.
    pub feature: DeprecatedFeature,
    /// The name that the client has given its connection; empty if it has given none. At most 255 bytes, escaped.
    pub client: String,
    /// Its user.
    pub user: String,
    /// The queue; for a binding or a message without a queue its routing key, and empty for `basic.qos`.
    pub queue: String,
    /// How often.
    pub count: u64,
}

type Key = (DeprecatedFeature, String, String, String);

/// All uses of deprecated features.
#[derive(Debug)]
pub(crate) struct Deprecations {
    /// The version that the uses are held against.
    pub(crate) facts: &'static Facts,
    counts: BTreeMap<Key, u64>,
}

impl Deprecations {
    pub(crate) const fn against(facts: &'static Facts) -> Self {
        Self { facts, counts: BTreeMap::new() }
    }

    /// Counts a use, and logs the first one of each client, user and queue.
    pub(crate) fn note(&mut self, feature: DeprecatedFeature, client: &str, user: &str, queue: &str) {
        let key = (feature, printable(client).to_string(), user.to_owned(), queue.to_owned());
        let is_full = self.counts.len() >= ENTRIES_MAX;
        if let Some(count) = self.counts.get_mut(&key) {
            *count += 1;
            return;
        }
        if is_full {
            return;
        }
        let (user, queue, version) = (printable(user), printable(queue), self.facts.version);
        tracing::warn!(version, client = %key.1, %user, %queue, "RabbitMQ changes this: {feature}");
        self.counts.insert(key, 1);
    }

    pub(crate) fn all(&self) -> Vec<Deprecation> {
        let deprecation = |((feature, client, user, queue), count): (&Key, &u64)| Deprecation {
            feature: *feature,
            client: client.clone(),
            user: user.clone(),
            queue: queue.clone(),
            count: *count,
        };
        self.counts.iter().map(deprecation).collect()
    }
}

/// Further clients, users and queues are not counted: at most 10 MB.
const ENTRIES_MAX: usize = 10_000;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::core::profile::Profile;

    #[test]
    fn uses_are_counted_by_client_and_queue_within_a_bound() {
        let mut deprecations = Deprecations::against(Profile::RabbitMq4_3.facts());
        for queue in ["a", "b", "a"] {
            deprecations.note(DeprecatedFeature::QueueMode, &"n\n".repeat(1_000), "guest", queue);
        }
        let counts: Vec<_> = deprecations.all().into_iter().map(|one| (one.queue, one.count)).collect();
        assert_eq!(counts, [("a".to_owned(), 2), ("b".to_owned(), 1)]);
        assert!(deprecations.all().iter().all(|one| one.client.len() < 600 && !one.client.contains('\n')));
        for number in 0..ENTRIES_MAX {
            deprecations.note(DeprecatedFeature::GlobalQos, "", "guest", &number.to_string());
        }
        deprecations.note(DeprecatedFeature::QueueMode, "another", "guest", "a");
        assert_eq!(deprecations.all().len(), ENTRIES_MAX);
    }
}
