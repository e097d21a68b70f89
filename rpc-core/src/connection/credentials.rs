//! Logins that change: tokens that expire, passwords that are rotated.

use std::{fmt, sync::Arc, time::Duration};

use super::limit::within;
use crate::error::Error;

/// Gives a connection its user and password, instead of its URI.
///
/// It is asked before each attempt to open the connection, and again before what it gave expires
/// ([`Credentials::valid_for`]): the new password or token then goes to the broker over the open connection
/// (`connection.update-secret`), and no call notices. RabbitMQ's OAuth 2 backend takes a token as the password.
///
/// ```
/// use std::time::Duration;
///
/// use async_trait::async_trait;
/// use rpc_core::{ConnectionOptions, Credentials, CredentialsProvider};
///
/// struct Tokens;
///
/// #[async_trait]
/// impl CredentialsProvider for Tokens {
///     async fn credentials(&self) -> Result<Credentials, Box<dyn std::error::Error + Send + Sync>> {
///         let token = "fetched from the identity provider".to_owned();
///         Ok(Credentials::new("stock", token).valid_for(Duration::from_secs(300)))
///     }
/// }
///
/// let options = ConnectionOptions::default().credentials(Tokens);
/// ```
#[async_trait::async_trait]
pub trait CredentialsProvider: Send + Sync + 'static {
    /// The user and password, or token, of now.
    ///
    /// It has as long as an attempt to connect, 10 s by default, and its future is dropped then.
    ///
    /// # Errors
    /// Any. The attempt has failed then, and is repeated as one that does not reach the broker.
    async fn credentials(&self) -> Result<Credentials, Box<dyn std::error::Error + Send + Sync>>;
}

/// A user and a password, or a token in its place. `Debug` shows the user alone.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Credentials {
    user: String,
    password: String,
    valid_for: Option<Duration>,
}

impl Credentials {
    /// Credentials that do not expire. For a token the user can be any text, RabbitMQ takes it from the token.
    pub fn new(user: impl Into<String>, password: impl Into<String>) -> Self {
        Self { user: user.into(), password: password.into(), valid_for: None }
    }

    /// How long the password or token is valid from now on. The provider is asked again when three quarters of that time have passed, and
    /// more often once it fails. The default is for ever.
    #[must_use]
    pub const fn valid_for(mut self, valid_for: Duration) -> Self {
        self.valid_for = Some(valid_for);
        self
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { user, valid_for, .. } = self;
        f.debug_struct("Credentials").field("user", user).field("valid_for", valid_for).finish_non_exhaustive()
    }
}

/// The provider of a connection's options.
#[derive(Clone)]
pub(super) struct Provider(Arc<dyn CredentialsProvider>);

impl Provider {
    pub(super) fn new(provider: impl CredentialsProvider) -> Self {
        Self(Arc::new(provider))
    }

    /// # Errors
    /// [`Error::Credentials`], also when it takes longer than `limit`.
    pub(super) async fn ask(&self, limit: Duration) -> Result<Credentials, Error> {
        let asked =
            async { self.0.credentials().await.map_err(|error| Error::Credentials { reason: error.to_string() }) };
        match within(limit, "ask for credentials", asked).await {
            Err(error @ Error::TimedOut { .. }) => Err(Error::Credentials { reason: error.to_string() }),
            asked => asked,
        }
    }
}

impl fmt::Debug for Provider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CredentialsProvider")
    }
}

/// The login of a link, which is to be renewed before it expires.
#[derive(Debug, Clone, Default)]
pub(super) struct Login {
    user: String,
    expires_in: Option<Duration>,
}

impl Login {
    /// The login with these credentials, and their password.
    pub(super) fn new(credentials: Credentials) -> (Self, String) {
        let Credentials { user, password, valid_for } = credentials;
        (Self { user, expires_in: valid_for }, password)
    }

    pub(super) fn user(&self) -> &str {
        &self.user
    }

    /// When to ask again; `None` for a login that does not expire.
    pub(super) fn renewal(&self) -> Option<Duration> {
        let quarter = self.expires_in? / 4;
        Some((quarter * 3).max(RENEWAL_MIN))
    }

    /// Takes new credentials over, and returns the secret for the broker; `None` when they are of another user: these hold from the next
    /// connection on.
    pub(super) fn renew(&mut self, credentials: Credentials) -> Option<String> {
        self.expires_in = credentials.valid_for;
        (credentials.user == self.user).then_some(credentials.password)
    }
}

/// A provider whose credentials are over at once is not asked in a loop.
const RENEWAL_MIN: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_secret_is_shown() {
        let credentials = Credentials::new("alice", "s3cret").valid_for(Duration::from_secs(5));
        let shown = format!("{credentials:?}");
        assert!(shown.contains("alice") && shown.contains("5s") && !shown.contains("s3cret"), "{shown}");
    }

    #[test]
    fn a_login_is_renewed_in_good_time() {
        let login = |expires_in| Login { user: "alice".to_owned(), expires_in };
        assert_eq!(login(None).renewal(), None);
        assert_eq!(login(Some(Duration::from_secs(60))).renewal(), Some(Duration::from_secs(45)));
        assert_eq!(login(Some(Duration::ZERO)).renewal(), Some(RENEWAL_MIN));
        let mut login = login(Some(Duration::from_secs(60)));
        assert_eq!(login.renew(Credentials::new("alice", "next")), Some("next".to_owned()));
        assert_eq!(login.renewal(), None);
        assert_eq!(login.renew(Credentials::new("bob", "next")), None, "the broker would check it as alice's");
    }

    #[tokio::test(start_paused = true)]
    async fn a_provider_that_fails_or_hangs_is_an_error() {
        struct Fails;
        #[async_trait::async_trait]
        impl CredentialsProvider for Fails {
            async fn credentials(&self) -> Result<Credentials, Box<dyn std::error::Error + Send + Sync>> {
                Err("the vault is sealed".into())
            }
        }
        struct Hangs;
        #[async_trait::async_trait]
        impl CredentialsProvider for Hangs {
            async fn credentials(&self) -> Result<Credentials, Box<dyn std::error::Error + Send + Sync>> {
                std::future::pending().await
            }
        }
        let limit = Duration::from_secs(10);
        let failed = Provider::new(Fails).ask(limit).await.unwrap_err();
        assert!(matches!(&failed, Error::Credentials { reason } if reason == "the vault is sealed"), "{failed:?}");
        let hung = Provider::new(Hangs).ask(limit).await.unwrap_err();
        assert!(matches!(&hung, Error::Credentials { reason } if reason.contains("within 10s")), "{hung:?}");
    }
}
