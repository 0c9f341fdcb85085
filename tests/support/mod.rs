//! What every test of a running Weir stands on.
//!
//! * [`upstream`]: a registry whose faults are scripted, per request;
//! * [`streams`]: a registry over HTTP/2 whose transfers break as only those do;
//! * [`tokens`]: the token server it can be put behind;
//! * [`blob`] and [`images`]: content, deterministic and cheap to hold;
//! * [`weir`]: Weir in this process, its metrics and its invariants; [`process`]: the real binary, and other servers;
//! * [`bucket`]: an S3 server whose faults are scripted; [`bucket_store`]: what to put into it;
//! * [`replicas`]: real binaries that share a bucket;
//! * [`faulty_files`]: a disk whose faults are scripted;
//! * [`certificates`]: authorities and what they sign;
//! * [`multipart`]: a reader of answers with several ranges;
//! * [`throttle`]: a wire before a real server, slow, and cut at an exact byte;
//! * [`raw`]: an HTTP/1 client that reads as slowly and leaves as early as a test wants.
//!
//! Nothing here sleeps for luck. A test waits for a state: of a [`upstream::Gate`], of what an upstream has received,
//! of a metric. [`eventually`] is the only poll, [`within`] the only limit; both end in a panic that says what was
//! awaited.

#![allow(dead_code, reason = "two test binaries share these modules, and each uses a part")]

pub(crate) mod base64;
pub(crate) mod blob;
pub(crate) mod bucket;
pub(crate) mod bucket_store;
pub(crate) mod certificates;
pub(crate) mod desk;
pub(crate) mod faulty_files;
pub(crate) mod images;
pub(crate) mod multipart;
pub(crate) mod process;
pub(crate) mod raw;
pub(crate) mod replicas;
pub(crate) mod server;
pub(crate) mod streams;
pub(crate) mod throttle;
pub(crate) mod tokens;
pub(crate) mod upstream;
pub(crate) mod weir;

use std::time::{Duration, SystemTime};

use tokio::time::{Instant, MissedTickBehavior};

/// How long anything may take before a test gives up. Generous: it ends hangs, it measures nothing.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// One mebibyte.
pub(crate) const MIB: u64 = 1 << 20;

/// The seed of this run; `WEIR_TEST_SEED` repeats another one's.
pub(crate) fn seed() -> u64 {
    let now = || SystemTime::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_secs());
    std::env::var("WEIR_TEST_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or_else(now)
}

/// Whether there is time for many rounds: `./test --long`.
pub(crate) fn is_long() -> bool {
    std::env::var_os("WEIR_TEST_LONG").is_some()
}

/// Waits until `condition` holds. `what` completes the sentence "waited in vain until ...".
pub(crate) async fn eventually<C>(what: &str, mut condition: C)
where
    C: AsyncFnMut() -> bool,
{
    let deadline = Instant::now() + PATIENCE;
    let mut ticks = tokio::time::interval(Duration::from_millis(10));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while !condition().await {
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        ticks.tick().await;
    }
}

/// The output of `future`, or a panic when it hangs.
pub(crate) async fn within<F: Future>(what: &str, future: F) -> F::Output {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(output) => output,
        Err(tokio::time::error::Elapsed { .. }) => panic!("{what} did not happen within {PATIENCE:?}"),
    }
}
