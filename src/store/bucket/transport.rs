//! The HTTP below `object_store`: one request, one answer. Retries are decided above; redirects are not followed, as a
//! bucket that sends requests elsewhere is in another region than the configuration says.

use std::fmt;
use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, StatusCode};
use http_body_util::{BodyExt, Limited};
use object_store::ClientOptions;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpResponseBody, HttpService,
};

use super::failure::{NoAnswer, Refusal};
use crate::config::BucketConfig;
use crate::store::error::OpenError;

/// How long a connection may take to be made.
const CONNECT: Duration = Duration::from_secs(2);
/// How long a request without a body may take to be answered.
const ANSWER: Duration = Duration::from_secs(10);
/// The slowest that a part of an upload may become, in bytes per second, before it is given up.
const SLOWEST: u64 = 128 * 1024;
/// How much of the body of a refusal is read.
const REFUSAL: usize = 64 * 1024;

/// Connections to the bucket, and to where its credentials come from.
#[derive(Clone)]
pub(super) struct Transport {
    client: reqwest::Client,
}

impl Transport {
    pub(super) fn new(config: &BucketConfig) -> Result<Self, OpenError> {
        let unusable = |reason: String| OpenError::Bucket { name: config.name.clone(), reason };
        let mut builder = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(CONNECT)
            .user_agent(concat!("weir/", env!("CARGO_PKG_VERSION")))
            .http1_only();
        if let Some(authorities) = &config.authorities {
            let file = authorities.file.display();
            let certificates = reqwest::Certificate::from_pem_bundle(&authorities.pem)
                .map_err(|error| unusable(format!("`store.s3.ca_file` {file} is not PEM: {error}")))?;
            if certificates.is_empty() {
                return Err(unusable(format!("`store.s3.ca_file` {file} holds no certificate")));
            }
            builder = builder.tls_certs_merge(certificates);
        }
        let client = builder.build().map_err(|error| unusable(format!("no client can be made for it: {error}")))?;
        Ok(Self { client })
    }

    async fn send(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let (parts, body) = request.into_parts();
        let host = parts.uri.host().unwrap_or_default().to_owned();
        let url = parts.uri.to_string().parse().map_err(|error| HttpError::new(HttpErrorKind::Unknown, error))?;
        let is_head = parts.method == Method::HEAD;
        let body = body.collect().await?.to_bytes();
        let limit = ANSWER + Duration::from_secs(body.len() as u64 / SLOWEST);
        let mut request = reqwest::Request::new(parts.method, url);
        *request.headers_mut() = parts.headers;
        *request.body_mut() = Some(body.into());
        let answer = match tokio::time::timeout(limit, self.client.execute(request)).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => return Err(NoAnswer::of(&host, error).into()),
            Err(_) => return Err(NoAnswer::late(&host, limit).into()),
        };
        let (parts, body) = http::Response::from(answer).into_parts();
        if parts.status.is_success() || matches!(parts.status, StatusCode::PRECONDITION_FAILED) {
            let body = body.map_err(move |error| NoAnswer::of(&host, error).into());
            return Ok(HttpResponse::from_parts(parts, HttpResponseBody::new(body)));
        }
        // The answer to HEAD has no body, and would be waited for.
        let text = if is_head { Bytes::new() } else { read_refusal(body).await };
        let refusal = Refusal::of(parts.status, &parts.headers, &String::from_utf8_lossy(&text));
        if refusal.is_absence() {
            return Ok(HttpResponse::from_parts(parts, text.into()));
        }
        Err(refusal.into())
    }
}

/// What was said about a refusal, as far as it arrives.
async fn read_refusal(body: reqwest::Body) -> Bytes {
    let read = tokio::time::timeout(CONNECT, Limited::new(body, REFUSAL).collect()).await;
    read.ok().and_then(Result::ok).map(http_body_util::Collected::to_bytes).unwrap_or_default()
}

impl fmt::Debug for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Transport")
    }
}

impl HttpConnector for Transport {
    fn connect(&self, _options: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(self.clone()))
    }
}

impl HttpService for Transport {
    fn call<'a, 'future>(
        &'a self,
        request: HttpRequest,
    ) -> Pin<Box<dyn Future<Output = Result<HttpResponse, HttpError>> + Send + 'future>>
    where
        'a: 'future,
        Self: 'future,
    {
        Box::pin(self.send(request))
    }
}
