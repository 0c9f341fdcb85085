//! Upstreams that fail, hang, come back, flap, or are taken out by an operator.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicUsize, Ordering};
use std::time::Duration;

use axum::body::Body;
use futures_util::stream;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio::time::{Instant, advance};

use super::fake::{
    Fake, MANIFEST, blob, deadline, manifest, manifest_by_digest, mirror, ok, read, reply, set, status, upstream,
    wanted,
};
use crate::config::{Access, RegistryConfig, UpstreamConfig};
use crate::telemetry::Metrics;
use crate::telemetry::captured::Lines;
use crate::upstream::{Circuit, Part, Purpose, UpstreamHealth, UpstreamReport, UpstreamSet, Upstreams, Verdict};

/// An upstream whose answers' status a test can change: 200 is the manifest.
struct Moody {
    server: Fake,
    status: Arc<AtomicU16>,
}

impl Moody {
    async fn start(status: u16) -> Self {
        let status = Arc::new(AtomicU16::new(status));
        let answers = Arc::clone(&status);
        let server = Fake::start(move |_| match answers.load(Ordering::Relaxed) {
            200 => ok(MANIFEST),
            other => super::fake::status(other),
        })
        .await;
        Self { server, status }
    }

    fn answers(&self, status: u16) {
        self.status.store(status, Ordering::Relaxed);
    }

    /// How often it was asked for content, not for its health.
    fn count(&self) -> usize {
        self.server.asked().iter().filter(|asked| asked.target != "/v2/").count()
    }

    /// How often it was probed.
    fn probes(&self) -> usize {
        self.server.asked().iter().filter(|asked| asked.target == "/v2/").count()
    }
}

/// Accepts connections and says nothing on them.
async fn hanging() -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let connections = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&connections);
    tokio::spawn(async move {
        let mut held = Vec::new();
        while let Ok((stream, _)) = listener.accept().await {
            counted.fetch_add(1, Ordering::Relaxed);
            held.push(stream);
        }
    });
    (url, connections)
}

fn registry(upstreams: Vec<UpstreamConfig>) -> RegistryConfig {
    RegistryConfig {
        host: "registry.test".parse().unwrap(),
        aliases: Vec::new(),
        access: Access::Anonymous,
        allow_unauthenticated: true,
        upstreams,
        equivalents: Vec::new(),
    }
}

/// The upstreams of one registry, with their health; probed if the task is started.
fn watched(upstreams: Vec<UpstreamConfig>) -> (Upstreams, Arc<UpstreamSet>, UpstreamHealth, Metrics) {
    let metrics = Metrics::new().unwrap();
    let all = Upstreams::new(&[registry(upstreams)], &metrics).unwrap();
    let set = Arc::clone(all.of(&"registry.test".parse().unwrap()).unwrap());
    let health = all.health().clone();
    (all, set, health, metrics)
}

fn probe(health: &UpstreamHealth) -> JoinHandle<()> {
    tokio::spawn(health.clone().watch())
}

fn circuit(report: &UpstreamReport, part: Part) -> Circuit {
    report.parts.iter().find(|known| known.part == part).unwrap().circuit
}

fn circuits(health: &UpstreamHealth) -> Vec<Circuit> {
    health.reports().iter().map(|report| circuit(report, Part::Api)).collect()
}

/// Lets everything that is due happen for so long; the clock is paused.
async fn pass(time: Duration) {
    tokio::time::sleep(time).await;
}

async fn ask(set: &UpstreamSet, purpose: Purpose) -> Result<String, crate::upstream::Attempts> {
    let fetched = set.manifest(&manifest_by_digest(), purpose, deadline()).await;
    fetched.map(|fetched| fetched.upstream.to_string())
}

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test(start_paused = true)]
async fn one_time_out_opens_while_another_candidate_remains() {
    let (url, connections) = hanging().await;
    let spare = Fake::start(|_| ok(MANIFEST)).await;
    let (_all, set, health, metrics) = watched(vec![mirror("hung", &url), upstream("spare", &spare.url())]);
    let begun = Instant::now();
    assert_eq!(ask(&set, Purpose::Miss).await.unwrap(), "spare");
    assert!((3..4).contains(&begun.elapsed().as_secs()), "{:?}", begun.elapsed());
    assert_eq!(circuits(&health), [Circuit::Open, Circuit::Closed]);
    for purpose in [Purpose::Miss, Purpose::Revalidation, Purpose::Background] {
        let begun = Instant::now();
        assert_eq!(ask(&set, purpose).await.unwrap(), "spare");
        assert_eq!(begun.elapsed().as_secs(), 0, "{purpose:?}");
    }
    assert_eq!(connections.load(Ordering::Relaxed), 1);
    assert_eq!(metrics.upstream.failovers.with_label_values(&["registry.test", "hung", "circuit_open"]).get(), 3);
    let asked = ["registry.test", "hung", "manifest", "timeout"];
    assert_eq!(metrics.upstream.requests.with_label_values(&asked).get(), 1);
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_for_what_hangs_while_it_is_probed() {
    let (url, _) = hanging().await;
    let spare = Fake::start(|_| ok(MANIFEST)).await;
    let (_all, set, health, _) = watched(vec![mirror("hung", &url), upstream("spare", &spare.url())]);
    let probing = probe(&health);
    ask(&set, Purpose::Miss).await.unwrap();
    let mut slowest = Duration::ZERO;
    for _ in 0..600 {
        let begun = Instant::now();
        assert_eq!(ask(&set, Purpose::Miss).await.unwrap(), "spare");
        slowest = slowest.max(begun.elapsed());
        pass(SECOND).await;
    }
    assert!(slowest < SECOND, "{slowest:?}");
    assert_eq!(circuits(&health), [Circuit::Open, Circuit::Closed]);
    probing.abort();
}

#[tokio::test(start_paused = true)]
async fn a_sole_upstream_has_the_usual_time_and_is_asked_however_often_it_failed() {
    let (url, connections) = hanging().await;
    let (_all, set, health, _) = watched(vec![upstream("hung", &url)]);
    for number in 1..=7 {
        let begun = Instant::now();
        let attempts = ask(&set, Purpose::Miss).await.unwrap_err();
        assert_eq!(begun.elapsed().as_secs(), 8);
        assert_eq!(attempts.0[0].error.verdict, Verdict::Silent);
        assert_eq!(connections.load(Ordering::Relaxed), number);
    }
    assert_eq!(circuits(&health), [Circuit::Open]);
}

#[tokio::test(start_paused = true)]
async fn what_could_be_served_stale_is_told_at_once_that_nobody_can_be_asked() {
    let down = Moody::start(503).await;
    let (_all, set, _, _) = watched(vec![upstream("down", &down.server.url())]);
    for _ in 0..5 {
        assert!(!ask(&set, Purpose::Revalidation).await.unwrap_err().is_any_left_alone());
    }
    for purpose in [Purpose::Revalidation, Purpose::Background] {
        let attempts = ask(&set, purpose).await.unwrap_err();
        assert!(attempts.is_any_left_alone());
        let told = attempts.to_string();
        assert!(told.starts_with("down: Is left alone for ") && told.contains("Answered 503"), "{told}");
    }
    assert_eq!(down.count(), 5);
    assert!(!ask(&set, Purpose::Miss).await.unwrap_err().is_any_left_alone());
    assert_eq!(down.count(), 6);
}

#[tokio::test(start_paused = true)]
async fn when_all_are_down_they_are_asked_in_order_with_half_of_the_time() {
    let (one, first) = hanging().await;
    let (other, second) = hanging().await;
    let (_all, set, health, _) = watched(vec![upstream("one", &one), upstream("other", &other)]);
    let is_left_alone =
        |report: &UpstreamReport| report.parts[0].next_probe.is_some_and(|wait| wait > Duration::from_secs(20));
    while !health.reports().iter().all(is_left_alone) {
        ask(&set, Purpose::Miss).await.unwrap_err();
    }
    let (before, begun) = ((first.load(Ordering::Relaxed), second.load(Ordering::Relaxed)), Instant::now());
    let attempts = ask(&set, Purpose::Miss).await.unwrap_err();
    assert_eq!(begun.elapsed().as_secs(), 4 + 4);
    assert_eq!((first.load(Ordering::Relaxed), second.load(Ordering::Relaxed)), (before.0 + 1, before.1 + 1));
    let names: Vec<_> = attempts.0.iter().map(|attempt| &*attempt.upstream).collect();
    assert_eq!(names, ["one", "other"]);
    assert!(attempts.0.iter().all(|attempt| attempt.error.verdict == Verdict::Silent), "{attempts}");
}

#[tokio::test(start_paused = true)]
async fn what_nobody_else_has_is_asked_of_those_that_are_left_alone() {
    let lacking = Fake::start(|_| status(401)).await;
    let origin = Moody::start(503).await;
    let (_all, set, _, _) = watched(vec![mirror("lacking", &lacking.url()), upstream("origin", &origin.server.url())]);
    for _ in 0..5 {
        ask(&set, Purpose::Miss).await.unwrap_err();
    }
    assert!(ask(&set, Purpose::Revalidation).await.unwrap_err().is_any_left_alone());
    origin.answers(200);
    assert_eq!(ask(&set, Purpose::Miss).await.unwrap(), "origin");
}

#[tokio::test(start_paused = true)]
async fn a_flapping_upstream_is_tried_by_one_request_and_told_of_twice() {
    let (lines, _guard) = Lines::collect();
    let first = Moody::start(503).await;
    let spare = Fake::start(|_| ok(MANIFEST)).await;
    let (_all, set, health, metrics) =
        watched(vec![mirror("first", &first.server.url()), upstream("spare", &spare.url())]);
    let gauge = |name: &str| metrics.health.circuit_open.with_label_values(&["registry.test", "first", name]).get();
    let states = || {
        let text = lines.text();
        let all = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        let messages =
            all.filter(|line| line["surface"] == "api").map(|line| line["message"].as_str().unwrap().to_owned());
        messages.collect::<Vec<_>>()
    };
    for _ in 0..20 {
        ask(&set, Purpose::Miss).await.unwrap();
    }
    assert_eq!((first.count(), gauge("api"), gauge("blob")), (5, 1, 0));
    // It fails again and again: one request each time, after longer and longer.
    let mut tried = vec![Instant::now()];
    while tried.len() < 8 {
        advance(SECOND).await;
        let before = first.count();
        futures_util::future::join_all((0..10).map(|_| ask(&set, Purpose::Miss))).await;
        assert!(first.count() <= before + 1);
        if first.count() > before {
            tried.push(Instant::now());
        }
    }
    let waits: Vec<u64> = tried.windows(2).map(|pair| (pair[1] - pair[0]).as_secs()).collect();
    for (wait, base) in waits.iter().zip([5, 10, 20, 40, 80, 160, 300]) {
        assert!((base / 2 + 1..=base + 2).contains(wait), "{waits:?}");
    }
    assert_eq!(states(), ["Upstream fails and is left alone"]);
    first.answers(200);
    advance(Duration::from_secs(301)).await;
    assert_eq!(ask(&set, Purpose::Miss).await.unwrap(), "first");
    assert_eq!((circuits(&health)[0], gauge("api")), (Circuit::HalfOpen, 0));
    assert_eq!(ask(&set, Purpose::Miss).await.unwrap(), "first");
    assert_eq!(circuits(&health)[0], Circuit::Closed);
    assert_eq!(states(), ["Upstream fails and is left alone", "Upstream works again"]);
}

#[tokio::test(start_paused = true)]
async fn rate_limits_and_absence_never_open() {
    for answer in [429, 401, 403, 404, 400] {
        let limited = Moody::start(answer).await;
        let spare = Fake::start(|_| ok(MANIFEST)).await;
        let (_all, set, health, _) =
            watched(vec![mirror("limited", &limited.server.url()), upstream("spare", &spare.url())]);
        for _ in 0..30 {
            assert_eq!(ask(&set, Purpose::Miss).await.unwrap(), "spare");
        }
        // Who is limited is not asked again until its limit ends.
        let asked = if answer == 429 { 1 } else { 30 };
        assert_eq!(limited.count(), asked, "{answer}");
        assert_eq!(circuits(&health), [Circuit::Closed; 2], "{answer}");
    }
}

#[tokio::test(start_paused = true)]
async fn blobs_that_break_are_fetched_elsewhere_and_manifests_are_not() {
    let short = Fake::start(|asked| {
        // Without a length: that it is too short shows at its end.
        let short = || Body::from_stream(stream::iter([Ok::<_, Infallible>("short")]));
        if asked.target.contains("/blobs/") { ok(short()) } else { ok(MANIFEST) }
    })
    .await;
    let content = [b'x'; 100];
    let spare = Fake::start(move |_| ok(content.to_vec())).await;
    let (_all, set, health, _) = watched(vec![upstream("short", &short.url()), upstream("spare", &spare.url())]);
    let request = blob(&content);
    for _ in 0..5 {
        let mut body = set.open_blob(wanted(&request, Some(100))).await.unwrap();
        assert_eq!(&**body.upstream(), "short");
        while let Ok(Some(_)) = body.chunk().await {}
    }
    let body = set.open_blob(wanted(&request, Some(100))).await.unwrap();
    assert_eq!(&**body.upstream(), "spare");
    assert_eq!(read(body).await, content);
    assert_eq!(ask(&set, Purpose::Miss).await.unwrap(), "short");
    let report = &health.reports()[0];
    assert_eq!((circuit(report, Part::Api), circuit(report, Part::Blob)), (Circuit::Closed, Circuit::Open));
    assert!(report.parts[2].last_error.as_ref().unwrap().starts_with("Ended after 5 of 100 bytes"), "{report:?}");
}

#[tokio::test(start_paused = true)]
async fn a_client_that_leaves_says_nothing_about_the_upstream() {
    let (url, _) = hanging().await;
    let spare = Fake::start(|_| ok(MANIFEST)).await;
    let (_all, set, health, _) = watched(vec![mirror("hung", &url), upstream("spare", &spare.url())]);
    for _ in 0..20 {
        let left = tokio::time::timeout(2 * SECOND, ask(&set, Purpose::Miss)).await;
        assert!(left.is_err());
    }
    let content = Fake::start(|_| ok(vec![b'x'; 1 << 20])).await;
    let (_other, bodies, body_health, _) =
        watched(vec![upstream("first", &content.url()), upstream("spare", &spare.url())]);
    for _ in 0..20 {
        drop(bodies.open_blob(wanted(&blob(b"x"), None)).await.unwrap());
    }
    assert_eq!(circuits(&health), [Circuit::Closed; 2]);
    assert_eq!(circuit(&body_health.reports()[0], Part::Blob), Circuit::Closed);
}

#[tokio::test(start_paused = true)]
async fn who_sends_wrong_bytes_is_asked_for_no_more_blobs() {
    let (bad, good) = (Fake::start(|_| ok("wrong")).await, Fake::start(|_| ok("right")).await);
    let (_all, set, health, _) = watched(vec![upstream("bad", &bad.url()), upstream("good", &good.url())]);
    assert_eq!(&**set.open_blob(wanted(&blob(b"right"), None)).await.unwrap().upstream(), "bad");
    set.blame("bad");
    set.blame("nobody");
    assert_eq!(&**set.open_blob(wanted(&blob(b"right"), None)).await.unwrap().upstream(), "good");
    let report = &health.reports()[0];
    assert_eq!((circuit(report, Part::Api), circuit(report, Part::Blob)), (Circuit::Closed, Circuit::Open));
}

#[tokio::test(start_paused = true)]
async fn a_token_server_that_hangs_is_not_waited_for_twice() {
    let (tokens, connections) = hanging().await;
    let challenge = format!(r#"Bearer realm="{tokens}/token",service="test""#);
    let closed = Fake::start(move |_| reply(401, &[("www-authenticate", &challenge)], "{}")).await;
    let spare = Fake::start(|_| ok(MANIFEST)).await;
    let (_all, set, health, _) = watched(vec![mirror("closed", &closed.url()), upstream("spare", &spare.url())]);
    let begun = Instant::now();
    assert_eq!(ask(&set, Purpose::Miss).await.unwrap(), "spare");
    assert_eq!(begun.elapsed().as_secs(), 3);
    for _ in 0..10 {
        assert_eq!(ask(&set, Purpose::Miss).await.unwrap(), "spare");
    }
    assert_eq!((begun.elapsed().as_secs(), connections.load(Ordering::Relaxed)), (3, 1));
    let report = &health.reports()[0];
    assert_eq!((circuit(report, Part::Api), circuit(report, Part::Token)), (Circuit::Closed, Circuit::Open));
}

#[tokio::test(start_paused = true)]
async fn tokens_that_are_kept_are_used_while_their_server_is_down() {
    let alive = Arc::new(AtomicU16::new(200));
    let answers = Arc::clone(&alive);
    let tokens = Fake::start(move |_| match answers.load(Ordering::Relaxed) {
        200 => ok(r#"{"token":"t","expires_in":300}"#),
        other => status(other),
    })
    .await;
    let challenge = format!(r#"Bearer realm="{}/token",service="test""#, tokens.url());
    let hub = Fake::start(move |asked| match asked.header("authorization") {
        Some("Bearer t") => ok(MANIFEST),
        _ => reply(401, &[("www-authenticate", &challenge)], "{}"),
    })
    .await;
    let (_all, set, health, _) = watched(vec![upstream("hub", &hub.url())]);
    assert_eq!(ask(&set, Purpose::Miss).await.unwrap(), "hub");
    alive.store(503, Ordering::Relaxed);
    let mut other = manifest("latest");
    other.repository = "acme/other".parse().unwrap();
    for _ in 0..5 {
        set.manifest(&other, Purpose::Revalidation, deadline()).await.unwrap_err();
    }
    assert_eq!(circuit(&health.reports()[0], Part::Token), Circuit::Open);
    let asked = tokens.count();
    let attempts = set.manifest(&other, Purpose::Revalidation, deadline()).await.unwrap_err();
    assert!(attempts.is_any_left_alone(), "{attempts}");
    assert_eq!(tokens.count(), asked);
    assert_eq!(ask(&set, Purpose::Revalidation).await.unwrap(), "hub");
    alive.store(200, Ordering::Relaxed);
    set.manifest(&other, Purpose::Miss, deadline()).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_upstream_that_comes_back_is_found_by_a_probe_and_proved_by_requests() {
    let first = Moody::start(503).await;
    let spare = Fake::start(|_| ok(MANIFEST)).await;
    let (_all, set, health, metrics) =
        watched(vec![mirror("first", &first.server.url()), upstream("spare", &spare.url())]);
    let probing = probe(&health);
    for _ in 0..5 {
        ask(&set, Purpose::Miss).await.unwrap();
    }
    let up = || metrics.health.up.with_label_values(&["registry.test", "first"]).get();
    assert_eq!((circuits(&health)[0], up()), (Circuit::Open, 0));
    first.answers(200);
    pass(6 * SECOND).await;
    assert_eq!((circuits(&health)[0], up(), first.probes()), (Circuit::HalfOpen, 1, 1));
    for _ in 0..2 {
        assert_eq!(ask(&set, Purpose::Miss).await.unwrap(), "first");
    }
    assert_eq!(circuits(&health)[0], Circuit::Closed);
    probing.abort();
}

#[tokio::test(start_paused = true)]
async fn a_front_page_that_works_does_not_bring_back_what_does_not() {
    let facade = Fake::start(|asked| if asked.target == "/v2/" { ok("{}") } else { status(500) }).await;
    let spare = Fake::start(|_| ok(MANIFEST)).await;
    let (_all, set, health, _) = watched(vec![mirror("facade", &facade.url()), upstream("spare", &spare.url())]);
    let probing = probe(&health);
    for _ in 0..600 {
        assert_eq!(ask(&set, Purpose::Miss).await.unwrap(), "spare");
        pass(SECOND).await;
    }
    // Five to open, then one each time, with waits of 5 to 300 seconds between.
    let asked = facade.asked().iter().filter(|asked| asked.target != "/v2/").count();
    assert!((10..=16).contains(&asked), "{asked}");
    probing.abort();
}

#[tokio::test(start_paused = true)]
async fn a_front_page_out_of_order_keeps_no_request_away() {
    let odd = Fake::start(|asked| if asked.target == "/v2/" { status(500) } else { ok(MANIFEST) }).await;
    let spare = Fake::start(|_| ok(MANIFEST)).await;
    let (_all, set, health, metrics) = watched(vec![mirror("odd", &odd.url()), upstream("spare", &spare.url())]);
    let probing = probe(&health);
    ask(&set, Purpose::Miss).await.unwrap();
    pass(Duration::from_secs(50 * 60)).await;
    assert_eq!(circuits(&health)[0], Circuit::Closed);
    assert_eq!(metrics.health.up.with_label_values(&["registry.test", "odd"]).get(), 0);
    assert_eq!(ask(&set, Purpose::Miss).await.unwrap(), "odd");
    probing.abort();
}

#[tokio::test(start_paused = true)]
async fn who_is_idle_is_probed_for_an_hour_and_who_is_never_asked_is_not() {
    let (used, unused) = (Moody::start(200).await, Moody::start(200).await);
    let (_all, set, health, _) =
        watched(vec![upstream("used", &used.server.url()), upstream("unused", &unused.server.url())]);
    let probing = probe(&health);
    pass(Duration::from_secs(600)).await;
    assert_eq!((used.probes(), unused.probes()), (0, 0));
    for _ in 0..30 {
        ask(&set, Purpose::Miss).await.unwrap();
        pass(20 * SECOND).await;
    }
    assert_eq!(used.probes(), 0, "traffic proves as much");
    pass(Duration::from_secs(3 * 60 * 60)).await;
    assert!((95..=150).contains(&used.probes()), "{}", used.probes());
    assert_eq!(unused.probes(), 0);
    let last = used.probes();
    pass(Duration::from_secs(3 * 60 * 60)).await;
    assert_eq!(used.probes(), last);
    probing.abort();
}

#[tokio::test(start_paused = true)]
async fn who_stops_answering_while_idle_is_not_waited_for() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    // A connection that is kept would outlive the server.
    let server = Fake::on(listener, |_| reply(200, &[("connection", "close")], MANIFEST));
    let spare = Fake::start(|_| ok(MANIFEST)).await;
    let (_all, set, health, _) = watched(vec![mirror("first", &url), upstream("spare", &spare.url())]);
    let probing = probe(&health);
    assert_eq!(ask(&set, Purpose::Miss).await.unwrap(), "first");
    let port = server.port;
    drop(server);
    // Its port is taken by somebody who says nothing.
    tokio::task::yield_now().await;
    let silent = crate::upstream::tests::fake::listen_on(port).await;
    pass(Duration::from_secs(120)).await;
    let report = &health.reports()[0];
    assert_eq!((circuit(report, Part::Api), circuit(report, Part::Blob)), (Circuit::Open, Circuit::Open));
    let begun = Instant::now();
    assert_eq!(ask(&set, Purpose::Miss).await.unwrap(), "spare");
    assert_eq!(begun.elapsed().as_secs(), 0);
    drop(silent);
    probing.abort();
}

#[tokio::test(start_paused = true)]
async fn a_disabled_upstream_is_asked_nothing_until_its_time_is_up() {
    let (first, spare) = (Moody::start(200).await, Moody::start(200).await);
    let configured = vec![mirror("first", &first.server.url()), upstream("spare", &spare.server.url())];
    let (all, set, health, metrics) = watched(configured.clone());
    let probing = probe(&health);
    let host = "registry.test".parse().unwrap();
    ask(&set, Purpose::Miss).await.unwrap();
    let gauge = || metrics.health.disabled.with_label_values(&["registry.test", "first"]).get();
    health.disable(&host, "first", Instant::now() + Duration::from_secs(3600)).unwrap();
    let asked = first.count();
    assert_eq!((ask(&set, Purpose::Miss).await.unwrap(), gauge()), ("spare".to_owned(), 1));
    // Another configuration changes nothing about that, even one of this upstream.
    let changed = UpstreamConfig { allow_private: false, ..configured[0].clone() };
    let renewed = all.renewed(&[registry(vec![changed, configured[1].clone()])], &metrics).unwrap();
    renewed.enter_into_force();
    let set = Arc::clone(renewed.of(&host).unwrap());
    assert_eq!(ask(&set, Purpose::Miss).await.unwrap(), "spare");
    assert!(health.reports()[0].disabled_for.unwrap() > Duration::from_secs(3590));
    spare.answers(503);
    let told = ask(&set, Purpose::Miss).await.unwrap_err();
    assert_eq!(told.0[0].error.verdict, Verdict::Disabled);
    assert!(told.to_string().starts_with("first: Is disabled by the operator for another 3600 s; spare: "), "{told}");
    assert_eq!((first.count(), first.probes()), (asked, 0));

    pass(Duration::from_secs(3601)).await;
    assert_eq!((ask(&set, Purpose::Miss).await.unwrap(), gauge()), ("first".to_owned(), 0));
    health.disable(&host, "first", Instant::now() + Duration::from_secs(3600)).unwrap();
    health.enable(&host, "first").unwrap();
    assert_eq!((ask(&set, Purpose::Miss).await.unwrap(), gauge()), ("first".to_owned(), 0));
    let unknown = health.disable(&host, "fist", Instant::now()).unwrap_err().to_string();
    assert_eq!(unknown, "Registry `registry.test` has no upstream `fist`: it has `first`, `spare`");
    let unknown = health.enable(&"other.test".parse().unwrap(), "first").unwrap_err().to_string();
    assert_eq!(unknown, "Registry `other.test` has no upstream `first`: it has none");
    probing.abort();
}

#[tokio::test(start_paused = true)]
async fn health_outlives_a_reload_and_what_is_gone_has_no_metrics() {
    let first = Moody::start(503).await;
    let spare = Fake::start(|_| ok(MANIFEST)).await;
    let configured = vec![mirror("first", &first.server.url()), upstream("spare", &spare.url())];
    let (all, set, health, metrics) = watched(configured.clone());
    for _ in 0..5 {
        ask(&set, Purpose::Miss).await.unwrap();
    }
    let third = upstream("third", &spare.url());
    let more = all.renewed(&[registry([configured.clone(), vec![third]].concat())], &metrics).unwrap();
    more.enter_into_force();
    assert_eq!(circuits(&health), [Circuit::Open, Circuit::Closed, Circuit::Closed]);
    assert!(
        metrics
            .encode()
            .unwrap()
            .contains("weir_upstream_circuit_open{registry=\"registry.test\",surface=\"api\",upstream=\"first\"} 1")
    );
    let fewer = more.renewed(&[registry(configured[1..].to_vec())], &metrics).unwrap();
    fewer.enter_into_force();
    assert_eq!(health.reports().len(), 1);
    assert!(!metrics.encode().unwrap().contains("weir_upstream_circuit_open{"), "of `first` nothing is told");
}

#[tokio::test(start_paused = true)]
async fn a_bad_certificate_opens_at_once() {
    let (plain, spare) = (Fake::start(|_| ok(MANIFEST)).await, Fake::start(|_| ok(MANIFEST)).await);
    let tls = plain.url().replace("http://", "https://");
    let (set, metrics) = set(vec![mirror("plain", &tls), upstream("spare", &spare.url())]);
    for _ in 0..10 {
        ask(&set, Purpose::Miss).await.unwrap();
        advance(2 * SECOND).await;
    }
    let asked = ["registry.test", "plain", "manifest", "tls"];
    assert_eq!(metrics.upstream.requests.with_label_values(&asked).get(), 1);
}
