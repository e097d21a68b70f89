//! The connection class: start, tune, open, close.
//!
//! ```text
//!  start ─► start-ok: login ─► tune ─► tune-ok ─► open: vhost ─► open-ok … close ─► close-ok
//! ```

use std::time::Duration;

use amq_protocol::{
    protocol::{
        AMQPClass,
        connection::{AMQPMethod, CloseOk, Open, OpenOk, Start, StartOk, Tune, TuneOk, UpdateSecretOk},
    },
    types::{AMQPValue, FieldTable},
};

use crate::{
    broker::core::{
        fault::Fault,
        globals::Globals,
        interface::{Now, Peer},
        profile::Facts,
        rules::Rules,
        session::{Capabilities, Session, Stage, access::User, password::PasswordHash},
        vhost::Vhost,
    },
    printable::printable,
    wire::table,
};

/// The reaction to a method of this class.
#[derive(Debug)]
pub(crate) enum Step {
    Ignore,
    Send(AMQPMethod),
    /// Answer a login, after a pause where one is given.
    Answer(Option<Duration>, Result<Tune, Fault>),
    /// Close the socket after a pause, without an explanation.
    Refuse,
    /// Release everything the connection holds, and answer its `connection.close`.
    Close,
}

/// The first method that a client is sent.
pub(crate) fn start(facts: &Facts, peer: &Peer, version_0_8: bool) -> AMQPClass {
    let (version_major, version_minor) = if version_0_8 { (8, 0) } else { (0, 9) };
    let mut mechanisms = facts.mechanisms.to_owned();
    if peer.certificate_name.is_some() {
        mechanisms.push(' ');
        mechanisms.push_str(EXTERNAL);
    }
    AMQPClass::Connection(AMQPMethod::Start(Start {
        version_major,
        version_minor,
        server_properties: server_properties(facts, version_0_8),
        mechanisms: mechanisms.into(),
        locales: "en_US".into(),
    }))
}

/// Handles a method of this class.
pub(crate) fn method(
    session: &mut Session,
    globals: &mut Globals,
    vhosts: &[Vhost],
    method: AMQPMethod,
    now: Now,
) -> Result<Step, Fault> {
    let rules = &globals.rules;
    match (session.stage, method) {
        (Stage::AwaitStartOk, AMQPMethod::StartOk(start_ok)) => Ok(self::start_ok(session, globals, &start_ok, now)),
        (Stage::AwaitTuneOk, AMQPMethod::TuneOk(tune_ok)) => Ok(self::tune_ok(session, rules, &tune_ok)),
        (Stage::AwaitOpen, AMQPMethod::Open(open)) => self::open(session, rules, vhosts, &open),
        (_, AMQPMethod::Close(close)) => {
            let reason = format!("the client closed it: {} {}", close.reply_code, close.reply_text);
            session.end_reason.get_or_insert(reason);
            Ok(Step::Close)
        }
        (Stage::Open, AMQPMethod::UpdateSecret(_)) => Ok(Step::Send(AMQPMethod::UpdateSecretOk(UpdateSecretOk {}))),
        _ => unexpected_method(session),
    }
}

/// A method that does not fit the stage. RabbitMQ tells a client the reason once the limits are negotiated, and
/// disconnects any other after a pause.
pub(crate) fn unexpected_method(session: &Session) -> Result<Step, Fault> {
    match session.stage {
        Stage::Open => Err(Fault::unexpected_method("running")),
        Stage::AwaitOpen => Err(Fault::unexpected_method("opening")),
        _ => Ok(Step::Refuse),
    }
}

/// The answer to `connection.close`.
pub(crate) const fn close_ok() -> AMQPClass {
    AMQPClass::Connection(AMQPMethod::CloseOk(CloseOk {}))
}

fn start_ok(session: &mut Session, globals: &mut Globals, start_ok: &StartOk, now: Now) -> Step {
    let mechanism = start_ok.mechanism.as_str();
    let capabilities = Capabilities::read(&start_ok.client_properties);
    let offered = &globals.rules.facts.mechanisms;
    let is_offered = mechanism == EXTERNAL || offered.split(' ').any(|offered| offered == mechanism);
    let claim = claim(mechanism, start_ok.response.as_bytes(), &session.peer).filter(|_| is_offered);
    let Some(claim) = claim else {
        return Step::Refuse;
    };
    let claimed = claim.as_ref().map(|(user, _)| user.clone()).unwrap_or_default();
    let rules = &globals.rules;
    let user = log_in(rules, mechanism, claim, &session.peer);
    let pause = globals.failed_logins.pause(&session.peer.origin, &claimed, user.is_some(), now.instant);
    let Some((name, user)) = user else {
        return match capabilities.authentication_failure_close {
            true => Step::Answer(pause, Err(Fault::authentication_refused(mechanism))),
            // This one always waits.
            false => Step::Refuse,
        };
    };
    session.capabilities = capabilities;
    session.client_name = client_name(&start_ok.client_properties);
    session.user = name;
    session.is_impersonator = user.tags.contains("impersonator");
    let tune = Tune { channel_max: rules.channel_max, frame_max: rules.frame_max, heartbeat: rules.heartbeat_s };
    Step::Answer(pause, Ok(tune))
}

/// The second method that a client is sent.
pub(crate) const fn tune(tune: Tune) -> AMQPClass {
    AMQPClass::Connection(AMQPMethod::Tune(tune))
}

/// The user of a claim, if the claim is true. Otherwise only the log gives the reason.
fn log_in<'a>(rules: &'a Rules, mechanism: &str, claim: Option<Claim>, peer: &Peer) -> Option<(String, &'a User)> {
    let Some((name, password)) = claim else {
        tracing::warn!(mechanism, "login refused: neither the response nor the certificate names a user");
        return None;
    };
    let known = rules.users.get(&name);
    if known.is_none() {
        // An unknown user takes as long as a wrong password.
        std::hint::black_box(PasswordHash::new(password.as_deref().unwrap_or_default(), [0; 16]));
    }
    let user = known.filter(|user| password.is_none_or(|password| user.proves(&password)));
    let Some(user) = user else {
        tracing::warn!(mechanism, user = %printable(&name), "login refused: wrong user or password");
        return None;
    };
    if user.is_loopback_only && !peer.is_loopback {
        tracing::warn!(mechanism, user = %printable(&name), "login refused: the user can only connect via localhost");
        return None;
    }
    Some((name, user))
}

fn tune_ok(session: &mut Session, rules: &Rules, tune_ok: &TuneOk) -> Step {
    let TuneOk { channel_max, frame_max, heartbeat } = *tune_ok;
    let is_agreed = (1..=rules.channel_max).contains(&channel_max)
        && (rules.facts.frame_min..=rules.frame_max).contains(&frame_max);
    if !is_agreed {
        tracing::warn!(channel_max, frame_max, "tune-ok asks for more than tune offered");
        return Step::Refuse;
    }
    session.channel_max = channel_max;
    session.frame_max = frame_max;
    session.heartbeat_s = heartbeat;
    session.stage = Stage::AwaitOpen;
    Step::Ignore
}

fn open(session: &mut Session, rules: &Rules, vhosts: &[Vhost], open: &Open) -> Result<Step, Fault> {
    let name = open.virtual_host.as_str();
    let Some(vhost) = vhosts.iter().position(|vhost| &*vhost.name == name) else {
        return Err(Fault::not_allowed(format!("vhost {name} not found")).at(OPEN));
    };
    let Some(access) = rules.users.get(&session.user).and_then(|user| user.access(name)) else {
        return Err(Fault::vhost_refused(name, &session.user).at(OPEN));
    };
    session.access = access;
    session.vhost = Some(vhost);
    session.stage = Stage::Open;
    let (user, client, address) = (printable(&session.user), printable(&session.client_name), &session.peer.address);
    tracing::info!(%address, %user, name = %client, vhost = %printable(name), "connection opened");
    Ok(Step::Send(AMQPMethod::OpenOk(OpenOk {})))
}

/// The user that a client claims to be, and its password, unless a certificate has already proved the claim.
type Claim = (String, Option<String>);

/// Reads the response of a mechanism. `None` for an unknown mechanism, `Some(None)` if the response names no user.
#[allow(clippy::option_option)]
fn claim(mechanism: &str, response: &[u8], peer: &Peer) -> Option<Option<Claim>> {
    let with_password = |(user, password)| (user, Some(password));
    match mechanism {
        "PLAIN" => Some(plain(response).map(with_password)),
        "AMQPLAIN" => Some(amqplain(response).map(with_password)),
        // As whom RabbitMQ lets clients in that prove nothing: `anonymous_login_user` and `anonymous_login_pass`.
        "ANONYMOUS" => Some(Some((GUEST.to_owned(), Some(GUEST.to_owned())))),
        EXTERNAL => Some(peer.certificate_name.clone().map(|user| (user, None))),
        _ => None,
    }
}

/// The client's name for the connection.
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
    if !table::check(&table, table::DEPTH_MAX) {
        return None;
    }
    let text = |name: &[u8]| String::from_utf8(table::find(&table, name)?.as_text()?.to_vec()).ok();
    text(b"LOGIN").zip(text(b"PASSWORD"))
}

/// Clients enable features by these capabilities, so only working ones are listed. Some test suites require the product
/// to be `RabbitMQ`.
fn server_properties(facts: &Facts, version_0_8: bool) -> FieldTable {
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
    properties.insert("platform".into(), text(facts.platform));
    properties.insert("product".into(), text("RabbitMQ"));
    properties.insert("version".into(), text(facts.version));
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

/// The user of a client that proves nothing, and its password.
const GUEST: &str = "guest";

/// Offered only to clients whose certificate was verified.
const EXTERNAL: &str = "EXTERNAL";

const OPEN: (u16, u16) = (10, 40);
pub(crate) const CLOSE: (u16, u16) = (10, 50);
pub(crate) const CLOSE_OK: (u16, u16) = (10, 51);

/// RabbitMQ ends a connection's channels before it answers `connection.close`, which takes it 3 to 40 ms. Some clients
/// fail if the answer arrives before their own clean-up (aiormq 7.2).
pub(crate) const CLOSE_OK_PAUSE: Duration = Duration::from_millis(2);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_amqplain_response_may_contain_more_but_not_without_bounds() {
        let nested = |depth: usize| {
            let table = (0..depth).fold(vec![0; 4], |table, _| {
                [&((table.len() + 3) as u32).to_be_bytes()[..], b"\x01kF", &table].concat()
            });
            [b"\x05LOGINS\0\0\0\x03ann\x08PASSWORDS\0\0\0\x01p\x01\xE9F", &table[..]].concat()
        };
        let ann = Some(("ann".to_owned(), "p".to_owned()));
        assert_eq!((amqplain(&nested(0)), amqplain(&nested(100))), (ann.clone(), ann));
        assert_eq!(amqplain(&nested(18_000)), None);
    }
}
