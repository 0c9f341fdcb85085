//! A configuration in YAML, as an operator may write it.

use std::collections::HashSet;

use weir::config::{Capability, Config, ConfigError, Problem};

pub(crate) fn holds(input: &[u8]) {
    let Ok(text) = str::from_utf8(input) else { return };
    // Files that it names are read, and it must not name what never ends.
    if text.contains("/dev") || text.contains("/proc") {
        return;
    }
    match Config::from_yaml(text) {
        Ok(config) => makes_sense(&config, text),
        Err(ConfigError::Invalid(problems)) => {
            assert!(!problems.is_empty());
            // A carriage return ends a line in YAML.
            let text = text.replace("\r\n", "\n").replace('\r', "\n");
            for problem in &problems {
                has_its_place(problem, &text);
            }
        }
        Err(error) => panic!("nothing was read from a file: {error}"),
    }
}

/// What every room relies on.
fn makes_sense(config: &Config, text: &str) {
    let again = Config::from_yaml(text).expect("it was valid before");
    assert_eq!(format!("{config:?}"), format!("{again:?}"), "the same text means the same");
    let mut names = HashSet::new();
    for registry in &config.registries {
        for name in std::iter::once(&registry.host).chain(&registry.aliases) {
            assert!(names.insert(name.path_component()), "{name} leads to two registries");
        }
        assert!(registry.aliases.iter().all(|alias| alias.as_str().contains('.')), "{:?}", registry.aliases);
        assert!(registry.upstreams.iter().any(|upstream| upstream.can(Capability::Resolve)), "{}", registry.host);
        let mut upstreams = HashSet::new();
        for upstream in &registry.upstreams {
            assert!(upstreams.insert(&upstream.name), "{} twice", upstream.name);
            assert!(matches!(upstream.url.scheme(), "http" | "https") && upstream.url.has_host(), "{}", upstream.url);
            assert!(upstream.url.username().is_empty() && upstream.url.password().is_none(), "{}", upstream.url);
            assert!(upstream.credentials.is_empty() || registry.allow_unauthenticated, "{}", registry.host);
        }
    }
    if let Some(default) = &config.server.default_registry {
        assert!(config.registries.iter().any(|registry| registry.host == *default), "{default} is not served");
    }
    let (own, admin) = (config.server.listen, config.admin.listen);
    assert!(own != admin || own.port() == 0, "{own} and {admin}");
}

/// An explanation says where, and that is a place in the text.
fn has_its_place(problem: &Problem, text: &str) {
    let shown = problem.to_string();
    let first = shown.lines().next().unwrap_or_default();
    assert!(first.starts_with(|letter: char| letter.is_uppercase() || letter == '`'), "{shown}");
    assert!(!first.ends_with('.'), "{shown}");
    let place = shown.lines().find_map(|line| line.strip_prefix("  at <text>:")).unwrap_or_else(|| panic!("{shown}"));
    let (line, column) = place.split_once(':').unwrap_or_else(|| panic!("{shown}"));
    let [line, column] = [line, column].map(|number| number.parse::<usize>().unwrap_or_else(|_| panic!("{shown}")));
    assert!(line >= 1 && line <= text.lines().count().max(1) + 1, "{shown}");
    let width = text.lines().nth(line - 1).map_or(0, |line| line.chars().count());
    assert!(column >= 1 && column <= width + 1, "{column} is behind the end of a line of {width}\n{shown}");
}
