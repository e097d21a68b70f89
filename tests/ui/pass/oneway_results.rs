//! A one-way method may fail, with an error that has a text and need not travel.
#![deny(missing_docs, warnings)]

use rpc_core::{Call, CallError, ServiceError, service};

/// An error that travels, in other methods.
#[derive(Debug, ServiceError, serde::Serialize, serde::Deserialize)]
pub enum ShipError {
    /// Try again.
    #[rpc(retryable)]
    Closed,
}

impl std::fmt::Display for ShipError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("closed")
    }
}

impl From<CallError> for ShipError {
    fn from(_: CallError) -> Self {
        Self::Closed
    }
}

/// Another one.
pub struct NotSerde(std::fmt::Error);

impl std::fmt::Display for NotSerde {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

impl From<CallError> for NotSerde {
    fn from(_: CallError) -> Self {
        Self(std::fmt::Error)
    }
}

mod alias {
    pub type Result<T = ()> = std::result::Result<T, super::NotSerde>;
}

/// A service.
#[service(client_impls_trait, dyn_trait)]
pub trait Parcels {
    /// With an error that describes itself.
    #[rpc(oneway)]
    async fn ship(&self, parcel: u64) -> Result<(), ShipError>;
    /// With an error that is text alone.
    #[rpc(oneway, blocking)]
    async fn lose(&self, parcel: u64) -> Result<(), NotSerde>;
    /// With an alias.
    #[rpc(oneway)]
    async fn find(&self) -> alias::Result;
    /// With a reply.
    async fn count(&self) -> Result<u64, ShipError>;
}

/// The caller is told that the broker has taken the request.
pub fn calls(client: &ParcelsClient) -> [Call<()>; 3] {
    [client.ship(1), client.lose(1), client.find()]
}

/// The client is the trait.
pub async fn through(parcels: &impl Parcels) -> Result<(), ShipError> {
    parcels.ship(1).await
}

/// It is one.
pub async fn as_trait(client: &ParcelsClient) -> Result<(), ShipError> {
    through(client).await
}

fn main() {}
