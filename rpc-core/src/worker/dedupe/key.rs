//! The identity of a logical request, and of its arguments.
//!
//! Pure.

use std::{fmt, sync::Arc};

use crate::{context::Context, layer::Caller, printable::printable, topology};

/// The identity of a logical request: service, method, authenticated caller, and `message_id`.
///
/// The caller is the [`Caller`] that a layer has left in the request's extensions,
/// [`AuthLayer`](crate::layer::AuthLayer) for example; where there is none, the `user_id` that the broker has checked; or nobody. A
/// request without a `message_id`, which a client sends once, is known by its reply queue and its `correlation_id` instead: the broker may
/// redeliver it.
///
/// A clone is cheap.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Key(Arc<[u8]>);

impl Key {
    /// The key of a request, for tests of a [`DedupeStore`](super::DedupeStore).
    pub fn new(service: &str, method: &str, caller: Option<&str>, message_id: &[u8]) -> Self {
        let caller = caller.map_or(Who::Nobody, Who::Caller);
        Self::of(service, method, caller, Id::Message(message_id))
    }

    /// The key of a request; `None` when it has no name that no other request has.
    pub(super) fn of_request(service: &str, method: &str, context: &Context) -> Option<Self> {
        Some(Self::of(service, method, Who::sends(context), Id::of(context)?))
    }

    fn of(service: &str, method: &str, caller: Who<'_>, id: Id<'_>) -> Self {
        let mut key = Vec::with_capacity(service.len() + method.len() + 96);
        // Neither name has a newline.
        for part in [service, "\n", method, "\n"] {
            key.extend_from_slice(part.as_bytes());
        }
        caller.write(&mut key);
        id.write(&mut key);
        Self(key.into())
    }

    /// The key as bytes: no two keys have the same ones.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The same, shared.
    pub(super) fn shared(&self) -> &Arc<[u8]> {
        &self.0
    }
}

/// For logs: `message_id` and caller are not secrets.
impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", printable(&*self.0))
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({self})")
    }
}

/// The caller of a request.
#[derive(Clone, Copy)]
pub(super) enum Who<'a> {
    /// A layer has named the caller.
    Caller(&'a str),
    /// The broker has checked the user.
    User(&'a str),
    Nobody,
}

impl<'a> Who<'a> {
    pub(super) fn sends(context: &'a Context) -> Self {
        match (context.extensions().get::<Caller>(), context.user_id()) {
            (Some(caller), _) => Self::Caller(caller.name()),
            (None, Some(user)) => Self::User(user),
            (None, None) => Self::Nobody,
        }
    }

    /// Of one caller: a key that another one happens to choose, too, must not give that one this one's answer.
    pub(super) fn write(self, name: &mut Vec<u8>) {
        let (kind, caller) = match self {
            Self::Caller(caller) => ("caller", caller),
            Self::User(user) => ("user", user),
            Self::Nobody => ("-", ""),
        };
        for part in [kind, "\n", itoa::Buffer::new().format(caller.len()), "\n", caller, "\n"] {
            name.extend_from_slice(part.as_bytes());
        }
    }
}

/// The name that a request has among those of its caller.
#[derive(Clone, Copy)]
pub(super) enum Id<'a> {
    Message(&'a [u8]),
    /// Its reply queue and `correlation_id`.
    Reply(&'a [u8], &'a [u8]),
}

impl<'a> Id<'a> {
    pub(super) fn of(context: &'a Context) -> Option<Self> {
        let delivery = context.delivery();
        if let Some(message_id) = delivery.message_id() {
            return Some(Self::Message(message_id));
        }
        // Callers elsewhere may use a correlation_id again; ours never do, in one reply queue.
        let reply_to = delivery.reply_to().filter(|reply_to| topology::is_reply_queue(reply_to))?;
        Some(Self::Reply(reply_to, delivery.correlation_id_bytes()?))
    }

    pub(super) fn write(self, name: &mut Vec<u8>) {
        match self {
            Self::Message(message_id) => {
                name.extend_from_slice(b"m\n");
                name.extend_from_slice(message_id);
            }
            Self::Reply(reply_to, correlation_id) => {
                let length = itoa::Buffer::new().format(reply_to.len()).to_owned();
                for part in [b"r\n", length.as_bytes(), b"\n", reply_to, correlation_id] {
                    name.extend_from_slice(part);
                }
            }
        }
    }
}

/// The encoded arguments of a request, as 128 bits: FNV-1a, the same in every process and version.
///
/// It tells apart arguments that differ by mistake. Only a caller with the same [`Key`] could choose others on purpose, and gains an
/// answer to itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fingerprint([u8; 16]);

impl Fingerprint {
    /// The fingerprint of these encoded arguments.
    pub fn of(arguments: &[u8]) -> Self {
        let hash = arguments.iter().fold(FNV_OFFSET, |hash, byte| (hash ^ u128::from(*byte)).wrapping_mul(FNV_PRIME));
        Self(hash.to_be_bytes())
    }

    /// Its bytes, for a store.
    pub const fn to_bytes(self) -> [u8; 16] {
        self.0
    }
}

// The parameters of FNV with 128 bits, by its authors' page and draft-eastlake-fnv.
const FNV_OFFSET: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
const FNV_PRIME: u128 = 0x0000_0000_0100_0000_0000_0000_0000_013b;

#[cfg(test)]
mod tests {
    use super::*;

    fn key(context: &Context) -> Option<Key> {
        Key::of_request("stock", "take", context)
    }

    #[test]
    fn a_key_names_service_method_caller_and_message() {
        let message = || Context::for_test().message_id("m");
        let keys = [
            key(&message().build()),
            Key::of_request("stock", "give", &message().build()),
            Key::of_request("shop", "take", &message().build()),
            key(&Context::for_test().message_id("n").build()),
            key(&message().user_id("ada").build()),
            key(&message().extension(Caller::new("ada")).build()),
            key(&message().extension(Caller::new("bob")).build()),
            key(&message().extension(Caller::new("")).build()),
        ];
        for (at, key) in keys.iter().enumerate() {
            assert!(key.is_some() && !keys[..at].contains(key), "{at}: {key:?}");
        }
        let both = message().user_id("gateway 1").extension(Caller::new("ada")).build();
        assert_eq!(key(&both), keys[5], "the one whom a layer has named counts");
        assert_eq!(keys[5], Some(Key::new("stock", "take", Some("ada"), b"m")));
        assert_eq!(keys[0], Some(Key::new("stock", "take", None, b"m")));
    }

    #[test]
    fn names_that_run_into_each_other_are_other_keys() {
        let key = |caller, message_id: &[u8]| Key::new("s", "m", Some(caller), message_id);
        assert_ne!(key("a", b"b\nc"), key("a\nb", b"c"));
        assert_ne!(key("1\na", b""), key("", b"1\na"));
    }

    #[test]
    fn a_request_without_a_message_id_is_known_by_its_reply() {
        assert_eq!(key(&Context::for_test().reply_to("rpc.reply.x").build()), None, "no correlation_id");
        assert_eq!(key(&Context::for_test().build()), None);
    }

    /// From the draft's test vectors.
    #[test]
    fn the_fingerprint_is_the_one_of_the_specification() {
        assert_eq!(Fingerprint::of(b"").to_bytes(), FNV_OFFSET.to_be_bytes());
        assert_eq!(Fingerprint::of(b"foobar").to_bytes(), 0x343e_1662_793c_64bf_6f0d_3597_ba44_6f18_u128.to_be_bytes());
        assert_ne!(Fingerprint::of(b"a"), Fingerprint::of(b"b"));
    }
}
