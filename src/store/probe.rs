//! Looks whether a disk that is left alone can be written again: a small file, written, flushed and removed.

use std::sync::{Arc, Weak};

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::Disk;
use super::error::StoreError;

/// About what a disk gives away at least.
const PROBE: [u8; 4096] = [0x57; 4096];

/// Probes `disk` at the `times` that its health has set, for as long as it is there.
pub(super) async fn probe(disk: Weak<Disk>, mut times: watch::Receiver<Option<Instant>>) {
    loop {
        let Ok(time) = times.wait_for(Option::is_some).await.map(|time| *time) else { return };
        let Some(time) = time else { continue };
        tokio::select! {
            biased;
            // Earlier, later, or not at all.
            changed = times.changed() => match changed {
                Ok(()) => continue,
                Err(_) => return,
            },
            () = sleep_until(time) => {}
        }
        let Some(disk) = disk.upgrade() else { return };
        let outcome = disk.try_writing().await;
        disk.health.probed(outcome);
    }
}

impl Disk {
    async fn try_writing(&self) -> Result<(), StoreError> {
        let (path, files) = (self.next_temporary(), Arc::clone(&self.files));
        let try_it = move || {
            let handle = files.create(&path)?;
            let written = handle.write_all_at(&PROBE, 0).and_then(|()| handle.sync());
            let removed = files.remove(&path);
            written.and(removed)?;
            path.parent().map_or(Ok(()), |directory| files.sync_directory(directory))
        };
        self.pool.run("probe", try_it).await
    }
}
