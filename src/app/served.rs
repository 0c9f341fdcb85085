//! What a listener serves.

use std::pin::Pin;

use axum::Router;
use axum::response::Response;
use http::Request;
use hyper::body::Incoming;
use tower::Service;

use crate::api::Registry;

/// What answers the requests of a listener. It always answers: failures are answers, too.
#[derive(Debug, Clone)]
pub(crate) enum Served {
    /// The registry. Not behind a router: it has one route, and a router's would cost as much as a small answer.
    Registry(Registry),
    /// Anything else.
    Router(Router),
}

impl Served {
    /// The answer. Boxed, so that the type of a connection does not contain the types of everything behind it.
    pub(crate) fn answer(&self, request: Request<Incoming>) -> Pin<Box<dyn Future<Output = Response> + Send>> {
        match self {
            Self::Registry(registry) => {
                let registry = registry.clone();
                Box::pin(async move { registry.answer(request).await })
            }
            Self::Router(router) => {
                let answer = router.clone().call(request);
                Box::pin(async move { answer.await.unwrap_or_else(|never| match never {}) })
            }
        }
    }
}

impl From<Registry> for Served {
    fn from(registry: Registry) -> Self {
        Self::Registry(registry)
    }
}

impl From<Router> for Served {
    fn from(router: Router) -> Self {
        Self::Router(router)
    }
}
