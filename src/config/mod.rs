//! The configuration: what may stand in `weir.yaml`, checked once at start.
//!
//! The types here are the validated form; holding a [`Config`] proves that it makes sense as a whole. How text becomes
//! one is a matter of the private modules: `load` collects the sources, `yaml` parses each into a `tree` whose nodes
//! know their places, the trees are merged, and `read` turns the result into types and notes everything that is wrong.
//! No other room's types appear here, so that every room can import this one.

pub mod bucket;
pub mod credentials;
pub mod network;
pub mod registries;
pub mod routes;
pub mod secret;
pub mod server;
pub mod store;
pub mod tags;

pub mod address;
mod builtin;
mod docker;
mod files;
#[cfg(test)]
mod json_schema;
mod load;
mod mask;
mod problem;
mod read;
#[cfg(test)]
mod sample_tests;
mod schema;
#[cfg(test)]
mod schema_tests;
mod source;
#[cfg(test)]
mod source_tests;
#[cfg(test)]
mod tests;
mod tree;
mod units;
mod yaml;

pub use bucket::{AccessKey, Addressing, BucketConfig, BucketCredentials};
pub use builtin::own_url;
pub use credentials::{Credential, CredentialHelper, CredentialRule, CredentialSource};
pub use files::{FilesRead, read_file};
pub use load::{LoadOptions, Loaded};
pub use network::{
    Authorities, ClientCertificate, IpFamily, NetworkConfig, ProxyChoice, ProxyCredentials, ProxyServer, Verification,
};
pub use problem::{ConfigError, Problem};
pub use registries::{Access, Capability, RegistryConfig, RepositoryPattern, UpstreamConfig};
pub use routes::{Equivalence, Extent, Repositories, Rewrite};
pub use schema::schema;
pub use secret::Secret;
pub use server::{AdminConfig, LogConfig, LogFormat, SendFile, ServerConfig, TlsConfig};
pub use store::{SizeLimit, StoreConfig};
pub use tags::{OnDrift, OnUpstreamNotFound, TagsConfig};
pub use units::{bytes, duration};

/// Everything an operator can decide.
#[derive(Debug, Clone)]
pub struct Config {
    /// The registry listener.
    pub server: ServerConfig,
    /// The listener for metrics and probes.
    pub admin: AdminConfig,
    /// Where content is kept, and how much of it.
    pub store: StoreConfig,
    /// How long tags are believed.
    pub tags: TagsConfig,
    /// The registries that are served: the built-in ones first, each name once.
    pub registries: Vec<RegistryConfig>,
    /// What is logged, and how.
    pub log: LogConfig,
    /// What is allowed, but may well be a mistake: told at start and by `weir config check`.
    pub warnings: Vec<String>,
}

impl Default for Config {
    /// The built-in configuration: what is served without any file.
    fn default() -> Self {
        Self {
            server: ServerConfig::default(),
            admin: AdminConfig::default(),
            store: StoreConfig::default(),
            tags: TagsConfig::default(),
            registries: builtin::registries(),
            log: LogConfig::default(),
            warnings: Vec::new(),
        }
    }
}
