//! The record of one request: kept while it is answered, written as one log line and the metrics when it ends.

use std::sync::Arc;

use axum::response::Response;
use http::request::Parts;
use http::{HeaderValue, Method, StatusCode, header};
use prometheus::IntGauge;
use tokio::time::{Duration, Instant};
use tracing::Level;

use super::Shared;
use super::note::{Client, Kind, PullNote, Reason};
use super::series::Pulls;
use crate::pull::outcome::{CacheResult, Source};

/// As much of a `User-Agent` as is logged, in bytes.
const USER_AGENT_LIMIT: usize = 128;
/// As much of the reason of an error as is logged: it may quote what the client wrote.
const REASON_LIMIT: usize = 512;
/// The status of requests whose client left before there was an answer; nobody receives it. nginx's number.
const LEFT_BEFORE_THE_ANSWER: u16 = 499;

/// One request. Dropping the record writes it, so that a request which is given up on is recorded as well.
#[derive(Debug)]
pub(super) struct Record {
    id: HeaderValue,
    method: Method,
    kind: Kind,
    client: Option<Arc<Client>>,
    user_agent: Option<HeaderValue>,
    shared: Arc<Shared>,
    _active: Active,
    at: Instant,
    answer: Option<Answer>,
    end: End,
}

/// What is known when the head of the answer is ready.
#[derive(Debug)]
struct Answer {
    note: Option<PullNote>,
    reason: Option<Reason>,
    status: StatusCode,
    first_byte: Duration,
    bytes: u64,
    pulls: Option<Arc<Pulls>>,
}

/// How an answer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// The connection has been given all of it.
    Complete,
    /// Its body failed, and the connection is broken off.
    Failed,
    /// The client left before its end.
    Left,
    /// The drain was over before its end, and the connection was broken off with it.
    BrokenOff,
}

impl Record {
    /// The head of a request has been read.
    pub(super) fn begin(id: HeaderValue, request: &Parts, shared: Arc<Shared>) -> Self {
        Self {
            id,
            method: request.method.clone(),
            kind: Kind::of_path(request.uri.path()),
            client: request.extensions.get::<Arc<Client>>().cloned(),
            user_agent: request.headers.get(header::USER_AGENT).cloned(),
            _active: Active::begin(shared.series.active(&request.method)),
            shared,
            at: Instant::now(),
            answer: None,
            end: End::Left,
        }
    }

    /// The head of the answer is ready: this is its first byte.
    pub(super) fn answered(&mut self, answer: &Response, note: Option<PullNote>, reason: Option<Reason>) {
        let first_byte = self.at.elapsed();
        self.kind = note.as_ref().map_or(self.kind, |note| note.kind);
        let mut answer = Answer { note, reason, status: answer.status(), first_byte, bytes: 0, pulls: None };
        if self.kind.is_pull() {
            let note = answer.note.as_ref();
            let source = note.map_or(Source::None, |note| note.source);
            let pulls = self.shared.series.pulls(note.map(|note| &note.registry), self.kind, answer.result(), source);
            pulls.requests.inc();
            pulls.time_to_first_byte.observe(first_byte.as_secs_f64());
            answer.pulls = Some(pulls);
        }
        self.answer = Some(answer);
    }

    /// Bytes of the body have been handed to the connection.
    pub(super) fn sent(&mut self, bytes: usize) {
        if let Some(answer) = &mut self.answer {
            answer.bytes += bytes as u64;
            if let Some(pulls) = &answer.pulls {
                pulls.sent_bytes.inc_by(bytes as u64);
            }
        }
    }

    /// How many bytes [`Record::sent`] was told of.
    pub(super) fn bytes(&self) -> u64 {
        self.answer.as_ref().map_or(0, |answer| answer.bytes)
    }

    /// How the answer ended. A record that is never told says that the client left, or was left.
    pub(super) const fn ended(&mut self, end: End) {
        self.end = end;
    }
}

/// Writes the line of a [`Record`]. A macro, because the level of an event is a constant.
macro_rules! access_line {
    ($level:expr, $record:ident, $status:ident, $duration:ident) => {{
        let answer = $record.answer.as_ref();
        let note = answer.and_then(|answer| answer.note.as_ref());
        tracing::event!(
            target: "weir::access",
            $level,
            method = $record.method.as_str(),
            kind = $record.kind.as_str(),
            registry = note.map(|note| note.registry.as_str()),
            repository = note.map(|note| note.repository.as_str()),
            reference = note.and_then(|note| note.reference.as_ref()).map(tracing::field::display),
            result = answer.filter(|_| $record.kind.is_pull()).map(|answer| answer.result().as_str()),
            source = note.map(|note| note.source.as_str()),
            upstream = note.and_then(|note| note.upstream.as_deref()),
            status = $status,
            error = answer.and_then(|answer| answer.reason.as_ref()).map(|Reason(text)| start(text, REASON_LIMIT)),
            end = $record.end.as_str(),
            bytes = $record.bytes(),
            ttfb_ms = answer.map(|answer| milliseconds(answer.first_byte)),
            dur_ms = milliseconds($duration),
            client = $record.client.as_ref().map(|client| tracing::field::display(client.peer.ip())),
            user_agent = $record.user_agent.as_ref().and_then(as_text).map(|text| start(text, USER_AGENT_LIMIT)),
            request_id = as_text(&$record.id),
            "request"
        );
    }};
}

impl Drop for Record {
    fn drop(&mut self) {
        let duration = self.at.elapsed();
        let answered = self.answer.as_ref().map(|answer| answer.status);
        let status = answered.or(StatusCode::from_u16(LEFT_BEFORE_THE_ANSWER).ok()).unwrap_or_default();
        self.shared.series.duration(&self.method, self.kind, status).observe(duration.as_secs_f64());
        if self.end == End::Left && self.client.as_ref().is_some_and(|client| client.cutoff.is_cancelled()) {
            self.end = End::BrokenOff;
        }
        if self.end == End::Left {
            self.shared.series.aborts(self.kind).inc();
        }
        let status = status.as_u16();
        if status >= 500 {
            access_line!(Level::WARN, self, status, duration);
        } else {
            access_line!(Level::INFO, self, status, duration);
        }
    }
}

impl Answer {
    /// The handler's word, or what the status says where no handler got that far.
    fn result(&self) -> CacheResult {
        match &self.note {
            Some(note) => note.result,
            None if self.status == StatusCode::NOT_FOUND => CacheResult::Negative,
            None if self.status.is_client_error() => CacheResult::Denied,
            None => CacheResult::Error,
        }
    }
}

impl End {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Complete => "complete",
            Self::Failed => "failed",
            Self::Left => "left",
            Self::BrokenOff => "broken_off",
        }
    }
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// The start of a text: as many of its bytes as are whole characters.
fn start(text: &str, most: usize) -> &str {
    let mut end = most.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// A header as text, if it is one.
fn as_text(value: &HeaderValue) -> Option<&str> {
    value.to_str().ok()
}

/// Counts a request as active until it is dropped.
#[derive(Debug)]
struct Active(IntGauge);

impl Active {
    fn begin(gauge: IntGauge) -> Self {
        gauge.inc();
        Self(gauge)
    }
}

impl Drop for Active {
    fn drop(&mut self) {
        self.0.dec();
    }
}
