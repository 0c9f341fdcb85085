//! Rate limits and places: who is asked with which credentials, who is left alone, and who waits.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::response::Response;
use futures_util::FutureExt;
use http::Method;
use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;
use tokio::time::Instant;

use super::fake::{
    Asked, Fake, MANIFEST, blob, deadline, manifest, manifest_by_digest, mirror, ok, pass, read, reply, set, status,
    upstream, wanted,
};
use crate::config::{CredentialRule, Secret, UpstreamConfig};
use crate::telemetry::Metrics;
use crate::upstream::{Attempts, Conclusion, Outcome, Purpose, UpstreamSet};

/// The wait that `attempts` come to, in whole seconds.
fn wait(attempts: &Attempts) -> u64 {
    match attempts.conclusion() {
        Conclusion::RateLimited(Some(wait)) => wait.as_secs() + u64::from(wait.subsec_nanos() > 0),
        other => panic!("{other:?}: {attempts}"),
    }
}

fn outcomes(attempts: &Attempts) -> Vec<Outcome> {
    attempts.0.iter().map(|attempt| attempt.error.outcome()).collect()
}

/// The same upstream with a rule for each user, whose password is `<user>-secret`.
fn with_users(upstream: UpstreamConfig, rules: &[(&str, &str)]) -> UpstreamConfig {
    let rule = |(pattern, user): &(&str, &str)| {
        CredentialRule::password(pattern.parse().unwrap(), user, Secret::new(format!("{user}-secret")))
    };
    UpstreamConfig { credentials: rules.iter().map(rule).collect(), ..upstream }
}

/// Who asked.
fn user(asked: &Asked) -> Option<&'static str> {
    match asked.header("authorization")? {
        "Basic YTphLXNlY3JldA==" => Some("a"),
        "Basic YjpiLXNlY3JldA==" => Some("b"),
        other => panic!("who is {other}?"),
    }
}

fn challenge() -> Response {
    reply(401, &[("www-authenticate", "Basic realm=\"test\"")], "")
}

fn told(limit: u64, remaining: u64) -> Response {
    let [limit, remaining] = [limit, remaining].map(|count| format!("{count};w=21600"));
    reply(200, &[("ratelimit-limit", &limit), ("ratelimit-remaining", &remaining)], MANIFEST)
}

#[tokio::test]
async fn a_limited_upstream_is_left_alone_for_longer_and_longer() {
    let hub = Fake::start(|_| status(429)).await;
    let (set, metrics) = set(vec![upstream("hub", &hub.url())]);
    for (round, pause) in [60, 120, 240, 480, 900, 900].into_iter().enumerate() {
        let refused = set.manifest(&manifest("latest"), Purpose::Miss, deadline()).await.unwrap_err();
        assert_eq!(outcomes(&refused), [Outcome::Throttled]);
        let skipped = set.manifest(&manifest("latest"), Purpose::Miss, deadline()).await.unwrap_err();
        assert_eq!((outcomes(&skipped), wait(&skipped)), (vec![Outcome::HeldBack], pause));
        assert_eq!(hub.count(), round + 1);
        pass(pause).await;
    }
    let labels = ["registry.test", "hub", "manifest", "held_back"];
    assert_eq!(metrics.upstream.requests.with_label_values(&labels).get(), 6);
}

#[tokio::test]
async fn a_limited_upstream_is_skipped_for_the_next_one() {
    let hub = Fake::start(|_| reply(429, &[("retry-after", "7")], "")).await;
    let spare = Fake::start(|_| ok(MANIFEST)).await;
    let (set, metrics) = set(vec![upstream("hub", &hub.url()), mirror("spare", &spare.url())]);
    for _ in 0..3 {
        let fetched = set.manifest(&manifest_by_digest(), Purpose::Miss, deadline()).await.unwrap();
        assert_eq!(&*fetched.upstream, "spare");
    }
    assert_eq!((hub.count(), spare.count()), (1, 3));
    for (reason, count) in [("throttled", 1), ("held_back", 2)] {
        assert_eq!(metrics.upstream.failovers.with_label_values(&["registry.test", "hub", reason]).get(), count);
    }
    let limited = set.manifest(&manifest("latest"), Purpose::Miss, deadline()).await.unwrap_err();
    assert!((1..=7).contains(&wait(&limited)), "{limited}");
    pass(7).await;
    set.manifest(&manifest_by_digest(), Purpose::Miss, deadline()).await.unwrap();
    assert_eq!(hub.count(), 2);
}

#[tokio::test]
async fn an_image_that_is_being_pulled_gets_its_blobs_when_pulls_are_used_up() {
    let hub = Fake::start(|asked| if asked.target.contains("/blobs/") { ok("blob") } else { status(429) }).await;
    let (set, _) = set(vec![upstream("hub", &hub.url())]);
    set.manifest(&manifest_by_digest(), Purpose::Miss, deadline()).await.unwrap_err();
    let request = blob(b"blob");
    assert_eq!(read(set.open_blob(wanted(&request, None)).await.unwrap()).await, b"blob");
    let head = set.resolve(&manifest("latest"), Purpose::Revalidation, deadline()).await.unwrap_err();
    assert_eq!((outcomes(&head), hub.count()), (vec![Outcome::HeldBack], 2));
}

#[tokio::test]
async fn a_limit_on_what_is_free_stops_everything() {
    let hub = Fake::start(|asked| if asked.method == Method::HEAD { status(429) } else { ok("blob") }).await;
    let (set, _) = set(vec![upstream("hub", &hub.url())]);
    set.resolve(&manifest("latest"), Purpose::Revalidation, deadline()).await.unwrap_err();
    let request = blob(b"blob");
    assert_eq!(outcomes(&set.open_blob(wanted(&request, None)).await.unwrap_err()), [Outcome::HeldBack]);
    assert_eq!(hub.count(), 1);
}

#[tokio::test]
async fn a_token_server_that_limits_stops_everything() {
    let hub = Fake::start(|asked| {
        if asked.target.starts_with("/token") {
            return reply(429, &[("retry-after", "30")], "");
        }
        let realm = format!("Bearer realm=\"http://{}/token\"", asked.header("host").unwrap());
        reply(401, &[("www-authenticate", &realm)], "")
    })
    .await;
    let (set, _) = set(vec![upstream("hub", &hub.url())]);
    let refused = set.manifest(&manifest_by_digest(), Purpose::Miss, deadline()).await.unwrap_err();
    assert_eq!((outcomes(&refused), hub.count()), (vec![Outcome::Throttled], 2));
    let request = blob(b"blob");
    let skipped = set.open_blob(wanted(&request, None)).await.unwrap_err();
    assert_eq!((wait(&skipped), hub.count()), (30, 2));
}

#[tokio::test]
async fn credentials_for_the_same_take_turns_by_what_is_left() {
    let left = Arc::new(parking_lot::Mutex::new([("a", 100_u64), ("b", 98)]));
    let state = Arc::clone(&left);
    let hub = Fake::start(move |asked| {
        let Some(user) = user(asked) else { return challenge() };
        let mut left = state.lock();
        let account = left.iter_mut().find(|(name, _)| *name == user).unwrap();
        account.1 -= 1;
        told(200, account.1)
    })
    .await;
    let config = with_users(upstream("hub", &hub.url()), &[("**", "a"), ("**", "b")]);
    let (set, metrics) = set(vec![config]);
    for _ in 0..8 {
        set.manifest(&manifest_by_digest(), Purpose::Miss, deadline()).await.unwrap();
    }
    let users: Vec<_> = hub.asked().iter().filter_map(user).collect();
    assert_eq!(users, ["a", "b", "a", "a", "a", "b", "a", "b"]);
    for (user, remaining) in *left.lock() {
        let labels = ["registry.test", "hub", user];
        let shown = metrics.upstream.ratelimit_remaining.with_label_values(&labels).get();
        assert_eq!(u64::try_from(shown), Ok(remaining));
        assert_eq!(metrics.upstream.ratelimit_limit.with_label_values(&labels).get(), 200);
        assert_eq!(metrics.upstream.ratelimit_window.with_label_values(&labels).get(), 21600);
        assert!(metrics.upstream.ratelimit_exhausted.with_label_values(&labels).get() > 1_700_000_000);
    }
    assert!(!metrics.encode().unwrap().contains("secret"));
}

#[tokio::test]
async fn where_one_credential_is_limited_the_same_question_goes_on_with_the_next() {
    let hub = Fake::start(|asked| match user(asked) {
        None => challenge(),
        Some("a") => status(429),
        Some(_) => ok(MANIFEST),
    })
    .await;
    let (set, metrics) = set(vec![with_users(upstream("hub", &hub.url()), &[("**", "a"), ("**", "b")])]);
    for _ in 0..3 {
        set.manifest(&manifest_by_digest(), Purpose::Miss, deadline()).await.unwrap();
    }
    assert_eq!(hub.asked().iter().filter_map(user).collect::<Vec<_>>(), ["a", "b", "b", "b"]);
    assert!(retry_after(&metrics, "a") > 1_700_000_000);
    assert_eq!(retry_after(&metrics, "b"), 0);
}

fn retry_after(metrics: &Metrics, user: &str) -> i64 {
    metrics.upstream.retry_after.with_label_values(&["registry.test", "hub", user]).get()
}

#[tokio::test]
async fn what_others_are_not_shown_is_no_absence_while_who_would_be_is_limited() {
    let hub = Fake::start(|asked| match user(asked) {
        Some("a") => reply(429, &[("retry-after", "9")], ""),
        _ => challenge(),
    })
    .await;
    let (set, _) = set(vec![with_users(upstream("hub", &hub.url()), &[("acme/**", "a"), ("**", "b")])]);
    for _ in 0..2 {
        let attempts = set.manifest(&manifest_by_digest(), Purpose::Miss, deadline()).await.unwrap_err();
        assert_eq!(wait(&attempts), 9, "{attempts}");
    }
    assert_eq!(hub.asked().iter().filter(|asked| user(asked) == Some("a")).count(), 1);
}

#[tokio::test]
async fn what_is_left_is_kept_for_clients_that_need_it() {
    let hub = Fake::start(|_| told(100, 9)).await;
    let (set, _) = set(vec![upstream("hub", &hub.url())]);
    let repository = "acme/app".parse().unwrap();
    assert!(!set.is_scarce(&repository));
    set.manifest(&manifest_by_digest(), Purpose::Background, deadline()).await.unwrap();
    assert!(set.is_scarce(&repository));
    let held_back = set.manifest(&manifest_by_digest(), Purpose::Background, deadline()).await.unwrap_err();
    assert_eq!((outcomes(&held_back), hub.count()), (vec![Outcome::HeldBack], 1));
    for purpose in [Purpose::Miss, Purpose::Revalidation] {
        set.manifest(&manifest_by_digest(), purpose, deadline()).await.unwrap();
    }
    pass(21600).await;
    assert!(!set.is_scarce(&repository), "the window is over");
    set.manifest(&manifest_by_digest(), Purpose::Background, deadline()).await.unwrap();
}

#[tokio::test]
async fn where_a_redirect_leads_nobody_counts_for_the_upstream() {
    let cdn = Fake::start(|_| reply(429, &[("ratelimit-limit", "100"), ("ratelimit-remaining", "0")], "")).await;
    let target = format!("{}/blob", cdn.url());
    let hub = Fake::start(move |_| reply(307, &[("location", &target)], "")).await;
    let (set, metrics) = set(vec![upstream("hub", &hub.url())]);
    let request = blob(b"blob");
    for _ in 0..2 {
        let attempts = set.open_blob(wanted(&request, None)).await.unwrap_err();
        assert_eq!(outcomes(&attempts), [Outcome::Throttled], "{attempts}");
    }
    assert_eq!((hub.count(), cdn.count()), (2, 2));
    assert!(!metrics.encode().unwrap().contains("credential=\"anonymous\""));
}

/// An upstream with one place.
fn narrow(name: &str, url: &str) -> UpstreamConfig {
    UpstreamConfig { max_connections: 1, ..mirror(name, url) }
}

fn in_flight(metrics: &Metrics) -> i64 {
    metrics.upstream.in_flight.with_label_values(&["registry.test", "narrow"]).get()
}

#[tokio::test]
async fn a_blob_on_its_way_has_a_place_until_its_end() {
    let content = vec![7; 1 << 20];
    let sent = content.clone();
    let hub = Fake::start(move |_| ok(sent.clone())).await;
    let (set, metrics) = set(vec![narrow("narrow", &hub.url())]);
    let request = blob(&content);
    let body = set.open_blob(wanted(&request, None)).await.unwrap();
    assert_eq!(in_flight(&metrics), 1);
    let soon = Instant::now() + Duration::from_millis(50);
    let busy = set.manifest(&manifest_by_digest(), Purpose::Miss, soon).await.unwrap_err();
    assert_eq!((outcomes(&busy), busy.conclusion()), (vec![Outcome::Busy], Conclusion::Unavailable));
    assert_eq!(hub.count(), 1);

    let mut kept = body;
    while kept.chunk().await.unwrap().is_some() {}
    assert_eq!(in_flight(&metrics), 0, "at its end, not when it is dropped");
    let dropped = set.open_blob(wanted(&request, None)).await.unwrap();
    assert_eq!(in_flight(&metrics), 1);
    drop(dropped);
    assert_eq!(in_flight(&metrics), 0);
}

#[tokio::test]
async fn a_busy_upstream_is_passed_over_and_a_question_given_up_leaves_its_place() {
    let hub = Fake::start(|_| ok(vec![7; 1 << 20])).await;
    let spare = Fake::start(|_| ok(MANIFEST)).await;
    let (set, metrics) = set(vec![narrow("narrow", &hub.url()), mirror("spare", &spare.url())]);
    let request = blob(b"blob");
    let body = set.open_blob(wanted(&request, None)).await.unwrap();
    let soon = Instant::now() + Duration::from_secs(1);
    let fetched = set.manifest(&manifest_by_digest(), Purpose::Miss, soon).await.unwrap();
    assert_eq!((&*fetched.upstream, hub.count()), ("spare", 1));
    assert_eq!(metrics.upstream.failovers.with_label_values(&["registry.test", "narrow", "busy"]).get(), 1);

    let wanted_manifest = manifest_by_digest();
    let mut waiting = Box::pin(set.manifest(&wanted_manifest, Purpose::Miss, deadline()));
    assert!(waiting.as_mut().now_or_never().is_none());
    let gauge = metrics.upstream.waiting.with_label_values(&["registry.test", "narrow"]);
    assert_eq!(gauge.get(), 1);
    drop(waiting);
    assert_eq!(gauge.get(), 0);
    drop(body);
    assert_eq!(in_flight(&metrics), 0);
}

/// An upstream with so many places that also says what tags mean.
fn with_places(places: usize, url: &str) -> UpstreamConfig {
    UpstreamConfig { max_connections: places, ..upstream("narrow", url) }
}

#[tokio::test]
async fn who_cannot_be_answered_otherwise_comes_first() {
    let hub = Fake::start(|asked| ok(if asked.target.contains("/blobs/") { "blob" } else { MANIFEST })).await;
    let (set, _) = set(vec![with_places(1, &hub.url())]);
    let (request, tag, image) = (blob(b"blob"), manifest("latest"), manifest_by_digest());
    let body = set.open_blob(wanted(&request, None)).await.unwrap();
    let mut background = Box::pin(set.manifest(&image, Purpose::Background, deadline()));
    let mut revalidation = Box::pin(set.resolve(&tag, Purpose::Revalidation, deadline()));
    let mut miss = Box::pin(set.manifest(&tag, Purpose::Miss, deadline()));
    assert!(background.as_mut().now_or_never().is_none());
    assert!(revalidation.as_mut().now_or_never().is_none());
    assert!(miss.as_mut().now_or_never().is_none());
    drop(body);
    let (background, revalidation, miss) = tokio::join!(background, revalidation, miss);
    assert!(background.is_ok() && revalidation.is_ok() && miss.is_ok());
    let asked: Vec<_> = hub.asked().into_iter().skip(1).map(|asked| (asked.method, asked.target)).collect();
    let by_tag = "/v2/acme/app/manifests/latest".to_owned();
    let by_digest = format!("/v2/acme/app/manifests/{}", image.reference);
    assert_eq!(asked, [(Method::GET, by_tag.clone()), (Method::HEAD, by_tag), (Method::GET, by_digest)]);
}

#[tokio::test]
async fn a_client_that_needs_it_takes_the_room_of_one_that_has_something_stored() {
    let hub = Fake::start(|asked| ok(if asked.target.contains("/blobs/") { "blob" } else { MANIFEST })).await;
    let (set, _) = set(vec![with_places(1, &hub.url())]);
    let (request, tag) = (blob(b"blob"), manifest("latest"));
    let body = set.open_blob(wanted(&request, None)).await.unwrap();
    let mut queue: Vec<_> = (0..4).map(|_| Box::pin(set.resolve(&tag, Purpose::Revalidation, deadline()))).collect();
    for waiting in &mut queue {
        assert!(waiting.as_mut().now_or_never().is_none());
    }
    let mut miss = Box::pin(set.manifest(&tag, Purpose::Miss, deadline()));
    assert!(miss.as_mut().now_or_never().is_none());
    let displaced = queue.pop().unwrap().now_or_never().expect("at once").unwrap_err();
    assert_eq!(outcomes(&displaced), [Outcome::Busy]);
    drop(body);
    miss.await.unwrap();
}

#[tokio::test]
async fn slow_blobs_leave_a_place_for_manifests() {
    let hub = Fake::start(|asked| ok(if asked.target.contains("/blobs/") { "blob" } else { MANIFEST })).await;
    let (set, metrics) = set(vec![with_places(2, &hub.url())]);
    let request = blob(b"blob");
    let _body = set.open_blob(wanted(&request, None)).await.unwrap();
    let mut second = Box::pin(set.open_blob(wanted(&request, None)));
    assert!(second.as_mut().now_or_never().is_none());
    assert_eq!(in_flight(&metrics), 1);
    set.manifest(&manifest("latest"), Purpose::Miss, deadline()).await.unwrap();
    set.resolve(&manifest("latest"), Purpose::Revalidation, deadline()).await.unwrap();
    assert!(second.as_mut().now_or_never().is_none());
}

#[tokio::test]
async fn a_full_queue_is_passed_over_at_once() {
    let hub = Fake::start(|_| ok(vec![7; 1 << 20])).await;
    let (set, _) = set(vec![narrow("narrow", &hub.url())]);
    let request = blob(b"blob");
    let _body = set.open_blob(wanted(&request, None)).await.unwrap();
    let wanted_manifest = manifest_by_digest();
    let mut queue: Vec<_> =
        (0..4).map(|_| Box::pin(set.manifest(&wanted_manifest, Purpose::Miss, deadline()))).collect();
    for waiting in &mut queue {
        assert!(waiting.as_mut().now_or_never().is_none());
    }
    let full = set.manifest(&wanted_manifest, Purpose::Miss, deadline()).now_or_never().expect("at once").unwrap_err();
    assert_eq!(outcomes(&full), [Outcome::Busy]);
}

/// Of requests worth sending again: how many were, and how many were not.
fn retries(metrics: &Metrics) -> [u64; 2] {
    ["sent", "withheld"]
        .map(|outcome| metrics.upstream.retries.with_label_values(&["registry.test", "hub", outcome]).get())
}

/// Asks once, and once more when nothing is left to pay for a second request. Tells after each how often the upstream
/// was reached, and what metrics say.
async fn with_and_without_a_budget(
    set: &UpstreamSet,
    metrics: &Metrics,
    reached: impl Fn() -> usize,
) -> [(usize, [u64; 2]); 2] {
    set.manifest(&manifest_by_digest(), Purpose::Miss, deadline()).await.unwrap_err();
    let before = (reached(), retries(metrics));
    while set.upstreams[0].budget.may_retry() {}
    let spent = retries(metrics);
    set.manifest(&manifest_by_digest(), Purpose::Miss, deadline()).await.unwrap_err();
    let after = retries(metrics);
    [before, (reached() - before.0, [after[0] - spent[0], after[1] - spent[1]])]
}

#[tokio::test]
async fn one_that_promises_to_be_back_is_asked_again_within_a_budget() {
    let hub = Fake::start(|_| reply(503, &[("retry-after", "0")], "")).await;
    let (set, metrics) = set(vec![upstream("hub", &hub.url())]);
    let asked = with_and_without_a_budget(&set, &metrics, || hub.count()).await;
    assert_eq!(asked, [(2, [1, 0]), (1, [0, 1])]);
    // Who could be answered otherwise does not try to spend anything.
    set.manifest(&manifest_by_digest(), Purpose::Revalidation, deadline()).await.unwrap_err();
    assert_eq!(hub.count(), 4);
}

#[tokio::test]
async fn a_connection_that_breaks_is_tried_again_within_a_budget() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let connections = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&connections);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            counted.fetch_add(1, Ordering::Relaxed);
            let _ = stream.read(&mut [0; 8192]).await;
        }
    });
    let (set, metrics) = set(vec![upstream("hub", &url)]);
    let asked = with_and_without_a_budget(&set, &metrics, || connections.load(Ordering::Relaxed)).await;
    assert_eq!(asked, [(2, [1, 0]), (1, [0, 1])]);
}
