//! The addresses of direct replies, and their names. Pure.
//!
//! ```text
//!  amq.rabbitmq.reply-to.AAAAAAAAAAEAAAAB.3mV1wq0SJk0pYVyQ8rTt1A==
//!                        connection, channel  nonce, both in base64 as in RabbitMQ
//! ```

use base64::{Engine, engine::general_purpose::STANDARD as BASE64};

use crate::broker::core::interface::ConnectionId;

/// A channel of a connection, as opposed to a later connection with the same id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ReplyAddress {
    pub(crate) connection: ConnectionId,
    pub(crate) nonce: u128,
    pub(crate) channel: u16,
}

impl ReplyAddress {
    /// The routing key that replies are published with.
    pub(crate) fn name(&self) -> String {
        let place = u128::from(self.connection.0 as u64) << 32 | u128::from(self.channel);
        let place: [u8; 16] = place.to_be_bytes();
        let mut name = String::with_capacity(DIRECT_REPLY_TO.len() + 42);
        name.push_str(DIRECT_REPLY_TO);
        for part in [&place[16 - PLACE_BYTES..], &self.nonce.to_be_bytes()] {
            name.push('.');
            BASE64.encode_string(part, &mut name);
        }
        name
    }

    /// Reads the part of a name after `amq.rabbitmq.reply-to.`.
    pub(crate) fn parse(token: &str) -> Option<Self> {
        let (place, nonce) = token.split_once('.')?;
        let place: [u8; PLACE_BYTES] = decode(place)?;
        let (connection, channel) = place.split_first_chunk()?;
        let channel = u32::from_be_bytes(*channel.first_chunk()?);
        Some(Self {
            connection: ConnectionId(usize::try_from(u64::from_be_bytes(*connection)).ok()?),
            nonce: u128::from_be_bytes(decode(nonce)?),
            channel: u16::try_from(channel).ok()?,
        })
    }
}

/// The part of a name after `amq.rabbitmq.reply-to.`; `None` for another name.
pub(crate) fn reply_token_of(name: &str) -> Option<&str> {
    name.strip_prefix(DIRECT_REPLY_TO)?.strip_prefix('.')
}

/// Whether a name is the address of a channel that may receive direct replies.
pub(crate) fn is_address(name: &str) -> bool {
    reply_token_of(name).and_then(ReplyAddress::parse).is_some()
}

/// Whether a token that is no address has the form of one: two parts, as RabbitMQ counts them.
pub(crate) fn is_made_up(token: &str) -> bool {
    token.split('.').filter(|part| !part.is_empty()).count() == 2
}

/// Exactly `N` octets, with canonical padding.
fn decode<const N: usize>(text: &str) -> Option<[u8; N]> {
    BASE64.decode(text).ok()?.try_into().ok()
}

/// The name that stands for the consumer of direct replies on the publishing channel.
pub(crate) const DIRECT_REPLY_TO: &str = "amq.rabbitmq.reply-to";
/// The connection's number in 8 octets and the channel's in 4.
const PLACE_BYTES: usize = 12;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_read_from_its_name() {
        for (connection, nonce, channel) in
            [(0, 0, 1), (1, 0x0123_4567_89AB_CDEF, 2), (usize::MAX, u128::MAX, u16::MAX)]
        {
            let address = ReplyAddress { connection: ConnectionId(connection), nonce, channel };
            let name = address.name();
            assert_eq!(reply_token_of(&name).and_then(ReplyAddress::parse), Some(address), "{name}");
        }
    }

    #[test]
    fn an_address_is_written_as_rabbitmq_does() {
        let address = ReplyAddress { connection: ConnectionId(1), nonce: 0xFFFF << 112, channel: 1 };
        assert_eq!(address.name(), "amq.rabbitmq.reply-to.AAAAAAAAAAEAAAAB.//8AAAAAAAAAAAAAAAAAAA==");
    }

    #[test]
    fn a_malformed_token_is_refused() {
        let good = "AAAAAAAAAAEAAAAB.//8AAAAAAAAAAAAAAAAAAA==";
        assert!(ReplyAddress::parse(good).is_some());
        let bad = [
            "",
            ".",
            "x.y",
            "AAAAAAAAAAEAAAAB",
            &good[1..],
            &good[..40],
            &good.replace('B', "-"),
            &good.replace("A==", "B=="),
        ];
        for token in bad {
            assert_eq!(ReplyAddress::parse(token), None, "{token}");
        }
    }
}
