//! Users: how they prove who they are, and what they may do where.
//!
//! As in RabbitMQ a right is a regular expression, searched for in the name of an exchange or a queue, and the empty one
//! is found in no name but the empty one. Which right a method needs is said where the method is.
//!
//! ```text
//!  connection.start-ok ─► User::proves ─► connection.open ─► User::access ─► every method: Core::authorize
//! ```

use std::{
    collections::{BTreeSet, HashMap},
    fmt,
    sync::Arc,
};

use fancy_regex::{Regex, RegexBuilder};

use super::{ConnectionId, Core, Fault, session::Session};
use crate::routing::ExchangeKind;

/// Somebody who may connect.
#[derive(Debug, Clone, Default)]
pub(crate) struct User {
    /// Empty for one who has no password, and can only show a certificate.
    pub(crate) password: String,
    pub(crate) tags: BTreeSet<String>,
    /// Refused from other machines.
    pub(crate) is_loopback_only: bool,
    pub(crate) grants: Grants,
}

/// Where a user may do what.
#[derive(Debug, Clone, Default)]
pub(crate) enum Grants {
    /// Everything, on every vhost.
    #[default]
    Everything,
    /// By vhost.
    On(HashMap<String, Arc<Permissions>>),
}

impl User {
    /// Whether the password is the user's. Nobody logs in with an empty one.
    pub(super) fn proves(&self, password: &str) -> bool {
        !password.is_empty() && self.password == password
    }

    /// What the user may do on a vhost; `None` when not even connect to it.
    pub(super) fn access(&self, vhost: &str) -> Option<Access> {
        let Grants::On(vhosts) = &self.grants else { return Some(Access::Everything) };
        let permissions = vhosts.get(vhost)?;
        Some(match permissions.are_all() {
            true => Access::Everything,
            false => Access::Limited(Arc::clone(permissions)),
        })
    }
}

/// What a connection may do. Decided once, when it is opened, so that most are asked no more.
#[derive(Debug, Clone, Default)]
pub(super) enum Access {
    #[default]
    Everything,
    Limited(Arc<Permissions>),
}

impl Access {
    /// Refuses what is not allowed.
    #[inline]
    pub(super) fn check(&self, right: Right, resource: Resource<'_>, user: &str, vhost: &str) -> Result<(), Fault> {
        match self {
            Self::Limited(permissions) if !permissions.allow(right, &resource) => {
                Err(Fault::access_refused(&resource, user, vhost))
            }
            Self::Everything | Self::Limited(_) => Ok(()),
        }
    }
}

/// A user's rights on one vhost.
#[derive(Debug)]
pub(crate) struct Permissions {
    configure: Pattern,
    write: Pattern,
    read: Pattern,
    /// By topic exchange; those without are not limited.
    topics: HashMap<String, TopicPermissions>,
}

/// A user's rights on the routing keys of one exchange.
#[derive(Debug)]
pub(crate) struct TopicPermissions {
    pub(crate) write: Pattern,
    pub(crate) read: Pattern,
}

impl Permissions {
    pub(crate) fn new(configure: Pattern, write: Pattern, read: Pattern) -> Self {
        Self { configure, write, read, topics: HashMap::new() }
    }

    pub(crate) fn limit_topic(&mut self, exchange: String, permissions: TopicPermissions) {
        self.topics.insert(exchange, permissions);
    }

    fn are_all(&self) -> bool {
        self.topics.is_empty() && [&self.configure, &self.write, &self.read].into_iter().all(Pattern::is_anything)
    }

    fn allow(&self, right: Right, resource: &Resource<'_>) -> bool {
        let pattern = |configure, write, read| match right {
            Right::Configure => configure,
            Right::Write => write,
            Right::Read => read,
        };
        let own = pattern(&self.configure, &self.write, &self.read);
        match resource {
            Resource::Exchange("") => own.is_found_in(DEFAULT_EXCHANGE),
            Resource::Exchange(name) | Resource::Queue(name) => own.is_found_in(name),
            Resource::Topic { exchange, routing_key } => self
                .topics
                .get(*exchange)
                // Nothing configures a routing key.
                .is_none_or(|topic| pattern(&topic.read, &topic.write, &topic.read).is_found_in(routing_key)),
        }
    }
}

/// What a method does to an exchange or a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Right {
    Configure,
    Write,
    Read,
}

/// What a right is needed on. Shown as RabbitMQ's faults show it, but for the vhost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Resource<'a> {
    Exchange(&'a str),
    Queue(&'a str),
    Topic { exchange: &'a str, routing_key: &'a str },
}

impl fmt::Display for Resource<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exchange("") => write!(f, "exchange '{DEFAULT_EXCHANGE}'"),
            Self::Exchange(name) => write!(f, "exchange '{name}'"),
            Self::Queue(name) => write!(f, "queue '{name}'"),
            Self::Topic { exchange, routing_key } => write!(f, "topic '{routing_key}' in exchange '{exchange}'"),
        }
    }
}

/// A regular expression as permissions use it.
#[derive(Debug, Clone)]
pub(crate) enum Pattern {
    /// `.*`, which most users have, is not even searched for.
    Anything,
    Regex(Box<Regex>),
}

impl Pattern {
    /// Reads a pattern; the error says what is wrong with it.
    pub(crate) fn new(pattern: &str) -> Result<Self, String> {
        match pattern {
            ".*" => Ok(Self::Anything),
            "" => Self::new("^$"),
            pattern => match RegexBuilder::new(pattern).backtrack_limit(BACKTRACK_MAX).build() {
                Ok(regex) => Ok(Self::Regex(Box::new(regex))),
                Err(error) => Err(format!("'{pattern}' is no regular expression: {error}")),
            },
        }
    }

    const fn is_anything(&self) -> bool {
        matches!(self, Self::Anything)
    }

    fn is_found_in(&self, name: &str) -> bool {
        match self {
            Self::Anything => true,
            // The search gives up over patterns that backtrack without end: what cannot be decided is refused.
            Self::Regex(regex) => regex.is_match(name).unwrap_or(false),
        }
    }
}

impl Core {
    /// Refuses what the connection's user may not do.
    pub(super) fn authorize(&self, id: ConnectionId, right: Right, resource: Resource<'_>) -> Result<(), Fault> {
        let Some(session) = self.sessions.get(id) else { return Ok(()) };
        let Some(vhost) = session.vhost.and_then(|at| self.vhosts.get(at)) else { return Ok(()) };
        session.authorize(right, resource, &vhost.name)
    }

    /// Refuses a binding, or its end, in RabbitMQ's order: something is written to the destination that is read from
    /// the source, and the default exchange is neither.
    pub(super) fn authorize_binding(
        &self,
        id: ConnectionId,
        destination: Resource<'_>,
        source: &str,
        routing_key: &str,
    ) -> Result<(), Fault> {
        self.authorize(id, Right::Write, destination)?;
        if source.is_empty() || destination == Resource::Exchange("") {
            return Err(Fault::default_exchange());
        }
        self.authorize(id, Right::Read, Resource::Exchange(source))?;
        let vhost = self.sessions.get(id).and_then(|session| session.vhost).and_then(|at| self.vhosts.get(at));
        let options = vhost.and_then(|vhost| vhost.router.exchange(source));
        if options.is_some_and(|options| options.kind == ExchangeKind::Topic) {
            self.authorize(id, Right::Read, Resource::Topic { exchange: source, routing_key })?;
        }
        Ok(())
    }
}

impl Session {
    /// Refuses what the connection's user may not do on its vhost.
    pub(super) fn authorize(&self, right: Right, resource: Resource<'_>, vhost: &str) -> Result<(), Fault> {
        self.access.check(right, resource, &self.user, vhost)
    }
}

/// Steps a search may take, for it is done under the broker's lock; look-around and back references alone need any.
const BACKTRACK_MAX: usize = 100_000;
/// What permissions call the exchange without a name.
const DEFAULT_EXCHANGE: &str = "amq.default";

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(text: &str) -> Pattern {
        Pattern::new(text).unwrap()
    }

    #[test]
    fn patterns_are_searched_for_in_names() {
        for (text, name, is_found) in [
            (".*", "", true),
            ("", "", true),
            ("", "q", false),
            ("^q$", "q", true),
            ("^q$", "qq", false),
            ("q", "aqa", true),
            ("^(a|b)\\.", "b.c", true),
            ("^(?!.*secret)", "open", true),
            ("^(?!.*secret)", "a.secret", false),
            ("^(.)\\1$", "aa", true),
            // Would take for ever.
            ("^(a|aa)+\\1c$", &"a".repeat(200), false),
        ] {
            assert_eq!(pattern(text).is_found_in(name), is_found, "{text} in {name}");
        }
        assert!(Pattern::new("(").unwrap_err().starts_with("'(' is no regular expression: "));
    }

    #[test]
    fn each_right_has_its_own_pattern() {
        let mut permissions = Permissions::new(pattern("^c"), pattern("^w|^amq\\.default$"), pattern("^r"));
        let topic = TopicPermissions { write: pattern("^tw"), read: pattern("^tr") };
        permissions.limit_topic("wr".to_owned(), topic);
        let topic = |exchange, routing_key| Resource::Topic { exchange, routing_key };
        for (resource, configure, write, read) in [
            (Resource::Queue("c"), true, false, false),
            (Resource::Queue("w"), false, true, false),
            (Resource::Exchange("r"), false, false, true),
            (Resource::Exchange(""), false, true, false),
            (Resource::Exchange("x"), false, false, false),
            (topic("wr", "tw"), false, true, false),
            (topic("wr", "tr"), true, false, true),
            (topic("another", "x"), true, true, true),
        ] {
            let allowed =
                [Right::Configure, Right::Write, Right::Read].map(|right| permissions.allow(right, &resource));
            assert_eq!(allowed, [configure, write, read], "{resource}");
        }
    }

    #[test]
    fn who_may_do_everything_is_not_asked_again() {
        let all = || Permissions::new(pattern(".*"), pattern(".*"), pattern(".*"));
        let mut but_topics = all();
        but_topics.limit_topic("t".to_owned(), TopicPermissions { write: pattern(".*"), read: pattern(".*") });
        let grants = HashMap::from([
            ("all".to_owned(), Arc::new(all())),
            ("topics".to_owned(), Arc::new(but_topics)),
            ("some".to_owned(), Arc::new(Permissions::new(pattern(".*"), pattern(".*"), pattern("")))),
        ]);
        let user = User { grants: Grants::On(grants), ..User::default() };
        assert!(matches!(user.access("all"), Some(Access::Everything)));
        assert!(matches!(user.access("topics"), Some(Access::Limited(_))));
        assert!(matches!(user.access("some"), Some(Access::Limited(_))));
        assert!(user.access("none").is_none());
        assert!(matches!(User::default().access("any"), Some(Access::Everything)));
    }

    #[test]
    fn nobody_logs_in_with_an_empty_password() {
        let user = |password: &str| User { password: password.to_owned(), ..User::default() };
        assert!(user("p").proves("p") && !user("p").proves("") && !user("p").proves("q") && !user("").proves(""));
    }
}
