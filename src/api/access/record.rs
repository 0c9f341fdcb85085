//! The record of one request: kept while it is answered, written as one log line and the metrics when it ends.

use axum::extract::Request;
use axum::response::Response;
use http::{Method, StatusCode, header};
use prometheus::{IntCounter, IntGauge};
use tokio::time::{Duration, Instant};
use tracing::Level;

use super::note::{Cutoff, Kind, Peer, PullNote, Reason};
use crate::pull::outcome::{CacheResult, Source};
use crate::telemetry::Metrics;

/// As much of a `User-Agent` as is logged.
const USER_AGENT_LIMIT: usize = 128;
/// As much of the reason of an error as is logged: it may quote what the client wrote.
const REASON_LIMIT: usize = 512;
/// The registry label of requests that name none that is configured.
const OTHER_REGISTRY: &str = "other";
/// The status of requests whose client left before there was an answer; nobody receives it. nginx's number.
const LEFT_BEFORE_THE_ANSWER: u16 = 499;

/// One request. Dropping the record writes it, so that a request which is given up on is recorded as well.
#[derive(Debug)]
pub(super) struct Record {
    id: String,
    method: Method,
    kind: Kind,
    peer: Option<Peer>,
    cutoff: Option<Cutoff>,
    user_agent: Option<String>,
    metrics: Metrics,
    _active: Active,
    at: Instant,
    answer: Option<Answer>,
    end: End,
}

/// What is known when the head of the answer is ready.
#[derive(Debug)]
struct Answer {
    note: Option<PullNote>,
    reason: Option<String>,
    status: StatusCode,
    first_byte: Duration,
    bytes: u64,
    counter: Option<IntCounter>,
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
    pub(super) fn begin(id: String, request: &Request, metrics: Metrics) -> Self {
        let user_agent = request.headers().get(header::USER_AGENT).and_then(|value| value.to_str().ok());
        let active = metrics.http.active_requests.with_label_values(&[method_label(request.method())]);
        Self {
            id,
            method: request.method().clone(),
            kind: Kind::of_path(request.uri().path()),
            cutoff: request.extensions().get::<Cutoff>().cloned(),
            peer: request.extensions().get::<Peer>().copied(),
            user_agent: user_agent.map(|text| text.chars().take(USER_AGENT_LIMIT).collect()),
            metrics,
            _active: Active::begin(active),
            at: Instant::now(),
            answer: None,
            end: End::Left,
        }
    }

    /// The head of the answer is ready: this is its first byte.
    pub(super) fn answered(&mut self, answer: &Response, note: Option<PullNote>, reason: Option<Reason>) {
        let first_byte = self.at.elapsed();
        self.kind = note.as_ref().map_or(self.kind, |note| note.kind);
        let status = answer.status();
        let reason = reason.map(|Reason(text)| text.chars().take(REASON_LIMIT).collect());
        let mut answer = Answer { note, reason, status, first_byte, bytes: 0, counter: None };
        if self.kind.is_pull() {
            let (registry, kind, result) = (answer.registry(), self.kind.as_str(), answer.result().as_str());
            let pull = &self.metrics.pull;
            pull.requests.with_label_values(&[registry, kind, result]).inc();
            pull.time_to_first_byte.with_label_values(&[kind, result]).observe(first_byte.as_secs_f64());
            let source = answer.note.as_ref().map_or(Source::None, |note| note.source);
            answer.counter = Some(pull.sent_bytes.with_label_values(&[registry, kind, source.as_str()]));
        }
        self.answer = Some(answer);
    }

    /// Bytes of the body have been handed to the connection.
    pub(super) fn sent(&mut self, bytes: usize) {
        if let Some(answer) = &mut self.answer {
            answer.bytes += bytes as u64;
            if let Some(counter) = &answer.counter {
                counter.inc_by(bytes as u64);
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
            registry = note.map(|note| &*note.registry),
            repository = note.map(|note| note.repository.as_str()),
            reference = note.map(|note| note.reference.as_str()),
            result = answer.filter(|_| $record.kind.is_pull()).map(|answer| answer.result().as_str()),
            source = note.map(|note| note.source.as_str()),
            upstream = note.and_then(|note| note.upstream.as_deref()),
            status = $status,
            error = answer.and_then(|answer| answer.reason.as_deref()),
            end = $record.end.as_str(),
            bytes = $record.bytes(),
            ttfb_ms = answer.map(|answer| milliseconds(answer.first_byte)),
            dur_ms = milliseconds($duration),
            client = $record.peer.map(|peer| tracing::field::display(peer.0.ip())),
            user_agent = $record.user_agent.as_deref(),
            request_id = $record.id,
            "request"
        );
    }};
}

impl Drop for Record {
    fn drop(&mut self) {
        let duration = self.at.elapsed();
        let status = self.answer.as_ref().map_or(LEFT_BEFORE_THE_ANSWER, |answer| answer.status.as_u16());
        let labels = [method_label(&self.method), self.kind.route(), &status.to_string()];
        self.metrics.http.request_duration.with_label_values(&labels).observe(duration.as_secs_f64());
        if self.end == End::Left && self.cutoff.as_ref().is_some_and(|Cutoff(cutoff)| cutoff.is_cancelled()) {
            self.end = End::BrokenOff;
        }
        if self.end == End::Left {
            self.metrics.pull.client_aborts.with_label_values(&[self.kind.as_str()]).inc();
        }
        if status >= 500 {
            access_line!(Level::WARN, self, status, duration);
        } else {
            access_line!(Level::INFO, self, status, duration);
        }
    }
}

impl Answer {
    fn registry(&self) -> &str {
        self.note.as_ref().map_or(OTHER_REGISTRY, |note| &note.registry)
    }

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

/// A method as a metric label. Clients can invent methods, so only the well-known ones have series of their own
/// (`_OTHER` is OpenTelemetry's word).
fn method_label(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        Method::OPTIONS => "OPTIONS",
        _ => "_OTHER",
    }
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
