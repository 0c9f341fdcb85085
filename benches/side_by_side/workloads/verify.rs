//! Passes that hash every body.

use anyhow::Result;
use weir::oci::Digest;

use crate::content::Image;
use crate::driver::{Client, Failures, Request};
use crate::peers::Peer;

/// A request and what its body has to hash to.
#[derive(Debug, Clone)]
pub(super) struct Check {
    pub(super) request: Request,
    pub(super) digest: Digest,
}

/// Everything of an image, in the order of a pull.
pub(super) fn whole(image: &Image) -> Vec<Check> {
    let manifest = image.manifest.digest;
    let manifests = [image.get_tag(), image.get_manifest()].map(|request| Check { request, digest: manifest });
    manifests.into_iter().chain(blobs(image)).collect()
}

/// The blobs of an image: its config, then its layers.
pub(super) fn blobs(image: &Image) -> Vec<Check> {
    image.blobs.iter().map(|blob| Check { request: image.get_blob(blob), digest: blob.digest }).collect()
}

/// Makes every request once, over one connection, and notes what is not as it should be.
pub(super) fn verify(peer: &Peer, checks: &[Check]) -> Result<Failures> {
    let mut failures = Failures::default();
    let mut client = Client::connect(peer.address)?;
    for check in checks {
        match client.hash(&check.request) {
            Ok((_, digest)) if digest == check.digest => {}
            Ok(_) => failures.note(&"The body does not hash to the digest"),
            Err(broken) => {
                failures.note(&broken);
                client = Client::connect(peer.address)?;
            }
        }
    }
    Ok(failures)
}
