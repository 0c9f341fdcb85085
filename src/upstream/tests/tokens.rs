//! Who is there: tokens, passwords, and to whom neither is shown.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use axum::response::Response;
use tokio::net::TcpListener;
use tokio::sync::{Notify, watch};

use super::fake::{
    Asked, BASIC, Fake, MANIFEST, deadline, manifest, manifest_by_digest, ok, pass, reply, set, status, upstream,
    with_credentials,
};
use crate::upstream::{Conclusion, Purpose, Speaker, Verdict};

/// 401 with a challenge that names `realm`.
fn challenge(realm: &str, error: &str) -> Response {
    let value = format!(r#"Bearer realm="{realm}",service="test",scope="repository:acme/app:pull"{error}"#);
    reply(401, &[("www-authenticate", &value)], r#"{"errors":[{"code":"UNAUTHORIZED"}]}"#)
}

/// A registry that wants `Bearer <token>` from `realm`, for some token that `accepts`.
async fn registry(realm: String, accepts: impl Fn(&str) -> bool + Send + Sync + 'static) -> Fake {
    Fake::start(move |asked| match asked.header("authorization") {
        Some(header) if accepts(header) => ok(MANIFEST),
        _ => challenge(&realm, ""),
    })
    .await
}

/// A token server that numbers its tokens: `t1`, `t2`, ….
async fn token_server() -> Fake {
    let issued = AtomicUsize::new(0);
    Fake::start(move |_| {
        let number = issued.fetch_add(1, Ordering::Relaxed) + 1;
        ok(format!(r#"{{"token":"t{number}","expires_in":300}}"#))
    })
    .await
}

#[tokio::test]
async fn thirty_two_requests_share_one_token() {
    const CLIENTS: usize = 32;
    // The token server answers only when every client has been told to get a token.
    let (told, mut all_told) = watch::channel(0_usize);
    let token_listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let realm = format!("http://{}/token", token_listener.local_addr().unwrap());
    let registry = Fake::start(move |asked| {
        if asked.header("authorization") == Some("Bearer t") {
            return ok(MANIFEST);
        }
        told.send_modify(|told| *told += 1);
        challenge(&realm, "")
    })
    .await;
    let release = Arc::new(Notify::new());
    let held = Arc::clone(&release);
    let tokens = Fake::on(token_listener, move |_| {
        let held = Arc::clone(&held);
        let body = futures_util::stream::once(async move {
            held.notified().await;
            Ok::<_, std::convert::Infallible>(r#"{"token":"t","expires_in":300}"#)
        });
        ok(axum::body::Body::from_stream(body))
    });
    let (set, metrics) = set(vec![upstream("hub", &registry.url())]);
    let pulls: Vec<_> = (0..CLIENTS)
        .map(|_| {
            let set = Arc::clone(&set);
            tokio::spawn(async move { set.manifest(&manifest_by_digest(), Purpose::Miss, deadline()).await })
        })
        .collect();
    all_told.wait_for(|told| *told == CLIENTS).await.unwrap();
    release.notify_one();
    for pull in pulls {
        assert_eq!(pull.await.unwrap().unwrap().body, MANIFEST);
    }
    assert_eq!(tokens.count(), 1);
    assert_eq!(metrics.upstream.token_requests.with_label_values(&["registry.test", "hub", "ok"]).get(), 1);
}

#[tokio::test]
async fn a_token_is_asked_for_by_service_and_scope_and_then_brought_along() {
    let tokens = token_server().await;
    let registry = registry(format!("{}/token?x=1", tokens.url()), |header| header.starts_with("Bearer t")).await;
    let (set, _) = set(vec![upstream("hub", &registry.url())]);
    set.manifest(&manifest_by_digest(), Purpose::Miss, deadline()).await.unwrap();
    set.manifest(&manifest("latest"), Purpose::Miss, deadline()).await.unwrap();
    let mut other = manifest("latest");
    other.repository = "acme/other".parse().unwrap();
    set.manifest(&other, Purpose::Miss, deadline()).await.unwrap();

    let targets: Vec<_> = tokens.asked().into_iter().map(|asked| asked.target).collect();
    assert_eq!(
        targets,
        [
            "/token?x=1&service=test&scope=repository%3Aacme%2Fapp%3Apull",
            "/token?x=1&service=test&scope=repository%3Aacme%2Fother%3Apull",
        ]
    );
    let sent: Vec<_> = registry.asked().iter().map(|asked| asked.header("authorization").map(str::to_owned)).collect();
    let bearer = |token: &str| Some(format!("Bearer {token}"));
    assert_eq!(sent, [None, bearer("t1"), bearer("t1"), bearer("t2")]);
}

/// The time in so many seconds, as heads and as token servers write it.
fn in_seconds(shift: i64) -> [String; 2] {
    const MONTHS: &str = "JanFebMarAprMayJunJulAugSepOctNovDec";
    let (now, distance) = (SystemTime::now(), Duration::from_secs(shift.unsigned_abs()));
    let date = httpdate::fmt_http_date(if shift < 0 { now - distance } else { now + distance });
    let [_, day, month, year, time, _]: [&str; 6] = date.split(' ').collect::<Vec<_>>().try_into().unwrap();
    let month = MONTHS.find(month).unwrap() / 3 + 1;
    let written = format!("{year}-{month:02}-{day}T{time}Z");
    [date, written]
}

#[tokio::test]
async fn a_token_is_used_until_shortly_before_its_end_whatever_clocks_say() {
    const DAY: i64 = 24 * 60 * 60;
    for shift in [0, -DAY, DAY] {
        let issued = AtomicUsize::new(0);
        let tokens = Fake::start(move |_| {
            let number = issued.fetch_add(1, Ordering::Relaxed) + 1;
            let [date, issued_at] = in_seconds(shift);
            let body = format!(r#"{{"token":"t{number}","expires_in":300,"issued_at":"{issued_at}"}}"#);
            reply(200, &[("date", &date)], body)
        })
        .await;
        let registry = registry(format!("{}/token", tokens.url()), |header| header.starts_with("Bearer t")).await;
        let (set, _) = set(vec![upstream("hub", &registry.url())]);
        for (seconds, issued) in [(0, 1), (288, 1), (3, 2), (288, 2), (3, 3)] {
            pass(seconds).await;
            set.manifest(&manifest_by_digest(), Purpose::Miss, deadline()).await.unwrap();
            assert_eq!(tokens.count(), issued, "{seconds} s, clock shifted by {shift} s");
        }
        let sent: Vec<_> =
            registry.asked().iter().map(|asked| asked.header("authorization").map(str::to_owned)).collect();
        let [t1, t2, t3] = ["t1", "t2", "t3"].map(|token| Some(format!("Bearer {token}")));
        assert_eq!(sent, [None, t1.clone(), t1, t2.clone(), t2, t3], "renewed before the registry has to complain");
    }
}

#[tokio::test]
async fn a_client_that_leaves_does_not_take_the_token_with_it() {
    let (asked_for, mut token_is_asked_for) = watch::channel(false);
    let release = Arc::new(Notify::new());
    let held = Arc::clone(&release);
    let tokens = Fake::start(move |_| {
        asked_for.send_replace(true);
        let held = Arc::clone(&held);
        let body = futures_util::stream::once(async move {
            held.notified().await;
            Ok::<_, std::convert::Infallible>(r#"{"token":"t"}"#)
        });
        ok(axum::body::Body::from_stream(body))
    })
    .await;
    let registry = registry(format!("{}/token", tokens.url()), |header| header == "Bearer t").await;
    let (set, _) = set(vec![upstream("hub", &registry.url())]);
    let leaver = {
        let set = Arc::clone(&set);
        tokio::spawn(async move { set.manifest(&manifest_by_digest(), Purpose::Miss, deadline()).await })
    };
    token_is_asked_for.wait_for(|asked_for| *asked_for).await.unwrap();
    leaver.abort();
    assert!(leaver.await.unwrap_err().is_cancelled());
    release.notify_one();
    set.manifest(&manifest_by_digest(), Purpose::Miss, deadline()).await.unwrap();
    assert_eq!(tokens.count(), 1);
}

#[tokio::test]
async fn an_expired_token_is_renewed_once_in_every_dialect() {
    let refusals: [fn(&str) -> Response; 3] = [
        |realm| challenge(realm, r#",error="invalid_token""#),
        |_| reply(403, &[], r#"{"errors":[{"code":"DENIED","message":"Your Authorization token has expired."}]}"#),
        |_| status(400),
    ];
    for refuse in refusals {
        let tokens = token_server().await;
        let realm = format!("{}/token", tokens.url());
        let latest = Arc::new(AtomicUsize::new(1));
        let valid = Arc::clone(&latest);
        let registry = Fake::start(move |asked| match asked.header("authorization") {
            None => challenge(&realm, ""),
            Some(header) if header == format!("Bearer t{}", valid.load(Ordering::Relaxed)) => ok(MANIFEST),
            Some(_) => refuse(&realm),
        })
        .await;
        let (set, _) = set(vec![upstream("hub", &registry.url())]);
        set.manifest(&manifest_by_digest(), Purpose::Miss, deadline()).await.unwrap();
        latest.store(2, Ordering::Relaxed);
        set.manifest(&manifest_by_digest(), Purpose::Miss, deadline()).await.unwrap();
        assert_eq!((tokens.count(), registry.count()), (2, 4));
    }
}

#[tokio::test]
async fn a_fresh_token_that_is_refused_means_hidden_and_is_not_tried_again() {
    let tokens = token_server().await;
    let registry = registry(format!("{}/token", tokens.url()), |_| false).await;
    let (set, _) = set(vec![upstream("hub", &registry.url())]);
    let attempts = set.manifest(&manifest_by_digest(), Purpose::Miss, deadline()).await.unwrap_err();
    assert_eq!(attempts.conclusion(), Conclusion::NotFoundOrHidden);
    assert_eq!((tokens.count(), registry.count()), (1, 2));
}

#[tokio::test]
async fn a_token_server_that_refuses_hides_and_one_that_is_down_does_not() {
    for (status, verdict) in [(403, Verdict::NotHereOrHidden), (500, Verdict::Transient), (302, Verdict::Broken)] {
        let tokens = Fake::start(move |_| reply(status, &[("location", "/elsewhere")], "denied")).await;
        let registry = registry(format!("{}/token", tokens.url()), |_| true).await;
        let (set, _) = set(vec![upstream("hub", &registry.url())]);
        let attempts = set.manifest(&manifest_by_digest(), Purpose::Miss, deadline()).await.unwrap_err();
        assert_eq!(attempts.0[0].error.verdict, verdict, "{attempts}");
        assert_eq!(tokens.count(), 1, "no redirect of a token server is followed");
    }
}

#[tokio::test]
async fn a_realm_that_does_not_belong_to_the_upstream_is_never_asked() {
    let tokens = token_server().await;
    let realm = format!("http://localhost:{}/token", tokens.port);
    let registry = registry(realm, |header| header == "Bearer t1").await;
    let (set, _) = set(vec![with_credentials(upstream("hub", &registry.url()))]);
    let attempts = set.manifest(&manifest_by_digest(), Purpose::Miss, deadline()).await.unwrap_err();
    assert_eq!(attempts.0[0].error.verdict, Verdict::OffLimits);
    assert!(attempts.to_string().contains("realm_hosts"), "{attempts}");
    assert_eq!(tokens.count(), 0);

    let mut listed = with_credentials(upstream("hub", &registry.url()));
    listed.realm_hosts = vec!["localhost".to_owned()];
    listed.allow_private = false;
    let (set, _) = super::fake::set(vec![listed]);
    set.manifest(&manifest_by_digest(), Purpose::Miss, deadline()).await.unwrap();
    assert_eq!(tokens.asked()[0].header("authorization"), Some(BASIC));
}

#[tokio::test]
async fn a_realm_on_a_private_address_is_not_dialled_unless_allowed() {
    let tokens = token_server().await;
    let registry = registry(format!("{}/token", tokens.url()), |_| true).await;
    let mut strict = upstream("hub", &registry.url());
    strict.allow_private = false;
    let (set, _) = set(vec![strict]);
    let attempts = set.manifest(&manifest_by_digest(), Purpose::Miss, deadline()).await.unwrap_err();
    assert!(attempts.to_string().contains("allow_private"), "{attempts}");
    assert_eq!(tokens.count(), 0);
}

#[tokio::test]
async fn a_password_is_sent_when_it_is_asked_for_and_then_at_once() {
    let registry = Fake::start(|asked| match asked.header("authorization") {
        Some(BASIC) => ok(MANIFEST),
        _ => reply(401, &[("www-authenticate", r#"Negotiate, Basic realm="x""#)], ""),
    })
    .await;
    let (set, _) = set(vec![with_credentials(upstream("office", &registry.url()))]);
    set.manifest(&manifest_by_digest(), Purpose::Miss, deadline()).await.unwrap();
    set.manifest(&manifest_by_digest(), Purpose::Miss, deadline()).await.unwrap();
    let sent: Vec<_> = registry.asked().iter().map(|asked| asked.header("authorization").is_some()).collect();
    assert_eq!(sent, [false, true, true]);
}

#[tokio::test]
async fn credentials_that_are_refused_do_not_break_public_pulls() {
    let is_bad = |asked: &Asked| asked.header("authorization") == Some(BASIC);
    let tokens = Fake::start(move |asked| if is_bad(asked) { status(403) } else { ok(r#"{"token":"public"}"#) }).await;
    let registry = registry(format!("{}/token", tokens.url()), |header| header == "Bearer public").await;
    let (set, metrics) = set(vec![with_credentials(upstream("hub", &registry.url()))]);
    set.manifest(&manifest_by_digest(), Purpose::Miss, deadline()).await.unwrap();
    let sent: Vec<_> = tokens.asked().iter().map(is_bad).collect();
    assert_eq!(sent, [true, false]);
    assert_eq!(metrics.upstream.credentials_rejected.with_label_values(&["registry.test", "hub", "ci-bot"]).get(), 1);
}

#[tokio::test]
async fn a_scope_that_does_not_follow_from_the_name_is_heard_each_time() {
    let tokens = token_server().await;
    let realm = format!("{}/token", tokens.url());
    let registry = Fake::start(move |asked| {
        if asked.header("authorization") == Some("Bearer t1") {
            return ok(MANIFEST);
        }
        let value = format!(r#"Bearer realm="{realm}",scope="repository:proxy/acme/app:pull""#);
        reply(401, &[("www-authenticate", &value)], "")
    })
    .await;
    let (set, _) = set(vec![upstream("harbor", &registry.url())]);
    for _ in 0..2 {
        set.manifest(&manifest_by_digest(), Purpose::Miss, deadline()).await.unwrap();
    }
    assert_eq!(tokens.count(), 1);
    assert_eq!(tokens.asked()[0].target, "/token?scope=repository%3Aproxy%2Facme%2Fapp%3Apull");
    assert_eq!(registry.count(), 4);
}

#[tokio::test]
async fn no_secret_shows_in_debug_output() {
    let tokens = Fake::start(|_| ok(r#"{"token":"hunter2-token","expires_in":300}"#)).await;
    let registry = registry(format!("{}/token", tokens.url()), |header| header.contains("token")).await;
    let (set, _) = set(vec![with_credentials(upstream("hub", &registry.url()))]);
    set.manifest(&manifest_by_digest(), Purpose::Miss, deadline()).await.unwrap();
    let shown = format!("{set:?}");
    assert!(shown.contains("ci-bot") && !shown.contains("hunter2"), "{shown}");
}

#[tokio::test]
async fn a_token_without_end_is_none() {
    let tokens = Fake::start(|_| {
        let piece = axum::body::Bytes::from(vec![b' '; 16 * 1024]);
        let endless = futures_util::stream::repeat_with(move || Ok::<_, std::io::Error>(piece.clone()));
        ok(axum::body::Body::from_stream(endless))
    })
    .await;
    let registry = registry(format!("{}/token", tokens.url()), |_| true).await;
    let (set, _) = set(vec![upstream("hub", &registry.url())]);
    let attempts = set.manifest(&manifest_by_digest(), Purpose::Miss, deadline()).await.unwrap_err();
    let error = &attempts.0[0].error;
    assert_eq!((error.verdict, error.speaker), (Verdict::Broken, Speaker::TokenServer), "{attempts}");
}
