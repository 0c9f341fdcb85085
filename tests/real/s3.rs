//! A bucket on real servers: `moto`, which keeps the rules of S3, and `s3s-fs`, which keeps its data.
//!
//! They are not packages of Debian; `./test` installs them below `target/tools`, and says so where it cannot. What needs
//! faults goes through a wire that has them.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures_util::TryStreamExt;
use futures_util::future::join_all;
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::sync::watch;
use weir::oci::Digest;

use crate::support::bucket::{Fault, Operation, S3Server, keeps_what_a_bucket_promises};
use crate::support::bucket_store::{Files, bucket, read};
use crate::support::process::{Process, free_port};
use crate::support::replicas::{agree_on_digests, survive_a_killed_one};
use crate::support::{eventually, is_long};

/// More than one part.
const LARGE: usize = 12 << 20;
pub(super) const TEN_DAYS: Duration = Duration::from_secs(10 * 24 * 60 * 60);

/// A server with the empty bucket `images`, behind a wire with faults.
pub(super) struct RealServer {
    name: &'static str,
    pub(super) wire: S3Server,
    process: Process,
    pub(super) address: SocketAddr,
    pub(super) directory: TempDir,
}

impl RealServer {
    /// Its clock is late by the seconds in the file `clock`: ten days of them.
    pub(super) async fn moto() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let (clock, port) = (directory.path().join("clock"), address.port().to_string());
        std::fs::write(&clock, TEN_DAYS.as_secs().to_string()).unwrap();
        let clock = clock.to_str().expect("a path of a temporary directory");
        let python = program("moto_server").with_file_name("python");
        let process = Process::start(python, ["-c", MOTO, clock, "-H", "127.0.0.1", "-p", &port]);
        let server = Self::on("moto", process, address, directory).await;
        let made = reqwest::Client::new().put(format!("http://{address}/images")).send().await.unwrap();
        made.error_for_status().unwrap();
        server
    }

    pub(super) async fn s3s_fs() -> Self {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir(directory.path().join("images")).unwrap();
        let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let process = start_s3s_fs(address, directory.path());
        Self::on("s3s-fs", process, address, directory).await
    }

    async fn on(name: &'static str, process: Process, address: SocketAddr, directory: TempDir) -> Self {
        listens(address).await;
        Self { name, wire: S3Server::before(address).await, process, address, directory }
    }

    async fn both() -> [Self; 2] {
        [Self::moto().await, Self::s3s_fs().await]
    }
}

/// Runs `moto` on a clock that is late by the seconds in a file, the first argument.
const MOTO: &str = r"
import sys, datetime
from moto.s3 import models
from moto.server import main
clock, now = sys.argv.pop(1), models.utcnow
models.utcnow = lambda: now() - datetime.timedelta(seconds=int(open(clock).read()))
sys.exit(main(sys.argv[1:]))
";

fn start_s3s_fs(address: SocketAddr, root: &Path) -> Process {
    let (host, port) = (address.ip().to_string(), address.port().to_string());
    let key = ["--access-key", "testkey", "--secret-key", "testkey"];
    let listen = ["--host", &host, "--port", &port];
    let root = root.to_str().expect("a path of a temporary directory");
    Process::start(program("s3s-fs"), key.into_iter().chain(listen).chain([root]))
}

/// Where `./test` installs a program, or else its name.
fn program(name: &str) -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| PathBuf::from("target"), PathBuf::from);
    let places = [target.join("tools/bin").join(name), target.join("tools/moto/bin").join(name)];
    places.into_iter().find(|place| place.exists()).unwrap_or_else(|| PathBuf::from(name))
}

async fn listens(address: SocketAddr) {
    eventually("the server of the bucket listens", async || TcpStream::connect(address).await.is_ok()).await;
}

#[tokio::test]
async fn both_servers_keep_what_a_bucket_promises() {
    for server in RealServer::both().await {
        let (bucket, _metrics) = bucket(&server.wire.config());
        keeps_what_a_bucket_promises(&bucket, &Files::new().await).await;
        assert!(server.wire.count(Operation::Part) > 0, "{}", server.name);
    }
}

#[tokio::test]
async fn what_is_in_the_bucket_is_there_after_its_server_was_killed() {
    let mut server = RealServer::s3s_fs().await;
    let (bucket, _metrics) = bucket(&server.wire.config());
    let files = Files::new().await;
    let (digest, file, body) = files.store(LARGE, 1).await;
    bucket.upload(&digest, &file).await.unwrap();
    server.process.kill().await;
    server.process = start_s3s_fs(server.address, server.directory.path());
    listens(server.address).await;
    assert_eq!(read(&bucket, &digest, 0).await.unwrap(), body);
}

#[tokio::test]
async fn c1_two_replicas_upload_the_same_digests_and_every_object_is_right() {
    for server in RealServer::both().await {
        let files = Files::new().await;
        let replicas = [bucket(&server.wire.config()).0, bucket(&server.wire.config()).0];
        for round in 0..50 {
            // Every tenth in parts.
            let length = if round % 10 == 0 { LARGE } else { 1000 };
            let (digest, file, _) = files.store(length, round).await;
            let uploads = join_all(replicas.iter().map(|bucket| bucket.upload(&digest, &file))).await;
            uploads.into_iter().for_each(Result::unwrap);
            let found = read(&replicas[0], &digest, 0).await.unwrap();
            assert_eq!(Digest::of(&found), digest, "{} in round {round}", server.name);
        }
    }
}

#[tokio::test]
async fn c3_nothing_is_seen_of_an_upload_that_is_broken_off() {
    for server in RealServer::both().await {
        let (bucket, _metrics) = bucket(&server.wire.config());
        let files = Files::new().await;
        let (digest, file, body) = files.store(LARGE, 1).await;
        let (_open, gate) = watch::channel(false);
        server.wire.fault(Operation::Complete, 1, Fault::Hold(gate));
        let upload = tokio::spawn({
            let (bucket, file) = (bucket.clone(), file.clone());
            async move { bucket.upload(&digest, &file).await }
        });
        eventually("all parts are sent", async || server.wire.count(Operation::Complete) == 1).await;
        upload.abort();
        let _ = upload.await;
        assert_eq!(bucket.stat(&digest).await.unwrap(), None, "{}", server.name);
        bucket.upload(&digest, &file).await.unwrap();
        assert_eq!(read(&bucket, &digest, 0).await.unwrap(), body);
    }
}

#[tokio::test]
async fn c4_c5_c8_faults_on_the_way_to_both_servers_are_got_over() {
    for server in RealServer::both().await {
        let (bucket, _metrics) = bucket(&server.wire.config());
        let files = Files::new().await;
        let faults =
            [Fault::Refuse(503, "SlowDown"), Fault::Break, Fault::LoseAnswer, Fault::ErrorInSuccess("InternalError")];
        for (seed, fault) in (1..).zip(faults) {
            let (digest, file, body) = files.store(LARGE, seed).await;
            server.wire.fault(Operation::Complete, 1, fault.clone());
            if !matches!(fault, Fault::ErrorInSuccess(_)) {
                server.wire.fault(Operation::Part, 2, fault.clone());
            }
            bucket.upload(&digest, &file).await.unwrap();
            server.wire.fault(Operation::Get, 2, Fault::CutAfter(1 << 20));
            assert_eq!(read(&bucket, &digest, 0).await.unwrap(), body, "{} after {fault:?}", server.name);
            server.wire.mend();
        }
    }
}

#[tokio::test]
async fn a_wrong_key_is_told_as_such() {
    let server = RealServer::s3s_fs().await;
    let (bucket, _metrics) = bucket(&server.wire.config());
    let key = weir::config::AccessKey {
        id: "testkey".to_owned(),
        secret: weir::config::Secret::new("another"),
        session_token: None,
    };
    bucket.set_credentials(&weir::config::BucketCredentials::Key(key)).unwrap();
    let error = bucket.open(&Digest::of(b"x"), 0).await.unwrap_err();
    assert!(error.to_string().contains("SignatureDoesNotMatch"), "{error}");
    assert_eq!(error.kind(), "denied");
}

#[tokio::test]
async fn more_objects_than_fit_into_one_answer_are_all_listed() {
    let server = RealServer::moto().await;
    let (bucket, _metrics) = bucket(&server.wire.config());
    let files = Files::new().await;
    for number in 0..1100_u32 {
        let (digest, file, _) = files.put(number.to_be_bytes().to_vec().into()).await;
        bucket.upload(&digest, &file).await.unwrap();
    }
    let listed: Vec<_> = bucket.list().try_collect().await.unwrap();
    assert_eq!((listed.len(), server.wire.count(Operation::List)), (1100, 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn c1_two_processes_on_one_bucket_agree_and_fetch_nothing_twice() {
    for server in RealServer::both().await {
        agree_on_digests(&server.wire.config(), if is_long() { 500 } else { 50 }).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn c3_a_process_that_is_killed_in_the_middle_of_an_upload_takes_nothing_with_it() {
    for server in RealServer::both().await {
        survive_a_killed_one(&server.wire).await;
    }
}
