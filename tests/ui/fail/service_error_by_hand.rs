//! An implementation by hand has no code of the framework's either: the service does not compile.

use rpc_core::{ServiceError, service};
use serde::{Deserialize, Serialize};

#[derive(Debug, thiserror::Error, Serialize, Deserialize)]
#[error("too late")]
pub struct Late;

impl ServiceError for Late {
    const CODES: &'static [&'static str] = &["timeout"];

    fn code(&self) -> &'static str {
        "timeout"
    }
}

#[service]
pub trait Slow {
    async fn m(&self) -> Result<(), Late>;
}

fn main() {}
