//! The pull half of the distribution API, as clients see it.

use http::{Method, StatusCode};
use serde_json::json;
use weir::oci::{Algorithm, Digest};

use crate::support::blob::{Blob, blob_of};
use crate::support::images::{OCI_INDEX, OCI_MANIFEST, artifact, demo, image, image_with_manifest_of};
use crate::support::raw;
use crate::support::upstream::{Fault, Kind, Requests, ScriptedUpstream};
use crate::support::weir::{Answer, REGISTRY, TestWeir, blob_path, manifest_path, registry};

const REPOSITORY: &str = "library/demo";

/// A digest that nobody has.
fn unknown() -> Digest {
    Digest::of(b"nobody has this")
}

async fn pair() -> (ScriptedUpstream, TestWeir) {
    let upstream = ScriptedUpstream::start().await;
    let weir = TestWeir::before(&upstream).await;
    (upstream, weir)
}

/// Weir before an upstream with one blob of 10,000 bytes, which a manifest in the repository points at.
async fn with_blob() -> (ScriptedUpstream, TestWeir, Blob) {
    let (upstream, weir) = pair().await;
    let blob = blob_of(10_000, 3);
    upstream.push(REPOSITORY, "v1", &image("amd64", vec![blob.clone()]));
    (upstream, weir, blob)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_base_is_answered_and_never_challenged() {
    let (_upstream, weir) = pair().await;
    for path in ["/v2/", "/v2"] {
        let answer = weir.get(path).await;
        assert_eq!(answer.status, StatusCode::OK, "{path}");
        assert_eq!(answer.header("docker-distribution-api-version"), "registry/2.0");
        assert_eq!(answer.header("www-authenticate"), "");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_whole_image_arrives_by_tag_and_by_digest() {
    let (upstream, weir) = pair().await;
    let package = demo(1);
    upstream.push(REPOSITORY, "v1", &package);
    weir.pull_all(REPOSITORY, "v1", &package).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn all_request_shapes_reach_the_same_repository() {
    let upstream = ScriptedUpstream::start().await;
    let package = demo(2);
    upstream.push(REPOSITORY, "v1", &package);
    let weir =
        TestWeir::before_with(&upstream, json!({ "registries": { REGISTRY: { "aliases": ["alias.test"] } } })).await;
    for path in [
        format!("/v2/{REPOSITORY}/manifests/v1?ns={REGISTRY}"),
        format!("/v2/{REGISTRY}/{REPOSITORY}/manifests/v1"),
        format!("/v2/{REGISTRY}/{REPOSITORY}/manifests/v1?ns={REGISTRY}"),
        format!("/{REGISTRY}/v2/{REPOSITORY}/manifests/v1?ns={REGISTRY}"),
        format!("/v2/{REPOSITORY}/manifests/v1"),
        format!("/v2/alias.test/{REPOSITORY}/manifests/v1"),
        format!("/v2/{REPOSITORY}/manifests/v1?ns=alias.test"),
        format!("/v2/{REPOSITORY}/manifests/v1?ns={REGISTRY}&unknown=parameter"),
    ] {
        weir.get(&path).await.assert_is(package.digest());
    }
    assert_eq!(upstream.count(&Method::GET, Kind::Manifest), 1, "one repository, so one fetch");
    assert!(upstream.requests().iter().all(|request| request.parameter("ns").is_none()), "ns stays here");
}

#[tokio::test(flavor = "multi_thread")]
async fn docker_hub_names_of_one_component_get_library() {
    let upstream = ScriptedUpstream::start().await;
    let package = demo(3);
    upstream.push("library/nginx", "v1", &package);
    let weir = TestWeir::start(json!({
        "server": { "default_registry": "docker.io" },
        "registries": { "docker.io": registry(&[&upstream]) },
    }))
    .await;
    for path in [
        "/v2/nginx/manifests/v1",
        "/v2/docker.io/nginx/manifests/v1",
        "/v2/docker.io/library/nginx/manifests/v1",
        "/v2/library/nginx/manifests/v1?ns=docker.io",
    ] {
        weir.get(path).await.assert_is(package.digest());
    }
    assert_eq!(upstream.count(&Method::GET, Kind::Manifest), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_with_a_port_is_reached_by_ns_and_by_underscore() {
    let upstream = ScriptedUpstream::start().await;
    let package = demo(4);
    upstream.push("team/app", "v1", &package);
    let weir = TestWeir::start(json!({ "registries": {
        "reg.test:5000": registry(&[&upstream]),
        REGISTRY: registry(&[&upstream]),
    } }))
    .await;
    for path in ["/v2/team/app/manifests/v1?ns=reg.test%3A5000", "/v2/reg.test_5000/team/app/manifests/v1"] {
        weir.get(path).await.assert_is(package.digest());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_registry_is_404_and_names_the_configuration_key() {
    let (upstream, weir) = pair().await;
    let answer = weir.get(&format!("/v2/{REPOSITORY}/manifests/v1?ns=other.test")).await;
    answer.assert_error(404, "NAME_UNKNOWN");
    assert!(answer.error_message().contains("registries"), "{}", answer.error_message());
    assert!(answer.error_message().contains("other.test"), "{}", answer.error_message());
    assert_eq!(upstream.requests().len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ns_that_contradicts_the_path_is_400() {
    let upstream = ScriptedUpstream::start().await;
    let weir =
        TestWeir::before_with(&upstream, json!({ "registries": { "second.test": registry(&[&upstream]) } })).await;
    let answer = weir.get(&format!("/v2/{REGISTRY}/{REPOSITORY}/manifests/v1?ns=second.test")).await;
    assert_eq!(answer.status, StatusCode::BAD_REQUEST);
    assert_eq!(upstream.requests().len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn head_and_get_of_a_manifest_have_the_same_headers() {
    let (upstream, weir) = pair().await;
    let package = demo(5);
    upstream.push(REPOSITORY, "v1", &package);
    for reference in ["v1".to_owned(), package.digest().to_string()] {
        // HEAD first: a cold HEAD must know everything as well.
        let path = manifest_path(REPOSITORY, &reference);
        let (head, get) = (weir.head(&path).await, weir.get(&path).await);
        assert_same_headers(&head, &get);
        assert_eq!(get.header("content-type"), OCI_INDEX);
        assert_eq!(get.header("content-length"), package.manifest.size().to_string());
        assert_eq!(get.header("docker-content-digest"), package.digest().to_string());
        assert_eq!(head.size, 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn head_and_get_of_a_blob_have_the_same_headers() {
    let (_upstream, weir, blob) = with_blob().await;
    let path = blob_path(REPOSITORY, blob.digest());
    let cold = weir.head(&path).await;
    let get = weir.get(&path).await;
    get.assert_is(blob.digest());
    weir.assert_invariants().await;
    let warm = weir.head(&path).await;
    for head in [&cold, &warm] {
        assert_same_headers(head, &get);
        assert_eq!(head.size, 0);
    }
    assert_eq!(get.header("content-type"), "application/octet-stream");
    assert_eq!(get.header("content-length"), "10000");
    assert_eq!(get.header("docker-content-digest"), blob.digest().to_string());
    assert_eq!(get.header("accept-ranges"), "bytes");
}

#[track_caller]
fn assert_same_headers(head: &Answer, get: &Answer) {
    assert_eq!(head.status, get.status);
    for name in ["content-type", "content-length", "docker-content-digest", "accept-ranges", "etag"] {
        assert_eq!(head.header(name), get.header(name), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_registry_is_echoed_when_ns_was_used() {
    let (upstream, weir) = pair().await;
    upstream.push(REPOSITORY, "v1", &demo(6));
    let with_ns = weir.get(&format!("/v2/{REPOSITORY}/manifests/v1?ns={REGISTRY}")).await;
    assert_eq!(with_ns.header("oci-namespace"), REGISTRY);
    assert_eq!(weir.manifest(REPOSITORY, "v1").await.header("oci-namespace"), "");
}

#[tokio::test(flavor = "multi_thread")]
async fn ranges_of_manifests_are_ignored() {
    let (upstream, weir) = pair().await;
    let package = demo(7);
    upstream.push(REPOSITORY, "v1", &package);
    weir.get_with(&manifest_path(REPOSITORY, "v1"), ("range", "bytes=0-")).await.assert_is(package.digest());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_blob_is_a_blob() {
    let (upstream, weir) = pair().await;
    let empty = Blob::held("");
    upstream.push_blob(REPOSITORY, &empty);
    for _ in ["cold", "warm"] {
        let answer = weir.blob(REPOSITORY, empty.digest()).await;
        answer.assert_is(empty.digest());
        assert_eq!(answer.header("content-length"), "0");
    }
    weir.assert_invariants().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sha512_blobs_are_verified_and_stored_under_their_algorithm() {
    let (upstream, weir) = pair().await;
    let blob = Blob::held_with(Algorithm::Sha512, blob_of(5000, 9).bytes());
    upstream.push_blob(REPOSITORY, &blob);
    for _ in ["cold", "warm"] {
        let answer = weir.blob(REPOSITORY, blob.digest()).await;
        assert_eq!(answer.status, StatusCode::OK);
        assert_eq!(answer.bytes(), blob.bytes());
        assert_eq!(answer.header("docker-content-digest"), blob.digest().to_string());
        weir.assert_invariants().await;
    }
    assert!(weir.is_stored(blob.digest()));
    assert_eq!(upstream.blob_gets(blob.digest()), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manifest_of_nearly_four_megabytes_passes_and_a_larger_one_does_not() {
    let (upstream, weir) = pair().await;
    let (large, huge) = (image_with_manifest_of(3_900_000), image_with_manifest_of(4_500_000));
    upstream.push(REPOSITORY, "large", &large);
    upstream.push(REPOSITORY, "huge", &huge);
    for _ in ["cold", "warm"] {
        weir.manifest(REPOSITORY, "large").await.assert_is(large.digest());
    }
    assert_eq!(weir.manifest(REPOSITORY, "huge").await.status, StatusCode::SERVICE_UNAVAILABLE);
    weir.assert_invariants().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_or_generic_content_type_of_an_upstream_is_repaired() {
    let (upstream, weir) = pair().await;
    let content_type = http::header::CONTENT_TYPE;
    for (number, fault) in [
        Fault::WithoutHeader(content_type.clone()),
        Fault::Header(content_type.clone(), "application/json".parse().unwrap()),
        Fault::Header(content_type.clone(), "text/plain; charset=utf-8".parse().unwrap()),
        Fault::Header(content_type.clone(), "application/octet-stream".parse().unwrap()),
    ]
    .into_iter()
    .enumerate()
    {
        let package = demo(50 + number as u64);
        let tag = format!("v{number}");
        upstream.push(REPOSITORY, &tag, &package);
        upstream.fault(Requests::of_kind(Kind::Manifest), fault.clone());
        let index = weir.manifest(REPOSITORY, &tag).await;
        index.assert_is(package.digest());
        assert_eq!(index.header("content-type"), OCI_INDEX, "{fault:?}");
        let image = weir.manifest(REPOSITORY, package.children[0].digest()).await;
        assert_eq!(image.header("content-type"), OCI_MANIFEST, "{fault:?}");
        upstream.heal();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_digest_header_of_an_upstream_is_filled_in_and_a_wrong_one_is_not_believed() {
    let (upstream, weir) = pair().await;
    let digest_header = http::HeaderName::from_static("docker-content-digest");
    for (number, fault) in [
        Fault::WithoutHeader(digest_header.clone()),
        Fault::Header(digest_header.clone(), unknown().to_string().parse().unwrap()),
        Fault::Header(digest_header.clone(), "nonsense".parse().unwrap()),
    ]
    .into_iter()
    .enumerate()
    {
        let package = demo(60 + number as u64);
        let tag = format!("v{number}");
        upstream.push(REPOSITORY, &tag, &package);
        upstream.fault(Requests::manifest(&tag), fault.clone());
        let answer = weir.manifest(REPOSITORY, &tag).await;
        answer.assert_is(package.digest());
        assert_eq!(answer.header("docker-content-digest"), package.digest().to_string(), "{fault:?}");
        upstream.heal();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn upstreams_are_asked_for_every_manifest_type_and_for_no_content_coding() {
    let (upstream, weir, blob) = with_blob().await;
    // Several Accept lines, as Skopeo and Docker send them; what the client accepts is not what the upstream is asked.
    let request = weir
        .client()
        .get(weir.url(&manifest_path(REPOSITORY, "v1")))
        .header("accept", OCI_MANIFEST)
        .header("accept", "application/vnd.docker.distribution.manifest.v2+json")
        .header("accept-encoding", "gzip");
    assert_eq!(weir.send(request).await.status, StatusCode::OK);
    weir.blob(REPOSITORY, blob.digest()).await.assert_is(blob.digest());
    for request in upstream.requests() {
        let coding = request.header(http::header::ACCEPT_ENCODING);
        assert!(coding.as_deref().is_none_or(|coding| coding == "identity"), "{coding:?} for {}", request.path);
        if request.kind == Kind::Manifest {
            let accept = request.header(http::header::ACCEPT).unwrap_or_default();
            assert!(accept.contains(OCI_INDEX) && accept.contains(OCI_MANIFEST) && accept.contains("*/*"), "{accept}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn writes_are_405_and_their_bodies_are_not_read() {
    let (upstream, weir) = pair().await;
    for (method, path) in [
        (Method::POST, format!("/v2/{REPOSITORY}/blobs/uploads/")),
        (Method::PUT, manifest_path(REPOSITORY, "v1")),
        (Method::PATCH, format!("/v2/{REPOSITORY}/blobs/uploads/1")),
        (Method::DELETE, blob_path(REPOSITORY, &unknown())),
        (Method::GET, "/v2/_catalog".to_owned()),
    ] {
        let answer = weir.method(method.clone(), &path).await;
        answer.assert_error(405, "UNSUPPORTED");
        assert!(method == Method::GET || answer.header("allow").contains("GET"), "{method} {path}");
    }
    // A gigabyte is announced and never sent.
    let request = format!(
        "PUT {} HTTP/1.1\r\nHost: weir.test\r\nContent-Length: 1073741824\r\n\r\n",
        manifest_path(REPOSITORY, "v1")
    );
    assert_eq!(raw::send(weir.address(), &request).await.status, StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(upstream.requests().len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_upstream_does_not_have_is_404() {
    let (_upstream, weir, _) = with_blob().await;
    weir.manifest(REPOSITORY, "v9").await.assert_error(404, "MANIFEST_UNKNOWN");
    weir.manifest(REPOSITORY, unknown()).await.assert_error(404, "MANIFEST_UNKNOWN");
    weir.blob(REPOSITORY, &unknown()).await.assert_error(404, "BLOB_UNKNOWN");
    assert_eq!(weir.head(&blob_path(REPOSITORY, &unknown())).await.status, StatusCode::NOT_FOUND);
    assert_eq!(weir.head(&manifest_path(REPOSITORY, "v9")).await.status, StatusCode::NOT_FOUND);
    weir.get(&format!("/v2/{REGISTRY}/no/such/repository/tags/list")).await.assert_error(404, "NAME_UNKNOWN");
}

#[tokio::test(flavor = "multi_thread")]
async fn malformed_requests_are_the_clients_fault() {
    let (upstream, weir) = pair().await;
    let short = format!("sha256:{}", "a".repeat(63));
    let upper = format!("sha256:{}", "A".repeat(64));
    for path in [
        format!("/v2/{REPOSITORY}/blobs/sha256:baddigeststring"),
        format!("/v2/{REPOSITORY}/blobs/{short}"),
        format!("/v2/{REPOSITORY}/blobs/{upper}"),
        format!("/v2/{REPOSITORY}/blobs/md5:{}", "a".repeat(32)),
        format!("/v2/{REPOSITORY}/manifests/sha256:baddigeststring"),
        format!("/v2/{REPOSITORY}/manifests/.hidden"),
        format!("/v2/{REPOSITORY}/manifests/{}", "t".repeat(129)),
        "/v2/UPPER/case/manifests/v1".to_owned(),
        "/v2/a//b/manifests/v1".to_owned(),
        "/v2/..%2f..%2fetc/manifests/v1".to_owned(),
        format!("/v2/{REPOSITORY}/blobs/..%2f..%2fpasswd"),
        "/v2/manifests/v1".to_owned(),
        "/nothing".to_owned(),
    ] {
        let answer = weir.get(&path).await;
        assert!(matches!(answer.status.as_u16(), 400 | 404), "{} for {path}", answer.status);
        assert_eq!(answer.header("content-type"), "application/json", "{path}");
    }
    assert_eq!(upstream.requests().len(), 0, "nothing of this leaves the house");
}

#[tokio::test(flavor = "multi_thread")]
async fn percent_encoded_digests_are_understood() {
    let (_upstream, weir, blob) = with_blob().await;
    let path = blob_path(REPOSITORY, blob.digest()).replace("sha256:", "sha256%3A");
    weir.get(&path).await.assert_is(blob.digest());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repository_may_contain_the_words_of_the_api() {
    let (upstream, weir) = pair().await;
    let package = demo(8);
    upstream.push("team/manifests/blobs/tags", "v1", &package);
    weir.manifest("team/manifests/blobs/tags", "v1").await.assert_is(package.digest());
}

#[tokio::test(flavor = "multi_thread")]
async fn tags_are_listed_in_pages() {
    let (upstream, weir) = pair().await;
    let package = demo(9);
    for tag in ["v1", "v2", "v3", "v4", "v5"] {
        upstream.push(REPOSITORY, tag, &package);
    }
    let list = format!("/v2/{REGISTRY}/{REPOSITORY}/tags/list");
    let tags = |answer: &Answer| answer.json()["tags"].clone();
    let all = weir.get(&list).await;
    assert_eq!(all.header("content-type"), "application/json");
    assert_eq!(tags(&all), json!(["v1", "v2", "v3", "v4", "v5"]));
    assert_eq!(all.header("link"), "");

    let first = weir.get(&format!("{list}?n=2")).await;
    assert_eq!(tags(&first), json!(["v1", "v2"]));
    let next = next_page(&first);
    assert!(next.starts_with("/v2/"), "the link points here: {next}");
    let second = weir.get(&next).await;
    assert_eq!(tags(&second), json!(["v3", "v4"]));
    let third = weir.get(&next_page(&second)).await;
    assert_eq!(tags(&third), json!(["v5"]));
    assert_eq!(third.header("link"), "");

    assert_eq!(tags(&weir.get(&format!("{list}?last=v3")).await), json!(["v4", "v5"]));
    let none = weir.get(&format!("{list}?n=0")).await;
    assert_eq!(tags(&none), json!([]));
    assert_eq!(none.header("link"), "");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_page_of_tags_keeps_the_shape_of_the_request() {
    let (upstream, weir) = pair().await;
    for tag in ["v1", "v2", "v3"] {
        upstream.push(REPOSITORY, tag, &demo(9));
    }
    let first = weir.get(&format!("/v2/{REPOSITORY}/tags/list?n=2&ns={REGISTRY}")).await;
    assert_eq!(weir.get(&next_page(&first)).await.json()["tags"], json!(["v3"]));
}

/// The target of the `Link` header.
fn next_page(answer: &Answer) -> String {
    let link = answer.header("link");
    let (target, rest) = link.strip_prefix('<').and_then(|link| link.split_once('>')).expect("a Link header");
    assert!(rest.contains("rel=\"next\""), "{link}");
    target.to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn referrers_are_relayed_and_filtered() {
    let (upstream, weir) = pair().await;
    let package = demo(10);
    upstream.push(REPOSITORY, "v1", &package);
    let (signature, sbom) =
        (artifact(&package, "test/signature", "signed"), artifact(&package, "test/sbom", "contents"));
    upstream.push_untagged(REPOSITORY, &signature);
    upstream.push_untagged(REPOSITORY, &sbom);
    let path = format!("/v2/{REGISTRY}/{REPOSITORY}/referrers/{}", package.digest());

    let all = weir.get(&path).await;
    assert_eq!(all.header("content-type"), OCI_INDEX);
    assert_eq!(all.json()["manifests"].as_array().map(Vec::len), Some(2));

    // This upstream ignores the filter, so that Weir has to apply it and say so.
    let filtered = weir.get(&format!("{path}?artifactType=test%2Fsbom")).await;
    assert_eq!(filtered.header("oci-filters-applied"), "artifactType");
    let manifests = filtered.json()["manifests"].clone();
    assert_eq!(manifests.as_array().map(Vec::len), Some(1));
    assert_eq!(manifests[0]["digest"], sbom.digest().to_string());

    // Who finds a referrer can pull it.
    weir.manifest(REPOSITORY, signature.digest()).await.assert_is(signature.digest());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manifest_without_referrers_has_an_empty_list() {
    let (upstream, weir) = pair().await;
    let package = demo(11);
    upstream.push(REPOSITORY, "v1", &package);
    let answer = weir.get(&format!("/v2/{REGISTRY}/{REPOSITORY}/referrers/{}", package.digest())).await;
    assert_eq!(answer.status, StatusCode::OK);
    assert_eq!(answer.json()["manifests"], json!([]));
    let malformed = weir.get(&format!("/v2/{REGISTRY}/{REPOSITORY}/referrers/sha256:bad")).await;
    assert_eq!(malformed.status, StatusCode::BAD_REQUEST);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_without_the_referrers_api_is_served_by_its_fallback_tag() {
    let (upstream, weir) = pair().await;
    let package = demo(12);
    upstream.push(REPOSITORY, "v1", &package);
    // The fallback tag holds an index of referrers, maintained by clients.
    let listed = demo(13);
    let fallback_tag = package.digest().to_string().replace(':', "-");
    upstream.push(REPOSITORY, &fallback_tag, &listed);
    upstream.fault(
        Requests::of_kind(Kind::Referrers),
        Fault::Page { status: StatusCode::NOT_FOUND, content_type: "text/plain", body: "404 page not found" },
    );
    weir.manifest(REPOSITORY, &fallback_tag).await.assert_is(listed.digest());
    let answer = weir.get(&format!("/v2/{REGISTRY}/{REPOSITORY}/referrers/{}", package.digest())).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
    assert_eq!(answer.json()["manifests"].as_array().map(Vec::len), Some(2));
    assert_eq!(answer.header("content-type"), OCI_INDEX);
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_say_where_they_came_from() {
    let (_upstream, weir, blob) = with_blob().await;
    let cold = weir.blob(REPOSITORY, blob.digest()).await;
    assert!(cold.header("cache-status").contains("fwd=miss"), "{:?}", cold.headers);
    weir.assert_invariants().await;
    let warm = weir.blob(REPOSITORY, blob.digest()).await;
    assert!(warm.header("cache-status").contains("hit"), "{:?}", warm.headers);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_second_pull_asks_the_upstream_nothing() {
    let (upstream, weir) = pair().await;
    let package = demo(14);
    upstream.push(REPOSITORY, "v1", &package);
    weir.pull_all(REPOSITORY, "v1", &package).await;
    let asked = upstream.requests().len();
    weir.pull_all(REPOSITORY, "v1", &package).await;
    assert_eq!(upstream.requests().len(), asked);
}

#[tokio::test(flavor = "multi_thread")]
async fn http2_without_tls_is_spoken() {
    let (_upstream, weir, blob) = with_blob().await;
    let client = reqwest::Client::builder().http2_prior_knowledge().no_proxy().build().unwrap();
    let request = client.get(weir.url(&blob_path(REPOSITORY, blob.digest())));
    weir.send(request).await.assert_is(blob.digest());
}
