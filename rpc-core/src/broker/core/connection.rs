//! The connection class: start, tune, open, close.

use std::time::Duration;

use amq_protocol::{
    protocol::{
        AMQPClass,
        connection::{AMQPMethod, CloseOk, Open, OpenOk, Start, StartOk, Tune, TuneOk, UpdateSecretOk},
    },
    types::{AMQPValue, FieldTable, parsing},
};

use super::{
    ConnectionId, Core, Fault, Flow, Now,
    session::{Capabilities, Stage},
};
use crate::wire::FRAME_MIN_SIZE;

impl Core {
    pub(super) fn send_start(&mut self, id: ConnectionId, version_0_8: bool) {
        let (version_major, version_minor) = if version_0_8 { (8, 0) } else { (0, 9) };
        let start = Start {
            version_major,
            version_minor,
            server_properties: server_properties(version_0_8),
            mechanisms: "AMQPLAIN PLAIN".into(),
            locales: "en_US".into(),
        };
        self.sessions.send(id, 0, &AMQPClass::Connection(AMQPMethod::Start(start)));
    }

    pub(super) fn connection_method(&mut self, id: ConnectionId, method: AMQPMethod, now: Now) -> Result<Flow, Fault> {
        let stage = self.session_mut(id)?.stage;
        match (stage, method) {
            (Stage::AwaitStartOk, AMQPMethod::StartOk(start_ok)) => self.start_ok(id, &start_ok),
            (Stage::AwaitTuneOk, AMQPMethod::TuneOk(tune_ok)) => self.tune_ok(id, &tune_ok),
            (Stage::AwaitOpen, AMQPMethod::Open(open)) => self.open_vhost(id, &open),
            (_, AMQPMethod::Close(_)) => {
                self.end_batch(id);
                let freed = self.end_channels(id, now);
                self.deliver_all(id, freed, now);
                // Its exclusive queues go with the connection, in `Core::close`.
                self.sessions.send(id, 0, &AMQPClass::Connection(AMQPMethod::CloseOk(CloseOk {})));
                Ok(Flow::Close)
            }
            (Stage::Open, AMQPMethod::UpdateSecret(_)) => {
                let ok = AMQPMethod::UpdateSecretOk(UpdateSecretOk {});
                self.sessions.send(id, 0, &AMQPClass::Connection(ok));
                Ok(Flow::Continue)
            }
            _ => self.unexpected_method(id),
        }
    }

    /// RabbitMQ tells a client it knows what is wrong; one that has not introduced itself is cut off after a pause.
    pub(super) fn unexpected_method(&mut self, id: ConnectionId) -> Result<Flow, Fault> {
        match self.session_mut(id)?.stage {
            Stage::Open => Err(Fault::unexpected_when_running()),
            _ => Ok(Flow::ClosePaused(REFUSED_PAUSE)),
        }
    }

    fn start_ok(&mut self, id: ConnectionId, start_ok: &StartOk) -> Result<Flow, Fault> {
        let mechanism = start_ok.mechanism.as_str();
        let capabilities = Capabilities::read(&start_ok.client_properties);
        let Some(credentials) = credentials(mechanism, start_ok.response.as_bytes()) else {
            return Ok(Flow::ClosePaused(REFUSED_PAUSE));
        };
        let is_known = credentials
            .as_ref()
            .is_some_and(|(user, password)| self.rules.users.get(user).is_some_and(|known| known == password));
        let Some((user, _)) = credentials.filter(|_| is_known) else {
            tracing::warn!(mechanism, "login refused");
            if capabilities.authentication_failure_close {
                return Err(Fault::authentication_refused(mechanism));
            }
            return Ok(Flow::ClosePaused(REFUSED_PAUSE));
        };
        let tune = Tune {
            channel_max: self.rules.channel_max,
            frame_max: self.rules.frame_max,
            heartbeat: self.rules.heartbeat_s,
        };
        let session = self.session_mut(id)?;
        session.capabilities = capabilities;
        session.user = user;
        session.stage = Stage::AwaitTuneOk;
        self.sessions.send(id, 0, &AMQPClass::Connection(AMQPMethod::Tune(tune)));
        Ok(Flow::Continue)
    }

    fn tune_ok(&mut self, id: ConnectionId, tune_ok: &TuneOk) -> Result<Flow, Fault> {
        let TuneOk { channel_max, frame_max, heartbeat } = *tune_ok;
        let is_agreed = (1..=self.rules.channel_max).contains(&channel_max)
            && (FRAME_MIN_SIZE..=self.rules.frame_max).contains(&frame_max);
        if !is_agreed {
            tracing::warn!(channel_max, frame_max, "tune-ok asks for more than tune offered");
            return Ok(Flow::ClosePaused(REFUSED_PAUSE));
        }
        let session = self.session_mut(id)?;
        session.channel_max = channel_max;
        session.frame_max = frame_max;
        session.heartbeat_s = heartbeat;
        session.stage = Stage::AwaitOpen;
        Ok(Flow::Continue)
    }

    fn open_vhost(&mut self, id: ConnectionId, open: &Open) -> Result<Flow, Fault> {
        let name = open.virtual_host.as_str();
        let Some(vhost) = self.vhosts.iter().position(|vhost| &*vhost.name == name) else {
            return Err(Fault::not_allowed(format!("vhost {name} not found")).at((10, 40)));
        };
        let session = self.session_mut(id)?;
        session.vhost = Some(vhost);
        session.stage = Stage::Open;
        self.sessions.send(id, 0, &AMQPClass::Connection(AMQPMethod::OpenOk(OpenOk {})));
        Ok(Flow::Continue)
    }
}

/// User and password; `None` for a mechanism nobody offered, `Some(None)` for a response that cannot be read.
#[allow(clippy::option_option)]
fn credentials(mechanism: &str, response: &[u8]) -> Option<Option<(String, String)>> {
    match mechanism {
        "PLAIN" => {
            let mut parts = response.splitn(3, |byte| *byte == 0).skip(1).map(|part| String::from_utf8(part.to_vec()));
            Some(match (parts.next(), parts.next()) {
                (Some(Ok(user)), Some(Ok(password))) => Some((user, password)),
                _ => None,
            })
        }
        "AMQPLAIN" => {
            // A field table without its length.
            let mut table = u32::try_from(response.len()).unwrap_or(u32::MAX).to_be_bytes().to_vec();
            table.extend_from_slice(response);
            let Ok((_, table)) = parsing::parse_field_table(&table[..]) else {
                return Some(None);
            };
            let text = |name: &str| match table.inner().get(name) {
                Some(AMQPValue::LongString(text)) => String::from_utf8(text.as_bytes().to_vec()).ok(),
                _ => None,
            };
            Some(text("LOGIN").zip(text("PASSWORD")))
        }
        _ => None,
    }
}

/// Clients switch features on by the capabilities: only what works is claimed. Some test suites insist on the product.
fn server_properties(version_0_8: bool) -> FieldTable {
    let mut capabilities = FieldTable::default();
    if !version_0_8 {
        for capability in CAPABILITIES {
            capabilities.insert(capability.into(), AMQPValue::Boolean(true));
        }
    }
    let mut properties = FieldTable::default();
    let text = |text: &str| AMQPValue::LongString(text.into());
    properties.insert("capabilities".into(), AMQPValue::FieldTable(capabilities));
    properties.insert("cluster_name".into(), text("rpc-core@localhost"));
    properties.insert("copyright".into(), text("the rpc-core developers"));
    properties.insert("information".into(), text("rpc-core's bundled broker"));
    properties.insert("platform".into(), text("Rust"));
    properties.insert("product".into(), text("RabbitMQ"));
    properties.insert("version".into(), text(COMPATIBLE_VERSION));
    properties
}

const CAPABILITIES: [&str; 9] = [
    "publisher_confirms",
    "exchange_exchange_bindings",
    "basic.nack",
    "consumer_cancel_notify",
    // Kept by never blocking anybody.
    "connection.blocked",
    "consumer_priorities",
    "authentication_failure_close",
    "per_consumer_qos",
    "direct_reply_to",
];

/// The RabbitMQ whose behaviour this broker has.
const COMPATIBLE_VERSION: &str = "3.10.8";

/// RabbitMQ: those whose handshake fails are kept waiting.
pub(super) const REFUSED_PAUSE: Duration = Duration::from_secs(3);
