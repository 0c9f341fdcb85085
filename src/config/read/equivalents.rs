//! `equivalents`: lists of repositories that hold the same.

use super::section::{PlacedList, Section, Wrong, expected};
use crate::config::problem::Problem;
use crate::config::registries::RegistryConfig;
use crate::config::routes::{Equivalence, Extent, Repositories};
use crate::config::source::Place;
use crate::oci::image::normalise;

/// What an item of a list is, for errors.
const ITEM: &str =
    "a repository with its registry, such as `quay.io/acme/app`, or all below a prefix, such as `quay.io/acme/**`";

/// A list of repositories, each with its place.
type Group<'a> = Vec<(Repositories, &'a Place)>;

/// Reads the lists, and tells each registry what stands in for its repositories.
pub(super) fn read(root: &Section<'_>, mut registries: Vec<RegistryConfig>) -> Vec<RegistryConfig> {
    let mut known: Vec<(Repositories, &Place)> = Vec::new();
    for list in root.placed_lists("equivalents", repositories).unwrap_or_default() {
        let PlacedList { values: members, place, length } = list;
        if length < 2 {
            let message = "A list of `equivalents` names fewer than two repositories";
            let help =
                "Write it as `[quay.io/acme/app, docker.io/acme/app]`, in the order in which they are to be tried";
            root.problem(Problem::at(place, message).help(help));
        }
        let group: Group<'_> =
            members.into_iter().filter_map(|(member, place)| named(root, member, place, &registries)).collect();
        if !is_sound(root, &group, &known) {
            continue;
        }
        for (here, _) in &group {
            let Some(registry) = registries.iter_mut().find(|registry| registry.host == here.registry) else {
                continue;
            };
            let others = group.iter().filter(|(there, _)| there != here);
            registry
                .equivalents
                .extend(others.map(|(there, _)| Equivalence { here: here.extent.clone(), there: there.clone() }));
        }
        known.extend(group);
    }
    registries
}

fn repositories(text: &str) -> Result<Repositories, Wrong> {
    let parse = || {
        let (registry, path) = text.split_once('/')?;
        let registry = super::scalars::registry_host(registry).ok()?;
        let extent = match path.strip_suffix("**") {
            Some("") => Extent::Below(None),
            Some(prefix) => Extent::Below(Some(prefix.strip_suffix('/')?.parse().ok()?)),
            None => Extent::One(path.parse().ok()?),
        };
        Some(Repositories { registry, extent })
    };
    expected(parse(), ITEM)
}

/// The same by its own name, or a note that its registry is not served.
fn named<'a>(
    root: &Section<'_>,
    member: Repositories,
    place: &'a Place,
    registries: &[RegistryConfig],
) -> Option<(Repositories, &'a Place)> {
    let name = &member.registry;
    let is_meant = |registry: &&RegistryConfig| registry.host == *name || registry.aliases.contains(name);
    let Some(registry) = registries.iter().find(is_meant) else {
        let message = format!("`equivalents` names a repository of `{name}`, which is not served");
        let help = format!("Add `{name}` under `registries`, so that its upstreams are known");
        root.problem(Problem::at(place, message).help(help));
        return None;
    };
    let extent = match member.extent {
        // As requests for it are understood.
        Extent::One(name) => Extent::One(normalise(&registry.host, name.clone()).unwrap_or(name)),
        prefix @ Extent::Below(_) => prefix,
    };
    Some((Repositories { registry: registry.host.clone(), extent }, place))
}

/// Whether `group` says something, and nothing that another one says; if not, that is noted.
fn is_sound(root: &Section<'_>, group: &Group<'_>, known: &Group<'_>) -> bool {
    let wrong = |place: &Place, message: String, help: &str| root.problem(Problem::at(place, message).help(help));
    let is_prefix = |(member, _): &(Repositories, &Place)| matches!(member.extent, Extent::Below(_));
    if group.iter().any(is_prefix)
        && let Some((member, place)) = group.iter().find(|member| !is_prefix(member))
    {
        let message = format!("`{member}` is one repository, in a list of prefixes");
        wrong(place, message, "Let all items of a list end in `/**`, or none");
        return false;
    }
    for (index, (member, place)) in group.iter().enumerate() {
        let earlier = known.iter().chain(&group[..index]);
        if let Some((_, first)) = earlier.into_iter().find(|(other, _)| other == member) {
            let message = format!("`{member}` stands in `equivalents` twice; the first time at {first}");
            wrong(place, message, "Make one list of those that hold the same");
            return false;
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::{RegistryHost, RepositoryName};

    fn extent(text: &str) -> Option<(RegistryHost, Option<RepositoryName>)> {
        let Repositories { registry, extent } = repositories(text).ok()?;
        Some((
            registry,
            match extent {
                Extent::One(name) => Some(name),
                Extent::Below(prefix) => prefix,
            },
        ))
    }

    #[test]
    fn items_name_a_registry_and_a_repository_or_a_prefix() {
        let some = |registry: &str, name: &str| Some((registry.parse().unwrap(), name.parse().ok()));
        assert_eq!(extent("quay.io/acme/app"), some("quay.io", "acme/app"));
        assert_eq!(extent("reg:5000/a/**"), some("reg:5000", "a"));
        assert_eq!(extent("quay.io/**"), some("quay.io", ""));
        for text in ["", "quay.io", "quay.io/", "acme/app", "quay.io/a**", "quay.io/*/b", "quay.io/A", "quay.io/a/**/b"]
        {
            assert_eq!(extent(text), None, "{text}");
        }
    }
}
