//! [`Body`] and [`LazyHeaders`]: parts of a message that are read, or shared, when a layer asks for them. Most layers look at
//! neither.

use std::sync::{Mutex, OnceLock, PoisonError};

use bytes::Bytes;

use super::headers::Headers;
use crate::{connection::Delivery, lock::lock};

// Boxed where they are rarely needed: requests and responses are moved from layer to layer.

/// An encoded body.
#[derive(Debug)]
pub(crate) enum Body {
    Shared(Bytes),
    /// Shared when a layer asks for it; then the vector is empty.
    Written(Mutex<Vec<u8>>, OnceLock<Box<Bytes>>),
    Received(Delivery, OnceLock<Box<Bytes>>),
}

impl Body {
    pub(crate) fn written(body: Vec<u8>) -> Self {
        Self::Written(Mutex::new(body), OnceLock::new())
    }

    pub(crate) fn received(delivery: Delivery) -> Self {
        Self::Received(delivery, OnceLock::new())
    }

    pub(crate) fn get(&self) -> &Bytes {
        match self {
            Self::Shared(body) => body,
            Self::Written(body, shared) => shared.get_or_init(|| Box::new(std::mem::take(&mut *lock(body)).into())),
            Self::Received(delivery, shared) => shared.get_or_init(|| Box::new(delivery.shared_body())),
        }
    }

    /// The delivery whose body this still is, or the body.
    pub(crate) fn into_parts(self) -> Result<Delivery, Bytes> {
        match self {
            Self::Received(delivery, _) => Ok(delivery),
            body => Err(body.get().clone()),
        }
    }

    /// Copies it only if others have it, too.
    pub(crate) fn into_vec(self) -> Vec<u8> {
        match self {
            Self::Shared(body) => body.into(),
            Self::Written(body, shared) => match shared.into_inner() {
                Some(shared) => (*shared).into(),
                None => body.into_inner().unwrap_or_else(PoisonError::into_inner),
            },
            Self::Received(delivery, _) => delivery.body().to_vec(),
        }
    }

    pub(crate) fn is_received(&self) -> bool {
        matches!(self, Self::Received(..))
    }
}

impl Clone for Body {
    fn clone(&self) -> Self {
        match self {
            Self::Received(delivery, shared) => Self::Received(delivery.clone(), shared.clone()),
            Self::Shared(_) | Self::Written(..) => Self::Shared(self.get().clone()),
        }
    }
}

/// Headers in their order.
#[derive(Debug, Clone)]
pub(crate) enum LazyHeaders {
    Own(Headers),
    Received(Delivery, OnceLock<Box<Headers>>),
}

impl LazyHeaders {
    pub(crate) const NONE: Self = Self::Own(Headers::new());

    pub(crate) fn received(delivery: Delivery) -> Self {
        Self::Received(delivery, OnceLock::new())
    }

    pub(crate) fn get(&self) -> &Headers {
        match self {
            Self::Own(headers) => headers,
            Self::Received(delivery, read) => read.get_or_init(|| Box::new(delivery.headers())),
        }
    }

    /// Changes them; from then on they are no longer the delivery's.
    pub(crate) fn change<T>(&mut self, change: impl FnOnce(&mut Headers) -> T) -> T {
        let mut headers = std::mem::replace(self, Self::NONE).into_inner();
        let result = change(&mut headers);
        *self = Self::Own(headers);
        result
    }

    /// Whether there is certainly none.
    pub(crate) fn is_empty(&self) -> bool {
        match self {
            Self::Own(headers) => headers.is_empty(),
            Self::Received(delivery, _) => !delivery.has_more_headers(),
        }
    }

    pub(crate) fn into_inner(self) -> Headers {
        match self {
            Self::Own(headers) => headers,
            Self::Received(delivery, read) => read.into_inner().map_or_else(|| delivery.headers(), |read| *read),
        }
    }

    pub(crate) fn is_received(&self) -> bool {
        matches!(self, Self::Received(..))
    }
}
