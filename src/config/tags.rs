//! How long tags are believed.

use std::time::Duration;

use regex::Regex;

use crate::oci::Tag;

/// Freshness of tags and of negative answers.
#[derive(Debug, Clone)]
pub struct TagsConfig {
    /// How long a tag is served without asking an upstream.
    pub fresh: Duration,
    /// How old a tag may be when no upstream can be asked.
    pub max_stale: Duration,
    /// How long "not found" is remembered.
    pub not_found: Duration,
    /// What a known tag becomes when its upstream says it is gone.
    pub on_upstream_not_found: OnUpstreamNotFound,
    /// What becomes of a known tag of which another upstream than the one that decides says something else.
    pub on_drift: OnDrift,
    /// Tags that never move: once known, they are never revalidated.
    pub immutable: Vec<Regex>,
}

impl Default for TagsConfig {
    fn default() -> Self {
        Self {
            fresh: Duration::from_secs(60),
            max_stale: Duration::from_secs(7 * 24 * 60 * 60),
            not_found: Duration::from_secs(10),
            on_upstream_not_found: OnUpstreamNotFound::ServeCached,
            on_drift: OnDrift::KeepLast,
            immutable: Vec::new(),
        }
    }
}

impl TagsConfig {
    /// Whether `tag` is declared never to move.
    pub fn is_immutable(&self, tag: &Tag) -> bool {
        self.immutable.iter().any(|pattern| pattern.is_match(tag.as_str()))
    }
}

/// What a known tag becomes when its upstream says it is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnUpstreamNotFound {
    /// Served as it was last seen, with a warning, up to `max_stale`.
    #[default]
    ServeCached,
    /// Answered 404; the content stays.
    NotFound,
}

/// What becomes of a known tag while the upstream that decides what it means cannot be asked, and the one that is asked
/// in its place says something else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnDrift {
    /// It stays what it was, up to `max_stale` and as long as that can be had; then it becomes what is said.
    #[default]
    KeepLast,
    /// It becomes what is said, and stays that until the upstream that decides is back.
    Accept,
    /// It is not answered.
    Error,
}
