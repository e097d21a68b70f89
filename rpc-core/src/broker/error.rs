//! The broker's one error.

use std::net::SocketAddr;

/// The reason why a broker did not start, or cannot do what it was asked for.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BrokerError {
    /// The broker cannot listen on this address.
    #[error("cannot listen on {address}")]
    Bind {
        /// The address asked for.
        address: SocketAddr,
        /// The error of the operating system.
        source: std::io::Error,
    },
    /// A setting is invalid. The text names it, and says what is wrong with it.
    #[error("{0}")]
    Configuration(String),
}
