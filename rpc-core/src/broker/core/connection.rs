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
    ConnectionId, Core, Fault, Flow, Now, Peer, User,
    session::{Capabilities, Stage},
};
use crate::wire::FRAME_MIN_SIZE;

impl Core {
    pub(super) fn send_start(&mut self, id: ConnectionId, version_0_8: bool) {
        let (version_major, version_minor) = if version_0_8 { (8, 0) } else { (0, 9) };
        let has_certificate = self.sessions.get(id).is_some_and(|session| session.peer.certificate_name.is_some());
        let mut mechanisms = "AMQPLAIN PLAIN".to_owned();
        if has_certificate {
            mechanisms.push(' ');
            mechanisms.push_str(EXTERNAL);
        }
        let start = Start {
            version_major,
            version_minor,
            server_properties: server_properties(version_0_8),
            mechanisms: mechanisms.into(),
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
                self.end_batch(id, now);
                self.release(id, now);
                let session = self.session_mut(id)?;
                session.stage = Stage::Closed;
                let farewell = (now.instant + FAREWELL_PAUSE, id, session.nonce);
                self.sessions.farewells.push_back(farewell);
                Ok(Flow::Continue)
            }
            (Stage::Open, AMQPMethod::UpdateSecret(_)) => {
                let ok = AMQPMethod::UpdateSecretOk(UpdateSecretOk {});
                self.sessions.send(id, 0, &AMQPClass::Connection(ok));
                Ok(Flow::Continue)
            }
            _ => self.unexpected_method(id),
        }
    }

    /// Sends the `connection.close-ok`s that are due.
    pub(super) fn send_farewells(&mut self, now: Now) {
        while let Some((due, id, nonce)) = self.sessions.farewells.front().copied()
            && due <= now.instant
        {
            self.sessions.farewells.pop_front();
            if self.sessions.get(id).is_some_and(|session| session.nonce == nonce && session.stage == Stage::Closed) {
                self.send_close_ok(id);
            }
        }
    }

    pub(super) fn send_close_ok(&mut self, id: ConnectionId) {
        self.sessions.send(id, 0, &AMQPClass::Connection(AMQPMethod::CloseOk(CloseOk {})));
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
        let Some(peer) = self.sessions.get(id).map(|session| &session.peer) else { return Ok(Flow::Close) };
        let Some(claim) = claim(mechanism, start_ok.response.as_bytes(), peer) else {
            return Ok(Flow::ClosePaused(REFUSED_PAUSE));
        };
        let Some((name, user)) = self.log_in(mechanism, claim, peer) else {
            if capabilities.authentication_failure_close {
                return Err(Fault::authentication_refused(mechanism));
            }
            return Ok(Flow::ClosePaused(REFUSED_PAUSE));
        };
        let is_impersonator = user.tags.contains("impersonator");
        let tune = Tune {
            channel_max: self.rules.channel_max,
            frame_max: self.rules.frame_max,
            heartbeat: self.rules.heartbeat_s,
        };
        let session = self.session_mut(id)?;
        session.capabilities = capabilities;
        session.client_name = client_name(&start_ok.client_properties);
        session.user = name;
        session.is_impersonator = is_impersonator;
        session.stage = Stage::AwaitTuneOk;
        self.sessions.send(id, 0, &AMQPClass::Connection(AMQPMethod::Tune(tune)));
        Ok(Flow::Continue)
    }

    /// The user a claim is about, if it is true; what is wrong with others is for the log only.
    fn log_in(&self, mechanism: &str, claim: Option<Claim>, peer: &Peer) -> Option<(String, &User)> {
        let Some((name, password)) = claim else {
            tracing::warn!(mechanism, "login refused: the response, or the certificate, names nobody");
            return None;
        };
        let user = self.rules.users.get(&name).filter(|user| password.is_none_or(|password| user.proves(&password)));
        let Some(user) = user else {
            tracing::warn!(mechanism, user = name, "login refused: wrong user or password");
            return None;
        };
        if user.is_loopback_only && !peer.is_loopback {
            tracing::warn!(mechanism, user = name, "login refused: the user can only connect via localhost");
            return None;
        }
        Some((name, user))
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
        let Some(session) = self.sessions.get_mut(id) else { return Ok(Flow::Close) };
        let Some(access) = self.rules.users.get(&session.user).and_then(|user| user.access(name)) else {
            return Err(Fault::vhost_refused(name, &session.user).at((10, 40)));
        };
        session.access = access;
        session.vhost = Some(vhost);
        session.stage = Stage::Open;
        self.sessions.send(id, 0, &AMQPClass::Connection(AMQPMethod::OpenOk(OpenOk {})));
        Ok(Flow::Continue)
    }
}

/// Who a client says it is, and its password unless a certificate has spoken for it already.
type Claim = (String, Option<String>);

/// Reads a response; `None` for a mechanism that does not exist, `Some(None)` when it says nothing.
#[allow(clippy::option_option)]
fn claim(mechanism: &str, response: &[u8], peer: &Peer) -> Option<Option<Claim>> {
    let with_password = |(user, password)| (user, Some(password));
    match mechanism {
        "PLAIN" => Some(plain(response).map(with_password)),
        "AMQPLAIN" => Some(amqplain(response).map(with_password)),
        EXTERNAL => Some(peer.certificate_name.clone().map(|user| (user, None))),
        _ => None,
    }
}

/// What a client calls this connection.
fn client_name(properties: &FieldTable) -> String {
    match properties.inner().get("connection_name") {
        Some(AMQPValue::LongString(name)) => String::from_utf8_lossy(name.as_bytes()).into_owned(),
        _ => String::new(),
    }
}

fn plain(response: &[u8]) -> Option<(String, String)> {
    let mut parts = response.splitn(3, |byte| *byte == 0).skip(1).map(|part| String::from_utf8(part.to_vec()));
    match (parts.next(), parts.next()) {
        (Some(Ok(user)), Some(Ok(password))) => Some((user, password)),
        _ => None,
    }
}

fn amqplain(response: &[u8]) -> Option<(String, String)> {
    // A field table without its length.
    let mut table = u32::try_from(response.len()).unwrap_or(u32::MAX).to_be_bytes().to_vec();
    table.extend_from_slice(response);
    let (_, table) = parsing::parse_field_table(&table[..]).ok()?;
    let text = |name: &str| match table.inner().get(name) {
        Some(AMQPValue::LongString(text)) => String::from_utf8(text.as_bytes().to_vec()).ok(),
        _ => None,
    };
    text("LOGIN").zip(text("PASSWORD"))
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
    "connection.blocked",
    "consumer_priorities",
    "authentication_failure_close",
    "per_consumer_qos",
    "direct_reply_to",
];

/// Offered to those alone whose certificate was verified.
const EXTERNAL: &str = "EXTERNAL";

/// The RabbitMQ whose behaviour this broker has.
const COMPATIBLE_VERSION: &str = "3.10.8";

/// RabbitMQ ends a connection's channels before it answers, which takes it 3 to 40 ms. Some clients lose what they close
/// for when the answer is faster than their own clean-up (aiormq 7.2).
const FAREWELL_PAUSE: Duration = Duration::from_millis(2);
/// RabbitMQ: those whose handshake fails are kept waiting.
pub(super) const REFUSED_PAUSE: Duration = Duration::from_secs(3);
