//! The options of `rpc broker` for TLS.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use crate::broker::{BrokerBuilder, BrokerError, TlsOptions};

#[derive(Debug, clap::Args)]
#[command(next_help_heading = "TLS")]
pub(super) struct TlsArguments {
    /// The address to listen on for TLS, in addition; port 0 lets the system choose.
    #[arg(long, value_name = "HOST:PORT", requires = "tls_cert", requires = "tls_key")]
    tls_listen: Option<SocketAddr>,
    /// The broker's certificate, followed by the intermediate ones, in PEM.
    #[arg(long, value_name = "FILE", requires = "tls_listen")]
    tls_cert: Option<PathBuf>,
    /// The certificate's private key, in PEM.
    #[arg(long, value_name = "FILE", requires = "tls_listen")]
    tls_key: Option<PathBuf>,
    /// The CAs of client certificates, in PEM. A client with such a certificate may log in with EXTERNAL, as the user whose
    /// name is its common name.
    #[arg(long, value_name = "FILE", requires = "tls_listen")]
    tls_ca: Option<PathBuf>,
    /// Refuses clients without a certificate.
    #[arg(long, requires = "tls_ca")]
    tls_verify: bool,
}

impl TlsArguments {
    /// Sets these options on a builder.
    pub(super) fn apply(&self, builder: BrokerBuilder) -> Result<BrokerBuilder, BrokerError> {
        let (Some(address), Some(cert), Some(key)) = (self.tls_listen, &self.tls_cert, &self.tls_key) else {
            return Ok(builder);
        };
        let mut options = TlsOptions::new(read(cert)?, read(key)?).require_client_certificate(self.tls_verify);
        if let Some(ca) = &self.tls_ca {
            options = options.client_ca(read(ca)?);
        }
        Ok(builder.tls(options).tls_address(address))
    }
}

fn read(path: &Path) -> Result<Vec<u8>, BrokerError> {
    fs::read(path).map_err(|error| BrokerError::Configuration(format!("cannot read {}: {error}", path.display())))
}
