//! [`RedisStore`]: a store in Redis or Valkey.
//!
//! Each operation is one script or one command, so it is atomic:
//!
//! ```text
//!  <prefix><key>   hash: token, nonce, arguments, and reply once it is completed; expires with the claim, then with the answer
//!  <prefix>token   the last fencing token
//! ```

use std::{fmt, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use redis::{
    AsyncConnectionConfig, Client, Cmd, ErrorKind, FromRedisValue, RedisError, ServerErrorKind, Value,
    aio::MultiplexedConnection, cmd,
};
use tokio::{
    sync::Mutex,
    time::{Instant, timeout},
};
use uuid::Uuid;

use super::{
    key::{Fingerprint, Key},
    store::{Claim, DedupeStore, Entry, FencingToken, StoreError},
};

/// A [`DedupeStore`] in Redis 5 or later, or in Valkey; feature `dedupe-redis`.
///
/// It has one connection, which it opens with the first operation and again after a loss. An operation takes at most
/// [`limit`](Self::limit), the opening included. Pools of one process may share one store.
///
/// It is as durable as the server: without `appendonly`, or with replicas that take over before they have everything, an answer or a claim
/// may be lost, and its request executed again. With a `maxmemory` set `maxmemory-policy noeviction`: any other one drops answers.
///
/// ```no_run
/// use std::sync::Arc;
///
/// use rpc_core::{
///     Connection, WorkerPool,
///     dedupe::{RedisStore, StoreError, StoreOptions},
/// };
///
/// # fn example(connection: &Connection) -> Result<WorkerPool, StoreError> {
/// let store = RedisStore::new("redis://127.0.0.1:6379/0")?;
/// Ok(WorkerPool::new(connection).dedupe_store(StoreOptions::new(Arc::new(store))))
/// # }
/// ```
pub struct RedisStore {
    client: Client,
    prefix: String,
    limit: Duration,
    line: Mutex<Line>,
}

/// The connection, if there is one.
#[derive(Default)]
struct Line {
    connection: Option<MultiplexedConnection>,
    /// How many connections there have been.
    number: u64,
    /// When one was opened last, or tried to.
    tried_at: Option<Instant>,
}

impl RedisStore {
    /// A store at `redis://[user:password@]host[:port][/database]`, or at the path of a socket, `unix:///…`. Nothing is connected yet.
    ///
    /// # Errors
    /// A [`StoreError`] when the URL is malformed. `rediss://`, TLS, needs the feature `tokio-rustls-comp` of the crate `redis`.
    pub fn new(url: &str) -> Result<Self, StoreError> {
        let client = Client::open(url).map_err(StoreError::new)?;
        let prefix = "rpc:dedupe:".to_owned();
        Ok(Self { client, prefix, limit: Duration::from_millis(500), line: Mutex::default() })
    }

    /// The beginning of its keys in the database. The default is `rpc:dedupe:`. Pools that are to know of each other need the same one.
    #[must_use]
    pub fn prefix(mut self, prefix: impl Into<String>) -> Self {
        self.prefix = prefix.into();
        self
    }

    /// How long one operation may take. The default is 500 ms. Choose less than [`StoreOptions::limit`](super::StoreOptions::limit), so
    /// that a connection on which nothing arrives is replaced.
    #[must_use]
    pub const fn limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    fn name(&self, key: &Key) -> Vec<u8> {
        [self.prefix.as_bytes(), key.as_bytes()].concat()
    }

    /// A script with one key, and with this argument.
    fn script(&self, script: &str, key: &Key) -> Cmd {
        let mut command = cmd("EVAL");
        command.arg(script).arg(1).arg(self.name(key));
        command
    }

    async fn run<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, StoreError> {
        let mut number = 0;
        let outcome = timeout(self.limit, self.attempts(command, &mut number)).await;
        outcome.unwrap_or_else(|_| {
            // Nothing arrives on it. Somebody who holds the lock is opening another one already.
            if let Ok(mut line) = self.line.try_lock() {
                line.forget(number);
            }
            Err(StoreError::new(format!("no answer from Redis within {:?}", self.limit)))
        })
    }

    /// Sends a command, and once more when the connection was lost: each has the same effect when it is repeated.
    async fn attempts<T: FromRedisValue>(&self, command: &Cmd, number: &mut u64) -> Result<T, StoreError> {
        let mut is_repeated = false;
        loop {
            let (mut connection, of) = self.connection().await?;
            *number = of;
            let error = match command.query_async(&mut connection).await {
                Ok(value) => return Ok(value),
                Err(error) => error,
            };
            if is_of_connection(&error) {
                self.line.lock().await.forget(of);
            }
            if is_repeated || !error.is_connection_dropped() {
                return Err(StoreError::new(error));
            }
            is_repeated = true;
        }
    }

    /// The connection and its number, opened if there is none.
    async fn connection(&self) -> Result<(MultiplexedConnection, u64), StoreError> {
        let mut line = self.line.lock().await;
        if let Some(connection) = &line.connection {
            return Ok((connection.clone(), line.number));
        }
        let now = Instant::now();
        if line.tried_at.is_some_and(|tried_at| now.duration_since(tried_at) < PAUSE) {
            return Err(StoreError::new("the connection to Redis is lost, and was tried a moment ago"));
        }
        line.tried_at = Some(now);
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(self.limit))
            .set_response_timeout(Some(self.limit));
        let opened = self.client.get_multiplexed_async_connection_with_config(&config).await;
        let connection = opened.map_err(StoreError::new)?;
        line.number += 1;
        line.tried_at = None;
        line.connection = Some(connection.clone());
        Ok((connection, line.number))
    }
}

impl Line {
    /// Drops the connection with this number.
    fn forget(&mut self, number: u64) {
        if self.number == number {
            self.connection = None;
        }
    }
}

/// Whether another connection may fare better.
fn is_of_connection(error: &RedisError) -> bool {
    error.is_io_error()
        || error.is_unrecoverable_error()
        || error.kind() == ErrorKind::Server(ServerErrorKind::ReadOnly)
}

#[async_trait]
impl DedupeStore for RedisStore {
    async fn claim(&self, key: &Key, arguments: Fingerprint, lease: Duration) -> Result<Claim, StoreError> {
        let mut command = cmd("EVAL");
        command.arg(CLAIM).arg(2).arg(self.name(key)).arg(format!("{}token", self.prefix));
        // By its nonce a claim whose answer was lost is recognised when it is repeated.
        command.arg(&arguments.to_bytes()[..]).arg(&Uuid::new_v4().as_bytes()[..]).arg(ms(lease));
        match self.run(&command).await? {
            (0, token) => Ok(Claim::Claimed(FencingToken::new(number(&token)?))),
            (1, left) => Ok(Claim::Running { left: Duration::from_millis(number(&left)?) }),
            (2, Value::BulkString(reply)) => Ok(Claim::Completed(reply.into())),
            (3, _) => Ok(Claim::OtherArguments),
            unexpected => Err(StoreError::new(format!("Redis answered with {unexpected:?}"))),
        }
    }

    async fn renew(&self, key: &Key, token: FencingToken, lease: Duration) -> Result<bool, StoreError> {
        self.run(self.script(RENEW, key).arg(token.get()).arg(ms(lease))).await
    }

    async fn complete(&self, key: &Key, token: FencingToken, reply: Bytes, keep: Duration) -> Result<bool, StoreError> {
        self.run(self.script(COMPLETE, key).arg(token.get()).arg(&reply[..]).arg(ms(keep))).await
    }

    async fn release(&self, key: &Key, token: FencingToken) -> Result<bool, StoreError> {
        self.run(self.script(RELEASE, key).arg(token.get())).await
    }

    async fn read(&self, key: &Key) -> Result<Option<Entry>, StoreError> {
        let (token, reply): (Option<u64>, Option<Vec<u8>>) =
            self.run(cmd("HMGET").arg(self.name(key)).arg("token").arg("reply")).await?;
        Ok(match (token, reply) {
            (None, _) => None,
            (Some(_), None) => Some(Entry::Running),
            (Some(_), Some(reply)) => Some(Entry::Completed(reply.into())),
        })
    }
}

impl fmt::Debug for RedisStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The URL may have a password.
        f.debug_struct("RedisStore").field("prefix", &self.prefix).field("limit", &self.limit).finish_non_exhaustive()
    }
}

fn number(value: &Value) -> Result<u64, StoreError> {
    u64::from_redis_value_ref(value).map_err(|error| StoreError::new(error.to_string()))
}

/// A time for PEXPIRE, which takes neither nothing nor all.
fn ms(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX).clamp(1, EXPIRE_MAX_MS)
}

/// Of two claims the later one has the larger token, also after the server has lost its data: none is smaller than its clock.
const CLAIM: &str = "
local held = redis.call('HMGET', KEYS[1], 'token', 'nonce', 'arguments', 'reply')
if held[1] then
    if held[3] ~= ARGV[1] then return {3, 0} end
    if held[4] then return {2, held[4]} end
    if held[2] == ARGV[2] then return {0, held[1]} end
    return {1, math.max(redis.call('PTTL', KEYS[1]), 0)}
end
local now = redis.call('TIME')
local token = math.max((tonumber(redis.call('GET', KEYS[2])) or 0) + 1, tonumber(now[1]) * 1000000 + tonumber(now[2]))
local text = string.format('%.0f', token)
redis.call('SET', KEYS[2], text)
redis.call('HSET', KEYS[1], 'token', text, 'nonce', ARGV[2], 'arguments', ARGV[1])
redis.call('PEXPIRE', KEYS[1], ARGV[3])
return {0, text}
";

const RENEW: &str = "
if redis.call('HGET', KEYS[1], 'token') ~= ARGV[1] or redis.call('HEXISTS', KEYS[1], 'reply') == 1 then return 0 end
return redis.call('PEXPIRE', KEYS[1], ARGV[2])
";

const COMPLETE: &str = "
if redis.call('HGET', KEYS[1], 'token') ~= ARGV[1] then return 0 end
if redis.call('HSETNX', KEYS[1], 'reply', ARGV[2]) == 1 then redis.call('PEXPIRE', KEYS[1], ARGV[3]) end
return 1
";

const RELEASE: &str = "
if redis.call('HGET', KEYS[1], 'token') ~= ARGV[1] or redis.call('HEXISTS', KEYS[1], 'reply') == 1 then return 0 end
return redis.call('DEL', KEYS[1])
";

/// Between two tries to open the connection.
const PAUSE: Duration = Duration::from_millis(100);
/// A year.
const EXPIRE_MAX_MS: u64 = 365 * 86_400_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_that_is_none_is_an_error_and_a_password_is_not_shown() {
        assert!(RedisStore::new("http://x").is_err());
        let store = RedisStore::new("redis://user:secret@127.0.0.1:1/0").unwrap();
        assert!(!format!("{store:?}").contains("secret"), "{store:?}");
    }

    #[test]
    fn times_are_some_that_redis_takes() {
        let times = [Duration::ZERO, Duration::from_millis(30), Duration::MAX].map(ms);
        assert_eq!(times, [1, 30, EXPIRE_MAX_MS]);
    }
}
