//! [`AuthLayer`]: checks the token of each request, and leaves its user for the handler.

use std::{
    borrow::Cow,
    fmt,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use async_trait::async_trait;
use tokio::time::{Instant, timeout_at};
use tower_layer::Layer;
use tower_service::Service;

use super::{HEADER, PERMISSION_DENIED, UNAUTHENTICATED};
use crate::{
    call_error::OtherError,
    connection::amqp::HeaderValue,
    layer::{
        caller::Caller,
        request::Request,
        response::{BoxError, BoxFuture, Response},
        stack::take_ready,
    },
};

/// Says whose token it is.
///
/// ```
/// use async_trait::async_trait;
/// use rpc_core::layer::{AuthLayer, Authenticator, Caller, Denied, Request};
///
/// struct User(String);
///
/// struct Tokens;
///
/// #[async_trait]
/// impl Authenticator for Tokens {
///     type Identity = User;
///
///     async fn authenticate(&self, token: &str, request: &Request) -> Result<User, Denied> {
///         match token {
///             "of ada" => Ok(User("ada".to_owned())),
///             "of a guest" if request.method() == "read" => Ok(User("guest".to_owned())),
///             "of a guest" => Err(Denied::permission_denied("guests only read")),
///             _ => Err(Denied::unauthenticated("the token is unknown")),
///         }
///     }
///
///     fn caller(&self, user: &User) -> Caller {
///         Caller::new(&*user.0)
///     }
/// }
///
/// # fn example(connection: &rpc_core::Connection) -> rpc_core::WorkerPool {
/// rpc_core::WorkerPool::new(connection).layer(AuthLayer::new(Tokens))
/// # }
/// ```
#[async_trait]
pub trait Authenticator: Send + Sync + 'static {
    /// The value that handlers find in [`Context::extensions`](crate::Context::extensions): the user, for example.
    type Identity: Send + Sync + 'static;

    /// The owner of the token; it may also decide by the request's service, method and headers whether that one may make the call.
    /// The future is dropped when the caller stops waiting, and after the layer's [`limit`](AuthLayer::limit).
    ///
    /// # Errors
    /// The caller gets the error, and the handler does not run.
    async fn authenticate(&self, token: &str, request: &Request) -> Result<Self::Identity, Denied>;

    /// The name of the owner, the same for each of its tokens, which handlers and layers find in the extensions, too. Answers that a pool
    /// remembers are repeated to the same caller alone.
    fn caller(&self, identity: &Self::Identity) -> Caller;
}

/// Why a request is refused. The words are sent to the caller.
#[derive(Debug, Clone)]
pub struct Denied(Box<OtherError>);

impl Denied {
    /// Nobody knows the token, or it has expired: code `unauthenticated`.
    pub fn unauthenticated(message: impl Into<String>) -> Self {
        OtherError::new(UNAUTHENTICATED, message).into()
    }

    /// The owner of the token may not make this call: code `permission_denied`.
    pub fn permission_denied(message: impl Into<String>) -> Self {
        OtherError::new(PERMISSION_DENIED, message).into()
    }
}

/// A refusal with a code of your own, or one that says that trying again may help.
impl From<OtherError> for Denied {
    fn from(error: OtherError) -> Self {
        Self(Box::new(error.maybe_executed(false)))
    }
}

/// A layer of a pool that checks the token in a header of each request, before its handler.
///
/// The header's name is `authorization` by default; its value is the token alone, as text or as UTF-8 bytes. A request without one is
/// refused as `unauthenticated`. Layers further in and the handler find the [`Identity`](Authenticator::Identity), and no token: the
/// header is taken away. See [`Authenticator`] for an example.
pub struct AuthLayer<A> {
    authenticator: Arc<A>,
    header: Cow<'static, str>,
    limit: Duration,
}

impl<A: Authenticator> AuthLayer<A> {
    /// Checks tokens by `authenticator`.
    pub fn new(authenticator: A) -> Self {
        Self { authenticator: Arc::new(authenticator), header: Cow::Borrowed(HEADER), limit: LIMIT }
    }

    /// The header that carries the token. The default is `authorization`.
    pub fn header(mut self, name: impl Into<Cow<'static, str>>) -> Self {
        self.header = name.into();
        self
    }

    /// How long the authenticator may take; then the request is refused as `unauthenticated`, and marked retryable. The default is 5 s.
    pub const fn limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }
}

impl<A> Clone for AuthLayer<A> {
    fn clone(&self) -> Self {
        Self { authenticator: Arc::clone(&self.authenticator), header: self.header.clone(), limit: self.limit }
    }
}

impl<A> fmt::Debug for AuthLayer<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AuthLayer").field("header", &self.header).field("limit", &self.limit).finish_non_exhaustive()
    }
}

impl<S, A> Layer<S> for AuthLayer<A> {
    type Service = AuthService<S, A>;

    fn layer(&self, inner: S) -> AuthService<S, A> {
        AuthService { inner, layer: self.clone() }
    }
}

/// The service of [`AuthLayer`].
pub struct AuthService<S, A> {
    inner: S,
    layer: AuthLayer<A>,
}

impl<S, A> Service<Request> for AuthService<S, A>
where
    S: Service<Request, Response = Response, Error: Into<BoxError>, Future: Send> + Clone + Send + 'static,
    A: Authenticator,
{
    type Response = Response;
    type Error = BoxError;
    type Future = BoxFuture;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, mut request: Request) -> BoxFuture {
        let mut inner = take_ready(&mut self.inner);
        let layer = self.layer.clone();
        Box::pin(async move {
            match layer.admit(&mut request).await {
                Ok(()) => inner.call(request).await.map_err(Into::into),
                Err(Denied(error)) => Ok(Response::failed(*error)),
            }
        })
    }
}

impl<A: Authenticator> AuthLayer<A> {
    /// Leaves the identity in the request, and takes the token away.
    async fn admit(&self, request: &mut Request) -> Result<(), Denied> {
        let header = &*self.header;
        let Some(value) = request.remove_header(header) else {
            return Err(Denied::unauthenticated(format!("the header '{header}' is missing")));
        };
        let token = match &value {
            HeaderValue::Text(token) => Some(&**token),
            HeaderValue::Bytes(token) => str::from_utf8(token).ok(),
            _ => None,
        };
        let Some(token) = token else {
            return Err(Denied::unauthenticated(format!("the header '{header}' is no text")));
        };
        let limit = Instant::now() + self.limit;
        let limit = request.deadline().map_or(limit, |deadline| deadline.min(limit));
        match timeout_at(limit, self.authenticator.authenticate(token, request)).await {
            Ok(identity) => {
                let identity = identity?;
                request.extensions_mut().insert(self.authenticator.caller(&identity));
                request.extensions_mut().insert(identity);
                Ok(())
            }
            Err(_) => {
                tracing::warn!(
                    service = request.service(),
                    method = request.method(),
                    "a token was not checked in time"
                );
                Err(OtherError::new(UNAUTHENTICATED, "the token was not checked in time").retryable(true).into())
            }
        }
    }
}

impl<S: Clone, A> Clone for AuthService<S, A> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone(), layer: self.layer.clone() }
    }
}

impl<S: fmt::Debug, A> fmt::Debug for AuthService<S, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AuthService").field("inner", &self.inner).field("layer", &self.layer).finish()
    }
}

/// For the authenticator, by default.
const LIMIT: Duration = Duration::from_secs(5);
