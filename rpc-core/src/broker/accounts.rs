//! Users, vhosts and permissions as a builder collects them, and URIs for them.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt,
    net::SocketAddr,
    sync::Arc,
};

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, PercentEncode, utf8_percent_encode};
use uuid::Uuid;

use super::{
    core::{Grants, PasswordHash, Pattern, Permissions, TopicPermissions, User},
    error::BrokerError,
};

/// The users, vhosts and permissions of a [`BrokerBuilder`](super::BrokerBuilder), in the order of its calls.
#[derive(Clone)]
pub(super) struct Accounts {
    passwords: BTreeMap<String, String>,
    pub(super) vhosts: Vec<String>,
    loopback_users: BTreeSet<String>,
    tags: Vec<(String, Vec<String>)>,
    permissions: Vec<PermissionSetting>,
    topic_permissions: Vec<TopicPermissionSetting>,
}

#[derive(Debug, Clone)]
pub(super) struct PermissionSetting {
    pub(super) user: String,
    pub(super) vhost: String,
    pub(super) configure: String,
    pub(super) write: String,
    pub(super) read: String,
}

#[derive(Debug, Clone)]
pub(super) struct TopicPermissionSetting {
    pub(super) user: String,
    pub(super) vhost: String,
    pub(super) exchange: String,
    pub(super) write: String,
    pub(super) read: String,
}

/// Shows no passwords.
impl fmt::Debug for Accounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let users: Vec<_> = self.passwords.keys().collect();
        f.debug_struct("Accounts").field("users", &users).field("vhosts", &self.vhosts).finish_non_exhaustive()
    }
}

impl Default for Accounts {
    fn default() -> Self {
        Self {
            passwords: BTreeMap::from([("guest".to_owned(), "guest".to_owned())]),
            vhosts: vec!["/".to_owned()],
            loopback_users: BTreeSet::from(["guest".to_owned()]),
            tags: Vec::new(),
            permissions: Vec::new(),
            topic_permissions: Vec::new(),
        }
    }
}

impl Accounts {
    pub(super) fn add_user(&mut self, name: String, password: String) {
        self.passwords.insert(name, password);
    }

    pub(super) fn add_vhost(&mut self, name: String) {
        if !self.vhosts.contains(&name) {
            self.vhosts.push(name);
        }
    }

    pub(super) fn set_tags(&mut self, user: String, tags: Vec<String>) {
        self.tags.push((user, tags));
    }

    pub(super) fn set_permissions(&mut self, setting: PermissionSetting) {
        self.permissions.push(setting);
    }

    pub(super) fn set_topic_permissions(&mut self, setting: TopicPermissionSetting) {
        self.topic_permissions.push(setting);
    }

    pub(super) fn set_loopback_users(&mut self, users: BTreeSet<String>) {
        self.loopback_users = users;
    }

    /// The user and password in [`Broker::uri`](super::Broker::uri): those of `guest`, or of the first user by name.
    pub(super) fn first_user(&self) -> (&str, &str) {
        let guest = self.passwords.get_key_value("guest");
        let (user, password) = guest.or_else(|| self.passwords.first_key_value()).unzip();
        (user.map_or("guest", String::as_str), password.map_or("guest", String::as_str))
    }

    /// A user's password, which is empty for one that has none; `None` for a user that was not added here.
    pub(super) fn password(&self, user: &str) -> Option<&str> {
        self.passwords.get(user).map(String::as_str)
    }

    /// The users with their permissions. Refuses invalid patterns, and names of unknown users and vhosts.
    pub(super) fn users(&self) -> Result<HashMap<String, User>, BrokerError> {
        let mut users: HashMap<_, _> =
            self.passwords.iter().map(|(name, password)| self.user(name, password)).collect();
        for (name, tags) in &self.tags {
            find_user(&mut users, name, "tags")?.tags = tags.iter().cloned().collect();
        }
        let mut grants = BTreeMap::<&str, HashMap<String, Permissions>>::new();
        for setting in &self.permissions {
            let PermissionSetting { user, vhost, .. } = setting;
            let what = format!("permissions of user '{user}' on vhost '{vhost}'");
            find_user(&mut users, user, "permissions")?;
            self.find_vhost(vhost, &what)?;
            let read = |right, pattern: &str| read_pattern(&what, right, pattern);
            let permissions = Permissions::new(
                read("configure", &setting.configure)?,
                read("write", &setting.write)?,
                read("read", &setting.read)?,
            );
            grants.entry(user).or_default().insert(vhost.clone(), permissions);
        }
        for setting in &self.topic_permissions {
            let TopicPermissionSetting { user, vhost, exchange, .. } = setting;
            let what = format!("topic permissions of user '{user}' on exchange '{exchange}' in vhost '{vhost}'");
            find_user(&mut users, user, "topic permissions")?;
            self.find_vhost(vhost, &what)?;
            // RabbitMQ does not escape the names either.
            let expand = |pattern: &str| pattern.replace("{username}", user).replace("{vhost}", vhost);
            let permissions = TopicPermissions {
                write: read_pattern(&what, "write", &expand(&setting.write))?,
                read: read_pattern(&what, "read", &expand(&setting.read))?,
            };
            let vhosts = grants.entry(user).or_insert_with(|| everything_on(&self.vhosts));
            let Some(on_vhost) = vhosts.get_mut(vhost) else {
                return Err(BrokerError::Configuration(format!("{what}: the user has no permissions on that vhost")));
            };
            on_vhost.limit_topic(exchange.clone(), permissions);
        }
        for (user, vhosts) in grants {
            let vhosts = vhosts.into_iter().map(|(vhost, permissions)| (vhost, Arc::new(permissions))).collect();
            find_user(&mut users, user, "permissions")?.grants = Grants::On(vhosts);
        }
        Ok(users)
    }

    fn user(&self, name: &str, password: &str) -> (String, User) {
        let user = User {
            password: (!password.is_empty()).then(|| PasswordHash::new(password, Uuid::new_v4().into_bytes())),
            is_loopback_only: self.loopback_users.contains(name),
            ..User::default()
        };
        (name.to_owned(), user)
    }

    fn find_vhost(&self, vhost: &str, what: &str) -> Result<(), BrokerError> {
        match self.vhosts.iter().any(|known| known == vhost) {
            true => Ok(()),
            false => Err(BrokerError::Configuration(format!("{what}: the broker has no such vhost"))),
        }
    }
}

/// Topic permissions alone leave a user all other rights.
fn everything_on(vhosts: &[String]) -> HashMap<String, Permissions> {
    let all = || Permissions::new(Pattern::Anything, Pattern::Anything, Pattern::Anything);
    vhosts.iter().map(|vhost| (vhost.clone(), all())).collect()
}

fn find_user<'a>(users: &'a mut HashMap<String, User>, name: &str, what: &str) -> Result<&'a mut User, BrokerError> {
    let missing = || BrokerError::Configuration(format!("{what} of user '{name}': the broker has no such user"));
    users.get_mut(name).ok_or_else(missing)
}

fn read_pattern(what: &str, right: &str, pattern: &str) -> Result<Pattern, BrokerError> {
    Pattern::new(pattern).map_err(|error| BrokerError::Configuration(format!("{what}: {right}: {error}")))
}

/// `scheme://user:password@address/vhost`, without the parts that are defaults: `guest:guest` and the vhost `/`.
pub(super) fn uri(scheme: &str, (user, password): (&str, &str), address: SocketAddr, vhost: &str) -> String {
    let login = match (user, password) {
        ("guest", "guest") => String::new(),
        (user, "") => format!("{}@", percent_encoded(user)),
        (user, password) => format!("{}:{}@", percent_encoded(user), percent_encoded(password)),
    };
    let vhost = match vhost {
        "/" => String::new(),
        vhost => format!("/{}", percent_encoded(vhost)),
    };
    format!("{scheme}://{login}{address}{vhost}")
}

fn percent_encoded(text: &str) -> PercentEncode<'_> {
    utf8_percent_encode(text, ENCODED)
}

/// Everything except RFC 3986's unreserved characters, which need no encoding in any part of a URI.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uris_are_short_and_encoded() {
        let address = SocketAddr::from(([127, 0, 0, 1], 5672));
        for (user, password, vhost, expected) in [
            ("guest", "guest", "/", "amqp://127.0.0.1:5672"),
            ("guest", "guest", "a", "amqp://127.0.0.1:5672/a"),
            ("ann", "p", "/", "amqp://ann:p@127.0.0.1:5672"),
            ("ann", "", "/", "amqp://ann@127.0.0.1:5672"),
            ("a@b", "p:/?ü", "/v w", "amqp://a%40b:p%3A%2F%3F%C3%BC@127.0.0.1:5672/%2Fv%20w"),
        ] {
            assert_eq!(uri("amqp", (user, password), address, vhost), expected);
        }
    }

    #[test]
    fn permissions_of_unknown_users_and_vhosts_and_invalid_patterns_are_refused() {
        let permissions = |user: &str, vhost: &str, configure: &str| {
            let mut accounts = Accounts::default();
            let text = str::to_owned;
            let (user, vhost, configure) = (text(user), text(vhost), text(configure));
            let setting = PermissionSetting { user, vhost, configure, write: text(""), read: text("") };
            accounts.set_permissions(setting);
            accounts.users().map(drop).map_err(|error| error.to_string())
        };
        assert_eq!(permissions("guest", "/", "^a"), Ok(()));
        assert_eq!(
            permissions("ann", "/", ""),
            Err("permissions of user 'ann': the broker has no such user".to_owned())
        );
        let error = "permissions of user 'guest' on vhost 'a': the broker has no such vhost";
        assert_eq!(permissions("guest", "a", ""), Err(error.to_owned()));
        let error = permissions("guest", "/", "a(").unwrap_err();
        let start = "permissions of user 'guest' on vhost '/': configure: 'a(' is no regular expression: ";
        assert!(error.starts_with(start), "{error}");
    }
}
