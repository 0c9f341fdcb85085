//! Lists that come in pages: tags and referrers.
//!
//! Registries disagree on how to ask for the next page (`last`, a token, a number), but all of them say it in `Link`.
//! So lists are read whole, along the links, and cut into pages again above; nothing is silently left out.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use bytes::Bytes;
use http::header::LINK;
use http::{HeaderMap, HeaderName, Method};
use serde::de::{DeserializeOwned, IgnoredAny};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use tokio::time::Instant;
use url::Url;

use super::client::{Candidate, expect_ok};
use super::error::{UpstreamError, Verdict};
use super::exchange::{Ask, Redirects};
use super::link;
use super::question::Surface;
use super::verdict::is_html;
use super::{Referrers, TagList};
use crate::oci::Tag;
use crate::oci::media_type::{ACCEPT_MANIFESTS, OCI_INDEX};
use crate::oci::request::ReferrersRequest;

/// The largest page that is read.
const MAX_PAGE_BYTES: usize = 4 * 1024 * 1024;
/// The most bytes that all pages of a list may have, their addresses included.
const MAX_LIST_BYTES: usize = 16 * 1024 * 1024;
/// The most pages of a list: small ones without an end take long to fill what a list may have.
const MAX_PAGES: usize = 1000;
/// The most tags asked for at once. Some registries refuse more.
const TAGS_PER_PAGE: &str = "1000";
/// Set by registries that filtered a list of referrers themselves.
const OCI_FILTERS_APPLIED: HeaderName = HeaderName::from_static("oci-filters-applied");

/// A page of tags.
#[derive(Deserialize)]
struct TagPage {
    #[serde(deserialize_with = "null_for_none")]
    tags: Vec<String>,
}

/// A page of referrers, as far as it tells that it is one, and whole.
#[derive(Deserialize)]
struct ReferrersPage {
    #[serde(rename = "manifests", deserialize_with = "null_for_none")]
    _manifests: Vec<IgnoredAny>,
}

/// The list of a page, which must be there: errors and outages, sent with a status of 200, are no empty lists. Some
/// registries say `null` for none.
fn null_for_none<'de, T: Deserialize<'de>, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<T>, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// A list, page by page.
struct Pages<'a> {
    candidate: Candidate<'a>,
    surface: Surface,
    accept: &'static str,
    /// The next page; `None` after the last one.
    next: Option<Url>,
    /// The queries of the pages so far: links may lead in a circle.
    asked: HashSet<String>,
    received: usize,
}

impl Candidate<'_> {
    /// All tags of a repository, in the order of the upstream.
    pub(super) async fn tags(self) -> Result<TagList, UpstreamError> {
        let (upstream, mut url) = (Arc::clone(self.name), self.url(["tags", "list"]));
        url.query_pairs_mut().append_pair("n", TAGS_PER_PAGE);
        let mut pages = Pages::new(self, Surface::Tags, "application/json", url);
        let mut tags = Vec::new();
        while let Some((_, body)) = pages.next().await? {
            let page: TagPage = parse(Surface::Tags, &body)?;
            tags.extend(page.tags);
        }
        Ok(TagList { upstream, tags: tags.into() })
    }

    /// The referrers of a manifest. Registries without the API answer 404 in many forms or lead to a web site; all of
    /// it means that they do not have the list.
    pub(super) async fn referrers(self, request: &ReferrersRequest) -> Result<Referrers, UpstreamError> {
        let (quirks, name) = (&self.upstream.quirks, Arc::clone(self.name));
        if quirks.no_referrers.holds(Instant::now()) {
            return Err(UpstreamError::new(Verdict::NoSuchList, "Has no referrers API"));
        }
        let mut url = self.url(["referrers", &request.subject.to_string()]);
        if let Some(artifact_type) = &request.artifact_type {
            url.query_pairs_mut().append_pair("artifactType", artifact_type);
        }
        let mut pages = Pages::new(self, Surface::Referrers, OCI_INDEX, url);
        let first = match pages.next().await {
            Ok(first) => first,
            Err(error) => {
                let has_none = match (error.verdict, error.status) {
                    // A registry that speaks of the repository may have the API for others.
                    (Verdict::NotHere, _) => return Err(error.judged(Verdict::NoSuchList)),
                    (Verdict::NoSuchList, _) | (Verdict::Refused, Some(405)) => true,
                    (Verdict::Doubtful, _) => pages.candidate.is_in_order(request).await,
                    _ => false,
                };
                if !has_none {
                    return Err(error);
                }
                quirks.no_referrers.note(Instant::now());
                return Err(error.judged(Verdict::NoSuchList));
            }
        };
        let (headers, body) = first.ok_or_else(|| no_list(Surface::Referrers))?;
        // Its bytes are passed on, so its end must be there.
        parse::<ReferrersPage>(Surface::Referrers, &body)?;
        let applied = headers.get(OCI_FILTERS_APPLIED).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let filtered = applied.split(',').any(|filter| filter.trim() == "artifactType");
        let mut bodies = vec![body];
        while let Some((_, page)) = pages.next().await? {
            bodies.push(page);
        }
        let body = in_one(&bodies).ok_or_else(|| no_list(Surface::Referrers))?;
        Ok(Referrers { upstream: name, body, filtered })
    }

    /// Whether the registry speaks of the tag that stands in for the list. In an outage everything is a web page, and
    /// "unsigned" is no answer to that.
    async fn is_in_order(&self, request: &ReferrersRequest) -> bool {
        let url = self.url(["manifests", Tag::referrers_fallback(&request.subject).as_str()]);
        let ask =
            Ask { accept: Some(ACCEPT_MANIFESTS), ..Ask::new(Surface::Manifest, Method::GET, url, &self.repository) };
        match self.exchange(&ask).await {
            Ok(response) => !is_html(response.headers()),
            Err(error) => error.verdict.is_absence(),
        }
    }
}

impl<'a> Pages<'a> {
    fn new(candidate: Candidate<'a>, surface: Surface, accept: &'static str, first: Url) -> Self {
        Self { candidate, surface, accept, next: Some(first), asked: HashSet::new(), received: 0 }
    }

    async fn next(&mut self) -> Result<Option<(HeaderMap, Bytes)>, UpstreamError> {
        let Some(url) = self.next.take() else { return Ok(None) };
        let query = url.query().unwrap_or_default().to_owned();
        self.received += query.len();
        if self.asked.len() >= MAX_PAGES || !self.asked.insert(query) {
            return Err(self.endless());
        }
        let ask = Ask {
            accept: Some(self.accept),
            redirects: match self.surface {
                // ghcr.io leads to its web site.
                Surface::Referrers => Redirects::FollowAtHome,
                _ => Redirects::Follow,
            },
            ..Ask::new(self.surface, Method::GET, url.clone(), &self.candidate.repository)
        };
        let response = self.candidate.exchange(&ask).await?;
        expect_ok(&response)?;
        let headers = response.headers().clone();
        let body = self.candidate.read(self.surface, response, MAX_PAGE_BYTES).await?;
        if body.trim_ascii_start().first() != Some(&b'{') {
            return Err(no_list(self.surface));
        }
        self.received += body.len();
        self.next = next_page(&url, &headers);
        if self.received > MAX_LIST_BYTES {
            return Err(self.endless());
        }
        Ok(Some((headers, body)))
    }

    fn endless(&self) -> UpstreamError {
        UpstreamError::broken(format!("Answered with an endless list of {}", self.surface.as_str()))
    }
}

fn parse<T: DeserializeOwned>(surface: Surface, body: &[u8]) -> Result<T, UpstreamError> {
    serde_json::from_slice(body).map_err(|_| no_list(surface))
}

fn no_list(surface: Surface) -> UpstreamError {
    UpstreamError::broken(format!("Answered with no list of {}", surface.as_str()))
}

/// The page that `Link` names. Of its address only the query counts: registries behind proxies get the rest wrong, and
/// no list goes on at another host.
fn next_page(page: &Url, headers: &HeaderMap) -> Option<Url> {
    let mut links = headers.get_all(LINK).iter().map(|value| String::from_utf8_lossy(value.as_bytes()));
    let next = links.find_map(|links| link::target(&links, "next").map(str::to_owned))?;
    let (_, query) = next.split('#').next()?.split_once('?')?;
    let mut url = page.clone();
    url.set_query(Some(query));
    Some(url)
}

/// One index of referrers out of all `pages`: the first one, with the entries of the others as they are written. A
/// single page is passed on untouched.
fn in_one(pages: &[Bytes]) -> Option<Bytes> {
    #[derive(Deserialize)]
    struct Page<'a> {
        #[serde(borrow, deserialize_with = "null_for_none")]
        manifests: Vec<&'a RawValue>,
    }
    let [first, _, ..] = pages else { return pages.first().cloned() };
    let mut entries = Vec::new();
    for page in pages {
        let page: Page<'_> = serde_json::from_slice(page).ok()?;
        entries.extend(page.manifests);
    }
    let entries = serde_json::value::to_raw_value(&entries).ok()?;
    let mut index: BTreeMap<String, &RawValue> = serde_json::from_slice(first).ok()?;
    index.insert("manifests".to_owned(), &entries);
    serde_json::to_vec(&index).ok().map(Bytes::from)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn next(link: &str) -> Option<String> {
        let page = "https://reg.example/v2/a/tags/list?n=5".parse().unwrap();
        let headers = HeaderMap::from_iter([(LINK, HeaderValue::from_bytes(link.as_bytes()).unwrap())]);
        next_page(&page, &headers).map(String::from)
    }

    #[test]
    fn the_next_page_is_found_in_the_links_registries_send() {
        let expected = Some("https://reg.example/v2/a/tags/list?n=5&last=b".to_owned());
        for link in [
            "</v2/a/tags/list?n=5&last=b>; rel=\"next\"",
            "<http://inside:5000/v2/a/tags/list?n=5&last=b#top>; rel=next",
            "</v2/a/tags/list?n=5>; rel=\"prev\",<?n=5&last=b>; title=\"\u{dc}bersicht\"; rel=\"Next last\"",
        ] {
            assert_eq!(next(link), expected, "{link}");
        }
        for link in ["", "</v2/a/tags/list?n=5>; rel=\"prev\"", "</v2/a/tags/list>; rel=\"next\"", "nonsense"] {
            assert_eq!(next(link), None, "{link}");
        }
    }

    #[test]
    fn pages_of_referrers_become_one_index() {
        let in_one = |pages: &[&'static str]| {
            let pages: Vec<_> = pages.iter().map(|page| Bytes::from_static(page.as_bytes())).collect();
            super::in_one(&pages).map(|index| String::from_utf8(index.to_vec()).unwrap())
        };
        let first = r#"{"schemaVersion": 2, "manifests": [{"size": 1.0}]}"#;
        assert_eq!(in_one(&[first]).as_deref(), Some(first));
        assert_eq!(
            in_one(&[first, r#"{"manifests": [2, {"a": "\u0041"}]}"#, r#"{"manifests": []}"#]).as_deref(),
            Some(r#"{"manifests":[{"size": 1.0},2,{"a": "\u0041"}],"schemaVersion":2}"#)
        );
        let null = r#"{"manifests":null}"#;
        for pages in [[null, r#"{"manifests":[1]}"#], [r#"{"manifests":[1]}"#, null]] {
            assert_eq!(in_one(&pages).as_deref(), Some(r#"{"manifests":[1]}"#));
        }
        for page in ["{}", "[]", r#"{"manifests": {}}"#, r#"{"manifests":[1"#, "<html>"] {
            assert_eq!(in_one(&[first, page]), None, "{page}");
        }
    }
}
