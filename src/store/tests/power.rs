//! Many short lives of a store on a machine that forgets, and what each of them left.
//!
//! A life is a script that chance writes: blobs stored at once and in pieces, downloads given up and gone on with, tags
//! and links. It ends by `kill -9` or a power cut at an operation of its own. Each failure names its seed;
//! `WEIR_TEST_SEED` repeats it alone.

use std::collections::HashMap;

use super::machine::{End, Fault, Machine};
use super::mortal::content;
use super::*;
use crate::store::flush::INTERVAL;
use crate::store::layout::digest_of_spool;

const ROOT: &str = "/store";
const EIO: i32 = 5;

/// The seeds of a run: one that was asked for, or some.
fn seeds(few: u64) -> Vec<u64> {
    if let Some(seed) = std::env::var("WEIR_TEST_SEED").ok().and_then(|text| text.parse().ok()) {
        return vec![seed];
    }
    let first = SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs() * 1000;
    let count = if std::env::var_os("WEIR_TEST_LONG").is_some() { 10 * few } else { few };
    (first..first + count).collect()
}

/// One store through its lives.
struct Lives {
    seed: u64,
    machine: Machine,
    /// What all content is cut from.
    source: Bytes,
    /// All content that was ever to be stored.
    contents: HashMap<Digest, Bytes>,
    /// What the store has said is stored.
    acknowledged: Vec<Digest>,
    /// What the tag may mean after a crash: the last meaning that was acknowledged, and those begun since.
    meanings: Vec<u64>,
    /// Bytes that an earlier process had left and that did not have to come again.
    resumed: u64,
}

impl Lives {
    fn new(seed: u64, source: Bytes) -> Self {
        let machine = Machine::new(seed, Path::new(ROOT));
        let (contents, acknowledged) = (HashMap::new(), Vec::new());
        Self { seed, machine, source, contents, acknowledged, meanings: Vec::new(), resumed: 0 }
    }

    /// A process: opens the store, meets its `fault`, works until its script or its life is over.
    async fn live(&mut self, fault: (usize, Fault), longest: usize) {
        self.machine.fault_after(fault.0, fault.1);
        let metrics = Metrics::new().unwrap();
        let Ok(store) = try_open(Path::new(ROOT), self.machine.clone(), &metrics).await else { return };
        for _ in 0..=self.machine.random(6) {
            match self.machine.random(6) {
                0 | 1 => self.put(&store).await,
                2 | 3 => self.fill(&store, longest).await,
                4 => self.tag(&store).await,
                _ => {
                    let digests: Vec<_> = self.contents.keys().copied().collect();
                    let (registry, repository, _) = place();
                    store.links().insert_in_background(&registry, &repository, &digests);
                }
            }
        }
        settle(&store).await;
    }

    async fn put(&mut self, store: &Store) {
        let (digest, content) = self.some_content(20_000);
        // What is there already is not stored again, nor is it acknowledged a second time.
        let is_new = store.stat(&digest).await.is_none();
        if store.put(&digest, content).await.is_ok() && is_new {
            self.acknowledged.push(digest);
        }
    }

    /// Fetches a blob in pieces, or goes on with one, and perhaps gives it up.
    async fn fill(&mut self, store: &Store, longest: usize) {
        let (digest, content) = self.some_content(longest);
        if store.stat(&digest).await.is_some() {
            return;
        }
        let size = (self.machine.random(2) == 0).then_some(content.len() as u64);
        let Ok(mut spool) = store.spool(&digest, size).await else { return };
        let mut offset = usize::try_from(spool.resumed()).unwrap();
        let end = if self.machine.random(2) == 0 { content.len() } else { self.machine.random(content.len() + 1) };
        while offset < end {
            let piece = offset..end.min(offset + 1 + self.machine.random(longest / 3));
            offset = piece.end;
            if spool.append(vec![content.slice(piece)]).await.is_err() {
                return;
            }
        }
        if end == content.len() && spool.publish().await.is_ok() {
            self.acknowledged.push(digest);
        }
    }

    async fn tag(&mut self, store: &Store) {
        let (registry, repository, tag) = place();
        let meaning = self.meanings.last().map_or(1, |last| last + 1);
        self.meanings.push(meaning);
        let record = TagRecord {
            digest: Digest::of(b"manifest"),
            media_type: "application/vnd.oci.image.index.v1+json".parse().unwrap(),
            size: meaning,
            upstream: "hub".into(),
            provisional: false,
            resolved_at: 1,
            verified_at: 2,
        };
        let _ = store.tags().write(&registry, &repository, &tag, &record).await;
    }

    /// Content of an earlier action or of none.
    fn some_content(&mut self, longest: usize) -> (Digest, Bytes) {
        let length = self.machine.random(longest);
        let first = self.machine.random(4);
        let content = self.source.slice(first..first + length);
        let digest = Digest::of(&content);
        self.contents.insert(digest, content.clone());
        // Old content half of the time, if there is any: something may have been left of it.
        let mut known: Vec<_> = self.contents.keys().copied().collect();
        known.sort_by_key(Digest::to_string);
        if self.machine.random(2) == 0 {
            return (digest, content);
        }
        let chosen = known[self.machine.random(known.len())];
        (chosen, self.contents[&chosen].clone())
    }

    /// The next process finds what was promised.
    async fn come_to(&mut self, end: End) {
        let seed = self.seed;
        self.machine = self.machine.next(end);
        let metrics = Metrics::new().unwrap();
        let store = try_open(Path::new(ROOT), self.machine.clone(), &metrics).await.unwrap();
        settle(&store).await;
        let mut bytes = 0;
        for (path, found) in self.machine.files_below(&Path::new(ROOT).join("blobs")) {
            let name = path.file_name().unwrap().to_str().unwrap();
            assert_eq!(Digest::of(&found).hex(), name, "seed {seed}: a final name is not that of its content");
            bytes += found.len();
        }
        for digest in &self.acknowledged {
            let blob = store.open_blob(digest).await;
            let blob = blob.unwrap_or_else(|| panic!("seed {seed}: {digest} was acknowledged, and is gone"));
            let whole = blob.read_all(usize::MAX).await.unwrap().unwrap_or_default();
            assert!(whole == self.contents[digest], "seed {seed}: {digest} is torn");
        }
        for (path, found) in self.machine.files_below(&Path::new(ROOT).join("tmp")) {
            let digest = digest_of_spool(path.with_extension("part").file_name().unwrap().to_str().unwrap());
            let digest = digest.unwrap_or_else(|| panic!("seed {seed}: {} was left", path.display()));
            if path.extension().is_some_and(|end| end == "part") {
                let begins = self.contents[&digest].starts_with(&found);
                assert!(begins, "seed {seed}: {} bytes were kept that never were in {digest}", found.len());
                bytes += found.len();
                self.resumed += found.len() as u64;
            }
        }
        bytes += self.set_aside();
        assert_eq!(metrics.store.bytes.get(), i64::try_from(bytes).unwrap(), "seed {seed}: what is there is counted");
        let (registry, repository, tag) = place();
        if let Some(record) = store.tags().read(&registry, &repository, &tag).await {
            assert!(self.meanings.contains(&record.size), "seed {seed}: the tag never meant {}", record.size);
        }
        drop(store);
        self.machine = self.machine.next(End::Killed);
    }

    /// The bytes of files that could not be read once.
    fn set_aside(&self) -> usize {
        let files = self.machine.files_below(&Path::new(ROOT).join("quarantine"));
        files.iter().map(|(_, found)| found.len()).sum()
    }

    /// Whatever has happened, everything can be stored now.
    async fn store_everything(&self) {
        let metrics = Metrics::new().unwrap();
        let store = try_open(Path::new(ROOT), self.machine.clone(), &metrics).await.unwrap();
        for (digest, content) in &self.contents {
            if store.stat(digest).await.is_none() {
                let mut spool = store.spool(digest, Some(content.len() as u64)).await.unwrap();
                let rest = content.slice(usize::try_from(spool.resumed()).unwrap()..);
                spool.append(vec![rest]).await.unwrap();
                spool.publish().await.unwrap_or_else(|error| panic!("seed {}: {digest}: {error}", self.seed));
            }
        }
        settle(&store).await;
        let total = self.contents.values().map(Bytes::len).sum::<usize>() + self.set_aside();
        assert_eq!(metrics.store.bytes.get(), i64::try_from(total).unwrap(), "seed {}", self.seed);
        assert!(self.machine.files_below(&Path::new(ROOT).join("tmp")).is_empty(), "seed {}", self.seed);
    }
}

fn place() -> (crate::oci::RegistryHost, crate::oci::RepositoryName, crate::oci::Tag) {
    ("docker.io".parse().unwrap(), "library/nginx".parse().unwrap(), "1".parse().unwrap())
}

/// Runs a store through a few lives, each of which ends as chance has it; returns how many bytes were gone on with.
async fn lives(seed: u64, source: &Bytes) -> u64 {
    let longest = source.len() - 4;
    let mut lives = Lives::new(seed, source.clone());
    for _ in 0..4 {
        let at = lives.machine.random(150);
        let fault = if lives.machine.random(4) == 0 { Fault::Error(EIO) } else { Fault::Death };
        lives.live((at, fault), longest).await;
        let end = if lives.machine.random(3) == 0 { End::Killed } else { End::PowerCut };
        lives.come_to(end).await;
    }
    lives.store_everything().await;
    lives.resumed
}

/// The process or the machine dies at any operation, or one operation fails before that: a blob is complete or absent,
/// and what was acknowledged is complete.
#[tokio::test]
async fn a1_whatever_a_crash_forgets_a_blob_is_complete_or_absent() {
    let (source, _) = content(3 << 20);
    let mut resumed = 0;
    let seeds = seeds(50);
    for seed in &seeds {
        resumed += lives(*seed, &source).await;
    }
    assert!(resumed > 0 || seeds.len() == 1, "nothing was ever gone on with");
}

/// The same with downloads so long that they are flushed on their way: what of them outlasts a power cut is what was
/// flushed.
#[tokio::test]
async fn a2_whatever_a_crash_forgets_what_was_flushed_is_gone_on_with() {
    let (source, _) = content(usize::try_from(INTERVAL).unwrap() * 3 / 2);
    for seed in seeds(2) {
        lives(seed, &source).await;
    }
}
