//! Who sends a blob: an upstream, or the bucket behind the store, which is one more to have it from.

use std::sync::Arc;

use bytes::Bytes;

use crate::store::bucket::Object;
use crate::upstream::{BlobBody, Break, BrokenBody};

/// The bucket among those who have sent bytes. No upstream has such a name.
pub(super) const BUCKET: &str = "(bucket)";

/// A blob that arrives.
#[derive(Debug)]
pub(super) enum Sender {
    /// From an upstream.
    Upstream(BlobBody),
    /// From the bucket.
    Bucket { name: Arc<str>, object: Box<Object> },
}

impl Sender {
    /// From the bucket.
    pub(super) fn bucket(object: Object) -> Self {
        Self::Bucket { name: BUCKET.into(), object: Box::new(object) }
    }

    /// What it is called.
    pub(super) fn name(&self) -> &Arc<str> {
        match self {
            Self::Upstream(body) => body.upstream(),
            Self::Bucket { name, .. } => name,
        }
    }

    /// The upstream, if it is one.
    pub(super) fn upstream(&self) -> Option<&Arc<str>> {
        match self {
            Self::Upstream(body) => Some(body.upstream()),
            Self::Bucket { .. } => None,
        }
    }

    /// See [`BlobBody::size`].
    pub(super) fn size(&self) -> Option<u64> {
        match self {
            Self::Upstream(body) => body.size(),
            Self::Bucket { object, .. } => Some(object.size()),
        }
    }

    /// See [`BlobBody::overlap`]. The bucket sends what is asked for.
    pub(super) fn overlap(&self) -> u64 {
        match self {
            Self::Upstream(body) => body.overlap(),
            Self::Bucket { .. } => 0,
        }
    }

    /// See [`BlobBody::chunk`]. What the bucket cannot go on with, an upstream can.
    pub(super) async fn chunk(&mut self) -> Result<Option<Bytes>, BrokenBody> {
        match self {
            Self::Upstream(body) => body.chunk().await,
            Self::Bucket { name, object } => object.next().await.map_err(|error| BrokenBody {
                upstream: Arc::clone(name),
                cause: Break::Reset,
                message: error.to_string(),
            }),
        }
    }

    /// See [`BlobBody::give_up`]. The bucket is judged by what it answers.
    pub(super) fn give_up(self, broken: &BrokenBody) {
        if let Self::Upstream(body) = self {
            body.give_up(broken);
        }
    }

    /// See [`BlobBody::broken`].
    pub(super) fn broken(&self, cause: Break, message: String) -> BrokenBody {
        BrokenBody { upstream: Arc::clone(self.name()), cause, message }
    }
}
