//! Every operation that pulls do on the disk, and exactly that one fails.
//!
//! The file seam counts them, so no place is forgotten and none needs a fault point in the code.

use std::sync::Arc;

use serde_json::json;

use super::store_faults::{REPOSITORY, on_disk_before};
use crate::support::blob::blob_of;
use crate::support::faulty_files::{EIO, EMFILE, ENOSPC, EROFS, FaultyFiles, Operation};
use crate::support::images::{Package, image};
use crate::support::upstream::ScriptedUpstream;
use crate::support::weir::{TestWeir, assert_blobs_hash_to_their_names, blob_path, manifest_path};
use crate::support::{MIB, is_long};

const ERRORS: [i32; 4] = [EIO, ENOSPC, EROFS, EMFILE];

/// Whichever operation fails and however: every answer is right, nothing that is in the store is wrong, no room is
/// reserved for nothing, and the next pulls are right, too, and stored.
#[tokio::test(start_paused = true)]
async fn pulls_are_right_whichever_operation_of_the_disk_fails() {
    let upstream = ScriptedUpstream::start().await;
    // Its layer is large enough for what is there of it to be kept.
    let image = image("amd64", vec![blob_of(2 * MIB, 400)]);
    upstream.push(REPOSITORY, "v1", &image);
    let mut number = 0;
    loop {
        let errors = if is_long() { ERRORS.to_vec() } else { vec![ERRORS[number % ERRORS.len()]] };
        let mut reached = false;
        for error in errors {
            let files = FaultyFiles::hasty();
            let weir = on_disk_before(&upstream, &files, json!({})).await;
            files.fail_one(number, error);
            // A reader that cannot read is broken off, and served when it comes again.
            while !try_to_pull(&weir, &image).await {
                assert_eq!(files.met(), Some(Operation::Read), "operation {number}, error {error}");
            }
            weir.idle().await;
            reached = files.met().is_some();
            files.heal();
            // A disk that said it was read-only is tried again after a while.
            weir.metric_becomes("weir_store_degraded", &[], 0).await;
            pull(&weir, &image).await;
            weir.idle().await;
            assert!(image.blobs.iter().all(|blob| weir.is_stored(blob.digest())), "operation {number}, error {error}");
            weir.counts_what_is_there().await;
            assert_blobs_hash_to_their_names(weir.store_path());
            // What could not be removed is removed by the next start.
            let weir = weir.restart_on(Arc::clone(&files)).await;
            weir.assert_invariants().await;
            pull(&weir, &image).await;
        }
        if !reached {
            break;
        }
        number += 1;
    }
    assert!(number > 40, "{number} operations");
}

async fn pull(weir: &TestWeir, image: &Package) {
    assert!(try_to_pull(weir, image).await, "a pull is broken off without a reason");
}

/// Pulls everything; whether nothing was broken off. What has come is right in any case.
async fn try_to_pull(weir: &TestWeir, image: &Package) -> bool {
    let blobs = image.blobs.iter().map(|blob| (blob_path(REPOSITORY, blob.digest()), blob.digest()));
    let manifests = [(manifest_path(REPOSITORY, "v1"), image.digest())];
    for (path, digest) in manifests.into_iter().chain(blobs) {
        let answer = weir.get(&path).await;
        if !answer.complete {
            return false;
        }
        answer.assert_is(digest);
    }
    true
}
