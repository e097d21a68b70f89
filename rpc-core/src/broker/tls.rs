//! TLS: its options, and the user that a verified client certificate names.

use std::{fmt, sync::Arc};

use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        RootCertStore, ServerConfig,
        crypto::{CryptoProvider, ring},
        pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
        server::{WebPkiClientVerifier, danger::ClientCertVerifier},
    },
};

use super::{common_name::common_name, error::BrokerError};

/// The certificate of a broker, and the CAs of its clients' certificates. All of them are in PEM.
///
/// ```no_run
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use std::fs::read;
/// use rpc_core::broker::{Broker, TlsOptions};
///
/// let tls = TlsOptions::new(read("broker.crt")?, read("broker.key")?).client_ca(read("ca.crt")?);
/// let builder = Broker::builder().tls(tls);
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct TlsOptions {
    cert: Vec<u8>,
    key: Vec<u8>,
    ca: Option<Vec<u8>>,
    is_client_certificate_required: bool,
}

impl TlsOptions {
    /// The broker's certificate, followed by the intermediate ones, and its private key.
    ///
    /// [`BrokerBuilder::start`](super::BrokerBuilder::start) reads them and reports invalid ones.
    pub fn new(cert: impl Into<Vec<u8>>, key: impl Into<Vec<u8>>) -> Self {
        Self { cert: cert.into(), key: key.into(), ca: None, is_client_certificate_required: false }
    }

    /// The CAs of client certificates. By default the broker requests no certificate.
    ///
    /// A client with a certificate of one of these CAs may log in with the mechanism `EXTERNAL`, as the user whose name is
    /// the certificate's common name (RabbitMQ's `ssl_cert_login_from = common_name`). Other certificates are refused.
    #[must_use]
    pub fn client_ca(mut self, ca: impl Into<Vec<u8>>) -> Self {
        self.ca = Some(ca.into());
        self
    }

    /// Whether clients without a certificate are refused (RabbitMQ's `fail_if_no_peer_cert`). The default is `false`.
    #[must_use]
    pub fn require_client_certificate(mut self, is_required: bool) -> Self {
        self.is_client_certificate_required = is_required;
        self
    }

    pub(super) fn acceptor(&self) -> Result<TlsAcceptor, BrokerError> {
        let refuse = |what: &str, error: &dyn fmt::Display| BrokerError::Configuration(format!("TLS: {what}: {error}"));
        let certificates = |what: &str, pem: &[u8]| {
            let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
            match certificates {
                Ok(certificates) if certificates.is_empty() => Err(refuse(what, &"the PEM contains no certificate")),
                Ok(certificates) => Ok(certificates),
                Err(error) => Err(refuse(what, &error)),
            }
        };
        let chain = certificates("certificate", &self.cert)?;
        let key = PrivateKeyDer::from_pem_slice(&self.key).map_err(|error| refuse("key", &error))?;
        // A program that links both of rustls' providers has no default one.
        let provider = Arc::new(ring::default_provider());
        let config = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|error| refuse("protocol versions", &error))?;
        let config = match &self.ca {
            Some(ca) => {
                let mut roots = RootCertStore::empty();
                for certificate in certificates("ca", ca)? {
                    roots.add(certificate).map_err(|error| refuse("ca", &error))?;
                }
                config.with_client_cert_verifier(self.verifier(roots, provider)?)
            }
            None if self.is_client_certificate_required => {
                return Err(refuse("client certificates are required", &"set the ca to verify them with"));
            }
            None => config.with_no_client_auth(),
        };
        let config = config.with_single_cert(chain, key).map_err(|error| refuse("certificate and key", &error))?;
        Ok(TlsAcceptor::from(Arc::new(config)))
    }

    fn verifier(
        &self,
        roots: RootCertStore,
        provider: Arc<CryptoProvider>,
    ) -> Result<Arc<dyn ClientCertVerifier>, BrokerError> {
        let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
        let builder = match self.is_client_certificate_required {
            true => builder,
            false => builder.allow_unauthenticated(),
        };
        builder.build().map_err(|error| BrokerError::Configuration(format!("TLS: ca: {error}")))
    }
}

/// Shows no key.
impl fmt::Debug for TlsOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsOptions")
            .field("has_ca", &self.ca.is_some())
            .field("is_client_certificate_required", &self.is_client_certificate_required)
            .finish_non_exhaustive()
    }
}

/// The user that the client's certificate names. rustls shows only verified certificates.
pub(super) fn certificate_name<S>(stream: &tokio_rustls::server::TlsStream<S>) -> Option<String> {
    let certificate = stream.get_ref().1.peer_certificates()?.first()?;
    let name = common_name(certificate);
    if name.is_none() {
        tracing::info!("the client's certificate has no common name: it cannot log in with EXTERNAL");
    }
    name
}
