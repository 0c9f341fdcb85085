//! When an upstream is left alone, and when it is asked all the same.

use super::*;

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
async fn when_all_are_down_they_are_asked_in_order_and_only_the_last_has_all_of_the_time() {
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
    assert_eq!(begun.elapsed().as_secs(), 4 + 8);
    assert_eq!((first.load(Ordering::Relaxed), second.load(Ordering::Relaxed)), (before.0 + 1, before.1 + 1));
    let names: Vec<_> = attempts.0.iter().map(|attempt| &*attempt.upstream).collect();
    assert_eq!(names, ["one", "other"]);
    assert!(attempts.0.iter().all(|attempt| attempt.error.verdict == Verdict::Silent), "{attempts}");
}

#[tokio::test(start_paused = true)]
async fn who_is_slow_is_waited_for_when_nobody_else_has_it() {
    let slow = Fake::slow(Duration::from_secs(6), |_| ok(MANIFEST)).await;
    let lacking = Fake::start(|_| status(404)).await;
    let (_all, set, health, _) = watched(vec![upstream("slow", &slow.url()), mirror("lacking", &lacking.url())]);
    let begun = Instant::now();
    assert_eq!(ask(&set, Purpose::Miss).await.unwrap(), "slow");
    assert_eq!(begun.elapsed().as_secs(), 3 + 6, "it was not waited for as long as there was somebody else");
    assert_eq!(circuits(&health)[1], Circuit::Closed);
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
