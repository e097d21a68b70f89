//! Pings and their answers ↔ AMQP properties.

use std::{borrow::Cow, time::Duration};

use super::{SERVICE_VERSION_HEADER, whole_milliseconds};
use crate::{
    connection::amqp::{DIRECT_REPLIES, HeaderValue, Properties},
    service::ServiceDescriptor,
};

/// `type` of a question whether pools serve.
const PING: &str = "rpc.ping";
/// `type` of its answer.
const PONG: &str = "rpc.pong";
/// The pool that answers a ping: a uuid.
pub(crate) const POOL_HEADER: &str = "rpc-pool";

/// The properties of a ping, which waits at most that long.
pub(crate) fn ping_properties(wait: Duration, user_id: Option<&str>) -> Properties<'_> {
    Properties {
        kind: Some(PING),
        reply_to: Some(DIRECT_REPLIES.as_bytes()),
        expiration_ms: Some(whole_milliseconds(wait)),
        user_id,
        ..Properties::default()
    }
}

/// The properties of a ping that wants no answer: whether the broker returns it says whether there is a pool.
pub(crate) fn silent_ping_properties(wait: Duration) -> Properties<'static> {
    Properties { kind: Some(PING), expiration_ms: Some(whole_milliseconds(wait)), ..Properties::default() }
}

/// The properties of an answer to a ping. The correlation_id is the asker's.
pub(crate) fn pong_properties<'a>(
    service: &ServiceDescriptor,
    pool: &str,
    correlation_id: Option<&'a [u8]>,
    user_id: Option<&'a str>,
) -> Properties<'a> {
    let headers =
        vec![(POOL_HEADER.into(), HeaderValue::from(pool)), (SERVICE_VERSION_HEADER.into(), service.version.into())];
    Properties {
        content_type: Some("application/json"),
        kind: Some(PONG),
        correlation_id: correlation_id.map(Cow::Borrowed),
        expiration_ms: Some(PONG_WAIT_MS),
        user_id,
        headers,
        ..Properties::default()
    }
}

/// How long an answer to a ping waits in a queue that nobody reads.
const PONG_WAIT_MS: u64 = 10_000;
