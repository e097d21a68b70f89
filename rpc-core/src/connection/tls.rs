//! The certificates of an `amqps` connection.

use std::fmt;

/// The certificates a client trusts, and the one it presents; all in PEM.
///
/// The system's CAs are always trusted (`SSL_CERT_FILE` and `SSL_CERT_DIR` name others in their place). To trust a private
/// CA as well:
///
/// ```no_run
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use rpc_core::{ClientTlsOptions, Connection, ConnectionOptions};
///
/// let tls = ClientTlsOptions::default().ca(std::fs::read_to_string("ca.crt")?);
/// let options = ConnectionOptions::default().tls(tls);
/// let connection = Connection::open_with("amqps://rabbit.example.org", options).await?;
/// # Ok(()) }
/// ```
///
/// With [`identity`](Self::identity), and `?auth_mechanism=external` at the end of the URI, the broker takes the user from
/// the certificate.
#[derive(Clone, Default)]
#[non_exhaustive]
pub struct ClientTlsOptions {
    pub(crate) ca: Option<String>,
    pub(crate) identity: Option<Identity>,
}

/// A certificate with those between it and a CA, and its private key.
#[derive(Clone)]
pub(crate) struct Identity {
    pub(crate) cert: String,
    pub(crate) key: String,
}

impl ClientTlsOptions {
    /// CAs that are trusted in addition to the system's. The default is none.
    #[must_use]
    pub fn ca(mut self, ca: impl Into<String>) -> Self {
        self.ca = Some(ca.into());
        self
    }

    /// The client's certificate, followed by those between it and a CA, and its private key. The default is none.
    #[must_use]
    pub fn identity(mut self, cert: impl Into<String>, key: impl Into<String>) -> Self {
        self.identity = Some(Identity { cert: cert.into(), key: key.into() });
        self
    }
}

/// Shows no key.
impl fmt::Debug for ClientTlsOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientTlsOptions")
            .field("has_ca", &self.ca.is_some())
            .field("has_identity", &self.identity.is_some())
            .finish_non_exhaustive()
    }
}
