//! Files and environment variables to one tree, and that to a [`Config`].

use std::fs;
use std::path::PathBuf;

use super::problem::{ConfigError, Problem};
use super::source::{Place, Source};
use super::tree::{self, Entry, Node, Value};
use super::{Config, read, yaml};

/// How environment variables that override keys begin: `WEIR__SERVER__LISTEN` is `server.listen`.
const PREFIX: &str = "WEIR__";

/// What to load from.
#[derive(Debug, Clone, Default)]
pub struct LoadOptions {
    /// Files in YAML or JSON; later ones override earlier ones. None is fine.
    pub files: Vec<PathBuf>,
    /// The environment of the process: `WEIR__..` variables override files, `password_env` looks here.
    pub environment: Vec<(String, String)>,
}

impl LoadOptions {
    /// Which sources have a say, in words.
    pub fn origin(&self) -> String {
        let files: Vec<String> = self.files.iter().map(|path| path.display().to_string()).collect();
        let files = if files.is_empty() { "built-in defaults, no file".to_owned() } else { files.join(", ") };
        match self.environment.iter().filter(|(name, _)| name.starts_with(PREFIX)).count() {
            0 => files,
            1 => format!("{files} and 1 environment variable"),
            number => format!("{files} and {number} environment variables"),
        }
    }
}

impl Config {
    /// Loads, merges and checks the configuration.
    pub fn load(options: &LoadOptions) -> Result<Self, ConfigError> {
        let mut sources = Vec::new();
        for path in &options.files {
            let text =
                fs::read_to_string(path).map_err(|source| ConfigError::Unreadable { path: path.clone(), source })?;
            sources.push(Source::file(path.display().to_string(), text));
        }
        let trees = sources.iter().map(yaml::parse);
        let variables = options.environment.iter().filter_map(|(name, value)| variable(name, value));
        let mut config = from_trees(trees.chain(variables), &options.environment)?;
        config.warnings.extend(options.environment.iter().filter_map(|(name, _)| misspelled(name)));
        Ok(config)
    }

    /// The configuration in one text, for tests and examples. The environment has no say.
    pub fn from_yaml(text: &str) -> Result<Self, ConfigError> {
        from_trees(std::iter::once(yaml::parse(&Source::file("<text>", text))), &[])
    }
}

/// Merges `trees`, later ones over earlier ones, and reads the result. Texts that do not parse are told together.
fn from_trees(
    trees: impl Iterator<Item = Result<Node, Problem>>,
    environment: &[(String, String)],
) -> Result<Config, ConfigError> {
    let mut merged = Node { value: Value::Null, place: Place::start_of(&Source::file("<built-in>", "")) };
    let mut problems = Vec::new();
    for tree in trees {
        match tree {
            // A file of comments alone takes nothing away.
            Ok(Node { value: Value::Null, .. }) => {}
            Ok(tree) => merged = tree::merge(merged, tree),
            Err(problem) => problems.push(problem),
        }
    }
    if problems.is_empty() { read::config(&merged, environment) } else { Err(ConfigError::Invalid(problems)) }
}

/// A warning about a variable that looks like a key, but for the number of underscores.
fn misspelled(name: &str) -> Option<String> {
    let rest = name.strip_prefix("WEIR_").filter(|_| !name.starts_with(PREFIX))?;
    let lower = rest.to_ascii_lowercase();
    let meant = read::keys::ROOT.known.iter().find_map(|section| {
        let below = &rest[lower.strip_prefix(section).map(|below| rest.len() - below.len())?..];
        match below.strip_prefix('_').map(|key| key.trim_start_matches('_')) {
            None if below.is_empty() => Some(format!("{PREFIX}{rest}")),
            // Kubernetes sets variables of these forms for every service, and one may be called `weir-store`.
            Some(key) if !key.is_empty() && !key.starts_with("SERVICE_") && !key.starts_with("PORT") => {
                Some(format!("{PREFIX}{}__{key}", &rest[..section.len()]))
            }
            _ => None,
        }
    })?;
    Some(format!("The environment variable {name} means nothing; did you mean {meant}?"))
}

/// The tree that an environment variable stands for: nested maps of one key each. `None` for other variables.
fn variable(name: &str, value: &str) -> Option<Result<Node, Problem>> {
    let path = name.strip_prefix(PREFIX)?.to_ascii_lowercase();
    let source = Source::variable(name, value);
    let place = Place::start_of(&source);
    let leaf = if value.is_empty() {
        // Set to nothing is the empty text, which means "none" for some keys; YAML would read a null.
        Ok(Node { value: Value::Scalar(String::new()), place: place.clone() })
    } else {
        yaml::parse(&source)
    };
    Some(leaf.map(|leaf| {
        path.rsplit("__").fold(leaf, |value, key| Node {
            value: Value::Map(vec![Entry { key: key.to_owned(), key_place: place.clone(), value }]),
            place: place.clone(),
        })
    }))
}
