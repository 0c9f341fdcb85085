//! Disks that are full, worn out or read-only: every pull is right, and the server stays ready.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;

use rustix::process::Signal;
use serde_json::json;
use tokio::process::Command;

use super::{REPOSITORY, Volume, is_there, pull_right, push_all, readiness};
use crate::support::blob::{Blob, blob_of};
use crate::support::process::{Process, WeirProcess, run, weir_binary};
use crate::support::upstream::{Requests, ScriptedUpstream};
use crate::support::weir::{
    Answer, REGISTRY, assert_blobs_hash_to_their_names, blob_path, config_for, registry, strays,
};
use crate::support::{MIB, eventually};

async fn errors(weir: &WeirProcess, kind: &str) -> u64 {
    weir.metric("weir_store_errors_total", &[("kind", kind)]).await
}

async fn assert_sound(weir: &WeirProcess, volume: &Volume) {
    assert_blobs_hash_to_their_names(&volume.store());
    assert_eq!(strays(&volume.store()), Vec::<std::path::PathBuf>::new());
    let (status, text) = readiness(weir).await;
    assert_eq!(status, 200, "{text}");
}

/// Somebody else takes the last of the room while a blob is written.
#[tokio::test(flavor = "multi_thread")]
async fn a5_a_file_system_that_fills_up_in_the_middle_of_a_blob_costs_no_pull() {
    let volume = Volume::tmpfs(8).await;
    let upstream = ScriptedUpstream::start().await;
    let (first, second) = (blob_of(6 * MIB, 1), blob_of(7 * MIB, 2));
    upstream.push_blob(REPOSITORY, &first);
    upstream.push_blob(REPOSITORY, &second);
    let gate = upstream.hold(Requests::blob(first.digest()).get().once(), 2 * MIB);
    let weir = volume.serve(&upstream).await;
    let url = format!("http://{}{}", weir.registry, blob_path(REPOSITORY, first.digest()));
    let client = tokio::spawn(async move { Answer::read(reqwest::get(url).await.unwrap()).await });
    gate.reached().await;
    let foreign = volume.store().join("foreign");
    let mut file = fs::File::create(&foreign).unwrap();
    while file.write_all(&[0; 4096]).is_ok() {}
    drop(file);
    gate.open();
    client.await.unwrap().assert_is(first.digest());
    // Whichever comes first: a look at what is free, or the write.
    let counted = async || errors(&weir, "enospc").await + errors(&weir, "full").await > 0;
    eventually("the failure is counted", counted).await;
    // Not even the first byte of the next one has room.
    pull_right(&weir, &second).await;
    assert_sound(&weir, &volume).await;
    fs::remove_file(foreign).unwrap();
    eventually("the blob is stored when there is room", async || {
        pull_right(&weir, &first).await;
        is_there(&volume.store(), &first)
    })
    .await;
    assert_sound(&weir, &volume).await;
}

/// There is room for bytes and none for another file.
#[tokio::test(flavor = "multi_thread")]
async fn a6_a_file_system_without_inodes_costs_no_pull() {
    let volume = Volume::ext4(32, &["-N", "64"]).await;
    let upstream = ScriptedUpstream::start().await;
    let blobs: Vec<Blob> = (0..80).map(|seed| blob_of(10_000, seed)).collect();
    push_all(&upstream, &blobs);
    let weir = volume.serve(&upstream).await;
    for blob in &blobs {
        pull_right(&weir, blob).await;
    }
    assert!(errors(&weir, "enospc").await > 0);
    assert_eq!(weir.metric("weir_store_degraded", &[("side", "write")]).await, 1);
    assert_sound(&weir, &volume).await;
    assert!(assert_blobs_hash_to_their_names(&volume.store()) > 0);
}

/// The disk was made read-only before the start, as after a repair that failed: what is stored is served, the rest passes
/// through.
#[tokio::test(flavor = "multi_thread")]
async fn a11_a_read_only_disk_is_served_from_and_left_as_it_is() {
    let volume = Volume::ext4(64, &[]).await;
    let upstream = ScriptedUpstream::start().await;
    let (stored, other) = (blob_of(MIB, 1), blob_of(MIB, 2));
    upstream.push_blob(REPOSITORY, &stored);
    upstream.push_blob(REPOSITORY, &other);
    let mut weir = volume.serve(&upstream).await;
    pull_right(&weir, &stored).await;
    eventually("the blob is stored", async || weir.metric("weir_stored_total", &[]).await == 1).await;
    weir.process.signal(Signal::TERM);
    assert!(weir.process.ended().await.success());
    run(Command::new("mount").args(["-o", "remount,ro"]).arg(volume.store())).await;
    let weir = volume.serve(&upstream).await;
    for blob in [&stored, &other, &stored, &other] {
        pull_right(&weir, blob).await;
    }
    assert_eq!((upstream.blob_gets(stored.digest()), upstream.blob_gets(other.digest())), (1, 2));
    assert_eq!(weir.metric("weir_store_degraded", &[("side", "write")]).await, 1);
    let (status, text) = readiness(&weir).await;
    assert!(status == 200 && text.contains("restart weir"), "{text}");
}

/// The directory belongs to another user, as after a restore by root.
#[tokio::test(flavor = "multi_thread")]
async fn a18_a_directory_of_somebody_else_is_refused_by_its_name_and_that_of_the_user() {
    const NOBODY: u32 = 65534;
    let volume = Volume::tmpfs(8).await;
    fs::set_permissions(volume.store(), fs::Permissions::from_mode(0o700)).unwrap();
    // The program, its configuration and its working directory are for everybody; only the store is not.
    let desk = volume.store().parent().unwrap().to_owned();
    fs::set_permissions(&desk, fs::Permissions::from_mode(0o755)).unwrap();
    let upstream = ScriptedUpstream::start().await;
    let registries = json!({ "registries": { REGISTRY: registry(&[&upstream]) } });
    let (program, config) = (desk.join("weir"), desk.join("weir.yaml"));
    fs::copy(weir_binary(), &program).unwrap();
    fs::write(&config, config_for(&volume.store(), registries).to_string()).unwrap();
    let mut command = Command::new(program);
    command.args(["serve", "-c"]).arg(&config).uid(NOBODY).gid(NOBODY).current_dir(&desk);
    let mut refused = Process::spawn(command);
    assert!(!refused.ended().await.success());
    let said = refused.output();
    let wanted = format!("user {NOBODY} has to be able to read and write {}", volume.store().display());
    assert!(said.contains(&wanted), "{said}");
}

/// Every flush fails: nothing is acknowledged or given a final name, no flush is tried twice, and when the disk works
/// again the next pull stores.
#[tokio::test(flavor = "multi_thread")]
async fn a9_a_blob_whose_flush_fails_is_never_acknowledged() {
    let volume = Volume::ext4(64, &[]).await;
    let upstream = ScriptedUpstream::start().await;
    let blobs: Vec<Blob> = (0..3).map(|seed| blob_of(MIB, seed)).collect();
    push_all(&upstream, &blobs);
    let weir = volume.serve(&upstream).await;
    let mut saboteur = fail_flushes(&weir).await;
    for blob in &blobs {
        pull_right(&weir, blob).await;
    }
    eventually("each has met the failure, once", async || errors(&weir, "eio").await == 3).await;
    assert_eq!(weir.metric("weir_stored_total", &[]).await, 0);
    assert_eq!(assert_blobs_hash_to_their_names(&volume.store()), 0);
    assert_sound(&weir, &volume).await;
    saboteur.signal(Signal::TERM);
    saboteur.ended().await;
    let injected = saboteur.output().matches("(INJECTED)").count();
    assert_eq!(injected, 3, "{}", saboteur.output());
    eventually("blobs are stored again", async || {
        pull_right(&weir, &blobs[0]).await;
        is_there(&volume.store(), &blobs[0])
    })
    .await;
    assert_sound(&weir, &volume).await;
}

/// Makes all flushes of files and directories fail from now on, until the process that is returned ends.
async fn fail_flushes(weir: &WeirProcess) -> Process {
    let mut command = Command::new("strace");
    command.args(["-f", "-e", "trace=fsync,fdatasync", "-e", "inject=fsync,fdatasync:error=EIO", "-p"]);
    command.arg(weir.process.pid().as_raw_nonzero().to_string()).stdin(Stdio::null());
    let mut strace = Process::spawn(command);
    eventually("strace has attached", async || {
        strace.assert_runs().await;
        strace.output().contains("attached")
    })
    .await;
    strace
}
