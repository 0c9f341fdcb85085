//! How a pull came out: the words that headers, logs and metrics share.

/// What the cache did for a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CacheResult {
    /// Answered from here without asking anybody.
    Hit,
    /// Answered from here after an upstream confirmed that the tag has not moved.
    Revalidated,
    /// Fetched from an upstream for this request.
    Miss,
    /// Answered from a download that another request had started.
    Coalesced,
    /// Answered from here although too old, because no upstream could confirm it.
    Stale,
    /// Not there: said by the upstreams, now or a moment ago.
    Negative,
    /// Refused by a policy, an access rule or the grammar of requests.
    Denied,
    /// Not answered, because something failed.
    Error,
}

impl CacheResult {
    /// The word in metrics and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::Revalidated => "revalidated",
            Self::Miss => "miss",
            Self::Coalesced => "coalesced",
            Self::Stale => "stale",
            Self::Negative => "negative",
            Self::Denied => "denied",
            Self::Error => "error",
        }
    }
}

/// Where the bytes of an answer came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Source {
    /// Memory.
    Memory,
    /// A stored file.
    Disk,
    /// The bucket behind the store.
    S3,
    /// An upstream, through the download in progress.
    Upstream,
    /// An upstream, by a request for just this range, ahead of the download in progress.
    Ahead,
    /// Nowhere: the answer carries no content.
    None,
}

impl Source {
    /// The word in metrics and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Disk => "disk",
            Self::S3 => "s3",
            Self::Upstream => "upstream",
            Self::Ahead => "ahead",
            Self::None => "none",
        }
    }
}
