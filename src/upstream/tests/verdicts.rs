//! What upstreams say, and what Weir takes it for: the table of `docs/upstreams.md`, line by line, against servers that
//! say it.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::response::Response;
use http::Method;

use super::fake::{
    Asked, Fake, MANIFEST, blob, deadline, manifest, manifest_by_digest, ok, reply, set, status, upstream, wanted,
    with_credentials,
};
use crate::oci::media_type::OCI_MANIFEST;
use crate::oci::request::ReferrersRequest;
use crate::oci::{Digest, MAX_MANIFEST_BYTES};
use crate::upstream::{Attempts, BytesAsked, Purpose, UpstreamSet, Verdict};

const DOCUMENTATION: &str = include_str!("../../../docs/upstreams.md");
const CONTENT: &[u8] = b"the content of a blob";
const HTML: &str = "<!DOCTYPE html><html>";
/// An image and an index in one.
const BOTH: &str = r#"{"schemaVersion":2,"layers":[],"manifests":[]}"#;
const MAINTENANCE: &str = r#"{"title":"maintenance","errors":[{"code":"UNAVAILABLE"}]}"#;
const DENIED: &str = r#"{"errors":[{"code":"DENIED","message":"(or it may not exist)"}]}"#;
const XML: &str = "<?xml version=\"1.0\"?><Error><Code>AccessDenied</Code></Error>";

/// What is asked of the upstream.
#[derive(Debug, Clone, Copy)]
enum Question {
    Manifest,
    /// What a tag means, and then the manifest if that did not tell.
    Tag,
    Blob,
    /// The rest of a blob, from its fifth byte.
    Rest,
    /// A few bytes of a blob.
    Few,
    Tags,
    Referrers,
}

/// How a registry answers.
type Registry = fn(&Asked, &Scene) -> Response;

/// What comes of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Comes {
    Success,
    Failure(Verdict),
}

/// A line of the table.
struct Line {
    /// As it stands in the documentation.
    says: &'static str,
    question: Question,
    /// How the registry answers.
    registry: Registry,
    /// How another host does, to which the registry may lead.
    elsewhere: fn(&Asked) -> Response,
    comes: Comes,
    /// How often the registry is asked for it.
    asked: usize,
}

/// Where a registry finds itself.
struct Scene {
    /// The address of the other host.
    elsewhere: String,
    /// How often the registry had been asked before.
    before: usize,
}

impl Scene {
    fn challenge(&self) -> Response {
        let realm = format!(r#"Bearer realm="{}/token",service="test""#, self.elsewhere);
        reply(401, &[("www-authenticate", &realm)], r#"{"errors":[{"code":"UNAUTHORIZED"}]}"#)
    }

    fn redirect(&self) -> Response {
        reply(307, &[("location", &format!("{}/signed?sig=x", self.elsewhere))], "")
    }
}

impl Line {
    fn elsewhere(self, elsewhere: fn(&Asked) -> Response) -> Self {
        Self { elsewhere, ..self }
    }

    fn asked(self, asked: usize) -> Self {
        Self { asked, ..self }
    }
}

/// A line about a registry that fails so.
fn fails(says: &'static str, question: Question, registry: Registry, verdict: Verdict) -> Line {
    let elsewhere = |_: &Asked| status(500);
    Line { says, question, registry, elsewhere, comes: Comes::Failure(verdict), asked: 1 }
}

/// A line about a registry of which something is had.
fn succeeds(says: &'static str, question: Question, registry: Registry) -> Line {
    Line { comes: Comes::Success, ..fails(says, question, registry, Verdict::Broken) }
}

fn token(_: &Asked) -> Response {
    ok(r#"{"token":"t","expires_in":300}"#)
}

/// The lines about answers to one question. [`BESIDES`] are the others.
#[rustfmt::skip]
fn lines() -> Vec<Line> {
    use Question::{Blob, Few, Manifest, Referrers, Rest, Tag, Tags};
    use Verdict::{
        BackIn, Broken, Doubtful, NoSuchList, NotHere, NotHereOrHidden, OffLimits, ProxyRefused, RateLimited, Refused,
        SpentRedirect, Transient, Unacceptable, Withheld, WrongBytes, WrongPart,
    };
    const TOKEN: Option<&str> = Some("Bearer t");
    let seconds = Duration::from_secs;
    vec![
        succeeds("a manifest that hashes to its digest", Manifest, |_, _| ok(MANIFEST)),
        fails("a manifest that does not hash to its digest", Manifest,
            |_, _| ok(MANIFEST.replace("layers", "lawyers")), WrongBytes),
        fails("a web page instead of a manifest", Tag, |_, _| ok(HTML), Broken).asked(2),
        fails("a web page instead of a manifest", Tag, |_, _| ok(BOTH), Broken).asked(2),
        fails("a web page instead of a manifest", Tag,
            |_, _| ok(format!("{MANIFEST}{}", " ".repeat(MAX_MANIFEST_BYTES))), Broken).asked(2),
        fails("JSON that is no manifest, for a tag", Tag,
            |_, _| reply(200, &[("content-type", "application/vnd.api+json")], MAINTENANCE), Broken).asked(2),
        fails("JSON that is no manifest, for a tag", Tag,
            |_, _| reply(200, &[("content-type", OCI_MANIFEST)], MAINTENANCE), Broken).asked(2),
        fails("a blob of another length than its descriptor says", Blob, |_, _| ok("short"), Broken),
        // Only who reads it can tell; it is held back until then.
        succeeds("a whole blob that does not hash to its digest", Blob, |_, _| ok("The content of a blob")),
        fails("another part of a blob than was asked for", Rest,
            |_, _| reply(206, &[("content-range", "bytes 0-20/21")], CONTENT), WrongPart),
        succeeds("the whole blob instead of a part", Rest, |_, _| ok(CONTENT)),
        fails("the whole blob instead of a part", Few, |_, _| ok(CONTENT), WrongPart),
        fails(r#""range not satisfiable" for a part that exists"#, Rest, |_, _| status(416), WrongPart),
        succeeds("a redirect", Blob, |_, scene| scene.redirect()).elsewhere(|_| ok(CONTENT)),
        fails("a redirect of the referrers API to another host", Referrers, |_, scene| scene.redirect(), NoSuchList),
        succeeds("a challenge, nothing having been sent", Manifest,
            |asked, scene| if asked.header("authorization") == TOKEN { ok(MANIFEST) } else { scene.challenge() })
            .elsewhere(token).asked(2),
        fails("a challenge to a fresh token", Manifest, |_, scene| scene.challenge(), NotHereOrHidden)
            .elsewhere(token).asked(2),
        fails("a challenge to a fresh token", Manifest, |_, scene| scene.challenge(), NotHereOrHidden)
            .elsewhere(|_| reply(403, &[], DENIED)),
        fails("403 that denies", Manifest, |_, _| reply(403, &[], DENIED), NotHereOrHidden),
        fails("403 that denies", Manifest, |_, _| reply(412, &[], DENIED), NotHereOrHidden),
        fails("403 that speaks of a rate limit", Manifest,
            |_, _| reply(403, &[], "You have exceeded a secondary rate limit"), RateLimited(None)),
        fails("403 that speaks of a rate limit", Manifest,
            |_, _| reply(400, &[], r#"{"__type":"ThrottlingException"}"#), RateLimited(None)),
        fails("a complaint of the object store behind a redirect", Blob, |_, scene| scene.redirect(), SpentRedirect)
            .elsewhere(|_| reply(403, &[], XML)).asked(2),
        succeeds("a complaint of the object store behind a redirect", Blob,
            |_, scene| if scene.before == 0 { scene.redirect() } else { ok(CONTENT) })
            .elsewhere(|_| reply(400, &[], XML)).asked(2),
        fails("403 with a web page", Manifest, |_, _| reply(403, &[], HTML), Broken),
        fails("404 of a registry", Manifest,
            |_, _| reply(404, &[], r#"{"errors":[{"code":"MANIFEST_UNKNOWN"}]}"#), NotHere),
        fails("404 of a registry", Tags, |_, _| status(404), NotHere),
        fails("404 of a registry", Manifest, |_, _| status(410), NotHere),
        fails("404 with a web page or plain text", Manifest, |_, _| reply(404, &[], HTML), Doubtful),
        fails("404 with a web page or plain text", Blob, |_, _| reply(404, &[], "404 page not found"), Doubtful),
        fails("404 for a blob that its own manifest promises", Blob,
            |_, _| reply(404, &[], r#"{"errors":[{"code":"BLOB_UNKNOWN"}]}"#), NotHere),
        succeeds("405 to a HEAD", Tag,
            |asked, _| if asked.method == Method::HEAD { status(405) } else { ok(MANIFEST) }).asked(2),
        fails("406 or 415", Manifest, |_, _| status(406), Unacceptable).asked(2),
        succeeds("406 or 415", Manifest,
            |asked, _| if asked.header("accept") == Some("*/*") { ok(MANIFEST) } else { status(415) }).asked(2),
        fails("408, 425 or 499", Manifest, |_, _| status(408), Transient),
        fails("408, 425 or 499", Manifest, |_, _| status(425), Transient),
        fails("408, 425 or 499", Manifest, |_, _| status(499), Transient),
        fails("429", Manifest, |_, _| reply(429, &[("retry-after", "17")], ""), RateLimited(Some(seconds(17)))),
        fails("429", Blob, |_, _| reply(429, &[], "Too Many Requests (HAP429)"), RateLimited(None)),
        fails("429", Tags, |_, _| reply(429, &[], "retry-after: 880.092µs, allowed: 44000/minute"),
            RateLimited(Some(Duration::from_millis(100)))),
        fails("451", Manifest, |_, _| status(451), Withheld),
        fails("400 or another 4xx", Manifest,
            |_, _| reply(400, &[], r#"{"errors":[{"code":"NAME_INVALID"}]}"#), Refused),
        fails("500, 502, 504 or another 5xx", Manifest, |_, _| status(500), Transient),
        fails("500, 502, 504 or another 5xx", Blob, |_, _| reply(502, &[], HTML), Transient),
        fails("500, 502, 504 or another 5xx", Tags, |_, _| status(599), Transient),
        succeeds("500, 502, 504 or another 5xx", Manifest,
            |_, scene| if scene.before == 0 { reply(503, &[("retry-after", "0")], "") } else { ok(MANIFEST) }).asked(2),
        fails("503 with a longer `Retry-After`", Manifest,
            |_, _| reply(503, &[("retry-after", "120")], ""), BackIn(seconds(120))),
        fails("407, or a tunnel refused by the proxy", Manifest, |_, _| status(407), ProxyRefused),
        fails("a token server's answer without a token", Manifest, |_, scene| scene.challenge(), Broken)
            .elsewhere(|_| ok(HTML)),
        fails("a token server that is out of order", Manifest, |_, scene| scene.challenge(), Transient)
            .elsewhere(|_| status(500)),
        fails("a challenge that names a foreign token server", Manifest,
            |_, _| reply(401, &[("www-authenticate", r#"Bearer realm="https://attacker.test/""#)], ""), OffLimits),
        succeeds("a list that goes on at another host", Tags, |asked, scene| {
            let link = format!("<{}/v2/acme/app/tags/list?last=a>; rel=\"next\"", scene.elsewhere);
            let is_second = asked.target.contains("last=a");
            if is_second { ok(r#"{"tags":["b"]}"#) } else { reply(200, &[("link", &link)], r#"{"tags":["a"]}"#) }
        }).asked(2),
        fails("a list that leads in a circle", Tags, |asked, _| {
            let (_, page) = asked.target.split_once('?').unwrap();
            let next = if page == "page=2" { "</v2/x?page=3>; rel=next" } else { "</v2/x?page=2>; rel=next" };
            reply(200, &[("link", next)], r#"{"tags":["a"]}"#)
        }, Broken).asked(3),
        fails("JSON that is no list of what was asked for", Tags, |_, _| ok(MAINTENANCE), Broken),
        fails("JSON that is no list of what was asked for", Referrers, |_, _| ok(MAINTENANCE), Broken),
        fails("JSON that is no list of what was asked for", Referrers,
            |_, _| ok(r#"{"schemaVersion":2,"manifests":[{"size":3}"#), Broken),
        succeeds("a list that is `null`", Tags, |_, _| ok(r#"{"name":"acme/app","tags":null}"#)),
        succeeds("a list that is `null`", Referrers, |_, _| ok(r#"{"schemaVersion":2,"manifests":null}"#)),
        succeeds("405 to a write, because it is read-only", Manifest,
            |asked, _| if asked.method == Method::GET { ok(MANIFEST) } else { status(405) }),
        succeeds("a `Warning: 299`", Manifest, |_, _| reply(200, &[("warning", "299 - \"moving\"")], MANIFEST)),
    ]
}

/// Asks `set`, and says what came of it.
async fn ask(set: &UpstreamSet, question: Question) -> Result<(), Attempts> {
    let (blob, size) = (blob(CONTENT), Some(CONTENT.len() as u64));
    let wanted = wanted(&blob, size);
    let repository = "acme/app".parse().unwrap();
    match question {
        Question::Manifest => set.manifest(&manifest_by_digest(), Purpose::Miss, deadline()).await.map(drop),
        Question::Tag => {
            let tag = manifest("latest");
            let resolved = set.resolve(&tag, Purpose::Miss, deadline()).await?;
            if resolved.digest.is_none() {
                set.manifest(&tag, Purpose::Miss, deadline()).await.map(drop)
            } else {
                Ok(())
            }
        }
        Question::Blob => set.open_blob(wanted).await.map(drop),
        Question::Rest => set.open_blob_range(wanted, BytesAsked::from(4)).await.map(drop),
        Question::Few => set.open_blob_range(wanted, BytesAsked { first: 4, last: Some(7) }).await.map(drop),
        Question::Tags => set.tags(&repository, deadline()).await.map(drop),
        Question::Referrers => {
            let request = ReferrersRequest { repository, subject: Digest::of(b"x"), artifact_type: None };
            set.referrers(&request, deadline()).await.map(drop)
        }
    }
}

fn comes(outcome: &Result<(), Attempts>) -> Comes {
    match outcome {
        Ok(()) => Comes::Success,
        Err(attempts) => Comes::Failure(attempts.0[0].error.verdict),
    }
}

#[tokio::test]
async fn what_upstreams_say_is_what_the_table_says() {
    for Line { says, question, registry, elsewhere, comes: expected, asked } in lines() {
        let elsewhere = Fake::start(elsewhere).await;
        let scene = (elsewhere.url(), AtomicUsize::new(0));
        let registry = Fake::start(move |asked| {
            let (elsewhere, before) = &scene;
            registry(asked, &Scene { elsewhere: elsewhere.clone(), before: before.fetch_add(1, Ordering::Relaxed) })
        })
        .await;
        let (set, _) = set(vec![upstream("hub", &registry.url())]);
        let outcome = ask(&set, question).await;
        assert_eq!(comes(&outcome), expected, "{says}: {outcome:?}");
        let requests = registry.asked();
        assert!(requests.iter().all(|asked| ["GET", "HEAD"].contains(&asked.method.as_str())), "{says}: {requests:?}");
        assert_eq!(requests.len(), asked, "{says}: {requests:?}");
    }
}

/// The lines of the table that say nothing of an answer, or need more than one question: tested below, in
/// `unanswered` and, bodies that break off, in `content`; credentials that are refused in `identities`.
const BESIDES: [&str; 9] = [
    "a blob that breaks off",
    "a refusal of all of them as such, and nothing without",
    "a refusal of configured credentials",
    "a token that has expired, in any dialect",
    "a refused or reset connection",
    "a name that does not resolve",
    "a certificate that cannot be trusted",
    "nothing, in the time there is",
    "a stream refused before its answer (HTTP/2)",
];

#[test]
fn the_documentation_has_every_line_and_no_other() {
    let mut documented: Vec<_> = DOCUMENTATION
        .lines()
        .skip_while(|line| !line.starts_with("| What an upstream says "))
        .skip(2)
        .map_while(|line| line.strip_prefix("| ")?.split(" | ").next())
        .collect();
    let mut tested: Vec<_> = lines().iter().map(|line| line.says).chain(BESIDES).collect();
    for lines in [&mut documented, &mut tested] {
        lines.sort_unstable();
    }
    tested.dedup();
    assert_eq!(tested, documented);
}

#[tokio::test]
async fn an_upstream_that_refuses_who_asks_is_asked_once_without_credentials() {
    for (public, expected) in [(true, Comes::Success), (false, Comes::Failure(Verdict::NotHereOrHidden))] {
        let before = AtomicUsize::new(0);
        let registry =
            Fake::start(move |asked| match (before.fetch_add(1, Ordering::Relaxed), asked.header("authorization")) {
                (0, _) => reply(401, &[("www-authenticate", "Basic realm=x")], ""),
                (_, None) if public => ok(MANIFEST),
                _ => status(403),
            })
            .await;
        let (set, _) = set(vec![with_credentials(upstream("hub", &registry.url()))]);
        let outcome = ask(&set, Question::Manifest).await;
        assert_eq!(comes(&outcome), expected, "{outcome:?}");
        let sent: Vec<_> = registry.asked().iter().map(|asked| asked.header("authorization").is_some()).collect();
        assert_eq!(sent, [false, true, false]);
    }
}

#[tokio::test]
async fn an_expired_token_is_renewed_and_a_fresh_one_is_not() {
    let dialects: [fn(&Scene) -> Response; 3] = [
        |scene| scene.challenge(),
        |_| reply(403, &[], r#"{"errors":[{"code":"DENIED","message":"Your Authorization token has expired."}]}"#),
        |_| status(400),
    ];
    for refuse in dialects {
        let elsewhere = Fake::start(token).await;
        let scene = (elsewhere.url(), AtomicUsize::new(0));
        let registry = Fake::start(move |asked| {
            let (elsewhere, before) = &scene;
            let scene = Scene { elsewhere: elsewhere.clone(), before: before.fetch_add(1, Ordering::Relaxed) };
            // The token is good for one manifest, and its successor for the next.
            match (scene.before, asked.header("authorization")) {
                (1 | 3, Some(_)) => ok(MANIFEST),
                (2, Some(_)) => refuse(&scene),
                _ => scene.challenge(),
            }
        })
        .await;
        let (set, _) = set(vec![upstream("hub", &registry.url())]);
        ask(&set, Question::Manifest).await.unwrap();
        ask(&set, Question::Manifest).await.unwrap();
        assert_eq!((registry.count(), elsewhere.count()), (4, 2));
    }
}
