//! What a blob is worth, and from when on it may go. Pure: the time goes in as an argument.
//!
//! **Recency and frequency in one number.** Each use adds one point, and every point halves in [`HALF_LIFE`]. The sum is
//! kept as its logarithm over a fixed origin, counted in half-lives (forward decay, as in LRFU): it changes when the
//! blob is used and never by itself, so nothing has to be aged, an order once made stays right, and the hint that
//! survives a restart, one time of last use, is enough to begin with. A scan cannot wash out what is used every day,
//! which is worth two half-lives more than what was used once (LRU would let it), and what was loved last year does not
//! stay for ever (LFU would keep it).
//!
//! **Cost of refetch.** To fetch a blob again costs its bytes and one request, and requests cost latency and the budget
//! of rate-limited registries; one counts as [`REQUEST`] bytes. So a byte of a small blob is worth more: each doubling
//! of cost per byte is worth one half-life, as is each doubling of uses. Manifests and configurations, a thousandth of
//! what they spare, stay on for a month after layers of the same age.
//!
//! **Whole images.** An image without one layer is worth little. So all content of an image is noted as used when its
//! manifest is served, with one and the same time (uses count once per [`PERIOD`]), and valued by the average of the
//! image. What nobody else uses then has one value, ties are broken by image, and images go as a whole, the one not
//! pulled for longest first. What other images share was used with them, too, and stays.
//!
//! **What does not go.** Pinned content, ever. What was stored or used in the last [`RECENT`]: a client that was given
//! a manifest is about to ask for the rest. And what the newest tag of a repository means goes only after everything
//! else, as long as it was used in the last [`NEWEST_FOR`]: it is what the next node will ask for. Last of all goes what
//! has yet to be uploaded to the bucket behind the directory.

use std::time::Duration;

use super::clock::Tick;

/// How long a use counts as half a use.
pub const HALF_LIFE: Duration = Duration::from_secs(3 * 24 * 60 * 60);
/// Uses within one period count as one: a pull asks for a manifest more than once, and reads some blobs in pieces.
pub const PERIOD: Duration = Duration::from_secs(60 * 60);
/// How many bytes one request more is worth.
pub const REQUEST: u64 = 1024 * 1024;
/// How long after its last use nothing is evicted.
pub const RECENT: Duration = Duration::from_secs(2 * 60);
/// How long after its last use the content of a newest tag is kept before all else.
pub const NEWEST_FOR: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// The parts of a half-life in which worth is counted: one is a minute.
const PARTS: i32 = 4096;

/// What a blob is worth, in parts of half-lives. Of two, the lesser goes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Worth(i32);

impl Worth {
    /// The worth of one use at `now`.
    pub fn of_use(now: Tick) -> Self {
        let begun = now.begin_of(PERIOD);
        // 2^31 seconds are 8,000 half-lives, which leaves many bits.
        Self(i32::try_from(begun * i64::from(PARTS) / seconds(HALF_LIFE)).unwrap_or(i32::MAX))
    }

    /// With one more use at `now`, `last` being the one before.
    #[must_use]
    pub fn used_again(self, last: Tick, now: Tick) -> Self {
        let (once_more, before) = (Self::of_use(now), Self::of_use(last));
        if once_more <= before { self } else { self.joined(once_more) }
    }

    /// The sum of what two stand for: log2(2^a + 2^b).
    fn joined(self, other: Self) -> Self {
        let (more, less) = (self.0.max(other.0), self.0.min(other.0));
        let apart = f64::from(more.saturating_sub(less)) / f64::from(PARTS);
        Self(more.saturating_add(parts((-apart).exp2().ln_1p() / std::f64::consts::LN_2)))
    }

    /// With what it spares to have it.
    #[must_use]
    pub fn with(self, cost: Cost) -> Self {
        Self(self.0.saturating_add(cost.0))
    }
}

/// What each byte costs to be fetched again, in the parts of [`Worth`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cost(i32);

impl Cost {
    /// For `blobs` of `bytes` together, one request each.
    #[expect(clippy::cast_precision_loss, reason = "a cost need not be exact to the byte")]
    pub fn of(blobs: u64, bytes: u64) -> Self {
        Self(parts((1.0 + (blobs * REQUEST) as f64 / bytes.max(1) as f64).log2()))
    }
}

#[expect(clippy::cast_possible_truncation, reason = "logarithms of sizes are small numbers")]
fn parts(half_lives: f64) -> i32 {
    (half_lives * f64::from(PARTS)).round() as i32
}

fn seconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_secs()).unwrap_or(i64::MAX)
}

/// Whether what was last used at `used` is too young to go, where `recent` is that: [`RECENT`], or more.
pub fn is_recent(used: Tick, now: Tick, recent: Duration) -> bool {
    now.since(used) < recent
}

/// Whether the newest tag still keeps what was last used at `used`.
pub fn is_kept_as_newest(used: Tick, now: Tick) -> bool {
    now.since(used) < NEWEST_FOR
}

/// How long content may stay, whatever room there is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Lifetime {
    /// Since it was stored.
    pub max_age: Option<Duration>,
    /// Since it was last used.
    pub max_idle: Option<Duration>,
}

impl Lifetime {
    /// Whether content has had its time.
    pub fn is_over(&self, stored: Tick, used: Tick, now: Tick) -> bool {
        let over = |limit: Option<Duration>, since| limit.is_some_and(|limit| now.since(since) >= limit);
        over(self.max_age, stored) || over(self.max_idle, used)
    }

    /// The shorter of the limits, if there is one.
    pub fn shortest(&self) -> Option<Duration> {
        self.max_age.into_iter().chain(self.max_idle).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(60 * 60);
    const DAY: Duration = Duration::from_secs(24 * 60 * 60);
    const MIB: u64 = 1024 * 1024;

    fn at(half_lives: u32) -> Tick {
        Tick::START.after(HALF_LIFE * half_lives)
    }

    /// The worth of uses after so many half-lives.
    fn uses(times: &[u32]) -> Worth {
        let first = Worth::of_use(at(times[0]));
        times.windows(2).fold(first, |worth, times| worth.used_again(at(times[0]), at(times[1])))
    }

    #[test]
    fn a_use_is_worth_half_of_one_a_half_life_later() {
        let twice = Worth::of_use(at(0)).joined(Worth::of_use(at(0)));
        assert_eq!(twice, Worth::of_use(at(1)));
        assert!(uses(&[0, 1, 2, 3]) > uses(&[3]), "of two used last at the same time, the one used more often stays");
        assert!(uses(&[0, 1, 2, 3]) < uses(&[5]), "old uses do not keep it for ever");
        assert!(uses(&[0]) < uses(&[1]));
    }

    #[test]
    fn uses_within_one_period_count_once() {
        let worth = Worth::of_use(at(1));
        let later = at(1).after(HOUR / 2);
        assert_eq!(worth.used_again(at(1), later), worth);
        assert_eq!(Worth::of_use(later), worth, "and have one worth, whoever was first");
        assert!(worth.used_again(at(1), at(1).after(HOUR)) > worth);
    }

    #[test]
    fn a_clock_that_went_back_takes_nothing_away() {
        assert_eq!(uses(&[5]).used_again(at(5), at(3)), uses(&[5]));
        assert!(is_recent(at(5), at(3), RECENT));
        assert!(!Lifetime { max_age: Some(DAY), max_idle: Some(DAY) }.is_over(at(5), at(5), at(3)));
    }

    #[test]
    fn a_byte_of_a_small_blob_costs_more_to_fetch_again() {
        for (blobs, bytes, half_lives) in
            [(1, MIB, 1.0), (1, 1024, 10.0), (1, 1024 * MIB, 0.0), (3, MIB, 2.0), (1, 0, 20.0)]
        {
            let Cost(cost) = Cost::of(blobs, bytes);
            assert!((f64::from(cost) / f64::from(PARTS) - half_lives).abs() < 0.01, "{blobs} {bytes}: {cost}");
        }
        let (layer, manifest) = (Cost::of(1, 50 * MIB), Cost::of(1, 2048));
        assert!(uses(&[0]).with(manifest) > uses(&[8]).with(layer));
        assert!(uses(&[0]).with(manifest) < uses(&[10]).with(layer));
    }

    #[test]
    fn what_was_just_used_does_not_go() {
        assert!(is_recent(at(1), at(1), RECENT) && is_recent(at(1), at(1).after(RECENT / 2), RECENT));
        assert!(!is_recent(at(1), at(1).after(RECENT), RECENT));
        let week = at(0).after(DAY * 7);
        assert!(is_kept_as_newest(at(0), week.before(DAY)) && !is_kept_as_newest(at(0), week));
    }

    #[test]
    fn a_lifetime_ends_by_age_or_by_idleness() {
        let (age, idle) =
            (Lifetime { max_age: Some(DAY * 3), max_idle: None }, Lifetime { max_age: None, max_idle: Some(DAY) });
        let day = |number| at(0).after(DAY * number);
        assert!(age.is_over(day(0), day(3), day(3)) && !age.is_over(day(0), day(0), day(2)));
        assert!(idle.is_over(day(0), day(2), day(3)) && !idle.is_over(day(0), day(3), day(3)));
        assert!(!Lifetime::default().is_over(at(0), at(0), at(1000)));
        assert_eq!((age.shortest(), Lifetime::default().shortest()), (Some(DAY * 3), None));
    }
}
