//! Names of OpenTelemetry's conventions: those for RPC, and those for messaging, which one-way methods have.
//!
//! Both are still being written, so no other file spells one: a renamed attribute changes here alone. The RPC conventions are those of
//! semantic-conventions 1.42 (release candidate), the messaging ones are in development.

/// The system: ours, as `grpc` is one.
pub(crate) const SYSTEM: &str = "rpc.system.name";
/// The value of [`SYSTEM`].
pub(crate) const SYSTEM_VALUE: &str = "rpc_amqp";
/// `service/method`.
pub(crate) const METHOD: &str = "rpc.method";
/// The code of the response, `ok` for a result. Its name is `rpc.status_code` in the conventions after 1.44.
pub(crate) const STATUS_CODE: &str = "rpc.response.status_code";
/// The code of an error.
pub(crate) const ERROR_TYPE: &str = "error.type";
/// The value of [`ERROR_TYPE`] for an error that has no name.
pub(crate) const OTHER: &str = "_OTHER";
/// The broker's host, in a client.
pub(crate) const SERVER_ADDRESS: &str = "server.address";
pub(crate) const SERVER_PORT: &str = "server.port";
/// How often the call was sent, if more than once. Ours.
pub(crate) const ATTEMPTS: &str = "rpc_amqp.attempts";
/// Whether the broker has delivered the request before. Ours.
pub(crate) const REDELIVERED: &str = "rpc_amqp.redelivered";

/// The service of a request, where its method is not known. Ours.
#[cfg(feature = "metrics")]
pub(crate) const SERVICE: &str = "rpc_amqp.service";
/// The stage of a timeout. Ours.
#[cfg(feature = "metrics")]
pub(crate) const STAGE: &str = "rpc_amqp.stage";

/// The messaging system.
pub(crate) const MESSAGING_SYSTEM: &str = "messaging.system";
/// The value of [`MESSAGING_SYSTEM`]: that of the protocol's best known broker.
pub(crate) const MESSAGING_SYSTEM_VALUE: &str = "rabbitmq";
/// The operation in AMQP's words.
pub(crate) const OPERATION_NAME: &str = "messaging.operation.name";
/// Values of [`OPERATION_NAME`].
pub(crate) const PUBLISH: &str = "publish";
pub(crate) const CONSUME: &str = "consume";
/// The operation in OpenTelemetry's words.
pub(crate) const OPERATION_TYPE: &str = "messaging.operation.type";
/// Values of [`OPERATION_TYPE`].
pub(crate) const SEND: &str = "send";
pub(crate) const PROCESS: &str = "process";
/// `exchange:routing_key` of a producer, `exchange:routing_key:queue` of a consumer.
pub(crate) const DESTINATION: &str = "messaging.destination.name";
pub(crate) const ROUTING_KEY: &str = "messaging.rabbitmq.destination.routing_key";
pub(crate) const MESSAGE_ID: &str = "messaging.message.id";

/// Fields that tracing-opentelemetry reads: the span's name, its kind, and its status.
pub(crate) const SPAN_NAME: &str = "otel.name";
pub(crate) const SPAN_KIND: &str = "otel.kind";
pub(crate) const SPAN_STATUS: &str = "otel.status_code";
/// The value of [`SPAN_STATUS`] for a failure.
pub(crate) const SPAN_ERROR: &str = "error";
