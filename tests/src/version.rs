//! The version that a broker reports, and what a case has to know of it.

use std::{net::ToSocketAddrs, sync::mpsc, time::Duration};

use crate::{
    address_of,
    wire::{self, Received, Socket},
};

/// Where versions of RabbitMQ differ in what a case asserts. One table, so that a new version is one line more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Expectations {
    /// The largest message that the broker takes by default, in bytes.
    pub message_max_bytes: usize,
    /// The beginning of a refusal for want of the right to configure.
    pub configure_refused: &'static str,
    /// The reply_code for an exchange type that there is not: 503 closes the connection, 406 the channel.
    pub unknown_exchange_type: u16,
    /// Whether a `delivery_mode` that is neither 1 nor 2 closes the channel.
    pub refuses_delivery_modes: bool,
    /// Whether a passive declaration needs some right on what is declared.
    pub looks_need_a_right: bool,
}

impl Expectations {
    /// Those of the version that starts like one in the table. A version behind the table's last one counts as that.
    ///
    /// # Panics
    /// When the version is older than each of the table.
    pub fn of(version: &str) -> Self {
        let numbers = |text: &str| -> Vec<u32> { text.split('.').map_while(|part| part.parse().ok()).collect() };
        let line = VERSIONS.iter().rev().find(|(from, _)| numbers(from) <= numbers(version));
        line.unwrap_or_else(|| panic!("no expectations for RabbitMQ {version}")).1
    }
}

/// Each line holds from its version on.
const VERSIONS: [(&str, Expectations); 3] = [
    (
        "3.10",
        Expectations {
            message_max_bytes: 128 << 20,
            configure_refused: "ACCESS_REFUSED - access to ",
            unknown_exchange_type: 503,
            refuses_delivery_modes: true,
            looks_need_a_right: false,
        },
    ),
    (
        "4.0",
        Expectations {
            message_max_bytes: 16 << 20,
            configure_refused: "ACCESS_REFUSED - configure access to ",
            unknown_exchange_type: 406,
            refuses_delivery_modes: false,
            looks_need_a_right: false,
        },
    ),
    (
        "4.3",
        Expectations {
            message_max_bytes: 16 << 20,
            configure_refused: "ACCESS_REFUSED - configure access to ",
            unknown_exchange_type: 406,
            refuses_delivery_modes: false,
            looks_need_a_right: true,
        },
    ),
];

/// The `version` that the broker at `uri`, `amqp://…`, names in `connection.start`.
///
/// # Panics
/// When it sends no such method.
pub fn version_at(uri: &str) -> String {
    let address = address_of(uri).to_socket_addrs().expect("host:port").next().expect("an address");
    let (sender, events) = mpsc::channel();
    let socket = Socket::connect(address, move |received| drop(sender.send(received))).expect("it listens");
    socket.send(b"AMQP\0\0\x09\x01").expect("it reads");
    let received = events.recv_timeout(START_LIMIT).expect("it answers");
    let Received::Frame { kind, payload, .. } = received else { panic!("no connection.start: {received:?}") };
    let start = wire::show(kind, &payload);
    let (_, version) = start.split_once(" version: \"").expect("connection.start names the version");
    version.split('"').next().unwrap_or_default().to_owned()
}

const START_LIMIT: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_has_the_expectations_of_the_last_line_that_is_not_newer() {
        let max = |version| Expectations::of(version).message_max_bytes >> 20;
        assert_eq!(["3.10.8", "3.13.7", "4.0.5", "4.3.6", "5.0.0"].map(max), [128, 128, 16, 16, 16]);
        assert!(
            !Expectations::of("4.10.0").refuses_delivery_modes && Expectations::of("3.100.0").refuses_delivery_modes
        );
    }
}
