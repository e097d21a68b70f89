//! Users: their authentication, and their rights on each vhost. Pure.
//!
//! As in RabbitMQ, a right is a regular expression that is searched for in the name of an exchange or a queue; the empty
//! expression matches the empty name alone. The right that a method needs is stated in the method's own code.
//!
//! ```text
//!  connection.start-ok ─► User::proves ─► connection.open ─► User::access ─► every method: Session::authorize
//! ```

use std::{
    collections::{BTreeSet, HashMap},
    fmt,
    sync::Arc,
};

use fancy_regex::{Regex, RegexBuilder};

use crate::broker::core::session::password::PasswordHash;

/// A user who may connect.
#[derive(Debug, Clone, Default)]
pub(crate) struct User {
    /// `None` for a user who has no password, and authenticates by certificate.
    pub(crate) password: Option<PasswordHash>,
    pub(crate) tags: BTreeSet<String>,
    /// Whether the user may connect from this machine alone.
    pub(crate) is_loopback_only: bool,
    pub(crate) grants: Grants,
}

/// A user's rights.
#[derive(Debug, Clone, Default)]
pub(crate) enum Grants {
    /// Everything, on every vhost.
    #[default]
    Everything,
    /// By vhost.
    On(HashMap<String, Arc<Permissions>>),
}

impl User {
    /// A user with every right.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn with_password(password: &str) -> Self {
        Self { password: Some(PasswordHash::new(password, [0; 16])), ..Self::default() }
    }

    /// Whether the password is the user's. An empty password is always refused.
    pub(crate) fn proves(&self, password: &str) -> bool {
        !password.is_empty() && self.password.as_ref().is_some_and(|hash| hash.is_of(password))
    }

    /// The user's rights on a vhost; `None` if the user may not connect to it.
    pub(crate) fn access(&self, vhost: &str) -> Option<Access> {
        let Grants::On(vhosts) = &self.grants else { return Some(Access::Everything) };
        let permissions = vhosts.get(vhost)?;
        Some(match permissions.are_all() {
            true => Access::Everything,
            false => Access::Limited(Arc::clone(permissions)),
        })
    }
}

/// The rights of a connection, decided once when it is opened, so that most users cost no further check.
#[derive(Debug, Clone, Default)]
pub(crate) enum Access {
    /// Not decided yet: everything is refused.
    #[default]
    Nothing,
    Everything,
    Limited(Arc<Permissions>),
}

impl Access {
    /// Whether the user has a right.
    #[inline]
    pub(crate) fn allows(&self, right: Right, resource: &Resource<'_>) -> bool {
        match self {
            Self::Everything => true,
            Self::Limited(permissions) => permissions.allow(right, resource),
            Self::Nothing => false,
        }
    }
}

/// A user's rights on one vhost.
#[derive(Debug)]
pub(crate) struct Permissions {
    configure: Pattern,
    write: Pattern,
    read: Pattern,
    /// By topic exchange. The keys of other exchanges are not limited.
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
                // No method configures a routing key.
                .is_none_or(|topic| pattern(&topic.read, &topic.write, &topic.read).is_found_in(routing_key)),
        }
    }
}

/// A right that a method needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Right {
    Configure,
    Write,
    Read,
}

impl Right {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Configure => "configure",
            Self::Write => "write",
            Self::Read => "read",
        }
    }
}

/// The resource of a right. Displayed as in RabbitMQ's faults, without the vhost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Resource<'a> {
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
    /// `.*`, which most users have: no search is needed.
    Anything,
    Regex(Box<Regex>),
}

impl Pattern {
    /// Compiles a pattern. The error quotes it, and gives the reason.
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
            // A search that backtracks for too long fails: undecided means refused.
            Self::Regex(regex) => regex.is_match(name).unwrap_or(false),
        }
    }
}

/// The backtracking steps of a search, which runs under the broker's lock. Only look-around and back references take any.
const BACKTRACK_MAX: usize = 10_000;
/// The name of the default exchange in permissions.
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
            // This search would not end.
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
    fn a_user_with_all_rights_is_not_checked_again() {
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
    fn an_empty_password_is_refused() {
        let user = User::with_password;
        assert!(user("p").proves("p") && !user("p").proves("") && !user("p").proves("q") && !user("").proves(""));
        assert!(!User::default().proves(""));
    }

    #[test]
    fn undecided_access_refuses_everything() {
        let resources = [Resource::Exchange(""), Resource::Exchange("x"), Resource::Queue("q")];
        let topic = Resource::Topic { exchange: "x", routing_key: "k" };
        for resource in resources.into_iter().chain([topic]) {
            for right in [Right::Configure, Right::Write, Right::Read] {
                assert!(!Access::default().allows(right, &resource), "{right:?} {resource}");
                assert!(Access::Everything.allows(right, &resource));
            }
        }
    }
}
