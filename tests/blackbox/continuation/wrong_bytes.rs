//! Upstreams that send other bytes than those asked for, and who is blamed.

use super::*;

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
async fn a_body_that_is_too_long_is_neither_given_nor_kept() {
    for (seed, more) in [(38, 1), (39, 1 << 40)] {
        let alone = Setup::of(1, seed).await;
        alone.promise().await;
        alone.bend(1, [Fault::Chunked, Fault::Append(more)]);
        alone.assert_broken_and_then_well().await;
        // Where there is another, that one is asked for the whole, for those who come next.
        let pull = Setup::of(2, seed).await;
        pull.promise().await;
        pull.bend(1, [Fault::Chunked, Fault::Append(more)]);
        let answer = pull.pull().await;
        assert!(!answer.complete, "{} bytes", answer.size);
        pull.weir.assert_invariants().await;
        assert_eq!(pull.asked(2), ["all"]);
        pull.assert_pulled().await;
    }
}

/// All of it comes in one piece with what is too much.
#[tokio::test(start_paused = true)]
async fn a_small_body_that_is_too_long_is_made_good_by_another() {
    let (package, pull) = (demo(41), Setup::of(2, 41).await);
    for upstream in &pull.upstreams {
        upstream.push(REPOSITORY, "v1", &package);
    }
    let mut repaired = 0;
    for image in package.closure() {
        pull.weir.manifest(REPOSITORY, image.digest()).await.assert_is(image.digest());
        // Nothing of what is no longer than the tail that is held back has been given away.
        for blob in image.blobs.iter().filter(|blob| blob.size() <= 64 << 10) {
            repaired += 1;
            pull.upstreams[0].faults(Requests::blob(blob.digest()).get(), [Fault::Chunked, Fault::Append(1)]);
            pull.weir.blob(REPOSITORY, blob.digest()).await.assert_is(blob.digest());
            assert_eq!(pull.upstreams[1].blob_gets(blob.digest()), 1, "of {} bytes", blob.size());
        }
    }
    assert!(repaired > 0);
    pull.weir.assert_invariants().await;
}
