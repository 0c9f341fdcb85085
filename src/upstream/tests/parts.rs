//! Parts of blobs: asked for along the same way as whole ones, and taken only from those who say what they send.

use axum::response::Response;

use super::fake::{Asked, Fake, blob, mirror, ok, raw, read, reply, set, status, upstream, wanted, with_credentials};
use crate::upstream::{Break, BytesAsked, Conclusion, Verdict};

const CONTENT: &[u8] = b"the content of a blob";
const TOTAL: Option<u64> = Some(CONTENT.len() as u64);

/// Answers a request for the bytes from 4 on, as a registry does.
fn from_four(_: &Asked) -> Response {
    reply(206, &[("content-range", "bytes 4-20/21")], &CONTENT[4..])
}

#[tokio::test]
async fn a_range_travels_along_redirects_without_the_credentials() {
    let store = Fake::start(from_four).await;
    let target = format!("{}/signed", store.url());
    let registry = Fake::start(move |asked| match asked.header("authorization") {
        None => reply(401, &[("www-authenticate", "Basic realm=x")], ""),
        Some(_) => reply(307, &[("location", &target)], ""),
    })
    .await;
    let (set, metrics) = set(vec![with_credentials(upstream("hub", &registry.url()))]);
    let body = set.open_blob_range(wanted(&blob(CONTENT), TOTAL), BytesAsked::from(4)).await.unwrap();
    assert_eq!((&**body.upstream(), body.size()), ("hub", TOTAL));
    assert_eq!(read(body).await, &CONTENT[4..]);
    let asked = store.asked();
    assert_eq!((asked[0].header("range"), asked[0].header("authorization")), (Some("bytes=4-"), None));
    assert!(registry.asked().iter().all(|asked| asked.header("range") == Some("bytes=4-")));
    let received = metrics.upstream.received_bytes.with_label_values(&["registry.test", "hub", "blob"]);
    assert_eq!(received.get(), CONTENT.len() as u64 - 4);
}

#[tokio::test]
async fn who_sends_another_part_is_passed_over() {
    let wrong: [fn(&Asked) -> Response; 4] = [
        |_| reply(206, &[("content-range", "bytes 0-20/21")], CONTENT),
        |_| reply(206, &[("content-range", "bytes 4-21/22")], "the content of a blob."),
        |_| status(416),
        |_| reply(200, &[], "another size"),
    ];
    for answer in wrong {
        let liar = Fake::start(answer).await;
        let honest = Fake::start(from_four).await;
        let (set, metrics) = set(vec![mirror("liar", &liar.url()), upstream("honest", &honest.url())]);
        let body = set.open_blob_range(wanted(&blob(CONTENT), TOTAL), BytesAsked::from(4)).await.unwrap();
        assert_eq!(&**body.upstream(), "honest");
        let labels = ["registry.test", "liar", "range"];
        assert_eq!(metrics.upstream.failovers.with_label_values(&labels).get(), 1);
    }
}

#[tokio::test]
async fn a_refused_part_is_told_from_a_missing_blob() {
    for (answer, refused, conclusion) in [
        (416, true, Conclusion::Unavailable),
        (404, false, Conclusion::NotFound),
        (503, false, Conclusion::Unavailable),
    ] {
        let registry = Fake::start(move |_| status(answer)).await;
        let (set, _) = set(vec![upstream("hub", &registry.url())]);
        let attempts = set.open_blob_range(wanted(&blob(CONTENT), TOTAL), BytesAsked::from(4)).await.unwrap_err();
        assert_eq!((attempts.is_part_refused(), attempts.conclusion()), (refused, conclusion), "{answer}: {attempts}");
        assert_eq!(attempts.0[0].error.status, Some(answer));
    }
}

#[tokio::test]
async fn who_ignores_a_range_is_taken_for_a_part_to_the_end_only() {
    let registry = Fake::start(|_| ok(CONTENT)).await;
    let (set, _) = set(vec![upstream("hub", &registry.url())]);
    let body = set.open_blob_range(wanted(&blob(CONTENT), TOTAL), BytesAsked::from(4)).await.unwrap();
    assert_eq!(body.overlap(), 4);
    assert_eq!(read(body).await, CONTENT, "it is the reader that compares what lies before");
    let closed = BytesAsked { first: 4, last: Some(7) };
    let attempts = set.open_blob_range(wanted(&blob(CONTENT), TOTAL), closed).await.unwrap_err();
    assert_eq!(attempts.0[0].error.verdict, Verdict::WrongPart);
    assert_eq!(attempts.to_string(), "hub: Answered with the whole blob when asked for a part");
}

#[tokio::test]
async fn a_sign_in_page_is_no_part() {
    let portal = Fake::start(|_| reply(200, &[("content-type", "text/html")], "<html>Sign in</html>")).await;
    let (set, _) = set(vec![upstream("hub", &portal.url())]);
    for total in [None, TOTAL] {
        let attempts = set.open_blob_range(wanted(&blob(CONTENT), total), BytesAsked::from(4)).await.unwrap_err();
        assert_eq!(attempts.0[0].error.verdict, Verdict::Broken);
    }
}

#[tokio::test]
async fn a_part_that_breaks_off_never_ends_well() {
    let answer = "HTTP/1.1 206 Partial Content\r\ncontent-range: bytes 4-20/21\r\ncontent-length: 17\r\n\r\ncontent";
    let url = raw(vec![answer.to_owned()]).await;
    let (set, _) = set(vec![upstream("hub", &url)]);
    let mut body = set.open_blob_range(wanted(&blob(CONTENT), TOTAL), BytesAsked::from(4)).await.unwrap();
    let failure = loop {
        match body.chunk().await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("a cut body must not end well"),
            Err(error) => break error,
        }
    };
    assert_eq!((&*failure.upstream, failure.cause), ("hub", Break::Reset));
}
