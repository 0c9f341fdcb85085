//! A blob that the client fetches from the bucket by itself: the same rights, and the same blob.

use url::Url;

use super::answer::BlobFacts;
use super::outcome::{CacheResult, Source};
use super::{PullService, Scope};
use crate::oci::RegistryHost;
use crate::oci::request::BlobRequest;

/// Where a client finds a blob that it asked for here.
#[derive(Debug, Clone)]
pub struct Detour {
    /// The address, good for some minutes and for whoever has it.
    pub address: Url,
    /// What is known about the blob.
    pub facts: BlobFacts,
}

impl PullService {
    /// Where the client is to fetch a blob, all of it, if not from here. Whatever speaks against it, the client is
    /// answered from here.
    pub async fn detour(&self, registry: &RegistryHost, request: &BlobRequest) -> Option<Detour> {
        let store = &self.shared.store;
        if !store.sends_elsewhere() {
            return None;
        }
        let upstreams = self.upstreams(registry).ok()?;
        let scope = Scope::new(registry, &request.repository, &upstreams);
        // What has yet to be confirmed by an upstream takes the usual way.
        let grant = self.shared.authority.granted(&scope, &request.digest).await?;
        let file = store.open_blob(&request.digest).await?;
        let size = file.length();
        if grant.size.is_some() && grant.size != size {
            return None;
        }
        let address = store.elsewhere(&request.digest, &file).await?;
        let facts = BlobFacts { size, result: CacheResult::Hit, source: Source::S3, upstream: None };
        Some(Detour { address, facts })
    }
}
