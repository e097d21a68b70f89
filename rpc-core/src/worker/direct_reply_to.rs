//! Names of RabbitMQ's direct reply-to, checked before a reply is published to one. Pure.
//!
//! ```text
//!  amq.rabbitmq.reply-to.<base64 of an Erlang pid>.<base64 of a key>     RabbitMQ 3 and 4
//!  amq.rabbitmq.reply-to.<base64 of 12 octets>.<base64 of 16 octets>     the bundled broker
//! ```
//!
//! RabbitMQ decodes the name as a term of its own. For one that is none it closes the whole *connection* (541,
//! `internal-error`), so that one forged `reply_to` would end everything that shares it.

use crate::connection::amqp::DIRECT_REPLIES;

/// Whether a reply to this queue may be published: it is another queue's name, or a well-formed one of these.
pub(super) fn is_safe(reply_to: &str) -> bool {
    match reply_to.strip_prefix(DIRECT_REPLIES).and_then(|rest| rest.strip_prefix('.')) {
        // The bare name is a queue that does not exist.
        None => true,
        Some(token) => is_well_formed(token),
    }
}

/// Whether a name is one of direct reply-to. RabbitMQ returns mandatory replies to those although it delivers them.
pub(super) fn is_direct(reply_to: &str) -> bool {
    reply_to.starts_with(DIRECT_REPLIES)
}

fn is_well_formed(token: &str) -> bool {
    let Some((place, key)) = token.split_once('.') else { return false };
    match (decoded(place), decoded(key)) {
        (Some(place), Some(key)) => !key.is_empty() && (is_pid(&place) || (place.len() == 12 && key.len() == 16)),
        _ => false,
    }
}

/// An Erlang pid in the external term format: `PID_EXT` or `NEW_PID_EXT`, and the name of its node in one of four kinds of atom.
fn is_pid(term: &[u8]) -> bool {
    let [131, tag, atom, rest @ ..] = term else { return false };
    let numbers_bytes = match tag {
        103 => 9,
        88 => 12,
        _ => return false,
    };
    let node = match (atom, rest) {
        (100 | 118, [high, low, rest @ ..]) => rest.get(usize::from(u16::from_be_bytes([*high, *low]))..),
        (115 | 119, [length, rest @ ..]) => rest.get(usize::from(*length)..),
        _ => None,
    };
    node.is_some_and(|numbers| numbers.len() == numbers_bytes)
}

/// Decodes base64 with its padding.
fn decoded(text: &str) -> Option<Vec<u8>> {
    let digits = text.trim_end_matches('=');
    if !text.len().is_multiple_of(4) || text.len() - digits.len() > 2 {
        return None;
    }
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
    let (mut bits, mut bit_count) = (0_u32, 0);
    for digit in digits.bytes() {
        let value = match digit {
            b'A'..=b'Z' => digit - b'A',
            b'a'..=b'z' => digit - b'a' + 26,
            b'0'..=b'9' => digit - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        bits = bits << 6 | u32::from(value);
        bit_count += 6;
        if bit_count >= 8 {
            bit_count -= 8;
            bytes.push((bits >> bit_count) as u8);
            bits &= (1 << bit_count) - 1;
        }
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Names as RabbitMQ 3, RabbitMQ 4 and the bundled broker give them out.
    const GOOD: [&str; 3] = [
        "amq.rabbitmq.reply-to.g2dkABByYWJiaXRAbG9jYWxob3N0AAABQwAAAAAB.AAAAAAAAAAAAAAAAAAAAAA==",
        "amq.rabbitmq.reply-to.g1h3EHJhYmJpdEBsb2NhbGhvc3QAAAFDAAAAAGDFLxo=.Gm1A9Tq8Qqj8o9yGmL1gxw==",
        "amq.rabbitmq.reply-to.AAAAAAAAAAEAAAAB.3mV1wq0SJk0pYVyQ8rTt1A==",
    ];

    #[test]
    fn names_that_brokers_give_out_and_other_queues_are_safe() {
        for name in
            GOOD.into_iter().chain(["rpc.reply.x.1", "amq.gen-xyz", "", "amq.rabbitmq.reply-to", "amq.rabbitmq.reply"])
        {
            assert!(is_safe(name), "{name}");
        }
        assert!(is_direct(GOOD[0]) && !is_direct("rpc.reply.x.1"));
    }

    #[test]
    fn anything_else_in_that_name_space_is_not() {
        let prefix = "amq.rabbitmq.reply-to.";
        for token in [
            "",
            ".",
            "garbage",
            "AAAA.BBBB",
            "g2dk.BBBB",
            "AAAAAAAAAAEAAAAB.",
            "AAAAAAAAAAEAAAAB.AAAA",
            "\u{e9}.\u{e9}",
            "====.====",
        ] {
            assert!(!is_safe(&format!("{prefix}{token}")), "{token}");
        }
        for good in GOOD {
            let token = &good[prefix.len()..];
            for cut in 0..=token.find('.').unwrap_or_default() + 1 {
                assert!(!is_safe(&format!("{prefix}{}", &token[..cut])), "{}", &token[..cut]);
            }
        }
    }
}
