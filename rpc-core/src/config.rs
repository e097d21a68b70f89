//! Options from configuration: files, environment variables, whatever serde reads.
//!
//! A key is the name of a setter, and its value that of the setter's argument; durations are words, such as `"1m 30s"`. A key that
//! is left out leaves the default, and one that is no setter is refused by name.

use std::{collections::BTreeMap, fmt, time::Duration};

use serde::{
    Deserialize, Deserializer,
    de::{Error, Unexpected, Visitor},
};

use crate::{
    client::{ClientOptions, WhenFull},
    connection::{ConnectionOptions, Transport},
    layer::{RetryBudget, RetryPolicy},
    worker::{AckPolicy, DeadLetterOptions, DedupeOptions, QueueKind, RedeliveryPolicy, WorkerPool},
};

/// Implements `Deserialize` for options: each key calls the setter of that name, or what stands behind `=>`.
macro_rules! keys_are_setters {
    ($options:ident { $($(#[$attribute:meta])* $key:ident: $kind:ty $(=> $setter:expr)?),+ $(,)? }) => {
        impl<'de> Deserialize<'de> for $options {
            /// Keys are the names of the setters, and those left out keep their defaults; durations are words: `"1m 30s"`.
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                #[derive(Deserialize)]
                #[serde(deny_unknown_fields)]
                struct Keys {
                    $(#[serde(default)] $(#[$attribute])* $key: Option<$kind>,)+
                }
                let keys = Keys::deserialize(deserializer)?;
                let options = Self::default();
                $(let options = match keys.$key {
                    Some(value) => set!(options, value, $key $(, $setter)?),
                    None => options,
                };)+
                Ok(options)
            }
        }
    };
}

macro_rules! set {
    ($options:ident, $value:ident, $key:ident) => {
        $options.$key($value)
    };
    ($options:ident, $value:ident, $key:ident, $setter:expr) => {
        $setter($options, $value)
    };
}

keys_are_setters!(ConnectionOptions {
    name: String,
    #[serde(deserialize_with = "duration")]
    connect_timeout: Duration,
    #[serde(deserialize_with = "duration")]
    wait_for_broker: Duration,
    wait_for_access: bool,
    #[serde(deserialize_with = "duration")]
    reconnect_delay_initial: Duration,
    #[serde(deserialize_with = "duration")]
    reconnect_delay_max: Duration,
    reconnect_attempts: Option<u32>,
    outbox_max_bytes: usize,
    transport: Transport,
});

keys_are_setters!(ClientOptions {
    #[serde(deserialize_with = "duration")]
    timeout: Duration,
    max_in_flight: usize,
    when_full: WhenFull,
    max_body_bytes: usize,
    send_user_id: bool,
    reply_users: Vec<String>,
    stats: bool,
    #[serde(deserialize_with = "duration")]
    grace: Duration,
    service_graces: BTreeMap<String, Words> => service_graces,
    retry: RetryPolicy,
    retry_methods: BTreeMap<String, RetryPolicy> => retry_methods,
    retry_budget: RetryBudget,
});

keys_are_setters!(RetryPolicy {
    attempts: u32,
    backoff: Backoff => |policy: Self, backoff: Backoff| policy.backoff(backoff.initial, backoff.max),
    #[serde(deserialize_with = "duration")]
    attempt_timeout: Duration,
    within_retries: bool,
    hedge: bool,
});

keys_are_setters!(DeadLetterOptions {
    length: u32,
    bytes: u32,
    #[serde(deserialize_with = "duration")]
    age: Duration,
});

keys_are_setters!(DedupeOptions { entries: usize, bytes: usize });

/// Keys of [`WorkerPool::options`]: the names of the pool's setters that take no type of the program.
macro_rules! pool_options {
    ($($key:ident: $kind:ty),+ $(,)?) => {
        /// The options that a pool's configuration sets; see [`WorkerPool::options`].
        ///
        /// Each key is the name of a setter of [`WorkerPool`]:
        #[doc = concat!($("`", stringify!($key), "` ",)+)]
        #[derive(Debug, Clone, Default, Deserialize)]
        #[serde(default, deny_unknown_fields)]
        #[non_exhaustive]
        pub struct PoolOptions {
            $($key: Option<$kind>,)+
        }

        impl WorkerPool {
            /// Sets what a configuration sets, and leaves the rest as it is. Setters that follow have the last word.
            ///
            /// ```no_run
            /// # async fn example(pool: rpc_core::WorkerPool, json: &str) -> Result<(), Box<dyn std::error::Error>> {
            /// // {"concurrency": 64, "queue_kind": "quorum", "dead_letters": {"age": "30days"}}
            /// let options: rpc_core::PoolOptions = serde_json::from_str(json)?;
            /// let pool = pool.options(options).start().await?;
            /// # Ok(()) }
            /// ```
            pub fn options(self, options: PoolOptions) -> Self {
                let pool = self;
                $(let pool = match options.$key {
                    Some(value) => pool.$key(value),
                    None => pool,
                };)+
                pool
            }
        }
    };
}

pool_options! {
    concurrency: usize,
    prefetch: u16,
    ack_policy: AckPolicy,
    queue_kind: QueueKind,
    max_priority: u8,
    delivery_limit: u32,
    redelivery_policy: RedeliveryPolicy,
    dead_letters: DeadLetterOptions,
    dedupe: DedupeOptions,
    inline: bool,
    stats: bool,
    users: Vec<String>,
    send_user_id: bool,
    forward_headers: Vec<String>,
}

impl<'de> Deserialize<'de> for RetryBudget {
    /// `{"percent": 10, "min_per_s": 1}`; either may be left out.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Keys {
            percent: Option<u32>,
            min_per_s: Option<u32>,
        }
        let Keys { percent, min_per_s } = Keys::deserialize(deserializer)?;
        let budget = percent.map_or_else(Self::default, Self::percent);
        Ok(match min_per_s {
            Some(min_per_s) => budget.min_per_s(min_per_s),
            None => budget,
        })
    }
}

/// The bounds of the pauses between attempts: a setter with two arguments.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Backoff {
    #[serde(deserialize_with = "required_duration")]
    initial: Duration,
    #[serde(deserialize_with = "required_duration")]
    max: Duration,
}

fn retry_methods(options: ClientOptions, methods: BTreeMap<String, RetryPolicy>) -> ClientOptions {
    methods.into_iter().fold(options, |options, (method, policy)| options.retry_method(method, policy))
}

fn service_graces(options: ClientOptions, services: BTreeMap<String, Words>) -> ClientOptions {
    services.into_iter().fold(options, |options, (service, Words(grace))| options.service_grace(service, grace))
}

/// A duration in words, as a value of its own.
#[derive(Deserialize)]
struct Words(#[serde(deserialize_with = "required_duration")] Duration);

/// A duration in words, where there is one.
fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    required_duration(deserializer).map(Some)
}

/// A duration in words.
fn required_duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    struct Text;
    impl Visitor<'_> for Text {
        type Value = Duration;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a duration with its units, such as \"500ms\", \"2s\" or \"1m 30s\"")
        }

        fn visit_str<E: Error>(self, words: &str) -> Result<Duration, E> {
            humantime::parse_duration(words).map_err(|_| E::invalid_value(Unexpected::Str(words), &self))
        }
    }
    deserializer.deserialize_str(Text)
}

#[cfg(test)]
mod tests {
    use serde::de::DeserializeOwned;
    use serde_json::{Value, json};

    use super::*;

    fn read<T: DeserializeOwned>(options: Value) -> T {
        serde_json::from_value(options).unwrap()
    }

    fn refusal<T: DeserializeOwned>(options: Value) -> String {
        serde_json::from_value::<T>(options).err().unwrap().to_string()
    }

    #[test]
    fn each_key_is_a_setter_and_the_rest_keeps_its_default() {
        let read: ClientOptions = read(json!({
            "timeout": "1m 30s", "max_in_flight": 7, "when_full": "refuse", "max_body_bytes": 9, "send_user_id": true,
            "reply_users": ["stockd"], "stats": true, "grace": "2s", "service_graces": {"stock": "1m"}, "retry": {"attempts": 5, "backoff": {"initial": "20ms", "max": "2s"}, "attempt_timeout": "1s"},
            "retry_methods": {"stock.take": {"attempts": 1}}, "retry_budget": {"min_per_s": 3},
        }));
        let policy = RetryPolicy::default().attempts(5).attempt_timeout(Duration::from_secs(1));
        let set = ClientOptions::default()
            .timeout(Duration::from_secs(90))
            .max_in_flight(7)
            .when_full(WhenFull::Refuse)
            .max_body_bytes(9)
            .send_user_id(true)
            .reply_users(["stockd"])
            .stats(true)
            .grace(Duration::from_secs(2))
            .service_grace("stock", Duration::from_secs(60))
            .retry(policy.backoff(Duration::from_millis(20), Duration::from_secs(2)))
            .retry_method("stock.take", RetryPolicy::none())
            .retry_budget(RetryBudget::default().min_per_s(3));
        assert_eq!(format!("{read:?}"), format!("{set:?}"));
        let nothing: ClientOptions = super::tests::read(json!({}));
        assert_eq!(format!("{nothing:?}"), format!("{:?}", ClientOptions::default()));
    }

    #[test]
    fn connections_are_configured() {
        let read: ConnectionOptions = read(json!({
            "name": "billing", "connect_timeout": "3s", "wait_for_broker": "1min", "wait_for_access": true, "reconnect_delay_initial": "50ms",
            "reconnect_delay_max": "5s", "reconnect_attempts": 4, "outbox_max_bytes": 1_000_000, "transport": "lapin",
        }));
        let set = ConnectionOptions::default()
            .name("billing")
            .connect_timeout(Duration::from_secs(3))
            .wait_for_broker(Duration::from_secs(60))
            .wait_for_access(true)
            .reconnect_delay_initial(Duration::from_millis(50))
            .reconnect_delay_max(Duration::from_secs(5))
            .reconnect_attempts(Some(4))
            .outbox_max_bytes(1_000_000)
            .transport(Transport::Lapin);
        assert_eq!(format!("{read:?}"), format!("{set:?}"));
    }

    #[test]
    fn pools_are_configured() {
        let read: PoolOptions = read(json!({
            "concurrency": 64, "prefetch": 128, "ack_policy": "after_confirmed_reply", "queue_kind": "quorum", "max_priority": 3,
            "delivery_limit": 5, "redelivery_policy": "reply_maybe_executed", "dead_letters": {"length": 5, "age": "30days"},
            "dedupe": {"entries": 10}, "inline": false, "users": ["alice"], "send_user_id": true, "forward_headers": ["tenant"],
        }));
        assert_eq!((read.concurrency, read.queue_kind, read.inline), (Some(64), Some(QueueKind::Quorum), Some(false)));
        let month = Duration::from_secs(30 * 24 * 60 * 60);
        assert_eq!(read.dead_letters, Some(DeadLetterOptions::default().length(5).age(month)));
        assert_eq!(read.redelivery_policy, Some(RedeliveryPolicy::ReplyMaybeExecuted));
    }

    #[test]
    fn unknown_keys_and_durations_without_units_are_refused_by_name() {
        let refused = refusal::<ClientOptions>(json!({"tiemout": "1s"}));
        assert!(refused.starts_with("unknown field `tiemout`, expected one of `timeout`"), "{refused}");
        let refused = refusal::<PoolOptions>(json!({"dead_letters": {"count": 1}}));
        assert!(refused.starts_with("unknown field `count`, expected one of `length`"), "{refused}");
        let refused = refusal::<RetryPolicy>(json!({"attempt_timeout": "5"}));
        let expected =
            "invalid value: string \"5\", expected a duration with its units, such as \"500ms\", \"2s\" or \"1m 30s\"";
        assert_eq!(refused, expected);
        assert!(
            refusal::<ConnectionOptions>(json!({"connect_timeout": 5}))
                .starts_with("invalid type: integer `5`, expected a duration")
        );
        let refused = refusal::<PoolOptions>(json!({"ack_policy": "never"}));
        assert!(refused.starts_with("unknown variant `never`, expected one of `after_reply`"), "{refused}");
    }
}
