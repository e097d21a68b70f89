//! What an `amqps` connection trusts and shows.

use std::fmt;

/// Whose certificates a client believes, and the one it shows; all in PEM.
///
/// The system's CAs are trusted always (`SSL_CERT_FILE` and `SSL_CERT_DIR` name others in their place). To trust a private
/// one besides:
///
/// ```no_run
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use rpc_core::{Connection, ConnectionOptions};
///
/// let mut options = ConnectionOptions::default();
/// options.tls.ca = Some(std::fs::read_to_string("ca.crt")?);
/// let connection = Connection::open_with("amqps://rabbit.example.org", options).await?;
/// # Ok(()) }
/// ```
///
/// With `cert` and `key`, and `?auth_mechanism=external` at the end of the URI, the broker takes the user from the
/// certificate.
#[derive(Clone, Default)]
#[non_exhaustive]
pub struct ClientTlsOptions {
    /// CAs that are trusted besides the system's. The default is none.
    pub ca: Option<String>,
    /// The client's certificate, followed by those between it and a CA. The default is none.
    pub cert: Option<String>,
    /// Its private key.
    pub key: Option<String>,
}

/// Shows no key.
impl fmt::Debug for ClientTlsOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientTlsOptions")
            .field("has_ca", &self.ca.is_some())
            .field("has_cert", &self.cert.is_some())
            .finish_non_exhaustive()
    }
}
