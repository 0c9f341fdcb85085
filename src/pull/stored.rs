//! Reading a stored file, as far as it is believed, until it fails.
//!
//! A file that cannot be read on, or is found to be wrong while it is read, does not end the answer: the reader goes on
//! elsewhere at the same byte ([`super::rejoin`]). What the client has of it by then is taken for right if the file was
//! verified before, and else compared with what comes.

use std::ops::Range;

use bytes::Bytes;

use super::fill::HELD_BACK;
use super::reader::ReadError;
use super::rejoin::Given;
use crate::sendfile::Regions;
use crate::store::{BlobFile, Flaw, StoreError, Verdict, Verification};

/// How far a stored file is believed.
#[derive(Debug)]
pub(super) enum Trust {
    /// It was hashed a short enough while ago.
    Verified,
    /// It is being hashed: the tail is held back until the verdict.
    Pending(Verification),
    /// Only a part of it is read, which alone proves nothing.
    Unverified,
}

/// A stored file that is read.
#[derive(Debug)]
pub(super) struct Stored {
    pub(super) file: BlobFile,
    pub(super) trust: Trust,
}

impl Stored {
    /// The next bytes from `position` on, up to `end` or the end of the file.
    pub(super) async fn read(
        &mut self,
        position: u64,
        end: Option<u64>,
        regions: Option<&Regions>,
    ) -> Result<Bytes, ReadError> {
        let length = self.file.length().unwrap_or(position);
        let end = end.unwrap_or(length);
        loop {
            let Trust::Pending(verification) = &mut self.trust else {
                let regions = regions.filter(|_| matches!(self.trust, Trust::Verified));
                return Ok(take(&self.file, position, end, regions).await?);
            };
            match verification.so_far() {
                Some(Verdict::Sound) => self.trust = Trust::Verified,
                Some(Verdict::Damaged(flaw)) => return Err(ReadError::Damaged(flaw)),
                None if position < length.saturating_sub(HELD_BACK) => {
                    return Ok(take(&self.file, position, end.min(length - HELD_BACK), None).await?);
                }
                None => {
                    verification.verdict().await;
                }
            }
        }
    }

    /// What of `range`, which the client has, is still to be proven. Nothing, if the file was verified: what is wrong
    /// with it now was not then.
    pub(super) fn unproven(&self, range: Range<u64>) -> Option<Given> {
        let given = Given::new(self.file.clone(), range);
        given.filter(|_| !matches!(self.trust, Trust::Verified))
    }

    /// What a download may begin with, after `error`: a file with wrong bytes is of no use from the first one on.
    pub(super) fn remains(&self, error: &ReadError) -> Option<BlobFile> {
        (!matches!(error, ReadError::Damaged(Flaw::Wrong))).then(|| self.file.clone())
    }
}

/// The next bytes of `start..end` of a file; announced, if they need not be read and nobody would wait for the disk.
pub(super) async fn take(
    file: &BlobFile,
    start: u64,
    end: u64,
    regions: Option<&Regions>,
) -> Result<Bytes, StoreError> {
    let region = regions.and_then(|regions| Some(regions.announce(file.region(start, end)?)));
    match region {
        Some(placeholder) => Ok(placeholder),
        None => file.read(start, end).await,
    }
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;
    use tokio_util::task::TaskTracker;

    use super::*;
    use crate::oci::Digest;
    use crate::pull::fixtures;
    use crate::store::Store;

    /// A stored blob of so many bytes, which is believed as `trust` says.
    async fn stored(root: &TempDir, length: usize, trust: impl FnOnce(&Store, &BlobFile) -> Trust) -> Stored {
        let (store, _) = fixtures::store(root.path(), TaskTracker::new()).await;
        let content = Bytes::from(vec![7; length]);
        let digest = Digest::of(&content);
        store.put(&digest, content).await.unwrap();
        let file = store.open_blob(&digest).await.unwrap();
        assert!(file.is_verified(), "it was hashed on its way in");
        let trust = trust(&store, &file);
        Stored { file, trust }
    }

    #[tokio::test]
    async fn verified_content_is_announced_to_those_who_can_send_it_and_to_nobody_else() {
        let root = TempDir::new().unwrap();
        let mut file = stored(&root, 100_000, |_, _| Trust::Verified).await;
        let placeholder = file.read(0, None, Some(&Regions::default())).await.unwrap();
        assert_eq!(placeholder.len(), 100_000);
        assert_ne!(placeholder, vec![7; 100_000], "nothing was read");
        assert_eq!(file.read(0, None, None).await.unwrap(), vec![7; 100_000]);
    }

    #[tokio::test]
    async fn content_that_is_not_verified_is_read() {
        let root = TempDir::new().unwrap();
        let mut part = stored(&root, 100_000, |_, _| Trust::Unverified).await;
        assert_eq!(part.read(0, Some(90_000), Some(&Regions::default())).await.unwrap(), vec![7; 90_000]);

        let (root, tail) = (TempDir::new().unwrap(), usize::try_from(HELD_BACK).unwrap());
        let length = tail + 1000;
        let pending =
            |store: &Store, file: &BlobFile| Trust::Pending(store.verify(&Digest::of(&vec![7; length]), file));
        let mut whole = stored(&root, length, pending).await;
        // The verdict cannot be there yet: nothing else runs before this waits for something.
        assert_eq!(whole.read(0, None, Some(&Regions::default())).await.unwrap(), vec![7; 1000]);
        // Behind it, the tail need not be read any more.
        let placeholder = whole.read(1000, None, Some(&Regions::default())).await.unwrap();
        assert_eq!(placeholder.len(), tail);
        assert_ne!(placeholder, vec![7; tail]);
    }
}
