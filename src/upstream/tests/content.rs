//! What is believed of an answer, and what is asked in the first place.

use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use futures_util::stream;
use http::HeaderValue;
use http::header::LINK;
use tokio::time::Instant;

use super::fake::{
    Asked, Fake, MANIFEST, blob, deadline, manifest, manifest_by_digest, mirror, ok, raw, reply, set, status, upstream,
    wanted,
};
use crate::oci::media_type::{ACCEPT_MANIFESTS, OCI_MANIFEST};
use crate::oci::request::ReferrersRequest;
use crate::oci::{Digest, MAX_MANIFEST_BYTES};
use crate::upstream::{Break, Conclusion, Purpose, Verdict};

const CONTENT: &[u8] = b"the content of a blob";

#[tokio::test]
async fn requests_keep_the_configured_path_and_ask_for_plain_bytes() {
    let registry = Fake::start(|_| ok(MANIFEST)).await;
    let (set, metrics) = set(vec![upstream("hub", &format!("{}/some/prefix/", registry.url()))]);
    let fetched = set.manifest(&manifest("1.29"), Purpose::Miss, deadline()).await.unwrap();
    assert_eq!(fetched.media_type.as_str(), OCI_MANIFEST, "repaired from the body");
    let asked = &registry.asked()[0];
    assert_eq!(asked.target, "/some/prefix/v2/acme/app/manifests/1.29");
    assert_eq!(asked.header("accept"), Some(ACCEPT_MANIFESTS));
    assert_eq!(asked.header("accept-encoding"), Some("identity"));
    assert_eq!(asked.header("user-agent"), Some(concat!("weir/", env!("CARGO_PKG_VERSION"))));
    let labels = ["registry.test", "hub", "manifest"];
    assert_eq!(metrics.upstream.received_bytes.with_label_values(&labels).get(), MANIFEST.len() as u64);
}

#[tokio::test]
async fn wrong_bytes_are_passed_over_and_counted() {
    let liar = Fake::start(|asked| {
        let digest = asked.target.rsplit('/').next().unwrap();
        reply(200, &[("docker-content-digest", digest)], MANIFEST.replace("layers", "lawyers"))
    })
    .await;
    let honest = Fake::start(|_| ok(MANIFEST)).await;
    let (set, metrics) = set(vec![upstream("liar", &liar.url()), mirror("honest", &honest.url())]);
    let fetched = set.manifest(&manifest_by_digest(), Purpose::Miss, deadline()).await.unwrap();
    assert_eq!((&*fetched.upstream, fetched.digest), ("honest", Digest::of(MANIFEST.as_bytes())));
    assert_eq!(metrics.pull.digest_mismatches.with_label_values(&["registry.test", "liar"]).get(), 1);
    let labels = ["registry.test", "liar", "digest"];
    assert_eq!(metrics.upstream.failovers.with_label_values(&labels).get(), 1);
}

#[tokio::test]
async fn the_digest_of_a_tag_is_that_of_the_bytes() {
    let other = Digest::of(b"other").to_string();
    let registry = Fake::start(move |_| reply(200, &[("docker-content-digest", &other)], MANIFEST)).await;
    let (set, _) = set(vec![upstream("hub", &registry.url())]);
    let fetched = set.manifest(&manifest("latest"), Purpose::Miss, deadline()).await.unwrap();
    assert_eq!(fetched.digest, Digest::of(MANIFEST.as_bytes()));
}

#[tokio::test]
async fn what_is_no_manifest_is_broken_whatever_the_status() {
    let endless = || {
        let piece = Bytes::from(vec![b' '; 64 * 1024]);
        Body::from_stream(stream::repeat_with(move || Ok::<_, std::io::Error>(piece.clone())))
    };
    let large = || Body::from(format!("{MANIFEST}{}", " ".repeat(MAX_MANIFEST_BYTES)));
    let bodies: [fn() -> Body; 4] = [
        || Body::from("<html>Sign in to the guest network</html>"),
        || Body::from(r#"{"hello":"world"}"#),
        || Body::empty(),
        || Body::from(MANIFEST.replace(r#""layers":[]"#, r#""layers":[],"manifests":[]"#)),
    ];
    let makers = bodies.map(|body| Box::new(body) as Box<dyn Fn() -> Body + Send + Sync>);
    for make in makers.into_iter().chain([Box::new(endless) as _, Box::new(large) as _]) {
        let registry = Fake::start(move |_| reply(200, &[("content-type", "text/html")], make())).await;
        let (set, _) = set(vec![upstream("hub", &registry.url())]);
        let attempts = set.manifest(&manifest("latest"), Purpose::Miss, deadline()).await.unwrap_err();
        assert_eq!(attempts.0[0].error.verdict, Verdict::Broken, "{attempts}");
        assert_eq!(attempts.conclusion(), Conclusion::Unavailable);
    }
}

#[tokio::test]
async fn the_largest_manifest_is_accepted() {
    let body = format!("{MANIFEST}{}", " ".repeat(MAX_MANIFEST_BYTES - MANIFEST.len()));
    let registry = Fake::start(move |_| ok(body.clone())).await;
    let (set, _) = set(vec![upstream("hub", &registry.url())]);
    assert_eq!(
        set.manifest(&manifest("latest"), Purpose::Miss, deadline()).await.unwrap().body.len(),
        MAX_MANIFEST_BYTES
    );
}

#[tokio::test]
async fn a_head_that_tells_no_digest_leaves_it_to_a_get() {
    for code in [200, 405] {
        let registry = Fake::start(move |_| status(code)).await;
        let (set, _) = set(vec![upstream("hub", &registry.url())]);
        assert_eq!(set.resolve(&manifest("latest"), Purpose::Miss, deadline()).await.unwrap().digest, None, "{code}");
    }
    let portal = Fake::start(|_| reply(200, &[("content-type", "text/html")], "")).await;
    let (set, _) = set(vec![upstream("hub", &portal.url())]);
    assert_eq!(
        set.resolve(&manifest("latest"), Purpose::Miss, deadline()).await.unwrap_err().0[0].error.verdict,
        Verdict::Broken
    );
}

#[tokio::test]
async fn a_blob_of_another_length_is_passed_over_before_its_first_byte() {
    let wrong = Fake::start(|_| ok("short")).await;
    let right = Fake::start(|_| reply(200, &[("content-encoding", "gzip")], CONTENT)).await;
    let (set, metrics) = set(vec![mirror("wrong", &wrong.url()), upstream("right", &right.url())]);
    let mut body = set.open_blob(wanted(&blob(CONTENT), Some(CONTENT.len() as u64))).await.unwrap();
    assert_eq!(&**body.upstream(), "right");
    assert_eq!(body.chunk().await.unwrap().unwrap(), CONTENT, "no coding is undone");
    assert_eq!(body.chunk().await.unwrap(), None);
    let labels = ["registry.test", "right", "blob"];
    assert_eq!(metrics.upstream.received_bytes.with_label_values(&labels).get(), CONTENT.len() as u64);
}

#[tokio::test]
async fn a_blob_that_breaks_off_never_ends_well() {
    let url = raw(vec!["HTTP/1.1 200 OK\r\ncontent-length: 21\r\n\r\nthe con".to_owned()]).await;
    let (set, _) = set(vec![upstream("hub", &url)]);
    let mut body = set.open_blob(wanted(&blob(CONTENT), None)).await.unwrap();
    assert_eq!(body.size(), Some(21));
    let failure = loop {
        match body.chunk().await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("a cut body must not end well"),
            Err(error) => break error,
        }
    };
    assert_eq!(failure.cause, Break::Reset);
}

#[tokio::test]
async fn a_sign_in_page_is_no_blob() {
    let portal = Fake::start(|_| reply(200, &[("content-type", "text/html")], "<html>")).await;
    let (set, _) = set(vec![upstream("hub", &portal.url())]);
    let attempts = set.open_blob(wanted(&blob(CONTENT), None)).await.unwrap_err();
    assert_eq!(attempts.0[0].error.verdict, Verdict::Broken);
    let attempts = set.stat_blob(&blob(CONTENT), deadline()).await.unwrap_err();
    assert_eq!(attempts.0[0].error.verdict, Verdict::Broken);
    assert!(set.open_blob(wanted(&blob(b"<html>"), Some(6))).await.is_ok(), "unless the length is right");
}

#[tokio::test]
async fn the_size_of_a_blob_is_told_by_head_or_by_one_byte() {
    let registry = Fake::start(|asked| match (asked.method.as_str(), asked.header("range")) {
        ("HEAD", _) => status(405),
        (_, Some("bytes=0-0")) => ok(CONTENT),
        _ => status(500),
    })
    .await;
    let plain = Fake::start(|_| ok(CONTENT)).await;
    for fake in [&registry, &plain] {
        let (set, _) = set(vec![upstream("hub", &fake.url())]);
        assert_eq!(set.stat_blob(&blob(CONTENT), deadline()).await.unwrap().size, Some(21));
    }
    assert_eq!(plain.count(), 1);
}

#[tokio::test]
async fn lists_are_read_whole_along_the_links_of_their_pages() {
    let registry = Fake::start(|asked| {
        if asked.target.contains("token=2") {
            return ok(r#"{"name":"acme/app","tags":["a"]}"#);
        }
        let link = HeaderValue::from_static("</v2/acme/app/tags/list?token=2>; rel=\"next\"");
        let mut page = ok(r#"{"name":"acme/app","tags":["z"]}"#);
        page.headers_mut().insert(LINK, link);
        page
    })
    .await;
    let (set, _) = set(vec![upstream("hub", &registry.url())]);
    let list = set.tags(&"acme/app".parse().unwrap(), deadline()).await.unwrap();
    assert_eq!(*list.tags, ["z".to_owned(), "a".to_owned()]);
    let targets: Vec<_> = registry.asked().into_iter().map(|asked| asked.target).collect();
    assert_eq!(targets, ["/v2/acme/app/tags/list?n=1000", "/v2/acme/app/tags/list?token=2"]);
}

#[tokio::test]
async fn a_list_that_never_ends_is_no_list() {
    let next = |asked: &Asked| asked.target.rsplit('=').next().and_then(|page| page.parse::<usize>().ok()).unwrap() + 1;
    let registry = Fake::start(move |asked| {
        let link = format!("</v2/acme/app/tags/list?page={}>; rel=next", next(asked));
        reply(200, &[("link", &link)], r#"{"tags":["z"]}"#)
    })
    .await;
    let (set, _) = set(vec![upstream("hub", &registry.url())]);
    let hours = Instant::now() + Duration::from_secs(7200);
    let attempts = set.tags(&"acme/app".parse().unwrap(), hours).await.unwrap_err();
    assert_eq!(attempts.0[0].error.verdict, Verdict::Broken, "{attempts}");
    assert_eq!(registry.count(), 1000);
}

#[tokio::test]
async fn referrers_tell_which_filter_was_applied() {
    let registry = Fake::start(|asked| match asked.target.split_once('?') {
        Some((_, "artifactType=application%2Fx")) => {
            reply(200, &[("oci-filters-applied", "artifactType")], r#"{"manifests":[]}"#)
        }
        _ if asked.target.contains("/manifests/") => status(404),
        _ => reply(404, &[], "404 page not found"),
    })
    .await;
    let (set, _) = set(vec![upstream("hub", &registry.url())]);
    let mut request = ReferrersRequest {
        repository: "acme/app".parse().unwrap(),
        subject: Digest::of(b"x"),
        artifact_type: Some("application/x".into()),
    };
    let document = set.referrers(&request, deadline()).await.unwrap();
    assert!(document.filtered);
    request.artifact_type = None;
    let attempts = set.referrers(&request, deadline()).await.unwrap_err();
    assert_eq!(attempts.conclusion(), Conclusion::NotFound, "old registries answer in plain text");
}
