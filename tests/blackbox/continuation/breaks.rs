//! Where and how an upstream breaks off, and who goes on.

use super::*;

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
    // Told apart from the real end by the size that a descriptor gave.
    let pull = Setup::of(2, 8).await;
    let manifest = pull.promise().await;
    pull.bend(1, [Fault::Chunked, Fault::EndAt(3 * MIB)]);
    pull.assert_pulled().await;
    assert_eq!(pull.received().await.iter().sum::<u64>(), SIZE + manifest);
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
    // Nobody gave its size: the digest tells that it is whole.
    let pull = Setup::of(2, 10).await;
    let gate = pull.upstreams[0].hold(pull.gets(), SIZE);
    pull.bend(1, [Fault::Chunked, Fault::CutAt(SIZE)]);
    let cut = async {
        // What is on its way when a connection breaks does not arrive.
        pull.weir.metric_reaches("weir_received_bytes_total", &[("upstream", "up-1")], SIZE).await;
        gate.open();
    };
    futures_util::future::join(pull.assert_pulled(), cut).await;
    assert_eq!(pull.sent(), [SIZE, 0]);
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

/// Not one of its answers ends, so nothing else would ever be held against it.
#[tokio::test(start_paused = true)]
async fn an_upstream_that_is_left_again_and_again_is_left_alone() {
    let pull = Setup::of(2, 60).await;
    pull.upstreams[0].fault(Requests::of_kind(Kind::Blob).get(), Fault::CrawlFrom(0, 16 * 1024));
    let blobs: Vec<_> = (61..67).map(|seed| blob_of(2 * MIB, seed)).collect();
    for (asked, blob) in blobs.iter().enumerate() {
        for upstream in &pull.upstreams {
            upstream.push_blob(REPOSITORY, blob);
        }
        assert_eq!(pull.asked(1).len(), asked);
        pull.weir.blob(REPOSITORY, blob.digest()).await.assert_is(blob.digest());
        pull.weir.assert_invariants().await;
    }
    assert_eq!((pull.asked(1).len(), pull.resumes(2, "slow").await), (5, 5));
}

/// Nobody could have done better, as far as is known.
#[tokio::test(start_paused = true)]
async fn an_upstream_that_nobody_takes_over_from_is_not_held_to_its_pace() {
    let pull = Setup::of(2, 68).await;
    pull.upstreams[0].fault(Requests::of_kind(Kind::Blob).get(), Fault::CrawlFrom(0, 16 * 1024));
    for seed in 69..76 {
        let blob = blob_of(2 * MIB, seed);
        pull.upstreams[0].push_blob(REPOSITORY, &blob);
        pull.weir.blob(REPOSITORY, blob.digest()).await.assert_is(blob.digest());
    }
    assert_eq!(pull.asked(1).len(), 7);
}

#[tokio::test(start_paused = true)]
async fn a_first_byte_that_does_not_come_is_waited_for_ten_seconds_if_there_is_another_upstream() {
    for (count, seconds, resumes) in [(2, 10..=12, 1), (1, 30..=35, 0)] {
        let pull = Setup::of(count, 77).await;
        pull.upstreams[0].fault(pull.gets().once(), Fault::HoldAt(0, Gate::new()));
        let begun = tokio::time::Instant::now();
        pull.assert_pulled().await;
        let took = begun.elapsed().as_secs();
        assert!(seconds.contains(&took), "{took} s");
        assert_eq!(pull.all_resumes().await - u64::from(count == 1), resumes);
    }
    // The other one has nothing to give: the silence is not the end.
    let pull = Setup::of(2, 78).await;
    pull.upstreams[1].remove(REPOSITORY, pull.blob.digest());
    let gate = pull.upstreams[0].hold(pull.gets(), 0);
    let opened = async {
        tokio::time::sleep(std::time::Duration::from_secs(25)).await;
        gate.open();
    };
    tokio::join!(pull.assert_pulled(), opened);
    assert_eq!((pull.asked(1), pull.all_resumes().await), (vec!["all".to_owned()], 0));
}

#[tokio::test(start_paused = true)]
async fn a_transfer_may_take_as_long_as_it_gets_on() {
    let pull = Setup::of(1, 79).await;
    let large = blob_of(80 * MIB, 80);
    pull.upstreams[0].push_blob(REPOSITORY, &large);
    pull.upstreams[0].fault(Requests::blob(large.digest()).get(), Fault::CrawlFrom(0, 40 * 1024));
    let begun = tokio::time::Instant::now();
    pull.weir.blob(REPOSITORY, large.digest()).await.assert_is(large.digest());
    assert!(begun.elapsed().as_secs() > 30 * 60);
    pull.weir.assert_invariants().await;
    // A trickle ends: 2 MiB in half an hour and the minute that they are worth.
    pull.bend(1, [Fault::CrawlFrom(MIB, 512)]);
    let begun = tokio::time::Instant::now();
    let answer = pull.pull().await;
    let took = begun.elapsed().as_secs();
    assert!(!answer.complete && (30..=32).contains(&(took / 60)), "{took} s");
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

/// More than a minute goes by before what is there already has come once more.
#[tokio::test(start_paused = true)]
async fn who_repeats_slowly_is_waited_for_if_nobody_else_goes_on() {
    let repeats_slowly = || [Fault::IgnoreRange, Fault::CrawlFrom(MIB, 16 * 1024)];
    for others in [0, 1] {
        // The next pull goes on where one broke off.
        let pull = Setup::of(1 + others, 17 + others as u64).await;
        for other in &pull.upstreams[1..] {
            other.fault(pull.gets(), Fault::Status(StatusCode::BAD_REQUEST));
        }
        pull.bend_once(1, [Fault::CutAt(5 * MIB)]);
        pull.upstreams[0].fault(pull.gets().ranged(), Fault::Status(StatusCode::SERVICE_UNAVAILABLE));
        assert!(!pull.pull().await.complete);
        pull.weir.assert_invariants().await;
        assert_eq!(halves(pull.weir.store_path()).len(), 1);
        pull.upstreams[0].heal();
        pull.bend(1, repeats_slowly());
        pull.assert_pulled_with_patience().await;
        assert_eq!(pull.weir.metric("weir_store_resumed_bytes_total", &[]).await, 5 * MIB);
    }
    // The same one goes on with its own.
    let alone = Setup::of(1, 19).await;
    alone.bend_once(1, [Fault::CutAt(5 * MIB)]);
    alone.upstreams[0].faults(alone.gets().ranged(), repeats_slowly());
    alone.assert_pulled_with_patience().await;
    assert_eq!(alone.resumes(1, "reset").await, 1);
}
