//! The users, vhosts and permissions that both brokers start with: `scripts/rabbitmq.bash` gives RabbitMQ the same file.

use rpc_core::broker::{Broker, BrokerBuilder};
use serde::Deserialize;

/// The part of RabbitMQ's definitions that the scenarios need. A user's password is its name.
#[derive(Debug, Deserialize)]
struct Definitions {
    users: Vec<User>,
    vhosts: Vec<Vhost>,
    permissions: Vec<Permission>,
    topic_permissions: Vec<TopicPermission>,
}

#[derive(Debug, Deserialize)]
struct User {
    name: String,
    tags: Vec<String>,
}

#[derive(Debug, Deserialize)]
struct Vhost {
    name: String,
}

#[derive(Debug, Deserialize)]
struct Permission {
    user: String,
    vhost: String,
    configure: String,
    write: String,
    read: String,
}

#[derive(Debug, Deserialize)]
struct TopicPermission {
    user: String,
    vhost: String,
    exchange: String,
    write: String,
    read: String,
}

/// A bundled broker with the users, vhosts and permissions of `parity/definitions.json`. A user's password is its name.
///
/// # Panics
/// When that file is not what it should be.
pub fn broker() -> BrokerBuilder {
    let definitions: Definitions =
        serde_json::from_str(include_str!("../parity/definitions.json")).expect("it is valid");
    let mut builder = Broker::builder();
    for vhost in definitions.vhosts {
        builder = builder.vhost(vhost.name);
    }
    for User { name, tags } in definitions.users {
        builder = builder.user(&name, &name).user_tags(&name, tags);
    }
    for Permission { user, vhost, configure, write, read } in definitions.permissions {
        builder = builder.permissions(user, vhost, configure, write, read);
    }
    for TopicPermission { user, vhost, exchange, write, read } in definitions.topic_permissions {
        builder = builder.topic_permissions(user, vhost, exchange, write, read);
    }
    builder
}
