//! `/api/v1/pins`, `/api/v1/prefetch` and `/api/v1/images`: what is stored, and what is to be.
//!
//! Everybody who reaches the listener may look. What fetches or keeps anything needs the token, as it costs the room of
//! the store and the rate limits of upstreams.

mod follow;
mod list;
mod pins;
mod prefetch;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::routing::{delete, get, post};
use serde::de::DeserializeOwned;

use super::guard::Guard;
use super::problem::Problem;
use crate::pull::{Keeper, PullService};

/// The most bytes of a request: some ten thousand images.
const MAX_REQUEST_BYTES: usize = 1024 * 1024;

/// What these answers are made of.
#[derive(Debug, Clone)]
pub struct Images {
    /// Where images are fetched from, and what is stored.
    pub pull: PullService,
    /// What is pinned.
    pub keeper: Keeper,
    /// Who may change anything.
    pub guard: Guard,
}

/// This part of the operators' API.
pub(super) fn router(images: Images) -> Router {
    Router::new()
        .route("/pins", get(pins::list).post(pins::pin))
        .route("/pins/{name}", delete(pins::unpin))
        .route("/prefetch", post(prefetch::prefetch))
        .route("/images", get(list::list))
        .with_state(images)
}

/// What a request asks for, in JSON.
async fn read<T: DeserializeOwned>(body: Body) -> Result<T, Problem> {
    let too_large =
        |_| Problem::Malformed(format!("The request has more than {MAX_REQUEST_BYTES} bytes, or broke off"));
    let body = to_bytes(body, MAX_REQUEST_BYTES).await.map_err(too_large)?;
    serde_json::from_slice(&body).map_err(|error| Problem::Malformed(format!("The request makes no sense: {error}")))
}
