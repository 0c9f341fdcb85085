//! Files and environment variables to one tree, and that to a [`Config`].

use std::path::PathBuf;

use super::files::{self, FilesRead};
use super::problem::{ConfigError, Problem};
use super::source::{Place, Source};
use super::tree::{self, Entry, Node, Value};
use super::{Config, read, yaml};
use crate::oci::{Algorithm, Hasher};

/// How environment variables that override keys begin: `WEIR__SERVER__LISTEN` is `server.listen`.
const PREFIX: &str = "WEIR__";

/// How many hexadecimal digits of a hash are enough to tell configurations apart.
const HASH_LENGTH: usize = 16;

/// What to load from.
#[derive(Debug, Clone, Default)]
pub struct LoadOptions {
    /// Files in YAML or JSON; later ones override earlier ones. None is fine.
    pub files: Vec<PathBuf>,
    /// The environment of the process: `WEIR__..` variables override files, `password_env` looks here.
    pub environment: Vec<(String, String)>,
}

/// What came of loading.
#[derive(Debug)]
pub struct Loaded {
    /// The configuration, or what is wrong with it.
    pub config: Result<Config, ConfigError>,
    /// What was read for it, as far as that went: the files themselves, and those that they name.
    pub files: FilesRead,
    /// Tells one configuration from another: the beginning of a digest over the files and variables it was read from,
    /// without what the files name.
    pub hash: String,
}

impl LoadOptions {
    /// Loads, merges and checks the configuration.
    pub fn load(&self) -> Loaded {
        let mut files = FilesRead::default();
        // All are read, whatever is wrong with one: all are to be listed.
        let read = |path: &PathBuf| match files.read_configuration(path) {
            Ok(text) => Ok(Source::file(path.display().to_string(), text)),
            Err(source) => Err(ConfigError::Unreadable { path: path.clone(), source }),
        };
        let read: Vec<_> = self.files.iter().map(read).collect();
        let sources: Result<Vec<_>, _> = read.into_iter().collect();
        let mut hasher = Hasher::new(Algorithm::Sha256);
        let config = sources.and_then(|sources| {
            for source in &sources {
                hasher.update(source.text().as_bytes());
                hasher.update(&[0]);
            }
            let trees = sources.iter().map(yaml::parse);
            let variables = self.variables().filter_map(|(name, value)| variable(name, value));
            let mut config = from_trees(trees.chain(variables), &self.environment, &mut files)?;
            config.warnings.extend(self.environment.iter().filter_map(|(name, _)| misspelled(name)));
            Ok(config)
        });
        for (name, value) in self.variables() {
            hasher.update(format!("{name}={value}\0").as_bytes());
        }
        let hash = hasher.finish().hex().chars().take(HASH_LENGTH).collect();
        Loaded { config, files, hash }
    }

    /// Loads the configuration once more. A file that is not one, such as a pipe, would be found empty: it is refused.
    pub fn load_again(&self) -> Loaded {
        match self.files.iter().find(|path| !files::can_be_read_again(path)) {
            None => self.load(),
            Some(path) => Loaded {
                config: Err(ConfigError::ReadOnce { path: path.clone() }),
                files: FilesRead::default(),
                hash: String::new(),
            },
        }
    }

    fn variables(&self) -> impl Iterator<Item = (&str, &str)> {
        let variables = self.environment.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        variables.filter(|(name, _)| name.starts_with(PREFIX))
    }

    /// Which sources have a say, in words.
    pub fn origin(&self) -> String {
        let files: Vec<String> = self.files.iter().map(|path| path.display().to_string()).collect();
        let files = if files.is_empty() { "built-in defaults, no file".to_owned() } else { files.join(", ") };
        match self.variables().count() {
            0 => files,
            1 => format!("{files} and 1 environment variable"),
            number => format!("{files} and {number} environment variables"),
        }
    }
}

impl Config {
    /// Loads, merges and checks the configuration.
    pub fn load(options: &LoadOptions) -> Result<Self, ConfigError> {
        options.load().config
    }

    /// The configuration in one text, for tests and examples. The environment has no say.
    pub fn from_yaml(text: &str) -> Result<Self, ConfigError> {
        from_trees(std::iter::once(yaml::parse(&Source::file("<text>", text))), &[], &mut FilesRead::default())
    }
}

/// Merges `trees`, later ones over earlier ones, and reads the result. Texts that do not parse are told together.
pub(super) fn from_trees(
    trees: impl Iterator<Item = Result<Node, Problem>>,
    environment: &[(String, String)],
    files: &mut FilesRead,
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
    if problems.is_empty() { read::config(&merged, environment, files) } else { Err(ConfigError::Invalid(problems)) }
}

/// A warning about a variable that looks like a key, but for the number of underscores.
fn misspelled(name: &str) -> Option<String> {
    let rest = name.strip_prefix("WEIR_").filter(|_| !name.starts_with(PREFIX))?;
    let lower = rest.to_ascii_lowercase();
    let meant = read::keys::ROOT.names().into_iter().find_map(|section| {
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
