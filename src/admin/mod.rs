//! What operators and orchestrators ask: metrics, probes and the state of upstreams, on a listener of their own.
//!
//! Everybody who reaches the listener may look; who may change anything, the [`Guard`] knows.
//!
//! The status code of a probe is the contract; the text is for people. An upstream that is down never fails a probe:
//! cached content is served all the same, and taking the server out of rotation would turn a nuisance into an outage.

mod guard;
mod images;
pub mod lines;
pub mod probes;
mod problem;
mod upkeep;
mod upstreams;

use axum::Router;
use axum::extract::{RawQuery, State};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::{StatusCode, header};

use crate::telemetry::Metrics;

pub use guard::Guard;
pub use images::Images;
pub use lines::{Event, Lines, SoFar};
pub use probes::{Check, CheckState, Lifecycle, Phase};
pub use upkeep::{Housekeeping, Sample};
pub use upstreams::Operations;

use probes::Report;

#[derive(Clone)]
struct Admin {
    metrics: Metrics,
    lifecycle: Lifecycle,
    checks: Vec<Check>,
}

/// The admin surface, with the operators' API below `/api/v1`. `checks` decide on readiness, beside the life cycle of
/// the server itself.
pub fn router(metrics: Metrics, lifecycle: Lifecycle, checks: Vec<Check>, api: Router) -> Router {
    Router::new()
        .route("/metrics", get(metrics_text))
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .route("/startupz", get(startupz))
        .with_state(Admin { metrics, lifecycle, checks })
        .nest("/api/v1", api)
}

/// The operators' API.
pub fn api(operations: Operations, images: Images, housekeeping: Housekeeping) -> Router {
    let routes = upstreams::router(operations).merge(images::router(images)).merge(upkeep::router(housekeeping));
    routes.fallback(async |uri: http::Uri| problem::Problem::NoSuchPath(uri.path().to_owned()))
}

async fn metrics_text(State(admin): State<Admin>) -> Response {
    match admin.metrics.encode() {
        Ok(text) => ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response(),
        Err(error) => {
            tracing::error!(%error, "Metrics could not be encoded");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

/// That this answers at all is the news: nothing the process depends on is looked at.
async fn livez(RawQuery(query): RawQuery) -> Response {
    answer("livez", &[Check::new("ping", || CheckState::Ok)], query.as_deref())
}

async fn readyz(State(admin): State<Admin>, RawQuery(query): RawQuery) -> Response {
    let mut checks = vec![admin.lifecycle.serving()];
    checks.extend(admin.checks);
    answer("readyz", &checks, query.as_deref())
}

async fn startupz(State(admin): State<Admin>, RawQuery(query): RawQuery) -> Response {
    answer("startupz", &[admin.lifecycle.started()], query.as_deref())
}

fn answer(probe: &str, checks: &[Check], query: Option<&str>) -> Response {
    let report = Report::of(checks, query.unwrap_or_default());
    let status = if report.passed() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let headers = [(header::CONTENT_TYPE, "text/plain; charset=utf-8"), (header::CACHE_CONTROL, "no-store")];
    (status, headers, report.text(probe)).into_response()
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use http::Request;
    use http_body_util::BodyExt;
    use tower::ServiceExt;

    use super::*;

    async fn get(router: &Router, path: &str) -> (StatusCode, String, String) {
        let request = Request::get(path).body(Body::empty()).unwrap();
        let answer = router.clone().oneshot(request).await.unwrap();
        let content_type = answer.headers()[header::CONTENT_TYPE].to_str().unwrap().to_owned();
        let status = answer.status();
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        (status, content_type, String::from_utf8(body.to_vec()).unwrap())
    }

    fn admin(lifecycle: &Lifecycle, store: CheckState) -> Router {
        let checks = vec![Check::new("store", move || store.clone())];
        router(Metrics::new().unwrap(), lifecycle.clone(), checks, Router::new())
    }

    #[tokio::test]
    async fn metrics_are_in_the_text_format() {
        let router = admin(&Lifecycle::default(), CheckState::Ok);
        let (status, content_type, text) = get(&router, "/metrics").await;
        assert_eq!((status, content_type.as_str()), (StatusCode::OK, "text/plain; version=0.0.4"));
        assert!(text.contains("weir_build_info{"), "{text}");
    }

    #[tokio::test]
    async fn probes_follow_the_life_cycle() {
        let lifecycle = Lifecycle::default();
        let router = admin(&lifecycle, CheckState::Ok);
        for (phase, live, started, ready) in
            [(Phase::Starting, 200, 503, 503), (Phase::Serving, 200, 200, 200), (Phase::Draining, 200, 200, 503)]
        {
            lifecycle.enter(phase);
            assert_eq!(get(&router, "/livez").await.0, live, "{phase:?}");
            assert_eq!(get(&router, "/startupz").await.0, started, "{phase:?}");
            assert_eq!(get(&router, "/readyz").await.0, ready, "{phase:?}");
        }
    }

    #[tokio::test]
    async fn a_degraded_check_passes_and_a_failed_one_does_not() {
        let lifecycle = Lifecycle::default();
        lifecycle.enter(Phase::Serving);
        let degraded = admin(&lifecycle, CheckState::Degraded("read-only".to_owned()));
        let (status, _, text) = get(&degraded, "/readyz?verbose").await;
        assert_eq!(status, StatusCode::OK);
        assert_eq!(text, "[+]serving ok\n[-]store degraded: read-only\nreadyz check passed\n");

        let failed = admin(&lifecycle, CheckState::Failed("gone".to_owned()));
        let (status, _, text) = get(&failed, "/readyz").await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(text, "[+]serving ok\n[-]store failed: gone\nreadyz check failed\n");
        let (status, _, text) = get(&failed, "/readyz?verbose&exclude=store").await;
        assert_eq!(status, StatusCode::OK);
        assert_eq!(text, "[+]serving ok\n[+]store excluded: ok\nreadyz check passed\n");
    }
}
