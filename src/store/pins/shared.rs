//! Pins in a bucket: what replicas know of each other's.
//!
//! The bucket's records count. A replica writes its own there as soon as it can, and has a copy of the others' for when the
//! bucket is away: `pins/_shared/<name>` is a copy, `pins/<name>` has yet to get there.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;
use std::sync::Arc;

use serde::Serialize;

use super::{MAX_RECORD_BYTES, PinName, PinRecord, PinRoots, Pins, PinsOnRecord, removed, removed_all};
use crate::store::bucket::{Bucket, Haste};
use crate::store::error::StoreError;

impl Pins {
    /// Brings the copies here up to date, and what is here alone to the bucket. A bucket that is away changes nothing.
    /// Returns the pins whose records are in the bucket and cannot be read there, with the reasons.
    pub(super) async fn share(&self) -> BTreeMap<PinName, String> {
        // Who has laid it out is looked at first, and why it is left alone has been logged.
        let Some(Ok(bucket)) = self.disk.bucket_to_write().await else { return BTreeMap::new() };
        let disk = Arc::clone(&self.disk);
        let own = self.disk.pool.run("list", move || {
            let names = disk.files.list(&disk.layout.pins())?;
            let names = names.iter().filter_map(|name| name.parse::<PinName>().ok());
            Ok(names
                .filter_map(|name| Some((disk.read_json(&disk.layout.pin(&name)).ok()??, name)))
                .collect::<Vec<(PinRecord, _)>>())
        });
        for (record, name) in own.await.unwrap_or_default() {
            self.share_pin(&name, &record).await;
        }
        // Counted and logged by the bucket.
        let Ok(there) = self.shared_pins(bucket).await else { return BTreeMap::new() };
        let (disk, unread) = (Arc::clone(&self.disk), there.unread.clone());
        let copy = move || disk.copy_shared(&there);
        if let Err(error) = self.disk.pool.run_any(copy).await {
            self.disk.health.record(&error);
        }
        unread
    }

    /// All pins in the bucket.
    async fn shared_pins(&self, bucket: &Bucket) -> Result<PinsOnRecord, StoreError> {
        let mut pins = PinsOnRecord::default();
        let Some(tier) = &self.disk.tier else { return Ok(pins) };
        let mut followed = tier.pins.lock().await;
        // Who pins something waits for this.
        let found = followed.look(bucket, &bucket.layout().pins(), MAX_RECORD_BYTES as u64, Haste::Awaited).await?;
        for (name, read) in found {
            let Ok(name) = name.parse::<PinName>() else { continue };
            match read {
                Ok(record) => drop(pins.records.insert(name, PinRecord::clone(&record))),
                Err(error) => {
                    tracing::warn!(%name, %error, "The record of a pin in the bucket cannot be read, and counts as last known");
                    pins.unread.insert(name, error.to_string());
                }
            }
        }
        Ok(pins)
    }

    /// Tells the other replicas of a pin. If that fails, the next time that pins are read does.
    pub(super) async fn share_pin(&self, name: &PinName, record: &PinRecord) {
        let shared = match self.disk.bucket_to_write().await {
            None => return,
            Some(Ok(bucket)) => bucket.write_record(&bucket.layout().pin(name), json(record)).await,
            Some(Err(error)) => Err(error),
        };
        if shared.is_err() {
            tracing::warn!(%name, "A pin is not in the bucket yet, so other replicas do not know of it");
            return;
        }
        let (disk, name, text) = (Arc::clone(&self.disk), name.clone(), json(record));
        let moved = move || {
            disk.replace_record(&disk.layout.shared_pin(&name), &text)?;
            let gone = removed(disk.files.remove(&disk.layout.pin(&name)));
            gone.map(drop).map_err(|source| StoreError::Io { operation: "write", source: Arc::new(source) })
        };
        if let Err(error) = self.disk.pool.run_any(moved).await {
            self.disk.health.record(&error);
        }
    }

    /// Takes a pin out of the bucket. Whether it was there; `false` without a bucket.
    pub(super) async fn unshare(&self, name: &PinName) -> Result<bool, StoreError> {
        let Some(bucket) = self.disk.bucket_to_write().await.transpose()? else { return Ok(false) };
        let was_there = bucket.has_record(&bucket.layout().pin(name)).await?;
        bucket.remove_record(&bucket.layout().pin(name)).await?;
        // What is left of it means nothing without the pin.
        let _ = bucket.remove_record(&bucket.layout().pin_roots(name)).await;
        Ok(was_there)
    }

    /// What came of a pin here or elsewhere, whichever was found whole later. While the bucket is away, what is known here
    /// has to do.
    ///
    /// # Errors
    /// If nothing is known here and the bucket cannot be asked, or has a record that makes no sense.
    pub(super) async fn with_shared_roots(&self, name: &PinName, mut here: PinRoots) -> Result<PinRoots, StoreError> {
        let Some(bucket) = self.disk.bucket() else { return Ok(here) };
        let read = bucket.read_record(&bucket.layout().pin_roots(name), MAX_RECORD_BYTES as u64).await;
        let parse = |text: bytes::Bytes| {
            serde_json::from_slice::<PinRoots>(&text).map_err(|error| bucket.makes_no_sense(name.as_str(), &error))
        };
        let there = match read.and_then(|text| text.map(parse).transpose()) {
            Ok(there) => there,
            // Whoever took it for nothing would write over what it keeps.
            Err(error) if here.roots.is_empty() => return Err(error),
            Err(_) => None,
        };
        for (image, root) in there.unwrap_or_default().roots {
            if here.roots.get(&image).is_none_or(|known| known.whole_at < root.whole_at) {
                here.roots.insert(image, root);
            }
        }
        Ok(here)
    }

    /// Tells the other replicas what came of a pin. What fails is counted and logged by the bucket.
    pub(super) async fn share_roots(&self, name: &PinName, roots: &PinRoots) -> Result<(), StoreError> {
        let Some(bucket) = self.disk.bucket_to_write().await.transpose()? else { return Ok(()) };
        let (layout, record) = (bucket.layout(), json(roots));
        bucket.write_record(&layout.pin_roots(name), record).await?;
        // Another replica may have taken the pin away in the meantime, and what came of it before this was there.
        if !bucket.has_record(&layout.pin(name)).await? && !self.is_here_alone(name).await {
            bucket.remove_record(&layout.pin_roots(name)).await?;
        }
        Ok(())
    }

    /// Whether a pin has yet to get to the bucket.
    async fn is_here_alone(&self, name: &PinName) -> bool {
        let (disk, path) = (Arc::clone(&self.disk), self.disk.layout.pin(name));
        // Whoever cannot tell takes nothing away.
        let read = move || Ok(!matches!(disk.read_json::<PinRecord>(&path), Ok(None)));
        self.disk.pool.run("read", read).await.unwrap_or(true)
    }
}

impl super::Disk {
    /// Makes the copies here those that are `there`. Blocks.
    fn copy_shared(&self, there: &PinsOnRecord) -> Result<(), StoreError> {
        let failed = |source: io::Error| StoreError::Io { operation: "write", source: Arc::new(source) };
        let directory = self.layout.shared_pins();
        let here = self.files.list(&directory).map_err(failed)?;
        let here: BTreeSet<PinName> = here.iter().filter_map(|name| name.parse().ok()).collect();
        let is_there = |name: &PinName| there.records.contains_key(name) || there.unread.contains_key(name);
        for name in here.iter().filter(|name| !is_there(name)) {
            let gone = [directory.join(Path::new(name.as_str())), self.layout.pin_roots(name)];
            removed_all(self.files.as_ref(), &gone).map_err(failed)?;
        }
        let mut outcome = Ok(());
        for (name, record) in &there.records {
            let path = self.layout.shared_pin(name);
            let known = if here.contains(name) { self.read_json::<PinRecord>(&path).ok().flatten() } else { None };
            if known.as_ref() != Some(record) {
                // One that cannot be replaced costs the others nothing.
                outcome = self.replace_record(&path, &json(record)).and(outcome);
            }
        }
        outcome
    }
}

fn json<T: Serialize>(record: &T) -> bytes::Bytes {
    // A record is strings and numbers: it always serialises.
    serde_json::to_vec(record).unwrap_or_default().into()
}
