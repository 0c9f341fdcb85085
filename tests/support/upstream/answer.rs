//! How a scripted upstream answers: first as a good registry would, then bent by the faults.

use std::ops::Range;
use std::sync::Arc;

use http::header::{ACCEPT_RANGES, AUTHORIZATION, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, LINK, LOCATION};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Empty, StreamBody};
use hyper::body::Incoming;
use serde_json::json;

use super::body::Body;
use super::record::{Kind, Recorded};
use super::script::Fault;
use super::{Protection, State};
use crate::support::base64;
use crate::support::blob::Blob;
use crate::support::images::OCI_INDEX;
use crate::support::server;

const DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");

/// An answer before faults: its head and the content its body comes from.
struct Draft {
    status: StatusCode,
    headers: HeaderMap,
    content: Blob,
    range: Option<Range<u64>>,
}

pub(super) async fn answer(state: Arc<State>, request: Request<Incoming>) -> Response<server::Body> {
    let (head, _) = request.into_parts();
    let recorded = Recorded::new(&head);
    let faults = state.script.faults(&recorded);
    state.requests.send_modify(|requests| requests.push(recorded.clone()));
    for fault in &faults {
        if let Fault::HoldHead(gate) = fault {
            gate.pass().await;
        }
    }
    let draft = if let Some(mut draft) = refusal(&state, &recorded) {
        // Registries send on only those who may pull.
        let stays = faults.iter().filter(|fault| !matches!(fault, Fault::Redirect(_) | Fault::RedirectBelow(_)));
        draft.bend(&recorded, stays);
        draft
    } else {
        let mut draft = good_answer(&state, &recorded);
        draft.bend(&recorded, faults.iter());
        draft
    };
    draft.into_response(&state, &recorded, &faults)
}

/// The challenge, if the registry is protected and the request has nothing to show.
fn refusal(state: &State, request: &Recorded) -> Option<Draft> {
    let protection = state.protection.lock().clone();
    let shown = request.headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    let challenge = match protection {
        Protection::Open => return None,
        Protection::Basic { username, password } => {
            let expected = format!("Basic {}", base64::standard(format!("{username}:{password}").as_bytes()));
            if shown == Some(&expected) {
                return None;
            }
            "Basic realm=\"test\"".to_owned()
        }
        Protection::Bearer(tokens) => {
            let token = shown.and_then(|shown| shown.strip_prefix("Bearer "));
            if token.is_some_and(|token| tokens.grants(token, &request.repository)) {
                return None;
            }
            tokens.challenge(&request.repository)
        }
    };
    let mut draft = Draft::error(StatusCode::UNAUTHORIZED, "UNAUTHORIZED");
    draft.set(http::header::WWW_AUTHENTICATE, &challenge);
    Some(draft)
}

fn good_answer(state: &State, request: &Recorded) -> Draft {
    if request.method != Method::GET && request.method != Method::HEAD {
        return Draft::error(StatusCode::METHOD_NOT_ALLOWED, "UNSUPPORTED");
    }
    let content = state.content.lock();
    match request.kind {
        Kind::Ping => Draft::new("application/json", Blob::held("{}")),
        Kind::Manifest => match content.manifest(&request.repository, &request.reference) {
            Some((media_type, manifest)) => {
                let digest = manifest.digest().to_string();
                let mut draft = Draft::new(media_type.as_str(), manifest);
                draft.set(DIGEST, &digest);
                draft
            }
            None => Draft::error(StatusCode::NOT_FOUND, "MANIFEST_UNKNOWN"),
        },
        Kind::Blob => match content.blob(&request.repository, &request.reference) {
            Some(blob) => Draft::blob(blob, request),
            None => Draft::error(StatusCode::NOT_FOUND, "BLOB_UNKNOWN"),
        },
        Kind::Tags => match content.tags(&request.repository) {
            Some(tags) => tags_page(request, tags),
            None => Draft::error(StatusCode::NOT_FOUND, "NAME_UNKNOWN"),
        },
        Kind::Referrers => {
            let document = content.referrers(&request.repository, &request.reference);
            Draft::new(OCI_INDEX, Blob::held(document.to_string()))
        }
        Kind::Other => Draft::error(StatusCode::NOT_FOUND, "UNSUPPORTED"),
    }
}

/// The page of tags that `n` and `last` ask for.
fn tags_page(request: &Recorded, mut tags: Vec<String>) -> Draft {
    if let Some(last) = request.parameter("last") {
        tags.retain(|tag| *tag > last);
    }
    let all = tags.len();
    if let Some(most) = request.parameter("n").and_then(|n| n.parse().ok()) {
        tags.truncate(most);
    }
    let next = tags.last().filter(|_| tags.len() < all).map(|last| {
        let n = tags.len();
        format!("</v2/{}/tags/list?last={last}&n={n}>; rel=\"next\"", request.repository)
    });
    let document = json!({ "name": request.repository, "tags": tags });
    let mut draft = Draft::new("application/json", Blob::held(document.to_string()));
    if let Some(next) = next {
        draft.set(LINK, &next);
    }
    draft
}

impl Draft {
    fn new(content_type: &str, content: Blob) -> Self {
        let mut draft = Self { status: StatusCode::OK, headers: HeaderMap::new(), content, range: None };
        draft.set(CONTENT_TYPE, content_type);
        draft
    }

    fn error(status: StatusCode, code: &str) -> Self {
        let document = json!({ "errors": [{ "code": code, "message": "scripted" }] });
        Self { status, ..Self::new("application/json", Blob::held(document.to_string())) }
    }

    fn blob(blob: Blob, request: &Recorded) -> Self {
        let size = blob.size();
        let digest = blob.digest().to_string();
        let mut draft = Self::new("application/octet-stream", blob);
        draft.set(DIGEST, &digest);
        draft.set(ACCEPT_RANGES, "bytes");
        if let Some(range) = requested_range(request, size) {
            draft.status = StatusCode::PARTIAL_CONTENT;
            draft.set(CONTENT_RANGE, &format!("bytes {}-{}/{size}", range.start, range.end - 1));
            draft.range = Some(range);
        }
        draft
    }

    fn set(&mut self, name: HeaderName, value: &str) {
        self.headers.insert(name, HeaderValue::from_str(value).expect("tests set printable headers"));
    }

    /// The faults that change what is answered, as opposed to how its body travels.
    fn bend<'a>(&mut self, request: &Recorded, faults: impl Iterator<Item = &'a Fault> + Clone) {
        for fault in faults.clone() {
            match fault {
                Fault::Status(status) => {
                    let kept = std::mem::replace(self, Self::error(*status, "SCRIPTED")).headers;
                    // A scripted 401 keeps the challenge, if the registry is protected.
                    self.headers.extend(
                        kept.into_iter().filter(|(name, _)| name.as_ref() == Some(&http::header::WWW_AUTHENTICATE)),
                    );
                }
                Fault::Page { status, content_type, body } => {
                    *self = Self { status: *status, ..Self::new(content_type, Blob::held(*body)) };
                }
                Fault::Redirect(to) => self.redirect(to),
                Fault::RedirectBelow(base) => self.redirect(&format!("{base}{}", request.path)),
                Fault::IgnoreRange if self.range.take().is_some() => {
                    self.status = StatusCode::OK;
                    self.headers.remove(CONTENT_RANGE);
                }
                Fault::RefuseAuthorization if request.headers.contains_key(AUTHORIZATION) => {
                    *self = Self::error(StatusCode::BAD_REQUEST, "SCRIPTED");
                }
                _ => {}
            }
        }
        for fault in faults {
            match fault {
                Fault::Header(name, value) => {
                    self.headers.insert(name, value.clone());
                }
                Fault::WithoutHeader(name) => {
                    self.headers.remove(name);
                }
                _ => {}
            }
        }
    }

    fn redirect(&mut self, to: &str) {
        *self = Self::error(StatusCode::TEMPORARY_REDIRECT, "SCRIPTED");
        self.set(LOCATION, to);
    }

    fn into_response(self, state: &State, request: &Recorded, faults: &[Fault]) -> Response<server::Body> {
        let range = self.range.clone().unwrap_or(0..self.content.size());
        let body = Body::new(self.content, range, faults, Arc::clone(&state.sent));
        let mut length = Some(body.length());
        for fault in faults {
            match fault {
                Fault::Chunked => length = None,
                Fault::AnnounceLength(announced) => length = Some(*announced),
                Fault::WithoutHeader(name) if *name == CONTENT_LENGTH => length = None,
                _ => {}
            }
        }
        let body = if request.method == Method::HEAD {
            Empty::new().map_err(|never| match never {}).boxed_unsync()
        } else {
            StreamBody::new(body.into_stream()).boxed_unsync()
        };
        let mut response = Response::new(body);
        *response.status_mut() = self.status;
        *response.headers_mut() = self.headers;
        if let Some(length) = length {
            response.headers_mut().insert(CONTENT_LENGTH, length.into());
        }
        response
    }
}

/// A single `bytes=a-b` or `bytes=a-` that can be satisfied.
fn requested_range(request: &Recorded, size: u64) -> Option<Range<u64>> {
    let value = request.header(http::header::RANGE)?;
    let (first, last) = value.strip_prefix("bytes=")?.split_once('-')?;
    let first: u64 = first.parse().ok()?;
    let end = last.parse::<u64>().map_or(size, |last| (last + 1).min(size));
    (first < end).then_some(first..end)
}
