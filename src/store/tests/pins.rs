//! Pins: what is on record outlasts whatever befalls the machine, and protects content from the first moment on.

use super::machine::{End, Fault, Machine};
use super::mortal::{Kept, Mortal};
use super::*;
use crate::store::pins::{PinName, PinRecord, PinRoots, Root};

const ROOT: &str = "/store";

fn pin_name() -> PinName {
    "release".parse().unwrap()
}

fn record(since: u64) -> PinRecord {
    let images = vec!["reg.test/a/b:1".parse().unwrap()];
    PinRecord { reason: Some("x".repeat(10_000)), since, images, platforms: Vec::new() }
}

/// The process or the machine dies at any operation: a pin is the one that was acknowledged last or one begun since, and
/// one whose end was acknowledged stays away.
#[tokio::test]
async fn a_pin_is_what_was_acknowledged_or_later_wherever_the_machine_dies() {
    for seed in 0..150 {
        let machine = Machine::new(seed, Path::new(ROOT));
        let (mut acknowledged, mut begun) = (None, vec![None]);
        {
            let metrics = Metrics::new().unwrap();
            let store = try_open(Path::new(ROOT), machine.clone(), &metrics).await.unwrap();
            settle(&store).await;
            machine.fault_after(machine.random(40), Fault::Death);
            for since in 1..=3 {
                let meaning = (machine.random(3) > 0).then_some(since);
                begun.push(meaning);
                let done = match meaning {
                    Some(since) => store.pins().write(&pin_name(), &record(since)).await.is_ok(),
                    None => store.pins().remove(&pin_name()).await.is_ok(),
                };
                if done {
                    (acknowledged, begun) = (meaning, vec![meaning]);
                }
            }
        }
        let end = if seed % 3 == 0 { End::Killed } else { End::PowerCut };
        let machine = machine.next(end);
        let metrics = Metrics::new().unwrap();
        let store = try_open(Path::new(ROOT), machine.clone(), &metrics).await.unwrap();
        settle(&store).await;
        let found = store.pins().all().await.unwrap().records.remove(&pin_name());
        let meaning = found.as_ref().map(|found| found.since);
        assert!(begun.contains(&meaning), "seed {seed}: {meaning:?} is neither {acknowledged:?} nor of {begun:?}");
        assert!(found.is_none_or(|found| found == record(found.since)), "seed {seed}: it is torn");
        assert!(machine.files_below(&Path::new(ROOT).join("tmp")).is_empty(), "seed {seed}: something was left");
    }
}

#[tokio::test]
async fn what_was_whole_is_protected_from_the_first_moment_and_the_rest_of_the_index_is_not() {
    let root = TempDir::new().unwrap();
    let blob = |name: &str| {
        serde_json::json!({
            "mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": Digest::of(name.as_bytes()), "size": name.len(),
        })
    };
    let image = |name: &str| {
        Bytes::from(serde_json::json!({ "schemaVersion": 2, "config": blob(name), "layers": [blob(name)] }).to_string())
    };
    let child = |body: &Bytes, architecture: &str| {
        serde_json::json!({
            "mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": Digest::of(body), "size": body.len(),
            "platform": { "os": "linux", "architecture": architecture },
        })
    };
    let (amd64, arm64, signature) = (image("amd64"), image("arm64"), image("signature"));
    let index =
        serde_json::json!({ "schemaVersion": 2, "manifests": [child(&amd64, "amd64"), child(&arm64, "arm64")] });
    let index = Bytes::from(index.to_string());
    let all = [&amd64, &arm64, &signature, &index];
    {
        let Kept { store, .. } = Kept::open(root.path(), Mortal::immortal()).await;
        for content in all.into_iter().cloned().chain(["amd64", "arm64", "signature"].map(Bytes::from)) {
            store.put(&Digest::of(&content), content).await.unwrap();
        }
        let platforms = vec!["linux/amd64".parse().unwrap()];
        let pin = PinRecord { platforms, ..record(1) };
        store.pins().write(&pin_name(), &pin).await.unwrap();
        let (digest, beside) = (Digest::of(&index), vec![Digest::of(&signature)]);
        let root = Root { digest, beside, referrers: std::collections::BTreeMap::new(), whole_at: 1 };
        let roots = PinRoots { roots: [(pin.images[0].clone(), root)].into() };
        store.pins().write_roots(&pin_name(), &roots).await.unwrap();
        assert_eq!(store.pins().roots(&pin_name()).await.unwrap(), roots);
    }
    let Kept { store, .. } = Kept::open(root.path(), Mortal::immortal()).await;
    for (content, is_protected) in [
        (&index, true),
        (&amd64, true),
        (&signature, true),
        (&Bytes::from("amd64"), true),
        (&Bytes::from("signature"), true),
        (&arm64, false),
        (&Bytes::from("arm64"), false),
    ] {
        assert_eq!(store.is_protected(&Digest::of(content)), is_protected, "{content:?}");
    }
    // Who knows better has the last word.
    store.protect(std::iter::empty());
    assert!(!store.is_protected(&Digest::of(&index)));
    drop(store);
    // Where it cannot be read what is wanted, all that was whole stays.
    let record = root.path().join("pins").join(pin_name().as_str());
    std::fs::remove_file(&record).unwrap();
    std::fs::create_dir(&record).unwrap();
    let Kept { store, .. } = Kept::open(root.path(), Mortal::immortal()).await;
    for content in [&index, &amd64, &signature, &arm64] {
        assert!(store.is_protected(&Digest::of(content)), "{content:?}");
    }
    let found = store.pins().all().await.unwrap();
    assert!(found.records.is_empty() && found.unread.contains_key(&pin_name()), "{found:?}");
}

#[tokio::test]
async fn what_came_of_a_pin_is_not_nothing_because_it_cannot_be_read() {
    let root = TempDir::new().unwrap();
    let Kept { store, .. } = Kept::open(root.path(), Mortal::immortal()).await;
    assert_eq!(store.pins().roots(&pin_name()).await.unwrap(), PinRoots::default());
    let path = root.path().join("pins/_roots").join(pin_name().as_str());
    std::fs::create_dir_all(&path).unwrap();
    assert!(store.pins().roots(&pin_name()).await.is_err());
    std::fs::remove_dir(&path).unwrap();
    std::fs::write(&path, "{").unwrap();
    assert_eq!(store.pins().roots(&pin_name()).await.unwrap(), PinRoots::default(), "it will be written anew");
}

#[tokio::test]
async fn a_record_that_makes_no_sense_is_left_alone_and_costs_the_others_nothing() {
    let root = TempDir::new().unwrap();
    let Kept { store, .. } = Kept::open(root.path(), Mortal::immortal()).await;
    store.pins().write(&pin_name(), &record(1)).await.unwrap();
    std::fs::write(root.path().join("pins/torn"), "{").unwrap();
    std::fs::write(root.path().join("pins/Not A Name"), "{}").unwrap();
    let all = store.pins().all().await.unwrap();
    assert_eq!(all.records.keys().collect::<Vec<_>>(), [&pin_name()]);
    assert_eq!(all.unread.keys().map(PinName::as_str).collect::<Vec<_>>(), ["torn"]);
    assert!(root.path().join("pins/torn").exists());
    assert!(store.pins().remove(&pin_name()).await.unwrap());
    assert!(!store.pins().remove(&pin_name()).await.unwrap());
}

#[tokio::test]
async fn nothing_goes_while_nobody_can_tell_what_is_pinned() {
    let root = TempDir::new().unwrap();
    let (pinned, manifest) = (Digest::of(b"pinned"), |blob: &Digest| {
        let blob =
            serde_json::json!({ "mediaType": "application/vnd.oci.image.config.v1+json", "digest": blob, "size": 6 });
        Bytes::from(serde_json::json!({ "schemaVersion": 2, "config": blob, "layers": [] }).to_string())
    });
    let image = manifest(&pinned);
    {
        let Kept { store, .. } = Kept::open(root.path(), Mortal::immortal()).await;
        store.put(&pinned, Bytes::from_static(b"pinned")).await.unwrap();
        store.put(&Digest::of(&image), image.clone()).await.unwrap();
        store.pins().write(&pin_name(), &record(1)).await.unwrap();
        let (digest, beside) = (Digest::of(&image), Vec::new());
        let root = Root { digest, beside, referrers: std::collections::BTreeMap::new(), whole_at: 1 };
        let roots = PinRoots { roots: [(record(1).images[0].clone(), root)].into() };
        store.pins().write_roots(&pin_name(), &roots).await.unwrap();
    }
    // The directory is not to be listed: it is none for now.
    let (pins, aside) = (root.path().join("pins"), root.path().join("aside"));
    std::fs::rename(&pins, &aside).unwrap();
    std::fs::write(&pins, "").unwrap();
    let Kept { store, .. } = Kept::open(root.path(), Mortal::immortal()).await;
    store.counted().await;
    assert!(!store.is_protected(&pinned) && store.pins().all().await.is_err());
    assert!(store.reclaimable(u64::MAX).await.is_err() && store.reclaim_some(u64::MAX).await.is_err());
    assert!(!store.disk.make_room_for(0).unwrap(), "a download passes through instead");
    std::fs::remove_file(&pins).unwrap();
    std::fs::rename(&aside, &pins).unwrap();
    assert!(store.reclaimable(u64::MAX).await.is_ok() && store.disk.make_room_for(0).unwrap());
    assert!(store.is_protected(&pinned) && store.is_protected(&Digest::of(&image)));
}
