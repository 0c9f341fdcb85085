//! The real binary: killed, stopped, crowded and measured.

use std::fs;

use rustix::process::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::process::Command;
use tokio::task::JoinSet;

use crate::support::blob::{Blob, blob_of, mix};
use crate::support::process::{Process, WeirProcess, weir_binary};
use crate::support::upstream::{Requests, ScriptedUpstream};
use crate::support::weir::{
    Answer, REGISTRY, assert_blobs_hash_to_their_names, blob_path, config_for, files_below, registry, strays,
};
use crate::support::{MIB, eventually, is_long, raw, seed, within};

const REPOSITORY: &str = "library/demo";

/// A directory with a configuration file and a store in it.
struct Home {
    directory: TempDir,
}

impl Home {
    fn new(upstream: &ScriptedUpstream, more: Value) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let home = Self { directory };
        let mut config = json!({ "registries": { REGISTRY: registry(&[upstream]) }, "log": { "level": "info" } });
        crate::support::weir::merge(&mut config, more);
        fs::write(home.config(), config_for(&home.store(), config).to_string()).unwrap();
        home
    }

    fn config(&self) -> std::path::PathBuf {
        self.directory.path().join("weir.yaml")
    }

    fn store(&self) -> std::path::PathBuf {
        self.directory.path().join("store")
    }

    async fn serve(&self) -> WeirProcess {
        WeirProcess::serve(&self.config()).await
    }
}

async fn pull(weir: &WeirProcess, blob: &Blob) -> Option<Answer> {
    let url = format!("http://{}{}", weir.registry, blob_path(REPOSITORY, blob.digest()));
    Some(Answer::read(within("the head of an answer", reqwest::get(url)).await.ok()?).await)
}

#[tokio::test(flavor = "multi_thread")]
async fn a3_kill_9_at_any_moment_leaves_no_wrong_file() {
    const BLOBS: u64 = 4;
    const SIZE: u64 = 8 * MIB;
    let upstream = ScriptedUpstream::start().await;
    let home = Home::new(&upstream, json!({}));
    let mut random = seed();
    eprintln!("WEIR_TEST_SEED={random}");
    let mut last_blobs = Vec::new();
    for round in 0..if is_long() { 200 } else { 20 } {
        let weir = home.serve().await;
        assert_eq!(strays(&home.store()), Vec::<std::path::PathBuf>::new(), "round {round}");
        let blobs: Vec<Blob> = (0..BLOBS).map(|number| blob_of(SIZE, 1000 * round + number)).collect();
        for blob in &blobs {
            upstream.push_blob(REPOSITORY, blob);
        }
        // A third of the kills come when everything has been sent: while blobs are flushed and named.
        random = mix(random);
        let most = BLOBS * SIZE;
        let kill_at = upstream.bytes_sent() + if random.is_multiple_of(3) { most } else { random % most };
        let mut weir = weir;
        let address = weir.registry;
        let mut clients = JoinSet::new();
        for blob in blobs.clone() {
            clients.spawn(async move {
                let url = format!("http://{address}{}", blob_path(REPOSITORY, blob.digest()));
                let Ok(answer) = reqwest::get(url).await else { return };
                let answer = Answer::read(answer).await;
                assert!(!answer.complete || answer.digest == *blob.digest(), "a complete answer is a right one");
            });
        }
        let reached = async {
            while upstream.bytes_sent() < kill_at {
                tokio::task::yield_now().await;
            }
        };
        within("the moment of the kill", reached).await;
        weir.process.kill().await;
        clients.join_all().await;
        assert_blobs_hash_to_their_names(&home.store());
        last_blobs = blobs;
    }
    let weir = home.serve().await;
    for blob in &last_blobs {
        pull(&weir, blob).await.expect("weir answers").assert_is(blob.digest());
    }
    assert!(assert_blobs_hash_to_their_names(&home.store()) > 0);
}

/// Each kill comes at a seeded byte of the blob, as soon as the upstream has let it go.
#[tokio::test(flavor = "multi_thread")]
async fn a_fill_that_is_killed_five_times_fetches_little_twice() {
    const SIZE: u64 = 1 << 30;
    const KILLS: u64 = 5;
    let upstream = ScriptedUpstream::start().await;
    let blob = blob_of(SIZE, 5);
    upstream.push_blob(REPOSITORY, &blob);
    let home = Home::new(&upstream, json!({}));
    let mut random = seed();
    eprintln!("WEIR_TEST_SEED={random}");
    let gets = Requests::blob(blob.digest()).get();
    for kill in 0..KILLS {
        random = mix(random);
        let part = SIZE / (KILLS + 1);
        let gate = upstream.hold(gets.clone(), kill * part + random % part + 1);
        let mut weir = home.serve().await;
        let url = format!("http://{}{}", weir.registry, blob_path(REPOSITORY, blob.digest()));
        let client = tokio::spawn(async move {
            let Ok(answer) = reqwest::get(url).await else { return };
            assert!(!Answer::read(answer).await.complete, "the rest was never sent");
        });
        gate.reached().await;
        weir.process.kill().await;
        client.await.unwrap();
        upstream.heal();
    }
    let weir = home.serve().await;
    pull(&weir, &blob).await.expect("weir answers").assert_is(blob.digest());
    eventually("the blob is stored", async || weir.metric("weir_stored_total", &[]).await == 1).await;
    let (sent, asked) = (upstream.bytes_sent(), upstream.blob_gets(blob.digest()));
    assert!(sent <= SIZE + SIZE / 10, "{} MiB were fetched", sent >> 20);
    assert_eq!(asked as u64, KILLS + 1);
    assert!(weir.metric("weir_store_resumed_bytes_total", &[]).await >= SIZE * (KILLS - 1) / (KILLS + 1) - SIZE / 10);
    assert_eq!(assert_blobs_hash_to_their_names(&home.store()), 1);
    assert_eq!(files_below(&home.store().join("tmp")), Vec::<std::path::PathBuf>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a3_what_was_acknowledged_survives_kill_9() {
    let upstream = ScriptedUpstream::start().await;
    let home = Home::new(&upstream, json!({}));
    let mut weir = home.serve().await;
    let blob = blob_of(8 * MIB, 1);
    upstream.push_blob(REPOSITORY, &blob);
    pull(&weir, &blob).await.expect("weir answers").assert_is(blob.digest());
    eventually("the blob is acknowledged", async || weir.metric("weir_stored_total", &[]).await == 1).await;
    weir.process.kill().await;
    let weir = home.serve().await;
    pull(&weir, &blob).await.expect("weir answers").assert_is(blob.digest());
    assert_eq!(upstream.blob_gets(blob.digest()), 1);
}

/// Weir with a pull that stands at the upstream's gate.
struct PullInProgress {
    upstream: ScriptedUpstream,
    gate: crate::support::upstream::Gate,
    home: Home,
    weir: WeirProcess,
    blob: Blob,
    answer: raw::RawAnswer,
}

async fn pull_in_progress(more: Value) -> PullInProgress {
    let upstream = ScriptedUpstream::start().await;
    let blob = blob_of(4 * MIB, 2);
    upstream.push_blob(REPOSITORY, &blob);
    let gate = upstream.hold(Requests::blob(blob.digest()).get(), 2 * MIB);
    let home = Home::new(&upstream, more);
    let weir = home.serve().await;
    let mut answer = raw::get(weir.registry, &blob_path(REPOSITORY, blob.digest())).await;
    answer.read_exactly(MIB).await;
    gate.reached().await;
    PullInProgress { upstream, gate, home, weir, blob, answer }
}

/// Waits until the process says by its readiness that it drains.
async fn draining(weir: &WeirProcess) {
    eventually("readiness is withdrawn", async || {
        reqwest::get(format!("http://{}/readyz", weir.admin)).await.is_ok_and(|answer| !answer.status().is_success())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_lets_pulls_in_progress_finish() {
    let mut pull = pull_in_progress(json!({})).await;
    pull.weir.process.signal(Signal::TERM);
    draining(&pull.weir).await;
    pull.gate.open();
    assert_eq!(pull.answer.read_to_end().await, Ok((3 * MIB, pull.blob.digest_of(MIB..4 * MIB))));
    let status = pull.weir.process.ended().await;
    assert_eq!(status.code(), Some(0), "{}", pull.weir.process.output());
    assert_eq!(assert_blobs_hash_to_their_names(&pull.home.store()), 1, "the fill was finished and stored");
    assert_eq!(pull.upstream.blob_gets(pull.blob.digest()), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_signal_ends_the_drain_at_once() {
    let mut pull = pull_in_progress(json!({})).await;
    pull.weir.process.signal(Signal::TERM);
    draining(&pull.weir).await;
    pull.weir.process.signal(Signal::TERM);
    // The gate stays closed: a drain would last five minutes.
    pull.weir.process.ended().await;
    assert!(pull.answer.read_to_end().await.is_err());
    assert_eq!(assert_blobs_hash_to_their_names(&pull.home.store()), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_drain_ends_when_its_time_is_over() {
    let mut pull = pull_in_progress(json!({ "server": { "drain_timeout": "200ms" } })).await;
    pull.weir.process.signal(Signal::INT);
    pull.weir.process.ended().await;
    assert!(pull.answer.read_to_end().await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a24_a_second_process_on_the_same_store_is_refused() {
    let upstream = ScriptedUpstream::start().await;
    let home = Home::new(&upstream, json!({}));
    let mut first = home.serve().await;
    let mut second = Process::start(weir_binary(), ["serve".as_ref(), "-c".as_ref(), home.config().as_os_str()]);
    assert!(!second.ended().await.success());
    let store = home.store().display().to_string();
    let said = second.output();
    assert!(said.contains(&store) && said.to_lowercase().contains("another"), "the place and the reason: {said}");
    first.process.assert_runs().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn running_out_of_file_descriptors_is_survived() {
    let upstream = ScriptedUpstream::start().await;
    let blob = blob_of(MIB, 3);
    upstream.push_blob(REPOSITORY, &blob);
    let home = Home::new(&upstream, json!({}));
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -n 64; exec \"$0\" serve -c \"$1\""]).arg(weir_binary()).arg(home.config());
    let weir = WeirProcess::from(Process::spawn(command)).await;
    let crowd: Vec<_> = futures_util::future::join_all((0..100).map(|_| raw::connect(weir.registry))).await;
    drop(crowd);
    eventually("weir serves again", async || {
        pull(&weir, &blob).await.is_some_and(|answer| answer.complete && answer.digest == *blob.digest())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_weir_is_small() {
    let upstream = ScriptedUpstream::start().await;
    let home = Home::new(&upstream, json!({}));
    let weir = home.serve().await;
    // Without pages of files, which the kernel takes back when it needs memory. They are most of the resident memory,
    // and more of them just after the program was written than later.
    let own = weir.process.memory("RssAnon:");
    assert!(own < 5 * MIB, "{} KiB of its own", own >> 10);
    // Unoptimised code is several times as large, and says nothing about what users run.
    let optimised = std::env::var_os("WEIR_TEST_BINARY").is_some() || !cfg!(debug_assertions);
    let resident = weir.process.memory("VmRSS:");
    assert!(!optimised || resident < 15 * MIB, "{} KiB resident", resident >> 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_slow_readers_of_a_large_blob_take_little_memory() {
    const SIZE: u64 = 1 << 30;
    let upstream = ScriptedUpstream::start().await;
    let blob = blob_of(SIZE, 4);
    upstream.push_blob(REPOSITORY, &blob);
    let home = Home::new(&upstream, json!({}));
    let weir = home.serve().await;
    let path = blob_path(REPOSITORY, blob.digest());
    let mut readers = JoinSet::new();
    for _ in 0..200 {
        let (path, address) = (path.clone(), weir.registry);
        readers.spawn(async move {
            let mut answer = raw::get(address, &path).await;
            answer.read_exactly(256 << 10).await;
            answer
        });
    }
    // They have begun, and read no further; the fill goes on to its end without them.
    let readers = readers.join_all().await;
    eventually("the blob is stored", async || weir.metric("weir_stored_total", &[]).await == 1).await;
    let peak = weir.process.memory("VmHWM:");
    assert!(peak < 150 * MIB, "{} MiB at the peak", peak >> 20);
    let one = readers.into_iter().next().expect("one of 200");
    let rest = (256 << 10)..SIZE;
    assert_eq!(one.read_to_end().await, Ok((rest.end - rest.start, blob.digest_of(rest))));
    let peak = weir.process.memory("VmHWM:");
    assert!(peak < 150 * MIB, "{} MiB at the peak", peak >> 20);
    assert_eq!(upstream.blob_gets(blob.digest()), 1);
}
