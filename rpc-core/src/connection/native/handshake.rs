//! From a socket to an open connection (AMQP 0-9-1 §2.2.4).

use amq_protocol::{
    auth::{Credentials, SASLMechanism},
    protocol::{AMQPClass, connection, connection::AMQPMethod},
    types::{AMQPValue, FieldTable},
};
use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::socket::Socket;
use crate::{
    connection::{
        fields::short,
        options::{ConnectionOptions, HEARTBEAT_S},
        uri::{AuthMechanism, Endpoint},
    },
    error::Error,
    wire::{
        Decoder, FRAME_MIN_SIZE, FrameKind, Method, OutBuffer, PROTOCOL_HEADER, Role, read_method, table::DEPTH_MAX,
    },
};

/// The limits that both sides agreed on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tuning {
    pub(super) channel_max: u16,
    pub(super) frame_max: u32,
    /// 0 is none.
    pub(super) heartbeat_s: u16,
}

/// An open connection, and the bytes that were read beyond the handshake.
pub(super) struct Opened {
    pub(super) socket: Socket,
    pub(super) buffer: BytesMut,
    pub(super) tuning: Tuning,
}

/// Opens the connection. The caller has a deadline for it.
pub(super) async fn open(socket: Socket, endpoint: &Endpoint, options: &ConnectionOptions) -> Result<Opened, Error> {
    let mut peer = Peer { socket, buffer: BytesMut::new(), endpoint };
    peer.write(&PROTOCOL_HEADER).await?;
    let mechanism = match peer.method().await? {
        AMQPMethod::Start(start) => mechanism(endpoint, start.mechanisms.as_bytes())?,
        other => return Err(peer.unexpected(&other)),
    };
    peer.send(AMQPMethod::StartOk(start_ok(endpoint, options, mechanism))).await?;
    let tuning = match peer.method().await? {
        AMQPMethod::Tune(tune) => agree(&tune, endpoint),
        other => return Err(peer.unexpected(&other)),
    };
    let Tuning { channel_max, frame_max, heartbeat_s } = tuning;
    peer.send(AMQPMethod::TuneOk(connection::TuneOk { channel_max, frame_max, heartbeat: heartbeat_s })).await?;
    peer.send(AMQPMethod::Open(connection::Open { virtual_host: short(&endpoint.vhost)? })).await?;
    match peer.method().await? {
        AMQPMethod::OpenOk(_) => Ok(Opened { socket: peer.socket, buffer: peer.buffer, tuning }),
        other => Err(peer.unexpected(&other)),
    }
}

/// The limits of the broker, or of the URI where they are narrower; 0 is no limit (AMQP 0-9-1 §1.4.2.6).
fn agree(tune: &connection::Tune, endpoint: &Endpoint) -> Tuning {
    let channel_max = narrower(tune.channel_max.into(), endpoint.channel_max.map(Into::into));
    let frame_max = narrower(tune.frame_max, endpoint.frame_max);
    Tuning {
        channel_max: u16::try_from(channel_max).ok().filter(|limit| *limit > 0).unwrap_or(u16::MAX),
        frame_max: if frame_max == 0 { FRAME_MAX } else { frame_max.clamp(FRAME_MIN_SIZE, FRAME_MAX) },
        heartbeat_s: match endpoint.heartbeat_s {
            Some(0) => 0,
            wanted => narrower(tune.heartbeat.into(), Some(wanted.unwrap_or(HEARTBEAT_S).into())) as u16,
        },
    }
}

fn narrower(offered: u32, wanted: Option<u32>) -> u32 {
    match wanted.filter(|wanted| *wanted > 0) {
        Some(wanted) if offered == 0 || wanted < offered => wanted,
        _ => offered,
    }
}

/// The mechanism of the URI, if the broker offers it. No other one is taken in its place: ANONYMOUS, which RabbitMQ 4 offers,
/// would log in as another user.
fn mechanism(endpoint: &Endpoint, offered: &[u8]) -> Result<SASLMechanism, Error> {
    let mechanism = match endpoint.auth_mechanism.unwrap_or_default() {
        AuthMechanism::Plain => SASLMechanism::Plain,
        AuthMechanism::AmqPlain => SASLMechanism::AMQPlain,
        AuthMechanism::Anonymous => SASLMechanism::Anonymous,
        AuthMechanism::External => SASLMechanism::External,
        AuthMechanism::RabbitCrDemo => {
            let reason = "auth_mechanism rabbit-cr-demo needs transport=lapin".to_owned();
            return Err(Error::InvalidUri { reason });
        }
    };
    let name = mechanism.name();
    if offered.split(u8::is_ascii_whitespace).any(|one| one == name.as_bytes()) {
        return Ok(mechanism);
    }
    let (address, offered) = (endpoint.address(), offered.escape_ascii());
    let hint = match mechanism {
        SASLMechanism::External => "; EXTERNAL needs a certificate of the client",
        _ => "",
    };
    Err(Error::Configuration(format!(
        "the broker at {address} offers the authentication mechanisms '{offered}' and not {name}; \
         choose one with auth_mechanism in the URI, or enable {name} at the broker{hint}"
    )))
}

fn start_ok(endpoint: &Endpoint, options: &ConnectionOptions, mechanism: SASLMechanism) -> connection::StartOk {
    let credentials = Credentials::new(endpoint.user.as_str().into(), endpoint.password.as_str().into());
    let mut capabilities = FieldTable::default();
    for name in [
        "publisher_confirms",
        "exchange_exchange_bindings",
        "basic.nack",
        "consumer_cancel_notify",
        "connection.blocked",
        "authentication_failure_close",
    ] {
        capabilities.insert(name.into(), AMQPValue::Boolean(true));
    }
    let mut client_properties = FieldTable::default();
    for (name, text) in [
        ("product", env!("CARGO_PKG_NAME")),
        ("version", env!("CARGO_PKG_VERSION")),
        ("platform", "Rust"),
        ("connection_name", &options.name),
    ] {
        client_properties.insert(name.into(), AMQPValue::LongString(text.into()));
    }
    client_properties.insert("capabilities".into(), AMQPValue::FieldTable(capabilities));
    connection::StartOk {
        client_properties,
        mechanism: mechanism.name().into(),
        response: credentials.sasl_auth_string(mechanism),
        locale: "en_US".into(),
    }
}

/// The broker, one method at a time.
struct Peer<'a> {
    socket: Socket,
    buffer: BytesMut,
    endpoint: &'a Endpoint,
}

impl Peer<'_> {
    async fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        let written = async {
            self.socket.write_all(bytes).await?;
            self.socket.flush().await
        };
        written.await.map_err(|error| self.unreachable(&error.to_string()))
    }

    async fn send(&mut self, method: AMQPMethod) -> Result<(), Error> {
        let mut out = OutBuffer::default();
        out.method(0, &AMQPClass::Connection(method));
        let mut segments = std::collections::VecDeque::new();
        out.take_into(&mut segments);
        for segment in segments {
            self.write(&segment).await?;
        }
        Ok(())
    }

    async fn method(&mut self) -> Result<AMQPMethod, Error> {
        let decoder = Decoder::new(FRAME_MIN_SIZE.max(HANDSHAKE_FRAME_MAX));
        loop {
            if self.buffer.starts_with(b"AMQP") {
                return Err(self.unreachable("it speaks another version of AMQP than 0-9-1"));
            }
            let (batch, error) = decoder.cut(&mut self.buffer, 1);
            if let Some(error) = error {
                return Err(self.unreachable(&format!("it sent bytes that are no AMQP frame: {error:?}")));
            }
            if let Some(frame) = batch.frames().next() {
                if frame.kind != FrameKind::Method {
                    continue;
                }
                return match read_method(frame.payload, Role::Server, DEPTH_MAX) {
                    Ok(Method::Other(class)) => match *class {
                        AMQPClass::Connection(method) => Ok(method),
                        other => Err(self.unreachable(&format!("it sent {other:?} before the connection was open"))),
                    },
                    _ => Err(self.unreachable("it sent a frame that is no method of a connection")),
                };
            }
            match self.socket.read_buf(&mut self.buffer).await {
                Ok(0) => return Err(self.unreachable("it closed the socket")),
                Ok(_) => {}
                Err(error) => return Err(self.unreachable(&error.to_string())),
            }
        }
    }

    fn unreachable(&self, reason: &str) -> Error {
        self.endpoint.unreachable(reason)
    }

    /// The error of an unexpected method: a refusal, or a violation of the protocol.
    fn unexpected(&self, method: &AMQPMethod) -> Error {
        let AMQPMethod::Close(close) = method else {
            return self.unreachable(&format!("it sent {method:?} out of turn"));
        };
        self.endpoint.refusal(close.reply_code, close.reply_text.as_str())
    }
}

/// RabbitMQ's default. Larger frames gain nothing.
const FRAME_MAX: u32 = 131_072;
/// The limit before the sizes are agreed on.
const HANDSHAKE_FRAME_MAX: u32 = 65_536;
