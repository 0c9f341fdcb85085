//! Which upstreams a question may go to, in order, and what the repository is called at each: the registry's own, then
//! those of repositories that hold the same.

use std::collections::HashMap;
use std::sync::Arc;

use super::UpstreamSet;
use super::attempts::{Attempts, Before, Standing};
use super::client::Upstream;
use super::error::Verdict;
use crate::config::{Capability, Equivalence, RegistryConfig};
use crate::oci::{RegistryHost, RepositoryName};

/// An upstream that may be asked.
#[derive(Debug, Clone)]
pub(super) struct Route<'a> {
    pub(super) upstream: &'a Arc<Upstream>,
    /// What it is called in answers, and by no other: that of an equivalent with its registry.
    pub(super) name: &'a Arc<str>,
    /// The repository, by its name there.
    pub(super) repository: RepositoryName,
    pub(super) standing: Standing,
    /// How many come before it, whether they are asked or not.
    pub(super) ahead: usize,
}

/// Repositories of another registry that stand in for some of this one.
#[derive(Debug)]
pub(super) struct Equivalent {
    equivalence: Equivalence,
    /// The other registry's.
    upstreams: Arc<[Arc<Upstream>]>,
    /// What each is called in answers: `quay.io/cdn`, and `quay.io/cdn/acme/app` where several repositories of one
    /// registry stand in for the same. So no two candidates for a repository have a name in common.
    names: Vec<Arc<str>>,
}

impl PartialEq for Equivalent {
    /// The names follow from the rest, of all equivalents of a registry.
    fn eq(&self, other: &Self) -> bool {
        self.equivalence == other.equivalence && Arc::ptr_eq(&self.upstreams, &other.upstreams)
    }
}

/// What stands in for the repositories of `registry`, by the upstreams of all registries.
pub(super) fn equivalents(
    registry: &RegistryConfig,
    own: &HashMap<RegistryHost, Arc<[Arc<Upstream>]>>,
) -> Vec<Equivalent> {
    let stands_in = |equivalence: &Equivalence| {
        let Equivalence { here, there } = equivalence;
        let upstreams = Arc::clone(own.get(&there.registry)?);
        let is_rival = |other: &&Equivalence| other.there.registry == there.registry && other.here.overlaps(here);
        let is_alone = registry.equivalents.iter().filter(is_rival).count() == 1;
        let name = |upstream: &Arc<Upstream>| {
            let name = upstream.labels().join("/");
            if is_alone { name.into() } else { format!("{name}/{}", there.extent).into() }
        };
        let names = upstreams.iter().map(name).collect();
        Some(Equivalent { equivalence: equivalence.clone(), upstreams, names })
    };
    registry.equivalents.iter().filter_map(stands_in).collect()
}

impl Route<'_> {
    /// What those said who come before this one. `asked` are those that were to be asked, and `attempts` what they said
    /// so far.
    pub(super) fn before(&self, asked: &[Route<'_>], attempts: &Attempts) -> Before {
        let earlier = asked.iter().filter(|route| route.ahead < self.ahead);
        let said: Vec<Verdict> = earlier.filter_map(|route| attempts.verdict_of(route.name)).collect();
        let all = |is_so: fn(Verdict) -> bool| said.iter().filter(|verdict| is_so(**verdict)).count() == self.ahead;
        if all(Verdict::is_certain_absence) {
            Before::Absent
        } else if all(Verdict::is_absence) {
            Before::Hidden
        } else {
            Before::Undecided
        }
    }
}

impl UpstreamSet {
    /// Whether anybody is trusted with `capability` for `repository`.
    pub fn serves(&self, repository: &RepositoryName, capability: Capability) -> bool {
        !self.routes(repository, capability).is_empty()
    }

    /// Whether `upstream` speaks for repositories of another registry.
    pub fn is_equivalent(&self, upstream: &str) -> bool {
        self.equivalents.iter().any(|equivalent| equivalent.names.iter().any(|name| **name == *upstream))
    }

    /// Those that may say what the tags of `repository` mean, in the order in which their word counts.
    pub fn resolvers(&self, repository: &RepositoryName) -> Vec<Arc<str>> {
        self.routes(repository, Capability::Resolve).into_iter().map(|route| Arc::clone(route.name)).collect()
    }

    /// The upstream that is called `name` in answers.
    pub(super) fn called(&self, name: &str) -> Option<&Arc<Upstream>> {
        let own = self.upstreams.iter().find(|upstream| *upstream.name == *name);
        let others = self.equivalents.iter().flat_map(|equivalent| equivalent.upstreams.iter().zip(&equivalent.names));
        own.or_else(|| others.into_iter().find(|(_, label)| &***label == name).map(|(upstream, _)| upstream))
    }

    /// The upstreams that are trusted with `capability` and have `repository`, in order.
    pub(super) fn routes(&self, repository: &RepositoryName, capability: Capability) -> Vec<Route<'_>> {
        let own = self.upstreams.iter().map(|upstream| {
            let is_authority = upstream.can(Capability::Resolve);
            let standing = if is_authority { Standing::Authority } else { Standing::Mirror };
            (upstream, &upstream.name, upstream.config.name_of(repository), standing)
        });
        let others = self.equivalents.iter().flat_map(|equivalent| {
            let name = equivalent.equivalence.name_of(repository);
            let upstreams = equivalent.upstreams.iter().zip(&equivalent.names);
            upstreams.map(move |(upstream, label)| {
                let name = name.as_ref().and_then(|name| upstream.config.name_of(name));
                (upstream, label, name, Standing::Equivalent)
            })
        });
        let mut routes = Vec::new();
        for (upstream, name, repository, standing) in own.chain(others) {
            if let Some(repository) = repository.filter(|_| upstream.can(capability)) {
                routes.push(Route { upstream, name, repository, standing, ahead: routes.len() });
            }
        }
        routes
    }
}
