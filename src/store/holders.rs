//! Who may serve a blob: the links of all repositories, looked through for a few digests.
//!
//! That costs a look per repository and digest, so it is for what happens seldom.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use super::Links;
use super::error::StoreError;
use super::files::Files;
use super::layout::link_name;
use crate::oci::{Digest, RegistryHost, RepositoryName};

/// How many components of the name of a repository are followed.
const MAX_COMPONENTS: usize = 64;

/// A repository that may serve something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// Its registry.
    pub registry: RegistryHost,
    /// Its name there.
    pub repository: RepositoryName,
}

impl Links {
    /// Which repositories may serve each of `digests`, as far as is noted here.
    pub async fn holders(&self, digests: Vec<Digest>) -> Result<HashMap<Digest, Vec<Holder>>, StoreError> {
        let (files, root) = (Arc::clone(&self.disk.files), self.disk.layout.repositories());
        let look = move || {
            let mut search = Search { files: files.as_ref(), digests: &digests, found: HashMap::new() };
            for directory in files.list(&root)? {
                // A port is spelled with an underscore there, which no name of a host has.
                let Ok(registry) = directory.replace('_', ":").parse::<RegistryHost>() else { continue };
                search.below(&root.join(directory), &registry, "", MAX_COMPONENTS);
            }
            Ok(search.found)
        };
        self.disk.pool.run("list", look).await
    }
}

struct Search<'a> {
    files: &'a dyn Files,
    digests: &'a [Digest],
    found: HashMap<Digest, Vec<Holder>>,
}

impl Search<'_> {
    fn below(&mut self, directory: &Path, registry: &RegistryHost, name: &str, depth: usize) {
        // A foreign file among them is no directory to list.
        let Ok(entries) = self.files.list(directory) else { return };
        for entry in entries {
            if entry == "_links" {
                if let Ok(repository) = name.parse::<RepositoryName>() {
                    self.in_links(&directory.join(entry), &Holder { registry: registry.clone(), repository });
                }
            } else if !entry.starts_with('_') && depth > 0 {
                let name = if name.is_empty() { entry.clone() } else { format!("{name}/{entry}") };
                self.below(&directory.join(entry), registry, &name, depth - 1);
            }
        }
    }

    fn in_links(&mut self, directory: &Path, holder: &Holder) {
        for digest in self.digests {
            if self.files.stat(&directory.join(link_name(digest))).is_ok() {
                self.found.entry(*digest).or_default().push(holder.clone());
            }
        }
    }
}
