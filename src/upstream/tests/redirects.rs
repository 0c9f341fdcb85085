//! Where a redirect leads, and what is left behind.

use http::Method;

use super::fake::{
    Fake, MANIFEST, blob, deadline, manifest, manifest_by_digest, ok, read, reply, set, status, upstream, wanted,
    with_credentials,
};
use crate::oci::Digest;
use crate::oci::request::ReferrersRequest;
use crate::upstream::{Conclusion, Purpose, Verdict};

const CONTENT: &[u8] = b"the content of a blob";

#[tokio::test]
async fn credentials_stay_at_home_and_only_what_is_needed_travels() {
    let store =
        Fake::start(|asked| if asked.header("authorization").is_some() { status(400) } else { ok(CONTENT) }).await;
    let target = format!("{}/signed?sig=a%2Fb", store.url());
    let registry = Fake::start(move |asked| match (asked.header("authorization"), asked.target.as_str()) {
        (None, _) => reply(401, &[("www-authenticate", "Basic realm=x")], ""),
        (Some(_), "/moved") => reply(302, &[("location", &target)], ""),
        (Some(_), _) => reply(307, &[("location", "/moved")], ""),
    })
    .await;
    let (set, _) = set(vec![with_credentials(upstream("hub", &registry.url()))]);
    let body = set.open_blob(wanted(&blob(CONTENT), Some(CONTENT.len() as u64))).await.unwrap();
    assert_eq!(body.size(), Some(CONTENT.len() as u64));
    assert_eq!(read(body).await, CONTENT);

    let asked = store.asked();
    assert_eq!(asked.len(), 1);
    assert_eq!(asked[0].target, "/signed?sig=a%2Fb");
    let mut names: Vec<_> = asked[0].headers.keys().map(http::HeaderName::as_str).collect();
    names.sort_unstable();
    assert_eq!(names, ["accept", "accept-encoding", "host", "user-agent", "via"]);
    assert_eq!(registry.asked().last().unwrap().target, "/moved");
}

#[tokio::test]
async fn a_challenge_behind_a_redirect_is_met_without_the_upstreams_credentials() {
    let tokens = Fake::start(|_| ok(r#"{"token":"anonymous"}"#)).await;
    let realm = format!("{}/token", tokens.url());
    let elsewhere = Fake::start(move |asked| {
        if asked.header("authorization") == Some("Bearer anonymous") {
            return ok(MANIFEST);
        }
        let value = format!(r#"Bearer realm="{realm}",service="s",scope="repository:other/name:pull""#);
        reply(401, &[("www-authenticate", &value)], "")
    })
    .await;
    let target = format!("{}/v2/other/name/manifests/x", elsewhere.url());
    let registry = Fake::start(move |_| reply(307, &[("location", &target)], "")).await;
    let (set, _) = set(vec![with_credentials(upstream("k8s", &registry.url()))]);
    for _ in 0..2 {
        assert_eq!(set.manifest(&manifest_by_digest(), Purpose::Miss, deadline()).await.unwrap().body, MANIFEST);
    }
    assert_eq!(tokens.count(), 1);
    let token = &tokens.asked()[0];
    assert_eq!(token.header("authorization"), None);
    assert_eq!(token.target, "/token?service=s&scope=repository%3Aother%2Fname%3Apull");
}

#[tokio::test]
async fn a_password_is_never_sent_where_a_redirect_leads() {
    let elsewhere = Fake::start(|_| reply(401, &[("www-authenticate", "Basic realm=x")], "")).await;
    let target = elsewhere.url();
    let registry = Fake::start(move |_| reply(307, &[("location", &target)], "")).await;
    let (set, _) = set(vec![with_credentials(upstream("hub", &registry.url()))]);
    let attempts = set.open_blob(wanted(&blob(CONTENT), None)).await.unwrap_err();
    assert_eq!(attempts.conclusion(), Conclusion::Unavailable, "the store knows no repositories");
    assert!(elsewhere.asked().iter().all(|asked| asked.header("authorization").is_none()));
}

#[tokio::test]
async fn a_loop_of_redirects_ends() {
    let registry = Fake::start(|asked| reply(307, &[("location", &asked.target)], "")).await;
    let (set, _) = set(vec![upstream("hub", &registry.url())]);
    let attempts = set.manifest(&manifest_by_digest(), Purpose::Miss, deadline()).await.unwrap_err();
    assert_eq!(attempts.0[0].error.verdict, Verdict::Broken);
    assert_eq!(registry.count(), 6, "the request and five redirects");
}

#[tokio::test]
async fn a_redirect_into_the_own_network_is_not_followed_unless_allowed() {
    let inside = Fake::start(|_| ok(CONTENT)).await;
    for host in ["127.0.0.1", "localhost", "[::ffff:7f00:1]", "2130706433"] {
        let target = format!("http://{host}:{}/", inside.port);
        let registry = Fake::start(move |_| reply(307, &[("location", &target)], "")).await;
        let mut strict = upstream("hub", &registry.url());
        strict.allow_private = false;
        let (set, _) = set(vec![strict]);
        let attempts = set.open_blob(wanted(&blob(CONTENT), None)).await.unwrap_err();
        assert!(attempts.to_string().contains("allow_private"), "{host}: {attempts}");
        assert_eq!(attempts.conclusion(), Conclusion::Unavailable);
    }
    assert_eq!(inside.count(), 0);
}

#[tokio::test]
async fn an_upstream_on_a_private_address_may_redirect_to_itself() {
    let registry = Fake::start(|asked| match asked.target.as_str() {
        "/there" => ok(CONTENT),
        _ => reply(301, &[("location", "/there")], ""),
    })
    .await;
    let mut strict = upstream("harbor", &registry.url());
    strict.allow_private = false;
    let (set, _) = set(vec![strict]);
    assert_eq!(read(set.open_blob(wanted(&blob(CONTENT), None)).await.unwrap()).await, CONTENT);
}

#[tokio::test]
async fn a_blob_is_confirmed_by_its_redirect_and_measured_by_a_get() {
    let store = Fake::start(|asked| match (&asked.method, asked.header("range")) {
        (&Method::GET, Some("bytes=0-0")) => reply(206, &[("content-range", "bytes 0-0/21")], "t"),
        _ => status(403),
    })
    .await;
    let target = store.url();
    let registry = Fake::start(move |_| reply(307, &[("location", &target)], "")).await;
    let (set, _) = set(vec![upstream("hub", &registry.url())]);
    assert_eq!(set.stat_blob(&blob(CONTENT), deadline()).await.unwrap().size, Some(21));
    assert!(store.asked().iter().all(|asked| asked.method == Method::GET), "a signed address is good for one method");

    let empty = Fake::start(|asked| match asked.method {
        Method::HEAD => reply(307, &[("location", "/nothing")], ""),
        _ => status(416),
    })
    .await;
    let (set, _) = super::fake::set(vec![upstream("hub", &empty.url())]);
    assert_eq!(set.stat_blob(&blob(b""), deadline()).await.unwrap().size, None, "an empty blob has no first byte");
}

#[tokio::test]
async fn a_redirect_to_nothing_confirms_nothing() {
    for (code, verdict) in
        [(404, Verdict::NotHere), (403, Verdict::NotHereOrHidden), (200, Verdict::Broken), (500, Verdict::Transient)]
    {
        let registry = Fake::start(move |asked| match asked.method {
            Method::HEAD => reply(307, &[("location", "/anything")], ""),
            _ if code == 200 => reply(200, &[("content-type", "text/html")], "<html>"),
            _ => status(code),
        })
        .await;
        let (set, _) = set(vec![upstream("k8s", &registry.url())]);
        let attempts = set.stat_blob(&blob(CONTENT), deadline()).await.unwrap_err();
        assert_eq!(attempts.0[0].error.verdict, verdict);
    }
}

#[tokio::test]
async fn a_store_that_refuses_confirms_nothing() {
    const XML: &str = "<?xml version=\"1.0\"?><Error><Code>AccessDenied</Code></Error>";
    for code in [403, 404] {
        let store = Fake::start(move |_| reply(code, &[("content-type", "application/xml")], XML)).await;
        let target = store.url();
        // It gives out an address for any digest, and leaves it to the store to know better.
        let registry = Fake::start(move |_| reply(307, &[("location", &target)], "")).await;
        let (set, _) = set(vec![upstream("hub", &registry.url())]);
        let attempts = set.stat_blob(&blob(CONTENT), deadline()).await.unwrap_err();
        assert_eq!(attempts.conclusion(), Conclusion::Unavailable, "{code}");
    }
}

#[tokio::test]
async fn a_head_of_a_manifest_follows_redirects() {
    let digest = Digest::of(MANIFEST.as_bytes()).to_string();
    let registry = Fake::start(move |asked| match asked.target.as_str() {
        "/moved" => reply(200, &[("docker-content-digest", &digest)], ""),
        _ => reply(307, &[("location", "/moved")], ""),
    })
    .await;
    let (set, _) = set(vec![upstream("k8s", &registry.url())]);
    let resolved = set.resolve(&manifest("latest"), Purpose::Miss, deadline()).await.unwrap();
    assert_eq!(resolved.digest, Some(Digest::of(MANIFEST.as_bytes())));
    assert!(registry.asked().iter().all(|asked| asked.method == Method::HEAD));
}

#[tokio::test]
async fn referrers_behind_a_redirect_to_a_web_site_are_not_there() {
    let site = Fake::start(|_| ok("<html>")).await;
    let target = site.url();
    let registry = Fake::start(move |_| reply(303, &[("location", &target)], "")).await;
    let (set, _) = set(vec![upstream("ghcr", &registry.url())]);
    let request =
        ReferrersRequest { repository: "acme/app".parse().unwrap(), subject: Digest::of(b"x"), artifact_type: None };
    let attempts = set.referrers(&request, deadline()).await.unwrap_err();
    assert_eq!(attempts.conclusion(), Conclusion::NotFound);
    assert_eq!(site.count(), 0);
}
