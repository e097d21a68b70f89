//! The same pages as a router of axum's, for programs that have a web server.

use axum::{
    Router,
    http::{
        StatusCode,
        header::{CACHE_CONTROL, CONTENT_TYPE},
    },
    response::{IntoResponse, Response},
    routing::get,
};

use super::{
    Health,
    page::{Answer, Page},
};

impl Health {
    /// Routes for `/livez`, `/readyz`, `/startupz` and `/metrics`, to be merged into the program's own.
    ///
    /// ```
    /// use axum::{Router, routing::get};
    /// use rpc_core::health::Health;
    ///
    /// let health = Health::new();
    /// let app: Router = Router::new().route("/", get(async || "hello")).merge(health.router());
    /// ```
    pub fn router<S: Clone + Send + Sync + 'static>(&self) -> Router<S> {
        let pages = Page::PROBES.into_iter().chain([Page::Metrics]);
        pages.fold(Router::new(), |router, page| {
            let health = self.clone();
            router.route(page.path(), get(async move || health.answer(page)))
        })
    }
}

impl IntoResponse for Answer {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        (status, [(CONTENT_TYPE, self.content_type), (CACHE_CONTROL, "no-store")], self.body).into_response()
    }
}

#[cfg(test)]
mod tests {
    use axum::{
        body::Body,
        http::{Method, Request},
    };
    use tower::ServiceExt as _;

    use super::*;

    #[tokio::test]
    async fn the_router_has_the_pages_of_the_server() {
        let health = Health::new();
        let app: Router = Router::new().merge(health.router());
        let status = async |method: Method, path: &str| {
            let request = Request::builder().method(method).uri(path).body(Body::empty()).unwrap();
            app.clone().oneshot(request).await.unwrap().status().as_u16()
        };
        assert_eq!(status(Method::GET, "/livez").await, 200);
        assert_eq!(status(Method::GET, "/readyz").await, 503);
        assert_eq!(status(Method::HEAD, "/startupz").await, 503);
        assert_eq!(status(Method::GET, "/metrics").await, 404);
        assert_eq!(status(Method::POST, "/livez").await, 405);
        health.check("cache", || Ok(()));
        health.metrics(String::new);
        assert_eq!((status(Method::GET, "/readyz").await, status(Method::GET, "/metrics").await), (200, 200));
    }
}
