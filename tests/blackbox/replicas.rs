//! Two processes and one bucket in memory: what `tests/real` does with real servers, as often as there is time for.

use crate::support::bucket::S3Server;
use crate::support::is_long;
use crate::support::replicas::{agree_on_digests, survive_a_killed_one};

#[tokio::test(flavor = "multi_thread")]
async fn c1_two_processes_on_one_bucket_agree_and_fetch_nothing_twice() {
    let server = S3Server::in_memory().await;
    agree_on_digests(&server.config(), if is_long() { 500 } else { 50 }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn c3_a_process_that_is_killed_in_the_middle_of_an_upload_takes_nothing_with_it() {
    survive_a_killed_one(&S3Server::in_memory().await).await;
}
