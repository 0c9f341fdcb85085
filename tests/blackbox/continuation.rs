//! Upstreams that break in the middle of a blob, and clients that do not notice. Bytes are counted at the upstreams.
//!
//! The clock is paused and jumps when nothing moves: waits, silences and slowness take no time.

use std::sync::Arc;

use http::StatusCode;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, RANGE};
use http::{HeaderValue, Method};
use serde_json::{Value, json};
use weir::config::Config;

use crate::support::blob::{Blob, blob_of};
use crate::support::faulty_files::{ENOSPC, FaultyFiles, Operation};
use crate::support::upstream::{Fault, Requests, ScriptedUpstream};
use crate::support::weir::{Answer, REGISTRY, TestWeir, blob_path, config_for, halves, registry};
use crate::support::{MIB, raw};

const REPOSITORY: &str = "library/demo";
const SIZE: u64 = 8 * MIB;
/// How often upstreams are asked to go on without progress.
const ATTEMPTS: usize = 5;

/// A blob that all upstreams of one registry have.
struct Setup {
    upstreams: Vec<ScriptedUpstream>,
    weir: TestWeir,
    blob: Blob,
}

impl Setup {
    async fn of(count: usize, seed: u64) -> Self {
        let mut upstreams = Vec::new();
        let blob = blob_of(SIZE, seed);
        for _ in 0..count {
            let upstream = ScriptedUpstream::start().await;
            upstream.push_blob(REPOSITORY, &blob);
            upstreams.push(upstream);
        }
        let weir = TestWeir::start(json!({ "registries": { REGISTRY: of_all(&upstreams) } })).await;
        Self { upstreams, weir, blob }
    }

    fn gets(&self) -> Requests {
        Requests::blob(self.blob.digest()).get()
    }

    /// From now on, the upstream of this number meets `faults` on every GET of the blob.
    fn bend<const N: usize>(&self, number: usize, faults: [Fault; N]) {
        self.upstreams[number - 1].faults(self.gets(), faults);
    }

    /// The same, on the next GET only.
    fn bend_once<const N: usize>(&self, number: usize, faults: [Fault; N]) {
        self.upstreams[number - 1].faults(self.gets().once(), faults);
    }

    fn path(&self) -> String {
        blob_path(REPOSITORY, self.blob.digest())
    }

    async fn pull(&self) -> Answer {
        self.weir.blob(REPOSITORY, self.blob.digest()).await
    }

    /// One unbroken 200 with the right bytes, which are stored.
    async fn assert_pulled(&self) {
        let answer = self.pull().await;
        answer.assert_is(self.blob.digest());
        self.weir.assert_invariants().await;
        assert!(self.weir.is_stored(self.blob.digest()));
        assert_eq!(halves(self.weir.store_path()).len(), 0);
    }

    /// A connection that broke before the end; nothing is stored, and the next pull is fine.
    async fn assert_broken_and_then_well(&self) {
        let answer = self.pull().await;
        assert!(!answer.complete, "{} bytes", answer.size);
        self.weir.assert_invariants().await;
        assert!(!self.weir.is_stored(self.blob.digest()));
        for upstream in &self.upstreams {
            upstream.heal();
        }
        self.assert_pulled().await;
    }

    /// How many bytes each upstream has sent.
    fn sent(&self) -> Vec<u64> {
        self.upstreams.iter().map(ScriptedUpstream::bytes_sent).collect()
    }

    /// How many bytes have come from each upstream. What one had sent when its connection broke may not have arrived.
    async fn received(&self) -> Vec<u64> {
        let mut received = Vec::new();
        for number in 1..=self.upstreams.len() {
            let upstream = format!("up-{number}");
            received.push(self.weir.metric("weir_received_bytes_total", &[("upstream", &upstream)]).await);
        }
        received
    }

    /// From the first up to this byte, or what of it had arrived when the connection broke; the rest from the second.
    async fn assert_each_byte_came_once(&self, broken_at: u64) {
        let received = self.received().await;
        assert!(received[0] <= broken_at, "{received:?}");
        assert_eq!(received.iter().sum::<u64>(), SIZE, "{received:?}");
        assert!(self.sent().iter().sum::<u64>() * 100 <= SIZE * 101, "{:?}", self.sent());
    }

    /// The `Range` of every GET for the blob, of the upstream of this number.
    fn asked(&self, number: usize) -> Vec<String> {
        let requests = self.upstreams[number - 1].requests();
        let gets = requests.iter().filter(|request| request.method == Method::GET);
        gets.map(|request| request.header(RANGE).unwrap_or_else(|| "all".to_owned())).collect()
    }

    /// How often the upstream of this number went on with a blob, for this reason.
    async fn resumes(&self, number: usize, reason: &str) -> u64 {
        let upstream = format!("up-{number}");
        let labels = [("registry", REGISTRY), ("upstream", &upstream), ("reason", reason)];
        self.weir.metric("weir_upstream_resumes_total", &labels).await
    }

    async fn all_resumes(&self) -> u64 {
        self.weir.metric("weir_upstream_resumes_total", &[]).await
    }

    /// Who is blamed for wrong bytes.
    async fn blamed(&self) -> Vec<u64> {
        let mut blamed = Vec::new();
        for number in 1..=self.upstreams.len() {
            let upstream = format!("up-{number}");
            blamed.push(self.weir.metric("weir_digest_mismatches_total", &[("upstream", &upstream)]).await);
        }
        blamed
    }
}

fn of_all(upstreams: &[ScriptedUpstream]) -> Value {
    registry(&upstreams.iter().collect::<Vec<_>>())
}

fn from(byte: u64) -> String {
    format!("bytes={byte}-")
}

fn content_range(value: &str) -> Fault {
    Fault::Header(CONTENT_RANGE, HeaderValue::from_str(value).unwrap())
}

#[tokio::test(start_paused = true)]
async fn the_next_upstream_goes_on_at_the_byte_where_the_first_broke() {
    for (seed, byte) in [(1, 1), (2, 65_535), (3, 3 * MIB + 7), (4, SIZE - 65_536), (5, SIZE - 1)] {
        let pull = Setup::of(2, seed).await;
        pull.bend(1, [Fault::CutAt(byte)]);
        let answer = pull.pull().await;
        assert_eq!(answer.header("content-length"), SIZE.to_string());
        answer.assert_is(pull.blob.digest());
        pull.weir.assert_invariants().await;
        assert!(pull.weir.is_stored(pull.blob.digest()));
        let received = pull.received().await;
        assert_eq!((pull.asked(1), pull.asked(2)), (vec!["all".to_owned()], vec![from(received[0])]));
        pull.assert_each_byte_came_once(byte).await;
        assert_eq!((pull.resumes(2, "reset").await, pull.all_resumes().await), (1, 1));
        assert_eq!(pull.blamed().await, [0, 0]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_break_before_the_first_byte_asks_the_next_for_all_of_it() {
    let pull = Setup::of(2, 6).await;
    pull.bend(1, [Fault::CutAt(0)]);
    pull.assert_pulled().await;
    assert_eq!(pull.asked(2), ["all"]);
    assert_eq!(pull.sent(), [0, SIZE]);
}

#[tokio::test(start_paused = true)]
async fn a_blob_of_unknown_length_is_gone_on_with_too() {
    let pull = Setup::of(2, 7).await;
    for upstream in &pull.upstreams {
        upstream.fault(Requests::blob(pull.blob.digest()).head(), Fault::WithoutHeader(CONTENT_LENGTH));
    }
    pull.bend(1, [Fault::Chunked, Fault::CutAt(3 * MIB)]);
    let answer = pull.pull().await;
    assert_eq!(answer.header("content-length"), "");
    answer.assert_is(pull.blob.digest());
    pull.weir.assert_invariants().await;
    pull.assert_each_byte_came_once(3 * MIB).await;
}

#[tokio::test(start_paused = true)]
async fn an_end_that_comes_too_early_is_a_break() {
    // Told apart from the real end by the size that a HEAD gave.
    let pull = Setup::of(2, 8).await;
    pull.bend(1, [Fault::Chunked, Fault::EndAt(3 * MIB)]);
    pull.assert_pulled().await;
    pull.assert_each_byte_came_once(3 * MIB).await;
    assert_eq!(pull.resumes(2, "truncated").await, 1);
    // Less than was announced, and then the connection ends.
    let pull = Setup::of(2, 9).await;
    pull.bend(1, [Fault::AnnounceLength(SIZE), Fault::EndAt(3 * MIB)]);
    pull.assert_pulled().await;
    assert_eq!(pull.received().await.iter().sum::<u64>(), SIZE);
    assert_eq!(pull.all_resumes().await, 1);
}

/// All of the bytes have come, and only the end of the transfer is missing.
#[tokio::test(start_paused = true)]
async fn nothing_is_asked_for_when_no_byte_is_missing() {
    let pull = Setup::of(2, 10).await;
    pull.bend(1, [Fault::Chunked, Fault::CutAt(SIZE)]);
    pull.assert_pulled().await;
    assert_eq!(pull.sent(), [SIZE, 0]);
    let unknown = Setup::of(2, 11).await;
    unknown.upstreams[0].fault(Requests::all().head(), Fault::WithoutHeader(CONTENT_LENGTH));
    unknown.bend(1, [Fault::Chunked, Fault::CutAt(SIZE)]);
    unknown.assert_pulled().await;
    assert_eq!(unknown.sent(), [SIZE, 0], "the digest tells");
}

#[tokio::test(start_paused = true)]
async fn an_upstream_that_falls_silent_is_left_after_half_a_minute() {
    let pull = Setup::of(2, 12).await;
    let _gate = pull.upstreams[0].hold(pull.gets(), 3 * MIB);
    let begun = tokio::time::Instant::now();
    pull.assert_pulled().await;
    let took = begun.elapsed().as_secs();
    assert!((30..=35).contains(&took), "{took} s");
    pull.assert_each_byte_came_once(3 * MIB).await;
    assert_eq!(pull.resumes(2, "stalled").await, 1);
}

#[tokio::test(start_paused = true)]
async fn an_upstream_that_crawls_is_left_for_another_one() {
    let pull = Setup::of(2, 13).await;
    pull.bend(1, [Fault::CrawlFrom(3 * MIB, 16 * 1024)]);
    let begun = tokio::time::Instant::now();
    pull.assert_pulled().await;
    let took = begun.elapsed().as_secs();
    assert!((60..=70).contains(&took) || (120..=190).contains(&took), "{took} s");
    assert_eq!(pull.resumes(2, "slow").await, 1);
    let sent: u64 = pull.sent().iter().sum();
    assert!(sent * 100 <= SIZE * 101, "{sent} bytes for {SIZE}");
}

#[tokio::test(start_paused = true)]
async fn the_only_upstream_may_crawl() {
    let alone = Setup::of(1, 14).await;
    alone.bend(1, [Fault::CrawlFrom(7 * MIB, 4 * 1024)]);
    alone.assert_pulled().await;
    assert_eq!(alone.asked(1), ["all"]);
    // Another one that has nothing to give is no reason to leave either.
    let with_mirror = Setup::of(2, 15).await;
    with_mirror.upstreams[1].remove(REPOSITORY, with_mirror.blob.digest());
    with_mirror.bend(1, [Fault::CrawlFrom(7 * MIB, 4 * 1024)]);
    with_mirror.assert_pulled().await;
    assert_eq!(with_mirror.asked(1), ["all"]);
    assert_eq!(with_mirror.all_resumes().await, 0);
}

#[tokio::test(start_paused = true)]
async fn a_single_upstream_that_recovers_goes_on_with_its_own() {
    let pull = Setup::of(1, 16).await;
    pull.bend_once(1, [Fault::CutAt(3 * MIB)]);
    pull.upstreams[0].fault(pull.gets().after(1).first(2), Fault::Status(StatusCode::SERVICE_UNAVAILABLE));
    pull.assert_pulled().await;
    assert_eq!(pull.asked(1), ["all".to_owned(), from(3 * MIB), from(3 * MIB), from(3 * MIB)]);
    assert_eq!(pull.resumes(1, "reset").await, 1);
}

#[tokio::test(start_paused = true)]
async fn three_upstreams_that_each_break_at_another_byte_make_one_blob() {
    let pull = Setup::of(3, 17).await;
    pull.bend_once(1, [Fault::CutAt(2 * MIB)]);
    pull.bend_once(2, [Fault::CutAt(4 * MIB)]);
    pull.upstreams[0].fault(pull.gets().after(0).ranged(), Fault::CutAt(6 * MIB));
    pull.bend(3, [Fault::CutAt(7 * MIB)]);
    pull.assert_pulled().await;
    pull.assert_each_byte_came_once(6 * MIB).await;
    assert_eq!(pull.asked(2)[0], from(2 * MIB));
}

#[tokio::test(start_paused = true)]
async fn progress_makes_up_for_any_number_of_breaks() {
    let pull = Setup::of(1, 18).await;
    for (number, byte) in (0..).zip((1..8).map(|count| count * MIB)) {
        pull.upstreams[0].fault(pull.gets().after(number).once(), Fault::CutAt(byte));
    }
    pull.assert_pulled().await;
    assert_eq!(pull.asked(1).len(), 8);
    assert_eq!(pull.sent(), [SIZE]);
    assert_eq!(pull.resumes(1, "reset").await, 7);
}

#[tokio::test(start_paused = true)]
async fn without_progress_it_ends_in_a_broken_connection() {
    let pull = Setup::of(1, 19).await;
    pull.bend(1, [Fault::CutAt(3 * MIB)]);
    pull.assert_broken_and_then_well().await;
    // What had come is kept for the next pull.
    let asked = pull.asked(1);
    assert_eq!(asked.len(), 1 + ATTEMPTS + 1);
    assert!(asked[1..].iter().all(|range| *range == from(3 * MIB)), "{asked:?}");
    assert_eq!(pull.sent(), [SIZE]);

    let pull = Setup::of(3, 20).await;
    for number in 1..=3 {
        pull.bend(number, [Fault::CutAt(3 * MIB)]);
    }
    pull.assert_broken_and_then_well().await;
    assert_eq!(pull.received().await.iter().sum::<u64>(), SIZE);
}

#[tokio::test(start_paused = true)]
async fn an_upstream_that_sends_another_part_is_not_believed() {
    for (seed, fault) in [
        (21, content_range("bytes 0-8388607/8388608")),
        (22, content_range("bytes 3145729-8388607/8388608")),
        (23, content_range("bytes 3145728-8388608/8388609")),
        (24, Fault::WithoutHeader(CONTENT_RANGE)),
        (25, Fault::Header(CONTENT_ENCODING, HeaderValue::from_static("gzip"))),
        (26, Fault::Status(StatusCode::RANGE_NOT_SATISFIABLE)),
    ] {
        let pull = Setup::of(3, seed).await;
        pull.bend(1, [Fault::CutAt(3 * MIB)]);
        pull.bend(2, [fault.clone()]);
        pull.assert_pulled().await;
        assert_eq!((pull.asked(2), pull.asked(3)), (vec![from(3 * MIB)], vec![from(3 * MIB)]), "{fault:?}");
        assert_eq!(pull.sent()[2], SIZE - 3 * MIB, "{fault:?}");
        assert_eq!(pull.blamed().await, [0, 0, 0], "{fault:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn who_sends_no_right_part_is_asked_for_the_whole_if_nobody_else_is_left() {
    let pull = Setup::of(2, 27).await;
    pull.bend(1, [Fault::CutAt(3 * MIB)]);
    pull.upstreams[1].fault(pull.gets().ranged(), content_range("bytes 0-8388607/8388608"));
    pull.assert_pulled().await;
    assert_eq!(pull.asked(2), [from(3 * MIB), "all".to_owned()]);
    assert_eq!(pull.blamed().await, [0, 0]);
}

#[tokio::test(start_paused = true)]
async fn what_an_ignored_range_repeats_is_compared_and_skipped() {
    for faults in [vec![Fault::IgnoreRange], vec![Fault::IgnoreRange, Fault::Chunked]] {
        let pull = Setup::of(2, 28).await;
        pull.bend(1, [Fault::CutAt(3 * MIB)]);
        pull.upstreams[1].faults(pull.gets(), faults);
        pull.assert_pulled().await;
        assert_eq!(pull.sent(), [3 * MIB, SIZE]);
        assert_eq!(pull.resumes(2, "reset").await, 1);
    }
}

#[tokio::test(start_paused = true)]
async fn who_repeats_other_bytes_is_passed_over() {
    let pull = Setup::of(3, 29).await;
    pull.bend(1, [Fault::CutAt(3 * MIB)]);
    pull.bend(2, [Fault::IgnoreRange, Fault::Flip(1000)]);
    pull.assert_pulled().await;
    assert_eq!(pull.resumes(2, "reset").await, 0);
    assert_eq!(pull.resumes(3, "reset").await, 1);
    assert_eq!(pull.blamed().await, [0, 0, 0], "it has contributed nothing");
}

#[tokio::test(start_paused = true)]
async fn where_the_beginning_is_disputed_and_nobody_goes_on_it_is_not_kept() {
    // The first one lied, and is gone. The client has its bytes; the store gets those of the second.
    let pull = Setup::of(2, 30).await;
    pull.bend(1, [Fault::Flip(1000), Fault::CutAt(3 * MIB)]);
    pull.bend(2, [Fault::IgnoreRange]);
    let answer = pull.pull().await;
    assert!(!answer.complete, "{} bytes", answer.size);
    pull.weir.assert_invariants().await;
    assert!(pull.weir.is_stored(pull.blob.digest()), "the second was asked for all of it");
    assert_eq!(pull.blamed().await, [0, 0], "nobody knows who is right");
}

/// More than 16 MiB would come twice.
#[tokio::test(start_paused = true)]
async fn much_is_repeated_only_by_the_last_who_is_left() {
    const LARGE: u64 = 24 * MIB;
    const BROKEN_AT: u64 = 17 * MIB;
    let blob = blob_of(LARGE, 31);
    for third_has_it in [true, false] {
        let mut pull = Setup::of(3, 31).await;
        pull.blob = blob.clone();
        for upstream in &pull.upstreams[..if third_has_it { 3 } else { 2 }] {
            upstream.push_blob(REPOSITORY, &blob);
        }
        pull.bend(1, [Fault::CutAt(BROKEN_AT)]);
        pull.bend(2, [Fault::IgnoreRange]);
        pull.assert_pulled().await;
        let received = pull.received().await;
        if third_has_it {
            assert_eq!(received[0] + received[2], LARGE);
            assert_eq!(pull.resumes(3, "reset").await, 1);
        } else {
            assert_eq!(received[1], LARGE);
            assert_eq!(pull.resumes(2, "reset").await, 1);
        }
    }
}

/// A transfer of two parts, of which one is wrong: nobody can tell which.
#[tokio::test(start_paused = true)]
async fn who_contributed_to_wrong_bytes_is_blamed_and_one_is_asked_for_the_whole() {
    for (liar, seed) in [(1, 32), (2, 33)] {
        let pull = Setup::of(2, seed).await;
        let flip = if liar == 1 { MIB } else { 5 * MIB };
        pull.upstreams[0].faults(pull.gets().once(), [Fault::CutAt(3 * MIB)]);
        pull.upstreams[liar - 1].fault(pull.gets().once(), Fault::Flip(flip));
        let answer = pull.pull().await;
        assert!(!answer.complete, "{} bytes", answer.size);
        pull.weir.assert_invariants().await;
        assert_eq!(pull.blamed().await, [1, 1]);
        assert_eq!(pull.asked(1), ["all", "all"], "one alone was asked");
        let asked = pull.sent();
        pull.assert_pulled().await;
        assert_eq!(pull.sent(), asked, "it was stored for the next");
    }
}

#[tokio::test(start_paused = true)]
async fn a_liar_is_not_asked_again_for_the_whole_if_there_is_another() {
    let pull = Setup::of(2, 34).await;
    pull.bend(1, [Fault::Flip(MIB)]);
    let answer = pull.pull().await;
    assert!(!answer.complete, "{} bytes", answer.size);
    pull.weir.assert_invariants().await;
    assert_eq!((pull.asked(1), pull.asked(2)), (vec!["all".to_owned()], vec!["all".to_owned()]));
    assert_eq!(pull.blamed().await, [1, 0]);
    pull.assert_pulled().await;
}

#[tokio::test(start_paused = true)]
async fn clients_that_have_nothing_yet_get_the_second_fetch() {
    // All of a small blob is held back until the verdict.
    let mut pull = Setup::of(2, 35).await;
    pull.blob = blob_of(60_000, 35);
    for upstream in &pull.upstreams {
        upstream.push_blob(REPOSITORY, &pull.blob);
    }
    pull.bend(1, [Fault::Flip(1000)]);
    let gate = pull.upstreams[0].hold(pull.gets(), 30_000);
    let clients = futures_util::future::join_all((0..5).map(|_| pull.pull()));
    let open = async {
        gate.reached().await;
        gate.open();
    };
    for answer in futures_util::future::join(clients, open).await.0 {
        answer.assert_is(pull.blob.digest());
    }
    pull.weir.assert_invariants().await;
    assert_eq!((pull.asked(1).len(), pull.asked(2).len()), (1, 1));
    assert_eq!(pull.blamed().await, [1, 0]);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_waits_for_the_end_gets_it_from_the_second_fetch() {
    let pull = Setup::of(2, 36).await;
    pull.bend(1, [Fault::Flip(MIB)]);
    let gate = pull.upstreams[0].hold(pull.gets(), 5 * MIB);
    let mut greedy = raw::get(pull.weir.address(), &pull.path()).await;
    greedy.read_exactly(4 * MIB).await;
    // It wants what is held back until the verdict.
    let patient = raw::get_from(pull.weir.address(), &pull.path(), SIZE - 60_000).await;
    gate.open();
    assert!(greedy.read_to_end().await.is_err());
    assert_eq!(patient.read_to_end().await, Ok((60_000, pull.blob.digest_of(SIZE - 60_000..SIZE))));
    pull.weir.assert_invariants().await;
    assert!(pull.weir.is_stored(pull.blob.digest()));
}

#[tokio::test(start_paused = true)]
async fn all_readers_are_carried_across_a_break() {
    let pull = Setup::of(2, 37).await;
    let gate = pull.upstreams[0].hold(pull.gets(), 5 * MIB);
    pull.bend(1, [Fault::CutAt(5 * MIB)]);
    let mut first = raw::get(pull.weir.address(), &pull.path()).await;
    assert_eq!(first.read_exactly(4 * MIB).await, pull.blob.bytes_of(0..4 * MIB));
    let middle = raw::get_from(pull.weir.address(), &pull.path(), 3 * MIB + 1).await;
    let end = raw::get_from(pull.weir.address(), &pull.path(), SIZE - 1).await;
    let others = futures_util::future::join_all((0..8).map(|_| pull.pull()));
    gate.open();
    for answer in others.await {
        answer.assert_is(pull.blob.digest());
    }
    assert_eq!(first.read_to_end().await, Ok((4 * MIB, pull.blob.digest_of(4 * MIB..SIZE))));
    assert_eq!(middle.read_to_end().await, Ok((5 * MIB - 1, pull.blob.digest_of(3 * MIB + 1..SIZE))));
    assert_eq!(end.read_to_end().await, Ok((1, pull.blob.digest_of(SIZE - 1..SIZE))));
    pull.weir.assert_invariants().await;
    pull.assert_each_byte_came_once(5 * MIB).await;
}

#[tokio::test(start_paused = true)]
async fn a_body_that_is_too_long_is_neither_given_nor_kept() {
    for (seed, more) in [(38, 1), (39, 1 << 40)] {
        let alone = Setup::of(1, seed).await;
        alone.bend(1, [Fault::Chunked, Fault::Append(more)]);
        alone.assert_broken_and_then_well().await;
        // Where there is another, that one is asked for the whole, for those who come next.
        let pull = Setup::of(2, seed).await;
        pull.bend(1, [Fault::Chunked, Fault::Append(more)]);
        let answer = pull.pull().await;
        assert!(!answer.complete, "{} bytes", answer.size);
        pull.weir.assert_invariants().await;
        assert_eq!(pull.asked(2), ["all"]);
        pull.assert_pulled().await;
    }
}

#[tokio::test(start_paused = true)]
async fn without_the_store_the_next_upstream_goes_on_too() {
    let blob = blob_of(SIZE, 40);
    let upstreams = [ScriptedUpstream::start().await, ScriptedUpstream::start().await];
    for upstream in &upstreams {
        upstream.push_blob(REPOSITORY, &blob);
    }
    let (files, store) = (FaultyFiles::new(), tempfile::tempdir().unwrap());
    let config = config_for(store.path(), json!({ "registries": { REGISTRY: of_all(&upstreams) } }));
    let parsed = Config::from_yaml(&config.to_string()).unwrap();
    let running = weir::app::start_with(parsed, Arc::<FaultyFiles>::clone(&files)).await.unwrap();
    let weir = TestWeir::around(running, store, config);
    files.fail(Operation::Create, ENOSPC);
    let gets = Requests::blob(blob.digest()).get();
    upstreams[0].fault(gets.clone(), Fault::CutAt(3 * MIB));
    weir.blob(REPOSITORY, blob.digest()).await.assert_is(blob.digest());
    assert_eq!([upstreams[0].bytes_sent(), upstreams[1].bytes_sent()], [3 * MIB, SIZE - 3 * MIB]);
    // Two halves that do not belong together are found out there as well.
    upstreams[1].fault(gets, Fault::Flip(5 * MIB));
    let answer = weir.blob(REPOSITORY, blob.digest()).await;
    assert!(!answer.complete, "{} bytes", answer.size);
    assert_eq!(weir.metric("weir_digest_mismatches_total", &[]).await, 2);
    files.heal();
    weir.assert_invariants().await;
}

/// One blob in two repositories, each of which only one upstream has.
struct Shared {
    weir: TestWeir,
    blob: Blob,
    first: ScriptedUpstream,
    second: ScriptedUpstream,
}

impl Shared {
    const HERE: &str = "team/here";
    const THERE: &str = "team/there";

    async fn of(blob: Blob) -> Self {
        let (first, second) = (ScriptedUpstream::start().await, ScriptedUpstream::start().await);
        let weir = TestWeir::start(json!({ "registries": { REGISTRY: registry(&[&first, &second]) } })).await;
        first.push_blob(Self::HERE, &blob);
        second.push_blob(Self::THERE, &blob);
        Self { weir, blob, first, second }
    }

    /// A client here starts the download; one there, which follows it, has read so many bytes by the time the download
    /// breaks off for good. Returns how their answers end.
    async fn broken_at(&self, byte: u64, read: u64) -> [Result<u64, String>; 2] {
        let gets = Requests::blob(self.blob.digest()).get();
        let gate = self.first.hold(gets.clone(), byte);
        self.first.fault(gets, Fault::CutAt(byte));
        let here = raw::get(self.weir.address(), &blob_path(Self::HERE, self.blob.digest())).await;
        let mut there = raw::get(self.weir.address(), &blob_path(Self::THERE, self.blob.digest())).await;
        assert_eq!(self.second.blob_gets(self.blob.digest()), 0, "it follows");
        there.read_exactly(read).await;
        gate.open();
        let (here, there) = futures_util::future::join(here.read_to_end(), there.read_to_end()).await;
        if let Ok((_, rest)) = there {
            assert_eq!(rest, self.blob.digest_of(read..self.blob.size()));
        }
        self.weir.assert_invariants().await;
        [here.map(|(bytes, _)| bytes), there.map(|(bytes, _)| bytes)]
    }
}

#[tokio::test(start_paused = true)]
async fn a_reader_whose_own_upstreams_can_deliver_survives_the_download_of_another_repository() {
    // Behind what was left of the download.
    let pull = Shared::of(blob_of(SIZE, 41)).await;
    let [here, there] = pull.broken_at(5 * MIB, 4 * MIB).await;
    assert!(here.is_err());
    assert_eq!(there, Ok(4 * MIB));
    assert!(pull.weir.is_stored(pull.blob.digest()));
    let requests = pull.second.requests();
    let ranges = requests.iter().filter(|request| request.method == Method::GET && request.repository == Shared::THERE);
    assert_eq!(ranges.filter_map(|request| request.header(RANGE)).collect::<Vec<_>>(), [from(5 * MIB)]);
    // So little that it was not kept: from the first byte, compared with what the client has.
    let pull = Shared::of(blob_of(MIB, 42)).await;
    let [here, there] = pull.broken_at(600_000, 500_000).await;
    assert!(here.is_err());
    assert_eq!(there, Ok(MIB - 500_000));
    assert!(pull.weir.is_stored(pull.blob.digest()));
}

#[tokio::test(start_paused = true)]
async fn a_reader_is_never_given_what_does_not_belong_to_its_bytes() {
    for (blob, byte, read) in [(blob_of(SIZE, 43), 5 * MIB, 4 * MIB), (blob_of(MIB, 44), 600_000, 500_000)] {
        let pull = Shared::of(blob).await;
        pull.first.fault(Requests::blob(pull.blob.digest()).get(), Fault::Flip(1000));
        let [here, there] = pull.broken_at(byte, read).await;
        assert!(here.is_err() && there.is_err(), "{here:?}, {there:?}");
        pull.weir.blob(Shared::THERE, pull.blob.digest()).await.assert_is(pull.blob.digest());
        pull.weir.assert_invariants().await;
    }
}
