//! Which repositories an upstream is asked for, by which names, and which others stand in: as read, and as refused.

use super::{error, registry, valid};

#[test]
fn what_no_repository_can_meet_is_refused_with_an_explanation() {
    for (yaml, explanation) in [
        ("equivalents: [quay.io/a]", "`equivalents[0]` is a single value, but must be a list"),
        ("equivalents: [[quay.io/a]]", "names fewer than two repositories"),
        ("equivalents: [[quay.io/a, acme/b]]", "`equivalents[0][1]` is `acme/b`, but must be a repository with its"),
        ("equivalents: [[quay.io/a, r.example/b]]", "names a repository of `r.example`, which is not served"),
        ("equivalents: [[quay.io/a/**, ghcr.io/b]]", "`ghcr.io/b` is one repository, in a list of prefixes"),
        (
            "equivalents: [[quay.io/a, quay.io/a]]",
            "`quay.io/a` stands in `equivalents` twice; the first time at <text>:1:",
        ),
        (
            "equivalents: [[docker.io/nginx, quay.io/a], [ghcr.io/b, index.docker.io/library/nginx]]",
            "stands in `equivalents` twice",
        ),
        (
            "registries: { a.b: { upstreams: [{ url: 'https://a.b', rewrite: {} }] } }",
            "`registries.a.b.upstreams[0].rewrite` changes nothing",
        ),
        (
            "registries: { a.b: { upstreams: [{ url: 'https://a.b', rewrite: { from: x, to: x } }] } }",
            "`registries.a.b.upstreams[0].rewrite` changes nothing",
        ),
        (
            "registries: { a.b: { upstreams: [{ url: 'https://a.b', rewrite: { from: ghcr.io/X } }] } }",
            "`registries.a.b.upstreams[0].rewrite.from` is `ghcr.io/X`, but must be a repository name",
        ),
        (
            "registries: { a.b: { upstreams: [{ url: 'https://a.b', match: [] }] } }",
            "`registries.a.b.upstreams[0].match` is empty",
        ),
        (
            "registries: { a.b: { upstreams: [{ url: 'https://a.b', match: ['acme/**'], rewrite: { from: library } }] } }",
            "`acme/**` matches no repository that `registries.a.b.upstreams[0].rewrite` can rewrite",
        ),
        ("tags: { on_drift: keep }", "did you mean `keep_last`?"),
    ] {
        let error = error(yaml);
        assert!(error.contains(explanation), "{explanation:?} is missing for {yaml:?} in\n{error}");
    }
}

#[test]
fn a_rewrite_that_leaves_no_room_for_a_name_is_refused() {
    let error = error(&format!(
        "registries: {{ a.b: {{ upstreams: [{{ url: 'https://a.b', rewrite: {{ to: {} }} }}] }} }}",
        "a".repeat(254)
    ));
    assert!(error.contains("`registries.a.b.upstreams[0].rewrite.to` has 254 characters"), "{error}");
}

#[test]
fn a_repository_without_an_upstream_that_may_resolve_is_warned_about() {
    let mirror = "{ url: 'https://mirror.example.com' }";
    for (resolver, lacking) in [
        ("", None),
        ("match: ['**']", None),
        ("match: ['*/**']", None),
        ("match: ['*/*', '*/*/*', '*/*/*/**']", None),
        ("rewrite: { to: acme }", None),
        ("match: ['library/**']", Some("`other/other`")),
        ("match: ['other/**', '*/*']", Some("`others/others/others`")),
        ("rewrite: { from: library, to: acme }", Some("`other/other`")),
    ] {
        let hub = format!("{{ url: 'https://registry-1.docker.io', {resolver} }}");
        let config = valid(&format!("registries: {{ docker.io: {{ upstreams: [{mirror}, {hub}] }} }}"));
        match lacking {
            Some(name) => {
                let warning = config.warnings.first().map(String::as_str).unwrap_or_default();
                assert!(warning.starts_with("`registries.docker.io.upstreams` holds no upstream"), "{resolver}");
                assert!(warning.contains(name), "{warning}");
            }
            None => assert_eq!(config.warnings, [""; 0], "{resolver}"),
        }
    }
}

#[test]
fn equivalents_stand_in_for_each_other_in_the_order_of_their_list() {
    let config = valid(
        "equivalents:\n  - [quay.io/a, ghcr.io/b, index.docker.io/nginx]\n  - [quay.io/acme/**, docker.io/ac/**]\n",
    );
    let others = |host: &str, name: &str| -> Vec<String> {
        let name = name.parse().unwrap();
        let equivalents = registry(&config, host).equivalents.iter();
        equivalents
            .filter_map(|equivalent| Some(format!("{}/{}", equivalent.there.registry, equivalent.name_of(&name)?)))
            .collect()
    };
    assert_eq!(others("quay.io", "a"), ["ghcr.io/b", "docker.io/library/nginx"]);
    assert_eq!(others("docker.io", "library/nginx"), ["quay.io/a", "ghcr.io/b"]);
    assert_eq!(others("docker.io", "ac/x"), ["quay.io/acme/x"]);
    assert_eq!(others("ghcr.io", "other"), [""; 0]);
}
