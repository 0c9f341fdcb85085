//! The walk at start: what is there, how long ago it was used, and what belongs together.
//!
//! It runs beside the pulls and may be late: what it has not come to is served all the same, and only does not go. All
//! it finds are hints, but the sizes: a time that is missing or wrong makes a choice worse. So its own reading of
//! manifests leaves no time behind: it is no use of them.

use std::collections::HashSet;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use super::{Image, RepositoryKey};
use crate::oci::{Algorithm, Digest, MAX_MANIFEST_BYTES, Manifest};
use crate::store::files::Files;
use crate::store::tags::TagRecord;
use crate::store::{Amount, Disk};

/// How deep indexes may nest, and repositories.
const MAX_DEPTH: usize = 4;
const MAX_COMPONENTS: usize = 64;

/// The most bytes of a tag record.
const MAX_RECORD_BYTES: usize = 16 * 1024;

impl Disk {
    /// Enters all blobs that are there into the index, for as long as `goes_on` says so. Foreign files, directories and
    /// links among them are passed over.
    pub(in crate::store) fn enter_blobs(&self, goes_on: impl Fn() -> bool) -> io::Result<Amount> {
        let (mut found, wall) = (Amount::default(), SystemTime::now());
        for algorithm in Algorithm::ALL {
            let directory = self.layout.algorithm_directory(algorithm);
            for shard in self.files.list(&directory)?.into_iter().take_while(|_| goes_on()) {
                let shard = directory.join(shard);
                // A foreign file among the shards is no directory to list.
                let Ok(names) = self.files.list(&shard) else { continue };
                for name in names {
                    let Ok(digest) = format!("{}:{name}", algorithm.as_str()).parse::<Digest>() else { continue };
                    // Nobody gives or takes a name between the look at a file and its entry.
                    let _naming = self.naming.lock();
                    let Ok(facts) = self.files.stat(&shard.join(name)) else { continue };
                    if !facts.is_file {
                        continue;
                    }
                    let stored = self.clock.of(facts.modified, wall);
                    let used = self.clock.of(facts.accessed.max(facts.modified), wall);
                    if self.index.lock().found(&digest, facts.length, stored, used, self.clock.now()) {
                        self.capacity.found(facts.length);
                        found.files += 1;
                        found.bytes += facts.length;
                    }
                }
            }
        }
        Ok(found)
    }

    /// Reads what tags mean, and what their images are made of.
    pub(in crate::store) fn enter_tags(&self, goes_on: &impl Fn() -> bool) -> io::Result<()> {
        let root = self.layout.repositories();
        for registry in self.files.list(&root)? {
            self.enter_repositories(&root.join(registry), MAX_COMPONENTS, goes_on);
        }
        Ok(())
    }

    fn enter_repositories(&self, directory: &Path, depth: usize, goes_on: &impl Fn() -> bool) {
        // A foreign file among them is no directory to list.
        let Ok(names) = self.files.list(directory) else { return };
        for name in names.into_iter().take_while(|_| goes_on()) {
            if name == "_tags" {
                self.enter_repository(directory, &directory.join(name));
            } else if !name.starts_with('_') && depth > 0 {
                self.enter_repositories(&directory.join(name), depth - 1, goes_on);
            }
        }
    }

    fn enter_repository(&self, repository: &Path, tags: &Path) {
        let key = RepositoryKey::of(repository);
        let Ok(names) = self.files.list(tags) else { return };
        let records = names.iter().filter_map(|name| {
            let text = read_whole(&self.files, &tags.join(name), MAX_RECORD_BYTES).ok()?;
            serde_json::from_slice::<TagRecord>(&text).ok()
        });
        let records: Vec<_> = records.collect();
        for TagRecord { digest, resolved_at, .. } in &records {
            self.index.lock().resolved(key, *resolved_at, digest, self.clock.now());
        }
        // A hostile index names the same one a thousand times over.
        let mut seen = HashSet::new();
        for TagRecord { digest, .. } in &records {
            self.enter_image(key, digest, MAX_DEPTH, &mut seen);
        }
    }

    fn enter_image(&self, repository: RepositoryKey, digest: &Digest, depth: usize, seen: &mut HashSet<Digest>) {
        if !seen.insert(*digest) {
            return;
        }
        let Ok(body) = read_whole(&self.files, &self.layout.blob(digest), MAX_MANIFEST_BYTES) else { return };
        let Ok(manifest) = Manifest::parse(None, &body) else { return };
        let image = Image::of(repository, (*digest, body.len() as u64), &manifest);
        self.index.lock().belongs(&image, self.clock.now());
        for child in image.manifests.iter().filter(|_| depth > 0) {
            self.enter_image(repository, child, depth - 1, seen);
        }
    }
}

/// All of a file of at most `most` bytes, for who looks and does not serve: that is no use of it.
pub(in crate::store) fn read_whole(files: &Arc<dyn Files>, path: &Path, most: usize) -> io::Result<Vec<u8>> {
    let handle = files.open_unnoticed(path)?;
    let length = usize::try_from(handle.length()?).unwrap_or(usize::MAX);
    if length > most {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    let mut text = vec![0; length];
    let read = handle.read_at(&mut text, 0)?;
    text.truncate(read);
    Ok(text)
}
