//! Every operation of a day in the life of a store, and exactly that one fails.
//!
//! The seam can do all that fault points in the code could, at every place and not only at those somebody thought of: so
//! there are none.

use std::time::Duration;

use super::machine::{End, Fault, Machine};
use super::mortal::{HALF, content};
use super::*;
use crate::store::verify::Verdict;

const ROOT: &str = "/store";
/// Broken, full, read-only, and without a descriptor left.
const ERRORS: [i32; 4] = [5, 28, 30, 24];

/// Errors in turn, and all of them at every operation with `--long`.
fn faults(operation: usize) -> Vec<Fault> {
    if std::env::var_os("WEIR_TEST_LONG").is_some() {
        return ERRORS.map(Fault::Error).into_iter().chain([Fault::Panic]).collect();
    }
    vec![Fault::Error(ERRORS[operation % ERRORS.len()]), Fault::Panic]
}

/// What a day is about.
#[derive(Debug, Clone)]
struct Contents {
    small: (Bytes, Digest),
    large: (Bytes, Digest),
    rotten: (Bytes, Digest),
    given_up: (Bytes, Digest),
}

impl Contents {
    fn new() -> Self {
        let (whole, _) = content(HALF + 3);
        let part = |range: std::ops::Range<usize>| {
            let part = whole.slice(range);
            (part.clone(), Digest::of(&part))
        };
        Self { small: part(0..1000), large: part(0..HALF), rotten: part(1..3000), given_up: part(2..HALF) }
    }

    fn all(&self) -> [&(Bytes, Digest); 4] {
        [&self.small, &self.large, &self.rotten, &self.given_up]
    }
}

/// Fills a blob in two pieces; says whether it was acknowledged.
async fn fill(store: &Store, (content, digest): &(Bytes, Digest)) -> Result<(), StoreError> {
    let mut spool = store.spool(digest, Some(content.len() as u64)).await?;
    let resumed = usize::try_from(spool.resumed()).unwrap();
    let middle = resumed.midpoint(content.len());
    spool.append(vec![content.slice(resumed..middle)]).await?;
    spool.append(vec![content.slice(middle..)]).await?;
    spool.publish().await
}

/// Stores, reads and sets aside; returns what was acknowledged. Failures are the store's, and no reason to stop.
async fn day(machine: Machine, contents: Contents) -> Vec<Digest> {
    let mut acknowledged = Vec::new();
    let Ok(store) = try_open(Path::new(ROOT), machine, &Metrics::new().unwrap()).await else { return acknowledged };
    if store.put(&contents.small.1, contents.small.0.clone()).await.is_ok() {
        acknowledged.push(contents.small.1);
    }
    if fill(&store, &contents.large).await.is_ok() {
        acknowledged.push(contents.large.1);
    }
    if let Ok(mut spool) = store.spool(&contents.given_up.1, None).await {
        let _ = spool.append(vec![contents.given_up.0.slice(..HALF - 100)]).await;
    }
    let (registry, repository, tag) =
        ("docker.io".parse().unwrap(), "library/nginx".parse().unwrap(), "1".parse().unwrap());
    let record = TagRecord {
        digest: contents.small.1,
        media_type: "application/vnd.oci.image.index.v1+json".parse().unwrap(),
        size: 1,
        upstream: "hub".into(),
        provisional: false,
        resolved_at: 1,
        verified_at: 2,
    };
    let _ = store.tags().write(&registry, &repository, &tag, &record).await;
    assert!(store.tags().read(&registry, &repository, &tag).await.is_none_or(|read| read == record));
    store.links().insert_in_background(&registry, &repository, &acknowledged);
    settle(&store).await;
    if let Some(blob) = store.open_blob(&contents.large.1).await
        && let Ok(read) = blob.read(0, HALF as u64).await
    {
        assert_eq!(read, contents.large.0[..read.len()]);
    }
    if let Some(blob) = store.open_blob(&contents.rotten.1).await {
        assert_ne!(store.verify_now(&contents.rotten.1, &blob).await, Verdict::Sound);
        assert!(store.open_blob(&contents.rotten.1).await.is_none(), "it is not served, even if it keeps its name");
    }
    acknowledged
}

/// A machine whose store has a blob that rotted and a download that an earlier process left.
async fn yesterday(contents: &Contents) -> Machine {
    let machine = Machine::new(1, Path::new(ROOT));
    let store = open_quietly(&machine).await;
    store.put(&contents.rotten.1, contents.rotten.0.clone()).await.unwrap();
    machine.rot(&store.disk.layout.blob(&contents.rotten.1));
    let mut spool = store.spool(&contents.large.1, Some(HALF as u64)).await.unwrap();
    spool.append(vec![contents.large.0.slice(..HALF - 1000)]).await.unwrap();
    drop(spool);
    settle(&store).await;
    drop(store);
    machine.next(End::Killed)
}

/// Each operation of the store fails once, by an error or a panic: what it has acknowledged is there, nothing that is
/// there is wrong, no file stays open, no room stays reserved, and everything can be stored afterwards.
#[tokio::test]
async fn a7_whichever_operation_fails_nothing_is_wrong_and_nothing_leaks() {
    let contents = Contents::new();
    let calm = yesterday(&contents).await;
    let acknowledged = day(calm.clone(), contents.clone()).await;
    assert_eq!(acknowledged.len(), 2, "a day without a fault");
    let operations = calm.operations();
    assert!(operations > 60, "{operations} operations");
    for operation in 0..operations {
        for fault in faults(operation) {
            let what = format!("operation {operation}, {fault:?}");
            let machine = yesterday(&contents).await;
            machine.fault_after(operation, fault);
            let panicked = tokio::spawn(day(machine.clone(), contents.clone())).await;
            assert!(machine.is_spent(), "{what}");
            assert!(panicked.is_ok() || fault == Fault::Panic, "{what}");
            for digest in panicked.unwrap_or_default() {
                check_blob(&machine, &contents, &digest, &what);
            }
            assert_eq!(machine.open_files(), 0, "{what}: files stay open");
            let store = open_quietly(&machine).await;
            for content in contents.all() {
                if store.open_blob(&content.1).await.is_none() || content.1 == contents.rotten.1 {
                    fill(&store, content).await.unwrap_or_else(|error| panic!("{what}: {error}"));
                }
                check_blob(&machine, &contents, &content.1, &what);
            }
        }
    }
}

/// The process goes on after the fault, with what it remembers.
#[tokio::test(start_paused = true)]
async fn whichever_operation_fails_the_same_process_stores_everything_afterwards() {
    let contents = Contents::new();
    let mut operation = 0;
    loop {
        let machine = Machine::new(1, Path::new(ROOT));
        let metrics = Metrics::new().unwrap();
        let store = try_open(Path::new(ROOT), machine.clone(), &metrics).await.unwrap();
        settle(&store).await;
        let [fault, _] = faults(operation)[..2] else { unreachable!() };
        machine.fault_after(operation, fault);
        for _ in 0..2 {
            // A disk that said it was read-only is tried again after a while.
            while store.disk.health.admit_writing().is_err() {
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            for content in contents.all() {
                if store.stat(&content.1).await.is_none() {
                    let _ = fill(&store, content).await;
                }
            }
        }
        let is_over = !machine.is_spent();
        for content in contents.all() {
            check_blob(&machine, &contents, &content.1, &format!("operation {operation}"));
        }
        let total: usize = contents.all().iter().map(|(content, _)| content.len()).sum();
        assert_eq!(metrics.store.bytes.get(), i64::try_from(total).unwrap(), "operation {operation}: room is held");
        assert_eq!(metrics.store.objects.get(), 4, "operation {operation}");
        // What could not be removed is removed by the next start.
        let left = || machine.files_below(&Path::new(ROOT).join("tmp")).len();
        assert!(left() <= 1, "operation {operation}");
        drop(store);
        open_quietly(&machine.next(End::Killed)).await;
        assert_eq!(left(), 0, "operation {operation}");
        if is_over {
            break;
        }
        operation += 1;
    }
    assert!(operation > 30, "{operation} operations");
}

/// Missing rights are for an operator to put right: the start ends, and says which directory it is about.
#[tokio::test]
async fn a_directory_that_may_not_be_used_ends_the_start_by_its_name() {
    let machine = Machine::new(1, Path::new(ROOT));
    machine.fault_after(0, Fault::Error(13));
    let error = try_open(Path::new(ROOT), machine, &Metrics::new().unwrap()).await.unwrap_err();
    let (text, user) = (error.to_string(), rustix::process::geteuid().as_raw());
    assert!(text.contains(ROOT) && text.contains(&format!("user {user} ")), "{text}");
}

async fn open_quietly(machine: &Machine) -> Store {
    let store = try_open(Path::new(ROOT), machine.clone(), &Metrics::new().unwrap()).await.unwrap();
    settle(&store).await;
    store
}

fn check_blob(machine: &Machine, contents: &Contents, digest: &Digest, what: &str) {
    let path = Layout::new(Path::new(ROOT)).blob(digest);
    let (content, _) = contents.all().into_iter().find(|(_, known)| known == digest).unwrap();
    let files = machine.files_below(&path);
    assert!(files.len() == 1 && files[0].1 == *content, "{what}: {digest} was acknowledged");
}
