//! [`Token`] and [`TokenSource`], its origin.

use std::{fmt, sync::Arc, time::Duration};

use async_trait::async_trait;
use tokio::time::Instant;

use crate::layer::response::BoxError;

/// A secret that says who calls. Neither `Debug` nor any log shows it.
#[derive(Clone)]
pub struct Token {
    pub(super) secret: Arc<str>,
    pub(super) expires_at: Option<Instant>,
}

impl Token {
    /// A token without a known end: the source is asked for another one at each call.
    pub fn new(secret: impl Into<Arc<str>>) -> Self {
        Self { secret: secret.into(), expires_at: None }
    }

    /// Says how long it is good for from now on: the layer keeps it, and asks for the next one before that.
    #[must_use]
    pub fn expires_in(self, time: Duration) -> Self {
        Self { expires_at: Instant::now().checked_add(time), ..self }
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token").field("expires_at", &self.expires_at).finish_non_exhaustive()
    }
}

/// Gives tokens: from a file, an identity provider, or memory.
#[async_trait]
pub trait TokenSource: Send + Sync + 'static {
    /// The token to send now. Asked for each call, unless the last one has an [end](Token::expires_in) that is not near; by one call at
    /// a time.
    ///
    /// # Errors
    /// Calls that have no good token end with [`CallError::Layer`](crate::CallError::Layer), and this error as its source.
    ///
    /// # Cancel safety
    /// The future is dropped with the call that waits for it, and after the layer's [`limit`](crate::layer::TokenLayer::limit). The next call asks
    /// again.
    async fn token(&self) -> Result<Token, BoxError>;
}

/// The same token for ever.
#[async_trait]
impl TokenSource for Token {
    async fn token(&self) -> Result<Self, BoxError> {
        Ok(self.clone())
    }
}
