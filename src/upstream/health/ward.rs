//! The health of all upstreams in force: what operators see of it and do about it, and the rounds of probes.

use std::future;
use std::sync::Arc;

use parking_lot::RwLock;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use super::schedule::Due;
use super::{TimeGiven, UpstreamReport};
use crate::oci::RegistryHost;
use crate::upstream::UpstreamSet;
use crate::upstream::client::Upstream;

/// The health of the upstreams that are in force. Clones share one state, and follow the configuration.
#[derive(Debug, Clone, Default)]
pub struct UpstreamHealth {
    ward: Arc<Ward>,
}

#[derive(Debug, Default)]
struct Ward {
    sets: RwLock<Vec<Arc<UpstreamSet>>>,
    bell: Arc<Notify>,
}

/// There is no such upstream.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("Registry `{registry}` has no upstream `{upstream}`: it has {}", listed(known))]
pub struct UnknownUpstream {
    /// The registry that was named.
    pub registry: RegistryHost,
    /// The upstream that was named.
    pub upstream: String,
    /// The names of those that it has.
    pub known: Vec<Arc<str>>,
}

fn listed(names: &[Arc<str>]) -> String {
    if names.is_empty() { "none".to_owned() } else { format!("`{}`", names.join("`, `")) }
}

impl UpstreamHealth {
    /// How every upstream is, by registry and in the configured order.
    pub fn reports(&self) -> Vec<UpstreamReport> {
        let mut sets = self.ward.sets.read().clone();
        sets.sort_by(|one, other| one.registry.cmp(&other.registry));
        sets.iter().flat_map(|set| set.upstreams.iter()).map(|upstream| upstream.health.report()).collect()
    }

    /// Lets nobody ask an upstream until then, whatever else can be asked. Holds while one of this name is configured.
    pub fn disable(&self, registry: &RegistryHost, upstream: &str, until: Instant) -> Result<(), UnknownUpstream> {
        self.find(registry, upstream).map(|found| found.health.disable(until))
    }

    /// Takes that back.
    pub fn enable(&self, registry: &RegistryHost, upstream: &str) -> Result<(), UnknownUpstream> {
        self.find(registry, upstream).map(|found| found.health.enable())
    }

    fn find(&self, registry: &RegistryHost, name: &str) -> Result<Arc<Upstream>, UnknownUpstream> {
        let sets = self.ward.sets.read();
        let set = sets.iter().find(|set| *set.registry == *registry.as_str());
        let upstreams: &[Arc<Upstream>] = set.map_or(&[], |set| &set.upstreams);
        upstreams.iter().find(|upstream| *upstream.name == *name).cloned().ok_or_else(|| UnknownUpstream {
            registry: registry.clone(),
            upstream: name.to_owned(),
            known: upstreams.iter().map(|upstream| Arc::clone(&upstream.name)).collect(),
        })
    }

    /// Looks after all upstreams, those of later configurations included, for as long as it is polled.
    pub async fn watch(self) {
        let mut looks = JoinSet::new();
        loop {
            let next = self.round(&mut looks);
            let pause = async {
                match next {
                    Some(time) => sleep_until(time).await,
                    None => future::pending().await,
                }
            };
            tokio::select! {
                () = pause => {}
                () = self.ward.bell.notified() => {}
                Some(_) = looks.join_next() => {}
            }
        }
    }

    /// Begins the looks that are due, and tells when the next one is.
    fn round(&self, looks: &mut JoinSet<()>) -> Option<Instant> {
        let mut next: Option<Instant> = None;
        for set in &*self.ward.sets.read() {
            let time = if set.upstreams.len() > 1 { TimeGiven::EnoughWithOthers } else { TimeGiven::Enough };
            for upstream in set.upstreams.iter() {
                match upstream.health.due() {
                    Due::Never => {}
                    Due::At(then) => next = Some(next.map_or(then, |next| next.min(then))),
                    Due::Now(visit) => {
                        let upstream = Arc::clone(upstream);
                        looks.spawn(async move { visit.end(upstream.look().await, time) });
                    }
                }
            }
        }
        next
    }

    /// What to ring when an upstream should be looked at.
    pub(in crate::upstream) fn bell(&self) -> Arc<Notify> {
        Arc::clone(&self.ward.bell)
    }

    /// From now on `sets` are in force, and no others.
    pub(in crate::upstream) fn follow(&self, sets: Vec<Arc<UpstreamSet>>) {
        let mut in_force = self.ward.sets.write();
        let before = std::mem::replace(&mut *in_force, sets);
        // Who comes may have the name of who goes.
        upstreams_of(&before).filter(|upstream| !is_among(upstream, &in_force)).for_each(|left| left.leave());
        upstreams_of(&in_force).filter(|upstream| !is_among(upstream, &before)).for_each(|new| new.enter());
        drop(in_force);
        self.ward.bell.notify_one();
    }
}

fn upstreams_of(sets: &[Arc<UpstreamSet>]) -> impl Iterator<Item = &Arc<Upstream>> {
    sets.iter().flat_map(|set| set.upstreams.iter())
}

/// Whether it is one of theirs: not one of the same name, but the very same.
fn is_among(upstream: &Arc<Upstream>, sets: &[Arc<UpstreamSet>]) -> bool {
    upstreams_of(sets).any(|other| Arc::ptr_eq(other, upstream))
}
