//! Names of OpenTelemetry's conventions: those for RPC, and those for messaging, which one-way methods have.
//!
//! Both are still being written, so no other file spells one: a renamed attribute changes here alone. The RPC conventions are those of
//! semantic-conventions 1.42 (release candidate), the messaging ones are in development.

/// The system: ours, as `grpc` is one.
pub(super) const SYSTEM: &str = "rpc.system.name";
/// The value of [`SYSTEM`].
pub(super) const SYSTEM_VALUE: &str = "rpc_amqp";
/// `service/method`.
pub(super) const METHOD: &str = "rpc.method";
/// The code of the response, `ok` for a result. Its name is `rpc.status_code` in the conventions after 1.44.
pub(super) const STATUS_CODE: &str = "rpc.response.status_code";
/// The code of an error.
pub(super) const ERROR_TYPE: &str = "error.type";
/// The value of [`ERROR_TYPE`] for an error that has no name.
pub(super) const OTHER: &str = "_OTHER";
/// The broker's host, in a client.
pub(super) const SERVER_ADDRESS: &str = "server.address";
pub(super) const SERVER_PORT: &str = "server.port";
/// How often the call was sent, if more than once. Ours.
pub(super) const ATTEMPTS: &str = "rpc_amqp.attempts";
/// Whether the broker has delivered the request before. Ours.
pub(super) const REDELIVERED: &str = "rpc_amqp.redelivered";

/// The messaging system.
pub(super) const MESSAGING_SYSTEM: &str = "messaging.system";
/// The value of [`MESSAGING_SYSTEM`]: that of the protocol's best known broker.
pub(super) const MESSAGING_SYSTEM_VALUE: &str = "rabbitmq";
/// The operation in AMQP's words.
pub(super) const OPERATION_NAME: &str = "messaging.operation.name";
/// Values of [`OPERATION_NAME`].
pub(super) const PUBLISH: &str = "publish";
pub(super) const CONSUME: &str = "consume";
/// The operation in OpenTelemetry's words.
pub(super) const OPERATION_TYPE: &str = "messaging.operation.type";
/// Values of [`OPERATION_TYPE`].
pub(super) const SEND: &str = "send";
pub(super) const PROCESS: &str = "process";
/// `exchange:routing_key` of a producer, `exchange:routing_key:queue` of a consumer.
pub(super) const DESTINATION: &str = "messaging.destination.name";
pub(super) const ROUTING_KEY: &str = "messaging.rabbitmq.destination.routing_key";
pub(super) const MESSAGE_ID: &str = "messaging.message.id";

/// Fields that tracing-opentelemetry reads: the span's name, its kind, and its status.
pub(super) const SPAN_NAME: &str = "otel.name";
pub(super) const SPAN_KIND: &str = "otel.kind";
pub(super) const SPAN_STATUS: &str = "otel.status_code";
/// The value of [`SPAN_STATUS`] for a failure.
pub(super) const SPAN_ERROR: &str = "error";
