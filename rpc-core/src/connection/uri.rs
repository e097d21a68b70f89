//! `amqp://user:password@host:port/vhost?parameters`.

use std::fmt;

use amq_protocol::uri::{AMQPScheme, AMQPUri};

use super::Transport;
use crate::error::Error;

/// A parsed URI. Its `Debug` shows no password.
#[derive(Clone)]
pub(super) struct Endpoint {
    pub(super) address: String,
    pub(super) user: String,
    pub(super) vhost: String,
    /// What the URI asks for, if it does.
    pub(super) transport: Option<Transport>,
    pub(super) uri: AMQPUri,
}

impl Endpoint {
    /// Checks a URI and says whom it addresses.
    pub(super) fn parse(uri: &str) -> Result<Self, Error> {
        let mut parsed: AMQPUri = uri.parse().map_err(|reason: String| Error::InvalidUri { reason })?;
        let mut host = parsed.authority.host.clone();
        // The library takes an address in brackets for no host at all, and the default for it.
        if let Some(ipv6) = ipv6_host(uri) {
            host = format!("[{ipv6}]");
            parsed.authority.host = ipv6.to_owned();
        }
        // The password is not to be sent in the clear, least of all without a word.
        if cfg!(not(feature = "tls")) && parsed.scheme == AMQPScheme::AMQPS {
            return Err(Error::InvalidUri { reason: "amqps needs rpc-core's feature 'tls'".to_owned() });
        }
        Ok(Self {
            address: format!("{host}:{}", parsed.authority.port),
            user: parsed.authority.userinfo.username.clone(),
            vhost: parsed.vhost.clone(),
            transport: transport(uri)?,
            uri: parsed,
        })
    }

    pub(super) fn is_tls(&self) -> bool {
        self.uri.scheme == AMQPScheme::AMQPS
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "amqp://{}@{}/{}", self.user, self.address, self.vhost)
    }
}

/// The IPv6 address of a URI that is known to be good.
fn ipv6_host(uri: &str) -> Option<&str> {
    let authority = uri.split_once("://")?.1.split(['/', '?', '#']).next()?;
    let host = authority.rsplit('@').next()?;
    Some(host.strip_prefix('[')?.split_once(']')?.0)
}

/// The parameter that is ours alone.
fn transport(uri: &str) -> Result<Option<Transport>, Error> {
    let query = uri.split_once('?').map_or("", |(_, query)| query.split('#').next().unwrap_or_default());
    let Some(name) = query.split('&').find_map(|pair| pair.strip_prefix("transport=")) else { return Ok(None) };
    match name {
        "lapin" => Ok(Some(Transport::Lapin)),
        "native" => Ok(Some(Transport::Native)),
        _ => Err(Error::InvalidUri { reason: format!("transport is 'lapin' or 'native', not '{name}'") }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uri_may_choose_the_transport() {
        let transport = |uri: &str| Endpoint::parse(uri).map(|endpoint| endpoint.transport);
        assert_eq!(transport("amqp://localhost").unwrap(), None);
        assert_eq!(transport("amqp://h/v?heartbeat=5&transport=native").unwrap(), Some(Transport::Native));
        assert_eq!(transport("amqp://h?transport=lapin#f").unwrap(), Some(Transport::Lapin));
        let error = transport("amqp://h?transport=pigeon").unwrap_err().to_string();
        assert!(error.contains("'lapin' or 'native', not 'pigeon'"), "{error}");
    }

    #[test]
    fn an_ipv6_address_is_a_host() {
        for (uri, host, address) in [
            ("amqp://[::1]", "::1", "[::1]:5672"),
            ("amqp://u:p%40@[2001:db8::7]:99/v?heartbeat=5", "2001:db8::7", "[2001:db8::7]:99"),
            ("amqp://u:%5Bp%5D@127.0.0.1:99/v", "127.0.0.1", "127.0.0.1:99"),
            ("amqp:///v", "localhost", "localhost:5672"),
        ] {
            let endpoint = Endpoint::parse(uri).unwrap();
            assert_eq!((&*endpoint.uri.authority.host, &*endpoint.address), (host, address), "{uri}");
        }
        assert!(Endpoint::parse("amqp://[::1").is_err());
    }

    #[test]
    fn nothing_that_is_printed_shows_the_password() {
        let endpoint = Endpoint::parse("amqp://user:secret@host:1/v").unwrap();
        assert_eq!(format!("{endpoint:?}"), "amqp://user@host:1/v");
    }
}
