//! What an answer tells of a rate limit: pure.
//!
//! Docker Hub sends `ratelimit-limit: 100;w=21600` and `ratelimit-remaining: 20;w=21600`. The drafts of the IETF have
//! had three more spellings, GitHub and GitLab have their own; all of them are read, and whatever says nothing is no
//! limit.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::HeaderMap;

/// A time of reset that is at least this is a date, in seconds since 1970. No window is that long.
const DATES: u64 = 1_000_000_000;

/// What is left of a rate limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Reading {
    /// How many pulls the window allows, if that was told.
    pub(crate) limit: Option<u64>,
    /// How many are left.
    pub(crate) remaining: u64,
    /// How long the window is.
    pub(crate) window: Option<Duration>,
    /// In how long the window ends.
    pub(crate) reset: Option<Duration>,
}

impl Reading {
    /// What `headers` tell at the time `now`. Without a word on what is left there is no limit.
    pub(crate) fn of(headers: &HeaderMap, now: SystemTime) -> Option<Self> {
        Self::of_fields(headers, "ratelimit-", now)
            .or_else(|| Self::of_structure(headers, now))
            .or_else(|| Self::of_fields(headers, "x-ratelimit-", now))
    }

    /// A field each: of Docker Hub, of the first drafts, of GitHub and GitLab.
    fn of_fields(headers: &HeaderMap, prefix: &str, now: SystemTime) -> Option<Self> {
        let field = |name: &str| text(headers, &format!("{prefix}{name}"));
        let (remaining, remaining_window) = items(field("remaining")?).next().and_then(quantity)?;
        let limits = || field("limit").into_iter().flat_map(items).filter_map(quantity);
        let limit = limits().next().map(|(limit, _)| limit);
        // `10, 10;w=1, 50;w=60`: the limit that counts now, followed by all there are.
        let window = limits().find_map(|(some, window)| window.filter(|_| Some(some) == limit));
        let reset = field("reset").and_then(|reset| items(reset).next()).and_then(|item| number(item.name));
        Some(Self {
            limit,
            remaining,
            window: window.or(remaining_window).map(Duration::from_secs),
            reset: reset.map(|reset| until(reset, now)),
        })
    }

    /// `RateLimit: limit=100, remaining=50, reset=50` or `RateLimit: "pulls";r=50;t=30`, each beside a
    /// `RateLimit-Policy`.
    fn of_structure(headers: &HeaderMap, now: SystemTime) -> Option<Self> {
        let state = text(headers, "ratelimit")?;
        let policies = || text(headers, "ratelimit-policy").into_iter().flat_map(items);
        if let Some(remaining) = entry(state, "remaining") {
            let limit = entry(state, "limit");
            let window = policies().filter_map(quantity).find_map(|(some, w)| w.filter(|_| Some(some) == limit));
            let reset = entry(state, "reset").map(|reset| until(reset, now));
            return Some(Self { limit, remaining, window: window.map(Duration::from_secs), reset });
        }
        // Of several limits the one with the least left is the one that is met.
        let state = items(state).filter(|item| item.parameter("r").is_some()).min_by_key(|item| item.parameter("r"))?;
        let policy = policies().find(|policy| policy.name == state.name);
        let of_policy = |key| policy.as_ref().and_then(|policy| policy.parameter(key));
        Some(Self {
            limit: of_policy("q"),
            remaining: state.parameter("r")?,
            window: of_policy("w").map(Duration::from_secs),
            reset: state.parameter("t").map(|reset| until(reset, now)),
        })
    }
}

/// An item of a list, with its parameters: `name;key=value`.
#[derive(Debug)]
struct Item<'a> {
    name: &'a str,
    parameters: &'a str,
}

impl Item<'_> {
    fn parameter(&self, key: &str) -> Option<u64> {
        self.parameters.split(';').find_map(|parameter| assigned(parameter, key))
    }
}

fn items(value: &str) -> impl Iterator<Item = Item<'_>> {
    value.split(',').map(|item| {
        let (name, parameters) = item.split_once(';').unwrap_or((item, ""));
        Item { name: name.trim().trim_matches('"'), parameters }
    })
}

/// The value of `key` in `key=value, …`.
fn entry(list: &str, key: &str) -> Option<u64> {
    items(list).find_map(|item| assigned(item.name, key))
}

fn assigned(text: &str, key: &str) -> Option<u64> {
    let (name, value) = text.split_once('=')?;
    (name.trim() == key).then(|| number(value.trim())).flatten()
}

/// `100;w=21600`
#[expect(clippy::needless_pass_by_value, reason = "used on the items of an iterator")]
fn quantity(item: Item<'_>) -> Option<(u64, Option<u64>)> {
    Some((number(item.name)?, item.parameter("w")))
}

fn number(text: &str) -> Option<u64> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

fn until(reset: u64, now: SystemTime) -> Duration {
    let reset_at = Duration::from_secs(reset);
    if reset < DATES {
        return reset_at;
    }
    UNIX_EPOCH.checked_add(reset_at).and_then(|date| date.duration_since(now).ok()).unwrap_or_default()
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(headers: &[(&str, &str)]) -> Option<Reading> {
        let headers = headers
            .iter()
            .map(|(name, value)| (http::HeaderName::try_from(*name).unwrap(), value.parse().unwrap()))
            .collect();
        Reading::of(&headers, UNIX_EPOCH + Duration::from_secs(1_700_000_000))
    }

    #[test]
    fn every_spelling_is_read() {
        type Row =
            (&'static str, &'static [(&'static str, &'static str)], (Option<u64>, u64, Option<u64>, Option<u64>));
        let rows: &[Row] = &[
            (
                "Docker Hub",
                &[("ratelimit-limit", "100;w=21600"), ("ratelimit-remaining", "20;w=21600")],
                (Some(100), 20, Some(21600), None),
            ),
            ("Docker Hub, used up", &[("ratelimit-remaining", "0;w=21600")], (None, 0, Some(21600), None)),
            (
                "first drafts",
                &[("ratelimit-limit", "10, 10;w=1, 50;w=60"), ("ratelimit-remaining", "9"), ("ratelimit-reset", "1")],
                (Some(10), 9, Some(1), Some(1)),
            ),
            (
                "seventh draft",
                &[("ratelimit", "limit=100, remaining=50, reset=5"), ("ratelimit-policy", "10;w=1, 100;w=60")],
                (Some(100), 50, Some(60), Some(5)),
            ),
            (
                "later drafts",
                &[
                    ("ratelimit", "\"burst\";r=90;t=1, \"day\";r=50;t=30"),
                    ("ratelimit-policy", "\"burst\";q=100;w=1, \"day\"; q=1000 ;w=86400"),
                ],
                (Some(1000), 50, Some(86400), Some(30)),
            ),
            (
                "GitHub",
                &[("x-ratelimit-limit", "60"), ("x-ratelimit-remaining", "56"), ("x-ratelimit-reset", "1700000042")],
                (Some(60), 56, None, Some(42)),
            ),
            (
                "the end of time",
                &[("x-ratelimit-remaining", "56"), ("x-ratelimit-reset", "18446744073709551615")],
                (None, 56, None, Some(0)),
            ),
            (
                "GitLab",
                &[("ratelimit-limit", "500"), ("ratelimit-remaining", "499"), ("ratelimit-reset", "1699999999")],
                (Some(500), 499, None, Some(0)),
            ),
        ];
        for (who, headers, (limit, remaining, window, reset)) in rows {
            let seconds = |seconds: &Option<u64>| seconds.map(Duration::from_secs);
            let expected =
                Reading { limit: *limit, remaining: *remaining, window: seconds(window), reset: seconds(reset) };
            assert_eq!(read(headers), Some(expected), "{who}");
        }
    }

    #[test]
    fn what_does_not_say_what_is_left_is_no_limit() {
        for headers in [
            &[][..],
            &[("ratelimit-limit", "100;w=21600")],
            &[("ratelimit-remaining", "many")],
            &[("ratelimit-remaining", "-1")],
            &[("ratelimit-remaining", "")],
            &[("ratelimit-remaining", "99999999999999999999999")],
            &[("ratelimit", "\"pulls\";t=3")],
            &[("docker-ratelimit-source", "192.0.2.1")],
        ] {
            assert_eq!(read(headers), None, "{headers:?}");
        }
    }

    proptest! {
        #[test]
        fn no_value_is_too_odd(name in "(x-)?ratelimit(-(limit|remaining|reset|policy))?", value in "[ -~]{0,60}") {
            let _ = read(&[(&name, &value), ("ratelimit-remaining", &value)]);
        }
    }
}
