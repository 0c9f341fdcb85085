//! `match` and `rewrite` of an upstream: which repositories it is asked for, and what they are called there.

use super::section::Section;
use super::{keys, scalars};
use crate::config::problem::Problem;
use crate::config::registries::{Capability, RegistryConfig, RepositoryPattern, UpstreamConfig};
use crate::config::routes::{MAX_PREFIX_LENGTH, Rewrite};
use crate::oci::RepositoryName;

/// Reads both for the upstream in `section`. What no repository can meet is noted.
pub(super) fn read(section: &Section<'_>) -> (Vec<RepositoryPattern>, Rewrite) {
    let rewrite = rewrite(section);
    if section.length("match") == Some(0) {
        let help = "Name patterns such as `library/**`, or remove the key: without it, all repositories are meant";
        section.wrong("match", format!("`{}` is empty", section.name("match")), help);
    }
    let patterns = section.placed_values("match", scalars::repository_pattern).unwrap_or_default();
    if let Some(from) = &rewrite.from {
        for (pattern, place) in
            patterns.iter().filter(|(pattern, _)| !pattern.reaches_below(from, rewrite.to.is_some()))
        {
            let message = format!("`{pattern}` matches no repository that `{}` can rewrite", section.name("rewrite"));
            let help = format!(
                "Names are matched before they are rewritten, and only what is below `{from}` is: \
                 write `{from}/**`, or remove `match`"
            );
            section.problem(Problem::at(place, message).help(help));
        }
    }
    (patterns.into_iter().map(|(pattern, _)| pattern).collect(), rewrite)
}

fn rewrite(upstream: &Section<'_>) -> Rewrite {
    if !upstream.has("rewrite") {
        return Rewrite::default();
    }
    let section = upstream.section("rewrite", &keys::REWRITE);
    let rewrite = Rewrite {
        from: section.value("from", scalars::repository_name),
        to: section.value("to", scalars::repository_name),
    };
    let example = "Write it as `{ from: library, to: acme/hub }`; one of the two may be left out";
    let was_given = section.has("from") || section.has("to");
    if section.is_map() && (!was_given || (rewrite.from.is_some() && rewrite.from == rewrite.to)) {
        upstream.wrong("rewrite", format!("`{}` changes nothing", section.path()), example);
    }
    if let Some(to) = rewrite.to.as_ref().filter(|to| to.as_str().len() > MAX_PREFIX_LENGTH) {
        let message =
            format!("`{}` has {} characters and leaves no room for a name", section.name("to"), to.as_str().len());
        section.wrong("to", message, "A repository name has at most 255 characters, what is put in front included");
    }
    rewrite
}

/// What to warn about if some repository of `registry` has no upstream that may say what its tags mean; `key` is where
/// its upstreams stand.
pub(super) fn gap(key: &str, registry: &RegistryConfig) -> Option<String> {
    let resolvers = registry.upstreams.iter().filter(|upstream| upstream.can(Capability::Resolve));
    let resolvers: Vec<&UpstreamConfig> = resolvers.collect();
    if resolvers.is_empty() {
        // An error of its own.
        return None;
    }
    let names = resolvers.iter().flat_map(|upstream| {
        let patterns = upstream.matches.iter().map(ToString::to_string);
        patterns.chain(upstream.rewrite.from.as_ref().map(ToString::to_string))
    });
    let names: Vec<String> = names.collect();
    let named: Vec<&str> = names.iter().flat_map(|name| name.split('/')).collect();
    let mut stranger = "other".to_owned();
    while named.contains(&stranger.as_str()) {
        stranger.push('s');
    }
    // A name of parts that nobody names is served only by what serves all names of its length; what is longer than all
    // patterns is the same to each of them. Names on Docker Hub have two parts at least.
    let shortest = if registry.host.is_docker_hub() { 2 } else { 1 };
    let longest = names.iter().map(|name| name.split('/').count()).max().unwrap_or_default().max(shortest) + 1;
    let strangers = (shortest..=longest).filter_map(|length| vec![stranger.as_str(); length].join("/").parse().ok());
    let is_lacking = |name: &RepositoryName| resolvers.iter().all(|upstream| upstream.name_of(name).is_none());
    let lacking = strangers.into_iter().find(is_lacking)?;
    Some(format!(
        "`{key}` holds no upstream that may resolve the tags of every repository: those of `{lacking}`, for one, are \
         answered 404"
    ))
}
