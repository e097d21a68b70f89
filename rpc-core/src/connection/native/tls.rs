//! TLS by rustls: the system's CAs, and what the options add.

use std::{fmt, io, sync::Arc};

use tokio::net::TcpStream;
use tokio_rustls::{
    TlsConnector,
    client::TlsStream,
    rustls::{
        ClientConfig, RootCertStore,
        crypto::ring,
        pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
    },
};

use crate::{
    connection::tls::{ClientTlsOptions, Identity},
    error::Error,
};

/// The outer error is one of the options, the inner one of the network.
pub(super) async fn connect(
    stream: TcpStream,
    host: &str,
    options: &ClientTlsOptions,
) -> Result<io::Result<TlsStream<TcpStream>>, Error> {
    let config = config(options)?;
    let name = ServerName::try_from(host.to_owned()).map_err(|error| refuse("host", &error))?;
    Ok(TlsConnector::from(Arc::new(config)).connect(name, stream).await)
}

fn config(options: &ClientTlsOptions) -> Result<ClientConfig, Error> {
    let mut roots = RootCertStore::empty();
    // CAs that cannot be read are not trusted. If none is left, the broker's certificate is refused.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if let Some(ca) = &options.ca {
        for certificate in certificates("ca", ca)? {
            roots.add(certificate).map_err(|error| refuse("ca", &error))?;
        }
    }
    // Named, because a program that uses both providers of rustls has no default one.
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| refuse("protocol versions", &error))?
        .with_root_certificates(roots);
    match &options.identity {
        Some(Identity { cert, key }) => {
            let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(|error| refuse("key", &error))?;
            config.with_client_auth_cert(certificates("certificate", cert)?, key).map_err(|error| refuse("key", &error))
        }
        None => Ok(config.with_no_client_auth()),
    }
}

fn certificates(what: &str, pem: &str) -> Result<Vec<CertificateDer<'static>>, Error> {
    match CertificateDer::pem_slice_iter(pem.as_bytes()).collect::<Result<Vec<_>, _>>() {
        Ok(certificates) if certificates.is_empty() => Err(refuse(what, &"there is none in the PEM")),
        Ok(certificates) => Ok(certificates),
        Err(error) => Err(refuse(what, &error)),
    }
}

fn refuse(what: &str, error: &dyn fmt::Display) -> Error {
    Error::Configuration(format!("TLS: {what}: {error}"))
}
