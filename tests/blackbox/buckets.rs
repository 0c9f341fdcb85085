//! The bucket behind a store: what it does when the server of the bucket does what servers do.
//!
//! The letters in names of tests are those of the faults that it is built for, here and elsewhere:
//!
//! | | fault | also tried |
//! |---|---|---|
//! | C1 | replicas fetch and upload the same at once | `replicas`, `shared_bucket`; on real servers |
//! | C2 | an upload fails while another replica has stored the blob | |
//! | C3 | the process is killed in the middle of an upload: nothing is seen of it, and its parts go | `replicas`; on real servers |
//! | C4 | the end of an upload is answered by an error in a success, or not at all | on real servers |
//! | C5 | the bucket wants less, again and again | `shared_bucket`; on real servers |
//! | C6 | the bucket cannot be reached, or says nothing | `shared_bucket` |
//! | C7 | it refuses: rights, clocks, another region; and keys that are replaced | `replicas` |
//! | C8 | an answer breaks off | `shared_bucket`; on real servers |
//! | C9 | an object goes, or is replaced, while it is read | `shared_bucket` |
//! | C10 | a server without conditions, bulk deletes, or lists from a place on: none is asked for any | `shared_bucket` |
//! | C11 | what was written is not seen yet, or listed late | `shared_bucket`, `bounded_bucket` |
//! | C12 | two replicas evict at once, and what another has just used | `bounded_bucket` |
//! | C13 | wrong bytes: they are replaced by an upload, never taken away on a condition | `shared_bucket` |
//! | C14 | a bucket of a million objects: nothing is listed to start or to pull | `shared_bucket` |

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::join_all;
use tokio::net::TcpListener;
use tokio::sync::watch;
use weir::config::{AccessKey, BucketCredentials, Secret};
use weir::oci::Digest;
use weir::store::bucket::FailureKind;
use weir::store::{Bucket, StoreError};

use crate::support::bucket::{Fault, Operation, S3Server, keeps_what_a_bucket_promises};
use crate::support::bucket_store::{Files, bucket, read};
use crate::support::within;

/// More than one part.
const LARGE: usize = 12 << 20;

struct Setup {
    server: S3Server,
    bucket: Bucket,
    files: Files,
}

impl Setup {
    async fn new() -> Self {
        let server = S3Server::in_memory().await;
        let (bucket, _metrics) = bucket(&server.config());
        Self { server, bucket, files: Files::new().await }
    }
}

/// How an operation that has to fail failed.
fn kind<T>(outcome: Result<T, StoreError>) -> FailureKind {
    match outcome {
        Err(StoreError::Bucket { failure, .. }) => failure.kind(),
        Err(error) => panic!("the bucket is not to blame: {error}"),
        Ok(_) => panic!("it did not fail"),
    }
}

#[tokio::test]
async fn a_bucket_in_memory_keeps_what_a_bucket_promises() {
    let Setup { server, bucket, files } = Setup::new().await;
    keeps_what_a_bucket_promises(&bucket, &files).await;
    assert_eq!(server.open_uploads(), 0);
}

#[tokio::test]
async fn keys_are_those_of_a_directory_below_the_prefix() {
    let Setup { server, bucket, files } = Setup::new().await;
    let (digest, file, body) = files.store(10, 1).await;
    bucket.upload(&digest, &file).await.unwrap();
    let key = format!("blobs/sha256/{}/{}", &digest.hex()[..2], digest.hex());
    assert_eq!(server.object(&key), Some(body));
}

#[tokio::test]
async fn c1_replicas_that_upload_the_same_blob_at_once_all_succeed_and_leave_one_object() {
    let Setup { server, files, .. } = Setup::new().await;
    let (digest, file, body) = files.store(LARGE, 1).await;
    let replicas: Vec<_> = (0..4).map(|_| bucket(&server.config())).collect();
    let uploads = join_all(replicas.iter().map(|(bucket, _)| bucket.upload(&digest, &file))).await;
    uploads.into_iter().for_each(Result::unwrap);
    assert_eq!(server.keys().len(), 1);
    assert_eq!(read(&replicas[0].0, &digest, 0).await.unwrap(), body);
}

#[tokio::test]
async fn c2_an_upload_that_fails_takes_away_its_parts_and_not_what_another_replica_has_stored() {
    let Setup { server, bucket, files } = Setup::new().await;
    let (digest, file, body) = files.store(LARGE, 1).await;
    bucket.upload(&digest, &file).await.unwrap();
    server.fault(Operation::Part, 1, Fault::Refuse(400, "EntityTooSmall"));
    assert_eq!(kind(bucket.upload(&digest, &file).await), FailureKind::Unexpected);
    assert_eq!((server.count(Operation::Abort), server.open_uploads()), (1, 0));
    assert_eq!(server.count(Operation::Delete), 0);
    assert_eq!(read(&bucket, &digest, 0).await.unwrap(), body);
}

#[tokio::test]
async fn c3_nothing_is_seen_of_an_upload_that_is_broken_off() {
    let Setup { server, bucket, files } = Setup::new().await;
    let (digest, file, body) = files.store(LARGE, 1).await;
    let (open, gate) = watch::channel(false);
    server.fault(Operation::Complete, 1, Fault::Hold(gate));
    let upload = {
        let (bucket, file) = (bucket.clone(), file.clone());
        tokio::spawn(async move { bucket.upload(&digest, &file).await })
    };
    // All parts are there, and the process dies.
    within("the last request of an upload", async {
        while server.count(Operation::Complete) == 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    upload.abort();
    let _ = upload.await;
    assert_eq!(bucket.stat(&digest).await.unwrap(), None);
    drop(open);
    bucket.upload(&digest, &file).await.unwrap();
    assert_eq!(read(&bucket, &digest, 0).await.unwrap(), body);
}

#[tokio::test]
async fn c4_the_end_of_an_upload_is_looked_at_when_its_answer_is_an_error_or_is_lost() {
    for (fault, completions) in [
        (Fault::ErrorInSuccess("InternalError"), 2),
        (Fault::ErrorInSuccess("SlowDown"), 2),
        (Fault::Refuse(503, "SlowDown"), 2),
        (Fault::Break, 2),
        // It was done, and the object says so.
        (Fault::LoseAnswer, 1),
    ] {
        let Setup { server, bucket, files } = Setup::new().await;
        let (digest, file, body) = files.store(LARGE, 1).await;
        server.fault(Operation::Complete, 1, fault.clone());
        bucket.upload(&digest, &file).await.unwrap();
        assert_eq!(server.count(Operation::Complete), completions, "{fault:?}");
        assert_eq!(server.count(Operation::Head), 1, "{fault:?}");
        assert_eq!((server.open_uploads(), server.keys().len()), (0, 1), "{fault:?}");
        assert_eq!(read(&bucket, &digest, 0).await.unwrap(), body);
    }
}

#[tokio::test]
async fn c4_an_upload_whose_end_fails_for_good_leaves_nothing_and_is_no_success() {
    let Setup { server, bucket, files } = Setup::new().await;
    let (digest, file, _) = files.store(LARGE, 1).await;
    server.fault(Operation::Complete, usize::MAX, Fault::ErrorInSuccess("InternalError"));
    assert_eq!(kind(bucket.upload(&digest, &file).await), FailureKind::Server);
    assert_eq!((server.open_uploads(), server.keys().len()), (0, 0));
}

#[tokio::test]
async fn c5_a_read_of_a_bucket_that_wants_less_is_given_up_after_three_tries() {
    let Setup { server, bucket, files } = Setup::new().await;
    let (digest, file, body) = files.store(1000, 1).await;
    bucket.upload(&digest, &file).await.unwrap();
    server.fault(Operation::Get, 2, Fault::Refuse(503, "SlowDown"));
    assert_eq!(read(&bucket, &digest, 0).await.unwrap(), body);
    server.take_asked();
    server.fault(Operation::Get, usize::MAX, Fault::Refuse(503, "SlowDown"));
    assert_eq!(kind(bucket.open(&digest, 0).await), FailureKind::Throttled);
    assert_eq!(server.count(Operation::Get), 3);
}

#[tokio::test]
async fn c5_a_bucket_that_goes_on_failing_is_not_asked_by_every_pull() {
    let Setup { server, bucket, .. } = Setup::new().await;
    let digest = Digest::of(b"x");
    server.fault(Operation::Head, usize::MAX, Fault::Refuse(500, "InternalError"));
    for _ in 0..3 {
        assert_eq!(kind(bucket.stat(&digest).await), FailureKind::Server);
    }
    let asked = server.count(Operation::Head);
    for _ in 0..100 {
        assert_eq!(kind(bucket.stat(&digest).await), FailureKind::Paused);
    }
    assert_eq!(server.count(Operation::Head), asked);
    assert!(bucket.trouble().unwrap().contains("it answered 500"), "{:?}", bucket.trouble());
}

#[tokio::test(start_paused = true)]
async fn c6_a_bucket_that_cannot_be_reached_or_says_nothing_is_a_failure_soon() {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let Setup { server, bucket, .. } = Setup::new().await;
    let (gone, _) = crate::support::bucket_store::bucket(&server.config_at(address));
    assert_eq!(kind(gone.stat(&Digest::of(b"x")).await), FailureKind::Connect);
    server.fault(Operation::Head, usize::MAX, Fault::Silence);
    let begun = tokio::time::Instant::now();
    assert_eq!(kind(bucket.stat(&Digest::of(b"x")).await), FailureKind::Timeout);
    assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn c7_refusals_say_what_to_do_and_another_key_takes_effect_at_once() {
    for (status, code, kind, words) in [
        (403, "AccessDenied", FailureKind::Denied, "allow s3:GetObject"),
        (403, "RequestTimeTooSkewed", FailureKind::Clock, "set the clock"),
        (404, "NoSuchBucket", FailureKind::NoBucket, "make the bucket"),
        (301, "PermanentRedirect", FailureKind::Region, "correct `store.s3.region`"),
    ] {
        let Setup { server, bucket, .. } = Setup::new().await;
        server.fault(Operation::Get, usize::MAX, Fault::Refuse(status, code));
        let error = bucket.open(&Digest::of(b"x"), 0).await.unwrap_err();
        assert!(error.to_string().contains(words), "{error}");
        assert_eq!(self::kind(Err::<(), _>(error)), kind);
        assert_eq!(server.count(Operation::Get), 1, "asking again would change nothing");
    }

    let Setup { server, bucket, .. } = Setup::new().await;
    let signed_by = |server: &S3Server| {
        let asked = server.take_asked().pop().unwrap();
        asked.headers[http::header::AUTHORIZATION].to_str().unwrap().to_owned()
    };
    bucket.stat(&Digest::of(b"x")).await.unwrap();
    assert!(signed_by(&server).contains("Credential=testkey/"));
    let key = AccessKey { id: "another".to_owned(), secret: Secret::new("s"), session_token: None };
    bucket.set_credentials(&BucketCredentials::Key(key)).unwrap();
    bucket.stat(&Digest::of(b"x")).await.unwrap();
    assert!(signed_by(&server).contains("Credential=another/"));
}

#[tokio::test]
async fn c8_an_answer_that_breaks_off_is_gone_on_with_at_its_byte() {
    let Setup { server, bucket, files } = Setup::new().await;
    let (digest, file, body) = files.store(LARGE, 1).await;
    bucket.upload(&digest, &file).await.unwrap();
    // Six times in all, but never thrice without a mebibyte in between.
    server.fault(Operation::Get, 6, Fault::CutAfter(3 << 19));
    assert_eq!(read(&bucket, &digest, 0).await.unwrap(), body);
    assert_eq!(server.count(Operation::Get), 7);
    server.take_asked();

    server.fault(Operation::Get, usize::MAX, Fault::CutAfter(1000));
    let mut object = bucket.open(&digest, 5).await.unwrap().unwrap();
    let mut got = Vec::new();
    let error = loop {
        match object.next().await {
            Ok(bytes) => got.extend_from_slice(&bytes.expect("no end before the end")),
            Err(error) => break error,
        }
    };
    assert_eq!(kind(Err::<(), _>(error)), FailureKind::Broken);
    assert_eq!(server.count(Operation::Get), 3);
    assert_eq!(got, body[5..5 + got.len()], "what was read is what is there");
}

#[tokio::test]
async fn c9_an_object_that_goes_or_changes_while_it_is_read_ends_in_a_failure() {
    for replaced in [None, Some(Bytes::from_static(b"something else"))] {
        let Setup { server, bucket, files } = Setup::new().await;
        let (digest, file, _) = files.store(LARGE, 1).await;
        bucket.upload(&digest, &file).await.unwrap();
        server.fault(Operation::Get, 1, Fault::CutAfter(1 << 20));
        let mut object = bucket.open(&digest, 0).await.unwrap().unwrap();
        let key = format!("blobs/sha256/{}/{}", &digest.hex()[..2], digest.hex());
        match replaced {
            None => server.snatch(&key),
            Some(other) => server.plant(&key, other),
        }
        let error = loop {
            match object.next().await {
                Ok(bytes) => drop(bytes.expect("no end before the end")),
                Err(error) => break error,
            }
        };
        let kind = kind(Err::<(), _>(error));
        assert!(matches!(kind, FailureKind::Gone | FailureKind::Unexpected), "{kind:?}");
    }
}

#[tokio::test]
async fn c10_c14_no_request_is_conditional_and_nothing_is_listed_to_start_read_or_write() {
    let server = S3Server::in_memory().await;
    let (bucket, _) = bucket(&server.config());
    assert!(server.take_asked().is_empty(), "a bucket is not asked for anything before it is used");
    let files = Files::new().await;
    for (digest, file, body) in [files.store(1000, 1).await, files.store(LARGE, 2).await] {
        assert_eq!(bucket.stat(&digest).await.unwrap(), None);
        bucket.upload(&digest, &file).await.unwrap();
        assert_eq!(read(&bucket, &digest, 0).await.unwrap(), body);
        bucket.remove(&digest).await.unwrap();
    }
    let asked = server.take_asked();
    assert!(asked.len() > 10);
    for asked in asked {
        assert_ne!(asked.operation, Operation::List);
        let conditional = asked.headers.keys().find(|name| name.as_str().starts_with("if-"));
        assert_eq!(conditional, None, "{asked:?}");
    }
}

#[tokio::test]
async fn c11_an_object_that_is_not_seen_yet_is_a_miss() {
    let Setup { server, bucket, files } = Setup::new().await;
    let (digest, file, body) = files.store(1000, 1).await;
    bucket.upload(&digest, &file).await.unwrap();
    server.fault(Operation::Head, 1, Fault::Refuse(404, "NoSuchKey"));
    server.fault(Operation::Get, 1, Fault::Refuse(404, "NoSuchKey"));
    assert_eq!(bucket.stat(&digest).await.unwrap(), None);
    assert!(bucket.open(&digest, 0).await.unwrap().is_none());
    assert_eq!(read(&bucket, &digest, 0).await.unwrap(), body);
    assert_eq!(bucket.trouble(), None, "absence is no failure");
}

#[tokio::test]
async fn c12_two_who_take_the_same_object_away_both_succeed() {
    let Setup { server, bucket, files } = Setup::new().await;
    let (digest, file, _) = files.store(1000, 1).await;
    bucket.upload(&digest, &file).await.unwrap();
    let (one, other) = tokio::join!(bucket.remove(&digest), bucket.remove(&digest));
    one.and(other).unwrap();
    assert_eq!(server.keys(), [""; 0]);
}

#[tokio::test]
async fn a_file_that_rotted_before_its_upload_is_not_uploaded() {
    for length in [1000, LARGE] {
        let Setup { server, bucket, files } = Setup::new().await;
        let (digest, file, body) = files.store(length, 1).await;
        let mut rotten = body.to_vec();
        rotten[length / 2] ^= 1;
        std::fs::write(files.path(&digest), &rotten).unwrap();
        assert!(matches!(bucket.upload(&digest, &file).await, Err(StoreError::Mismatch)));
        assert_eq!((server.open_uploads(), server.keys().len()), (0, 0));
    }
}

#[tokio::test]
async fn eight_parts_are_in_memory_at_most_whatever_the_number_of_uploads() {
    let Setup { server, bucket, files } = Setup::new().await;
    let files =
        Arc::new([files.store(24 << 20, 1).await, files.store(24 << 20, 2).await, files.store(24 << 20, 3).await]);
    let (open, gate) = watch::channel(false);
    server.fault(Operation::Part, usize::MAX, Fault::Hold(gate));
    let mut uploads = join_all(files.iter().map(|(digest, file, _)| bucket.upload(digest, file))).boxed();
    tokio::select! {
        _ = &mut uploads => panic!("nothing is answered yet"),
        () = server.has_under_way(8) => {}
    }
    open.send_replace(true);
    uploads.await.into_iter().for_each(Result::unwrap);
    assert_eq!(server.most_under_way(), 8);
    for (digest, _, body) in &*files {
        assert_eq!(read(&bucket, digest, 0).await.unwrap(), body);
    }
}

#[tokio::test]
async fn operations_are_timed_and_failures_counted_by_kind() {
    let server = S3Server::in_memory().await;
    let (bucket, metrics) = bucket(&server.config());
    bucket.stat(&Digest::of(b"x")).await.unwrap();
    server.fault(Operation::Head, usize::MAX, Fault::Refuse(403, "AccessDenied"));
    bucket.stat(&Digest::of(b"x")).await.unwrap_err();
    let timed = |outcome| {
        let durations = &metrics.store.operation_duration;
        durations.with_label_values(&["s3", "head", outcome]).get_sample_count()
    };
    assert_eq!((timed("ok"), timed("error")), (1, 1));
    assert_eq!(metrics.store.errors.with_label_values(&["head", "denied"]).get(), 1);
}
