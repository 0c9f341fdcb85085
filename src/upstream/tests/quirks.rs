//! What is found out about an upstream, and then reckoned with.

use super::fake::{Fake, MANIFEST, blob, deadline, manifest, ok, read, reply, set, status, upstream, wanted};
use crate::oci::Digest;
use crate::oci::request::ReferrersRequest;
use crate::upstream::{BytesAsked, Purpose, Verdict};

const CONTENT: &[u8] = b"the content of a blob";

#[tokio::test]
async fn who_sends_wrong_parts_is_asked_for_parts_last() {
    let wrong = Fake::start(|asked| match asked.header("range") {
        Some(_) => reply(206, &[("content-range", "bytes 0-20/21")], CONTENT),
        None => ok(CONTENT),
    })
    .await;
    let right = Fake::start(|asked| match asked.header("range") {
        Some(_) => reply(206, &[("content-range", "bytes 4-20/21")], &CONTENT[4..]),
        None => ok(CONTENT),
    })
    .await;
    let (set, _) = set(vec![upstream("wrong", &wrong.url()), upstream("right", &right.url())]);
    for asked in [1, 1] {
        let (blob, rest) = (blob(CONTENT), BytesAsked::from(4));
        let body = set.open_blob_range(wanted(&blob, Some(21)), rest).await.unwrap();
        assert_eq!((&**body.upstream(), wrong.count()), ("right", asked));
        assert_eq!(read(body).await, &CONTENT[4..]);
    }
    assert_eq!(&**set.open_blob(wanted(&blob(CONTENT), None)).await.unwrap().upstream(), "wrong", "for all of it");
}

#[tokio::test]
async fn what_an_upstream_lacks_is_not_asked_for_again_at_once() {
    let lacking = Fake::start(|asked| match asked.method {
        http::Method::HEAD => status(405),
        _ if asked.target.contains("/referrers/") => reply(404, &[], "404 page not found"),
        _ => ok(MANIFEST),
    })
    .await;
    let (set, _) = set(vec![upstream("hub", &lacking.url())]);
    let request =
        ReferrersRequest { repository: "acme/app".parse().unwrap(), subject: Digest::of(b"x"), artifact_type: None };
    for _ in 0..3 {
        assert_eq!(set.resolve(&manifest("latest"), Purpose::Revalidation, deadline()).await.unwrap().digest, None);
        let attempts = set.referrers(&request, deadline()).await.unwrap_err();
        assert_eq!(attempts.0[0].error.verdict, Verdict::NoSuchList);
    }
    assert_eq!(lacking.count(), 3, "the tag that stands in for the list shows that the registry is in order");
}
