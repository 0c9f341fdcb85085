//! Every key there is, and of what kind its value is, in one table: readers check against it, the schema is made of it,
//! and tests hold the readers, the sample and the reference page to it.

use super::kind::{Kind, Text};
use super::section::{Keys, Refusal};

/// The top level.
pub(in crate::config) const ROOT: Keys = Keys {
    known: &[
        ("server", Kind::Map(&SERVER)),
        ("admin", Kind::Map(&ADMIN)),
        ("store", Kind::Map(&STORE)),
        ("tags", Kind::Map(&TAGS)),
        ("registries", Kind::MapByRegistry(&REGISTRY)),
        ("builtin_registries", Kind::Boolean),
        ("equivalents", Kind::List(&Kind::Group(&Kind::Text(Text::Repositories)))),
        ("log", Kind::Map(&LOG)),
    ],
    refused: &[],
    one_of: &[],
};

/// `server`.
pub(in crate::config) const SERVER: Keys = Keys {
    known: &[
        ("listen", Kind::Text(Text::SocketAddress)),
        ("external_url", Kind::Text(Text::ExternalUrl)),
        ("default_registry", Kind::Text(Text::RegistryOrNone)),
        ("drain_timeout", Kind::Duration),
        ("max_connections", Kind::Count),
        ("sendfile", Kind::Word(&["auto", "off"])),
        ("tls", Kind::Map(&TLS)),
    ],
    refused: &[],
    one_of: &[],
};

/// `server.tls`.
pub(in crate::config) const TLS: Keys = Keys {
    known: &[("cert_file", Kind::Scalar), ("key_file", Kind::Scalar), ("client_ca_file", Kind::Scalar)],
    refused: &[],
    one_of: &[],
};

/// `admin`.
pub(in crate::config) const ADMIN: Keys = Keys {
    known: &[("listen", Kind::Text(Text::SocketAddress)), ("token_file", Kind::Scalar)],
    refused: &[("token", Refusal::InlineSecret, "Put it into a file and name that as `token_file`")],
    one_of: &[],
};

/// `store`.
pub(in crate::config) const STORE: Keys = Keys {
    known: &[
        ("kind", Kind::Word(&["disk", "s3"])),
        ("path", Kind::Scalar),
        ("max_size", Kind::PositiveSize),
        ("keep_free", Kind::Size),
        ("verify_interval", Kind::Duration),
        ("scrub_rate", Kind::Size),
        ("max_age", Kind::Duration),
        ("max_idle", Kind::Duration),
        ("s3", Kind::Map(&S3)),
    ],
    refused: &[],
    one_of: &[],
};

/// `store.s3`.
pub(in crate::config) const S3: Keys = Keys {
    known: &[
        ("bucket", Kind::Text(Text::BucketName)),
        ("region", Kind::Text(Text::Region)),
        ("endpoint", Kind::Text(Text::ExternalUrl)),
        ("prefix", Kind::Text(Text::KeyPrefix)),
        ("path_style", Kind::Boolean),
        ("ca_file", Kind::Scalar),
        ("access_key_id_file", Kind::Scalar),
        ("secret_access_key_file", Kind::Scalar),
        ("upload_memory", Kind::PositiveSize),
        ("max_size", Kind::PositiveSize),
        ("redirect", Kind::Boolean),
    ],
    refused: &[
        ("access_key_id", Refusal::InlineSecret, KEY_FILES),
        ("secret_access_key", Refusal::InlineSecret, KEY_FILES),
    ],
    one_of: &[],
};

/// Where a key of a bucket is put.
const KEY_FILES: &str = "Name files as `access_key_id_file` and `secret_access_key_file`, or set the environment variables AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY";

/// `tags`.
pub(in crate::config) const TAGS: Keys = Keys {
    known: &[
        ("fresh", Kind::Duration),
        ("max_stale", Kind::Duration),
        ("not_found", Kind::Duration),
        ("on_upstream_not_found", Kind::Word(&["serve_cached", "not_found"])),
        ("on_drift", Kind::Word(&["keep_last", "accept", "error"])),
        ("immutable", Kind::List(&Kind::Text(Text::Regex))),
    ],
    refused: &[],
    one_of: &[],
};

/// One entry of `registries`.
pub(in crate::config) const REGISTRY: Keys = Keys {
    known: &[
        ("aliases", Kind::List(&Kind::Text(Text::Alias))),
        ("access", Kind::Word(&["anonymous", "shared"])),
        ("allow_unauthenticated", Kind::Boolean),
        ("upstreams", Kind::FilledList(&Kind::Map(&UPSTREAM))),
    ],
    refused: &[],
    one_of: &[],
};

/// One item of a registry's `upstreams`.
pub(in crate::config) const UPSTREAM: Keys = Keys {
    known: &[
        ("name", Kind::Text(Text::UpstreamName)),
        ("url", Kind::Text(Text::UpstreamUrl)),
        ("capabilities", Kind::FilledList(&Kind::Word(&["pull", "resolve"]))),
        ("credentials", Kind::List(&Kind::Map(&CREDENTIAL))),
        ("allow_private", Kind::Boolean),
        ("realm_hosts", Kind::List(&Kind::Text(Text::RealmHost))),
        ("ca_file", Kind::Scalar),
        ("match", Kind::FilledList(&Kind::Text(Text::RepositoryPattern))),
        ("rewrite", Kind::Map(&REWRITE)),
        ("client_cert_file", Kind::Scalar),
        ("client_key_file", Kind::Scalar),
        ("insecure_skip_verify", Kind::Boolean),
        ("proxy", Kind::Text(Text::Proxy)),
        ("proxy_password_file", Kind::Scalar),
        ("ip_family", Kind::Word(&["auto", "v4", "v6"])),
        ("max_connections", Kind::Count),
    ],
    refused: &[
        ("username", Refusal::NotOffered, "Put it into an item of `credentials`, with `match: '**'`"),
        ("proxy_password", Refusal::InlineSecret, "Put it into a file and name that as `proxy_password_file`"),
        ("password", Refusal::InlineSecret, "Use an item of `credentials` with `password_file` or `password_env`"),
    ],
    one_of: &[],
};

/// An upstream's `rewrite`.
pub(in crate::config) const REWRITE: Keys = Keys {
    known: &[("from", Kind::Text(Text::RepositoryName)), ("to", Kind::Text(Text::RepositoryName))],
    refused: &[],
    one_of: &[],
};

/// One item of an upstream's `credentials`.
pub(in crate::config) const CREDENTIAL: Keys = Keys {
    known: &[
        ("match", Kind::Text(Text::RepositoryPattern)),
        ("name", Kind::Text(Text::UpstreamName)),
        ("username", Kind::Scalar),
        ("password_file", Kind::Scalar),
        ("password_env", Kind::Scalar),
        ("bearer_token_file", Kind::Scalar),
        ("docker_config_file", Kind::Scalar),
        ("helper_lifetime", Kind::Duration),
    ],
    refused: &[(
        "password",
        Refusal::InlineSecret,
        "Put it into a file and name that as `password_file`, or into an environment variable named by `password_env`",
    )],
    one_of: &["password_file", "password_env", "bearer_token_file", "docker_config_file"],
};

/// `log`.
pub(in crate::config) const LOG: Keys = Keys {
    known: &[("level", Kind::Text(Text::LogLevel)), ("format", Kind::Word(&["auto", "text", "json"]))],
    refused: &[],
    one_of: &[],
};

/// All of them, each with its place: `<host>` and `[]` stand for what the operator chooses.
#[cfg(test)]
pub(in crate::config) fn all() -> Vec<(String, &'static Keys)> {
    fn below(place: String, keys: &'static Keys, found: &mut Vec<(String, &'static Keys)>) {
        let name = |key: &str| if place.is_empty() { key.to_owned() } else { format!("{place}.{key}") };
        let inner: Vec<_> = keys.known.iter().filter_map(|(key, kind)| kind.map_below(&name(key))).collect();
        found.push((place, keys));
        for (place, keys) in inner {
            below(place, keys, found);
        }
    }
    let mut found = Vec::new();
    below(String::new(), &ROOT, &mut found);
    found
}
