//! When a tag is believed. Pure: ages go in, a decision comes out.

use std::time::Duration;

use crate::config::{OnUpstreamNotFound, TagsConfig};
use crate::oci::Tag;
use crate::upstream::Conclusion;

/// What to do about a known tag before any upstream is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Freshness {
    /// Serve it as it is.
    Fresh,
    /// Serve it as it is where asking would cost what is scarce.
    Stretched,
    /// Ask first.
    Expired,
}

/// How many times longer a tag is believed while the rate limits of its upstreams are nearly used up.
const STRETCH: u32 = 10;

/// Whether a tag confirmed `age` ago is served without asking.
pub(super) fn freshness(config: &TagsConfig, tag: &Tag, age: Duration) -> Freshness {
    let stretched = config.fresh.saturating_mul(STRETCH).min(config.max_stale);
    if config.is_immutable(tag) || age < config.fresh {
        Freshness::Fresh
    } else if age < stretched {
        Freshness::Stretched
    } else {
        Freshness::Expired
    }
}

/// Whether a known tag is served although no upstream confirmed it, its last confirmation being `age` ago.
pub(super) fn may_serve_stale(config: &TagsConfig, age: Duration, conclusion: Conclusion) -> bool {
    let gone_for_certain = conclusion == Conclusion::NotFound;
    age <= config.max_stale && !(gone_for_certain && config.on_upstream_not_found == OnUpstreamNotFound::NotFound)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::OnDrift;

    fn config(policy: OnUpstreamNotFound) -> TagsConfig {
        TagsConfig {
            fresh: Duration::from_secs(60),
            max_stale: Duration::from_secs(3600),
            not_found: Duration::from_secs(10),
            on_upstream_not_found: policy,
            on_drift: OnDrift::default(),
            immutable: vec![regex::Regex::new(r"^v?\d+\.\d+\.\d+$").unwrap()],
        }
    }

    #[test]
    fn a_tag_is_fresh_for_a_while_and_an_immutable_one_for_ever() {
        let config = config(OnUpstreamNotFound::ServeCached);
        let (moving, pinned) = ("latest".parse().unwrap(), "v1.2.3".parse().unwrap());
        assert_eq!(freshness(&config, &moving, Duration::from_secs(59)), Freshness::Fresh);
        assert_eq!(freshness(&config, &moving, Duration::from_secs(60)), Freshness::Stretched);
        assert_eq!(freshness(&config, &moving, Duration::from_secs(599)), Freshness::Stretched);
        assert_eq!(freshness(&config, &moving, Duration::from_secs(600)), Freshness::Expired);
        assert_eq!(freshness(&config, &pinned, Duration::MAX), Freshness::Fresh);
    }

    #[test]
    fn scarcity_never_stretches_freshness_beyond_staleness_and_never_makes_any() {
        let moving = "latest".parse().unwrap();
        let short = TagsConfig { max_stale: Duration::from_secs(100), ..config(OnUpstreamNotFound::ServeCached) };
        assert_eq!(freshness(&short, &moving, Duration::from_secs(99)), Freshness::Stretched);
        assert_eq!(freshness(&short, &moving, Duration::from_secs(100)), Freshness::Expired);
        let never = TagsConfig { fresh: Duration::ZERO, ..short };
        assert_eq!(freshness(&never, &moving, Duration::ZERO), Freshness::Expired);
    }

    #[test]
    fn staleness_has_an_end_and_a_policy() {
        let (hour, over) = (Duration::from_secs(3600), Duration::from_secs(3601));
        for (policy, age, conclusion, expected) in [
            (OnUpstreamNotFound::ServeCached, hour, Conclusion::Unavailable, true),
            (OnUpstreamNotFound::ServeCached, over, Conclusion::Unavailable, false),
            (OnUpstreamNotFound::ServeCached, hour, Conclusion::NotFound, true),
            (OnUpstreamNotFound::NotFound, hour, Conclusion::NotFound, false),
            (OnUpstreamNotFound::NotFound, hour, Conclusion::NotFoundOrHidden, true),
            (OnUpstreamNotFound::NotFound, hour, Conclusion::RateLimited(None), true),
        ] {
            assert_eq!(may_serve_stale(&config(policy), age, conclusion), expected, "{policy:?} {conclusion:?}");
        }
    }
}
