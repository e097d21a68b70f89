//! `amqp://user:password@host:port/vhost?parameters`, by RabbitMQ's URI specification.
//!
//! No error quotes a piece of the URI that can be a piece of a password. A password with an unencoded `/`, `?` or `#` ends the
//! authority too early, and its pieces are taken for host, port and vhost. [`may_hide_password`] finds such a URI. It is
//! still accepted, because a vhost may have an `@`, but its host, port and vhost are not shown.

use std::{borrow::Cow, fmt, str::FromStr, sync::Arc, time::Duration};

use percent_encoding::percent_decode_str;
use url::{Host, Url};

use super::{
    amqp::{ACCESS_REFUSED, NOT_ALLOWED},
    opening_reason::reason_of,
    options::Transport,
};
use crate::error::Error;

/// A parsed URI. Its `Debug` shows no password.
#[derive(Clone)]
pub(super) struct Endpoint {
    pub(super) is_tls: bool,
    pub(super) user: String,
    pub(super) password: String,
    /// A name, an IPv4 address, or an IPv6 address without brackets.
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) vhost: String,
    /// The parameters, each `None` when it is absent.
    pub(super) channel_max: Option<u16>,
    pub(super) frame_max: Option<u32>,
    pub(super) heartbeat_s: Option<u16>,
    pub(super) connection_timeout: Option<Duration>,
    pub(super) auth_mechanism: Option<AuthMechanism>,
    pub(super) transport: Option<Transport>,
    /// Whether host, port and vhost may be pieces of a password.
    hides: bool,
}

impl Endpoint {
    /// Its host and port, unless they may be pieces of a password.
    pub(super) fn shown_address(&self) -> Option<Arc<Address>> {
        (!self.hides).then(|| Arc::new((self.host.as_str().into(), self.port)))
    }
}

/// A host and its port.
pub(crate) type Address = (Box<str>, u16);

/// How a client proves who its user is (SASL).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum AuthMechanism {
    #[default]
    Plain,
    AmqPlain,
    Anonymous,
    /// The broker takes the user from the certificate of the client.
    External,
    RabbitCrDemo,
}

/// The user that all endpoints log in as, if they name one.
pub(super) fn common_user(endpoints: &[Endpoint]) -> Option<&str> {
    let mut users = endpoints.iter().map(|endpoint| match endpoint.auth_mechanism.unwrap_or_default() {
        AuthMechanism::Plain | AuthMechanism::AmqPlain | AuthMechanism::RabbitCrDemo => Some(&*endpoint.user),
        AuthMechanism::Anonymous | AuthMechanism::External => None,
    });
    let first = users.next()??;
    users.all(|user| user == Some(first)).then_some(first).filter(|user| !user.is_empty())
}

impl Endpoint {
    pub(super) fn parse(uri: &str) -> Result<Self, Error> {
        let url = Url::parse(uri).map_err(|error| invalid(error.to_string()))?;
        if url.cannot_be_a_base() {
            return Err(invalid("'//' is missing after the scheme"));
        }
        let is_tls = match url.scheme() {
            "amqp" => false,
            "amqps" => true,
            _ => return Err(invalid("the scheme must be amqp or amqps")),
        };
        // Without TLS the password would be sent in the clear.
        if is_tls && cfg!(not(feature = "tls")) {
            return Err(invalid("amqps needs rpc-core's feature 'tls'"));
        }
        let user = match url.username() {
            "" => "guest".to_owned(),
            user => decode(user, "user")?,
        };
        let password = match url.password() {
            Some(password) => decode(password, "password")?,
            None if has_empty_password(uri) => String::new(),
            None => "guest".to_owned(),
        };
        let host = match url.host() {
            None | Some(Host::Domain("")) => "localhost".to_owned(),
            Some(Host::Domain(name)) => decode(name, "host")?,
            Some(Host::Ipv4(address)) => address.to_string(),
            Some(Host::Ipv6(address)) => address.to_string(),
        };
        Ok(Self {
            is_tls,
            user,
            password,
            host,
            port: url.port().unwrap_or(if is_tls { 5671 } else { 5672 }),
            // `amqp://host/` names the vhost "", `amqp://host` the default one.
            vhost: url.path().get(1..).map_or_else(|| Ok("/".to_owned()), |vhost| decode(vhost, "vhost"))?,
            channel_max: number(&url, "channel_max")?,
            frame_max: number(&url, "frame_max")?,
            heartbeat_s: number(&url, "heartbeat")?,
            connection_timeout: number(&url, "connection_timeout")?.map(Duration::from_millis),
            auth_mechanism: parameter(&url, "auth_mechanism").map(|name| auth_mechanism(&name)).transpose()?,
            transport: parameter(&url, "transport").map(|name| transport(&name)).transpose()?,
            hides: may_hide_password(uri, &url),
        })
    }

    /// `host:port`, for errors.
    pub(super) fn address(&self) -> String {
        let Self { host, port, .. } = self;
        if self.hides {
            "the host of the URI (not shown, because an '@' follows it: in a password write / ? # as %2F %3F %23, \
             in a vhost @ as %40)"
                .to_owned()
        } else if host.contains(':') {
            format!("[{host}]:{port}")
        } else {
            format!("{host}:{port}")
        }
    }

    /// The vhost, for errors.
    pub(super) fn shown_vhost(&self) -> String {
        if self.hides { "(not shown: write its @ as %40)".to_owned() } else { self.vhost.clone() }
    }

    /// The error of a connection whose transport fails while it is being opened.
    pub(super) fn unreachable(&self, reason: &str) -> Error {
        Error::Unreachable { address: self.address(), reason: reason_of(reason, self.is_tls) }
    }

    /// The error of a connection that the broker closes while it is being opened.
    pub(super) fn refusal(&self, reply_code: u16, reply_text: &str) -> Error {
        let reply_text = reply_text.to_owned();
        match reply_code {
            ACCESS_REFUSED => Error::AuthenticationRefused { user: self.user.clone(), reply_text },
            // RabbitMQ: `user connection limit (2) is reached`, `connection limit (100) is reached` for a vhost or a node.
            NOT_ALLOWED if reply_text.contains("connection limit (") => Error::ConnectionLimit { reply_text },
            NOT_ALLOWED => Error::VhostRefused { vhost: self.shown_vhost(), reply_text },
            _ => Error::Refused { operation: "open the connection".to_owned(), reply_code, reply_text },
        }
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.is_tls { "amqps" } else { "amqp" };
        write!(f, "{scheme}://{}@{}/{}", self.user, self.address(), self.shown_vhost())
    }
}

/// Whether a password may begin in the authority and end behind it: an `@` follows the authority, and a `:` comes before that.
fn may_hide_password(uri: &str, url: &Url) -> bool {
    let behind = [Some(url.path()), url.query(), url.fragment()];
    let before_last_at = uri.rsplit_once('@').and_then(|(before, _)| before.split_once(':'));
    behind.iter().flatten().any(|part| part.contains('@'))
        && before_last_at.is_some_and(|(_scheme, before)| before.contains(':'))
}

/// Whether the URI gives an empty password, as in `user:@host`, which `Url` does not tell from none.
fn has_empty_password(uri: &str) -> bool {
    let authority = uri.split_once("//").map_or("", |(_, rest)| rest.split(['/', '?', '#']).next().unwrap_or_default());
    let password = authority.rsplit_once('@').and_then(|(login, _)| login.split_once(':'));
    password.is_some_and(|(_, password)| password.trim_matches(['\n', '\r', '\t']).is_empty())
}

fn invalid(reason: impl Into<String>) -> Error {
    Error::InvalidUri { reason: reason.into() }
}

fn decode(text: &str, part: &str) -> Result<String, Error> {
    let decoded = percent_decode_str(text).decode_utf8().map(Cow::into_owned);
    decoded.map_err(|_| invalid(format!("the {part} is not UTF-8 once its percent signs are decoded")))
}

/// The first parameter of that name; further ones are ignored.
fn parameter<'a>(url: &'a Url, name: &str) -> Option<Cow<'a, str>> {
    url.query_pairs().find_map(|(key, value)| (key == name).then_some(value))
}

fn number<T: FromStr>(url: &Url, name: &str) -> Result<Option<T>, Error> {
    let number = parameter(url, name).map(|value| value.parse());
    number.transpose().map_err(|_| invalid(format!("the parameter {name} is not a number, or too large")))
}

fn auth_mechanism(name: &str) -> Result<AuthMechanism, Error> {
    Ok(match name.to_lowercase().as_str() {
        "plain" => AuthMechanism::Plain,
        "amqplain" => AuthMechanism::AmqPlain,
        "anonymous" => AuthMechanism::Anonymous,
        "external" => AuthMechanism::External,
        "rabbit-cr-demo" => AuthMechanism::RabbitCrDemo,
        _ => {
            return Err(invalid("auth_mechanism must be plain, amqplain, anonymous, external or rabbit-cr-demo"));
        }
    })
}

fn transport(name: &str) -> Result<Transport, Error> {
    match name {
        "lapin" if cfg!(feature = "lapin") => Ok(Transport::Lapin),
        "lapin" => Err(invalid("transport=lapin needs rpc-core's feature 'lapin'; without it the transport is native")),
        "native" => Ok(Transport::Native),
        _ => Err(invalid("the parameter transport must be lapin or native")),
    }
}

#[cfg(test)]
mod tests {
    use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
    use proptest::prelude::*;

    use super::*;

    fn parse(uri: &str) -> Endpoint {
        Endpoint::parse(uri).unwrap_or_else(|error| panic!("{uri}: {error}"))
    }

    fn refusal(uri: &str) -> String {
        match Endpoint::parse(uri) {
            Ok(endpoint) => panic!("{uri} is taken for {endpoint:?}"),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn every_part_but_the_scheme_has_a_default() {
        let defaults = ("guest", "guest", "localhost", 5672, "/");
        for (uri, expected) in [
            ("amqp://", defaults),
            ("amqp://localhost", defaults),
            ("AMQP://localhost", defaults),
            ("  amqp://localhost\n", defaults),
            ("amqp://localhost/%2f", defaults),
            ("amqp://h/", ("guest", "guest", "h", 5672, "")),
            ("amqp:///v", ("guest", "guest", "localhost", 5672, "v")),
            ("amqp://u@h", ("u", "guest", "h", 5672, "/")),
            ("amqp://:p@h", ("guest", "p", "h", 5672, "/")),
            ("amqp://user%61:%61pass@ho%61st:10000/v%2fhost", ("usera", "apass", "hoast", 10_000, "v/host")),
            ("amqp://u:p@h:1/v?foo=bar", ("u", "p", "h", 1, "v")),
            ("amqp://u:p@h/v#fragment", ("u", "p", "h", 5672, "v")),
            ("amqp://Host.Example/a/b", ("guest", "guest", "Host.Example", 5672, "a/b")),
            ("amqp://h/a%40b", ("guest", "guest", "h", 5672, "a@b")),
            ("amqp://u:p@h:1/a@b", ("u", "p", "h", 1, "a@b")),
            ("amqp://u@h/a@b", ("u", "guest", "h", 5672, "a@b")),
            ("amqp://h/a@b", ("guest", "guest", "h", 5672, "a@b")),
            ("amqp://h:1/a@b", ("guest", "guest", "h", 1, "a@b")),
            ("amqp://u:p@h/a:b@c", ("u", "p", "h", 5672, "a:b@c")),
            ("amqp://u:p@h/v?x=a@b#c@d", ("u", "p", "h", 5672, "v")),
            // No password is the default one, but an empty one is empty.
            ("amqp://u:@h", ("u", "", "h", 5672, "/")),
            ("amqp://u:@h/a:b@c", ("u", "", "h", 5672, "a:b@c")),
            ("amqp://:@h", ("guest", "", "h", 5672, "/")),
            ("amqp://u:\n@h", ("u", "", "h", 5672, "/")),
            ("amqp://u@h/v:@w", ("u", "guest", "h", 5672, "v:@w")),
            ("amqp:/v", ("guest", "guest", "localhost", 5672, "v")),
            // As in every URL, line breaks and tabs count for nothing.
            ("amqp://u:p@h\n/a\tb", ("u", "p", "h", 5672, "ab")),
        ] {
            let Endpoint { user, password, host, port, vhost, .. } = parse(uri);
            assert_eq!((&*user, &*password, &*host, port, &*vhost), expected, "{uri}");
        }
    }

    #[cfg(feature = "tls")]
    #[test]
    fn amqps_is_tls_on_a_port_of_its_own() {
        let endpoint = parse("amqps://h");
        assert!(endpoint.is_tls && endpoint.port == 5671 && parse("amqps://h:1").port == 1);
    }

    #[cfg(not(feature = "tls"))]
    #[test]
    fn amqps_without_the_feature_is_refused() {
        assert!(refusal("amqps://h").contains("feature 'tls'"));
    }

    #[cfg(not(feature = "lapin"))]
    #[test]
    fn the_transport_lapin_without_the_feature_is_refused() {
        assert!(refusal("amqp://h?transport=lapin").contains("feature 'lapin'"));
    }

    #[test]
    fn an_ipv6_address_is_a_host() {
        for (uri, host, address) in [
            ("amqp://[::1]", "::1", "[::1]:5672"),
            ("amqp://u:p%40@[2001:db8::7]:99/v?heartbeat=5", "2001:db8::7", "[2001:db8::7]:99"),
            ("amqp://u:%5Bp%5D@127.0.0.1:99/v", "127.0.0.1", "127.0.0.1:99"),
        ] {
            let endpoint = parse(uri);
            assert_eq!((&*endpoint.host, &*endpoint.address()), (host, address), "{uri}");
        }
        refusal("amqp://[::1");
    }

    #[test]
    fn parameters_are_read_and_the_first_of_a_name_counts() {
        let none = parse("amqp://h?unknown=1&channel_max_=2");
        assert_eq!((none.channel_max, none.frame_max, none.heartbeat_s), (None, None, None));
        assert_eq!((none.connection_timeout, none.auth_mechanism, none.transport), (None, None, None));
        let all = parse(
            "amqp://h/v?channel_max=7&frame_max=64000&heartbeat=5&heartbeat=6&connection_timeout=30000\
             &auth_mechanism=EXTERNAL&transport=native#f",
        );
        assert_eq!((all.channel_max, all.frame_max, all.heartbeat_s), (Some(7), Some(64_000), Some(5)));
        assert_eq!(all.connection_timeout, Some(Duration::from_secs(30)));
        assert_eq!((all.auth_mechanism, all.transport), (Some(AuthMechanism::External), Some(Transport::Native)));
        #[cfg(feature = "lapin")]
        assert_eq!(parse("amqp://h?transport=lapin#f").transport, Some(Transport::Lapin));
        for (uri, reason) in [
            ("amqp://h?heartbeat=often", "heartbeat"),
            ("amqp://h?heartbeat=65536", "heartbeat"),
            ("amqp://h?channel_max=-1", "channel_max"),
            ("amqp://h?frame_max=", "frame_max"),
            ("amqp://h?connection_timeout=5s", "connection_timeout"),
            ("amqp://h/v@w?heartbeat=1@2", "heartbeat"),
            ("amqp://h?auth_mechanism=smile", "auth_mechanism"),
            ("amqp://h?transport=pigeon", "must be lapin or native"),
        ] {
            assert!(refusal(uri).contains(reason), "{uri}");
        }
    }

    /// All that an error and a log line may show of a URI.
    fn shown(uri: &str) -> String {
        match Endpoint::parse(uri) {
            Ok(endpoint) => format!("{endpoint:?} {} {}", endpoint.address(), endpoint.shown_vhost()),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn nothing_that_is_shown_has_a_piece_of_a_password() {
        for uri in [
            "",
            "secret",
            "user:secret@host",
            "//user:secret@host",
            "amqp//user:secret@host",
            "http://user:secret@host",
            "secret://user:secret@host",
            "amqp:user:secret@host",
            "amqp:/user:secret@",
            "amqp:/user:secret@host/v",
            "amqp://user:secret",
            "amqp://user:secret/@host",
            "amqp://user:secret#@host",
            "amqp://user:secret?@host",
            "amqp://user:12/secret@host",
            "amqp://user:/secret@host",
            "amqp://user:12#secret@host",
            "amqp://user:12?secret@host",
            "amqp://us@er:12/secret@host",
            "amqp://user:12?heartbeat=secret@host",
            "amqp://user:12?transport=secret@host",
            "amqp://user:secret@host:port",
            "amqp://user:secret@host:99999",
            "amqp://user:secret@ho st",
            "amqp://user:secret@[::1",
            "amqp://user:secret@[secret]",
            "amqp://user:secret%ff@host",
            "amqp://user:secret@host?heartbeat=often",
            "amqp://user:secret@host?transport=pigeon",
            "amqp://user:sec@ret/12@host",
            "amqp://user:secret@ret?12@host",
            "amqp://user:secret@ret:12#@host",
            "amqp://user:@@secret#@host",
            "amqp://user:12@secret?transport=secret@host",
        ] {
            let text = shown(uri);
            assert!(!text.contains("sec") && !text.contains("ret") && !text.contains("12"), "{uri}: {text}");
        }
    }

    #[test]
    fn host_and_vhost_are_shown_unless_they_may_be_pieces_of_a_password() {
        assert_eq!(shown("amqp://user:secret@host:1/v%40w"), "amqp://user@host:1/v@w host:1 v@w");
        assert_eq!(shown("amqp://user@host:1/v"), "amqp://user@host:1/v host:1 v");
        assert_eq!(shown("amqp://host/v@w"), "amqp://guest@host:5672/v@w host:5672 v@w");
        assert!(shown("amqp://user:secret@host:1/v@w").contains("in a vhost @ as %40"));
    }

    #[test]
    fn a_password_may_have_unencoded_signs_that_do_not_end_the_authority() {
        for (uri, expected) in [
            ("amqp://user:p@ss@host", "p@ss"),
            ("amqp://user:p:ss@host", "p:ss"),
            ("amqp://user:p[s]s@host", "p[s]s"),
            ("amqp://user:p s@host", "p s"),
            ("amqp://user:100%@host", "100%"),
            ("amqp://user:%zz@host", "%zz"),
            ("amqp://user:p\\s@host", "p\\s"),
        ] {
            let endpoint = parse(uri);
            assert_eq!((&*endpoint.user, &*endpoint.password, &*endpoint.host), ("user", expected, "host"), "{uri}");
        }
    }

    proptest! {
        #[test]
        fn an_encoded_password_arrives_as_it_is(password in ".{1,20}") {
            let uri = format!("amqp://user:{}@host", utf8_percent_encode(&password, NON_ALPHANUMERIC));
            prop_assert_eq!(parse(&uri).password, password);
        }

        #[test]
        fn a_raw_password_is_taken_whole_or_no_piece_of_it_is_shown(password in "[qxz7@:/?#%\\[\\] ]{1,12}") {
            let uri = format!("amqp://user:{password}@host/v");
            match Endpoint::parse(&uri) {
                Ok(endpoint) if !endpoint.hides => {
                    let expected = percent_decode_str(&password).decode_utf8().unwrap();
                    prop_assert_eq!((&*endpoint.password, &*endpoint.host), (&*expected, "host"));
                }
                _ => {
                    let (text, signs) = (shown(&uri), password.chars().collect::<Vec<_>>());
                    for piece in signs.windows(2).filter(|piece| piece.iter().any(|sign| "qxz7".contains(*sign))) {
                        let piece: String = piece.iter().collect();
                        prop_assert!(!text.contains(&piece), "{}: {}", uri, text);
                    }
                }
            }
        }
    }
}
