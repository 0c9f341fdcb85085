//! What tests of this room begin with.

use std::path::Path;
use std::sync::Arc;

use tokio_util::task::TaskTracker;

use super::Scope;
use crate::config::{SizeLimit, StoreConfig};
use crate::store::Store;
use crate::store::disk::DiskFiles;
use crate::telemetry::Metrics;
use crate::upstream::Generation;

/// A store on the real disk, which may take all of that. What it does in the background is tracked by `background`.
pub(super) async fn store(root: &Path, background: TaskTracker) -> (Store, Metrics) {
    let config = StoreConfig {
        path: root.to_owned(),
        max_size: SizeLimit::Percent(80.0),
        keep_free: SizeLimit::Bytes(0),
        ..StoreConfig::default()
    };
    let metrics = Metrics::new().unwrap();
    let store = Store::open(&config, Arc::new(DiskFiles), &metrics, background).await.unwrap();
    (store, metrics)
}

/// A repository of the registry `reg.test`.
pub(super) fn scope(repository: &str) -> Scope {
    Scope {
        registry: "reg.test".parse().unwrap(),
        repository: repository.parse().unwrap(),
        generation: Generation::FIRST,
    }
}
