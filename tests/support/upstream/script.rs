//! The script of a [`super::ScriptedUpstream`]: which requests meet which faults.

use std::sync::Arc;

use http::{HeaderName, HeaderValue, Method, StatusCode};
use parking_lot::Mutex;
use tokio::sync::watch;
use weir::oci::Digest;

use super::record::{Kind, Recorded};
use crate::support::within;

/// A choice of requests. Starts wide and is narrowed: `Requests::blob(&digest).get().once()`.
#[derive(Debug, Clone, Default)]
pub(crate) struct Requests {
    kind: Option<Kind>,
    method: Option<Method>,
    repository: Option<String>,
    reference: Option<String>,
    /// Whether they have a `Range` header.
    ranged: Option<bool>,
    /// Of those that match all of the above: how many pass by first, and how many are then meant.
    skip: usize,
    take: Option<usize>,
}

impl Requests {
    pub(crate) fn all() -> Self {
        Self::default()
    }

    pub(crate) fn of_kind(kind: Kind) -> Self {
        Self { kind: Some(kind), ..Self::default() }
    }

    /// For one blob, in any repository.
    pub(crate) fn blob(digest: &Digest) -> Self {
        Self { reference: Some(digest.to_string()), ..Self::of_kind(Kind::Blob) }
    }

    /// For one manifest, by tag or digest as it is asked for.
    pub(crate) fn manifest(reference: impl std::fmt::Display) -> Self {
        Self { reference: Some(format!("{reference}")), ..Self::of_kind(Kind::Manifest) }
    }

    pub(crate) fn in_repository(self, repository: &str) -> Self {
        Self { repository: Some(repository.to_owned()), ..self }
    }

    pub(crate) fn get(self) -> Self {
        Self { method: Some(Method::GET), ..self }
    }

    pub(crate) fn head(self) -> Self {
        Self { method: Some(Method::HEAD), ..self }
    }

    /// Only those for a range.
    pub(crate) fn ranged(self) -> Self {
        Self { ranged: Some(true), ..self }
    }

    /// Only those for the whole.
    pub(crate) fn whole(self) -> Self {
        Self { ranged: Some(false), ..self }
    }

    /// Only the first of them.
    pub(crate) fn once(self) -> Self {
        self.first(1)
    }

    /// Only the first `count` of them.
    pub(crate) fn first(self, count: usize) -> Self {
        Self { take: Some(count), ..self }
    }

    /// All but the first `count` of them.
    pub(crate) fn after(self, count: usize) -> Self {
        Self { skip: count, ..self }
    }

    /// Whether `request` is of this choice, its turn aside.
    pub(super) fn matches(&self, request: &Recorded) -> bool {
        self.kind.is_none_or(|kind| kind == request.kind)
            && self.method.as_ref().is_none_or(|method| *method == request.method)
            && self.repository.as_ref().is_none_or(|repository| *repository == request.repository)
            && self.reference.as_ref().is_none_or(|reference| *reference == request.reference)
            && self.ranged.is_none_or(|ranged| ranged == request.headers.contains_key(http::header::RANGE))
    }

    fn is_turn(&self, number: usize) -> bool {
        number >= self.skip && self.take.is_none_or(|take| number < self.skip + take)
    }
}

/// What happens to an answer. Several faults can meet one request; they add up.
#[derive(Debug, Clone)]
pub(crate) enum Fault {
    /// Another status, with an error document.
    Status(StatusCode),
    /// Another status and another body of this type.
    Page { status: StatusCode, content_type: &'static str, body: &'static str },
    /// 307 to this address, for requests that pass the registry's protection.
    Redirect(String),
    /// 307 to the same path below this address.
    RedirectBelow(String),
    /// 400 to requests that carry credentials, as storage behind signed addresses answers.
    RefuseAuthorization,
    /// A header set to this value.
    Header(HeaderName, HeaderValue),
    /// A header left out.
    WithoutHeader(HeaderName),
    /// `Range` is ignored.
    IgnoreRange,
    /// No `Content-Length`: chunked.
    Chunked,
    /// `Content-Length` says this many bytes, whatever follows.
    AnnounceLength(u64),
    /// The head is sent when the gate opens.
    HoldHead(Gate),
    /// The body stands still before this byte until the gate opens.
    HoldAt(u64, Gate),
    /// From this byte of the content on, so many bytes come at a time, a second apart.
    CrawlFrom(u64, u64),
    /// The connection breaks before this byte of the content.
    CutAt(u64),
    /// The body ends cleanly before this byte of the content; `Content-Length` lies along.
    EndAt(u64),
    /// So many bytes follow the content; `Content-Length` lies along.
    Append(u64),
    /// The byte at this position is another.
    Flip(u64),
}

/// Holds answers until the test opens it, and tells the test how many arrived.
#[derive(Debug, Clone)]
pub(crate) struct Gate {
    open: watch::Sender<bool>,
    arrived: watch::Sender<usize>,
}

impl Gate {
    pub(crate) fn new() -> Self {
        Self { open: watch::Sender::new(false), arrived: watch::Sender::new(0) }
    }

    /// Lets everything pass, now and later.
    pub(crate) fn open(&self) {
        self.open.send_replace(true);
    }

    /// Waits until an answer stands at the gate.
    pub(crate) async fn reached(&self) {
        let mut arrived = self.arrived.subscribe();
        within("an answer's arrival at the gate", arrived.wait_for(|count| *count > 0))
            .await
            .expect("the gate holds the sender");
    }

    pub(crate) async fn pass(&self) {
        self.arrived.send_modify(|count| *count += 1);
        self.open.subscribe().wait_for(|open| *open).await.expect("the gate holds the sender");
    }
}

/// All rules of an upstream, in the order in which they were added.
#[derive(Debug, Default)]
pub(super) struct Script {
    rules: Mutex<Vec<Rule>>,
}

#[derive(Debug)]
struct Rule {
    requests: Requests,
    faults: Arc<[Fault]>,
    seen: usize,
}

impl Script {
    pub(super) fn add(&self, requests: Requests, faults: Vec<Fault>) {
        self.rules.lock().push(Rule { requests, faults: faults.into(), seen: 0 });
    }

    pub(super) fn clear(&self) {
        self.rules.lock().clear();
    }

    /// The faults that meet `request`; counts it.
    pub(super) fn faults(&self, request: &Recorded) -> Vec<Fault> {
        let mut met = Vec::new();
        for rule in self.rules.lock().iter_mut().filter(|rule| rule.requests.matches(request)) {
            if rule.requests.is_turn(rule.seen) {
                met.extend(rule.faults.iter().cloned());
            }
            rule.seen += 1;
        }
        met
    }
}
