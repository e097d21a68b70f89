//! Names of RabbitMQ's direct reply-to, checked before a reply is published to one. Pure.
//!
//! ```text
//!  amq.rabbitmq.reply-to.<base64 of an Erlang pid>.<base64 of a key>     RabbitMQ 3 and 4
//!  amq.rabbitmq.reply-to.<base64 of 12 octets>.<base64 of 16 octets>     the bundled broker
//! ```
//!
//! RabbitMQ decodes the name as a term of its own. For one that is none it closes the whole *connection* (541,
//! `internal-error`), so that one forged `reply_to` would end everything that shares it.

use base64::{Engine, engine::general_purpose::STANDARD as BASE64};

use crate::connection::amqp::DIRECT_REPLIES;

/// Whether a reply to this queue may be published: it is another queue's name, or a well-formed one of these.
pub(super) fn is_safe(reply_to: &[u8]) -> bool {
    match reply_to.strip_prefix(DIRECT_REPLIES.as_bytes()).and_then(|rest| rest.strip_prefix(b".")) {
        // The bare name is a queue that does not exist.
        None => true,
        Some(token) => is_well_formed(token),
    }
}

/// Whether a name is one of direct reply-to. RabbitMQ returns mandatory replies to those although it delivers them.
pub(super) fn is_direct(reply_to: &[u8]) -> bool {
    reply_to.starts_with(DIRECT_REPLIES.as_bytes())
}

fn is_well_formed(token: &[u8]) -> bool {
    let Some(dot) = token.iter().position(|byte| *byte == b'.') else { return false };
    let (place, key) = (&token[..dot], &token[dot + 1..]);
    match (BASE64.decode(place), BASE64.decode(key)) {
        (Ok(place), Ok(key)) => !key.is_empty() && (is_pid(&place) || (place.len() == 12 && key.len() == 16)),
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
            assert!(is_safe(name.as_bytes()), "{name}");
        }
        assert!(is_direct(GOOD[0].as_bytes()) && !is_direct(b"rpc.reply.x.1"));
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
            assert!(!is_safe(format!("{prefix}{token}").as_bytes()), "{token}");
        }
        for good in GOOD {
            let token = &good[prefix.len()..];
            for cut in 0..=token.find('.').unwrap_or_default() + 1 {
                assert!(!is_safe(format!("{prefix}{}", &token[..cut]).as_bytes()), "{}", &token[..cut]);
            }
        }
    }
}
