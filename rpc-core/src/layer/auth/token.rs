//! [`TokenLayer`]: sends a token with each call.

use std::{
    borrow::Cow,
    fmt,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use tower_layer::Layer;
use tower_service::Service;

use super::{HEADER, UNAUTHENTICATED, cache::Cache, source::TokenSource};
use crate::layer::{
    request::Request,
    response::{BoxError, BoxFuture, Response},
    stack::{send, take_ready},
};

/// A layer of a client that sends a token in a header of each call; [`AuthLayer`](super::AuthLayer) reads it.
///
/// A token with an end is kept until it is near. A call that finds it near asks for the next one, while others go on with the
/// one that is still good. One that the workers refuse as `unauthenticated` is forgotten, and its call is sent once more with a
/// new one, since it was not executed.
///
/// ```
/// use rpc_core::layer::{Token, TokenLayer};
///
/// # fn example(client: &rpc_core::Client) -> rpc_core::Client {
/// client.layer(TokenLayer::new(Token::new("of ada")))
/// # }
/// ```
///
/// ```
/// use std::time::Duration;
///
/// use async_trait::async_trait;
/// use rpc_core::layer::{BoxError, Token, TokenLayer, TokenSource};
///
/// struct File(std::path::PathBuf);
///
/// #[async_trait]
/// impl TokenSource for File {
///     async fn token(&self) -> Result<Token, BoxError> {
///         let secret = std::fs::read_to_string(&self.0)?;
///         Ok(Token::new(secret.trim()).expires_in(Duration::from_secs(300)))
///     }
/// }
///
/// # fn example(client: &rpc_core::Client) -> rpc_core::Client {
/// client.layer(TokenLayer::new(File("/var/run/secrets/token".into())).refresh_before(Duration::from_secs(60)))
/// # }
/// ```
#[derive(Clone)]
pub struct TokenLayer {
    cache: Arc<Cache>,
    header: Cow<'static, str>,
    refresh_before: Duration,
    limit: Duration,
}

impl TokenLayer {
    /// Sends the tokens of `source`. Clones of the layer share them.
    pub fn new(source: impl TokenSource) -> Self {
        let cache = Arc::new(Cache::new(source));
        Self { cache, header: Cow::Borrowed(HEADER), refresh_before: REFRESH_BEFORE, limit: LIMIT }
    }

    /// The header that carries the token. The default is `authorization`.
    pub fn header(mut self, name: impl Into<Cow<'static, str>>) -> Self {
        self.header = name.into();
        self
    }

    /// How long before a token's end the next one is asked for. The default is 30 s.
    pub const fn refresh_before(mut self, time: Duration) -> Self {
        self.refresh_before = time;
        self
    }

    /// How long the source may take. The default is 10 s; a call's own deadline holds besides.
    pub const fn limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    async fn send<S>(self, mut inner: S, mut request: Request) -> Result<Response, BoxError>
    where
        S: Service<Request, Response = Response, Error: Into<BoxError>, Future: Send> + Clone + Send + 'static,
    {
        let token = self.cache.token(self.refresh_before, self.limit).await?;
        request.set_header(self.header.clone(), &*token.secret);
        // A token that was asked for just now is not refused for its age.
        let mut again = token.is_kept.then(|| (inner.clone(), request.clone()));
        let response = inner.call(request).await.map_err(Into::into)?;
        if response.code() == UNAUTHENTICATED {
            self.cache.forget(&token.secret);
        }
        match again.take() {
            Some((inner, mut request)) if response.code() == UNAUTHENTICATED && !response.maybe_executed() => {
                let token = self.cache.token(self.refresh_before, self.limit).await?;
                request.set_header(self.header, &*token.secret);
                send(inner, request).await
            }
            _ => Ok(response),
        }
    }
}

impl fmt::Debug for TokenLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenLayer")
            .field("header", &self.header)
            .field("refresh_before", &self.refresh_before)
            .field("limit", &self.limit)
            .finish_non_exhaustive()
    }
}

impl<S> Layer<S> for TokenLayer {
    type Service = TokenService<S>;

    fn layer(&self, inner: S) -> TokenService<S> {
        TokenService { inner, layer: self.clone() }
    }
}

/// The service of [`TokenLayer`].
#[derive(Debug, Clone)]
pub struct TokenService<S> {
    inner: S,
    layer: TokenLayer,
}

impl<S> Service<Request> for TokenService<S>
where
    S: Service<Request, Response = Response, Error: Into<BoxError>, Future: Send> + Clone + Send + 'static,
{
    type Response = Response;
    type Error = BoxError;
    type Future = BoxFuture;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, request: Request) -> BoxFuture {
        let inner = take_ready(&mut self.inner);
        Box::pin(self.layer.clone().send(inner, request))
    }
}

/// Before the end of a token, by default.
const REFRESH_BEFORE: Duration = Duration::from_secs(30);
/// For the source, by default.
const LIMIT: Duration = Duration::from_secs(10);
