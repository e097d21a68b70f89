//! The users whose messages a client or a pool takes, and the one as whom it sends its own.
//!
//! A broker refuses a message whose `user_id` is not the login of its connection (RabbitMQ: "Validated User-ID"), so the name in a
//! message that has arrived can be relied on.

use std::sync::Arc;

use crate::connection::{Connection, Delivery};

/// The choice of one client or pool: by default it sends no name and takes the messages of all. Clones share it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Users {
    own: Option<Arc<str>>,
    taken: Option<Arc<[String]>>,
}

impl Users {
    /// Sends the name of the connection's user if `sends_own` says so and there is one; takes messages of the users in `taken`.
    pub(crate) fn new(connection: &Connection, sends_own: bool, taken: Option<Arc<[String]>>) -> Self {
        Self { own: connection.user().filter(|_| sends_own).map(Arc::from), taken }
    }

    /// The `user_id` of messages that are sent.
    pub(crate) fn own(&self) -> Option<&str> {
        self.own.as_deref()
    }

    /// Whether the message comes from a user whose messages are taken.
    pub(crate) fn takes(&self, message: &Delivery) -> bool {
        match &self.taken {
            None => true,
            Some(taken) => is_among(taken, message.user_id()),
        }
    }
}

#[cold]
fn is_among(taken: &[String], user_id: Option<&str>) -> bool {
    user_id.is_some_and(|user_id| taken.iter().any(|user| user == user_id))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connection::NewDelivery;

    #[test]
    fn all_messages_are_taken_unless_users_are_named() {
        let of = |user_id: Option<&str>| {
            NewDelivery { user_id: user_id.map(str::to_owned), ..NewDelivery::default() }.make().unwrap()
        };
        let all = Users::default();
        let named = Users { taken: Some(["ann".to_owned(), "bob".to_owned()].into()), ..Users::default() };
        let none = Users { taken: Some(Vec::new().into()), ..Users::default() };
        for (user_id, is_taken) in [(Some("ann"), true), (Some("bob"), true), (Some("an"), false), (None, false)] {
            assert!(all.takes(&of(user_id)));
            assert_eq!(named.takes(&of(user_id)), is_taken, "{user_id:?}");
            assert!(!none.takes(&of(user_id)));
        }
    }
}
